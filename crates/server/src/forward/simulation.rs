//! A seeded simulation of forwarding: two servers, a database that lets a client message id in once, and links that delay,
//! lose, break and repeat. After every run: everything acknowledged is in the log, nothing is in it twice, the posts of each
//! session are in their order, and nothing waits for ever.

use super::away::{Away, Identified, PATIENCE, Trust};
use crate::choices::Choices;
use cluster::name::ServerName;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// One post of one of the sessions at the forwarding server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Post {
    session: u64,
    nth: u64,
}

impl Identified for Post {
    fn client_id(&self) -> Uuid {
        Uuid::from_u64_pair(self.session, self.nth)
    }
}

/// What travels over the links.
enum Frame {
    Forward(u64, Vec<(u64, Post)>),
    Answered(Vec<(u64, Post)>),
    Declined,
}

/// What a change to the rules would break, to see that the simulation finds it.
#[derive(Clone, Copy, Default)]
struct Seeded {
    /// What is away is not written before what is newer.
    newer_first: bool,
    /// A link that has ended is not noticed, so what it lost waits until the gatherer is silent; and silence is never noticed.
    trusts_for_ever: bool,
    /// The database lets a client message id in twice.
    twice: bool,
    /// The gatherer goes on with a run of which it has declined a post.
    declines_once: bool,
}

struct World {
    choices: Choices,
    seeded: Seeded,
    now: Instant,
    away: Away<Post>,
    /// Waiting at the forwarding server, in order.
    queue: VecDeque<Post>,
    /// Taken back, to be written there before anything else.
    mine: VecDeque<Post>,
    /// Waiting at the gatherer: its copy of what was forwarded.
    gathered: VecDeque<(u64, Post)>,
    to_gatherer: VecDeque<Frame>,
    from_gatherer: VecDeque<Frame>,
    /// The run of which the gatherer has declined a post.
    declined: Option<u64>,
    up: bool,
    broken: u64,
    log: Vec<Post>,
    acknowledged: Vec<Post>,
    posted: Vec<u64>,
}

const SESSIONS: u64 = 3;

impl World {
    fn new(seed: u64, seeded: Seeded) -> Self {
        Self {
            choices: Choices(seed),
            seeded,
            now: Instant::now(),
            away: Away::default(),
            queue: VecDeque::new(),
            mine: VecDeque::new(),
            gathered: VecDeque::new(),
            to_gatherer: VecDeque::new(),
            from_gatherer: VecDeque::new(),
            declined: None,
            up: true,
            broken: 0,
            log: Vec::new(),
            acknowledged: Vec::new(),
            posted: vec![0; SESSIONS as usize],
        }
    }

    fn gatherer() -> ServerName {
        "g".into()
    }

    /// The database: a client message id gets in once.
    fn write(&mut self, post: Post) {
        if self.seeded.twice || !self.log.contains(&post) {
            self.log.push(post);
        }
    }

    fn take_back(&mut self, shun: bool) {
        let back = self.away.take_back(shun.then(Self::gatherer), self.now);
        self.mine.extend(back);
    }

    /// The chat path of the forwarding server, one turn.
    fn chat_path(&mut self) {
        let trust = self.away.trust(self.broken, true, self.now);
        if !self.away.is_empty() && !self.seeded.trusts_for_ever {
            match trust {
                Trust::Kept => {}
                Trust::Lost => self.take_back(false),
                Trust::Silent(_) => self.take_back(true),
            }
        }
        if !self.mine.is_empty() && !self.seeded.newer_first {
            let count = 1 + self.choices.next(self.mine.len() as u64) as usize;
            for post in self.mine.drain(..count).collect::<Vec<_>>() {
                self.write(post);
                self.acknowledged.push(post);
            }
            return;
        }
        let count = self.choices.next(4).min(self.queue.len() as u64) as usize;
        let posts: Vec<Post> = self.queue.drain(..count).collect();
        if posts.is_empty() {
            return;
        }
        let goes = self.up && !self.away.shuns(&Self::gatherer(), self.now);
        let sent = if goes {
            self.away.send(&Self::gatherer(), self.broken, self.now, posts.clone())
        } else {
            Err(posts.clone())
        };
        match sent {
            Ok((run, first)) => self.to_gatherer.push_back(Frame::Forward(run, (first..).zip(posts).collect())),
            Err(newer) => {
                self.take_back(false);
                if self.seeded.newer_first {
                    newer.into_iter().rev().for_each(|post| self.mine.push_front(post));
                    for post in std::mem::take(&mut self.mine) {
                        self.write(post);
                        self.acknowledged.push(post);
                    }
                } else {
                    self.mine.extend(newer);
                }
            }
        }
    }

