//! Rounds of load, and what each came to.
//!
//! Everything here runs on one thread. The time of sending is the request's id of a post and stands at the beginning of its
//! text, in microseconds since the load began, so the answer and each delivery carry it back without a table of what is
//! under way. A text has the same length always, so its beginning is found from the end of the frame.

use super::crowd::{Crowd, Seat};
use super::histogram::Histogram;
use super::socket::{self, Found, Incoming, PONG_FRAME};
use crate::error::ClientError;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use uuid::Uuid;

/// Digits of the time at the beginning of a text.
pub(super) const STAMP: usize = 16;
/// Shortest text: it has to hold the stamp.
pub const TEXT_BYTES_MIN: usize = STAMP;
/// Load that is not measured, before the first round.
const WARM_UP: Duration = Duration::from_secs(2);
/// How often posts that are due are sent at a pace.
const TICK: Duration = Duration::from_millis(1);
/// Longest wait for somebody to be in the room, and for the last answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections that are made at a time.
const CONNECT_AT_ONCE: usize = 50;

/// How fast posts are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The next one as soon as fewer than this many are under way.
    InFlight(usize),
    /// So many a second.
    PerSecond(f64),
    /// As with `InFlight`, until so many have been sent.
    Until(usize, u64),
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How fast.
    pub pace: Pace,
    /// Bytes of each text.
    pub text_bytes: usize,
    /// How many rounds.
    pub rounds: usize,
    /// How long each is.
    pub length: Duration,
}

/// Processor time used so far, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Processor {
    /// By chat servers.
    pub servers_us: u64,
    /// By PostgreSQL.
    pub postgres_us: u64,
    /// By this process.
    pub load_us: u64,
}

impl Processor {
    /// What was used since then. Of a process that has ended since, nothing is known.
    pub fn since(self, before: Self) -> Self {
        Self {
            servers_us: self.servers_us.saturating_sub(before.servers_us),
            postgres_us: self.postgres_us.saturating_sub(before.postgres_us),
            load_us: self.load_us.saturating_sub(before.load_us),
        }
    }
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// How long it was.
    pub seconds: f64,
    /// Posts acknowledged a second.
    pub posts_per_second: f64,
    /// Deliveries a second.
    pub deliveries_per_second: f64,
    /// Half of the posts were acknowledged within this many microseconds.
    pub ack_p50_us: u64,
    /// 99 % of them.
    pub ack_p99_us: u64,
    /// Half of the deliveries arrived within this many microseconds of the sending.
    pub delivery_p50_us: u64,
    /// 99 % of them.
    pub delivery_p99_us: u64,
    /// Processor time of servers and PostgreSQL together for one delivery, in microseconds.
    pub processor_per_delivery_us: f64,
    /// Of this the servers'.
    pub servers_per_delivery_us: f64,
    /// Processor time of the load itself for one delivery.
    pub load_per_delivery_us: f64,
    /// Posts refused.
    pub refused: u64,
}

/// What all connections count together.
#[derive(Default)]
struct Counters {
    acknowledged: Cell<u64>,
    delivered: Cell<u64>,
    refused: Cell<u64>,
    under_way: Cell<usize>,
    joined: Cell<usize>,
    acks: RefCell<Histogram>,
    deliveries: RefCell<Histogram>,
    failed: RefCell<Option<String>>,
    changed: Notify,
}

impl Counters {
    fn begin(&self) {
        self.acknowledged.set(0);
        self.delivered.set(0);
        self.refused.set(0);
        self.acks.borrow_mut().clear();
        self.deliveries.borrow_mut().clear();
    }

    fn check(&self) -> Result<(), ClientError> {
        self.failed.borrow().as_ref().map_or(Ok(()), |why| Err(ClientError::Connection(why.clone())))
    }
}

pub(super) fn add<T: Copy + std::ops::Add<Output = T>>(cell: &Cell<T>, more: T) {
    cell.set(cell.get() + more);
}

