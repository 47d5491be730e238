//! Late arrivals: what a lost site had acknowledged and history went on without is entered again, when its disks have
//! returned and its tail stands in the database.
//!
//! One server at a time does it, under a lease; what is done, and that it is done once, is the database's to keep. A tail
//! is taken in chunks with pauses between them, so that nobody's post waits for it: a chunk holds its rooms for as long as a
//! batch of posts does.

use crate::after_commit::{Shown, hint};
use crate::app::App;
use crate::frame::late_of;
use crate::standing::Standing;
use rules::access::Asker;
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::late::{LateEntry, LateFacts, LateKind, LateRefusal, decide_late};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Facts, LateOutcome, ReEntered, Store, StoreError, TailChunk, TailEntryRow};
use wire::chat::{Content, Entry};

/// The job's name in the table of leases.
const JOB: &str = "late arrivals";
/// A server that has said nothing for so long has lost the job.
const LEASE: Duration = Duration::from_secs(10);
/// Between two looks for a tail.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries in one transaction.
const CHUNK: u32 = 100;
/// The pause after a chunk, as a multiple of the time that it took: three quarters of the time belong to everybody else.
const PAUSE: u32 = 3;

/// How a tail went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    /// It has been dealt with.
    Through,
    /// Another server is at it.
    Elsewhere,
}

/// Enter tails for as long as the process lives.
pub async fn run(app: Arc<App>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Standing::Ready { store } = app.standing.borrow().clone() else { continue };
        match enter_tails(&app, &store).await {
            Ok(()) => {}
            Err(error) if error.is_passing() => tracing::info!(%error, "late arrivals wait; they are tried again"),
            Err(error) => {
                tracing::error!(%error, "late arrivals could not be entered; a person must look; they are tried again");
            }
        }
    }
}

/// Deal with every tail that is there, unless another server does.
async fn enter_tails(app: &App, store: &Store) -> Result<(), StoreError> {
    while let Some(tail) = store.tails_state().await?.next {
        let is_ours = store.hold_lease(JOB, app.name.as_str(), LEASE).await?;
        if !is_ours || enter_tail(app, store, &tail).await? == Went::Elsewhere {
            break;
        }
    }
    Ok(())
}

/// What administrators changed comes before what people wrote: its rooms and authors have to be there.
async fn make_changes(app: &App, store: &Store, tail: &str) -> Result<(), StoreError> {
    loop {
        match store.re_enter_change(tail).await {
            Ok(None) => return Ok(()),
            Ok(Some(rooms)) if rooms.is_empty() => {}
            Ok(Some(rooms)) => app.access_changed(&rooms),
            Err(error) if error.is_passing() => return Err(error),
            Err(error) => {
                tracing::error!(%error, tail, "PostgreSQL refuses a lost site's change; it stays in its tail");
                store.refuse_change(tail, &error.to_string()).await?;
            }
        }
    }
}

async fn enter_tail(app: &App, store: &Store, tail: &str) -> Result<Went, StoreError> {
    tracing::info!(tail, "entering what a lost site had acknowledged");
    let mut leased = Instant::now();
    make_changes(app, store, tail).await?;
    let mut singly = 0;
    loop {
        let began = Instant::now();
        if leased.elapsed() > LEASE / 2 {
            if !store.hold_lease(JOB, app.name.as_str(), LEASE).await? {
                return Ok(Went::Elsewhere);
            }
            leased = began;
        }
        let limit = if singly > 0 { 1 } else { CHUNK };
        singly -= singly.min(1);
        let Some(chunk) = store.tail_chunk(tail, limit).await? else { break };
        let decided = decide_chunk(store, &chunk).await?;
        match store.re_enter(&chunk, &decided.reasons, &decided.versions).await {
            Ok(ReEntered::Done { outcomes, at_us }) => {
                show_chunk(app, store, &chunk, &decided, (outcomes, at_us));
            }
            // Decided again, on newer facts.
            Ok(ReEntered::Stale) => {}
            Ok(ReEntered::Elsewhere) => return Ok(Went::Elsewhere),
            Err(error) if error.is_passing() => return Err(error),
            Err(error) if chunk.entries.len() > 1 => {
                tracing::warn!(%error, tail, "PostgreSQL refuses some late arrivals together; they are entered one by one");
                singly = chunk.entries.len();
            }
            Err(error) => {
                tracing::error!(%error, tail, n = chunk.first, "PostgreSQL refuses a late arrival; it stays in its tail");
                store.re_enter(&chunk, &[Some(error.to_string())], &BTreeMap::new()).await?;
            }
        }
        tokio::time::sleep(began.elapsed() * PAUSE).await;
    }
    if !store.finish_tail(tail).await? {
        return Ok(Went::Elsewhere);
    }
    tracing::info!(tail, "all that a lost site had acknowledged has been dealt with");
    Ok(Went::Through)
}

