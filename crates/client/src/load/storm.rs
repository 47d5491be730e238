//! A storm: everybody who was connected to a server that is gone comes to the one that is left, in the same second, while some
//! who are there already go on posting.
//!
//! Two threads: one for the crowd, and one for those who post, so that what they measure does not wait behind the crowd's own work
//! here. Each client is a task that does what a client must: it connects again at once, waits when it
//! is told to, comes back when it is told to, with its ticket, and resumes from its cursor; it counts each entry that is missing or
//! comes twice. The time of sending is the request's id of a post, so the answer carries it back.

mod client;

use self::client::Client;
use super::crowd::Seat;
use super::histogram::Histogram;
use super::rounds::{STAMP, add};
use super::socket;
use crate::error::ClientError;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;
use uuid::Uuid;

/// How often posts that are due are sent.
const TICK: Duration = Duration::from_millis(1);
/// Clients that connect at a time before the first storm.
const CONNECT_AT_ONCE: usize = 100;
/// Longest wait for all to be in, and for the last answers.
const PATIENCE: Duration = Duration::from_secs(180);
/// Pause after a connection that was not made, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 10..50;
/// Addresses of the loopback network that clients connect from.
const SOURCES: usize = 8;

/// The address that the client of this number connects from: one address has too few ports for many clients.
pub fn source_of(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 1 + (n % SOURCES) as u8)
}

/// Acknowledgements of the posts that were sent in one span of time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Acks {
    /// Posts.
    pub posts: u64,
    /// Half of them were acknowledged within this many microseconds.
    pub p50_us: u64,
    /// 99 % of them.
    pub p99_us: u64,
    /// All of them.
    pub max_us: u64,
}

impl Acks {
    fn of(times: &Histogram) -> Self {
        let (p50_us, p99_us, max_us) = (times.at(0.5), times.at(0.99), times.at(1.0));
        Self { posts: times.count(), p50_us, p99_us, max_us }
    }
}

/// What a storm came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Figures {
    /// Clients that came.
    pub clients: u64,
    /// Acknowledgements of those who were there, before the storm.
    pub before: Acks,
    /// From the cut until all were back.
    pub during: Acks,
    /// After that.
    pub after: Acks,
    /// From the cut until all were back in their rooms.
    pub all_back_us: u64,
    /// Half of the clients were back after this many microseconds.
    pub back_p50_us: u64,
    /// 99 % of them.
    pub back_p99_us: u64,
    /// Connections that were made or tried.
    pub connections: u64,
    /// Of these, that failed.
    pub failed: u64,
    /// Clients that were told to wait for their turn.
    pub queued: u64,
    /// Times that somebody was told to come back.
    pub come_back: u64,
    /// Entries that came twice, or that are missing in between.
    pub disorder: u64,
    /// Posts refused.
    pub refused: u64,
}

#[derive(Default)]
struct Counters {
    /// Storms so far: a client counts for each of them once.
    storm: Cell<u64>,
    in_rooms: Cell<usize>,
    under_way: Cell<usize>,
    phase_began_us: Cell<[u64; 3]>,
    acks: RefCell<[Histogram; 3]>,
    back: RefCell<Histogram>,
    figures: RefCell<Figures>,
    failed: RefCell<Option<String>>,
    changed: Notify,
}

impl Counters {
    /// An answer to a post that was sent then: of before, during, or after the storm.
    fn answered(&self, sent_us: u64, now_us: u64) {
        let [_, during, after] = self.phase_began_us.get();
        let phase = usize::from(sent_us >= during) + usize::from(sent_us >= after);
        self.acks.borrow_mut()[phase].add(now_us.saturating_sub(sent_us));
        self.settled();
    }

    fn settled(&self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        self.changed.notify_one();
    }

    fn note(&self, note: impl FnOnce(&mut Figures)) {
        note(&mut self.figures.borrow_mut());
    }
}

/// A load under way, on threads of its own.
#[derive(Debug)]
pub struct Storm {
    crowd: Hand,
    posters: Hand,
}

/// One of the threads.
#[derive(Debug)]
struct Hand(mpsc::Sender<(Order, oneshot::Sender<Result<Figures, ClientError>>)>);

#[derive(Clone)]
enum Order {
    /// Post for so long, to be compared with.
    Before(Duration),
    /// The cut comes: from now on whoever is lost goes here, and times are counted.
    Head(String),
    /// Wait until all are back.
    Cut,
    /// All are back.
    Back,
    /// Post for so long, and tell.
    After(Duration),
}

/// Who takes part.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Everybody who is lost and comes.
    pub clients: Vec<Seat>,
    /// Those who are at the surviving server and post.
    pub posters: Vec<Seat>,
    /// Posts a second, of all posters together.
    pub per_second: f64,
    /// Bytes of each text.
    pub text_bytes: usize,
}

