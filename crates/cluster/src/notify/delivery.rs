//! What a receiver has been told, and when it is told the next thing.
//!
//! Notices go out one after the other, oldest first. One that the receiver does not take is tried again after a time that
//! doubles, and those behind it wait; one that it refuses is given up after some tries, and one that is older than a day is
//! news no more.

use super::{Event, Notice, Receiver};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Time before the second try, in milliseconds; it doubles with each further one.
pub const AGAIN_MS: i64 = 1_000;
/// Longest time between two tries, in milliseconds.
pub const AGAIN_MAX_MS: i64 = 60_000;
/// Tries after which a notice that is refused is given up.
pub const REFUSALS_MAX: u32 = 8;
/// What is older is not told any more, in milliseconds: a day.
pub const NEWS_MS: i64 = 24 * 3_600_000;
/// How long it is remembered what became of a notice, in milliseconds: longer than it could be told again.
const REMEMBERED_MS: i64 = 7 * NEWS_MS;
/// What is remembered at most.
const REMEMBERED_MAX: usize = 1_000;

/// What one receiver has been told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// What happened before is not told: the receiver was not in the topology yet. Milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// What is being tried, by the notice's id: more than one only while the first is given up.
    #[serde(default)]
    pub tried: BTreeMap<String, Tried>,
    /// What became of those that are done with, by id.
    #[serde(default)]
    pub settled: BTreeMap<String, Settled>,
}

/// A notice that the receiver has not taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// What kind of thing it is.
    pub event: Event,
    /// How often it was tried.
    pub tries: u32,
    /// How often the receiver refused it.
    pub refusals: u32,
    /// When it was first tried, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When it is tried again.
    pub next_ms: i64,
    /// Why the last try failed.
    pub why: String,
}

/// What became of a notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// What kind of thing it was.
    pub event: Event,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// After how many tries.
    pub tries: u32,
    /// Why it was given up; `None` when the receiver took it.
    pub gave_up: Option<String>,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The receiver does not answer, or asks for patience.
    NotNow(String),
    /// The receiver refuses: trying again helps only when somebody mends something.
    Refused(String),
}

impl Failed {
    /// Why.
    pub fn why(&self) -> &str {
        match self {
            Failed::NotNow(why) | Failed::Refused(why) => why,
        }
    }
}

/// What is to be done for a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// Tell it this; the number of the try, from 1.
    Tell(&'a Notice, u32),
    /// Nothing before this moment, milliseconds since the Unix epoch.
    NotBefore(i64),
    /// It has been told everything.
    Nothing,
}

impl Delivery {
    /// A receiver that is new in the topology.
    pub fn new(now_ms: i64) -> Self {
        Self { since_ms: now_ms, ..Self::default() }
    }

