//! The copy and restore jobs of a backup: stream when it can, files when it must.

use crate::bucket::Copying;
use crate::database::{Database, Work};
use crate::error::Error;
use crate::host::Host;
use crate::jobs::{steady_ms, wall_ms};
use crate::postgres::copy::Offer;
use crate::postgres::share::{SEGMENT_BYTES, Share, place};
use crate::postgres::sql::Probe;
use crate::reconcile::{settle, standby_conf};
use crate::rejoin;
use cluster::alert::{self, Currency};
use cluster::job_history::{AgentType, Noted, SessionStatus};
use cluster::log_shipping::{FeedView, feed};
use cluster::name::HostName;
use cluster::record::PoolRecord;
use cluster::report::ShippingReport;
use cluster::restore_job::{self, Act};
use cluster::share_fault::{self, ShareFault};
use cluster::shipping_settings::{BUCKET as BUCKET_URL, LogShipping};
use cluster::wal::Lsn;
use cluster::witness::Reach;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time between two notes of what the backup still needs.
const SAY_NEEDS: Duration = Duration::from_secs(10);
/// Time between two tries to reach the source while the stream is down.
const REACH: Duration = Duration::from_millis(500);
/// How long PostgreSQL may take to let go of a stream after it was taken out of the configuration.
const STREAM_IS_OFF: Duration = Duration::from_millis(100);
/// Longest note of requests for files, in bytes.
const REQUESTS_BYTES_MAX: u64 = 1024 * 1024;
/// Time between two looks at a bucket while nothing else brings the log.
const BUCKET: Duration = Duration::from_millis(200);
/// Longest wait for the source to answer.
const REACH_LIMIT: Duration = Duration::from_millis(300);

/// One look at how the backup is fed, and what it asks for.
pub async fn round(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    upstream: Option<&HostName>,
    probe: &Probe,
) -> Result<bool, Error> {
    let enabled = database.state().shipping_stopped_in != Some(record.epoch);
    if probe.streaming {
        work.stream_down_since = None;
        work.reached = None;
    } else if work.stream_down_since.is_none() {
        work.stream_down_since = Some(Instant::now());
    }
    let at = upstream.and_then(|u| host.postgres_of(&database.name, u));
    if !probe.streaming && work.reached.is_none_or(|(_, when)| when.elapsed() > REACH) {
        let reached = match &at {
            Some(at) => reaches(at).await,
            None => false,
        };
        work.reached = Some((reached, Instant::now()));
    }
    let view = FeedView {
        enabled,
        has_upstream: at.is_some(),
        streaming: probe.streaming,
        stream_down_ms: work.stream_down_since.map_or(0, |at| at.elapsed().as_millis() as u64),
        upstream_reachable: work.reached.map(|(reached, _)| reached),
        stream_configured: true,
        files_configured: true,
    };
    let wanted = feed(&view);
    let settings = database.settings(host).unwrap_or_else(|| LogShipping::into_share("/"));
    if enabled {
        configure(host, database, work, upstream.filter(|_| wanted.stream), wanted.files, probe)?;
        settle(database, record, upstream, probe).await?;
        rejoin::running(host, database, record, work, upstream, probe.applied).await?;
        trim_requests(database)?;
        restore(database, record, work, probe, database.hold_back(host).every_ms).await?;
    }
    copy(host, database, work, probe, &settings, enabled);
    Ok(probe.streaming || !enabled)
}

/// Let PostgreSQL stream, or not; and offer partial segments only while no stream can write into them.
fn configure(
    host: &Host,
    database: &Database,
    work: &mut Work,
    stream_from: Option<&HostName>,
    files: bool,
    probe: &Probe,
) -> Result<(), Error> {
    if stream_from.is_some() {
        // A stream that comes up must not find a partial segment on offer.
        work.destination.set_offer(if files { Offer::Finished } else { Offer::Nothing })?;
        work.stream_off_since = None;
    }
    let mut conf = standby_conf(host, database, stream_from);
    conf.files_from = files.then(|| database.instance.copied());
    conf.apply_delay_ms = database.hold_back(host).delay_ms;
    let changed = database.reload(&conf)?;
    if stream_from.is_none() {
        let off_since = *work.stream_off_since.get_or_insert_with(Instant::now);
        if files && !changed && !probe.receiving && off_since.elapsed() >= STREAM_IS_OFF {
            work.destination.set_offer(Offer::Partial)?;
        }
    }
    Ok(())
}

