//! Undoing a run before its point of no return.
//!
//! What undoes a run is a table of steps like the run itself, carried out by the same function and journalled with it, so
//! an abort that is killed goes on. No epoch ever goes back: a failover has raised it with its claim, and the writer that
//! comes back begins that epoch as if it had been handed it. What was fenced, refused or stopped under the raised epoch is
//! older than the orders that are given here, and their stamps keep late ones away.

use crate::failover::serving;
use crate::hand_over::next_epoch;
use crate::hand_over::standing::{order_over, principals, receiver};
use crate::name::{DatabaseName, HostName};
use crate::order::Order;
use crate::record::{MirrorRecord, PoolRecord};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, Whom, all_of, nothing};

/// How a runbook is undone.
pub struct Abort {
    /// What speaks against it, seen before anything is done.
    pub preflight: fn(&View<'_>) -> Vec<Unmet>,
    /// What undoes it, in order.
    pub steps: &'static [Undoing],
    /// What it says when all is undone.
    pub says_at_end: fn(&View<'_>) -> String,
}

/// A step that undoes something.
pub struct Undoing {
    /// It is needed when one of these steps of the run has given orders; always when there is none here.
    pub of: &'static [&'static str],
    /// The step.
    pub step: &'static Step,
}

/// How a runbook is undone; `None` when it cannot be.
pub fn abort_of(runbook: &Runbook) -> Option<&'static Abort> {
    match runbook.name {
        "failover" => Some(&FAILOVER),
        "failback" => Some(&FAILBACK),
        "planned-failover" => Some(&PLANNED_FAILOVER),
        "install-mirror" => Some(&INSTALL_MIRROR),
        "switch-mirror" => Some(&crate::switching::UNDO_SWITCH),
        "force-mirror" => Some(&crate::switching::UNDO_FORCE),
        _ => None,
    }
}

impl Abort {
    /// The steps that undo a run in which these steps have given orders.
    pub fn steps_after<'a>(&'a self, ordered: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = &'static Step> + 'a {
        let needed = move |undoing: &&Undoing| undoing.of.is_empty() || undoing.of.iter().any(|id| ordered(id));
        self.steps.iter().filter(needed).map(|undoing| undoing.step)
    }

    /// The step of that id.
    pub fn step(&self, id: &str) -> Option<&'static Step> {
        self.steps.iter().map(|undoing| undoing.step).find(|step| step.id == id)
    }
}

/// Why a run of which these steps have given orders cannot be undone any more, with what can be done instead.
pub fn past_return(runbook: &Runbook, ordered: impl Fn(&str) -> bool) -> Option<Unmet> {
    let step = runbook.steps.iter().find(|s| s.undo == Undo::PointOfNoReturn && ordered(s.id))?;
    let hint = match runbook.name {
        "failover" | "planned-failover" => {
            "let it end (standfast runbook resume); then standfast failback brings the users home"
        }
        "failback" => "let it end (standfast runbook resume); then standfast failover --force moves the users again",
        "switch-mirror" | "force-mirror" => {
            "let it end (standfast runbook resume); then standfast database failover changes the places back"
        }
        _ => "let it end: standfast runbook resume",
    };
    Some(Unmet {
        why: format!("step {} has been ordered: from there on the {} goes forward only", step.id, runbook.name),
        hint: hint.into(),
        can_be_forced: false,
    })
}

const FAILOVER: Abort = Abort {
    preflight: |view| {
        let mut unmet = Vec::new();
        for (database, d) in view.facts.before.databases.iter().filter(|(_, d)| d.backup.is_some()) {
            let Some(host) = &d.principal else {
                unmet.push(forward(format!("{database} had no principal when the failover began")));
                continue;
            };
            match view.instance(host, database).map(|i| i.state) {
                None => unmet.push(forward(format!(
                    "{host}, which was the principal of {database}, does not answer ({}): the pool would be left without \
                     a writer",
                    view.silence(host)
                ))),
                Some(InstanceState::Absent | InstanceState::Standby) => unmet.push(forward(format!(
                    "{host}, which was the principal of {database}, does not hold its data as a writer any more"
                ))),
                Some(_) => {}
            }
        }
        let home = view.topology.site(&view.facts.before.home).map(|s| &s.authority);
        if let Some(authority) = home.filter(|authority| !view.reports.contains_key(authority)) {
            unmet.push(forward(format!(
                "{authority}, the authority of {}, does not answer ({}): nobody could change the record there",
                view.facts.before.home,
                view.silence(authority)
            )));
        }
        unmet
    },
    steps: &[
        Undoing { of: &[], step: &REOPEN_OLD_PRIMARY },
        Undoing { of: &[], step: &RESTORE_RECORD },
        Undoing { of: &["stop-log-shipping"], step: &RESUME_LOG_SHIPPING },
    ],
    says_at_end: |view| {
        format!(
            "the failover is undone: {} serves on, in epoch {}; nothing that was acknowledged is lost",
            view.facts.from_site, view.record.epoch
        )
    },
};

