//! Whether a copy of the content database is whole: every entry of every room is read, and checked against the room's chain.

use crate::error::StoreError;
use crate::evidence::{chain_in, logged_in};
use futures_util::TryStreamExt;
use rules::id::{RoomId, Seq};
use rules::verify::{Fault, Verifier};
use tokio_postgres::Client;

/// What a database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Rooms.
    pub rooms: u64,
    /// Entries that were read.
    pub entries: u64,
    /// Entries that there are to be: the sum of the rooms' last numbers.
    pub numbers: u64,
    /// The first entry that does not fit of each room that has one.
    pub faults: Vec<Fault>,
}

/// Every room's head, with every entry.
const ALL: &str = "SELECT h.last_seq, h.chain, e.seq, e.epoch, e.author, NULL, e.at_us, e.kind, e.target,
        e.client_id, e.first_epoch, e.first_seq, e.first_at_us, e.body, e.nonce, e.digest, e.chain, h.room
    FROM standfast.room_heads h LEFT JOIN standfast.entries e USING (room)
    WHERE h.room <> $1 ORDER BY h.room, e.seq";

/// A room that is being read.
struct Reading {
    room: RoomId,
    head: (Seq, Option<rules::chain::Hash>),
    /// What checks it, or what it found.
    checked: Result<Verifier, Fault>,
}

impl Reading {
    fn end(self, whole: &mut Whole) {
        let (last, chain) = self.head;
        whole.rooms += 1;
        whole.numbers += last.0.unsigned_abs();
        whole.faults.extend(self.checked.and_then(|verifier| verifier.head(last, chain)).err());
    }
}

/// Read the log of every room but one, on a connection of the caller; nothing in a database without the chat schema. `at`
/// names it in errors.
///
/// # Errors
/// When the database does not answer, or a row cannot be read.
pub async fn read_all(client: &Client, at: &str, but: RoomId) -> Result<Whole, StoreError> {
    let sort = |e| StoreError::of("read every entry", at, e);
    let there = client.query_one("SELECT to_regclass('standfast.room_heads') IS NOT NULL", &[]).await.map_err(sort)?;
    let mut whole = Whole::default();
    if !there.get::<_, bool>(0) {
        return Ok(whole);
    }
    let rows = client.query_raw(ALL, [but.0]).await.map_err(sort)?;
    let mut rows = std::pin::pin!(rows);
    let mut reading: Option<Reading> = None;
    while let Some(row) = rows.try_next().await.map_err(sort)? {
        let room = RoomId(row.get(17));
        if reading.as_ref().is_none_or(|r| r.room != room) {
            let head = (Seq(row.get(0)), chain_in(&row, 1));
            let next = Reading { room, head, checked: Ok(Verifier::new(room)) };
            if let Some(read) = reading.replace(next) {
                read.end(&mut whole);
            }
        }
        if let (Some(entry), Some(reading)) = (logged_in(&row), &mut reading) {
            whole.entries += 1;
            if let Ok(verifier) = &mut reading.checked
                && let Err(fault) = verifier.entry(entry)
            {
                reading.checked = Err(fault);
            }
        }
    }
    if let Some(read) = reading {
        read.end(&mut whole);
    }
    Ok(whole)
}
