//! Where clients can connect, and whether this server really writes.

use super::call::CallError;
use crate::app::App;
use crate::standing::{Standing, addresses};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rules::id::Epoch;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::http::{ErrorBody, Health, Servers};

/// Longest wait for the health check's write.
const WRITE_WAIT: Duration = Duration::from_secs(2);

/// All servers of the pool, active ones first. Needs no token.
#[utoipa::path(get, path = "/v1/servers", tag = "pool", responses((status = 200, body = Servers)))]
pub async fn servers(State(app): State<Arc<App>>) -> Json<Servers> {
    let view = app.view();
    let epoch = view.record.as_ref().map_or(Epoch::FIRST, |r| r.epoch);
    Json(Servers { servers: addresses(&view), epoch })
}

/// Do one real write. 503 with the figures when it was not done.
#[utoipa::path(get, path = "/v1/health", tag = "pool", responses(
    (status = 200, body = Health), (status = 503, body = Health), (status = 500, body = ErrorBody)))]
pub async fn health(State(app): State<Arc<App>>) -> Result<Response, CallError> {
    let standing = app.standing.borrow().clone();
    let began = Instant::now();
    let write_us = match &standing {
        Standing::Ready { store } => match tokio::time::timeout(WRITE_WAIT, store.prove_writable()).await {
            Ok(Ok(())) => Some(began.elapsed().as_micros() as u64),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the health check could not write");
                None
            }
            Err(_) => None,
        },
        Standing::Waiting { .. } | Standing::Leaving { .. } | Standing::Away => None,
    };
    let health = Health {
        server: app.name.to_string(),
        active: app.view().is_active(&app.name),
        writes_as: standing.epoch(),
        sessions: app.sessions(),
        write_us,
        cpu_us: processor_time_us(),
    };
    let status = if write_us.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(health)).into_response())
}

/// Processor time of this process so far, in microseconds; 0 where the system does not tell.
fn processor_time_us() -> u64 {
    // Fields 14 and 15, counted after the name, which stands in parentheses and may hold blanks; in ticks of 10 ms.
    const TICK_US: u64 = 10_000;
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0 };
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0 };
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks * TICK_US
}
