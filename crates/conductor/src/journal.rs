//! Journals: one file of JSON lines a run, each line on disk before what it announces is done.

use cluster::Epoch;
use cluster::order::Stamp;
use cluster::runbook::{Deed, Facts};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wire::run::{CLAIM, RunEvent, RunEventKind, RunProgress, RunSummary};

/// The journal of one run.
pub struct Journal {
    /// The run's id.
    pub id: String,
    file: Mutex<File>,
    events: watch::Sender<Vec<RunEvent>>,
    /// When it was opened, and how old the run was then: from there on a clock that is set changes nothing about its age.
    opened: Instant,
    age_then: Duration,
}

/// Open every journal in the folder.
pub fn open_all(folder: &Path) -> Result<BTreeMap<String, Arc<Journal>>, String> {
    fs::create_dir_all(folder).map_err(|e| format!("create {}: {e}", folder.display()))?;
    let mut all = BTreeMap::new();
    let entries = fs::read_dir(folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    for path in entries.flatten().map(|e| e.path()) {
        let Some(id) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jsonl")) else {
            continue;
        };
        let journal = Journal::open(&path, id)?;
        if journal.begun().is_some() {
            all.insert(id.to_owned(), Arc::new(journal));
        }
    }
    Ok(all)
}

impl Journal {
    /// Begin a journal in the folder.
    pub fn begin(folder: &Path, id: &str, begun: RunEventKind) -> Result<Self, String> {
        let journal = Self::open(&folder.join(format!("{id}.jsonl")), id)?;
        journal.add(begun)?;
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| format!("sync {}: {e}", folder.display()))?;
        Ok(journal)
    }

    /// Open a journal. A last line that was torn by a crash announced nothing that was done, and is cut off.
    fn open(path: &PathBuf, id: &str) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("open the journal {}: {e}", path.display());
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(failed)?,
        };
        let mut events = Vec::new();
        let mut whole = 0;
        for line in text.split_inclusive('\n') {
            let Ok(event) = serde_json::from_str::<RunEvent>(line) else { break };
            if !line.ends_with('\n') {
                break;
            }
            whole += line.len();
            events.push(event);
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        let (file, age_then) = (Mutex::new(file), age(&events, Timestamp::now()));
        Ok(Self { id: id.to_owned(), file, events: watch::Sender::new(events), opened: Instant::now(), age_then })
    }

    /// Add an event; what is about to be done, or has been decided, is on disk when this returns.
    pub fn add(&self, what: RunEventKind) -> Result<(), String> {
        self.add_if(|_| Ok(()), what)
    }

    /// Add an event of a run that goes forward; refused once it is being undone, so that nothing is ordered after that.
    pub fn add_forward(&self, what: RunEventKind) -> Result<(), String> {
        let undone = |events: &[RunEvent]| events.iter().any(|e| matches!(e.what, RunEventKind::AbortBegun { .. }));
        let still =
            |events: &[RunEvent]| if undone(events) { Err("the run is being undone".to_owned()) } else { Ok(()) };
        self.add_if(still, what)
    }

    /// Add an event unless something in the journal speaks against it; nothing else comes in between.
    pub fn add_if(
        &self,
        check: impl FnOnce(&[RunEvent]) -> Result<(), String>,
        what: RunEventKind,
    ) -> Result<(), String> {
        let mut file = self.file.lock().expect("nothing panics while it writes a journal");
        let events = self.events.borrow();
        check(&events)?;
        let (at, elapsed_ms) = (format!("{:.3}", Timestamp::now()), if events.is_empty() { 0 } else { self.age_ms() });
        let event = RunEvent { number: events.len() as u64 + 1, at, elapsed_ms, what };
        drop(events);
        let mut line = serde_json::to_vec(&event).map_err(|e| e.to_string())?;
        line.push(b'\n');
        let failed = |e: std::io::Error| format!("write the journal of run {}: {e}", self.id);
        file.write_all(&line).map_err(failed)?;
        if decides(&event.what) {
            file.sync_data().map_err(failed)?;
        }
        self.events.send_modify(|all| all.push(event));
        Ok(())
    }

    /// Milliseconds since the run began.
    pub fn age_ms(&self) -> u64 {
        (self.age_then + self.opened.elapsed()).as_millis() as u64
    }

    /// When a step first gave orders, in milliseconds since the run began.
    pub fn first_ordered_ms(&self, step: &str) -> Option<u64> {
        let events = self.events.borrow();
        let ordered = |e: &&RunEvent| matches!(&e.what, RunEventKind::Ordered { step: by, .. } if by == step);
        events.iter().find(ordered).map(|e| e.elapsed_ms)
    }

    /// Whether the run is being undone, or was.
    pub fn is_aborted(&self) -> bool {
        self.events.borrow().iter().any(|e| matches!(e.what, RunEventKind::AbortBegun { .. }))
    }

    /// Returns when the run is being undone.
    pub async fn aborted(&self) {
        let mut events = self.watch();
        let undone = |all: &Vec<RunEvent>| all.iter().any(|e| matches!(e.what, RunEventKind::AbortBegun { .. }));
        if events.wait_for(undone).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<RunEvent> {
        self.events.borrow().clone()
    }

    /// Look at all events so far.
    pub fn with_events<T>(&self, look: impl FnOnce(&[RunEvent]) -> T) -> T {
        look(&self.events.borrow())
    }

    /// Follow the events.
    pub fn watch(&self) -> watch::Receiver<Vec<RunEvent>> {
        self.events.subscribe()
    }

    /// Runbook, who started it, its facts, and the only step, if it is about one.
    pub fn begun(&self) -> Option<(String, String, Facts, Option<String>)> {
        let events = self.events.borrow();
        let mut all = events.iter().filter_map(|e| match &e.what {
            RunEventKind::Begun { runbook, started_by, facts, only_step, .. } => {
                Some((runbook, started_by, facts, only_step))
            }
            _ => None,
        });
        let (runbook, started_by, facts, first_only) = all.next()?;
        // A run that goes on step by step begins anew with each: on the facts of the first.
        let only_step = all.next_back().map_or(first_only, |latest| latest.3);
        Some((runbook.clone(), started_by.clone(), (**facts).clone(), only_step.clone()))
    }

    /// Whether the run is over, and whether it is complete.
    pub fn over(&self) -> Option<bool> {
        let events = self.events.borrow();
        let last = events.iter().rev().find_map(|e| match e.what {
            RunEventKind::Finished { complete, .. } => Some(Some(complete)),
            RunEventKind::Begun { .. } | RunEventKind::AbortBegun { .. } => Some(None),
            _ => None,
        });
        last.flatten()
    }

    /// Whether a step has been done in this run.
    pub fn is_done(&self, step: &str) -> bool {
        self.events
            .borrow()
            .iter()
            .any(|e| matches!(&e.what, RunEventKind::StepDone { step: done, .. } if done == step))
    }

    /// Whether a step has given orders in this run.
    pub fn has_ordered(&self, step: &str) -> bool {
        ordered(&self.events.borrow(), step)
    }

    /// A stamp above every one that this run, or an earlier one, may have given in this epoch.
    pub fn next_stamp(&self, epoch: Epoch) -> Stamp {
        next_stamp(&self.events.borrow(), epoch)
    }

    /// Progress after an event.
    pub fn progress(&self, after: u64) -> RunProgress {
        let events = self.events.borrow().iter().filter(|e| e.number > after).cloned().collect();
        let runbook = self.begun().map(|b| b.0).unwrap_or_default();
        let over = self.over().is_some();
        RunProgress { id: self.id.clone(), runbook, events, over, notifications: Vec::new() }
    }

    /// The run in a list.
    pub fn summary(&self) -> RunSummary {
        let events = self.events.borrow().clone();
        let (runbook, started_by) = self.begun().map(|b| (b.0, b.1)).unwrap_or_default();
        let step = events.iter().rev().find_map(|e| match &e.what {
            RunEventKind::StepBegun { step } => Some(step.clone()),
            _ => None,
        });
        let waits_for = events.last().and_then(|e| match &e.what {
            RunEventKind::Waiting { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        RunSummary {
            id: self.id.clone(),
            runbook,
            started_by,
            started_at: events.first().map(|e| e.at.clone()).unwrap_or_default(),
            complete: self.over(),
            step,
            elapsed_ms: events.last().map_or(0, |e| e.elapsed_ms),
            aborted: self.is_aborted(),
            waits_for,
        }
    }
}

/// Whether somebody acts on an event. The others tell what was seen: a host that loses power may forget them, and looks again. They are on
/// disk with the next event that decides something, and users do not wait for them while a pool has no writer.
fn decides(what: &RunEventKind) -> bool {
    match what {
        RunEventKind::StepBegun { .. }
        | RunEventKind::StepDone { .. }
        | RunEventKind::Waiting { .. }
        | RunEventKind::Resumed => false,
        RunEventKind::Begun { .. }
        | RunEventKind::Ordered { .. }
        | RunEventKind::AbortBegun { .. }
        | RunEventKind::Finished { .. } => true,
    }
}

/// Whether a step has given orders.
pub fn ordered(events: &[RunEvent], step: &str) -> bool {
    events.iter().any(|e| matches!(&e.what, RunEventKind::Ordered { step: by, .. } if by == step))
}

/// How old a run is whose journal is opened: by the clock, and no younger than its last event said.
fn age(events: &[RunEvent], now: Timestamp) -> Duration {
    let began = events.first().and_then(|e| e.at.parse::<Timestamp>().ok());
    let by_clock = began.map_or(0, |at| now.duration_since(at).as_millis().max(0) as u64);
    Duration::from_millis(by_clock.max(events.last().map_or(0, |e| e.elapsed_ms)))
}

/// Whoever claims the pool later does so with a later version of the record. Within a run the numbers rise.
fn next_stamp(events: &[RunEvent], epoch: Epoch) -> Stamp {
    let (mut version, mut number) = (0, 1);
    for event in events {
        let RunEventKind::Ordered { step, stamp_number, deeds } = &event.what else { continue };
        number = number.max(stamp_number + deeds.len() as u64);
        for deed in deeds.iter().filter(|_| step == CLAIM) {
            if let Deed::SetRecord { record, .. } = deed {
                version = record.version;
            }
        }
    }
    Stamp { epoch: epoch.0, version, number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::record;
    use cluster::order::Order;

    /// A run that claimed the pool with these versions of the record, the last time with success, and gave an order.
    fn run(at: &str, versions: &[u64]) -> Vec<RunEvent> {
        let mut events = Vec::new();
        let mut order = |step: &str, deed| {
            let stamp_number = next_stamp(&events, Epoch(15)).number;
            let what = RunEventKind::Ordered { step: step.to_owned(), stamp_number, deeds: vec![deed] };
            events.push(RunEvent { number: events.len() as u64 + 1, at: at.to_owned(), elapsed_ms: 0, what });
        };
        for version in versions {
            order(CLAIM, Deed::SetRecord { record: Box::new(record(*version, Epoch(15))), at: "site-1".into() });
        }
        order("write-out", Deed::Give { host: "s1a".into(), order: Order::Checkpoint { database: "mgc".into() } });
        // The record that a later step puts in place is no claim.
        order("online", Deed::SetRecord { record: Box::new(record(1_000, Epoch(15))), at: "site-1".into() });
        events
    }

    #[test]
    fn a_run_does_not_get_younger_when_a_clock_is_set_back() {
        let mut events = run("2026-11-28T19:38:13.386Z", &[70]);
        events.last_mut().unwrap().elapsed_ms = 5_000;
        let opened = |now: &str| age(&events, now.parse().unwrap()).as_millis();
        assert_eq!(opened("2026-11-27T19:38:31.000Z"), 5_000);
        assert_eq!(opened("2026-11-28T19:38:23.386Z"), 10_000);
        assert_eq!(age(&[], Timestamp::now()), Duration::ZERO);
    }

    #[test]
    fn orders_of_a_later_run_are_later_whatever_the_clock_said() {
        let ahead = run("2026-11-28T19:38:13.386Z", &[69, 70]);
        let then = run("2026-11-27T19:38:31.425Z", &[74]);
        let stamp = |events: &[RunEvent]| next_stamp(events, Epoch(15));
        assert_eq!(stamp(&ahead), Stamp { epoch: 15, version: 70, number: 5 });
        assert!(stamp(&ahead) < stamp(&then), "{} {}", stamp(&ahead), stamp(&then));
        assert!(stamp(&then[..1]) < stamp(&then));
        assert!(stamp(&then) < next_stamp(&[], Epoch(16)));
    }
}
