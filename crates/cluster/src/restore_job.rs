//! The schedule of the restore job (ha-dr §7): a backup that is not to apply its log all the time holds it on its disk, and
//! applies in runs, each up to what it had when the run began.
//!
//! What is held back is received and durable; only applying waits. Nothing is held back while a new epoch is not applied yet,
//! nor when shipping is stopped, which is the first thing that a failover does; nor more of it than fits. Nor without a
//! stream: PostgreSQL begins no stream while applying is paused, and then nothing would arrive.

use crate::wal::Lsn;

/// Log that is held back at most, in bytes; beyond it a run begins before its time.
pub const HELD_BYTES_MAX: u64 = 1_073_741_824;

/// What is seen of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Applying is paused.
    pub paused: bool,
    /// It was the schedule that paused it, and not a person.
    pub by_schedule: bool,
    /// End of what it has.
    pub has: Lsn,
    /// End of what it has applied.
    pub applied: Lsn,
    /// A stream comes in.
    pub streaming: bool,
    /// It has applied the beginning of the present epoch.
    pub settled: bool,
    /// Milliseconds since the latest run began, and how far it goes; `None` when this agent has begun none.
    pub run: Option<(u64, Lsn)>,
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Rest,
    /// A run begins, up to what there is: it is applied from now on.
    Begin,
    /// The run is over: applying pauses.
    End,
    /// There is no schedule, or it does not count now: applying goes on, unless a person has paused it.
    GoOn,
}

/// The next deed, with a run every so many milliseconds; 0 applies all the time.
pub fn act(every_ms: u64, seen: &Seen) -> Act {
    if every_ms == 0 || !seen.settled || !seen.streaming {
        return if seen.paused && seen.by_schedule { Act::GoOn } else { Act::Rest };
    }
    match (seen.paused, seen.run) {
        // An agent that was away does not know since when.
        (_, None) => Act::Begin,
        (true, Some((began_ms, _))) => {
            let full = seen.has.bytes_after(seen.applied) >= HELD_BYTES_MAX;
            if began_ms >= every_ms || full { Act::Begin } else { Act::Rest }
        }
        (false, Some((_, up_to))) => {
            if seen.applied >= up_to {
                Act::End
            } else {
                Act::Rest
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = 900_000;

    fn seen(paused: bool, has: u64, applied: u64, run: Option<(u64, u64)>) -> Seen {
        let run = run.map(|(ms, up_to)| (ms, Lsn(up_to)));
        Seen { paused, by_schedule: paused, has: Lsn(has), applied: Lsn(applied), streaming: true, settled: true, run }
    }

    #[test]
    fn a_run_applies_what_there_was_when_it_began() {
        assert_eq!(act(EVERY, &seen(false, 50, 10, None)), Act::Begin, "an agent that has just started");
        assert_eq!(act(EVERY, &seen(false, 60, 49, Some((10, 50)))), Act::Rest);
        assert_eq!(act(EVERY, &seen(false, 60, 50, Some((20, 50)))), Act::End);
        assert_eq!(act(EVERY, &seen(true, 90, 50, Some((EVERY - 1, 50)))), Act::Rest);
        assert_eq!(act(EVERY, &seen(true, 90, 50, Some((EVERY, 50)))), Act::Begin);
        // One that takes longer than the schedule goes on until it is over.
        assert_eq!(act(EVERY, &seen(false, 90, 60, Some((2 * EVERY, 90)))), Act::Rest);
    }

    #[test]
    fn nothing_is_held_back_without_a_schedule_or_a_stream_or_before_a_new_epoch_is_applied() {
        assert_eq!(act(0, &seen(true, 90, 50, Some((1, 50)))), Act::GoOn);
        assert_eq!(act(0, &seen(false, 90, 50, None)), Act::Rest);
        // A person who looks at a standby that stands still is left alone.
        assert_eq!(act(0, &Seen { by_schedule: false, ..seen(true, 90, 50, None) }), Act::Rest);
        let unsettled = Seen { settled: false, ..seen(true, 90, 50, Some((1, 50))) };
        assert_eq!(act(EVERY, &unsettled), Act::GoOn);
        assert_eq!(act(EVERY, &Seen { paused: false, ..unsettled }), Act::Rest);
        let cut = Seen { streaming: false, ..seen(true, 90, 50, Some((1, 50))) };
        assert_eq!(act(EVERY, &cut), Act::GoOn);
    }

    #[test]
    fn no_more_is_held_back_than_fits() {
        let much = seen(true, HELD_BYTES_MAX + 50, 50, Some((1, 50)));
        assert_eq!(act(EVERY, &much), Act::Begin);
    }
}
