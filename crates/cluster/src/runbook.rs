//! Runbooks: procedures as tables of steps, and the pure function that carries a run forward.
//!
//! A step is one constant: what it says, what must hold before it, the orders and record changes that make it so, and
//! how fresh reports show that it is done. `done` is asked before anything is ordered, so a run that was killed anywhere
//! goes on by looking. The conductor journals what it is about to order before it orders it.

use crate::limits::Limits;
use crate::name::{DatabaseName, HostName, SiteName};
use crate::order::Order;
use crate::record::{PoolRecord, RunRef};
use crate::report::{HostReport, InstanceReport};
use crate::switching::Partner;
use crate::topology::Topology;
use crate::witness::TakeOver;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that a step is judged on. Reports are fresh: asked for a moment ago, and after everything that the run has ordered.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The published topology.
    pub topology: &'a Topology,
    /// The newest record.
    pub record: &'a PoolRecord,
    /// Reports of the hosts that answered.
    pub reports: &'a BTreeMap<HostName, HostReport>,
    /// Hosts that did not answer, with what was seen: refused, timed out, cut off.
    pub silent: &'a BTreeMap<HostName, Silence>,
    /// What the run was asked to do and what it has found out.
    pub facts: &'a Facts,
    /// Milliseconds since the present step began.
    pub step_age_ms: u64,
}

/// How a host is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// The connection was refused or closed: evidence that nothing runs there, or that the line is cut.
    Refused,
    /// No answer in time: may be alive.
    TimedOut,
}

/// What a run was asked, and what it found when it began. Journalled with the run, so that a resumed run works on the
/// same facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The record when the run began.
    pub before: PoolRecord,
    /// The site that will have the writer.
    pub to_site: SiteName,
    /// The site that loses the writer.
    pub from_site: SiteName,
    /// The administrator insisted although something spoke against it.
    pub force: bool,
    /// What each database stands to lose, as last seen.
    pub exposure: BTreeMap<DatabaseName, Exposure>,
    /// Which partner of the mirror pair is to be principal; `None` where the runbook has no such choice, or for the mirror.
    #[serde(default)]
    pub new_principal: Option<Partner>,
    /// The witness has begun the run by itself: an automatic failover to the mirror (ha-dr §13.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatic: Option<TakeOver>,
    /// What the run may cost; a run that would break a limit is given up before its point of no return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// What is at the principal and not yet at the backup, as far as anybody at the backup's site knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exposure {
    /// Entries of rooms; `None` when the principal was never heard.
    pub entries: Option<u64>,
    /// Bytes of log.
    pub bytes: Option<u64>,
    /// How old the backup's newest content is against the principal, in milliseconds.
    pub behind_ms: Option<u64>,
    /// How long ago the principal was last heard, in milliseconds: what it has acknowledged since is not known.
    pub heard_ms_ago: Option<u64>,
}

/// What a precondition that does not hold says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// What was seen and why it stands against the step.
    pub why: String,
    /// What a person can do.
    pub hint: String,
    /// Whether `--force` overrides it.
    pub can_be_forced: bool,
}

/// Whether a step is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Fresh reports show it; the sentence is evidence for the report.
    Yes(String),
    /// Not yet; the sentence says what is missing.
    NotYet(String),
}

/// What a step asks the conductor to do. Given in order; each may be given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Deed {
    /// Change the pool's record to this by compare-and-swap on the version that the step saw.
    SetRecord {
        /// The whole new record; version is that of the old one plus one.
        record: Box<PoolRecord>,
        /// Whose authority makes the change: the surviving site's, even where the old record names another home.
        at: SiteName,
    },
    /// Give an agent an order.
    Give {
        /// To whom.
        host: HostName,
        /// What.
        #[serde(flatten)]
        order: Order,
    },
}

/// What undoing a step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Leaves nothing behind.
    Nothing,
    /// `standfast runbook abort` puts it back: see [`crate::abort`].
    RestoreRecord,
    /// From here on, forward only.
    PointOfNoReturn,
}

