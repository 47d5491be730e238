//! The backup job of a principal: finished segments by PostgreSQL's archiver, the unfinished one by pg_receivewal.

use crate::database::{Database, Work};
use crate::host::Host;
use crate::postgres::conf::Conf;
use crate::postgres::sql::Probe;
use cluster::record::PoolRecord;
use cluster::report::BackupReport;
use std::time::{Duration, Instant};

/// Time between two trims of the share.
const TRIM: Duration = Duration::from_secs(30);

/// What goes into the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ships {
    /// There is a backup: the unfinished segment too.
    pub to_backup: bool,
    /// Finished segments.
    pub archives: bool,
}

/// Ship into the share; returns what is wrong with it, for people.
pub async fn round(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    conf: &mut Conf,
    ships: Ships,
    probe: &Probe,
) -> Option<String> {
    let share = database.share(host)?;
    if !ships.archives {
        stop(work).await;
        database.backup_job(Some(BackupReport { enabled: false, ..database.last_backup_job().unwrap_or_default() }));
        return None;
    }
    let mut report = BackupReport { enabled: true, ..database.last_backup_job().unwrap_or_default() };
    report.fault = ship(host, database, record, work, conf, ships.to_backup, &share).await;
    if let Ok(archiver) = database.instance.sql.probe_archiver().await {
        report.shipped =
            archiver.received.or_else(|| archiver.last_file.as_deref().and_then(end_of)).max(report.shipped);
        report.last_backup_file = archiver.last_file;
        report.last_backup_at_ms = archiver.last_at_ms;
    }
    let _ = probe;
    let fault = report.fault.clone();
    database.backup_job(Some(report));
    fault.map(|fault| format!("{}: {fault}", database.name))
}

async fn ship(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    conf: &mut Conf,
    to_backup: bool,
    share: &crate::postgres::share::Share,
) -> Option<String> {
    let (wal, stream) = match share.writer_folders(record.epoch, &host.programs) {
        Ok(folders) => folders,
        Err(error) => {
            stop(work).await;
            // The archiver goes on trying where it did, and PostgreSQL keeps what it cannot ship.
            conf.archive_to = Some(share.folder_of(record.epoch));
            return Some(format!("{error}; the log is kept here until the share takes it"));
        }
    };
    conf.archive_to = Some(wal);
    if to_backup {
        if let Err(error) = work.receive.ensure(&database.instance, &stream).await {
            return Some(error.to_string());
        }
    } else {
        stop(work).await;
    }
    if work.trimmed_at.is_none_or(|at| at.elapsed() > TRIM) {
        work.trimmed_at = Some(Instant::now());
        if let Err(error) = share.trim(record.epoch) {
            return Some(format!("trim the share: {error}"));
        }
    }
    work.receive.fault.clone()
}

/// Where a finished segment ends.
fn end_of(name: &str) -> Option<cluster::wal::Lsn> {
    use crate::postgres::share::{SEGMENT_BYTES, is_segment, start_of};
    let start = start_of(name).filter(|_| is_segment(name))?;
    Some(cluster::wal::Lsn(start.0 + SEGMENT_BYTES))
}

/// Stop shipping partial segments.
pub async fn stop(work: &mut Work) {
    work.receive.end().await;
}
