//! The mirror pair, as the principal's agent looks after it. The decisions are `cluster::mirror`.

use crate::database::{Database, Work};
use crate::error::Error;
use crate::host::Host;
use crate::postgres::conf::Conf;
use crate::postgres::sql::Probe;
use cluster::mirror::{PairAction, PairView, advance, advance_unanswered};
use cluster::name::HostName;
use cluster::record::PoolRecord;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Longest wait for the mirror to confirm what was there when commits began to wait for it.
const CONFIRM: Duration = Duration::from_secs(2);
/// Longest wait for the mirror's port.
const REACH: Duration = Duration::from_millis(200);

/// One look at the pair, and what it asks for. Tells whether it is as it should be.
pub async fn round(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    probe: &Probe,
    conf: Conf,
    mirror: Option<HostName>,
) -> Result<bool, Error> {
    let view = look(host, database, record, work, probe, mirror).await;
    let action = if work.unanswered { advance_unanswered(&view) } else { advance(&view) };
    if action != PairAction::Nothing {
        tracing::info!(database = %database.name, ?action, "mirror pair");
    }
    match action {
        PairAction::Nothing => {
            return Ok(view.mirror.is_none() || (view.recorded_synchronised && view.connection.is_some()));
        }
        PairAction::WaitFor(mirror) => {
            work.wait_for_set = Some(Some(mirror.clone()));
            database.reload(&Conf { wait_for: Some(mirror), ..conf })?;
        }
        PairAction::WaitForNobody => {
            work.wait_for_set = Some(None);
            database.reload(&Conf { wait_for: None, ..conf })?;
        }
        PairAction::StopServing => {
            tracing::error!(database = %database.name, "neither mirror nor witness is seen: stopping until one of them is");
            work.wait_for_set = None;
            database.stop(Signal::SIGINT).await?;
        }
        PairAction::RecordNotSynchronised => {
            set_synchronised(host, database, record, false).await?;
            work.unanswered = false;
            host.changed();
        }
        PairAction::RecordSynchronised => {
            if confirmed(database, &view).await? {
                work.unanswered = true;
                set_synchronised(host, database, record, true).await?;
                work.unanswered = false;
                host.changed();
            }
        }
    }
    Ok(false)
}

async fn look(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    probe: &Probe,
    mirror: Option<HostName>,
) -> PairView {
    match (&mirror, &work.watching) {
        (Some(mirror), Some((watched, _))) if mirror == watched => {}
        (Some(mirror), _) => {
            work.watching = Some((mirror.clone(), Instant::now()));
            (work.mirror_seen, work.mirror_reply) = (None, None);
        }
        (None, _) => work.watching = None,
    }
    let receiver = mirror.as_ref().and_then(|m| probe.receivers.iter().find(|r| r.host == *m));
    let reply = mirror.as_ref().and_then(|m| probe.replies.iter().find(|(h, _)| h == m)).map(|(_, at)| at.clone());
    // A connection alone shows nothing: that of a frozen mirror stands open for a while. It replies once a second.
    if let Some(reply) = reply
        && (work.mirror_seen.is_none() || work.mirror_reply != reply)
    {
        work.mirror_seen = Some(Instant::now());
        work.mirror_reply = reply;
    }
    let recorded = record.databases.get(&database.name).and_then(|d| d.mirror.as_ref());
    let evidently_dead = match &mirror {
        Some(mirror) if receiver.is_none() => refuses(host, database, mirror).await,
        _ => false,
    };
    PairView {
        recorded_synchronised: recorded.is_some_and(|m| m.synchronised),
        waits_for: probe.synchronous.first().cloned(),
        written: probe.written,
        connection: receiver.map(|r| (r.state == "streaming", r.flushed.unwrap_or_default())),
        silent_ms: work.mirror_seen.map(|at| at.elapsed().as_millis() as u64),
        watched_ms: work.watching.as_ref().map_or(0, |(_, at)| at.elapsed().as_millis() as u64),
        evidently_dead,
        timeout_ms: database.partner_timeout(host).0.ms,
        witness_silent_ms: host.witness().map(|witness| host.silent_ms(&witness)),
        mirror,
    }
}

/// A refused connection is evidence of death; silence is not.
async fn refuses(host: &Host, database: &Database, mirror: &HostName) -> bool {
    let Some(at) = host.postgres_of(&database.name, mirror) else { return false };
    let tried = tokio::time::timeout(REACH, tokio::net::TcpStream::connect(&at)).await;
    matches!(tried, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Whether commits really wait for the mirror by now, and it holds everything that was committed before they did.
///
/// A checkpoint is the proof that the setting has arrived: the checkpointer is the process that switches waiting on for
/// all others, and it takes a changed configuration before it does anything else.
async fn confirmed(database: &Database, view: &PairView) -> Result<bool, Error> {
    let Some(mirror) = &view.mirror else { return Ok(false) };
    database.instance.sql.checkpoint().await?;
    let Some(after) = database.probe().await else { return Ok(false) };
    let began = Instant::now();
    while began.elapsed() < CONFIRM {
        let Some(now) = database.probe().await else { return Ok(false) };
        if now.synchronous.first() != Some(mirror) {
            return Ok(false);
        }
        let receiver = now.receivers.iter().find(|r| r.host == *mirror);
        if receiver.is_some_and(|r| r.synchronous && r.flushed.is_some_and(|flushed| flushed >= after.written)) {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(false)
}

async fn set_synchronised(host: &Host, database: &Database, record: &PoolRecord, to: bool) -> Result<(), Error> {
    let changed = host
        .change_record(record, |next| {
            if let Some(mirror) = next.databases.get_mut(&database.name).and_then(|d| d.mirror.as_mut()) {
                mirror.synchronised = to;
            }
        })
        .await?;
    if changed {
        tracing::warn!(database = %database.name, synchronised = to, "recorded the state of the mirror pair");
    }
    Ok(())
}
