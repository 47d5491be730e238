//! The chat path: posts that arrive while the last commit is under way become one transaction; when it has returned, its
//! entries are shown and its authors are answered (`after_commit`), while the next one is on its way.
//!
//! One batch is under way at a time, so the posts of one session keep their order. A batch whose outcome is unknown
//! is run again, as it stands, before anything newer: the client message ids make that exact. Nothing is shown or acknowledged before the commit
//! has returned without a warning (promise 1).
//!
//! Rooms that ask for the principal's disk alone have a lane of their own (`lanes`), with batches and a connection of its own, so that
//! they go on while the other lane's commit waits for a mirror that hangs. It forwards nothing: such a transaction has its rooms for
//! the time of one flush.

use crate::after_commit::{AfterCommit, Decided, Transaction};
use crate::answer::{Answer, Outcome, Written, answer_all, too_many_wait};
use crate::app::App;
use crate::canary::Turn;
use crate::decisions::Decisions;
use crate::durable;
use crate::forward::Answers;
use crate::lanes::{Course, Lane};
use crate::poster::{Came, Post};
use crate::standing::Standing;
use rules::id::RoomId;
use rules::receipt::{Durable, Grounds};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Appended, Attempt, Batch, EntryKind, Evidence, NewEntry, Store, StoreError, Waits};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::chat::RefusalCode;
use wire::link::ForwardOutcome;

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
/// A batch that PostgreSQL refuses so often for reasons that should pass is written post by post.
const PASSING_REFUSALS_MAX: u32 = 20;

/// What a lane keeps between two batches.
struct Work {
    lane: Lane,
    decisions: Decisions,
    after: AfterCommit,
}

impl Work {
    fn of(lane: Lane, app: &Arc<App>) -> Self {
        Self { lane, decisions: Decisions::default(), after: AfterCommit::start(app) }
    }
}

