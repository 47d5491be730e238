//! A session that outlives its connections: it finds a server, says hello, joins its rooms where it left off, offers its
//! posts until they are acknowledged, and tells its owner what happens.

use crate::connection::{Connection, Heard};
use crate::directory::Directory;
use crate::error::ClientError;
use crate::event::Event;
use crate::http::Http;
use crate::memory::Memory;
use rand::Rng;
use rules::id::RoomId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;
use wire::chat::{ClientFrame, Cursor, ServerFrame, close};

/// Wishes that may wait for a session.
const WISHES_MAX: usize = 1024;
/// How often a session looks whether its server lives.
const LOOK: Duration = Duration::from_secs(1);
/// A server that owes an answer and was silent for so long is asked for a sign of life.
const SILENT_OWING: Duration = Duration::from_secs(2);
/// The same for one that owes nothing.
const SILENT_IDLE: Duration = Duration::from_secs(20);
/// Longest wait for the sign of life.
const SIGN_WAIT: Duration = Duration::from_secs(2);
/// Pause between two servers that did not let the session in, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 10..50;
/// Entries taken in before the owner's wishes are heard again.
const FRAMES_AT_ONCE: usize = 64;

/// How a session proves who it is when its token is not valid any more: a failover may have lost the newest ones.
#[derive(Clone, Debug)]
pub enum Proof {
    /// It cannot.
    TokenOnly,
    /// Its user signs in again.
    SignIn(Arc<Http>),
    /// An administrator issues another token.
    IssuedBy(Arc<Http>),
}

/// Whose session it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// A valid token.
    pub token: String,
    /// What to do when it is not valid any more.
    pub proof: Proof,
    /// Whether acknowledgements are to carry receipts.
    pub receipts: bool,
}

impl Identity {
    async fn renewed_token(&self) -> Result<String, ClientError> {
        match &self.proof {
            Proof::TokenOnly => Err(ClientError::Connection("sign in again".to_owned())),
            Proof::SignIn(http) => http.sign_in_again().await,
            Proof::IssuedBy(http) => {
                let sessions = http.create_users(std::slice::from_ref(&self.user)).await?;
                let first = sessions.into_iter().next();
                first.map(|s| s.token).ok_or_else(|| ClientError::Connection("no token was issued".to_owned()))
            }
        }
    }
}

/// What the owner wants.
#[derive(Debug)]
enum Wish {
    Join(RoomId, Option<u32>),
    Resume(RoomId, Cursor),
    Leave(RoomId),
    Post(RoomId, Uuid, Arc<str>, Instant),
    /// Break the connection as a failing network would.
    Break,
}

/// The owner's end of a session.
#[derive(Debug)]
pub struct Session {
    wishes: mpsc::Sender<Wish>,
    task: JoinHandle<()>,
}

impl Session {
    /// Begin a session. Its events carry `number`, so that many sessions can share one receiver.
    pub fn open(
        directory: Arc<Directory>,
        identity: Identity,
        number: u32,
        events: mpsc::Sender<(u32, Event)>,
    ) -> Session {
        let (sender, wishes) = mpsc::channel(WISHES_MAX);
        let memory = Memory::default();
        let (out, ticket, appointment) = (Vec::new(), None, None);
        let life = Life { directory, identity, number, events, wishes, memory, out, ticket, appointment };
        Session { wishes: sender, task: tokio::spawn(life.run()) }
    }

    /// Be in a room, from now on, over all connections; with so many of its latest entries, 30 when left out.
    pub async fn join(&self, room: RoomId, history: Option<u32>) {
        self.wish(Wish::Join(room, history)).await;
    }

    /// Be in a room of which everything up to the cursor is known already.
    pub async fn resume(&self, room: RoomId, cursor: Cursor) {
        self.wish(Wish::Resume(room, cursor)).await;
    }

    /// Leave a room.
    pub async fn leave(&self, room: RoomId) {
        self.wish(Wish::Leave(room)).await;
    }

    /// Post. It is offered until it is acknowledged or given up.
    pub async fn post(&self, room: RoomId, client_id: Uuid, text: impl Into<Arc<str>>) {
        self.wish(Wish::Post(room, client_id, text.into(), Instant::now())).await;
    }

    /// Wait until a post can be handed over. `None` when the session has ended.
    pub async fn reserve(&self) -> Option<Slot<'_>> {
        self.wishes.reserve().await.ok().map(Slot)
    }

    /// Break the connection as a failing network would: the session makes another one and resumes.
    pub async fn break_connection(&self) {
        self.wish(Wish::Break).await;
    }

    async fn wish(&self, wish: Wish) {
        // A session that has ended has said so as an event.
        let _ = self.wishes.send(wish).await;
    }

    /// End the session; what is not acknowledged is forgotten.
    pub async fn close(self) {
        drop(self.wishes);
        let _ = self.task.await;
    }
}