    /// The gatherer writes some of what it has, and answers.
    fn gather(&mut self) {
        let count = self.choices.next(4).min(self.gathered.len() as u64) as usize;
        let batch: Vec<(u64, Post)> = self.gathered.drain(..count).collect();
        batch.iter().for_each(|(_, post)| self.write(*post));
        if !batch.is_empty() && self.up {
            self.from_gatherer.push_back(Frame::Answered(batch));
        }
    }

    fn deliver_to_gatherer(&mut self) {
        if let Some(Frame::Forward(run, posts)) = self.to_gatherer.pop_front() {
            let declines = self.choices.next(40) == 0 || (self.declined == Some(run) && !self.seeded.declines_once);
            if declines {
                self.declined = Some(run);
                self.from_gatherer.push_back(Frame::Declined);
            } else {
                self.gathered.extend(posts);
            }
        }
    }

    fn deliver_from_gatherer(&mut self) {
        match self.from_gatherer.pop_front() {
            Some(Frame::Answered(answers)) => {
                for (number, post) in answers {
                    self.acknowledged.extend(self.away.answered(number, post.client_id(), self.now));
                }
            }
            Some(Frame::Declined) => self.away.declined(self.now),
            Some(Frame::Forward(..)) | None => {}
        }
    }

    /// Links end: what is on the way is lost; what the gatherer has taken it writes all the same.
    fn break_links(&mut self) {
        if self.up {
            self.up = false;
            self.broken += 1;
            self.to_gatherer.clear();
            self.from_gatherer.clear();
        } else {
            self.up = true;
        }
    }

    fn step(&mut self, posting: bool) {
        self.now += Duration::from_millis(self.choices.next(20));
        match self.choices.next(if posting { 100 } else { 80 }) {
            0..20 => self.chat_path(),
            20..40 => self.gather(),
            40..58 => self.deliver_to_gatherer(),
            58..76 => self.deliver_from_gatherer(),
            76..78 => self.break_links(),
            78 => self.now += PATIENCE,
            79 => {
                // A frame is dropped because a queue is full.
                self.from_gatherer.pop_front();
            }
            _ => {
                let session = self.choices.next(SESSIONS);
                self.posted[session as usize] += 1;
                self.queue.push_back(Post { session, nth: self.posted[session as usize] });
            }
        }
    }

    /// What is wrong, if anything.
    fn fault(&self) -> Option<String> {
        let once: BTreeSet<(u64, u64)> = self.log.iter().map(|p| (p.session, p.nth)).collect();
        if once.len() != self.log.len() {
            return Some("a post is in the log twice".into());
        }
        if let Some(lost) = self.acknowledged.iter().find(|post| !self.log.contains(post)) {
            return Some(format!("{lost:?} was acknowledged and is not in the log"));
        }
        for session in 0..SESSIONS {
            let of_session: Vec<u64> = self.log.iter().filter(|p| p.session == session).map(|p| p.nth).collect();
            if !of_session.is_sorted() {
                return Some(format!("session {session} is out of order: {of_session:?}"));
            }
        }
        let posted: u64 = self.posted.iter().sum();
        let answered: BTreeSet<(u64, u64)> = self.acknowledged.iter().map(|p| (p.session, p.nth)).collect();
        (answered.len() as u64 != posted).then(|| format!("{posted} were posted, {} acknowledged", answered.len()))
    }
}

fn run(seed: u64, seeded: Seeded) -> Option<String> {
    let mut world = World::new(seed, seeded);
    (0..600).for_each(|_| world.step(true));
    (0..4000).for_each(|_| world.step(false));
    world.fault()
}

#[test]
fn forwarding_keeps_every_post_once_and_in_order() {
    for seed in 0..400 {
        assert_eq!(run(seed, Seeded::default()), None, "seed {seed}");
    }
}

#[test]
fn the_simulation_finds_seeded_mistakes() {
    let found = |seeded: Seeded, part: &str| (0..400).filter_map(|seed| run(seed, seeded)).any(|f| f.contains(part));
    assert!(found(Seeded { newer_first: true, ..Seeded::default() }, "out of order"));
    assert!(found(Seeded { trusts_for_ever: true, ..Seeded::default() }, "acknowledged"));
    assert!(found(Seeded { declines_once: true, ..Seeded::default() }, "out of order"));
    assert!(found(Seeded { twice: true, ..Seeded::default() }, "twice"));
}
