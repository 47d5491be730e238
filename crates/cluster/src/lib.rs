//! The pool over two sites: topology, record, fencing, mirror, log shipping, failover and failback.
//!
//! Everything here is a pure function of data: no IO, no clock, no randomness, no async, no hash iteration. Reports come
//! in, decisions and orders go out; `agent` and `conductor` carry them out. So the same functions serve production, the
//! model checker and the simulation.

pub mod abort;
pub mod active_servers;
pub mod alert;
pub mod backup;
pub mod canary;
pub mod drill;
pub mod durable;
pub mod existing;
pub mod exposure;
pub mod failback;
pub mod failover;
pub mod fence;
pub mod goal;
pub mod growing;
pub mod hand_over;
pub mod initialise;
pub mod job_history;
pub mod limits;
pub mod log_shipping;
pub mod mirror;
pub mod mirroring;
pub mod name;
pub mod notify;
pub mod order;
pub mod planned_failover;
pub mod preflight;
pub mod record;
pub mod remark;
pub mod report;
pub mod restore_job;
pub mod runbook;
pub mod secret;
pub mod service;
pub mod share_fault;
pub mod shipping;
pub mod shipping_settings;
pub mod switching;
pub mod topology;
pub mod topology_change;
pub mod topology_diff;
pub mod topology_draft;
pub mod topology_file;
pub mod topology_live;
pub mod wal;
pub mod witness;

pub use rules::id::Epoch;
