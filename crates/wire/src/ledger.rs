//! The ledger: what clients were told and what they saw, one JSON object a line, so that anybody can audit it.
//! `docs/ledger.md` describes it for people who write their own auditor.

use crate::receipt::Receipt;
use rules::id::{Epoch, RoomId, Seq};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A line of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum LedgerLine {
    /// First line: what this ledger is about.
    Head {
        /// The pool's name.
        pool: String,
        /// RFC 3339.
        began_at: String,
        /// Format version, 1.
        format: u32,
    },
    /// A room that is played into.
    Room {
        /// Its number.
        room: RoomId,
        /// Its name.
        name: String,
        /// The log file played, without its folder.
        source: String,
    },
    /// A post was acknowledged to its author.
    Ack {
        /// The room.
        room: RoomId,
        /// Its number.
        seq: Seq,
        /// The epoch.
        epoch: Epoch,
        /// The client message id.
        client_id: Uuid,
        /// The author.
        user: String,
        /// SHA-256 of the text in UTF-8, hexadecimal.
        hash: String,
        /// Milliseconds since the Unix epoch, by the client's clock.
        at_ms: i64,
        /// Milliseconds from the first sending to the acknowledgement.
        took_ms: u64,
        /// The receipt that came with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<Receipt>>,
    },
    /// A client saw an entry.
    Seen {
        /// The room.
        room: RoomId,
        /// Its number.
        seq: Seq,
        /// The epoch of the entry.
        epoch: Epoch,
        /// The client message id.
        client_id: Option<Uuid>,
        /// Who saw it.
        user: String,
        /// SHA-256 of the text, hexadecimal.
        hash: String,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// A client joined a room: its deliveries follow from here.
    Joined {
        /// The room.
        room: RoomId,
        /// Who.
        user: String,
        /// The last number that it has; deliveries go on with the next one. `None`: a fresh join with history.
        after: Option<Seq>,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// A client left a room.
    Left {
        /// The room.
        room: RoomId,
        /// Who.
        user: String,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// A client was told that history was rewound.
    Rewound {
        /// The room.
        room: RoomId,
        /// Who was told.
        user: String,
        /// From this number on, what was seen before is void.
        from: Seq,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// A connection was lost or moved.
    Disconnected {
        /// Whose.
        user: String,
        /// Why, as far as the client knows.
        reason: String,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// Last line: how it ended.
    End {
        /// Posts sent, whether acknowledged or not.
        posts: u64,
        /// Posts acknowledged.
        acknowledged: u64,
        /// Posts given up: never acknowledged.
        given_up: u64,
        /// Milliseconds since the Unix epoch.
        at_ms: i64,
    },
}
