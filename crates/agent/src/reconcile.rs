//! Holding an instance to the part that the record gives it.
//!
//! The reconciler starts, configures and stops; it never makes a writer out of a standby, which only an order does. It
//! opens a writer's data only when `cluster::fence` allows it, and it stops a writer that a newer epoch has left behind.

use crate::database::{Database, Work};
use crate::error::Error;
use crate::host::Host;
use crate::postgres::conf::Conf;
use crate::postgres::rebuild;
use crate::postgres::sql::Probe;
use crate::{feed, pair, promotion, rejoin, shipper};
use cluster::fence::MayOpen;
use cluster::goal::{Goal, goal, rests};
use cluster::name::HostName;
use cluster::record::{Part, PoolRecord};
use nix::sys::signal::Signal;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks when all is well.
const CALM: Duration = Duration::from_millis(250);
/// Time between two looks when something is to be done.
const BUSY: Duration = Duration::from_millis(40);

/// Hold one database of this host to its goal, for as long as the process lives.
pub async fn run(host: Arc<Host>, database: Arc<Database>) {
    let mut record = host.store.watch_record();
    let mut last_error = String::new();
    loop {
        let calm = match round(&host, &database).await {
            Ok(calm) => {
                last_error.clear();
                calm
            }
            Err(error) => {
                let text = error.to_string();
                if text != last_error {
                    tracing::warn!(database = %database.name, error = %text, "cannot hold the instance to its part");
                    last_error.clone_from(&text);
                }
                database.waits_for(Some(text));
                false
            }
        };
        tokio::select! {
            () = tokio::time::sleep(if calm { CALM } else { BUSY }) => {}
            () = database.wake.notified() => {}
            changed = record.changed() => if changed.is_err() { return },
        }
    }
}

/// One look, and what it asks for. Tells whether all is well.
async fn round(host: &Arc<Host>, database: &Database) -> Result<bool, Error> {
    let mut work = database.work.lock().await;
    let Some(record) = host.store.record() else { return Ok(true) };
    if let Some(epoch) = database.state().fenced_by.filter(|epoch| *epoch > record.epoch) {
        shipper::stop(&mut work).await;
        database.waits_for(Some(format!("{}: fenced for epoch {epoch}; waiting to hear of it", database.name)));
        return Ok(true);
    }
    if database.running().is_some() && database.state().has_quit() && !database.instance.is_standby() {
        tracing::warn!(database = %database.name, "it was told to quit and has not; stopping");
        database.stop(Signal::SIGQUIT).await?;
    }
    promotion::settle(database).await?;
    match goal(&record, &database.name, &host.name) {
        Goal::Idle => idle(database, &record, &mut work).await,
        Goal::Standby { part, upstream, .. } => standby(host, database, &record, &mut work, part, upstream).await,
        Goal::Principal { wait_for, candidate, ships, archives } => {
            let ships = shipper::Ships { to_backup: ships, archives };
            principal(host, database, &record, &mut work, wait_for.or(candidate), ships).await
        }
    }
}

/// No part in the pool: a writer that a newer epoch has left behind stops at once, and a standby that nobody needs rests.
async fn idle(database: &Database, record: &PoolRecord, work: &mut Work) -> Result<bool, Error> {
    shipper::stop(work).await;
    database.ships_nothing();
    database.copies_nothing();
    let state = database.state();
    let of_epoch = state.history_epoch.max(state.handed_over).is_some_and(|e| e >= record.epoch);
    let left_behind = !of_epoch || state.is_overruled_by(record.epoch);
    if database.running().is_some() && left_behind {
        tracing::warn!(database = %database.name, epoch = %record.epoch, "left behind: stopping");
        database.stop(Signal::SIGQUIT).await?;
    } else if database.running().is_some() && rests(record) && database.probe().await.is_some_and(|p| p.in_recovery) {
        tracing::info!(database = %database.name, "without a part: stopping");
        database.stop(Signal::SIGINT).await?;
    }
    let waiting = (left_behind && database.instance.has_data()).then(|| {
        format!("{}: left behind by epoch {}; standfast failback makes it a standby again", database.name, record.epoch)
    });
    database.waits_for(waiting);
    Ok(true)
}

