//! Runs of runbooks, as an authority offers them. The caller only starts and watches: the run goes on without it.
//!
//! | Request | Body → answer |
//! | --- | --- |
//! | `POST /v1/runs` | `StartRun` → `RunAnswer`; if the same runbook is under way already, it is resumed and watched |
//! | `GET /v1/runs/{id}?after=N&wait_ms=M` | → `RunProgress`: events after number N, at once if there are any |
//! | `GET /v1/runs` | → `Vec<RunSummary>`, newest first |
//! | `POST /v1/runs/{id}/abort` | `AbortRun` → `AbortAnswer`; undoes what has been done, before the point of no return |

use cluster::limits::Limits;
use cluster::record::PoolRecord;
use cluster::runbook::{Deed, Facts, Unmet};
use cluster::switching::Partner;
use serde::{Deserialize, Serialize};

/// Start a runbook, or only plan it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRun {
    /// `failover` or `failback`.
    pub runbook: String,
    /// Plan only: nothing is recorded, nothing is ordered (`--what-if`).
    pub what_if: bool,
    /// Go on although a precondition that can be overridden does not hold.
    pub force: bool,
    /// Only this step, by its id; all when left out.
    #[serde(default)]
    pub only_step: Option<String>,
    /// Which partner of the mirror pair is to be principal, for the runbooks that switch it.
    #[serde(default)]
    pub new_principal: Option<Partner>,
    /// What it may cost; without them a planned failover has its own, and other runs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Who asks, for the record and the audit log.
    pub started_by: String,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum RunAnswer {
    /// The plan: what was found and what would be done. Nothing has been done.
    Plan(Box<Plan>),
    /// Started, or found under way and resumed.
    Started {
        /// The run's id.
        id: String,
        /// Whether it was under way already.
        resumed: bool,
        /// The plan.
        plan: Box<Plan>,
    },
    /// Refused before anything was done.
    Refused {
        /// What speaks against it.
        unmet: Vec<Unmet>,
        /// What was found, if it came to that.
        plan: Option<Box<Plan>>,
    },
    /// There is nothing to do: the pool is already where the runbook leads.
    AlreadyThere {
        /// For people.
        message: String,
    },
}

/// A plan: what was found and the steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The runbook.
    pub runbook: String,
    /// What was found, a line each, for people.
    pub found: Vec<String>,
    /// The facts.
    pub facts: Facts,
    /// The steps with what each would do as things stand now; later steps may find other things.
    pub steps: Vec<PlannedStep>,
    /// How long the whole run took in the last complete runs of this authority, waits for persons included.
    #[serde(default)]
    pub estimate: Option<Estimate>,
}

/// A step of a plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its id.
    pub id: String,
    /// Its number in the reference; empty for steps that safety adds.
    pub reference: String,
    /// Its sentence.
    pub says: String,
    /// Deeds as things stand now.
    pub deeds: Vec<Deed>,
    /// Whether it is done already.
    pub done: bool,
    /// What shows that it is done, or what is missing.
    #[serde(default)]
    pub seen: String,
    /// What its precondition says, where that does not hold.
    #[serde(default)]
    pub unmet: Option<Unmet>,
    /// From here on, forward only.
    pub point_of_no_return: bool,
    /// How long it took in the last complete runs of this authority.
    #[serde(default)]
    pub estimate: Option<Estimate>,
}

/// How long something took before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The median, in milliseconds.
    pub median_ms: u64,
    /// Of so many runs.
    pub runs: usize,
}

/// In place of a step's id in [`RunEventKind::Ordered`]: the change of the record by which the run claims the pool.
pub const CLAIM: &str = "claim";

/// An event of a run, as journalled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunEvent {
    /// 1, 2, 3 …
    pub number: u64,
    /// RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// Milliseconds since the run began.
    pub elapsed_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: RunEventKind,
}

/// What happened in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum RunEventKind {
    /// The run was recorded.
    Begun {
        /// The runbook.
        runbook: String,
        /// Who started it.
        started_by: String,
        /// What it works on.
        facts: Box<Facts>,
        /// Only this step, if not all.
        #[serde(default)]
        only_step: Option<String>,
        /// What was found, a line each, for people.
        #[serde(default)]
        found: Vec<String>,
    },
    /// A process took the run up again.
    Resumed,
    /// An administrator wants the run undone: from here on the steps of its runbook's abort are carried out.
    AbortBegun {
        /// Who.
        started_by: String,
        /// Why, where the run has given itself up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A step was taken up.
    StepBegun {
        /// Its id.
        step: String,
    },
    /// Deeds are about to be given: on disk before they go out.
    Ordered {
        /// The step.
        step: String,
        /// Number of the first order's stamp.
        stamp_number: u64,
        /// The deeds.
        deeds: Vec<Deed>,
    },
    /// The step waits for something.
    Waiting {
        /// The step.
        step: String,
        /// For what.
        reason: String,
        /// Whether a person has to do something.
        needs_person: bool,
    },
    /// Fresh reports show that the step is done.
    StepDone {
        /// The step.
        step: String,
        /// What shows it.
        evidence: String,
    },
    /// The run is over.
    Finished {
        /// Whether every step is done.
        complete: bool,
        /// Whether everything that was done has been undone.
        #[serde(default)]
        undone: bool,
        /// For people.
        message: String,
        /// The pool's record then, where it was seen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Box<PoolRecord>>,
    },
}

/// Undo a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbortRun {
    /// Tell what would be done only: nothing is recorded, nothing is ordered.
    pub what_if: bool,
    /// Who asks.
    pub started_by: String,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum AbortAnswer {
    /// It is being undone, or would be: these steps.
    Undoing {
        /// The steps that undo it.
        steps: Vec<PlannedStep>,
    },
    /// Refused; the run is as it was.
    Refused {
        /// Why, and what can be done instead.
        unmet: Vec<Unmet>,
    },
}

/// Progress of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunProgress {
    /// The run's id.
    pub id: String,
    /// The runbook.
    pub runbook: String,
    /// Events after the number asked for.
    pub events: Vec<RunEvent>,
    /// Whether it is over.
    pub over: bool,
    /// What was told of it, and to whom.
    #[serde(default)]
    pub notifications: Vec<crate::notification::Told>,
}

/// A run in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run's id.
    pub id: String,
    /// The runbook.
    pub runbook: String,
    /// Who started it.
    pub started_by: String,
    /// When.
    pub started_at: String,
    /// Whether it is over, and whether every step was done.
    pub complete: Option<bool>,
    /// The last step begun.
    pub step: Option<String>,
    /// Milliseconds from begin to end, or so far.
    pub elapsed_ms: u64,
    /// It is being undone, or was.
    #[serde(default)]
    pub aborted: bool,
    /// What it waits for, if its last event says that it waits.
    #[serde(default)]
    pub waits_for: Option<String>,
}
