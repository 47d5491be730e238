//! The chat schema in PostgreSQL: the only crate with SQL on it.
//!
//! A [`Store`] is a small set of connections to one writer, opened with the epoch that the caller takes for the present
//! one. Opening does a real write, so what is readable afterwards is as durable as the writer's commits are (promise 1);
//! every writing transaction states the epoch, and the database refuses any other (promise 4). When a connection breaks,
//! the whole store is done with: [`Store::broken`] returns, and the caller opens another one. The crate knows nothing of
//! sites and agents.

mod access;
mod append;
mod canary;
mod confirm;
mod connection;
mod connections;
mod directory;
mod error;
mod evidence;
mod flushed;
mod history;
mod holds;
mod journal;
mod late_changes;
pub mod left_behind;
mod migrate;
mod password;
mod principals;
mod shown;
mod tail;
mod tail_list;
mod tls;
mod token;
pub mod whole;

pub use access::{Facts, RoomFacts};
pub use append::{Appended, Attempt, Batch, BatchResult, Evidence, NewEntry};
pub use connection::{Store, Target, Waits};
pub use connections::Connections;
pub use directory::{CategoryLists, CategoryPatch, CategoryRow, NewRoomRow, RoomPatch};
pub use error::StoreError;
pub use evidence::LoggedPage;
pub use flushed::{Flushed, Standbys};
pub use history::{Bound, EntryKind, EntryRow, Heads, LateRow, LogPage, RoomHead};
pub use migrate::FirstAdministrator;
pub use password::{Passwords, WAITING_MAX as PASSWORDS_WAITING_MAX};
pub use principals::{NewUserRow, UserRow};
pub use shown::{RoomMark, ShownMarks};
pub use tail::{
    LateOutcome, REASONS_MAX, ReEntered, RefusedRow, ReturnedRoomRow, TailChunk, TailEntryRow, TailNotice, TailsState,
};
pub use tail_list::{TailCounts, TailPart, TailRow};
pub use token::{Token, TokenHash};
