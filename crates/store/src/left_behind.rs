//! What a database that was left behind holds and the present history lacks: its tail, read line by line, and kept in the
//! present principal's database.
//!
//! These work on connections of the caller: the old data is a standby without a source, and neither it nor its principal
//! is to be opened as a chat server opens its writer. A tail is a text of JSON lines, changes first, then entries in the
//! order of re-entry: within a room by number, over all rooms by time. PostgreSQL writes and reads the lines itself.

use crate::error::StoreError;
use futures_util::TryStreamExt;
use rules::history::Parting;
use rules::id::{Epoch, RoomId, Seq};
use std::collections::BTreeSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};

/// Where an epoch began in the present history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// The last number of each room before it.
    pub rooms: Vec<(RoomId, Seq)>,
    /// The last number of the journal of changes before it.
    pub last_change: i64,
}

/// Kinds of entries as lines name them, in the order of their numbers in the table.
const KINDS: &str = "ARRAY['post', 'removal', 'replacement', 'room_change']";

/// How much there is in a tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TailSize {
    /// Entries of rooms.
    pub entries: u64,
    /// What administrators changed.
    pub changes: u64,
}

/// What a tail is.
#[derive(Clone, Debug)]
pub struct TailHead {
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
    /// Where the log forked, as text; `unknown` where that is not known.
    pub fork: String,
    /// When it was read: milliseconds since the Unix epoch.
    pub extracted_at_ms: i64,
    /// How much there is in it.
    pub size: TailSize,
}

/// Why a tail was not read.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The database did not do what it was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The line could not be handed on.
    #[error(transparent)]
    Line(#[from] std::io::Error),
}

/// The epochs that have begun in a database; `None` where it has no chat schema.
///
/// # Errors
/// When the database does not answer.
pub async fn epochs(client: &Client, at: &str) -> Result<Option<BTreeSet<Epoch>>, StoreError> {
    let doing = "ask which epochs have begun";
    let sort = |e| StoreError::of(doing, at, e);
    let there = client.query_one("SELECT to_regclass('standfast.epochs') IS NOT NULL", &[]).await.map_err(sort)?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let rows = client.query("SELECT epoch FROM standfast.epochs", &[]).await.map_err(sort)?;
    Ok(Some(rows.iter().map(|row| Epoch(row.get(0))).collect()))
}

/// Where an epoch began.
///
/// # Errors
/// When the database does not answer.
pub async fn starts(client: &Client, at: &str, epoch: Epoch) -> Result<Starts, StoreError> {
    let sort = |e| StoreError::of("ask where an epoch began", at, e);
    let query = "SELECT room, last_seq FROM standfast.epoch_starts WHERE epoch = $1";
    let rows = client.query(query, &[&epoch.0]).await.map_err(sort)?;
    let rooms = rows.iter().map(|row| (RoomId(row.get(0)), Seq(row.get(1)))).collect();
    let mut last_change = 0;
    if schema_version(client).await.map_err(sort)? >= JOURNAL {
        let query = "SELECT last_change FROM standfast.epochs WHERE epoch = $1";
        last_change = client.query_opt(query, &[&epoch.0]).await.map_err(sort)?.map_or(0, |row| row.get(0));
    }
    Ok(Starts { rooms, last_change })
}

/// The version of the schema that has late arrivals.
const LATE_ARRIVALS: i32 = 2;
/// The version of the schema that has the journal of changes.
const JOURNAL: i32 = 3;

async fn schema_version(client: &Client) -> Result<i32, tokio_postgres::Error> {
    let query = "SELECT coalesce(max(version), 0) FROM standfast.schema_versions";
    client.query_one(query, &[]).await.map(|row| row.get(0))
}

