//! One client on a WebSocket.
//!
//! A session waits for one of four things: frames from the client, room for frames that it did not take, a change of how the
//! server stands, the word to resume. It never waits for the database: joins are tasks of their own, posts go to the chat
//! path. What others have for the client passes it by ([`crate::outbox`]).

use crate::answer::Answer;
use crate::app::App;
use crate::frame::encode;
use crate::join;
use crate::notices::Listening;
use crate::outbox::{Outbox, SessionId};
use crate::poster::{Author, Post, Way};
use crate::reception::{Arrival, Failed, Owner, Turn};
use crate::socket::Socket;
use crate::standing::{Standing, addresses, pool_stands};
use cluster::name::ServerName;
use rand::Rng;
use rules::id::RoomId;
use rules::limit::{HISTORY_DEFAULT, HISTORY_PAGE_MAX, POST_BYTES_MAX, ROOMS_PER_CONNECTION_MAX};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::TokenHash;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use uuid::Uuid;
use wire::chat::{ClientFrame, RefusalCode, ServerFrame, close};

/// How long a client may take for its `hello`.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// A client that was silent for so long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(20);
/// A client that stays silent is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a client to take the last frame.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Frames that break the protocol before the connection is closed.
const BAD_FRAMES_MAX: u32 = 10;
/// Who waits for the turn is told so after this time, at once where it takes a while, and again so often.
const QUEUED_FIRST: Duration = Duration::from_millis(300);
const QUEUED_EVERY: Duration = Duration::from_secs(5);
/// Longest time over which sessions leave, in milliseconds.
pub const MOVE_WINDOW_MAX_MS: u64 = 10_000;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// How a session ends.
enum Ending {
    /// The client went, or its connection broke.
    Gone,
    /// Closed with a code, after saying why.
    Closed(u16, &'static str),
}

/// What a join needs of its session.
#[derive(Clone)]
pub struct Who {
    /// The session's number.
    pub session: SessionId,
    /// The user.
    pub author: Author,
    /// Where its frames go.
    pub outbox: Outbox,
}

/// What the first frame came to.
struct Hello {
    author: Author,
    token: TokenHash,
    receipts: bool,
}

struct Session {
    app: Arc<App>,
    socket: Socket,
    who: Who,
    token: TokenHash,
    /// Whether its acknowledgements carry receipts.
    receipts: bool,
    rooms: HashMap<RoomId, tokio::task::JoinHandle<()>>,
    bad_frames: u32,
    heard: Instant,
    /// The last look whether its token is still valid.
    checking: Option<tokio::task::JoinHandle<()>>,
}

/// Serve a client from its upgrade to its end.
pub async fn serve(app: Arc<App>, mut socket: Socket) {
    let _count = app.count_session();
    let ending = match hello(&app, &mut socket).await {
        Ok(Hello { author, token, receipts }) => {
            let outbox = socket.outbox().clone();
            let who = Who { session: NEXT.fetch_add(1, Ordering::Relaxed), author, outbox };
            let _listening = Listening::begin(&app, &who);
            let heard = Instant::now();
            let (rooms, checking) = (HashMap::new(), None);
            let mut session = Session { app, socket, who, token, receipts, rooms, bad_frames: 0, heard, checking };
            let ending = session.run().await;
            session.leave_all().await;
            socket = session.socket;
            ending
        }
        Err(ending) => ending,
    };
    if let Ending::Closed(code, reason) = ending {
        // A client that does not take it is gone as well.
        let _ = tokio::time::timeout(CLOSE_WAIT, socket.close(code, reason)).await;
    }
}

/// Hear the token, wait for a writer and for the turn if need be, and find out whose it is.
async fn hello(app: &Arc<App>, socket: &mut Socket) -> Result<Hello, Ending> {
    let first = tokio::time::timeout(HELLO_WAIT, next_text(socket)).await;
    let text = match first {
        Ok(Some(text)) => text,
        Ok(None) => return Err(Ending::Gone),
        Err(_) => return Err(Ending::Closed(close::BAD_FRAME, "no hello came in time")),
    };
    let Ok(ClientFrame::Hello { token, ticket, receipts }) = serde_json::from_str(&text) else {
        let message = "the first frame is to be {\"type\":\"hello\",\"token\":\"…\"}".to_owned();
        send(socket, &ServerFrame::Refused { id: 0, code: RefusalCode::BadRequest, message });
        return Err(Ending::Closed(close::BAD_FRAME, "the first frame is to be hello"));
    };
    let hash = TokenHash::of(&token);
    let standing = app.standing.subscribe();
    if matches!(*standing.borrow(), Standing::Leaving { .. } | Standing::Away) {
        return Err(goes_elsewhere(app, socket));
    }
    // This one is counted already.
    let full = app.sessions() > app.places.sessions;
    let mut turn = match app.reception.arrive(hash.clone(), ticket.as_deref(), full) {
        Arrival::Waits(turn) => turn,
        Arrival::ComesBack { after_ms, ticket, to } => {
            return Err(comes_back(app, socket, after_ms, ticket, to.as_ref()));
        }
    };
    match until_let_in(app, socket, &mut turn, standing).await? {
        Ok(Owner { user: Some(user), epoch }) => {
            let author = Author { id: user.id, name: user.name.as_str().into() };
            let view = app.view();
            let welcome = ServerFrame::Welcome {
                user: user.name,
                server: app.name.to_string(),
                epoch,
                servers: addresses(&view),
                post_bytes_max: POST_BYTES_MAX,
                pool_name: view.topology.pool.clone(),
                pool: pool_stands(&view),
            };
            send(socket, &welcome);
            Ok(Hello { author, token: hash, receipts })
        }
        Ok(Owner { user: None, .. }) => Err(not_signed_in(socket)),
        Err(Failed) => Err(failed(socket)),
    }
}

/// Wait for the turn, telling the client what it waits for.
async fn until_let_in(
    app: &Arc<App>,
    socket: &mut Socket,
    turn: &mut Turn,
    mut standing: watch::Receiver<Standing>,
) -> Result<Result<Owner, Failed>, Ending> {
    let mut queued = false;
    let mut tell_at = Instant::now() + first_word(turn);
    standing.mark_changed();
    loop {
        tokio::select! {
            biased;
            owner = turn.come() => return Ok(owner),
            changed = standing.changed() => {
                changed.map_err(|_| Ending::Gone)?;
                let now = standing.borrow_and_update().clone();
                match now {
                    // Everybody who waited for the writer waits for the turn now.
                    Standing::Ready { .. } => tell_at = tell_at.min(Instant::now() + first_word(turn)),
                    Standing::Waiting { reason, since_us } => {
                        send(socket, &ServerFrame::Waiting { reason: reason.to_string(), since_us });
                    }
                    Standing::Leaving { .. } | Standing::Away => return Err(goes_elsewhere(app, socket)),
                }
            }
            // Nothing may come before welcome; most of all this notices that the client has gone.
            text = next_text(socket) => return Err(match text {
                Some(_) => Ending::Closed(close::BAD_FRAME, "wait for welcome before anything else"),
                None => Ending::Gone,
            }),
            () = tokio::time::sleep_until(tell_at) => {
                if !std::mem::replace(&mut queued, true) {
                    app.reception.counts.queued();
                }
                if matches!(*standing.borrow(), Standing::Ready { .. }) {
                    let (ahead, about_ms) = turn.outlook();
                    send(socket, &ServerFrame::Queued { ahead, about_ms });
                }
                tell_at = Instant::now() + QUEUED_EVERY;
            }
        }
    }
}

/// After what time somebody is told of the turn.
fn first_word(turn: &Turn) -> Duration {
    if turn.takes_a_while() { Duration::ZERO } else { QUEUED_FIRST }
}

/// Tell a client when to come back, and where.
fn comes_back(app: &App, socket: &Socket, after_ms: u64, ticket: String, to: Option<&ServerName>) -> Ending {
    let servers = addresses(&app.view());
    let servers: Vec<_> = servers.into_iter().filter(|s| to.is_some_and(|to| s.name == to.as_str())).collect();
    let reason = if servers.is_empty() { "many sign in at the moment" } else { "there is more room at another server" };
    send(socket, &ServerFrame::ComeBack { after_ms, ticket, servers, reason: reason.to_owned() });
    Ending::Closed(close::COME_BACK, reason)
}

fn goes_elsewhere(app: &App, socket: &Socket) -> Ending {
    send(socket, &move_frame(app, 0));
    Ending::Closed(close::MOVED, "this server takes no clients now")
}

fn not_signed_in(socket: &Socket) -> Ending {
    let message = "the token is unknown or revoked; sign in again".to_owned();
    send(socket, &ServerFrame::Refused { id: 0, code: RefusalCode::NotSignedIn, message });
    Ending::Closed(close::NOT_SIGNED_IN, "not signed in")
}

fn failed(socket: &Socket) -> Ending {
    let message = "the token could not be looked up; try again".to_owned();
    send(socket, &ServerFrame::Refused { id: 0, code: RefusalCode::Internal, message });
    Ending::Closed(close::RESUME, "internal error")
}

fn send(socket: &Socket, frame: &ServerFrame) {
    socket.outbox().push(encode(frame));
}

async fn next_text(socket: &mut Socket) -> Option<Utf8Bytes> {
    loop {
        match socket.next().await? {
            Message::Text(text) => return Some(text),
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) | Message::Close(_) | Message::Frame(_) => return None,
        }
    }
}

