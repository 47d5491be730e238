//! Plans and events of runs, in words for people.

use cluster::abort::abort_of;
use cluster::order::Order;
use cluster::record::PoolRecord;
use cluster::runbook::{Deed, Runbook};
use wire::notification::{Standing, Told};
use wire::run::{Estimate, Plan, PlannedStep, RunEvent, RunEventKind};
use wire::run_report::RunReport;

/// What was found.
pub fn found(plan: &Plan) -> Vec<String> {
    plan.found.iter().map(|line| format!("found: {line}")).collect()
}

/// A plan: what was found and the steps; with what each would do, if wanted.
pub fn plan(plan: &Plan, with_deeds: bool) -> Vec<String> {
    let mut lines = found(plan);
    lines.push(String::new());
    // A step counts as done only when those before it are: its own sign alone may have another reason.
    let done = plan.steps.iter().take_while(|s| s.done).count();
    let forward = plan.steps.iter().position(|s| s.point_of_no_return);
    for (index, step) in plan.steps.iter().enumerate() {
        lines.push(planned(step, index + 1, index < done));
        if with_deeds && index >= done {
            let deeds = step.deeds.iter().map(|d| format!("       would {}", deed(d, &plan.facts.before)));
            lines.extend(deeds);
        }
        if forward == Some(index) {
            lines.push("       from here on, forward only".to_owned());
        }
    }
    lines.push(String::new());
    lines.push(format!("time: {}", total(plan.estimate)));
    if with_deeds {
        lines.push("Nothing was done. What a later step would do is shown as things stand now.".to_owned());
    }
    lines
}

/// One step: what speaks against it, what it would do, and how it is judged.
pub fn step_plan(plan: &Plan) -> Vec<String> {
    let mut lines = found(plan);
    for step in &plan.steps {
        lines.push(format!("step:   {}: {}", step.id, step.says));
        lines.push(match &step.unmet {
            Some(unmet) => format!("needs:  it would wait: {}; {}", unmet.why, unmet.hint),
            None => "needs:  nothing speaks against it".to_owned(),
        });
        let deeds = step.deeds.iter().map(|d| format!("would:  {}", deed(d, &plan.facts.before)));
        lines.extend(deeds);
        if step.deeds.is_empty() {
            lines.push("would:  give no order, and wait".to_owned());
        }
        let seen = if step.done { "done" } else { "not yet" };
        lines.push(format!("check:  {seen}: {}", step.seen));
        if step.point_of_no_return {
            lines.push("        from here on, forward only".to_owned());
        }
    }
    lines.push("Nothing was done.".to_owned());
    lines
}

fn planned(step: &PlannedStep, number: usize, done: bool) -> String {
    let reference = if step.reference.is_empty() { "–" } else { &step.reference };
    let done = if done { " (done already)" } else { "" };
    format!("{number:>3}. {:<22} ref {reference:<3} {:>9}  {}{done}", step.id, estimate(step.estimate), step.says)
}

/// How long something took before, in few letters.
fn estimate(of: Option<Estimate>) -> String {
    of.map_or_else(|| "no run yet".into(), |e| seconds(e.median_ms))
}

