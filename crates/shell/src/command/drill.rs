//! `drill sandbox|switch|list`: rehearse a failover on a throwaway copy, or hand the pool itself over and home again; and what
//! earlier drills found.

mod canary;
mod switch;

use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::drill::{DrillReport, StartDrill};
use cluster::name::{DatabaseName, HostName};
use cluster::topology_file::CONTENT_DATABASE;
use std::time::Duration;

/// Between two looks at a drill under way.
const AGAIN: Duration = Duration::from_millis(200);
/// Looks without an answer after which the agent counts as gone.
const LOOKS_MAX: u32 = 50;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// While the pool serves: copy the backup into a throwaway instance beside it, promote that, chat on it, read everything,
    /// and clear it away; tells RTO and RPO. Ctrl-C stops watching; the drill goes on
    Sandbox {
        /// Copy the standby of this host, in place of the backup: the backup's mirror, for instance
        #[arg(long, value_name = "HOST")]
        on: Option<HostName>,
    },
    /// Hand the pool itself over to the other site as planned, with nothing lost, while a canary measures what users notice; with
    /// --there-and-back home again. Gives itself up, the pool as it was, when a limit would be broken
    Switch(switch::Args),
    /// The drills that are kept, newest first, and the one under way
    List,
}

/// Run the command.
///
/// # Errors
/// When it may not begin, or fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    match args.what {
        What::Sandbox { on } => sandbox(context, &agents, on).await,
        What::Switch(args) => switch::run(context, &agents, &args).await,
        What::List => list(context, &agents).await,
    }
}

async fn sandbox(context: &Context, agents: &Agents, on: Option<HostName>) -> Outcome {
    let look = agents.look().await;
    let record = look.view.record.as_ref().ok_or_else(|| look.nobody())?;
    let database = DatabaseName::from(CONTENT_DATABASE);
    let none = || {
        Failure::Refused(
            "the pool has no backup to copy now; see standfast pool status, or name another standby's host with --on"
                .into(),
        )
    };
    let backup = record.databases.get(&database).and_then(|d| d.backup.clone());
    let host = on.or(backup).ok_or_else(none)?;
    if agents.topology.host(&host).is_none() {
        return Err(Failure::Usage(format!("the topology has no host '{host}'; standfast topology show names them")));
    }
    let begun = agents.begin_drill(&host, &StartDrill { database, by: super::run::who() }).await?;
    let report = watch(agents, &host, &begun).await?;
    end(context, &report)
}

/// Say what is done on a host until it is over. Ctrl-C stops watching; what was begun goes on.
///
/// # Errors
/// When the host does not answer any more.
pub async fn watch(agents: &Agents, host: &HostName, begun: &DrillReport) -> Result<DrillReport, Failure> {
    output::say(&format!("{} begun on {host}", begun.id));
    let mut told = 0;
    let mut unanswered = 0;
    loop {
        let Ok(drills) = agents.drills(host).await else {
            unanswered += 1;
            if unanswered > LOOKS_MAX {
                return Err(Failure::Failed(format!(
                    "{host} does not answer any more; when its agent is back it has cleared away what {} had left",
                    begun.id
                )));
            }
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        unanswered = 0;
        let all = drills.under_way.iter().chain(&drills.past);
        let Some(report) = all.into_iter().find(|d| d.id == begun.id) else {
            return Err(Failure::Failed(format!("{host} does not know {} any more", begun.id)));
        };
        for step in &report.steps[told.min(report.steps.len())..] {
            output::say(&format!("  {:>8.2} s  {}", step.took_ms as f64 / 1000.0, step.says));
        }
        told = report.steps.len();
        if report.over {
            return Ok(report.clone());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Tell how it ended.
///
/// # Errors
/// When it failed.
pub fn end(context: &Context, report: &DrillReport) -> Outcome {
    if context.json {
        output::json(report)?;
    } else if report.failed.is_none() {
        output::line(&format!("{}: {}", report.id, report.says()))?;
    }
    match &report.failed {
        Some(why) => Err(Failure::Failed(format!("{} failed: {why}", report.id))),
        None => Ok(()),
    }
}

async fn list(context: &Context, agents: &Agents) -> Outcome {
    let mut all = Vec::new();
    let mut silent = Vec::new();
    for host in agents.topology.hosts.iter().map(|h| &h.name) {
        match agents.drills(host).await {
            Ok(drills) => all.extend(drills.under_way.into_iter().chain(drills.past)),
            Err(_) => silent.push(host.to_string()),
        }
    }
    all.retain(|d| d.work.is_drill());
    all.sort_by_key(|d| std::cmp::Reverse(d.began_at_ms));
    if !silent.is_empty() {
        output::say(&format!("no answer from {}; theirs are not listed", silent.join(", ")));
    }
    if context.json {
        return output::json(&all);
    }
    if all.is_empty() {
        return output::line("no drill yet; standfast drill sandbox begins one");
    }
    let mut rows = vec![["DRILL", "HOST", "BY", "TOOK", "RESULT"].map(str::to_owned).to_vec()];
    for drill in &all {
        let doing = drill.doing.as_deref().unwrap_or("begins");
        let result = if drill.over { drill.says() } else { format!("under way: {doing}") };
        let took = format!("{:.1} s", drill.took_ms as f64 / 1000.0);
        rows.push(vec![drill.id.clone(), drill.host.to_string(), drill.by.clone(), took, result]);
    }
    output::table(&rows)
}

/// The last drill of all hosts, for `pool status`.
pub fn last<'a>(drills: impl Iterator<Item = &'a DrillReport>) -> Option<&'a DrillReport> {
    drills.max_by_key(|d| d.began_at_ms)
}
