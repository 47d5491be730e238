//! Changing places within a mirror pair: the planned switch and the forced one (ha-dr §7.1, §13.3,
//! `Invoke-CsDatabaseFailover`).
//!
//! Every change of writer begins a new epoch, this one too; state, home and active servers stay as they are, so servers
//! follow the record by themselves, and log shipping goes on from whoever is principal.
//!
//! Planned: the principal refuses writers, and stops at once when its mirror has flushed whatever was committed; or cleanly,
//! and the mirror is promoted only when it has applied everything. If neither comes about, the writer goes back to where it was.
//!
//! Forced: the principal is gone, or is taken for gone. While the record says "synchronised" nothing that was acknowledged can be lost by it: an old principal that lives on out of reach commits
//! nothing, because its commits wait for the mirror, and it cannot record "not synchronised" in an epoch that is over. Rooms whose
//! category asks for the disk alone are the exception: what the mirror lacks of them is salvaged when the old principal is back.

mod preflight;
mod undo;

pub use self::preflight::loss;
use self::preflight::{fit_for_hand_over, preflight_force, preflight_switch};
pub use self::undo::{UNDO_FORCE, UNDO_SWITCH};
use crate::failover::{began, unfenced};
use crate::hand_over::standing::order_over;
use crate::name::{DatabaseName, HostName, SiteName};
use crate::order::Order;
use crate::record::{DatabaseRecord, MirrorRecord, PoolRecord, RunRef};
use crate::report::{InstanceReport, InstanceState};
use crate::runbook::{Deed, Done, Runbook, Step, Undo, View, Whom, all_of, claim_at_home, nothing};
use crate::topology::Database;
use crate::wal::Lsn;
use rules::id::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which of the two is to be principal: a name of the topology, whoever plays which part now (`-NewPrincipal`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partner {
    /// The topology's primary; at the other site its backup.
    Primary,
    /// The topology's mirror; at the other site its backup mirror.
    Mirror,
}

impl std::fmt::Display for Partner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Partner::Primary => "primary",
            Partner::Mirror => "mirror",
        })
    }
}

/// The planned switch.
pub const SWITCH_MIRROR: &Runbook = &Runbook {
    name: "switch-mirror",
    says: "Principal and mirror change places: hand the writer over to the mirror, and let the old principal follow it.",
    preflight: preflight_switch,
    already,
    claim: claim_at_home,
    says_at_end,
    steps: &[
        WRITE_OUT,
        HAND_OVER,
        PROMOTE_MIRROR, // from here on, forward only
        RECORD_PRINCIPAL,
        FOLLOW_PRINCIPAL,
    ],
};

/// The forced switch.
pub const FORCE_MIRROR: &Runbook = &Runbook {
    name: "force-mirror",
    says: "The principal is gone: fence it, bring its mirror online, and let log shipping go on from there.",
    preflight: preflight_force,
    already,
    claim: claim_force,
    says_at_end,
    steps: &[
        FENCE_PRINCIPAL,
        FORCE_SERVICE, // from here on, forward only
        RECORD_PRINCIPAL,
        FOLLOW_PRINCIPAL,
    ],
};

/// A pair that changes places.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    database: DatabaseName,
    from: HostName,
    to: HostName,
}

/// The host that a partner's name means for a database, at the site that is home.
pub fn host_of(view: &View<'_>, database: &Database, partner: Partner) -> Option<HostName> {
    let home = &view.facts.before.home;
    let here = |host: &HostName| view.topology.site_of(host) == Some(home);
    let (first, second) = if here(&database.primary.host) {
        (Some(&database.primary), database.mirror.as_ref())
    } else {
        (database.backup.as_ref(), database.backup_mirror.as_ref())
    };
    let instance = match partner {
        Partner::Primary => first,
        Partner::Mirror => second,
    };
    instance.map(|i| i.host.clone()).filter(here)
}

/// Who is to be principal of a database: the partner that was asked for, else the mirror.
fn wanted(view: &View<'_>, database: &DatabaseName, before: &DatabaseRecord) -> Option<HostName> {
    match view.facts.new_principal {
        Some(partner) => host_of(view, view.topology.database(database)?, partner),
        None => before.mirror.as_ref().map(|m| m.host.clone()),
    }
}

