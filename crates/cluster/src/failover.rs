//! Failing over: the reference's procedure (ha-dr §8), with the fence that safety puts before it.
//!
//! The primary site is lost. The surviving site's authority raises the epoch and closes the share to the old site before
//! anything is copied or applied, brings the backup online with everything that had reached it, gives it its warm
//! mirror, and activates the servers at its site.

use crate::name::{DatabaseName, HostName, SiteName};
use crate::order::Order;
use crate::record::{MirrorRecord, PoolRecord, PoolState, RunRef};
use crate::report::InstanceState;
use crate::runbook::{Deed, Done, Runbook, Step, Undo, Unmet, View, Whom, all_of, nothing};
use crate::topology_file::ACTIVE_SERVERS_MAX;

/// The runbook.
pub const FAILOVER: &Runbook = &Runbook {
    name: "failover",
    says: "The primary site is lost: bring the backup online, give it a mirror, and let the users in at the other site.",
    preflight,
    already,
    claim,
    says_at_end,
    steps: &[
        FENCE_OLD_PRIMARY,
        STOP_LOG_SHIPPING,
        COPY_REMAINING_LOG,
        APPLY_REMAINING_LOG,
        DISCONNECT_SESSIONS,
        BRING_BACKUP_ONLINE, // from here on, forward only
        SET_POOL_FAILED_OVER,
        MIRROR_NEW_PRIMARY,
        SET_ACTIVE_SERVERS,
    ],
};

const FENCE_OLD_PRIMARY: Step = Step {
    id: "fence-old-primary",
    reference: "",
    says: "Fence the old primary: raise the epoch, stop its databases where they answer, close the backup share to it.",
    needs: nothing,
    does: |view| {
        let mut deeds = Vec::new();
        for (database, backup) in backups(view) {
            let epoch = view.record.epoch;
            for host in old_hosts(view, &database) {
                if unfenced(view, &host, &database).is_some() {
                    deeds.push(Deed::Give { host, order: Order::Fence { database: database.clone(), epoch } });
                }
            }
            deeds.push(Deed::Give { host: backup, order: Order::CloseShare { database, epoch } });
        }
        deeds
    },
    done: |view| all_of(backups(view).into_iter().map(|(database, backup)| fenced(view, &database, &backup))),
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 3_000,
};

fn fenced(view: &View<'_>, database: &DatabaseName, backup: &HostName) -> Done {
    if view.record.epoch <= view.facts.before.epoch {
        return Done::NotYet("the epoch is not raised yet".into());
    }
    for host in old_hosts(view, database) {
        if let Some(missing) = unfenced(view, &host, database) {
            return Done::NotYet(missing);
        }
    }
    let closed_from = view.instance(backup, database).and_then(|i| i.shipping.as_ref()).and_then(|s| s.share_epoch);
    if closed_from.is_none_or(|epoch| epoch < view.record.epoch) {
        return Done::NotYet(format!("the share of {database} is not closed to {} yet", view.facts.from_site));
    }
    Done::Yes(format!("epoch {}, share closed to older epochs", view.record.epoch))
}

/// What keeps an old host that answers from being fenced. It is not enough that its instance is closed: one that is about
/// to start would open on what its agent heard before the epoch was raised.
pub(crate) fn unfenced(view: &View<'_>, host: &HostName, database: &DatabaseName) -> Option<String> {
    use crate::order::Outcome;
    let report = view.reports.get(host)?;
    let instance = report.instances.get(database)?;
    if is_open(instance.state) {
        return Some(format!("{database} on {host} is still open"));
    }
    let knows = report.record.as_ref().is_some_and(|r| r.epoch >= view.record.epoch);
    let order = Order::Fence { database: database.clone(), epoch: view.record.epoch };
    let taken = report.orders.get(database).filter(|t| t.order == order);
    let fenced = taken.is_some_and(|t| matches!(t.outcome, Outcome::Done { .. }));
    (!knows && !fenced).then(|| format!("{host} has not heard of epoch {} yet", view.record.epoch))
}

