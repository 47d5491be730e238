//! Adding and removing the backup's warm mirror in a running pool. The mirror is `mirroring`, the backup log shipping.

use crate::name::{DatabaseName, HostName};
use crate::order::{Order, Outcome};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, Whom, all_of, claim_at_home, nothing};

/// Add the backup's warm mirror.
pub const ADD_BACKUP_MIRROR: &Runbook = &Runbook {
    name: "add-backup-mirror",
    says: "Give the backup the warm mirror that the topology names: copy the backup to it, online, and feed it.",
    preflight: preflight_add,
    already: already_added,
    claim: claim_at_home,
    says_at_end: |_| "the backup has its warm mirror: a failover gives the new principal its mirror at once".into(),
    steps: &[SEED_BACKUP_MIRROR, RECORD_BACKUP_MIRROR, FEED_BACKUP_MIRROR],
};

/// Remove the backup's warm mirror.
pub const REMOVE_BACKUP_MIRROR: &Runbook = &Runbook {
    name: "remove-backup-mirror",
    says: "Take the backup's warm mirror out of the pool; the copy is kept, stopped.",
    preflight: |_| Vec::new(),
    already: already_removed,
    claim: claim_at_home,
    says_at_end: |_| "the backup has no mirror: after a failover the new principal serves alone".into(),
    steps: &[REMOVE],
};

const SEED_BACKUP_MIRROR: Step = Step {
    id: "seed-backup-mirror",
    reference: "",
    says: "Copy the backup to its warm mirror, at its own site; one that still follows is left as it is.",
    needs: nothing,
    does: |view| {
        let missing = trios(view).into_iter().filter(|(database, _, mirror)| !follows(view, database, mirror));
        missing.map(|(database, from, host)| Deed::Give { host, order: Order::SeedAnew { database, from } }).collect()
    },
    done: |view| {
        all_of(trios(view).into_iter().map(|(database, _, mirror)| {
            let taken = view.reports.get(&mirror).and_then(|r| r.orders.get(&database));
            let mine = taken.filter(|t| {
                view.record.run.as_ref().is_some_and(|run| run.id == t.run) && matches!(t.order, Order::SeedAnew { .. })
            });
            match mine.map(|t| &t.outcome) {
                Some(Outcome::Done { detail }) => Done::Yes(format!("{database} on {mirror}: {detail}")),
                _ if follows(view, &database, &mirror) => Done::Yes(format!("{database} is on {mirror}")),
                Some(Outcome::Running { doing }) => Done::NotYet(format!("{mirror}: {doing}")),
                Some(Outcome::Failed { message }) => Done::NotYet(format!("{mirror}: {message}")),
                _ if !view.reports.contains_key(&mirror) => {
                    Done::NotYet(format!("{mirror} does not answer ({}): start its agent", view.silence(&mirror)))
                }
                _ => Done::NotYet(format!("{database} is not copied to {mirror} yet")),
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

const RECORD_BACKUP_MIRROR: Step = Step {
    id: "record-backup-mirror",
    reference: "",
    says: "Record it as the backup's mirror.",
    needs: nothing,
    does: |view| {
        vec![view.change(|record| {
            for (database, _, mirror) in trios(view) {
                record.databases.entry(database).or_default().backup_mirror = Some(mirror);
            }
        })]
    },
    done: |view| {
        all_of(trios(view).into_iter().map(|(database, _, mirror)| {
            let now = view.record.databases.get(&database).and_then(|d| d.backup_mirror.as_ref());
            if now == Some(&mirror) {
                Done::Yes(format!("{mirror} is the backup mirror of {database}"))
            } else {
                Done::NotYet(format!("{mirror} is not recorded yet"))
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

const FEED_BACKUP_MIRROR: Step = Step {
    id: "feed-backup-mirror",
    reference: "",
    says: "Wait until it streams from the backup.",
    needs: nothing,
    does: |_| Vec::new(),
    done: |view| {
        all_of(trios(view).into_iter().map(|(database, backup, mirror)| {
            let instance = view.instance(&mirror, &database);
            let standby = instance.filter(|i| i.state == InstanceState::Standby);
            if standby.and_then(|i| i.shipping.as_ref()).is_some_and(|s| s.streaming) {
                Done::Yes(format!("{mirror} streams from {backup}"))
            } else {
                Done::NotYet(format!("{mirror} does not stream from {backup} yet"))
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

const REMOVE: Step = Step {
    id: "remove-backup-mirror",
    reference: "",
    says: "Take the backup's mirror out of the record; its agent stops it.",
    needs: nothing,
    does: |view| {
        if view.record.databases.values().all(|d| d.backup_mirror.is_none()) {
            return Vec::new();
        }
        vec![view.change(|record| record.databases.values_mut().for_each(|d| d.backup_mirror = None))]
    },
    done: |view| {
        all_of(view.record.databases.iter().map(|(database, d)| match &d.backup_mirror {
            Some(host) => Done::NotYet(format!("{host} is still the backup mirror of {database}")),
            None => Done::Yes(format!("{database} has no backup mirror")),
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

fn follows(view: &View<'_>, database: &DatabaseName, host: &HostName) -> bool {
    view.instance(host, database).is_some_and(|i| i.state == InstanceState::Standby)
}

/// Each database with its backup and the host that the topology has for a mirror beside it.
fn trios(view: &View<'_>) -> Vec<(DatabaseName, HostName, HostName)> {
    let all = view.record.databases.iter().filter_map(|(name, d)| {
        let backup = d.backup.clone()?;
        let topology = view.topology.database(name)?;
        let site = view.topology.site_of(&backup);
        let mut beside = topology.instances().map(|i| &i.host);
        let mirror = beside.find(|h| **h != backup && view.topology.site_of(h) == site)?;
        Some((name.clone(), backup, mirror.clone()))
    });
    all.collect()
}

fn preflight_add(view: &View<'_>) -> Vec<Unmet> {
    let all = trios(view);
    if all.is_empty() {
        return vec![Unmet {
            why: "no database has a backup with a second instance beside it in the topology".into(),
            hint: "add backup_mirror = { host = …, postgres = … } beside a backup that runs, and publish".into(),
            can_be_forced: false,
        }];
    }
    let hosts = all.into_iter().flat_map(|(_, backup, mirror)| [backup, mirror]);
    let silent = hosts.filter(|host| !view.reports.contains_key(host));
    silent
        .map(|host| Unmet {
            why: format!("{host} does not answer ({})", view.silence(&host)),
            hint: format!("start the agent on {host} first"),
            can_be_forced: false,
        })
        .collect()
}

fn already_added(view: &View<'_>) -> Option<String> {
    let all = trios(view);
    let recorded = |(database, _, mirror): &(DatabaseName, HostName, HostName)| {
        view.record.databases.get(database).and_then(|d| d.backup_mirror.as_ref()) == Some(mirror)
            && follows(view, database, mirror)
    };
    (!all.is_empty() && all.iter().all(recorded) && view.record.run.is_none())
        .then(|| "every backup has its mirror already".to_owned())
}

fn already_removed(view: &View<'_>) -> Option<String> {
    let none = view.record.databases.values().all(|d| d.backup_mirror.is_none());
    (none && view.record.run.is_none()).then(|| "no backup has a mirror".to_owned())
}
