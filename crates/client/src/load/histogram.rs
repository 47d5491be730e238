//! Times in microseconds, counted in buckets of 3 % each.

/// Buckets for each power of two.
const STEPS: u64 = 32;
const STEPS_BITS: u32 = STEPS.ilog2();
/// Longest time that is told apart: a bit more than an hour.
const POWERS: usize = 28;

/// Counted times.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; POWERS * STEPS as usize], total: 0 }
    }
}

impl Histogram {
    /// Count a time.
    pub fn add(&mut self, us: u64) {
        let at = bucket(us).min(self.counts.len() - 1);
        self.counts[at] += 1;
        self.total += 1;
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The time that this share of all, 0 to 1, does not exceed; 0 when nothing was counted.
    pub fn at(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut sum = 0;
        for (at, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum >= wanted && *count > 0 {
                return value(at);
            }
        }
        0
    }
}

fn bucket(us: u64) -> usize {
    if us < STEPS {
        return us as usize;
    }
    let power = us.ilog2() - STEPS_BITS;
    (u64::from(power + 1) * STEPS + (us >> power) - STEPS) as usize
}

/// The middle of a bucket.
fn value(at: usize) -> u64 {
    let (power, step) = (at as u64 / STEPS, at as u64 % STEPS);
    if power == 0 { step } else { ((STEPS + step) << (power - 1)) + ((1 << (power - 1)) / 2) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_within_three_percent() {
        for us in [0, 1, 31, 32, 33, 63, 64, 100, 1_000, 12_345, 999_999, 3_600_000_000] {
            let back = value(bucket(us));
            assert!(back.abs_diff(us) * 100 <= us * 3, "{us} came back as {back}");
        }
    }

    #[test]
    fn shares_are_counted() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|us| histogram.add(us * 10));
        assert_eq!((histogram.at(0.0), histogram.count()), (10, 100));
        assert!(histogram.at(0.5).abs_diff(500) <= 15);
        assert!(histogram.at(0.99).abs_diff(990) <= 30);
        histogram.clear();
        assert_eq!(histogram.at(0.5), 0);
    }
}
