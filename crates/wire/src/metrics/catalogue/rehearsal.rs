//! What drills and backups have shown: how far a pool can trust what it has put by.

use super::metric;
use crate::metrics::{By, Kind, Metric};

/// When the last drill that is over was begun on the host; absent when there was none.
pub const DRILL_AT: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_drill_last_timestamp_seconds",
    &[],
    "When the last drill that is over was begun on the host; absent when there was none.",
);
/// 1 when that drill succeeded.
pub const DRILL_SUCCEEDED: Metric =
    metric(By::Agent, Kind::Gauge, "standfast_drill_last_succeeded", &[], "1 when that drill succeeded.");
/// From what counted as the loss to the first acknowledged post on its copy.
pub const DRILL_RTO: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_drill_last_rto_seconds",
    &[],
    "From what counted as the loss to the first acknowledged post on its copy.",
);
/// Entries that the principal had at that moment and its copy lacked.
pub const DRILL_RPO_ENTRIES: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_drill_last_rpo_entries",
    &[],
    "Entries that the principal had at that moment and its copy lacked.",
);
/// How much older than that moment the newest content of its copy was.
pub const DRILL_RPO: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_drill_last_rpo_seconds",
    &[],
    "How much older than that moment the newest content of its copy was.",
);
/// When the newest backup on the host was whole; absent when there is none.
pub const BACKUP_AT: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_backup_last_timestamp_seconds",
    &[],
    "When the newest backup on the host was whole; absent when there is none.",
);
/// Its size.
pub const BACKUP_BYTES: Metric =
    metric(By::Agent, Kind::Gauge, "standfast_backup_last_bytes", &[], "Size of the newest backup on the host.");
/// When a backup on the host was last restored with success.
pub const BACKUP_PROVEN_AT: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_backup_last_proof_timestamp_seconds",
    &[],
    "When a backup on the host was last restored with success; absent when none was.",
);
/// 1 when the newest backup that was tried could be restored.
pub const BACKUP_PROVEN: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_backup_last_proof_succeeded",
    &[],
    "1 when the newest backup on the host could be restored, 0 when it could not; absent when it was not tried.",
);
/// How long its restoring took.
pub const BACKUP_PROOF_SECONDS: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_backup_last_proof_seconds",
    &[],
    "From the beginning of the last proof with success to the first acknowledged post on what it restored.",
);
