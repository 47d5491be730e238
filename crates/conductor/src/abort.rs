//! Undoing a run: whether it may be undone, and the event after which nothing of it is ordered any more.

use crate::Conductor;
use crate::carry_out;
use crate::journal::{Journal, ordered};
use crate::plan::{Situation, planned};
use cluster::abort::{Abort, abort_of, past_return};
use cluster::runbook::{Facts, Runbook, Unmet, named};
use std::sync::Arc;
use wire::run::{AbortAnswer, AbortRun, RunEvent, RunEventKind};

/// Undo a run, unless something speaks against it.
pub fn abort(
    conductor: &Arc<Conductor>,
    journal: &Arc<Journal>,
    wanted: AbortRun,
    now: &Situation,
) -> Result<AbortAnswer, String> {
    let Some((name, _, facts, _)) = journal.begun() else { return Err("the journal has no beginning".into()) };
    let Some(runbook) = named(&name) else { return Err(format!("this program does not know the runbook '{name}'")) };
    let refused = |unmet: Unmet| Ok(AbortAnswer::Refused { unmet: vec![unmet] });
    let Some(abort) = abort_of(runbook) else { return refused(cannot_be_undone(runbook)) };
    if journal.is_aborted() {
        if journal.over().is_some() {
            return refused(unmet("it was undone already", "standfast runbook show says how it went"));
        }
        return Ok(undoing(journal, abort, &facts, now));
    }
    if let Some(past) = past_return(runbook, |id| journal.has_ordered(id)) {
        return refused(past);
    }
    let holds = now.record.run.as_ref().is_some_and(|run| run.id == journal.id);
    if !holds || ended(runbook, &journal.events()) {
        return refused(unmet(
            &format!("the run {} does not hold the pool: there is nothing to undo", journal.id),
            "standfast runbook list shows what is under way; what a run that is over has done is changed by another run",
        ));
    }
    let against = (abort.preflight)(&now.view(&facts));
    if !against.is_empty() {
        return Ok(AbortAnswer::Refused { unmet: against });
    }
    let answer = undoing(journal, abort, &facts, now);
    if wanted.what_if {
        return Ok(answer);
    }
    let mut stood_still = false;
    let still = |events: &[RunEvent]| {
        stood_still = journal.over().is_some();
        let past = past_return(runbook, |id| ordered(events, id)).is_some() || ended(runbook, events);
        if past { Err("it has gone on meanwhile".to_owned()) } else { Ok(()) }
    };
    let begun = RunEventKind::AbortBegun { started_by: wanted.started_by, why: None };
    if let Err(message) = journal.add_if(still, begun) {
        return match past_return(runbook, |id| journal.has_ordered(id)) {
            Some(past) => refused(past),
            None => Err(message),
        };
    }
    if stood_still {
        tokio::spawn(carry_out::carry_out(conductor.clone(), journal.clone()));
    }
    Ok(answer)
}

fn undoing(journal: &Journal, abort: &Abort, facts: &Facts, now: &Situation) -> AbortAnswer {
    let view = now.view(facts);
    let steps = abort.steps_after(|id| journal.has_ordered(id));
    AbortAnswer::Undoing { steps: steps.map(|step| planned(step, &view, None)).collect() }
}

/// Whether every step is done: the run is over but for saying so.
fn ended(runbook: &Runbook, events: &[RunEvent]) -> bool {
    let done = |id: &str| events.iter().any(|e| matches!(&e.what, RunEventKind::StepDone { step, .. } if step == id));
    runbook.steps.iter().all(|step| done(step.id))
}

fn cannot_be_undone(runbook: &Runbook) -> Unmet {
    let hint = match runbook.name {
        "remove-mirror" => "let it end, then bring the mirror back: standfast mirror install",
        "remove-backup-mirror" => "let it end, then bring it back: standfast mirror install --backup",
        "initialise" => "there was no pool before it; let it end: standfast runbook resume",
        _ => "let it end: standfast runbook resume; then do the opposite",
    };
    unmet(&format!("{} has no undo", runbook.name), hint)
}

fn unmet(why: &str, hint: &str) -> Unmet {
    Unmet { why: why.into(), hint: hint.into(), can_be_forced: false }
}
