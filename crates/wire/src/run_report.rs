//! A run's report, as `--report FILE.json` writes it and as its page is made from. Everything in it comes from the run's
//! journal, so it can be made again at any time.

use cluster::name::{DatabaseName, SiteName};
use cluster::record::PoolRecord;
use cluster::runbook::{Deed, Exposure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Every step is done.
    Complete,
    /// It was undone, and the pool is as it was.
    Aborted,
    /// It is being undone.
    Aborting,
    /// It stands still after a step by hand, or another run took its place, or it was refused the pool.
    Stopped,
    /// It is under way.
    UnderWay,
}

/// The report of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The pool.
    pub pool: String,
    /// The run's id.
    pub run: String,
    /// The runbook.
    pub runbook: String,
    /// The runbook in one sentence.
    pub says: String,
    /// Everybody who started it or a step of it, or had it undone, in order.
    pub started_by: Vec<String>,
    /// When it began, RFC 3339 in UTC.
    pub began_at: String,
    /// When it ended; `None` while it is under way.
    pub ended_at: Option<String>,
    /// Milliseconds from begin to the last event.
    pub took_ms: u64,
    /// The site that loses the writer.
    pub from_site: SiteName,
    /// The site that gets it.
    pub to_site: SiteName,
    /// Whether it was forced.
    pub forced: bool,
    /// How it stands.
    pub standing: Standing,
    /// What it said at its end.
    pub outcome: String,
    /// What was found when it began.
    pub found: Vec<String>,
    /// What each database stood to lose when it began.
    pub exposure: BTreeMap<DatabaseName, Exposure>,
    /// The steps of the runbook, begun or not; then, if it was aborted, those that undid it.
    pub steps: Vec<ReportedStep>,
    /// Beside the steps: that it was taken up again, that its abort was asked for.
    pub notes: Vec<Note>,
    /// Who was told of it, of what, and how that went, when the report was made.
    #[serde(default)]
    pub notifications: Vec<crate::notification::Told>,
    /// The pool's record before.
    pub before: PoolRecord,
    /// The pool's record as the run last wrote or saw it.
    pub after: PoolRecord,
}

/// A step of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedStep {
    /// 1, 2, 3 …
    pub number: usize,
    /// Its id.
    pub id: String,
    /// Its number in the reference; empty for steps that safety adds.
    pub reference: String,
    /// Its sentence.
    pub says: String,
    /// From here on, forward only.
    pub point_of_no_return: bool,
    /// It belongs to what undoes the run.
    pub undoes: bool,
    /// When it was first taken up.
    pub began_at: Option<String>,
    /// When it was seen done.
    pub done_at: Option<String>,
    /// Milliseconds from the one to the other.
    pub took_ms: Option<u64>,
    /// The orders that were given, repetitions included.
    pub orders: Vec<GivenOrder>,
    /// What it waited for.
    pub waits: Vec<Wait>,
    /// What showed that it was done.
    pub evidence: Option<String>,
}

/// An order, or a change of the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenOrder {
    /// When it was journalled, just before it went out.
    pub at: String,
    /// In words.
    pub says: String,
    /// The deed itself.
    pub deed: Deed,
}

/// A wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Since when.
    pub at: String,
    /// For what.
    pub reason: String,
    /// Whether a person had to do something.
    pub needs_person: bool,
}

/// Something that happened to the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: String,
    /// What.
    pub says: String,
}
