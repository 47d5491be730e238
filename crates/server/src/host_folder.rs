//! The host's folder: the pool's secret, and copies of the topology and the record, from which a server works while its
//! agent is away. A server only reads here.

use crate::error::Error;
use crate::{Config, app::View};
use cluster::record::PoolRecord;
use cluster::secret::{PoolSecret, SECRET_FILE};
use cluster::topology::{Server, Topology};
use std::path::{Path, PathBuf};

/// What the folder holds at the start.
pub struct HostFolder {
    /// The pool's secret.
    pub secret: PoolSecret,
    /// Topology and record.
    pub view: View,
    /// This server's entry of the topology.
    pub me: Server,
}

impl HostFolder {
    /// Read the folder and find this server in the topology.
    pub async fn read(config: &Config) -> Result<Self, Error> {
        let path = config.dir.join(SECRET_FILE);
        let secret =
            PoolSecret::from_text(&read(&path).await?).map_err(|e| Error::Content { path, reason: e.to_string() })?;
        let view = read_view(&config.dir).await?;
        let me = view.topology.server(&config.server).cloned().ok_or_else(|| Error::UnknownServer {
            server: config.server.to_string(),
            known: view.topology.servers.iter().map(|s| s.name.to_string()).collect::<Vec<_>>().join(", "),
        })?;
        Ok(Self { secret, view, me })
    }
}

/// The copies on disk. The published topology lies in `store/`; before the agent's first start it is at the top.
pub async fn read_view(dir: &Path) -> Result<View, Error> {
    let published = dir.join("store/topology.toml");
    let path =
        if tokio::fs::try_exists(&published).await.unwrap_or(false) { published } else { dir.join("topology.toml") };
    let topology = parse_topology(&path, &read(&path).await?)?;
    let path = dir.join("store/record.json");
    let record = match tokio::fs::read(&path).await {
        Ok(bytes) => Some(parse_record(&path, &bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(source) => return Err(Error::Read { path, source }),
    };
    Ok(View { topology, record, ending: None })
}

async fn read(path: &Path) -> Result<String, Error> {
    tokio::fs::read_to_string(path).await.map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn parse_topology(path: &Path, text: &str) -> Result<Topology, Error> {
    toml::from_str(text).map_err(|e| content(path, e.to_string()))
}

fn parse_record(path: &Path, bytes: &[u8]) -> Result<PoolRecord, Error> {
    serde_json::from_slice(bytes).map_err(|e| content(path, e.to_string()))
}

fn content(path: &Path, reason: String) -> Error {
    Error::Content { path: PathBuf::from(path), reason }
}
