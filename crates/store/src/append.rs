//! Appending to the logs of rooms: a whole batch as one transaction and one round trip.

use crate::connection::{Connection, Store, Waits};
use crate::error::StoreError;
use crate::flushed::{FLUSHED, Flushed};
use rand::RngCore;
use rules::chain::{Bytes, Facts, Hash, Nonce, content_digest, entry_digest};
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

pub use crate::history::EntryKind;

/// An entry to be appended.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// To which room.
    pub room: RoomId,
    /// Who writes it.
    pub author: PrincipalId,
    /// The author's client message id: a second entry with it is answered with the first result.
    pub client_id: Option<Uuid>,
    /// What it is.
    pub kind: EntryKind,
    /// What it is about, if it is about an earlier entry.
    pub target: Option<Seq>,
    /// Its text.
    pub body: Option<String>,
    /// The room's access version on which the decision to take this entry rests.
    pub access_version: i64,
}

/// What became of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Written now, or there already (`repeated`).
    At {
        /// The room that holds it: of a repeated one, the room of the first.
        room: RoomId,
        /// Its number.
        seq: Seq,
        /// The epoch in which it was written.
        epoch: Epoch,
        /// Microseconds since the Unix epoch.
        at_us: i64,
        /// Whether it was there already.
        repeated: bool,
        /// What its receipt rests on.
        evidence: Evidence,
    },
    /// The room's access is not what the decision rests on any more: decide again.
    Stale,
}

/// What a receipt for an entry rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The room's running hash at the entry.
    pub chain: Hash,
    /// The digest of the text that was first written.
    pub content: Hash,
    /// What that text is salted with; `None` when it has been removed or replaced since.
    pub nonce: Option<Nonce>,
    /// Whether the transaction that wrote or found the entry was to wait for a synchronous standby.
    pub waited_for_standby: bool,
}

/// A batch ready to be sent, as often as it takes: columns, and places of repetitions within the batch.
#[derive(Debug, Default)]
pub struct Batch {
    rooms: Vec<i64>,
    versions: Vec<i64>,
    counts: Vec<i64>,
    places: Vec<i32>,
    nths: Vec<i32>,
    authors: Vec<i64>,
    client_ids: Vec<Option<Uuid>>,
    kinds: Vec<i16>,
    targets: Vec<Option<i64>>,
    bodies: Vec<Option<String>>,
    nonces: Vec<Option<Nonce>>,
    contents: Vec<Hash>,
    entries: Vec<Hash>,
    /// For each entry given: the row that stands for it, and whether it is a repetition of an earlier one.
    rows: Vec<(usize, bool)>,
    waits: Waits,
}

/// What became of a batch, an answer for each entry in the order given.
pub type BatchResult = Vec<Appended>;

impl Batch {
    /// Lay out a batch, whose commit waits for the mirror. Of entries with one author and client message id the first stands for all. Where two entries
    /// state different access versions of a room, the lower counts: at worst both come back stale.
    pub fn new(entries: Vec<NewEntry>) -> Self {
        let mut versions: BTreeMap<i64, i64> = BTreeMap::new();
        for entry in &entries {
            let version = versions.entry(entry.room.0).or_insert(entry.access_version);
            *version = entry.access_version.min(*version);
        }
        let places: HashMap<i64, i32> = versions.keys().zip(1..).map(|(room, place)| (*room, place)).collect();
        let mut batch = Batch {
            rooms: versions.keys().copied().collect(),
            versions: versions.values().copied().collect(),
            counts: vec![0; versions.len()],
            ..Batch::default()
        };
        let mut seen: HashMap<(PrincipalId, Uuid), usize> = HashMap::with_capacity(entries.len());
        for entry in entries {
            if let Some(first) = entry.client_id.and_then(|id| seen.get(&(entry.author, id))) {
                batch.rows.push((*first, true));
                continue;
            }
            let row = batch.places.len();
            if let Some(id) = entry.client_id {
                seen.insert((entry.author, id), row);
            }
            batch.rows.push((row, false));
            let place = places[&entry.room.0];
            let count = &mut batch.counts[place as usize - 1];
            *count += 1;
            batch.nths.push(*count as i32);
            batch.places.push(place);
            let nonce = entry.body.is_some().then(random_nonce);
            let content = content_digest(nonce.zip(entry.body.as_deref()));
            let facts = Facts {
                room: entry.room,
                author: entry.author,
                kind: entry.kind.code(),
                target: entry.target,
                client_id: entry.client_id.map(Uuid::into_bytes),
                first: None,
                content,
            };
            batch.nonces.push(nonce);
            batch.contents.push(content);
            batch.entries.push(entry_digest(&facts));
            batch.authors.push(entry.author.0);
            batch.client_ids.push(entry.client_id);
            batch.kinds.push(entry.kind.code());
            batch.targets.push(entry.target.map(|t| t.0));
            batch.bodies.push(entry.body);
        }
        batch
    }