/// Room for one post: handing it over neither waits nor fails.
#[derive(Debug)]
pub struct Slot<'a>(mpsc::Permit<'a, Wish>);

impl Slot<'_> {
    /// Post. It is offered until it is acknowledged or given up.
    pub fn post(self, room: RoomId, client_id: Uuid, text: Arc<str>) {
        self.0.send(Wish::Post(room, client_id, text, Instant::now()));
    }
}

/// Why a connection is over.
enum Over {
    /// The owner is done.
    Done,
    /// The token is not valid any more.
    SignedOut(String),
    /// It broke, or the server sends its clients elsewhere.
    Lost(String),
}

/// When a session that a server could not keep waiting comes back, and where.
#[derive(Clone, Debug)]
struct Appointment {
    at: Instant,
    /// The server that it was sent to, for the first attempt.
    url: Option<Arc<str>>,
}

struct Life {
    directory: Arc<Directory>,
    identity: Identity,
    number: u32,
    events: mpsc::Sender<(u32, Event)>,
    wishes: mpsc::Receiver<Wish>,
    memory: Memory,
    out: Vec<Event>,
    /// The place in the row, until the session is let in.
    ticket: Option<String>,
    appointment: Option<Appointment>,
}

impl Life {
    async fn run(mut self) {
        loop {
            let Some((url, connection)) = self.connect().await else { return };
            let mut let_in = false;
            let over = self.serve(&url, connection, &mut let_in).await;
            self.memory.cut(&mut self.out);
            match over {
                Over::Done => return,
                Over::Lost(reason) => {
                    if let_in {
                        self.out.insert(0, Event::Disconnected { reason });
                    }
                }
                Over::SignedOut(why) => {
                    if let_in {
                        self.out.insert(0, Event::Disconnected { reason: why.clone() });
                    }
                    match self.identity.renewed_token().await {
                        Ok(token) => self.identity.token = token,
                        Err(error) => {
                            let reason = format!("user {}: {why}: {error}", self.identity.user);
                            self.out.push(Event::Ended { reason });
                            self.tell().await;
                            return;
                        }
                    }
                }
            }
            if !self.tell().await {
                return;
            }
        }
    }

