//! `step`: one step of a runbook by itself, for those who go by hand as the reference does. Exactly the one that was
//! named is carried out: it has to be the next one, and one that is done is not done again.

use super::run::{At, authority_for, refused, start_reported, who};
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::report::ReportFile;
use crate::{output, words};
use cluster::record::PoolRecord;
use cluster::runbook::{ALL, Runbook, named};
use rules::nearest::nearest;
use std::path::PathBuf;
use wire::run::{RunAnswer, RunEventKind, RunProgress, StartRun};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = all_steps())]
pub struct Args {
    /// The runbook
    pub runbook: String,
    /// The step, by its id
    pub step: String,
    /// Go on although something speaks against it that can be overridden
    #[arg(long)]
    pub force: bool,
    /// Show what speaks against the step, the orders that it would give and to whom, and how it is judged; do nothing
    #[arg(long)]
    pub what_if: bool,
    /// Write a report of the run so far: a page (.html) or data (.json)
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// The runbooks with their steps, for the help.
fn all_steps() -> String {
    let runbooks = ALL.iter().map(|r| format!("  {}: {}", r.name, ids(r).join(", ")));
    let runbooks = runbooks.collect::<Vec<_>>().join("\n");
    format!("Runbooks and their steps, in order:\n{runbooks}\n\nExample: standfast step failover fence-old-primary")
}

fn ids(runbook: &Runbook) -> Vec<&'static str> {
    runbook.steps.iter().map(|s| s.id).collect()
}

/// The runbook of that name.
///
/// # Errors
/// When there is none, with the nearest name.
pub fn runbook(name: &str) -> Result<&'static Runbook, Failure> {
    let names: Vec<&str> = ALL.iter().map(|r| r.name).collect();
    named(name).ok_or_else(|| unknown("runbook", name, &names))
}

/// The failure of a name that is not known.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    let near = nearest(name, known).map_or(String::new(), |near| format!("; did you mean '{near}'?"));
    Failure::Usage(format!("there is no {what} '{name}'{near} (there are: {})", known.join(", ")))
}

/// Run the command.
///
/// # Errors
/// When it is refused, fails, or waits for a person.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let runbook = runbook(&args.runbook)?;
    let Some((index, _)) = runbook.step(&args.step) else {
        return Err(unknown("step", &args.step, &ids(runbook)));
    };
    let report = args.report.as_deref().map(ReportFile::new).transpose()?;
    let agents = Agents::new(&context.folder()?)?;
    let record = agents.record().await?;
    let at = authority_for(&agents, &record, runbook.name).await?;
    let journal = journal(&agents, &record, &at).await?;
    if !is_next(runbook, &args.step, journal.as_ref())? {
        output::say(&format!("step {} is done already; nothing was done", args.step));
        return Ok(());
    }
    let wanted = StartRun {
        runbook: runbook.name.to_owned(),
        what_if: args.what_if,
        force: args.force,
        only_step: Some(args.step),
        new_principal: None,
        limits: None,
        started_by: who(),
    };
    if args.what_if {
        return what_if(&agents, &at, &wanted, context.json).await;
    }
    // With the last step the run is over; before that it stays open for the next one.
    start_reported(&agents, &at, wanted, true, context.json, report.as_ref()).await?;
    if let Some(next) = runbook.steps.get(index + 1) {
        output::say(&format!("next: standfast step {} {}", runbook.name, next.id));
    }
    Ok(())
}

/// What the step would do; nothing is done.
async fn what_if(agents: &Agents, at: &At, wanted: &StartRun, json: bool) -> Outcome {
    match agents.start_run(&at.host, wanted, at.under_way).await? {
        RunAnswer::Plan(plan) if json => output::json(&plan),
        RunAnswer::Plan(plan) => words::step_plan(&plan).iter().try_for_each(|line| output::line(line)),
        RunAnswer::AlreadyThere { message } => output::line(&message),
        RunAnswer::Refused { unmet, .. } => Err(refused(&unmet)),
        RunAnswer::Started { id, .. } => Err(Failure::Failed(format!("the run {id} was started, which was not asked"))),
    }
}

/// The ids of the steps that a journal says are done.
pub fn steps_done(journal: Option<&RunProgress>) -> Vec<String> {
    let events = journal.map_or(&[][..], |j| &j.events);
    let done = events.iter().filter_map(|e| match &e.what {
        RunEventKind::StepDone { step, .. } => Some(step.clone()),
        _ => None,
    });
    done.collect()
}

/// The journal of the run under way, if it is one of the runbook that was asked for.
///
/// # Errors
/// When its authority does not tell it.
pub async fn journal(agents: &Agents, record: &PoolRecord, at: &At) -> Result<Option<RunProgress>, Failure> {
    let Some(run) = record.run.as_ref().filter(|_| at.under_way) else { return Ok(None) };
    let progress = agents.progress(&at.host, &run.id, 0, 0).await;
    progress.map(Some).map_err(|t| t.failure(&format!("read the journal of {}", run.id), &at.host))
}

/// Whether the step is the next one; `false` when it is done.
fn is_next(runbook: &Runbook, step: &str, journal: Option<&RunProgress>) -> Result<bool, Failure> {
    let events = journal.map_or(&[][..], |j| &j.events);
    let is_done =
        |id: &str| events.iter().any(|e| matches!(&e.what, RunEventKind::StepDone { step, .. } if step == id));
    if is_done(step) {
        return Ok(false);
    }
    let whole = events.iter().rev().find_map(|e| match &e.what {
        RunEventKind::Begun { only_step, .. } => Some(only_step.is_none()),
        _ => None,
    });
    if journal.is_some_and(|j| !j.over) && whole == Some(true) {
        let name = runbook.name;
        return Err(Failure::Refused(format!(
            "{name} is under way as a whole and carries out every step itself; watch it with standfast runbook watch"
        )));
    }
    match runbook.steps.iter().map(|s| s.id).find(|id| !is_done(id)) {
        Some(next) if next != step => Err(Failure::Refused(format!(
            "{next} comes before {step} and is not done; the next one is: standfast step {} {next}",
            runbook.name
        ))),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::run::RunEvent;

    fn check(done: &[&str], over: bool, step: &str, expect: Result<bool, u8>) {
        let events = done.iter().zip(1..).map(|(step, number)| RunEvent {
            number,
            at: String::new(),
            elapsed_ms: 0,
            what: RunEventKind::StepDone { step: (*step).to_owned(), evidence: String::new() },
        });
        let journal = RunProgress {
            id: "r".into(),
            runbook: "failover".into(),
            events: events.collect(),
            over,
            notifications: Vec::new(),
        };
        let journal = (!done.is_empty()).then_some(&journal);
        let got = is_next(cluster::failover::FAILOVER, step, journal).map_err(|f| f.code());
        assert_eq!(got, expect, "{done:?} {step}");
    }

    #[test]
    fn a_step_by_itself_is_the_next_one_or_none() {
        check(&[], true, "fence-old-primary", Ok(true));
        check(&[], true, "bring-backup-online", Err(3));
        check(&["fence-old-primary"], true, "fence-old-primary", Ok(false));
        check(&["fence-old-primary"], true, "stop-log-shipping", Ok(true));
        check(&["fence-old-primary"], true, "apply-remaining-log", Err(3));
    }

    #[test]
    fn a_name_that_is_not_known_brings_the_nearest() {
        assert!(unknown("step", "bring-backup-onlin", &["bring-backup-online"]).to_string().contains("did you mean"));
    }
}
