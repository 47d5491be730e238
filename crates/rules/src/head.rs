//! The head of a room: the number and running hash of its newest entry, as the pool signs it, and as somebody else signs that he has
//! seen it. `docs/receipts.md` has both to the byte.

use crate::chain::{Bytes, Hash, chain_start};
use crate::id::{Epoch, RoomId, Seq};
use crate::merkle::{Tree, leaf_hash};
use crate::signature::{PublicKey, Signature, has_signed};

/// What is signed begins with these words.
const HEAD: &[u8] = b"standfast head 1";
/// A head that was seen is hashed after these words.
const SEEN: &[u8] = b"standfast seen head 1";
/// What is signed of heads that were seen begins with these words.
const SIGHTING: &[u8] = b"standfast sighting 1";

/// The head of a room at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The pool's name.
    pub pool: String,
    /// Which room.
    pub room: RoomId,
    /// The number of its newest entry; 0 of a room without entries.
    pub seq: Seq,
    /// The running hash at it; `None` of a room without entries.
    pub chain: Option<Hash>,
    /// When it was signed: microseconds since the Unix epoch.
    pub at_us: i64,
}

impl Head {
    /// The message that is signed.
    pub fn message(&self) -> Vec<u8> {
        let chain = self.chain.unwrap_or_else(|| chain_start(self.room));
        let mut message = HEAD.to_vec();
        message.extend_from_slice(&(self.pool.len() as u64).to_be_bytes());
        message.extend_from_slice(self.pool.as_bytes());
        for number in [self.room.0, self.seq.0, self.at_us] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&chain.0);
        message
    }

    /// Whether one of these keys has signed it.
    pub fn is_signed_by(&self, keys: &[PublicKey], signature: &Signature) -> bool {
        keys.iter().any(|key| has_signed(key, &self.message(), signature))
    }
}

/// A head as a standby has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenHead {
    /// Which room.
    pub room: RoomId,
    /// The number of its newest entry.
    pub seq: Seq,
    /// The running hash at it.
    pub chain: Hash,
}

impl SeenHead {
    fn leaf(&self) -> Hash {
        leaf_hash(&[SEEN, &self.room.0.to_be_bytes(), &self.seq.0.to_be_bytes(), &self.chain.0].concat())
    }
}

/// Who saw heads, when, and on what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The pool's name.
    pub pool: String,
    /// Whose standby it was.
    pub host: String,
    /// The newest epoch that had begun in its database.
    pub epoch: Epoch,
    /// The log was applied up to here.
    pub lsn: u64,
    /// When that was: microseconds since the Unix epoch.
    pub at_us: i64,
}

impl Sighting {
    /// The message that is signed for these heads; the root is that of a tree over them.
    pub fn message(&self, heads: &[SeenHead]) -> Vec<u8> {
        let root = Tree::over(heads.iter().map(SeenHead::leaf).collect()).map_or(Bytes([0; 32]), |tree| tree.root());
        let mut message = SIGHTING.to_vec();
        for name in [&self.pool, &self.host] {
            message.extend_from_slice(&(name.len() as u64).to_be_bytes());
            message.extend_from_slice(name.as_bytes());
        }
        message.extend_from_slice(&self.epoch.0.to_be_bytes());
        message.extend_from_slice(&self.lsn.to_be_bytes());
        message.extend_from_slice(&self.at_us.to_be_bytes());
        message.extend_from_slice(&(heads.len() as u64).to_be_bytes());
        message.extend_from_slice(&root.0);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::SigningKey;

    #[test]
    fn a_head_is_that_of_one_room_number_and_moment() {
        let key = SigningKey::from_seed(&Bytes([3; 32]));
        let head = Head { pool: "north".into(), room: RoomId(5), seq: Seq(3), chain: Some(Bytes([1; 32])), at_us: 7 };
        let signature = key.sign(&head.message());
        assert!(head.is_signed_by(&[key.public()], &signature));
        assert!(!head.is_signed_by(&[Bytes([1; 32])], &signature));
        for wrong in [
            Head { pool: "south".into(), ..head.clone() },
            Head { room: RoomId(6), ..head.clone() },
            Head { seq: Seq(4), ..head.clone() },
            Head { chain: None, ..head.clone() },
            Head { at_us: 8, ..head.clone() },
        ] {
            assert!(!wrong.is_signed_by(&[key.public()], &signature), "{wrong:?}");
        }
    }

    #[test]
    fn a_sighting_is_of_these_heads_and_no_others() {
        let sighting = Sighting { pool: "north".into(), host: "s2a".into(), epoch: Epoch(1), lsn: 7, at_us: 1 };
        let head = |seq| SeenHead { room: RoomId(5), seq: Seq(seq), chain: Bytes([seq as u8; 32]) };
        let message = sighting.message(&[head(1), head(2)]);
        let others = [
            sighting.message(&[head(1)]),
            sighting.message(&[head(2), head(1)]),
            sighting.message(&[head(1), SeenHead { room: RoomId(6), ..head(2) }]),
            Sighting { pool: "norths".into(), host: "2a".into(), ..sighting.clone() }.message(&[head(1), head(2)]),
            Sighting { epoch: Epoch(2), ..sighting.clone() }.message(&[head(1), head(2)]),
            Sighting { lsn: 8, ..sighting.clone() }.message(&[head(1), head(2)]),
            Sighting { at_us: 2, ..sighting.clone() }.message(&[head(1), head(2)]),
        ];
        for other in others {
            assert_ne!(message, other);
        }
    }
}