/// Milliseconds as people say them.
pub fn seconds(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{:.2} s", ms as f64 / 1000.0),
        _ => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// How long the whole will take, from the last runs.
fn total(of: Option<Estimate>) -> String {
    match of {
        None => "it has never been carried out to its end in one go here: how long it takes is not known".into(),
        Some(Estimate { median_ms, runs: 1 }) => format!("the last run took {}", seconds(median_ms)),
        Some(Estimate { median_ms, runs }) => format!("the last {runs} runs took {} (median)", seconds(median_ms)),
    }
}

/// A deed, as something that is done or would be done; a change of the record against the record before it.
pub fn deed(deed: &Deed, before: &PoolRecord) -> String {
    match deed {
        Deed::SetRecord { record, .. } => format!("change the pool's record: {}", changes(before, record)),
        Deed::Give { host, order } => format!("order {host}: {} {}", order_name(order), order.database()),
    }
}

fn order_name(order: &Order) -> String {
    let value = serde_json::to_value(order).unwrap_or_default();
    value["order"].as_str().unwrap_or("an order").to_owned()
}

/// What is different between two records.
fn changes(before: &PoolRecord, after: &PoolRecord) -> String {
    let mut said = Vec::new();
    if before.epoch != after.epoch {
        said.push(format!("epoch {}", after.epoch));
    }
    if before.home != after.home {
        said.push(format!("home {}", after.home));
    }
    if before.state != after.state {
        said.push(format!("state {}", after.state));
    }
    if before.active_servers != after.active_servers {
        let names: Vec<&str> = after.active_servers.iter().map(cluster::name::ServerName::as_str).collect();
        said.push(if names.is_empty() { "no active server".into() } else { format!("active {}", names.join(", ")) });
    }
    if before.databases != after.databases {
        said.push("the databases' parts".into());
    }
    if said.is_empty() { "as it is".to_owned() } else { said.join(", ") }
}

/// An event as a line for people.
pub fn event(event: &RunEvent, runbook: Option<&Runbook>) -> String {
    let at = format!("{:>8.2} s", event.elapsed_ms as f64 / 1000.0);
    match &event.what {
        RunEventKind::Begun { runbook, started_by, only_step, .. } => match only_step {
            Some(step) => format!("{at}  {runbook}, step {step}, begun by {started_by}"),
            None => format!("{at}  {runbook} begun by {started_by}"),
        },
        RunEventKind::Resumed => format!("{at}  taken up again"),
        RunEventKind::AbortBegun { started_by, why: None } => format!("{at}  to be undone, by {started_by}"),
        RunEventKind::AbortBegun { why: Some(why), .. } => format!("{at}  given up, to be undone: {why}"),
        RunEventKind::StepBegun { step } => format!("{at}  {}", step_begun(step, runbook)),
        RunEventKind::Ordered { deeds, .. } => format!("{at}      ordered: {}", ordered(deeds)),
        RunEventKind::Waiting { reason, needs_person, .. } => {
            let who = if *needs_person { "waits, perhaps for you" } else { "waits" };
            format!("{at}      {who}: {reason}")
        }
        RunEventKind::StepDone { evidence, .. } => format!("{at}      done: {evidence}"),
        RunEventKind::Finished { complete: true, message, .. } => format!("{at}  finished: {message}"),
        RunEventKind::Finished { undone: true, message, .. } => format!("{at}  undone: {message}"),
        RunEventKind::Finished { complete: false, message, .. } => format!("{at}  stopped: {message}"),
    }
}

fn step_begun(step: &str, runbook: Option<&Runbook>) -> String {
    let Some((index, known)) = runbook.and_then(|r| r.step(step)) else {
        let undoing = runbook.and_then(abort_of).and_then(|abort| abort.step(step));
        return undoing.map_or_else(|| step.to_owned(), |known| format!("undo: {step}: {}", known.says));
    };
    let count = runbook.map_or(0, |r| r.steps.len());
    let reference =
        if known.reference.is_empty() { String::new() } else { format!(" [reference step {}]", known.reference) };
    format!("{}/{count} {step}{reference}: {}", index + 1, known.says)
}

fn ordered(deeds: &[Deed]) -> String {
    let said = deeds.iter().map(|deed| match deed {
        Deed::SetRecord { record, at } => {
            format!("the record at {at}: version {}, epoch {}, state {}", record.version, record.epoch, record.state)
        }
        Deed::Give { host, order } => format!("{host}: {} {}", order_name(order), order.database()),
    });
    said.collect::<Vec<_>>().join("; ")
}

/// What would undo a run.
pub fn undoing(steps: &[PlannedStep]) -> Vec<String> {
    if steps.is_empty() {
        return vec!["     nothing has to be undone; the run gives the pool up".into()];
    }
    let numbered = (1..).zip(steps);
    numbered.map(|(number, step): (usize, _)| format!("{number:>3}. {:<22} {}", step.id, step.says)).collect()
}

/// What became of a notice.
pub fn told(of: &Told) -> String {
    let at = of.at.as_deref().unwrap_or_default();
    let tries = if of.tries == 1 { String::new() } else { format!(" after {} tries", of.tries) };
    let why = of.why.as_deref().unwrap_or_default();
    let (event, id) = (of.event, &of.id);
    match of.standing {
        Standing::Waiting => format!("{event} ({id}): about to be told"),
        Standing::Failing => format!("{event} ({id}): NOT TAKEN since {at}, {} tries; the last: {why}", of.tries),
        Standing::Taken => format!("{event} ({id}): taken {at}{tries}"),
        Standing::GivenUp => format!("{event} ({id}): GIVEN UP {at}{tries}: {why}"),
    }
}

/// A run, as `runbook show` tells it.
pub fn report(of: &RunReport) -> Vec<String> {
    let mut lines = vec![
        format!("{} of {}", of.runbook, of.pool),
        format!("run:      {}", of.run),
        format!("by:       {}", of.started_by.join(", ")),
        format!("began:    {}", of.began_at),
    ];
    if let Some(at) = &of.ended_at {
        lines.push(format!("ended:    {at}, after {}", seconds(of.took_ms)));
    }
    if of.from_site != of.to_site {
        lines.push(format!("writer:   from {} to {}", of.from_site, of.to_site));
    }
    if !of.outcome.is_empty() {
        lines.push(format!("outcome:  {}", of.outcome));
    }
    lines.push(String::new());
    for step in &of.steps {
        let took = match (step.took_ms, &step.began_at) {
            (Some(ms), _) => seconds(ms),
            (None, Some(_)) => "begun".into(),
            (None, None) => "–".into(),
        };
        let reference = if step.reference.is_empty() { "–" } else { &step.reference };
        let undo = if step.undoes { "undo: " } else { "" };
        let shown = step.evidence.as_deref().unwrap_or("");
        lines.push(format!("{:>3}. {:<22} ref {reference:<3} {took:>12}  {undo}{shown}", step.number, step.id));
        let waits = step.waits.iter().map(|wait| format!("       waited: {}", wait.reason));
        lines.extend(waits);
    }
    lines.push(String::new());
    lines.extend(of.notifications.iter().map(|t| format!("told:     {}: {}", t.receiver, told(t))));
    lines.extend(of.notes.iter().map(|note| format!("note:     {}: {}", note.at, note.says)));
    lines
}
