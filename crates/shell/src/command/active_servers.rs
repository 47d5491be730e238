//! `active-servers` (Get-CsPersistentChatActiveServer, Set-CsPersistentChatActiveServer): which servers accept clients.

use super::step::unknown;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::name::ServerName;
use cluster::record::PoolRecord;
use cluster::topology::{LatencyClass, Topology};
use cluster::topology_file::ACTIVE_SERVERS_MAX;

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
    let record = agents.record().await?;
    let what = args.what.unwrap_or(What::Get);
    if matches!(what, What::Get) {
        return show(&record, context.json);
    }
    if let Some(run) = &record.run {
        return Err(Failure::Refused(format!(
            "{} is under way, begun by {} at {}, and sets the active servers itself; watch it with standfast runbook watch",
            run.runbook, run.started_by, run.started_at
        )));
    }
    let wanted = match what {
        What::Set { servers } => checked(&agents.topology, &record, &servers)?,
        What::Get | What::Clear { yes: true } => Vec::new(),
        What::Clear { yes: false } => {
            if !output::confirm("No server will use the databases, and no client will be served. Clear the list?") {
                return Err(Failure::Refused("nothing was done".into()));
            }
            Vec::new()
        }
    };
    agents.change_record(&record, |r| r.active_servers.clone_from(&wanted)).await?;
    let names: Vec<&str> = wanted.iter().map(ServerName::as_str).collect();
    output::say(&if names.is_empty() { "no server is active".into() } else { format!("active: {}", names.join(", ")) });
    Ok(())
}

fn show(record: &PoolRecord, json: bool) -> Outcome {
    if json {
        return output::json(&record.active_servers);
    }
    record.active_servers.iter().try_for_each(|s| output::line(s.as_str()))
}

/// The servers of these names, if the reference's rules allow them together: at most four (ha-dr §1), and all near the
/// principal unless the line is good (ha-dr §9, R4).
fn checked(topology: &Topology, record: &PoolRecord, names: &[String]) -> Result<Vec<ServerName>, Failure> {
    let known: Vec<&str> = topology.servers.iter().map(|s| s.name.as_str()).collect();
    let mut wanted: Vec<ServerName> = Vec::new();
    for name in names {
        if !known.contains(&name.as_str()) {
            return Err(unknown("server", name, &known));
        }
        let name = ServerName::from(name.as_str());
        if !wanted.contains(&name) {
            wanted.push(name);
        }
    }
    if wanted.len() > ACTIVE_SERVERS_MAX {
        return Err(Failure::Refused(format!(
            "{} servers; at most {ACTIVE_SERVERS_MAX} may be active at a time",
            wanted.len()
        )));
    }
    if topology.latency == LatencyClass::High {
        let principal = record.databases.values().find_map(|d| d.principal.as_ref());
        let site = principal.and_then(|h| topology.site_of(h));
        if let Some(far) = wanted.iter().find(|s| site.is_some() && topology.site_of_server(s) != site) {
            return Err(Failure::Refused(format!(
                "{far} is not at the principal's site, and the topology says that the line between the sites has a high \
                 latency; only servers near the principal may be active (rule R4)"
            )));
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::Epoch;
    use cluster::record::{DatabaseRecord, PoolState};

    fn pool(latency: &str) -> (Topology, PoolRecord) {
        let text = include_str!("../../tests/stretched.toml").replace("\"high\"", &format!("\"{latency}\""));
        let topology = Topology::from_toml(&text).expect("the example passes");
        let mgc = DatabaseRecord { principal: Some("s1a".into()), ..DatabaseRecord::default() };
        let record = PoolRecord {
            version: 1,
            epoch: Epoch(1),
            state: PoolState::Normal,
            home: "site-1".into(),
            active_servers: vec![],
            databases: [("mgc".into(), mgc)].into(),
            lost_sites: std::collections::BTreeMap::new(),
            run: None,
        };
        (topology, record)
    }

    fn check(latency: &str, names: &[&str], expect: Result<usize, u8>) {
        let (topology, record) = pool(latency);
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let got = checked(&topology, &record, &names).map(|s| s.len()).map_err(|f| f.code());
        assert_eq!(got, expect, "{latency} {names:?}");
    }

    #[test]
    fn active_servers_exist_are_at_most_four_and_stand_near_the_principal() {
        check("high", &["server-1", "server-2", "server-1"], Ok(2));
        check("high", &["server-9"], Err(2));
        check("high", &["server-1", "server-5"], Err(3));
        check("low", &["server-1", "server-5"], Ok(2));
        check("low", &["server-1", "server-2", "server-3", "server-5", "server-6"], Err(3));
    }
}
