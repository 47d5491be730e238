//! The canary of a drill: a user of its own, who posts into a room of its own all the time, and measures what users notice.

use crate::failure::Failure;
use client::http::Which;
use client::{ClientError, Event, Http, Identity, Proof, Session};
use rules::access::{Privacy, RoomKind};
use rules::id::{RoomId, Seq};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;
use wire::chat::{Content, RefusalCode};
use wire::http::{NewCategory, NewRoom};

/// The user, and the category of its room.
const USER: &str = "drill-canary";
/// Its room: rooms and categories have their names in common.
const ROOM: &str = "drill-canary posts";
/// Between two posts: what is measured is as exact as this.
const EVERY: Duration = Duration::from_millis(25);
/// Events that may wait.
const EVENTS_MAX: usize = 1024;
/// Longest wait for the first acknowledgement.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what was acknowledged.
const LOOK: Duration = Duration::from_millis(20);
/// Entries of a page.
const PAGE: u32 = 200;

#[derive(Default)]
struct Heard {
    acknowledged: Vec<Uuid>,
    last: Option<Instant>,
    longest_gap: Duration,
}

/// A canary that posts. Dropping it ends it.
pub struct Canary {
    http: Arc<Http>,
    room: RoomId,
    /// What the room held before.
    after: Seq,
    heard: Arc<Mutex<Heard>>,
    posting: JoinHandle<()>,
    listening: JoinHandle<()>,
}

/// What became of its posts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Posts that were acknowledged.
    pub acknowledged: u64,
    /// Those of them that are not in the room.
    pub lost: u64,
    /// Those that are there more than once.
    pub doubled: u64,
}

impl Canary {
    /// Let it post, and return when its first post is acknowledged.
    ///
    /// # Errors
    /// When room or user cannot be made, or nothing is acknowledged.
    pub async fn start(http: &Arc<Http>) -> Result<Self, Failure> {
        let token = http.create_users(&[USER.to_owned()]).await?.into_iter().next().map(|s| s.token);
        let token = token.ok_or_else(|| Failure::Failed(format!("no token was issued to {USER}")))?;
        let room = room(http).await?;
        let after = http.page(room, Which::Latest, 1).await?.last_seq;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let identity = Identity { user: USER.to_owned(), token, proof: Proof::IssuedBy(http.clone()), receipts: false };
        let session = Session::open(http.directory().clone(), identity, 0, sender);
        session.join(room, Some(0)).await;
        let listening = tokio::spawn(listen(events, heard.clone()));
        let posting = tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let id = Uuid::now_v7();
                session.post(room, id, id.to_string()).await;
            }
        });
        let canary = Self { http: http.clone(), room, after, heard, posting, listening };
        let began = Instant::now();
        while canary.heard().last.is_none() {
            if began.elapsed() > PATIENCE {
                return Err(Failure::Failed(format!(
                    "no post of {USER} was acknowledged within {} s; look at standfast pool status",
                    PATIENCE.as_secs()
                )));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(canary)
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().expect("nothing panics while it holds what was heard")
    }

    /// Begin to measure anew.
    pub fn mark(&self) {
        self.heard().longest_gap = Duration::ZERO;
    }

    /// The longest time without an acknowledgement since the mark, one that lasts still included, in milliseconds.
    pub fn gap_ms(&self) -> u64 {
        let heard = self.heard();
        let lasts = heard.last.map_or(Duration::ZERO, |at| at.elapsed());
        heard.longest_gap.max(lasts).as_millis() as u64
    }

    /// End it, and look for every post that was acknowledged in the room.
    ///
    /// # Errors
    /// When the room cannot be read.
    pub async fn end(self) -> Result<Counts, Failure> {
        self.posting.abort();
        let acknowledged = self.heard().acknowledged.clone();
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        let mut after = self.after;
        loop {
            let page = self.http.page(self.room, Which::After(after), PAGE).await?;
            let Some(last) = page.entries.last() else { break };
            after = last.seq;
            for entry in page.entries {
                if let Content::Post { text } = entry.content {
                    *found.entry(text).or_default() += 1;
                }
            }
        }
        let times = |id: &Uuid| found.get(&id.to_string()).copied().unwrap_or(0);
        Ok(Counts {
            acknowledged: acknowledged.len() as u64,
            lost: acknowledged.iter().filter(|id| times(id) == 0).count() as u64,
            doubled: acknowledged.iter().filter(|id| times(id) > 1).count() as u64,
        })
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.posting.abort();
        self.listening.abort();
    }
}

async fn listen(mut events: mpsc::Receiver<(u32, Event)>, heard: Arc<Mutex<Heard>>) {
    while let Some((_, event)) = events.recv().await {
        let Event::Acknowledged { client_id, again: false, .. } = event else { continue };
        let now = Instant::now();
        let mut heard = heard.lock().expect("nothing panics while it holds what was heard");
        heard.acknowledged.push(client_id);
        if let Some(last) = heard.last.replace(now) {
            heard.longest_gap = heard.longest_gap.max(now - last);
        }
    }
}

/// Its room, made when it is not there yet.
async fn room(http: &Http) -> Result<RoomId, Failure> {
    let category = NewCategory {
        name: USER.to_owned(),
        description: "The room of standfast drill switch".to_owned(),
        allowed_members: vec![USER.to_owned()],
        ..NewCategory::default()
    };
    there_is(http.create_category(&category).await)?;
    let room = NewRoom {
        name: ROOM.to_owned(),
        category: USER.to_owned(),
        description: "Posts of standfast drill switch, which measures how long users notice a switch".to_owned(),
        privacy: Privacy::Closed,
        kind: RoomKind::Normal,
        members: vec![USER.to_owned()],
    };
    match there_is(http.create_room(&room).await)? {
        Some(made) => Ok(made.id),
        None => Ok(http.room(ROOM).await?.id),
    }
}

/// What was made; nothing where it is there already.
fn there_is<T>(made: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(error) if error.is(RefusalCode::Conflict) => Ok(None),
        Err(error) => Err(error),
    }
}
