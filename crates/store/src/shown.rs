//! In rooms whose posts wait for a durability: how far the log has been acknowledged and may be shown.
//!
//! A mark is durable before anything under it is acknowledged or shown, so every server, and a later writer of the same history,
//! shows at least that. What lies beyond is shown to nobody until it is marked.

use crate::connection::Store;
use crate::error::StoreError;
use rules::durability::Rule;
use rules::id::{RoomId, Seq};
use std::collections::BTreeMap;

/// How a room stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomMark {
    /// What acknowledgements in it wait for now.
    pub durability: Rule,
    /// The number up to which its log may be shown while its posts wait.
    pub shown: Seq,
}

/// Rooms' marks.
pub type ShownMarks = BTreeMap<RoomId, RoomMark>;

const MARKS: &str = "SELECT h.room, h.durability, coalesce(m.seq, 0) FROM standfast.room_heads h
    LEFT JOIN standfast.shown_marks m ON m.room = h.room WHERE h.room = ANY ($1)";

const MARK: &str = "SELECT standfast.mark_shown($1, $2, $3)";

impl Store {
    /// How rooms stand, those that exist.
    pub async fn shown_marks(&self, rooms: &[RoomId]) -> Result<ShownMarks, StoreError> {
        let rooms: Vec<i64> = rooms.iter().map(|r| r.0).collect();
        let rows = self.reader().read("read how far rooms may be shown", MARKS, &[&rooms]).await?;
        let mark = |row: &tokio_postgres::Row| {
            let mark = RoomMark { durability: Rule::of_code(row.get(1)), shown: Seq(row.get(2)) };
            (RoomId(row.get(0)), mark)
        };
        Ok(rows.iter().map(mark).collect())
    }

    /// Rooms' logs may be shown up to these numbers. Durable when this returns.
    pub async fn mark_shown(&self, marks: &BTreeMap<RoomId, Seq>) -> Result<(), StoreError> {
        let (rooms, seqs): (Vec<i64>, Vec<i64>) = marks.iter().map(|(room, seq)| (room.0, seq.0)).unzip();
        let epoch = self.epoch().0;
        self.write_one("mark how far rooms may be shown", MARK, &[&epoch, &rooms, &seqs]).await.map(|_| ())
    }
}