/// Somebody connected.
struct Member {
    seat: Seat,
    stream: Rc<OwnedWriteHalf>,
}

struct Load {
    began: Instant,
    members: Vec<Member>,
    counters: Rc<Counters>,
    text_bytes: usize,
    next: usize,
    last_stamp: u64,
    frame: Vec<u8>,
    text: String,
    /// Letters and digits at random, twice the length of a text: nothing that a database could make smaller.
    filler: String,
}

/// Carry a plan out, on a thread of its own. `processor` is asked before and after each round.
///
/// # Errors
/// When a connection fails: a benchmark of a pool that fails says nothing.
pub async fn run(
    crowd: Crowd,
    plan: Plan,
    processor: impl Fn() -> Processor + Send + 'static,
) -> Result<Vec<Figures>, ClientError> {
    let (sender, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = match runtime {
            Ok(runtime) => LocalSet::new().block_on(&runtime, carry_out(crowd, plan, processor)),
            Err(error) => Err(ClientError::Connection(format!("start the load: {error}"))),
        };
        // Who asked does not wait any more.
        let _ = sender.send(outcome);
    });
    outcome.await.unwrap_or_else(|_| Err(ClientError::Connection("the load's thread ended".to_owned())))
}

async fn carry_out(crowd: Crowd, plan: Plan, processor: impl Fn() -> Processor) -> Result<Vec<Figures>, ClientError> {
    let mut load = Load::connect(crowd, plan.text_bytes).await?;
    if let Pace::Until(in_flight, posts) = plan.pace {
        load.send_until(in_flight, posts).await?;
        load.settle().await?;
        return Ok(Vec::new());
    }
    load.send(plan.pace, WARM_UP).await?;
    let mut rounds = Vec::with_capacity(plan.rounds);
    for _ in 0..plan.rounds {
        load.counters.begin();
        let (began, before) = (Instant::now(), processor());
        load.send(plan.pace, plan.length).await?;
        rounds.push(load.figures(began.elapsed(), before, processor()));
    }
    load.settle().await?;
    Ok(rounds)
}

impl Load {
    async fn connect(crowd: Crowd, text_bytes: usize) -> Result<Self, ClientError> {
        let counters = Rc::new(Counters::default());
        let began = Instant::now();
        let text_bytes = text_bytes.max(TEXT_BYTES_MIN);
        let mut random = rand::rng();
        let filler = (0..2 * text_bytes).map(|_| char::from(rand::Rng::sample(&mut random, rand::distr::Alphanumeric)));
        let mut load = Self {
            began,
            members: Vec::with_capacity(crowd.seats.len()),
            counters,
            text_bytes,
            next: 0,
            last_stamp: 0,
            frame: Vec::new(),
            text: String::new(),
            filler: filler.collect(),
        };
        for (n, seat) in crowd.seats.into_iter().enumerate() {
            load.enter(seat).await?;
            if n % CONNECT_AT_ONCE == 0 {
                load.until(|c| c.joined.get() > n).await?;
            }
        }
        let all = load.members.len();
        load.until(|c| c.joined.get() >= all).await?;
        Ok(load)
    }

