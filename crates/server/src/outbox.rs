//! What waits to be sent to one session: bounded. A session that cannot keep up is told to resume from its cursors, and
//! from then on nothing more is put before it, so what it has seen stays without gaps.
//!
//! Who puts a frame here wakes no session: a few [`Writers`] go through the outboxes that have something and hand all of it
//! to the kernel at once. Only where a client does not read fast enough does the session's own task take over.

use crate::frame::Frame;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use wire::chat::close;

/// Frames that may wait for one session. The frames themselves are shared between sessions.
pub const FRAMES_MAX: usize = 1024;
/// Frames in one call of the kernel.
const FRAMES_AT_ONCE: usize = 32;
/// Outboxes that are written before the thread does something else.
const OUTBOXES_AT_ONCE: usize = 32;

/// Number of a session, for as long as this process lives.
pub type SessionId = u64;

/// What waits for one session, shared by all that have something to say to it.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    end: End,
    /// The kernel took less than all: the session's task goes on.
    stuck: Notify,
    /// Frames have gone.
    gone: Notify,
    writer: Arc<Writer>,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that have gone already.
    begun: usize,
    /// Somebody is to write: it is in a writer's list, or stuck.
    listed: bool,
    stuck: bool,
    /// Nothing is taken any more.
    closed: bool,
    socket: Option<Arc<OwnedWriteHalf>>,
}

/// How a session is told to end from outside: the first code counts.
#[derive(Default)]
struct End {
    code: AtomicU16,
    told: Notify,
}

/// Write what waits in outboxes: a task for each thread of the runtime, outboxes being spread over them.
pub struct Writers {
    writers: Vec<Arc<Writer>>,
    next: AtomicUsize,
}

/// The outboxes that have something for their sockets.
#[derive(Default)]
struct Writer {
    listed: Mutex<Vec<Outbox>>,
    woken: Notify,
}

