//! The table of ha-dr §13.3, and what else may stand against a take-over.

use super::*;
use crate::record::{DatabaseRecord, MirrorRecord, PoolState, RunRef};
use crate::topology::PartnerTimeout;
use rules::id::Epoch;
use std::collections::BTreeMap;

const TOPOLOGY: &str = include_str!("../../tests/pair/topology.toml");

struct World {
    topology: Topology,
    record: PoolRecord,
    silent_ms: u64,
    seen: Reach,
}

/// A synchronised pair whose principal refuses connections.
fn principal_dead() -> World {
    let mgc = DatabaseRecord {
        principal: Some("a".into()),
        mirror: Some(MirrorRecord { host: "b".into(), synchronised: true }),
        ..DatabaseRecord::default()
    };
    let record = PoolRecord {
        version: 3,
        epoch: Epoch(1),
        state: PoolState::Normal,
        home: "site-1".into(),
        active_servers: Vec::new(),
        databases: [("mgc".into(), mgc)].into(),
        lost_sites: BTreeMap::new(),
        run: None,
    };
    let topology = Topology::from_toml(TOPOLOGY).unwrap_or_else(|f| panic!("{f:?}"));
    World { topology, record, silent_ms: 30, seen: Reach::Refused }
}

impl World {
    fn mgc(&mut self) -> &mut DatabaseRecord {
        self.record.databases.get_mut(&DatabaseName::from("mgc")).expect("it is there")
    }

    fn asked_by(&self, mirror: &str, witness: &str) -> Result<TakeOver, String> {
        let request = TakeOverRequest { database: "mgc".into(), mirror: mirror.into(), silent_ms: self.silent_ms };
        agrees(&self.topology, &witness.into(), &self.record, &request, self.seen)
    }
}

/// `says` is a part of why not; empty when the witness agrees.
fn check(change: impl FnOnce(&mut World), says: &str) {
    let mut world = principal_dead();
    change(&mut world);
    match world.asked_by("b", "w") {
        Ok(take_over) => assert!(says.is_empty() && take_over.database.as_str() == "mgc", "{says}"),
        Err(why) => assert!(!says.is_empty() && why.contains(says), "{why}"),
    }
}

#[test]
fn a_synchronised_mirror_takes_over_from_a_principal_that_both_have_lost() {
    let timeout = PartnerTimeout::default().0.ms;
    check(|_| (), "");
    // Refused is evidence: nobody waits for a time-out.
    check(|w| w.silent_ms = 0, "");
    // Silence is none: it is waited for.
    check(|w| (w.seen, w.silent_ms) = (Reach::Silent, timeout), "");
    check(|w| (w.seen, w.silent_ms) = (Reach::Silent, timeout - 1), "may be so for 2500ms before it counts as lost");
}

#[test]
fn the_witnesss_look_is_a_part_of_the_time_out() {
    for timeout in [PartnerTimeout::MIN, PartnerTimeout::default().0, PartnerTimeout::MAX].map(PartnerTimeout) {
        let (asks, looks) = (asks_after(timeout), look_within(timeout));
        assert_eq!(asks.ms + looks.ms, timeout.0.ms);
        assert!(looks.ms >= 125 && asks.ms >= 3 * looks.ms, "{timeout:?}");
        // Silent to both until the end of the look: nobody waits any longer.
        check(|w| (w.seen, w.silent_ms) = (Reach::Silent, (asks.ms + looks.ms).max(2_500)), "");
    }
}

#[test]
fn partners_that_are_cut_from_each_other_while_both_see_the_witness_stay_as_they_are() {
    check(|w| (w.seen, w.silent_ms) = (Reach::Answers, 60_000), "a answers w: it keeps serving");
}

#[test]
fn a_mirror_that_may_lack_something_never_takes_over() {
    check(|w| w.mgc().mirror.as_mut().expect("it has one").synchronised = false, "not synchronised");
    check(|w| w.mgc().mirror = None, "b is not the mirror of mgc");
    check(|w| w.mgc().mirror.as_mut().expect("it has one").host = "c".into(), "b is not the mirror of mgc");
}

#[test]
fn one_change_of_writer_at_a_time() {
    check(|w| w.mgc().principal = None, "has no principal at the moment");
    let run = RunRef {
        id: "1".into(),
        runbook: "switch-mirror".into(),
        started_by: "ines".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
    };
    check(|w| w.record.run = Some(run), "switch-mirror is under way, begun by ines");
}

#[test]
fn only_the_witness_of_the_home_site_agrees() {
    assert!(principal_dead().asked_by("b", "a").is_err_and(|why| why.contains("a is not the witness of site-1")));
    let mut unwitnessed = principal_dead();
    unwitnessed.topology.sites[0].witnessed = false;
    assert!(unwitnessed.asked_by("b", "w").is_err_and(|why| why.contains("is not the witness")));
    check(|w| w.record.home = "site-2".into(), "w is not the witness of site-2");
}

fn instance(state: InstanceState, epoch: i64) -> InstanceReport {
    InstanceReport { database_epoch: Some(Epoch(epoch)), ..InstanceReport::unmeasured(state) }
}

#[test]
fn a_witness_that_lost_its_disk_decides_when_it_has_heard_both_partners() {
    let world = principal_dead();
    let mut reports = BTreeMap::new();
    let knows = |reports: &BTreeMap<HostName, HostReport>| knows_enough(&world.record, reports);
    let heard = |host: &str, state, epoch| HostReport {
        record: Some(world.record.clone()),
        instances: [("mgc".into(), instance(state, epoch))].into(),
        ..HostReport::empty(host.into(), "site-1".into())
    };
    reports.insert(HostName::from("a"), heard("a", InstanceState::Online, 1));
    assert!(knows(&reports).is_err_and(|why| why.contains("b has not been heard yet")));
    reports.insert(HostName::from("b"), heard("b", InstanceState::Standby, 1));
    assert_eq!(knows(&reports), Ok(()));
    reports.insert(HostName::from("b"), heard("b", InstanceState::Stopped, 1));
    assert!(knows(&reports).is_err_and(|why| why.contains("mgc on b is not running")));
    // The mirror was promoted, and nobody but the witness knew.
    reports.insert(HostName::from("b"), heard("b", InstanceState::Online, 2));
    assert!(knows(&reports).is_err_and(|why| why.contains("a later epoch")));
    let mut newer = heard("b", InstanceState::Standby, 1);
    newer.record.as_mut().expect("it has one").version += 1;
    reports.insert(HostName::from("b"), newer);
    assert!(knows(&reports).is_err_and(|why| why.contains("b knows a newer record")));
}