    /// Pass events on; `false` when nobody listens any more.
    async fn tell(&mut self) -> bool {
        for event in self.out.drain(..) {
            if self.events.send((self.number, event)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Find a server and say hello, taking the owner's wishes meanwhile. `None` when the owner is done.
    async fn connect(&mut self) -> Option<(Arc<str>, Connection)> {
        let (token, ticket, receipts) = (self.identity.token.clone(), self.ticket.clone(), self.identity.receipts);
        let hello = ClientFrame::Hello { token, ticket, receipts };
        let dial = dial(self.directory.clone(), hello, self.appointment.take());
        tokio::pin!(dial);
        loop {
            tokio::select! {
                found = &mut dial => return Some(found),
                wish = self.wishes.recv() => {
                    self.grant(wish?);
                    if !self.tell().await {
                        return None;
                    }
                }
            }
        }
    }

    /// Take a wish in. Returns whether the connection is to be broken.
    fn grant(&mut self, wish: Wish) -> bool {
        match wish {
            Wish::Join(room, history) => self.memory.join(room, history),
            Wish::Resume(room, cursor) => self.memory.resume(room, cursor),
            Wish::Leave(room) => self.memory.leave(room, &mut self.out),
            Wish::Post(room, client_id, text, since) => self.memory.post(room, client_id, text, since),
            Wish::Break => return true,
        }
        false
    }

    async fn serve(&mut self, url: &str, mut connection: Connection, let_in: &mut bool) -> Over {
        let mut frames = Vec::new();
        let mut life = SignsOfLife::new();
        let mut leave_at: Option<Instant> = None;
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                heard = connection.next() => {
                    life.heard();
                    if let Some(over) = self.take_in(url, heard, &mut leave_at, let_in) {
                        // What came before the end is told before it.
                        self.tell().await;
                        return over;
                    }
                }
                wish = self.wishes.recv() => match wish {
                    None => {
                        connection.close().await;
                        return Over::Done;
                    }
                    Some(wish) => if self.grant(wish) {
                        return Over::Lost("broken on purpose".to_owned());
                    }
                },
                () = &mut look => {
                    let owes = !*let_in || self.memory.awaits_answers();
                    if leave_at.is_some_and(|at| at <= Instant::now()) {
                        connection.close().await;
                        return Over::Lost("the server has sent its clients elsewhere".to_owned());
                    }
                    match life.look(owes) {
                        Look::Fine => {}
                        Look::Ask => if let Err(why) = connection.ping().await { return self.lost(url, why) },
                        Look::Dead => return self.lost(url, "the server is silent".to_owned()),
                    }
                }
            }
            if let Err(why) = self.send_due(&mut connection, &mut frames).await {
                return self.lost(url, why);
            }
            let next = [Some(Instant::now() + LOOK), leave_at, self.memory.pause_until()].into_iter().flatten().min();
            if let Some(next) = next
                && (look.is_elapsed() || look.deadline() > next.into())
            {
                look.as_mut().reset(next.into());
            }
            if !self.tell().await {
                return Over::Done;
            }
        }
    }

    fn lost(&self, url: &str, why: String) -> Over {
        self.directory.failed(url);
        Over::Lost(why)
    }

    async fn send_due(&mut self, connection: &mut Connection, frames: &mut Vec<ClientFrame>) -> Result<(), String> {
        for _ in 0..FRAMES_AT_ONCE {
            let Ok(wish) = self.wishes.try_recv() else { break };
            if self.grant(wish) {
                return Err("broken on purpose".to_owned());
            }
        }
        self.memory.due(Instant::now(), frames);
        for frame in frames.drain(..) {
            connection.feed(&frame).await?;
        }
        connection.flush().await
    }

    fn take_in(&mut self, url: &str, heard: Heard, leave_at: &mut Option<Instant>, let_in: &mut bool) -> Option<Over> {
        let text = match heard {
            Heard::Alive => return None,
            Heard::End(close::NOT_SIGNED_IN, reason) => return Some(Over::SignedOut(reason)),
            Heard::End(code, reason) => {
                if ![close::RESUME, close::COME_BACK].contains(&code) {
                    self.directory.failed(url);
                }
                return Some(Over::Lost(reason));
            }
            Heard::Text(text) => text,
        };
        let frame = match serde_json::from_str(&text) {
            Ok(frame) => frame,
            Err(error) => {
                let message = format!("a frame of {url} cannot be read: {error}");
                self.out.push(Event::Complaint { message });
                return None;
            }
        };
        match &frame {
            ServerFrame::Welcome { servers, epoch, .. } => {
                *let_in = true;
                self.ticket = None;
                self.directory.learn(servers, Some(*epoch));
            }
            ServerFrame::ComeBack { after_ms, ticket, servers, .. } => {
                self.ticket = Some(ticket.clone());
                let url = servers.first().map(|server| server.url.as_str().into());
                self.appointment = Some(Appointment { at: Instant::now() + Duration::from_millis(*after_ms), url });
            }
            ServerFrame::Move { servers, after_ms, .. } => {
                self.directory.learn(servers, None);
                *leave_at = Some(Instant::now() + Duration::from_millis(*after_ms));
            }
            _ => {}
        }
        let signed_out = matches!(&frame, ServerFrame::Refused { code: wire::chat::RefusalCode::NotSignedIn, .. });
        match self.memory.hear(frame, Instant::now(), &mut self.out) {
            Ok(()) => None,
            Err(why) if signed_out => Some(Over::SignedOut(why)),
            Err(why) => Some(Over::Lost(why)),
        }
    }
}

/// Try servers until one takes the connection and the hello; not before the appointment, if there is one.
async fn dial(
    directory: Arc<Directory>,
    hello: ClientFrame,
    appointment: Option<Appointment>,
) -> (Arc<str>, Connection) {
    let mut sent_to = None;
    if let Some(appointment) = appointment {
        tokio::time::sleep_until(appointment.at.into()).await;
        sent_to = appointment.url;
    }
    let mut seeker = directory.seek();
    loop {
        let url = match sent_to.take() {
            Some(url) => url,
            None => seeker.next().await,
        };
        match greet(&url, &hello).await {
            Ok(connection) => return (url, connection),
            Err(error) => {
                tracing::debug!(%error, "a server did not take a connection");
                directory.failed(&url);
            }
        }
        let pause = rand::rng().random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn greet(url: &str, hello: &ClientFrame) -> Result<Connection, ClientError> {
    let mut connection = Connection::open(url).await?;
    connection.feed(hello).await.map_err(ClientError::Connection)?;
    connection.flush().await.map_err(ClientError::Connection)?;
    Ok(connection)
}

/// When the server was heard last, and whether it was asked for a sign of life since.
struct SignsOfLife {
    heard: Instant,
    asked: Option<Instant>,
}

enum Look {
    Fine,
    Ask,
    Dead,
}

impl SignsOfLife {
    fn new() -> Self {
        Self { heard: Instant::now(), asked: None }
    }

    fn heard(&mut self) {
        *self = Self::new();
    }

    fn look(&mut self, owes: bool) -> Look {
        let silent = if owes { SILENT_OWING } else { SILENT_IDLE };
        match self.asked {
            Some(asked) if asked.elapsed() >= SIGN_WAIT => Look::Dead,
            Some(_) => Look::Fine,
            None if self.heard.elapsed() >= silent => {
                self.asked = Some(Instant::now());
                Look::Ask
            }
            None => Look::Fine,
        }
    }
}
