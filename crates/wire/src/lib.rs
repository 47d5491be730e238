//! Every format that leaves a process: chat frames, HTTP bodies, the agents' API, server links, ledgers. Types and
//! their documentation, no behaviour.

pub mod agent;
pub mod chain;
pub mod chat;
pub mod heads;
pub mod http;
pub mod ledger;
pub mod link;
pub mod metrics;
pub mod notification;
pub mod receipt;
pub mod run;
pub mod run_report;
pub mod tail;
