//! What waits to be sent to one session: bounded. A session that cannot keep up is told to resume from its cursors, and
//! from then on nothing more is put before it, so what it has seen stays without gaps.

use axum::extract::ws::Utf8Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::sync::{Notify, mpsc};
use wire::chat::close;

/// Frames that may wait for one session. The frames themselves are shared between sessions.
pub const FRAMES_MAX: usize = 1024;

/// Number of a session, for as long as this process lives.
pub type SessionId = u64;

/// The sending side.
#[derive(Clone)]
pub struct Outbox {
    frames: mpsc::Sender<Utf8Bytes>,
    end: Arc<End>,
}

/// How a session is told to end from outside: the first code counts.
#[derive(Default)]
pub struct End {
    code: AtomicU16,
    told: Notify,
}

impl End {
    /// Tell the session to end with a close code.
    pub fn tell(&self, code: u16) {
        // The first word stands; a second one changes nothing.
        let _ = self.code.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.told.notify_one();
    }

    /// Whether the session has been told to end.
    pub fn is_told(&self) -> bool {
        self.code.load(Ordering::Acquire) != 0
    }

    /// Returns the close code when the session is told to end.
    pub async fn told(&self) -> u16 {
        loop {
            match self.code.load(Ordering::Acquire) {
                0 => self.told.notified().await,
                code => return code,
            }
        }
    }
}

impl Outbox {
    /// An outbox, what waits in it, and the word that ends it.
    pub fn new() -> (Self, mpsc::Receiver<Utf8Bytes>, Arc<End>) {
        let (frames, waiting) = mpsc::channel(FRAMES_MAX);
        let end = Arc::new(End::default());
        (Self { frames, end: end.clone() }, waiting, end)
    }

    /// Put a frame in the queue; when it is full the session is told to resume.
    pub fn push(&self, frame: Utf8Bytes) {
        if self.end.is_told() {
            return;
        }
        if self.frames.try_send(frame).is_err() {
            self.resume();
        }
    }

    /// Put a frame in the queue, waiting for room in it. `false` when the session is over.
    pub async fn push_patiently(&self, frame: Utf8Bytes) -> bool {
        !self.end.is_told() && self.frames.send(frame).await.is_ok()
    }

    /// Wait until `count` frames fit. `None` when the session is over.
    pub async fn reserve(&self, count: usize) -> Option<mpsc::PermitIterator<'_, Utf8Bytes>> {
        if self.end.is_told() { None } else { self.frames.reserve_many(count).await.ok() }
    }

    /// Tell the session to connect again and resume from its cursors.
    pub fn resume(&self) {
        self.end.tell(close::RESUME);
    }
}
