//! Checking a room's log against its chain, entry by entry, and naming the first that does not fit.
//!
//! A hash says that something differs, not what. So where one does not fit, what may have stood there is tried: other authors,
//! epochs, kinds, targets, the times of the neighbours. And what follows tells an entry that was changed from a chain that
//! was.

use crate::chain::{Facts, First, Hash, Nonce, Place, chain_next, chain_start, content_digest, entry_digest};
use crate::id::{Epoch, PrincipalId, RoomId, Seq};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Kinds of entries, as the database numbers them, that change the text of another one.
const REMOVAL: i16 = 1;
const REPLACEMENT: i16 = 2;
/// Numbers of principals that are tried for an author, beside those that have written in the room.
const AUTHORS_TRIED: i64 = 1000;
/// Targets that are tried.
const TARGETS_TRIED: i64 = 100_000;

/// An entry as a log or an export has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its number.
    pub seq: Seq,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// Who wrote it.
    pub author: PrincipalId,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    /// 0 post, 1 removal, 2 replacement, 3 room change.
    pub kind: i16,
    /// What it is about.
    pub target: Option<Seq>,
    /// The author's client message id.
    pub client_id: Option<[u8; 16]>,
    /// Of a late arrival: what it was before its site was lost.
    pub first: Option<First>,
    /// Its text now.
    pub text: Option<String>,
    /// What its text is salted with; `None` without a text of its own.
    pub nonce: Option<Nonce>,
    /// The digest of its text as it was written.
    pub content: Hash,
    /// The room's running hash at it.
    pub chain: Hash,
}

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Differs {
    /// There is no entry with this number.
    Missing,
    /// It comes where another number is due.
    Order,
    /// The text is not the one that was written.
    Text,
    /// The text is gone, or another one, and no removal or replacement in the log says why.
    TextWithoutReason,
    /// The digest of the text is another one, the text is not.
    Digest,
    /// The author was somebody else.
    Author {
        /// Who it was.
        was: PrincipalId,
    },
    /// The epoch was another one.
    Epoch {
        /// Which it was.
        was: Epoch,
    },
    /// The kind was another one.
    Kind {
        /// Which it was.
        was: i16,
    },
    /// It was about another entry.
    Target {
        /// About which.
        was: Option<Seq>,
    },
    /// The time was another one.
    Time {
        /// Which it was: that of an entry beside it.
        was: i64,
    },
    /// The time, the client message id or what a late arrival was: which of them cannot be told.
    TimeOrClientId,
    /// The running hash is another one, the entry is not.
    Chain,
    /// The entry and its running hash do not belong together, nor does what follows.
    Entry,
    /// It lies beyond the end that the room's head states.
    BeyondHead,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Differs::Missing => write!(f, "it is missing"),
            Differs::Order => write!(f, "another number is due there"),
            Differs::Text => write!(f, "its text is not the one that was written"),
            Differs::TextWithoutReason => {
                write!(f, "its text was taken away or replaced, and no removal or replacement in the log says so")
            }
            Differs::Digest => write!(f, "the digest of its text was changed"),
            Differs::Author { was } => write!(f, "its author was principal {was}"),
            Differs::Epoch { was } => write!(f, "its epoch was {was}"),
            Differs::Kind { was } => write!(f, "its kind was {was}"),
            Differs::Target { was: Some(was) } => write!(f, "it was about number {was}"),
            Differs::Target { was: None } => write!(f, "it was about no other entry"),
            Differs::Time { was } => write!(f, "its time was {was} µs"),
            Differs::TimeOrClientId => {
                write!(f, "its time, client message id or first place is not the one that was written")
            }
            Differs::Chain => write!(f, "its running hash was changed"),
            Differs::Entry => write!(f, "it is not the entry that was written there"),
            Differs::BeyondHead => write!(f, "it lies beyond the end that the room's head states"),
        }
    }
}

/// The first entry that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("number {seq} of room {room} does not fit: {differs}")]
pub struct Fault {
    /// Which room.
    pub room: RoomId,
    /// Which number.
    pub seq: Seq,
    /// What differs.
    pub differs: Differs,
}

/// Checks the log of one room: its entries come in, in order, then its head.
#[derive(Debug)]
pub struct Verifier {
    room: RoomId,
    last: Seq,
    chain: Hash,
    authors: BTreeSet<PrincipalId>,
    epoch_max: Epoch,
    last_at_us: Option<i64>,
    /// Entries whose text is not their own any more, and what it is now.
    changed: BTreeMap<Seq, Option<String>>,
    /// What removals and replacements have made of their targets.
    made: BTreeMap<Seq, Option<String>>,
    suspect: Option<Suspect>,
}

/// An entry that does not fit, until what follows has been seen.
#[derive(Debug)]
struct Suspect {
    entry: Logged,
    before: Hash,
    computed: Hash,
}

impl Verifier {
    /// For a room, from its first entry on.
    pub fn new(room: RoomId) -> Self {
        Self {
            room,
            last: Seq::START,
            chain: chain_start(room),
            authors: BTreeSet::new(),
            epoch_max: Epoch::FIRST,
            last_at_us: None,
            changed: BTreeMap::new(),
            made: BTreeMap::new(),
            suspect: None,
        }
    }

