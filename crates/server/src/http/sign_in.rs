//! Signing in and out.

use super::call::{Body, CallError, Caller};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rules::limit::PASSWORD_BYTES_MAX;
use std::sync::Arc;
use store::Token;
use wire::chat::RefusalCode;
use wire::http::{ErrorBody, SignIn, SignedIn};

/// Sign in with a local password.
#[utoipa::path(post, path = "/v1/sign-in", tag = "session", request_body = SignIn, responses(
    (status = 200, body = SignedIn), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn sign_in(State(app): State<Arc<App>>, Body(body): Body<SignIn>) -> Result<Json<SignedIn>, CallError> {
    let wrong = || CallError::new(RefusalCode::NotSignedIn, "no user has this name and password");
    if body.password.len() > PASSWORD_BYTES_MAX {
        return Err(wrong());
    }
    let store = app.store().await?;
    let user = store.user(&body.user).await?;
    let hash = user.as_ref().and_then(|u| u.password_hash.clone());
    let fits = app.passwords.fits(body.password, hash).await?;
    let user = user.filter(|u| fits && !u.disabled).ok_or_else(wrong)?;
    let token = Token::new();
    // The writer may have changed while the password was hashed.
    app.store().await?.add_token(user.id, &token.hash()).await?;
    Ok(Json(SignedIn { user: user.name, token: token.into_text(), administrator: user.administrator }))
}

/// Revoke the token that the call carries.
#[utoipa::path(post, path = "/v1/sign-out", tag = "session", security(("token" = [])), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn sign_out(State(app): State<Arc<App>>, caller: Caller) -> Result<StatusCode, CallError> {
    app.store().await?.revoke_token(&caller.token).await?;
    Ok(StatusCode::NO_CONTENT)
}
