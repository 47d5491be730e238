//! Backups: what one holds, how far its proof goes, and which are kept.
//!
//! A backup holds the database, the topology, the pool's record and its secret at one position. It counts when it has been
//! restored (promise 10): a proof restores it into a throwaway instance, chats on it and reads every entry.

use crate::name::{DatabaseName, HostName};
use crate::wal::Lsn;
use rules::id::Epoch;
use serde::{Deserialize, Serialize};

/// How old the newest proof may be before it is an alarm, in milliseconds: eight days, so that a weekly proof is never late.
pub const PROOF_AGE_MAX_MS: i64 = 8 * 86_400_000;

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// `backup-20261127T040000Z`.
    pub id: String,
    /// The pool.
    pub pool: String,
    /// Of which database.
    pub database: DatabaseName,
    /// Where it lies: the host whose standby was copied.
    pub host: HostName,
    /// Who asked for it.
    pub by: String,
    /// The epoch of the pool's record that lies beside the data.
    pub epoch: Epoch,
    /// When the copy began: milliseconds since the Unix epoch.
    pub began_at_ms: i64,
    /// When it was whole: milliseconds since the Unix epoch.
    pub done_at_ms: i64,
    /// Where the log begins that it needs, and where it is consistent: it can be restored to here, and from here on as far as the
    /// archive goes.
    pub begins: Lsn,
    /// See `begins`.
    pub ends: Lsn,
    /// Its size.
    pub bytes: u64,
    /// What the last proof found; `None` when it has never been restored.
    #[serde(default)]
    pub proof: Option<Proof>,
}

/// What came of restoring a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// When: milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// How long it took until somebody could post, in milliseconds.
    pub took_ms: u64,
    /// Rooms that were read.
    pub rooms: u64,
    /// Entries that were read and checked against their rooms' chains.
    pub entries: u64,
    /// Why it failed; `None` when the backup is proven.
    pub failed: Option<String>,
}

impl Proof {
    /// The result in a few words.
    pub fn says(&self) -> String {
        match &self.failed {
            Some(why) => format!("FAILED: {why}"),
            None => format!(
                "restored in {:.1} s; {} entries in {} rooms read, all fit",
                self.took_ms as f64 / 1000.0,
                self.entries,
                self.rooms
            ),
        }
    }
}

/// How far a restore goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreTo {
    /// Where the backup is consistent.
    Backup,
    /// The last transaction that was committed by this time: milliseconds since the Unix epoch.
    Time(i64),
    /// As far as the archive goes.
    Latest,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum AskBackup {
    /// Make one of the standby of that host.
    Create {
        /// Of which database.
        database: DatabaseName,
        /// So many whole ones stay, the newest proven one among them; `None`: all of them.
        keep: Option<u32>,
        /// Who asks.
        by: String,
    },
    /// Restore it into a throwaway instance, chat on it, read everything, and clear it away.
    Prove {
        /// Which.
        id: String,
        /// Who asks.
        by: String,
    },
    /// Restore it into a folder of its own, as a pool of one host.
    Restore {
        /// Which.
        id: String,
        /// An absolute path on that host, which is not there yet.
        into: String,
        /// How far.
        to: RestoreTo,
        /// Who asks.
        by: String,
    },
}

/// What is told of a host's backups in its report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupsReport {
    /// The newest backup.
    pub newest: Backup,
    /// The backup that was proven last.
    pub proven: Option<Backup>,
}

/// The report of these backups; `None` when there are none.
pub fn report<'a>(backups: impl Iterator<Item = &'a Backup> + Clone) -> Option<BackupsReport> {
    let newest = backups.clone().max_by_key(|b| b.began_at_ms)?.clone();
    Some(BackupsReport { newest, proven: last_proven(backups).cloned() })
}

fn last_proven<'a>(backups: impl Iterator<Item = &'a Backup>) -> Option<&'a Backup> {
    let proven = backups.filter(|b| b.proof.as_ref().is_some_and(|p| p.failed.is_none()));
    proven.max_by_key(|b| b.proof.as_ref().map(|p| p.at_ms))
}

/// What is wrong with the backups of a pool, from the reports of its hosts; `None` when nothing is, or when nobody makes any.
pub fn alarm<'a>(reports: impl Iterator<Item = &'a BackupsReport> + Clone, now_ms: i64) -> Option<String> {
    let newest = reports.clone().map(|r| &r.newest).max_by_key(|b| b.began_at_ms)?;
    if let Some(why) = newest.proof.as_ref().and_then(|p| p.failed.as_ref()) {
        return Some(format!("the newest backup, {} on {}, could not be restored: {why}", newest.id, newest.host));
    }
    let proven = last_proven(reports.filter_map(|r| r.proven.as_ref()));
    let age = proven.and_then(|b| b.proof.as_ref()).map(|p| now_ms.saturating_sub(p.at_ms));
    match age {
        None if now_ms.saturating_sub(newest.done_at_ms) > PROOF_AGE_MAX_MS => {
            Some("no backup has ever been proven: standfast backup prove".into())
        }
        Some(age) if age > PROOF_AGE_MAX_MS => {
            Some(format!("the last proof of a backup is {} days old: standfast backup prove", age / 86_400_000))
        }
        None | Some(_) => None,
    }
}

