//! PostgreSQL on this host: its programs, its processes, its configuration, and what it says of itself.

pub mod conf;
pub mod copy;
pub mod history;
pub mod instance;
pub mod page;
pub mod process;
pub mod programs;
pub mod rebuild;
pub mod receive;
pub mod run_log;
pub mod share;
pub mod share_folder;
pub mod sql;
