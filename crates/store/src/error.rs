//! What can go wrong with the store, by what the caller can do about it.

use tokio_postgres::error::SqlState;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it broke: whether a write under way took place is unknown.
    #[error("{doing}: the connection to PostgreSQL at {at} failed: {source}")]
    Lost {
        /// What was being done.
        doing: &'static str,
        /// `host:port`.
        at: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// TLS to a database that somebody else operates: a person has to look.
    #[error("connect to PostgreSQL at {at} with TLS: {why}")]
    Tls {
        /// `host:port`.
        at: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// No answer in time.
    #[error("{doing}: PostgreSQL at {at} did not answer within {limit_ms} ms")]
    TimedOut {
        /// What was being done.
        doing: &'static str,
        /// `host:port`.
        at: String,
        /// Milliseconds waited.
        limit_ms: u64,
    },
    /// A standby: it takes no writes.
    #[error("PostgreSQL at {at} is a standby; the writer is somewhere else or about to be promoted")]
    NotAWriter {
        /// `host:port`.
        at: String,
    },
    /// The database is at another epoch than the one stated (SQLSTATE SF001).
    #[error("PostgreSQL at {at} refuses to write: {message}")]
    EpochRefused {
        /// `host:port`.
        at: String,
        /// Both epochs, as the database put it.
        message: String,
    },
    /// The wait for the mirror was cancelled: the commit is on the principal, and may not be on the mirror. It is to be
    /// run again, never to be acknowledged.
    #[error("{doing}: the wait for the mirror was cancelled, so the commit may be on the principal alone")]
    Unknown {
        /// What was being done.
        doing: &'static str,
    },
    /// A transaction that waits for no mirror met a lock that is kept, perhaps by one that does, or found no connection. Nothing was
    /// written.
    #[error("{doing}: PostgreSQL at {at} holds up what is not to wait for a mirror: {why}")]
    HeldUp {
        /// What was being done.
        doing: &'static str,
        /// `host:port`.
        at: String,
        /// The cause.
        why: String,
    },
    /// A name or a thing exists already.
    #[error("{0}")]
    Conflict(String),
    /// Something named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request contradicts a rule of the model.
    #[error("{0}")]
    Invalid(String),
    /// A rule of access forbids it.
    #[error("{0}")]
    Refused(rules::access::Refusal),
    /// A password could not be hashed or checked.
    #[error("a password could not be hashed: {0}")]
    Password(String),
    /// Too much of the same is under way already.
    #[error("{0}")]
    Busy(&'static str),
    /// PostgreSQL refused for a reason that no rule foresees.
    #[error("{doing}: PostgreSQL at {at} answered: {source}{}", detail(source))]
    Database {
        /// What was being done.
        doing: &'static str,
        /// `host:port`.
        at: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
}

fn detail(source: &tokio_postgres::Error) -> String {
    source.as_db_error().map(|e| format!(": {} ({})", e.message(), e.code().code())).unwrap_or_default()
}

impl StoreError {
    /// Sort an error of the driver.
    pub(crate) fn of(doing: &'static str, at: &str, source: tokio_postgres::Error) -> Self {
        let at = at.to_owned();
        let Some(db) = source.as_db_error() else {
            return StoreError::Lost { doing, at, source };
        };
        let code = db.code().code();
        if code == "SF001" {
            return StoreError::EpochRefused { at, message: db.message().to_owned() };
        }
        if *db.code() == SqlState::READ_ONLY_SQL_TRANSACTION {
            return StoreError::NotAWriter { at };
        }
        if *db.code() == SqlState::LOCK_NOT_AVAILABLE {
            return StoreError::HeldUp { doing, at, why: db.message().to_owned() };
        }
        // 57P: the server shuts down or starts up; 08: connection exceptions.
        if code.starts_with("57P") || code.starts_with("08") {
            return StoreError::Lost { doing, at, source };
        }
        StoreError::Database { doing, at, source }
    }

    /// Whether a row was there already.
    pub(crate) fn is_duplicate(&self) -> bool {
        matches!(self, StoreError::Database { source, .. } if source.code() == Some(&SqlState::UNIQUE_VIOLATION))
    }

    /// Whether another attempt, perhaps with a new store, can succeed without anything being changed by a person.
    pub fn is_passing(&self) -> bool {
        match self {
            StoreError::Lost { .. }
            | StoreError::TimedOut { .. }
            | StoreError::NotAWriter { .. }
            | StoreError::EpochRefused { .. }
            | StoreError::HeldUp { .. }
            | StoreError::Unknown { .. } => true,
            // A deadlock, a serialisation failure, a duplicate key of a concurrent retry, or a cancelled statement.
            StoreError::Database { source, .. } => source.code().is_some_and(|code| {
                [
                    SqlState::T_R_DEADLOCK_DETECTED,
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::UNIQUE_VIOLATION,
                    SqlState::QUERY_CANCELED,
                ]
                .contains(code)
            }),
            StoreError::Conflict(_)
            | StoreError::NotFound(_)
            | StoreError::Tls { .. }
            | StoreError::Invalid(_)
            | StoreError::Refused(_)
            | StoreError::Busy(_)
            | StoreError::Password(_) => false,
        }
    }
}