/// Read the tail of the database behind `client`: what the history with the epochs `present`, whose epoch `left_by` began
/// at `starts`, does not hold. Each line is handed to `line` without its end.
///
/// # Errors
/// When the database does not answer, or a line cannot be handed on.
pub async fn read_tail(
    client: &Client,
    at: &str,
    parting: &Parting,
    present: &BTreeSet<Epoch>,
    starts: &Starts,
    mut line: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<TailSize, TailError> {
    let sort = |e| StoreError::of("read the tail", at, e);
    let version = schema_version(client).await.map_err(sort)?;
    let rooms: Vec<i64> = starts.rooms.iter().map(|(room, _)| room.0).collect();
    let lasts: Vec<i64> = starts.rooms.iter().map(|(_, seq)| seq.0).collect();
    let present: Vec<i64> = present.iter().map(|e| e.0).collect();
    let own = parting.own.map(|e| e.0);
    let mut size = TailSize::default();
    if version >= JOURNAL {
        let parameters: [&(dyn ToSql + Sync); 3] = [&present, &parting.common.0, &starts.last_change];
        let rows = client.query_raw(CHANGES, parameters).await.map_err(sort)?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(sort)? {
            line(row.get(0))?;
            size.changes += 1;
        }
    }
    let parameters: [&(dyn ToSql + Sync); 5] = [&rooms, &lasts, &present, &parting.common.0, &own];
    let rows = client.query_raw(entries_query(version).as_str(), parameters).await.map_err(sort)?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(sort)? {
        line(row.get(0))?;
        size.entries += 1;
    }
    Ok(size)
}

/// $1: the epochs of the present history; $2: the last of them that this database has seen begin; $3: where the present
/// history's journal went on after it. A user comes with the hash of its password, which the journal does not hold.
const CHANGES: &str = "SELECT (json_strip_nulls(json_build_object(
            'line', 'change', 'n', c.n, 'epoch', c.epoch, 'actor', c.actor, 'actor_name', coalesce(p.name, '?'),
            'at', to_char(coalesce(c.first_at, c.at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
            'first_epoch', c.first_epoch, 'first_n', c.first_n))::jsonb
        || jsonb_build_object('change', c.change || CASE WHEN u.password_hash IS NULL THEN '{}'::jsonb
                ELSE jsonb_build_object('password_hash', u.password_hash) END))::text
    FROM standfast.changes c
    LEFT JOIN standfast.principals p ON p.id = c.actor
    LEFT JOIN standfast.principals u
        ON c.change->>'kind' = 'user_created' AND u.id = (c.change->'user'->>'id')::bigint
    WHERE c.epoch <> ALL ($1::bigint[]) OR c.epoch = $2 AND c.n > $3
    ORDER BY c.n";

/// $1, $2: where the present history went on, room by room; $3: its epochs; $4: the last of them that this database has
/// seen begin; $5: the first epoch of this database that it lacks. A room that is not among those of $1 is not there.
fn entries_query(schema_version: i32) -> String {
    let first = |column: &str| {
        if schema_version >= LATE_ARRIVALS { format!("t.first_{column}") } else { "NULL::bigint".to_owned() }
    };
    let (first_epoch, first_seq, first_at_us) = (first("epoch"), first("seq"), first("at_us"));
    format!(
        "WITH starts (room, last_seq) AS (
            SELECT * FROM unnest($1::bigint[], $2::bigint[])
        ), bounds AS (
            SELECT h.room, h.last_seq, coalesce(s.last_seq, 0) AS common,
                   CASE WHEN $5::bigint IS NULL THEN coalesce(s.last_seq, 0)
                        ELSE least(coalesce(s.last_seq, 0), coalesce(o.last_seq, 0)) END AS least
            FROM standfast.room_heads h LEFT JOIN starts s ON s.room = h.room
            LEFT JOIN standfast.epoch_starts o ON o.room = h.room AND o.epoch = $5::bigint
        ), tail AS (
            SELECT e.*, max(e.at_us) OVER (PARTITION BY e.room ORDER BY e.seq) AS place
            FROM bounds b
            -- Room by room over the index, however few of the entries are wanted: OFFSET keeps it from being flattened.
            CROSS JOIN LATERAL (SELECT * FROM standfast.entries e WHERE e.room = b.room AND e.seq > b.least OFFSET 0) e
            WHERE b.last_seq > b.least AND (e.epoch <> ALL ($3::bigint[]) OR e.epoch = $4::bigint AND e.seq > b.common)
        )
        SELECT json_strip_nulls(json_build_object(
                   'line', 'entry', 'n', row_number() OVER (ORDER BY t.place, t.room, t.seq),
                   'room', t.room, 'room_name', r.name, 'seq', t.seq, 'epoch', t.epoch,
                   'author', t.author, 'author_name', coalesce(p.name, '?'), 'at_us', t.at_us,
                   'client_id', t.client_id, 'target', t.target, 'kind', ({KINDS})[t.kind + 1], 'body', t.body,
                   'first_epoch', {first_epoch}, 'first_seq', {first_seq}, 'first_at_us', {first_at_us}))::text
        FROM tail t JOIN standfast.rooms r ON r.id = t.room
        LEFT JOIN standfast.principals p ON p.id = t.author
        ORDER BY t.place, t.room, t.seq"
    )
}

/// The ids of the tails that a database has; `None` where its schema has no place for any yet.
///
/// # Errors
/// When the database does not answer.
pub async fn known_tails(client: &Client, at: &str) -> Result<Option<BTreeSet<String>>, StoreError> {
    let sort = |e| StoreError::of("ask which tails are known", at, e);
    let there = client.query_one("SELECT to_regclass('standfast.tails') IS NOT NULL", &[]).await.map_err(sort)?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let rows = client.query("SELECT id FROM standfast.tails", &[]).await.map_err(sort)?;
    Ok(Some(rows.iter().map(|row| row.get(0)).collect()))
}

