//! The reception: clients are let in, and their joins decided on, in rounds, one round at a time, so that a crowd that comes
//! at once neither holds the chat path up nor starves anybody.
//!
//! A round asks the database once for everybody in it: whose tokens they are, which rooms they may join. How many are in a
//! round follows from how long posts take to be acknowledged ([`rules::admission`]). Half of it is for joins, so who is let in is
//! soon in the rooms as well; clients are let in in the order in which they came first, at whichever server that was.
//! Who waits costs a connection and an entry here.

use crate::app::App;
use crate::lanes::Lane;
use crate::standing::Standing;
use cluster::name::ServerName;
use cluster::secret::{PoolSecret, Purpose};
use hmac::{Hmac, Mac};
use rules::admission::{AT_ONCE_FIRST, Appointments, Door, Other, Pace, Rate, Seen, door, elsewhere};
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::{Facts, Store, StoreError, TokenHash, UserRow};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

/// Clients that may wait here connected; others are told when to come back.
const WAITING_MAX: u64 = 10_000;
/// Pages of rooms' logs that are read at a time for those who join: what is left of the readers is for posts.
const PAGES_AT_ONCE: usize = 2;
/// The others are told so often how many wait here, while it changes.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Pause after a round that the database did not carry out.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// A ticket that says more than this about the past is not believed.
const TICKET_AGE_MAX_MS: u64 = 3_600_000;
/// Digits of a ticket's proof.
const PROOF_DIGITS: usize = 32;

/// Whose token it is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Who presents it; `None`: nobody.
    pub user: Option<UserRow>,
    /// The epoch of the writer that said so.
    pub epoch: Epoch,
}

/// What decides about joins of one round.
pub struct Decided {
    /// About the rooms and the users.
    pub facts: Facts,
    /// Where epochs began in the rooms, those that somebody in the round may not have heard of.
    pub starts: HashMap<RoomId, Vec<(Epoch, Seq)>>,
    /// The epoch of the writer that said so.
    pub epoch: Epoch,
}

/// Something that a round failed at for good; the log says why.
#[derive(Clone, Copy, Debug)]
pub struct Failed;

type Answer<T> = oneshot::Sender<Result<T, Failed>>;

/// Who waits: the time of the first visit, and a number for those of the same millisecond.
type Place = (u64, u64);

struct Token {
    hash: TokenHash,
    answer: Answer<Owner>,
}

struct Join {
    user: PrincipalId,
    room: RoomId,
    since: Option<Epoch>,
    answer: Answer<Arc<Decided>>,
}

#[derive(Default)]
struct Waiting {
    clients: BTreeMap<Place, Token>,
    joins: VecDeque<Join>,
    /// Sessions that are here, whose tokens are looked up again by and by.
    checks: VecDeque<Token>,
    appointments: Appointments,
    rate: Rate,
    others: BTreeMap<ServerName, Other>,
}

/// The reception of a server.
pub struct Reception {
    waiting: Mutex<Waiting>,
    next: AtomicU64,
    woken: Notify,
    began: Instant,
    key: String,
    /// Bounds the reading of pages, by lane.
    pages: [Semaphore; 2],
    /// What became of those who came.
    pub counts: Counts,
}

/// What became of those who came.
#[derive(Default)]
pub struct Counts {
    let_in: AtomicU64,
    queued: AtomicU64,
    come_back: AtomicU64,
    elsewhere: AtomicU64,
}

impl Counts {
    /// By what became of them.
    pub fn by_outcome(&self) -> [(&'static str, u64); 4] {
        let counts = [&self.let_in, &self.queued, &self.come_back, &self.elsewhere];
        let words = ["let-in", "queued", "come-back", "elsewhere"];
        std::array::from_fn(|n| (words[n], counts[n].load(Ordering::Relaxed)))
    }

    /// Somebody was told to wait.
    pub fn queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }
}

/// What becomes of somebody who came with a token.
pub enum Arrival {
    /// Waits for the turn.
    Waits(Turn),
    /// Comes back later.
    ComesBack {
        /// After so many milliseconds.
        after_ms: u64,
        /// With this ticket.
        ticket: String,
        /// To this server, if not to this one.
        to: Option<ServerName>,
    },
}

/// The place of somebody who waits; given up when this is dropped.
pub struct Turn {
    place: Place,
    /// So many waited when it was given, and so many had been let in.
    ahead: u64,
    let_in: u64,
    reception: Arc<Reception>,
    answer: oneshot::Receiver<Result<Owner, Failed>>,
}

