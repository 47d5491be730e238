//! Signing in and out.

use super::call::{Body, CallError, Caller};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use rules::admission::{Appointments, Rate};
use rules::limit::PASSWORD_BYTES_MAX;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use store::{PASSWORDS_WAITING_MAX as WAITING_MAX, StoreError, Token};
use wire::chat::RefusalCode;
use wire::http::{ErrorBody, SignIn, SignedIn};

/// Times for those who come while too many passwords wait to be hashed: one by one, as fast as the hashes go.
pub struct SignIns {
    times: Mutex<Appointments>,
    rate: Rate,
    began: Instant,
}

impl SignIns {
    /// With so many hashes under way at once.
    pub fn new(hashes_at_once: usize) -> Self {
        /// Hashes a second on one core of which others have a part as well.
        const A_SECOND: u32 = 30;
        let rate = Rate::per_second(A_SECOND.saturating_mul(hashes_at_once as u32));
        Self { times: Mutex::default(), rate, began: Instant::now() }
    }

    /// Give the next time away: after so many milliseconds.
    fn come_back_ms(&self) -> u64 {
        let now = self.began.elapsed().as_millis() as u64;
        self.times.lock().expect("no code panics while it holds the times").give(now, WAITING_MAX as u64, self.rate)
    }
}

/// Sign in with a local password.
#[utoipa::path(post, path = "/v1/sign-in", tag = "session", request_body = SignIn, responses(
    (status = 200, body = SignedIn), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
pub async fn sign_in(State(app): State<Arc<App>>, Body(body): Body<SignIn>) -> Result<Json<SignedIn>, CallError> {
    let wrong = || CallError::new(RefusalCode::NotSignedIn, "no user has this name and password");
    if body.password.len() > PASSWORD_BYTES_MAX {
        return Err(wrong());
    }
    let store = app.store().await?;
    let user = store.user(&body.user).await?;
    let hash = user.as_ref().and_then(|u| u.password_hash.clone());
    let fits = match app.passwords.fits(body.password, hash).await {
        Err(StoreError::Busy(busy)) => {
            return Err(CallError::come_back(
                app.sign_ins.come_back_ms(),
                format!("{busy}; come back when the answer says so"),
            ));
        }
        answer => answer?,
    };
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
