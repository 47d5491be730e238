//! The copy and restore jobs of a backup: stream when it can, files when it must.

use crate::database::{Database, Work};
use crate::error::Error;
use crate::host::Host;
use crate::postgres::copy::Offer;
use crate::postgres::sql::Probe;
use crate::reconcile::{settle, standby_conf};
use cluster::log_shipping::{FeedView, feed};
use cluster::name::HostName;
use cluster::record::PoolRecord;
use cluster::report::ShippingReport;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time between two rounds of the copy job while the stream is up.
const COPY_WHILE_STREAMING: Duration = Duration::from_secs(1);
/// Time between two tries to reach the source while the stream is down.
const REACH: Duration = Duration::from_millis(500);
/// How long PostgreSQL may take to let go of a stream after it was taken out of the configuration.
const STREAM_IS_OFF: Duration = Duration::from_millis(100);
/// Longest note of requests for files, in bytes.
const REQUESTS_BYTES_MAX: u64 = 1024 * 1024;
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
    if enabled {
        configure(host, database, work, upstream.filter(|_| wanted.stream), wanted.files, probe)?;
        settle(database, record, probe)?;
        trim_requests(database)?;
    }
    copy(host, database, work, probe, enabled);
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
    let changed = database.reload(&conf)?;
    if stream_from.is_none() {
        let off_since = *work.stream_off_since.get_or_insert_with(Instant::now);
        if files && !changed && !probe.receiving && off_since.elapsed() >= STREAM_IS_OFF {
            work.destination.set_offer(Offer::Partial)?;
        }
    }
    Ok(())
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

async fn reaches(at: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_u8().await
    };
    matches!(tokio::time::timeout(REACH_LIMIT, ask).await, Ok(Ok(_)))
}

/// A round of the copy job, when it is due, and what it found.
fn copy(host: &Host, database: &Database, work: &mut Work, probe: &Probe, enabled: bool) {
    let mut report = plain_report(probe);
    report.enabled = enabled;
    let before = database.last_shipping();
    if let Some(before) = before {
        report.shipped_file = before.shipped_file;
        report.shipped = before.shipped;
        report.copied = before.copied;
        report.fault = before.fault;
    }
    let due = work.copied_at.is_none_or(|at| !probe.streaming || at.elapsed() >= COPY_WHILE_STREAMING);
    let mut in_order = false;
    if enabled
        && due
        && let Some(share) = database.share(host)
    {
        work.copied_at = Some(Instant::now());
        match work.copy.round(&share, false, &work.destination, &database.has(probe), &host.programs) {
            Ok(copied) => {
                report.shipped_file = copied.newest;
                report.shipped = copied.shipped;
                report.copied = copied.copied.or(report.copied);
                report.fault = None;
                in_order = true;
            }
            Err(error) => report.fault = Some(format!("read the share: {error}; the stream goes on without it")),
        }
    }
    database.shipping(Some(report), in_order);
}

/// What a standby's look alone says of how its log arrives.
pub fn plain_report(probe: &Probe) -> ShippingReport {
    ShippingReport { streaming: probe.streaming, ..stopped_report() }
}

/// Nothing arrives yet.
pub fn stopped_report() -> ShippingReport {
    ShippingReport { enabled: true, ..ShippingReport::default() }
}