impl Turn {
    /// Whose token it is, when the turn has come. May be dropped and called again.
    pub async fn come(&mut self) -> Result<Owner, Failed> {
        (&mut self.answer).await.unwrap_or(Err(Failed))
    }

    /// How many are before at most, and about how long it will take, in milliseconds.
    pub fn outlook(&self) -> (u64, u64) {
        let since = self.reception.counts.let_in.load(Ordering::Relaxed) - self.let_in;
        let ahead = self.ahead.saturating_sub(since);
        (ahead, self.reception.lock().rate.time_for_ms(ahead))
    }

    /// Whether somebody has to wait for more than a round: it is worth a word at once.
    pub fn takes_a_while(&self) -> bool {
        self.ahead >= u64::from(AT_ONCE_FIRST)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.reception.lock().clients.remove(&self.place);
    }
}

impl Reception {
    /// Of a pool with this secret.
    pub fn new(secret: &PoolSecret) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            woken: Notify::new(),
            began: Instant::now(),
            key: secret.derive(Purpose::Ticket),
            pages: Lane::ALL.map(|_| Semaphore::new(PAGES_AT_ONCE)),
            counts: Counts::default(),
        })
    }

    /// Bounds the reading of pages of rooms in this lane: the others' wait for the mirror.
    pub fn pages(&self, lane: Lane) -> &Semaphore {
        &self.pages[lane.index()]
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no code panics while it holds the reception")
    }

    /// Clients that wait to be let in.
    pub fn waiting(&self) -> u64 {
        self.lock().clients.len() as u64
    }

    /// Somebody comes with a token, and perhaps with a ticket. `full`: there is no place for one more connection.
    pub fn arrive(self: &Arc<Self>, hash: TokenHash, ticket: Option<&str>, full: bool) -> Arrival {
        let now = unix_ms();
        let ticket = ticket.and_then(|text| self.read(text, now));
        let (since, moved) = ticket.map_or((now, false), |ticket| (ticket.since, ticket.moved));
        let mut waiting = self.lock();
        let count = waiting.clients.len() as u64;
        if !moved && let Some(to) = waiting.elsewhere(count) {
            drop(waiting);
            self.counts.elsewhere.fetch_add(1, Ordering::Relaxed);
            return Arrival::ComesBack { after_ms: 0, ticket: self.ticket(since, true), to: Some(to) };
        }
        if full || door(count, WAITING_MAX, ticket.is_some()) == Door::ComeBack {
            let clock = self.began.elapsed().as_millis() as u64;
            let rate = waiting.rate;
            let after_ms = waiting.appointments.give(clock, count, rate);
            drop(waiting);
            self.counts.come_back.fetch_add(1, Ordering::Relaxed);
            return Arrival::ComesBack { after_ms, ticket: self.ticket(since, moved), to: None };
        }
        let (answer, receiver) = oneshot::channel();
        let place = (since, self.next.fetch_add(1, Ordering::Relaxed));
        waiting.clients.insert(place, Token { hash, answer });
        drop(waiting);
        self.woken.notify_one();
        let let_in = self.counts.let_in.load(Ordering::Relaxed);
        Arrival::Waits(Turn { place, ahead: count, let_in, reception: self.clone(), answer: receiver })
    }

    /// Look a session's token up again, when there is time for it. `None`: it cannot be said now.
    pub async fn still_valid(&self, hash: TokenHash) -> Option<bool> {
        let (answer, receiver) = oneshot::channel();
        self.lock().checks.push_back(Token { hash, answer });
        self.woken.notify_one();
        receiver.await.ok()?.ok().map(|owner| owner.user.is_some())
    }

    /// What decides about a join, with the epochs that began later than `since`.
    pub async fn decide(&self, user: PrincipalId, room: RoomId, since: Option<Epoch>) -> Result<Arc<Decided>, Failed> {
        let (answer, receiver) = oneshot::channel();
        self.lock().joins.push_back(Join { user, room, since, answer });
        self.woken.notify_one();
        receiver.await.unwrap_or(Err(Failed))
    }

    /// Another server says how many wait there.
    pub fn heard(&self, server: &str, waiting: u64) {
        self.lock().others.insert(ServerName::from(server), Other { waiting, sent: 0 });
    }

    /// The link to another server broke: nobody is sent there.
    pub fn lost(&self, server: &str) {
        self.lock().others.remove(&ServerName::from(server));
    }

    fn ticket(&self, since: u64, moved: bool) -> String {
        let said = format!("{since}.{}", u8::from(moved));
        let proof = self.proof(&said);
        format!("{said}.{proof}")
    }

    fn proof(&self, said: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).expect("HMAC takes keys of any length");
        mac.update(said.as_bytes());
        let digits: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        digits[..PROOF_DIGITS].to_owned()
    }

    /// What a ticket says, if this pool has given it and it is not too old. Any other is as good as none.
    fn read(&self, text: &str, now: u64) -> Option<Ticket> {
        let (said, proof) = text.rsplit_once('.')?;
        if self.proof(said) != proof {
            return None;
        }
        let (since, moved) = said.split_once('.')?;
        let since: u64 = since.parse().ok()?;
        (since <= now && now - since <= TICKET_AGE_MAX_MS).then_some(Ticket { since, moved: moved == "1" })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    /// When its holder came first: milliseconds since the Unix epoch.
    since: u64,
    /// Whether its holder was sent to another server already, which happens once.
    moved: bool,
}