/// What was decided on a chunk.
struct Decided {
    /// Why each entry is refused; `None` to enter it.
    reasons: Vec<Option<String>>,
    /// The rooms that exist, and the access versions on which that rests.
    versions: BTreeMap<RoomId, i64>,
    /// Those of the rooms whose posts wait to be durable enough, late arrivals too.
    waits: BTreeSet<RoomId>,
}

async fn decide_chunk(store: &Store, chunk: &TailChunk) -> Result<Decided, StoreError> {
    let authors: BTreeSet<PrincipalId> = chunk.entries.iter().map(|e| e.entry.author).collect();
    let rooms: BTreeSet<RoomId> = chunk.entries.iter().map(|e| e.entry.room).collect();
    let facts = store.facts(&authors.into_iter().collect::<Vec<_>>(), &rooms.into_iter().collect::<Vec<_>>()).await?;
    let entries: Vec<LateEntry> = chunk.entries.iter().map(|e| e.entry).collect();
    let reason = |decision: Result<(), LateRefusal>| decision.err().map(|refusal| refusal.to_string());
    Ok(Decided {
        reasons: decide_late(&entries, &late_facts(&facts, chunk)).into_iter().map(reason).collect(),
        versions: facts.rooms.iter().map(|(id, room)| (*id, room.access_version)).collect(),
        waits: facts.rooms.iter().filter(|(_, room)| room.durability.waits()).map(|(id, _)| *id).collect(),
    })
}

fn late_facts(facts: &Facts, chunk: &TailChunk) -> LateFacts {
    let authors: BTreeMap<PrincipalId, Asker> = facts.askers.iter().map(|(id, asker)| (*id, asker.clone())).collect();
    let rooms = facts.rooms.iter().map(|(id, room)| (*id, room.access.clone())).collect();
    LateFacts { authors, rooms, targets: chunk.targets.clone() }
}

/// Show what was entered to those who are there. What is about another entry is read from the database, which knows the
/// number that its target has now; so is what may not be shown yet.
fn show_chunk(
    app: &App,
    store: &Store,
    chunk: &TailChunk,
    Decided { versions, waits, .. }: &Decided,
    (outcomes, at_us): (Vec<LateOutcome>, i64),
) {
    let mut shown = Shown::default();
    let epoch = store.epoch();
    for (row, outcome) in chunk.entries.iter().zip(outcomes) {
        let LateOutcome::Entered(seq) = outcome else { continue };
        let LateEntry { room, kind, .. } = row.entry;
        match (kind, versions.get(&room)) {
            (LateKind::Post, Some(version)) if !waits.contains(&room) => {
                shown.show(app, (room, seq, epoch), *version, || entry_of(row, seq, epoch, at_us));
            }
            _ => hint(app, room, seq),
        }
    }
    shown.tell(app);
}

fn entry_of(row: &TailEntryRow, seq: Seq, epoch: Epoch, at_us: i64) -> Entry {
    Entry {
        room: row.entry.room,
        seq,
        epoch,
        author: row.author.clone(),
        at_us,
        client_id: row.client_id,
        late: Some(late_of(row.first)),
        content: Content::Post { text: row.body.clone().unwrap_or_default() },
    }
}
