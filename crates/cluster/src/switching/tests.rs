//! The decisions of both switches, on a pool that is as it should be and on what may be wrong with it.

use super::*;
use crate::order::{Outcome, Stamp, StampedOrder};
use crate::record::PoolState;
use crate::report::{CleanStop, HostReport, LeftTo, OrderReport, ShippingReport};
use crate::runbook::Unmet;
use crate::runbook::{Facts, Next, Silence, advance};
use crate::topology::Topology;
use rules::id::Epoch;
use std::collections::BTreeMap;

const TOPOLOGY: &str = r#"
pool = "chat.example.org"
latency = "high"
[[site]]
name = "site-1"
authority = "s1b"
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
[[server]]
name = "server-1"
host = "s1a"
clients = { at = "s1a:3" }
link = { at = "s1a:4" }
active = true
"#;

struct World {
    topology: Topology,
    record: PoolRecord,
    reports: BTreeMap<HostName, HostReport>,
    silent: BTreeMap<HostName, Silence>,
    facts: Facts,
    age_ms: u64,
}

fn instance(state: InstanceState, at: u64) -> InstanceReport {
    InstanceReport {
        written: Some(Lsn(at)),
        applied: Some(Lsn(at)),
        database_epoch: Some(Epoch(1)),
        shipping: Some(ShippingReport { enabled: true, streaming: true, ..ShippingReport::default() }),
        ..InstanceReport::unmeasured(state)
    }
}

impl World {
    /// Normal, synchronised, everybody answers; the mirror is asked for, by a run that has claimed the pool.
    fn normal() -> Self {
        let mgc = DatabaseRecord {
            principal: Some("s1a".into()),
            mirror: Some(MirrorRecord { host: "s1b".into(), synchronised: true }),
            backup: Some("s2a".into()),
            backup_mirror: Some("s2b".into()),
            ..DatabaseRecord::default()
        };
        let record = PoolRecord {
            version: 7,
            epoch: Epoch(1),
            state: PoolState::Normal,
            home: "site-1".into(),
            active_servers: vec!["server-1".into()],
            databases: [("mgc".into(), mgc)].into(),
            lost_sites: BTreeMap::new(),
            run: Some(run()),
        };
        let facts = Facts {
            before: record.clone(),
            to_site: "site-2".into(),
            from_site: "site-1".into(),
            force: false,
            exposure: BTreeMap::new(),
            new_principal: Some(Partner::Mirror),
            automatic: None,
            limits: None,
        };
        let topology = Topology::from_toml(TOPOLOGY).unwrap_or_else(|f| panic!("{f:?}"));
        let report = |host: &str, state| {
            let report = HostReport {
                record: Some(record.clone()),
                instances: [("mgc".into(), instance(state, 100))].into(),
                ..HostReport::empty(host.into(), if host.starts_with("s1") { "site-1" } else { "site-2" }.into())
            };
            (HostName::from(host), report)
        };
        let standby = InstanceState::Standby;
        let hosts = [("s1a", InstanceState::Online), ("s1b", standby), ("s2a", standby), ("s2b", standby)];
        let reports = hosts.into_iter().map(|(host, state)| report(host, state)).collect();
        World { topology, record, reports, silent: BTreeMap::new(), facts, age_ms: 0 }
    }