fn move_frame(app: &App, after_ms: u64) -> ServerFrame {
    let view = app.view();
    let servers = addresses(&view).into_iter().filter(|s| s.active).collect();
    ServerFrame::Move { servers, after_ms, reason: "this server is not active any more; others are".to_owned() }
}

impl Session {
    async fn run(&mut self) -> Ending {
        let mut standing = self.app.standing.subscribe();
        let mut ready = true;
        let mut moves_at: Option<Instant> = None;
        let outbox = self.who.outbox.clone();
        let alarm = tokio::time::sleep(PING_AFTER);
        tokio::pin!(alarm);
        loop {
            tokio::select! {
                message = self.socket.next_while_writing() => {
                    self.heard = Instant::now();
                    if let Some(ending) = self.hear(message).await {
                        return ending;
                    }
                }
                changed = standing.changed(), if moves_at.is_none() => {
                    if changed.is_err() {
                        return Ending::Gone;
                    }
                    let now = standing.borrow_and_update().clone();
                    moves_at = self.tell_standing(&now, &mut ready);
                    if let Some(at) = moves_at {
                        alarm.as_mut().reset(at);
                    }
                }
                code = outbox.told() => return told(code),
                () = &mut alarm => {
                    if moves_at.is_some() {
                        return Ending::Closed(close::MOVED, "this server takes no clients now");
                    }
                    if let Some(ending) = self.ask_whether_there().await {
                        return ending;
                    }
                    self.check_token();
                    alarm.as_mut().reset(Instant::now() + PING_AFTER);
                }
            }
        }
    }

