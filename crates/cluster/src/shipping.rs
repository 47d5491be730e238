//! Turning log shipping off and on, at any time, while posts flow (ha-dr §7).
//!
//! Off: the secondary is removed, nothing goes into the share, nothing keeps log for the copies, and they are kept, stopped.
//! On: the archive begins first, so that the log from there on is in the share whatever happens; then the backup is copied
//! anew, or follows again with what it has; its mirror is copied from the backup, at its own site.

use crate::name::{DatabaseName, HostName};
use crate::order::{Order, Outcome};
use crate::record::{DatabaseRecord, PoolState};
use crate::report::{InstanceReport, InstanceState};
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, Whom, all_of, claim_at_home, nothing};

/// Turn log shipping off.
pub const DISABLE_LOG_SHIPPING: &Runbook = &Runbook {
    name: "disable-log-shipping",
    says: "Remove the log-shipping secondary: its jobs and the archive end, and the copies are kept, stopped.",
    preflight: preflight_disable,
    already: already_disabled,
    claim: claim_at_home,
    says_at_end: |_| {
        "log shipping is off, and a failover is not possible; standfast log-shipping enable turns it on again".into()
    },
    steps: &[REMOVE_SECONDARY, STOP_JOBS, STOP_ARCHIVE],
};

/// Turn log shipping on with a full initialisation.
pub const ENABLE_LOG_SHIPPING: &Runbook = &Runbook {
    name: "enable-log-shipping",
    says: "Ship the log to the backup: generate a full backup of the primary online, restore it, and keep it fed.",
    preflight: |view| preflight_enable(view, false),
    already: already_enabled,
    claim: claim_at_home,
    says_at_end: says_enabled,
    steps: &[START_ARCHIVE, SEED_BACKUP, RECORD_SECONDARY, FEED_SECONDARY, SEED_BACKUP_MIRROR, RECORD_BACKUP_MIRROR],
};

/// Turn log shipping on with the copies that are there.
pub const FOLLOW_AGAIN: &Runbook = &Runbook {
    name: "enable-log-shipping-initialised",
    says: "Ship the log to the backup, which is initialised already: it follows again from where it stopped.",
    preflight: |view| preflight_enable(view, true),
    already: already_enabled,
    claim: claim_at_home,
    says_at_end: says_enabled,
    steps: &[START_ARCHIVE, RECORD_FOLLOWER, FEED_SECONDARY, MEND_BACKUP_MIRROR, RECORD_BACKUP_MIRROR],
};

