//! How long a run will take, from how long the last ones took. A pure function over journals.

use cluster::limits::{GAP_BEGINS, GAP_ENDS};
use std::collections::BTreeMap;
use wire::run::{Estimate, RunEvent, RunEventKind};

/// So many of the latest complete runs count.
pub const RUNS_MAX: usize = 5;

/// Estimates for a runbook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Estimates {
    /// The whole run; of runs that were carried out in one go.
    pub total: Option<Estimate>,
    /// Each step, by its id.
    pub steps: BTreeMap<String, Estimate>,
    /// How long users could not post, in milliseconds; where the runbook has not been carried out, in the other direction.
    pub gap_ms: Option<u64>,
}

/// Estimate from journals, newest first; those of other runbooks, and those that did not end complete, do not count.
pub fn estimate<'a>(runbook: &str, journals: impl IntoIterator<Item = &'a [RunEvent]>) -> Estimates {
    let journals: Vec<&[RunEvent]> = journals.into_iter().collect();
    let complete = journals.iter().copied().filter(|events| is_complete(events, runbook)).take(RUNS_MAX);
    let mut totals = Vec::new();
    let mut steps: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for events in complete {
        if !by_hand(events) {
            totals.extend(events.last().map(|e| e.elapsed_ms));
        }
        for (step, took) in took(events) {
            steps.entry(step).or_default().push(took);
        }
    }
    let steps = steps.into_iter().filter_map(|(step, all)| Some((step, median(all)?))).collect();
    let gaps = |of: &dyn Fn(&str) -> bool| median(journals.iter().filter_map(|events| gap(events, of)).take(RUNS_MAX));
    let gap = gaps(&|name| name == runbook).or_else(|| gaps(&|_| true));
    Estimates { total: median(totals), steps, gap_ms: gap.map(|e| e.median_ms) }
}

/// How long users could not post in a complete run, in milliseconds. Of one that a person typed, or that was taken up again after
/// its process had ended, that says nothing.
fn gap(events: &[RunEvent], of: &dyn Fn(&str) -> bool) -> Option<u64> {
    let Some(RunEventKind::Begun { runbook, .. }) = events.first().map(|e| &e.what) else { return None };
    let resumed = events.iter().any(|e| matches!(e.what, RunEventKind::Resumed));
    if !of(runbook) || !is_complete(events, runbook) || by_hand(events) || resumed {
        return None;
    }
    let began = events.iter().find(|e| matches!(&e.what, RunEventKind::StepBegun { step } if step == GAP_BEGINS))?;
    let ended = events.iter().find(|e| matches!(&e.what, RunEventKind::StepDone { step, .. } if step == GAP_ENDS))?;
    Some(ended.elapsed_ms.saturating_sub(began.elapsed_ms))
}

fn is_complete(events: &[RunEvent], runbook: &str) -> bool {
    let of = events.iter().any(|e| matches!(&e.what, RunEventKind::Begun { runbook: name, .. } if name == runbook));
    of && events.iter().any(|e| matches!(e.what, RunEventKind::Finished { complete: true, .. }))
}

/// Whether a person typed its steps: the time between them says nothing.
fn by_hand(events: &[RunEvent]) -> bool {
    events.iter().any(|e| matches!(e.what, RunEventKind::Begun { only_step: Some(_), .. }))
}

/// Milliseconds from when each step was first taken up until it was seen done.
fn took(events: &[RunEvent]) -> Vec<(String, u64)> {
    let mut began: BTreeMap<&str, u64> = BTreeMap::new();
    let mut all = Vec::new();
    for event in events {
        match &event.what {
            RunEventKind::StepBegun { step } => {
                began.entry(step).or_insert(event.elapsed_ms);
            }
            RunEventKind::StepDone { step, .. } => {
                let since = began.get(step.as_str()).copied().unwrap_or(event.elapsed_ms);
                all.push((step.clone(), event.elapsed_ms.saturating_sub(since)));
            }
            _ => {}
        }
    }
    all
}

/// The middle one; of two in the middle, the longer.
fn median(all: impl IntoIterator<Item = u64>) -> Option<Estimate> {
    let mut all: Vec<u64> = all.into_iter().collect();
    all.sort_unstable();
    let median_ms = *all.get(all.len() / 2)?;
    Some(Estimate { median_ms, runs: all.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::record;
    use cluster::Epoch;
    use cluster::runbook::Facts;

    fn begun(runbook: &str, only_step: Option<&str>) -> RunEventKind {
        let before = record(1, Epoch(1));
        let (to_site, from_site) = ("site-2".into(), "site-1".into());
        RunEventKind::Begun {
            runbook: runbook.into(),
            started_by: "ines".into(),
            facts: Box::new(Facts {
                before,
                to_site,
                from_site,
                force: false,
                exposure: BTreeMap::new(),
                new_principal: None,
                automatic: None,
                limits: None,
            }),
            only_step: only_step.map(str::to_owned),
            found: vec![],
        }
    }

    /// A run of one step that took so long, and a little more in all.
    fn run(first: RunEventKind, took: u64, complete: bool) -> Vec<RunEvent> {
        let step = || "fence-old-primary".to_owned();
        let done = RunEventKind::StepDone { step: step(), evidence: String::new() };
        let end = RunEventKind::Finished { complete, undone: false, message: String::new(), record: None };
        let all = [(0, first), (10, RunEventKind::StepBegun { step: step() }), (10 + took, done), (20 + took, end)];
        let events = all.into_iter().zip(1..);
        events.map(|((elapsed_ms, what), number)| RunEvent { number, at: String::new(), elapsed_ms, what }).collect()
    }

    fn check(journals: &[Vec<RunEvent>], total: Option<(u64, usize)>, step: Option<(u64, usize)>) {
        let estimates = estimate("failover", journals.iter().map(Vec::as_slice));
        let of = |e: Option<&Estimate>| e.map(|e| (e.median_ms, e.runs));
        assert_eq!(of(estimates.total.as_ref()), total);
        assert_eq!(of(estimates.steps.get("fence-old-primary")), step);
    }

    #[test]
    fn the_last_five_complete_runs_count() {
        let whole = |took| run(begun("failover", None), took, true);
        check(&[], None, None);
        check(&[whole(100)], Some((120, 1)), Some((100, 1)));
        check(&[whole(100), whole(300), whole(200)], Some((220, 3)), Some((200, 3)));
        let six = [whole(1), whole(2), whole(3), whole(4), whole(5), whole(9_000)];
        check(&six, Some((23, 5)), Some((3, 5)));
    }

    #[test]
    fn other_runbooks_and_runs_that_did_not_end_well_do_not_count() {
        let others = [run(begun("failback", None), 5, true), run(begun("failover", None), 5, false)];
        check(&others, None, None);
    }

    #[test]
    fn steps_that_a_person_typed_count_and_the_time_between_them_does_not() {
        check(&[run(begun("failover", Some("fence-old-primary")), 7, true)], None, Some((7, 1)));
    }
}
