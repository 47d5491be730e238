//! Reading a room's log with all that its chain rests on, for those who check it.

use crate::connection::Store;
use crate::error::StoreError;
use rules::chain::{Bytes, First, Hash};
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::verify::Logged;
use tokio_postgres::Row;
use uuid::Uuid;

/// A part of a room's log and the room's head, from one snapshot.
#[derive(Clone, Debug)]
pub struct LoggedPage {
    /// The entries, rising, with the names of their authors.
    pub entries: Vec<(Logged, String)>,
    /// The number that the room's head states.
    pub last: Seq,
    /// The running hash that it states; `None` of a room without entries.
    pub chain: Option<Hash>,
}

/// The head comes with every entry, so that both are of one snapshot.
const PAGE: &str = "SELECT h.last_seq, h.chain, e.seq, e.epoch, e.author, coalesce(p.name, '?'), e.at_us, e.kind, e.target,
        e.client_id, e.first_epoch, e.first_seq, e.first_at_us, e.body, e.nonce, e.digest, e.chain
    FROM standfast.room_heads h
    LEFT JOIN LATERAL (SELECT * FROM standfast.entries x WHERE x.room = h.room AND x.seq > $2 ORDER BY x.seq LIMIT $3) e ON true
    LEFT JOIN standfast.principals p ON p.id = e.author
    WHERE h.room = $1 ORDER BY e.seq";

/// A hash of a row; one of another length is none.
pub(crate) fn chain_in(row: &Row, column: usize) -> Option<Hash> {
    row.get::<_, Option<&[u8]>>(column).and_then(Bytes::of)
}

/// The entry of a row in the columns of [`PAGE`]; `None` where a room has none.
pub(crate) fn logged_in(row: &Row) -> Option<Logged> {
    let late = row.get::<_, Option<i64>>(10).zip(row.get::<_, Option<i64>>(11)).zip(row.get::<_, Option<i64>>(12));
    // A hash of another length is none that fits.
    let hash = |column| chain_in(row, column).unwrap_or(Bytes([0; 32]));
    Some(Logged {
        seq: Seq(row.get::<_, Option<i64>>(2)?),
        epoch: Epoch(row.get(3)),
        author: PrincipalId(row.get(4)),
        at_us: row.get(6),
        kind: row.get(7),
        target: row.get::<_, Option<i64>>(8).map(Seq),
        client_id: row.get::<_, Option<Uuid>>(9).map(Uuid::into_bytes),
        first: late.map(|((epoch, seq), at_us)| First { epoch: Epoch(epoch), seq: Seq(seq), at_us }),
        text: row.get(13),
        nonce: row.get::<_, Option<&[u8]>>(14).and_then(Bytes::of),
        content: hash(15),
        chain: hash(16),
    })
}

impl Store {
    /// The entries of a room after a number, `limit` at most, as they are stored: nothing is taken for granted. All of them
    /// are durable when this returns (see `confirm`).
    pub async fn logged(&self, room: RoomId, after: Seq, limit: u32) -> Result<LoggedPage, StoreError> {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&room.0, &after.0, &i64::from(limit)];
        let rows = self.reader().read("read a room's log with its chain", PAGE, &parameters).await?;
        let first = rows.first().ok_or_else(|| StoreError::NotFound(format!("there is no room {room}")))?;
        let entries = rows.iter().filter_map(|row| Some((logged_in(row)?, row.get(5))));
        let page = LoggedPage { entries: entries.collect(), last: Seq(first.get(0)), chain: chain_in(first, 1) };
        if let Some((shown, _)) = page.entries.last() {
            // A row may state any number; what is remembered as durable ends with the head.
            self.confirm_up_to(room, shown.seq.min(page.last), page.last).await?;
        }
        Ok(page)
    }
}