    /// The batch, whose commit waits for these.
    #[must_use]
    pub fn waiting(self, waits: Waits) -> Self {
        Self { waits, ..self }
    }

    /// Entries in the batch, repetitions included.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

fn random_nonce() -> Nonce {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    Bytes(bytes)
}

/// Hashes and nonces as PostgreSQL takes them.
fn columns<const N: usize>(bytes: &[Bytes<N>]) -> Vec<&[u8]> {
    bytes.iter().map(|b| &b.0[..]).collect()
}

/// Whether a batch may have been written already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was never sent.
    First,
    /// The outcome of an earlier attempt is unknown.
    Again,
}

const APPEND_FRESH: &str = "SELECT lasts, at_us, chains, waits FROM standfast.append_fresh(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

const APPEND: &str = "SELECT outcomes, rooms, seqs, epochs, ats_us, chains, nonces, contents, waits
    FROM standfast.append_entries($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

const DOING: &str = "append to the rooms' logs";

impl Store {
    /// Append a batch as one transaction. When this returns `Ok`, every entry in it that is `At` is durable, on the mirror too
    /// where the batch waits for it. An entry in another room than the one given, which its client message id has had before, is visible and may be less.
    ///
    /// After `Lost` or `Unknown` nothing may be acknowledged: the batch is to be run again, on this store or on the next
    /// one, and finds by the client message ids what has been written. `EpochRefused` and `HeldUp`: nothing was written.
    pub async fn append(&self, batch: &Batch, attempt: Attempt) -> Result<BatchResult, StoreError> {
        self.append_with(batch, attempt, Asks::Nothing).await.map(|(results, _)| results)
    }

    /// The same, and who had flushed the log up to the transaction's end when it was through; `None` when that was not to be found
    /// out in time. Asking takes no round trip of its own.
    pub async fn append_and_ask(
        &self,
        batch: &Batch,
        attempt: Attempt,
    ) -> Result<(BatchResult, Option<Flushed>), StoreError> {
        self.append_with(batch, attempt, Asks::WhoHasFlushed).await
    }

    async fn append_with(
        &self,
        batch: &Batch,
        attempt: Attempt,
        asks: Asks,
    ) -> Result<(BatchResult, Option<Flushed>), StoreError> {
        if batch.is_empty() {
            return Ok((Vec::new(), None));
        }
        let appended = self.append_as_expected(batch, attempt, asks).await;
        if matches!(appended, Err(StoreError::EpochRefused { .. })) {
            self.sent_away();
        }
        let (answers, flushed) = appended?;
        let results = batch.rows.iter().map(|(row, repetition)| as_repetition(answers[*row], *repetition)).collect();
        Ok((results, flushed))
    }

    async fn append_as_expected(&self, batch: &Batch, attempt: Attempt, asks: Asks) -> Result<Answers, StoreError> {
        let connection = self.appender(batch.waits).await?;
        let careful = attempt == Attempt::Again || self.expects_repetitions.load(Ordering::Relaxed);
        let fresh = if careful { None } else { Some(append_fresh(&connection, self.epoch(), batch, asks).await) };
        match fresh {
            Some(Err(error)) if !error.is_duplicate() => Err(error),
            Some(Ok(answers)) => Ok(answers),
            Some(Err(_)) | None => {
                let (answers, flushed) = append_carefully(&connection, self.epoch(), batch, asks).await?;
                let repeats = answers.iter().any(|answer| matches!(answer, Appended::At { repeated: true, .. }));
                self.expects_repetitions.store(repeats, Ordering::Relaxed);
                Ok((answers, flushed))
            }
        }
    }
}

/// What is asked right behind a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Nothing,
    WhoHasFlushed,
}

/// An answer for each row of a batch, and to what was asked behind it.
type Answers = (Vec<Appended>, Option<Flushed>);

/// Run a statement that appends, and ask. `places`: its parameters before those that say what the entries are.
async fn run(
    connection: &Connection,
    sql: &'static str,
    places: &[&(dyn ToSql + Sync)],
    batch: &Batch,
    asks: Asks,
) -> Result<(Row, Option<Flushed>), StoreError> {
    let nonces: Vec<Option<&[u8]>> = batch.nonces.iter().map(|n| n.as_ref().map(|n| &n.0[..])).collect();
    let (contents, entries) = (columns(&batch.contents), columns(&batch.entries));
    let what: [&(dyn ToSql + Sync); 8] =
        [&batch.authors, &batch.client_ids, &batch.kinds, &batch.targets, &batch.bodies, &nonces, &contents, &entries];
    let parameters = [places, &what].concat();
    let of_all: &[&(dyn ToSql + Sync)] = &[&None::<&str>];
    let question = (asks == Asks::WhoHasFlushed).then_some((FLUSHED, of_all));
    let (rows, flushed) = connection.write_and_ask(DOING, sql, &parameters, question).await?;
    let row = rows.into_iter().next().ok_or_else(unexpected_shape)?;
    Ok((row, flushed.and_then(|rows| Flushed::of(&rows))))
}