/// The backups of a database that go when `keep` are to stay, oldest first. The one that was proven last stays in any case: what
/// is newer may turn out not to be restorable.
pub fn superfluous(backups: &[Backup], database: &DatabaseName, keep: u32) -> Vec<String> {
    let mut own: Vec<&Backup> = backups.iter().filter(|b| b.database == *database).collect();
    own.sort_by_key(|b| b.began_at_ms);
    let proven = last_proven(own.iter().copied()).map(|b| b.id.clone());
    let go = own.len().saturating_sub(keep.max(1) as usize);
    own[..go].iter().filter(|b| Some(&b.id) != proven.as_ref()).map(|b| b.id.clone()).collect()
}

/// Where the log lies that a copy needs: from its `backup_manifest`, which PostgreSQL writes.
pub fn wal_range(manifest: &str) -> Option<(Lsn, Lsn)> {
    let manifest: serde_json::Value = serde_json::from_str(manifest).ok()?;
    let ranges = manifest.get("WAL-Ranges")?.as_array()?;
    let place = |range: &serde_json::Value, which: &str| range.get(which)?.as_str()?.parse::<Lsn>().ok();
    let begins = ranges.iter().map(|r| place(r, "Start-LSN")).collect::<Option<Vec<_>>>()?.into_iter().min()?;
    let ends = ranges.iter().map(|r| place(r, "End-LSN")).collect::<Option<Vec<_>>>()?.into_iter().max()?;
    Some((begins, ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn backup(day: i64, proof: Option<(i64, Option<&str>)>) -> Backup {
        Backup {
            id: format!("backup-{day}"),
            pool: "p".into(),
            database: "mgc".into(),
            host: "h".into(),
            by: "b".into(),
            epoch: Epoch(1),
            began_at_ms: day * DAY,
            done_at_ms: day * DAY,
            begins: Lsn(1),
            ends: Lsn(2),
            bytes: 3,
            proof: proof.map(|(at, failed)| Proof {
                at_ms: at * DAY,
                took_ms: 1_500,
                rooms: 2,
                entries: 3,
                failed: failed.map(str::to_owned),
            }),
        }
    }

    fn alarm_of(backups: &[Backup], day: i64) -> Option<String> {
        let report = report(backups.iter());
        alarm(report.iter(), day * DAY)
    }

    #[test]
    fn a_proof_that_is_old_or_failed_is_an_alarm() {
        assert_eq!(alarm_of(&[], 100), None, "nobody makes any");
        let fresh = [backup(1, Some((2, None))), backup(8, None)];
        assert_eq!(alarm_of(&fresh, 10), None);
        assert_eq!(
            alarm_of(&fresh, 11).as_deref(),
            Some("the last proof of a backup is 9 days old: standfast backup prove")
        );
        assert_eq!(alarm_of(&[backup(1, None)], 9), None);
        assert!(alarm_of(&[backup(1, None)], 10).is_some_and(|a| a.contains("ever been proven")));
        let broken = [backup(1, Some((2, None))), backup(8, Some((9, Some("no room"))))];
        let says = "the newest backup, backup-8 on h, could not be restored: no room";
        assert_eq!(alarm_of(&broken, 9).as_deref(), Some(says));
    }

    #[test]
    fn the_oldest_go_and_the_last_proven_one_stays() {
        let mut all = vec![backup(3, None), backup(1, Some((5, None))), backup(2, Some((2, None))), backup(4, None)];
        let gone = |all: &[Backup], keep| superfluous(all, &"mgc".into(), keep);
        assert_eq!(gone(&all, 4), Vec::<String>::new());
        assert_eq!(gone(&all, 2), ["backup-2"], "backup-1 was proven last");
        assert_eq!(gone(&all, 0), ["backup-2", "backup-3"], "one stays always");
        all.push(Backup { database: "mgccomp".into(), ..backup(0, None) });
        assert_eq!(gone(&all, 2), ["backup-2"], "another database's are another's");
    }

    #[test]
    fn a_manifest_says_which_log_is_needed() {
        let manifest = r#"{ "WAL-Ranges": [ { "Timeline": 2, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" } ] }"#;
        assert_eq!(wal_range(manifest), Some((Lsn(0x200_0028), Lsn(0x200_0100))));
        assert_eq!(wal_range("{}"), None);
        assert_eq!(wal_range("PostgreSQL"), None);
    }
}
