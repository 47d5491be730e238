//! What a failover leaves alone (rule R1), and in which epoch it begins.

use super::*;
use crate::record::DatabaseRecord;
use crate::report::{HostReport, InstanceReport};
use crate::runbook::Facts;
use crate::topology::Topology;
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
[[database]]
name = "mgc"
primary = { host = "s1a", postgres = { at = "s1a:2" } }
backup = { host = "s2a", postgres = { at = "s2a:2" } }
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
"#;

struct Pool {
    topology: Topology,
    record: PoolRecord,
    reports: BTreeMap<HostName, HostReport>,
    facts: Facts,
}

/// Normal; the content database has a backup, which answers and carries this epoch; the compliance database has a mirror.
fn pool(backup_carries: i64) -> Pool {
    let topology = Topology::from_toml(TOPOLOGY).unwrap_or_else(|f| panic!("{f:?}"));
    let mgc = DatabaseRecord { principal: Some("s1a".into()), backup: Some("s2a".into()), ..DatabaseRecord::default() };
    let mirror = Some(MirrorRecord { host: "s1b".into(), synchronised: true });
    let mgccomp = DatabaseRecord { principal: Some("s1a".into()), mirror, ..DatabaseRecord::default() };
    let record = PoolRecord {
        version: 7,
        epoch: Epoch(1),
        state: PoolState::Normal,
        home: "site-1".into(),
        active_servers: vec!["server-1".into()],
        databases: [("mgc".into(), mgc), ("mgccomp".into(), mgccomp)].into(),
        lost_sites: BTreeMap::new(),
        run: None,
    };
    let instance = InstanceReport {
        database_epoch: Some(Epoch(backup_carries)),
        ..InstanceReport::unmeasured(InstanceState::Standby)
    };
    let report = HostReport {
        record: Some(record.clone()),
        instances: [("mgc".into(), instance)].into(),
        ..HostReport::empty("s2a".into(), "site-2".into())
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
    Pool { topology, record, reports: [("s2a".into(), report)].into(), facts }
}

impl Pool {
    fn view<'a>(&'a self, silent: &'a BTreeMap<HostName, crate::runbook::Silence>) -> View<'a> {
        View {
            topology: &self.topology,
            record: &self.record,
            reports: &self.reports,
            silent,
            facts: &self.facts,
            step_age_ms: 0,
        }
    }

    fn claimed(mut self) -> Self {
        let run =
            RunRef { id: "r".into(), runbook: "failover".into(), started_by: "ann".into(), started_at: "now".into() };
        self.record = claim(&self.view(&BTreeMap::new()), run).0;
        self
    }
}

#[test]
fn a_failover_never_touches_the_compliance_database() {
    let compliance = DatabaseName::from("mgccomp");
    let pool = pool(1).claimed();
    let before = &pool.facts.before.databases[&compliance];
    assert_eq!(&pool.record.databases[&compliance], before, "the claim leaves it where it is");
    for step in FAILOVER.steps {
        for deed in (step.does)(&pool.view(&BTreeMap::new())) {
            match deed {
                Deed::SetRecord { record, .. } => assert_eq!(&record.databases[&compliance], before, "{}", step.id),
                Deed::Give { order, .. } => assert_ne!(order.database(), &compliance, "{}", step.id),
            }
        }
    }
}

#[test]
fn the_epoch_is_above_every_one_that_the_backup_carries() {
    assert_eq!(pool(1).claimed().record.epoch, Epoch(2));
    // A switch at site 1 of which site 2 heard by the share alone.
    assert_eq!(pool(3).claimed().record.epoch, Epoch(4));
    let mut late = pool(1).claimed();
    let instance = late.reports.get_mut(&HostName::from("s2a")).and_then(|r| r.instances.get_mut(&"mgc".into()));
    instance.expect("the backup reports").database_epoch = Some(Epoch(3));
    let deeds = (BRING_BACKUP_ONLINE.does)(&late.view(&BTreeMap::new()));
    let [Deed::SetRecord { record, .. }] = &deeds[..] else { panic!("{deeds:?}") };
    assert_eq!((record.epoch, record.lost_sites[&SiteName::from("site-1")]), (Epoch(4), Epoch(4)));
    late.record = (**record).clone();
    let deeds = (BRING_BACKUP_ONLINE.does)(&late.view(&BTreeMap::new()));
    assert!(
        matches!(&deeds[..], [Deed::Give { order: Order::CloseShare { epoch: Epoch(4), .. }, .. }]),
        "the share is closed to that epoch too before anything else: {deeds:?}"
    );
}