    /// The number of the last entry that was checked.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Check the next entry.
    ///
    /// # Errors
    /// The first entry that does not fit: this one, or the one before.
    pub fn entry(&mut self, entry: Logged) -> Result<(), Fault> {
        if let Some(suspect) = self.suspect.take() {
            return Err(self.name(
                &suspect,
                |chain| chain_at(self.room, chain, &entry) == entry.chain,
                Some(entry.at_us),
            ));
        }
        if entry.seq != self.last.next() {
            let (seq, differs) =
                if entry.seq > self.last { (self.last.next(), Differs::Missing) } else { (entry.seq, Differs::Order) };
            return Err(self.fault(seq, differs));
        }
        let computed = chain_at(self.room, &self.chain, &entry);
        self.check_text(&entry, computed == entry.chain)?;
        if computed != entry.chain {
            self.suspect = Some(Suspect { before: self.chain, computed, entry });
            return Ok(());
        }
        if let (REMOVAL | REPLACEMENT, Some(target)) = (entry.kind, entry.target) {
            self.made.insert(target, if entry.kind == REPLACEMENT { entry.text.clone() } else { None });
        }
        self.authors.insert(entry.author);
        self.epoch_max = self.epoch_max.max(entry.epoch);
        self.last_at_us = Some(entry.at_us);
        self.last = entry.seq;
        self.chain = entry.chain;
        Ok(())
    }

    /// The text belongs to its digest, or has been taken away or replaced: then the log says so further on.
    fn check_text(&mut self, entry: &Logged, chain_fits: bool) -> Result<(), Fault> {
        let computed = match (entry.nonce, &entry.text) {
            (Some(nonce), Some(text)) => content_digest(Some((nonce, text))),
            (None, None) if entry.content == content_digest(None) => return Ok(()),
            (None, text) => {
                self.changed.insert(entry.seq, text.clone());
                return Ok(());
            }
            (Some(_), None) => return Err(self.fault(entry.seq, Differs::Text)),
        };
        if computed == entry.content {
            return Ok(());
        }
        let with_text = chain_at(self.room, &self.chain, &Logged { content: computed, ..entry.clone() });
        let differs = if !chain_fits && with_text == entry.chain { Differs::Digest } else { Differs::Text };
        Err(self.fault(entry.seq, differs))
    }

    /// All entries have been checked; the room's head states this last number and running hash, `None` in a room without
    /// entries.
    ///
    /// # Errors
    /// The first entry that does not fit.
    pub fn head(mut self, last: Seq, chain: Option<Hash>) -> Result<(), Fault> {
        let chain = chain.unwrap_or_else(|| chain_start(self.room));
        if let Some(suspect) = self.suspect.take() {
            if suspect.entry.seq > last {
                return Err(self.fault(suspect.entry.seq, Differs::BeyondHead));
            }
            return Err(self.name(&suspect, |before| *before == chain, None));
        }
        let unexplained = |(seq, text): (&Seq, &Option<String>)| {
            let explained = self.made.get(seq).is_some_and(|made| made == text);
            (!explained).then_some(*seq)
        };
        if let Some(seq) = self.changed.iter().find_map(unexplained) {
            return Err(self.fault(seq, Differs::TextWithoutReason));
        }
        if self.last < last {
            return Err(self.fault(self.last.next(), Differs::Missing));
        }
        if self.last > last {
            return Err(self.fault(last.next(), Differs::BeyondHead));
        }
        if self.chain != chain {
            return Err(self.fault(last, Differs::Chain));
        }
        Ok(())
    }

    /// Say what differs in an entry that does not fit. `follows`: whether what comes next goes on from such a running hash.
    fn name(&self, suspect: &Suspect, follows: impl Fn(&Hash) -> bool, next_at_us: Option<i64>) -> Fault {
        let entry = &suspect.entry;
        let fits = |tried: &Logged| chain_at(self.room, &suspect.before, tried) == entry.chain;
        let with = |change: &dyn Fn(&mut Logged)| {
            let mut tried = entry.clone();
            change(&mut tried);
            fits(&tried)
        };
        let authors = (1..=AUTHORS_TRIED).map(PrincipalId).chain(self.authors.iter().copied());
        let epochs = (0..=self.epoch_max.max(entry.epoch).0.min(AUTHORS_TRIED) + 1).map(Epoch);
        let targets = (1..=entry.seq.0.min(TARGETS_TRIED)).map(|n| Some(Seq(n))).chain([None]);
        let times = [self.last_at_us, next_at_us].into_iter().flatten();
        let differs = if let Some(was) = { authors }.find(|was| with(&|tried| tried.author = *was)) {
            Differs::Author { was }
        } else if let Some(was) = { epochs }.find(|was| with(&|tried| tried.epoch = *was)) {
            Differs::Epoch { was }
        } else if let Some(was) = (0..=3).find(|was| with(&|tried| tried.kind = *was)) {
            Differs::Kind { was }
        } else if let Some(was) = { targets }.find(|was| with(&|tried| tried.target = *was)) {
            Differs::Target { was }
        } else if let Some(was) = { times }.find(|was| with(&|tried| tried.at_us = *was)) {
            Differs::Time { was }
        } else if follows(&entry.chain) {
            Differs::TimeOrClientId
        } else if follows(&suspect.computed) {
            Differs::Chain
        } else {
            Differs::Entry
        };
        self.fault(entry.seq, differs)
    }

    fn fault(&self, seq: Seq, differs: Differs) -> Fault {
        Fault { room: self.room, seq, differs }
    }
}

/// The running hash at an entry, from the one before.
pub fn chain_at(room: RoomId, before: &Hash, entry: &Logged) -> Hash {
    let facts = Facts {
        room,
        author: entry.author,
        kind: entry.kind,
        target: entry.target,
        client_id: entry.client_id,
        first: entry.first,
        content: entry.content,
    };
    let place = Place { seq: entry.seq, epoch: entry.epoch, at_us: entry.at_us };
    chain_next(before, place, &entry_digest(&facts))
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
