//! The chat path: posts that arrive while the last commit is under way become one transaction; after it returns, its
//! entries go to this server's sessions, the authors are answered, and the other servers are told.
//!
//! One batch is under way at a time, so the posts of one session keep their order. A batch whose outcome is unknown
//! is run again, as it stands, before anything newer: the client message ids make that exact. Nothing is shown or acknowledged before the commit
//! has returned without a warning (promise 1).

use crate::answer::{Answer, Outcome, Written, answer_all, too_many_wait};
use crate::app::App;
use crate::canary::Turn;
use crate::decisions::Decisions;
use crate::durable;
use crate::forward::Answers;
use crate::frame::{self, Frame};
use crate::room::{Need, Offer};
use crate::standing::Standing;
use rules::durability::Rule;
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::receipt::{Durable, Grounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use store::{Appended, Attempt, Batch, EntryKind, Evidence, NewEntry, Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;
use wire::chat::{Content, Entry, RefusalCode, ServerFrame};
use wire::link::{Committed, ForwardOutcome};

/// Posts that may wait.
const POSTS_MAX: usize = 20_000;
/// Bytes of text that may wait.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Posts in one transaction.
const BATCH_MAX: usize = 1000;
/// Shortest time between the beginnings of two transactions, unless the second is large. Every flush costs the principal and
/// each of its standbys the same, whatever it holds. Where few post, nobody waits for anybody.
const PACE: Duration = Duration::from_millis(6);
/// The same for posts that are forwarded: the server that gathers them waits for more anyway.
const FORWARD_PACE: Duration = Duration::from_millis(1);
/// A batch of fewer posts does not make the next one wait.
const BATCH_BUSY: usize = 4;
/// A batch of so many posts does not wait for more.
const BATCH_LARGE: usize = 200;
/// What is taken for a room's rule that is not known.
const STRICTEST: Rule = Rule::ALL[Rule::ALL.len() - 1];
/// A batch that PostgreSQL refuses so often for reasons that should pass is written post by post.
const PASSING_REFUSALS_MAX: u32 = 20;

/// The user who posts.
#[derive(Clone, Debug)]
pub struct Author {
    /// Its number.
    pub id: PrincipalId,
    /// Its name.
    pub name: Arc<str>,
}

/// A post that waits.
pub struct Post {
    /// To which room.
    pub room: RoomId,
    /// Whose.
    pub author: Author,
    /// The author's client message id.
    pub client_id: Uuid,
    /// The text, checked.
    pub text: String,
    /// When it arrived.
    pub arrived: Instant,
    /// Whether its author wants a receipt.
    pub receipt: bool,
    /// Who waits for the outcome.
    pub answer: Answer,
}

/// Takes posts, up to a bound.
pub struct Poster {
    queue: mpsc::Sender<Post>,
    waiting: AtomicU64,
    bytes: AtomicUsize,
    began: Instant,
    /// When the oldest post of the batch under way arrived, in microseconds after the beginning; `u64::MAX`: none is.
    oldest_us: AtomicU64,
    /// The longest that a post took since somebody asked, in microseconds.
    slowest_us: AtomicU64,
}

impl Poster {
    /// A poster and its queue.
    pub fn new() -> (Self, mpsc::Receiver<Post>) {
        let (queue, posts) = mpsc::channel(POSTS_MAX);
        let poster = Self {
            queue,
            waiting: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            began: Instant::now(),
            oldest_us: AtomicU64::new(u64::MAX),
            slowest_us: AtomicU64::new(0),
        };
        (poster, posts)
    }

    /// Take a post, or refuse it because too much waits already.
    pub fn post(&self, app: &App, post: Post) {
        let size = post.text.len();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > BYTES_MAX {
            overloaded(app, post);
        } else if let Err(error) = self.queue.try_send(post) {
            overloaded(app, error.into_inner());
        }
    }

    /// The post waits no more.
    pub fn resolved(&self, post: &Post) {
        self.bytes.fetch_sub(post.text.len(), Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.slowest_us.fetch_max(post.arrived.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    /// A post that waited to be durable enough is to be written again.
    pub fn taken_again(&self, post: &Post) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(post.text.len(), Ordering::Relaxed);
    }

    /// A batch is under way whose oldest post arrived then; `None`: no more.
    fn under_way(&self, oldest: Option<Instant>) {
        let us = oldest.map_or(u64::MAX, |at| at.saturating_duration_since(self.began).as_micros() as u64);
        self.oldest_us.store(us, Ordering::Relaxed);
    }

    /// The longest that a post took since the last call, or has been under way; nothing when nobody posted.
    pub fn slowest(&self) -> Duration {
        let now_us = self.began.elapsed().as_micros() as u64;
        let under_way_us = now_us.saturating_sub(self.oldest_us.load(Ordering::Relaxed));
        Duration::from_micros(self.slowest_us.swap(0, Ordering::Relaxed).max(under_way_us))
    }

    /// Posts that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

fn overloaded(app: &App, post: Post) {
    let message = "too many posts wait already; post it again in a moment with the same client_id".to_owned();
    answer_all(app, vec![(post, Outcome::Refused { code: RefusalCode::Overloaded, message })]);
}

/// Write posts for as long as the process lives, or have them written by the server that gathers them. Between two batches
/// whoever wants to know that it goes on is told so.
pub async fn run(app: Arc<App>, mut posts: mpsc::Receiver<Post>, mut turns: mpsc::Receiver<Turn>) {
    let mut decisions = Decisions::default();
    let mut batch = Vec::new();
    let mut earliest = Instant::now();
    loop {
        tokio::select! {
            given_up = app.forward.given_up(&app) => {
                write_all(&app, &mut decisions, Attempt::Again, given_up).await;
                continue;
            }
            () = app.held.orphaned() => {
                write_orphans(&app, &mut decisions).await;
                continue;
            }
            Some(turn) = turns.recv() => {
                // Whoever does not wait any more needs no word.
                let _ = turn.send(());
                continue;
            }
            count = posts.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
        }
        gather(&mut posts, &mut batch, earliest).await;
        // Before anything newer, wherever that is written.
        write_orphans(&app, &mut decisions).await;
        let busy = batch.len() >= BATCH_BUSY;
        let (forwarded_here, own): (Vec<_>, Vec<_>) =
            batch.drain(..).partition(|post| matches!(post.answer, Answer::Server { .. }));
        let has_declined = |post: &Post| match &post.answer {
            Answer::Server { server, run, .. } => app.forward.has_declined(server, *run),
            Answer::Session { .. } | Answer::Call(_) => false,
        };
        let (too_late, forwarded_here): (Vec<_>, Vec<_>) = forwarded_here.into_iter().partition(has_declined);
        not_active(&app, too_late);
        // Between the servers there is no order to be kept, within each of them there is.
        let began = Instant::now();
        let (pace, mine) = match app.forward.forward(&app, own) {
            Ok(()) => (FORWARD_PACE, Vec::new()),
            Err(own) => (PACE, own),
        };
        earliest = began + if busy { pace } else { Duration::ZERO };
        let mut here = forwarded_here;
        here.extend(mine);
        app.poster.under_way(here.iter().map(|post| post.arrived).min());
        write_all(&app, &mut decisions, Attempt::First, here).await;
        app.poster.under_way(None);
    }
}

/// Write again what an earlier writer has written and was not acknowledged.
async fn write_orphans(app: &App, decisions: &mut Decisions) {
    let present = app.standing.borrow().epoch();
    let posts = present.map(|epoch| app.held.take_orphans(app, epoch)).unwrap_or_default();
    if !posts.is_empty() {
        tracing::info!(posts = posts.len(), "posts that waited to be durable enough are looked for at the new writer");
        write_all(app, decisions, Attempt::Again, posts).await;
    }
}

/// Let a batch grow until its time has come, unless it is large already.
async fn gather(posts: &mut mpsc::Receiver<Post>, batch: &mut Vec<Post>, earliest: Instant) {
    while batch.len() < BATCH_LARGE {
        let room = BATCH_MAX - batch.len();
        match tokio::time::timeout_at(earliest, posts.recv_many(batch, room)).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Write posts until each has its outcome, over as many writers as it takes.
async fn write_all(app: &App, decisions: &mut Decisions, mut attempt_is: Attempt, mut posts: Vec<Post>) {
    let mut refusals = 0;
    while !posts.is_empty() {
        let Some(store) = writer(app).await else {
            // Its sessions are told where to go, and offer their posts there; calls are told the same.
            return not_active(app, posts);
        };
        let orphans = app.held.take_orphans(app, store.epoch());
        if !orphans.is_empty() {
            attempt_is = Attempt::Again;
            posts.splice(..0, orphans);
        }
        match attempt(app, &store, decisions, attempt_is, &mut posts).await {
            Ok(()) => (refusals, attempt_is) = (0, Attempt::First),
            Err(error) if error.is_passing() => {
                refusals += 1;
                attempt_is = Attempt::Again;
                tracing::info!(%error, posts = posts.len(), "a batch is unresolved; it is run again");
                match error {
                    StoreError::Unknown { .. } => {}
                    StoreError::Database { .. } if refusals < PASSING_REFUSALS_MAX => {}
                    StoreError::Database { .. } => return one_by_one(app, &store, decisions, posts, &error).await,
                    _ => store.close(),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return one_by_one(app, &store, decisions, posts, &error).await,
        }
    }
}

/// Tell clients and servers that these posts are not written here.
pub fn not_active(app: &App, posts: Vec<Post>) {
    let message = "this server is not active any more; post it again at an active one".to_owned();
    let mut declined = Answers::default();
    for post in posts {
        app.poster.resolved(&post);
        match post.answer {
            // It may have become active again before the session saw that it was not: the client connects again, here or
            // elsewhere, and offers what was not answered.
            Answer::Session { outbox, .. } => outbox.resume(),
            Answer::Call(call) => {
                let refused = Outcome::Refused { code: RefusalCode::NotActive, message: message.clone() };
                let _ = call.send((refused, None));
            }
            Answer::Server { server, run, number } => {
                app.forward.decline(&server, run);
                declined.add(server, number, post.client_id, ForwardOutcome::Declined);
            }
        }
    }
    declined.send(app);
}

/// PostgreSQL refuses the batch as a whole: find the posts that it is about.
async fn one_by_one(app: &App, store: &Store, decisions: &mut Decisions, posts: Vec<Post>, error: &StoreError) {
    tracing::error!(%error, posts = posts.len(), "a batch was refused; its posts are written one by one");
    for post in posts {
        let mut one = vec![post];
        while !one.is_empty() {
            match attempt(app, store, decisions, Attempt::Again, &mut one).await {
                Ok(()) => {}
                Err(error) if error.is_passing() && !store.is_broken() => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => {
                    // Over a broken connection the outcome stays unknown, and the client is told to ask again.
                    let code = if error.is_passing() { RefusalCode::Unavailable } else { RefusalCode::Internal };
                    let message =
                        format!("the post could not be written: {error}; post it again with the same client_id");
                    let refused = |post| (post, Outcome::Refused { code, message: message.clone() });
                    answer_all(app, one.drain(..).map(refused).collect());
                }
            }
        }
    }
}

/// The present writer; waits for one. `None` when clients belong elsewhere.
async fn writer(app: &App) -> Option<Arc<Store>> {
    let mut standing = app.standing.subscribe();
    let now = standing
        .wait_for(|now| match now {
            Standing::Ready { store } | Standing::Leaving { store } => !store.is_broken(),
            Standing::Away => true,
            Standing::Waiting { .. } => false,
        })
        .await
        .ok()?;
    now.store().cloned()
}

/// Decide, write, show, answer. What has its outcome is taken out of `posts`; what was decided on stale facts stays.
async fn attempt(
    app: &App,
    store: &Store,
    decisions: &mut Decisions,
    attempt: Attempt,
    posts: &mut Vec<Post>,
) -> Result<(), StoreError> {
    decisions.begin(store.epoch());
    decisions.learn(store, posts).await?;
    let mut refused = Vec::new();
    let mut taken = Vec::with_capacity(posts.len());
    let mut entries = Vec::with_capacity(posts.len());
    let mut rules = Vec::with_capacity(posts.len());
    for post in std::mem::take(posts) {
        match decisions.of(&post) {
            Ok((_, rule)) if !rule.is_default() && !app.held.has_room() => {
                refused.push((post, too_many_wait(rule, None)));
            }
            Ok((access_version, rule)) => {
                entries.push(new_entry(&post, access_version));
                rules.push(rule);
                taken.push(post);
            }
            Err((code, message)) => refused.push((post, Outcome::Refused { code, message })),
        }
    }
    answer_all(app, refused);
    let versions: Vec<i64> = entries.iter().map(|e| e.access_version).collect();
    let (posts_in_it, began, mut waited) = (entries.len(), Instant::now(), false);
    let results = match store.append(&Batch::new(entries), attempt).await {
        Ok(results) => {
            app.counts.committed(posts_in_it, began.elapsed());
            results
        }
        Err(error) => {
            *posts = taken;
            return Err(error);
        }
    };
    let mut shown = Shown::default();
    let mut written = Vec::with_capacity(taken.len());
    let (mut later, mut shown_later) = (Vec::new(), Vec::new());
    for (((post, result), version), rule) in taken.into_iter().zip(results).zip(versions).zip(rules) {
        match result {
            Appended::At { room, seq, epoch, at_us, repeated, evidence } => {
                // Of another room's rule nothing is known here: it is looked up before the post is acknowledged.
                let rule = if room == post.room { rule } else { STRICTEST };
                if !rule.is_default() {
                    let Evidence { chain, content, nonce, waited_for_standby: _ } = evidence;
                    let (durable, less_than, grounds) = (Durable::Disk, None, Some(Grounds { chain, content, nonce }));
                    if !repeated {
                        shown_later.push((rule, version, entry_of(&post, seq, store.epoch(), at_us)));
                    }
                    let written = Written { room, seq, epoch, at_us, repeated, durable, less_than, grounds };
                    later.push((post, Outcome::Committed(written, rule, store.epoch())));
                    continue;
                }
                if repeated {
                    // It may be of an attempt whose end was not seen, with no one told; its text is the first one's.
                    hint(app, room, seq);
                } else {
                    let epoch = store.epoch();
                    shown.show(app, (room, seq, epoch), version, || entry_of(&post, seq, epoch, at_us));
                }
                let Evidence { chain, content, nonce, waited_for_standby } = evidence;
                waited |= waited_for_standby;
                let (durable, less_than, grounds) = (Durable::Disk, None, Some(Grounds { chain, content, nonce }));
                written.push((post, Written { room, seq, epoch, at_us, repeated, durable, less_than, grounds }));
            }
            Appended::Stale => {
                decisions.forget(post.room);
                app.mender.check_access(&[post.room], app);
                posts.push(post);
            }
        }
    }
    // Before the answers: a server shows what it has forwarded before it acknowledges it.
    shown.tell(app);
    app.held.show_later(store.epoch(), shown_later);
    answer_all(app, later);
    if written.is_empty() {
        return Ok(());
    }
    let durable = durable::find_out(app, store, waited).await;
    let answer = |(post, written)| (post, Outcome::Written(Written { durable, ..written }));
    answer_all(app, written.into_iter().map(answer).collect());
    Ok(())
}

fn new_entry(post: &Post, access_version: i64) -> NewEntry {
    NewEntry {
        room: post.room,
        author: post.author.id,
        client_id: Some(post.client_id),
        kind: EntryKind::Post,
        target: None,
        body: Some(post.text.clone()),
        access_version,
    }
}

fn entry_of(post: &Post, seq: Seq, epoch: Epoch, at_us: i64) -> Entry {
    Entry {
        room: post.room,
        seq,
        epoch,
        author: post.author.name.to_string(),
        at_us,
        client_id: Some(post.client_id),
        late: None,
        content: Content::Post { text: post.text.clone() },
    }
}

/// What a transaction has committed, for the links.
#[derive(Default)]
pub struct Shown {
    entries: Vec<Committed>,
    frames: Vec<Frame>,
}

impl Shown {
    /// Show a committed entry to this server's sessions, if there are any in its room. It is made only when it is needed.
    pub fn show(
        &mut self,
        app: &App,
        (id, seq, epoch): (RoomId, Seq, Epoch),
        access_version: i64,
        entry: impl FnOnce() -> Entry,
    ) {
        let room = app.rooms.get(id);
        let links = app.links.any();
        if room.is_none() && !links {
            return;
        }
        let frame = frame::encode(&ServerFrame::Entry(entry()));
        if links {
            self.entries.push(Committed { room: id, seq, epoch, access_version });
            self.frames.push(frame.clone());
        }
        if let Some(room) = room {
            let need = room.offer(Offer { seq, access_version, frame }, epoch);
            app.mender.ask(id, need);
        }
    }

    /// Tell the other servers.
    pub fn tell(self, app: &App) {
        app.links.tell_committed(self.entries, &self.frames);
    }
}

/// An entry is known to be there without being at hand: it is read from the database.
pub fn hint(app: &App, room: RoomId, seq: Seq) {
    if let Some(live) = app.rooms.get(room) {
        let need: Need = live.lock().hint(seq, 0);
        app.mender.ask(room, need);
    }
}
