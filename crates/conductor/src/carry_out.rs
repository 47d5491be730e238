//! Carrying a run forward: look, decide, journal, act. And taking up a run that its process left.

use crate::Conductor;
use crate::agents::REPORT;
use crate::estimate::estimate;
use crate::failpoint;
use crate::journal::{Journal, ordered};
use crate::observe::{all_hosts, ask};
use cluster::abort::{abort_of, past_return};
use cluster::limits::{self, GAP_BEGINS, Progress};
use cluster::name::HostName;
use cluster::order::{Outcome, Stamp, StampedOrder};
use cluster::record::{PoolRecord, RunRef};
use cluster::report::OrderReport;
use cluster::runbook::{Deed, Facts, Next, Runbook, Step, View, Whom, advance, named};
use cluster::topology::Topology;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use wire::agent::RecordAnswer;
use wire::run::{CLAIM, RunEventKind};

/// Time between two looks while something is waited for.
const LOOK: Duration = Duration::from_millis(8);
/// Time before something that failed is tried again; it doubles with every failure of a step, up to the second.
const AGAIN: Duration = Duration::from_millis(250);
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// A look that showed a step done serves the next one as well if it is no older, and so does one after which nothing was changed but by
/// this run, which knows what it changed: while a pool has no writer each look costs users time.
const FRESH: Duration = Duration::from_millis(250);

type Reports = std::collections::BTreeMap<HostName, cluster::report::HostReport>;

/// What a run sees at one moment.
struct Now {
    /// When the look began.
    since: Instant,
    topology: Topology,
    record: PoolRecord,
    reports: Reports,
    silent: std::collections::BTreeMap<HostName, cluster::runbook::Silence>,
}

/// What a run has changed, as those say who carried it out.
#[derive(Default)]
struct Changes {
    record: Option<PoolRecord>,
    orders: Vec<(HostName, OrderReport)>,
}

impl Now {
    /// The same after these changes. Of what the orders have brought about nothing is known but that they are over.
    fn with(mut self, changes: Changes) -> Self {
        self.record = changes.record.unwrap_or(self.record);
        for (host, order) in changes.orders {
            if let Some(report) = self.reports.get_mut(&host) {
                report.orders.insert(order.order.database().clone(), order);
            }
        }
        self
    }
}

/// A run and what it knows.
struct Run<'a> {
    conductor: &'a Conductor,
    journal: &'a Journal,
    runbook: &'static Runbook,
    facts: Facts,
    /// It is being undone.
    undoing: bool,
    /// How long users noticed the last runs, in milliseconds.
    last_gap_ms: Option<u64>,
    /// The last look, where it holds for what comes next.
    last: Option<Now>,
    /// The newest report of each host, and the topology that it was looked for in.
    seen: Option<(Topology, Reports)>,
}

/// Take up runs whose journals are not at their end.
pub fn resume(conductor: &Arc<Conductor>) {
    for journal in conductor.all_runs() {
        if journal.over().is_none() {
            tracing::warn!(run = %journal.id, "taking up a run again");
            if let Err(error) = journal.add(RunEventKind::Resumed) {
                tracing::error!(%error, run = %journal.id, "cannot take up a run");
                continue;
            }
            tokio::spawn(carry_out(conductor.clone(), journal));
        }
    }
}