    /// Connect, say hello and join; the answers are counted by the reader.
    async fn enter(&mut self, seat: Seat) -> Result<(), ClientError> {
        let (incoming, stream) = socket::open(&seat.url).await?.into_split();
        let stream = Rc::new(stream);
        let mut bytes = Vec::new();
        socket::frame(format!(r#"{{"type":"hello","token":"{}"}}"#, seat.token).as_bytes(), &mut bytes);
        let join = format!(r#"{{"type":"join","id":1,"room":{},"history":0}}"#, seat.room);
        let reader = Reader {
            who: seat.user.clone(),
            stream: stream.clone(),
            counters: self.counters.clone(),
            began: self.began,
            text_bytes: self.text_bytes,
            join,
        };
        tokio::task::spawn_local(reader.run(incoming));
        self.members.push(Member { seat, stream: stream.clone() });
        socket::write((*stream).as_ref(), &bytes).await.map_err(|e| ClientError::Connection(format!("say hello: {e}")))
    }

    /// Wait until the counters say so.
    async fn until(&self, enough: impl Fn(&Counters) -> bool) -> Result<(), ClientError> {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !enough(&self.counters) {
                self.counters.check()?;
                self.counters.changed.notified().await;
            }
            Ok(())
        });
        waited.await.unwrap_or_else(|_| {
            let joined = self.counters.joined.get();
            let under_way = self.counters.under_way.get();
            let why = format!("the load waits in vain: {joined} are in their rooms, {under_way} posts have no answer");
            Err(ClientError::Connection(why))
        })
    }

    async fn settle(&self) -> Result<(), ClientError> {
        self.until(|c| c.under_way.get() == 0).await
    }

    async fn send(&mut self, pace: Pace, length: Duration) -> Result<(), ClientError> {
        let end = Instant::now() + length;
        match pace {
            Pace::InFlight(most) | Pace::Until(most, _) => self.send_in_flight(most, end).await,
            Pace::PerSecond(rate) => self.send_per_second(rate, end).await,
        }
    }

    async fn send_in_flight(&mut self, most: usize, end: Instant) -> Result<(), ClientError> {
        while Instant::now() < end {
            self.counters.check()?;
            while self.counters.under_way.get() < most {
                self.post().await?;
            }
            // An end in silence is noticed by the clock.
            let _ = tokio::time::timeout_at(end.into(), self.counters.changed.notified()).await;
        }
        Ok(())
    }

    async fn send_until(&mut self, most: usize, posts: u64) -> Result<(), ClientError> {
        for _ in 0..posts {
            self.until(|c| c.under_way.get() < most).await?;
            self.post().await?;
        }
        Ok(())
    }

    async fn send_per_second(&mut self, rate: f64, end: Instant) -> Result<(), ClientError> {
        let began = Instant::now();
        let mut sent = 0;
        let mut tick = tokio::time::interval(TICK);
        while Instant::now() < end {
            tick.tick().await;
            self.counters.check()?;
            let due = (began.elapsed().as_secs_f64() * rate) as u64;
            while sent < due {
                self.post().await?;
                sent += 1;
            }
        }
        Ok(())
    }

    /// The next member in turn posts: one of the first room, one of the second, and so on.
    async fn post(&mut self) -> Result<(), ClientError> {
        use std::fmt::Write;
        // Ids are unique on a connection, so the clock is helped on where it stands still.
        self.last_stamp = (self.began.elapsed().as_micros() as u64).max(self.last_stamp + 1);
        let stamp = self.last_stamp;
        // A stride that shares no factor with usual sizes goes through everybody, and through the rooms in turn.
        self.next = (self.next + 10_007) % self.members.len();
        let member = &self.members[self.next];
        self.text.clear();
        let (room, id) = (member.seat.room, Uuid::now_v7());
        let from = stamp as usize % self.text_bytes;
        let filler = &self.filler[from..from + self.text_bytes - STAMP];
        write!(
            self.text,
            r#"{{"type":"post","id":{stamp},"room":{room},"client_id":"{id}","text":"{stamp:0STAMP$}{filler}"}}"#
        )
        .expect("writing into a string does not fail");
        self.frame.clear();
        socket::frame(self.text.as_bytes(), &mut self.frame);
        add(&self.counters.under_way, 1);
        let written = socket::write((*member.stream).as_ref(), &self.frame).await;
        written.map_err(|e| ClientError::Connection(format!("{}: post: {e}", member.seat.user)))
    }

    fn figures(&self, elapsed: Duration, before: Processor, after: Processor) -> Figures {
        let c = &self.counters;
        let (seconds, delivered) = (elapsed.as_secs_f64(), c.delivered.get() as f64);
        let (acks, deliveries) = (c.acks.borrow(), c.deliveries.borrow());
        let per_delivery = |before: u64, after: u64| after.saturating_sub(before) as f64 / delivered.max(1.0);
        let servers = per_delivery(before.servers_us, after.servers_us);
        let postgres = per_delivery(before.postgres_us, after.postgres_us);
        Figures {
            seconds,
            posts_per_second: c.acknowledged.get() as f64 / seconds,
            deliveries_per_second: delivered / seconds,
            ack_p50_us: acks.at(0.5),
            ack_p99_us: acks.at(0.99),
            delivery_p50_us: deliveries.at(0.5),
            delivery_p99_us: deliveries.at(0.99),
            processor_per_delivery_us: servers + postgres,
            servers_per_delivery_us: servers,
            load_per_delivery_us: per_delivery(before.load_us, after.load_us),
            refused: c.refused.get(),
        }
    }
}

struct Reader {
    who: String,
    stream: Rc<OwnedWriteHalf>,
    counters: Rc<Counters>,
    began: Instant,
    text_bytes: usize,
    join: String,
}

impl Reader {
    async fn run(self, stream: OwnedReadHalf) {
        let why = match self.read(stream).await {
            Ok(never) => match never {},
            Err(why) => why,
        };
        *self.counters.failed.borrow_mut() = Some(format!("{}: {why}", self.who));
        self.counters.changed.notify_waiters();
        self.counters.changed.notify_one();
    }