fn forward(why: String) -> Unmet {
    Unmet {
        why,
        hint: "go on with the failover: standfast runbook resume; or bring that host back and abort again".into(),
        can_be_forced: false,
    }
}

/// Each database with the writer that it had when the run began.
fn writers(view: &View<'_>) -> Vec<(DatabaseName, HostName)> {
    let all = view.facts.before.databases.iter();
    all.filter_map(|(name, d)| d.principal.clone().map(|host| (name.clone(), host))).collect()
}

/// The same, of those whose writer a failover takes away.
fn fenced(view: &View<'_>) -> Vec<(DatabaseName, HostName)> {
    let has_backup = |name: &DatabaseName| view.facts.before.databases.get(name).is_some_and(|d| d.backup.is_some());
    writers(view).into_iter().filter(|(name, _)| has_backup(name)).collect()
}

/// Done when the old writer is online in this epoch because it was ordered to by this run. That it is seen so is not enough:
/// a hand-over that is under way has refused older epochs already, and is about to stop it.
pub(crate) fn open(view: &View<'_>, database: &DatabaseName, host: &HostName, epoch: rules::id::Epoch) -> Done {
    use crate::order::Outcome;
    let Some(instance) = view.instance(host, database) else {
        return Done::NotYet(format!("{host} does not answer ({}): start its agent", view.silence(host)));
    };
    let order = Order::Reopen { database: database.clone(), epoch, after: view.facts.before.epoch };
    let this_run = view.record.run.as_ref().map(|r| r.id.as_str());
    let taken = view.reports.get(host).and_then(|r| r.orders.get(database)).filter(|t| t.order == order);
    match taken.filter(|t| Some(t.run.as_str()) == this_run).map(|t| &t.outcome) {
        Some(Outcome::Failed { message }) => return Done::NotYet(format!("{host}: {message}")),
        Some(Outcome::Done { .. }) => {}
        _ => return Done::NotYet(format!("{database} on {host} is not opened again yet")),
    }
    let begun = instance.database_epoch.is_none_or(|e| e >= epoch);
    if instance.state == InstanceState::Online && begun {
        Done::Yes(format!("{database} on {host} is online in epoch {epoch}"))
    } else {
        Done::NotYet(format!("{database} on {host} is not online in epoch {epoch} yet"))
    }
}