/// The pairs that change places, as things stood when the run began.
fn pairs(view: &View<'_>) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let concerned = |name: &DatabaseName| view.facts.automatic.as_ref().is_none_or(|t| t.database == *name);
    for (name, d) in view.facts.before.databases.iter().filter(|(name, _)| concerned(name)) {
        let (Some(from), Some(to)) = (d.principal.clone(), wanted(view, name, d)) else { continue };
        if from != to {
            pairs.push(Pair { database: name.clone(), from, to });
        }
    }
    pairs
}

fn part<'a>(view: &'a View<'_>, database: &DatabaseName) -> Option<&'a DatabaseRecord> {
    view.record.databases.get(database)
}

fn principal<'a>(view: &'a View<'_>, database: &DatabaseName) -> Option<&'a HostName> {
    part(view, database).and_then(|d| d.principal.as_ref())
}

/// Whether the record promises that everything acknowledged is on this host.
fn synchronised(view: &View<'_>, pair: &Pair) -> bool {
    let mirror = part(view, &pair.database).and_then(|d| d.mirror.as_ref());
    mirror.is_some_and(|m| m.synchronised && m.host == pair.to)
}

fn streams(instance: &InstanceReport) -> bool {
    instance.state == InstanceState::Standby && instance.shipping.as_ref().is_some_and(|s| s.streaming)
}

/// The epoch of a writer at this site after `last`.
fn next_epoch(view: &View<'_>, last: Epoch) -> Epoch {
    view.topology.next_epoch(last, &view.facts.before.home)
}

/// Whether the record has left the epoch in which the run began.
fn handed_over(view: &View<'_>) -> bool {
    view.record.epoch > view.facts.before.epoch
}

