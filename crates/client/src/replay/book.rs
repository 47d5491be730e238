//! What a replay keeps: the ledger, written as things happen, and the figures for people.
//!
//! One task owns all of it and takes the events of all sessions in the order in which each session tells them.

use crate::audit::hash_of;
use crate::error::ClientError;
use crate::event::Event;
use rules::id::{Epoch, RoomId, Seq};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;
use wire::chat::{Content, Entry};
use wire::ledger::LedgerLine;

/// What is written waits no longer than this.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// Bytes that gather before they are written.
const BUFFER_BYTES: usize = 64 * 1024;
/// Events taken at a time.
const EVENTS_AT_ONCE: usize = 256;

/// How a replay stands.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Posts handed to sessions.
    pub posts: u64,
    /// Posts acknowledged.
    pub acknowledged: u64,
    /// Posts that wait for their acknowledgement.
    pub waiting: u64,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
    /// Longest wait for an acknowledgement so far.
    pub longest: Duration,
    /// Connections that were lost and made again.
    pub reconnects: u64,
    /// The newest epoch heard of.
    pub epoch: Option<Epoch>,
    /// Posts that were offered again and are not acknowledged yet.
    pub again: u64,
    /// Whether everybody has seen everything that was acknowledged.
    pub settled: bool,
    /// The newest complaint.
    pub complaint: Option<String>,
}

/// What a replay came to.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Summary {
    /// Posts handed to sessions.
    pub posts: u64,
    /// Posts acknowledged.
    pub acknowledged: u64,
    /// Posts never acknowledged.
    pub given_up: u64,
    /// Posts acknowledged before that were offered again, and acknowledged again.
    pub offered_again: u64,
    /// Entries delivered.
    pub delivered: u64,
    /// Connections that were lost and made again.
    pub reconnects: u64,
    /// Entries that did not follow the one before.
    pub disorders: u64,
    /// Longest time between two acknowledgements, in milliseconds.
    pub longest_gap_ms: u64,
    /// When the longest gap began: milliseconds since the Unix epoch.
    pub longest_gap_at_ms: i64,
    /// The newest epoch heard of.
    pub epoch: Option<Epoch>,
}

/// Posts that wait for their acknowledgement. Ids of version 7 rise with time, so the first is the oldest.
#[derive(Debug, Default)]
pub struct Outstanding(Mutex<BTreeMap<Uuid, Instant>>);

impl Outstanding {
    /// A post was handed to its session.
    pub fn add(&self, client_id: Uuid) {
        self.lock().insert(client_id, Instant::now());
    }

    /// Posts that wait, and for how long the oldest has.
    pub fn count(&self) -> (usize, Duration) {
        let waiting = self.lock();
        (waiting.len(), waiting.first_key_value().map_or(Duration::ZERO, |(_, since)| since.elapsed()))
    }

    fn remove(&self, client_id: &Uuid) -> bool {
        self.lock().remove(client_id).is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, Instant>> {
        self.0.lock().expect("nothing that holds this lock can panic")
    }
}

/// The ledger's file.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl Ledger {
    /// Begin a ledger; a file of this name is replaced.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, ClientError> {
        let file = File::create(path).map_err(|e| ClientError::file("create ledger", path, &e))?;
        Ok(Self { path: path.to_owned(), file, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Append a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, line: &LedgerLine) -> Result<(), ClientError> {
        serde_json::to_writer(&mut self.buffer, line).expect("ledger lines hold nothing that JSON lacks");
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Hand everything to the operating system.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> Result<(), ClientError> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|e| {
            let why = format!("{e}; the replay stops, because what follows could not be audited");
            ClientError::file("write ledger", &self.path, &why)
        })
    }
}

/// What the book shares with who plays.
#[derive(Debug)]
pub struct Shared {
    /// Posts that wait.
    pub outstanding: Outstanding,
    /// A permit for each post that may still be handed to a session.
    pub permits: Semaphore,
    /// Posts handed to sessions.
    pub posts: std::sync::atomic::AtomicU64,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    ledger: Option<Ledger>,
    people: Vec<String>,
    shared: Arc<Shared>,
    progress: watch::Sender<Progress>,
    now: Progress,
    summary: Summary,
    last_ack: Option<(Instant, i64)>,
    heads: HashMap<RoomId, Seq>,
    members: HashMap<(u32, RoomId), Seq>,
}

