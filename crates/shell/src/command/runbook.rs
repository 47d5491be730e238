//! `runbook`: what runs there were and are, and the steps of each runbook.

use super::run::{At, start, who};
use super::step::runbook;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::{output, watch, words};
use cluster::name::HostName;
use cluster::runbook::{Runbook, Undo, named};
use wire::run::{RunSummary, StartRun};

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
    /// Show a run's whole journal
    Show {
        /// The run's id; the latest when left out
        id: Option<String>,
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
        What::Show { id } => show(context, id).await,
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
        return watch::to_the_end(&agents, &host, &run.id, context.json).await;
    }
    let wanted = StartRun { runbook: run.runbook, what_if: false, force: false, only_step: None, started_by: who() };
    start(&agents, &At { host, under_way: true }, wanted, true, context.json).await
}

/// The command that begins a runbook.
fn typed(runbook: &str) -> String {
    match runbook {
        "install-mirror" => "mirror install".into(),
        "remove-mirror" => "mirror remove".into(),
        "enable-log-shipping" => "log-shipping enable".into(),
        "enable-log-shipping-initialised" => "log-shipping enable --already-initialised".into(),
        "disable-log-shipping" => "log-shipping disable".into(),
        "initialise" => "pool initialise".into(),
        other => other.into(),
    }
}

async fn list(context: &Context) -> Outcome {
    let runs = Agents::new(&context.folder()?)?.runs().await;
    for host in &runs.silent {
        output::say(&format!("{host} does not answer; runs that it carried are not in this list"));
    }
    if context.json {
        return output::json(&runs.all.iter().map(|(_, run)| run).collect::<Vec<_>>());
    }
    let mut rows = vec![["RUN", "BY", "AT", "TOOK", "HOW IT STANDS"].map(str::to_owned).to_vec()];
    for (host, run) in runs.all {
        let stands = match (run.complete, run.step) {
            (Some(true), _) => "complete".to_owned(),
            (Some(false), step) => format!("stopped after {}", step.unwrap_or_default()),
            (None, step) => format!("under way at {host}: {}", step.unwrap_or_default()),
        };
        let took = format!("{:.2} s", run.elapsed_ms as f64 / 1000.0);
        rows.push(vec![run.id, run.started_by, run.started_at, took, stands]);
    }
    output::table(&rows)
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

async fn show(context: &Context, id: Option<String>) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let (host, run) = find(&agents, id).await?;
    let id = run.id;
    let progress = agents.progress(&host, &id, 0, 0).await;
    let progress = progress.map_err(|t| t.failure(&format!("read the journal of {id}"), &host))?;
    if context.json {
        return output::json(&progress);
    }
    output::line(&format!("{id}, at {host}"))?;
    let runbook = named(&progress.runbook);
    progress.events.iter().try_for_each(|event| output::line(&words::event(event, runbook)))
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
