//! Failing back: the reference's procedure (ha-dr §10), online up to the last hand-over.
//!
//! The returned site's databases are rewound and fed by the present principal while it serves. Only when they have caught
//! up, the servers leave the database, the writer is stopped cleanly, and the primary, which then holds every byte,
//! is brought online in a new epoch. Mirror and log shipping are as they were before the disaster.

pub(crate) mod standing;

use self::standing::{
    answering, databases, each_returning, end_of, handed_over, has_part, is_principal, knows, needs_rewind, order_over,
    order_over_failing, present_mirror, principals, restored, returning, settled, stopped_at,
};
use crate::failover::serving;
use crate::name::{DatabaseName, HostName, ServerName, SiteName};
use crate::order::Order;
use crate::record::{MirrorRecord, PoolRecord, PoolState, RunRef};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, all_of, nothing};

/// The runbook.
pub const FAILBACK: &Runbook = &Runbook {
    name: "failback",
    says: "The primary site is back: rewind and feed its databases online, hand the writer over, and be as before the disaster.",
    preflight,
    already,
    claim,
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
            for host in answering(view, returning(view, &database)) {
                if view.instance(&host, &database).is_some_and(|i| i.state == InstanceState::LeftBehind) {
                    let order = Order::SalvageTail { database: database.clone(), from: from.clone() };
                    deeds.push(Deed::Give { host, order });
                }
            }
        }
        deeds
    },
    done: |view| {
        each_returning(view, |view, host, database, instance| {
            if instance.state == InstanceState::LeftBehind {
                order_over(view, host, database, |o| matches!(o, Order::SalvageTail { .. }))
            } else {
                settled(view, host, database, instance, "nothing to salvage")
            }
        })
    },
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
            for host in answering(view, returning(view, &database)) {
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
        each_returning(view, |view, host, database, instance| {
            if needs_rewind(instance.state) && knows(view, host) {
                order_over_failing(view, host, database)
            } else {
                settled(view, host, database, instance, "on the present history")
            }
        })
    },
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
    undo: Undo::RestoreRecord,
    patience_ms: 3_000,
};

/// The authority of the site that becomes home again has to know that it is not home now: else somebody could change places
/// there in the very epoch that is about to begin.
fn authority_knows(view: &View<'_>) -> Result<(), Unmet> {
    let Some(site) = view.topology.site(&view.facts.to_site) else { return Ok(()) };
    if knows(view, &site.authority) {
        return Ok(());
    }
    let why = if view.reports.contains_key(&site.authority) {
        format!("{}, the authority of {}, has not heard of epoch {} yet", site.authority, site.name, view.record.epoch)
    } else {
        format!(
            "{}, the authority of {}, does not answer ({})",
            site.authority,
            site.name,
            view.silence(&site.authority)
        )
    };
    let hint = format!("start the agent on {}: {} becomes home again with it", site.authority, site.name);
    Err(Unmet { why, hint, can_be_forced: false })
}

/// The epoch of the primary to come.
pub(crate) fn next_epoch(view: &View<'_>) -> rules::id::Epoch {
    view.topology.next_epoch(view.facts.before.epoch, &view.facts.to_site)
}

/// How far behind a standby may be for the hand-over to begin, in bytes: what streams in some milliseconds.
const NEARLY_CAUGHT_UP_BYTES: u64 = 1024 * 1024;

