//! Initialising a pool: from a topology and empty hosts to a pool in state Normal.
//!
//! Works for every shape that a topology can have: steps for what is not in it are done at once.

use crate::failover::serving;
use crate::name::{DatabaseName, HostName};
use crate::order::Order;
use crate::record::{DatabaseRecord, MirrorRecord};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, Whom, all_of, claim_at_home, nothing};
use crate::topology::Database;

/// The runbook.
pub const INITIALISE: &Runbook = &Runbook {
    name: "initialise",
    says: "Create the databases of the topology, mirror them, ship their log, and activate the servers.",
    preflight,
    already,
    claim: claim_at_home,
    says_at_end,
    steps: &[
        INITIALISE_PRIMARY,
        PUBLISH_RECORD,
        SEED_MIRROR,
        SEED_BACKUP,
        SEED_BACKUP_MIRROR,
        ENABLE_LOG_SHIPPING,
        SYNCHRONISE_MIRROR,
        SET_ACTIVE_SERVERS,
    ],
};

const INITIALISE_PRIMARY: Step = Step {
    id: "initialise-primary",
    reference: "",
    says: "Create the primary databases (Install-CsDatabase).",
    needs: nothing,
    does: |view| {
        let epoch = view.record.epoch;
        let all = view.topology.databases.iter();
        all.map(|d| Deed::Give {
            host: d.primary.host.clone(),
            order: Order::Initialise { database: d.name.clone(), epoch },
        })
        .collect()
    },
    done: |view| {
        each(view, |view, d| match view.instance(&d.primary.host, &d.name).map(|i| i.state) {
            Some(InstanceState::Online) => Done::Yes(format!("{} on {} is online", d.name, d.primary.host)),
            _ => waiting(view, &d.primary.host, &d.name, "is not online yet"),
        })
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

const PUBLISH_RECORD: Step = Step {
    id: "publish-record",
    reference: "",
    says: "Publish the pool's record: who is principal, in which epoch.",
    needs: nothing,
    does: |view| {
        vec![view.change(|record| {
            for d in &view.topology.databases {
                record.databases.entry(d.name.clone()).or_default().principal = Some(d.primary.host.clone());
            }
        })]
    },
    done: |view| {
        each(view, |view, d| {
            if of(view, d).is_some_and(|r| r.principal.is_some()) {
                Done::Yes(format!("{} is the principal of {}", d.primary.host, d.name))
            } else {
                Done::NotYet(format!("{} has no principal yet", d.name))
            }
        })
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 5_000,
};

/// Seed a standby from its source, and put it into the record.
fn seeded(view: &View<'_>, d: &Database, host: Option<&HostName>, what: &str) -> Done {
    let Some(host) = host else { return Done::Yes(format!("no {what} of {} in the topology", d.name)) };
    match view.instance(host, &d.name).map(|i| i.state) {
        Some(InstanceState::Standby | InstanceState::Stopped | InstanceState::Online) => {
            Done::Yes(format!("{what} of {} on {host}", d.name))
        }
        _ => waiting(view, host, &d.name, "is not copied yet"),
    }
}

fn seed(view: &View<'_>, pick: impl Fn(&Database) -> Option<(HostName, HostName)>) -> Vec<Deed> {
    let all = view.topology.databases.iter();
    all.filter_map(|d| {
        let (host, from) = pick(d)?;
        Some(Deed::Give { host, order: Order::Seed { database: d.name.clone(), from } })
    })
    .collect()
}

const SEED_MIRROR: Step = Step {
    id: "seed-mirror",
    reference: "",
    says: "Copy the primary to its mirror (Install-CsMirrorDatabase).",
    needs: nothing,
    does: |view| seed(view, |d| d.mirror.as_ref().map(|m| (m.host.clone(), d.primary.host.clone()))),
    done: |view| each(view, |view, d| seeded(view, d, d.mirror.as_ref().map(|m| &m.host), "mirror")),
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

const SEED_BACKUP: Step = Step {
    id: "seed-backup",
    reference: "",
    says: "Copy the primary to the backup (generate a full backup of the primary and restore it).",
    needs: nothing,
    does: |view| seed(view, |d| d.backup.as_ref().map(|m| (m.host.clone(), d.primary.host.clone()))),
    done: |view| each(view, |view, d| seeded(view, d, d.backup.as_ref().map(|m| &m.host), "backup")),
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

const SEED_BACKUP_MIRROR: Step = Step {
    id: "seed-backup-mirror",
    reference: "",
    says: "Copy the primary to the backup's warm mirror.",
    needs: nothing,
    does: |view| seed(view, |d| d.backup_mirror.as_ref().map(|m| (m.host.clone(), d.primary.host.clone()))),
    done: |view| each(view, |view, d| seeded(view, d, d.backup_mirror.as_ref().map(|m| &m.host), "backup mirror")),
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

const ENABLE_LOG_SHIPPING: Step = Step {
    id: "enable-log-shipping",
    reference: "",
    says: "Enable log shipping to the backup, and give every copy its part.",
    needs: nothing,
    does: |view| {
        vec![view.change(|record| {
            for d in &view.topology.databases {
                record.databases.insert(d.name.clone(), whole(d, record.databases.get(&d.name)));
            }
        })]
    },
    done: |view| {
        each(view, |view, d| {
            let Some(now) = of(view, d) else { return Done::NotYet(format!("{} is not in the record", d.name)) };
            if *now == whole(d, Some(now)) {
                Done::Yes(format!("{}: every copy has its part", d.name))
            } else {
                Done::NotYet(format!("{}: not every copy has its part yet", d.name))
            }
        })
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 5_000,
};

/// A database with every part that the topology gives it.
fn whole(d: &Database, now: Option<&DatabaseRecord>) -> DatabaseRecord {
    let host = |i: &crate::topology::Instance| i.host.clone();
    let synchronised = now.and_then(|n| n.mirror.as_ref()).is_some_and(|m| m.synchronised);
    DatabaseRecord {
        principal: Some(d.primary.host.clone()),
        mirror: d.mirror.as_ref().map(|i| MirrorRecord { host: i.host.clone(), synchronised }),
        backup: d.backup.as_ref().map(host),
        backup_mirror: d.backup_mirror.as_ref().map(host),
        shipping_off: false,
    }
}

const SYNCHRONISE_MIRROR: Step = Step {
    id: "synchronise-mirror",
    reference: "",
    says: "Wait until the mirror is synchronised (Get-CsDatabaseMirrorState).",
    needs: nothing,
    does: |_| Vec::new(),
    done: |view| {
        each(view, |view, d| match of(view, d).and_then(|r| r.mirror.as_ref()) {
            None => Done::Yes(format!("no mirror of {} in the topology", d.name)),
            Some(m) if m.synchronised => Done::Yes(format!("{} is synchronised", m.host)),
            Some(m) => Done::NotYet(format!("{} is catching up", m.host)),
        })
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

const SET_ACTIVE_SERVERS: Step = Step {
    id: "set-active-servers",
    reference: "",
    says: "Set the active servers (Set-CsPersistentChatActiveServer) to those that the topology makes active.",
    needs: nothing,
    does: |view| {
        let wanted = active(view);
        if view.record.active_servers == wanted {
            return Vec::new();
        }
        vec![view.change(|record| record.active_servers = wanted)]
    },
    done: |view| {
        let wanted = active(view);
        if view.record.active_servers == wanted {
            serving(view, &wanted)
        } else {
            Done::NotYet("the active servers are not set yet".into())
        }
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 10_000,
};

fn active(view: &View<'_>) -> Vec<crate::name::ServerName> {
    view.topology.servers.iter().filter(|s| s.active).map(|s| s.name.clone()).collect()
}

fn of<'a>(view: &'a View<'_>, d: &Database) -> Option<&'a DatabaseRecord> {
    view.record.databases.get(&d.name)
}

fn each(view: &View<'_>, ask: impl Fn(&View<'_>, &Database) -> Done) -> Done {
    all_of(view.topology.databases.iter().map(|d| ask(view, d)).collect::<Vec<_>>())
}

/// What a host is doing about its latest order, for the person who waits.
fn waiting(view: &View<'_>, host: &HostName, database: &DatabaseName, otherwise: &str) -> Done {
    use crate::order::Outcome;
    let outcome = view.reports.get(host).and_then(|r| r.orders.get(database)).map(|o| &o.outcome);
    Done::NotYet(match outcome {
        _ if !view.reports.contains_key(host) => {
            format!("{host} does not answer ({}): start its agent", view.silence(host))
        }
        Some(Outcome::Running { doing }) => format!("{host}: {doing}"),
        Some(Outcome::Failed { message }) => format!("{host}: {message}"),
        _ => format!("{database} on {host} {otherwise}"),
    })
}

fn preflight(view: &View<'_>) -> Vec<Unmet> {
    let hosts = view.topology.databases.iter().flat_map(Database::instances).map(|i| &i.host);
    hosts
        .filter(|host| !view.reports.contains_key(*host))
        .map(|host| Unmet {
            why: format!("{host} does not answer ({})", view.silence(host)),
            hint: format!("start the agent on {host}, then initialise again"),
            can_be_forced: false,
        })
        .collect()
}

fn already(view: &View<'_>) -> Option<String> {
    let known = !view.record.databases.is_empty() || (view.topology.has_only_existing() && view.record.version > 0);
    let set = known && view.record.databases.values().all(|d| d.principal.is_some()) && view.record.run.is_none();
    set.then(|| format!("the pool is initialised: state {}, epoch {}", view.record.state, view.record.epoch))
}

fn says_at_end(view: &View<'_>) -> String {
    format!("the pool is {} in epoch {}", view.record.state, view.record.epoch)
}
