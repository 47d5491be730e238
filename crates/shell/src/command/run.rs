//! `failover` and `failback`: what was found, what would be lost, the question, and the run, live.

use crate::agents::{Agents, Carrier};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::report::ReportFile;
use crate::{output, watch, words};
use cluster::name::HostName;
use cluster::planned_failover::PLANNED_FAILOVER;
use cluster::record::{PoolRecord, PoolState, RunRef};
use cluster::runbook::Unmet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::run::{Plan, RunAnswer, RunEventKind, StartRun};

/// How long the authority that carries the run is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time between two looks for it.
const AGAIN: Duration = Duration::from_millis(200);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Go on without being asked
    #[arg(long, short)]
    pub yes: bool,
    /// Go on although something speaks against it that can be overridden, such as a lost site that answers
    #[arg(long)]
    pub force: bool,
    /// Show what was found and the steps, and do nothing
    #[arg(long)]
    pub what_if: bool,
    /// Write a report when it ends, however it ends: a page (.html) or data (.json)
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// Arguments of `failover`.
#[derive(Clone, Debug, clap::Args)]
pub struct Failover {
    /// Both sites live: hand the writer over with nothing lost, and feed this site from the other one afterwards
    #[arg(long)]
    planned: bool,
    #[command(flatten)]
    args: Args,
}

/// Fail over: the site is lost, or, as planned, both live.
///
/// # Errors
/// Those of [`run`].
pub async fn failover(context: &Context, typed: Failover) -> Outcome {
    run(context, if typed.planned { PLANNED_FAILOVER.name } else { "failover" }, typed.args).await
}

/// Arguments of a change that nothing stands against which could be overridden.
#[derive(Clone, Debug, clap::Args)]
pub struct Change {
    /// Go on without being asked
    #[arg(long, short)]
    yes: bool,
    /// Show the steps, and do nothing
    #[arg(long)]
    what_if: bool,
    /// Write a report when it ends, however it ends: a page (.html) or data (.json)
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl From<Change> for Args {
    fn from(change: Change) -> Self {
        let Change { yes, what_if, report } = change;
        Self { yes, force: false, what_if, report }
    }
}

/// Run a runbook by its name: start it at the authority, show what was found, ask, watch it to its end.
///
/// # Errors
/// When it is refused, fails, or waits for a person.
pub async fn run(context: &Context, runbook: &str, args: Args) -> Outcome {
    let report = args.report.as_deref().map(ReportFile::new).transpose()?;
    let agents = Agents::new(&context.folder()?)?;
    // Users wait while a failover waits, so nobody who is slow or dead is waited for.
    let seen = if runbook == "failover" && args.yes { agents.glance().await } else { None };
    let record = match seen {
        Some(record) => record,
        None => agents.record().await?,
    };
    let at = authority_for(&agents, &record, runbook).await?;
    let wanted = StartRun {
        runbook: runbook.to_owned(),
        what_if: args.what_if,
        force: args.force,
        only_step: None,
        new_principal: None,
        limits: None,
        started_by: who(),
    };
    start_reported(&agents, &at, wanted, args.yes, context.json, report.as_ref()).await
}

/// Begin a pool: there is no record yet, so the authority of the first site is asked.
///
/// # Errors
/// When nobody answers, or it is refused, fails, or waits for a person.
pub async fn initialise(context: &Context, args: &Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let look = agents.look().await;
    if look.view.reports.is_empty() {
        return Err(look.nobody());
    }
    let first = agents.topology.primary_site().ok_or_else(|| Failure::Failed("the topology has no site".into()))?;
    let run = look.view.record.as_ref().and_then(|r| r.run.as_ref());
    let at = At { host: first.authority.clone(), under_way: run.is_some_and(|r| r.runbook == "initialise") };
    let wanted = StartRun {
        runbook: "initialise".into(),
        what_if: args.what_if,
        force: args.force,
        only_step: None,
        new_principal: None,
        limits: None,
        started_by: who(),
    };
    start(&agents, &at, wanted, args.yes, context.json).await
}

/// Who types: account and machine, for the record.
pub fn who() -> String {
    let account = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|u| u.name);
    let user = std::env::var("SUDO_USER").ok().or_else(account);
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}@{}", user.unwrap_or_else(|| nix::unistd::getuid().to_string()), host.trim())
}

/// Whom to ask for a run.
pub struct At {
    /// The authority.
    pub host: HostName,
    /// Whether the run that was asked for is under way there already.
    pub under_way: bool,
}

/// The authority that carries a runbook: the one where it is under way, else that of the site that will decide.
///
/// # Errors
/// When the one that carries it stays away.
pub async fn authority_for(agents: &Agents, record: &PoolRecord, runbook: &str) -> Result<At, Failure> {
    if let Some(run) = record.run.as_ref().filter(|run| run.runbook == runbook)
        && let Some(host) = where_it_runs(agents, run).await?
    {
        return Ok(At { host, under_way: true });
    }
    // The site that is lost decides nothing: a failover begins at the other one.
    let other = agents.topology.other_site(&record.home).map(|s| s.authority.clone());
    let host = match other {
        Some(other) if runbook == "failover" && record.state == PoolState::Normal => other,
        _ => agents.authority(&record.home)?,
    };
    Ok(At { host, under_way: false })
}