    fn view(&self) -> View<'_> {
        View {
            topology: &self.topology,
            record: &self.record,
            reports: &self.reports,
            silent: &self.silent,
            facts: &self.facts,
            step_age_ms: self.age_ms,
        }
    }

    fn mgc(&mut self) -> &mut DatabaseRecord {
        self.record.databases.get_mut(&DatabaseName::from("mgc")).expect("it is there")
    }

    fn on(&mut self, host: &str) -> &mut InstanceReport {
        let report = self.reports.get_mut(&HostName::from(host)).expect("it answers");
        report.instances.get_mut(&DatabaseName::from("mgc")).expect("it is there")
    }

    fn kill(&mut self, host: &str) {
        self.reports.remove(&HostName::from(host));
        self.silent.insert(host.into(), Silence::Refused);
    }

    /// The old principal has been stopped cleanly by this run's order; its log ends at 110.
    fn stopped(mut self) -> Self {
        let order = Order::HandOver { database: "mgc".into(), epoch: Epoch(2) };
        let outcome = Outcome::Done { detail: "stopped".into() };
        let given = StampedOrder { stamp: Stamp { epoch: 1, version: 1, number: 3 }, run: run().id, order };
        let taken = OrderReport::of(given, outcome);
        let on = self.on("s1a");
        on.state = InstanceState::Stopped;
        on.shut_down_at = Some(CleanStop { checkpoint: Lsn(109), end: Lsn(110) });
        self.reports.get_mut(&HostName::from("s1a")).expect("it answers").orders.insert("mgc".into(), taken);
        self
    }

    /// What a step does, as the records that it sets and the orders that it gives.
    fn acts(&self, step: &Step) -> Vec<String> {
        match advance(step, &self.view(), false) {
            Next::Act(deeds) => deeds.iter().map(told).collect(),
            Next::StepDone(_) => vec!["done".into()],
            Next::Wait(_) => Vec::new(),
            Next::Blocked(unmet) => vec![format!("blocked: {}", unmet.why)],
        }
    }
}

fn run() -> RunRef {
    RunRef { id: "r".into(), runbook: "switch-mirror".into(), started_by: "me".into(), started_at: "now".into() }
}

fn told(deed: &Deed) -> String {
    match deed {
        Deed::SetRecord { record, .. } => {
            let d = &record.databases[&DatabaseName::from("mgc")];
            let principal = d.principal.as_ref().map_or("nobody", HostName::as_str);
            let mirror = d.mirror.as_ref().map_or("nobody", |m| m.host.as_str());
            format!("epoch {}: {principal}, mirror {mirror}", record.epoch)
        }
        Deed::Give { host, order: Order::Promote { epoch, .. } } => format!("promote {host} for {epoch}"),
        Deed::Give { host, order: Order::Reopen { epoch, .. } } => format!("reopen {host} for {epoch}"),
        Deed::Give { host, order: Order::HandOver { epoch, .. } } => format!("hand over {host} for {epoch}"),
        Deed::Give { host, order: Order::Fence { epoch, .. } } => format!("fence {host} for {epoch}"),
        Deed::Give { host, order } => format!("{host}: {order:?}"),
    }
}

