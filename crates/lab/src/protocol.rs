//! How commands speak to a lab's supervisor: a line of JSON each way, over a Unix socket in the lab's folder.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// What can be asked of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// What runs.
    Status,
    /// SIGKILL to a site, a host, or a process.
    Kill {
        /// `site-1`, `s1a`, `server-1`, `s1a/agent`, `s1a/postgres`.
        target: String,
    },
    /// SIGSTOP to a site, a host, or a process.
    Freeze {
        /// The same names.
        target: String,
    },
    /// SIGCONT.
    Thaw {
        /// The same names.
        target: String,
    },
    /// Start what does not run.
    Start {
        /// The same names; a database is started by its agent.
        target: String,
        /// Variables for the started processes.
        env: BTreeMap<String, String>,
        /// Let agents start without having heard the other site.
        without_peer: bool,
    },
    /// Change links.
    Link {
        /// How they are from now on.
        state: LinkState,
        /// Which.
        which: Links,
    },
    /// Stop everything cleanly, and the supervisor with it.
    Down,
}

/// Which links.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Links {
    /// Every link between the sites.
    BetweenSites,
    /// Every link to and from a host, in a lab whose hosts have links of their own.
    OfHost(String),
    /// The links between two hosts, in such a lab.
    BetweenHosts(String, String),
}

impl Links {
    /// Whether a link from a site or host to a host is one of them.
    pub fn contain(&self, from: &str, host: &str, within_site: bool) -> bool {
        match self {
            Links::BetweenSites => !within_site,
            Links::OfHost(one) => from == one || host == one,
            Links::BetweenHosts(one, other) => (from == one && host == other) || (from == other && host == one),
        }
    }
}

impl std::fmt::Display for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Links::BetweenSites => f.write_str("the links between the sites"),
            Links::OfHost(host) => write!(f, "the links of {host}"),
            Links::BetweenHosts(one, other) => write!(f, "the links between {one} and {other}"),
        }
    }
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// As they should be.
    Up,
    /// Connections are closed and refused.
    Down,
    /// Nothing arrives, and nothing is refused.
    Frozen,
    /// Everything arrives this many milliseconds late, each way.
    Delayed(u64),
}

/// What a lab answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// What was done, for people.
    Done {
        /// A sentence.
        message: String,
    },
    /// What runs.
    Status {
        /// Every process that the lab knows of.
        processes: Vec<ProcessStatus>,
        /// The links between the sites.
        link: LinkState,
        /// Others that are not as they should be.
        links: Vec<(Links, LinkState)>,
    },
    /// What was wrong with the request.
    Refused {
        /// A sentence.
        message: String,
    },
}

/// A process of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its host.
    pub host: String,
    /// `agent`, `postgres`, or a server's name.
    pub name: String,
    /// Its pid, while it runs.
    pub pid: Option<i32>,
}

/// The supervisor's socket: in the lab's folder, or, where that path is too long for a socket, in a short one.
pub fn socket(dir: &Path) -> PathBuf {
    let own = dir.join("lab.sock");
    if own.as_os_str().len() < 100 {
        return own;
    }
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    std::env::temp_dir().join(format!("standfast-lab-{:016x}.sock", hasher.finish()))
}

/// Ask a lab.
///
/// # Errors
/// A sentence for people, when no lab answers.
pub async fn ask(dir: &Path, request: &Request) -> Result<Answer, String> {
    let nobody =
        |e: std::io::Error| format!("no lab is up in {} ({e}); start one with standfast lab up", dir.display());
    let dir = dir.canonicalize().map_err(nobody)?;
    let nobody =
        |e: std::io::Error| format!("no lab is up in {} ({e}); start one with standfast lab up", dir.display());
    let mut stream = UnixStream::connect(socket(&dir)).await.map_err(nobody)?;
    let mut line = serde_json::to_vec(request).map_err(|e| e.to_string())?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(nobody)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).await.map_err(nobody)?;
    serde_json::from_str(&answer).map_err(|e| format!("the lab in {} ended while it was asked ({e})", dir.display()))
}
