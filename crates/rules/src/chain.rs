//! The chain of a room: each entry carries a hash over itself and the hash of the entry before.
//!
//! What is hashed is written out to the byte in `docs/receipts.md`, so that others can check a log without this program;
//! the database computes the same in `append_fresh` and `append_entries`. All numbers are big-endian and of fixed width, and
//! each kind of hash begins with words of its own, so that no two different things are ever hashed as the same bytes.

use crate::id::{Epoch, PrincipalId, RoomId, Seq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;

/// What a room's chain begins with is hashed after these words.
const ROOM: &[u8] = b"standfast room 1";
/// A text, or that there is none.
const TEXT: &[u8] = b"standfast text 1";
/// An entry without its place.
const ENTRY: &[u8] = b"standfast entry 1";
/// An entry at its place.
const CHAIN: &[u8] = b"standfast chain 1";

/// Bytes fixed in number, shown as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes<const N: usize>(pub [u8; N]);

/// A SHA-256 hash.
pub type Hash = Bytes<32>;
/// What a text is salted with: random, and erased together with the text.
pub type Nonce = Bytes<16>;

impl<const N: usize> Bytes<N> {
    /// The bytes, if there are as many as there should be.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Read hexadecimal digits, two for each byte and nothing else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * N {
            return None;
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16)?;
            let low = (pair[1] as char).to_digit(16)?;
            *byte = (high * 16 + low) as u8;
        }
        Some(Self(bytes))
    }
}

impl<const N: usize> fmt::Display for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for byte in self.0 {
            let pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
            f.write_str(std::str::from_utf8(&pair).expect("hexadecimal digits are ASCII"))?;
        }
        Ok(())
    }
}

impl<const N: usize> fmt::Debug for Bytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{} hexadecimal digits are needed", 2 * N)))
    }
}

/// What a late arrival was before its site was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    /// The epoch in which it was first written.
    pub epoch: Epoch,
    /// Its number then.
    pub seq: Seq,
    /// When that was: microseconds since the Unix epoch.
    pub at_us: i64,
}

/// All that is known of an entry before it has its place, and is covered by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which room.
    pub room: RoomId,
    /// Who wrote it.
    pub author: PrincipalId,
    /// What it is, as the database numbers it: 0 post, 1 removal, 2 replacement, 3 room change.
    pub kind: i16,
    /// The entry that it is about.
    pub target: Option<Seq>,
    /// The author's client message id, its bytes in the order in which it is written.
    pub client_id: Option<[u8; 16]>,
    /// Of a late arrival: what it was.
    pub first: Option<First>,
    /// The digest of its text ([`content_digest`]).
    pub content: Hash,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number in the room.
    pub seq: Seq,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// When it was written: microseconds since the Unix epoch.
    pub at_us: i64,
}

/// What a room's chain begins with: it stands for the entry before the first.
pub fn chain_start(room: RoomId) -> Hash {
    hash(&[ROOM, &room.0.to_be_bytes()])
}

/// The digest of a text as it was written; `None` of an entry without one.
pub fn content_digest(content: Option<(Nonce, &str)>) -> Hash {
    match content {
        None => hash(&[TEXT, &[0]]),
        Some((nonce, text)) => hash(&[TEXT, &[1], &nonce.0, text.as_bytes()]),
    }
}

/// The digest of an entry without its place.
pub fn entry_digest(facts: &Facts) -> Hash {
    let target = optional(facts.target.map(|target| target.0.to_be_bytes()));
    let client_id = optional(facts.client_id);
    let first = facts.first.map_or([0; 25], |first| {
        let mut bytes = [1; 25];
        bytes[1..9].copy_from_slice(&first.epoch.0.to_be_bytes());
        bytes[9..17].copy_from_slice(&first.seq.0.to_be_bytes());
        bytes[17..].copy_from_slice(&first.at_us.to_be_bytes());
        bytes
    });
    hash(&[
        ENTRY,
        &facts.room.0.to_be_bytes(),
        &facts.author.0.to_be_bytes(),
        &facts.kind.to_be_bytes(),
        &target.0,
        &target.1,
        &client_id.0,
        &client_id.1,
        &first,
        &facts.content.0,
    ])
}

/// The room's running hash at an entry, from the one before and the entry's digest.
pub fn chain_next(before: &Hash, place: Place, entry: &Hash) -> Hash {
    let Place { seq, epoch, at_us } = place;
    hash(&[CHAIN, &before.0, &seq.0.to_be_bytes(), &epoch.0.to_be_bytes(), &at_us.to_be_bytes(), &entry.0])
}

/// A byte that says whether there is something, and that or zeros.
fn optional<const N: usize>(bytes: Option<[u8; N]>) -> ([u8; 1], [u8; N]) {
    bytes.map_or(([0], [0; N]), |bytes| ([1], bytes))
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    Bytes(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the page gives as an example, so that somebody else can check a program of their own.
    #[test]
    fn the_example_of_the_page_holds() {
        let content = content_digest(Some((Bytes([7; 16]), "Grüße")));
        let facts = Facts {
            room: RoomId(5),
            author: PrincipalId(11),
            kind: 0,
            target: None,
            client_id: Some([9; 16]),
            first: None,
            content,
        };
        let entry = entry_digest(&facts);
        let place = Place { seq: Seq(1), epoch: Epoch(1), at_us: 1_700_000_000_000_000 };
        let start = chain_start(facts.room);
        let page = include_str!("../../../docs/receipts.md");
        for hash in [start, content, entry, chain_next(&start, place, &entry)] {
            assert!(page.contains(&hash.to_string()), "the page lacks {hash}");
        }
    }

    #[test]
    fn hexadecimal_digits_are_read_as_they_are_written() {
        let bytes = Bytes([0, 1, 0xab, 0xff]);
        assert_eq!(bytes.to_string(), "0001abff");
        assert_eq!(Bytes::from_hex("0001abff"), Some(bytes));
        for wrong in ["0001abf", "0001abfff", "0001abfg", "+001abff", "0001abé"] {
            assert_eq!(Bytes::<4>::from_hex(wrong), None, "{wrong}");
        }
    }
}
