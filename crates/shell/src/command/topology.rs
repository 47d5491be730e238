//! `topology check|diff|publish|show` (Topology Builder, Publish-CsTopology).

mod publish;

use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::topology::Topology;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Check a file; each finding names its line, what is wrong and what would be right
    Check {
        /// The file
        file: PathBuf,
    },
    /// Compare a file with the published topology: what publishing will do, what it needs, whether users notice
    Diff {
        /// The file; the folder's own when left out
        file: Option<PathBuf>,
    },
    /// Check a file, show what differs, take out of use what leaves, publish, and bring into use what comes
    Publish(publish::Args),
    /// Show the published topology
    Show {
        /// As the file that was published
        #[arg(long)]
        toml: bool,
    },
}

/// Run the command.
///
/// # Errors
/// When the file does not pass, or it fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    match args.what {
        What::Check { file } => {
            let (_, topology) = read(&file)?;
            if context.json {
                return output::json(&topology);
            }
            output::line(&format!(
                "{} passes: pool {}, {} sites, {} hosts, {} servers",
                file.display(),
                topology.pool,
                topology.sites.len(),
                topology.hosts.len(),
                topology.servers.len()
            ))
        }
        What::Diff { file } => publish::diff(context, file).await,
        What::Publish(args) => publish::run(context, args).await,
        What::Show { toml } => show(context, toml).await,
    }
}

fn read(file: &Path) -> Result<(String, Topology), Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::Usage(format!("read the topology {}: {e}", file.display())))?;
    let topology = Topology::from_toml(&text).map_err(|findings| {
        let lines: Vec<String> =
            findings.iter().map(|f| format!("{}:{}: {}", file.display(), f.line, f.message)).collect();
        Failure::Refused(lines.join("\n"))
    })?;
    Ok((text, topology))
}

async fn show(context: &Context, toml: bool) -> Outcome {
    let folder = context.folder()?;
    let agents = Agents::new(&folder)?;
    let record = agents.look().await.view.record;
    let home = match &record {
        Some(record) => record.home.clone(),
        None => folder.topology.primary_site().map_or_else(|| "".into(), |s| s.name.clone()),
    };
    let host = agents.authority(&home)?;
    let text = agents.published_text(&host).await?;
    if toml {
        return output::line(text.trim_end());
    }
    let topology = Topology::from_toml(&text)
        .map_err(|f| Failure::Failed(f.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    if context.json { output::json(&topology) } else { draw(&topology) }
}

fn draw(topology: &Topology) -> Outcome {
    let line = match topology.latency {
        cluster::topology::LatencyClass::Low => "a line of low latency",
        cluster::topology::LatencyClass::High => "a line of high latency",
    };
    let between = if topology.sites.len() > 1 { format!(", {line} between the sites") } else { String::new() };
    output::line(&format!("{} (version {}){between}", topology.pool, topology.version))?;
    for site in &topology.sites {
        output::line(&format!("\n{} (authority {})", site.name, site.authority))?;
        for host in topology.hosts.iter().filter(|h| h.site == site.name) {
            output::line(&format!("  {} (agent at {})", host.name, host.agent.at))?;
            for database in &topology.databases {
                for (part, instance) in database.roles().filter(|(_, i)| i.host == host.name) {
                    output::line(&format!(
                        "    {} of {}, PostgreSQL at {}",
                        part, database.name, instance.postgres.at
                    ))?;
                }
            }
            for server in topology.servers.iter().filter(|s| s.host == host.name) {
                let active = if server.active { ", active in state Normal" } else { "" };
                output::line(&format!("    {}, clients at {}{active}", server.name, server.clients.at))?;
            }
        }
    }
    for database in &topology.databases {
        if let Some(shipping) = &database.log_shipping {
            output::line(&format!("\nlog shipping of {} through {}", database.name, shipping.share))?;
        }
    }
    Ok(())
}
