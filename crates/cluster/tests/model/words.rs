//! The model's numbers as the product's words: topology, records, reports, orders, and back.

use crate::agent;
use crate::state::{
    Ask, Book, HOSTS, Host, HostNumber, How, NAMES, POSTS_MAX, Postgres, Record, SITES, Stamped, State,
};
use crate::world::World;
use cluster::Epoch;
use cluster::name::{DatabaseName, HostName};
use cluster::order::{Order, Outcome, Stamp};
use cluster::record::{DatabaseRecord, MirrorRecord, PoolRecord, PoolState, RunRef};
use cluster::report::{CleanStop, HostReport, InstanceReport, LeftTo, OrderReport, ServerReport, ShippingReport};
use cluster::topology::Topology;
use cluster::wal::Lsn;
use std::collections::BTreeMap;

pub const DATABASE: &str = "mgc";
/// A chat server on the first host of each site.
pub const SERVERS: [&str; 2] = ["server-1", "server-5"];

pub fn database() -> DatabaseName {
    DATABASE.into()
}

pub fn name(host: HostNumber) -> HostName {
    NAMES[usize::from(host)].into()
}

pub fn number(name: &HostName) -> HostNumber {
    HOSTS.into_iter().find(|h| NAMES[usize::from(*h)] == name.as_str()).expect("the model has four hosts")
}

fn site_number(name: &str) -> u8 {
    u8::from(name == SITES[1])
}

/// Where a log of this length ends.
pub fn position(len: u8) -> Lsn {
    Lsn(100 + u64::from(len))
}

/// The pool as a topology, with an authority for each site.
pub fn topology(authorities: [HostNumber; 2]) -> Topology {
    let mut text = String::from("pool = \"model.standfast.example\"\n");
    for (name, authority) in SITES.iter().zip(authorities) {
        text += &format!("[[site]]\nname = \"{name}\"\nauthority = \"{}\"\n", NAMES[usize::from(authority)]);
    }
    for (at, host) in NAMES.iter().enumerate() {
        text += &format!(
            "[[host]]\nname = \"{host}\"\nsite = \"{}\"\nagent = {{ at = \"10.0.0.{at}:5050\" }}\n",
            SITES[at / 2]
        );
    }
    text += &format!("[[database]]\nname = \"{DATABASE}\"\n");
    for (at, (part, host)) in ["primary", "mirror", "backup", "backup_mirror"].iter().zip(NAMES).enumerate() {
        text += &format!("{part} = {{ host = \"{host}\", postgres = {{ at = \"10.0.0.{at}:5432\" }} }}\n");
    }
    text += "log_shipping = { share = \"/share\" }\n";
    for (site, server) in SERVERS.iter().enumerate() {
        text += &format!(
            "[[server]]\nname = \"{server}\"\nhost = \"{}\"\nactive = {}\n\
             clients = {{ at = \"10.0.0.{at}:5041\" }}\nlink = {{ at = \"10.0.0.{at}:8011\" }}\n",
            NAMES[2 * site],
            site == 0,
            at = 2 * site,
        );
    }
    Topology::from_toml(&text).unwrap_or_else(|findings| panic!("{}\n{text}", findings[0]))
}

pub fn record(of: &Record) -> PoolRecord {
    let mgc = DatabaseRecord {
        principal: of.principal.map(name),
        mirror: of.mirror.map(|(host, synchronised)| MirrorRecord { host: name(host), synchronised }),
        backup: of.backup.map(name),
        backup_mirror: of.backup_mirror.map(name),
        shipping_off: false,
    };
    let lost = SITES.iter().zip(of.lost).filter(|(_, epoch)| *epoch != 0);
    PoolRecord {
        version: of.version.into(),
        epoch: Epoch(of.epoch.into()),
        state: if of.failed_over { PoolState::FailedOver } else { PoolState::Normal },
        home: SITES[usize::from(of.home)].into(),
        active_servers: of.active.map(|site| SERVERS[usize::from(site)].into()).into_iter().collect(),
        databases: [(database(), mgc)].into(),
        lost_sites: lost.map(|(site, epoch)| ((*site).into(), Epoch(epoch.into()))).collect(),
        run: (of.run != 0).then(|| run_ref(of.run)),
    }
}

