//! How a command ends when it does not succeed: a sentence for people, an exit code for scripts.

/// Why a command did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The command line or a file that it names is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Something was checked and speaks against it; nothing was changed: exit code 3.
    #[error("{0}")]
    Refused(String),
    /// A run is under way and waits for a person: exit code 4.
    #[error("{0}")]
    Waiting(String),
    /// What was asked for was shown, and something in it needs a person: exit code 5.
    #[error("{0}")]
    Alert(String),
    /// Whoever read standard output has gone: nothing is said, as with every program that ends at a closed pipe.
    #[error("nobody reads standard output any more")]
    Closed,
    /// Something failed: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Refused(_) => 3,
            Failure::Waiting(_) => 4,
            Failure::Alert(_) => 5,
            Failure::Closed => 141,
        }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::Failed(message)
    }
}

/// How a command ends.
pub type Outcome = Result<(), Failure>;
