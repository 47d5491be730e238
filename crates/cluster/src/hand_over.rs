//! Handing the writer over to the other site while both live: what a planned failover and a failback have in common.
//!
//! The site that receives is fed by the present principal and has caught up before anybody stops. Then the servers leave the
//! database, the pair is parted, and the writer is stopped cleanly, so that whoever is to be the writer holds every byte.

pub(crate) mod standing;

use self::standing::{
    at_site, databases, each_receiving, handed_over, has_part, is_principal, knows, order_over, present_mirror,
    principals, receiver, stopped_at,
};
use crate::name::{DatabaseName, HostName, ServerName};
use crate::order::Order;
use crate::record::{MirrorRecord, PoolRecord, PoolState};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Step, Undo, Unmet, View, Whom, all_of, nothing};
use crate::wal::Lsn;
use rules::id::Epoch;

/// The epoch of the writer to come. The authority at home begins it, so it has to be one that nobody else could begin
/// meanwhile. A failback's is the receiving site's, which knows that it is not home, and could only change places there; a
/// failover's is the home site's, because the other site may begin one by itself at any moment.
pub(crate) fn next_epoch(view: &View<'_>) -> Epoch {
    let before = &view.facts.before;
    let of = if before.state == PoolState::Normal { &before.home } else { &view.facts.to_site };
    view.topology.next_epoch(before.epoch, of)
}

/// The authority of the site that becomes home has to know how the pool stands, and to answer.
pub(crate) fn authority_knows(view: &View<'_>) -> Result<(), Unmet> {
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
    let hint = format!("start the agent on {}: {} becomes home with it", site.authority, site.name);
    Err(Unmet { why, hint, can_be_forced: false })
}

/// How far behind a standby may be for the hand-over to begin, in bytes: what streams in some milliseconds.
pub(crate) const NEARLY_CAUGHT_UP_BYTES: u64 = 1024 * 1024;

pub(crate) const CATCH_UP: Step = Step {
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
            conditions.extend(receiver(view, &database).map(|host| written_out(view, &host, &database)));
            all_of(conditions)
        });
        all_of(ready.collect::<Vec<_>>())
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

/// Who has to write out what is dirty now: the principal, then who receives, which can do so up to the principal's last
/// checkpoint, and has just been written to as never before. Else its first writes wait behind all that.
fn to_write_out(view: &View<'_>, database: &DatabaseName, from: &HostName) -> Vec<(HostName, DatabaseName)> {
    let mut hosts = vec![from.clone()];
    if matches!(written_out(view, from, database), Done::Yes(_))
        && matches!(caught_up(view, database, from), Done::Yes(_))
    {
        hosts.extend(receiver(view, database));
    }
    hosts.into_iter().map(|host| (host, database.clone())).collect()
}

fn written_out(view: &View<'_>, host: &HostName, database: &DatabaseName) -> Done {
    order_over(view, host, database, |o| matches!(o, Order::Checkpoint { .. }))
}

/// Done when who receives, and its mirror, stream and have applied nearly everything.
pub(crate) fn caught_up(view: &View<'_>, database: &DatabaseName, from: &HostName) -> Done {
    let Some(written) = view.instance(from, database).and_then(|i| i.written) else {
        return Done::NotYet(format!("{from} does not say how far it is"));
    };
    each_receiving(view, |view, host, of, instance| {
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

pub(crate) const CLEAR_ACTIVE_SERVERS: Step = Step {
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
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

/// A server whose report is older than this, in milliseconds, is not running; the database refuses it anyway.
pub(crate) const STALE_SERVER_MS: u64 = 2_000;

pub(crate) const REMOVE_MIRRORING: Step = Step {
    id: "remove-mirroring",
    reference: "2",
    says: "Remove mirroring on the backup (mgc, Tasks, Mirror, Remove Mirroring): it is no longer needed.",
    needs: nothing,
    does: |view| {
        let mirrored = |name: &DatabaseName| view.record.databases.get(name).is_some_and(|d| d.mirror.is_some());
        let names: Vec<DatabaseName> = principals(view).into_iter().map(|(name, _)| name).collect();
        if !names.iter().any(mirrored) {
            return Vec::new();
        }
        vec![view.change(|record| {
            for name in names {
                record.databases.entry(name).or_default().mirror = None;
            }
        })]
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
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

/// The orders that stop the writers cleanly; none where that is done, by this run's own order: a writer that somebody else
/// stopped is started again by its agent.
pub(crate) fn stop_writers(view: &View<'_>, epoch: Epoch) -> Vec<Deed> {
    let running = principals(view).into_iter().filter(|(database, host)| ended(view, database, host).is_none());
    running.map(|(database, host)| Deed::Give { host, order: Order::HandOver { database, epoch } }).collect()
}

/// Where a writer that this run has stopped ends.
pub(crate) fn ended(view: &View<'_>, database: &DatabaseName, host: &HostName) -> Option<Lsn> {
    let given = order_over(view, host, database, |o| matches!(o, Order::HandOver { .. }));
    stopped_at(view, database, host).filter(|_| matches!(given, Done::Yes(_)))
}

/// The new epoch, without a writer. Recorded only when the writers are down, and stay so: an agent stops a database without a
/// part at once.
pub(crate) fn begin_epoch(view: &View<'_>, epoch: Epoch) -> Deed {
    view.change(|record| {
        record.epoch = epoch;
        for (database, _) in principals(view) {
            record.databases.entry(database).or_default().principal = None;
        }
    })
}

/// Give every part to who is to have it: the writer and its mirror at the site that receives, backup and backup mirror at the
/// other, which follow without being copied anew.
pub(crate) fn hand_out_parts(view: &View<'_>, record: &mut PoolRecord) {
    for (database, topology) in databases(view) {
        let mirror = present_mirror(view, &database);
        let before = view.facts.before.databases.get(&database);
        let left = at_site(view, topology, &view.facts.from_site);
        let [mut backup, mut backup_mirror] = [left.first().cloned(), left.get(1).cloned()];
        if view.facts.before.state == PoolState::Normal {
            // Whoever wrote there until now has everything, and its mirror follows it already.
            backup = before.and_then(|d| d.principal.clone());
            backup_mirror = before.and_then(|d| d.mirror.as_ref()).map(|m| m.host.clone());
        }
        let d = record.databases.entry(database.clone()).or_default();
        d.principal = receiver(view, &database);
        d.mirror = mirror.map(|host| MirrorRecord { host, synchronised: false });
        d.backup = backup;
        d.backup_mirror = backup_mirror;
    }
}

pub(crate) const RECREATE_MIRROR: Step = Step {
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
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 60_000,
};

/// Done when a standby of the backup site streams and has the log up to nearly where the principal is: a stream alone, which
/// may come up for a moment and break again, does not show that it follows.
fn fed(view: &View<'_>, database: &DatabaseName, host: &HostName, written: Option<Lsn>) -> Done {
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

/// Servers that run at the site that receives: without one the users have nowhere to go.
pub(crate) fn servers_there(view: &View<'_>) -> Vec<ServerName> {
    let there = view.topology.servers.iter().filter(|s| view.topology.site_of(&s.host) == Some(&view.facts.to_site));
    let heard = |name: &ServerName| {
        let said = view.reports.values().filter_map(|r| r.servers.get(name));
        said.into_iter().any(|s| s.age_ms < STALE_SERVER_MS)
    };
    there.filter(|s| heard(&s.name)).map(|s| s.name.clone()).collect()
}