/// One step of a runbook.
pub struct Step {
    /// Stable name, for journals, failpoints and the step's own command: `standfast step <runbook> <id>`.
    pub id: &'static str,
    /// The step's number in the reference's runbook (ha-dr §8, §10); empty for the steps that safety adds.
    pub reference: &'static str,
    /// The sentence on the page and on the screen, in the reference's words.
    pub says: &'static str,
    /// What must hold.
    pub needs: fn(&View<'_>) -> Result<(), Unmet>,
    /// What to do when it is not done.
    pub does: fn(&View<'_>) -> Vec<Deed>,
    /// How fresh reports show that it is done.
    pub done: fn(&View<'_>) -> Done,
    /// Whom the run looks at for this step; the others' reports may be of an earlier step. While nobody writes, each look costs
    /// users time, and the other site is far.
    pub looks_at: Whom,
    /// What undoing takes.
    pub undo: Undo,
    /// How long it may take before the run says that it waits, in milliseconds. Waiting goes on after that.
    pub patience_ms: u64,
}

/// Whom a run looks at for a step.
#[derive(Clone, Copy)]
pub enum Whom {
    /// Every host.
    Everybody,
    /// These hosts, as they follow from how things stood before the run.
    These(fn(&View<'_>) -> BTreeSet<HostName>),
}

/// A runbook.
pub struct Runbook {
    /// `failover`, `failback`.
    pub name: &'static str,
    /// One sentence.
    pub says: &'static str,
    /// What speaks against starting it, seen before anything is done.
    pub preflight: fn(&View<'_>) -> Vec<Unmet>,
    /// Set when the pool is already where the runbook leads, with the sentence that says so.
    pub already: fn(&View<'_>) -> Option<String>,
    /// The first change of the record: it claims the pool for the run, at the authority of the site named.
    pub claim: fn(&View<'_>, RunRef) -> (PoolRecord, SiteName),
    /// The record when every step is done: the run's claim is given up.
    pub says_at_end: fn(&View<'_>) -> String,
    /// The steps, in order.
    pub steps: &'static [Step],
}

/// Every runbook.
pub const ALL: &[&Runbook] = &[
    crate::failover::FAILOVER,
    crate::failback::FAILBACK,
    crate::planned_failover::PLANNED_FAILOVER,
    crate::initialise::INITIALISE,
    crate::mirroring::INSTALL_MIRROR,
    crate::mirroring::REMOVE_MIRROR,
    crate::switching::SWITCH_MIRROR,
    crate::switching::FORCE_MIRROR,
    crate::growing::ADD_BACKUP_MIRROR,
    crate::growing::REMOVE_BACKUP_MIRROR,
    crate::shipping::ENABLE_LOG_SHIPPING,
    crate::shipping::FOLLOW_AGAIN,
    crate::shipping::DISABLE_LOG_SHIPPING,
];

/// The runbook of that name.
pub fn named(name: &str) -> Option<&'static Runbook> {
    ALL.iter().find(|r| r.name == name).copied()
}

impl View<'_> {
    /// What the agent of `host` says of its instance of `database`.
    pub fn instance(&self, host: &HostName, database: &DatabaseName) -> Option<&InstanceReport> {
        self.reports.get(host).and_then(|r| r.instances.get(database))
    }

    /// How a silent host was silent, for people.
    pub fn silence(&self, host: &HostName) -> &'static str {
        match self.silent.get(host) {
            Some(Silence::Refused) => "connection refused",
            Some(Silence::TimedOut) => "no answer in time",
            None => "not asked yet",
        }
    }

    /// A change of the record, made at the home site's authority.
    pub fn change(&self, change: impl FnOnce(&mut PoolRecord)) -> Deed {
        let mut record = self.record.clone();
        change(&mut record);
        record.version = self.record.version + 1;
        let at = self.record.home.clone();
        Deed::SetRecord { record: Box::new(record), at }
    }
}

/// The claim of a run that its pool's home site carries: nothing else of the record changes.
pub fn claim_at_home(view: &View<'_>, run: RunRef) -> (PoolRecord, SiteName) {
    let mut record = view.record.clone();
    record.version += 1;
    record.run = Some(run);
    let at = record.home.clone();
    (record, at)
}

/// The precondition of a step that needs nothing.
///
/// # Errors
/// Never; the type is that of every precondition.
#[allow(clippy::unnecessary_wraps, reason = "its type is that of every precondition")]
pub fn nothing(_: &View<'_>) -> Result<(), Unmet> {
    Ok(())
}

/// All of several conditions: done when every one is, else what is missing first.
pub fn all_of(conditions: impl IntoIterator<Item = Done>) -> Done {
    let mut evidence = Vec::new();
    for condition in conditions {
        match condition {
            Done::Yes(sentence) => {
                if !sentence.is_empty() {
                    evidence.push(sentence);
                }
            }
            Done::NotYet(missing) => return Done::NotYet(missing),
        }
    }
    Done::Yes(evidence.join("; "))
}

impl Runbook {
    /// The step of that id, with its index.
    pub fn step(&self, id: &str) -> Option<(usize, &'static Step)> {
        self.steps.iter().enumerate().find(|(_, s)| s.id == id)
    }
}

/// What to do next in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The step is done: journal it with its evidence and go to the next.
    StepDone(String),
    /// A precondition does not hold. Before anything was ordered the run ends here, refused; later it waits.
    Blocked(Unmet),
    /// Do these, then look again.
    Act(Vec<Deed>),
    /// Look again soon; the sentence says what is waited for.
    Wait(String),
}

/// Carry a step forward, given a fresh view. Pure and total; the same for production, model and simulation.
/// `acted` says whether this step's deeds have been given since this process took up the step.
pub fn advance(step: &Step, view: &View<'_>, acted: bool) -> Next {
    let missing = match (step.done)(view) {
        Done::Yes(evidence) => return Next::StepDone(evidence),
        Done::NotYet(missing) => missing,
    };
    if let Err(unmet) = (step.needs)(view)
        && !(unmet.can_be_forced && view.facts.force)
    {
        return Next::Blocked(unmet);
    }
    let mut deeds = (step.does)(view);
    if acted {
        let late = view.step_age_ms > step.patience_ms;
        deeds.retain(|deed| is_due_again(deed, view, late));
    }
    if deeds.is_empty() { Next::Wait(missing) } else { Next::Act(deeds) }
}

/// Whether a deed that was given has to be given again: a record change that has not taken effect (somebody else changed the
/// record in between), or an order that its agent no longer knows or could not carry out. When the step is late, an order
/// that was carried out is given again too: its host may have lost power since, and what it did is gone.
fn is_due_again(deed: &Deed, view: &View<'_>, late: bool) -> bool {
    use crate::order::Outcome;
    match deed {
        Deed::SetRecord { .. } => true,
        Deed::Give { host, order } => {
            let taken = view.reports.get(host).and_then(|r| r.orders.get(order.database()));
            // The same order of an earlier run says nothing about this one.
            let this_run = view.record.run.as_ref().map(|r| r.id.as_str());
            let taken = taken.filter(|t| t.order == *order && Some(t.run.as_str()) == this_run);
            match taken.map(|t| &t.outcome) {
                Some(Outcome::Running { .. }) => false,
                Some(Outcome::Done { .. }) => late,
                Some(Outcome::Failed { .. } | Outcome::TooOld { .. }) | None => true,
            }
        }
    }
}
