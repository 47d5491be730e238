//! `step`: one step of a runbook by itself, for those who go by hand as the reference does.

use super::run::{nobody, who};
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use cluster::record::PoolState;
use cluster::runbook::{ALL, Runbook, named};
use cluster::topology_file::nearest;
use wire::run::StartRun;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The runbook: failover, failback, …
    pub runbook: String,
    /// The step, by its id: standfast runbook steps RUNBOOK lists them
    pub step: String,
    /// Go on although something speaks against it that can be overridden
    #[arg(long)]
    pub force: bool,
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
    Failure::Usage(format!("there is no {what} '{name}'{near} There are: {}", known.join(", ")))
}

/// Run the command.
///
/// # Errors
/// When it is refused, fails, or waits for a person.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let runbook = runbook(&args.runbook)?;
    if runbook.step(&args.step).is_none() {
        let steps: Vec<&str> = runbook.steps.iter().map(|s| s.id).collect();
        return Err(unknown("step", &args.step, &steps));
    }
    let agents = Agents::new(&context.folder()?)?;
    let record = agents.look().await.record.ok_or_else(|| nobody(&agents))?;
    let under_way = match &record.run {
        Some(run) => agents.carrier(&run.id).await,
        None => None,
    };
    let other = agents.topology.other_site(&record.home).map(|s| s.authority.clone());
    let host = match (under_way, runbook.name, record.state, other) {
        (Some(host), ..) => host,
        (None, "failover", PoolState::Normal, Some(other)) => other,
        _ => agents.authority(&record.home)?,
    };
    let wanted = StartRun {
        runbook: runbook.name.to_owned(),
        what_if: false,
        force: args.force,
        only_step: Some(args.step),
        started_by: who(),
    };
    super::run::start(&agents, &host, wanted, true, context.json).await
}
