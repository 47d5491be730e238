//! The conductor's part of the agents' API: `wire::run` says what each request means.

use crate::Conductor;
use crate::carry_out;
use crate::estimate::{Estimates, estimate};
use crate::journal::Journal;
use crate::plan::{Situation, situation};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::limits::{self, Limits};
use cluster::name::{DatabaseName, HostName};
use cluster::planned_failover::PLANNED_FAILOVER;
use cluster::record::PoolState;
use cluster::runbook::{Exposure, Runbook, Unmet, View, named};
use cluster::switching::{FORCE_MIRROR, SWITCH_MIRROR};
use cluster::witness::TakeOverRequest;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::agent::{AgentError, TakeOverAnswer};
use wire::notification::{ReceiverReport, TestNotification, Tested};
use wire::run::{AbortAnswer, AbortRun, RunAnswer, RunEventKind, RunProgress, RunSummary, StartRun};

/// Longest time that a request may wait.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The routes.
pub fn router(conductor: Arc<Conductor>) -> Router {
    Router::new()
        .route("/v1/runs", get(list).post(start))
        .route("/v1/runs/{id}", get(progress))
        .route("/v1/runs/{id}/abort", post(abort))
        .route("/v1/exposure", get(exposure))
        .route("/v1/take-over", post(take_over))
        .route("/v1/notifications", get(notifications))
        .route("/v1/notifications/test", post(test_notification))
        .with_state(conductor)
}

fn failed(message: String) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(AgentError { message })).into_response()
}

fn no_such_run(id: &str) -> Response {
    let message = format!("there is no run {id} here; standfast runbook list shows which there are");
    (StatusCode::NOT_FOUND, Json(AgentError { message })).into_response()
}

async fn list(State(conductor): State<Arc<Conductor>>) -> Json<Vec<RunSummary>> {
    Json(conductor.all_runs().iter().map(|j| j.summary()).collect())
}

async fn take_over(
    State(conductor): State<Arc<Conductor>>,
    Json(request): Json<TakeOverRequest>,
) -> Result<Json<TakeOverAnswer>, Response> {
    crate::witness::take_over(&conductor, &request).await.map(Json).map_err(failed)
}

