//! Whether a copy of the content database is whole: every row of every room's log is read.

use crate::error::StoreError;
use rules::id::RoomId;
use tokio_postgres::Client;

/// What a database holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Rooms.
    pub rooms: u64,
    /// Entries that were read.
    pub entries: u64,
    /// Entries that there are to be: the sum of the rooms' last numbers.
    pub numbers: u64,
    /// Rooms whose entries are not numbered from 1 to the last number, each once.
    pub flawed_rooms: u64,
}

/// Read the log of every room but one, on a connection of the caller; nothing in a database without the chat schema. `at`
/// names it in errors.
///
/// # Errors
/// When the database does not answer, or a row cannot be read.
pub async fn read_all(client: &Client, at: &str, but: RoomId) -> Result<Whole, StoreError> {
    let sort = |e| StoreError::of("read every entry", at, e);
    let there = client.query_one("SELECT to_regclass('standfast.room_heads') IS NOT NULL", &[]).await.map_err(sort)?;
    if !there.get::<_, bool>(0) {
        return Ok(Whole::default());
    }
    // The length of each text makes PostgreSQL fetch it from wherever it lies.
    let sql = "SELECT count(*), coalesce(sum(coalesce(e.n, 0)), 0)::bigint, coalesce(sum(h.last_seq), 0)::bigint,
                      count(*) FILTER (WHERE coalesce(e.n, 0) <> h.last_seq OR coalesce(e.first, 1) <> 1
                                       OR coalesce(e.last, 0) <> h.last_seq OR e.bytes < 0)
               FROM standfast.room_heads h LEFT JOIN (
                   SELECT room, count(*) AS n, min(seq) AS first, max(seq) AS last, sum(length(body)) AS bytes
                   FROM standfast.entries GROUP BY room) e USING (room)
               WHERE h.room <> $1";
    let row = client.query_one(sql, &[&but.0]).await.map_err(sort)?;
    let number = |i: usize| row.get::<_, i64>(i).unsigned_abs();
    Ok(Whole { rooms: number(0), entries: number(1), numbers: number(2), flawed_rooms: number(3) })
}
