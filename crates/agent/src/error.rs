//! What can go wrong beside a database: what failed, on what, why, and what to do next.

/// An error of the agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's folder is not complete or not readable.
    #[error("read {path}: {cause}; a host folder needs pool.secret and topology.toml (docs/topology.md)")]
    HostFolder {
        /// Which file.
        path: String,
        /// Why.
        cause: String,
    },
    /// This host is not in the topology.
    #[error("the topology has no host named '{host}'; it has: {known}")]
    NoSuchHost {
        /// The name given.
        host: String,
        /// The names there are.
        known: String,
    },
    /// The API cannot listen.
    #[error("listen at {at}: {cause}; is another agent running for this host?")]
    Listen {
        /// Where.
        at: String,
        /// Why.
        cause: String,
    },
    /// A file could not be written or read.
    #[error("{what}: {cause}")]
    File {
        /// What was being done, on what.
        what: String,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// PostgreSQL's programs are missing.
    #[error("the PostgreSQL program '{0}' is not on this machine; install Debian's package postgresql")]
    NoProgram(&'static str),
    /// The account that runs PostgreSQL cannot reach the folder.
    #[error(
        "{account} cannot reach {path}: {parent} is closed to others; choose a folder below /var/lib or /var/tmp, or open it with: chmod o+x {parent}"
    )]
    Unreachable {
        /// The account.
        account: String,
        /// The folder.
        path: String,
        /// The closed parent.
        parent: String,
    },
    /// A program of PostgreSQL ended with an error.
    #[error("{program} for {database} failed: {said}")]
    Program {
        /// Which program.
        program: String,
        /// For which database.
        database: String,
        /// What it printed.
        said: String,
    },
    /// A statement failed.
    #[error("{what} in {database}: {cause}")]
    Sql {
        /// What was being done.
        what: String,
        /// In which database.
        database: String,
        /// Why it failed.
        cause: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s; {hint}")]
    Late {
        /// What.
        what: String,
        /// How long was waited.
        seconds: u64,
        /// What to look at.
        hint: String,
    },
    /// Another agent did not do what it was asked.
    #[error("{what}: {cause}")]
    Peer {
        /// What was asked, of whom.
        what: String,
        /// What it said, or why it could not be asked.
        cause: String,
    },
    /// The share did not do what it was asked.
    #[error("{what}: {cause}")]
    Share {
        /// What was asked of it.
        what: String,
        /// What the system or the store says.
        cause: String,
    },
    /// An order does not fit what is here.
    #[error("{0}")]
    Unfit(String),
}

impl Error {
    /// For files: what was being done, on what.
    pub fn file(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |cause| Error::File { what, cause }
    }
}
