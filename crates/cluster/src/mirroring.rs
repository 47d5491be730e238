//! Installing and removing the mirror of the present principal (`Install-CsMirrorDatabase`, `Uninstall-CsMirrorDatabase`).

use crate::name::{DatabaseName, HostName};
use crate::order::{Order, Outcome};
use crate::record::{MirrorRecord, Part};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, Whom, all_of, claim_at_home, nothing};

/// Install the mirror.
pub const INSTALL_MIRROR: &Runbook = &Runbook {
    name: "install-mirror",
    says: "Give the principal a synchronous mirror on the host that the topology names at its site.",
    preflight: preflight_install,
    already: already_installed,
    claim: claim_at_home,
    says_at_end: says_installed,
    steps: &[SEED_MIRROR, RECORD_MIRROR, SYNCHRONISE],
};

/// Remove the mirror.
pub const REMOVE_MIRROR: &Runbook = &Runbook {
    name: "remove-mirror",
    says: "Take the mirror out of the pool; the principal serves alone, and the copy is kept, stopped.",
    preflight: |_| Vec::new(),
    already: already_removed,
    claim: claim_at_home,
    says_at_end: says_removed,
    steps: &[REMOVE],
};

const SEED_MIRROR: Step = Step {
    id: "seed-mirror",
    reference: "",
    says: "Copy the principal to its mirror, or let what is there follow it.",
    needs: nothing,
    does: |view| {
        let mut deeds = Vec::new();
        for (database, principal, mirror) in pairs(view) {
            let state = view.instance(&mirror, &database).map(|i| i.state);
            if state != Some(InstanceState::Standby) {
                let from = principal.clone();
                deeds.push(Deed::Give { host: mirror, order: Order::Seed { database, from } });
            }
        }
        deeds
    },
    done: |view| {
        all_of(pairs(view).into_iter().map(|(database, _, mirror)| {
            let taken = view.reports.get(&mirror).and_then(|r| r.orders.get(&database));
            let this_run = view.record.run.as_ref().map(|r| r.id.as_str());
            let seeded = taken.is_some_and(|t| {
                Some(t.run.as_str()) == this_run
                    && matches!(t.order, Order::Seed { .. })
                    && matches!(t.outcome, Outcome::Done { .. })
            });
            let follows = view.instance(&mirror, &database).is_some_and(|i| i.state == InstanceState::Standby);
            match taken.map(|t| &t.outcome) {
                _ if seeded || follows => Done::Yes(format!("{database} is on {mirror}")),
                Some(Outcome::Failed { message }) => Done::NotYet(format!("{mirror}: {message}")),
                _ => Done::NotYet(format!("{database} is not copied to {mirror} yet")),
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

const RECORD_MIRROR: Step = Step {
    id: "record-mirror",
    reference: "",
    says: "Record the mirror as the principal's partner, not yet synchronised.",
    needs: nothing,
    does: |view| {
        vec![view.change(|record| {
            for (database, _, host) in pairs(view) {
                let d = record.databases.entry(database).or_default();
                if d.mirror.as_ref().is_none_or(|m| m.host != host) {
                    d.mirror = Some(MirrorRecord { host, synchronised: false });
                }
            }
        })]
    },
    done: |view| {
        all_of(pairs(view).into_iter().map(|(database, _, mirror)| {
            let part = view.record.databases.get(&database).and_then(|d| d.part_of(&mirror));
            if part == Some(Part::Mirror) {
                Done::Yes(format!("{mirror} is the mirror of {database}"))
            } else {
                Done::NotYet(format!("{mirror} is not recorded yet"))
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

const SYNCHRONISE: Step = Step {
    id: "synchronise-mirror",
    reference: "",
    says: "Wait until the mirror is synchronised (Get-CsDatabaseMirrorState).",
    needs: nothing,
    does: |_| Vec::new(),
    done: |view| {
        all_of(view.record.databases.iter().map(|(database, d)| match &d.mirror {
            Some(m) if m.synchronised => Done::Yes(format!("{} is synchronised", m.host)),
            Some(m) => Done::NotYet(format!("{} is catching up", m.host)),
            None => Done::Yes(format!("{database} has no mirror")),
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

const REMOVE: Step = Step {
    id: "remove-mirroring",
    reference: "",
    says: "Remove mirroring: commits wait for the principal alone.",
    needs: nothing,
    does: |view| {
        if view.record.databases.values().all(|d| d.mirror.is_none()) {
            return Vec::new();
        }
        vec![view.change(|record| record.databases.values_mut().for_each(|d| d.mirror = None))]
    },
    done: |view| {
        all_of(view.record.databases.iter().map(|(database, d)| {
            let waits =
                d.principal.as_ref().and_then(|p| view.instance(p, database)).map(|i| !i.synchronous.is_empty());
            match (&d.mirror, waits) {
                (Some(m), _) => Done::NotYet(format!("{} is still the mirror of {database}", m.host)),
                (None, Some(true)) => Done::NotYet(format!("{database} still waits for its mirror")),
                (None, _) => Done::Yes(format!("{database} has no mirror")),
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 5_000,
};

/// Each database with its principal and the host that the topology has for a mirror beside it.
fn pairs(view: &View<'_>) -> Vec<(DatabaseName, HostName, HostName)> {
    let mut pairs = Vec::new();
    for (name, d) in &view.record.databases {
        let (Some(principal), Some(topology)) = (&d.principal, view.topology.database(name)) else { continue };
        let site = view.topology.site_of(principal);
        let partner =
            topology.instances().map(|i| &i.host).find(|h| *h != principal && view.topology.site_of(h) == site);
        if let Some(partner) = partner {
            pairs.push((name.clone(), principal.clone(), partner.clone()));
        }
    }
    pairs
}

fn preflight_install(view: &View<'_>) -> Vec<Unmet> {
    let pairs = pairs(view);
    if pairs.is_empty() {
        return vec![Unmet {
            why: "the topology has no second instance at the principal's site".into(),
            hint: "add mirror = { host = …, postgres = … } to the database and publish the topology".into(),
            can_be_forced: false,
        }];
    }
    let silent = pairs.into_iter().filter(|(_, _, mirror)| !view.reports.contains_key(mirror));
    silent
        .map(|(_, _, mirror)| Unmet {
            why: format!("{mirror} does not answer ({})", view.silence(&mirror)),
            hint: format!("start the agent on {mirror} first"),
            can_be_forced: false,
        })
        .collect()
}

fn already_installed(view: &View<'_>) -> Option<String> {
    let all = !view.record.databases.is_empty()
        && view.record.databases.values().all(|d| d.mirror.as_ref().is_some_and(|m| m.synchronised));
    (all && view.record.run.is_none()).then(|| "every principal has a synchronised mirror already".to_owned())
}

fn already_removed(view: &View<'_>) -> Option<String> {
    let none = view.record.databases.values().all(|d| d.mirror.is_none());
    (none && view.record.run.is_none()).then(|| "no principal has a mirror".to_owned())
}

fn says_installed(_: &View<'_>) -> String {
    "the mirror is synchronised: an acknowledged post is on both".into()
}

fn says_removed(_: &View<'_>) -> String {
    "mirroring is removed; standfast mirror install brings it back".into()
}
