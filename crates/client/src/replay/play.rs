//! Carrying a timetable out against a running pool.

use super::book::{Book, Ledger, Outstanding, Progress, Shared, Summary};
use super::plan::{Act, Plan, Speed, Step};
use crate::error::ClientError;
use crate::event::Event;
use crate::http::Http;
use crate::session::{Identity, Proof, Session};
use rules::access::{Privacy, RoomKind};
use rules::id::RoomId;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;
use wire::chat::RefusalCode;
use wire::http::{NewCategory, NewRoom, SignedIn};
use wire::ledger::LedgerLine;

/// The category of all replays.
pub const CATEGORY: &str = "Replays";
/// Posts that may wait for their acknowledgement, over all, when a log is played as fast as the pool takes it.
const WAITING_AT_MAX: usize = 256;
/// The same at a speed of its own: then nobody waits for anybody, up to what memory bears.
const WAITING_TIMED: usize = 200_000;
/// Longest wait for outstanding acknowledgements at the end.
const LAST_ACKS_WAIT: Duration = Duration::from_secs(30);
/// Longest wait until everybody has seen everything.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// Events that may wait for the book.
const EVENTS_MAX: usize = 16 * 1024;
/// As long as nobody says otherwise.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Rooms of one name that are tried.
const NAMES_TRIED: usize = 20;

/// How to play.
#[derive(Clone, Debug)]
pub struct Options {
    /// The pool's name, for the ledger.
    pub pool: String,
    /// The logs' names, without folders, in the plan's order.
    pub sources: Vec<String>,
    /// How fast.
    pub speed: Speed,
    /// Where the ledger goes.
    pub ledger: Option<PathBuf>,
    /// Begin again at the end.
    pub repeat: bool,
    /// Stop after so long.
    pub duration: Option<Duration>,
}

/// Play a plan. `stop` counts how often it was asked to stop: once ends it in order, twice without waiting.
///
/// # Errors
/// When it cannot be set up, or the ledger cannot be written.
pub async fn play(
    http: Arc<Http>,
    plan: &Plan,
    options: &Options,
    stop: watch::Receiver<u32>,
    progress: watch::Sender<Progress>,
) -> Result<Summary, ClientError> {
    let ledger = options.ledger.as_deref().map(Ledger::create).transpose()?;
    let began_at = jiff::Timestamp::now();
    let rooms = make_rooms(&http, &options.sources, began_at).await?;
    let tokens = http.create_users(&plan.people).await?;
    let mut begin = vec![LedgerLine::Head { pool: options.pool.clone(), began_at: began_at.to_string(), format: 1 }];
    begin.extend(rooms.iter().zip(&options.sources).map(|((room, name), source)| LedgerLine::Room {
        room: *room,
        name: name.clone(),
        source: source.clone(),
    }));
    let permits = if options.speed == Speed::Max { WAITING_AT_MAX } else { WAITING_TIMED };
    let shared = Arc::new(Shared {
        outstanding: Outstanding::default(),
        permits: Semaphore::new(permits),
        posts: AtomicU64::new(0),
    });
    let seen = progress.subscribe();
    // The pool's spelling of a name counts, should there have been a user of that name before.
    let people = tokens.iter().map(|t| t.user.clone()).collect();
    let book = Book::new(ledger, &begin, people, shared.clone(), progress)?;
    let (events, to_book) = mpsc::channel(EVENTS_MAX);
    let book = tokio::spawn(book.keep(to_book));
    let rooms = rooms.into_iter().map(|(id, _)| id).collect();
    let receipts = options.ledger.is_some();
    let stage = Stage { http, plan, rooms, tokens, sessions: HashMap::new(), events, shared, receipts };
    perform(stage, options, stop, seen, book).await
}

async fn perform(
    mut stage: Stage<'_>,
    options: &Options,
    mut stop: watch::Receiver<u32>,
    mut seen: watch::Receiver<Progress>,
    mut book: JoinHandle<Result<Summary, ClientError>>,
) -> Result<Summary, ClientError> {
    let over = tokio::time::sleep(options.duration.unwrap_or(FOREVER));
    tokio::select! {
        () = stage.play(options) => {}
        () = over => {}
        _ = stop.wait_for(|asked| *asked > 0) => {}
        kept = &mut book => return ended_early(kept),
    }
    tokio::select! {
        () = finish(&stage.shared, &mut seen) => {}
        _ = stop.wait_for(|asked| *asked > 1) => {}
        kept = &mut book => return ended_early(kept),
    }
    stage.close().await;
    ended_early(book.await)
}

fn ended_early(kept: Result<Result<Summary, ClientError>, tokio::task::JoinError>) -> Result<Summary, ClientError> {
    kept.unwrap_or_else(|e| Err(ClientError::Connection(format!("the task that keeps the ledger ended: {e}"))))
}

