//! Watching a run: every event as it is journalled, also over the death of the host that carries it.

use crate::agents::{Agents, Trouble};
use crate::failure::{Failure, Outcome};
use crate::{output, words};
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
    watch(agents, host, id, json, false).await
}

/// Watch a run until it is undone.
///
/// # Errors
/// When it ends otherwise, or its authority stays away; `Waiting` when the watching is ended while it waits.
pub async fn until_undone(agents: &Agents, host: &HostName, id: &str, json: bool) -> Outcome {
    watch(agents, host, id, json, true).await
}

/// Watch a run to its end, and say what happens beside the data, which somebody else prints.
///
/// # Errors
/// Those of [`to_the_end`].
pub async fn aside(agents: &Agents, host: &HostName, id: &str) -> Outcome {
    Watch { aside: true, ..Watch::new(agents, host, id) }.run().await
}

async fn watch(agents: &Agents, host: &HostName, id: &str, json: bool, undoing: bool) -> Outcome {
    let mut watch = Watch { json, undoing, ..Watch::new(agents, host, id) };
    tokio::select! {
        outcome = watch.run() => return outcome,
        _ = tokio::signal::ctrl_c() => {}
    }
    let waits = watch.waits_for.map_or(String::new(), |reason| format!(" It waits: {reason}."));
    Err(Failure::Waiting(format!(
        "not watched any more; the run goes on at {host}.{waits} To watch it again: standfast runbook watch {id}"
    )))
}

struct Watch<'a> {
    agents: &'a Agents,
    host: &'a HostName,
    id: &'a str,
    json: bool,
    /// What happens is said, and is no data.
    aside: bool,
    after: u64,
    runbook: Option<&'static Runbook>,
    /// The only step that was asked for, if it was only one.
    only_step: Option<String>,
    last_done: Option<String>,
    /// It is to be undone: that is its good end.
    undoing: bool,
    /// What the present step waits for, if it has said so.
    waits_for: Option<String>,
    began: Instant,
}

impl<'a> Watch<'a> {
    fn new(agents: &'a Agents, host: &'a HostName, id: &'a str) -> Self {
        Self {
            agents,
            host,
            id,
            json: false,
            aside: false,
            after: 0,
            runbook: None,
            only_step: None,
            last_done: None,
            undoing: false,
            waits_for: None,
            began: Instant::now(),
        }
    }
}

impl Watch<'_> {
    async fn run(&mut self) -> Outcome {
        let first = self.progress(0).await?;
        self.runbook = named(&first.runbook);
        let begins = |e: &RunEvent| matches!(e.what, RunEventKind::Begun { .. } | RunEventKind::AbortBegun { .. });
        let begun = first.events.iter().rposition(begins).unwrap_or(0);
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
                output::json_line(event)?;
            } else if !matches!(event.what, RunEventKind::Ordered { .. }) {
                let says = words::event(event, self.runbook);
                if self.aside { output::say(&says) } else { output::line(&says)? }
            }
            match &event.what {
                RunEventKind::Waiting { reason, .. } => self.waits_for = Some(reason.clone()),
                RunEventKind::StepDone { step, .. } => {
                    self.waits_for = None;
                    self.last_done = Some(step.clone());
                }
                RunEventKind::Finished { complete, undone, message, .. } => {
                    let well = if self.undoing { *undone } else { *complete };
                    let undone = if *undone && !self.undoing { "it was undone: " } else { "" };
                    end = Some((well, format!("{undone}{message}")));
                }
                RunEventKind::Begun { only_step, .. } => {
                    self.only_step.clone_from(only_step);
                    end = None;
                }
                RunEventKind::AbortBegun { .. } => {
                    self.only_step = None;
                    end = None;
                }
                RunEventKind::Resumed => end = None,
                RunEventKind::StepBegun { .. } | RunEventKind::Ordered { .. } => {}
            }
        }
        Ok(end.filter(|_| over).map(|(complete, message)| self.outcome(complete, &message)))
    }

    fn outcome(&self, complete: bool, message: &str) -> Outcome {
        let step_done = self.only_step.is_some() && self.only_step == self.last_done;
        if complete || step_done {
            if !self.json {
                output::say(&format!("took {:.2} s", self.began.elapsed().as_secs_f64()));
            }
            return Ok(());
        }
        Err(Failure::Failed(format!("the run {} ended incomplete: {message}", self.id)))
    }
}
