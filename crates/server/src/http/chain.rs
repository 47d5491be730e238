//! Rooms' logs with their chains: for administrators, who may read every room.

use super::call::{CallError, Caller, Id, Parameters};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use rules::head::Head;
use rules::id::{RoomId, Seq};
use rules::limit::HISTORY_PAGE_MAX;
use std::sync::Arc;
use wire::chain::{ChainPage, SignedHead};
use wire::http::ErrorBody;

/// Where to go on.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct From {
    /// The first entries after this number; from the first one on when left out.
    after: Option<i64>,
}

/// A part of a room's log as it stands in the database, with all that its chain rests on, 1,000 entries at most, and the room's
/// head, signed.
#[utoipa::path(get, path = "/v1/rooms/{id}/chain", tag = "entries", security(("token" = [])),
    params(("id" = i64, Path), From), responses((status = 200, body = ChainPage), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub async fn page(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    Parameters(from): Parameters<From>,
) -> Result<Json<ChainPage>, CallError> {
    caller.must_administer()?;
    let after = Seq(from.after.unwrap_or(0));
    let page = app.store().await?.logged(RoomId(id), after, HISTORY_PAGE_MAX).await?;
    let (pool, at_us) = (app.view().topology.pool.clone(), jiff::Timestamp::now().as_microsecond());
    let head = Head { pool, room: RoomId(id), seq: page.last, chain: page.chain, at_us };
    let signed = Some(SignedHead::new(&head, &app.signing_key));
    let entries = page.entries.into_iter().map(Into::into).collect();
    Ok(Json(ChainPage { entries, last_seq: page.last, chain: page.chain, signed }))
}