/// Wait for the last acknowledgements, and until everybody has seen everything.
async fn finish(shared: &Shared, seen: &mut watch::Receiver<Progress>) {
    let acknowledged = seen.wait_for(|now| now.waiting == 0 && now.again == 0 && shared.outstanding.count().0 == 0);
    // What is not acknowledged by then is counted as given up.
    let _ = tokio::time::timeout(LAST_ACKS_WAIT, acknowledged).await;
    seen.mark_unchanged();
    let _ = seen.changed().await;
    let _ = tokio::time::timeout(SETTLE_WAIT, seen.wait_for(|now| now.settled)).await;
}

/// A room for each log, named after it.
async fn make_rooms(
    http: &Http,
    sources: &[String],
    began_at: jiff::Timestamp,
) -> Result<Vec<(RoomId, String)>, ClientError> {
    let category = NewCategory {
        name: CATEGORY.to_owned(),
        description: "Conversations played by standfast replay".to_owned(),
        allowed_members: vec!["Everyone".to_owned()],
        ..NewCategory::default()
    };
    match http.create_category(&category).await {
        Err(error) if !error.is(RefusalCode::Conflict) => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let stamp = began_at.strftime("%Y%m%dT%H%M%S");
    let mut rooms = Vec::with_capacity(sources.len());
    for source in sources {
        let stem = source.rsplit_once('.').map_or(source.as_str(), |(stem, _)| stem);
        rooms.push(make_room(http, &format!("{stem} {stamp}"), source).await?);
    }
    Ok(rooms)
}

async fn make_room(http: &Http, name: &str, source: &str) -> Result<(RoomId, String), ClientError> {
    let mut tried = 1;
    loop {
        let name = if tried == 1 { name.to_owned() } else { format!("{name}-{tried}") };
        let room = NewRoom {
            name: name.clone(),
            category: CATEGORY.to_owned(),
            description: format!("{source}, played by standfast replay"),
            privacy: Privacy::Open,
            kind: RoomKind::Normal,
            members: Vec::new(),
        };
        match http.create_room(&room).await {
            Ok(room) => return Ok((room.id, name)),
            Err(error) if error.is(RefusalCode::Conflict) && tried < NAMES_TRIED => tried += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Everybody who plays.
struct Stage<'a> {
    http: Arc<Http>,
    plan: &'a Plan,
    rooms: Vec<RoomId>,
    tokens: Vec<SignedIn>,
    sessions: HashMap<usize, Session>,
    events: mpsc::Sender<(u32, Event)>,
    shared: Arc<Shared>,
    /// A ledger keeps them.
    receipts: bool,
}

impl Stage<'_> {
    async fn play(&mut self, options: &Options) {
        loop {
            self.play_once(options.speed).await;
            if !options.repeat {
                return;
            }
        }
    }

    async fn play_once(&mut self, speed: Speed) {
        let began = Instant::now();
        for step in &self.plan.steps {
            if let Speed::Times(times) = speed {
                tokio::time::sleep_until(began + step.at.div_f64(times)).await;
            }
            self.take(step).await;
        }
        if let Speed::Times(times) = speed {
            // The last minute of the log lasts as long as the others, so that rounds follow each other evenly.
            tokio::time::sleep_until(began + (self.plan.length + Duration::from_secs(1)).div_f64(times)).await;
        }
    }

    async fn take(&mut self, step: &Step) {
        let room = self.rooms[step.log];
        if let Act::Say(text) = &step.act {
            // Never closed, so it only fails when the program ends.
            let shared = self.shared.clone();
            let Ok(permit) = shared.permits.acquire().await else { return };
            // Who stops the replay may drop this at any wait: what counts comes after the last one.
            let Some(slot) = self.session(step.who).reserve().await else { return };
            permit.forget();
            let client_id = Uuid::now_v7();
            shared.outstanding.add(client_id);
            shared.posts.fetch_add(1, Ordering::Relaxed);
            slot.post(room, client_id, text.clone());
        } else if step.act == Act::Join {
            self.session(step.who).join(room, None).await;
        } else {
            self.session(step.who).leave(room).await;
        }
    }

    fn session(&mut self, who: usize) -> &Session {
        self.sessions.entry(who).or_insert_with(|| {
            let signed_in = &self.tokens[who];
            let identity = Identity {
                user: signed_in.user.clone(),
                token: signed_in.token.clone(),
                proof: Proof::IssuedBy(self.http.clone()),
                receipts: self.receipts,
            };
            Session::open(self.http.directory().clone(), identity, who as u32, self.events.clone())
        })
    }

    /// End all sessions, and with the last one the book.
    async fn close(self) {
        drop(self.events);
        futures_util::future::join_all(self.sessions.into_values().map(Session::close)).await;
    }
}
