//! The agent of a host: it runs the host's PostgreSQL instances and chat servers, ships the log, keeps the management store, and carries
//! out the orders of runbooks. The only crate that starts, stops or promotes a database; it gives no orders itself.

pub mod api;
mod asking;
pub mod backup;
pub mod bucket;
mod canaries;
pub mod database;
pub mod drill;
pub mod error;
pub mod feed;
pub mod files;
pub mod gossip;
mod hand_over;
pub mod heads;
pub mod hearsay;
pub mod host;
mod jobs;
mod log_on_disk;
pub mod lookout;
pub mod management_store;
mod metrics;
pub mod one_host;
pub mod order;
pub mod pair;
pub mod postgres;
pub mod probe;
pub mod promotion;
mod reconcile;
pub mod rejoin;
pub mod scrub;
pub mod services;
pub mod shipper;
pub mod state_file;
pub mod tail;

use crate::database::Database;
pub use crate::error::Error;
use crate::host::Host;
use crate::management_store::ManagementStore;
use crate::postgres::programs::Programs;
use cluster::name::HostName;
use cluster::secret::{PoolSecret, SECRET_FILE};
use cluster::topology::Topology;
use std::path::PathBuf;
use std::sync::Arc;
use wire::metrics::Page;

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host's folder.
    pub dir: PathBuf,
    /// The host's name in the topology.
    pub host: HostName,
    /// An administrator lets this site start without having heard the other one.
    pub without_peer: bool,
}

/// What is served beside the agent's own API.
pub struct Beside {
    /// Behind the same check of the caller's key.
    pub routes: axum::Router,
    /// Adds its own series to the agent's page of metrics.
    pub metrics: AddMetrics,
}

impl Beside {
    /// Nothing beside it.
    pub fn nothing() -> Self {
        Self { routes: axum::Router::new(), metrics: Arc::new(|_| {}) }
    }
}

/// Adds series to a page.
pub type AddMetrics = Arc<dyn Fn(&mut Page) + Send + Sync>;

/// Run the agent until the process is asked to end.
///
/// # Errors
/// When the host folder is not usable, or the address is taken.
pub async fn run(config: Config, beside: Beside) -> Result<(), Error> {
    let secret_file = config.dir.join(SECRET_FILE);
    let unusable = |cause: String| Error::HostFolder { path: secret_file.display().to_string(), cause };
    let text = std::fs::read_to_string(&secret_file).map_err(|e| unusable(e.to_string()))?;
    let secret = PoolSecret::from_text(&text).map_err(|e| unusable(e.to_string()))?;
    let folder = config.dir.canonicalize().map_err(Error::file(format!("find {}", config.dir.display())))?;
    let store = ManagementStore::open(&folder, &config.host)?;
    let at = store.topology().host(&config.host).map(|h| h.agent.at.clone()).unwrap_or_default();
    let host = Host::new(folder, config.host, secret, Programs::find()?, store, config.without_peer)?;
    let host = Arc::new(host);
    let failed = |cause: std::io::Error| Error::Listen { at: at.clone(), cause: cause.to_string() };
    let listener = tokio::net::TcpListener::bind(&at).await.map_err(failed)?;
    // Before anybody is answered: an answer without its databases would look as if they were gone.
    let mut topology = host.store.watch_topology();
    let first = topology.borrow_and_update().clone();
    take_up_databases(&host, &first).await;
    services::take_up(&host, &first);
    if config.without_peer {
        host.store.is_certain()?;
    }
    drill::end_of_killed(&host).await;
    tokio::spawn(gossip::run(host.clone()));
    tokio::spawn(hearsay::run(host.clone()));
    tokio::spawn(heads::run(host.clone()));
    tokio::spawn(tail::bring::run(host.clone()));
    tokio::spawn(follow_topology(host.clone(), topology));
    tracing::info!(host = %host.name, %at, "agent is ready");
    let app = api::router(host, beside);
    axum::serve(listener, app).with_graceful_shutdown(asked_to_end()).await.map_err(failed)
}

/// Look after each database and each server that the topology puts here, also when that changes.
async fn follow_topology(host: Arc<Host>, mut topology: tokio::sync::watch::Receiver<Topology>) {
    while topology.changed().await.is_ok() {
        let topology = topology.borrow_and_update().clone();
        take_up_databases(&host, &topology).await;
        services::take_up(&host, &topology);
    }
}

/// Look after each database of the topology that has an instance here and is not looked after yet.
async fn take_up_databases(host: &Arc<Host>, topology: &Topology) {
    for database in &topology.databases {
        let name = &database.name;
        let Some(instance) = database.instance_on(&host.name) else { continue };
        if host.database(name).is_some() {
            continue;
        }
        match Database::new(host, name, address(&instance.postgres.at)) {
            Ok(database) => {
                let database = Arc::new(database);
                if let Err(error) = tail::read::end(&database).await {
                    tracing::error!(database = %name, %error, "cannot end the reading of a tail that a killed agent had begun");
                }
                if let Err(error) = database.note_clean_stop().await {
                    tracing::warn!(database = %name, %error, "cannot tell how it was stopped");
                }
                let mut all = host.databases.write().expect("nothing panics while it holds the databases");
                all.insert(name.clone(), database.clone());
                drop(all);
                tokio::spawn(lookout::run(host.clone(), database.clone()));
                tokio::spawn(scrub::run(host.clone(), database.clone()));
                tokio::spawn(reconcile::run(host.clone(), database));
            }
            Err(error) => tracing::error!(database = %name, %error, "cannot look after this database"),
        }
    }
}

fn address(at: &str) -> (String, u16) {
    let (host, port) = at.rsplit_once(':').unwrap_or((at, "5432"));
    (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or(5432))
}

/// SIGTERM or Ctrl-C. Databases and servers go on: another agent finds and keeps them.
async fn asked_to_end() {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("a process may listen for its own signals");
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
