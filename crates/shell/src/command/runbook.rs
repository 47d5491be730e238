//! `runbook`: what runs there were and are, and the steps of each runbook.

use super::step::runbook;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::{output, watch};
use cluster::runbook::{Runbook, Undo, named};

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
        /// failover, failback, initialise, install-mirror or remove-mirror
        runbook: String,
    },
    /// Watch a run that is under way
    Watch {
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
            let (host, id) = find(&agents, id).await?;
            watch::to_the_end(&agents, &host, &id, context.json).await
        }
    }
}

async fn list(context: &Context) -> Outcome {
    let runs = Agents::new(&context.folder()?)?.runs().await;
    if context.json {
        return output::json(&runs.iter().map(|(_, run)| run).collect::<Vec<_>>());
    }
    let mut rows = vec![["RUN", "BY", "AT", "TOOK", "HOW IT STANDS"].map(str::to_owned).to_vec()];
    for (host, run) in runs {
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

async fn find(agents: &Agents, id: Option<String>) -> Result<(cluster::name::HostName, String), Failure> {
    let runs = agents.runs().await;
    let found = match &id {
        Some(id) => runs.into_iter().find(|(_, run)| run.id == *id),
        None => runs.into_iter().next(),
    };
    let hint = "standfast runbook list shows those that there are";
    found.map(|(host, run)| (host, run.id)).ok_or_else(|| match id {
        Some(id) => Failure::Failed(format!("no authority that answers knows of a run {id}; {hint}")),
        None => Failure::Failed(format!("no authority that answers knows of any run; {hint}")),
    })
}

async fn show(context: &Context, id: Option<String>) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let (host, id) = find(&agents, id).await?;
    let progress = agents.progress(&host, &id, 0, 0).await;
    let progress = progress.map_err(|t| t.failure(&format!("read the journal of {id}"), &host))?;
    if context.json {
        return output::json(&progress);
    }
    output::line(&format!("{id}, at {host}"))?;
    let runbook = named(&progress.runbook);
    progress.events.iter().filter_map(|e| watch::in_words(e, runbook)).try_for_each(|line| output::line(&line))
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
