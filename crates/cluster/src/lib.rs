//! The pool over two sites: topology, record, fencing, mirror, log shipping, failover and failback.
//!
//! Everything here is a pure function of data: no IO, no clock, no randomness, no async, no hash iteration. Reports come
//! in, decisions and orders go out; `agent` and `conductor` carry them out. So the same functions serve production, the
//! model checker and the simulation.

pub mod name;
pub mod wal;
pub mod topology;
pub mod record;
pub mod secret;
pub mod order;
pub mod report;
pub mod fence;
pub mod mirror;
pub mod log_shipping;
pub mod goal;
pub mod runbook;
pub mod failover;
pub mod failback;

pub use rules::id::Epoch;
