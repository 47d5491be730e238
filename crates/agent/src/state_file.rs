//! What an agent has to remember of an instance across its own death: `agent/<db>.json`.

use crate::error::Error;
use crate::files;
use crate::postgres::process::Process;
use cluster::name::DatabaseName;
use cluster::order::Stamp;
use cluster::report::{LeftTo, OrderReport, ScrubReport};
use rules::id::Epoch;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The memory of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The postmaster that was started.
    pub postmaster: Option<Process>,
    /// The epoch whose history the data is known to be part of.
    pub history_epoch: Option<Epoch>,
    /// The epoch for which this host handed the writer over: its data may follow that epoch's writer.
    pub handed_over: Option<Epoch>,
    /// To whom, if the writer was stopped at once, and not cleanly.
    #[serde(default)]
    pub left_to: Option<LeftTo>,
    /// A fence that stopped this instance: it stays stopped until a record of this epoch or later says what it is to be.
    #[serde(default)]
    pub fenced_by: Option<Epoch>,
    /// Copy and restore jobs and the stream were stopped by an order, while in the part of backup under this epoch.
    pub shipping_stopped_in: Option<Epoch>,
    /// The share takes files of this epoch and later ones only.
    pub share_epoch: Option<Epoch>,
    /// The data runs as a standby only for its tail to be read; what it is when that is over.
    #[serde(default)]
    pub being_read: Option<Data>,
    /// Nothing is held back from being applied while the record is of this epoch.
    #[serde(default)]
    pub applies_at_once_in: Option<Epoch>,
    /// The schedule of the restore job has paused applying.
    #[serde(default)]
    pub paused_by_schedule: bool,
    /// A rewind was begun and its end was not seen: the data may be half of each history, and is copied anew.
    #[serde(default)]
    pub rewinding: bool,
    /// A promotion was begun and its end was not seen.
    #[serde(default)]
    pub promoting: bool,
    /// What was found when the data was last read through.
    #[serde(default)]
    pub scrub: Option<ScrubReport>,
    /// The highest stamp taken.
    pub latest: Stamp,
    /// The latest order and how far it is.
    pub order: Option<OrderReport>,
}

impl State {
    /// Whether this is a writer that was told to quit: what still runs of it, frozen perhaps, is nobody's any more.
    pub fn has_quit(&self) -> bool {
        self.handed_over.is_some() && self.left_to.is_some()
    }

    /// Whether it was handed over for a later epoch than the one that holds: that never began, because this one has overruled it.
    /// Only where the record names this host the principal is the later one still to come.
    pub fn is_overruled_by(&self, epoch: Epoch) -> bool {
        self.handed_over.is_some_and(|e| e > epoch)
    }

    /// Whether the data is not known to be part of the history of this epoch.
    pub fn is_behind(&self, epoch: Epoch) -> bool {
        self.history_epoch.is_none_or(|e| e < epoch) || self.is_overruled_by(epoch)
    }
}

/// Whose data it is, as its files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// A writer's.
    Writer,
    /// A standby's.
    Standby,
}

/// A state with its file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    state: State,
}

impl StateFile {
    /// Read the state of a database's instance; a first start has an empty one.
    pub fn open(host_folder: &std::path::Path, database: &DatabaseName) -> Result<Self, Error> {
        let path = host_folder.join("agent").join(format!("{database}.json"));
        let state = files::read_json(&path).map_err(Error::file(format!("read {}", path.display())))?;
        Ok(Self { path, state: state.unwrap_or_default() })
    }

    /// The state.
    pub fn get(&self) -> &State {
        &self.state
    }

    /// Change the state; after this returns the change survives a crash.
    pub fn change(&mut self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let mut next = self.state.clone();
        change(&mut next);
        if next != self.state {
            files::replace_json(&self.path, &next).map_err(Error::file(format!("write {}", self.path.display())))?;
            self.state = next;
        }
        Ok(())
    }
}