impl Storm {
    /// Everybody connects where they are to be, and joins.
    ///
    /// # Errors
    /// When somebody cannot.
    pub async fn start(parts: Parts) -> Result<Self, ClientError> {
        let began = Instant::now();
        let posters = Hand::start(Parts { clients: Vec::new(), ..parts.clone() }, began).await?;
        let crowd = Hand::start(Parts { posters: Vec::new(), per_second: 0.0, ..parts }, began).await?;
        Ok(Self { crowd, posters })
    }

    /// Post for so long before the storm.
    ///
    /// # Errors
    /// When a poster's connection fails.
    pub async fn before(&self, length: Duration) -> Result<(), ClientError> {
        self.both(Order::Before(length)).await.map(|_| ())
    }

    /// The cut comes now, by whoever does it: whoever loses the connection goes to this server, and times are counted.
    ///
    /// # Errors
    /// When a poster's connection fails.
    pub async fn head_for(&self, url: &str) -> Result<(), ClientError> {
        self.both(Order::Head(url.to_owned())).await.map(|_| ())
    }

    /// Returns when all are back.
    ///
    /// # Errors
    /// When they are not back in time, or a poster's connection fails.
    pub async fn until_all_are_back(&self) -> Result<(), ClientError> {
        self.crowd.order(Order::Cut).await?;
        self.posters.order(Order::Back).await.map(|_| ())
    }

    /// Post for so long after the storm; returns what it came to.
    ///
    /// # Errors
    /// When a connection fails.
    pub async fn after(&self, length: Duration) -> Result<Figures, ClientError> {
        let (crowd, posters) = self.both(Order::After(length)).await?;
        let Figures { before, during, after, refused, .. } = posters;
        Ok(Figures { before, during, after, refused, disorder: crowd.disorder + posters.disorder, ..crowd })
    }

    async fn both(&self, order: Order) -> Result<(Figures, Figures), ClientError> {
        tokio::try_join!(self.crowd.order(order.clone()), self.posters.order(order))
    }
}

impl Hand {
    async fn start(parts: Parts, began: Instant) -> Result<Self, ClientError> {
        let (orders, taken) = mpsc::channel(1);
        let (ready, started) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => LocalSet::new().block_on(&runtime, carry_out(parts, began, ready, taken)),
                Err(error) => drop(ready.send(Err(ClientError::Connection(format!("start the load: {error}"))))),
            }
        });
        started.await.unwrap_or_else(|_| Err(ended()))?;
        Ok(Self(orders))
    }

    async fn order(&self, order: Order) -> Result<Figures, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.0.send((order, answer)).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> ClientError {
    ClientError::Connection("the load's thread ended".to_owned())
}

async fn carry_out(
    parts: Parts,
    began: Instant,
    ready: oneshot::Sender<Result<(), ClientError>>,
    mut orders: mpsc::Receiver<(Order, oneshot::Sender<Result<Figures, ClientError>>)>,
) {
    let mut load = match Load::start(parts, began).await {
        Ok(load) => load,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let _ = ready.send(Ok(()));
    let mut tick = tokio::time::interval(TICK);
    let mut posted_since = Instant::now();
    let mut posted = 0_u64;
    loop {
        let (order, answer) = loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => break order,
                    None => return,
                },
                _ = tick.tick() => load.post_due(posted_since, &mut posted).await,
            }
        };
        if matches!(order, Order::Before(_)) {
            (posted_since, posted) = (Instant::now(), 0);
        }
        let until = load.begin(&order);
        loop {
            tick.tick().await;
            load.post_due(posted_since, &mut posted).await;
            if load.is_done(&order, until) {
                break;
            }
        }
        let _ = answer.send(load.outcome());
    }
}

struct Load {
    began: Instant,
    all: usize,
    per_second: f64,
    text_bytes: usize,
    counters: Rc<Counters>,
    heading: Rc<RefCell<String>>,
    posters: Vec<Rc<Client>>,
    next: usize,
    last_stamp: u64,
}

impl Load {
    async fn start(parts: Parts, began: Instant) -> Result<Self, ClientError> {
        let counters = Rc::new(Counters::default());
        let mut load = Self {
            began,
            all: parts.clients.len() + parts.posters.len(),
            per_second: parts.per_second,
            text_bytes: parts.text_bytes.max(STAMP),
            counters: counters.clone(),
            heading: Rc::default(),
            posters: Vec::new(),
            next: 0,
            last_stamp: 0,
        };
        let posters = parts.posters.len();
        for (n, seat) in parts.posters.into_iter().chain(parts.clients).enumerate() {
            let client = Rc::new(Client {
                number: n,
                url: RefCell::new(seat.url.clone()),
                seat,
                stays: n < posters,
                began: load.began,
                counters: counters.clone(),
                heading: load.heading.clone(),
                stream: RefCell::default(),
                cursor: Cell::default(),
                ticket: RefCell::default(),
                counted: Cell::new(0),
            });
            if n < posters {
                load.posters.push(client.clone());
            }
            tokio::task::spawn_local(client.run());
            if n % CONNECT_AT_ONCE == CONNECT_AT_ONCE - 1 {
                load.until_in_rooms(n + 1).await?;
            }
        }
        load.until_in_rooms(load.all).await?;
        Ok(load)
    }