/// A tail that is being kept in the present principal's database: all of it, or nothing. It states its epoch at its end: so a
/// change of writer, which waits for everybody who has stated one, does not wait for a long tail, but undoes it.
pub struct Keeping<'a> {
    tx: Transaction<'a>,
    at: String,
    head: TailHead,
    kept: TailSize,
}

const KEEPING: &str = "keep a tail";

impl<'a> Keeping<'a> {
    /// Begin; `None` when the database has it already.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin(client: &'a mut Client, at: &str, head: TailHead) -> Result<Option<Self>, StoreError> {
        let sort = |e| StoreError::of(KEEPING, at, e);
        let tx = client.transaction().await.map_err(sort)?;
        let insert = "INSERT INTO standfast.tails
                (id, database, host, left_by, old_epoch, fork, extracted_at, posts, changes)
            VALUES ($1, $2, $3, $4, $5, $6, to_timestamp($7::bigint / 1000.0), $8, $9) ON CONFLICT DO NOTHING";
        let (entries, changes) = (head.size.entries.cast_signed(), head.size.changes.cast_signed());
        let values: [&(dyn ToSql + Sync); 9] = [
            &head.id,
            &head.database,
            &head.host,
            &head.left_by.0,
            &head.old_epoch.0,
            &head.fork,
            &head.extracted_at_ms,
            &entries,
            &changes,
        ];
        let new = tx.execute(insert, &values).await.map_err(sort)? == 1;
        Ok(new.then(|| Self { tx, at: at.to_owned(), head, kept: TailSize::default() }))
    }

    /// Keep some lines: the elements of a JSON array.
    ///
    /// # Errors
    /// When the database does not answer, or these are not a tail's lines.
    pub async fn lines(&mut self, array: &str) -> Result<(), StoreError> {
        let sort = |e| StoreError::of(KEEPING, &self.at, e);
        self.kept.changes += self.tx.execute(KEEP_CHANGES, &[&self.head.id, &array]).await.map_err(sort)?;
        let keep = keep_entries();
        self.kept.entries += self.tx.execute(&keep, &[&self.head.id, &array]).await.map_err(sort)?;
        Ok(())
    }

    /// All of it is there: keep it for good, as a writer of `epoch`.
    ///
    /// # Errors
    /// When it is not all there, or the database is at another epoch: then nothing is kept. When the database does not answer it
    /// may be kept or not.
    pub async fn commit(self, epoch: Epoch) -> Result<(), StoreError> {
        let TailHead { id, size, .. } = &self.head;
        if self.kept != *size {
            return Err(StoreError::Invalid(format!(
                "the tail {id} has {} entries and {} changes, and {} and {} came; nothing of it was kept",
                size.entries, size.changes, self.kept.entries, self.kept.changes
            )));
        }
        let sort = |e| StoreError::of(KEEPING, &self.at, e);
        self.tx.execute("SELECT standfast.enter($1)", &[&epoch.0]).await.map_err(sort)?;
        self.tx.commit().await.map_err(sort)
    }
}

const KEEP_CHANGES: &str = "INSERT INTO standfast.tail_changes
        (tail, n, epoch, actor, actor_name, at, change, first_epoch, first_n)
    SELECT $1, l.n, l.epoch, l.actor, l.actor_name, l.at, l.change, l.first_epoch, l.first_n
    FROM jsonb_to_recordset($2::text::jsonb) AS l (line text, n bigint, epoch bigint, actor bigint, actor_name text,
        at timestamptz, change jsonb, first_epoch bigint, first_n bigint)
    WHERE l.line = 'change'";

fn keep_entries() -> String {
    format!(
        "INSERT INTO standfast.tail_entries
            (tail, n, room, room_name, seq, epoch, author, author_name, at_us, client_id, target, kind, body,
             first_epoch, first_seq, first_at_us)
        SELECT $1, l.n, l.room, l.room_name, l.seq, l.epoch, l.author, l.author_name, l.at_us, l.client_id, l.target,
               array_position({KINDS}, l.kind) - 1, l.body, l.first_epoch, l.first_seq, l.first_at_us
        FROM jsonb_to_recordset($2::text::jsonb) AS l (line text, n bigint, room bigint, room_name text, seq bigint,
            epoch bigint, author bigint, author_name text, at_us bigint, client_id uuid, target bigint, kind text,
            body text, first_epoch bigint, first_seq bigint, first_at_us bigint)
        WHERE l.line = 'entry'"
    )
}
