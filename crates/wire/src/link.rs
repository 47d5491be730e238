//! Links between chat servers (default port 8011): a hint that entries were committed, never the truth.
//!
//! TCP; each frame is a 4-byte big-endian length and that many bytes of JSON. The connecting side opens with `Open`, whose
//! proof is a keyed hash; the accepting side closes the connection on anything that it does not expect.

use crate::chat::RefusalCode;
use rules::durability::Rule;
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::receipt::{Durable, Grounds};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
    /// Posts for the receiver to write, in the order in which they were posted.
    Forward {
        /// Rises when the sender takes posts back. Of a run of which the receiver has declined a post it declines all that
        /// follow.
        run: u64,
        /// The posts.
        posts: Vec<Forwarded>,
    },
    /// What became of posts that the receiver has forwarded.
    Answered {
        /// An answer each.
        answers: Vec<Answered>,
    },
    /// The sender has written its canary durably.
    Canary {
        /// In which epoch.
        epoch: Epoch,
        /// Its number.
        n: i64,
    },
    /// The sender has heard of the receiver's canary.
    CanaryHeard {
        /// In which epoch it was written.
        epoch: Epoch,
        /// Its number.
        n: i64,
    },
    /// So many clients wait at the sender to be let in: where they are few, others may be sent there.
    Waiting {
        /// How many.
        clients: u64,
    },
    /// Sent when nothing else was for a second.
    Alive,
}

/// A post that another server is to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// The sender's number for it.
    pub number: u64,
    /// To which room.
    pub room: RoomId,
    /// Whose it is.
    pub author: PrincipalId,
    /// The author's name.
    pub author_name: String,
    /// The author's client message id.
    pub client_id: Uuid,
    /// The text, checked.
    pub text: String,
    /// Whether its author wants a receipt.
    #[serde(default)]
    pub receipt: bool,
}

/// What became of a forwarded post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The number with which it was forwarded.
    pub number: u64,
    /// Its client message id, so that an answer to an earlier process is not taken for one to this.
    pub client_id: Uuid,
    /// The outcome.
    pub outcome: ForwardOutcome,
}

/// The outcome of a forwarded post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum ForwardOutcome {
    /// Durable.
    Written {
        /// The room that holds it.
        room: RoomId,
        /// Its number.
        seq: Seq,
        /// The epoch in which it was written.
        epoch: Epoch,
        /// Microseconds since the Unix epoch.
        at_us: i64,
        /// Whether it was there already.
        repeated: bool,
        /// Where it is durable.
        #[serde(default)]
        durable: Durable,
        /// What its receipt rests on, if one is wanted. The server that answers the author signs it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grounds: Option<Grounds>,
    },
    /// Written, and to be acknowledged only when it is as durable as its room's category asks for. Who answers the author waits
    /// for that; who has written it shows it then.
    Committed {
        /// The room that holds it.
        room: RoomId,
        /// Its number.
        seq: Seq,
        /// The epoch in which it was written.
        epoch: Epoch,
        /// Microseconds since the Unix epoch.
        at_us: i64,
        /// Whether it was there already.
        repeated: bool,
        /// What its receipt rests on, if one is wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grounds: Option<Grounds>,
        /// What the acknowledgement waits for.
        rule: Rule,
        /// The epoch of the writer.
        writer: Epoch,
    },
    /// Not written.
    Refused {
        /// Machine-readable reason.
        code: RefusalCode,
        /// For people.
        message: String,
    },
    /// Not written, and not to be written here: the sender writes it itself.
    Declined,
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
