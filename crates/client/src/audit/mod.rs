//! The auditor: a ledger of what clients were told and saw, against the logs that the pool has. `docs/ledger.md` has the
//! rules. `judge` is pure; `read` gets the logs over HTTP and the lines from the file.

pub mod clients;
pub mod judge;
pub mod log;
pub mod read;

pub use judge::{Finding, Kind, RewoundPost, Verdict, judge};
pub use log::{Hash, RoomLog, hash_of};
