//! Tails for people: which there are, what has become of them so far, and what is in them.

use crate::connection::Store;
use crate::error::StoreError;
use rules::id::Epoch;

/// A tail that the database has. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRow {
    /// `<database>-<left_by>-<host>`.
    pub id: String,
    /// Which database.
    pub database: String,
    /// Whose data it was.
    pub host: String,
    /// The epoch that left it behind.
    pub left_by: Epoch,
    /// The last epoch of the old data.
    pub old_epoch: Epoch,
    /// Where the log forked.
    pub fork: String,
    /// When it was read.
    pub extracted_at: String,
    /// When it came into this database.
    pub came_at: String,
    /// When all of it had been dealt with.
    pub re_entered_at: Option<String>,
    /// Its entries.
    pub entries: TailCounts,
    /// Its changes.
    pub changes: TailCounts,
}

/// What has become of the lines of a tail so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TailCounts {
    /// How many there are.
    pub all: u64,
    /// Entered again.
    pub entered: u64,
    /// There already.
    pub there: u64,
    /// Refused.
    pub refused: u64,
}

/// Which lines of a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailPart {
    /// Changes after this one.
    Changes(i64),
    /// Entries after this one.
    Entries(i64),
}

/// PostgreSQL's time as RFC 3339 in UTC.
macro_rules! utc {
    ($column:literal) => {
        concat!("to_char(", $column, " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
    };
}

const TAILS: &str = concat!(
    "SELECT t.id, t.database, t.host, t.left_by, t.old_epoch, t.fork, ",
    utc!("t.extracted_at"),
    ", ",
    utc!("t.came_at"),
    ", ",
    utc!("t.re_entered_at"),
    ", t.posts, e.entered, e.there, e.refused, t.changes, c.entered, c.there, c.refused
    FROM standfast.tails t
    CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE outcome = 'entered') AS entered,
        count(*) FILTER (WHERE outcome = 'there') AS there, count(*) FILTER (WHERE outcome = 'refused') AS refused
        FROM standfast.tail_entries WHERE tail = t.id) e
    CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE outcome = 'entered') AS entered,
        count(*) FILTER (WHERE outcome = 'there') AS there, count(*) FILTER (WHERE outcome = 'refused') AS refused
        FROM standfast.tail_changes WHERE tail = t.id) c
    ORDER BY t.left_by, t.id"
);

const CHANGES: &str = concat!(
    "SELECT c.n, json_strip_nulls(json_build_object('line', 'change', 'n', c.n, 'epoch', c.epoch, 'actor', c.actor,
        'actor_name', c.actor_name, 'at', ",
    utc!("c.at"),
    ", 'first_epoch', c.first_epoch, 'first_n', c.first_n, 'dealt', CASE WHEN c.outcome IS NOT NULL THEN json_build_object('outcome', c.outcome, 'reason', c.reason,
        'at', ",
    utc!("c.dealt_at"),
    ") END))::jsonb || jsonb_build_object('change', c.change - 'password_hash')
    FROM standfast.tail_changes c WHERE c.tail = $1 AND c.n > $2 ORDER BY c.n LIMIT $3"
);

const ENTRIES: &str = concat!(
    "SELECT e.n, json_strip_nulls(json_build_object('line', 'entry', 'n', e.n, 'room', e.room,
        'room_name', e.room_name, 'seq', e.seq, 'epoch', e.epoch, 'author', e.author, 'author_name', e.author_name,
        'at_us', e.at_us, 'client_id', e.client_id, 'target', e.target,
        'kind', (ARRAY['post', 'removal', 'replacement', 'room_change'])[e.kind + 1], 'body', e.body,
        'first_epoch', e.first_epoch, 'first_seq', e.first_seq, 'first_at_us', e.first_at_us,
        'dealt', CASE WHEN e.outcome IS NOT NULL THEN json_build_object('outcome', e.outcome, 'seq', e.entered_seq,
            'reason', e.reason, 'at', ",
    utc!("e.dealt_at"),
    ") END))::jsonb
    FROM standfast.tail_entries e WHERE e.tail = $1 AND e.n > $2 ORDER BY e.n LIMIT $3"
);

impl Store {
    /// Every tail that the database has, in the order in which they were left behind.
    pub async fn tails(&self) -> Result<Vec<TailRow>, StoreError> {
        let rows = self.reader().read("list the tails", TAILS, &[]).await?;
        let counts = |row: &tokio_postgres::Row, first: usize| {
            let [all, entered, there, refused] = [0, 1, 2, 3].map(|i| row.get::<_, i64>(first + i).unsigned_abs());
            TailCounts { all, entered, there, refused }
        };
        let tail = |row: &tokio_postgres::Row| TailRow {
            id: row.get(0),
            database: row.get(1),
            host: row.get(2),
            left_by: Epoch(row.get(3)),
            old_epoch: Epoch(row.get(4)),
            fork: row.get(5),
            extracted_at: row.get(6),
            came_at: row.get(7),
            re_entered_at: row.get(8),
            entries: counts(row, 9),
            changes: counts(row, 13),
        };
        Ok(rows.iter().map(tail).collect())
    }

    /// Some lines of a tail, in the form of its text, each with what became of it. Secrets are left out.
    pub async fn tail_lines(
        &self,
        tail: &str,
        part: TailPart,
        limit: u32,
    ) -> Result<Vec<serde_json::Value>, StoreError> {
        let (query, after) = match part {
            TailPart::Changes(after) => (CHANGES, after),
            TailPart::Entries(after) => (ENTRIES, after),
        };
        let rows = self.reader().read("read a tail", query, &[&tail, &after, &i64::from(limit)]).await?;
        Ok(rows.iter().map(|row| row.get(1)).collect())
    }
}
