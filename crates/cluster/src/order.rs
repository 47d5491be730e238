//! Orders: what a runbook asks an agent to do, as values.
//!
//! Every order may be given again: an agent that has already done what it says answers so. Orders carry rising stamps,
//! and an agent takes none older than one that it has taken, so a delayed order can never undo a later one.

use crate::name::{DatabaseName, HostName};
use rules::id::Epoch;
use serde::{Deserialize, Serialize};

/// The place of an order in the history of the pool: the epoch, then the run within it, then the number within that. No clock has a
/// part in it: one that was ahead for a moment would make every later order an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// The epoch under which the order was given.
    pub epoch: i64,
    /// The version of the record with which the run claimed the pool: a run that claims it later has a higher one.
    #[serde(default)]
    pub version: u64,
    /// Rises with every order within a run: it is above every number that the run's journal holds.
    pub number: u64,
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.version, self.number)
    }
}

/// What an agent is asked to do to the instance of a database on its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Create the instance with its database, empty, as a writer of the given epoch.
    Initialise {
        /// Which database.
        database: DatabaseName,
        /// The first epoch.
        epoch: Epoch,
    },
    /// Make the instance a standby by an online base backup from `from`, replacing whatever is there that is not
    /// already a standby on the same history.
    Seed {
        /// Which database.
        database: DatabaseName,
        /// The host that is copied.
        from: HostName,
    },
    /// Like `Seed`, but a standby that is there is replaced too: what it lacks cannot be had any more.
    SeedAnew {
        /// Which database.
        database: DatabaseName,
        /// The host that is copied.
        from: HostName,
    },
    /// Stop the instance and keep it stopped: this host was left behind by `epoch`. No agent starts it as a writer
    /// again without having seen a record of that epoch or later that says so.
    Fence {
        /// Which database.
        database: DatabaseName,
        /// The epoch that leaves this host behind.
        epoch: Epoch,
    },
    /// Close the log share to writers of epochs before `epoch`: after this no file appears in what they shipped.
    CloseShare {
        /// Which database.
        database: DatabaseName,
        /// The first epoch that may ship again.
        epoch: Epoch,
    },
    /// Apply what the restore job holds back, and hold nothing back while the record is of this epoch.
    ApplyAtOnce {
        /// Which database.
        database: DatabaseName,
    },
    /// Hold back again what the settings say.
    HoldBackAgain {
        /// Which database.
        database: DatabaseName,
    },
    /// Stop the copy and restore jobs and the stream (`sp_delete_log_shipping_secondary_database`).
    StopLogShipping {
        /// Which database.
        database: DatabaseName,
    },
    /// Start the copy and restore jobs and the stream again; what the share was closed over is copied first.
    StartLogShipping {
        /// Which database.
        database: DatabaseName,
    },
    /// Copy what is left in the share, the last partial segment included, to the copy folder.
    CopyRemainingLog {
        /// Which database.
        database: DatabaseName,
    },
    /// Apply every copied and every streamed segment, in sequence, up to the end of what is there.
    ApplyRemainingLog {
        /// Which database.
        database: DatabaseName,
    },
    /// End every session in the database (`sp_who2`, `kill`).
    DisconnectSessions {
        /// Which database.
        database: DatabaseName,
    },
    /// Bring the database online (`restore database … with recovery`): promote, begin `epoch` in the database, with
    /// the place in every room at which the new epoch begins.
    Promote {
        /// Which database.
        database: DatabaseName,
        /// The epoch of the new writer.
        epoch: Epoch,
    },
    /// Write out everything that is dirty now, in PostgreSQL and in the kernel, so that a later stop or promotion is
    /// quick.
    Checkpoint {
        /// Which database.
        database: DatabaseName,
    },
    /// Keep the log that this host wrote and `from` never had, and read what is in it, before a rewind discards it.
    SalvageTail {
        /// Which database.
        database: DatabaseName,
        /// The present principal.
        from: HostName,
    },
    /// Make this left-behind instance a standby of `from` again, by `pg_rewind`, or by a base backup where a rewind
    /// is not possible. Online for `from`.
    Rewind {
        /// Which database.
        database: DatabaseName,
        /// The host whose history is taken over; a principal.
        from: HostName,
    },
    /// Refuse every new writing transaction of epochs before `epoch`, then stop the writer: at once, where the record has a
    /// synchronised mirror that has flushed whatever was committed; else cleanly, so that its standbys hold every byte. It comes
    /// back as a standby.
    HandOver {
        /// Which database.
        database: DatabaseName,
        /// The epoch of the writer to come.
        epoch: Epoch,
    },
    /// Start the writer again that was fenced or handed over for `epoch`, and let it begin that epoch itself: the change of
    /// writer did not take place. Only given while nobody else was ever to be the writer of that epoch.
    Reopen {
        /// Which database.
        database: DatabaseName,
        /// The epoch that it begins.
        epoch: Epoch,
        /// The epoch in which it was the writer: an instance that knows no more than an older one was left behind.
        after: Epoch,
    },
}

impl Order {
    /// The database that the order is about.
    pub fn database(&self) -> &DatabaseName {
        match self {
            Order::Initialise { database, .. }
            | Order::Seed { database, .. }
            | Order::SeedAnew { database, .. }
            | Order::Fence { database, .. }
            | Order::CloseShare { database, .. }
            | Order::ApplyAtOnce { database }
            | Order::HoldBackAgain { database }
            | Order::StopLogShipping { database }
            | Order::StartLogShipping { database }
            | Order::CopyRemainingLog { database }
            | Order::ApplyRemainingLog { database }
            | Order::DisconnectSessions { database }
            | Order::Promote { database, .. }
            | Order::Checkpoint { database }
            | Order::SalvageTail { database, .. }
            | Order::Rewind { database, .. }
            | Order::HandOver { database, .. }
            | Order::Reopen { database, .. } => database,
        }
    }
}

/// An order with its stamp, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampedOrder {
    /// Its place in history.
    pub stamp: Stamp,
    /// The run that gives it.
    pub run: String,
    /// What to do.
    #[serde(flatten)]
    pub order: Order,
}

/// How far an agent is with an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Taken, durable, under way.
    Running {
        /// What is being done right now, for the person who watches.
        doing: String,
    },
    /// Done.
    Done {
        /// What was done, with figures.
        detail: String,
    },
    /// Not done; giving it again is safe.
    Failed {
        /// What failed, on what, why, and what to do next.
        message: String,
    },
    /// Refused: a later stamp was taken already.
    TooOld {
        /// The latest stamp taken.
        latest: Stamp,
    },
}
