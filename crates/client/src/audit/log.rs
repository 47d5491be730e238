//! A room's log as the auditor keeps it: everything but the texts, of which a hash is enough.

use rules::chain::Hash as ChainHash;
use rules::id::{Epoch, Seq};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;
use wire::chat::{Content, Entry};
use wire::http::EpochStart;

/// SHA-256 of a text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// The hash of a text.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// From 64 hexadecimal digits; anything else equals no text's hash.
    pub fn from_hex(hex: &str) -> Self {
        let mut bytes = [0; 32];
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Self(bytes);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = ((pair[0] as char).to_digit(16), (pair[1] as char).to_digit(16)) else {
                return Self([0; 32]);
            };
            *byte = (high * 16 + low) as u8;
        }
        Self(bytes)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(DIGITS[usize::from(byte >> 4)].into());
            hex.push(DIGITS[usize::from(byte & 15)].into());
        }
        f.write_str(&hex)
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// SHA-256 of a text in UTF-8, in hexadecimal, as ledgers have it.
pub fn hash_of(text: &str) -> String {
    Hash::of(text).to_string()
}

/// An entry, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number.
    pub seq: Seq,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// Who wrote it.
    pub author: Arc<str>,
    /// The author's client message id.
    pub client_id: Option<Uuid>,
    /// The hash of its text as it is now.
    pub hash: Hash,
    /// Whether it is a late arrival.
    pub is_late: bool,
}

/// A room's log.
#[derive(Clone, Debug, Default)]
pub struct RoomLog {
    /// The room's name, for people.
    pub name: String,
    /// Its entries, by number.
    entries: Vec<LogEntry>,
    by_client_id: HashMap<Uuid, usize>,
    authors: HashSet<Arc<str>>,
    changed: HashSet<Seq>,
    epochs: Vec<EpochStart>,
    /// The running hash at each entry, by number; empty when no receipt is about this room.
    chains: Vec<ChainHash>,
    /// What is wrong with the log itself: numbers.
    pub disorders: Vec<String>,
    /// What is wrong with the log itself: posts that are there twice.
    pub duplicates: Vec<String>,
}

impl RoomLog {
    /// An empty log.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The number after which the log goes on.
    pub fn last(&self) -> Seq {
        self.entries.last().map_or(Seq::START, |e| e.seq)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where later epochs began, as the newest page has it.
    pub fn set_epochs(&mut self, epochs: Vec<EpochStart>) {
        self.epochs = epochs;
    }

    /// Take the running hash at the next entry.
    pub fn push_chain(&mut self, chain: ChainHash) {
        self.chains.push(chain);
    }

    /// The running hash at an entry.
    pub fn chain_at(&self, seq: Seq) -> Option<ChainHash> {
        usize::try_from(seq.0 - 1).ok().and_then(|at| self.chains.get(at)).copied()
    }

    /// Take the entry that the pool gave next.
    pub fn push(&mut self, entry: &Entry) {
        let (seq, expected) = (entry.seq, self.last().next());
        if seq != expected {
            self.disorders.push(format!("room '{}': entry {seq} stands where {expected} belongs", self.name));
        }
        if let Content::Removal { target } | Content::Replacement { target, .. } = &entry.content {
            self.changed.insert(*target);
        }
        if let Some(id) = entry.client_id
            && let Some(first) = self.by_client_id.insert(id, self.entries.len())
            && *self.entries[first].author == *entry.author
        {
            let before = self.entries[first].seq;
            let author = &entry.author;
            self.duplicates
                .push(format!("room '{}': post {id} of {author} stands at {before} and at {seq}", self.name));
        }
        let author = self.author(&entry.author);
        let hash = Hash::of(crate::replay::book::text_of(&entry.content));
        let (epoch, client_id, is_late) = (entry.epoch, entry.client_id, entry.late.is_some());
        self.entries.push(LogEntry { seq, epoch, author, client_id, hash, is_late });
    }

    fn author(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.authors.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.authors.insert(new.clone());
        new
    }

    /// The entry with this number.
    pub fn at(&self, seq: Seq) -> Option<&LogEntry> {
        let likely = usize::try_from(seq.0 - 1).ok().and_then(|at| self.entries.get(at));
        likely.filter(|e| e.seq == seq).or_else(|| self.entries.iter().find(|e| e.seq == seq))
    }

    /// The entry with this client message id.
    pub fn find(&self, client_id: Uuid) -> Option<&LogEntry> {
        self.by_client_id.get(&client_id).map(|at| &self.entries[*at])
    }

    /// The client message ids in it.
    pub fn client_ids(&self) -> impl Iterator<Item = &Uuid> {
        self.by_client_id.keys()
    }

    /// Whether an administrator has changed the entry's text since it was written.
    pub fn is_changed(&self, seq: Seq) -> bool {
        self.changed.contains(&seq)
    }

    /// Whether a later epoch took the place of what `epoch` wrote at `seq`.
    pub fn voids(&self, epoch: Epoch, seq: Seq) -> bool {
        self.epochs.iter().any(|start| start.epoch > epoch && start.last_seq < seq)
    }

    /// Entries that stand on the wrong side of where an epoch began: two have written at the same time.
    pub fn misplaced(&self) -> Vec<String> {
        let wrong = |entry: &&LogEntry| {
            self.epochs.iter().any(|start| (entry.seq > start.last_seq) != (entry.epoch >= start.epoch))
        };
        let name = &self.name;
        let say = |e: &LogEntry| format!("room '{name}': entry {} of epoch {} stands in another epoch", e.seq, e.epoch);
        self.entries.iter().filter(wrong).map(say).collect()
    }
}