pub fn run_ref(id: u8) -> RunRef {
    RunRef {
        id: id.to_string(),
        runbook: World::runbook(Book::of(id)).name.into(),
        started_by: "ann".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
    }
}

/// The record in numbers. Says so if the product writes something that the model has no place for.
pub fn from_record(of: &PoolRecord) -> Record {
    let mgc = of.databases.get(&database()).cloned().unwrap_or_default();
    let mut lost = [0; 2];
    for (site, epoch) in &of.lost_sites {
        lost[usize::from(site_number(site.as_str()))] = epoch.0 as u8;
    }
    let small = Record {
        epoch: of.epoch.0 as u8,
        version: of.version as u8,
        failed_over: of.state == PoolState::FailedOver,
        home: site_number(of.home.as_str()),
        active: of.active_servers.first().map(|s| u8::from(s.as_str() == SERVERS[1])),
        principal: mgc.principal.as_ref().map(number),
        mirror: mgc.mirror.as_ref().map(|m| (number(&m.host), m.synchronised)),
        backup: mgc.backup.as_ref().map(number),
        backup_mirror: mgc.backup_mirror.as_ref().map(number),
        lost,
        run: of.run.as_ref().map_or(0, |r| r.id.parse().expect("runs are numbered")),
    };
    let mut back = record(&small);
    back.run.clone_from(&of.run);
    assert_eq!(&back, of, "the model's record leaves something out");
    small
}

pub fn order(ask: Ask) -> Order {
    let database = database();
    let epoch = |e: u8| Epoch(e.into());
    match ask {
        Ask::Fence(e) => Order::Fence { database, epoch: epoch(e) },
        Ask::CloseShare(e) => Order::CloseShare { database, epoch: epoch(e) },
        Ask::ApplyAtOnce => Order::ApplyAtOnce { database },
        Ask::HoldBackAgain => Order::HoldBackAgain { database },
        Ask::StopLogShipping => Order::StopLogShipping { database },
        Ask::CopyRemainingLog => Order::CopyRemainingLog { database },
        Ask::ApplyRemainingLog => Order::ApplyRemainingLog { database },
        Ask::DisconnectSessions => Order::DisconnectSessions { database },
        Ask::Promote(e) => Order::Promote { database, epoch: epoch(e) },
        Ask::Checkpoint => Order::Checkpoint { database },
        Ask::SalvageTail(from) => Order::SalvageTail { database, from: name(from) },
        Ask::Rewind(from) => Order::Rewind { database, from: name(from) },
        Ask::HandOver(e) => Order::HandOver { database, epoch: epoch(e) },
        Ask::StartLogShipping => Order::StartLogShipping { database },
        Ask::Reopen(e, after) => Order::Reopen { database, epoch: epoch(e), after: epoch(after) },
    }
}

pub fn from_order(order: &Order) -> Ask {
    let small = |e: &Epoch| e.0 as u8;
    match order {
        Order::Fence { epoch, .. } => Ask::Fence(small(epoch)),
        Order::CloseShare { epoch, .. } => Ask::CloseShare(small(epoch)),
        Order::ApplyAtOnce { .. } => Ask::ApplyAtOnce,
        Order::HoldBackAgain { .. } => Ask::HoldBackAgain,
        Order::StopLogShipping { .. } => Ask::StopLogShipping,
        Order::CopyRemainingLog { .. } => Ask::CopyRemainingLog,
        Order::ApplyRemainingLog { .. } => Ask::ApplyRemainingLog,
        Order::DisconnectSessions { .. } => Ask::DisconnectSessions,
        Order::Promote { epoch, .. } => Ask::Promote(small(epoch)),
        Order::Checkpoint { .. } => Ask::Checkpoint,
        Order::SalvageTail { from, .. } => Ask::SalvageTail(number(from)),
        Order::Rewind { from, .. } => Ask::Rewind(number(from)),
        Order::HandOver { epoch, .. } => Ask::HandOver(small(epoch)),
        Order::StartLogShipping { .. } => Ask::StartLogShipping,
        Order::Reopen { epoch, after, .. } => Ask::Reopen(small(epoch), small(after)),
        Order::Initialise { .. } | Order::Seed { .. } | Order::SeedAnew { .. } => {
            panic!("no runbook of the model gives {order:?}")
        }
    }
}

