//! `metrics config`: what Prometheus needs to read the metrics of agents and chat servers.

use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::secret::Purpose;
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
    /// Print scrape_configs for Prometheus with every agent and chat server of the topology, and write the key that they take
    Config {
        /// Write the key into this file, as a whole and for its owner alone; the configuration names it as it is given here
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
}

/// Run the command.
///
/// # Errors
/// When the key cannot be written.
pub fn run(context: &Context, args: Args) -> Outcome {
    let What::Config { key_file } = args.what;
    let folder = context.folder()?;
    write_key(&key_file, &folder.secret.derive(Purpose::Metrics)).map_err(|e| {
        Failure::Failed(format!("write the key {}: {e}; name a file in a folder that is there", key_file.display()))
    })?;
    output::line(config(&folder.topology, &key_file).trim_end())?;
    output::say(&format!("the key is in {}; let Prometheus alone read it", key_file.display()));
    Ok(())
}

/// Written aside and renamed, so that whoever reads it has the whole key; readable by its owner from the beginning.
fn write_key(path: &Path, key: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let aside = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(key.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)
}

fn config(topology: &Topology, key_file: &Path) -> String {
    let agents = topology.hosts.iter().map(|h| h.agent.at.as_str());
    let servers = topology.servers.iter().map(|s| s.clients.at.as_str());
    let targets: Vec<String> = agents.chain(servers).map(|at| format!("          - {}\n", quoted(at))).collect();
    format!(
        "scrape_configs:\n  - job_name: standfast\n    scrape_interval: 5s\n    authorization:\n      credentials_file: {}\n    \
         static_configs:\n      - targets:\n{}",
        quoted(&key_file.display().to_string()),
        targets.concat()
    )
}

/// A string of YAML: those of JSON are among them.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
