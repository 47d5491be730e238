use super::*;
use crate::failback::FAILBACK;
use crate::failover::FAILOVER;
use crate::record::{DatabaseRecord, MirrorRecord, PoolRecord, RunRef};
use crate::report::{HostReport, InstanceReport, ServerReport, ShippingReport};
use crate::runbook::{Exposure, Facts, Silence};
use crate::topology::Topology;
use rules::id::Epoch;
use std::collections::BTreeMap;

/// A pool in which all is well.
struct Pool {
    topology: Topology,
    record: PoolRecord,
    reports: BTreeMap<HostName, HostReport>,
    silent: BTreeMap<HostName, Silence>,
    exposure: BTreeMap<DatabaseName, Exposure>,
    success_s_ago: Option<u64>,
}

fn well() -> Pool {
    let topology =
        Topology::from_toml(include_str!("../../../shell/tests/stretched.toml")).expect("the example passes");
    let hosts = topology.databases[0].clone();
    let host = |i: &Option<crate::topology::Instance>| i.as_ref().map(|i| i.host.clone());
    let mgc = DatabaseRecord {
        principal: Some(hosts.primary.host.clone()),
        mirror: host(&hosts.mirror).map(|host| MirrorRecord { host, synchronised: true }),
        backup: host(&hosts.backup),
        backup_mirror: host(&hosts.backup_mirror),
        ..DatabaseRecord::default()
    };
    let record = PoolRecord {
        version: 9,
        epoch: Epoch(1),
        state: PoolState::Normal,
        home: topology.sites[0].name.clone(),
        active_servers: vec![],
        databases: [(hosts.name.clone(), mgc)].into(),
        lost_sites: BTreeMap::new(),
        run: None,
    };
    let reports = topology.hosts.iter().map(|h| (h.name.clone(), report(&topology, &h.name))).collect();
    let exposure = Exposure { entries: Some(0), bytes: Some(0), behind_ms: Some(5), heard_ms_ago: Some(9) };
    let exposure = [(hosts.name, exposure)].into();
    Pool { topology, record, reports, silent: BTreeMap::new(), exposure, success_s_ago: Some(3_600) }
}

fn report(topology: &Topology, host: &HostName) -> HostReport {
    let of = topology.databases.iter().filter_map(|d| d.instance_on(host).map(|_| d));
    let server = ServerReport { record_version: 9, age_ms: 100, ..ServerReport::default() };
    let servers = topology.servers.iter().filter(|s| s.host == *host);
    HostReport {
        instances: of.map(|d| (d.name.clone(), instance(d.primary.host == *host))).collect(),
        servers: servers.map(|s| (s.name.clone(), server.clone())).collect(),
        ..HostReport::empty(host.clone(), topology.site_of(host).expect("the host has a site").clone())
    }
}

fn instance(primary: bool) -> InstanceReport {
    let state = if primary { InstanceState::Online } else { InstanceState::Standby };
    let shipping =
        ShippingReport { enabled: true, streaming: true, share_age_ms: Some(200), ..ShippingReport::default() };
    InstanceReport {
        database_epoch: Some(Epoch(1)),
        free_bytes: 9_000_000_000,
        shipping: (!primary).then_some(shipping),
        ..InstanceReport::unmeasured(state)
    }
}

fn judged(runbook: &Runbook, pool: &Pool) -> Readiness {
    let home = &pool.record.home;
    let to_site = pool.topology.other_site(home).expect("there are two").name.clone();
    let facts = Facts {
        before: pool.record.clone(),
        to_site,
        from_site: home.clone(),
        force: false,
        exposure: pool.exposure.clone(),
        new_principal: None,
        automatic: None,
        limits: None,
    };
    let view = View {
        topology: &pool.topology,
        record: &pool.record,
        reports: &pool.reports,
        silent: &pool.silent,
        facts: &facts,
        step_age_ms: 0,
    };
    judge(runbook, &view, pool.success_s_ago)
}

