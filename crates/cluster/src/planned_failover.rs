//! Failing over as planned, while both sites live: the writer is handed over to the other site, and nothing is lost.
//!
//! It is a failback's hand-over in the other direction, with the words of a failover. The home site's authority carries it,
//! because the writer is there: whatever is cut off before the backup is to be brought online, the writer can be opened again.
//! The new epoch begins only when the backup has applied the last byte. Afterwards the old site is fed from the new one, so that
//! a failback has nothing to rewind.

use crate::failover;
use crate::hand_over::standing::{handed_over, order_over, principals, receiver};
use crate::hand_over::{
    self, authority_knows, begin_epoch, caught_up, ended, hand_out_parts, next_epoch, servers_there, stop_writers,
};
use crate::name::{DatabaseName, HostName};
use crate::order::Order;
use crate::record::PoolState;
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, Whom, all_of, claim_at_home, nothing};

/// The runbook.
pub const PLANNED_FAILOVER: &Runbook = &Runbook {
    name: "planned-failover",
    says: "Both sites live: hand the writer over to the other site with nothing lost, let the users in there, and feed this site from it.",
    preflight,
    already: failover::already,
    claim: claim_at_home,
    says_at_end,
    steps: &[
        APPLY_AT_ONCE,
        CATCH_UP,
        CLEAR_ACTIVE_SERVERS,
        REMOVE_MIRRORING,
        HAND_OVER,
        BRING_BACKUP_ONLINE, // from here on, forward only
        SET_POOL_FAILED_OVER,
        SET_ACTIVE_SERVERS,
        MIRROR_AND_FEED,
    ],
};