/// Write posts for as long as the process lives, or have them written by the server that gathers them. Between two batches
/// whoever wants to know that it goes on is told so.
pub async fn run(app: Arc<App>, mut posts: mpsc::Receiver<Post>, mut turns: mpsc::Receiver<Turn>) {
    let mut work = Work::of(Lane::Mirror, &app);
    let mut batch = Vec::new();
    let mut earliest = Instant::now();
    loop {
        tokio::select! {
            given_up = app.forward.given_up(&app) => {
                write_all(&app, &mut work, Attempt::Again, given_up).await;
                continue;
            }
            () = app.held.orphaned() => {
                write_orphans(&app, &mut work).await;
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
        write_orphans(&app, &mut work).await;
        let busy = batch.len() >= BATCH_BUSY;
        let (forwarded_here, own): (Vec<_>, Vec<_>) =
            batch.drain(..).partition(|post| matches!(post.answer, Answer::Server { .. }));
        let mut here = without_declined(&app, forwarded_here);
        // Between the servers there is no order to be kept, within each of them there is.
        let began = Instant::now();
        let (pace, mine) = match app.forward.forward(&app, own) {
            Ok(()) => (FORWARD_PACE, Vec::new()),
            Err(own) => (PACE, own),
        };
        earliest = began + if busy { pace } else { Duration::ZERO };
        here.extend(mine);
        write_new(&app, &mut work, here).await;
    }
}

/// The same for rooms that ask for the principal's disk alone.
pub async fn run_disk(app: Arc<App>, mut posts: mpsc::Receiver<Post>) {
    let mut work = Work::of(Lane::Disk, &app);
    let mut batch = Vec::new();
    let mut earliest = Instant::now();
    while posts.recv_many(&mut batch, BATCH_MAX).await > 0 {
        gather(&mut posts, &mut batch, earliest).await;
        let pace = if batch.len() >= BATCH_BUSY { PACE } else { Duration::ZERO };
        earliest = Instant::now() + pace;
        let here = without_declined(&app, std::mem::take(&mut batch));
        write_new(&app, &mut work, here).await;
    }
}

async fn write_new(app: &Arc<App>, work: &mut Work, posts: Vec<Post>) {
    app.poster.under_way(work.lane, posts.iter().map(|post| post.arrived).min());
    write_all(app, work, Attempt::First, posts).await;
    app.poster.under_way(work.lane, None);
}

/// Posts of a server's run of which one was declined are declined as well, lest they come before it.
fn without_declined(app: &App, posts: Vec<Post>) -> Vec<Post> {
    let has_declined = |post: &Post| match &post.answer {
        Answer::Server { server, run, .. } => app.forward.has_declined(server, *run),
        Answer::Session { .. } | Answer::Call(_) => false,
    };
    let (too_late, posts): (Vec<_>, Vec<_>) = posts.into_iter().partition(has_declined);
    not_active(app, too_late);
    posts
}

/// Write again what an earlier writer has written and was not acknowledged.
async fn write_orphans(app: &Arc<App>, work: &mut Work) {
    let present = app.standing.borrow().epoch();
    let posts = present.map(|epoch| app.held.take_orphans(app, epoch, work.lane)).unwrap_or_default();
    if !posts.is_empty() {
        tracing::info!(posts = posts.len(), "posts that waited to be durable enough are looked for at the new writer");
        write_all(app, work, Attempt::Again, posts).await;
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
async fn write_all(app: &Arc<App>, work: &mut Work, mut attempt_is: Attempt, mut posts: Vec<Post>) {
    let mut refusals = 0;
    while !posts.is_empty() {
        let Some(store) = writer(app).await else {
            // Its sessions are told where to go, and offer their posts there; calls are told the same.
            return not_active(app, posts);
        };
        let orphans = app.held.take_orphans(app, store.epoch(), work.lane);
        if !orphans.is_empty() {
            attempt_is = Attempt::Again;
            posts.splice(..0, orphans);
        }
        match attempt(app, &store, work, attempt_is, &mut posts).await {
            Ok(()) => (refusals, attempt_is) = (0, Attempt::First),
            Err(StoreError::HeldUp { why, .. }) => {
                tracing::info!(why, posts = posts.len(), "a batch that waits for no mirror is held up");
                if posts.iter().any(|post| post.room != posts[0].room) {
                    return room_by_room(app, work, posts).await;
                }
                if !stand_aside(app, work.lane, &mut posts) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Err(error) if error.is_passing() => {
                refusals += 1;
                attempt_is = Attempt::Again;
                tracing::info!(%error, posts = posts.len(), "a batch is unresolved; it is run again");
                match error {
                    StoreError::Unknown { .. } => {}
                    StoreError::Database { .. } if refusals < PASSING_REFUSALS_MAX => {}
                    StoreError::Database { .. } => return one_by_one(app, &store, work, posts, &error).await,
                    _ => store.close(),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return one_by_one(app, &store, work, posts, &error).await,
        }
    }
}

/// Some of these rooms are held up by who waits for the mirror: find out which, so that the others go on.
async fn room_by_room(app: &Arc<App>, work: &mut Work, posts: Vec<Post>) {
    let mut rooms: BTreeMap<RoomId, Vec<Post>> = BTreeMap::new();
    for post in posts {
        rooms.entry(post.room).or_default().push(post);
    }
    for posts in rooms.into_values() {
        Box::pin(write_all(app, work, Attempt::Again, posts)).await;
    }
}

/// Leave these posts of one room, all that this lane has taken of it, to the other lane, which waits for the mirror anyway. Not while
/// that one still hands posts of the room over.
fn stand_aside(app: &App, lane: Lane, posts: &mut Vec<Post>) -> bool {
    let Some(room) = posts.first().map(|post| post.room) else { return true };
    let goes = lane == Lane::Disk && app.poster.course(room, lane, Lane::Mirror) == Course::Over;
    if goes {
        app.poster.hand_over(app, lane, Came::HeldUp, std::mem::take(posts));
    }
    goes
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
async fn one_by_one(app: &Arc<App>, store: &Arc<Store>, work: &mut Work, posts: Vec<Post>, error: &StoreError) {
    tracing::error!(%error, posts = posts.len(), "a batch was refused; its posts are written one by one");
    for post in posts {
        let mut one = vec![post];
        while !one.is_empty() {
            match attempt(app, store, work, Attempt::Again, &mut one).await {
                Ok(()) => {}
                Err(StoreError::HeldUp { .. }) if stand_aside(app, work.lane, &mut one) => {}
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

/// Decide on posts. Those that are refused are answered, those whose rooms belong in the other lane go there.
async fn decide(app: &App, store: &Store, work: &mut Work, posts: &mut Vec<Post>) -> Result<Vec<Decided>, StoreError> {
    work.decisions.begin(store.epoch());
    for post in posts.iter_mut().filter(|post| post.way.came == Came::HandedOver) {
        work.decisions.forget(post.room);
        post.way.came = Came::Known;
    }
    work.decisions.learn(store, posts).await?;
    let mut refused = Vec::new();
    let mut taken = Vec::with_capacity(posts.len());
    for post in std::mem::take(posts) {
        match work.decisions.of(&post) {
            Ok((_, rule)) if rule.asks_standbys() && !app.held.has_room() => {
                refused.push((post, too_many_wait(rule, None)));
            }
            Ok((access_version, rule)) => taken.push((post, access_version, rule)),
            Err((code, message)) => refused.push((post, Outcome::Refused { code, message })),
        }
    }
    answer_all(app, refused);
    Ok(keep_to_lane(app, work.lane, taken))
}

/// Hand over what belongs in the other lane, all of a room or nothing.
fn keep_to_lane(app: &App, lane: Lane, taken: Vec<Decided>) -> Vec<Decided> {
    // By room: where it belongs, and whether its posts may go there.
    let mut rooms: BTreeMap<RoomId, (Lane, bool)> = BTreeMap::new();
    for (post, _, rule) in taken.iter().filter(|(_, version, _)| *version >= 0) {
        let (_, may_go) = rooms.entry(post.room).or_insert((Lane::of(*rule), true));
        *may_go &= post.way.came != Came::HeldUp;
    }
    let mut over: BTreeMap<RoomId, Vec<Post>> = BTreeMap::new();
    {
        let mut lanes = app.poster.lanes();
        for (room, (belongs, may_go)) in rooms {
            lanes.learn(room, belongs);
            if lanes.course(room, lane, if may_go { belongs } else { lane }) == Course::Over {
                over.insert(room, Vec::new());
            }
        }
    }
    if over.is_empty() {
        return taken;
    }
    let mut stays = Vec::with_capacity(taken.len());
    for (post, access_version, rule) in taken {
        match over.get_mut(&post.room) {
            Some(posts) => posts.push(post),
            None => stays.push((post, access_version, rule)),
        }
    }
    over.into_values().for_each(|posts| app.poster.hand_over(app, lane, Came::HandedOver, posts));
    stays
}

/// Decide, write, and have it shown and answered. What has its outcome is taken out of `posts`; what was decided on stale facts stays.
async fn attempt(
    app: &Arc<App>,
    store: &Arc<Store>,
    work: &mut Work,
    attempt: Attempt,
    posts: &mut Vec<Post>,
) -> Result<(), StoreError> {
    let decided = decide(app, store, work, posts).await?;
    // What is not known is not written.
    let on_disk = work.lane == Lane::Disk && decided.iter().all(|(_, version, rule)| rule.is_disk() || *version < 0);
    let waits = if on_disk { Waits::ForNobody } else { Waits::ForMirror };
    let entries = decided.iter().map(|(post, version, _)| new_entry(post, *version)).collect();
    let batch = Batch::new(entries).waiting(waits);
    let (posts_in_it, began) = (decided.len(), Instant::now());
    let appended = if durable::has_standbys(app, store.epoch()) {
        store.append_and_ask(&batch, attempt).await
    } else {
        store.append(&batch, attempt).await.map(|results| (results, None))
    };
    let (results, flushed) = match appended {
        Ok(appended) => {
            app.counts.committed(posts_in_it, began.elapsed());
            appended
        }
        Err(error) => {
            *posts = decided.into_iter().map(|(post, ..)| post).collect();
            return Err(error);
        }
    };
    let mut committed = Vec::with_capacity(decided.len());
    for (decided, result) in decided.into_iter().zip(results) {
        match result {
            Appended::At { room, seq, epoch, at_us, repeated, evidence } => {
                let Evidence { chain, content, nonce, waited_for_standby } = evidence;
                let (durable, less_than, grounds) = (Durable::Disk, None, Some(Grounds { chain, content, nonce }));
                let written = Written { room, seq, epoch, at_us, repeated, durable, less_than, grounds };
                committed.push((decided, written, waited_for_standby));
            }
            Appended::Stale => {
                let (post, ..) = decided;
                work.decisions.forget(post.room);
                app.mender.check_access(&[post.room], app);
                posts.push(post);
            }
        }
    }
    if !committed.is_empty() {
        work.after.take(Transaction { store: store.clone(), waits, posts: committed, flushed }).await;
    }
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
