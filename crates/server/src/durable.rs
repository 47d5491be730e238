//! Finding out where a transaction is durable when it has returned. The decision is `cluster::durable`.

use crate::app::App;
use crate::standing::CONTENT_DATABASE;
use cluster::durable::{Durable, known, synchronised_mirror};
use cluster::name::DatabaseName;
use cluster::record::DatabaseRecord;
use std::time::Duration;
use store::{Store, Waits};

/// Longest time for finding out: the post is durable, and its author waits.
const WAIT: Duration = Duration::from_millis(100);
/// How often a synchronised mirror is asked after that has not told yet: what others have flushed meanwhile was ahead of it.
const TRIES: u32 = 5;
/// Between two of them.
const AGAIN: Duration = Duration::from_millis(1);

/// Where everything is durable that this store has committed before. `waited`: the last transaction was to wait for a
/// synchronous standby.
/// `waits`: what it waited for when it committed.
pub async fn find_out(app: &App, store: &Store, waited: bool, waits: Waits) -> Durable {
    let view = app.view();
    // A record of another epoch says nothing of this writer's standbys.
    let record = view.record.as_ref().filter(|record| record.epoch == store.epoch());
    let Some(record) = record.and_then(|r| r.databases.get(&DatabaseName::from(CONTENT_DATABASE))) else {
        return Durable::Disk;
    };
    if record.mirror.is_none() && record.backup.is_none() {
        return Durable::Disk;
    }
    tokio::time::timeout(WAIT, ask(store, record, waited, waits)).await.unwrap_or_default()
}

async fn ask(store: &Store, record: &DatabaseRecord, waited: bool, waits: Waits) -> Durable {
    let mut lsn: Option<String> = None;
    let mut durable = Durable::Disk;
    for _ in 0..TRIES {
        let flushed = match store.flushed(lsn.as_deref(), waits).await {
            Ok(flushed) => flushed,
            Err(error) => {
                tracing::debug!(%error, "cannot find out which standbys have flushed the log");
                return Durable::Disk;
            }
        };
        durable = known(record, waited, |host| flushed.by.iter().any(|name| name == host.as_str()));
        if durable > Durable::Disk || synchronised_mirror(record, waited).is_none() {
            return durable;
        }
        lsn = Some(flushed.lsn);
        tokio::time::sleep(AGAIN).await;
    }
    durable
}
