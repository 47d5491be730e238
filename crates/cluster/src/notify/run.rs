//! What there is to tell of a run, from its journal.

use super::{Event, Notice, RunName};

/// A wait that is shorter needs nobody: it is told only when it has lasted so long, in milliseconds.
pub const WAIT_TOLD_AFTER_MS: i64 = 5_000;

/// An event of a run's journal, as far as notices follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment<'a> {
    /// Its number in the journal.
    pub number: u64,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What happened.
    pub what: What<'a>,
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// It was begun, or taken up for its next step.
    Begun {
        /// The runbook.
        runbook: &'a str,
        /// Who.
        by: &'a str,
        /// Only this step.
        only_step: Option<&'a str>,
        /// What was found.
        found: &'a [String],
    },
    /// It is to be undone.
    AbortBegun {
        /// Who wants it.
        by: &'a str,
    },
    /// A step was taken up.
    StepBegun(&'a str),
    /// The step waits, perhaps for a person.
    Waiting {
        /// The step.
        step: &'a str,
        /// For what.
        reason: &'a str,
    },
    /// The step is done.
    StepDone(&'a str),
    /// The run is over, or stands still.
    Finished {
        /// Every step is done.
        complete: bool,
        /// Everything was undone.
        undone: bool,
        /// For people.
        message: &'a str,
    },
    /// Anything else.
    Other,
}

/// Everything that is to be told of a run by now, oldest first.
pub fn notices(pool: &str, id: &str, moments: &[Moment<'_>], now_ms: i64) -> Vec<Notice> {
    let Some(What::Begun { runbook, by, .. }) = moments.first().map(|m| &m.what) else { return Vec::new() };
    let mut told = Vec::new();
    let mut step = None;
    let mut only_step = None;
    let mut wait: Option<(u64, i64)> = None;
    let mut reason = "";
    let mut stands_still = None;
    let mut add = |moment: (u64, i64), event: Event, step: Option<&str>, says: String, details: Vec<String>| {
        told.push(Notice {
            id: format!("{id}/{}-{event}", moment.0),
            event,
            at_ms: moment.1,
            run: Some(RunName {
                id: id.to_owned(),
                runbook: (*runbook).to_owned(),
                started_by: (*by).to_owned(),
                step: step.map(str::to_owned),
            }),
            says,
            details,
        });
    };
    for moment in moments {
        let at = (moment.number, moment.at_ms);
        match &moment.what {
            What::Begun { by, only_step: only, found, .. } => {
                only_step = *only;
                stands_still = None;
                if moment.number == 1 {
                    let part = only.map_or(String::new(), |step| format!(", step {step} alone,"));
                    let says = format!("{pool}: {runbook}{part} was begun by {by}");
                    add(at, Event::Started, None, says, found.to_vec());
                }
            }
            What::AbortBegun { by } => {
                (wait, stands_still, step) = (None, None, None);
                add(at, Event::Started, None, format!("{pool}: {runbook} is to be undone, by {by}"), Vec::new());
            }
            What::StepBegun(begun) => {
                // One that is taken up again, by a process that was started again, has waited since it first did.
                if step.replace(*begun) != Some(*begun) {
                    wait = None;
                }
            }
            What::Waiting { step: at_step, reason: why } => {
                step = Some(*at_step);
                reason = why;
                wait.get_or_insert(at);
            }
            What::StepDone(_) => wait = None,
            What::Finished { complete: true, message, .. } => {
                wait = None;
                add(at, Event::Finished, None, format!("{pool}: {runbook} is complete: {message}"), Vec::new());
            }
            What::Finished { undone: true, message, .. } => {
                wait = None;
                add(at, Event::Aborted, step, format!("{pool}: {runbook} was undone: {message}"), Vec::new());
            }
            What::Finished { message, .. } if only_step.is_some() && only_step == step && wait.is_none() => {
                stands_still = Some((at, *message));
            }
            What::Finished { message, .. } => {
                wait = None;
                add(at, Event::Failed, step, format!("{pool}: {runbook} has ended incomplete: {message}"), Vec::new());
            }
            What::Other => {}
        }
    }
    let long_enough = |since: i64| now_ms.saturating_sub(since) >= WAIT_TOLD_AFTER_MS;
    if let Some(at) = wait.filter(|(_, since)| long_enough(*since)) {
        let says = format!("{pool}: {runbook} WAITS at step {}: {reason}", step.unwrap_or("its beginning"));
        let details = vec![
            format!("standfast runbook show {id}    what has been done, and what it waits for"),
            format!("standfast runbook abort {id}   undo it, while that can be done"),
        ];
        add(at, Event::Waits, step, says, details);
    }
    if let Some((at, message)) = stands_still.filter(|((_, since), _)| long_enough(*since)) {
        let says = format!("{pool}: {runbook} stands still: {message}");
        add(at, Event::Waits, step, says, vec![format!("standfast runbook resume {id}   carry out the rest")]);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: What<'_> = What::Begun { runbook: "failover", by: "ines", only_step: None, found: &[] };

    /// Events a second apart, looked at `later` milliseconds after the last: what is told.
    fn check(whats: &[What<'_>], later: i64, expect: &[(&str, &str)]) {
        let moments: Vec<Moment<'_>> = whats
            .iter()
            .zip(1..)
            .map(|(what, number)| Moment { number, at_ms: i64::try_from(number).unwrap() * 1_000, what: what.clone() })
            .collect();
        let now = moments.last().map_or(0, |m| m.at_ms) + later;
        let told: Vec<(String, String)> =
            notices("pool", "run-1", &moments, now).into_iter().map(|n| (n.id, n.says)).collect();
        let told: Vec<(&str, &str)> = told.iter().map(|(id, says)| (id.as_str(), says.as_str())).collect();
        assert_eq!(told.len(), expect.len(), "{whats:?}: {told:?}");
        for ((id, says), (wanted, part)) in told.iter().zip(expect) {
            assert!(id == wanted && says.contains(part), "{id}: {says}: expected {wanted}: {part}");
        }
    }

    fn over(complete: bool, undone: bool) -> What<'static> {
        What::Finished { complete, undone, message: "so it is" }
    }

    const STARTED: (&str, &str) = ("run-1/1-started", "failover was begun by ines");

    #[test]
    fn begin_and_end_are_told_at_once() {
        check(&[BEGUN], 0, &[STARTED]);
        check(&[BEGUN, over(true, false)], 0, &[STARTED, ("run-1/2-finished", "is complete: so it is")]);
        check(&[BEGUN, over(false, false)], 0, &[STARTED, ("run-1/2-failed", "has ended incomplete: so it is")]);
        let undone = [BEGUN, What::AbortBegun { by: "marek" }, over(false, true)];
        let expect = [STARTED, ("run-1/2-started", "to be undone, by marek"), ("run-1/3-aborted", "was undone")];
        check(&undone, 0, &expect);
    }

    #[test]
    fn a_wait_is_told_once_it_has_lasted_and_only_while_it_lasts() {
        let waiting = |reason| What::Waiting { step: "fence", reason };
        let waits = [BEGUN, What::StepBegun("fence"), waiting("one"), waiting("two")];
        check(&waits, 3_999, &[STARTED]);
        check(&waits, 4_000, &[STARTED, ("run-1/3-waits", "WAITS at step fence: two")]);
        let again = [&waits[..], &[What::Other, What::StepBegun("fence"), waiting("one")]].concat();
        check(&again, 1_000, &[STARTED, ("run-1/3-waits", "WAITS at step fence: one")]);
        let over = [&waits[..], &[What::StepDone("fence"), What::StepBegun("copy")]].concat();
        check(&over, 60_000, &[STARTED]);
        let next = [&over[..], &[What::Waiting { step: "copy", reason: "three" }]].concat();
        check(&next, 5_000, &[STARTED, ("run-1/7-waits", "at step copy: three")]);
    }

    #[test]
    fn a_run_that_stands_still_after_its_step_waits_for_a_person() {
        let begun = What::Begun { runbook: "failover", by: "ines", only_step: Some("fence"), found: &[] };
        let by_hand = [begun, What::StepBegun("fence"), What::StepDone("fence"), over(false, false)];
        let started = ("run-1/1-started", "step fence alone");
        check(&by_hand, 4_999, &[started]);
        check(&by_hand, 5_000, &[started, ("run-1/4-waits", "stands still: so it is")]);
        let next =
            [&by_hand[..], &[What::Begun { runbook: "failover", by: "ines", only_step: None, found: &[] }]].concat();
        check(&next, 5_000, &[started]);
    }
}
