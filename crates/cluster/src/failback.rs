//! Failing back: the reference's procedure (ha-dr §10), online up to the last hand-over.
//!
//! The returned site's databases are rewound and fed by the present principal while it serves. Only when they have caught
//! up, the servers leave the database, the writer is stopped cleanly, and the primary, which then holds every byte,
//! is brought online in a new epoch. Mirror and log shipping are as they were before the disaster.

use crate::failover::serving;
use crate::hand_over::standing::{
    answering, databases, each_receiving, end_of, handed_over, knows, needs_rewind, order_over, order_over_failing,
    present_mirror, principals, receiving, restored, settled,
};
use crate::hand_over::{
    CATCH_UP, CLEAR_ACTIVE_SERVERS, RECREATE_MIRROR, REMOVE_MIRRORING, authority_knows, begin_epoch, hand_out_parts,
    next_epoch, stop_writers,
};
use crate::name::{DatabaseName, HostName, ServerName};
use crate::order::Order;
use crate::record::{MirrorRecord, PoolState};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, Whom, all_of, claim_at_home, nothing};

/// The runbook.
pub const FAILBACK: &Runbook = &Runbook {
    name: "failback",
    says: "The primary site is back: rewind and feed its databases online, hand the writer over, and be as before the disaster.",
    preflight,
    already,
    claim: claim_at_home,
    says_at_end,
    steps: &[
        SALVAGE_TAIL,
        REWIND_PRIMARY,
        FEED_PRIMARY,
        CATCH_UP,
        CLEAR_ACTIVE_SERVERS,
        REMOVE_MIRRORING,
        FINAL_BACKUP,
        RESTORE_ON_PRIMARY, // from here on, forward only
        RECREATE_LOG_SHIPPING,
        SET_POOL_NORMAL,
        SET_ACTIVE_SERVERS,
        RECREATE_MIRROR,
    ],
};

