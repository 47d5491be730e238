//! Mending rooms: what links and commits did not bring is read from the database, and sessions whose access has changed
//! are checked again. The database is the truth; everything else is a hint.
//!
//! What is read is confirmed by a write that waits for the mirror, but for rooms that ask for the principal's disk alone: those are mended by
//! themselves, beside the others.

use crate::app::App;
use crate::frame;
use crate::lanes::{Lane, Lanes};
use crate::room::{Need, Offer, Room};
use crate::visible;
use rules::access::{Deed, decide};
use rules::id::{Epoch, PrincipalId, RoomId};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Bound, Store, StoreError};
use tokio::sync::mpsc;
use wire::chat::ServerFrame;

/// How long a gap may wait for a link before the database is asked.
const GAP_WAIT: Duration = Duration::from_millis(4);
/// How often the heads of all rooms with sessions are compared, so that a lost hint stalls nobody for longer.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Entries in one read.
const PAGE: u32 = 500;
/// Rooms whose heads are compared, and whose access is decided on, together.
const AT_ONCE: usize = 200;
/// Rounds of checking access in one go; the next comparison of heads goes on.
const CHECKS_MAX: u32 = 5;

/// A room to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Entries are missing.
    Gap(RoomId),
    /// Access has changed.
    Access(RoomId),
    /// Compare the heads of all rooms.
    All,
}

/// Takes requests. Unbounded, but a room is asked for again only after an offer, and requests are merged.
pub struct Mender {
    lanes: Arc<Mutex<Lanes>>,
    queues: [mpsc::UnboundedSender<Request>; 2],
}

/// The receiving ends, by lane.
pub type Queues = [mpsc::UnboundedReceiver<Request>; 2];

impl Mender {
    /// A mender and its queues. `lanes` knows which rooms are mended by themselves.
    pub fn new(lanes: Arc<Mutex<Lanes>>) -> (Self, Queues) {
        let [(mirror, to_mirror), (disk, to_disk)] = Lane::ALL.map(|_| mpsc::unbounded_channel());
        (Self { lanes, queues: [mirror, disk] }, [to_mirror, to_disk])
    }

    /// Where a room is mended.
    fn lane_of(&self, room: RoomId) -> Lane {
        self.lanes.lock().expect("nothing panics while it holds the lanes").known(room).unwrap_or_default()
    }

    /// Mend a room if it needs it.
    pub fn ask(&self, room: RoomId, need: Need) {
        if need == Need::Mending {
            self.request(Request::Gap(room));
        }
    }

    /// Check access to rooms again; all of this server's rooms when none is named.
    pub fn check_access(&self, rooms: &[RoomId], app: &App) {
        if rooms.is_empty() {
            for (room, _) in app.rooms.all() {
                self.request(Request::Access(room));
            }
        }
        for room in rooms {
            self.request(Request::Access(*room));
        }
    }

    /// Compare the heads of all rooms with the database now.
    pub fn compare_all(&self) {
        self.request(Request::All);
    }

    fn request(&self, request: Request) {
        let only = match request {
            Request::Gap(room) | Request::Access(room) => Some(self.lane_of(room)),
            Request::All => None,
        };
        for lane in Lane::ALL.into_iter().filter(|lane| only.is_none_or(|only| only == *lane)) {
            // An error means that the server ends.
            let _ = self.queues[lane.index()].send(request);
        }
    }
}

/// Carry out a lane's requests, merged, for as long as the process lives.
pub async fn run(app: Arc<App>, lane: Lane, mut queue: mpsc::UnboundedReceiver<Request>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, 4096).await > 0 {
        if batch.iter().all(|request| matches!(request, Request::Gap(_))) {
            tokio::time::sleep(GAP_WAIT).await;
            while let Ok(more) = queue.try_recv() {
                batch.push(more);
            }
        }
        let requests: BTreeSet<Request> = batch.drain(..).collect();
        let Some(store) = app.standing.borrow().store().cloned() else {
            // Every room is brought in line when there is a writer again.
            continue;
        };
        for request in requests {
            let result = match request {
                Request::Gap(room) | Request::Access(room) => {
                    mend(&app, &store, room, matches!(request, Request::Access(_))).await
                }
                Request::All => compare_heads(&app, &store, lane).await,
            };
            if let Err(error) = result {
                tracing::info!(%error, ?request, "a room could not be mended now; the next comparison finds it");
            }
        }
    }
}

/// Compare heads once a second.
pub async fn poll(app: Arc<App>) {
    let mut ticks = tokio::time::interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        app.rooms.forget_idle();
        app.mender.compare_all();
    }
}