/// What a standby allows of appending: PostgreSQL understands the statements, and what they need, before it refuses to write.
pub(crate) async fn rehearse(connection: &Connection, epoch: Epoch) -> Result<(), StoreError> {
    let nothing = Batch::default();
    let asks = Asks::Nothing;
    for tried in [
        append_carefully(connection, epoch, &nothing, asks).await,
        append_fresh(connection, epoch, &nothing, asks).await,
    ] {
        match tried {
            Ok(_) | Err(StoreError::NotAWriter { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    connection.prepare(FLUSHED).await
}

async fn append_fresh(connection: &Connection, epoch: Epoch, batch: &Batch, asks: Asks) -> Result<Answers, StoreError> {
    let places: &[&(dyn ToSql + Sync)] =
        &[&epoch.0, &batch.rooms, &batch.versions, &batch.counts, &batch.places, &batch.nths];
    let (row, flushed) = run(connection, APPEND_FRESH, places, batch, asks).await?;
    let lasts: Vec<Option<i64>> = row.get(0);
    let at_us: i64 = row.get(1);
    let chains: Vec<Option<&[u8]>> = row.get(2);
    let waited_for_standby: bool = row.get(3);
    if lasts.len() != batch.rooms.len() || chains.len() != batch.places.len() {
        return Err(unexpected_shape());
    }
    let answer = |i: usize| {
        let place = batch.places[i] as usize - 1;
        let Some(last) = lasts[place] else { return Ok(Appended::Stale) };
        let chain = chains[i].and_then(Bytes::of).ok_or_else(unexpected_shape)?;
        let (content, nonce) = (batch.contents[i], batch.nonces[i]);
        Ok(Appended::At {
            room: RoomId(batch.rooms[place]),
            seq: Seq(last + i64::from(batch.nths[i])),
            epoch,
            at_us,
            repeated: false,
            evidence: Evidence { chain, content, nonce, waited_for_standby },
        })
    };
    let answers: Vec<Appended> = (0..batch.places.len()).map(answer).collect::<Result<_, _>>()?;
    Ok((answers, flushed))
}

async fn append_carefully(
    connection: &Connection,
    epoch: Epoch,
    batch: &Batch,
    asks: Asks,
) -> Result<Answers, StoreError> {
    let places: &[&(dyn ToSql + Sync)] = &[&epoch.0, &batch.rooms, &batch.versions, &batch.places];
    let (row, flushed) = run(connection, APPEND, places, batch, asks).await?;
    let outcomes: Vec<i16> = row.get(0);
    let rooms: Vec<i64> = row.get(1);
    let seqs: Vec<i64> = row.get(2);
    let epochs: Vec<i64> = row.get(3);
    let ats_us: Vec<i64> = row.get(4);
    let chains: Vec<Option<&[u8]>> = row.get(5);
    let nonces: Vec<Option<&[u8]>> = row.get(6);
    let contents: Vec<Option<&[u8]>> = row.get(7);
    let waited_for_standby: bool = row.get(8);
    if outcomes.len() != batch.places.len() || chains.len() != outcomes.len() {
        return Err(unexpected_shape());
    }
    let answer = |i: usize| {
        let chain = chains[i].and_then(Bytes::of);
        let (chain, content, nonce) = match outcomes[i] {
            0 => (chain, Some(batch.contents[i]), batch.nonces[i]),
            1 => (chain, contents[i].and_then(Bytes::of), nonces[i].and_then(Bytes::of)),
            _ => return Ok(Appended::Stale),
        };
        let (chain, content) = chain.zip(content).ok_or_else(unexpected_shape)?;
        Ok(Appended::At {
            room: RoomId(rooms[i]),
            seq: Seq(seqs[i]),
            epoch: Epoch(epochs[i]),
            at_us: ats_us[i],
            repeated: outcomes[i] == 1,
            evidence: Evidence { chain, content, nonce, waited_for_standby },
        })
    };
    let answers: Vec<Appended> = (0..outcomes.len()).map(answer).collect::<Result<_, _>>()?;
    Ok((answers, flushed))
}

fn unexpected_shape() -> StoreError {
    StoreError::Invalid("the database appended a batch and answered in an unexpected shape".to_owned())
}

fn as_repetition(answer: Appended, repetition: bool) -> Appended {
    match answer {
        Appended::At { room, seq, epoch, at_us, repeated, evidence } => {
            Appended::At { room, seq, epoch, at_us, repeated: repeated || repetition, evidence }
        }
        Appended::Stale => Appended::Stale,
    }
}
