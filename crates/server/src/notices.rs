//! Telling people what has come home: the authors of late arrivals, and the managers of their rooms.
//!
//! Who is to be told stands in the database until it was done, so that who is away hears of it after the next sign-in. A
//! user is told at every server where a session is when it happens; a notice may come twice, and is never left out.

use crate::app::App;
use crate::frame;
use crate::outbox::{Outbox, SessionId};
use crate::session::Who;
use crate::standing::Standing;
use rules::access::{Deed, decide};
use rules::id::{Epoch, PrincipalId, RoomId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::{Store, StoreError, TailNotice};
use wire::chat::{RefusedEntry, ReturnedRoom, ServerFrame, TailReturned};

/// Between two looks whether somebody is to be told.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Users who are told in one go.
const USERS_AT_ONCE: usize = 100;

/// The sessions here, by user.
#[derive(Default)]
pub struct Listeners(Mutex<HashMap<PrincipalId, Vec<(SessionId, Outbox)>>>);

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, HashMap<PrincipalId, Vec<(SessionId, Outbox)>>> {
        self.0.lock().expect("no code panics while it holds the listeners")
    }

    fn outboxes(&self, user: PrincipalId) -> Vec<Outbox> {
        self.lock().get(&user).into_iter().flatten().map(|(_, outbox)| outbox.clone()).collect()
    }
}

/// A session listens for as long as this lives.
pub struct Listening {
    app: Arc<App>,
    user: PrincipalId,
    session: SessionId,
}

impl Listening {
    /// Let a session listen.
    pub fn begin(app: &Arc<App>, who: &Who) -> Self {
        app.listeners.lock().entry(who.author.id).or_default().push((who.session, who.outbox.clone()));
        Self { app: app.clone(), user: who.author.id, session: who.session }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = self.app.listeners.lock();
        if let Some(sessions) = listeners.get_mut(&self.user) {
            sessions.retain(|(session, _)| *session != self.session);
            if sessions.is_empty() {
                listeners.remove(&self.user);
            }
        }
    }
}

/// Who is still to be told, as the database had it.
#[derive(Default)]
struct Untold {
    /// In which epoch, and when so many tails had been dealt with.
    known: Option<(Epoch, i64)>,
    users: HashSet<PrincipalId>,
}

/// Tell people for as long as the process lives.
pub async fn run(app: Arc<App>) {
    let mut untold = Untold::default();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Standing::Ready { store } = app.standing.borrow().clone() else { continue };
        match tell_all(&app, &store, &mut untold).await {
            Ok(()) => {}
            Err(error) if error.is_passing() => tracing::info!(%error, "notices of late arrivals wait"),
            Err(error) => tracing::error!(%error, "notices of late arrivals could not be given; a person must look"),
        }
    }
}

async fn tell_all(app: &App, store: &Store, untold: &mut Untold) -> Result<(), StoreError> {
    let now = (store.epoch(), store.tails_state().await?.finished);
    if untold.known != Some(now) {
        untold.users = store.untold().await?.into_iter().collect();
        untold.known = Some(now);
    }
    if untold.users.is_empty() {
        return Ok(());
    }
    let here: Vec<PrincipalId> = {
        let listeners = app.listeners.lock();
        untold.users.iter().copied().filter(|user| listeners.contains_key(user)).collect()
    };
    for users in here.chunks(USERS_AT_ONCE) {
        let mut told = Vec::new();
        for user in users {
            for notice in store.tail_notices(*user).await? {
                told.push((*user, notice.tail.clone()));
                let rooms = managed(store, *user, &notice).await?;
                let frame = frame::encode(&ServerFrame::TailReturned(returned(notice, &rooms)));
                app.listeners.outboxes(*user).iter().for_each(|outbox| outbox.push(frame.clone()));
            }
        }
        store.told(&told).await?;
        users.iter().for_each(|user| {
            untold.users.remove(user);
        });
    }
    Ok(())
}

/// The rooms of a notice that the user may manage now: walls hold for notices too.
async fn managed(store: &Store, user: PrincipalId, notice: &TailNotice) -> Result<HashSet<RoomId>, StoreError> {
    if notice.rooms.is_empty() {
        return Ok(HashSet::new());
    }
    let rooms: Vec<RoomId> = notice.rooms.iter().map(|room| room.room).collect();
    let facts = store.facts(&[user], &rooms).await?;
    let Some(asker) = facts.askers.get(&user) else { return Ok(HashSet::new()) };
    Ok(facts
        .rooms
        .iter()
        .filter(|(_, room)| decide(asker, &room.access, Deed::Manage).is_ok())
        .map(|(id, _)| *id)
        .collect())
}

fn returned(notice: TailNotice, managed: &HashSet<RoomId>) -> TailReturned {
    let reason = |row: store::RefusedRow| RefusedEntry {
        room: row.room,
        name: row.room_name,
        seq: row.seq,
        epoch: row.epoch,
        at_us: row.at_us,
        client_id: row.client_id,
        reason: row.reason,
    };
    let room = |row: store::ReturnedRoomRow| ReturnedRoom {
        room: row.room,
        name: row.name,
        entered: row.entered,
        refused: row.refused,
    };
    TailReturned {
        tail: notice.tail,
        host: notice.host,
        entered: notice.entered,
        there: notice.there,
        refused: notice.refused,
        reasons: notice.reasons.into_iter().map(reason).collect(),
        rooms: notice.rooms.into_iter().filter(|row| managed.contains(&row.room)).map(room).collect(),
    }
}
