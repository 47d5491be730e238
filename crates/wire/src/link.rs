//! Links between chat servers (default port 8011): a hint that entries were committed, never the truth.
//!
//! TCP; each frame is a 4-byte big-endian length and that many bytes of JSON. The connecting side opens with `Open`, whose
//! proof is a keyed hash; the accepting side closes the connection on anything that it does not expect.

use rules::id::{Epoch, RoomId, Seq};
use serde::{Deserialize, Serialize};

/// Largest frame in bytes.
pub const FRAME_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Frames from the accepting side.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AcceptorFrame {
    /// First frame: a fresh nonce, 32 hexadecimal digits.
    Challenge {
        /// To be proved.
        nonce: String,
    },
}

/// Frames from the connecting side.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ConnectorFrame {
    /// Answer to the challenge.
    Open {
        /// The connecting server.
        server: String,
        /// HMAC-SHA256 over the nonce with the pool's key for server links, hexadecimal.
        proof: String,
    },
    /// Entries that the sender has committed, in the order of each room. After this frame's JSON, in the same frame,
    /// follows a line for each of them, in the same order: the entry as clients get it, which the receiver passes on
    /// without reading it.
    Committed {
        /// The entries.
        entries: Vec<Committed>,
    },
    /// Access to rooms changed: forget what was cached. Empty: forget everything.
    AccessChanged {
        /// The rooms.
        rooms: Vec<RoomId>,
    },
    /// Sent when nothing else was for a second.
    Alive,
}

/// What a server has to know of an entry that another one has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Which room.
    pub room: RoomId,
    /// Its number.
    pub seq: Seq,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// The room's access version under which it was written: a receiver whose sessions were checked under an older one
    /// checks them again before it shows the entry.
    pub access_version: i64,
}
