//! What unit tests begin with.

use cluster::Epoch;
use cluster::record::{PoolRecord, PoolState};
use std::collections::BTreeMap;

/// The record of a pool that is at home, with no databases.
pub fn record(version: u64, epoch: Epoch) -> PoolRecord {
    PoolRecord {
        version,
        epoch,
        state: PoolState::Normal,
        home: "site-1".into(),
        active_servers: vec![],
        databases: BTreeMap::new(),
        lost_sites: BTreeMap::new(),
        run: None,
    }
}
