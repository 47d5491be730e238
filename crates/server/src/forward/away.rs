//! What is with the gatherer, and when it has to be given up: pure, so that a simulation can lose, delay and repeat what a
//! network loses, delays and repeats.

use cluster::name::ServerName;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Posts that may be with the gatherer at a time.
pub const AWAY_MAX: usize = 10_000;
/// A gatherer that has answered nothing for so long, with posts before it, is given up.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// For how long a gatherer that was given up gets nothing.
pub const SHUN: Duration = Duration::from_secs(5);

/// What can be away: something with a client message id.
pub trait Identified {
    /// The client message id.
    fn client_id(&self) -> Uuid;
}

/// The posts that are with the gatherer.
pub struct Away<P> {
    /// By number, which rises in the order in which they were posted here.
    posts: BTreeMap<u64, P>,
    /// The number of the last one.
    last: u64,
    /// Rises with every taking back: a gatherer that has declined something of a run writes nothing more of it, lest what is
    /// newer comes before it.
    run: u64,
    /// Who has them, and how often links had ended when the first of them was sent.
    with: Option<(ServerName, u64)>,
    /// When the gatherer last answered, or took the first of them.
    heard: Option<Instant>,
    /// It will not write them.
    declined: bool,
    /// Whom nothing is forwarded to until then.
    shunned: Option<(ServerName, Instant)>,
}

impl<P> Default for Away<P> {
    fn default() -> Self {
        Self { posts: BTreeMap::new(), last: 0, run: 0, with: None, heard: None, declined: false, shunned: None }
    }
}

/// How this server stands to the gatherer, with posts before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is expected to answer.
    Kept,
    /// It will not write them, or may not have got them.
    Lost,
    /// It has been silent for too long.
    Silent(ServerName),
}

impl<P: Identified> Away<P> {
    /// Whether nothing is away.
    pub fn is_empty(&self) -> bool {
        self.posts.is_empty()
    }

    /// Whether nothing is forwarded to this server now.
    pub fn shuns(&self, server: &ServerName, now: Instant) -> bool {
        self.shunned.as_ref().is_some_and(|(name, until)| name == server && now < *until)
    }

    /// Note posts as sent to `to`, over a link that was up when links had ended `broken` times; returns the run and
    /// the first number. Gives them back when they must not go there beside what is away already.
    pub fn send(&mut self, to: &ServerName, broken: u64, now: Instant, posts: Vec<P>) -> Result<(u64, u64), Vec<P>> {
        let together = self.posts.is_empty() || self.with.as_ref().is_some_and(|(n, b)| n == to && *b == broken);
        if !together || self.declined || self.posts.len() + posts.len() > AWAY_MAX {
            return Err(posts);
        }
        if self.posts.is_empty() {
            self.with = Some((to.clone(), broken));
            self.heard = Some(now);
        }
        let first = self.last + 1;
        for post in posts {
            self.last += 1;
            self.posts.insert(self.last, post);
        }
        Ok((self.run, first))
    }

    /// Whether what is away is still expected to be answered. `writes`: this server has a writer itself.
    pub fn trust(&self, broken: u64, writes: bool, now: Instant) -> Trust {
        let Some((with, when)) = self.with.as_ref() else { return Trust::Lost };
        if self.heard.is_some_and(|at| now.saturating_duration_since(at) >= PATIENCE) {
            return Trust::Silent(with.clone());
        }
        if self.declined || *when != broken || !writes { Trust::Lost } else { Trust::Kept }
    }

    /// Take back what is away, in its order: from now on no answer to it counts.
    pub fn take_back(&mut self, shun: Option<ServerName>, now: Instant) -> Vec<P> {
        self.declined = false;
        self.with = None;
        self.run += 1;
        if let Some(name) = shun {
            self.shunned = Some((name, now + SHUN));
        }
        std::mem::take(&mut self.posts).into_values().collect()
    }

    /// The gatherer has answered this one. `None` when it is not away any more, or was forwarded by an earlier process.
    pub fn answered(&mut self, number: u64, client_id: Uuid, now: Instant) -> Option<P> {
        self.heard = Some(now);
        if self.posts.get(&number)?.client_id() != client_id {
            return None;
        }
        self.posts.remove(&number)
    }

    /// The gatherer will not write them.
    pub fn declined(&mut self, now: Instant) {
        self.heard = Some(now);
        self.declined = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Post(Uuid);

    impl Identified for Post {
        fn client_id(&self) -> Uuid {
            self.0
        }
    }

    fn posts(count: usize) -> Vec<Post> {
        (0..count).map(|_| Post(Uuid::now_v7())).collect()
    }

    #[test]
    fn an_answer_counts_once_and_only_for_the_post_that_it_names() {
        let (mut away, now) = (Away::default(), Instant::now());
        let sent = posts(2);
        let (one, two) = (sent[0].0, sent[1].0);
        assert_eq!(away.send(&"g".into(), 0, now, sent).ok(), Some((0, 1)));
        assert!(away.answered(1, two, now).is_none());
        assert!(away.answered(1, one, now).is_some());
        assert!(away.answered(1, one, now).is_none());
        assert_eq!(away.take_back(None, now).len(), 1);
        assert!(away.answered(2, two, now).is_none());
    }

    #[test]
    fn nothing_newer_goes_elsewhere_while_something_is_away() {
        let (mut away, now) = (Away::default(), Instant::now());
        assert!(away.send(&"g".into(), 0, now, posts(1)).is_ok());
        assert!(away.send(&"h".into(), 0, now, posts(1)).is_err());
        assert!(away.send(&"g".into(), 1, now, posts(1)).is_err());
        assert!(away.send(&"g".into(), 0, now, posts(AWAY_MAX)).is_err());
        away.declined(now);
        assert!(away.send(&"g".into(), 0, now, posts(1)).is_err());
        away.take_back(None, now);
        assert!(away.send(&"h".into(), 1, now, posts(1)).is_ok());
    }

    #[test]
    fn a_silent_gatherer_is_given_up_and_shunned_for_a_while() {
        let (mut away, now) = (Away::default(), Instant::now());
        assert!(away.send(&"g".into(), 0, now, posts(1)).is_ok());
        assert_eq!(away.trust(0, true, now + PATIENCE / 2), Trust::Kept);
        assert_eq!(away.trust(1, true, now), Trust::Lost);
        assert_eq!(away.trust(0, false, now), Trust::Lost);
        assert_eq!(away.trust(0, true, now + PATIENCE), Trust::Silent("g".into()));
        away.take_back(Some("g".into()), now);
        assert!(away.shuns(&"g".into(), now) && !away.shuns(&"h".into(), now));
        assert!(!away.shuns(&"g".into(), now + SHUN));
    }
}