    async fn read(&self, mut stream: OwnedReadHalf) -> Result<std::convert::Infallible, String> {
        let mut incoming = Incoming::default();
        loop {
            let mut answers = Vec::new();
            let mut failed = None;
            let now = Cell::new(None);
            incoming
                .read(&mut stream, |found| match found {
                    Found::Text(text) => {
                        let now = now.get().unwrap_or_else(|| {
                            let us = self.began.elapsed().as_micros() as u64;
                            now.set(Some(us));
                            us
                        });
                        self.take(text, now, &mut answers);
                    }
                    Found::Ping => answers.extend_from_slice(&PONG_FRAME),
                    Found::Close(code) => failed = Some(format!("the server closed the connection with {code}")),
                    Found::Other => {}
                })
                .await?;
            if let Some(why) = failed {
                return Err(why);
            }
            if !answers.is_empty() {
                socket::write((*self.stream).as_ref(), &answers).await.map_err(|e| e.to_string())?;
            }
        }
    }

    fn take(&self, frame: &[u8], now: u64, answers: &mut Vec<u8>) {
        const HEAD: &[u8] = br#"{"type":""#;
        let Some(kind) = frame.strip_prefix(HEAD) else { return };
        let c = &self.counters;
        if kind.starts_with(b"entry") {
            add(&c.delivered, 1);
            if let Some(stamp) = self.stamp_of(frame) {
                c.deliveries.borrow_mut().add(now.saturating_sub(stamp));
            }
        } else if let Some(ack) = kind.strip_prefix(br#"ack","id":"#) {
            add(&c.acknowledged, 1);
            c.acks.borrow_mut().add(now.saturating_sub(number(ack)));
            self.answered();
        } else if kind.starts_with(b"welcome") {
            socket::frame(self.join.as_bytes(), answers);
        } else if kind.starts_with(b"joined") {
            add(&c.joined, 1);
            c.changed.notify_one();
        } else if kind.starts_with(b"refused") {
            add(&c.refused, 1);
            self.answered();
        }
    }

    fn answered(&self) {
        let c = &self.counters;
        c.under_way.set(c.under_way.get().saturating_sub(1));
        c.changed.notify_one();
    }

    /// The time of sending, from the beginning of the text, which ends two bytes before the frame does.
    fn stamp_of(&self, frame: &[u8]) -> Option<u64> {
        let at = frame.len().checked_sub(2 + self.text_bytes)?;
        frame.get(at..at + STAMP).map(number)
    }
}

/// The number that begins here.
pub(super) fn number(digits: &[u8]) -> u64 {
    digits.iter().take_while(|d| d.is_ascii_digit()).fold(0, |sum, d| sum * 10 + u64::from(d - b'0'))
}
