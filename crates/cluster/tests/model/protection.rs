//! The protections that a test may switch off, and what the steps are without them.

use crate::state::{S1A, S2A};
use crate::words;
use cluster::order::Order;
use cluster::runbook::{Deed, Step, View};

/// A protection that a test may switch off, and expects to be missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Failing over begins with the fence.
    FenceFirst,
    /// The fence closes the share to the old site.
    ShareCloses,
    /// An agent takes no older stamp.
    Stamps,
    /// A step is judged on what came of its own orders since it began, not on how things happened to stand before.
    OwnOrders,
    /// A returning instance asks before it opens for writing.
    ReturningAsks,
    /// "Not synchronised" is recorded before commits stop waiting.
    RecordBeforeExposure,
    /// "Synchronised" is recorded only when commits really wait and the mirror has confirmed what was there before.
    MirrorConfirms,
    /// Failing back salvages before it rewinds.
    SalvageFirst,
    /// The primary is brought online only with every byte of the old writer.
    EveryByte,
    /// An order that was under way when its agent died is reported as failed, so that it is given again.
    InterruptedOrdersFail,
    /// An agent notes a promotion before it promotes, and starts what was promoted.
    PromotionIsRememberedFirst,
    /// A request to record "synchronised" that was not answered is overruled before commits stop waiting.
    UnansweredIsOverruled,
    /// The two sites never begin the same epoch.
    EpochsOfSites,
    /// A planned switch promotes the mirror only with every byte of the principal.
    EveryByteOfSwitch,
    /// A principal stops at once for its mirror only when that has flushed everything.
    MirrorFlushes,
    /// A planned failover begins its epoch only when the backup has applied the last byte.
    EveryByteOfPlanned,
    /// A forced switch fences the old principal where it answers.
    ForceFences,
    /// A run that claims a record other than the one that it was begun on asks again what speaks against it.
    AskedAgainOnClaim,
    /// Who cannot follow the present principal salvages and rewinds by itself.
    Rejoins,
    /// Undoing a switch, the record promises nothing of the mirror before the old principal is open.
    PartsThePair,
}

/// Take these protections away from the tables of steps, in the order of `BOOKS`.
pub fn weaken(steps: &mut [Vec<Step>; 5], off: &[Protection]) {
    let [failover, failback, switch, forced, planned] = steps;
    if off.contains(&Protection::FenceFirst) {
        failover.remove(0);
    }
    if off.contains(&Protection::SalvageFirst) {
        failback.retain(|s| s.id != "salvage-tail");
    }
    if off.contains(&Protection::EveryByte) {
        let step = failback.iter_mut().find(|s| s.id == "restore-on-primary").expect("the step is there");
        step.does = |view| {
            let order = Order::Promote { database: words::database(), epoch: view.record.epoch };
            vec![Deed::Give { host: words::name(S1A), order }]
        };
    }
    if off.contains(&Protection::OwnOrders) {
        let step = failback.iter_mut().find(|s| s.id == "final-backup").expect("the step is there");
        step.does = final_backup_by_sight;
    }
    if off.contains(&Protection::EveryByteOfSwitch) {
        let step = switch.iter_mut().find(|s| s.id == "hand-over").expect("the step is there");
        step.does = hand_over_by_order;
    }
    if off.contains(&Protection::EveryByteOfPlanned) {
        let step = planned.iter_mut().find(|s| s.id == "hand-over").expect("the step is there");
        step.does = hand_over_by_order;
    }
    if off.contains(&Protection::ForceFences) {
        forced.retain(|s| s.id != "fence-principal");
    }
}

/// The step without its protection: a writer that is seen stopped counts as handed over, whoever stopped it, and when.
fn final_backup_by_sight(view: &View<'_>) -> Vec<Deed> {
    let (host, database) = (words::name(S2A), words::database());
    let epoch = view.topology.next_epoch(view.facts.before.epoch, &view.facts.to_site);
    if view.record.epoch >= epoch {
        return Vec::new();
    }
    let stopped = view.instance(&host, &database).is_some_and(|i| i.shut_down_at.is_some());
    if !stopped {
        return vec![Deed::Give { host, order: Order::HandOver { database, epoch } }];
    }
    vec![view.change(|record| {
        record.epoch = epoch;
        record.databases.values_mut().for_each(|d| d.principal = None);
    })]
}

/// The step without its protection: a principal that is handed over counts, whatever the mirror has applied.
fn hand_over_by_order(view: &View<'_>) -> Vec<Deed> {
    let (host, database) = (words::name(S1A), words::database());
    let epoch = view.topology.next_epoch(view.facts.before.epoch, &view.facts.before.home);
    if view.instance(&host, &database).is_none_or(|i| i.shut_down_at.is_none()) {
        return vec![Deed::Give { host, order: Order::HandOver { database, epoch } }];
    }
    vec![view.change(|record| {
        record.epoch = epoch;
        record.databases.values_mut().for_each(|d| d.principal = None);
    })]
}