fn refusals(preflight: fn(&View<'_>) -> Vec<Unmet>, world: &World) -> Vec<(String, bool)> {
    preflight(&world.view()).into_iter().map(|u| (u.why, u.can_be_forced)).collect()
}

#[test]
fn partners_are_named_after_the_topology_at_either_site() {
    let mut world = World::normal();
    let name = |world: &World, partner| {
        let host = host_of(&world.view(), &world.topology.databases[0], partner);
        host.map_or(String::new(), |h| h.to_string())
    };
    assert_eq!((name(&world, Partner::Primary), name(&world, Partner::Mirror)), ("s1a".into(), "s1b".into()));
    world.facts.before.home = "site-2".into();
    assert_eq!((name(&world, Partner::Primary), name(&world, Partner::Mirror)), ("s2a".into(), "s2b".into()));
}

#[test]
fn who_is_principal_already_is_left_alone() {
    let mut world = World::normal();
    world.record.run = None;
    assert_eq!(already(&world.view()), None);
    world.facts.new_principal = Some(Partner::Primary);
    assert_eq!(already(&world.view()).as_deref(), Some("s1a is the principal of mgc already"));
}

#[test]
fn a_planned_switch_needs_a_synchronised_pair_that_answers() {
    let world = World::normal();
    assert!(preflight_switch(&world.view()).is_empty());
    let mut late = World::normal();
    late.mgc().mirror = Some(MirrorRecord { host: "s1b".into(), synchronised: false });
    assert_eq!(refusals(preflight_switch, &late), [("s1b is not synchronised yet".into(), false)]);
    let mut gone = World::normal();
    gone.kill("s1a");
    assert!(refusals(preflight_switch, &gone)[0].0.contains("s1a, the principal, does not answer"));
    let mut alone = World::normal();
    alone.mgc().mirror = None;
    assert!(refusals(preflight_switch, &alone)[0].0.contains("s1b is not the mirror"));
}

#[test]
fn the_epoch_is_raised_only_when_the_mirror_has_every_byte() {
    assert_eq!(World::normal().acts(&HAND_OVER), ["hand over s1a for 3"]);
    let mut world = World::normal().stopped();
    assert!(world.acts(&HAND_OVER).is_empty(), "the mirror lacks ten bytes");
    world.on("s1b").applied = Some(Lsn(110));
    assert_eq!(world.acts(&HAND_OVER), ["epoch 3: nobody, mirror s1b"]);
}

#[test]
fn a_mirror_that_has_flushed_everything_is_not_waited_for_nor_is_the_stop_of_the_principal() {
    let mut world = World::normal().stopped();
    world.on("s1a").shut_down_at = None;
    world.on("s1a").state = InstanceState::Online;
    let s1a = |world: &mut World, host: &str| {
        let report = world.reports.get_mut(&HostName::from("s1a")).expect("it answers");
        let order = report.orders.get_mut(&DatabaseName::from("mgc")).expect("it has taken one");
        order.left_to = Some(LeftTo { host: host.into(), at: Lsn(110) });
    };
    s1a(&mut world, "s1b");
    assert_eq!(world.acts(&HAND_OVER), ["epoch 3: nobody, mirror s1b"]);
    s1a(&mut world, "s2a");
    assert_eq!(world.acts(&HAND_OVER), ["hand over s1a for 3"], "what another host has is nothing to this pair");
}

#[test]
fn a_pair_that_is_not_synchronised_any_more_is_not_handed_over() {
    let mut world = World::normal();
    world.mgc().mirror = Some(MirrorRecord { host: "s1b".into(), synchronised: false });
    assert_eq!(world.acts(&HAND_OVER), ["blocked: s1b is not synchronised yet"]);
}

#[test]
fn the_writer_goes_back_when_the_mirror_does_not_get_the_last_bytes_or_is_lost() {
    let mut world = World::normal().stopped();
    world.age_ms = TAKE_BACK_MS;
    assert_eq!(world.acts(&HAND_OVER), ["epoch 3: s1a, mirror nobody"]);

    let mut world = World::normal().stopped();
    world.record.epoch = Epoch(3);
    world.mgc().principal = None;
    assert_eq!(world.acts(&PROMOTE_MIRROR), ["promote s1b for 3"]);
    world.kill("s1b");
    world.age_ms = TAKE_BACK_MS;
    assert_eq!(world.acts(&PROMOTE_MIRROR), ["epoch 5: s1a, mirror nobody"]);
    world.record.epoch = Epoch(5);
    world.mgc().principal = Some("s1a".into());
    assert_eq!(world.acts(&PROMOTE_MIRROR), ["reopen s1a for 5"]);
    assert_eq!(world.acts(&RECORD_PRINCIPAL), ["done"]);
}

#[test]
fn the_old_principal_becomes_the_mirror_of_the_new_one() {
    let mut world = World::normal().stopped();
    world.record.epoch = Epoch(3);
    world.mgc().principal = None;
    assert_eq!(world.acts(&RECORD_PRINCIPAL), ["epoch 3: s1b, mirror s1a"]);
}

#[test]
fn force_is_not_needed_when_nothing_can_be_lost() {
    let mut world = World::normal();
    world.kill("s1a");
    assert!(preflight_force(&world.view()).is_empty());
    assert!(loss(&world.view())[0].contains("nothing that was acknowledged: s1b"));
    world.on("s1b").disk_categories = 1;
    let said = loss(&world.view())[0].clone();
    assert!(said.contains("asks for the disk alone") && said.contains("when s1a is back"), "{said}");
    world.mgc().mirror = Some(MirrorRecord { host: "s1b".into(), synchronised: false });
    world.on("s2a").written = Some(Lsn(150));
    let unmet = preflight_force(&world.view());
    assert!(unmet.len() == 1 && unmet[0].can_be_forced, "{unmet:?}");
    assert!(unmet[0].hint.contains("holds 50 bytes more") && unmet[0].hint.contains("standfast failover"));
}

#[test]
fn a_living_principal_is_replaced_only_by_force_and_a_dead_mirror_never_takes_over() {
    let world = World::normal();
    assert_eq!(refusals(preflight_force, &world), [("mgc on s1a is online and answers".into(), true)]);
    let mut starting = World::normal();
    starting.on("s1a").state = InstanceState::Busy;
    let unmet = preflight_force(&starting.view());
    assert!(unmet.len() == 1 && unmet[0].can_be_forced && unmet[0].why.contains("is not online"), "{unmet:?}");
    let mut both = World::normal();
    both.kill("s1a");
    both.kill("s1b");
    let unmet = preflight_force(&both.view());
    assert!(unmet.len() == 1 && !unmet[0].can_be_forced && unmet[0].hint.contains("standfast failover"), "{unmet:?}");
}

#[test]
fn the_claim_of_a_forced_switch_is_the_fence() {
    let world = World::normal();
    let (record, at) = claim_force(&world.view(), run());
    assert_eq!((record.epoch, record.version, at), (Epoch(3), 8, "site-1".into()));
    let mgc = &record.databases[&DatabaseName::from("mgc")];
    assert_eq!((&mgc.principal, &mgc.backup), (&None, &Some("s2a".into())));
    assert_eq!((record.state, record.active_servers), (PoolState::Normal, vec!["server-1".into()]));
}

#[test]
fn a_forced_switch_fences_who_answers_and_goes_on_without_who_does_not() {
    let mut world = World::normal();
    let (record, _) = claim_force(&world.view(), run());
    world.record = record;
    assert_eq!(world.acts(&FENCE_PRINCIPAL), ["fence s1a for 3"]);
    world.kill("s1a");
    assert_eq!(world.acts(&FENCE_PRINCIPAL), ["done"]);
    assert_eq!(world.acts(&FORCE_SERVICE), ["promote s1b for 3"]);
}

#[test]
fn a_switch_is_over_when_the_backup_has_the_beginning_of_the_epoch() {
    let mut world = World::normal();
    world.record.epoch = Epoch(3);
    world.mgc().principal = Some("s1b".into());
    world.mgc().mirror = Some(MirrorRecord { host: "s1a".into(), synchronised: true });
    assert!(world.acts(&FOLLOW_PRINCIPAL).is_empty(), "a stream alone does not show that the backup follows");
    for host in ["s2a", "s2b"] {
        world.on(host).database_epoch = Some(Epoch(3));
    }
    assert_eq!(world.acts(&FOLLOW_PRINCIPAL), ["done"]);
}

#[test]
fn a_site_that_hears_nothing_of_the_other_changes_places_only_by_force() {
    let mut world = World::normal();
    world.kill("s1a");
    world.kill("s2a");
    assert!(preflight_force(&world.view()).is_empty(), "one host of the other site is enough");
    world.kill("s2b");
    let unmet = preflight_force(&world.view());
    assert!(
        unmet.len() == 1 && unmet[0].can_be_forced && unmet[0].why.contains("no host of site-2 answers"),
        "{unmet:?}"
    );
    world.record.lost_sites.insert("site-2".into(), Epoch(1));
    assert!(preflight_force(&world.view()).is_empty(), "a site that was declared lost has an older epoch");
}

#[test]
fn a_switch_is_undone_without_a_promise_of_the_mirror_until_the_principal_is_open() {
    let acts = |world: &World| {
        let ordered = |id: &str| id == "hand-over";
        UNDO_SWITCH.steps_after(ordered).map(|step| world.acts(step)).collect::<Vec<_>>()
    };
    let mut world = World::normal().stopped();
    assert_eq!(acts(&world)[0], ["epoch 3: nobody, mirror nobody"]);
    world.record.epoch = Epoch(3);
    world.mgc().principal = None;
    world.mgc().mirror = None;
    assert_eq!(acts(&world)[1], ["reopen s1a for 3"]);
    assert_eq!(acts(&world)[2], ["epoch 3: s1a, mirror s1b"]);
    assert!((UNDO_SWITCH.preflight)(&world.view()).is_empty());
    world.kill("s1a");
    let unmet = (UNDO_SWITCH.preflight)(&world.view());
    assert!(unmet[0].why.contains("s1a, the principal of mgc, does not answer"), "{unmet:?}");
    assert_eq!(UNDO_SWITCH.steps_after(|id| id == "write-out").count(), 0, "nothing was done");
}

/// Rule R9: only the primary's half of log shipping is set up anew after a switch; the secondary is left alone.
#[test]
fn no_step_of_a_switch_touches_the_backup_or_what_the_record_says_of_it() {
    let mut claimed = World::normal();
    claimed.record = claim_force(&claimed.view(), run()).0;
    let mut handed_over = World::normal().stopped();
    handed_over.on("s1b").applied = Some(Lsn(110));
    let mut late = World::normal().stopped();
    late.age_ms = TAKE_BACK_MS;
    let backup = |record: &PoolRecord| {
        let d = &record.databases[&DatabaseName::from("mgc")];
        (d.backup.clone(), d.backup_mirror.clone(), d.shipping_off)
    };
    let undoing = UNDO_SWITCH.steps_after(|_| true).chain(UNDO_FORCE.steps_after(|_| true));
    let steps: Vec<&Step> = SWITCH_MIRROR.steps.iter().chain(FORCE_MIRROR.steps).chain(undoing).collect();
    let mut seen = 0;
    for world in [World::normal(), claimed, handed_over, late] {
        for deed in steps.iter().flat_map(|step| (step.does)(&world.view())) {
            seen += 1;
            match deed {
                Deed::SetRecord { record, .. } => assert_eq!(backup(&record), backup(&world.record)),
                Deed::Give { host, order } => assert!(["s1a", "s1b"].contains(&host.as_str()), "{host}: {order:?}"),
            }
        }
    }
    assert!(seen > 20, "the steps do something: {seen}");
}

/// It would be handed over, or fenced, and then nobody would write.
#[test]
fn a_mirror_that_would_have_to_ask_before_it_is_promoted_takes_part_in_no_switch() {
    let mut world = World::normal();
    world.reports.get_mut(&HostName::from("s1b")).expect("it answers").asks = Some("site-2".into());
    assert!(
        preflight_switch(&world.view())
            .iter()
            .any(|u| !u.can_be_forced && u.hint.contains("start-alone --site site-1"))
    );
    let acts = world.acts(&HAND_OVER);
    assert!(acts.len() == 1 && acts[0].starts_with("blocked: s1b has not heard site-2"), "{acts:?}");
    world.kill("s1a");
    assert!(preflight_force(&world.view()).iter().any(|u| !u.can_be_forced && u.why.contains("has not heard site-2")));
    // The principal may ask for itself.
    world.reports.get_mut(&HostName::from("s1b")).expect("it answers").asks = None;
    assert!(preflight_force(&world.view()).is_empty());
}

/// The automatic failover, begun by the witness: nothing that speaks against it can be forced, but for the silence of the
/// other site, which a person may overrule and the witness never does.
#[test]
fn the_witness_begins_nothing_that_a_person_would_have_to_force() {
    use crate::witness::{Reach, TakeOver};
    let principal_dead = || {
        let mut world = World::normal();
        world.facts.automatic =
            Some(TakeOver { database: "mgc".into(), witness: "s1w".into(), seen: Reach::Refused, silent_ms: 20 });
        world.facts.new_principal = None;
        world.reports.remove(&HostName::from("s1a"));
        if let Some(shipping) = &mut world.on("s1b").shipping {
            shipping.streaming = false;
        }
        world
    };
    let why = |world: &World| -> Vec<String> { preflight_force(&world.view()).into_iter().map(|u| u.why).collect() };
    assert_eq!(why(&principal_dead()), Vec::<String>::new());

    let mut cut = principal_dead();
    cut.reports.retain(|host, _| host.as_str().starts_with("s1"));
    assert!(why(&cut)[0].contains("no host of site-2 answers"), "{:?}", why(&cut));

    let mut exposed = principal_dead();
    exposed.mgc().mirror.as_mut().expect("it has one").synchronised = false;
    assert!(why(&exposed)[0].contains("not synchronised"), "{:?}", why(&exposed));

    let mut stopped = principal_dead();
    stopped.on("s1b").state = InstanceState::Stopped;
    assert!(why(&stopped)[0].contains("is not running"), "{:?}", why(&stopped));

    let mut back = World::normal();
    back.facts.automatic = principal_dead().facts.automatic;
    assert!(why(&back)[0].contains("is online and its agent answers"), "{:?}", why(&back));
}
