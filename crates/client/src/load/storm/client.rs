//! One client of a storm: what a client must do, over all its connections.

use super::{Counters, PAUSE_MS, source_of};
use crate::error::ClientError;
use crate::load::crowd::Seat;
use crate::load::rounds::{add, number};
use crate::load::socket::{self, Found, Incoming, PONG_FRAME};
use rand::Rng;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::tcp::OwnedWriteHalf;

/// One client, over all its connections.
pub struct Client {
    /// Its number, of which its address follows.
    pub number: usize,
    /// Who it is, and in which room.
    pub seat: Seat,
    /// Where it connects to.
    pub url: RefCell<String>,
    /// Whether it is at the surviving server: it may not be lost.
    pub stays: bool,
    /// When the load began.
    pub began: Instant,
    /// What all count together.
    pub counters: Rc<Counters>,
    /// Where everybody goes who is lost.
    pub heading: Rc<RefCell<String>>,
    /// To write to, while it is in its room.
    pub stream: RefCell<Option<Rc<OwnedWriteHalf>>>,
    /// Epoch and number of the last entry that it has; 0 for none yet.
    pub cursor: Cell<(u64, u64)>,
    pub ticket: RefCell<Option<String>>,
    /// The last storm for which it counts as back.
    pub counted: Cell<u64>,
}

/// When to connect again.
enum Next {
    Now,
    After(Duration),
}

impl Client {
    /// Live for as long as the load does.
    pub async fn run(self: Rc<Self>) {
        loop {
            let next = self.live().await.unwrap_or_else(|_| {
                self.counters.note(|figures| figures.failed += 1);
                // As a real client does.
                Next::After(Duration::from_millis(rand::rng().random_range(PAUSE_MS)))
            });
            if self.stream.borrow_mut().take().is_some() && self.stays {
                self.gone("lost its connection to the surviving server");
            }
            let heading = self.heading.borrow().clone();
            if !heading.is_empty() {
                *self.url.borrow_mut() = heading;
            }
            if let Next::After(pause) = next {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// It is lost, and with it the load.
    pub fn gone(&self, why: &str) {
        self.counters.failed.borrow_mut().get_or_insert_with(|| format!("{}: {why}", self.seat.user));
    }

    /// One connection from its beginning to its end.
    async fn live(&self) -> Result<Next, ClientError> {
        let url = self.url.borrow().clone();
        self.counters.note(|figures| figures.connections += 1);
        let source = url.starts_with("http://127.0.0.1:").then(|| source_of(self.number));
        let (mut reading, writing) = socket::open_from(&url, source).await?.into_split();
        let writing = Rc::new(writing);
        let mut bytes = Vec::new();
        let ticket = self.ticket.borrow().as_ref().map(|t| format!(r#","ticket":"{t}""#)).unwrap_or_default();
        socket::frame(format!(r#"{{"type":"hello","token":"{}"{ticket}}}"#, self.seat.token).as_bytes(), &mut bytes);
        let broke = |e: std::io::Error| ClientError::Connection(e.to_string());
        socket::write((*writing).as_ref(), &bytes).await.map_err(broke)?;
        let mut incoming = Incoming::default();
        let next = Cell::new(None);
        let mut was_queued = false;
        loop {
            bytes.clear();
            let mut over = false;
            let read = incoming.read(&mut reading, |found| match found {
                Found::Text(text) => self.take(text, &writing, &mut bytes, &next, &mut was_queued),
                Found::Ping => bytes.extend_from_slice(&PONG_FRAME),
                Found::Close(_) => over = true,
                Found::Other => {}
            });
            if read.await.is_err() || over {
                return Ok(next.take().unwrap_or(Next::Now));
            }
            if !bytes.is_empty() {
                socket::write((*writing).as_ref(), &bytes).await.map_err(broke)?;
            }
        }
    }

    fn take(
        &self,
        frame: &[u8],
        writing: &Rc<OwnedWriteHalf>,
        answers: &mut Vec<u8>,
        next: &Cell<Option<Next>>,
        was_queued: &mut bool,
    ) {
        const HEAD: &[u8] = br#"{"type":""#;
        let Some(kind) = frame.strip_prefix(HEAD) else { return };
        let c = &self.counters;
        if kind.starts_with(b"entry") {
            let (epoch, seq) = (after(frame, br#""epoch":"#), after(frame, br#""seq":"#));
            let (_, has) = self.cursor.replace((epoch, seq));
            if has > 0 && seq != has + 1 {
                c.note(|figures| figures.disorder += 1);
            }
        } else if let Some(ack) = kind.strip_prefix(br#"ack","id":"#) {
            c.answered(number(ack), self.began.elapsed().as_micros() as u64);
        } else if kind.starts_with(b"welcome") {
            self.ticket.borrow_mut().take();
            let room = self.seat.room;
            let from = match self.cursor.get() {
                (0, _) => r#""history":0"#.to_owned(),
                (epoch, seq) => format!(r#""after":{{"epoch":{epoch},"seq":{seq}}}"#),
            };
            socket::frame(format!(r#"{{"type":"join","id":1,"room":{room},{from}}}"#).as_bytes(), answers);
        } else if kind.starts_with(b"joined") {
            self.joined(frame, writing);
        } else if kind.starts_with(b"queued") && !std::mem::replace(was_queued, true) {
            c.note(|figures| figures.queued += 1);
        } else if kind.starts_with(b"come_back") {
            let text = String::from_utf8_lossy(frame);
            let ticket = text.split(r#""ticket":""#).nth(1).and_then(|rest| rest.split('"').next());
            *self.ticket.borrow_mut() = ticket.map(str::to_owned);
            next.set(Some(Next::After(Duration::from_millis(after(frame, br#""after_ms":"#)))));
            c.note(|figures| figures.come_back += 1);
        } else if kind.starts_with(b"refused") {
            c.note(|figures| figures.refused += 1);
            c.settled();
        }
    }

    /// In the room: its cursor is where the room was, unless it has one.
    fn joined(&self, frame: &[u8], writing: &Rc<OwnedWriteHalf>) {
        let c = &self.counters;
        if self.cursor.get().0 == 0 {
            self.cursor.set((after(frame, br#""head":{"epoch":"#), after(frame, br#""seq":"#)));
            add(&c.in_rooms, 1);
        }
        *self.stream.borrow_mut() = Some(writing.clone());
        let storm = c.storm.get();
        if !self.stays && storm > 0 && self.counted.replace(storm) < storm {
            let [_, cut, _] = c.phase_began_us.get();
            c.back.borrow_mut().add((self.began.elapsed().as_micros() as u64).saturating_sub(cut));
        }
        c.changed.notify_one();
    }
}

/// The number after this text; 0 when it is not there.
fn after(frame: &[u8], name: &[u8]) -> u64 {
    frame.windows(name.len()).position(|window| window == name).map_or(0, |at| number(&frame[at + name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        let frame = br#"{"type":"entry","room":7,"seq":43,"epoch":2,"author":"ada"}"#;
        assert_eq!((after(frame, br#""epoch":"#), after(frame, br#""seq":"#)), (2, 43));
        assert_eq!(after(frame, br#""after_ms":"#), 0);
    }
}
