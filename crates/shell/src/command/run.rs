//! `failover` and `failback`: what was found, what would be lost, the question, and the run, live.

use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::{output, watch};
use cluster::name::HostName;
use cluster::record::PoolRecord;
use cluster::runbook::Unmet;
use wire::run::{Plan, RunAnswer, StartRun};

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
}

/// Run a runbook by its name: start it at the authority, show what was found, ask, watch it to its end.
///
/// # Errors
/// When it is refused, fails, or waits for a person.
pub async fn run(context: &Context, runbook: &str, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let view = agents.look().await;
    let record = view.record.ok_or_else(|| nobody(&agents))?;
    let host = carrier(&agents, &record, runbook).await?;
    let wanted = StartRun {
        runbook: runbook.to_owned(),
        what_if: args.what_if,
        force: args.force,
        only_step: None,
        started_by: who(),
    };
    start(&agents, &host, wanted, args.yes, context.json).await
}

/// The failure when no agent knows of a pool.
pub fn nobody(agents: &Agents) -> Failure {
    let hosts: Vec<String> = agents.topology.hosts.iter().map(|h| format!("{} at {}", h.name, h.agent.at)).collect();
    Failure::Failed(format!(
        "no agent of the pool {} answers with a record; asked: {}; start their agents, or see whether this machine reaches them",
        agents.topology.pool,
        hosts.join(", ")
    ))
}

/// Who types: account and machine, for the record.
pub fn who() -> String {
    let account = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|u| u.name);
    let user = std::env::var("SUDO_USER").ok().or_else(account);
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("{}@{}", user.unwrap_or_else(|| nix::unistd::getuid().to_string()), host.trim())
}

/// The authority that carries a runbook: the one where it is under way, else that of the site that will decide.
async fn carrier(agents: &Agents, record: &PoolRecord, runbook: &str) -> Result<HostName, Failure> {
    if let Some(run) = &record.run
        && let Some(host) = agents.carrier(&run.id).await
    {
        return Ok(host);
    }
    if runbook == "failover"
        && record.state == cluster::record::PoolState::Normal
        && let Some(other) = agents.topology.other_site(&record.home)
    {
        return Ok(other.authority.clone());
    }
    agents.authority(&record.home)
}

/// Start a run at its authority and watch it, asking first unless told not to.
///
/// # Errors
/// When it is refused, fails, or waits for a person.
pub async fn start(agents: &Agents, host: &HostName, mut wanted: StartRun, yes: bool, json: bool) -> Outcome {
    let what_if = wanted.what_if;
    if what_if || !yes {
        wanted.what_if = true;
        let plan = match agents.start_run(host, &wanted).await? {
            RunAnswer::Plan(plan) => plan,
            other => return over(other, json),
        };
        if json && what_if {
            return output::json(&plan);
        }
        show_plan(&plan, what_if)?;
        if what_if {
            return Ok(());
        }
        if !output::confirm(&format!("Carry out the {}?", wanted.runbook)) {
            return Err(Failure::Refused("nothing was done".into()));
        }
        wanted.what_if = false;
    }
    match agents.start_run(host, &wanted).await? {
        RunAnswer::Started { id, resumed, plan } => {
            if yes && !json {
                show_found(&plan)?;
            }
            if resumed && !json {
                output::say(&format!("the run {id} is under way already; watching it"));
            }
            watch::to_the_end(agents, host, &id, json).await
        }
        other => over(other, json),
    }
}

fn over(answer: RunAnswer, json: bool) -> Outcome {
    if json {
        output::json(&answer)?;
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
            if !json && let Some(plan) = &plan {
                show_found(plan)?;
            }
            Err(refused(&unmet))
        }
        RunAnswer::Plan(plan) => show_plan(&plan, true),
        RunAnswer::Started { id, .. } => Err(Failure::Failed(format!("the run {id} was started and is not watched"))),
    }
}

fn refused(unmet: &[Unmet]) -> Failure {
    let reasons: Vec<String> = unmet.iter().map(|u| format!("  {}\n    {}", u.why, u.hint)).collect();
    Failure::Refused(format!("refused, and nothing was changed:\n{}", reasons.join("\n")))
}

fn show_found(plan: &Plan) -> Outcome {
    plan.found.iter().try_for_each(|line| output::line(&format!("found: {line}")))
}

fn show_plan(plan: &Plan, whole: bool) -> Outcome {
    show_found(plan)?;
    output::line("")?;
    for (step, number) in plan.steps.iter().zip(1..) {
        let reference = if step.reference.is_empty() { "–" } else { &step.reference };
        let done = if step.done { " (done already)" } else { "" };
        output::line(&format!("{number:>3}. {:<22} ref {reference:<3} {}{done}", step.id, step.says))?;
        if whole && !step.done {
            for deed in &step.deeds {
                output::line(&format!("       would {}", in_words(deed)))?;
            }
        }
        if step.point_of_no_return && !plan.steps[..number - 1].iter().any(|s| s.point_of_no_return) {
            output::line("       from here on, forward only")?;
        }
    }
    Ok(())
}

fn in_words(deed: &cluster::runbook::Deed) -> String {
    use cluster::runbook::Deed;
    match deed {
        Deed::SetRecord { record, at } => {
            format!("change the pool's record at {at} (epoch {}, state {})", record.epoch, record.state)
        }
        Deed::Give { host, order } => {
            let order = serde_json::to_value(order).unwrap_or_default();
            let name = order["order"].as_str().unwrap_or("an order").to_owned();
            format!("order {host}: {name} {}", order["database"].as_str().unwrap_or_default())
        }
    }
}