impl Book {
    /// A book that begins with these lines.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn new(
        mut ledger: Option<Ledger>,
        begin: &[LedgerLine],
        people: Vec<String>,
        shared: Arc<Shared>,
        progress: watch::Sender<Progress>,
    ) -> Result<Self, ClientError> {
        if let Some(ledger) = &mut ledger {
            for line in begin {
                ledger.write(line)?;
            }
            ledger.flush()?;
        }
        Ok(Self {
            ledger,
            people,
            shared,
            progress,
            now: Progress::default(),
            summary: Summary::default(),
            last_ack: None,
            heads: HashMap::new(),
            members: HashMap::new(),
        })
    }

    /// Keep the book until all sessions are over.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn keep(mut self, mut events: mpsc::Receiver<(u32, Event)>) -> Result<Summary, ClientError> {
        let mut tick = tokio::time::interval(FLUSH_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut taken = Vec::with_capacity(EVENTS_AT_ONCE);
        loop {
            tokio::select! {
                count = events.recv_many(&mut taken, EVENTS_AT_ONCE) => {
                    if count == 0 {
                        return self.close();
                    }
                    let at_ms = now_ms();
                    for (who, event) in taken.drain(..) {
                        self.take(who, event, at_ms)?;
                    }
                }
                _ = tick.tick() => {
                    if let Some(ledger) = &mut self.ledger {
                        ledger.flush()?;
                    }
                    self.show();
                }
            }
        }
    }

    fn close(mut self) -> Result<Summary, ClientError> {
        let posts = self.shared.posts.load(std::sync::atomic::Ordering::Relaxed);
        let acknowledged = self.summary.acknowledged;
        self.summary.posts = posts;
        self.summary.given_up = posts - acknowledged;
        self.summary.epoch = self.now.epoch;
        let end = LedgerLine::End { posts, acknowledged, given_up: posts - acknowledged, at_ms: now_ms() };
        self.write(&end)?;
        if let Some(ledger) = &mut self.ledger {
            ledger.flush()?;
        }
        Ok(self.summary)
    }

    fn write(&mut self, line: &LedgerLine) -> Result<(), ClientError> {
        self.ledger.as_mut().map_or(Ok(()), |ledger| ledger.write(line))
    }

    fn show(&mut self) {
        let (waiting, oldest) = self.shared.outstanding.count();
        self.now.posts = self.shared.posts.load(std::sync::atomic::Ordering::Relaxed);
        (self.now.waiting, self.now.oldest) = (waiting as u64, oldest);
        self.now.longest = self.now.longest.max(oldest);
        self.now.acknowledged = self.summary.acknowledged;
        self.now.reconnects = self.summary.reconnects;
        let behind = |((_, room), has): (&(u32, RoomId), &Seq)| self.heads.get(room).is_some_and(|head| has < head);
        self.now.settled = !self.members.iter().any(behind);
        self.progress.send_replace(self.now.clone());
    }

    fn take(&mut self, who: u32, event: Event, at_ms: i64) -> Result<(), ClientError> {
        let user = self.people[who as usize].clone();
        let line = match event {
            Event::Entry(entry) => {
                self.delivered(who, &entry);
                Some(seen(entry, user, at_ms))
            }
            Event::Disorder { entry, .. } => {
                self.summary.disorders += 1;
                Some(seen(entry, user, at_ms))
            }
            Event::Acknowledged { room, client_id, text, seq, epoch, took, again, receipt, .. } => {
                let hash = hash_of(&text);
                self.acknowledged(client_id, again, took, at_ms);
                self.raise_head(room, seq);
                self.heard_epoch(epoch);
                let took_ms = took.as_millis() as u64;
                Some(LedgerLine::Ack { room, seq, epoch, client_id, user, hash, at_ms, took_ms, receipt })
            }
            Event::GivenUp { client_id, message, again, .. } => {
                self.given_up(client_id, again);
                self.now.complaint = Some(format!("{user}: a post was given up: {message}"));
                None
            }
            Event::Joined { room, after, .. } => {
                self.members.insert((who, room), after.unwrap_or(Seq::START));
                Some(LedgerLine::Joined { room, user, after, at_ms })
            }
            Event::Left { room, .. } => {
                self.members.remove(&(who, room));
                Some(LedgerLine::Left { room, user, at_ms })
            }
            Event::Rewound { room, from } => {
                self.rewound(who, room, from);
                Some(LedgerLine::Rewound { room, user, from, at_ms })
            }
            Event::Disconnected { reason } => {
                self.summary.reconnects += 1;
                Some(LedgerLine::Disconnected { user, reason, at_ms })
            }
            Event::Connected { epoch, .. } | Event::Ready { epoch } => {
                self.heard_epoch(epoch);
                None
            }
            Event::OfferedAgain { posts } => {
                self.now.again += posts as u64;
                None
            }
            Event::JoinRefused { message, .. } | Event::Complaint { message } | Event::Ended { reason: message } => {
                self.now.complaint = Some(format!("{user}: {message}"));
                None
            }
            Event::Waiting { .. }
            | Event::Queued { .. }
            | Event::ComesBack { .. }
            | Event::PoolChanged { .. }
            | Event::Moved { .. }
            | Event::PostWaits { .. }
            | Event::TailReturned(_) => None,
        };
        line.map_or(Ok(()), |line| self.write(&line))
    }

    fn delivered(&mut self, who: u32, entry: &Entry) {
        self.summary.delivered += 1;
        self.members.insert((who, entry.room), entry.seq);
    }

    fn acknowledged(&mut self, client_id: Uuid, again: bool, took: Duration, at_ms: i64) {
        if again {
            self.now.again = self.now.again.saturating_sub(1);
            self.summary.offered_again += 1;
        } else if self.shared.outstanding.remove(&client_id) {
            self.summary.acknowledged += 1;
            self.shared.permits.add_permits(1);
        }
        self.now.longest = self.now.longest.max(took);
        let now = Instant::now();
        if let Some((last, last_ms)) = self.last_ack.replace((now, at_ms)) {
            let gap_ms = (now - last).as_millis() as u64;
            if gap_ms > self.summary.longest_gap_ms {
                (self.summary.longest_gap_ms, self.summary.longest_gap_at_ms) = (gap_ms, last_ms);
            }
        }
    }

    fn given_up(&mut self, client_id: Uuid, again: bool) {
        if again {
            self.now.again = self.now.again.saturating_sub(1);
        } else if self.shared.outstanding.remove(&client_id) {
            self.shared.permits.add_permits(1);
        }
    }

    fn rewound(&mut self, who: u32, room: RoomId, from: Seq) {
        let kept = Seq(from.0 - 1);
        self.members.insert((who, room), kept);
        if let Some(head) = self.heads.get_mut(&room) {
            *head = kept.min(*head);
        }
    }

    fn raise_head(&mut self, room: RoomId, seq: Seq) {
        let head = self.heads.entry(room).or_insert(seq);
        *head = seq.max(*head);
    }

    fn heard_epoch(&mut self, epoch: Epoch) {
        self.now.epoch = self.now.epoch.max(Some(epoch));
    }
}

fn seen(entry: Entry, user: String, at_ms: i64) -> LedgerLine {
    let Entry { room, seq, epoch, client_id, content, .. } = entry;
    LedgerLine::Seen { room, seq, epoch, client_id, user, hash: hash_of(text_of(&content)), at_ms }
}

/// The text of an entry; empty for those that have none.
pub fn text_of(content: &Content) -> &str {
    match content {
        Content::Post { text } | Content::Replacement { text, .. } | Content::RoomChange { text } => text,
        Content::Removal { .. } => "",
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