fn order_report((given, how): (Stamped, How), of: &Host) -> OrderReport {
    let left = matches!((given.ask, how), (Ask::HandOver(_), How::Done)).then_some(of.left_to).flatten();
    OrderReport {
        stamp: Stamp { epoch: given.stamp.0.into(), version: 0, number: given.stamp.1.into() },
        run: given.run.to_string(),
        order: order(given.ask),
        outcome: match how {
            How::Running => Outcome::Running { doing: "it".into() },
            How::Done => Outcome::Done { detail: "done".into() },
            How::Failed => Outcome::Failed { message: "it did not work".into() },
        },
        left_to: left.map(|mirror| LeftTo { host: name(mirror), at: position(of.log.len()) }),
    }
}

/// The report of a host.
pub fn report(world: &World, state: &State, host: HostNumber) -> HostReport {
    let seen = state.host(host);
    let server = host.is_multiple_of(2).then(|| {
        let at = usize::from(host / 2);
        let writes_as = seen.record.principal.filter(|p| {
            let there = state.host(*p);
            seen.record.active == Some(at as u8)
                && state.reaches(host, *p)
                && there.postgres == Postgres::Writer
                && there.log.epoch() == seen.record.epoch
        });
        let said = ServerReport {
            writes_as: writes_as.map(|_| Epoch(seen.record.epoch.into())),
            record_version: seen.record.version.into(),
            ..ServerReport::default()
        };
        (SERVERS[at].into(), said)
    });
    HostReport {
        record: Some(record(&seen.record)),
        instances: [(database(), instance(world, state, host))].into(),
        orders: seen.order.map(|o| (database(), order_report(o, seen))).into_iter().collect(),
        servers: server.into_iter().collect::<BTreeMap<_, _>>(),
        ..HostReport::empty(name(host), SITES[usize::from(crate::state::site(host))].into())
    }
}

fn instance(world: &World, state: &State, host: HostNumber) -> InstanceReport {
    let seen = state.host(host);
    let runs = seen.postgres != Postgres::Stopped;
    let at = position(seen.log.len());
    let stopped_in = seen.record.backup == Some(host) && seen.shipping_stopped_in == seen.record.epoch;
    let shipping = ShippingReport {
        enabled: !stopped_in,
        streaming: state.streams(host),
        share_epoch: (seen.share_epoch != 0).then(|| Epoch(seen.share_epoch.into())),
        ..ShippingReport::default()
    };
    InstanceReport {
        written: runs.then_some(at),
        applied: runs.then_some(at),
        database_epoch: runs.then(|| Epoch(seen.log.epoch().into())),
        synchronous: seen.waits_for.filter(|_| seen.postgres == Postgres::Writer).map(name).into_iter().collect(),
        shipping: Some(shipping),
        shut_down_at: (!runs && seen.clean).then_some(CleanStop { checkpoint: at, end: at }),
        ..InstanceReport::unmeasured(agent::standing(world, seen, host))
    }
}

/// Posts as people read them.
pub fn posts(of: u8) -> String {
    (0..POSTS_MAX).filter(|p| of & 1 << p != 0).map(|p| format!("p{p}")).collect::<Vec<_>>().join(" ")
}
