//! Series that more than one program writes.

use super::Page;
use super::catalogue::{EXPOSURE_BYTES, EXPOSURE_ENTRIES, EXPOSURE_HEARD_AGE_SECONDS, EXPOSURE_SECONDS};
use cluster::name::DatabaseName;
use cluster::runbook::Exposure;
use std::collections::BTreeMap;

/// What each database stands to lose.
pub fn exposure(page: &mut Page, exposures: &BTreeMap<DatabaseName, Exposure>) {
    for (name, exposure) in exposures {
        let database = [name.as_str()];
        let seconds = |ms: Option<u64>| ms.map(|ms| ms as f64 / 1000.0);
        page.add_known(&EXPOSURE_ENTRIES, &database, exposure.entries.map(|n| n as f64));
        page.add_known(&EXPOSURE_BYTES, &database, exposure.bytes.map(|n| n as f64));
        page.add_known(&EXPOSURE_SECONDS, &database, seconds(exposure.behind_ms));
        page.add_known(&EXPOSURE_HEARD_AGE_SECONDS, &database, seconds(exposure.heard_ms_ago));
    }
}
