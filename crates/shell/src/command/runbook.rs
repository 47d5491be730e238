//! `runbook`: what runs there were and are, and the steps of each runbook.

use super::run::{At, refused, start, who};
use super::step::runbook;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::report::{self, ReportFile};
use crate::{output, watch, words};
use cluster::name::HostName;
use cluster::runbook::{Runbook, Undo, named};
use std::path::{Path, PathBuf};
use wire::run::{AbortAnswer, AbortRun, PlannedStep, RunSummary, StartRun};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// List all runs, newest first
    List,
    /// Show a run: who, from where to where, each step with its time and what showed that it was done
    Show {
        /// The run's id; the latest when left out
        id: Option<String>,
        /// Show every event of the journal as it was written
        #[arg(long)]
        journal: bool,
        /// Write the run's report: a page (.html) or data (.json)
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// List the steps of a runbook
    Steps {
        /// failover, failback, initialise, install-mirror, remove-mirror, enable-log-shipping …
        runbook: String,
    },
    /// Watch a run that is under way
    Watch {
        /// The run's id; the latest when left out
        id: Option<String>,
    },
    /// Undo a run that has not come to its point of no return, and let the pool be as it was
    Abort {
        /// The run's id; the one under way when left out
        id: Option<String>,
        /// Go on without being asked
        #[arg(long, short)]
        yes: bool,
        /// Show what would undo it, and do nothing
        #[arg(long)]
        what_if: bool,
        /// Write a report when it is undone: a page (.html) or data (.json)
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// Take up a run that stands still, as one does after its steps by hand, and watch it to its end
    Resume {
        /// The run's id; the latest when left out
        id: Option<String>,
    },
}

/// Run the command.
///
/// # Errors
/// When it fails, or there is no such run.
pub async fn run(context: &Context, args: Args) -> Outcome {
    match args.what {
        What::Steps { runbook: name } => steps(runbook(&name)?, context.json),
        What::List => list(context).await,
        What::Show { id, journal, report } => show(context, id, journal, report.as_deref()).await,
        What::Abort { id, yes, what_if, report } => abort(context, id, yes, what_if, report.as_deref()).await,
        What::Watch { id } => {
            let agents = Agents::new(&context.folder()?)?;
            let (host, run) = find(&agents, id).await?;
            watch::to_the_end(&agents, &host, &run.id, context.json).await
        }
        What::Resume { id } => resume(context, id).await,
    }
}

/// Go on with a run; one that is over is not begun anew.
async fn resume(context: &Context, id: Option<String>) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let (host, run) = find(&agents, id).await?;
    let holds = agents.record().await?.run.is_some_and(|holder| holder.id == run.id);
    if !holds && run.complete.is_some() {
        return Err(Failure::Refused(format!(
            "the run {} is over and cannot be taken up; to begin another one: standfast {}",
            run.id,
            typed(&run.runbook)
        )));
    }
    if run.complete.is_none() {
        return watch::until_undone(&agents, &host, &run.id, context.json).await;
    }
    let wanted = StartRun {
        runbook: run.runbook,
        what_if: false,
        force: false,
        only_step: None,
        new_principal: None,
        limits: None,
        started_by: who(),
    };
    start(&agents, &At { host, under_way: true }, wanted, true, context.json).await
}

/// The command that begins a runbook.
fn typed(runbook: &str) -> String {
    match runbook {
        "install-mirror" => "mirror install".into(),
        "planned-failover" => "failover --planned".into(),
        "switch-mirror" => "database failover --new-principal mirror|primary".into(),
        "force-mirror" => "database failover --new-principal mirror|primary --force".into(),
        "remove-mirror" => "mirror remove".into(),
        "enable-log-shipping" => "log-shipping enable".into(),
        "enable-log-shipping-initialised" => "log-shipping enable --already-initialised".into(),
        "disable-log-shipping" => "log-shipping disable".into(),
        "initialise" => "pool initialise".into(),
        other => other.into(),
    }
}

async fn list(context: &Context) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let runs = agents.runs().await;
    for host in &runs.silent {
        output::say(&format!("{host} does not answer; runs that it carried are not in this list"));
    }
    if context.json {
        return output::json(&runs.all.iter().map(|(_, run)| run).collect::<Vec<_>>());
    }
    let holder = agents.glance().await.and_then(|record| record.run).map(|run| run.id);
    let mut rows = vec![["RUN", "BY", "AT", "TOOK", "HOW IT STANDS"].map(str::to_owned).to_vec()];
    for (host, run) in runs.all {
        let stands = stands(&run, &host, holder.as_deref() == Some(run.id.as_str()));
        rows.push(vec![run.id, run.started_by, run.started_at, words::seconds(run.elapsed_ms), stands]);
    }
    output::table(&rows)
}

