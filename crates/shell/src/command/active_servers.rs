//! `active-servers` (Get-CsPersistentChatActiveServer, Set-CsPersistentChatActiveServer): which servers accept clients.

use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::active_servers::{Judged, Remark, judge};
use cluster::name::ServerName;
use cluster::record::PoolRecord;
use std::collections::BTreeSet;

/// A server whose last report is older than this, in milliseconds, counts as not heard from.
const HEARD_MS: u64 = 5_000;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Show them
    Get,
    /// Set them: these and no others
    Set {
        /// The servers, by name
        #[arg(required = true)]
        servers: Vec<String>,
    },
    /// Make further servers active
    Add {
        /// The servers, by name
        #[arg(required = true)]
        servers: Vec<String>,
    },
    /// Take servers out of the list: they take no new client, and their clients move
    Remove {
        /// The servers, by name
        #[arg(required = true)]
        servers: Vec<String>,
        /// Go on without being asked when none is left
        #[arg(long, short)]
        yes: bool,
    },
    /// Exchange active and inactive servers
    Swap,
    /// Set none: no server uses the databases, and no client is served
    Clear {
        /// Go on without being asked
        #[arg(long, short)]
        yes: bool,
    },
}

/// Run the command.
///
/// # Errors
/// When a rule of the reference speaks against it, or it fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let look = agents.look().await;
    let record = look.view.record.clone().ok_or_else(|| look.nobody())?;
    let what = args.what.unwrap_or(What::Get);
    let yes = matches!(what, What::Clear { yes: true } | What::Remove { yes: true, .. });
    let Some(wanted) = wanted(&agents, &record, what)? else { return show(&record, context.json) };
    let servers = look.view.reports.iter().flat_map(|r| &r.servers);
    let heard: BTreeSet<ServerName> =
        servers.filter(|(_, said)| said.age_ms <= HEARD_MS).map(|(name, _)| name.clone()).collect();
    let judged = judge(&agents.topology, &record, &wanted, Some(&heard)).map_err(|objections| refused(&objections))?;
    judged.warnings.iter().for_each(|w| output::say(&format!("note: {w}")));
    if judged.servers.is_empty() && !yes && !output::confirm("Clear the list?") {
        return Err(Failure::Refused("nothing was done".into()));
    }
    if judged.servers != record.active_servers {
        agents.change_record(&record, |r| r.active_servers.clone_from(&judged.servers)).await?;
    }
    if context.json {
        return output::json(&judged);
    }
    done(&judged);
    Ok(())
}

/// The list that is asked for; `None` when it is only to be shown.
fn wanted(agents: &Agents, record: &PoolRecord, what: What) -> Result<Option<Vec<String>>, Failure> {
    let now = || record.active_servers.iter().map(ToString::to_string);
    Ok(Some(match what {
        What::Get => return Ok(None),
        What::Set { servers } => servers,
        What::Add { servers } => now().chain(servers).collect(),
        What::Remove { servers, .. } => {
            if let Some(not) = servers.iter().find(|s| !now().any(|n| n == **s)) {
                let all: Vec<String> = now().collect();
                let active = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                return Err(Failure::Usage(format!("'{not}' is not active; active are: {active}")));
            }
            now().filter(|n| !servers.contains(n)).collect()
        }
        What::Swap => {
            let all = agents.topology.servers.iter().map(|s| &s.name);
            all.filter(|s| !record.is_active(s)).map(ToString::to_string).collect()
        }
        What::Clear { .. } => Vec::new(),
    }))
}

fn refused(objections: &[Remark]) -> Failure {
    let mistyped = objections.iter().all(|o| o.rule == "the topology");
    let said = objections.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    if mistyped { Failure::Usage(said) } else { Failure::Refused(said) }
}

fn done(judged: &Judged) {
    let names: Vec<&str> = judged.servers.iter().map(ServerName::as_str).collect();
    output::say(&if names.is_empty() { "no server is active".into() } else { format!("active: {}", names.join(", ")) });
}

fn show(record: &PoolRecord, json: bool) -> Outcome {
    if json {
        return output::json(&record.active_servers);
    }
    record.active_servers.iter().try_for_each(|s| output::line(s.as_str()))
}
