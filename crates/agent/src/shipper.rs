//! The backup job of a principal: finished segments by PostgreSQL's archiver, the unfinished one by pg_receivewal.

use crate::database::{Database, Work};
use crate::host::Host;
use crate::postgres::conf::Conf;
use cluster::record::PoolRecord;
use std::time::{Duration, Instant};

/// Time between two trims of the share.
const TRIM: Duration = Duration::from_secs(30);

/// Ship into the share; returns what is wrong with it, for people.
pub async fn round(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    conf: &mut Conf,
    ships: bool,
) -> Option<String> {
    let folders = database.archive_folders(host, record)?;
    let (wal, stream) = match folders {
        Ok(folders) => folders,
        Err(error) => {
            stop(work).await;
            // The archiver goes on trying where it did, and PostgreSQL keeps what it cannot ship.
            conf.archive_to = Some(database.share(host)?.folder_of(record.epoch));
            return Some(format!("{}: {error}; the log is kept here until the share takes it", database.name));
        }
    };
    conf.archive_to = Some(wal);
    if ships {
        if let Err(error) = work.receive.ensure(&database.instance, &stream).await {
            return Some(format!("{}: {error}", database.name));
        }
    } else {
        stop(work).await;
    }
    if work.trimmed_at.is_none_or(|at| at.elapsed() > TRIM) {
        work.trimmed_at = Some(Instant::now());
        if let Some(share) = database.share(host)
            && let Err(error) = share.trim(record.epoch)
        {
            return Some(format!("{}: trim the share: {error}", database.name));
        }
    }
    work.receive.fault.clone().map(|fault| format!("{}: {fault}", database.name))
}

/// Stop shipping partial segments.
pub async fn stop(work: &mut Work) {
    work.receive.end().await;
}
