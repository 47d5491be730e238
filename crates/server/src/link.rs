//! Links between servers: each active server tells every other what it has committed and whose access has changed. A
//! link is a hint. What it loses, the other side finds by the gap in a room's numbers, or by comparing heads when a link
//! comes up and once a second.

use crate::app::App;
use crate::forward;
use crate::frame::Frame;
use crate::room::Offer;
use crate::standing::peers;
use axum::body::Bytes;
use cluster::name::ServerName;
use cluster::secret::Purpose;
use hmac::{Hmac, Mac};
use rand::Rng;
use rules::id::{Epoch, RoomId};
use sha2::Sha256;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use wire::link::{AcceptorFrame, Answered, Committed, ConnectorFrame, FRAME_BYTES_MAX, Forwarded};

/// Frames that may wait for a server that does not read; more are dropped.
const FRAMES_MAX: usize = 1024;
/// Largest frame before the other side has proved who it is.
const FIRST_FRAME_BYTES_MAX: u32 = 1024;
/// How long the opening may take.
const OPEN_WAIT: Duration = Duration::from_secs(2);
/// A link is kept warm so often.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// A link that was silent for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Links that may be open at once, from other servers.
const ACCEPTED_MAX: usize = 64;

/// The links to other servers.
#[derive(Default)]
pub struct Links {
    out: RwLock<HashMap<ServerName, Out>>,
    /// Links from each other server.
    from: RwLock<HashMap<String, usize>>,
    /// How often a link has ended, either way.
    broken: AtomicU64,
    /// How often a link to another server has come up.
    came_up: AtomicU64,
}

struct Out {
    at: String,
    frames: mpsc::Sender<Bytes>,
    up: Arc<AtomicBool>,
    task: tokio::task::AbortHandle,
}

impl Links {
    /// Whether there is any server to tell.
    pub fn any(&self) -> bool {
        !self.out.read().expect("no code panics while it holds the links").is_empty()
    }

    /// Tell the others what was committed.
    pub fn tell_committed(&self, entries: Vec<Committed>, frames: &[Frame]) {
        if entries.is_empty() {
            return;
        }
        let mut bytes = encode(&ConnectorFrame::Committed { entries });
        bytes.reserve(frames.iter().map(|f| f.text().len() + 1).sum());
        for frame in frames {
            bytes.push(b'\n');
            bytes.extend_from_slice(frame.text());
        }
        self.tell_bytes(&bytes.into());
    }

    /// Tell the others that access to rooms has changed.
    pub fn tell_access_changed(&self, rooms: &[RoomId]) {
        self.tell(&ConnectorFrame::AccessChanged { rooms: rooms.to_vec() });
    }

    /// Tell the others that this server's canary is durable.
    pub fn tell_canary(&self, epoch: Epoch, n: i64) {
        self.tell(&ConnectorFrame::Canary { epoch, n });
    }

    /// Tell a server that its canary was heard here.
    pub fn canary_heard(&self, server: &str, epoch: Epoch, n: i64) {
        self.send_to(&ServerName::from(server), &ConnectorFrame::CanaryHeard { epoch, n });
    }

    /// Whether there is a link to this server, and one from it.
    pub fn is_up(&self, server: &ServerName) -> bool {
        let to = self.out.read().expect("no code panics while it holds the links");
        let from = self.from.read().expect("no code panics while it holds the links");
        to.get(server).is_some_and(|link| link.up.load(Ordering::Acquire)) && from.contains_key(server.as_str())
    }

    /// How many other servers there is a link to, and one from.
    pub fn count_up(&self) -> usize {
        let names: Vec<ServerName> =
            self.out.read().expect("no code panics while it holds the links").keys().cloned().collect();
        names.iter().filter(|name| self.is_up(name)).count()
    }

    /// Tell the others how many clients wait here to be let in.
    pub fn tell_waiting(&self, clients: u64) {
        self.tell(&ConnectorFrame::Waiting { clients });
    }

    /// How often a link to another server has come up: what others are told once is told to those as well.
    pub fn came_up(&self) -> u64 {
        self.came_up.load(Ordering::Acquire)
    }