const APPLY_AT_ONCE: Step = Step {
    id: "apply-at-once",
    reference: "",
    says: "Let the restore job apply what it holds back (restore_delay, its schedule, a pause), and hold nothing back in this epoch.",
    needs: nothing,
    does: |view| {
        let order = |(database, _): (DatabaseName, HostName)| {
            let host = receiver(view, &database)?;
            Some(Deed::Give { host, order: Order::ApplyAtOnce { database } })
        };
        principals(view).into_iter().filter_map(order).collect()
    },
    done: |view| {
        all_of(principals(view).into_iter().map(|(database, _)| match receiver(view, &database) {
            _ if handed_over(view) => Done::Yes("the writer has been handed over already".into()),
            Some(host) => order_over(view, &host, &database, |o| matches!(o, Order::ApplyAtOnce { .. })),
            None => Done::Yes(String::new()),
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

const CATCH_UP: Step = Step {
    says: "Wait until the backup and its mirror have caught up; write out what is dirty there and here, so that the hand-over is quick.",
    ..hand_over::CATCH_UP
};

const CLEAR_ACTIVE_SERVERS: Step = Step { reference: "", ..hand_over::CLEAR_ACTIVE_SERVERS };

const REMOVE_MIRRORING: Step = Step {
    reference: "",
    says: "Part the principal from its mirror: the last bytes go to the backup, and the stop waits for nobody else.",
    ..hand_over::REMOVE_MIRRORING
};

const HAND_OVER: Step = Step {
    id: "hand-over",
    reference: "3",
    says: "Back up the tail of the log: the primary refuses writers of its epoch and stops cleanly; when the backup has applied the last byte, a new epoch begins without a writer.",
    needs: |view| {
        let stopped = principals(view).iter().all(|(database, host)| ended(view, database, host).is_some());
        if handed_over(view) || stopped { Ok(()) } else { fit(view) }
    },
    does: |view| {
        if handed_over(view) {
            return Vec::new();
        }
        let epoch = next_epoch(view);
        let deeds = stop_writers(view, epoch);
        if deeds.is_empty() && principals(view).iter().all(|(database, from)| has_everything(view, database, from)) {
            return vec![begin_epoch(view, epoch)];
        }
        deeds
    },
    done: |view| {
        if handed_over(view) {
            return Done::Yes(format!(
                "epoch {}; the backup has applied the last byte: nothing is lost",
                view.record.epoch
            ));
        }
        all_of(principals(view).into_iter().map(|(database, from)| match ended(view, &database, &from) {
            None => match order_over(view, &from, &database, |o| matches!(o, Order::HandOver { .. })) {
                Done::Yes(_) => Done::NotYet(format!("{database} on {from} is not stopped yet")),
                missing => missing,
            },
            Some(end) if has_everything(view, &database, &from) => {
                Done::NotYet(format!("{database} ends at {end}; the new epoch is not recorded yet"))
            }
            Some(end) => Done::NotYet(format!("the backup has not applied {database} up to {end} yet")),
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 10_000,
};

/// Whether who receives has applied everything that the stopped writer wrote.
fn has_everything(view: &View<'_>, database: &DatabaseName, from: &HostName) -> bool {
    let applied = receiver(view, database).and_then(|host| view.instance(&host, database)?.applied);
    applied.zip(ended(view, database, from)).is_some_and(|(applied, end)| applied >= end)
}

/// What keeps the writer from being stopped right now.
fn fit(view: &View<'_>) -> Result<(), Unmet> {
    authority_knows(view)?;
    for (database, from) in principals(view) {
        if let Done::NotYet(why) = caught_up(view, &database, &from) {
            let hint = "see standfast log-shipping state; the writer is not stopped before that".into();
            return Err(Unmet { why, hint, can_be_forced: false });
        }
    }
    Ok(())
}

const BRING_BACKUP_ONLINE: Step = Step {
    does: |view| {
        // That the new epoch is recorded shows that it held every byte, whatever has happened to either since.
        let epoch = view.record.epoch;
        let promote = |(database, _): (DatabaseName, HostName)| {
            let host = receiver(view, &database)?;
            Some(Deed::Give { host, order: Order::Promote { database, epoch } })
        };
        principals(view).into_iter().filter_map(promote).collect()
    },
    ..failover::BRING_BACKUP_ONLINE
};

const SET_POOL_FAILED_OVER: Step = Step {
    id: "set-pool-failed-over",
    reference: "5",
    says: "Set the pool state to FailedOver (Set-CsPersistentChatState), with home, every part and the active servers in the same change: from here on the other site serves, whatever becomes of this one.",
    needs: nothing,
    does: |view| {
        let servers = failover::servers_at(view, &view.facts.to_site);
        vec![view.change(|record| {
            hand_out_parts(view, record);
            record.state = PoolState::FailedOver;
            record.home = view.facts.to_site.clone();
            record.active_servers = servers;
        })]
    },
    done: |view| {
        if view.record.state == PoolState::FailedOver && view.record.home == view.facts.to_site {
            Done::Yes(format!("state FailedOver, home {}", view.record.home))
        } else {
            Done::NotYet("the record does not say FailedOver yet".into())
        }
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 3_000,
};

const SET_ACTIVE_SERVERS: Step = Step {
    says: "Set the active servers (Set-CsPersistentChatActiveServer): those at the other site accept clients.",
    ..failover::SET_ACTIVE_SERVERS
};

const MIRROR_AND_FEED: Step = Step {
    id: "mirror-and-feed",
    reference: "6",
    says: "Wait until the new primary is mirrored by the backup mirror (Get-CsDatabaseMirrorState), and the old site is fed from it.",
    ..hand_over::RECREATE_MIRROR
};

fn preflight(view: &View<'_>) -> Vec<Unmet> {
    let mut unmet = failover::nowhere_to_go(view);
    if !unmet.is_empty() {
        return unmet;
    }
    unmet.extend(authority_knows(view).err());
    for (database, from) in principals(view) {
        unmet.extend(unfit_writer(view, &database, &from));
        unmet.extend(unfit_backup(view, &database));
    }
    if principals(view).is_empty() {
        unmet.push(Unmet {
            why: "the database with a backup has no principal at the moment".into(),
            hint: "look at standfast pool status; if the site is lost: standfast failover".into(),
            can_be_forced: false,
        });
    }
    if servers_there(view).is_empty() {
        unmet.push(Unmet {
            why: format!("no chat server runs at {}: the users would have nowhere to go", view.facts.to_site),
            hint: "start one there: standfast service list, standfast service start SERVER".into(),
            can_be_forced: true,
        });
    }
    unmet
}

fn unfit_writer(view: &View<'_>, database: &DatabaseName, from: &HostName) -> Option<Unmet> {
    let why = match view.instance(from, database).map(|i| i.state) {
        Some(InstanceState::Online) => return None,
        Some(_) => format!("{database} on {from}, the principal, is not online"),
        None => format!("{from}, the principal of {database}, does not answer ({})", view.silence(from)),
    };
    let hint = "a planned failover takes both sites; if this one is lost: standfast failover";
    Some(Unmet { why, hint: hint.into(), can_be_forced: false })
}

/// What is wrong with the backup or its mirror.
fn unfit_backup(view: &View<'_>, database: &DatabaseName) -> Vec<Unmet> {
    let unmet = |why: String, hint: &str, can_be_forced| Unmet { why, hint: hint.into(), can_be_forced };
    let Some(d) = view.record.databases.get(database) else { return Vec::new() };
    let there = receiver(view, database);
    let Some(host) = d.backup.clone().filter(|host| there.as_ref() == Some(host)) else {
        let why = format!("the backup of {database} in the record is not the one of the topology");
        return vec![unmet(why, "look at standfast pool status and standfast topology show", false)];
    };
    let state = "see standfast log-shipping state";
    let mut all = Vec::new();
    match view.instance(&host, database) {
        _ if d.shipping_off => {
            all.push(unmet(
                format!("log shipping of {database} is turned off"),
                "standfast log-shipping enable",
                false,
            ));
        }
        // Where nobody is to go is said already.
        None => {}
        Some(instance) => {
            let shipping = instance.shipping.as_ref();
            if instance.state != InstanceState::Standby {
                all.push(unmet(format!("{database} on {host}, the backup, does not run as a standby"), state, false));
            } else if !shipping.is_some_and(|s| s.enabled && s.streaming) {
                let why =
                    format!("{host}, the backup of {database}, does not receive the principal's log by stream now");
                all.push(unmet(why, state, false));
            }
        }
    }
    let warm = d.backup_mirror.as_ref().map(|host| (host, view.instance(host, database)));
    let streams = |i: &crate::report::InstanceReport| i.shipping.as_ref().is_some_and(|s| s.streaming);
    match warm {
        Some((_, Some(instance))) if streams(instance) => {}
        Some((host, _)) => all.push(unmet(
            format!("{host}, the mirror of the backup, does not follow it: the new principal would run exposed"),
            "start its agent, or wait until it streams",
            true,
        )),
        None => all.push(unmet(
            format!("the backup of {database} has no warm mirror: the new principal would run exposed"),
            "standfast mirror install --backup",
            true,
        )),
    }
    all
}

fn says_at_end(view: &View<'_>) -> String {
    format!(
        "{} serves in epoch {}, and nothing was lost: the backup had applied the last byte; {} is fed from there, and standfast \
         failback brings the users home",
        view.facts.to_site, view.record.epoch, view.facts.from_site
    )
}

#[cfg(test)]
pub(crate) mod tests;
