//! Receipts: what a server states of a post that it acknowledges, and how that is signed and checked.
//!
//! A server answers many posts at once and signs once: the statements are the leaves of a tree ([`crate::merkle`]), and what is
//! signed is its root. `docs/receipts.md` writes out to the byte what is hashed and signed.

use crate::chain::{Bytes, Hash, Nonce};
use crate::id::{Epoch, PrincipalId, RoomId, Seq};
use crate::merkle::{PATH_MAX, leaf_hash, root_of};
use crate::signature::{KeyId, PublicKey, Signature, has_signed, key_id};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A receipt's leaf begins with these words.
const RECEIPT: &[u8] = b"standfast receipt 1";
/// What is signed begins with these words: the root of a tree of receipts follows.
const RECEIPTS: &[u8] = b"standfast receipts 1";
/// Signatures whose check is remembered.
const CHECKED_MAX: usize = 10_000;

/// On whose disks a post was known to be when it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durable {
    /// The principal's.
    #[default]
    Disk,
    /// The principal's and its mirror's, and the record said that the pair is synchronised.
    Mirror,
    /// One at the other site too.
    Site,
}

impl Durable {
    /// The byte that stands for it in a leaf.
    fn code(self) -> u8 {
        match self {
            Durable::Disk => 0,
            Durable::Mirror => 1,
            Durable::Site => 2,
        }
    }
}

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durable::Disk => "disk",
            Durable::Mirror => "mirror",
            Durable::Site => "site",
        })
    }
}

/// What a server knows of an entry's hashes when it has written or found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grounds {
    /// The room's running hash at the entry.
    pub chain: Hash,
    /// The digest of the text that was first written.
    pub content: Hash,
    /// What that text is salted with; `None` when it has been removed or replaced since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
}

/// What a receipt states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The pool's name.
    pub pool: String,
    /// The room that holds the post.
    pub room: RoomId,
    /// Its number.
    pub seq: Seq,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// When: microseconds since the Unix epoch.
    pub at_us: i64,
    /// Who wrote it.
    pub author: PrincipalId,
    /// The author's client message id, its bytes in the order in which it is written.
    pub client_id: [u8; 16],
    /// The digest of its text ([`crate::chain::content_digest`]).
    pub content: Hash,
    /// How durable it was when it was acknowledged.
    pub durable: Durable,
    /// The room's running hash at it.
    pub chain: Hash,
}

impl Statement {
    /// The hash of its leaf.
    pub fn leaf(&self) -> Hash {
        let mut leaf = Vec::with_capacity(192 + self.pool.len());
        leaf.extend_from_slice(RECEIPT);
        leaf.extend_from_slice(&(self.pool.len() as u64).to_be_bytes());
        leaf.extend_from_slice(self.pool.as_bytes());
        for number in [self.room.0, self.seq.0, self.epoch.0, self.at_us, self.author.0] {
            leaf.extend_from_slice(&number.to_be_bytes());
        }
        leaf.extend_from_slice(&self.client_id);
        leaf.extend_from_slice(&self.content.0);
        leaf.push(self.durable.code());
        leaf.extend_from_slice(&self.chain.0);
        leaf_hash(&leaf)
    }
}

/// The message that is signed for a tree of receipts.
pub fn signed_root(size: u32, root: &Hash) -> Vec<u8> {
    [RECEIPTS, &u64::from(size).to_be_bytes(), &root.0].concat()
}

/// How a statement is proved: its place in the tree whose root is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The key that signed.
    pub key: KeyId,
    /// The statement's place among the leaves, from 0.
    pub index: u32,
    /// Leaves in the tree.
    pub size: u32,
    /// The hashes beside its way to the root, from below.
    pub path: Vec<Hash>,
    /// The signature.
    pub signature: Signature,
}

/// Why a receipt is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// No key that was given has signed it.
    #[error("it is signed with key {0}, which is none of those that are trusted here")]
    UnknownKey(KeyId),
    /// The place and the hashes are not those of a tree.
    #[error("the hashes of its proof do not fit its place in the tree")]
    Path,
    /// What it states is not what was signed.
    #[error("what it states, or its proof, is not what was signed")]
    Signature,
}

/// Checks receipts with the keys that are trusted. A signature that many of them share is checked once.
#[derive(Debug, Default)]
pub struct Checker {
    keys: Vec<PublicKey>,
    checked: BTreeSet<(PublicKey, Hash, u32, Signature)>,
}

impl Checker {
    /// Trust these keys.
    pub fn trusting(keys: Vec<PublicKey>) -> Self {
        Self { keys, checked: BTreeSet::new() }
    }

    /// Check a receipt.
    ///
    /// # Errors
    /// When it is none of these keys'.
    pub fn check(&mut self, statement: &Statement, proof: &Proof) -> Result<(), Unproved> {
        let key = self.keys.iter().find(|key| key_id(key) == proof.key);
        let key = *key.ok_or(Unproved::UnknownKey(proof.key))?;
        let path = Some(&proof.path).filter(|path| path.len() <= PATH_MAX);
        let root = path.and_then(|path| root_of(statement.leaf(), proof.index, proof.size, path));
        let root = root.ok_or(Unproved::Path)?;
        let known = (key, root, proof.size, proof.signature);
        if self.checked.contains(&known) {
            return Ok(());
        }
        if !has_signed(&key, &signed_root(proof.size, &root), &proof.signature) {
            return Err(Unproved::Signature);
        }
        if self.checked.len() >= CHECKED_MAX {
            self.checked.clear();
        }
        self.checked.insert(known);
        Ok(())
    }
}

/// Hashes one after the other, as a proof carries them.
pub fn joined(path: &[Hash]) -> Vec<u8> {
    path.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes again; `None` when the bytes are not whole hashes, or too many.
pub fn separated(bytes: &[u8]) -> Option<Vec<Hash>> {
    if !bytes.len().is_multiple_of(32) || bytes.len() > PATH_MAX * 32 {
        return None;
    }
    bytes.chunks_exact(32).map(Bytes::of).collect()
}

#[cfg(test)]
#[path = "receipt_tests.rs"]
mod tests;