    /// How often a link has ended. What was sent before a link ended may be lost.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Acquire)
    }

    /// Forward posts. `false` when the link does not take them.
    pub fn forward(&self, to: &ServerName, run: u64, posts: Vec<Forwarded>) -> bool {
        self.send_to(to, &ConnectorFrame::Forward { run, posts })
    }

    /// Answer posts that a server has forwarded. One that is not there any more writes them itself.
    pub fn answer(&self, to: &str, answers: Vec<Answered>) {
        self.send_to(&ServerName::from(to), &ConnectorFrame::Answered { answers });
    }

    fn send_to(&self, to: &ServerName, frame: &ConnectorFrame) -> bool {
        let bytes = Bytes::from(encode(frame));
        let out = self.out.read().expect("no code panics while it holds the links");
        out.get(to).is_some_and(|link| link.frames.try_send(bytes).is_ok())
    }

    fn came_up_from(&self, server: &str) {
        *self.from.write().expect("no code panics while it holds the links").entry(server.to_owned()).or_default() += 1;
    }

    fn went_down_from(&self, server: &str) {
        {
            let mut from = self.from.write().expect("no code panics while it holds the links");
            if let Some(count) = from.get_mut(server) {
                *count -= 1;
                if *count == 0 {
                    from.remove(server);
                }
            }
        }
        self.broken.fetch_add(1, Ordering::AcqRel);
    }

    fn tell(&self, frame: &ConnectorFrame) {
        self.tell_bytes(&encode(frame).into());
    }

    fn tell_bytes(&self, bytes: &Bytes) {
        let out = self.out.read().expect("no code panics while it holds the links");
        for link in out.values() {
            // A full queue drops the frame: the other side finds what it lacks by itself.
            let _ = link.frames.try_send(bytes.clone());
        }
    }

    fn hold(&self, app: &Arc<App>, wanted: &[(ServerName, String)]) {
        let mut out = self.out.write().expect("no code panics while it holds the links");
        out.retain(|name, link| {
            let stays = wanted.iter().any(|(n, at)| n == name && *at == link.at);
            if !stays {
                link.task.abort();
                self.broken.fetch_add(1, Ordering::AcqRel);
            }
            stays
        });
        for (name, at) in wanted {
            if !out.contains_key(name) {
                let (frames, queue) = mpsc::channel(FRAMES_MAX);
                let up = Arc::new(AtomicBool::new(false));
                let task = tokio::spawn(send(app.clone(), at.clone(), queue, up.clone())).abort_handle();
                out.insert(name.clone(), Out { at: at.clone(), frames, up, task });
            }
        }
    }
}

