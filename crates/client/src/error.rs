//! Why something that a client wanted did not work.

use wire::chat::RefusalCode;

/// Why something that a client wanted did not work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A server refused; the message says why and what to do.
    #[error("{call}: {message}")]
    Refused {
        /// What was asked.
        call: String,
        /// Machine-readable reason.
        code: RefusalCode,
        /// The server's own words.
        message: String,
    },
    /// Nobody carried it out in time.
    #[error("{call}: no server carried it out within {patience_s} s; last: {last}; look with: standfast pool status")]
    NobodyAnswers {
        /// What was asked.
        call: String,
        /// For how long it was tried.
        patience_s: u64,
        /// What the last attempt met.
        last: String,
    },
    /// An answer that is not what the protocol says.
    #[error("{call}: the answer cannot be read: {why}; is it a Standfast server of the same version?")]
    Answer {
        /// What was asked.
        call: String,
        /// What is wrong with it.
        why: String,
    },
    /// A connection could not be made, or broke.
    #[error("{0}")]
    Connection(String),
    /// A file could not be read or written.
    #[error("{deed} {path}: {why}")]
    File {
        /// `read`, `write`.
        deed: &'static str,
        /// Which file.
        path: String,
        /// Why.
        why: String,
    },
}

impl ClientError {
    /// Whether a server said so with this code.
    pub fn is(&self, wanted: RefusalCode) -> bool {
        matches!(self, ClientError::Refused { code, .. } if *code == wanted)
    }

    /// An error about a file.
    pub fn file(deed: &'static str, path: &std::path::Path, why: &dyn std::fmt::Display) -> Self {
        ClientError::File { deed, path: path.display().to_string(), why: why.to_string() }
    }
}