/// The schedule of the restore job.
async fn restore(
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    probe: &Probe,
    every_ms: u64,
) -> Result<(), Error> {
    let has = probe.written.max(probe.applied);
    let seen = restore_job::Seen {
        paused: probe.paused,
        by_schedule: database.state().paused_by_schedule,
        has,
        applied: probe.applied,
        streaming: probe.streaming,
        settled: database.state().history_epoch.is_some_and(|e| e >= record.epoch),
        run: work.restores.run.map(|(began, up_to)| (began.elapsed().as_millis() as u64, up_to)),
    };
    match restore_job::act(every_ms, &seen) {
        Act::Rest => Ok(()),
        Act::Begin => {
            work.restores.run = Some((Instant::now(), has));
            apply(database).await
        }
        Act::End => {
            database.remember(|s| s.paused_by_schedule = true)?;
            database.instance.sql.pause_applying(true).await
        }
        Act::GoOn => {
            work.restores.run = None;
            apply(database).await
        }
    }
}

/// Let applying go on.
pub async fn apply(database: &Database) -> Result<(), Error> {
    database.instance.sql.pause_applying(false).await?;
    database.remember(|s| s.paused_by_schedule = false)
}

/// Requests are only counted while the last log is applied; what was noted before is of no use.
fn trim_requests(database: &Database) -> Result<(), Error> {
    let asked = database.instance.asked();
    if std::fs::metadata(&asked).is_ok_and(|m| m.len() > REQUESTS_BYTES_MAX) {
        let file = std::fs::OpenOptions::new().write(true).open(&asked);
        file.and_then(|f| f.set_len(0)).map_err(Error::file(format!("trim {}", asked.display())))?;
    }
    Ok(())
}

/// PostgreSQL's request for an encrypted connection, which it answers with one byte: a line that takes connections and lets
/// nothing through does not pass for one that works.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Whether PostgreSQL answers at `address:port`.
pub async fn reaches(at: &str) -> bool {
    reach(at, REACH_LIMIT).await == Reach::Answers
}

/// How PostgreSQL at `address:port` looks from here.
pub async fn reach(at: &str, limit: Duration) -> Reach {
    let ask = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_u8().await
    };
    match tokio::time::timeout(limit, ask).await {
        Ok(Ok(_)) => Reach::Answers,
        Ok(Err(_)) => Reach::Refused,
        Err(_) => Reach::Silent,
    }
}

/// How the restore job stands, between two rounds.
#[derive(Default)]
pub struct Standing {
    applied: Option<Lsn>,
    currency: Option<Currency>,
    /// When the latest run of its schedule began, and how far it goes.
    run: Option<(Instant, Lsn)>,
    needs_said_at: Option<Instant>,
    in_order: bool,
}

/// A round of the copy job, when it is due, and what it found.
fn copy(host: &Host, database: &Database, work: &mut Work, probe: &Probe, settings: &LogShipping, enabled: bool) {
    let before = database.last_shipping().unwrap_or_else(stopped_report);
    let mut report = ShippingReport { enabled, streaming: probe.streaming, ..before };
    let due = work.copied_at.is_none_or(|at| !probe.streaming || at.elapsed() >= settings.copy_every.duration());
    let mut in_order = false;
    if !enabled {
        database.copies_nothing();
    }
    let share = database.usable_share(host).filter(|_| enabled && due);
    if let Some(Err(error)) = &share {
        report.fault = Some(error.to_string());
    }
    if let Some(Ok(share)) = share {
        work.copied_at = Some(Instant::now());
        let has = database.has(probe);
        let every = if probe.streaming { settings.copy_every.duration() } else { BUCKET };
        share.copy(Some(Copying { from: place(has.applied), partial: !probe.streaming, every }));
        let mut noted = Noted::default();
        match work.copy.round(&share, false, &work.destination, &has, &host.programs) {
            Ok(copied) => {
                report.shipped_file = copied.newest;
                report.shipped = copied.shipped;
                report.copied = copied.copied.or(report.copied);
                // What a stream brings lacks nothing; one that finds that its source has not kept the missing file comes up
                // for moments only, and brings nothing.
                let stood = report.hole.take();
                report.hole = copied.hole.filter(|h| !probe.streaming || stood.is_some_and(|s| s.from == h.from));
                report.fault = report.hole.as_ref().map(|hole| share_fault::hole(hole, None));
                if copied.files > 0 {
                    report.last_copied_file = copied.newest_copied;
                    report.last_copied_at_ms = Some(wall_ms());
                }
                (noted.files, noted.bytes) = (copied.files as u64, copied.bytes);
                noted.file.clone_from(&report.last_copied_file);
                noted.lsn = report.copied;
                in_order = true;
                say_needs(host, work, &share, probe);
            }
            Err(error) => report.fault = Some(unreadable(&settings.share, &error, probe.streaming)),
        }
        work.restores.in_order = in_order;
        let status = if probe.streaming { SessionStatus::Warning } else { SessionStatus::Error };
        noted.problem = report.fault.clone().map(|says| (status, says));
        database.jobs.note(AgentType::Copy, noted, settings.history_retention);
    }
    if enabled {
        restored(database, work, probe, settings, &mut report);
    } else {
        [AgentType::Copy, AgentType::Restore].into_iter().for_each(|job| database.jobs.end(job));
    }
    let late = alert::restore(settings, &host.name, &database.name, &report);
    database.alert(alert::RESTORE_LATE, late.as_ref());
    database.shipping(Some(report), in_order);
}