    /// Tell the client how the server stands now. Returns when it is to be gone, if it is to go.
    fn tell_standing(&self, now: &Standing, ready: &mut bool) -> Option<Instant> {
        match now {
            Standing::Ready { store } => {
                if !std::mem::replace(ready, true) {
                    let pool = pool_stands(&self.app.view());
                    self.tell(&ServerFrame::Ready { epoch: store.epoch(), pool });
                }
                None
            }
            Standing::Waiting { reason, since_us } => {
                if std::mem::replace(ready, false) {
                    self.tell(&ServerFrame::Waiting { reason: reason.to_string(), since_us: *since_us });
                }
                None
            }
            Standing::Leaving { .. } | Standing::Away => {
                let after_ms = rand::rng().random_range(0..=move_window_ms(self.app.sessions()));
                self.tell(&move_frame(&self.app, after_ms));
                Some(Instant::now() + Duration::from_millis(after_ms))
            }
        }
    }

    async fn ask_whether_there(&mut self) -> Option<Ending> {
        let silent = self.heard.elapsed();
        if silent > SILENCE_MAX {
            return Some(Ending::Gone);
        }
        if silent < PING_AFTER {
            return None;
        }
        match tokio::time::timeout(CLOSE_WAIT, self.socket.ping()).await {
            Ok(true) => None,
            Ok(false) | Err(_) => Some(Ending::Gone),
        }
    }

    /// End the session when its token was revoked or its account switched off meanwhile; one look after the other.
    fn check_token(&mut self) {
        if self.checking.as_ref().is_some_and(|check| !check.is_finished()) {
            return;
        }
        let (app, token, outbox) = (self.app.clone(), self.token.clone(), self.who.outbox.clone());
        self.checking = Some(tokio::spawn(async move {
            if app.reception.still_valid(token).await == Some(false) {
                outbox.end(close::NOT_SIGNED_IN);
            }
        }));
    }

    fn tell(&self, frame: &ServerFrame) {
        self.who.outbox.push(encode(frame));
    }

    fn refuse(&self, id: u64, code: RefusalCode, message: impl Into<String>) {
        self.tell(&ServerFrame::Refused { id, code, message: message.into() });
    }

    async fn hear(&mut self, message: Option<Message>) -> Option<Ending> {
        match message {
            Some(Message::Text(text)) => self.obey(&text).await,
            Some(Message::Ping(_) | Message::Pong(_)) => None,
            Some(Message::Binary(_)) => self.bad_frame(0, "frames are text, one JSON object each"),
            Some(Message::Close(_) | Message::Frame(_)) | None => Some(Ending::Gone),
        }
    }

