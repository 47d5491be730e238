//! The decisions of a planned failover, on a pool that is as it should be and on what may be wrong with it.

use super::*;
use crate::abort::abort_of;
use crate::order::{Outcome, Stamp, StampedOrder};
use crate::record::{DatabaseRecord, MirrorRecord, PoolRecord, RunRef};
use crate::report::{CleanStop, HostReport, InstanceReport, OrderReport, ServerReport, ShippingReport};
use crate::runbook::{Facts, Next, Silence, advance};
use crate::topology::Topology;
use crate::wal::Lsn;
use rules::id::Epoch;
use std::collections::BTreeMap;

const TOPOLOGY: &str = r#"
pool = "chat.example.org"
[[site]]
name = "site-1"
authority = "s1a"
[[site]]
name = "site-2"
authority = "s2a"
[[host]]
name = "s1a"
site = "site-1"
agent = { at = "s1a:1" }
[[host]]
name = "s1b"
site = "site-1"
agent = { at = "s1b:1" }
[[host]]
name = "s2a"
site = "site-2"
agent = { at = "s2a:1" }
[[host]]
name = "s2b"
site = "site-2"
agent = { at = "s2b:1" }
[[database]]
name = "mgc"
primary = { host = "s1a", postgres = { at = "s1a:2" } }
mirror = { host = "s1b", postgres = { at = "s1b:2" } }
backup = { host = "s2a", postgres = { at = "s2a:2" } }
backup_mirror = { host = "s2b", postgres = { at = "s2b:2" } }
log_shipping = { share = "/share" }
[[database]]
name = "mgccomp"
primary = { host = "s1a", postgres = { at = "s1a:3" } }
mirror = { host = "s1b", postgres = { at = "s1b:3" } }
[[server]]
name = "server-1"
host = "s1a"
clients = { at = "s1a:4" }
link = { at = "s1a:5" }
active = true
[[server]]
name = "server-5"
host = "s2a"
clients = { at = "s2a:4" }
link = { at = "s2a:5" }
"#;

/// A pool, and what its hosts report.
pub(crate) struct Pool {
    topology: Topology,
    pub(crate) record: PoolRecord,
    reports: BTreeMap<HostName, HostReport>,
    silent: BTreeMap<HostName, Silence>,
    facts: Facts,
}

fn instance(state: InstanceState) -> InstanceReport {
    InstanceReport {
        written: Some(Lsn(100)),
        applied: Some(Lsn(100)),
        database_epoch: Some(Epoch(1)),
        shipping: Some(ShippingReport { enabled: true, streaming: true, ..ShippingReport::default() }),
        free_bytes: 1 << 40,
        ..InstanceReport::unmeasured(state)
    }
}