    async fn until_in_rooms(&self, count: usize) -> Result<(), ClientError> {
        let began = Instant::now();
        while self.counters.in_rooms.get() < count {
            self.check()?;
            if began.elapsed() > PATIENCE {
                let (there, why) =
                    (self.counters.in_rooms.get(), "are in their rooms; is the limit of open files too low?");
                return Err(ClientError::Connection(format!("{there} of {count} clients {why}")));
            }
            let _ = tokio::time::timeout(Duration::from_millis(100), self.counters.changed.notified()).await;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ClientError> {
        self.counters.failed.borrow().clone().map_or(Ok(()), |why| Err(ClientError::Connection(why)))
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Begin what is ordered; when it is over, or has to be.
    fn begin(&mut self, order: &Order) -> Instant {
        let (now, now_us, counters) = (Instant::now(), self.now_us(), &self.counters);
        match order {
            Order::Before(length) => {
                counters.phase_began_us.set([now_us, u64::MAX, u64::MAX]);
                *counters.acks.borrow_mut() = Default::default();
                counters.back.borrow_mut().clear();
                *counters.figures.borrow_mut() = Figures::default();
                now + *length
            }
            Order::Head(url) => {
                url.clone_into(&mut self.heading.borrow_mut());
                counters.storm.set(counters.storm.get() + 1);
                counters.phase_began_us.set([0, now_us, u64::MAX]);
                now
            }
            Order::Cut => now + PATIENCE,
            Order::Back => {
                let [before, cut, _] = counters.phase_began_us.get();
                counters.phase_began_us.set([before, cut, now_us]);
                now
            }
            Order::After(length) => now + *length,
        }
    }

    fn is_done(&self, order: &Order, until: Instant) -> bool {
        let c = &self.counters;
        let over = Instant::now() >= until || c.failed.borrow().is_some();
        if !matches!(order, Order::Cut) {
            return over;
        }
        let back = c.back.borrow().count() as usize + self.posters.len() >= self.all;
        if back {
            let [_, cut, _] = c.phase_began_us.get();
            c.note(|figures| figures.all_back_us = self.now_us() - cut);
        } else if over {
            let there = c.back.borrow().count();
            let why =
                format!("{there} of {} clients are back after {} s", self.all - self.posters.len(), PATIENCE.as_secs());
            c.failed.borrow_mut().get_or_insert(why);
        }
        back || over
    }

    fn outcome(&self) -> Result<Figures, ClientError> {
        self.check()?;
        let c = &self.counters;
        let (acks, back) = (c.acks.borrow(), c.back.borrow());
        let figures = c.figures.borrow();
        Ok(Figures {
            clients: back.count(),
            before: Acks::of(&acks[0]),
            during: Acks::of(&acks[1]),
            after: Acks::of(&acks[2]),
            back_p50_us: back.at(0.5),
            back_p99_us: back.at(0.99),
            ..*figures
        })
    }

    async fn post_due(&mut self, since: Instant, posted: &mut u64) {
        let due = (since.elapsed().as_secs_f64() * self.per_second) as u64;
        while *posted < due {
            *posted += 1;
            self.post().await;
        }
    }

    /// The next poster in turn posts.
    async fn post(&mut self) {
        // Ids are unique, so the clock is helped on where it stands still.
        self.last_stamp = self.now_us().max(self.last_stamp + 1);
        let stamp = self.last_stamp;
        self.next = (self.next + 1) % self.posters.len();
        let client = &self.posters[self.next];
        let Some(stream) = client.stream.borrow().clone() else {
            // A poster without its connection is a poster without an acknowledgement: the load has failed.
            return client.gone("is not connected any more");
        };
        let (room, id, width) = (client.seat.room, Uuid::now_v7(), self.text_bytes);
        let text =
            format!(r#"{{"type":"post","id":{stamp},"room":{room},"client_id":"{id}","text":"{stamp:0width$}"}}"#);
        let mut frame = Vec::with_capacity(text.len() + 14);
        socket::frame(text.as_bytes(), &mut frame);
        add(&self.counters.under_way, 1);
        if let Err(error) = socket::write((*stream).as_ref(), &frame).await {
            client.gone(&error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_the_time_in_which_its_post_was_sent() {
        let counters = Counters::default();
        counters.phase_began_us.set([0, 1_000, 5_000]);
        for (sent, now) in [(10, 2_000), (1_000, 1_500), (4_999, 9_000), (5_000, 5_010)] {
            counters.answered(sent, now);
        }
        let counts: Vec<u64> = counters.acks.borrow().iter().map(Histogram::count).collect();
        assert_eq!(counts, [1, 2, 1]);
    }
}
