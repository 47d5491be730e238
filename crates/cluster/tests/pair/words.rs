//! The model's numbers as the product's words.

use crate::state::{A, B, HOSTS, Host, Number, Ordered, Postgres, Record, State, epoch_of, posts};
use cluster::Epoch;
use cluster::name::{DatabaseName, HostName};
use cluster::order::{Order, Outcome, Stamp, StampedOrder};
use cluster::record::{DatabaseRecord, MirrorRecord, PoolRecord, PoolState, RunRef};
use cluster::report::{HostReport, InstanceReport, InstanceState, OrderReport, ShippingReport};
use cluster::topology::Topology;
use cluster::wal::Lsn;
use std::collections::BTreeMap;

const TOPOLOGY: &str = include_str!("topology.toml");

pub fn topology() -> Topology {
    Topology::from_toml(TOPOLOGY).unwrap_or_else(|findings| panic!("{findings:?}"))
}

pub fn database() -> DatabaseName {
    "mgc".into()
}

pub fn witness() -> HostName {
    "w".into()
}

pub fn name(host: Number) -> HostName {
    ["a", "b"][host].into()
}

pub fn number(name: &HostName) -> Number {
    if name.as_str() == "a" { A } else { B }
}

pub fn record(of: &Record) -> PoolRecord {
    let mgc = DatabaseRecord {
        principal: of.principal.map(name),
        mirror: of.mirror.map(|(host, synchronised)| MirrorRecord { host: name(host), synchronised }),
        ..DatabaseRecord::default()
    };
    PoolRecord {
        version: of.version.into(),
        epoch: Epoch(of.epoch.into()),
        state: PoolState::Normal,
        home: "site-1".into(),
        active_servers: vec!["server-1".into()],
        databases: [(database(), mgc)].into(),
        lost_sites: BTreeMap::new(),
        run: (of.run != 0).then(|| run_ref(of.run)),
    }
}

pub fn run_ref(id: u8) -> RunRef {
    RunRef {
        id: id.to_string(),
        runbook: "force-mirror".into(),
        started_by: "the witness w".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
    }
}

/// The record in numbers. Says so if the product writes something that the model has no place for.
pub fn from_record(of: &PoolRecord) -> Record {
    let mgc = &of.databases[&database()];
    let small = Record {
        epoch: of.epoch.0 as u8,
        version: of.version as u8,
        principal: mgc.principal.as_ref().map(number),
        mirror: mgc.mirror.as_ref().map(|m| (number(&m.host), m.synchronised)),
        run: of.run.as_ref().map_or(0, |r| r.id.parse().expect("runs are numbered")),
    };
    let mut back = record(&small);
    back.run.clone_from(&of.run);
    assert_eq!(&back, of, "the model's record leaves something out");
    small
}

/// Where a log of this length ends.
pub fn position(len: usize) -> Lsn {
    Lsn(100 + len as u64)
}

/// Reports of those that answer the witness.
pub fn reports(state: &State) -> BTreeMap<HostName, HostReport> {
    HOSTS.into_iter().filter(|h| state.meets_witness(*h)).map(|h| (name(h), report(state, h))).collect()
}

fn report(state: &State, host: Number) -> HostReport {
    let h = &state.hosts[host];
    let order = h.order.map(|(run, ordered)| {
        let order = match ordered {
            Ordered::Fence(e) => Order::Fence { database: database(), epoch: Epoch(e.into()) },
            Ordered::Promote(e) => Order::Promote { database: database(), epoch: Epoch(e.into()) },
        };
        let stamp = Stamp { epoch: 0, version: 0, number: 0 };
        let outcome = Outcome::Done { detail: "done".into() };
        (database(), OrderReport::of(StampedOrder { stamp, run: run.to_string(), order }, outcome))
    });
    HostReport {
        record: h.record.as_ref().map(record),
        instances: [(database(), instance(state, host, h))].into(),
        orders: order.into_iter().collect(),
        ..HostReport::empty(name(host), "site-1".into())
    }
}

fn instance(state: &State, host: Number, h: &Host) -> InstanceReport {
    let runs = matches!(h.postgres, Postgres::Standby | Postgres::Writer);
    let at = position(h.log.len());
    let stands = match h.postgres {
        Postgres::Absent => InstanceState::Absent,
        Postgres::Stopped => InstanceState::Stopped,
        Postgres::Standby => InstanceState::Standby,
        Postgres::Writer => InstanceState::Online,
    };
    InstanceReport {
        written: runs.then_some(at),
        applied: runs.then_some(at),
        entries: Some(posts(&h.log).count_ones().into()),
        database_epoch: runs.then(|| Epoch(epoch_of(&h.log).into())),
        shipping: Some(ShippingReport { enabled: true, streaming: state.streams(host), ..ShippingReport::default() }),
        ..InstanceReport::unmeasured(stands)
    }
}
