//! The commands. The only crate that knows a terminal; it starts and watches runs through the authority's API, and gives
//! no orders of its own.

pub mod agents;
pub mod command;
pub mod drawing;
pub mod failure;
pub mod folder;
pub mod output;
pub mod prompt;
pub mod report;
pub mod signed_in;
pub mod watch;
pub mod words;

pub use command::Command;
pub use failure::{Failure, Outcome};
pub use folder::Context;
