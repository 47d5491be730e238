//! How the returning hosts and the old writer stand, as the steps of a failback judge it.

use crate::failover::began;
use crate::name::{DatabaseName, HostName};
use crate::order::Order;
use crate::report::{InstanceReport, InstanceState};
use crate::runbook::{Done, View, all_of};

pub(super) fn databases<'a>(view: &View<'a>) -> Vec<(DatabaseName, &'a crate::topology::Database)> {
    view.topology.databases.iter().map(|d| (d.name.clone(), d)).collect()
}

/// Each database with the writer that it had when the run began.
pub(super) fn principals(view: &View<'_>) -> Vec<(DatabaseName, HostName)> {
    let all = view.facts.before.databases.iter();
    all.filter_map(|(name, d)| d.principal.clone().map(|host| (name.clone(), host))).collect()
}

pub(super) fn is_principal(view: &View<'_>, database: &DatabaseName, host: &HostName) -> bool {
    view.record.databases.get(database).and_then(|d| d.principal.as_ref()) == Some(host)
}

/// Whether the record has left the epoch in which the run began.
pub(super) fn handed_over(view: &View<'_>) -> bool {
    view.record.epoch > view.facts.before.epoch
}

/// The hosts of a database at the site that gets the writer back, primary first.
pub(super) fn returning(view: &View<'_>, database: &DatabaseName) -> Vec<HostName> {
    let topology = view.topology.database(database);
    let all = topology.into_iter().flat_map(crate::topology::Database::instances);
    all.map(|i| i.host.clone()).filter(|h| view.topology.site_of(h) == Some(&view.facts.to_site)).collect()
}

pub(super) fn answering(view: &View<'_>, hosts: Vec<HostName>) -> Vec<HostName> {
    hosts.into_iter().filter(|h| view.reports.contains_key(h)).collect()
}

/// Whether a host works from a record of the present epoch. One that was cut off until a moment ago does not yet, and what
/// it reports is how it stood in the old epoch: online, or following somebody who was.
pub(super) fn knows(view: &View<'_>, host: &HostName) -> bool {
    let record = view.reports.get(host).and_then(|r| r.record.as_ref());
    record.is_some_and(|r| r.epoch >= view.record.epoch)
}

pub(super) fn has_part(view: &View<'_>, database: &DatabaseName, host: &HostName) -> bool {
    view.record.databases.get(database).is_some_and(|d| d.part_of(host).is_some())
}

pub(super) fn needs_rewind(state: InstanceState) -> bool {
    matches!(state, InstanceState::LeftBehind | InstanceState::Absent | InstanceState::AskingPeer)
}

/// Done with this evidence when the instance stands as the present epoch wants it, and is not on its way there.
pub(super) fn settled(
    view: &View<'_>,
    host: &HostName,
    database: &DatabaseName,
    instance: &InstanceReport,
    evidence: &str,
) -> Done {
    if !knows(view, host) {
        return Done::NotYet(format!("{host} has not heard of epoch {} yet", view.record.epoch));
    }
    match instance.state {
        InstanceState::Absent | InstanceState::Stopped => Done::Yes(format!("{host}: {evidence}")),
        InstanceState::Standby if has_part(view, database, host) => Done::Yes(format!("{host}: {evidence}")),
        InstanceState::Busy => Done::NotYet(format!("{host}: {}", instance.doing.as_deref().unwrap_or("starting"))),
        InstanceState::AskingPeer => Done::NotYet(format!("{database} on {host} is still asking who the writer is")),
        InstanceState::Standby | InstanceState::Online | InstanceState::LeftBehind => {
            Done::NotYet(format!("{database} on {host} is being stopped: it belongs to an older epoch"))
        }
    }
}

/// The primary's mirror, if it is part of the pool already, or has been rewound to be. One that returns only now waits for
/// `standfast mirror install`.
pub(super) fn present_mirror(view: &View<'_>, database: &DatabaseName) -> Option<HostName> {
    let host = &view.topology.database(database)?.mirror.as_ref()?.host;
    let rewound = view.instance(host, database).is_some_and(|i| i.state == InstanceState::Stopped) && knows(view, host);
    (has_part(view, database, host) || rewound).then(|| host.clone())
}

pub(super) fn stopped_at(view: &View<'_>, database: &DatabaseName, host: &HostName) -> Option<crate::wal::Lsn> {
    let instance = view.instance(host, database)?;
    let stopped = !matches!(instance.state, InstanceState::Online | InstanceState::Busy);
    instance.shut_down_at.filter(|_| stopped).map(|s| s.end)
}

/// Where the old writer's log ends: it is stopped, or runs again as a standby that feeds the primary its last bytes.
pub(super) fn end_of(view: &View<'_>, database: &DatabaseName, host: &HostName) -> Option<crate::wal::Lsn> {
    let instance = view.instance(host, database)?;
    let feeds = handed_over(view) && instance.state == InstanceState::Standby;
    if feeds { instance.written } else { stopped_at(view, database, host) }
}

pub(super) fn restored(view: &View<'_>, database: &DatabaseName) -> bool {
    let Some(topology) = view.topology.database(database) else { return false };
    view.instance(&topology.primary.host, database)
        .is_some_and(|i| i.state == InstanceState::Online && began(i.database_epoch, view))
}

/// Ask something of every returning host that answers; the primary must answer, its mirror may come later.
pub(super) fn each_returning(
    view: &View<'_>,
    ask: impl Fn(&View<'_>, &HostName, &DatabaseName, &InstanceReport) -> Done,
) -> Done {
    let mut conditions = Vec::new();
    for (database, topology) in databases(view) {
        if handed_over(view) {
            continue;
        }
        for host in returning(view, &database) {
            conditions.push(match view.instance(&host, &database) {
                Some(instance) => ask(view, &host, &database, instance),
                None if host == topology.primary.host => {
                    Done::NotYet(format!("{host} does not answer ({}): start its agent", view.silence(&host)))
                }
                None => Done::Yes(format!("{host} does not answer; going on without it")),
            });
        }
    }
    all_of(conditions)
}

/// Done when the host's latest order is of this kind and over.
pub(crate) fn order_over(
    view: &View<'_>,
    host: &HostName,
    database: &DatabaseName,
    kind: impl Fn(&Order) -> bool,
) -> Done {
    use crate::order::Outcome;
    let taken = view.reports.get(host).and_then(|r| r.orders.get(database)).filter(|t| kind(&t.order));
    let this_run = view.record.run.as_ref().map(|r| r.id.as_str());
    match taken.filter(|t| Some(t.run.as_str()) == this_run).map(|t| &t.outcome) {
        Some(Outcome::Done { detail }) => Done::Yes(format!("{host}: {detail}")),
        Some(Outcome::Running { doing }) => Done::NotYet(format!("{host}: {doing}")),
        Some(Outcome::Failed { message }) => Done::NotYet(format!("{host}: {message}")),
        Some(Outcome::TooOld { latest }) => Done::NotYet(format!("{host} has taken a later order, {latest}")),
        None => Done::NotYet(format!("{host} has not been asked yet")),
    }
}

/// The same for an order whose success shows in the state, so that only what hinders it is told.
pub(super) fn order_over_failing(view: &View<'_>, host: &HostName, database: &DatabaseName) -> Done {
    match order_over(view, host, database, |o| matches!(o, Order::Rewind { .. })) {
        Done::Yes(_) => Done::NotYet(format!("{host} is not on the present history yet")),
        missing => missing,
    }
}
