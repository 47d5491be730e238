//! Rooms' logs with their chains, for those who check them: pages of a log, and exports.
//!
//! An export is a text of JSON lines: the room, its entries in order, and the end. So `standfast verify export` writes it, and
//! so it can be checked offline, by this program or another one (`docs/receipts.md`).

use rules::chain::{First, Hash, Nonce};
use rules::head::Head;
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::signature::{KeyId, Signature, SigningKey};
use rules::verify::Logged;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An entry with all that its running hash rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChainedEntry {
    /// Its number.
    #[schema(value_type = i64)]
    pub seq: Seq,
    /// The epoch in which it was written.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// Its author's number, which is hashed.
    #[schema(value_type = i64)]
    pub author: PrincipalId,
    /// Its author's name now, which is not.
    pub author_name: String,
    /// When it was written: microseconds since the Unix epoch.
    pub at_us: i64,
    /// 0 post, 1 removal, 2 replacement, 3 room change.
    pub kind: i16,
    /// The entry that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub target: Option<Seq>,
    /// The author's client message id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Uuid>,
    /// Of a late arrival: what it was before its site was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::chat::Late>)]
    pub first: Option<First>,
    /// Its text now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What its text is salted with, 32 hexadecimal digits; none when it has no text of its own, or not any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub nonce: Option<Nonce>,
    /// The digest of its text as it was written, 64 hexadecimal digits.
    #[schema(value_type = String)]
    pub digest: Hash,
    /// The room's running hash at it, 64 hexadecimal digits.
    #[schema(value_type = String)]
    pub chain: Hash,
}

/// `GET /v1/rooms/{id}/chain?after=…`: a part of a room's log and the room's head, as they stand in the database.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChainPage {
    /// The entries, in order; fewer than 1,000: there are no more.
    pub entries: Vec<ChainedEntry>,
    /// The number that the room's head states.
    #[schema(value_type = i64)]
    pub last_seq: Seq,
    /// The running hash that it states; none of a room without entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub chain: Option<Hash>,
    /// The head, signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedHead>,
}

/// Who vouches for a room's head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedHead {
    /// The pool's name.
    pub pool: String,
    /// When it was signed: microseconds since the Unix epoch.
    pub at_us: i64,
    /// The name of the key, 16 hexadecimal digits.
    #[schema(value_type = String)]
    pub key: KeyId,
    /// The signature, 64 bytes in base64.
    #[serde(with = "crate::receipt::base64_bytes")]
    #[schema(value_type = String)]
    pub signature: Signature,
}

impl SignedHead {
    /// Sign a head.
    pub fn new(head: &Head, key: &SigningKey) -> Self {
        Self { pool: head.pool.clone(), at_us: head.at_us, key: key.id(), signature: key.sign(&head.message()) }
    }
}

/// A line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum ExportLine {
    /// First line: which room.
    Room {
        /// Its number, which is hashed.
        room: RoomId,
        /// Its name.
        name: String,
        /// Format version, 1.
        format: u32,
    },
    /// An entry, in the order of the numbers.
    Entry(ChainedEntry),
    /// Last line: the room's head.
    End {
        /// The number of its newest entry.
        last_seq: Seq,
        /// The running hash at it; none of a room without entries.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chain: Option<Hash>,
        /// The same, signed by the pool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signed: Option<SignedHead>,
    },
}

impl From<(Logged, String)> for ChainedEntry {
    fn from((logged, author_name): (Logged, String)) -> Self {
        let Logged { seq, epoch, author, at_us, kind, target, client_id, first, text, nonce, content, chain } = logged;
        let client_id = client_id.map(Uuid::from_bytes);
        Self {
            seq,
            epoch,
            author,
            author_name,
            at_us,
            kind,
            target,
            client_id,
            first,
            text,
            nonce,
            digest: content,
            chain,
        }
    }
}

impl From<ChainedEntry> for Logged {
    fn from(entry: ChainedEntry) -> Self {
        let ChainedEntry {
            seq, epoch, author, at_us, kind, target, client_id, first, text, nonce, digest, chain, ..
        } = entry;
        let client_id = client_id.map(Uuid::into_bytes);
        Self { seq, epoch, author, at_us, kind, target, client_id, first, text, nonce, content: digest, chain }
    }
}
