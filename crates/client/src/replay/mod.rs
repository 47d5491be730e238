//! Playing logged conversations as real clients: each nick is a user with a connection of its own.
//!
//! `log` reads a log, `plan` makes a timetable of it, `play` carries the timetable out, and `book` keeps what the clients
//! were told and what they saw, in a ledger and in figures.

pub mod book;
pub mod log;
pub mod plan;
pub mod play;

pub use book::{Progress, Summary};
pub use plan::{Plan, Speed};
pub use play::{Options, play};
