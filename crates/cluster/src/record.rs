//! The pool's record: the one small document that says who is who right now.
//!
//! Each site's authority keeps it; changing it is compare-and-swap at the authority of the home site. Every host keeps a
//! copy. Of two records the one with the higher `(epoch, version)` wins, everywhere and always.

use crate::name::{DatabaseName, HostName, ServerName, SiteName};
use rules::id::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The state of a pool, in the reference's words (ha-dr §10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolState {
    /// The primary site's databases are used.
    Normal,
    /// The backup site's databases are used.
    FailedOver,
}

impl std::fmt::Display for PoolState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PoolState::Normal => "Normal",
            PoolState::FailedOver => "FailedOver",
        })
    }
}

/// The pool's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Rises with every change within an epoch and across epochs.
    pub version: u64,
    /// The epoch of the present writer, or of the writer that is being made.
    pub epoch: Epoch,
    /// Normal or FailedOver.
    pub state: PoolState,
    /// The site whose authority changes this record.
    pub home: SiteName,
    /// Servers that accept clients and use the databases.
    pub active_servers: Vec<ServerName>,
    /// Who plays which part, a database each.
    pub databases: BTreeMap<DatabaseName, DatabaseRecord>,
    /// Sites that a failover has declared lost and fenced, with the epoch that did so. An entry goes away when the
    /// site's databases follow the present principal again.
    #[serde(default)]
    pub lost_sites: BTreeMap<SiteName, Epoch>,
    /// The runbook under way, if any: starting one is a compare-and-swap on this field.
    #[serde(default)]
    pub run: Option<RunRef>,
}

/// Which run holds the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    /// The run's id.
    pub id: String,
    /// `failover`, `failback`, …
    pub runbook: String,
    /// Who started it.
    pub started_by: String,
    /// When, RFC 3339 in UTC.
    pub started_at: String,
}

/// Who plays which part for one database. The parts are symmetrical: after a failover the backup site's hosts are
/// principal and mirror, and during a failback the returning hosts are backup and backup mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// The writer; `None` while a change of writer is under way.
    pub principal: Option<HostName>,
    /// The principal's synchronous partner.
    pub mirror: Option<MirrorRecord>,
    /// The log-shipping secondary at the other site.
    pub backup: Option<HostName>,
    /// The backup's warm mirror: a standby fed by the backup.
    pub backup_mirror: Option<HostName>,
    /// An administrator has turned log shipping off: nothing goes into the share until it is turned on again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shipping_off: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The mirror of a principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRecord {
    /// Where it runs.
    pub host: HostName,
    /// Whether the principal commits only together with it. The principal may stop waiting for the mirror only after
    /// this has been recorded as false, and it is recorded as true only after the principal waits.
    pub synchronised: bool,
}

/// The part that a host plays for a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The writer.
    Principal,
    /// Its synchronous partner.
    Mirror,
    /// The log-shipping secondary.
    Backup,
    /// The backup's warm mirror.
    BackupMirror,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::Principal => "principal",
            Part::Mirror => "mirror",
            Part::Backup => "backup",
            Part::BackupMirror => "backup mirror",
        })
    }
}

impl DatabaseRecord {
    /// The part of `host`, if it has one now.
    pub fn part_of(&self, host: &HostName) -> Option<Part> {
        if self.principal.as_ref() == Some(host) {
            Some(Part::Principal)
        } else if self.mirror.as_ref().is_some_and(|m| m.host == *host) {
            Some(Part::Mirror)
        } else if self.backup.as_ref() == Some(host) {
            Some(Part::Backup)
        } else if self.backup_mirror.as_ref() == Some(host) {
            Some(Part::BackupMirror)
        } else {
            None
        }
    }

    /// The host from which `host` receives its log, if it is a standby and its source exists.
    pub fn upstream_of(&self, host: &HostName) -> Option<&HostName> {
        match self.part_of(host)? {
            Part::Principal => None,
            Part::Mirror | Part::Backup => self.principal.as_ref(),
            Part::BackupMirror => self.backup.as_ref(),
        }
    }
}

impl PoolRecord {
    /// Whether this record replaces `other` wherever both are seen.
    pub fn supersedes(&self, other: &PoolRecord) -> bool {
        (self.epoch, self.version) > (other.epoch, other.version)
    }

    /// Whether `server` is active.
    pub fn is_active(&self, server: &ServerName) -> bool {
        self.active_servers.contains(server)
    }
}
