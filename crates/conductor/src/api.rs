//! The conductor's part of the agents' API: `wire::run` says what each request means.

use crate::Conductor;
use crate::carry_out;
use crate::journal::Journal;
use crate::plan::{Situation, situation};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cluster::name::DatabaseName;
use cluster::runbook::{Exposure, Runbook, named};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wire::agent::AgentError;
use wire::run::{RunAnswer, RunEventKind, RunProgress, RunSummary, StartRun};

/// Longest time that a request may wait.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The routes.
pub fn router(conductor: Arc<Conductor>) -> Router {
    Router::new()
        .route("/v1/runs", get(list).post(start))
        .route("/v1/runs/{id}", get(progress))
        .route("/v1/exposure", get(exposure))
        .with_state(conductor)
}

fn failed(message: String) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, Json(AgentError { message })).into_response()
}

async fn list(State(conductor): State<Arc<Conductor>>) -> Json<Vec<RunSummary>> {
    Json(conductor.all_runs().iter().map(|j| j.summary()).collect())
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
    let Some(journal) = conductor.run(&id) else {
        let message = format!("there is no run {id} here; standfast runbook list shows which there are");
        return Err((StatusCode::NOT_FOUND, Json(AgentError { message })).into_response());
    };
    let mut events = journal.watch();
    let wait = Duration::from_millis(query.wait_ms).min(WAIT_MAX);
    let more = events.wait_for(|all| all.len() as u64 > query.after);
    let _ = tokio::time::timeout(wait, more).await;
    Ok(Json(journal.progress(query.after)))
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
    let now = situation(&conductor, wanted.force).await.map_err(failed)?;
    answer(&conductor, runbook, wanted, &now).map(Json).map_err(failed)
}

fn answer(
    conductor: &Arc<Conductor>,
    runbook: &'static Runbook,
    wanted: StartRun,
    now: &Situation,
) -> Result<RunAnswer, String> {
    let plan = Box::new(now.plan(runbook));
    if wanted.what_if {
        return Ok(RunAnswer::Plan(plan));
    }
    if let Some(under_way) = &now.record.run {
        let own = conductor.run(&under_way.id);
        return match own {
            Some(journal) if under_way.runbook == runbook.name => {
                take_up_next_step(conductor, &journal, wanted)?;
                Ok(RunAnswer::Started { id: journal.id.clone(), resumed: true, plan })
            }
            _ => Ok(RunAnswer::Refused {
                unmet: vec![cluster::runbook::Unmet {
                    why: format!(
                        "{} is under way, started by {} at {}",
                        under_way.runbook, under_way.started_by, under_way.started_at
                    ),
                    hint: "watch it with standfast runbook list; it has to end before another one begins".into(),
                    can_be_forced: false,
                }],
                plan: Some(plan),
            }),
        };
    }
    if let Some(journal) = conductor.all_runs().into_iter().find(|j| j.over().is_none()) {
        // Begun, and not claimed yet: it is being carried out in this process.
        return Ok(RunAnswer::Started { id: journal.id.clone(), resumed: true, plan });
    }
    let view = now.view(&now.facts);
    if let Some(message) = (runbook.already)(&view) {
        return Ok(RunAnswer::AlreadyThere { message });
    }
    let unmet: Vec<_> = (runbook.preflight)(&view).into_iter().filter(|u| !(u.can_be_forced && wanted.force)).collect();
    if !unmet.is_empty() {
        return Ok(RunAnswer::Refused { unmet, plan: Some(plan) });
    }
    let id = format!("{}-{}", runbook.name, jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ"));
    let begun = RunEventKind::Begun {
        runbook: runbook.name.to_owned(),
        started_by: wanted.started_by,
        facts: Box::new(now.facts.clone()),
        only_step: wanted.only_step,
    };
    let journal = Arc::new(Journal::begin(&conductor.dir.join("runs"), &id, begun)?);
    conductor.runs.lock().expect("nothing panics while it holds the runs").insert(id.clone(), journal.clone());
    tokio::spawn(carry_out::carry_out(conductor.clone(), journal));
    Ok(RunAnswer::Started { id, resumed: false, plan })
}

/// A run that was begun step by step stands still after each: go on with the next one, or with all that are left.
fn take_up_next_step(conductor: &Arc<Conductor>, journal: &Arc<Journal>, wanted: StartRun) -> Result<(), String> {
    if journal.over() != Some(false) {
        return Ok(());
    }
    let Some((runbook, started_by, facts, _)) = journal.begun() else { return Ok(()) };
    let begun = RunEventKind::Begun { runbook, started_by, facts: Box::new(facts), only_step: wanted.only_step };
    journal.add(begun)?;
    tokio::spawn(carry_out::carry_out(conductor.clone(), journal.clone()));
    Ok(())
}
