//! Finding out where a transaction is durable when it has returned. The decision is `cluster::durable`.

use crate::app::{App, View};
use crate::standing::CONTENT_DATABASE;
use cluster::durable::{Durable, known, synchronised_mirror};
use cluster::name::DatabaseName;
use cluster::record::DatabaseRecord;
use rules::id::Epoch;
use std::time::Duration;
use store::{Flushed, Store};

/// Longest time for finding out: the post is durable, and its author waits.
const WAIT: Duration = Duration::from_millis(100);
/// How often a synchronised mirror is asked after that has not told yet: what others have flushed meanwhile was ahead of it.
const TRIES: u32 = 5;
/// Between two of them.
const AGAIN: Duration = Duration::from_millis(1);

/// Whether the record of this epoch names a standby of the writer.
pub fn has_standbys(app: &App, epoch: Epoch) -> bool {
    record_of(&app.view(), epoch).is_some_and(|record| record.mirror.is_some() || record.backup.is_some())
}

/// A record of another epoch says nothing of this writer's standbys.
fn record_of(view: &View, epoch: Epoch) -> Option<&DatabaseRecord> {
    let record = view.record.as_ref().filter(|record| record.epoch == epoch)?;
    record.databases.get(&DatabaseName::from(CONTENT_DATABASE))
}

/// Where a transaction is durable that this store has committed. `waited`: it was to wait for a synchronous standby. `flushed`: who
/// had flushed the log up to its end when it returned.
pub async fn find_out(app: &App, store: &Store, waited: bool, flushed: Option<Flushed>) -> Durable {
    let view = app.view();
    let (Some(record), Some(flushed)) = (record_of(&view, store.epoch()), flushed) else { return Durable::Disk };
    tokio::time::timeout(WAIT, ask(store, record, waited, flushed)).await.unwrap_or_default()
}

async fn ask(store: &Store, record: &DatabaseRecord, waited: bool, mut flushed: Flushed) -> Durable {
    let mut tries = 0;
    loop {
        let durable = known(record, waited, |host| flushed.by.iter().any(|name| name == host.as_str()));
        if durable > Durable::Disk || synchronised_mirror(record, waited).is_none() || tries == TRIES {
            return durable;
        }
        tries += 1;
        tokio::time::sleep(AGAIN).await;
        flushed = match store.flushed(&flushed.lsn).await {
            Ok(flushed) => flushed,
            Err(error) => {
                tracing::debug!(%error, "cannot find out which standbys have flushed the log");
                return Durable::Disk;
            }
        };
    }
}
