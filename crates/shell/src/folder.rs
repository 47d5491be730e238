//! An administrator's folder: the topology and the pool's secret, which are enough to reach every agent and server.

use crate::failure::Failure;
use cluster::secret::{PoolSecret, SECRET_FILE};
use cluster::topology::Topology;
use std::path::{Path, PathBuf};

/// Where an administrator's folder lies on a machine of a real pool.
pub const SYSTEM_DIR: &str = "/etc/standfast";

/// What every command is told.
#[derive(Clone, Debug)]
pub struct Context {
    /// The administrator's folder (`--dir`, `STANDFAST_DIR`).
    pub dir: PathBuf,
    /// Print data as JSON.
    pub json: bool,
}

impl Context {
    /// The context of a command line: the folder that was named, else that of this machine's pool, else the lab's.
    pub fn new(dir: Option<PathBuf>, json: bool) -> Self {
        let system = Path::new(SYSTEM_DIR);
        let dir = dir.unwrap_or_else(|| {
            if system.join("topology.toml").exists() { system.to_owned() } else { lab::DEFAULT_DIR.into() }
        });
        Self { dir, json }
    }

    /// Open the folder.
    ///
    /// # Errors
    /// When there is none, or its files do not pass.
    pub fn folder(&self) -> Result<Folder, Failure> {
        Folder::open(&self.dir)
    }
}

/// An administrator's folder.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where it lies.
    pub dir: PathBuf,
    /// The topology, as published last from here or as the lab made it.
    pub topology: Topology,
    /// The pool's secret.
    pub secret: PoolSecret,
}

impl Folder {
    /// Read the folder.
    ///
    /// # Errors
    /// When there is none, or its files do not pass.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let hint = "name the pool's folder with --dir or STANDFAST_DIR, or start a lab with: standfast lab up";
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|e| Failure::Failed(format!("read {}: {e}; {hint}", path.display())))
        };
        let topology = Topology::from_toml(&read("topology.toml")?).map_err(|findings| {
            let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
            Failure::Failed(format!("{}: {}", dir.join("topology.toml").display(), said.join("; ")))
        })?;
        let secret = PoolSecret::from_text(&read(SECRET_FILE)?)
            .map_err(|e| Failure::Failed(format!("{}: {e}", dir.join(SECRET_FILE).display())))?;
        Ok(Self { dir: dir.to_owned(), topology, secret })
    }

    /// Base addresses of all chat servers, `http://address:port`.
    pub fn server_urls(&self) -> Vec<String> {
        self.topology.servers.iter().map(|s| format!("http://{}", s.clients.at)).collect()
    }
}
