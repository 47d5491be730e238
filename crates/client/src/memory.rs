//! What a session remembers over its connections, and what follows from each frame. No IO and no clock of its own.
//!
//! Always true: the posts to one room are offered in the order in which they were handed over; a post is offered until it
//! is acknowledged or refused for good; entries of a joined room are passed on in order, each once, and anything else is
//! passed on as a disorder. A post to a room that is being joined waits for the answer: a rewind may come with it, and what
//! was rewound is offered again first.

use crate::event::Event;
use rules::durability::Durability;
use rules::id::{Epoch, RoomId, Seq};
use rules::limit::HISTORY_DEFAULT;
use rules::receipt::Durable;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use wire::chat::{ClientFrame, Cursor, Entry, PoolStands, RefusalCode, ServerFrame};
use wire::receipt::{Receipt, Signed};

/// Own acknowledged posts that are remembered, to be offered again should a failover have lost them.
const OWN_MAX: usize = 10_000;
/// Posts that may be under way on one connection at a time; the others wait here.
const UNDER_WAY_MAX: usize = 256;
/// Pause after a refusal that passes.
const PAUSE: Duration = Duration::from_millis(100);
/// So often a post is offered again that fails at the server for reasons of its own.
const INTERNAL_MAX: u32 = 5;

/// Where a room stands on the present connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To be joined.
    Wanted,
    /// Asked with this request.
    Asked(u64),
    /// Joined.
    In,
    /// To be left.
    Unwanted,
    /// Asked to leave with this request.
    Leaving(u64),
}

#[derive(Debug)]
struct RoomMemory {
    place: Place,
    cursor: Option<Cursor>,
    history: u32,
    /// Joined again while it was still being left.
    again: Option<u32>,
}

#[derive(Debug)]
struct Outgoing {
    room: RoomId,
    client_id: Uuid,
    text: Arc<str>,
    since: Instant,
    request: Option<u64>,
    again: bool,
    failures: u32,
    /// It is written, and waits at the server to be durable enough: others need not wait for it.
    held: bool,
}

/// An own post that was acknowledged.
#[derive(Debug)]
struct Own {
    room: RoomId,
    client_id: Uuid,
    text: Arc<str>,
    seq: Seq,
    /// The newest epoch in which a server said that it is there.
    confirmed: Epoch,
}

/// What an acknowledgement says of a post.
struct Told {
    room: RoomId,
    seq: Seq,
    epoch: Epoch,
    at_us: i64,
    durable: Durable,
    less_than: Option<Durability>,
    receipt: Option<Box<Signed>>,
}

/// What a session remembers.
#[derive(Debug)]
pub struct Memory {
    /// The pool's name, as the server told it.
    pool_name: String,
    epoch: Epoch,
    /// Where the pool stood when that epoch was heard of.
    pool: PoolStands,
    rooms: BTreeMap<RoomId, RoomMemory>,
    outgoing: VecDeque<Outgoing>,
    waiting: usize,
    own: VecDeque<Own>,
    next_request: u64,
    let_in: bool,
    errands: bool,
    pause_until: Option<Instant>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            pool_name: String::new(),
            epoch: Epoch(0),
            pool: PoolStands::default(),
            rooms: BTreeMap::new(),
            outgoing: VecDeque::new(),
            waiting: 0,
            own: VecDeque::new(),
            next_request: 1,
            let_in: false,
            errands: false,
            pause_until: None,
        }
    }
}

impl Memory {
    /// The owner wants to be in a room, with so many of its latest entries.
    pub fn join(&mut self, room: RoomId, history: Option<u32>) {
        let history = history.unwrap_or(HISTORY_DEFAULT);
        self.errands = true;
        let fresh = RoomMemory { place: Place::Wanted, cursor: None, history, again: None };
        let known = self.rooms.entry(room).or_insert(fresh);
        match known.place {
            Place::Unwanted | Place::Leaving(_) => known.again = Some(history),
            Place::Wanted | Place::Asked(_) | Place::In => {}
        }
    }

    /// The owner wants to be in a room and has everything up to the cursor already.
    pub fn resume(&mut self, room: RoomId, cursor: Cursor) {
        self.errands = true;
        let fresh = RoomMemory { place: Place::Wanted, cursor: Some(cursor), history: HISTORY_DEFAULT, again: None };
        self.rooms.entry(room).or_insert(fresh);
    }

    /// The owner wants to leave a room. A room that was not joined yet is left at once.
    pub fn leave(&mut self, room: RoomId, out: &mut Vec<Event>) {
        self.errands = true;
        let Some(known) = self.rooms.get_mut(&room) else { return };
        known.again = None;
        match known.place {
            Place::Wanted => {
                self.rooms.remove(&room);
                out.push(Event::Left { room, asked: true });
            }
            Place::Asked(_) | Place::In => known.place = Place::Unwanted,
            Place::Unwanted | Place::Leaving(_) => {}
        }
    }