fn unix_ms() -> u64 {
    jiff::Timestamp::now().as_millisecond().max(0) as u64
}

impl Waiting {
    fn elsewhere(&mut self, count: u64) -> Option<ServerName> {
        let (names, others): (Vec<_>, Vec<_>) = self.others.iter().map(|(name, other)| (name.clone(), *other)).unzip();
        let to = names[elsewhere(count, &others)?].clone();
        if let Some(other) = self.others.get_mut(&to) {
            other.sent += 1;
        }
        Some(to)
    }

    /// The next round: of what there is half for joins, three eighths for clients, the rest for checks of those who are here, so
    /// that none of them can hold the others up; what one does not need goes to joins first. Who has gone takes no place.
    fn round(&mut self, at_once: usize) -> Round {
        let mut round = Round::default();
        self.add_to(&mut round, [at_once / 2, at_once * 3 / 8, at_once / 8]);
        let left = at_once.saturating_sub(round.count());
        self.add_to(&mut round, [left, 0, 0]);
        let left = at_once.saturating_sub(round.count());
        self.add_to(&mut round, [0, left, 0]);
        let left = at_once.saturating_sub(round.count());
        self.add_to(&mut round, [0, 0, left]);
        round
    }

    fn add_to(&mut self, round: &mut Round, [joins, clients, checks]: [usize; 3]) {
        let joins = std::iter::from_fn(|| self.joins.pop_front()).filter(|join| !join.answer.is_closed()).take(joins);
        round.joins.extend(joins);
        let clients = std::iter::from_fn(|| self.clients.pop_first()).take(clients);
        round.clients.extend(clients);
        let checks =
            std::iter::from_fn(|| self.checks.pop_front()).filter(|token| !token.answer.is_closed()).take(checks);
        round.checks.extend(checks);
    }

    /// Everybody to the place where they were.
    fn put_back(&mut self, round: Round) {
        round.joins.into_iter().rev().for_each(|join| self.joins.push_front(join));
        self.clients.extend(round.clients.into_iter().filter(|(_, token)| !token.answer.is_closed()));
        round.checks.into_iter().rev().for_each(|token| self.checks.push_front(token));
    }

    fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.clients.is_empty() && self.checks.is_empty()
    }
}

#[derive(Default)]
struct Round {
    joins: Vec<Join>,
    clients: Vec<(Place, Token)>,
    checks: Vec<Token>,
}

impl Round {
    fn count(&self) -> usize {
        self.joins.len() + self.clients.len() + self.checks.len()
    }
}