    /// What it is still to be told, oldest first.
    pub fn due<'a>(&self, receiver: &Receiver, notices: &'a [Notice], now_ms: i64) -> Vec<&'a Notice> {
        let mut due: Vec<&Notice> = notices
            .iter()
            .filter(|n| receiver.wants(n.event) && !self.settled.contains_key(&n.id))
            .filter(|n| n.at_ms >= self.since_ms && now_ms.saturating_sub(n.at_ms) <= NEWS_MS)
            .collect();
        due.sort_by(|a, b| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
        due
    }

    /// What is to be done now.
    pub fn next<'a>(&self, receiver: &Receiver, notices: &'a [Notice], now_ms: i64) -> Next<'a> {
        let Some(first) = self.due(receiver, notices, now_ms).first().copied() else { return Next::Nothing };
        match self.tried.get(&first.id) {
            Some(tried) if tried.next_ms > now_ms && tried.next_ms - now_ms <= AGAIN_MAX_MS => {
                Next::NotBefore(tried.next_ms)
            }
            tried => Next::Tell(first, tried.map_or(1, |t| t.tries + 1)),
        }
    }

    /// The receiver has taken it.
    pub fn taken(&mut self, notice: &Notice, now_ms: i64) {
        let tries = self.tried.remove(&notice.id).map_or(1, |t| t.tries + 1);
        self.settle(notice.id.clone(), Settled { event: notice.event, at_ms: now_ms, tries, gave_up: None });
    }

    /// A try has failed.
    pub fn failed(&mut self, notice: &Notice, failed: &Failed, now_ms: i64) {
        let before = self.tried.remove(&notice.id);
        let tries = before.as_ref().map_or(0, |t| t.tries) + 1;
        let refused = matches!(failed, Failed::Refused(_));
        let refusals = before.as_ref().map_or(0, |t| t.refusals) + u32::from(refused);
        let why = failed.why().to_owned();
        if refusals >= REFUSALS_MAX {
            let gave_up = Some(format!("refused {refusals} times: {why}"));
            self.settle(notice.id.clone(), Settled { event: notice.event, at_ms: now_ms, tries, gave_up });
            return;
        }
        let pause = AGAIN_MS.saturating_mul(1 << (tries - 1).min(16)).min(AGAIN_MAX_MS);
        let tried = Tried {
            event: notice.event,
            tries,
            refusals,
            since_ms: before.map_or(now_ms, |t| t.since_ms),
            next_ms: now_ms.saturating_add(pause),
            why,
        };
        self.tried.insert(notice.id.clone(), tried);
    }

    /// Let go of what is news no more, and of what need not be remembered. Tells whether there was any.
    pub fn tidy(&mut self, notices: &[Notice], now_ms: i64) -> bool {
        let before = (self.tried.len(), self.settled.len());
        let is_news = |id: &String| {
            let notice = notices.iter().find(|n| n.id == *id);
            notice.is_some_and(|n| now_ms.saturating_sub(n.at_ms) <= NEWS_MS)
        };
        let over: Vec<String> = self.tried.keys().filter(|id| !is_news(id)).cloned().collect();
        for id in over {
            let Some(tried) = self.tried.remove(&id) else { continue };
            let gave_up = Some(format!("it is news no more, and was not taken: {}", tried.why));
            self.settle(id, Settled { event: tried.event, at_ms: now_ms, tries: tried.tries, gave_up });
        }
        self.settled.retain(|_, s| now_ms.saturating_sub(s.at_ms) <= REMEMBERED_MS);
        before != (self.tried.len(), self.settled.len())
    }

    fn settle(&mut self, id: String, settled: Settled) {
        self.settled.insert(id, settled);
        while self.settled.len() > REMEMBERED_MAX {
            let oldest = self.settled.iter().min_by_key(|(_, s)| s.at_ms).map(|(id, _)| id.clone());
            self.settled.remove(&oldest.unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Kind;

    fn receiver(events: Option<Vec<Event>>) -> Receiver {
        Receiver {
            name: "ops".into(),
            kind: Kind::Webhook,
            url: Some("https://example.org/".into()),
            smtp: None,
            tls: None,
            user: None,
            from: None,
            to: Vec::new(),
            events,
        }
    }

    fn notice(id: &str, at_ms: i64) -> Notice {
        let (id, says) = (id.to_owned(), String::new());
        Notice { id, event: Event::Started, at_ms, run: None, says, details: Vec::new() }
    }

    #[test]
    fn notices_go_out_in_order_and_each_until_it_is_taken() {
        let (all, ops) = ([notice("b", 2_000), notice("a", 1_000), notice("before", 10)], receiver(None));
        let mut delivery = Delivery::new(500);
        assert_eq!(delivery.next(&ops, &all, 3_000), Next::Tell(&all[1], 1));
        delivery.failed(&all[1], &Failed::NotNow("down".into()), 3_000);
        assert_eq!(delivery.next(&ops, &all, 3_999), Next::NotBefore(4_000), "those behind it wait");
        assert_eq!(delivery.next(&ops, &all, 4_000), Next::Tell(&all[1], 2));
        delivery.failed(&all[1], &Failed::NotNow("down".into()), 4_000);
        assert_eq!(delivery.next(&ops, &all, 5_000), Next::NotBefore(6_000));
        delivery.taken(&all[1], 6_000);
        assert_eq!(delivery.next(&ops, &all, 6_000), Next::Tell(&all[0], 1));
        delivery.taken(&all[0], 6_001);
        assert_eq!(delivery.next(&ops, &all, 6_001), Next::Nothing, "what was before it knew the receiver is not told");
    }

    #[test]
    fn a_receiver_hears_of_what_it_wants() {
        let all = [notice("a", 1_000)];
        let delivery = Delivery::new(0);
        assert_eq!(delivery.next(&receiver(Some(vec![Event::Failed])), &all, 2_000), Next::Nothing);
        assert_eq!(delivery.next(&receiver(Some(vec![Event::Started])), &all, 2_000), Next::Tell(&all[0], 1));
    }

    #[test]
    fn the_time_between_tries_is_bounded_and_a_clock_that_was_set_back_stops_nothing() {
        let (all, ops) = ([notice("a", 0)], receiver(None));
        let mut delivery = Delivery::new(0);
        let mut now = 0;
        for _ in 0..40 {
            delivery.failed(&all[0], &Failed::NotNow("down".into()), now);
            let Next::NotBefore(next) = delivery.next(&ops, &all, now) else { panic!("it waits") };
            assert!(next - now <= AGAIN_MAX_MS);
            now = next;
        }
        assert_eq!(delivery.next(&ops, &all, now - 3_600_000), Next::Tell(&all[0], 41));
    }

    #[test]
    fn what_is_refused_is_given_up_and_what_is_old_is_news_no_more() {
        let (all, ops) = ([notice("a", 0), notice("b", 1)], receiver(None));
        let mut delivery = Delivery::new(0);
        for n in 0..REFUSALS_MAX {
            assert!(!delivery.settled.contains_key("a"), "after {n}");
            delivery.failed(&all[0], &Failed::Refused("404".into()), i64::from(n));
        }
        assert_eq!(delivery.settled["a"].gave_up.as_deref(), Some("refused 8 times: 404"));
        assert_eq!(delivery.next(&ops, &all, 100), Next::Tell(&all[1], 1));
        delivery.failed(&all[1], &Failed::NotNow("down".into()), 100);
        assert!(!delivery.tidy(&all, 1_000));
        assert_eq!(delivery.next(&ops, &all, NEWS_MS + 2), Next::Nothing);
        assert!(delivery.tidy(&all, NEWS_MS + 2));
        assert!(delivery.settled["b"].gave_up.as_ref().unwrap().contains("news no more"));
        assert!(delivery.tidy(&all, NEWS_MS * 9) && delivery.settled.is_empty());
    }
}
