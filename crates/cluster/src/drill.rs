//! Drills: what a rehearsal on a throwaway copy found, and whether one may begin.

pub mod switch;

use self::switch::SwitchFigures;
use crate::name::{DatabaseName, HostName};
use crate::record::PoolRecord;
use crate::report::{InstanceReport, InstanceState};
use serde::{Deserialize, Serialize};

/// Room that a copy needs beside the data itself, in bytes: its log, and what a chat server writes.
pub const ROOM_BESIDE_BYTES: u64 = 512 * 1024 * 1024;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartDrill {
    /// Of which database.
    pub database: DatabaseName,
    /// Who asks.
    pub by: String,
}

/// What an agent does beside what the record asks of it, one at a time on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A rehearsal on a throwaway copy.
    #[default]
    Sandbox,
    /// The pool itself is handed over to the other site, and home again.
    Switch,
    /// A backup is made.
    Backup,
    /// A backup is restored into a throwaway instance.
    Proof,
    /// A backup is restored.
    Restore,
}

impl Work {
    /// What its ids begin with.
    pub fn word(self) -> &'static str {
        match self {
            Work::Sandbox => "sandbox",
            Work::Switch => "switch",
            Work::Backup => "backup",
            Work::Proof => "proof",
            Work::Restore => "restore",
        }
    }

    /// Whether it is a drill.
    pub fn is_drill(self) -> bool {
        matches!(self, Work::Sandbox | Work::Switch)
    }

    /// Its name for people.
    pub fn says(self) -> &'static str {
        match self {
            Work::Sandbox => "drill",
            Work::Switch => "drill of a switch",
            Work::Backup => "backup",
            Work::Proof => "proof of a backup",
            Work::Restore => "restore",
        }
    }
}

/// One part of a drill that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStep {
    /// What was done.
    pub says: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A drill on a throwaway instance, under way or over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// `sandbox-20261126T220000Z`.
    pub id: String,
    /// What it is.
    #[serde(default)]
    pub work: Work,
    /// Who began it.
    pub by: String,
    /// Of which database.
    pub database: DatabaseName,
    /// Where: the host whose standby was copied.
    pub host: HostName,
    /// When it began: milliseconds since the Unix epoch.
    pub began_at_ms: i64,
    /// How long it has taken, in milliseconds, the copy and the clearing away included.
    pub took_ms: u64,
    /// What is done.
    pub steps: Vec<DrillStep>,
    /// What is being done.
    pub doing: Option<String>,
    /// From the moment that counts as the loss to the first acknowledged post on the copy, in milliseconds.
    pub rto_ms: Option<u64>,
    /// Entries that the principal had at that moment and the copy lacks; `None` when the principal was not heard.
    pub rpo_entries: Option<u64>,
    /// How much older than that moment the newest content of the copy is, in milliseconds; 0 when it lacks nothing.
    pub rpo_ms: Option<u64>,
    /// Rooms that were read.
    pub rooms: u64,
    /// Entries that were read and checked against their rooms' chains, every one.
    pub entries: u64,
    /// What a drill of a switch has measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<SwitchFigures>,
    /// What came of it, where that is no rehearsal.
    #[serde(default)]
    pub said: Option<String>,
    /// Why it failed; `None` while it is under way, and when it succeeded.
    pub failed: Option<String>,
    /// Whether it is over.
    pub over: bool,
}

impl DrillReport {
    /// A drill that has just begun.
    pub fn begun(id: String, work: Work, asked: &StartDrill, host: HostName, began_at_ms: i64) -> Self {
        Self {
            id,
            work,
            by: asked.by.clone(),
            database: asked.database.clone(),
            host,
            began_at_ms,
            took_ms: 0,
            steps: Vec::new(),
            doing: None,
            rto_ms: None,
            rpo_entries: None,
            rpo_ms: None,
            rooms: 0,
            entries: 0,
            switch: None,
            said: None,
            failed: None,
            over: false,
        }
    }

    /// The result in a sentence.
    pub fn says(&self) -> String {
        if let Some(why) = &self.failed {
            return format!("FAILED: {why}");
        }
        if let Some(figures) = &self.switch {
            return figures.says();
        }
        if let Some(said) = &self.said {
            return said.clone();
        }
        let known = |n: Option<u64>, unit: &str| {
            n.map_or_else(|| format!("an unknown number of {unit}"), |n| format!("{n} {unit}"))
        };
        let seconds = |ms: Option<u64>| ms.map_or("?".to_owned(), |ms| format!("{:.2} s", ms as f64 / 1000.0));
        format!(
            "RTO {}, RPO {}, {}; {} entries in {} rooms read, all fit",
            seconds(self.rto_ms),
            known(self.rpo_entries, "posts"),
            seconds(self.rpo_ms),
            self.entries,
            self.rooms
        )
    }
}

