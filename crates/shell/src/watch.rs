//! Watching a run: every event as it is journalled, also over the death of the host that carries it.

use crate::agents::{Agents, Trouble};
use crate::failure::{Failure, Outcome};
use crate::output;
use cluster::name::HostName;
use cluster::runbook::{Runbook, Silence, named};
use std::time::{Duration, Instant};
use wire::run::{RunEvent, RunEventKind, RunProgress};

/// How long a silent authority is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time between two tries to reach it.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a request waits for the next event.
const WAIT_MS: u64 = 5_000;

/// Watch a run to its end. A run that is taken up step by step is shown from its latest beginning on.
///
/// # Errors
/// When it ends incomplete, or its authority stays away; `Waiting` when the watching is ended while it waits.
pub async fn to_the_end(agents: &Agents, host: &HostName, id: &str, json: bool) -> Outcome {
    let mut watch = Watch { agents, host, id, json, after: 0, runbook: None, waits: false, began: Instant::now() };
    tokio::select! {
        outcome = watch.run() => outcome,
        _ = tokio::signal::ctrl_c() => {
            Err(Failure::Waiting(format!("not watched any more; the run {id} goes on at {host}: standfast runbook show {id}")))
        }
    }
}

struct Watch<'a> {
    agents: &'a Agents,
    host: &'a HostName,
    id: &'a str,
    json: bool,
    after: u64,
    runbook: Option<&'static Runbook>,
    waits: bool,
    began: Instant,
}

impl Watch<'_> {
    async fn run(&mut self) -> Outcome {
        let first = self.progress(0).await?;
        self.runbook = named(&first.runbook);
        let begun = first.events.iter().rposition(|e| matches!(e.what, RunEventKind::Begun { .. })).unwrap_or(0);
        if let Some(outcome) = self.show(&first.events[begun..], first.over)? {
            return outcome;
        }
        loop {
            let next = self.progress(WAIT_MS).await?;
            if let Some(outcome) = self.show(&next.events, next.over)? {
                return outcome;
            }
        }
    }

    async fn progress(&mut self, wait_ms: u64) -> Result<RunProgress, Failure> {
        let mut silent_since: Option<Instant> = None;
        loop {
            let trouble = match self.agents.progress(self.host, self.id, self.after, wait_ms).await {
                Ok(progress) => {
                    if silent_since.is_some() {
                        output::say(&format!("{} answers again", self.host));
                    }
                    return Ok(progress);
                }
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Silent(Silence::Refused | Silence::TimedOut) => {
                    if silent_since.is_none() {
                        output::say(&format!(
                            "{} does not answer; the run is journalled there and goes on when its agent is started again",
                            self.host
                        ));
                    }
                    if silent_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(Failure::Waiting(format!(
                            "{} has not answered for {} minutes; start its agent, then type the command again",
                            self.host,
                            PATIENCE.as_secs() / 60
                        )));
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                said @ Trouble::Said(_) => return Err(said.failure(&format!("watch the run {}", self.id), self.host)),
            }
        }
    }

    /// Show events; the outcome when the run is over.
    fn show(&mut self, events: &[RunEvent], over: bool) -> Result<Option<Outcome>, Failure> {
        let mut end = None;
        for event in events {
            self.after = self.after.max(event.number);
            if self.json {
                output::line(&serde_json::to_string(event).map_err(|e| Failure::Failed(e.to_string()))?)?;
            } else if let Some(line) = in_words(event, self.runbook) {
                output::line(&line)?;
            }
            match &event.what {
                RunEventKind::Waiting { .. } => self.waits = true,
                RunEventKind::StepDone { .. } => self.waits = false,
                RunEventKind::Finished { complete, message } => end = Some((*complete, message.clone())),
                RunEventKind::Begun { .. } | RunEventKind::Resumed => end = None,
                RunEventKind::StepBegun { .. } | RunEventKind::Ordered { .. } => {}
            }
        }
        Ok(end.filter(|_| over).map(|(complete, message)| self.outcome(complete, &message)))
    }

    fn outcome(&self, complete: bool, message: &str) -> Outcome {
        if complete || message.starts_with("step ") {
            if !self.json {
                output::say(&format!("took {:.2} s", self.began.elapsed().as_secs_f64()));
            }
            return Ok(());
        }
        Err(Failure::Failed(format!("the run {} ended incomplete: {message}", self.id)))
    }
}

/// An event as a line for people; nothing for what only a journal needs.
pub fn in_words(event: &RunEvent, runbook: Option<&Runbook>) -> Option<String> {
    let at = format!("{:>8.2} s", event.elapsed_ms as f64 / 1000.0);
    Some(match &event.what {
        RunEventKind::Begun { runbook, started_by, only_step, .. } => match only_step {
            Some(step) => format!("{at}  {runbook}, step {step}, begun by {started_by}"),
            None => format!("{at}  {runbook} begun by {started_by}"),
        },
        RunEventKind::Resumed => format!("{at}  taken up again"),
        RunEventKind::StepBegun { step } => {
            let known = runbook.and_then(|r| r.step(step));
            let place =
                known.map_or(String::new(), |(n, _)| format!("{}/{} ", n + 1, runbook.map_or(0, |r| r.steps.len())));
            let says = known.map_or("", |(_, s)| s.says);
            let number = known.map(|(_, s)| s.reference).filter(|r| !r.is_empty());
            let number = number.map_or(String::new(), |r| format!(" [reference step {r}]"));
            format!("{at}  {place}{step}{number}: {says}")
        }
        RunEventKind::Ordered { .. } => return None,
        RunEventKind::Waiting { reason, needs_person, .. } => {
            let who = if *needs_person { "waits, perhaps for you" } else { "waits" };
            format!("{at}      {who}: {reason}")
        }
        RunEventKind::StepDone { evidence, .. } => format!("{at}      done: {evidence}"),
        RunEventKind::Finished { complete: true, message } => format!("{at}  finished: {message}"),
        RunEventKind::Finished { complete: false, message } => format!("{at}  stopped: {message}"),
    })
}