async fn standby(
    host: &Arc<Host>,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    part: Part,
    upstream: Option<HostName>,
) -> Result<bool, Error> {
    shipper::stop(work).await;
    database.ships_nothing();
    if part != Part::Backup {
        database.copies_nothing();
    }
    work.wait_for_set = None;
    let state = database.state();
    if database.running().is_none() {
        return start_standby(host, database, record, work, part, upstream.as_ref()).await;
    }
    // By its files, because one that is frozen tells nothing.
    let older = state.is_behind(record.epoch);
    if older && !database.instance.is_standby() {
        tracing::warn!(database = %database.name, epoch = %record.epoch, "a writer of an older epoch: stopping");
        database.stop(Signal::SIGQUIT).await?;
        return Ok(false);
    }
    let Some(probe) = database.probe().await else {
        if rejoin::is_mute(database, work) {
            let found = "it cannot be asked anything, because of a page that is damaged on its disk";
            rejoin::mend(host, database, work, part, upstream.as_ref(), found).await?;
        }
        return Ok(false);
    };
    rejoin::answers(work);
    if !probe.in_recovery {
        // Promoted by an order, and the record does not say so yet.
        return Ok(false);
    }
    database.waits_for(None);
    database.instance.sql.ready_to_act().await;
    rejoin::damaged(host, database, work, part, upstream.as_ref()).await?;
    if database.running().is_none() {
        return Ok(false);
    }
    if part == Part::Backup {
        return feed::round(host, database, record, work, upstream.as_ref(), &probe).await;
    }
    let conf = conf_of(host, database, record, part, upstream.as_ref());
    database.reload(&conf)?;
    settle(database, record, upstream.as_ref(), &probe).await?;
    rejoin::running(host, database, record, work, upstream.as_ref(), probe.applied).await?;
    if let Some(upstream) = upstream.as_ref().filter(|_| !probe.streaming) {
        rejoin::starved(host, database, work, upstream, &probe).await?;
    }
    database.shipping(Some(feed::plain_report(&probe)), false);
    Ok(probe.streaming || upstream.is_none())
}

/// A standby that streams, and has applied the beginning of the epoch, is on the history of the present writer. A stream
/// alone may come up for a moment and break again, or be that of an older writer.
pub async fn settle(
    database: &Database,
    record: &PoolRecord,
    upstream: Option<&HostName>,
    probe: &Probe,
) -> Result<(), Error> {
    let state = database.state();
    let settled = state.history_epoch.is_some_and(|e| e >= record.epoch) && state.handed_over.is_none();
    if settled || !probe.streaming || upstream.is_none() {
        return Ok(());
    }
    if database.chat().await.epoch.is_some_and(|e| e < record.epoch) {
        return Ok(());
    }
    database.remember(|s| {
        s.history_epoch = s.history_epoch.max(Some(record.epoch));
        (s.handed_over, s.left_to) = (None, None);
    })
}

async fn start_standby(
    host: &Arc<Host>,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    part: Part,
    upstream: Option<&HostName>,
) -> Result<bool, Error> {
    if !database.instance.has_data() {
        database.waits_for(Some(format!("{}: nothing here yet; an order has to copy it", database.name)));
        return Ok(true);
    }
    // What it wrote last is looked at below.
    database.instance.until_nobody_is_left().await?;
    if database.state().rewinding {
        rejoin::half_rewound(host, database, record, work).await?;
        return Ok(false);
    }
    if !database.instance.is_standby() {
        // A writer that was handed over holds nothing of value that its successor has not; log beyond that is seen below.
        if database.state().handed_over.is_none() || database.state().is_overruled_by(record.epoch) {
            if rejoin::stopped_writer(host, database, record, work).await? {
                return Ok(false);
            }
            let why = format!(
                "{}: this was a writer of an older epoch; standfast failback or mirror install makes it a standby",
                database.name
            );
            database.waits_for(Some(why));
            return Ok(true);
        }
        database.instance.become_standby()?;
    }
    if rejoin::starting(host, database, record, work, part, upstream).await? {
        return Ok(false);
    }
    rejoin::damaged(host, database, work, part, upstream).await?;
    rebuild::take_away_unbegun(&database.instance).await?;
    let archive = database.share(host).map(|share| share.archive()).transpose()?;
    let conf = Conf { archive, ..conf_of(host, database, record, part, upstream) };
    tracing::info!(database = %database.name, %part, "starting");
    database.start(&conf).await?;
    Ok(false)
}

/// The configuration of a standby in its part. A mirror finds in the share, after a long absence, what the principal does
/// not have any more: finished segments of the present writer. The backup's mirror does not, because it must never hold
/// more than the backup, which may be promoted.
fn conf_of(host: &Host, database: &Database, record: &PoolRecord, part: Part, upstream: Option<&HostName>) -> Conf {
    let (files_from, archive) = match part {
        Part::Backup => (Some(database.instance.copied()), None),
        Part::Mirror => (None, database.share(host).and_then(|share| share.archive_of(record.epoch))),
        Part::Principal | Part::BackupMirror => (None, None),
    };
    let held_back = part == Part::Backup && database.state().shipping_stopped_in != Some(record.epoch);
    let delay = if held_back { database.hold_back(host).delay_ms } else { 0 };
    let conf = standby_conf(host, database, upstream);
    let silence_ms = if part == Part::Mirror { database.partner_timeout(host).0.ms } else { conf.silence_ms };
    Conf { files_from, archive, apply_delay_ms: delay, silence_ms, ..conf }
}

