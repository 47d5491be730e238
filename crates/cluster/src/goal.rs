//! What the record asks of one instance. The agent's reconciler holds its PostgreSQL to this; changes of writer never
//! come from here but from orders of a runbook.

use crate::name::{DatabaseName, HostName};
use crate::record::{Part, PoolRecord};

/// What an instance is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The writer. Its commits wait for `wait_for`, if any. It ships its log to the share when a backup exists.
    Principal {
        /// The mirror that commits wait for; `Some` exactly while the record says synchronised.
        wait_for: Option<HostName>,
        /// A mirror that is to become synchronous as soon as it has caught up.
        candidate: Option<HostName>,
        /// Whether there is a backup to ship to.
        ships: bool,
        /// Whether finished segments go into the share: also while there is no backup, so that one that comes back finds
        /// them; not after an administrator has turned log shipping off.
        archives: bool,
    },
    /// A standby that streams from `upstream`; `None` while there is none, when it waits and keeps what it has.
    Standby {
        /// Mirror, backup or backup mirror.
        part: Part,
        /// Where its log comes from.
        upstream: Option<HostName>,
        /// Whether the share feeds it too.
        from_share: bool,
    },
    /// No part in the pool now: stay stopped, keep everything.
    Idle,
}

/// The goal of the instance of `database` on `host`.
pub fn goal(record: &PoolRecord, database: &DatabaseName, host: &HostName) -> Goal {
    let Some(d) = record.databases.get(database) else { return Goal::Idle };
    let Some(part) = d.part_of(host) else { return Goal::Idle };
    match part {
        Part::Principal => Goal::Principal {
            wait_for: d.mirror.as_ref().filter(|m| m.synchronised).map(|m| m.host.clone()),
            candidate: d.mirror.as_ref().filter(|m| !m.synchronised).map(|m| m.host.clone()),
            ships: d.backup.is_some() && !d.shipping_off,
            archives: !d.shipping_off,
        },
        Part::Mirror | Part::Backup | Part::BackupMirror => {
            Goal::Standby { part, upstream: d.upstream_of(host).cloned(), from_share: part == Part::Backup }
        }
    }
}

/// Whether a standby without a part is to be stopped. In a change of writer it is not: it will have a part again at once.
pub fn rests(record: &PoolRecord) -> bool {
    let takes_parts_away = [
        crate::shipping::DISABLE_LOG_SHIPPING.name,
        crate::mirroring::REMOVE_MIRROR.name,
        crate::growing::REMOVE_BACKUP_MIRROR.name,
    ];
    record.run.as_ref().is_none_or(|run| takes_parts_away.contains(&run.runbook.as_str()))
}
