//! Categories: for administrators.

use super::call::{Body, CallError, Caller, Id, node_name};
use crate::app::App;
use crate::standing::CONTENT_DATABASE;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cluster::name::DatabaseName;
use rules::durability::{Durability, Rule};
use rules::id::CategoryId;
use rules::limit::NAME_CHARS_MAX;
use std::sync::Arc;
use store::{CategoryLists, CategoryPatch, CategoryRow, Store};
use wire::chat::RefusalCode;
use wire::http::{Category, CategoryChange, ErrorBody, NewCategory};

/// All categories with their lists.
#[utoipa::path(get, path = "/v1/categories", tag = "categories", security(("token" = [])), responses(
    (status = 200, body = Vec<Category>), (status = 403, body = ErrorBody)))]
pub async fn list(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Vec<Category>>, CallError> {
    caller.must_administer()?;
    let rows = app.store().await?.categories().await?;
    Ok(Json(rows.into_iter().map(category).collect()))
}

/// Create a category.
#[utoipa::path(post, path = "/v1/categories", tag = "categories", security(("token" = [])),
    request_body = NewCategory, responses((status = 201, body = Category), (status = 400, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<NewCategory>,
) -> Result<(StatusCode, Json<Category>), CallError> {
    caller.must_administer()?;
    let name = node_name(&body.name)?;
    check_description(&body.description)?;
    let rule = Rule::of(body.durability, body.when_unavailable).map_err(contradiction)?;
    check_durability(&app, rule)?;
    let lists = CategoryLists { allowed: body.allowed_members, denied: body.denied_members, creators: body.creators };
    let store = app.store().await?;
    let id = store.create_category(&name, &body.description, &lists, rule, caller.id).await?;
    Ok((StatusCode::CREATED, Json(find(&store, id).await?)))
}

/// Change a category's lists, or what acknowledgements in its rooms wait for.
#[utoipa::path(patch, path = "/v1/categories/{id}", tag = "categories", security(("token" = [])),
    params(("id" = i64, Path)), request_body = CategoryChange, responses((status = 200, body = Category),
    (status = 400, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Id(id): Id,
    Body(body): Body<CategoryChange>,
) -> Result<Json<Category>, CallError> {
    caller.must_administer()?;
    let add = CategoryLists {
        allowed: body.allowed_members.add,
        denied: body.denied_members.add,
        creators: body.creators.add,
    };
    let remove = CategoryLists {
        allowed: body.allowed_members.remove,
        denied: body.denied_members.remove,
        creators: body.creators.remove,
    };
    let store = app.store().await?;
    let (durability, when_unavailable) = (body.durability, body.when_unavailable);
    if durability.is_some() || when_unavailable.is_some() {
        let present = find(&store, CategoryId(id)).await?;
        let present = Rule { durability: present.durability, when_unavailable: present.when_unavailable };
        check_durability(&app, present.changed(durability, when_unavailable).map_err(contradiction)?)?;
    }
    let patch = CategoryPatch { add, remove, durability, when_unavailable };
    let rooms = store.change_category(CategoryId(id), &patch, caller.id).await?;
    if !rooms.is_empty() {
        app.access_changed(&rooms);
    }
    Ok(Json(find(&store, CategoryId(id)).await?))
}

async fn find(store: &Store, id: CategoryId) -> Result<Category, CallError> {
    let rows = store.categories().await?;
    let row = rows.into_iter().find(|row| row.id == id);
    row.map(category).ok_or_else(|| CallError::new(RefusalCode::NotFound, format!("there is no category {id}")))
}

fn category(row: CategoryRow) -> Category {
    Category {
        id: row.id,
        name: row.name,
        description: row.description,
        allowed_members: row.lists.allowed,
        denied_members: row.lists.denied,
        creators: row.lists.creators,
        durability: row.durability.durability,
        when_unavailable: row.durability.when_unavailable,
    }
}

fn contradiction(why: String) -> CallError {
    CallError::new(RefusalCode::BadRequest, why)
}

/// Whether the pool is made so that this can ever be had, and so that what is less than everywhere comes home after a take-over.
fn check_durability(app: &App, rule: Rule) -> Result<(), CallError> {
    let view = app.view();
    let name = DatabaseName::from(CONTENT_DATABASE);
    let why = match view.topology.database(&name) {
        _ if rule.is_default() => return Ok(()),
        None if rule.is_disk() => format!(
            "the database {name} is operated by somebody else, and nobody would bring home what a take-over there leaves behind; leave it \
             at {}",
            Rule::default()
        ),
        None => format!(
            "the database {name} is operated by somebody else, and nobody tells the servers where posts are durable; leave it at \
             {}",
            Rule::default()
        ),
        Some(database) if rule.durability == Durability::BothSites && database.backup.is_none() => format!(
            "the topology has no backup of {name} at a second site, and no post would ever be durable at both; publish one that \
             has, or ask for the mirror"
        ),
        Some(database) if rule.durability == Durability::Mirror && database.mirror.is_none() => format!(
            "the topology has no mirror of {name}, and posts would wait for ever; publish one that has, or let them be acknowledged \
             as less"
        ),
        Some(_) => return Ok(()),
    };
    Err(CallError::new(RefusalCode::BadRequest, why))
}

/// Whether a description may be taken.
pub fn check_description(text: &str) -> Result<(), CallError> {
    let chars = text.chars().count();
    if chars > NAME_CHARS_MAX {
        let message = format!("the description has {chars} characters; at most {NAME_CHARS_MAX} are allowed");
        return Err(CallError::new(RefusalCode::BadRequest, message));
    }
    if text.chars().any(char::is_control) {
        return Err(CallError::new(RefusalCode::BadRequest, "the description holds a control character; take it out"));
    }
    Ok(())
}