/// What a failover would meet after this change: refusals, and the checks that warn.
fn check(change: impl FnOnce(&mut Pool), refused: usize, warned: &[Check]) {
    let mut pool = well();
    change(&mut pool);
    let got = judged(FAILOVER, &pool);
    assert_eq!(got.refused.len(), refused, "{got:#?}");
    assert_eq!(got.warnings.iter().map(|w| w.check).collect::<Vec<_>>(), warned, "{got:#?}");
}

impl Pool {
    fn mgc(&mut self) -> &mut DatabaseRecord {
        self.record.databases.values_mut().next().expect("there is a database")
    }

    fn backup(&mut self) -> HostName {
        self.mgc().backup.clone().expect("there is a backup")
    }

    fn on(&mut self, host: &HostName) -> &mut InstanceReport {
        let report = self.reports.get_mut(host).expect("the host answers");
        report.instances.values_mut().next().expect("it has an instance")
    }

    fn lose(&mut self, host: &HostName) {
        self.reports.remove(host);
        self.silent.insert(host.clone(), Silence::Refused);
    }
}

#[test]
fn a_pool_in_which_all_is_well_is_ready_although_the_other_site_lives() {
    check(|_| {}, 0, &[]);
}

#[test]
fn what_a_failover_would_refuse_is_refused() {
    check(
        |p| {
            let backup = p.backup();
            p.lose(&backup);
        },
        1,
        &[Check::Hosts, Check::Servers],
    );
    check(|p| p.record.state = PoolState::FailedOver, 1, &[]);
    let by = RunRef {
        id: "r".into(),
        runbook: "install-mirror".into(),
        started_by: "marek@a".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
    };
    check(|p| p.record.run = Some(by), 1, &[]);
}

#[test]
fn what_would_make_it_worse_is_warned_of() {
    check(|p| p.mgc().mirror = None, 0, &[Check::Mirror]);
    check(|p| p.mgc().mirror.iter_mut().for_each(|m| m.synchronised = false), 0, &[Check::Mirror]);
    check(|p| p.mgc().shipping_off = true, 0, &[Check::LogShipping]);
    check(|p| p.mgc().backup_mirror = None, 0, &[Check::WarmMirror]);
    check(|p| p.exposure.clear(), 0, &[Check::LogShipping]);
    check(|p| p.exposure.values_mut().for_each(|e| e.behind_ms = Some(11_000)), 0, &[Check::LogShipping]);
    check(|p| p.success_s_ago = None, 0, &[Check::Practice]);
    check(|p| p.success_s_ago = Some(91 * 86_400), 0, &[Check::Practice]);
    check(|p| p.reports.values_mut().for_each(|r| r.servers.clear()), 0, &[Check::Servers]);
}

#[test]
fn the_share_and_the_disks_are_looked_at() {
    let shipping = |change: fn(&mut ShippingReport)| {
        move |p: &mut Pool| {
            let backup = p.backup();
            change(p.on(&backup).shipping.as_mut().expect("it is fed"));
        }
    };
    check(shipping(|s| s.streaming = false), 0, &[Check::LogShipping]);
    check(shipping(|s| s.fault = Some("stale".into())), 0, &[Check::Share]);
    check(shipping(|s| s.share_age_ms = None), 0, &[Check::Share]);
    let on_backup = |change: fn(&mut InstanceReport)| {
        move |p: &mut Pool| {
            let backup = p.backup();
            change(p.on(&backup));
        }
    };
    check(on_backup(|i| i.full_in_s = Some(3_600)), 0, &[Check::Disk]);
    check(on_backup(|i| i.free_bytes = 1), 0, &[Check::Disk]);
}

#[test]
fn a_pool_that_is_normal_has_nothing_to_fail_back() {
    let judged = judged(FAILBACK, &well());
    assert!(judged.already.is_some() && judged.refused.is_empty() && judged.warnings.is_empty(), "{judged:?}");
}