/// Drills of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drills {
    /// The one under way.
    pub under_way: Option<DrillReport>,
    /// Those that are over, oldest first.
    pub past: Vec<DrillReport>,
}

/// What was seen before a drill.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The newest record.
    pub record: &'a PoolRecord,
    /// The instance that is to be copied.
    pub instance: &'a InstanceReport,
    /// Bytes of its data, log included.
    pub data_bytes: u64,
    /// What is under way on the host.
    pub under_way: Option<&'a DrillReport>,
}

/// Why a drill may not begin, and what to do; `None` when it may.
pub fn refusal(before: &Before<'_>) -> Option<String> {
    let Before { record, instance, data_bytes, under_way } = *before;
    if let Some(drill) = under_way {
        return Some(format!("{} is under way here; begin the drill when it is over", drill.id));
    }
    if let Some(run) = &record.run {
        return Some(format!("{} is under way in the pool; begin the drill when it is over", run.runbook));
    }
    if instance.state != InstanceState::Standby {
        return Some(
            "its instance is no running standby: a drill copies a backup or its mirror, never a writer; see standfast pool \
             status"
                .into(),
        );
    }
    let needed = data_bytes.saturating_add(ROOM_BESIDE_BYTES);
    (needed > instance.free_bytes).then(|| {
        format!(
            "the copy needs {} MB on the volume of the data, and {} MB are free; make room, or name another host with --on",
            needed.div_ceil(1 << 20),
            instance.free_bytes >> 20
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PoolState, RunRef};
    use rules::id::Epoch;

    fn asked() -> StartDrill {
        StartDrill { database: "mgc".into(), by: "ines".into() }
    }

    fn check(change: impl FnOnce(&mut PoolRecord, &mut InstanceReport), under_way: bool, expect: Option<&str>) {
        let other = DrillReport::begun("proof-1".into(), Work::Proof, &asked(), "s2a".into(), 0);
        let mut record = PoolRecord {
            version: 1,
            epoch: Epoch::FIRST,
            state: PoolState::Normal,
            home: "site-1".into(),
            active_servers: Vec::new(),
            databases: [].into(),
            lost_sites: [].into(),
            run: None,
        };
        let mut instance =
            InstanceReport { free_bytes: 10 << 30, ..InstanceReport::unmeasured(InstanceState::Standby) };
        change(&mut record, &mut instance);
        let before = Before {
            record: &record,
            instance: &instance,
            data_bytes: 1 << 30,
            under_way: under_way.then_some(&other),
        };
        let said = refusal(&before);
        assert_eq!(said.is_some(), expect.is_some(), "{said:?}");
        let said = said.unwrap_or_default();
        assert!(said.contains(expect.unwrap_or_default()), "{said}");
    }

    #[test]
    fn a_drill_disturbs_nobody() {
        check(|_, _| {}, false, None);
        check(|_, _| {}, true, Some("proof-1 is under way here"));
        check(|_, i| i.state = InstanceState::Online, false, Some("never a writer"));
        check(
            |_, i| i.free_bytes = 1 << 30,
            false,
            Some("the copy needs 1536 MB on the volume of the data, and 1024 MB are free"),
        );
        let run = RunRef {
            id: "r".into(),
            runbook: "failover".into(),
            started_by: "ines".into(),
            started_at: "2026-11-26T22:00:00Z".into(),
        };
        check(|r, _| r.run = Some(run), false, Some("failover is under way"));
    }

    #[test]
    fn what_is_not_known_is_not_said_to_be_nothing() {
        let asked = asked();
        let begun = DrillReport::begun("sandbox-1".into(), Work::Sandbox, &asked, "s2a".into(), 0);
        let report = DrillReport { rto_ms: Some(420), rooms: 2, entries: 7, ..begun };
        assert_eq!(report.says(), "RTO 0.42 s, RPO an unknown number of posts, ?; 7 entries in 2 rooms read, all fit");
        let failed = DrillReport { failed: Some("no room".into()), ..report };
        assert_eq!(failed.says(), "FAILED: no room");
    }
}
