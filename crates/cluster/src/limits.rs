//! Limits of a planned change of writer: what it may cost its users, and when it is given up.
//!
//! Asked before the run begins, and at every look until its point of no return: what is known to be needed counts before it is
//! used up. A run that would break a limit is undone by itself, as an administrator would undo it.

use crate::hand_over::standing::{principals, receiver};
use crate::report::InstanceState;
use crate::runbook::{Runbook, Unmet, View};
use serde::{Deserialize, Serialize};

/// The first step that users notice, in both runbooks that have limits.
pub const GAP_BEGINS: &str = "clear-active-servers";
/// The last.
pub const GAP_ENDS: &str = "set-active-servers";

/// How fast a standby applies log, in bytes a second, where nothing better is known: cautious.
const APPLIED_PER_S: u64 = 16 * 1024 * 1024;

/// Limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Longest time in which nobody can post, in milliseconds. A run that is given up in the middle takes a moment more until the
    /// writer is open again.
    pub gap_ms: u64,
    /// Longest time until the users are served at the other site, in milliseconds, what is done online included.
    pub whole_ms: u64,
    /// Most log that who receives may lack or have to apply when the run begins, in bytes.
    pub behind_bytes: u64,
    /// Least room on the volume of every instance that takes part, in bytes.
    pub room_bytes: u64,
}

impl Default for Limits {
    /// For a planned failover that nobody has given limits.
    fn default() -> Self {
        Self { gap_ms: 10_000, whole_ms: 600_000, behind_bytes: 256 << 20, room_bytes: 256 << 20 }
    }
}

/// How far a run is, and what is known of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Milliseconds since the run began.
    pub whole_ms: u64,
    /// Milliseconds since users began to notice it; `None` before that.
    pub gap_ms: Option<u64>,
    /// How long users noticed the last complete runs, in milliseconds (median); `None` when there was none.
    pub last_gap_ms: Option<u64>,
}

/// What a limit is broken by, or would be; `None` while none is.
pub fn broken(limits: &Limits, progress: &Progress, view: &View<'_>) -> Option<String> {
    let Progress { whole_ms, gap_ms, last_gap_ms } = *progress;
    if whole_ms > limits.whole_ms {
        return Some(format!("it has taken {}, and may take {}", seconds(whole_ms), seconds(limits.whole_ms)));
    }
    if let Some(gap) = gap_ms.filter(|gap| *gap > limits.gap_ms) {
        return Some(format!(
            "nobody has been able to post for {}, and the limit is {}",
            seconds(gap),
            seconds(limits.gap_ms)
        ));
    }
    let backlog_ms = behind_bytes(view).unwrap_or_default().saturating_mul(1000) / APPLIED_PER_S;
    let expected = match gap_ms {
        // What is still to be applied is applied online, as long as users notice nothing.
        None => last_gap_ms.unwrap_or_default(),
        Some(gap) => gap.saturating_add(backlog_ms).max(last_gap_ms.unwrap_or_default()),
    };
    (expected > limits.gap_ms).then(|| {
        let known = if last_gap_ms == Some(expected) { ", as in the last runs" } else { "" };
        format!(
            "users could not post for about {}{known}, and the limit is {}",
            seconds(expected),
            seconds(limits.gap_ms)
        )
    })
}

/// What speaks against beginning a run within these limits.
pub fn preflight(limits: &Limits, last_gap_ms: Option<u64>, view: &View<'_>) -> Vec<Unmet> {
    let progress = Progress { last_gap_ms, ..Progress::default() };
    let unmet = |why: String, hint: &str| Unmet { why, hint: hint.into(), can_be_forced: false };
    let mut all = Vec::new();
    all.extend(broken(limits, &progress, view).map(|why| {
        unmet(why, "look at the last run (standfast runbook show) for what took so long, or give it more time")
    }));
    if let Some(behind) = behind_bytes(view).filter(|behind| *behind > limits.behind_bytes) {
        let why = format!(
            "{} lacks {} of log, or has to apply it, and the limit is {}",
            view.facts.to_site,
            megabytes(behind),
            megabytes(limits.behind_bytes)
        );
        all.push(unmet(why, "see standfast log-shipping state; begin when it has caught up"));
    }
    for (host, report) in view.reports {
        for (name, instance) in report.instances.iter().filter(|(_, i)| i.state != InstanceState::Absent) {
            if instance.free_bytes < limits.room_bytes {
                let why = format!(
                    "the volume of {name} on {host} has {} free, and the limit is {}",
                    megabytes(instance.free_bytes),
                    megabytes(limits.room_bytes)
                );
                all.push(unmet(why, "make room"));
            }
        }
    }
    all
}

/// The limits beside what is known, for people.
pub fn found(limits: &Limits, last_gap_ms: Option<u64>, view: &View<'_>) -> String {
    let last =
        last_gap_ms.map_or("no run was measured yet".to_owned(), |ms| format!("{} in the last runs", seconds(ms)));
    let behind = behind_bytes(view).map_or("not known".to_owned(), megabytes);
    format!(
        "limits: nobody unable to post for longer than {} ({last}), served there within {}, \
         {} has to apply {} at most ({behind} now), {} free on every volume; \
         it is given up by itself before one is broken",
        seconds(limits.gap_ms),
        seconds(limits.whole_ms),
        view.facts.to_site,
        megabytes(limits.behind_bytes),
        megabytes(limits.room_bytes)
    )
}

/// How much log of the writers is not applied yet where it is to be received; `None` where that is not seen.
pub fn behind_bytes(view: &View<'_>) -> Option<u64> {
    let behind = principals(view).into_iter().map(|(database, from)| {
        let writer = view.instance(&from, &database)?;
        let written = writer.written.or(writer.shut_down_at.map(|stop| stop.end))?;
        let applied = view.instance(&receiver(view, &database)?, &database)?.applied?;
        Some(written.bytes_after(applied))
    });
    behind.max().flatten()
}

/// Whether a runbook can be given limits: it has a gap, and a way back before its point of no return.
pub fn apply_to(runbook: &Runbook) -> bool {
    let has_gap = runbook.step(GAP_BEGINS).is_some() && runbook.step(GAP_ENDS).is_some();
    has_gap && crate::abort::abort_of(runbook).is_some()
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests;
