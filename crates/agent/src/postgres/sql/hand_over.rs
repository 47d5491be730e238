//! What a writer is asked when it is handed over.

use super::{LOOK, ORDER_LOOK, Sql};
use crate::error::Error;
use cluster::name::HostName;
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::time::{Duration, Instant};
use tokio_postgres::SimpleQueryRow;

/// So much log a mirror may have flushed and not applied, in bytes, to be promoted at once: what it applies in some milliseconds.
const NEARLY_APPLIED_BYTES: u64 = 1024 * 1024;
/// Between two looks whether a mirror has the log.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The log of a writer that refuses everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it stood when nobody wrote any more: whatever was committed lies before, and a record begins or ends here.
    pub at: Lsn,
    /// Up to where it is on this disk, the refusal itself included.
    pub flushed: Lsn,
}

impl Sql {
    /// Let the chat schema, if it is there, refuse writers of epochs before `epoch`. Waits for no mirror: writers in flight
    /// may be waiting for one that is gone.
    pub async fn refuse_writers_before(&self, epoch: Epoch) -> Result<Option<Refused>, Error> {
        let function = "refuse_writers_before";
        let there = format!("SELECT to_regprocedure('standfast.{function}(bigint)') IS NOT NULL");
        let rows = self.act("look for the chat schema", &there, ORDER_LOOK).await?;
        if rows.first().and_then(|r| r.get(0)) != Some("t") {
            return Ok(None);
        }
        let call = format!(
            "BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL synchronous_commit = local; \
             SELECT standfast.{function}({epoch}); SELECT pg_current_wal_insert_lsn() AS at; COMMIT; \
             SELECT pg_current_wal_flush_lsn() AS at"
        );
        let rows = self.act(&format!("call {function}"), &call, Duration::from_secs(30)).await?;
        let place = |row: &SimpleQueryRow| row.try_get("at").ok().flatten().and_then(|at| at.parse().ok());
        let places: Vec<Lsn> = rows.iter().filter_map(place).collect();
        Ok(match places[..] {
            [at, flushed] => Some(Refused { at, flushed }),
            _ => None,
        })
    }

    /// Whether a standby may be promoted in a moment: it has flushed the log up to a place, and applied nearly all of that, now or within
    /// this time.
    pub async fn is_ready(&self, host: &HostName, up_to: Lsn, patience: Duration) -> Result<bool, Error> {
        let statement = format!(
            "SELECT 1 FROM pg_stat_replication WHERE application_name = '{}' AND flush_lsn >= '{up_to}' \
             AND replay_lsn + {NEARLY_APPLIED_BYTES}::numeric >= '{up_to}'",
            host.as_str().replace('\'', "''")
        );
        let began = Instant::now();
        loop {
            if !self.act("look whether the mirror has the log", &statement, LOOK).await?.is_empty() {
                return Ok(true);
            }
            if began.elapsed() > patience {
                return Ok(false);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// End every stream but that to `host`: a clean stop waits for each of them.
    pub async fn end_streams_except(&self, host: &HostName) -> Result<(), Error> {
        let statement = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name <> '{}'",
            host.as_str().replace('\'', "''")
        );
        self.act("end streams", &statement, LOOK).await.map(|_| ())
    }
}