/// The backup tells whoever trims the share what it still needs. A share that it may only read does not hear it.
fn say_needs(host: &Host, work: &mut Work, share: &Share, probe: &Probe) {
    if work.restores.needs_said_at.is_none_or(|at| at.elapsed() > SAY_NEEDS) {
        work.restores.needs_said_at = Some(Instant::now());
        let _ = share.say_needs(host.name.as_str(), probe.redo);
    }
}

fn unreadable(share: &str, error: &std::io::Error, streaming: bool) -> String {
    let what = match share_fault::named(&error.to_string()) {
        ShareFault::Missing if share.starts_with(BUCKET_URL) => {
            format!("the bucket of the share {share} is missing: create it, or correct its name")
        }
        ShareFault::Unreachable => format!("the store of the share {share} cannot be reached from here"),
        ShareFault::Slow => format!("the store of the share {share} does not answer in time"),
        ShareFault::Missing => format!("the share {share} is missing here: mount it, or bring the folder back"),
        _ => format!("the share {share} cannot be read: {error}"),
    };
    let then = if streaming {
        "the stream goes on without it"
    } else {
        "and the stream is down: NOTHING ARRIVES; mend the share or the line, and the backup catches up by itself"
    };
    format!("{what}; {then}")
}

/// What the restore job, which is PostgreSQL itself, has done since the last look.
fn restored(database: &Database, work: &mut Work, probe: &Probe, settings: &LogShipping, report: &mut ShippingReport) {
    let standing = &mut work.restores;
    let before = standing.applied.replace(probe.applied).unwrap_or(probe.applied);
    let mut noted = Noted { bytes: probe.applied.bytes_after(before), lsn: Some(probe.applied), ..Noted::default() };
    if noted.bytes > 0 || report.last_restored_file.is_none() {
        let file = format!("{:08X}{}", probe.timeline.0, place(probe.applied));
        noted.files = probe.applied.0 / SEGMENT_BYTES - before.0 / SEGMENT_BYTES;
        noted.file = Some(file.clone());
        report.last_restored_file = Some(file);
        report.last_restored_at_ms = Some(wall_ms());
    }
    let now = steady_ms();
    let currency = standing.currency.get_or_insert_with(|| Currency::new(now));
    // Where neither stream nor share tells what there is, nothing says that all of it is applied.
    if probe.streaming || (standing.in_order && report.hole.is_none()) {
        let known = probe.received.max(report.shipped).unwrap_or_default();
        currency.note(now, probe.applied, known);
    }
    report.restored_age_ms = Some(currency.age_ms(now));
    database.jobs.note(AgentType::Restore, noted, settings.history_retention);
}

/// What a standby's look alone says of how its log arrives.
pub fn plain_report(probe: &Probe) -> ShippingReport {
    ShippingReport { streaming: probe.streaming, ..stopped_report() }
}

/// Nothing arrives yet.
pub fn stopped_report() -> ShippingReport {
    ShippingReport { enabled: true, ..ShippingReport::default() }
}
