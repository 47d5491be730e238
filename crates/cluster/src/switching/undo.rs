//! Undoing a switch before its point of no return: the principal that was handed over, or fenced, opens again.
//!
//! The mirror was never asked to take over, so it holds nothing that the principal has not, and follows it again. Until the
//! principal is open the record promises nothing of the mirror: a writer that is opened again waits for nobody at first.

use super::{Pair, next_epoch, online, pairs, principal, writers};
use crate::abort::{Abort, Undoing, open, same_parts};
use crate::failover::serving;
use crate::order::Order;
use crate::record::{MirrorRecord, PoolRecord};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Step, Undo, Unmet, View, Whom, all_of, nothing};

/// How a planned switch is undone.
pub const UNDO_SWITCH: Abort = Abort {
    preflight: unfit,
    steps: &[
        Undoing { of: &["hand-over"], step: &PART_PAIR },
        Undoing { of: &["hand-over"], step: &REOPEN_PRINCIPAL },
        Undoing { of: &["hand-over"], step: &RESTORE_PRINCIPAL },
    ],
    says_at_end,
};

/// How a forced switch is undone. Its claim has begun an epoch without a writer already.
pub const UNDO_FORCE: Abort = Abort {
    preflight: unfit,
    steps: &[
        Undoing { of: &[], step: &PART_PAIR },
        Undoing { of: &[], step: &REOPEN_PRINCIPAL },
        Undoing { of: &[], step: &RESTORE_PRINCIPAL },
    ],
    says_at_end,
};

/// The old principal has to be there, with a writer's data: else nobody would be left to open.
fn unfit(view: &View<'_>) -> Vec<Unmet> {
    let seen = |Pair { database, from, .. }: Pair| match view.instance(&from, &database).map(|i| i.state) {
        None => Some(format!("{from}, the principal of {database}, does not answer ({})", view.silence(&from))),
        Some(InstanceState::Absent | InstanceState::Standby) => {
            Some(format!("{from}, which was the principal of {database}, does not hold its data as a writer any more"))
        }
        Some(_) => None,
    };
    let hint = "go on with the switch: standfast runbook resume; or bring that host back and abort again";
    let unmet = |why| Unmet { why, hint: hint.into(), can_be_forced: false };
    pairs(view).into_iter().filter_map(seen).map(unmet).collect()
}

fn says_at_end(view: &View<'_>) -> String {
    let says = pairs(view).into_iter().filter_map(|Pair { database, .. }| {
        let host = principal(view, &database)?;
        Some(format!("{host} stays the principal of {database}, in epoch {}", view.record.epoch))
    });
    let says: Vec<String> = says.collect();
    format!("the switch is undone: {}; nothing that was acknowledged is lost", says.join("; "))
}

const PART_PAIR: Step = Step {
    id: "part-pair",
    reference: "",
    says: "Begin the epoch of the switch without a writer and without a mirror: the record promises nothing of the pair.",
    needs: nothing,
    does: |view| {
        let parted = parted(view);
        if same_parts(view.record, &parted) { Vec::new() } else { vec![view.change(|record| *record = parted)] }
    },
    done: |view| {
        if reopened(view) || same_parts(view.record, &parted(view)) {
            Done::Yes(format!("epoch {}", view.record.epoch))
        } else {
            Done::NotYet("the record still has the pair".into())
        }
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 5_000,
};

fn parted(view: &View<'_>) -> PoolRecord {
    let mut record = view.record.clone();
    record.epoch = record.epoch.max(next_epoch(view, view.facts.before.epoch));
    for Pair { database, .. } in pairs(view) {
        let d = record.databases.entry(database).or_default();
        d.principal = None;
        d.mirror = None;
    }
    record
}

/// Whether the record names the old principals in an epoch after that in which the run began.
fn reopened(view: &View<'_>) -> bool {
    let named = |pair: &Pair| principal(view, &pair.database) == Some(&pair.from);
    view.record.epoch > view.facts.before.epoch && pairs(view).iter().all(named)
}

const REOPEN_PRINCIPAL: Step = Step {
    id: "reopen-principal",
    reference: "",
    says: "Start the old principal again as the writer, in the epoch that the switch has begun.",
    needs: nothing,
    does: |view| {
        let (epoch, after) = (view.record.epoch, view.facts.before.epoch);
        let reopen = |Pair { database, from, .. }: Pair| Deed::Give {
            host: from,
            order: Order::Reopen { database, epoch, after },
        };
        // A database that does not change places begins the epoch too: its servers state it.
        let others = others(view)
            .into_iter()
            .map(|(database, host)| Deed::Give { host, order: Order::Promote { database, epoch } });
        pairs(view).into_iter().map(reopen).chain(others).collect()
    },
    done: |view| {
        let pairs = pairs(view).into_iter().map(|pair| open(view, &pair.database, &pair.from, view.record.epoch));
        let others = others(view).into_iter().map(|(database, host)| {
            if online(view, &database, &host) {
                Done::Yes(format!("{database} on {host} is online in epoch {}", view.record.epoch))
            } else {
                Done::NotYet(format!("{database} on {host} has not begun epoch {} yet", view.record.epoch))
            }
        });
        all_of(pairs.chain(others).collect::<Vec<_>>())
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

/// The databases that do not change places, with their writers.
fn others(view: &View<'_>) -> Vec<(crate::name::DatabaseName, crate::name::HostName)> {
    let pairs = pairs(view);
    writers(view).into_iter().filter(|(name, _)| pairs.iter().all(|pair| pair.database != *name)).collect()
}

const RESTORE_PRINCIPAL: Step = Step {
    id: "restore-principal",
    reference: "",
    says: "Put principal and mirror back into the record, in the epoch of the switch; the mirror follows and synchronises.",
    needs: nothing,
    does: |view| {
        let restored = restored(view);
        if same_parts(view.record, &restored) { Vec::new() } else { vec![view.change(|record| *record = restored)] }
    },
    done: |view| {
        if same_parts(view.record, &restored(view)) {
            serving(view, &view.record.active_servers)
        } else {
            Done::NotYet("the record does not name the old principal yet".into())
        }
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 10_000,
};

fn restored(view: &View<'_>) -> PoolRecord {
    let mut record = view.record.clone();
    for Pair { database, from, to } in pairs(view) {
        let d = record.databases.entry(database).or_default();
        d.principal = Some(from);
        d.mirror.get_or_insert(MirrorRecord { host: to, synchronised: false });
    }
    record
}