const STOP_LOG_SHIPPING: Step = Step {
    id: "stop-log-shipping",
    reference: "1",
    says: "Stop log shipping on the backup (sp_delete_log_shipping_secondary_database): its copy and restore jobs end.",
    needs: nothing,
    does: |view| to_backups(view, |database| Order::StopLogShipping { database }),
    done: |view| {
        all_of(backups(view).into_iter().map(|(database, backup)| {
            let shipping = view.instance(&backup, &database).map(|i| (i.state, i.shipping.as_ref()));
            match shipping {
                Some((InstanceState::Online, _)) => Done::Yes(format!("{database} is online already")),
                Some((_, Some(shipping))) if !shipping.enabled => Done::Yes(format!("jobs of {database} are gone")),
                _ => Done::NotYet(format!("log shipping of {database} still runs on {backup}")),
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::RestoreRecord,
    patience_ms: 3_000,
};

const COPY_REMAINING_LOG: Step = Step {
    id: "copy-remaining-log",
    reference: "2",
    says: "Copy the remaining log files from the backup share to the copy destination.",
    needs: nothing,
    does: |view| to_backups(view, |database| Order::CopyRemainingLog { database }),
    done: |view| ordered_and_done(view, |database| Order::CopyRemainingLog { database }),
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 30_000,
};

const APPLY_REMAINING_LOG: Step = Step {
    id: "apply-remaining-log",
    reference: "3",
    says: "Restore the unapplied log to mgc, in sequence, with no recovery.",
    needs: nothing,
    does: |view| to_backups(view, |database| Order::ApplyRemainingLog { database }),
    done: |view| ordered_and_done(view, |database| Order::ApplyRemainingLog { database }),
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 60_000,
};

const DISCONNECT_SESSIONS: Step = Step {
    id: "disconnect-sessions",
    reference: "4a",
    says: "End every session in mgc (sp_who2, kill): recovery needs exclusive use.",
    needs: nothing,
    does: |view| to_backups(view, |database| Order::DisconnectSessions { database }),
    done: |view| ordered_and_done(view, |database| Order::DisconnectSessions { database }),
    looks_at: Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 3_000,
};

pub(crate) const BRING_BACKUP_ONLINE: Step = Step {
    id: "bring-backup-online",
    reference: "4b",
    says: "Bring the backup online (restore database mgc with recovery): afterwards no further log can be applied.",
    needs: nothing,
    does: |view| {
        if unheard_epoch(view).is_some_and(|newest| newest > view.record.epoch) {
            return vec![view.change(|record| {
                record.epoch = epoch_here(view);
                record.lost_sites.insert(view.facts.from_site.clone(), record.epoch);
            })];
        }
        let next = |(database, host)| Deed::Give { order: to_bring_online(view, &database, &host), host };
        backups(view).into_iter().map(next).collect()
    },
    done: |view| {
        all_of(backups(view).into_iter().map(|(database, backup)| match view.instance(&backup, &database) {
            Some(i) if i.state == InstanceState::Online && began(i.database_epoch, view) => {
                Done::Yes(format!("{database} on {backup} is online in epoch {}", view.record.epoch))
            }
            _ => Done::NotYet(format!("{database} on {backup} is not online yet")),
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 10_000,
};

/// The newest epoch that a backup carries. While the sites do not hear each other, the old site may have begun one by a
/// switch, and its log comes by the share all the same.
fn unheard_epoch(view: &View<'_>) -> Option<rules::id::Epoch> {
    let carried = |(database, host): (DatabaseName, HostName)| view.instance(&host, &database)?.database_epoch;
    backups(view).into_iter().filter_map(carried).max()
}

/// The epoch that begins here: after every one of which this site knows.
fn epoch_here(view: &View<'_>) -> rules::id::Epoch {
    let newest = unheard_epoch(view).map_or(view.record.epoch, |e| e.max(view.record.epoch));
    view.topology.next_epoch(newest, &view.facts.to_site)
}

/// The order that comes next for a backup. Where the epoch was raised once more, the share is closed to the epoch that was
/// found in it, and what is left there is copied and applied, before the promotion.
fn to_bring_online(view: &View<'_>, database: &DatabaseName, host: &HostName) -> Order {
    use crate::order::Outcome;
    let (database, epoch) = (database.clone(), view.record.epoch);
    let taken = view.reports.get(host).and_then(|r| r.orders.get(&database));
    let Some(taken) = taken.filter(|t| t.stamp.epoch == epoch.0) else { return Order::CloseShare { database, epoch } };
    match (&taken.order, matches!(taken.outcome, Outcome::Done { .. })) {
        (Order::CloseShare { .. }, false) => Order::CloseShare { database, epoch },
        (Order::CloseShare { .. }, true) | (Order::CopyRemainingLog { .. }, false) => {
            Order::CopyRemainingLog { database }
        }
        (Order::CopyRemainingLog { .. }, true) | (Order::ApplyRemainingLog { .. }, false) => {
            Order::ApplyRemainingLog { database }
        }
        _ => Order::Promote { database, epoch },
    }
}

/// Whether a database carries the record's epoch; one without the chat schema yet carries none.
pub(crate) fn began(epoch: Option<rules::id::Epoch>, view: &View<'_>) -> bool {
    epoch.is_none_or(|epoch| epoch >= view.record.epoch)
}

const SET_POOL_FAILED_OVER: Step = Step {
    id: "set-pool-failed-over",
    reference: "5",
    says: "Set the pool state to FailedOver (Set-CsPersistentChatState): every server uses the backup's databases.",
    needs: nothing,
    does: |view| {
        let backups = backups(view);
        vec![view.change(|record| {
            record.state = PoolState::FailedOver;
            for (database, backup) in backups {
                let d = record.databases.entry(database).or_default();
                d.principal = Some(backup);
                d.backup = None;
            }
        })]
    },
    done: |view| {
        let all = backups(view).iter().all(|(database, backup)| principal(view.record, database) == Some(backup));
        if all && view.record.state == PoolState::FailedOver {
            Done::Yes("state FailedOver".into())
        } else {
            Done::NotYet("the record does not say FailedOver yet".into())
        }
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 3_000,
};

fn principal<'a>(record: &'a PoolRecord, database: &DatabaseName) -> Option<&'a HostName> {
    record.databases.get(database).and_then(|d| d.principal.as_ref())
}

/// How long clients wait for the new principal's mirror before they are let in without it, in milliseconds.
const MIRROR_PATIENCE_MS: u64 = 1_000;

const MIRROR_NEW_PRIMARY: Step = Step {
    id: "mirror-new-primary",
    reference: "6",
    says: "Mirror the new primary (Install-CsMirrorDatabase) with the backup mirror, which is warm; not the original mirror.",
    needs: nothing,
    does: |view| {
        let wanted = warm_mirrors(view);
        let missing = wanted.iter().any(|(database, mirror)| mirror_of(view, database) != Some(mirror));
        if !missing {
            return Vec::new();
        }
        vec![view.change(|record| {
            for (database, host) in wanted {
                let d = record.databases.entry(database).or_default();
                d.mirror = Some(MirrorRecord { host, synchronised: false });
                d.backup_mirror = None;
            }
        })]
    },
    done: |view| {
        all_of(warm_mirrors(view).into_iter().map(|(database, mirror)| {
            let d = view.record.databases.get(&database);
            match d.and_then(|d| d.mirror.as_ref()) {
                Some(m) if m.synchronised => Done::Yes(format!("{database}: {mirror} is synchronised")),
                Some(_) if view.step_age_ms >= MIRROR_PATIENCE_MS => Done::Yes(format!(
                    "{database}: {mirror} is not synchronised yet; its agent goes on with it, and until then the principal runs exposed"
                )),
                _ => Done::NotYet(format!("{database}: waiting for the mirror {mirror} to catch up")),
            }
        }))
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

fn mirror_of<'a>(view: &'a View<'_>, database: &DatabaseName) -> Option<&'a HostName> {
    view.record.databases.get(database).and_then(|d| d.mirror.as_ref()).map(|m| &m.host)
}

pub(crate) const SET_ACTIVE_SERVERS: Step = Step {
    id: "set-active-servers",
    reference: "7",
    says: "Set the active servers (Set-CsPersistentChatActiveServer): those at the surviving site accept clients.",
    needs: nothing,
    does: |view| {
        let wanted = servers_at(view, &view.facts.to_site);
        if view.record.active_servers == wanted {
            return Vec::new();
        }
        vec![view.change(|record| record.active_servers = wanted)]
    },
    done: |view| {
        let wanted = servers_at(view, &view.facts.to_site);
        if view.record.active_servers != wanted {
            return Done::NotYet("the active servers are not set yet".into());
        }
        serving(view, &wanted)
    },
    looks_at: Whom::Everybody,
    undo: Undo::PointOfNoReturn,
    patience_ms: 5_000,
};

/// Done when one of the servers writes in the record's epoch, or after a while, saying which do not.
pub(crate) fn serving(view: &View<'_>, wanted: &[crate::name::ServerName]) -> Done {
    let reports = view.reports.values().flat_map(|r| &r.servers);
    let writing: Vec<&str> = reports
        .filter(|(name, server)| wanted.contains(name) && server.writes_as == Some(view.record.epoch))
        .map(|(name, _)| name.as_str())
        .collect();
    if writing.len() == wanted.len() || (!writing.is_empty() && view.step_age_ms > 1_000) {
        Done::Yes(format!("{} accept clients", writing.join(", ")))
    } else if wanted.is_empty() || view.step_age_ms > 5_000 {
        let names: Vec<&str> = wanted.iter().map(crate::name::ServerName::as_str).collect();
        Done::Yes(format!("set; no server has reported yet that it writes: look at {}", names.join(", ")))
    } else {
        Done::NotYet("waiting for a server to write in the new epoch".into())
    }
}

/// The servers of a site, as many as may be active.
pub(crate) fn servers_at(view: &View<'_>, site: &SiteName) -> Vec<crate::name::ServerName> {
    let all = view.topology.servers.iter().filter(|s| view.topology.site_of(&s.host) == Some(site));
    all.map(|s| s.name.clone()).take(ACTIVE_SERVERS_MAX).collect()
}

fn is_open(state: InstanceState) -> bool {
    matches!(state, InstanceState::Online | InstanceState::Busy | InstanceState::Standby)
}

/// Each database with the backup that it had when the run began.
fn backups(view: &View<'_>) -> Vec<(DatabaseName, HostName)> {
    let all = view.facts.before.databases.iter();
    all.filter_map(|(name, d)| d.backup.clone().map(|host| (name.clone(), host))).collect()
}

/// Each database with the warm mirror of its backup.
fn warm_mirrors(view: &View<'_>) -> Vec<(DatabaseName, HostName)> {
    let all = view.facts.before.databases.iter();
    all.filter_map(|(name, d)| d.backup_mirror.clone().map(|host| (name.clone(), host))).collect()
}

/// The hosts of a database at the site that loses the writer.
fn old_hosts(view: &View<'_>, database: &DatabaseName) -> Vec<HostName> {
    let database = view.topology.database(database);
    let all = database.into_iter().flat_map(crate::topology::Database::instances);
    all.map(|i| i.host.clone()).filter(|h| view.topology.site_of(h) == Some(&view.facts.from_site)).collect()
}

fn to_backups(view: &View<'_>, order: impl Fn(DatabaseName) -> Order) -> Vec<Deed> {
    backups(view).into_iter().map(|(database, host)| Deed::Give { host, order: order(database) }).collect()
}

/// Done when each backup's latest order is this one, and over; or when the backup is online already, which it can only
/// be after this step.
fn ordered_and_done(view: &View<'_>, order: impl Fn(DatabaseName) -> Order) -> Done {
    use crate::order::Outcome;
    all_of(backups(view).into_iter().map(|(database, host)| {
        if view.instance(&host, &database).is_some_and(|i| i.state == InstanceState::Online) {
            return Done::Yes(format!("{database} is online already"));
        }
        let taken = view.reports.get(&host).and_then(|r| r.orders.get(&database));
        match taken.filter(|t| t.order == order(database.clone()) && t.stamp.epoch == view.record.epoch.0) {
            Some(taken) => match &taken.outcome {
                Outcome::Done { detail } => Done::Yes(detail.clone()),
                Outcome::Running { doing } => Done::NotYet(format!("{host}: {doing}")),
                Outcome::Failed { message } => Done::NotYet(format!("{host}: {message}")),
                Outcome::TooOld { latest } => Done::NotYet(format!("{host} has taken a later order, {latest}")),
            },
            None => Done::NotYet(format!("{host} has not been asked yet")),
        }
    }))
}

/// Why there is nowhere to fail over to: no other site, no backup there, or nobody who answers for it.
pub(crate) fn nowhere_to_go(view: &View<'_>) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    if view.topology.sites.len() < 2 {
        unmet.push(Unmet {
            why: "this pool has one site; there is nowhere to fail over to".into(),
            hint: "add a second site with a backup to the topology and publish it".into(),
            can_be_forced: false,
        });
        return unmet;
    }
    if backups(view).is_empty() {
        unmet.push(Unmet {
            why: "no database has a backup at the other site".into(),
            hint: "set log shipping up first; standfast pool status shows what there is".into(),
            can_be_forced: false,
        });
    }
    for (database, backup) in backups(view) {
        if view.instance(&backup, &database).is_none() {
            let (why, hint) = if view.reports.contains_key(&backup) {
                ("answers, and knows nothing of it".to_owned(), "look at the log of the agent on")
            } else {
                (format!("does not answer ({})", view.silence(&backup)), "start the agent on")
            };
            unmet.push(Unmet {
                why: format!("{backup}, which holds the backup of {database}, {why}"),
                hint: format!("{hint} {backup}, then fail over again"),
                can_be_forced: false,
            });
        }
    }
    unmet
}

fn preflight(view: &View<'_>) -> Vec<Unmet> {
    let mut unmet = nowhere_to_go(view);
    for (database, _) in backups(view) {
        for host in old_hosts(view, &database) {
            if view.instance(&host, &database).is_some_and(|i| i.state == InstanceState::Online) {
                unmet.push(Unmet {
                    why: format!("{database} on {host} at {} is online and answers", view.facts.from_site),
                    hint:
                        "that site is alive: with --planned its users are moved and nothing is lost; to move them the hard way, add --force"
                            .into(),
                    can_be_forced: true,
                });
            }
        }
    }
    unmet
}

pub(crate) fn already(view: &View<'_>) -> Option<String> {
    (view.record.state == PoolState::FailedOver && view.record.run.is_none())
        .then(|| format!("the pool is FailedOver already: {} serves in epoch {}", view.record.home, view.record.epoch))
}

/// The fence in one change of the record: a new epoch, a new home, no principal, no active server.
fn claim(view: &View<'_>, run: RunRef) -> (PoolRecord, SiteName) {
    let mut record = view.record.clone();
    record.version += 1;
    record.epoch = epoch_here(view);
    record.home = view.facts.to_site.clone();
    record.active_servers = Vec::new();
    record.lost_sites.insert(view.facts.from_site.clone(), record.epoch);
    record.run = Some(run);
    for database in record.databases.values_mut().filter(|d| d.backup.is_some()) {
        database.principal = None;
        database.mirror = None;
    }
    (record, view.facts.to_site.clone())
}

fn says_at_end(view: &View<'_>) -> String {
    let mut says = format!("{} serves in epoch {}", view.facts.to_site, view.record.epoch);
    for (database, exposure) in &view.facts.exposure {
        let lost = match (exposure.entries, exposure.heard_ms_ago) {
            (Some(entries), Some(heard)) => format!(
                "{entries} posts were known to be missing at the backup when {} was last heard, {:.1} s before the \
                 failover; what it acknowledged after that is rewound too",
                view.facts.from_site,
                heard as f64 / 1000.0
            ),
            _ => format!("{} was never heard by this site: what the backup lacks is not known", view.facts.from_site),
        };
        says.push_str(&format!("; {database}: {lost}"));
    }
    says.push_str(
        "; every room notes the number after which the new epoch begins (standfast audit lists what is missing)",
    );
    says
}

#[cfg(test)]
mod tests;
