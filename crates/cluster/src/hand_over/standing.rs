//! How the site that receives the writer and the old writer stand, as the steps judge it.

use crate::failover::began;
use crate::name::SiteName;
use crate::name::{DatabaseName, HostName};
use crate::order::Order;
use crate::record::PoolState;
use crate::report::{InstanceReport, InstanceState};
use crate::runbook::{Done, View, all_of};
use crate::topology::Database;

/// The databases whose writer moves.
pub(crate) fn databases<'a>(view: &View<'a>) -> Vec<(DatabaseName, &'a Database)> {
    view.topology.databases.iter().filter(|d| moves(view, &d.name)).map(|d| (d.name.clone(), d)).collect()
}

/// A failback brings every database home. A failover leaves those where they are that have no backup: the compliance database
/// (rule R1).
fn moves(view: &View<'_>, database: &DatabaseName) -> bool {
    let before = &view.facts.before;
    before.state == PoolState::FailedOver || before.databases.get(database).is_some_and(|d| d.backup.is_some())
}

/// The hosts of a database at a site, the one that is to write there first.
pub(crate) fn at_site(view: &View<'_>, database: &Database, site: &SiteName) -> Vec<HostName> {
    let all = database.instances().map(|i| i.host.clone());
    all.filter(|host| view.topology.site_of(host) == Some(site)).collect()
}

/// The hosts of a database at the site that gets the writer, the writer to be first.
pub(crate) fn receiving(view: &View<'_>, database: &DatabaseName) -> Vec<HostName> {
    let topology = view.topology.database(database);
    topology.map_or_else(Vec::new, |topology| at_site(view, topology, &view.facts.to_site))
}

/// Who is to be the writer.
pub(crate) fn receiver(view: &View<'_>, database: &DatabaseName) -> Option<HostName> {
    receiving(view, database).into_iter().next()
}

/// Each database with the writer that it had when the run began.
pub(crate) fn principals(view: &View<'_>) -> Vec<(DatabaseName, HostName)> {
    let all = view.facts.before.databases.iter().filter(|(name, _)| moves(view, name));
    all.filter_map(|(name, d)| d.principal.clone().map(|host| (name.clone(), host))).collect()
}

pub(crate) fn is_principal(view: &View<'_>, database: &DatabaseName, host: &HostName) -> bool {
    view.record.databases.get(database).and_then(|d| d.principal.as_ref()) == Some(host)
}

/// Whether the record has left the epoch in which the run began.
pub(crate) fn handed_over(view: &View<'_>) -> bool {
    view.record.epoch > view.facts.before.epoch
}

pub(crate) fn answering(view: &View<'_>, hosts: Vec<HostName>) -> Vec<HostName> {
    hosts.into_iter().filter(|h| view.reports.contains_key(h)).collect()
}

/// Whether a host works from a record of the present epoch. One that was cut off until a moment ago does not yet, and what
/// it reports is how it stood in the old epoch: online, or following somebody who was.
pub(crate) fn knows(view: &View<'_>, host: &HostName) -> bool {
    let record = view.reports.get(host).and_then(|r| r.record.as_ref());
    record.is_some_and(|r| r.epoch >= view.record.epoch)
}

pub(crate) fn has_part(view: &View<'_>, database: &DatabaseName, host: &HostName) -> bool {
    view.record.databases.get(database).is_some_and(|d| d.part_of(host).is_some())
}

pub(crate) fn needs_rewind(state: InstanceState) -> bool {
    matches!(state, InstanceState::LeftBehind | InstanceState::Absent | InstanceState::AskingPeer)
}

/// Done with this evidence when the instance stands as the present epoch wants it, and is not on its way there.
pub(crate) fn settled(
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

/// The mirror of who receives, if it is part of the pool already, or has been rewound to be. One that returns only now waits
/// for `standfast mirror install`.
pub(crate) fn present_mirror(view: &View<'_>, database: &DatabaseName) -> Option<HostName> {
    let host = receiving(view, database).into_iter().nth(1)?;
    let rewound =
        view.instance(&host, database).is_some_and(|i| i.state == InstanceState::Stopped) && knows(view, &host);
    (has_part(view, database, &host) || rewound).then_some(host)
}

pub(crate) fn stopped_at(view: &View<'_>, database: &DatabaseName, host: &HostName) -> Option<crate::wal::Lsn> {
    let instance = view.instance(host, database)?;
    let stopped = !matches!(instance.state, InstanceState::Online | InstanceState::Busy);
    instance.shut_down_at.filter(|_| stopped).map(|s| s.end)
}

/// Where the old writer's log ends: it is stopped, or runs again as a standby that feeds the primary its last bytes.
pub(crate) fn end_of(view: &View<'_>, database: &DatabaseName, host: &HostName) -> Option<crate::wal::Lsn> {
    let instance = view.instance(host, database)?;
    let feeds = handed_over(view) && instance.state == InstanceState::Standby;
    if feeds { instance.written } else { stopped_at(view, database, host) }
}

pub(crate) fn restored(view: &View<'_>, database: &DatabaseName) -> bool {
    let instance = receiver(view, database).and_then(|host| view.instance(&host, database));
    instance.is_some_and(|i| i.state == InstanceState::Online && began(i.database_epoch, view))
}

/// Ask something of every host that receives and answers; the writer to be must answer, its mirror may come later.
pub(crate) fn each_receiving(
    view: &View<'_>,
    ask: impl Fn(&View<'_>, &HostName, &DatabaseName, &InstanceReport) -> Done,
) -> Done {
    let mut conditions = Vec::new();
    for (database, _) in databases(view) {
        if handed_over(view) {
            continue;
        }
        for (at, host) in receiving(view, &database).into_iter().enumerate() {
            conditions.push(match view.instance(&host, &database) {
                Some(instance) => ask(view, &host, &database, instance),
                None if at == 0 => {
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
pub(crate) fn order_over_failing(view: &View<'_>, host: &HostName, database: &DatabaseName) -> Done {
    match order_over(view, host, database, |o| matches!(o, Order::Rewind { .. })) {
        Done::Yes(_) => Done::NotYet(format!("{host} is not on the present history yet")),
        missing => missing,
    }
}