const REOPEN_OLD_PRIMARY: Step = Step {
    id: "reopen-old-primary",
    reference: "",
    says: "Start the fenced primary again as the writer, in the epoch that the failover has begun.",
    needs: nothing,
    does: |view| {
        let epoch = view.record.epoch;
        let reopen = |database| Order::Reopen { database, epoch, after: view.facts.before.epoch };
        fenced(view).into_iter().map(|(database, host)| Deed::Give { host, order: reopen(database) }).collect()
    },
    done: |view| {
        all_of(fenced(view).into_iter().map(|(database, host)| open(view, &database, &host, view.record.epoch)))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

const RESTORE_RECORD: Step = Step {
    id: "restore-record",
    reference: "",
    says: "Put the record back as it was before the run, under the raised epoch: home, principal, mirror, active servers.",
    needs: nothing,
    does: |view| {
        if view.record == &restored(view) {
            return Vec::new();
        }
        vec![view.change(|record| *record = restored(view))]
    },
    done: |view| {
        if !same_parts(view.record, &restored(view)) {
            return Done::NotYet("the record is not as it was yet".into());
        }
        serving(view, &view.facts.before.active_servers)
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 10_000,
};

/// The record before the run, with what must not go back: epoch, version, and what the pair knows of itself. The mirror is
/// not synchronised until its agent says so again.
fn restored(view: &View<'_>) -> PoolRecord {
    let mut record = view.facts.before.clone();
    record.epoch = view.record.epoch;
    record.version = view.record.version;
    record.run.clone_from(&view.record.run);
    for (name, d) in &mut record.databases {
        let now = view.record.databases.get(name).and_then(|d| d.mirror.clone());
        if let Some(mirror) = &mut d.mirror {
            mirror.synchronised = now.is_some_and(|now| now.host == mirror.host && now.synchronised);
        }
    }
    record
}

/// Whether two records say the same but for their version.
pub(crate) fn same_parts(a: &PoolRecord, b: &PoolRecord) -> bool {
    *a == PoolRecord { version: a.version, ..b.clone() }
}

const RESUME_LOG_SHIPPING: Step = Step {
    id: "resume-log-shipping",
    reference: "",
    says: "Start log shipping on the backup again: copy and restore jobs, and the stream.",
    needs: nothing,
    does: |view| {
        let start = |database| Order::StartLogShipping { database };
        backups(view).into_iter().map(|(database, host)| Deed::Give { host, order: start(database) }).collect()
    },
    done: |view| {
        all_of(backups(view).into_iter().map(|(database, host)| {
            let shipping = view.instance(&host, &database).and_then(|i| i.shipping.as_ref());
            match shipping {
                Some(s) if s.enabled && s.streaming => Done::Yes(format!("{host} follows again")),
                Some(s) if s.enabled && view.step_age_ms > STREAM_PATIENCE_MS => {
                    Done::Yes(format!("{host}: the jobs of {database} are on; it does not stream yet"))
                }
                Some(s) if s.enabled => Done::NotYet(format!("{host} does not stream yet")),
                _ => Done::NotYet(format!("log shipping of {database} is not on yet on {host}")),
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 10_000,
};

/// How long the backup may take to stream again before the abort ends without it, in milliseconds: its agent goes on.
const STREAM_PATIENCE_MS: u64 = 5_000;

fn backups(view: &View<'_>) -> Vec<(DatabaseName, HostName)> {
    let all = view.facts.before.databases.iter();
    all.filter_map(|(name, d)| d.backup.clone().map(|host| (name.clone(), host))).collect()
}

const FAILBACK: Abort = Abort {
    preflight: |view| {
        let silent = principals(view).into_iter().filter(|(database, host)| view.instance(host, database).is_none());
        silent
            .map(|(database, host)| Unmet {
                why: format!("{host}, the principal of {database}, does not answer ({})", view.silence(&host)),
                hint: format!("start the agent on {host}, then abort again; or go on: standfast runbook resume"),
                can_be_forced: false,
            })
            .collect()
    },
    steps: &[
        Undoing { of: &["final-backup"], step: &REOPEN_WRITER },
        Undoing { of: &["clear-active-servers", "remove-mirroring", "final-backup"], step: &RESTORE_SERVICE },
    ],
    says_at_end: |view| {
        let home = &view.facts.before.home;
        let fed = view.record.databases.values().any(|d| d.backup.is_some());
        let fed = if fed {
            format!("; {} stays fed as the backup, and the next failback begins there", view.facts.to_site)
        } else {
            String::new()
        };
        format!("the failback is undone: {home} serves on, in epoch {}{fed}", view.record.epoch)
    },
};

const PLANNED_FAILOVER: Abort = Abort {
    preflight: FAILBACK.preflight,
    steps: &[
        Undoing { of: &["hand-over"], step: &REOPEN_WRITER },
        Undoing { of: &["clear-active-servers", "remove-mirroring", "hand-over"], step: &RESTORE_SERVICE },
        Undoing { of: &["apply-at-once"], step: &HOLD_BACK_AGAIN },
    ],
    says_at_end: |view| {
        format!(
            "the planned failover is undone: {} serves on, in epoch {}; nothing that was acknowledged is lost",
            view.facts.before.home, view.record.epoch
        )
    },
};

const HOLD_BACK_AGAIN: Step = Step {
    id: "hold-back-again",
    reference: "",
    says: "Let the restore job of the backup hold back what its settings say, as before.",
    needs: nothing,
    does: |view| {
        let order = |(database, _): (DatabaseName, HostName)| {
            let host = receiver(view, &database)?;
            Some(Deed::Give { host, order: Order::HoldBackAgain { database } })
        };
        fenced(view).into_iter().filter_map(order).collect()
    },
    done: |view| {
        all_of(fenced(view).into_iter().map(|(database, _)| match receiver(view, &database) {
            Some(host) if view.instance(&host, &database).is_none() && view.step_age_ms > STREAM_PATIENCE_MS => {
                Done::Yes(format!("{host} does not answer; in the next epoch it holds back by itself"))
            }
            Some(host) => order_over(view, &host, &database, |o| matches!(o, Order::HoldBackAgain { .. })),
            None => Done::Yes(String::new()),
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 5_000,
};

const REOPEN_WRITER: Step = Step {
    id: "reopen-writer",
    reference: "",
    says: "Start the writer again that was stopped for the hand-over, in the epoch that it was to be handed over for.",
    needs: nothing,
    does: |view| {
        // It refuses older ones since it was to be handed over, so it begins this one itself.
        let epoch = next_epoch(view);
        let reopen = |database| Order::Reopen { database, epoch, after: view.facts.before.epoch };
        principals(view).into_iter().map(|(database, host)| Deed::Give { host, order: reopen(database) }).collect()
    },
    done: |view| {
        all_of(principals(view).into_iter().map(|(database, host)| open(view, &database, &host, next_epoch(view))))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

const RESTORE_SERVICE: Step = Step {
    id: "restore-service",
    reference: "",
    says: "Put principal, mirror and active servers back into the record; the returned site stays fed.",
    needs: nothing,
    does: |view| {
        let Some(wanted) = served(view) else { return Vec::new() };
        if view.record == &wanted { Vec::new() } else { vec![view.change(|record| *record = wanted)] }
    },
    done: |view| match served(view) {
        Some(wanted) if same_parts(view.record, &wanted) => serving(view, &view.facts.before.active_servers),
        Some(_) => Done::NotYet("the record is not as it was yet".into()),
        None => Done::NotYet("the writer does not say in which epoch it is".into()),
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 10_000,
};

/// The present record with the writer, its mirror and the servers of before, in the epoch that the writer carries.
fn served(view: &View<'_>) -> Option<PoolRecord> {
    let mut record = view.record.clone();
    for (database, host) in principals(view) {
        let instance = view.instance(&host, &database)?;
        record.epoch = record.epoch.max(instance.database_epoch.unwrap_or(record.epoch));
        let before = view.facts.before.databases.get(&database)?;
        let d = record.databases.get_mut(&database)?;
        d.principal = Some(host);
        let mirror = before.mirror.as_ref().filter(|_| d.mirror.is_none());
        if let Some(mirror) = mirror {
            d.mirror = Some(MirrorRecord { host: mirror.host.clone(), synchronised: false });
        }
    }
    record.active_servers.clone_from(&view.facts.before.active_servers);
    Some(record)
}

const INSTALL_MIRROR: Abort = Abort {
    preflight: |_| Vec::new(),
    steps: &[Undoing { of: &["record-mirror"], step: &RESTORE_PAIR }],
    says_at_end: |_| {
        "the mirror is out of the pool again; its copy is kept, and the next install begins with it".into()
    },
};

const RESTORE_PAIR: Step = Step {
    id: "restore-pair",
    reference: "",
    says: "Put the pair back into the record as it was before: commits do not wait for the new mirror any more.",
    needs: nothing,
    does: |view| {
        let wanted = paired(view);
        if view.record == &wanted { Vec::new() } else { vec![view.change(|record| *record = wanted)] }
    },
    done: |view| {
        if !same_parts(view.record, &paired(view)) {
            return Done::NotYet("the record still has the new mirror".into());
        }
        all_of(view.record.databases.iter().filter(|(_, d)| d.mirror.is_none()).map(|(database, d)| {
            let principal = d.principal.as_ref().and_then(|p| view.instance(p, database));
            match principal {
                Some(i) if !i.synchronous.is_empty() => Done::NotYet(format!("{database} still waits for its mirror")),
                _ => Done::Yes(format!("{database} has no mirror, as before")),
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 5_000,
};

fn paired(view: &View<'_>) -> PoolRecord {
    let mut record = view.record.clone();
    for (name, d) in &mut record.databases {
        let before = view.facts.before.databases.get(name).and_then(|d| d.mirror.as_ref());
        if before.map(|m| &m.host) != d.mirror.as_ref().map(|m| &m.host) {
            d.mirror = before.map(|m| MirrorRecord { host: m.host.clone(), synchronised: false });
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::{ALL, named};
    use std::collections::BTreeSet;

    #[test]
    fn a_run_may_go_back_until_its_point_of_no_return_is_ordered() {
        let failover = named("failover").expect("there is a failover");
        assert!(past_return(failover, |id| id == "disconnect-sessions").is_none());
        let unmet = past_return(failover, |id| id == "bring-backup-online").expect("it is past");
        assert!(unmet.why.contains("bring-backup-online") && unmet.hint.contains("failback"), "{unmet:?}");
    }

    #[test]
    fn only_what_was_ordered_is_undone() {
        let failback = abort_of(named("failback").expect("there is a failback")).expect("it can be undone");
        let check = |ordered: &[&str], expect: &[&str]| {
            let steps: Vec<&str> = failback.steps_after(|id| ordered.contains(&id)).map(|s| s.id).collect();
            assert_eq!(steps, expect, "{ordered:?}");
        };
        check(&["rewind-primary", "feed-primary"], &[]);
        check(&["clear-active-servers"], &["restore-service"]);
        check(&["clear-active-servers", "final-backup"], &["reopen-writer", "restore-service"]);
    }

    #[test]
    fn every_step_that_an_abort_names_is_there_and_none_undoes_beyond_return() {
        for runbook in ALL {
            let Some(abort) = abort_of(runbook) else { continue };
            let own: BTreeSet<&str> = runbook.steps.iter().map(|s| s.id).collect();
            for undoing in abort.steps {
                assert!(!own.contains(undoing.step.id), "{} is a step of the run too", undoing.step.id);
                for of in undoing.of {
                    let (_, step) = runbook.step(of).expect("the step that is undone is there");
                    assert_ne!(step.undo, Undo::PointOfNoReturn, "{of}");
                }
            }
        }
    }
}
