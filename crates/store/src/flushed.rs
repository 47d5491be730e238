//! Who holds the log: asking after a commit whose standbys have flushed it.

use crate::connection::Store;
use crate::error::StoreError;
use tokio_postgres::Row;

/// Who had flushed the log up to a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// The place, as PostgreSQL writes it.
    pub lsn: String,
    /// What the standbys that had flushed it call themselves.
    pub by: Vec<String>,
}

impl Flushed {
    pub(crate) fn of(rows: &[Row]) -> Option<Self> {
        rows.first().map(|row| Self { lsn: row.get(0), by: row.get(1) })
    }
}

/// The place is where this server's own disk is, unless one is given; it is found before the standbys are looked at or after,
/// and either way is past what had been committed before. Without the right to see other sessions nobody is found.
pub(crate) const FLUSHED: &str =
    "SELECT l.lsn::text, coalesce(array_agg(a.application_name) FILTER (WHERE w.flush_lsn >= l.lsn), '{}')
    FROM (SELECT coalesce($1::text::pg_lsn, pg_current_wal_flush_lsn()) AS lsn) l
    LEFT JOIN (pg_stat_get_wal_senders() w CROSS JOIN LATERAL pg_stat_get_activity(w.pid) a) ON true GROUP BY l.lsn";

/// The standbys that are connected, and how far each has flushed the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standbys {
    /// How far this server's own disk is: past all that was committed before, as a count of bytes.
    pub own: i64,
    /// What each calls itself, and how far it is; `None` when it has not told yet.
    pub flushed: Vec<(String, Option<i64>)>,
}

const STANDBYS: &str = "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint,
        coalesce(array_agg(a.application_name) FILTER (WHERE a.pid IS NOT NULL), '{}'),
        coalesce(array_agg((w.flush_lsn - '0/0')::bigint) FILTER (WHERE a.pid IS NOT NULL), '{}')
    FROM (SELECT 1) one
    LEFT JOIN (pg_stat_get_wal_senders() w CROSS JOIN LATERAL pg_stat_get_activity(w.pid) a) ON true";

impl Store {
    /// How far the log is at each standby. `own` is past everything that was committed, or was visible, before this call.
    pub async fn standbys(&self) -> Result<Standbys, StoreError> {
        let rows = self.reader().read("ask how far the standbys have flushed the log", STANDBYS, &[]).await?;
        let row =
            rows.first().ok_or_else(|| StoreError::Invalid("the database knows no place in its log".to_owned()))?;
        let (names, places): (Vec<String>, Vec<Option<i64>>) = (row.get(1), row.get(2));
        Ok(Standbys { own: row.get(0), flushed: names.into_iter().zip(places).collect() })
    }

    /// Who has flushed what lies before `lsn` by now.
    pub async fn flushed(&self, lsn: &str) -> Result<Flushed, StoreError> {
        let rows = self.reader().read("ask which standbys have flushed the log", FLUSHED, &[&Some(lsn)]).await?;
        Flushed::of(&rows).ok_or_else(|| StoreError::Invalid("the database knows no place in its log".to_owned()))
    }
}