    /// The owner hands over a post.
    pub fn post(&mut self, room: RoomId, client_id: Uuid, text: Arc<str>, now: Instant) {
        self.outgoing.push_back(Outgoing {
            room,
            client_id,
            text,
            since: now,
            request: None,
            again: false,
            failures: 0,
            held: false,
        });
        self.waiting += 1;
    }

    /// Whether anything was asked that has no answer yet.
    pub fn awaits_answers(&self) -> bool {
        self.outgoing.len() > self.waiting || self.rooms.values().any(|r| matches!(r.place, Place::Asked(_)))
    }

    /// Posts that are not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.outgoing.len()
    }

    /// The connection is gone: what was asked on it has no answer any more.
    pub fn cut(&mut self, out: &mut Vec<Event>) {
        self.let_in = false;
        self.pause_until = None;
        for post in &mut self.outgoing {
            (post.request, post.held) = (None, false);
        }
        self.waiting = self.outgoing.len();
        self.rooms.retain(|room, known| match (known.place, known.again.take()) {
            (Place::Unwanted | Place::Leaving(_), None) => {
                out.push(Event::Left { room: *room, asked: true });
                false
            }
            (Place::Unwanted | Place::Leaving(_), Some(history)) => {
                *known = RoomMemory { place: Place::Wanted, cursor: None, history, again: None };
                true
            }
            (Place::Wanted | Place::Asked(_) | Place::In, _) => {
                known.place = Place::Wanted;
                true
            }
        });
    }

    /// What is to be sent now, appended to `frames`.
    pub fn due(&mut self, now: Instant, frames: &mut Vec<ClientFrame>) {
        if !self.let_in || self.pause_until.is_some_and(|until| now < until) {
            return;
        }
        self.pause_until = None;
        if std::mem::take(&mut self.errands) {
            self.run_errands(frames);
        }
        self.offer_posts(frames);
    }

    /// When something that pauses is to go on.
    pub fn pause_until(&self) -> Option<Instant> {
        self.pause_until
    }

    fn run_errands(&mut self, frames: &mut Vec<ClientFrame>) {
        for (room, known) in &mut self.rooms {
            let (id, room) = (self.next_request, *room);
            match known.place {
                Place::Wanted => {
                    let history = known.cursor.is_none().then_some(known.history);
                    frames.push(ClientFrame::Join { id, room, after: known.cursor, history });
                    known.place = Place::Asked(id);
                }
                Place::Unwanted => {
                    frames.push(ClientFrame::Leave { id, room });
                    known.place = Place::Leaving(id);
                }
                Place::Asked(_) | Place::In | Place::Leaving(_) => continue,
            }
            self.next_request += 1;
        }
    }

    fn offer_posts(&mut self, frames: &mut Vec<ClientFrame>) {
        if self.waiting == 0 {
            return;
        }
        let mut under_way = self.outgoing.iter().filter(|p| p.request.is_some() && !p.held).count();
        if under_way >= UNDER_WAY_MAX {
            return;
        }
        for post in self.outgoing.iter_mut().filter(|p| p.request.is_none()) {
            let place = self.rooms.get(&post.room).map(|r| r.place);
            if matches!(place, Some(Place::Wanted | Place::Asked(_))) {
                continue;
            }
            let id = self.next_request;
            self.next_request += 1;
            post.request = Some(id);
            self.waiting -= 1;
            let text = post.text.to_string();
            frames.push(ClientFrame::Post { id, room: post.room, client_id: post.client_id, text });
            under_way += 1;
            if under_way >= UNDER_WAY_MAX {
                return;
            }
        }
    }

    /// Take a frame in. Events are appended to `out`; an error says why the connection is to be given up.
    pub fn hear(&mut self, frame: ServerFrame, now: Instant, out: &mut Vec<Event>) -> Result<(), String> {
        match frame {
            ServerFrame::Welcome { server, epoch, pool_name, pool, .. } => {
                self.pool_name = pool_name;
                (self.let_in, self.errands) = (true, true);
                out.push(Event::Connected { server, epoch });
                self.pool_stands(epoch, pool, out);
                self.enter_epoch(epoch, now, out);
            }
            ServerFrame::Joined { id, room, name, head, rewound_from } => {
                self.joined(id, room, name, head, rewound_from, now, out);
            }
            ServerFrame::Left { id, room } => self.left(id, room, out),
            ServerFrame::Ack { id, room, client_id, seq, epoch, at_us, repeated: _, durable, less_than, receipt } => {
                let told = Told { room, seq, epoch, at_us, durable, less_than, receipt };
                self.acknowledged(id, client_id, told, now, out);
            }
            ServerFrame::PostWaits { id, room, client_id, durability, reason } => {
                if let Some(post) = self.outgoing.iter_mut().find(|p| p.request == Some(id) && p.client_id == client_id)
                {
                    post.held = true;
                    out.push(Event::PostWaits { room, client_id, durability, reason });
                }
            }
            ServerFrame::Refused { id, code, message } => return self.refused(id, code, message, now, out),
            ServerFrame::Entry(entry) => return self.entry(entry, out),
            ServerFrame::TailReturned(returned) => out.push(Event::TailReturned(returned)),
            ServerFrame::Waiting { reason, since_us } => out.push(Event::Waiting { reason, since_us }),
            ServerFrame::Queued { ahead, about_ms } => {
                out.push(Event::Queued { ahead, about: Duration::from_millis(about_ms) });
            }
            ServerFrame::ComeBack { after_ms, reason, .. } => {
                self.let_in = false;
                out.push(Event::ComesBack { after: Duration::from_millis(after_ms), reason });
            }
            ServerFrame::Ready { epoch, pool } => {
                out.push(Event::Ready { epoch });
                self.pool_stands(epoch, pool, out);
                self.enter_epoch(epoch, now, out);
            }
            ServerFrame::Move { reason, .. } => {
                // A server that is not active drops posts; they are kept for the next one.
                self.let_in = false;
                out.push(Event::Moved { reason });
            }
        }
        Ok(())
    }

    /// Tell where the pool stands when that is news: a later epoch than the last one heard of.
    fn pool_stands(&mut self, epoch: Epoch, now: PoolStands, out: &mut Vec<Event>) {
        if epoch <= self.epoch {
            return;
        }
        let was_failed_over = std::mem::replace(&mut self.pool, now.clone()).failed_over;
        if self.epoch > Epoch(0) {
            out.push(Event::PoolChanged { epoch, now, was_failed_over });
        }
    }

    /// A later epoch has begun. Own posts are asked about where no join will tell: in rooms that are not joined any more, and
    /// in joined rooms beyond what was delivered.
    fn enter_epoch(&mut self, epoch: Epoch, now: Instant, out: &mut Vec<Event>) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        let rooms = &self.rooms;
        let doubtful = |own: &Own| match rooms.get(&own.room) {
            None => true,
            Some(RoomMemory { place: Place::In | Place::Unwanted, cursor: Some(cursor), .. }) => own.seq > cursor.seq,
            Some(_) => false,
        };
        let doubtful: Vec<bool> = self.own.iter().map(doubtful).collect();
        let mut at = 0;
        let mut next = |_: &Own| {
            at += 1;
            doubtful[at - 1]
        };
        let posts = self.offer_again(now, &mut next);
        if posts > 0 {
            out.push(Event::OfferedAgain { posts });
        }
    }

    /// Offer own posts again that are not confirmed in the present epoch, before everything that was never acknowledged.
    fn offer_again(&mut self, now: Instant, mut doubtful: impl FnMut(&Own) -> bool) -> usize {
        let mut again = Vec::new();
        let epoch = self.epoch;
        self.own.retain(|own| {
            let offer = doubtful(own) && own.confirmed < epoch;
            if offer {
                again.push((own.room, own.client_id, own.text.clone()));
            }
            !offer
        });
        for (room, client_id, text) in again.iter().rev().cloned() {
            let post =
                Outgoing { room, client_id, text, since: now, request: None, again: true, failures: 0, held: false };
            self.outgoing.push_front(post);
        }
        self.waiting += again.len();
        again.len()
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one frame")]
    fn joined(
        &mut self,
        id: u64,
        room: RoomId,
        name: String,
        head: Cursor,
        rewound_from: Option<Seq>,
        now: Instant,
        out: &mut Vec<Event>,
    ) {
        let Some(known) = self.rooms.get_mut(&room) else { return };
        match known.place {
            Place::Asked(asked) if asked == id => known.place = Place::In,
            // Left in the meantime: entries follow until the answer to that.
            Place::Unwanted | Place::Leaving(_) => {}
            Place::Wanted | Place::Asked(_) | Place::In => return,
        }
        let start = Seq((head.seq.0 - i64::from(known.history)).max(0));
        let after = known.cursor.map(|c| c.seq);
        let cursor = known.cursor.get_or_insert(Cursor { epoch: head.epoch, seq: start });
        out.push(Event::Joined { room, name, after, head });
        if let Some(from) = rewound_from {
            *cursor = Cursor { epoch: head.epoch, seq: Seq(from.0 - 1) };
        }
        let has = cursor.seq;
        if let Some(from) = rewound_from {
            out.push(Event::Rewound { room, from });
        }
        // A join afresh says nothing of what was there before.
        let posts = self.offer_again(now, |own| own.room == room && (after.is_none() || own.seq > has));
        if posts > 0 {
            out.push(Event::OfferedAgain { posts });
        }
    }

    fn left(&mut self, id: u64, room: RoomId, out: &mut Vec<Event>) {
        let Some(known) = self.rooms.get_mut(&room) else { return };
        let asked = match known.place {
            Place::Leaving(request) if request == id => true,
            _ if id == 0 => false,
            _ => return,
        };
        out.push(Event::Left { room, asked });
        match known.again.take() {
            Some(history) => {
                *known = RoomMemory { place: Place::Wanted, cursor: None, history, again: None };
                self.errands = true;
            }
            None => {
                self.rooms.remove(&room);
            }
        }
    }

    fn acknowledged(&mut self, id: u64, client_id: Uuid, told: Told, now: Instant, out: &mut Vec<Event>) {
        let Told { room, seq, epoch, at_us, durable, less_than, receipt } = told;
        let Some(at) = self.outgoing.iter().position(|p| p.request == Some(id) && p.client_id == client_id) else {
            return;
        };
        let Some(post) = self.outgoing.remove(at) else { return };
        let confirmed = epoch.max(self.epoch);
        if self.own.len() >= OWN_MAX {
            self.own.pop_front();
        }
        self.own.push_back(Own { room, client_id, text: post.text.clone(), seq, confirmed });
        let took = now.saturating_duration_since(post.since);
        let (pool, text, again) = (&self.pool_name, post.text, post.again);
        let receipt = receipt.map(|signed| {
            let (pool, signed) = (pool.clone(), *signed);
            Box::new(Receipt { pool, room, seq, epoch, at_us, client_id, durable, signed })
        });
        let told =
            Event::Acknowledged { room, client_id, text, seq, epoch, at_us, took, again, durable, less_than, receipt };
        out.push(told);
    }

    fn refused(
        &mut self,
        id: u64,
        code: RefusalCode,
        message: String,
        now: Instant,
        out: &mut Vec<Event>,
    ) -> Result<(), String> {
        if code == RefusalCode::NotSignedIn {
            return Err(message);
        }
        let passes = matches!(code, RefusalCode::Overloaded | RefusalCode::Unavailable | RefusalCode::NotActive);
        if let Some(at) = self.outgoing.iter().position(|p| p.request == Some(id)) {
            let post = &mut self.outgoing[at];
            post.failures += u32::from(code == RefusalCode::Internal);
            if passes || (code == RefusalCode::Internal && post.failures < INTERNAL_MAX) {
                (post.request, post.held) = (None, false);
                self.waiting += 1;
                self.pause_until = Some(now + PAUSE);
            } else if let Some(post) = self.outgoing.remove(at) {
                let Outgoing { room, client_id, again, .. } = post;
                out.push(Event::GivenUp { room, client_id, code, message, again });
            }
            return Ok(());
        }
        let asked = self.rooms.iter().find(|(_, known)| known.place == Place::Asked(id)).map(|(room, _)| *room);
        match asked {
            Some(room) if passes || code == RefusalCode::Internal => {
                if let Some(known) = self.rooms.get_mut(&room) {
                    known.place = Place::Wanted;
                }
                self.errands = true;
                self.pause_until = Some(now + PAUSE);
            }
            Some(room) => {
                self.rooms.remove(&room);
                out.push(Event::JoinRefused { room, code, message });
            }
            None => out.push(Event::Complaint { message }),
        }
        Ok(())
    }

    /// An own post may have been entered again: from now on its place is the new one, should that be lost too.
    fn own_came_late(&mut self, entry: &Entry) {
        let is_it = |own: &&mut Own| own.room == entry.room && Some(own.client_id) == entry.client_id;
        if let Some(own) = self.own.iter_mut().find(is_it) {
            own.seq = entry.seq;
            own.confirmed = own.confirmed.max(entry.epoch);
        }
    }

    fn entry(&mut self, entry: Entry, out: &mut Vec<Event>) -> Result<(), String> {
        let known = self.rooms.get_mut(&entry.room);
        let cursor = known
            .filter(|known| matches!(known.place, Place::In | Place::Unwanted | Place::Leaving(_)))
            .and_then(|known| known.cursor.as_mut());
        let expected = cursor.as_ref().map(|c| c.seq.next());
        let (room, seq) = (entry.room, entry.seq);
        match cursor {
            Some(cursor) if expected == Some(seq) => {
                *cursor = Cursor { epoch: entry.epoch, seq };
                if entry.late.is_some() {
                    self.own_came_late(&entry);
                }
                out.push(Event::Entry(entry));
                Ok(())
            }
            _ => {
                out.push(Event::Disorder { entry, expected });
                let expected = expected.map_or_else(|| "none".to_owned(), |seq| seq.to_string());
                Err(format!("room {room}: entry {seq} came where {expected} was expected; resuming"))
            }
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
