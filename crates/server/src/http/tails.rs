//! Tails of lost sites: for administrators, who may read every room.

use super::call::{CallError, Caller, Parameters};
use crate::app::App;
use axum::Json;
use axum::extract::{Path, State};
use rules::limit::HISTORY_PAGE_MAX;
use std::sync::Arc;
use store::{TailCounts, TailPart, TailRow};
use wire::chat::RefusalCode;
use wire::http::ErrorBody;
use wire::tail::{Tail, TailCount, TailLine, TailPage};

/// The tails that the database has, in the order in which they were left behind.
#[utoipa::path(get, path = "/v1/tails", tag = "tails", security(("token" = [])), responses(
    (status = 200, body = Vec<Tail>), (status = 403, body = ErrorBody)))]
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Vec<Tail>>, CallError> {
    caller.must_administer()?;
    let rows = app.store().await?.tails().await?;
    Ok(Json(rows.into_iter().map(tail).collect()))
}

/// Where to go on.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// What the page before gave as `next`; without it the first lines.
    after: Option<String>,
}

impl From {
    fn part(&self) -> Result<TailPart, CallError> {
        let Some(after) = &self.after else { return Ok(TailPart::Changes(0)) };
        let (what, n) = after.split_once('-').unwrap_or_default();
        match (what, n.parse()) {
            ("change", Ok(n)) => Ok(TailPart::Changes(n)),
            ("entry", Ok(n)) => Ok(TailPart::Entries(n)),
            _ => Err(CallError::new(RefusalCode::BadRequest, "give as 'after' what the page before gave as 'next'")),
        }
    }
}

/// Lines of a tail, changes first, each with what became of it.
#[utoipa::path(get, path = "/v1/tails/{id}", tag = "tails", security(("token" = [])),
    params(("id" = String, Path), From), responses((status = 200, body = TailPage), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub async fn page(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Parameters(from): Parameters<From>,
) -> Result<Json<TailPage>, CallError> {
    caller.must_administer()?;
    let part = from.part()?;
    let store = app.store().await?;
    if from.after.is_none() && !store.tails().await?.iter().any(|tail| tail.id == id) {
        let message = "there is no tail of this id here; /v1/tails lists those that there are";
        return Err(CallError::new(RefusalCode::NotFound, message));
    }
    let lines = store.tail_lines(&id, part, HISTORY_PAGE_MAX).await?;
    let unreadable = |e: serde_json::Error| {
        tracing::error!(tail = id, error = %e, "a line of a tail is not what this program writes");
        CallError::new(RefusalCode::Internal, "the call failed; the server's log says why")
    };
    let lines: Vec<TailLine> =
        lines.into_iter().map(serde_json::from_value).collect::<Result<_, _>>().map_err(unreadable)?;
    let full = lines.len() == HISTORY_PAGE_MAX as usize;
    let next = match (lines.last(), part) {
        (Some(TailLine::Change(last)), _) if full => Some(format!("change-{}", last.n)),
        (Some(TailLine::Entry(last)), _) if full => Some(format!("entry-{}", last.n)),
        (_, TailPart::Changes(_)) => Some("entry-0".to_owned()),
        (_, TailPart::Entries(_)) => None,
    };
    Ok(Json(TailPage { lines, next }))
}

fn tail(row: TailRow) -> Tail {
    Tail {
        id: row.id,
        database: row.database,
        host: row.host,
        left_by: row.left_by,
        old_epoch: row.old_epoch,
        fork: row.fork,
        extracted_at: row.extracted_at,
        came_at: row.came_at,
        re_entered_at: row.re_entered_at,
        entries: count(row.entries),
        changes: count(row.changes),
    }
}

fn count(counts: TailCounts) -> TailCount {
    let TailCounts { all, entered, there, refused } = counts;
    TailCount { all, entered, there, refused }
}
