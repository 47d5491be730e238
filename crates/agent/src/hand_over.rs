//! Orders that take a writer down for the next one, and that open it again where there is no next one.

use crate::asking::leave_to_open;
use crate::database::{Database, Work};
use crate::error::Error;
use crate::host::Host;
use crate::order::{Carried, archive_of};
use crate::postgres::conf::{ArchiveTo, Conf};
use crate::postgres::sql::Probe;
use crate::postgres::sql::hand_over::Refused;
use crate::state_file::State;
use cluster::name::HostName;
use cluster::report::{CleanStop, LeftTo};
use cluster::wal::Lsn;
use nix::sys::signal::Signal;
use rules::id::Epoch;
use std::time::{Duration, Instant};

/// Longest wait for a writer that has just been started, to stop it as one that is open: it says there what its log holds, and who is
/// waited for. One that does not answer for longer is stopped as it is.
const ANSWERS: Duration = Duration::from_secs(10);
/// Longest wait for the mirror to flush what was written last: it does so all the time, and each commit has waited for it.
const MIRROR_FLUSHES: Duration = Duration::from_millis(250);
/// Between two questions whether it answers.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Look at a writer, one that is starting as soon as it answers. `None` when it does not run, or does not answer in time.
async fn until_it_answers(database: &Database) -> Option<Probe> {
    let began = Instant::now();
    loop {
        let probe = database.probe().await;
        if probe.is_some() || database.running().is_none() || began.elapsed() > ANSWERS {
            return probe;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

pub(crate) async fn hand_over(
    host: &Host,
    database: &Database,
    work: &mut Work,
    epoch: Epoch,
) -> Result<Carried, Error> {
    if database.state().handed_over == Some(epoch) && database.running().is_none() {
        database.note_clean_stop().await?;
        return Ok(Carried { detail: "handed over already".into(), remember: None });
    }
    database.doing(Some("waiting until it answers, to hand it over"));
    let probe = until_it_answers(database).await;
    if probe.as_ref().is_some_and(|p| p.in_recovery) {
        return Err(Error::Unfit(format!("{} is no writer here; there is nothing to hand over", database.name)));
    }
    let record = host.store.record();
    let pair = record.as_ref().and_then(|r| r.databases.get(&database.name));
    let mirror = pair.and_then(|d| d.mirror.as_ref()).filter(|m| m.synchronised).map(|m| m.host.clone());
    if let (Some(_), Some(mirror)) = (&probe, &mirror)
        && let Some(at) = refused_at(database, mirror, epoch).await?
    {
        database.quit().await;
        let detail = format!("writers are refused, and {mirror} has the log up to {at}; stopped at once");
        let left_to = LeftTo { host: mirror.clone(), at };
        let remember = move |s: &mut State| {
            s.postmaster = None;
            (s.handed_over, s.left_to) = (Some(epoch), Some(left_to.clone()));
        };
        return Ok(Carried { detail, remember: Some(Box::new(remember)) });
    }
    let end = stop_cleanly(database, work, probe.is_some(), mirror, epoch).await?;
    let remember = move |s: &mut State| {
        s.postmaster = None;
        (s.handed_over, s.left_to) = (Some(epoch), None);
        s.history_epoch = Some(epoch);
    };
    let detail = format!("stopped cleanly at {}", end.checkpoint);
    Ok(Carried { detail, remember: Some(Box::new(remember)) })
}

/// Refuse writers of epochs before this one. Where the log stood then, if the mirror has flushed all of it: nothing of this writer is needed
/// any more, and nobody waits for its stop. What PostgreSQL writes by itself between here and its end the mirror may lack, and
/// a standby that holds it is rewound, as after a crash (`crate::rejoin`).
async fn refused_at(database: &Database, mirror: &HostName, epoch: Epoch) -> Result<Option<Lsn>, Error> {
    database.doing(Some("refusing writers"));
    let sql = &database.instance.sql;
    let Some(Refused { at, flushed }) = sql.refuse_writers_before(epoch).await? else { return Ok(None) };
    // Refused by an order before this one, perhaps, and what was written since lies beyond the last flush.
    if at > flushed {
        return Ok(None);
    }
    match sql.is_ready(mirror, flushed, MIRROR_FLUSHES).await {
        Ok(is_safe) => Ok(is_safe.then_some(at)),
        Err(error) => {
            tracing::warn!(database = %database.name, %error, "whether the mirror has everything is not known; stopping cleanly");
            Ok(None)
        }
    }
}

async fn stop_cleanly(
    database: &Database,
    work: &mut Work,
    answers: bool,
    mirror: Option<HostName>,
    epoch: Epoch,
) -> Result<CleanStop, Error> {
    database.doing(Some("stopping cleanly"));
    if answers {
        // A stop hangs neither on a mirror that nothing is promised of nor on the share: the next writer puts into the share what it lacks
        // of this timeline (`Share::begin_chain`).
        let mut conf = database.instance.plain_conf();
        conf.wait_for.clone_from(&mirror);
        conf.archive_to = Some(ArchiveTo::Later);
        database.reload(&conf)?;
        // Nobody waits for pg_receivewal at a clean stop, nor for standbys that the mirror can feed. It ends while people write.
        crate::shipper::stop(work).await;
        database.instance.sql.refuse_writers_before(epoch).await?;
        if let Some(mirror) = mirror {
            database.instance.sql.end_streams_except(&mirror).await?;
        }
        database.shut_down().await?;
    } else {
        database.stop(Signal::SIGINT).await?;
    }
    database.clean_stop().ok_or_else(|| {
        Error::Unfit(format!(
            "{} was not stopped cleanly; its agent opens it again, and it is handed over anew",
            database.name
        ))
    })
}

pub(crate) async fn reopen(
    host: &Host,
    database: &Database,
    work: &mut Work,
    epoch: Epoch,
    after: Epoch,
) -> Result<String, Error> {
    let instance = &database.instance;
    let state = database.state();
    let probe = database.probe().await;
    if !instance.has_data() || instance.is_standby() || probe.as_ref().is_some_and(|p| p.in_recovery) {
        return Err(Error::Unfit(format!(
            "{} is no writer's data here; there is nothing to open again",
            database.name
        )));
    }
    if state.history_epoch.is_none_or(|e| e < after) {
        return Err(Error::Unfit(format!(
            "{} was left behind before epoch {after}; it cannot be the writer of epoch {epoch}",
            database.name
        )));
    }
    if database.running().is_none() {
        leave_to_open(host, database, epoch).await?;
    }
    if state.has_quit() {
        database.stop(Signal::SIGQUIT).await?;
    }
    // Remembered first: whoever is killed in between leaves a writer of this epoch, which a late fence does not stop.
    database.remember(|s| {
        s.history_epoch = s.history_epoch.max(Some(epoch));
        (s.handed_over, s.left_to) = (None, None);
        s.fenced_by = None;
    })?;
    // The record has no mirror now, or one that is not synchronised: nobody is waited for.
    work.wait_for_set = None;
    // Finished segments that waited when it was handed over are on its own timeline, which no other writer ships.
    let conf = Conf { archive_to: archive_of(host, database, epoch), ..instance.plain_conf() };
    let process = if let Some(process) = database.running() {
        database.reload(&conf)?;
        process
    } else {
        database.doing(Some("opening again"));
        database.start(&conf).await?
    };
    instance.until_postgres_answers(process).await?;
    instance.sql.call_chat("begin_epoch", epoch).await?;
    Ok(format!("online again, in epoch {epoch}"))
}
