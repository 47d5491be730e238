//! `database scrub`: every running copy reads its data through, page by page. Agents do so by themselves once a day.

use crate::agents::{Agents, Trouble};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::name::{DatabaseName, HostName};
use cluster::report::{HostReport, InstanceReport, InstanceState, ScrubReport};
use futures_util::future::join_all;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(250);
/// A host that answers nothing for so long is given up.
const SILENT_MAX: Duration = Duration::from_secs(20);

/// Arguments of `database scrub`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The copy on this host alone
    #[arg(long)]
    host: Option<String>,
}

/// A copy, and what was found in it.
#[derive(Debug, Serialize)]
struct Copy {
    host: HostName,
    database: DatabaseName,
    /// `None` when it could not be read through.
    scrub: Option<ScrubReport>,
    /// Why not.
    why: Option<String>,
}

/// Read every running copy through, all at once, and wait for what is found.
///
/// # Errors
/// Pages are damaged, a copy could not be read through, or there is none.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let look = agents.look().await;
    if let Some(host) = &args.host
        && agents.topology.host(&host.as_str().into()).is_none()
    {
        let known: Vec<&str> = agents.topology.hosts.iter().map(|h| h.name.as_str()).collect();
        return Err(Failure::Usage(format!("the topology has no host {host}; it has {}", known.join(", "))));
    }
    let wanted = |report: &&HostReport| args.host.as_ref().is_none_or(|host| report.host.as_str() == host);
    let runs = |i: &InstanceReport| matches!(i.state, InstanceState::Online | InstanceState::Standby);
    let copies = look.view.reports.iter().filter(wanted).flat_map(|report| {
        let running = report.instances.iter().filter(|(_, instance)| runs(instance));
        running.map(|(database, _)| one(&agents, report.host.clone(), database.clone(), report.measured_at_ms))
    });
    let copies = join_all(copies).await;
    if copies.is_empty() {
        let of = args.host.map_or_else(|| "the pool".to_owned(), |host| format!("host {host}"));
        return Err(Failure::Failed(format!(
            "no running copy of a database of {of} answers; see standfast pool status"
        )));
    }
    if context.json {
        output::json(&copies)?;
    } else {
        show(&copies)?;
    }
    let damaged = copies.iter().filter(|c| c.scrub.as_ref().is_some_and(|s| s.damaged_pages > 0)).count();
    let unread = copies.iter().filter(|c| c.scrub.is_none()).count();
    match (damaged, unread) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::Failed(format!("{unread} of {} copies could not be read through", copies.len()))),
        _ => Err(Failure::Alert(format!(
            "{damaged} of {} copies {} damaged pages; standfast pool status says what becomes of each",
            copies.len(),
            if damaged == 1 { "holds" } else { "hold" }
        ))),
    }
}

async fn one(agents: &Agents, host: HostName, database: DatabaseName, asked_at_ms: i64) -> Copy {
    let copy = |scrub, why| Copy { host: host.clone(), database: database.clone(), scrub, why };
    match agents.scrub(&host, &database).await {
        Ok(()) => {}
        Err(Trouble::Said(words)) => return copy(None, Some(words)),
        Err(Trouble::Silent(_)) => return copy(None, Some("its agent does not answer".to_owned())),
    }
    let mut heard = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        if let Ok(report) = agents.report(&host).await {
            heard = Instant::now();
            let instance = report.instances.get(&database);
            // By the host's own clock, as both are.
            let done = instance.and_then(|i| i.scrub.clone()).filter(|s| s.began_at_ms >= asked_at_ms);
            if done.is_some() {
                return copy(done, None);
            }
            if instance.is_none_or(|i| !matches!(i.state, InstanceState::Online | InstanceState::Standby)) {
                return copy(None, Some("it does not run any more".to_owned()));
            }
        } else if heard.elapsed() > SILENT_MAX {
            return copy(None, Some("its agent does not answer any more".to_owned()));
        }
    }
}

fn show(copies: &[Copy]) -> Outcome {
    output::line(&format!("{:<10} {:<12} {:>10} {:>8} {:>9}  WHERE", "DATABASE", "HOST", "PAGES", "DAMAGED", "TOOK"))?;
    for Copy { host, database, scrub, why } in copies {
        let (pages, damaged, took, place) = match scrub {
            Some(s) => {
                let ms = s.ended_at_ms.saturating_sub(s.began_at_ms).max(0);
                let places: Vec<String> = s.damaged.iter().map(|d| format!("{} page {}", d.file, d.block)).collect();
                let took = format!("{:.1} s", ms as f64 / 1000.0);
                (s.pages.to_string(), s.damaged_pages.to_string(), took, places.join(", "))
            }
            None => ("-".into(), "-".into(), "-".into(), why.clone().unwrap_or_default()),
        };
        let (database, host) = (database.as_str(), host.as_str());
        output::line(format!("{database:<10} {host:<12} {pages:>10} {damaged:>8} {took:>9}  {place}").trim_end())?;
    }
    Ok(())
}
