//! Users and groups: for administrators.

use super::call::{Body, CallError, Caller, principal_name};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rules::limit::{PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN};
use std::sync::Arc;
use store::{NewUserRow, Token, TokenHash};
use wire::chat::RefusalCode;
use wire::http::{ErrorBody, NewGroup, NewTokens, NewUser, NewUsers, SignedIn};

/// Names in one call.
const NAMES_MAX: usize = 1000;

/// Create a user.
#[utoipa::path(post, path = "/v1/users", tag = "principals", security(("token" = [])), request_body = NewUser,
    responses((status = 201), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
pub async fn create_user(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<NewUser>,
) -> Result<StatusCode, CallError> {
    caller.must_administer()?;
    let name = principal_name(&body.name)?;
    let password_hash = match body.password {
        Some(password) => Some(app.passwords.hash(checked_password(password)?).await?),
        None => None,
    };
    let user = NewUserRow { name, password_hash, administrator: body.administrator };
    app.store().await?.create_user(&user, caller.id).await?;
    Ok(StatusCode::CREATED)
}

fn checked_password(password: String) -> Result<String, CallError> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        let message = format!("the password is too short; it needs {PASSWORD_CHARS_MIN} characters or more");
        return Err(CallError::new(RefusalCode::BadRequest, message));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        let message = format!("the password is too long; {PASSWORD_BYTES_MAX} bytes at most");
        return Err(CallError::new(RefusalCode::BadRequest, message));
    }
    Ok(password)
}

/// Create users without passwords, those that do not exist yet, and issue a token to each.
#[utoipa::path(post, path = "/v1/users/batch", tag = "principals", security(("token" = [])), request_body = NewUsers,
    responses((status = 200, body = NewTokens), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 409, body = ErrorBody)))]
pub async fn create_users(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<NewUsers>,
) -> Result<Json<NewTokens>, CallError> {
    caller.must_administer()?;
    if body.names.len() > NAMES_MAX {
        let message = format!("{} names; at most {NAMES_MAX} are taken in one call", body.names.len());
        return Err(CallError::new(RefusalCode::TooLarge, message));
    }
    let mut users: Vec<(String, TokenHash)> = Vec::with_capacity(body.names.len());
    let mut tokens = Vec::with_capacity(body.names.len());
    for name in &body.names {
        let token = Token::new();
        users.push((principal_name(name)?, token.hash()));
        tokens.push(token);
    }
    let rows = app.store().await?.create_users_with_tokens(&users, caller.id).await?;
    let sessions = rows
        .into_iter()
        .zip(tokens)
        .map(|(row, token)| SignedIn { user: row.name, token: token.into_text(), administrator: row.administrator })
        .collect();
    Ok(Json(NewTokens { sessions }))
}

/// Create a group.
#[utoipa::path(post, path = "/v1/groups", tag = "principals", security(("token" = [])), request_body = NewGroup,
    responses((status = 201), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn create_group(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<NewGroup>,
) -> Result<StatusCode, CallError> {
    caller.must_administer()?;
    let name = principal_name(&body.name)?;
    app.store().await?.create_group(&name, &body.members, caller.id).await?;
    Ok(StatusCode::CREATED)
}
