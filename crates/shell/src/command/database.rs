//! `database failover` (Invoke-CsDatabaseFailover): principal and mirror of one site change places, planned or forced; and
//! `database scrub`.

mod scrub;

use super::run::{authority_for, start, who};
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use cluster::name::HostName;
use cluster::record::PoolRecord;
use cluster::report::{HostReport, InstanceState};
use cluster::switching::{FORCE_MIRROR, Partner, SWITCH_MIRROR};
use std::time::{Duration, Instant};
use wire::run::StartRun;

/// How long a principal that does not answer is asked again before it counts as gone.
const MOMENT: Duration = Duration::from_millis(500);
/// Time between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Make the mirror, or again the primary, the principal; log shipping goes on from there
    Failover(Failover),
    /// Read the data of every running copy through, and say which pages do not fit their checksums; nothing is changed
    Scrub(scrub::Args),
}

/// Arguments of `database failover`.
#[derive(Clone, Debug, clap::Args)]
pub struct Failover {
    /// Who is to be principal: names of the topology, whoever plays which part now. At the backup's site they mean the
    /// backup and the backup mirror
    #[arg(long, value_enum)]
    pub new_principal: NewPrincipal,
    /// Go on although the principal is alive, or although the mirror is not synchronised: what it lacks is then lost
    #[arg(long)]
    pub force: bool,
    /// Show what was found and the steps, and do nothing
    #[arg(long)]
    pub what_if: bool,
    /// Go on without being asked
    #[arg(long, short)]
    pub yes: bool,
}

/// A partner of the pair, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NewPrincipal {
    /// The topology's primary
    Primary,
    /// The topology's mirror
    Mirror,
}

impl From<NewPrincipal> for Partner {
    fn from(typed: NewPrincipal) -> Self {
        match typed {
            NewPrincipal::Primary => Partner::Primary,
            NewPrincipal::Mirror => Partner::Mirror,
        }
    }
}

/// Run the command.
///
/// # Errors
/// When it is refused or fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    match args.what {
        What::Failover(args) => failover(context, args).await,
        What::Scrub(args) => scrub::run(context, args).await,
    }
}

/// Let principal and mirror change places. Where the principal is online they do so as planned; where it is gone, or
/// `--force` is given, service is forced on the mirror.
///
/// # Errors
/// When it is refused, fails, or waits for a person.
pub async fn failover(context: &Context, args: Failover) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    // Users wait while a dead principal is not replaced, so nobody who is slow or dead is waited for.
    let (record, mut reports) = if let Some(seen) = agents.glance_at_all().await {
        seen
    } else {
        let look = agents.look().await;
        (look.view.record.clone().ok_or_else(|| look.nobody())?, look.view.reports)
    };
    let began = Instant::now();
    // An agent that has just been started, or a database, is given a moment before the principal counts as gone.
    while !args.force && record.run.is_none() && !online(&record, &reports) && began.elapsed() < MOMENT {
        for host in record.databases.values().filter_map(|d| d.principal.as_ref()) {
            if let Ok(report) = agents.report(host).await {
                reports.retain(|r| r.host != *host);
                reports.push(report);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    let runbook = runbook(&record, &reports, args.force);
    let at = authority_for(&agents, &record, runbook).await?;
    if !at.under_way && !answers(&reports, &at.host) && agents.report(&at.host).await.is_err() {
        let other = agents.topology.other_site(&record.home);
        let rest = match other.filter(|_| record.state == cluster::record::PoolState::Normal) {
            Some(other) => format!("if that host is gone, standfast failover moves the pool to {}", other.name),
            None => "start its agent".to_owned(),
        };
        return Err(Failure::Failed(format!(
            "{}, the authority of {}, does not answer, and nobody else may change who is principal there; {rest}",
            at.host, record.home
        )));
    }
    let wanted = StartRun {
        runbook: runbook.to_owned(),
        what_if: args.what_if,
        force: args.force,
        only_step: None,
        new_principal: Some(args.new_principal.into()),
        limits: None,
        started_by: who(),
    };
    start(&agents, &at, wanted, args.yes, context.json).await
}

/// Which runbook leads there: the one that is under way, if any; the forced one where a principal's host does not answer.
fn runbook(record: &PoolRecord, reports: &[HostReport], force: bool) -> &'static str {
    let both = [SWITCH_MIRROR.name, FORCE_MIRROR.name];
    if let Some(run) = &record.run
        && let Some(name) = both.into_iter().find(|name| *name == run.runbook)
    {
        return name;
    }
    // Where the principal's agent answers, it takes --force to do without its database.
    let answers = record.databases.values().all(|d| d.principal.as_ref().is_some_and(|host| answers(reports, host)));
    if force || !answers { FORCE_MIRROR.name } else { SWITCH_MIRROR.name }
}

fn answers(reports: &[HostReport], host: &HostName) -> bool {
    reports.iter().any(|r| r.host == *host)
}

/// Whether every principal is online.
fn online(record: &PoolRecord, reports: &[HostReport]) -> bool {
    record.databases.iter().all(|(name, d)| {
        let report = d.principal.as_ref().and_then(|host| reports.iter().find(|r| r.host == *host));
        report.and_then(|r| r.instances.get(name)).is_some_and(|i| i.state == InstanceState::Online)
    })
}