/// Mend this lane's rooms that lack something. After a change of writer that is all of them, as far as access goes: many are decided on
/// at once.
async fn compare_heads(app: &App, store: &Store, lane: Lane) -> Result<(), StoreError> {
    let is_here = |id: &RoomId| app.mender.lane_of(*id) == lane;
    let rooms = app.rooms.all().into_iter().filter(|(id, room)| !room.lock().is_empty() && is_here(id));
    let rooms: Vec<RoomId> = rooms.map(|(id, _)| id).collect();
    for some in rooms.chunks(AT_ONCE) {
        let heads: Vec<_> = store.heads(some).await?;
        let known = heads.into_iter().filter_map(|head| Some((app.rooms.get(head.room)?, head)));
        let lacking: Vec<_> = known
            .filter(|(room, head)| room.lock().hint(head.last_seq, head.access_version) == Need::Mending)
            .collect();
        let unchecked = lacking.iter().filter(|(room, head)| head.access_version > room.lock().checked());
        let unchecked: Vec<(RoomId, Arc<Room>)> = unchecked.map(|(room, head)| (head.room, room.clone())).collect();
        check_access(app, store, unchecked).await?;
        for (room, head) in lacking {
            let need = room.lock().hint(head.last_seq, head.access_version);
            if need == Need::Mending {
                mend(app, store, head.room, false).await?;
            }
        }
    }
    Ok(())
}

async fn mend(app: &App, store: &Store, id: RoomId, check: bool) -> Result<(), StoreError> {
    let Some(room) = app.rooms.get(id) else { return Ok(()) };
    let check_it = || check_access(app, store, vec![(id, room.clone())]);
    if check {
        check_it().await?;
    }
    loop {
        let Some(delivered) = room.lock().delivered() else { return Ok(()) };
        let page = visible::page(app, store, id, Bound::After(delivered), PAGE).await?;
        if page.access_version > room.lock().checked() {
            check_it().await?;
        }
        let count = page.entries.len();
        let mut need = Need::Nothing;
        for row in page.entries {
            let (frame, entry) = frame::encode_entry(frame::entry_of(id, row));
            let offer = Offer { seq: entry.seq, access_version: page.access_version, frame };
            need = room.offer(offer, store.epoch());
        }
        // Held back although nothing is missing: access has moved on meanwhile.
        if need == Need::Mending && count > 0 {
            check_it().await?;
        }
        if count < PAGE as usize {
            return Ok(());
        }
    }
}

/// Decide again who may be in these rooms, and tell those who may not.
async fn check_access(app: &App, store: &Store, mut rooms: Vec<(RoomId, Arc<Room>)>) -> Result<(), StoreError> {
    // Sessions that come in on an older decision while this one is made are checked in another round.
    for _ in 0..CHECKS_MAX {
        if rooms.is_empty() {
            return Ok(());
        }
        let ids: Vec<RoomId> = rooms.iter().map(|(id, _)| *id).collect();
        let users: Vec<Vec<PrincipalId>> = rooms.iter().map(|(_, room)| room.lock().users()).collect();
        let all: BTreeSet<PrincipalId> = users.iter().flatten().copied().collect();
        let facts = store.facts(&all.into_iter().collect::<Vec<_>>(), &ids).await?;
        let mut again = Vec::new();
        for ((id, room), users) in rooms.into_iter().zip(users) {
            let Some(room_facts) = facts.rooms.get(&id) else {
                room.lock().resume_all();
                continue;
            };
            app.poster.learn(id, room_facts.durability);
            let may_stay = |user: &PrincipalId| {
                facts.askers.get(user).is_some_and(|asker| decide(asker, &room_facts.access, Deed::Join).is_ok())
            };
            let gone: Vec<PrincipalId> = users.iter().copied().filter(|user| !may_stay(user)).collect();
            let (out, checked) = {
                let mut live = room.lock();
                (live.access_checked(room_facts.access_version, &users, &gone), live.checked())
            };
            for member in out {
                tracing::info!(room = %id, user = %member.user, "a session leaves the room: its access was taken away");
                member.outbox.push(frame::encode(&ServerFrame::Left { id: 0, room: id }));
            }
            if checked < room_facts.access_version {
                again.push((id, room));
            }
        }
        rooms = again;
    }
    Ok(())
}

/// Before anything of a writer that has just been reached is shown: when the epoch has changed, sessions of rooms whose history was
/// rewound below what they have seen are told to resume, and the others' access counts as undecided, so that nothing is shown in a room
/// before it has been decided on again. What the rooms lack is mended afterwards ([`Mender::compare_all`]).
pub async fn settle(app: &App, store: &Store, epoch_settled: Option<Epoch>) -> Result<(), StoreError> {
    app.rooms.show_epoch(store.epoch());
    let rooms = app.rooms.all();
    if let Some(since) = epoch_settled.filter(|since| *since != store.epoch()) {
        let ids: Vec<RoomId> = rooms.iter().map(|(id, _)| *id).collect();
        let (heads, starts) = tokio::try_join!(store.heads(&ids), store.rewound(&ids, since))?;
        let existing: BTreeSet<RoomId> = heads.into_iter().map(|head| head.room).collect();
        let starts: std::collections::HashMap<_, _> = starts.into_iter().collect();
        for (id, room) in &rooms {
            let mut live = room.lock();
            let lost = match (live.delivered(), starts.get(id)) {
                (Some(delivered), Some(start)) => delivered > *start,
                (Some(_), None) => !existing.contains(id),
                (None, _) => false,
            };
            if lost {
                tracing::warn!(room = %id, "history was rewound; its sessions resume from their cursors");
                live.resume_all();
            } else {
                live.forget_early();
            }
        }
    }
    Ok(())
}