impl Pool {
    /// Normal, synchronised, everybody answers; a run has claimed the pool.
    pub(crate) fn normal() -> Self {
        let mirror = || Some(MirrorRecord { host: "s1b".into(), synchronised: true });
        let mgc = DatabaseRecord {
            principal: Some("s1a".into()),
            mirror: mirror(),
            backup: Some("s2a".into()),
            backup_mirror: Some("s2b".into()),
            ..DatabaseRecord::default()
        };
        let mgccomp = DatabaseRecord { principal: Some("s1a".into()), mirror: mirror(), ..DatabaseRecord::default() };
        let record = PoolRecord {
            version: 7,
            epoch: Epoch(1),
            state: PoolState::Normal,
            home: "site-1".into(),
            active_servers: vec!["server-1".into()],
            databases: [("mgc".into(), mgc), ("mgccomp".into(), mgccomp)].into(),
            lost_sites: BTreeMap::new(),
            run: Some(run()),
        };
        let facts = Facts {
            before: record.clone(),
            to_site: "site-2".into(),
            from_site: "site-1".into(),
            force: false,
            exposure: BTreeMap::new(),
            new_principal: None,
            automatic: None,
            limits: None,
        };
        let report = |host: &str, state| {
            let mut report = HostReport {
                record: Some(record.clone()),
                instances: [("mgc".into(), instance(state))].into(),
                ..HostReport::empty(host.into(), if host.starts_with("s1") { "site-1" } else { "site-2" }.into())
            };
            if host == "s2a" {
                report.servers = [("server-5".into(), ServerReport::default())].into();
            }
            (HostName::from(host), report)
        };
        let standby = InstanceState::Standby;
        let hosts = [("s1a", InstanceState::Online), ("s1b", standby), ("s2a", standby), ("s2b", standby)];
        let reports = hosts.into_iter().map(|(host, state)| report(host, state)).collect();
        let topology = Topology::from_toml(TOPOLOGY).unwrap_or_else(|f| panic!("{f:?}"));
        Pool { topology, record, reports, silent: BTreeMap::new(), facts }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            topology: &self.topology,
            record: &self.record,
            reports: &self.reports,
            silent: &self.silent,
            facts: &self.facts,
            step_age_ms: 0,
        }
    }

    pub(crate) fn on(&mut self, host: &str) -> &mut InstanceReport {
        let report = self.reports.get_mut(&HostName::from(host)).expect("it answers");
        report.instances.get_mut(&DatabaseName::from("mgc")).expect("it is there")
    }

    fn mgc(&mut self) -> &mut DatabaseRecord {
        self.record.databases.get_mut(&DatabaseName::from("mgc")).expect("it is there")
    }

    fn kill(&mut self, host: &str) {
        self.reports.remove(&HostName::from(host));
        self.silent.insert(host.into(), Silence::Refused);
    }

    /// The writer has been stopped cleanly by this run's order; its log ends at 110.
    fn stopped(mut self) -> Self {
        let order = Order::HandOver { database: "mgc".into(), epoch: Epoch(3) };
        let outcome = Outcome::Done { detail: "stopped".into() };
        let given = StampedOrder { stamp: Stamp { epoch: 1, version: 1, number: 3 }, run: run().id, order };
        let taken = OrderReport::of(given, outcome);
        let on = self.on("s1a");
        on.state = InstanceState::Stopped;
        on.shut_down_at = Some(CleanStop { checkpoint: Lsn(109), end: Lsn(110) });
        self.reports.get_mut(&HostName::from("s1a")).expect("it answers").orders.insert("mgc".into(), taken);
        self
    }

    /// What a step does, told in words.
    fn acts(&self, id: &str) -> Vec<String> {
        let (_, step) = PLANNED_FAILOVER.step(id).expect("the step is there");
        match advance(step, &self.view(), false) {
            Next::Act(deeds) => deeds.iter().map(told).collect(),
            Next::StepDone(_) => vec!["done".into()],
            Next::Wait(_) => Vec::new(),
            Next::Blocked(unmet) => vec![format!("blocked: {}", unmet.why)],
        }
    }
}

fn run() -> RunRef {
    RunRef { id: "r".into(), runbook: PLANNED_FAILOVER.name.into(), started_by: "me".into(), started_at: "now".into() }
}

fn told(deed: &Deed) -> String {
    match deed {
        Deed::SetRecord { record, at } => {
            let d = &record.databases[&DatabaseName::from("mgc")];
            let name = |host: Option<&HostName>| host.map_or("nobody", HostName::as_str).to_owned();
            let parts = [
                name(d.principal.as_ref()),
                name(d.mirror.as_ref().map(|m| &m.host)),
                name(d.backup.as_ref()),
                name(d.backup_mirror.as_ref()),
            ];
            format!("at {at}: epoch {}, {} at {}: {}", record.epoch, record.state, record.home, parts.join(" "))
        }
        Deed::Give { host, order: Order::Promote { epoch, .. } } => format!("promote {host} for {epoch}"),
        Deed::Give { host, order: Order::HandOver { epoch, .. } } => format!("hand over {host} for {epoch}"),
        Deed::Give { host, order } => format!("{host}: {order:?}"),
    }
}

fn refused(change: impl FnOnce(&mut Pool)) -> Vec<(String, bool)> {
    let mut pool = Pool::normal();
    change(&mut pool);
    preflight(&pool.view()).into_iter().map(|u| (u.why, u.can_be_forced)).collect()
}