const WRITE_OUT: Step = Step {
    id: "write-out",
    reference: "",
    says: "Write out what is dirty at the principal, then at the mirror, online, so that the hand-over is quick.",
    needs: nothing,
    does: |view| {
        let mut deeds = Vec::new();
        for Pair { database, from, to } in pairs(view) {
            let host = if matches!(written_out(view, &from, &database), Done::Yes(_)) { to } else { from };
            deeds.push(Deed::Give { host, order: Order::Checkpoint { database } });
        }
        deeds
    },
    done: |view| {
        all_of(pairs(view).into_iter().flat_map(|Pair { database, from, to }| {
            [written_out(view, &from, &database), written_out(view, &to, &database)]
        }))
    },
    looks_at: Whom::These(at_writers),
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

fn written_out(view: &View<'_>, host: &HostName, database: &DatabaseName) -> Done {
    order_over(view, host, database, |o| matches!(o, Order::Checkpoint { .. }))
}

/// How long the mirror may take to apply the last bytes, or to be promoted, in milliseconds, before the writer goes back to
/// where it was: clients wait meanwhile.
const TAKE_BACK_MS: u64 = 3_000;

const HAND_OVER: Step = Step {
    id: "hand-over",
    reference: "",
    says: "Hand over: the principal refuses writers, its mirror has everything, it stops; a new epoch begins without a writer.",
    needs: |view| {
        for pair in pairs(view) {
            if !handed_over(view) && stopped(view, &pair).is_none() {
                fit_for_hand_over(view, &pair)?;
            }
        }
        Ok(())
    },
    does: |view| {
        let epoch = next_epoch(view, view.facts.before.epoch);
        let mut deeds = Vec::new();
        for pair in pairs(view) {
            if stopped(view, &pair).is_none() {
                let order = Order::HandOver { database: pair.database, epoch };
                deeds.push(Deed::Give { host: pair.from, order });
            }
        }
        if !deeds.is_empty() || handed_over(view) {
            return deeds;
        }
        if pairs(view).iter().all(|pair| has_everything(view, pair)) {
            deeds.push(view.change(|record| {
                record.epoch = epoch;
                for pair in pairs(view) {
                    record.databases.entry(pair.database).or_default().principal = None;
                }
            }));
        } else if view.step_age_ms >= TAKE_BACK_MS {
            deeds.push(take_back(view));
        }
        deeds
    },
    done: |view| {
        if handed_over(view) {
            return Done::Yes(format!("epoch {}", view.record.epoch));
        }
        all_of(pairs(view).into_iter().map(|pair| match stopped(view, &pair) {
            None => match order_over(view, &pair.from, &pair.database, |o| matches!(o, Order::HandOver { .. })) {
                Done::Yes(_) => Done::NotYet(format!("{} on {} is not stopped yet", pair.database, pair.from)),
                missing => missing,
            },
            Some(end) if has_everything(view, &pair) => Done::NotYet(format!(
                "{} has {} up to {end}; the new epoch is not recorded yet",
                pair.to, pair.database
            )),
            Some(end) => Done::NotYet(format!("{} has not applied {} up to {end} yet", pair.to, pair.database)),
        }))
    },
    looks_at: Whom::These(at_writers),
    undo: Undo::Nothing,
    patience_ms: 10_000,
};

/// Up to where the mirror has to have the old principal's log, once that has been stopped by this run's own order.
fn stopped(view: &View<'_>, pair: &Pair) -> Option<Lsn> {
    left_to_mirror(view, pair).or_else(|| stopped_cleanly(view, pair))
}

/// Where the log stood when the old principal refused writers, if it said that the mirror has flushed all of it. Nothing of the old one is
/// waited for then, and the mirror applies it when it is promoted.
fn left_to_mirror(view: &View<'_>, pair: &Pair) -> Option<Lsn> {
    let given = order_over(view, &pair.from, &pair.database, |o| matches!(o, Order::HandOver { .. }));
    let report = view.reports.get(&pair.from)?.orders.get(&pair.database)?;
    let left_to = report.left_to.as_ref().filter(|_| matches!(given, Done::Yes(_)))?;
    (left_to.host == pair.to).then_some(left_to.at)
}

fn stopped_cleanly(view: &View<'_>, pair: &Pair) -> Option<Lsn> {
    let given = order_over(view, &pair.from, &pair.database, |o| matches!(o, Order::HandOver { .. }));
    let instance = view.instance(&pair.from, &pair.database)?;
    let down = !matches!(instance.state, InstanceState::Online | InstanceState::Busy);
    instance.shut_down_at.filter(|_| down && matches!(given, Done::Yes(_))).map(|s| s.end)
}

fn has_everything(view: &View<'_>, pair: &Pair) -> bool {
    let applied = view.instance(&pair.to, &pair.database).and_then(|i| i.applied);
    left_to_mirror(view, pair).is_some()
        || applied.zip(stopped(view, pair)).is_some_and(|(applied, end)| applied >= end)
}

/// The mirror does not take over: the old principal, which holds everything, goes on in an epoch of its own, so that a
/// mirror which is promoted all the same is left behind. Nobody wrote anywhere in between.
fn take_back(view: &View<'_>) -> Deed {
    view.change(|record| {
        record.epoch = next_epoch(view, record.epoch);
        for pair in pairs(view) {
            let d = record.databases.entry(pair.database).or_default();
            d.principal = Some(pair.from);
            d.mirror = None;
        }
    })
}

const PROMOTE_MIRROR: Step = Step {
    id: "promote-mirror",
    reference: "",
    says: "Bring the mirror online as principal: it holds every byte; begin the new epoch in the database.",
    needs: nothing,
    does: |view| {
        let late = view.step_age_ms >= TAKE_BACK_MS;
        let to_silent = |pair: &Pair| {
            principal(view, &pair.database).is_none() && view.instance(&pair.to, &pair.database).is_none()
        };
        let answers = |pair: &Pair| view.instance(&pair.from, &pair.database).is_some();
        if late && pairs(view).iter().any(to_silent) && pairs(view).iter().all(answers) {
            return vec![take_back(view)];
        }
        promotions(view)
    },
    done: promoted,
    looks_at: Whom::These(at_writers),
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

const FORCE_SERVICE: Step = Step {
    id: "force-service",
    reference: "",
    says: "Force service on the mirror: bring it online with everything that it has, begin the new epoch in the database.",
    needs: nothing,
    does: promotions,
    done: promoted,
    looks_at: Whom::These(at_writers),
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

/// Each database with the host that is to be writer in the record's epoch: every database begins the epoch.
fn writers(view: &View<'_>) -> Vec<(DatabaseName, HostName)> {
    let pairs = pairs(view);
    let writer = |name: &DatabaseName| {
        let to = pairs.iter().find(|p| p.database == *name).map(|p| p.to.clone());
        principal(view, name).cloned().or(to)
    };
    view.record.databases.keys().filter_map(|name| Some((name.clone(), writer(name)?))).collect()
}

/// Who hands over, and who is to write.
fn at_writers(view: &View<'_>) -> BTreeSet<HostName> {
    let partners = pairs(view).into_iter().flat_map(|pair| [pair.from, pair.to]);
    writers(view).into_iter().map(|(_, host)| host).chain(partners).collect()
}

fn promotions(view: &View<'_>) -> Vec<Deed> {
    let epoch = view.record.epoch;
    let waiting = writers(view).into_iter().filter(|(database, host)| !online(view, database, host));
    let pairs = pairs(view);
    let given_back = |database: &DatabaseName, host: &HostName| {
        pairs.iter().any(|pair| pair.database == *database && pair.from == *host)
    };
    let order = |(database, host): (DatabaseName, HostName)| {
        let order = if given_back(&database, &host) {
            Order::Reopen { database, epoch, after: view.facts.before.epoch }
        } else {
            Order::Promote { database, epoch }
        };
        Deed::Give { host, order }
    };
    waiting.map(order).collect()
}

fn online(view: &View<'_>, database: &DatabaseName, host: &HostName) -> bool {
    let instance = view.instance(host, database);
    instance.is_some_and(|i| i.state == InstanceState::Online && began(i.database_epoch, view))
}

/// Whether the host has said that it is online in the record's epoch by this run's order. Whatever has become of it since, its data is
/// the writer's, and its agent opens it again when the record names it.
fn was_opened(view: &View<'_>, database: &DatabaseName, host: &HostName) -> bool {
    let opens = |order: &Order| match order {
        Order::Promote { epoch, .. } | Order::Reopen { epoch, .. } => *epoch == view.record.epoch,
        _ => false,
    };
    matches!(order_over(view, host, database, opens), Done::Yes(_))
}

fn promoted(view: &View<'_>) -> Done {
    all_of(writers(view).into_iter().map(|(database, host)| {
        if online(view, &database, &host) || was_opened(view, &database, &host) {
            Done::Yes(format!("{database} on {host} is online in epoch {}", view.record.epoch))
        } else if view.reports.contains_key(&host) {
            Done::NotYet(format!("{database} on {host} is not online yet"))
        } else {
            let silence = view.silence(&host);
            Done::NotYet(format!(
                "{host} does not answer ({silence}): start its agent, or move the pool with standfast failover"
            ))
        }
    }))
}

/// How long a synchronised mirror waits for its old principal to be stopped, in milliseconds: clients wait meanwhile, and
/// what it waits for is no matter of safety.
const FENCE_PATIENCE_MS: u64 = 300;

const FENCE_PRINCIPAL: Step = Step {
    id: "fence-principal",
    reference: "",
    says: "Fence the old principal: the epoch is raised, and its database is stopped where its agent answers.",
    needs: nothing,
    does: |view| {
        let epoch = view.record.epoch;
        let open = pairs(view).into_iter().filter(|p| unfenced(view, &p.from, &p.database).is_some());
        open.map(|Pair { database, from, .. }| Deed::Give { host: from, order: Order::Fence { database, epoch } })
            .collect()
    },
    done: |view| {
        all_of(pairs(view).into_iter().map(|pair| match unfenced(view, &pair.from, &pair.database) {
            Some(_) if synchronised(view, &pair) && view.step_age_ms >= FENCE_PATIENCE_MS => Done::Yes(format!(
                "{} is not stopped yet, frozen perhaps; alive or not, it commits nothing without its mirror",
                pair.from
            )),
            Some(missing) => Done::NotYet(missing),
            None if view.reports.contains_key(&pair.from) => Done::Yes(format!("{} is fenced", pair.from)),
            None if synchronised(view, &pair) => {
                Done::Yes(format!("{} does not answer; alive or not, it commits nothing without its mirror", pair.from))
            }
            None => Done::Yes(format!(
                "{} does not answer; if it is alive, it may acknowledge posts until it hears of epoch {}, and they are \
                 salvaged when it returns",
                pair.from, view.record.epoch
            )),
        }))
    },
    looks_at: Whom::These(at_writers),
    undo: Undo::RestoreRecord,
    patience_ms: 3_000,
};

const RECORD_PRINCIPAL: Step = Step {
    id: "record-principal",
    reference: "",
    says: "Record the new principal, with the old one as its mirror: servers follow, log shipping goes on from there.",
    needs: nothing,
    does: |view| {
        vec![view.change(|record| {
            for Pair { database, from, to } in pairs(view) {
                let d = record.databases.entry(database).or_default();
                if d.principal.is_none() {
                    d.principal = Some(to);
                    d.mirror = Some(MirrorRecord { host: from, synchronised: false });
                }
            }
        })]
    },
    done: |view| {
        all_of(pairs(view).into_iter().map(|pair| match principal(view, &pair.database) {
            Some(host) => Done::Yes(format!("{host} is the principal of {}", pair.database)),
            None => Done::NotYet(format!("{} has no principal yet", pair.database)),
        }))
    },
    looks_at: Whom::These(at_writers),
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

const FOLLOW_PRINCIPAL: Step = Step {
    id: "follow-principal",
    reference: "",
    says: "Wait until the mirror is synchronised and log shipping follows the new principal (Get-CsDatabaseMirrorState).",
    needs: nothing,
    does: |_| Vec::new(),
    done: |view| {
        all_of(view.record.databases.iter().flat_map(|(database, d)| {
            let mirror = match &d.mirror {
                None => Done::Yes(format!("{database} has no mirror; standfast mirror install brings it back")),
                Some(m) if m.synchronised => Done::Yes(format!("{} is synchronised", m.host)),
                Some(m) if !view.reports.contains_key(&m.host) => {
                    Done::Yes(format!("{} does not answer; it becomes the mirror by itself when it returns", m.host))
                }
                Some(m) => Done::NotYet(format!("{} is catching up", m.host)),
            };
            let standbys = [&d.backup, &d.backup_mirror].into_iter().flatten();
            std::iter::once(mirror).chain(standbys.map(|host| follows(view, database, host))).collect::<Vec<_>>()
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 60_000,
};

/// Done when a standby of the other site has applied the beginning of the present epoch. A stream alone, which may come up
/// for a moment and break again, does not show that it follows.
fn follows(view: &View<'_>, database: &DatabaseName, host: &HostName) -> Done {
    let Some(instance) = view.instance(host, database) else {
        return Done::Yes(format!("{host} does not answer; it follows when it returns"));
    };
    let shipping = instance.shipping.as_ref();
    if shipping.is_some_and(|s| !s.enabled) {
        return Done::Yes(format!("log shipping to {host} is off"));
    }
    if !began(instance.database_epoch, view) || instance.state != InstanceState::Standby {
        return Done::NotYet(format!("{host} has not applied the beginning of epoch {} yet", view.record.epoch));
    }
    if shipping.is_some_and(|s| s.streaming) {
        return Done::Yes(format!("{host} streams"));
    }
    if view.step_age_ms < STREAM_PATIENCE_MS {
        return Done::NotYet(format!("{host} does not stream yet"));
    }
    Done::Yes(format!("{host} is fed by the share alone; the stream comes up by itself when the line allows it"))
}

/// How long the stream to a standby that is fed by the share is waited for, in milliseconds.
const STREAM_PATIENCE_MS: u64 = 10_000;

fn already(view: &View<'_>) -> Option<String> {
    let there = |(name, d): (&DatabaseName, &DatabaseRecord)| {
        d.principal.is_some() && view.facts.new_principal.is_some() && d.principal == wanted(view, name, d)
    };
    if view.record.run.is_some() || view.record.databases.is_empty() || !view.record.databases.iter().all(there) {
        return None;
    }
    let says = view.record.databases.iter().filter_map(|(name, d)| Some((name, d.principal.as_ref()?)));
    let says: Vec<String> = says.map(|(name, host)| format!("{host} is the principal of {name} already")).collect();
    Some(says.join("; "))
}

/// The fence in one change of the record: a new epoch, and no principal in it. From here on the old principal's agent can
/// record nothing of its own epoch any more.
fn claim_force(view: &View<'_>, run: RunRef) -> (PoolRecord, SiteName) {
    let (mut record, at) = claim_at_home(view, run);
    record.epoch = next_epoch(view, record.epoch);
    for pair in pairs(view) {
        record.databases.entry(pair.database).or_default().principal = None;
    }
    (record, at)
}

fn says_at_end(view: &View<'_>) -> String {
    let says = pairs(view).into_iter().map(|Pair { database, from, to }| match principal(view, &database) {
        Some(host) if *host == from => format!(
            "{to} did not take over in time, and {database} stays at {from}, which lost nothing; look at {to}, then \
             standfast mirror install"
        ),
        _ => format!("{to} is the principal of {database} in epoch {}", view.record.epoch),
    });
    says.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