impl Writers {
    /// So many writers, at least one.
    pub fn new(count: usize) -> Self {
        Self { writers: (0..count.max(1)).map(|_| Arc::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// Write for as long as the process lives.
    pub fn start(&self) {
        for writer in &self.writers {
            tokio::spawn(writer.clone().run());
        }
    }

    /// An outbox; what is put into it waits until it has a socket.
    pub fn outbox(&self) -> Outbox {
        let writer = self.writers[self.next.fetch_add(1, Ordering::Relaxed) % self.writers.len()].clone();
        let (stuck, gone) = (Notify::new(), Notify::new());
        Outbox(Arc::new(Shared { waiting: Mutex::default(), end: End::default(), stuck, gone, writer }))
    }
}

impl Writer {
    fn list(&self, outbox: Outbox) {
        self.listed.lock().expect("no code panics while it holds the list").push(outbox);
        self.woken.notify_one();
    }

    async fn run(self: Arc<Self>) {
        let mut now = Vec::new();
        loop {
            self.woken.notified().await;
            std::mem::swap(&mut now, &mut *self.listed.lock().expect("no code panics while it holds the list"));
            for (n, outbox) in now.drain(..).enumerate() {
                if n % OUTBOXES_AT_ONCE == OUTBOXES_AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
                outbox.write();
            }
        }
    }
}

impl End {
    fn tell(&self, code: u16) {
        // The first word stands; a second one changes nothing.
        let _ = self.code.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.told.notify_one();
    }
}

impl Outbox {
    /// From now on what waits is written to this socket.
    pub fn connect(&self, socket: Arc<OwnedWriteHalf>) {
        let begin = {
            let mut waiting = self.waiting();
            waiting.socket = Some(socket);
            !waiting.frames.is_empty() && !std::mem::replace(&mut waiting.listed, true)
        };
        if begin {
            self.0.writer.list(self.clone());
        }
    }

    /// Whether nothing more is taken: the session is over, or is to resume.
    pub fn is_over(&self) -> bool {
        self.is_told() || self.waiting().closed
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().expect("no code panics while it holds an outbox")
    }

    /// Put a frame in the queue; when it is full the session is told to resume.
    pub fn push(&self, frame: Frame) {
        if !self.push_all(1, std::iter::once(frame)) {
            self.resume();
        }
    }

    /// Put so many frames in the queue, or none when they do not fit.
    pub fn push_all(&self, count: usize, frames: impl Iterator<Item = Frame>) -> bool {
        if self.is_told() {
            return true;
        }
        let begin = {
            let mut waiting = self.waiting();
            if waiting.closed {
                return true;
            }
            if waiting.frames.len() + count > FRAMES_MAX {
                return false;
            }
            waiting.frames.extend(frames);
            count > 0 && waiting.socket.is_some() && !std::mem::replace(&mut waiting.listed, true)
        };
        if begin {
            self.0.writer.list(self.clone());
        }
        true
    }

    /// Put a frame in the queue, waiting for room in it. `false` when the session is over.
    pub async fn push_patiently(&self, frame: Frame) -> bool {
        self.has_room(1).await && {
            self.push(frame);
            !self.is_told()
        }
    }

    /// Wait until `count` frames fit, which another may take first. `false` when the session is over.
    pub async fn has_room(&self, count: usize) -> bool {
        loop {
            let gone = self.0.gone.notified();
            tokio::pin!(gone);
            // Before the look, so that nothing goes unseen between it and the wait.
            gone.as_mut().enable();
            if self.is_told() || self.waiting().closed {
                return false;
            }
            if self.waiting().frames.len() + count <= FRAMES_MAX {
                return true;
            }
            gone.await;
        }
    }

    /// Hand over what the kernel takes.
    fn write(&self) {
        let mut waiting = self.waiting();
        match waiting.write() {
            Ok(()) => (waiting.listed, waiting.stuck) = (false, false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                waiting.stuck = true;
                self.0.stuck.notify_one();
            }
            Err(_) => {
                // The session's task finds the same when it reads, and is told in case that takes long.
                waiting.frames.clear();
                waiting.closed = true;
                self.0.end.tell(close::RESUME);
            }
        }
        drop(waiting);
        self.0.gone.notify_waiters();
    }

    /// Go on writing whenever the kernel has taken less than all. Returns when the connection is broken.
    pub async fn keep_writing(&self, socket: &OwnedWriteHalf) {
        loop {
            if !self.waiting().stuck {
                self.0.stuck.notified().await;
            } else if socket.writable().await.is_ok() {
                self.write();
            } else {
                return;
            }
        }
    }

    /// Write what waits and this last frame; waits until the kernel has taken all of it.
    pub async fn finish(&self, last: Frame, socket: &OwnedWriteHalf) {
        {
            let mut waiting = self.waiting();
            if waiting.closed {
                return;
            }
            waiting.closed = true;
            if waiting.frames.len() >= FRAMES_MAX {
                // It did not read, and will resume. What has begun must end.
                let begun = usize::from(waiting.begun > 0);
                waiting.frames.truncate(begun);
            }
            waiting.frames.push_back(last);
        }
        loop {
            self.write();
            if self.waiting().frames.is_empty() || socket.writable().await.is_err() {
                return;
            }
        }
    }

    /// Nothing is taken or written any more: who still holds the outbox does not hold its socket.
    pub fn disconnect(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.frames.clear();
        waiting.socket = None;
        drop(waiting);
        self.0.gone.notify_waiters();
    }

    /// Tell the session to connect again and resume from its cursors.
    pub fn resume(&self) {
        self.end(close::RESUME);
    }

    /// Tell the session to end with a close code.
    pub fn end(&self, code: u16) {
        self.0.end.tell(code);
        self.0.gone.notify_waiters();
    }

    /// Whether the session has been told to end.
    pub fn is_told(&self) -> bool {
        self.0.end.code.load(Ordering::Acquire) != 0
    }

    /// Returns the close code when the session is told to end.
    pub async fn told(&self) -> u16 {
        loop {
            match self.0.end.code.load(Ordering::Acquire) {
                0 => self.0.end.told.notified().await,
                code => return code,
            }
        }
    }
}

impl Waiting {
    /// Hand over everything, in order, or as much as the kernel takes.
    fn write(&mut self) -> io::Result<()> {
        let Some(socket) = self.socket.clone() else { return Ok(()) };
        while let Some(first) = self.frames.front() {
            let count = if self.frames.len() == 1 {
                socket.try_write(&first.bytes()[self.begun..])?
            } else {
                let mut slices = [IoSlice::new(&[]); FRAMES_AT_ONCE];
                for (slice, frame) in slices.iter_mut().zip(&self.frames) {
                    *slice = IoSlice::new(frame.bytes());
                }
                slices[0] = IoSlice::new(&first.bytes()[self.begun..]);
                socket.try_write_vectored(&slices[..self.frames.len().min(FRAMES_AT_ONCE)])?
            };
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.went(count);
        }
        Ok(())
    }

    fn went(&mut self, count: usize) {
        self.begun += count;
        while let Some(length) = self.frames.front().map(|frame| frame.bytes().len()).filter(|l| *l <= self.begun) {
            self.begun -= length;
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
impl Outbox {
    /// An outbox of its own, with no socket.
    pub fn alone() -> Self {
        Writers::new(1).outbox()
    }

    /// Takes out what waits, as text.
    pub fn take_texts(&self) -> Vec<String> {
        let text = |frame: Frame| String::from_utf8_lossy(frame.text()).into_owned();
        self.waiting().frames.drain(..).map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    /// An outbox with a socket, and the client's end of it.
    async fn connected() -> (Outbox, Arc<OwnedWriteHalf>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_, socket) = listener.accept().await.unwrap().0.into_split();
        let socket = Arc::new(socket);
        let writers = Writers::new(1);
        writers.start();
        let outbox = writers.outbox();
        outbox.connect(socket.clone());
        (outbox, socket, client)
    }

    /// Frames that are together larger than what two sockets hold.
    fn frames(count: usize) -> Vec<Frame> {
        (0..count).map(|n| Frame::of_text(format!("{n:0>20000}").as_bytes())).collect()
    }

    async fn everything(mut client: TcpStream) -> Vec<u8> {
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_take_at_once_follows_whole_and_in_order() {
        let (outbox, socket, client) = connected().await;
        let frames = frames(FRAMES_MAX);
        frames.iter().for_each(|frame| outbox.push(frame.clone()));
        let read = tokio::spawn(everything(client));
        tokio::select! {
            () = outbox.keep_writing(&socket) => panic!("the connection broke"),
            has_room = outbox.has_room(FRAMES_MAX) => assert!(has_room),
        }
        let last = Frame::of_close(4000, "the end");
        outbox.finish(last.clone(), &socket).await;
        outbox.push(Frame::of_text(b"after the end"));
        outbox.disconnect();
        drop(socket);
        let expect: Vec<u8> = frames.iter().chain([&last]).flat_map(|frame| frame.bytes().to_vec()).collect();
        assert!(read.await.unwrap() == expect, "the bytes differ");
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_told_and_sees_whole_frames_to_the_end() {
        let (outbox, socket, client) = connected().await;
        let frames = frames(3 * FRAMES_MAX);
        for frame in &frames {
            outbox.push(frame.clone());
            tokio::task::yield_now().await;
        }
        assert_eq!(outbox.told().await, close::RESUME);
        let read = tokio::spawn(everything(client));
        let last = Frame::of_close(close::RESUME, "resume");
        outbox.finish(last.clone(), &socket).await;
        outbox.disconnect();
        drop(socket);
        let (seen, mut at) = (read.await.unwrap(), 0);
        for frame in &frames {
            if !seen[at..].starts_with(frame.bytes()) {
                break;
            }
            at += frame.bytes().len();
        }
        assert!(at > 0 && seen[at..] == *last.bytes(), "{} bytes after {at}", seen.len() - at);
    }
}