const REMOVE_SECONDARY: Step = Step {
    id: "remove-secondary",
    reference: "",
    says: "Remove the secondary (sp_delete_log_shipping_primary_secondary, sp_delete_log_shipping_secondary_database).",
    needs: nothing,
    does: |view| {
        vec![view.change(|record| {
            for d in record.databases.values_mut() {
                d.backup = None;
                d.backup_mirror = None;
                d.shipping_off = true;
            }
        })]
    },
    done: |view| {
        all_of(view.record.databases.iter().map(|(name, d)| {
            if is_off(d) {
                Done::Yes(format!("{name} has no secondary"))
            } else {
                Done::NotYet(format!("{name} still has its secondary in the record"))
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

const STOP_JOBS: Step = Step {
    id: "stop-jobs",
    reference: "",
    says: "The copy and restore jobs and the stream end, and the copies stop; a host that is away stops when it returns.",
    needs: nothing,
    does: |_| Vec::new(),
    done: |view| {
        all_of(view.facts.before.databases.iter().flat_map(|(name, d)| {
            let copies = [&d.backup, &d.backup_mirror].into_iter().flatten();
            copies.map(move |host| match view.instance(host, name).map(|i| i.state) {
                None => Done::Yes(format!("{host} is away ({}): it stops when it hears of this", view.silence(host))),
                Some(InstanceState::Standby | InstanceState::Busy) => {
                    Done::NotYet(format!("{name} on {host} still follows"))
                }
                Some(_) => Done::Yes(format!("{name} on {host} is stopped, and kept")),
            })
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 15_000,
};

const STOP_ARCHIVE: Step = Step {
    id: "stop-archive",
    reference: "",
    says: "The backup job ends: nothing goes into the share any more, and the principal keeps no log for it.",
    needs: nothing,
    does: |_| Vec::new(),
    done: |view| archive(view, false),
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 10_000,
};

const START_ARCHIVE: Step = Step {
    id: "start-archive",
    reference: "",
    says: "The backup job begins (sp_add_log_shipping_primary_database): from here on the log goes into the share.",
    needs: nothing,
    does: |view| {
        if view.record.databases.values().all(|d| !d.shipping_off) {
            return Vec::new();
        }
        vec![view.change(|record| record.databases.values_mut().for_each(|d| d.shipping_off = false))]
    },
    done: |view| archive(view, true),
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 10_000,
};

/// Whether every principal's backup job is on, or off. One whose agent is away does it when it returns.
fn archive(view: &View<'_>, on: bool) -> Done {
    all_of(view.record.databases.iter().map(|(name, d)| {
        let Some(principal) = &d.principal else { return Done::NotYet(format!("{name} has no principal")) };
        let job = view.instance(principal, name).and_then(|i| i.backup_job.as_ref());
        match job {
            _ if d.shipping_off == on => Done::NotYet(format!("the record does not say so of {name} yet")),
            Some(job) if job.enabled != on => {
                Done::NotYet(format!("the backup job on {principal} has not taken it yet"))
            }
            Some(job) => Done::Yes(match (&job.fault, on) {
                (Some(fault), true) => format!("{name}: the backup job is on; {fault}"),
                (_, true) => format!("{name}: the backup job is on"),
                (_, false) => format!("{name}: the backup job is off"),
            }),
            None if on => Done::NotYet(format!("{principal} does not say how its backup job is")),
            None => Done::Yes(format!("{principal} is away: its backup job ends when it returns")),
        }
    }))
}

/// A database that has a backup in the topology, with everybody in it.
struct Chain {
    database: DatabaseName,
    principal: HostName,
    backup: HostName,
    backup_mirror: Option<HostName>,
}

fn chains(view: &View<'_>) -> Vec<Chain> {
    let all = view.record.databases.iter().filter_map(|(name, d)| {
        let topology = view.topology.database(name)?;
        Some(Chain {
            database: name.clone(),
            principal: d.principal.clone()?,
            backup: topology.backup.as_ref()?.host.clone(),
            backup_mirror: topology.backup_mirror.as_ref().map(|i| i.host.clone()),
        })
    });
    all.collect()
}

impl Chain {
    fn record<'a>(&self, view: &'a View<'_>) -> Option<&'a DatabaseRecord> {
        view.record.databases.get(&self.database)
    }

    /// What became of this run's order to copy to `host`.
    fn copied<'a>(&self, view: &'a View<'_>, host: &HostName) -> Option<&'a Outcome> {
        let taken = view.reports.get(host).and_then(|r| r.orders.get(&self.database))?;
        let mine = view.record.run.as_ref().is_some_and(|run| run.id == taken.run);
        (mine && matches!(taken.order, Order::SeedAnew { .. })).then_some(&taken.outcome)
    }

    fn copy(&self, view: &View<'_>, host: &HostName, from: &HostName) -> Option<Deed> {
        let done = matches!(self.copied(view, host), Some(Outcome::Done { .. }));
        let order = Order::SeedAnew { database: self.database.clone(), from: from.clone() };
        (!done).then(|| Deed::Give { host: host.clone(), order })
    }

    fn is_copied(&self, view: &View<'_>, host: &HostName) -> Done {
        match self.copied(view, host) {
            Some(Outcome::Done { detail }) => Done::Yes(format!("{} on {host}: {detail}", self.database)),
            Some(Outcome::Running { doing }) => Done::NotYet(format!("{host}: {doing}")),
            Some(Outcome::Failed { message }) => Done::NotYet(format!("{host}: {message}")),
            _ if !view.reports.contains_key(host) => {
                Done::NotYet(format!("{host} does not answer ({}): start its agent", view.silence(host)))
            }
            _ => Done::NotYet(format!("{} is not copied to {host} yet", self.database)),
        }
    }
}

const SEED_BACKUP: Step = Step {
    id: "seed-backup",
    reference: "",
    says: "Generate a full backup of the primary, online, and restore it on the secondary with no recovery.",
    needs: nothing,
    does: |view| chains(view).iter().filter_map(|c| c.copy(view, &c.backup, &c.principal)).collect(),
    done: |view| all_of(chains(view).iter().map(|c| c.is_copied(view, &c.backup))),
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

const RECORD_SECONDARY: Step = Step {
    id: "record-secondary",
    reference: "",
    says: "Add the secondary (sp_add_log_shipping_secondary_database): its copy and restore jobs and the stream begin.",
    needs: nothing,
    does: record_backups,
    done: backups_recorded,
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

const RECORD_FOLLOWER: Step = Step {
    id: "record-secondary",
    reference: "",
    says: "Add the secondary as it is (No, the secondary database is initialized): it follows from where it stopped.",
    needs: |view| {
        let unable = chains(view).into_iter().find_map(|c| cannot_follow(view, &c));
        unable.map_or(Ok(()), Err)
    },
    does: record_backups,
    done: backups_recorded,
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

fn record_backups(view: &View<'_>) -> Vec<Deed> {
    vec![view.change(|record| {
        for chain in chains(view) {
            record.databases.entry(chain.database).or_default().backup = Some(chain.backup);
        }
    })]
}

fn backups_recorded(view: &View<'_>) -> Done {
    all_of(chains(view).iter().map(|c| {
        if c.record(view).is_some_and(|d| d.backup.as_ref() == Some(&c.backup)) {
            Done::Yes(format!("{} is the secondary of {}", c.backup, c.database))
        } else {
            Done::NotYet(format!("{} is not recorded yet", c.backup))
        }
    }))
}

const FEED_SECONDARY: Step = Step {
    id: "feed-secondary",
    reference: "",
    says: "Wait until the secondary is fed, by stream or by files.",
    needs: nothing,
    does: |_| Vec::new(),
    done: |view| all_of(chains(view).iter().map(|c| is_fed(view, c))),
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 60_000,
};

fn is_fed(view: &View<'_>, chain: &Chain) -> Done {
    let Some(instance) = view.instance(&chain.backup, &chain.database) else {
        return Done::NotYet(format!("{} does not answer ({})", chain.backup, view.silence(&chain.backup)));
    };
    match &instance.shipping {
        Some(s) if s.hole.is_some() => Done::NotYet(format!("{} meets a hole in the share", chain.backup)),
        Some(s) if instance.state == InstanceState::Standby && s.enabled && s.streaming => {
            Done::Yes(format!("{} streams", chain.backup))
        }
        Some(s) if instance.state == InstanceState::Standby && s.enabled && s.fault.is_none() && s.copied.is_some() => {
            Done::Yes(format!("{} is fed by files; the stream is down", chain.backup))
        }
        _ => Done::NotYet(format!("{} is not fed yet", chain.backup)),
    }
}

const SEED_BACKUP_MIRROR: Step = Step {
    id: "seed-backup-mirror",
    reference: "",
    says: "Copy the backup to its warm mirror, at its own site.",
    needs: nothing,
    does: |view| {
        let all = chains(view).into_iter();
        all.filter_map(|c| c.copy(view, c.backup_mirror.as_ref()?, &c.backup)).collect()
    },
    done: |view| {
        all_of(chains(view).iter().filter_map(|c| {
            let mirror = c.backup_mirror.as_ref()?;
            Some(c.is_copied(view, mirror))
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

const MEND_BACKUP_MIRROR: Step = Step {
    id: "seed-backup-mirror",
    reference: "",
    says: "Let the backup's warm mirror follow from where it stopped; copy it anew where the backup has not kept enough.",
    needs: nothing,
    does: |view| {
        let all = chains(view).into_iter();
        all.filter_map(|c| {
            let mirror = c.backup_mirror.as_ref()?;
            mirror_follows(view, &c, mirror).is_err().then(|| c.copy(view, mirror, &c.backup))?
        })
        .collect()
    },
    done: |view| {
        all_of(chains(view).iter().filter_map(|c| {
            let mirror = c.backup_mirror.as_ref()?;
            Some(match mirror_follows(view, c, mirror) {
                Ok(says) => Done::Yes(says),
                Err(_) => c.is_copied(view, mirror),
            })
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 600_000,
};

fn mirror_follows(view: &View<'_>, chain: &Chain, mirror: &HostName) -> Result<String, String> {
    let copy = view.instance(mirror, &chain.database).ok_or_else(|| format!("{mirror} does not answer"))?;
    let source =
        view.instance(&chain.backup, &chain.database).ok_or_else(|| "the backup does not answer".to_owned())?;
    can_follow(copy, source, false)
}

const RECORD_BACKUP_MIRROR: Step = Step {
    id: "record-backup-mirror",
    reference: "",
    says: "Record the backup's warm mirror.",
    needs: nothing,
    does: |view| {
        let mirrors = chains(view).into_iter().filter_map(|c| Some((c.database, c.backup_mirror?)));
        vec![view.change(|record| {
            for (database, mirror) in mirrors {
                record.databases.entry(database).or_default().backup_mirror = Some(mirror);
            }
        })]
    },
    done: |view| {
        all_of(chains(view).iter().map(|c| {
            if c.record(view).is_some_and(|d| d.backup_mirror == c.backup_mirror) {
                let mirror = c.backup_mirror.as_ref();
                Done::Yes(mirror.map_or("no backup mirror in the topology".to_owned(), |m| format!("{m} is recorded")))
            } else {
                Done::NotYet("the backup's mirror is not recorded yet".into())
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 5_000,
};

/// Whether a stopped copy can follow this source again, with the sentence that says so, or why not. Pure.
///
/// # Errors
/// Why it cannot.
pub fn can_follow(copy: &InstanceReport, source: &InstanceReport, with_share: bool) -> Result<String, String> {
    match copy.state {
        InstanceState::Absent => return Err("there is no copy".into()),
        InstanceState::LeftBehind => return Err("the copy belongs to an older epoch".into()),
        InstanceState::Standby => return Ok("it follows already".into()),
        InstanceState::Online => return Err("the copy is a writer".into()),
        InstanceState::Busy => return Err("the copy is being rebuilt or is starting".into()),
        InstanceState::Stopped | InstanceState::AskingPeer => {}
    }
    let Some(needs) = copy.follows_from else { return Err("the copy is not a standby's".into()) };
    let Some(kept) = source.kept_from else { return Err("the source does not run".into()) };
    let reached = if with_share { needs.share_reaches.max(needs.from) } else { needs.from };
    if kept <= reached {
        return Ok(format!("it follows from {}; its source keeps its log from {kept} on", needs.from));
    }
    let share = if with_share && needs.share_reaches > needs.from {
        format!(", the share has it up to {}", needs.share_reaches)
    } else {
        String::new()
    };
    Err(format!("the copy needs the log from {} on{share}, and its source keeps it from {kept} on only", needs.from))
}

fn cannot_follow(view: &View<'_>, chain: &Chain) -> Option<Unmet> {
    let copy = view.instance(&chain.backup, &chain.database)?;
    let source = view.instance(&chain.principal, &chain.database)?;
    let why = can_follow(copy, source, true).err()?;
    Some(Unmet {
        why: format!("{} on {} cannot follow again: {why}", chain.database, chain.backup),
        hint: "initialise it in full: standfast log-shipping enable".into(),
        can_be_forced: false,
    })
}

fn is_off(d: &DatabaseRecord) -> bool {
    d.shipping_off && d.backup.is_none() && d.backup_mirror.is_none()
}

fn failed_over(view: &View<'_>) -> Option<Unmet> {
    (view.record.state == PoolState::FailedOver).then(|| Unmet {
        why: "the pool is FailedOver: the backup is the principal, and nothing is shipped to it".into(),
        hint: "standfast failback re-creates log shipping when the primary site is back".into(),
        can_be_forced: false,
    })
}

fn preflight_disable(view: &View<'_>) -> Vec<Unmet> {
    failed_over(view).into_iter().collect()
}

fn preflight_enable(view: &View<'_>, initialised: bool) -> Vec<Unmet> {
    if let Some(unmet) = failed_over(view) {
        return vec![unmet];
    }
    let chains = chains(view);
    if chains.is_empty() {
        return vec![Unmet {
            why: "the topology has no backup to ship to".into(),
            hint: "add backup = { host = …, postgres = … } and log_shipping = { share = … }, and publish the topology"
                .into(),
            can_be_forced: false,
        }];
    }
    let hosts = chains.iter().flat_map(|c| [Some(&c.principal), Some(&c.backup), c.backup_mirror.as_ref()]);
    let silent = hosts.flatten().filter(|host| !view.reports.contains_key(*host)).map(|host| Unmet {
        why: format!("{host} does not answer ({})", view.silence(host)),
        hint: format!("start the agent on {host} first"),
        can_be_forced: false,
    });
    let unable = chains.iter().filter(|_| initialised).filter_map(|c| cannot_follow(view, c));
    silent.chain(unable).collect()
}

fn already_disabled(view: &View<'_>) -> Option<String> {
    let off = view.record.databases.values().all(is_off);
    (off && view.record.run.is_none()).then(|| "log shipping is off".to_owned())
}

/// On, and able to go on: a backup that meets a hole, or has lost its data, is to be initialised again.
fn already_enabled(view: &View<'_>) -> Option<String> {
    let chains = chains(view);
    let on = chains.iter().all(|c| {
        let recorded = c.record(view).is_some_and(|d| {
            !d.shipping_off && d.backup.as_ref() == Some(&c.backup) && d.backup_mirror == c.backup_mirror
        });
        recorded && matches!(is_fed(view, c), Done::Yes(_))
    });
    (on && !chains.is_empty() && view.record.run.is_none()).then(|| "log shipping is on".to_owned())
}

fn says_enabled(view: &View<'_>) -> String {
    let fed: Vec<String> = chains(view).iter().map(|c| format!("{} follows {}", c.backup, c.principal)).collect();
    format!("log shipping is on: {}", fed.join("; "))
}