const CATCH_UP: Step = Step {
    id: "catch-up",
    reference: "",
    says: "Wait until the primary and its mirror have caught up; write out what is dirty there and here, so that the hand-over is quick.",
    needs: nothing,
    does: |view| {
        let all = principals(view).into_iter().flat_map(|(database, from)| to_write_out(view, &database, &from));
        let checkpoint = |database| Order::Checkpoint { database };
        all.map(|(host, database)| Deed::Give { host, order: checkpoint(database) }).collect()
    },
    done: |view| {
        let ready = principals(view).into_iter().map(|(database, from)| {
            if !is_principal(view, &database, &from) {
                return Done::Yes(String::new());
            }
            let caught_up = caught_up(view, &database, &from);
            let mut conditions = vec![written_out(view, &from, &database), caught_up];
            conditions.extend(primary(view, &database).map(|host| written_out(view, &host, &database)));
            all_of(conditions)
        });
        all_of(ready.collect::<Vec<_>>())
    },
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

/// Who has to write out what is dirty now: the principal, then the primary, which can do so up to the principal's last
/// checkpoint, and has just been written to as never before. Else its first writes wait behind all that.
fn to_write_out(view: &View<'_>, database: &DatabaseName, from: &HostName) -> Vec<(HostName, DatabaseName)> {
    let mut hosts = vec![from.clone()];
    if matches!(written_out(view, from, database), Done::Yes(_))
        && matches!(caught_up(view, database, from), Done::Yes(_))
    {
        hosts.extend(primary(view, database));
    }
    hosts.into_iter().map(|host| (host, database.clone())).collect()
}

fn written_out(view: &View<'_>, host: &HostName, database: &DatabaseName) -> Done {
    order_over(view, host, database, |o| matches!(o, Order::Checkpoint { .. }))
}

fn primary(view: &View<'_>, database: &DatabaseName) -> Option<HostName> {
    view.topology.database(database).map(|d| d.primary.host.clone())
}

fn caught_up(view: &View<'_>, database: &DatabaseName, from: &HostName) -> Done {
    let Some(written) = view.instance(from, database).and_then(|i| i.written) else {
        return Done::NotYet(format!("{from} does not say how far it is"));
    };
    each_returning(view, |view, host, of, instance| {
        if of != database || !has_part(view, of, host) {
            return Done::Yes(String::new());
        }
        let applied = instance.applied.unwrap_or_default();
        let behind = written.bytes_after(applied);
        let streams = instance.shipping.as_ref().is_some_and(|s| s.streaming);
        if instance.state == InstanceState::Standby && streams && behind <= NEARLY_CAUGHT_UP_BYTES {
            Done::Yes(format!("{host} streams, {behind} bytes behind"))
        } else {
            Done::NotYet(format!(
                "{host} is {behind} bytes behind{}",
                if streams { "" } else { " and does not stream yet" }
            ))
        }
    })
}

const CLEAR_ACTIVE_SERVERS: Step = Step {
    id: "clear-active-servers",
    reference: "1",
    says: "Clear the active servers (Set-CsPersistentChatActiveServer -ActiveServers $Null): no server uses mgc.",
    needs: nothing,
    does: |view| {
        if view.record.active_servers.is_empty() {
            return Vec::new();
        }
        vec![view.change(|record| record.active_servers = Vec::new())]
    },
    done: |view| {
        if handed_over(view) {
            return Done::Yes("the writer has been handed over already".into());
        }
        if !view.record.active_servers.is_empty() {
            return Done::NotYet("the active servers are not cleared yet".into());
        }
        let reports = view.reports.values().flat_map(|r| &r.servers);
        let mut writing = reports.filter(|(_, s)| s.age_ms < STALE_SERVER_MS && s.writes_as.is_some());
        match writing.next() {
            Some((name, _)) => Done::NotYet(format!("{name} still uses the database")),
            None => Done::Yes("no server uses the database".into()),
        }
    },
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

/// A server whose report is older than this, in milliseconds, is not running; the database refuses it anyway.
const STALE_SERVER_MS: u64 = 2_000;

const REMOVE_MIRRORING: Step = Step {
    id: "remove-mirroring",
    reference: "2",
    says: "Remove mirroring on the backup (mgc, Tasks, Mirror, Remove Mirroring): it is no longer needed.",
    needs: nothing,
    does: |view| {
        if view.record.databases.values().all(|d| d.mirror.is_none()) {
            return Vec::new();
        }
        vec![view.change(|record| record.databases.values_mut().for_each(|d| d.mirror = None))]
    },
    done: |view| {
        if handed_over(view) {
            return Done::Yes("the writer has been handed over already".into());
        }
        all_of(principals(view).into_iter().map(|(database, host)| {
            let removed = view.record.databases.get(&database).is_some_and(|d| d.mirror.is_none());
            let waits = view.instance(&host, &database).is_some_and(|i| !i.synchronous.is_empty());
            match (removed, waits) {
                (true, false) => Done::Yes(format!("{database}: no mirror")),
                (true, true) => Done::NotYet(format!("{database} on {host} still waits for its mirror")),
                (false, _) => Done::NotYet(format!("{database}: mirroring is not removed yet")),
            }
        }))
    },
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

const FINAL_BACKUP: Step = Step {
    id: "final-backup",
    reference: "3",
    says: "Full backup of the backup mgc for the primary: here, stop it cleanly; the primary holds all but its last bytes.",
    needs: |view| if handed_over(view) { Ok(()) } else { authority_knows(view) },
    does: |view| {
        let epoch = next_epoch(view);
        let mut deeds: Vec<Deed> = Vec::new();
        for (database, host) in principals(view) {
            let given = order_over(view, &host, &database, |o| matches!(o, Order::HandOver { .. }));
            if stopped_at(view, &database, &host).is_none() || matches!(given, Done::NotYet(_)) {
                deeds.push(Deed::Give { host, order: Order::HandOver { database, epoch } });
            }
        }
        // The record changes only when the writer is down, and stays so: an agent stops a database without a part at once,
        // and a writer that somebody else stopped is started again by its agent.
        if deeds.is_empty() && !handed_over(view) {
            deeds.push(view.change(|record| {
                record.epoch = epoch;
                record.databases.values_mut().for_each(|d| d.principal = None);
            }));
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
    does: |view| {
        vec![view.change(|record| {
            for (database, topology) in databases(view) {
                let mirror = present_mirror(view, &database);
                let d = record.databases.entry(database).or_default();
                d.principal = Some(topology.primary.host.clone());
                d.mirror = mirror.map(|host| MirrorRecord { host, synchronised: false });
                d.backup = topology.backup.as_ref().map(|i| i.host.clone());
                d.backup_mirror = topology.backup_mirror.as_ref().map(|i| i.host.clone());
            }
        })]
    },
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
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

fn normal_servers(view: &View<'_>) -> Vec<ServerName> {
    view.topology.servers.iter().filter(|s| s.active).map(|s| s.name.clone()).collect()
}

const RECREATE_MIRROR: Step = Step {
    id: "recreate-mirror",
    reference: "",
    says: "Wait until mirror and log shipping are as before the disaster (Get-CsDatabaseMirrorState): synchronised, fed.",
    needs: nothing,
    does: |_| Vec::new(),
    done: |view| {
        all_of(view.record.databases.iter().flat_map(|(database, d)| {
            let mirror = match &d.mirror {
                None => Done::Yes(format!(
                    "{database} has no mirror; standfast mirror install adds it when its host is back"
                )),
                Some(m) if m.synchronised => Done::Yes(format!("{} is synchronised", m.host)),
                Some(m) if !view.reports.contains_key(&m.host) => {
                    Done::Yes(format!("{} does not answer; it is picked up when it returns", m.host))
                }
                Some(m) => Done::NotYet(format!("{} is catching up", m.host)),
            };
            let written = d.principal.as_ref().and_then(|p| view.instance(p, database)).and_then(|i| i.written);
            let fed =
                [&d.backup, &d.backup_mirror].into_iter().flatten().map(|host| fed(view, database, host, written));
            std::iter::once(mirror).chain(fed).collect::<Vec<_>>()
        }))
    },
    undo: Undo::PointOfNoReturn,
    patience_ms: 60_000,
};

/// Done when a standby of the backup site streams and has the log up to nearly where the principal is: a stream alone, which
/// may come up for a moment and break again, does not show that it follows.
fn fed(view: &View<'_>, database: &DatabaseName, host: &HostName, written: Option<crate::wal::Lsn>) -> Done {
    let Some(instance) = view.instance(host, database) else { return Done::Yes(String::new()) };
    let behind = written.unwrap_or_default().bytes_after(instance.written.unwrap_or_default());
    if !instance.shipping.as_ref().is_some_and(|s| s.streaming) {
        Done::NotYet(format!("{host} does not stream yet"))
    } else if behind > NEARLY_CAUGHT_UP_BYTES {
        Done::NotYet(format!("{host} is {behind} bytes behind"))
    } else {
        Done::Yes(String::new())
    }
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

fn claim(view: &View<'_>, run: RunRef) -> (PoolRecord, SiteName) {
    let mut record = view.record.clone();
    record.version += 1;
    record.run = Some(run);
    let at = record.home.clone();
    (record, at)
}

fn says_at_end(view: &View<'_>) -> String {
    format!(
        "{} serves in epoch {}; mirror and log shipping are as before the disaster",
        view.facts.to_site, view.record.epoch
    )
}