#[test]
fn it_takes_both_sites_in_order() {
    assert_eq!(refused(|_| {}), []);
    let check = |change: &dyn Fn(&mut Pool), says: &str, forced: bool| {
        let refused = refused(change);
        assert!(refused.iter().any(|(why, can)| why.contains(says) && *can == forced), "{says}: {refused:?}");
    };
    check(&|p| p.kill("s1a"), "s1a, the principal of mgc, does not answer", false);
    check(&|p| p.on("s1a").state = InstanceState::Busy, "mgc on s1a, the principal, is not online", false);
    check(&|p| p.kill("s2a"), "s2a, which holds the backup of mgc, does not answer", false);
    check(&|p| p.mgc().shipping_off = true, "log shipping of mgc is turned off", false);
    check(
        &|p| p.on("s2a").shipping = Some(ShippingReport { enabled: true, ..ShippingReport::default() }),
        "does not receive the principal's log by stream",
        false,
    );
    check(&|p| p.mgc().backup_mirror = None, "no warm mirror", true);
    check(&|p| p.kill("s2b"), "s2b, the mirror of the backup, does not follow it", true);
    let no_server = |p: &mut Pool| p.reports.get_mut(&HostName::from("s2a")).expect("it answers").servers.clear();
    check(&no_server, "no chat server runs at site-2", true);
}

#[test]
fn the_epoch_begins_only_with_every_byte_at_the_backup() {
    let pool = Pool::normal();
    assert_eq!(pool.acts("hand-over"), ["hand over s1a for 3"], "an epoch that only home may begin");
    let mut pool = Pool::normal();
    pool.on("s2a").shipping = None;
    assert_eq!(pool.acts("hand-over"), ["blocked: s2a is 0 bytes behind and does not stream yet"]);
    let mut pool = Pool::normal().stopped();
    assert_eq!(pool.acts("hand-over"), [""; 0], "the backup has not applied the last byte");
    pool.on("s2a").applied = Some(Lsn(110));
    assert_eq!(pool.acts("hand-over"), ["at site-1: epoch 3, Normal at site-1: nobody s1b s2a s2b"]);
    // A writer that somebody else has stopped is not handed over.
    pool.reports.get_mut(&HostName::from("s1a")).expect("it answers").orders.clear();
    assert_eq!(pool.acts("hand-over"), ["hand over s1a for 3"]);
}

#[test]
fn one_change_of_the_record_moves_everything_and_the_old_site_is_fed() {
    let mut pool = Pool::normal();
    pool.record.epoch = Epoch(3);
    pool.mgc().principal = None;
    pool.mgc().mirror = None;
    assert_eq!(pool.acts("bring-backup-online"), ["promote s2a for 3"]);
    let on = pool.on("s2a");
    (on.state, on.database_epoch) = (InstanceState::Online, Some(Epoch(3)));
    assert_eq!(pool.acts("bring-backup-online"), ["done"]);
    assert_eq!(pool.acts("set-pool-failed-over"), ["at site-1: epoch 3, FailedOver at site-2: s2a s2b s1a s1b"]);
}

#[test]
fn the_compliance_database_stays_where_it_is() {
    let compliance = DatabaseName::from("mgccomp");
    let pool = Pool::normal().stopped();
    for step in PLANNED_FAILOVER.steps {
        for deed in (step.does)(&pool.view()) {
            match deed {
                Deed::SetRecord { record, .. } => {
                    assert_eq!(record.databases[&compliance], pool.facts.before.databases[&compliance], "{}", step.id);
                }
                Deed::Give { order, .. } => assert_ne!(order.database(), &compliance, "{}", step.id),
            }
        }
    }
}

#[test]
fn undone_in_the_hand_over_the_writer_begins_the_epoch_that_was_to_come() {
    let abort = abort_of(PLANNED_FAILOVER).expect("it can be undone");
    let pool = Pool::normal().stopped();
    let all: Vec<&Step> = abort.steps_after(|_| true).collect();
    let ids: Vec<&str> = all.iter().map(|s| s.id).collect();
    assert_eq!(ids, ["reopen-writer", "restore-service", "hold-back-again"]);
    let deeds = (all[0].does)(&pool.view());
    let reopens = |d: &Deed| matches!(d, Deed::Give { host, order: Order::Reopen { epoch: Epoch(3), .. } } if host.as_str() == "s1a");
    assert!(deeds.iter().any(reopens), "{deeds:?}");
}
