//! Rooms: the directory, creating, changing.

use super::call::{Body, CallError, Caller, Id, Parameters, node_name};
use super::categories::check_description;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rules::access::{Asker, Deed, Role, decide};
use rules::id::RoomId;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Facts, NewRoomRow, RoomFacts, RoomPatch, Store};
use wire::chat::RefusalCode;
use wire::http::{ErrorBody, ListChange, NewRoom, Room, RoomChange, Rooms};

/// Which rooms to list.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Only the room of this name.
    name: Option<String>,
}

/// All rooms that the caller may find; administrators find all.
#[utoipa::path(get, path = "/v1/rooms", tag = "rooms", security(("token" = [])), params(Which), responses(
    (status = 200, body = Rooms), (status = 401, body = ErrorBody)))]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Parameters(which): Parameters<Which>,
) -> Result<Json<Rooms>, CallError> {
    let mut facts = app.store().await?.directory(caller.id, which.name.as_deref()).await?;
    let rooms = std::mem::take(&mut facts.rooms);
    let asker = asker(&facts, &caller)?;
    let mut rooms: Vec<Room> = rooms.into_values().filter(|room| may_know(asker, room)).map(room).collect();
    rooms.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(Rooms { rooms }))
}

/// Create a room.
#[utoipa::path(post, path = "/v1/rooms", tag = "rooms", security(("token" = [])), request_body = NewRoom, responses(
    (status = 201, body = Room), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<NewRoom>,
) -> Result<(StatusCode, Json<Room>), CallError> {
    check_description(&body.description)?;
    let row = NewRoomRow {
        name: node_name(&body.name)?,
        category: body.category,
        description: body.description,
        privacy: body.privacy,
        kind: body.kind,
        members: body.members,
    };
    let store = app.store().await?;
    let id = store.create_room(&row, caller.id).await?;
    Ok((StatusCode::CREATED, Json(find(&store, &caller, id).await?)))
}

/// Change a room: for its managers and administrators.
#[utoipa::path(patch, path = "/v1/rooms/{id}", tag = "rooms", security(("token" = [])), params(("id" = i64, Path)),
    request_body = RoomChange, responses((status = 200, body = Room), (status = 400, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    Body(body): Body<RoomChange>,
) -> Result<Json<Room>, CallError> {
    let room = RoomId(id);
    let store = app.store().await?;
    // Who may not know of the room learns nothing from the refusal.
    find(&store, &caller, room).await?;
    store.change_room(room, &patch(&body), caller.id).await?;
    app.access_changed(&[room]);
    Ok(Json(find(&store, &caller, room).await?))
}

fn patch(body: &RoomChange) -> RoomPatch {
    let names = |roles: &BTreeMap<Role, ListChange>, pick: fn(&ListChange) -> &Vec<String>| {
        roles.iter().map(|(role, change)| (*role, pick(change).clone())).collect()
    };
    RoomPatch {
        add: names(&body.roles, |change| &change.add),
        remove: names(&body.roles, |change| &change.remove),
        disabled: body.disabled,
        privacy: body.privacy,
    }
}

fn asker<'a>(facts: &'a Facts, caller: &Caller) -> Result<&'a Asker, CallError> {
    let unknown = || CallError::new(RefusalCode::NotSignedIn, "the user is not there any more; sign in again");
    facts.askers.get(&caller.id).ok_or_else(unknown)
}

/// Whether the asker may know that the room exists.
pub fn may_know(asker: &Asker, room: &RoomFacts) -> bool {
    decide(asker, &room.access, Deed::Find).is_ok() || decide(asker, &room.access, Deed::Manage).is_ok()
}

async fn find(store: &Store, caller: &Caller, id: RoomId) -> Result<Room, CallError> {
    let mut facts = store.facts(&[caller.id], &[id]).await?;
    let row = facts.rooms.remove(&id);
    let asker = asker(&facts, caller)?;
    row.filter(|row| may_know(asker, row))
        .map(room)
        .ok_or_else(|| CallError::new(RefusalCode::NotFound, format!("there is no room {id} that you may know of")))
}

fn room(facts: RoomFacts) -> Room {
    Room {
        id: facts.id,
        name: facts.name,
        category: facts.category_name,
        description: facts.description,
        privacy: facts.access.privacy,
        kind: facts.access.kind,
        disabled: facts.access.disabled,
        last_seq: facts.last_seq,
    }
}