/// Carry out rounds for as long as the process lives. While there is no writer everybody keeps the place.
pub async fn run(app: Arc<App>) {
    let mut pace = Pace::default();
    let mut standing = app.standing.subscribe();
    loop {
        if app.reception.lock().is_empty() {
            app.reception.woken.notified().await;
            continue;
        }
        let now = standing.borrow_and_update().clone();
        let Some(store) = now.store().filter(|store| !store.is_broken()).cloned() else {
            if matches!(now, Standing::Ready { .. } | Standing::Leaving { .. }) {
                tokio::time::sleep(AGAIN_AFTER).await;
            } else if standing.changed().await.is_err() {
                return;
            }
            continue;
        };
        let round = app.reception.lock().round(pace.at_once() as usize);
        if round.count() == 0 {
            continue;
        }
        let (count, clients) = (round.count() as u32, round.clients.len() as u32);
        let began = Instant::now();
        if !carry_out(&app, &store, round).await {
            tokio::time::sleep(AGAIN_AFTER).await;
            continue;
        }
        let seen = Seen {
            ack_ms: app.poster.slowest().as_millis() as u64,
            round_ms: began.elapsed().as_millis() as u64,
            let_in: count,
            others_wait: !app.reception.lock().is_empty(),
        };
        tokio::time::sleep(Duration::from_millis(pace.rest_ms(seen))).await;
        pace = pace.after(seen);
        if clients > 0 {
            app.reception.counts.let_in.fetch_add(u64::from(clients), Ordering::Relaxed);
            let mut waiting = app.reception.lock();
            waiting.rate = waiting.rate.after(clients, began.elapsed().as_millis() as u64);
        }
    }
}

/// `false` when the writer was lost: the round waits for the next one.
async fn carry_out(app: &App, store: &Store, round: Round) -> bool {
    let asked = tokio::try_join!(decide(store, &round.joins), look_up(store, &round));
    match asked {
        Ok((decided, owners)) => {
            let decided = Arc::new(decided);
            for join in round.joins {
                // Who does not wait any more needs no answer; so below.
                let _ = join.answer.send(Ok(decided.clone()));
            }
            let tokens = round.clients.into_iter().map(|(_, token)| token).chain(round.checks);
            for (token, user) in tokens.zip(owners) {
                let _ = token.answer.send(Ok(Owner { user, epoch: store.epoch() }));
            }
            true
        }
        Err(error) if error.is_passing() => {
            tracing::debug!(%error, "a round of letting clients in is carried out again");
            app.reception.lock().put_back(round);
            false
        }
        Err(error) => {
            tracing::error!(%error, "clients could not be let in, or their joins decided on");
            round.joins.into_iter().for_each(|join| drop(join.answer.send(Err(Failed))));
            let tokens = round.clients.into_iter().map(|(_, token)| token).chain(round.checks);
            tokens.for_each(|token| drop(token.answer.send(Err(Failed))));
            true
        }
    }
}

async fn look_up(store: &Store, round: &Round) -> Result<Vec<Option<UserRow>>, StoreError> {
    let tokens = round.clients.iter().map(|(_, token)| token).chain(&round.checks);
    let hashes: Vec<TokenHash> = tokens.map(|token| token.hash.clone()).collect();
    if hashes.is_empty() { Ok(Vec::new()) } else { store.token_owners(&hashes).await }
}

async fn decide(store: &Store, joins: &[Join]) -> Result<Decided, StoreError> {
    let epoch = store.epoch();
    let users: BTreeSet<PrincipalId> = joins.iter().map(|join| join.user).collect();
    let rooms: BTreeSet<RoomId> = joins.iter().map(|join| join.room).collect();
    let (users, rooms): (Vec<_>, Vec<_>) = (users.into_iter().collect(), rooms.into_iter().collect());
    let facts = if rooms.is_empty() { Facts::default() } else { store.facts(&users, &rooms).await? };
    // After the facts: an epoch that begins in between is found, and its head is too small for nobody.
    let since = joins.iter().filter_map(|join| join.since).min();
    let starts = match since {
        Some(since) => store.epoch_starts_in(&rooms, since).await?,
        None => HashMap::new(),
    };
    Ok(Decided { facts, starts, epoch })
}

