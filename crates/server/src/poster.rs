//! Taking posts into the queues of the chat path, up to a bound for each of its lanes: what waits in one takes no room from the other.

use crate::answer::{Answer, Outcome, answer_all};
use crate::app::App;
use crate::lanes::{Course, Lane, Lanes};
use rules::durability::Rule;
use rules::id::{PrincipalId, RoomId};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;
use wire::chat::RefusalCode;

/// Posts that may wait in a lane.
const POSTS_MAX: usize = 20_000;
/// Bytes of text that may wait in a lane.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time for finding out in which lane a room belongs; without an answer the chat path finds out.
const LOOK_UP_MAX: Duration = Duration::from_millis(500);

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
    /// Its way through the lanes.
    pub way: Way,
}

/// The way of a post through the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Way {
    /// Where it is.
    pub lane: Lane,
    /// How it came there.
    pub came: Came,
}

/// How a post came into its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Came {
    /// It was put there, or what is known of its room has been looked up since.
    #[default]
    Known,
    /// From the other lane, which knows better of its room than this one may.
    HandedOver,
    /// From the other lane, which could not write it: it stays.
    HeldUp,
}

/// Takes posts, up to a bound.
pub struct Poster {
    lanes: Arc<Mutex<Lanes>>,
    queues: [mpsc::Sender<Post>; 2],
    waiting: AtomicU64,
    bytes: [AtomicUsize; 2],
    began: Instant,
    /// When the oldest post of each lane's batch under way arrived, in microseconds after the beginning; `u64::MAX`: none is.
    oldest_us: [AtomicU64; 2],
    /// The longest that a post took since somebody asked, in microseconds.
    slowest_us: AtomicU64,
}

/// The receiving ends, by lane.
pub type Queues = [mpsc::Receiver<Post>; 2];

impl Poster {
    /// A poster and its queues.
    pub fn new() -> (Self, Queues) {
        let [(mirror, to_mirror), (disk, to_disk)] = Lane::ALL.map(|_| mpsc::channel(POSTS_MAX));
        let poster = Self {
            lanes: Arc::default(),
            queues: [mirror, disk],
            waiting: AtomicU64::new(0),
            bytes: Default::default(),
            began: Instant::now(),
            oldest_us: Lane::ALL.map(|_| AtomicU64::new(u64::MAX)),
            slowest_us: AtomicU64::new(0),
        };
        (poster, [to_mirror, to_disk])
    }

    /// Where rooms' posts wait and belong.
    pub fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().expect("nothing panics while it holds the lanes")
    }

    /// The same, for who keeps it.
    pub fn shared_lanes(&self) -> Arc<Mutex<Lanes>> {
        self.lanes.clone()
    }

    /// What acknowledgements in a room wait for has been read.
    pub fn learn(&self, room: RoomId, rule: Rule) {
        self.lanes().learn(room, Lane::of(rule));
    }

    /// Find out in which lane a room belongs that nobody has joined here, so that its first post does not have to go through the
    /// other one.
    pub async fn look_up(&self, app: &App, room: RoomId) {
        if self.lanes().known(room).is_some() {
            return;
        }
        let Some(store) = app.standing.borrow().store().cloned() else { return };
        let (rooms, looking) = ([room], LOOK_UP_MAX);
        if let Ok(Ok(marks)) = tokio::time::timeout(looking, store.shown_marks(&rooms)).await
            && let Some(mark) = marks.get(&room)
        {
            self.learn(room, mark.durability);
        }
    }

    /// Take a post, or refuse it because too much waits already.
    pub fn post(&self, app: &App, mut post: Post) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let refused = {
            // Held until the post is in the queue, so that a room's posts are there in the order in which they were sorted.
            let mut lanes = self.lanes();
            post.way.lane = lanes.arrive(post.room);
            self.push(post).err()
        };
        refused.into_iter().for_each(|post| overloaded(app, *post));
    }

    /// Put a post into the queue of its lane, whose bytes count from here on.
    fn push(&self, post: Post) -> Result<(), Box<Post>> {
        let (size, at) = (post.text.len(), post.way.lane.index());
        if self.bytes[at].fetch_add(size, Ordering::Relaxed) + size > BYTES_MAX {
            return Err(Box::new(post));
        }
        self.queues[at].try_send(post).map_err(|error| Box::new(error.into_inner()))
    }

    /// Hand posts of one room over to the other lane, in their order: all that `from` has taken of it out of its queue.
    pub fn hand_over(&self, app: &App, from: Lane, came: Came, posts: Vec<Post>) {
        let mut refused = Vec::new();
        {
            let mut lanes = self.lanes();
            for mut post in posts {
                self.bytes[from.index()].fetch_sub(post.text.len(), Ordering::Relaxed);
                post.way = Way { lane: lanes.hand_over(post.room, from), came };
                refused.extend(self.push(post).err());
            }
        }
        refused.into_iter().for_each(|post| overloaded(app, *post));
    }

    /// What a lane does with the posts that it has of a room.
    pub fn course(&self, room: RoomId, lane: Lane, wanted: Lane) -> Course {
        self.lanes().course(room, lane, wanted)
    }

    /// The post waits no more.
    pub fn resolved(&self, post: &Post) {
        let lane = post.way.lane;
        self.lanes().resolved(post.room, lane);
        self.bytes[lane.index()].fetch_sub(post.text.len(), Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.slowest_us.fetch_max(post.arrived.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    /// Posts that waited to be durable enough are to be written again by this lane, before all others of their rooms. `lanes`: held since
    /// that was found out.
    pub fn taken_again(&self, lanes: &mut Lanes, lane: Lane, posts: &mut [Post]) {
        for post in posts {
            lanes.take_first(post.room, lane);
            post.way = Way { lane, came: Came::Known };
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.bytes[lane.index()].fetch_add(post.text.len(), Ordering::Relaxed);
        }
    }

    /// A lane's batch is under way whose oldest post arrived then; `None`: no more.
    pub fn under_way(&self, lane: Lane, oldest: Option<Instant>) {
        let us = oldest.map_or(u64::MAX, |at| at.saturating_duration_since(self.began).as_micros() as u64);
        self.oldest_us[lane.index()].store(us, Ordering::Relaxed);
    }

    /// The longest that a post took since the last call, or has been under way; nothing when nobody posted.
    pub fn slowest(&self) -> Duration {
        let now_us = self.began.elapsed().as_micros() as u64;
        let oldest_us = self.oldest_us.iter().map(|us| us.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX);
        let under_way_us = now_us.saturating_sub(oldest_us);
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
