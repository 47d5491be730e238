//! `pool start-alone`: an administrator lets a site start although the other one does not answer, while its agents run.
//!
//! A principal that comes up again asks the other site first, because the pool may have failed over to it meanwhile
//! (`cluster::fence`). Who knows that this is not so, says so here; the same as an agent's `--without-peer`, until it ends.

use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::name::{HostName, SiteName};
use cluster::record::PoolRecord;
use cluster::report::{HostReport, InstanceState};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The site that is to start alone
    #[arg(long)]
    site: String,
    /// Show what would be done, and do nothing
    #[arg(long)]
    what_if: bool,
    /// Go on without being asked
    #[arg(long, short)]
    yes: bool,
}

/// Run the command.
///
/// # Errors
/// When the site does not answer, nobody there waits, or somebody knows of a newer epoch.
pub async fn run(context: &Context, args: &Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let site = SiteName::from(args.site.as_str());
    let Some(other) = agents.topology.other_site(&site).filter(|_| agents.topology.site(&site).is_some()) else {
        let all: Vec<&str> = agents.topology.sites.iter().map(|s| s.name.as_str()).collect();
        let message = format!("there is no site '{site}' that has another one to ask; there are: {}", all.join(", "));
        return Err(Failure::Usage(message));
    };
    let look = agents.look().await;
    let here: Vec<&HostReport> = look.view.reports.iter().filter(|r| r.site == site).collect();
    if here.is_empty() {
        let message = format!("no agent of {site} answers; start them, then type this again");
        return Err(Failure::Failed(message));
    }
    if let (Some(newest), Some(own)) = (&look.view.record, newest_of(&here))
        && newest.epoch > own.epoch
    {
        return Err(Failure::Refused(format!(
            "{} serves in epoch {}, and {site} knows epoch {} alone: it was left behind, and would open nothing; \
             standfast failback brings it home",
            newest.home, newest.epoch, own.epoch
        )));
    }
    let waiting: Vec<&HostName> = here.iter().filter(|r| asks(r)).map(|r| &r.host).collect();
    if waiting.is_empty() {
        return output::line(&format!("no database of {site} waits for {}; nothing was done", other.name));
    }
    let names = waiting.iter().map(|h| h.as_str()).collect::<Vec<_>>().join(", ");
    output::say(&format!(
        "{names} waits to hear from {} who the writer is. If the pool has failed over to it, both sites would serve, and what one \
         of them writes is kept aside when they meet. Go on only when you know that {} does not serve.",
        other.name, other.name
    ));
    if args.what_if {
        return output::line(&format!("would let {names} open without {}; nothing was done", other.name));
    }
    if !args.yes && !output::confirm(&format!("Start {site} alone?")) {
        return Err(Failure::Refused("nothing was done".into()));
    }
    for host in waiting {
        agents.start_alone(host).await?;
        output::line(&format!("{host} opens its databases without having heard {}", other.name))?;
    }
    Ok(())
}

fn newest_of<'a>(reports: &[&'a HostReport]) -> Option<&'a PoolRecord> {
    let records = reports.iter().filter_map(|r| r.record.as_ref());
    records.reduce(|best, r| if r.supersedes(best) { r } else { best })
}

/// Its principal asks before it opens, or a run that is to open a database on it would have to.
fn asks(report: &HostReport) -> bool {
    let at_home = report.record.as_ref().is_some_and(|r| r.home == report.site);
    let run_asks = at_home && report.asks.is_some();
    report.instances.values().any(|instance| match instance.state {
        InstanceState::AskingPeer => true,
        InstanceState::Absent => false,
        _ => run_asks,
    })
}
