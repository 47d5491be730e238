//! Exposure: what a failover right now would lose, as far as anybody at the backup's site can know.

use crate::runbook::Exposure;
use crate::wal::Lsn;
use std::collections::VecDeque;

/// Samples that are kept: two minutes at five a second.
const SAMPLES_MAX: usize = 600;

/// One look at a principal and its backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When, in milliseconds of any steady clock.
    pub at_ms: u64,
    /// The principal's written position and entries; `None` when it did not answer.
    pub principal: Option<(Lsn, Option<u64>)>,
    /// The backup's written position and entries; `None` when it did not answer.
    pub backup: Option<(Lsn, Option<u64>)>,
}

/// The looks of the last minutes.
#[derive(Clone, Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Add a look.
    pub fn add(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// A change of writer: what was seen before says nothing about the new pair.
    pub fn forget(&mut self) {
        self.samples.clear();
    }

    /// What is at the principal and not at the backup, seen from `now_ms`.
    pub fn exposure(&self, now_ms: u64) -> Exposure {
        let heard = self.samples.iter().rev().find_map(|s| s.principal.map(|p| (s.at_ms, p)));
        let backup = self.samples.iter().rev().find_map(|s| s.backup);
        let Some((heard_at, (written, entries))) = heard else { return Exposure::default() };
        let heard_ms_ago = Some(now_ms.saturating_sub(heard_at));
        let Some((has, has_entries)) = backup else { return Exposure { heard_ms_ago, ..Exposure::default() } };
        let behind_ms = if has >= written {
            0
        } else {
            // The backup is as old as the last look at which the principal had no more than it has now.
            let covered = self.samples.iter().rev().find(|s| s.principal.is_some_and(|(w, _)| w <= has));
            let since = covered.or(self.samples.front()).map_or(heard_at, |s| s.at_ms);
            heard_at.saturating_sub(since)
        };
        let missing = if has >= written { Some(0) } else { entries.zip(has_entries).map(|(p, b)| p.saturating_sub(b)) };
        Exposure { entries: missing, bytes: Some(written.bytes_after(has)), behind_ms: Some(behind_ms), heard_ms_ago }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, principal: Option<u64>, backup: Option<u64>) -> Sample {
        let part = |n: Option<u64>| n.map(|n| (Lsn(n), Some(n / 10)));
        Sample { at_ms, principal: part(principal), backup: part(backup) }
    }

    fn history(samples: &[Sample]) -> History {
        let mut history = History::default();
        samples.iter().for_each(|s| history.add(*s));
        history
    }

    #[test]
    fn a_backup_that_has_everything_exposes_nothing() {
        let h = history(&[sample(0, Some(100), Some(100))]);
        let expect = Exposure { entries: Some(0), bytes: Some(0), behind_ms: Some(0), heard_ms_ago: Some(5) };
        assert_eq!(h.exposure(5), expect);
    }

    #[test]
    fn a_backup_is_as_old_as_the_last_look_that_it_covers() {
        let h = history(&[
            sample(0, Some(100), Some(100)),
            sample(200, Some(200), Some(100)),
            sample(400, Some(300), Some(100)),
        ]);
        let expect = Exposure { entries: Some(20), bytes: Some(200), behind_ms: Some(400), heard_ms_ago: Some(0) };
        assert_eq!(h.exposure(400), expect);
    }

    #[test]
    fn a_dead_principal_counts_as_it_was_last_heard() {
        let h = history(&[sample(0, Some(100), Some(90)), sample(900, None, Some(100))]);
        let expect = Exposure { entries: Some(0), bytes: Some(0), behind_ms: Some(0), heard_ms_ago: Some(1000) };
        assert_eq!(h.exposure(1000), expect);
    }

    #[test]
    fn what_was_never_heard_is_not_known() {
        assert_eq!(history(&[sample(0, None, Some(5))]).exposure(1), Exposure::default());
    }
}