/// Tell the other servers how many wait here, while it changes.
pub async fn tell(app: Arc<App>) {
    let mut told = 0;
    let mut ticks = tokio::time::interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut links = app.links.came_up();
    loop {
        ticks.tick().await;
        let (waiting, up) = (app.reception.waiting(), app.links.came_up());
        if waiting != told || up != links {
            (told, links) = (waiting, up);
            app.links.tell_waiting(waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reception() -> Arc<Reception> {
        Reception::new(&PoolSecret::from_text(&"0123456789abcdef".repeat(2)).expect("it is long enough"))
    }

    fn hash() -> TokenHash {
        TokenHash::of("a token")
    }

    fn waits(arrival: Arrival) -> Turn {
        match arrival {
            Arrival::Waits(turn) => turn,
            Arrival::ComesBack { after_ms, to, .. } => panic!("comes back after {after_ms} ms to {to:?}"),
        }
    }

    fn comes_back(arrival: Arrival) -> (u64, String, Option<ServerName>) {
        match arrival {
            Arrival::ComesBack { after_ms, ticket, to } => (after_ms, ticket, to),
            Arrival::Waits(turn) => panic!("waits behind {}", turn.ahead),
        }
    }

    /// How the next round stands: the places of those who are let in.
    fn order(reception: &Reception) -> Vec<Place> {
        reception.lock().clients.keys().copied().collect()
    }

    #[test]
    fn who_comes_back_has_the_place_of_the_first_visit_and_everybody_another_time() {
        let reception = reception();
        let (first, ticket, to) = comes_back(reception.arrive(hash(), None, true));
        let (second, _, _) = comes_back(reception.arrive(hash(), None, true));
        assert!(second > first && to.is_none(), "{first} {second} {to:?}");
        // Somebody who comes later, in another millisecond, waits here meanwhile.
        let now = unix_ms();
        while unix_ms() == now {
            std::thread::yield_now();
        }
        let later = waits(reception.arrive(hash(), None, false));
        let back = waits(reception.arrive(hash(), Some(&ticket), false));
        assert_eq!(order(&reception), [back.place, later.place]);
        drop(back);
        assert_eq!(order(&reception), [later.place], "who goes gives the place up");
    }

    #[test]
    fn a_round_has_a_part_for_everybody_and_fills_up_with_who_is_there() {
        let reception = reception();
        let turns: Vec<Turn> = (0..20).map(|_| waits(reception.arrive(hash(), None, false))).collect();
        let mut kept = Vec::new();
        let mut join = |waiting: &mut Waiting| {
            let (answer, receiver) = oneshot::channel();
            kept.push(receiver);
            waiting.joins.push_back(Join { user: PrincipalId(1), room: RoomId(1), since: None, answer });
        };
        let mut waiting = reception.lock();
        (0..100).for_each(|_| join(&mut waiting));
        // One has gone meanwhile.
        waiting.joins.push_front(Join {
            user: PrincipalId(2),
            room: RoomId(1),
            since: None,
            answer: oneshot::channel().0,
        });
        let round = waiting.round(16);
        assert_eq!((round.joins.len(), round.clients.len()), (10, 6));
        assert!(round.joins.iter().all(|join| join.user == PrincipalId(1)));
        waiting.put_back(round);
        waiting.joins.clear();
        let round = waiting.round(16);
        let places: Vec<Place> = round.clients.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, turns[..16].iter().map(|turn| turn.place).collect::<Vec<_>>(), "in their order");
        drop(waiting);
        drop(turns);
    }

    #[test]
    fn a_ticket_that_this_pool_has_not_given_is_none() {
        let reception = reception();
        let (_, ticket, _) = comes_back(reception.arrive(hash(), None, true));
        let now = unix_ms();
        let good = reception.read(&ticket, now).expect("it was given here");
        let forged = ticket.replacen(&good.since.to_string(), &(good.since - 1).to_string(), 1);
        for bad in [forged.as_str(), "", ".", "1.0.ff", &ticket[1..], "x.y"] {
            assert_eq!(reception.read(bad, now), None, "{bad}");
        }
        assert_eq!(reception.read(&ticket, now + TICKET_AGE_MAX_MS + 1), None, "too old");
        assert_eq!(reception.read(&ticket, good.since - 1), None, "of the future");
    }

    #[test]
    fn somebody_is_sent_to_a_server_with_more_room_once() {
        let reception = reception();
        let turns: Vec<Turn> = (0..1_000).map(|_| waits(reception.arrive(hash(), None, false))).collect();
        assert_eq!(turns.last().map(|turn| turn.ahead), Some(999));
        reception.heard("server-2", 0);
        let (after_ms, ticket, to) = comes_back(reception.arrive(hash(), None, false));
        assert_eq!((after_ms, to), (0, Some(ServerName::from("server-2"))));
        waits(reception.arrive(hash(), Some(&ticket), false));
        reception.lost("server-2");
        waits(reception.arrive(hash(), None, false));
        let counts: HashMap<_, _> = reception.counts.by_outcome().into_iter().collect();
        assert_eq!((counts["elsewhere"], counts["come-back"]), (1, 0));
    }
}
