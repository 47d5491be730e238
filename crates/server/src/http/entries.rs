//! A room's log over HTTP: pages of history, and posting without a WebSocket.

use super::call::{Body, CallError, Caller, Id, Parameters};
use super::rooms::may_know;
use crate::answer::{Answer, Outcome, Written};
use crate::app::App;
use crate::frame::entry_of;
use crate::poster::{Author, Post, Way};
use crate::session::check_text;
use crate::visible;
use axum::Json;
use axum::extract::State;
use rules::access::{Deed, decide};
use rules::id::{Epoch, RoomId, Seq};
use rules::limit::{HISTORY_DEFAULT, HISTORY_PAGE_MAX};
use std::sync::Arc;
use store::Bound;
use tokio::sync::oneshot;
use wire::chat::RefusalCode;
use wire::http::{EpochStart, ErrorBody, NewPost, Page, Posted};
use wire::receipt::Receipt;

/// Which page: both bounds are exclusive; without either the latest page.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The first entries after this number.
    after: Option<i64>,
    /// The last entries before this number.
    before: Option<i64>,
    /// Entries at most: 30 when left out, 1,000 at most.
    limit: Option<u32>,
}

impl Which {
    fn bound(&self) -> Result<Bound, CallError> {
        match (self.after, self.before) {
            (Some(_), Some(_)) => Err(CallError::new(RefusalCode::BadRequest, "give 'after' or 'before', not both")),
            (Some(after), None) => Ok(Bound::After(Seq(after))),
            (None, Some(before)) => Ok(Bound::Before(Seq(before))),
            (None, None) => Ok(Bound::Latest),
        }
    }
}

/// A page of a room's log, in rising order. Administrators read every room.
#[utoipa::path(get, path = "/v1/rooms/{id}/entries", tag = "entries", security(("token" = [])),
    params(("id" = i64, Path), Which), responses((status = 200, body = Page), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody)))]
pub async fn page(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    Parameters(which): Parameters<Which>,
) -> Result<Json<Page>, CallError> {
    let room = RoomId(id);
    let bound = which.bound()?;
    let limit = which.limit.unwrap_or(HISTORY_DEFAULT).min(HISTORY_PAGE_MAX);
    let store = app.store().await?;
    let page = loop {
        let decided = may_read(&store, &caller, room).await?;
        let page = visible::page(&app, &store, room, bound, limit).await?;
        // Access has changed between the decision and the page: decide again, so that the wall holds.
        if page.access_version <= decided {
            break page;
        }
    };
    let epochs = store.epoch_starts(room, Epoch(0)).await?;
    Ok(Json(Page {
        entries: page.entries.into_iter().map(|row| entry_of(room, row)).collect(),
        last_seq: page.head.last_seq,
        epochs: epochs.into_iter().map(|(epoch, last_seq)| EpochStart { epoch, last_seq }).collect(),
    }))
}

/// The access version at which the caller may read the room.
async fn may_read(store: &store::Store, caller: &Caller, id: RoomId) -> Result<i64, CallError> {
    let facts = store.facts(&[caller.id], &[id]).await?;
    let hidden = || CallError::new(RefusalCode::NotFound, format!("there is no room {id} that you may know of"));
    let (Some(room), Some(asker)) = (facts.rooms.get(&id), facts.askers.get(&caller.id)) else {
        return Err(hidden());
    };
    if asker.administrator && !asker.disabled {
        return Ok(room.access_version);
    }
    match decide(asker, &room.access, Deed::Read) {
        Ok(()) => Ok(room.access_version),
        Err(_) if !may_know(asker, room) => Err(hidden()),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Post. Sent again with the same `client_id`, here or anywhere, it is answered with the first result.
#[utoipa::path(post, path = "/v1/rooms/{id}/entries", tag = "entries", security(("token" = [])),
    params(("id" = i64, Path)), request_body = NewPost, responses((status = 200, body = Posted),
    (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 413, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn post(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    Body(body): Body<NewPost>,
) -> Result<Json<Posted>, CallError> {
    check_text(&body.text).map_err(|(code, message)| CallError::new(code, message))?;
    app.poster.look_up(&app, RoomId(id)).await;
    let (sender, outcome) = oneshot::channel();
    app.poster.post(
        &app,
        Post {
            room: RoomId(id),
            author: Author { id: caller.id, name: caller.name.into() },
            client_id: body.client_id,
            text: body.text,
            arrived: tokio::time::Instant::now(),
            receipt: true,
            answer: Answer::Call(sender),
            way: Way::default(),
        },
    );
    match outcome.await {
        Ok((Outcome::Written(written), signed)) => {
            let Written { room, seq, epoch, at_us, repeated, durable, less_than, grounds: _ } = written;
            let (pool, client_id) = (app.view().topology.pool.clone(), body.client_id);
            let receipt = |signed| Receipt { pool, room, seq, epoch, at_us, client_id, durable, signed };
            let receipt = signed.map(|signed| receipt(*signed));
            Ok(Json(Posted { client_id, seq, epoch, at_us, repeated, durable, less_than, receipt }))
        }
        Ok((Outcome::Committed(..), _)) => {
            Err(CallError::new(RefusalCode::Internal, "the post is not acknowledged; post it again"))
        }
        Ok((Outcome::Refused { code, message }, _)) => Err(CallError::new(code, message)),
        Err(_) => Err(CallError::new(RefusalCode::Unavailable, "the server ends; post it again at another one")),
    }
}