const SALVAGE_TAIL: Step = Step {
    id: "salvage-tail",
    reference: "",
    says: "Keep the log that the old primary wrote and the backup never had, and read its tail, before a rewind discards it.",
    needs: nothing,
    does: |view| {
        let mut deeds = Vec::new();
        for (database, from) in principals(view) {
            for host in answering(view, receiving(view, &database)) {
                if view.instance(&host, &database).is_some_and(|i| i.state == InstanceState::LeftBehind) {
                    let order = Order::SalvageTail { database: database.clone(), from: from.clone() };
                    deeds.push(Deed::Give { host, order });
                }
            }
        }
        deeds
    },
    done: |view| {
        each_receiving(view, |view, host, database, instance| {
            if instance.state == InstanceState::LeftBehind {
                order_over(view, host, database, |o| matches!(o, Order::SalvageTail { .. }))
            } else {
                settled(view, host, database, instance, "nothing to salvage")
            }
        })
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

const REWIND_PRIMARY: Step = Step {
    id: "rewind-primary",
    reference: "",
    says: "Rewind the old primary and its mirror to the present principal's history, or copy them anew; online.",
    needs: nothing,
    does: |view| {
        let mut deeds = Vec::new();
        for (database, from) in principals(view) {
            for host in answering(view, receiving(view, &database)) {
                let behind = view.instance(&host, &database).is_some_and(|i| needs_rewind(i.state));
                if behind && knows(view, &host) {
                    let order = Order::Rewind { database: database.clone(), from: from.clone() };
                    deeds.push(Deed::Give { host, order });
                }
            }
        }
        deeds
    },
    done: |view| {
        each_receiving(view, |view, host, database, instance| {
            if needs_rewind(instance.state) && knows(view, host) {
                order_over_failing(view, host, database)
            } else {
                settled(view, host, database, instance, "on the present history")
            }
        })
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

const FEED_PRIMARY: Step = Step {
    id: "feed-primary",
    reference: "",
    says: "Feed the primary as the present principal's backup, and its mirror from it, by stream and share.",
    needs: nothing,
    does: |view| {
        vec![view.change(|record| {
            for (database, topology) in databases(view) {
                let mirror = present_mirror(view, &database);
                let d = record.databases.entry(database).or_default();
                d.backup = Some(topology.primary.host.clone());
                d.backup_mirror = mirror;
            }
            record.lost_sites.remove(&view.facts.to_site);
        })]
    },
    done: |view| {
        all_of(databases(view).into_iter().map(|(database, topology)| {
            let d = view.record.databases.get(&database);
            let host = &topology.primary.host;
            if d.is_some_and(|d| d.backup.as_ref() == Some(host) || d.principal.as_ref() == Some(host)) {
                Done::Yes(format!("{database}: {host} is fed"))
            } else {
                Done::NotYet(format!("{database}: {host} is not fed yet"))
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 3_000,
};

const FINAL_BACKUP: Step = Step {
    id: "final-backup",
    reference: "3",
    says: "Full backup of the backup mgc for the primary: here, stop it cleanly; the primary holds all but its last bytes.",
    needs: |view| if handed_over(view) { Ok(()) } else { authority_knows(view) },
    does: |view| {
        let epoch = next_epoch(view);
        let mut deeds = stop_writers(view, epoch);
        if deeds.is_empty() && !handed_over(view) {
            deeds.push(begin_epoch(view, epoch));
        }
        deeds
    },
    done: |view| {
        if !handed_over(view) {
            return Done::NotYet("the writer is not stopped yet".into());
        }
        all_of(principals(view).into_iter().map(|(database, host)| match end_of(view, &database, &host) {
            Some(end) => Done::Yes(format!("{database} on {host} ends at {end}")),
            None if restored(view, &database) => Done::Yes(format!("{database} is online at the primary already")),
            None => Done::NotYet(format!("{database} on {host} is not stopped yet")),
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 10_000,
};

const RESTORE_ON_PRIMARY: Step = Step {
    id: "restore-on-primary",
    reference: "4",
    says: "Restore on the primary, leave the database ready to use: apply the last bytes, begin the new epoch.",
    needs: nothing,
    does: |view| {
        let epoch = view.record.epoch;
        let mut deeds = Vec::new();
        for (database, from) in principals(view) {
            let Some(topology) = view.topology.database(&database) else { continue };
            let host = topology.primary.host.clone();
            let applied = view.instance(&host, &database).and_then(|i| i.applied);
            let end = end_of(view, &database, &from);
            let promote = Order::Promote { database: database.clone(), epoch };
            // One that has taken the order held every byte then, whatever has happened to it since.
            let taken = view.reports.get(&host).and_then(|r| r.orders.get(&database));
            let began = taken.is_some_and(|t| t.order == promote);
            if began || applied.zip(end).is_some_and(|(applied, end)| applied >= end) {
                deeds.push(Deed::Give { host, order: promote });
            } else if view.step_age_ms >= LAST_BYTES_PATIENCE_MS && feeds_nobody(view, &database, &from) {
                deeds.push(feed_last_bytes(view, database, from, host));
            }
        }
        deeds
    },
    done: |view| {
        all_of(principals(view).into_iter().map(|(database, from)| {
            if restored(view, &database) {
                return Done::Yes(format!("{database} is online at the primary in epoch {}", view.record.epoch));
            }
            let end = end_of(view, &database, &from);
            Done::NotYet(match end {
                Some(end) => format!("the primary has not applied {database} up to {end} yet, or is not online yet"),
                None => format!("{from} does not say where {database} ends; start its agent"),
            })
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 10_000,
};

/// How long the last bytes may take to be applied, in milliseconds, before the old writer is asked for them again.
const LAST_BYTES_PATIENCE_MS: u64 = 1_000;

fn feeds_nobody(view: &View<'_>, database: &DatabaseName, from: &HostName) -> bool {
    view.record.databases.get(database).is_none_or(|d| d.backup.as_ref() != Some(from))
}

/// The primary was cut off while the writer stopped, and lacks the last bytes: let the old writer run as a standby, from
/// which the primary receives them. Its mirror keeps a part, so that it is not left behind meanwhile.
fn feed_last_bytes(view: &View<'_>, database: DatabaseName, from: HostName, primary: HostName) -> Deed {
    let mirror = present_mirror(view, &database);
    view.change(|record| {
        let d = record.databases.entry(database).or_default();
        d.mirror = mirror.map(|host| MirrorRecord { host, synchronised: false });
        d.backup = Some(from);
        d.backup_mirror = Some(primary);
    })
}

const RECREATE_LOG_SHIPPING: Step = Step {
    id: "recreate-log-shipping",
    reference: "5",
    says: "Re-create log shipping for the primary: the backup becomes its secondary again.",
    needs: nothing,
    does: |view| vec![view.change(|record| hand_out_parts(view, record))],
    done: |view| {
        all_of(databases(view).into_iter().map(|(database, topology)| {
            let d = view.record.databases.get(&database);
            let set = d.is_some_and(|d| {
                d.principal.as_ref() == Some(&topology.primary.host)
                    && d.backup == topology.backup.as_ref().map(|i| i.host.clone())
            });
            if set {
                Done::Yes(format!("{database}: log shipping is on"))
            } else {
                Done::NotYet(format!("{database}: log shipping is not on yet"))
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

const SET_POOL_NORMAL: Step = Step {
    id: "set-pool-normal",
    reference: "7",
    says: "Set the pool state to Normal (Set-CsPersistentChatState), before any server is active: safer than the reference's order.",
    needs: nothing,
    does: |view| {
        vec![view.change(|record| {
            record.state = PoolState::Normal;
            record.home = view.facts.to_site.clone();
        })]
    },
    done: |view| {
        if view.record.state == PoolState::Normal && view.record.home == view.facts.to_site {
            Done::Yes("state Normal".into())
        } else {
            Done::NotYet("the record does not say Normal yet".into())
        }
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

const SET_ACTIVE_SERVERS: Step = Step {
    id: "set-active-servers",
    reference: "6",
    says: "Set the active servers (Set-CsPersistentChatActiveServer) to the normal list: they accept clients.",
    needs: nothing,
    does: |view| {
        let wanted = normal_servers(view);
        if view.record.active_servers == wanted {
            return Vec::new();
        }
        vec![view.change(|record| record.active_servers = wanted)]
    },
    done: |view| {
        let wanted = normal_servers(view);
        if view.record.active_servers != wanted {
            return Done::NotYet("the active servers are not set yet".into());
        }
        serving(view, &wanted)
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

fn normal_servers(view: &View<'_>) -> Vec<ServerName> {
    view.topology.servers.iter().filter(|s| s.active).map(|s| s.name.clone()).collect()
}

fn preflight(view: &View<'_>) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    for (database, topology) in databases(view) {
        let host = &topology.primary.host;
        if view.instance(host, &database).is_none() {
            unmet.push(Unmet {
                why: format!("{host}, the primary of {database}, does not answer ({})", view.silence(host)),
                hint: format!("start the agent on {host} first (in a lab: standfast lab start {})", view.facts.to_site),
                can_be_forced: false,
            });
        }
        if view.record.databases.get(&database).is_none_or(|d| d.principal.is_none()) {
            unmet.push(Unmet {
                why: format!("{database} has no principal at the moment"),
                hint: "look at standfast pool status".into(),
                can_be_forced: false,
            });
        }
    }
    unmet
}

fn already(view: &View<'_>) -> Option<String> {
    (view.record.state == PoolState::Normal && view.record.run.is_none())
        .then(|| format!("the pool is Normal: {} serves in epoch {}", view.record.home, view.record.epoch))
}

fn says_at_end(view: &View<'_>) -> String {
    format!(
        "{} serves in epoch {}; mirror and log shipping are as before the disaster",
        view.facts.to_site, view.record.epoch
    )
}