/// Hold links to exactly the servers that are active, while this one is.
pub async fn keep(app: Arc<App>) {
    let mut view = app.view.subscribe();
    loop {
        let now = view.borrow_and_update().clone();
        let active = now.is_active(&app.name);
        let wanted = if active { peers(&now, &app.name) } else { Vec::new() };
        app.links.hold(&app, &wanted);
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Keep one link up.
async fn send(app: Arc<App>, at: String, mut queue: mpsc::Receiver<Bytes>, up: Arc<AtomicBool>) {
    let mut told = false;
    loop {
        let result = send_once(&app, &at, &mut queue, &up).await;
        // In this order: whoever sees the new count sees a link that is down, too.
        if up.swap(false, Ordering::AcqRel) {
            app.links.broken.fetch_add(1, Ordering::AcqRel);
            app.forward.link_broke();
        }
        if let Err(error) = result
            && !std::mem::replace(&mut told, true)
        {
            tracing::info!(at, %error, "no link to another server now; it reads from the database meanwhile");
        }
        let pause = rand::rng().random_range(100..300);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn send_once(app: &App, at: &str, queue: &mut mpsc::Receiver<Bytes>, up: &AtomicBool) -> io::Result<()> {
    let mut stream = within(OPEN_WAIT, TcpStream::connect(at)).await?;
    stream.set_nodelay(true)?;
    let frame = within(OPEN_WAIT, read_frame(&mut stream, FIRST_FRAME_BYTES_MAX)).await?;
    let AcceptorFrame::Challenge { nonce } = serde_json::from_slice(&frame).map_err(invalid)?;
    let proof = hex(&proof_of(app, &nonce).finalize().into_bytes());
    write_frame(&mut stream, &encode(&ConnectorFrame::Open { server: app.name.to_string(), proof })).await?;
    tracing::info!(at, "link to another server is up");
    // What waited for a lost link is old: the other side compares heads when a link comes up.
    while queue.try_recv().is_ok() {}
    up.store(true, Ordering::Release);
    app.links.came_up.fetch_add(1, Ordering::AcqRel);
    let alive = encode(&ConnectorFrame::Alive);
    loop {
        match tokio::time::timeout(ALIVE_EVERY, queue.recv()).await {
            Ok(Some(frame)) => within(SILENCE_MAX, write_frame(&mut stream, &frame)).await?,
            Ok(None) => return Ok(()),
            Err(_) => within(SILENCE_MAX, write_frame(&mut stream, &alive)).await?,
        }
    }
}

/// Accept links from other servers.
pub async fn accept(app: Arc<App>, listener: TcpListener) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a link could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if open.fetch_add(1, Ordering::Relaxed) >= ACCEPTED_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (app, open) = (app.clone(), open.clone());
        tokio::spawn(async move {
            if let Err(error) = receive(&app, stream).await {
                tracing::info!(%error, "a link from another server ended");
            }
            open.fetch_sub(1, Ordering::Relaxed);
            app.mender.compare_all();
        });
    }
}

async fn receive(app: &App, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let nonce = hex(&rand::random::<[u8; 16]>());
    let challenge = AcceptorFrame::Challenge { nonce: nonce.clone() };
    write_frame(&mut stream, &serde_json::to_vec(&challenge).map_err(invalid)?).await?;
    let frame = within(OPEN_WAIT, read_frame(&mut stream, FIRST_FRAME_BYTES_MAX)).await?;
    let ConnectorFrame::Open { server, proof } = serde_json::from_slice(&frame).map_err(invalid)? else {
        return Err(invalid("the first frame is to be open"));
    };
    let proof = unhex(&proof).ok_or_else(|| invalid("the proof is not hexadecimal"))?;
    proof_of(app, &nonce).verify_slice(&proof).map_err(|_| invalid("the proof does not fit the pool's secret"))?;
    tracing::info!(server, "link from another server is up");
    app.mender.compare_all();
    app.links.came_up_from(&server);
    let ended = take_frames(app, &server.as_str().into(), BufReader::new(stream)).await;
    app.links.went_down_from(&server);
    app.reception.lost(&server);
    app.forward.link_broke();
    ended
}

async fn take_frames(app: &App, server: &Arc<str>, mut stream: BufReader<TcpStream>) -> io::Result<()> {
    loop {
        let frame = Bytes::from(within(SILENCE_MAX, read_frame(&mut stream, FRAME_BYTES_MAX)).await?);
        let end = frame.iter().position(|b| *b == b'\n').unwrap_or(frame.len());
        match serde_json::from_slice(&frame[..end]).map_err(invalid)? {
            ConnectorFrame::Committed { entries } => take(app, &entries, &frame.slice(end..))?,
            ConnectorFrame::AccessChanged { rooms } => app.mender.check_access(&rooms, app),
            ConnectorFrame::Forward { run, posts } => forward::gather(app, server, run, posts),
            ConnectorFrame::Answered { answers } => app.forward.take(app, answers),
            ConnectorFrame::Canary { epoch, n } => app.canaries.heard(app, server, epoch, n),
            ConnectorFrame::CanaryHeard { epoch, n } => app.canaries.echoed(server, epoch, n),
            ConnectorFrame::Waiting { clients } => app.reception.heard(server, clients),
            ConnectorFrame::Alive => {}
            ConnectorFrame::Open { .. } => return Err(invalid("open comes once")),
        }
    }
}

/// Show what another server has committed in this server's epoch. Anything else is left to the database. `lines`: each
/// entry as clients get it, begun by a line feed.
fn take(app: &App, entries: &[Committed], lines: &Bytes) -> io::Result<()> {
    let epoch = app.standing.borrow().epoch();
    let mut at = 0;
    for entry in entries {
        if lines.get(at) != Some(&b'\n') {
            return Err(invalid("a frame with fewer entries than it announces"));
        }
        let begin = at + 1;
        at = lines[begin..].iter().position(|b| *b == b'\n').map_or(lines.len(), |n| begin + n);
        let Some(room) = app.rooms.get(entry.room).filter(|_| Some(entry.epoch) == epoch) else { continue };
        let text = std::str::from_utf8(&lines[begin..at]).map_err(invalid)?;
        let frame = Frame::of_text(text.as_bytes());
        let need = room.offer(Offer { seq: entry.seq, access_version: entry.access_version, frame }, entry.epoch);
        app.mender.ask(entry.room, need);
    }
    Ok(())
}

fn proof_of(app: &App, nonce: &str) -> Hmac<Sha256> {
    let key = app.secret.derive(Purpose::ServerLink);
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(nonce.as_bytes());
    mac
}

fn encode(frame: &ConnectorFrame) -> Vec<u8> {
    serde_json::to_vec(frame).expect("frames hold no maps with keys that JSON lacks")
}

async fn read_frame(stream: &mut (impl AsyncReadExt + Unpin), max: u32) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    if length > max {
        return Err(invalid(format!("a frame of {length} bytes; at most {max} are taken")));
    }
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

async fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let mut out = Vec::with_capacity(frame.len() + 4);
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    out.extend_from_slice(frame);
    stream.write_all(&out).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("half a byte is a hexadecimal digit");
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}