/// Carry out a run to its end.
pub async fn carry_out(conductor: Arc<Conductor>, journal: Arc<Journal>) {
    let Some((name, started_by, facts, only_step)) = journal.begun() else { return };
    let Some(runbook) = named(&name) else {
        tracing::error!(run = %journal.id, runbook = %name, "this program does not know the runbook of a run");
        return;
    };
    let journals: Vec<_> = conductor.all_runs().iter().map(|j| j.events()).collect();
    let last_gap_ms = estimate(runbook.name, journals.iter().map(Vec::as_slice)).gap_ms;
    let mut run = Run {
        conductor: &conductor,
        journal: &journal,
        runbook,
        facts,
        undoing: false,
        last_gap_ms,
        last: None,
        seen: None,
    };
    while let Err(error) = run.carry_to_the_end(&started_by, only_step.as_deref()).await {
        if journal.over().is_some() {
            tracing::warn!(run = %journal.id, "a run is over: another one has taken its place");
            return;
        }
        tracing::warn!(run = %journal.id, %error, "a run waits");
        // Users wait for one that has given itself up.
        if run.undoing || !journal.is_aborted() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl Run<'_> {
    async fn carry_to_the_end(&mut self, started_by: &str, only_step: Option<&str>) -> Result<(), String> {
        if self.journal.is_aborted() {
            self.undoing = true;
            return self.carry_back().await;
        }
        if !self.claim(started_by).await? {
            return Ok(());
        }
        for (step, left) in self.runbook.steps.iter().zip((0..self.runbook.steps.len()).rev()) {
            if self.journal.is_done(step.id) {
                continue;
            }
            self.step(step).await?;
            if only_step == Some(step.id) && left > 0 {
                let message = format!("step {} is done; the run stays open for the next step", step.id);
                return self.note(RunEventKind::Finished { complete: false, undone: false, message, record: None });
            }
        }
        self.finish(true, self.runbook.says_at_end).await
    }

    /// Undo what has been done.
    async fn carry_back(&mut self) -> Result<(), String> {
        let abort = abort_of(self.runbook).ok_or_else(|| format!("{} has no undo", self.runbook.name))?;
        let steps: Vec<_> = abort.steps_after(|id| self.journal.has_ordered(id)).collect();
        for step in steps.into_iter().filter(|step| !self.journal.is_done(step.id)).collect::<Vec<_>>() {
            let now = self.look().await?;
            if now.record.run.as_ref().is_none_or(|run| run.id != self.journal.id) {
                return self.moved_on(now.record);
            }
            self.step(step).await?;
        }
        self.finish(false, abort.says_at_end).await
    }

    /// Somebody else has moved the pool on.
    fn moved_on(&self, record: PoolRecord) -> Result<(), String> {
        let message = "the pool has moved on without this run".to_owned();
        self.journal.add(RunEventKind::Finished {
            complete: false,
            undone: false,
            message,
            record: Some(Box::new(record)),
        })
    }

    /// Journal something: of a run that goes forward, only while it is not being undone.
    fn note(&self, what: RunEventKind) -> Result<(), String> {
        if self.undoing { self.journal.add(what) } else { self.journal.add_forward(what) }
    }

    /// Claim the pool, unless that is done. `false` when somebody else has it.
    async fn claim(&mut self, started_by: &str) -> Result<bool, String> {
        loop {
            let now = self.look().await?;
            match &now.record.run {
                Some(run) if run.id == self.journal.id => return Ok(true),
                // It was known when this run began that it takes the place of that one.
                Some(run) if self.facts.before.run.as_ref().is_some_and(|before| before.id == run.id) => {}
                Some(run) => {
                    let message =
                        format!("{} holds the pool: {} since {}", run.started_by, run.runbook, run.started_at);
                    let record = Some(Box::new(now.record));
                    self.journal.add(RunEventKind::Finished { complete: false, undone: false, message, record })?;
                    return Ok(false);
                }
                None if now.record.epoch > self.facts.before.epoch || self.past_first_step() => {
                    // The claim was given up at the end, or somebody else has moved the pool on meanwhile.
                    self.moved_on(now.record)?;
                    return Ok(false);
                }
                None => {}
            }
            if let Some(message) = self.refused_meanwhile(&now) {
                let record = Some(Box::new(now.record));
                self.journal.add(RunEventKind::Finished { complete: false, undone: false, message, record })?;
                return Ok(false);
            }
            let started_at = self.journal.events().first().map(|e| e.at.clone()).unwrap_or_default();
            let run = RunRef {
                id: self.journal.id.clone(),
                runbook: self.runbook.name.to_owned(),
                started_by: started_by.to_owned(),
                started_at,
            };
            let (record, at) = (self.runbook.claim)(&self.view(&now, 0), run);
            self.note(RunEventKind::Ordered {
                step: CLAIM.to_owned(),
                stamp_number: self.journal.next_stamp(now.record.epoch).number,
                deeds: vec![Deed::SetRecord { record: Box::new(record.clone()), at: at.clone() }],
            })?;
            let answer = self.conductor.agents.set_record(&now.topology, &at, &record).await?;
            match answer {
                RecordAnswer::Taken => return Ok(true),
                RecordAnswer::Conflict { .. } => {}
                RecordAnswer::NotAuthority { message } | RecordAnswer::Refused { message } => return Err(message),
            }
        }
    }

    /// What speaks against a run that has not claimed the pool yet, where the record has changed since it was looked at: a
    /// pair that was synchronised then may not be any more.
    fn refused_meanwhile(&self, now: &Now) -> Option<String> {
        if now.record.version == self.facts.before.version {
            return None;
        }
        let view = self.view(now, 0);
        let unmet = (self.runbook.preflight)(&view).into_iter().find(|u| !(u.can_be_forced && self.facts.force));
        unmet.map(|u| format!("things changed while the run began, and nothing was done: {}; {}", u.why, u.hint))
    }

    fn past_first_step(&self) -> bool {
        self.runbook.steps.first().is_some_and(|s| self.journal.is_done(s.id))
    }

    fn view<'v>(&'v self, now: &'v Now, step_age_ms: u64) -> View<'v> {
        View {
            topology: &now.topology,
            record: &now.record,
            reports: &now.reports,
            silent: &now.silent,
            facts: &self.facts,
            step_age_ms,
        }
    }

    /// Look at those whom a step is about; what the last look showed of the others holds.
    async fn look_for(&mut self, step: &Step) -> Result<Now, String> {
        let topology = self.conductor.agents.topology()?;
        let Some((_, seen)) = self.seen.take().filter(|(then, _)| *then == topology) else { return self.look().await };
        let now = Now {
            since: Instant::now(),
            topology,
            record: self.facts.before.clone(),
            reports: seen,
            silent: self.conductor.observer.silent(),
        };
        let about = match step.looks_at {
            Whom::Everybody => None,
            Whom::These(hosts) => Some(hosts(&self.view(&now, 0))),
        };
        self.look_at(now.topology, now.reports, about).await
    }

    /// Look at everybody.
    async fn look(&mut self) -> Result<Now, String> {
        let topology = self.conductor.agents.topology()?;
        self.look_at(topology, Reports::new(), None).await
    }

    /// Look at these hosts, or at all, but those whom the observer, which asks all the time, found silent: a step does not wait for them.
    async fn look_at(
        &mut self,
        topology: Topology,
        seen: Reports,
        about: Option<BTreeSet<HostName>>,
    ) -> Result<Now, String> {
        let since = Instant::now();
        let silent = self.conductor.observer.silent();
        let hosts: BTreeSet<HostName> = about
            .clone()
            .unwrap_or_else(|| all_hosts(&topology))
            .into_iter()
            .filter(|h| !silent.contains_key(h))
            .collect();
        let (mut look, own) =
            tokio::join!(ask(&self.conductor.agents, &topology, hosts, REPORT), self.conductor.agents.own_record());
        for (host, silence) in silent {
            if !look.reports.contains_key(&host) {
                look.silent.entry(host).or_insert(silence);
            }
        }
        let record = match (own?, look.newest_record()) {
            (Some(own), Some(seen)) if seen.supersedes(&own) => seen,
            (Some(own), _) => own,
            (None, Some(seen)) => seen,
            (None, None) => self.facts.before.clone(),
        };
        let mut reports = look.reports;
        if let Some(about) = about {
            let others = seen.into_iter().filter(|(host, _)| !about.contains(host) && !look.silent.contains_key(host));
            reports.extend(others);
        }
        self.seen = Some((topology.clone(), reports.clone()));
        Ok(Now { since, topology, record, reports, silent: look.silent })
    }

    async fn step(&mut self, step: &'static Step) -> Result<(), String> {
        let began = Instant::now();
        self.note(RunEventKind::StepBegun { step: step.id.to_owned() })?;
        self.pass(step, "before").await;
        let mut acted = false;
        let mut said = String::new();
        let mut again = AGAIN;
        loop {
            let (now, is_fresh_look) = match self.last.take().filter(|last| last.since.elapsed() < FRESH) {
                Some(last) => (last, false),
                None => (self.look_for(step).await?, true),
            };
            if now.record.run.as_ref().is_none_or(|run| run.id != self.journal.id) {
                return Err("the pool's record names another run".into());
            }
            if !self.undoing && self.journal.is_aborted() {
                return Err("it is being undone".into());
            }
            if let Some(why) = self.breaks_limit(&now)
                && self.gives_up(&now, why)
            {
                return Err("it gives itself up".into());
            }
            let next = advance(step, &self.view(&now, began.elapsed().as_millis() as u64), acted);
            match next {
                Next::StepDone(evidence) => {
                    self.note(RunEventKind::StepDone { step: step.id.to_owned(), evidence })?;
                    self.pass(step, "after").await;
                    self.last = Some(now);
                    return Ok(());
                }
                // What has changed elsewhere meanwhile is not known yet.
                Next::Blocked(_) | Next::Wait(_) if !is_fresh_look => {}
                Next::Blocked(unmet) => {
                    self.waits(step, &mut said, format!("{}; {}", unmet.why, unmet.hint), true)?;
                    tokio::time::sleep(AGAIN).await;
                }
                Next::Act(deeds) => {
                    acted = true;
                    let given = tokio::select! {
                        outcome = self.act(step, &now, deeds) => outcome,
                        () = self.journal.aborted(), if !self.undoing => return Err("it is being undone".into()),
                        () = self.until_limit(), if !self.undoing => continue,
                    };
                    match given {
                        Ok(changes) => self.last = changes.map(|changes| now.with(changes)),
                        Err(trouble) => {
                            self.waits(step, &mut said, trouble, true)?;
                            tokio::time::sleep(again).await;
                            again = (again * 2).min(AGAIN_MAX);
                        }
                    }
                }
                Next::Wait(missing) => {
                    if began.elapsed().as_millis() as u64 > step.patience_ms {
                        self.waits(step, &mut said, missing, true)?;
                        tokio::time::sleep(AGAIN).await;
                    } else {
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        }
    }

    fn progress(&self) -> Progress {
        let whole_ms = self.journal.age_ms();
        let gap_ms = self.journal.first_ordered_ms(GAP_BEGINS).map(|since| whole_ms.saturating_sub(since));
        Progress { whole_ms, gap_ms, last_gap_ms: self.last_gap_ms }
    }

    fn past_return(&self) -> bool {
        past_return(self.runbook, |id| self.journal.has_ordered(id)).is_some()
    }

    /// Which limit the run breaks or would break, while it can still be undone.
    fn breaks_limit(&self, now: &Now) -> Option<String> {
        let limits = self.facts.limits.as_ref().filter(|_| !self.undoing && !self.past_return())?;
        limits::broken(limits, &self.progress(), &self.view(now, 0))
    }

    /// Begin to undo the run, by itself. Not while nobody could be the writer again.
    fn gives_up(&self, now: &Now, why: String) -> bool {
        let Some(abort) = abort_of(self.runbook) else { return false };
        if !(abort.preflight)(&self.view(now, 0)).is_empty() {
            return false;
        }
        let still = |events: &[wire::run::RunEvent]| match past_return(self.runbook, |id| ordered(events, id)) {
            Some(past) => Err(past.why),
            None => Ok(()),
        };
        let begun = RunEventKind::AbortBegun { started_by: "the run itself".to_owned(), why: Some(why) };
        self.journal.add_if(still, begun).is_ok()
    }

    /// Returns when a limit of time is reached: what is waited for is not waited for beyond it.
    async fn until_limit(&self) {
        let left = self.facts.limits.as_ref().filter(|_| !self.past_return()).and_then(|limits| {
            let progress = self.progress();
            let whole = limits.whole_ms.checked_sub(progress.whole_ms);
            let gap = progress.gap_ms.map_or(Some(limits.gap_ms), |gap| limits.gap_ms.checked_sub(gap));
            whole.into_iter().chain(gap.filter(|_| progress.gap_ms.is_some())).min()
        });
        match left {
            Some(left_ms) => tokio::time::sleep(Duration::from_millis(left_ms + 1)).await,
            None => std::future::pending().await,
        }
    }

    async fn pass(&self, step: &Step, when: &str) {
        failpoint::pass(&self.conductor.dir, self.runbook.name, step.id, when).await;
    }

    fn waits(&self, step: &Step, said: &mut String, reason: String, needs_person: bool) -> Result<(), String> {
        if *said == reason {
            return Ok(());
        }
        said.clone_from(&reason);
        self.note(RunEventKind::Waiting { step: step.id.to_owned(), reason, needs_person })
    }

    /// Journal the deeds, then do them: changes of the record one after the other, orders to different hosts at once. What was changed;
    /// nothing where somebody else has changed the record.
    async fn act(&self, step: &Step, now: &Now, deeds: Vec<Deed>) -> Result<Option<Changes>, String> {
        let epoch = deeds
            .iter()
            .map(|d| match d {
                Deed::SetRecord { record, .. } => record.epoch,
                Deed::Give { .. } => now.record.epoch,
            })
            .max()
            .unwrap_or(now.record.epoch);
        let first = self.journal.next_stamp(epoch);
        let event =
            RunEventKind::Ordered { step: step.id.to_owned(), stamp_number: first.number, deeds: deeds.clone() };
        self.note(event)?;
        let mut orders = JoinSet::new();
        let (mut changes, mut in_conflict) = (Changes::default(), false);
        let mut passed = false;
        for (deed, number) in deeds.into_iter().zip(first.number..) {
            match deed {
                Deed::SetRecord { record, at } => {
                    match self.conductor.agents.set_record(&now.topology, &at, &record).await? {
                        RecordAnswer::Taken => changes.record = Some(*record),
                        RecordAnswer::Conflict { .. } => in_conflict = true,
                        RecordAnswer::NotAuthority { message } | RecordAnswer::Refused { message } => {
                            return Err(message);
                        }
                    }
                }
                Deed::Give { host, order } => {
                    let stamp = Stamp { number, ..first };
                    let order = StampedOrder { stamp, run: self.journal.id.clone(), order };
                    let (agents, topology) = (self.conductor.agents.clone(), now.topology.clone());
                    orders.spawn(async move {
                        let report = agents.order(&topology, &host, &order).await?;
                        match &report.outcome {
                            Outcome::Failed { message } => Err(format!("{host}: {message}")),
                            Outcome::TooOld { latest } => Err(format!("{host} has taken a later order, {latest}")),
                            Outcome::Running { .. } | Outcome::Done { .. } => Ok((host, report)),
                        }
                    });
                }
            }
            if !passed {
                passed = true;
                self.pass(step, "during").await;
            }
        }
        let mut troubles = BTreeSet::new();
        while let Some(joined) = orders.join_next().await {
            match joined.map_err(|e| e.to_string()).and_then(|outcome| outcome) {
                Ok(over) => changes.orders.push(over),
                Err(trouble) => _ = troubles.insert(trouble),
            }
        }
        if !troubles.is_empty() {
            return Err(troubles.into_iter().collect::<Vec<_>>().join("; "));
        }
        Ok(Some(changes).filter(|_| !in_conflict))
    }

    /// Give the claim up, and say what came of it.
    async fn finish(&mut self, complete: bool, says: fn(&View<'_>) -> String) -> Result<(), String> {
        let now = self.look().await?;
        let message = says(&self.view(&now, 0));
        let mut record = now.record.clone();
        if record.run.as_ref().is_some_and(|r| r.id == self.journal.id) {
            record.run = None;
            record.version += 1;
            let home = record.home.clone();
            match self.conductor.agents.set_record(&now.topology, &home, &record).await? {
                RecordAnswer::Taken => {}
                RecordAnswer::Conflict { .. } => return Err("the record changed meanwhile; once more".into()),
                RecordAnswer::NotAuthority { message } | RecordAnswer::Refused { message } => return Err(message),
            }
        }
        let undone = self.undoing;
        self.note(RunEventKind::Finished { complete, undone, message, record: Some(Box::new(record)) })
    }
}