/// The configuration of a standby that streams from a host.
pub fn standby_conf(host: &Host, database: &Database, upstream: Option<&HostName>) -> Conf {
    let mut conf = database.instance.plain_conf();
    let at = upstream.and_then(|u| host.postgres_of(&database.name, u));
    conf.stream_from = at.map(|at| database.instance.stream_from(&at));
    conf
}

async fn principal(
    host: &Arc<Host>,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    mirror: Option<HostName>,
    ships: shipper::Ships,
) -> Result<bool, Error> {
    if database.running().is_none() {
        (work.wait_for_set, work.standbys_seen) = (None, false);
        return start_principal(host, database, record, work, mirror, ships).await;
    }
    work.asking = false;
    let Some(probe) = database.probe().await else { return Ok(false) };
    if probe.in_recovery {
        database.waits_for(Some(format!("{}: a standby that is to be the writer waits for its order", database.name)));
        return Ok(false);
    }
    database.waits_for(None);
    database.damage(damage_of_a_writer(host, database, mirror.is_some()));
    database.copies_nothing();
    if !work.standbys_seen {
        match database.instance.let_chat_see_standbys().await {
            Ok(()) => work.standbys_seen = true,
            Err(error) => {
                tracing::info!(database = %database.name, %error, "receipts can't say yet where posts are durable");
            }
        }
    }
    let mut conf = database.instance.plain_conf();
    conf.wait_for = work.wait_for_set.clone().unwrap_or_else(|| probe.synchronous.first().cloned());
    let fault = shipper::round(host, database, record, work, &mut conf, ships, &probe).await;
    database.reload(&conf)?;
    database.waits_for(fault.clone());
    let settled = pair::round(host, database, record, work, &probe, conf, mirror).await?;
    Ok(settled && fault.is_none())
}

/// What is to be done about damaged pages of a writer: nobody else decides to change places.
fn damage_of_a_writer(host: &Host, database: &Database, has_mirror: bool) -> Option<String> {
    let found = database.state().scrub.filter(|s| s.damaged_pages > 0)?.words();
    let next = if has_mirror {
        "let its mirror take its place, and it is copied anew by itself: standfast database failover --new-principal mirror (or primary)"
    } else {
        "it has no mirror: standfast failover moves the pool to the other site, standfast backup restore makes it anew"
    };
    Some(format!("{} on {}, the principal: {found}; {next}", database.name, host.name))
}

async fn start_principal(
    host: &Arc<Host>,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    mirror: Option<HostName>,
    ships: shipper::Ships,
) -> Result<bool, Error> {
    if !database.instance.has_data() {
        database.waits_for(Some(format!(
            "{}: the record makes this host the principal, and there is no data",
            database.name
        )));
        return Ok(true);
    }
    if database.state().handed_over.is_some_and(|e| e > record.epoch) {
        database.waits_for(Some(format!("{}: handed over; the run goes on with the next writer", database.name)));
        return Ok(true);
    }
    let mut conf = database.instance.plain_conf();
    if !database.instance.is_standby() {
        if !std::mem::replace(&mut work.asking, true) {
            // An answer from before it stopped does not count as having asked.
            host.ask_anew();
        }
        match database.may_open(host, record) {
            MayOpen::Open => {}
            MayOpen::LeftBehind { epoch } => {
                database.waits_for(Some(format!("{}: left behind by epoch {epoch}", database.name)));
                return Ok(false);
            }
            MayOpen::NoQuorum { witness, mirror } => {
                database.waits_for(Some(format!(
                    "{}: neither the witness {witness} nor the mirror {mirror} has answered since it stopped, and the mirror \
                     may have taken over; start one of the two; if both are gone for good, start this host alone: \
                     standfast agent --without-peer",
                    database.name
                )));
                return Ok(false);
            }
            MayOpen::Ask { site } => {
                database.waits_for(Some(format!(
                    "{}: {site} has not answered yet who the writer is; if it is gone for good, start this site alone: \
                     standfast pool start-alone --site {}",
                    database.name,
                    host.store.site()
                )));
                return Ok(false);
            }
        }
        // Commits wait for the mirror from the first moment on, also where the record does not promise it: a request that
        // it be recorded may still be under way.
        conf.wait_for = mirror;
    }
    if ships.archives
        && let Some(Ok(places)) = database.writer_places(host, record)
    {
        conf.archive_to = Some(places.archive_to);
    }
    tracing::info!(database = %database.name, "starting as principal");
    database.start(&conf).await?;
    Ok(false)
}
