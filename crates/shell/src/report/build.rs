//! From a journal to a report. A pure function: the same journal, the same report.

use crate::words;
use cluster::abort::abort_of;
use cluster::record::PoolRecord;
use cluster::runbook::{Deed, Step, Undo, named};
use wire::run::{CLAIM, RunEvent, RunEventKind, RunProgress};
use wire::run_report::{GivenOrder, Note, ReportedStep, RunReport, Standing, Wait};

/// The report of a run from its whole progress; `None` when its journal has no beginning.
pub fn whole(pool: &str, progress: &RunProgress) -> Option<RunReport> {
    let report = build(pool, &progress.id, &progress.events)?;
    Some(RunReport { notifications: progress.notifications.clone(), ..report })
}

/// The report of a run from its whole journal; `None` when the journal has no beginning.
pub fn build(pool: &str, run: &str, events: &[RunEvent]) -> Option<RunReport> {
    let (runbook, facts, found, began_at) = events.iter().find_map(|e| match &e.what {
        RunEventKind::Begun { runbook, facts, found, .. } => Some((runbook, facts, found, &e.at)),
        _ => None,
    })?;
    let known = named(runbook);
    let mut report = RunReport {
        pool: pool.to_owned(),
        run: run.to_owned(),
        runbook: runbook.clone(),
        says: known.map(|r| r.says.to_owned()).unwrap_or_default(),
        started_by: Vec::new(),
        began_at: began_at.clone(),
        ended_at: None,
        took_ms: events.last().map_or(0, |e| e.elapsed_ms),
        from_site: facts.from_site.clone(),
        to_site: facts.to_site.clone(),
        forced: facts.force,
        standing: Standing::UnderWay,
        outcome: String::new(),
        found: found.clone(),
        exposure: facts.exposure.clone(),
        steps: known.map(|r| r.steps.iter().map(|s| step(s, false)).collect()).unwrap_or_default(),
        notes: Vec::new(),
        notifications: Vec::new(),
        before: facts.before.clone(),
        after: facts.before.clone(),
    };
    let undoing = known.and_then(abort_of);
    let mut began_ms = std::collections::BTreeMap::new();
    for event in events {
        take(&mut report, event, &mut began_ms, |id| undoing.and_then(|abort| abort.step(id)));
    }
    for (number, step) in (1..).zip(&mut report.steps) {
        step.number = number;
    }
    Some(report)
}

/// Take an event into account. `undoes` finds a step that undoes the run.
fn take(
    report: &mut RunReport,
    event: &RunEvent,
    began_ms: &mut std::collections::BTreeMap<String, u64>,
    undoes: impl Fn(&str) -> Option<&'static Step>,
) {
    let at = || event.at.clone();
    let mut note = |says: String| report.notes.push(Note { at: event.at.clone(), says });
    match &event.what {
        RunEventKind::Begun { started_by, only_step, .. } => {
            if let Some(step) = only_step {
                note(format!("step {step} by itself, by {started_by}"));
            } else if event.number > 1 {
                note(format!("taken up to its end by {started_by}"));
            }
            by(report, started_by);
            under_way(report);
        }
        RunEventKind::Resumed => {
            note("its process was started again; it went on from the journal".into());
            under_way(report);
        }
        RunEventKind::AbortBegun { started_by, why } => {
            let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            note(format!("to be undone, by {started_by}{why}"));
            by(report, started_by);
            under_way(report);
            report.standing = Standing::Aborting;
        }
        RunEventKind::StepBegun { step: id } => {
            began_ms.entry(id.clone()).or_insert(event.elapsed_ms);
            of(report, id, &undoes).began_at.get_or_insert_with(at);
        }
        RunEventKind::Ordered { step: id, deeds, .. } if id == CLAIM => {
            for deed in deeds {
                let order = given(deed, &mut report.after, &event.at);
                report.notes.push(Note { at: at(), says: format!("to claim the pool: {}", order.says) });
            }
        }
        RunEventKind::Ordered { step: id, deeds, .. } => {
            let orders = deeds.iter().map(|deed| given(deed, &mut report.after, &event.at)).collect::<Vec<_>>();
            of(report, id, &undoes).orders.extend(orders);
        }
        RunEventKind::Waiting { step: id, reason, needs_person } => {
            let wait = Wait { at: at(), reason: reason.clone(), needs_person: *needs_person };
            of(report, id, &undoes).waits.push(wait);
        }
        RunEventKind::StepDone { step: id, evidence } => {
            let since = began_ms.get(id).copied().unwrap_or(event.elapsed_ms);
            let step = of(report, id, &undoes);
            step.done_at = Some(at());
            step.took_ms = Some(event.elapsed_ms.saturating_sub(since));
            step.evidence = Some(evidence.clone());
        }
        RunEventKind::Finished { complete, undone, message, record } => {
            report.ended_at = Some(at());
            report.outcome.clone_from(message);
            report.standing = match (complete, undone) {
                (true, _) => Standing::Complete,
                (false, true) => Standing::Aborted,
                (false, false) => Standing::Stopped,
            };
            if let Some(record) = record {
                report.after = (**record).clone();
            }
        }
    }
}

fn by(report: &mut RunReport, who: &str) {
    if report.started_by.last().map(String::as_str) != Some(who) {
        report.started_by.push(who.to_owned());
    }
}

/// It goes on: what it said when it stood still is not its end.
fn under_way(report: &mut RunReport) {
    report.ended_at = None;
    report.outcome = String::new();
    if report.standing != Standing::Aborting {
        report.standing = Standing::UnderWay;
    }
}

/// The step of that id; one that this program does not know is added, so that nothing in a journal is left out.
fn of<'r>(
    report: &'r mut RunReport,
    id: &str,
    undoes: &impl Fn(&str) -> Option<&'static Step>,
) -> &'r mut ReportedStep {
    let at = report.steps.iter().position(|s| s.id == id).unwrap_or_else(|| {
        report.steps.push(match undoes(id) {
            Some(known) => step(known, true),
            None => ReportedStep { id: id.to_owned(), ..step(&UNKNOWN, false) },
        });
        report.steps.len() - 1
    });
    &mut report.steps[at]
}

const UNKNOWN: Step = Step {
    id: "",
    reference: "",
    says: "This program does not know the step: the run was carried out by another version.",
    needs: cluster::runbook::nothing,
    does: |_| Vec::new(),
    done: |_| cluster::runbook::Done::Yes(String::new()),
    looks_at: cluster::runbook::Whom::Everybody,
    undo: Undo::Nothing,
    patience_ms: 0,
};

fn step(step: &Step, undoes: bool) -> ReportedStep {
    ReportedStep {
        number: 0,
        id: step.id.to_owned(),
        reference: step.reference.to_owned(),
        says: step.says.to_owned(),
        point_of_no_return: step.undo == Undo::PointOfNoReturn,
        undoes,
        began_at: None,
        done_at: None,
        took_ms: None,
        orders: Vec::new(),
        waits: Vec::new(),
        evidence: None,
    }
}

/// A deed in words, against the record as it is before it; the record is then as the deed says.
fn given(deed: &Deed, record: &mut PoolRecord, at: &str) -> GivenOrder {
    let says = words::deed(deed, record);
    if let Deed::SetRecord { record: new, .. } = deed {
        record.clone_from(new);
    }
    GivenOrder { at: at.to_owned(), says, deed: deed.clone() }
}