async fn exposure(State(conductor): State<Arc<Conductor>>) -> Json<BTreeMap<DatabaseName, Exposure>> {
    Json(conductor.observer.exposure())
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn progress(
    State(conductor): State<Arc<Conductor>>,
    Path(id): Path<String>,
    Query(query): Query<Since>,
) -> Result<Json<RunProgress>, Response> {
    let journal = conductor.run(&id).ok_or_else(|| no_such_run(&id))?;
    let mut events = journal.watch();
    let wait = Duration::from_millis(query.wait_ms).min(WAIT_MAX);
    let more = events.wait_for(|all| all.len() as u64 > query.after);
    let _ = tokio::time::timeout(wait, more).await;
    let mut progress = journal.progress(query.after);
    if let Ok(topology) = conductor.agents.topology() {
        progress.notifications = crate::notify::told(&conductor, &topology, &journal);
    }
    Ok(Json(progress))
}

async fn notifications(State(conductor): State<Arc<Conductor>>) -> Result<Json<Vec<ReceiverReport>>, Response> {
    let topology = conductor.agents.topology().map_err(failed)?;
    Ok(Json(crate::notify::report(&conductor, &topology)))
}

async fn test_notification(
    State(conductor): State<Arc<Conductor>>,
    Json(wanted): Json<TestNotification>,
) -> Result<Json<Vec<Tested>>, Response> {
    let topology = conductor.agents.topology().map_err(failed)?;
    let only = wanted.receiver.as_deref();
    if let Some(name) = only.filter(|name| topology.receivers.iter().all(|r| r.name != *name)) {
        let all: Vec<&str> = topology.receivers.iter().map(|r| r.name.as_str()).collect();
        let message = format!("the topology has no [[notify]] named '{name}'; it has: {}", all.join(", "));
        return Err((StatusCode::NOT_FOUND, Json(AgentError { message })).into_response());
    }
    Ok(Json(crate::notify::test(&conductor, &topology, only, &wanted.by).await))
}

async fn abort(
    State(conductor): State<Arc<Conductor>>,
    Path(id): Path<String>,
    Json(wanted): Json<AbortRun>,
) -> Result<Json<AbortAnswer>, Response> {
    let journal = conductor.run(&id).ok_or_else(|| no_such_run(&id))?;
    let _one_at_a_time = conductor.starting.lock().await;
    let now = situation(&conductor, true, None).await.map_err(failed)?;
    crate::abort::abort(&conductor, &journal, wanted, &now).map(Json).map_err(failed)
}

async fn start(
    State(conductor): State<Arc<Conductor>>,
    Json(wanted): Json<StartRun>,
) -> Result<Json<RunAnswer>, Response> {
    let Some(runbook) = named(&wanted.runbook) else {
        let message = format!("there is no runbook '{}'", wanted.runbook);
        return Err((StatusCode::NOT_FOUND, Json(AgentError { message })).into_response());
    };
    if let Some(step) = &wanted.only_step
        && runbook.step(step).is_none()
    {
        let all: Vec<&str> = runbook.steps.iter().map(|s| s.id).collect();
        let message = format!("{} has no step '{step}'; it has: {}", runbook.name, all.join(", "));
        return Err((StatusCode::NOT_FOUND, Json(AgentError { message })).into_response());
    }
    let _one_at_a_time = conductor.starting.lock().await;
    let mut now = situation(&conductor, wanted.force, wanted.new_principal).await.map_err(failed)?;
    now.facts.limits = limits_of(runbook, &wanted);
    answer(&conductor, runbook, wanted, &now).map(Json).map_err(failed)
}

/// What a run may cost. Steps that a person types one by one take as long as the person does.
fn limits_of(runbook: &Runbook, wanted: &StartRun) -> Option<Limits> {
    let own = (runbook.name == PLANNED_FAILOVER.name).then(Limits::default);
    wanted.limits.filter(|_| limits::apply_to(runbook)).or(own).filter(|_| wanted.only_step.is_none())
}

/// Start a run, take one up again, or say what speaks against it. The caller holds `starting`.
pub(crate) fn answer(
    conductor: &Arc<Conductor>,
    runbook: &'static Runbook,
    wanted: StartRun,
    now: &Situation,
) -> Result<RunAnswer, String> {
    let journals: Vec<_> = conductor.all_runs().iter().map(|j| j.events()).collect();
    let estimates = estimate(runbook.name, journals.iter().map(Vec::as_slice));
    let mut plan = Box::new(now.plan(runbook, &estimates));
    let refused = |unmet: Vec<Unmet>, plan| Ok(RunAnswer::Refused { unmet, plan: Some(plan) });
    let standing = standing(conductor, runbook, now);
    let view = now.view(&now.facts);
    let unmet: Vec<Unmet> = match &standing {
        Standing::Resume(journal) if journal.is_aborted() => vec![being_undone(runbook)],
        Standing::Resume(_) => Vec::new(),
        Standing::Taken(unmet) => vec![unmet.clone()],
        Standing::Free | Standing::Supersede(_) => match cluster::existing::theirs(&now.topology, runbook) {
            Some(theirs) => vec![theirs],
            None => preflight(runbook, &estimates, &view),
        },
    };
    let unmet: Vec<_> = unmet.into_iter().filter(|u| !(u.can_be_forced && wanted.force)).collect();
    if let (true, Some(step)) = (wanted.what_if, &wanted.only_step) {
        return Ok(step_what_if(runbook, step, &standing, now, &estimates, unmet));
    }
    if wanted.what_if {
        plan.found.extend(unmet.iter().map(|u| format!("would be refused: {}; {}", u.why, u.hint)));
        return Ok(RunAnswer::Plan(plan));
    }
    let theirs = cluster::existing::theirs(&now.topology, runbook).is_some();
    if let (Standing::Free, false, Some(message)) = (&standing, theirs, (runbook.already)(&view)) {
        return Ok(RunAnswer::AlreadyThere { message });
    }
    if !unmet.is_empty() {
        return refused(unmet, plan);
    }
    let journal = match &standing {
        Standing::Resume(journal) => Some(journal.clone()),
        _ => None,
    };
    match step_in_order(runbook, journal.as_deref(), wanted.only_step.as_deref()) {
        InOrder::Yes => {}
        InOrder::DoneAlready(message) => return Ok(RunAnswer::AlreadyThere { message }),
        InOrder::No(unmet) => return refused(vec![unmet], plan),
    }
    if let Some(journal) = journal {
        take_up_next_step(conductor, &journal, wanted)?;
        return Ok(RunAnswer::Started { id: journal.id.clone(), resumed: true, plan });
    }
    if let Standing::Supersede(Some(journal)) = &standing {
        let message = format!("a {} begun by {} takes its place", runbook.name, wanted.started_by);
        journal.add(RunEventKind::Finished { complete: false, undone: false, message, record: None })?;
    }
    let id = format!("{}-{}", runbook.name, jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ"));
    let begun = RunEventKind::Begun {
        runbook: runbook.name.to_owned(),
        started_by: wanted.started_by,
        facts: Box::new(now.facts.clone()),
        only_step: wanted.only_step,
        found: plan.found.clone(),
    };
    let journal = Arc::new(Journal::begin(&conductor.dir.join("runs"), &id, begun)?);
    conductor.runs.lock().expect("nothing panics while it holds the runs").insert(id.clone(), journal.clone());
    tokio::spawn(carry_out::carry_out(conductor.clone(), journal));
    Ok(RunAnswer::Started { id, resumed: false, plan })
}

/// What speaks against a run, its limits included.
fn preflight(runbook: &Runbook, estimates: &Estimates, view: &View<'_>) -> Vec<Unmet> {
    let unmet = (runbook.preflight)(view);
    match &view.facts.limits {
        Some(limits) if unmet.is_empty() => limits::preflight(limits, estimates.gap_ms, view),
        _ => unmet,
    }
}

/// What a step by itself would do, and nothing is done. Whatever refuses the step refuses this too.
fn step_what_if(
    runbook: &'static Runbook,
    step: &str,
    standing: &Standing,
    now: &Situation,
    estimates: &Estimates,
    mut unmet: Vec<Unmet>,
) -> RunAnswer {
    let journal = match standing {
        Standing::Resume(journal) => Some(journal),
        Standing::Free | Standing::Supersede(_) | Standing::Taken(_) => None,
    };
    match step_in_order(runbook, journal.map(Arc::as_ref), Some(step)) {
        InOrder::Yes => {}
        InOrder::DoneAlready(message) => return RunAnswer::AlreadyThere { message },
        InOrder::No(not_next) => unmet.push(not_next),
    }
    let facts = journal.and_then(|journal| journal.begun()).map(|(_, _, facts, _)| facts);
    let found = runbook.step(step).map(|(_, step)| now.plan_of_step(runbook, step, facts.as_ref(), estimates));
    match found {
        Some(plan) if unmet.is_empty() => RunAnswer::Plan(Box::new(plan)),
        plan => RunAnswer::Refused { unmet, plan: plan.map(Box::new) },
    }
}

/// How a runbook stands to the run that holds the pool, if any does.
enum Standing {
    /// Nothing is under way.
    Free,
    /// This runbook is under way here.
    Resume(Arc<Journal>),
    /// Another run holds the pool, and this one may take its place: its journal, if it is carried here.
    Supersede(Option<Arc<Journal>>),
    /// Another run holds the pool.
    Taken(Unmet),
}

fn standing(conductor: &Conductor, runbook: &Runbook, now: &Situation) -> Standing {
    let Some(run) = &now.record.run else {
        // Begun, and not claimed yet: it is being carried out in this process.
        let begun = conductor.all_runs().into_iter().find(|j| j.over().is_none());
        return match begun {
            Some(journal) if journal.begun().is_some_and(|b| b.0 == runbook.name) => Standing::Resume(journal),
            Some(journal) => {
                let run = journal.summary();
                Standing::Taken(taken(&run.runbook, &run.started_by, &run.started_at, run.step.as_deref()))
            }
            None => Standing::Free,
        };
    };
    let own = conductor.run(&run.id);
    let silent = |host: &HostName| now.look.silent.contains_key(host);
    // A planned failover that is carried out by the site that had the writer has nothing left to do but to wait, once the other
    // site is home: it must not keep that site from anything when its own is lost.
    let carrier = now.topology.other_site(&now.record.home).map(|s| &s.authority);
    if own.is_none()
        && run.runbook == PLANNED_FAILOVER.name
        && now.record.state == PoolState::FailedOver
        && carrier.is_some_and(silent)
    {
        return Standing::Supersede(None);
    }
    if let Some(journal) = own.clone().filter(|_| run.runbook == runbook.name) {
        return Standing::Resume(journal);
    }
    // A site that is lost takes its runs with it: they must not keep the other site from going on. Its agent finds, when
    // it returns, that the pool has moved on.
    let home = now.topology.site(&now.record.home).map(|s| &s.authority);
    let carrier_is_lost = own.is_some() || home.is_some_and(silent);
    // A switch that stands still without a writer, because the mirror went too, must not either.
    let switching = [SWITCH_MIRROR.name, FORCE_MIRROR.name, PLANNED_FAILOVER.name].contains(&run.runbook.as_str());
    let no_writer = now.record.databases.values().any(|d| d.principal.is_none());
    let may_be_replaced = carrier_is_lost || (switching && no_writer);
    if runbook.name == "failover" && now.record.state == PoolState::Normal && may_be_replaced {
        return Standing::Supersede(own);
    }
    let step = own.and_then(|journal| journal.summary().step);
    Standing::Taken(taken(&run.runbook, &run.started_by, &run.started_at, step.as_deref()))
}

fn being_undone(runbook: &Runbook) -> Unmet {
    Unmet {
        why: format!("the {} that is under way is being undone", runbook.name),
        hint: "watch that with standfast runbook watch; when it is over, a new one can begin".into(),
        can_be_forced: false,
    }
}

/// Who holds the pool, with what, since when, and how far that is.
fn taken(runbook: &str, by: &str, since: &str, step: Option<&str>) -> Unmet {
    let step = step.map_or(String::new(), |step| format!("; it is at step {step}"));
    Unmet {
        why: format!("{runbook} is under way, begun by {by}, since {since}{step}"),
        hint:
            "one run at a time: watch it with standfast runbook watch, take it up with standfast runbook resume if it \
               stands still, or undo it with standfast runbook abort"
                .into(),
        can_be_forced: false,
    }
}

/// Whether the step that is asked for by itself is the next one.
enum InOrder {
    Yes,
    DoneAlready(String),
    No(Unmet),
}

fn step_in_order(runbook: &Runbook, journal: Option<&Journal>, only_step: Option<&str>) -> InOrder {
    let Some(only) = only_step else { return InOrder::Yes };
    let is_done = |id: &str| journal.is_some_and(|j| j.is_done(id));
    if is_done(only) {
        return InOrder::DoneAlready(format!("step {only} of this {} was done before", runbook.name));
    }
    match runbook.steps.iter().find(|s| !is_done(s.id)) {
        Some(next) if next.id != only => InOrder::No(Unmet {
            why: format!("step {only} is not the next one: {} comes first", next.id),
            hint: format!("standfast step {} {}", runbook.name, next.id),
            can_be_forced: false,
        }),
        _ => InOrder::Yes,
    }
}

/// A run that was begun step by step stands still after each: go on with the next one, or with all that are left.
fn take_up_next_step(conductor: &Arc<Conductor>, journal: &Arc<Journal>, wanted: StartRun) -> Result<(), String> {
    if journal.over() != Some(false) {
        return Ok(());
    }
    let Some((runbook, _, facts, _)) = journal.begun() else { return Ok(()) };
    let begun = RunEventKind::Begun {
        runbook,
        started_by: wanted.started_by,
        facts: Box::new(facts),
        only_step: wanted.only_step,
        found: Vec::new(),
    };
    journal.add(begun)?;
    tokio::spawn(carry_out::carry_out(conductor.clone(), journal.clone()));
    Ok(())
}