/// How a run stands, and what can be done about it. `holds`: the pool's record names it.
fn stands(run: &RunSummary, host: &HostName, holds: bool) -> String {
    let step = run.step.as_deref().unwrap_or("its beginning");
    match (run.complete, run.aborted) {
        (Some(true), _) => "complete".to_owned(),
        (Some(false), true) => "undone".to_owned(),
        (Some(false), false) if holds => format!("stands still after {step}; standfast runbook resume, or abort"),
        (Some(false), false) => format!("ended incomplete at {step}"),
        (None, aborted) => {
            let doing = if aborted { "being undone" } else { "under way" };
            let waits = run.waits_for.as_ref().map_or(String::new(), |reason| format!("; waits: {reason}"));
            format!("{doing} at {host}: {step}{waits}")
        }
    }
}

async fn find(agents: &Agents, id: Option<String>) -> Result<(HostName, RunSummary), Failure> {
    let runs = agents.runs().await;
    let found = match &id {
        Some(id) => runs.all.into_iter().find(|(_, run)| run.id == *id),
        None => runs.all.into_iter().next(),
    };
    let hint = if runs.silent.is_empty() {
        "standfast runbook list shows those that there are".to_owned()
    } else {
        let silent = runs.silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!("{silent} does not answer and may know it: start its agent")
    };
    found.ok_or_else(|| match id {
        Some(id) => Failure::Failed(format!("no authority that answers knows of a run {id}; {hint}")),
        None => Failure::Failed(format!("no authority that answers knows of any run; {hint}")),
    })
}

async fn show(context: &Context, id: Option<String>, journal: bool, report: Option<&Path>) -> Outcome {
    let file = report.map(ReportFile::new).transpose()?;
    let agents = Agents::new(&context.folder()?)?;
    let (host, run) = find(&agents, id).await?;
    let id = &run.id;
    if let Some(file) = file {
        return file.write(&agents, &host, id).await;
    }
    let progress = agents.progress(&host, id, 0, 0).await;
    let progress = progress.map_err(|t| t.failure(&format!("read the journal of {id}"), &host))?;
    if context.json {
        return output::json(&progress);
    }
    let runbook = named(&progress.runbook);
    if journal {
        output::line(&format!("{id}, at {host}"))?;
        return progress.events.iter().try_for_each(|event| output::line(&words::event(event, runbook)));
    }
    let told = report::whole(&agents.topology.pool, &progress);
    let told = told.ok_or_else(|| Failure::Failed(format!("the journal of {id} has no beginning")))?;
    let holds = agents.glance().await.and_then(|record| record.run).is_some_and(|holder| holder.id == *id);
    words::report(&told).iter().try_for_each(|line| output::line(line))?;
    output::line(&format!("now:      {}", stands(&run, &host, holds)))?;
    output::line(&format!("journal:  runs/{id}.jsonl at {host}; standfast runbook show {id} --journal"))
}

/// Undo a run, and watch that to its end.
async fn abort(context: &Context, id: Option<String>, yes: bool, what_if: bool, report: Option<&Path>) -> Outcome {
    let file = report.map(ReportFile::new).transpose()?;
    let agents = Agents::new(&context.folder()?)?;
    let id = match id {
        Some(id) => Some(id),
        None => agents.record().await?.run.map(|run| run.id),
    };
    let nothing = || Failure::Refused("nothing is under way: there is nothing to undo".into());
    let (host, run) = find(&agents, Some(id.ok_or_else(nothing)?)).await?;
    let mut wanted = AbortRun { what_if: true, started_by: who() };
    if what_if || !yes {
        let steps = undoing(agents.abort(&host, &run.id, &wanted).await?)?;
        if context.json && what_if {
            return output::json(&steps);
        }
        output::line(&format!("{} by {}, begun {}, would be undone:", run.runbook, run.started_by, run.started_at))?;
        words::undoing(&steps).iter().try_for_each(|line| output::line(line))?;
        if what_if {
            return output::line("Nothing was done.");
        }
        if !output::confirm("Undo it?") {
            return Err(Failure::Refused("nothing was done".into()));
        }
    }
    wanted.what_if = false;
    undoing(agents.abort(&host, &run.id, &wanted).await?)?;
    let outcome = watch::until_undone(&agents, &host, &run.id, context.json).await;
    ReportFile::after(file.as_ref(), &agents, &host, &run.id, outcome).await
}

fn undoing(answer: AbortAnswer) -> Result<Vec<PlannedStep>, Failure> {
    match answer {
        AbortAnswer::Undoing { steps } => Ok(steps),
        AbortAnswer::Refused { unmet } => Err(refused(&unmet)),
    }
}

fn steps(runbook: &Runbook, json: bool) -> Outcome {
    if json {
        let steps =
            runbook.steps.iter().map(|s| serde_json::json!({"id": s.id, "reference": s.reference, "says": s.says}));
        return output::json(&steps.collect::<Vec<_>>());
    }
    output::line(runbook.says)?;
    let mut rows = vec![["STEP", "REFERENCE", "WHAT IS DONE"].map(str::to_owned).to_vec()];
    for step in runbook.steps {
        let forward = if step.undo == Undo::PointOfNoReturn { " (forward only)" } else { "" };
        let reference = if step.reference.is_empty() { "–" } else { step.reference };
        rows.push(vec![step.id.to_owned(), reference.to_owned(), format!("{}{forward}", step.says)]);
    }
    output::table(&rows)
}
