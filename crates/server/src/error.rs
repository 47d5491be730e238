//! Why a chat server cannot start or go on.

use std::path::PathBuf;

/// An error that ends a chat server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the host's folder cannot be read.
    #[error("read {path}: {source}; is --dir the host's folder, and may this account read it?")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of the host's folder does not hold what it should.
    #[error("{path} cannot be used: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The topology has no such server.
    #[error("the topology has no server '{server}'; it has {known}. Start with --server and one of these")]
    UnknownServer {
        /// The name given.
        server: String,
        /// The names that exist.
        known: String,
    },
    /// An address cannot be listened on.
    #[error("listen for {what} at {at}: {source}; is another process there, or the address not this host's?")]
    Listen {
        /// For whom.
        what: &'static str,
        /// `address:port`.
        at: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The store refused something that cannot be refused.
    #[error("prepare the chat server: {0}")]
    Store(#[from] store::StoreError),
    /// The HTTP client cannot be made.
    #[error("prepare the connection to the agent: {0}")]
    AgentClient(#[from] reqwest::Error),
}
