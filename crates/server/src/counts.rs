//! What a server counts on its chat path, for metrics. Each count is one atomic addition; a page reads them as they are.

use crate::answer::{Outcome, Written};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wire::metrics::Histogram;

/// Upper ends for times, in seconds: from a commit on a fast disk to the longest wait that anybody should see.
const TIMES_S: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];
/// Upper ends for posts in a transaction.
const POSTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// The counts.
pub struct Counts {
    written: AtomicU64,
    repeated: AtomicU64,
    refused: AtomicU64,
    /// From a post's arrival to its acknowledgement.
    pub acknowledgements: Observations,
    /// Posts in a transaction.
    pub batches: Observations,
    /// Durations of transactions.
    pub commits: Observations,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            written: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            acknowledgements: Observations::new(&TIMES_S),
            batches: Observations::new(&POSTS),
            commits: Observations::new(&TIMES_S),
        }
    }
}

impl Counts {
    /// A post of this server's own clients has its outcome, so long after it arrived.
    pub fn answered(&self, outcome: &Outcome, after: Duration) {
        let count = match outcome {
            Outcome::Written(Written { repeated: false, .. }) => &self.written,
            Outcome::Written(Written { repeated: true, .. }) => &self.repeated,
            // It is counted when it is acknowledged.
            Outcome::Committed(..) => return,
            Outcome::Refused { .. } => &self.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if matches!(outcome, Outcome::Written(_)) {
            self.acknowledgements.observe_time(after);
        }
    }

    /// A transaction has committed.
    pub fn committed(&self, posts: usize, took: Duration) {
        if posts > 0 {
            self.batches.observe(posts as f64, posts as u64 * 1_000_000);
            self.commits.observe_time(took);
        }
    }

    /// Posts by what became of them.
    pub fn outcomes(&self) -> [(&'static str, u64); 3] {
        [("written", &self.written), ("repeated", &self.repeated), ("refused", &self.refused)]
            .map(|(word, count)| (word, count.load(Ordering::Relaxed)))
    }
}

/// Counts of observations by size.
pub struct Observations {
    ends: &'static [f64],
    /// One for each end, and one for what is above the last.
    counts: Vec<AtomicU64>,
    /// Sum, in millionths.
    sum_millionths: AtomicU64,
}

impl Observations {
    fn new(ends: &'static [f64]) -> Self {
        let counts = (0..=ends.len()).map(|_| AtomicU64::new(0)).collect();
        Self { ends, counts, sum_millionths: AtomicU64::new(0) }
    }

    fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64(), time.as_micros() as u64);
    }

    fn observe(&self, value: f64, millionths: u64) {
        let place = self.ends.partition_point(|end| *end < value);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum_millionths.fetch_add(millionths, Ordering::Relaxed);
    }

    /// As they are now.
    pub fn histogram(&self) -> Histogram {
        let count = |at: usize| self.counts[at].load(Ordering::Relaxed);
        Histogram {
            buckets: self.ends.iter().enumerate().map(|(at, end)| (*end, count(at))).collect(),
            above: count(self.ends.len()),
            sum: self.sum_millionths.load(Ordering::Relaxed) as f64 / 1_000_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_falls_into_the_first_bucket_that_holds_it() {
        let observations = Observations::new(&[1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.0, 3.0] {
            observations.observe(value, (value * 1e6) as u64);
        }
        let expect = Histogram { buckets: vec![(1.0, 2), (2.0, 2)], above: 1, sum: 8.0 };
        assert_eq!(observations.histogram(), expect);
    }
}