    fn bad_frame(&mut self, id: u64, why: impl Into<String>) -> Option<Ending> {
        self.bad_frames += 1;
        self.refuse(id, RefusalCode::BadRequest, why);
        (self.bad_frames >= BAD_FRAMES_MAX)
            .then_some(Ending::Closed(close::BAD_FRAME, "too many frames that break the protocol"))
    }

    async fn obey(&mut self, text: &str) -> Option<Ending> {
        match serde_json::from_str(text) {
            Ok(ClientFrame::Hello { .. }) => self.bad_frame(0, "hello comes once, as the first frame"),
            Ok(ClientFrame::Join { id, room, after, history }) => {
                self.join(join::Request {
                    id,
                    room,
                    after,
                    history: history.unwrap_or(HISTORY_DEFAULT).min(HISTORY_PAGE_MAX),
                })
                .await;
                None
            }
            Ok(ClientFrame::Leave { id, room }) => {
                self.leave(room).await;
                self.tell(&ServerFrame::Left { id, room });
                None
            }
            Ok(ClientFrame::Post { id, room, client_id, text }) => {
                self.post(id, room, client_id, text).await;
                None
            }
            Err(error) => {
                let id = id_of(text);
                self.bad_frame(id, format!("the frame cannot be read: {error}; see /docs/frames"))
            }
        }
    }

    async fn join(&mut self, request: join::Request) {
        self.leave(request.room).await;
        if self.rooms.len() >= ROOMS_PER_CONNECTION_MAX {
            self.forget_refused();
        }
        if self.rooms.len() >= ROOMS_PER_CONNECTION_MAX {
            let message = format!("a connection joins {ROOMS_PER_CONNECTION_MAX} rooms at most; leave one first");
            return self.refuse(request.id, RefusalCode::Overloaded, message);
        }
        let room = request.room;
        let task = tokio::spawn(join::join(self.app.clone(), self.who.clone(), request));
        self.rooms.insert(room, task);
    }

    /// Forget rooms whose join was refused, or that the session has been put out of.
    fn forget_refused(&mut self) {
        let (app, session) = (&self.app, self.who.session);
        self.rooms.retain(|room, task| {
            !task.is_finished() || app.rooms.get(*room).is_some_and(|live| live.lock().holds(session))
        });
    }

    async fn leave(&mut self, room: RoomId) {
        let Some(task) = self.rooms.remove(&room) else { return };
        // Only when the join has really ended is it certain that it puts nothing more in the queue.
        task.abort();
        let _ = task.await;
        if let Some(live) = self.app.rooms.get(room) {
            live.lock().remove(self.who.session);
        }
    }

    async fn leave_all(&mut self) {
        self.who.outbox.resume();
        for room in self.rooms.keys().copied().collect::<Vec<_>>() {
            self.leave(room).await;
        }
    }

    async fn post(&self, id: u64, room: RoomId, client_id: Uuid, text: String) {
        if let Err((code, message)) = check_text(&text) {
            return self.refuse(id, code, message);
        }
        self.app.poster.look_up(&self.app, room).await;
        let answer = Answer::Session { id, outbox: self.who.outbox.clone() };
        let arrived = tokio::time::Instant::now();
        let (author, receipt) = (self.who.author.clone(), self.receipts);
        self.app
            .poster
            .post(&self.app, Post { room, author, client_id, text, arrived, receipt, answer, way: Way::default() });
    }
}

fn told(code: u16) -> Ending {
    let reason = match code {
        close::NOT_SIGNED_IN => "the token was revoked",
        _ => "connect again and resume from your cursors",
    };
    Ending::Closed(code, reason)
}

/// Sessions leave spread over this many milliseconds: 5 a millisecond, 50 ms at least, 10 s at most.
fn move_window_ms(sessions: u64) -> u64 {
    (sessions / 5).clamp(50, MOVE_WINDOW_MAX_MS)
}

/// Whether a text may be posted.
pub fn check_text(text: &str) -> Result<(), (RefusalCode, String)> {
    if text.is_empty() {
        Err((RefusalCode::BadRequest, "the text is empty; post at least one character".to_owned()))
    } else if text.len() > POST_BYTES_MAX {
        let message = format!("the text has {} bytes; at most {POST_BYTES_MAX} are taken", text.len());
        Err((RefusalCode::TooLarge, message))
    } else if text.contains('\0') {
        Err((RefusalCode::BadRequest, "the text holds the character U+0000, which cannot be kept".to_owned()))
    } else {
        Ok(())
    }
}

/// The request's id of a frame that cannot be read as a whole.
fn id_of(text: &str) -> u64 {
    #[derive(serde::Deserialize)]
    struct Id {
        #[serde(default)]
        id: u64,
    }
    serde_json::from_str::<Id>(text).map_or(0, |frame| frame.id)
}