/// The authority that has the journal of the run under way; it alone can carry it on, so it is waited for.
async fn where_it_runs(agents: &Agents, run: &RunRef) -> Result<Option<HostName>, Failure> {
    let began = Instant::now();
    let mut told = false;
    loop {
        let silent = match agents.carrier(&run.id).await {
            Carrier::Found(host) => return Ok(Some(host)),
            Carrier::Unknown => return Ok(None),
            Carrier::Silent(silent) => silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let seen = format!("{} is under way, and the authority that carries it does not answer", run.runbook);
        if began.elapsed() > PATIENCE {
            return Err(Failure::Waiting(format!("{seen}; start the agent of {silent}, then type the command again")));
        }
        if !told {
            told = true;
            output::say(&format!("{seen}; waiting for the agent of {silent} to be started"));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Start a run at its authority and watch it, asking first unless told not to.
///
/// # Errors
/// When it is refused, fails, or waits for a person.
pub async fn start(agents: &Agents, at: &At, wanted: StartRun, yes: bool, json: bool) -> Outcome {
    start_reported(agents, at, wanted, yes, json, None).await
}

/// The same, with a report of the run when it ends, however it ends. A run that is refused has none.
///
/// # Errors
/// Those of `start`; or that the report could not be written.
pub async fn start_reported(
    agents: &Agents,
    at: &At,
    mut wanted: StartRun,
    yes: bool,
    json: bool,
    report: Option<&ReportFile>,
) -> Outcome {
    let what_if = wanted.what_if;
    if what_if || !yes {
        wanted.what_if = true;
        let plan = match agents.start_run(&at.host, &wanted, at.under_way).await? {
            RunAnswer::Plan(plan) => plan,
            other => return over(other, json),
        };
        if json && what_if {
            return output::json(&plan);
        }
        show(&words::plan(&plan, what_if), json)?;
        if what_if {
            return Ok(());
        }
        if !output::confirm(&format!("Carry out the {}?", wanted.runbook)) {
            return Err(Failure::Refused("nothing was done".into()));
        }
        wanted.what_if = false;
    }
    match agents.start_run(&at.host, &wanted, at.under_way).await? {
        RunAnswer::Started { id, resumed, plan } => {
            if yes && !resumed {
                show(&words::found(&plan), json)?;
            }
            if resumed {
                output::say(&format!(
                    "the run {id} is under way already{}; watching it",
                    begun(agents, &at.host, &id).await
                ));
            }
            let outcome = watch::to_the_end(agents, &at.host, &id, json).await;
            ReportFile::after(report, agents, &at.host, &id, outcome).await
        }
        other => over(other, json),
    }
}

/// Who began a run and when, where that can be had at once.
async fn begun(agents: &Agents, host: &HostName, id: &str) -> String {
    let Ok(progress) = agents.progress(host, id, 0, 0).await else { return String::new() };
    let first = progress.events.iter().find_map(|e| match &e.what {
        RunEventKind::Begun { started_by, .. } => Some(format!(", begun by {started_by} at {}", e.at)),
        _ => None,
    });
    first.unwrap_or_default()
}

/// Lines for people: data, unless the data is JSON.
fn show(lines: &[String], json: bool) -> Outcome {
    lines.iter().try_for_each(|line| {
        if json {
            output::say(line);
            return Ok(());
        }
        output::line(line)
    })
}

fn over(answer: RunAnswer, json: bool) -> Outcome {
    if json {
        output::json_line(&answer)?;
    }
    match answer {
        RunAnswer::AlreadyThere { message } => {
            if json {
                Ok(())
            } else {
                output::line(&message)
            }
        }
        RunAnswer::Refused { unmet, plan } => {
            show(&plan.map_or_else(Vec::new, |plan: Box<Plan>| words::found(&plan)), json)?;
            Err(refused(&unmet))
        }
        RunAnswer::Plan(plan) => show(&words::plan(&plan, true), json),
        RunAnswer::Started { id, .. } => Err(Failure::Failed(format!("the run {id} was started and is not watched"))),
    }
}

/// The failure of what was refused, with what can be done.
pub fn refused(unmet: &[Unmet]) -> Failure {
    let forced = |u: &Unmet| u.can_be_forced && !u.hint.contains("--force");
    let reasons = unmet.iter().map(|u| {
        let force = if forced(u) { "; --force goes on all the same" } else { "" };
        format!("  {}\n    {}{force}", u.why, u.hint)
    });
    Failure::Refused(format!("refused, and nothing was changed:\n{}", reasons.collect::<Vec<_>>().join("\n")))
}
