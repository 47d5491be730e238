//! Carries out runbooks, in the process of the site's authority. The only crate that gives orders to agents.
//!
//! What to do next is decided by `cluster::runbook::advance`, a pure function; here is its surroundings: looking at all
//! hosts, the journal, the change of the record, the orders. Everything that is about to be done is in the journal
//! before it is done, so a run that is killed anywhere goes on when its process starts again.

pub mod abort;
pub mod agents;
pub mod api;
pub mod carry_out;
pub mod estimate;
pub mod failpoint;
pub mod found;
pub mod journal;
pub mod metrics;
pub mod notify;
pub mod observe;
pub mod plan;
#[cfg(test)]
mod samples;
pub mod witness;

use crate::agents::Agents;
use crate::journal::Journal;
use crate::observe::Observer;
use cluster::name::HostName;
use cluster::secret::PoolSecret;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// How a conductor is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host's folder.
    pub dir: PathBuf,
    /// The host's name in the topology.
    pub host: HostName,
}

/// A conductor at work.
pub struct Conductor {
    /// The host's folder: journals and failpoint marks lie there.
    pub dir: PathBuf,
    /// Talks to all agents.
    pub agents: Agents,
    /// What was seen lately.
    pub observer: Observer,
    /// The journals, by run.
    pub runs: Mutex<BTreeMap<String, Arc<Journal>>>,
    /// Who was told what.
    pub notifier: notify::Notifier,
    /// Held while a run is being started, so that two callers never start one each.
    pub starting: tokio::sync::Mutex<()>,
}

/// Start the conductor; its router, [`api::router`], is to be put behind the agent's check of the caller's key.
///
/// # Errors
/// When the host folder is not usable, for people.
pub fn start(config: Config) -> Result<Arc<Conductor>, String> {
    let path = config.dir.join(cluster::secret::SECRET_FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let secret = PoolSecret::from_text(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let conductor = Arc::new(Conductor {
        agents: Agents::new(&config.dir, &config.host, &secret)?,
        observer: Observer::default(),
        runs: Mutex::new(journal::open_all(&config.dir.join("runs"))?),
        notifier: notify::Notifier::open(&config.dir)?,
        starting: tokio::sync::Mutex::default(),
        dir: config.dir,
    });
    tokio::spawn(observe::watch(conductor.clone()));
    tokio::spawn(notify::watch(conductor.clone()));
    carry_out::resume(&conductor);
    Ok(conductor)
}

impl Conductor {
    /// The journal of a run.
    pub fn run(&self, id: &str) -> Option<Arc<Journal>> {
        self.runs.lock().expect("nothing panics while it holds the runs").get(id).cloned()
    }

    /// All journals, newest first.
    pub fn all_runs(&self) -> Vec<Arc<Journal>> {
        let runs = self.runs.lock().expect("nothing panics while it holds the runs");
        runs.values().rev().cloned().collect()
    }
}
