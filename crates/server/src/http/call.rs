//! What all calls share: who calls, the body, the store, the error's form.

use crate::app::App;
use crate::standing::Standing;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use rules::access::Refusal;
use rules::id::PrincipalId;
use rules::name::{NameError, NodeName, PrincipalName};
use std::sync::Arc;
use std::time::Duration;
use store::{Store, StoreError, TokenHash};
use wire::chat::RefusalCode;
use wire::http::ErrorBody;

/// How long a call waits for a writer.
const WRITER_WAIT: Duration = Duration::from_secs(5);

/// A refused call.
#[derive(Debug)]
pub struct CallError {
    code: RefusalCode,
    message: String,
    come_back_ms: Option<u64>,
}

impl CallError {
    /// Refuse with a reason and what to do.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), come_back_ms: None }
    }

    /// Too many ask: come back after so many milliseconds.
    pub fn come_back(after_ms: u64, message: impl Into<String>) -> Self {
        Self { come_back_ms: Some(after_ms), ..Self::new(RefusalCode::Overloaded, message) }
    }
}

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        let status = match self.code {
            RefusalCode::BadRequest => StatusCode::BAD_REQUEST,
            RefusalCode::NotSignedIn => StatusCode::UNAUTHORIZED,
            RefusalCode::Forbidden => StatusCode::FORBIDDEN,
            RefusalCode::NotFound => StatusCode::NOT_FOUND,
            RefusalCode::Conflict => StatusCode::CONFLICT,
            RefusalCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RefusalCode::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            RefusalCode::Unavailable | RefusalCode::NotActive => StatusCode::SERVICE_UNAVAILABLE,
            RefusalCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let come_back_ms = self.come_back_ms;
        let body = axum::Json(ErrorBody { code: self.code, message: self.message, come_back_ms });
        match come_back_ms {
            // For clients that read headers alone; in whole seconds.
            Some(ms) => (status, [(RETRY_AFTER, ms.div_ceil(1000).to_string())], body).into_response(),
            None => (status, body).into_response(),
        }
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Conflict(_) => RefusalCode::Conflict,
            StoreError::NotFound(_) => RefusalCode::NotFound,
            StoreError::Invalid(_) => RefusalCode::BadRequest,
            StoreError::Refused(_) => RefusalCode::Forbidden,
            StoreError::Busy(_) => RefusalCode::Overloaded,
            error if error.is_passing() => {
                tracing::info!(%error, "a call could not be finished");
                let message = "the writer was lost during the call, which may or may not have been carried out; \
                               look before you repeat it";
                return Self::new(RefusalCode::Unavailable, message);
            }
            _ => {
                tracing::error!(%error, "a call failed");
                return Self::new(RefusalCode::Internal, "the call failed; the server's log says why");
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<NameError> for CallError {
    fn from(error: NameError) -> Self {
        Self::new(RefusalCode::BadRequest, error.to_string())
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::new(RefusalCode::Forbidden, refusal.to_string())
    }
}

impl App {
    /// The store, when there is a writer or soon will be one.
    pub async fn store(&self) -> Result<Arc<Store>, CallError> {
        let mut standing = self.standing.subscribe();
        let settled = standing.wait_for(|now| !matches!(now, Standing::Waiting { .. }));
        if let Ok(Ok(now)) = tokio::time::timeout(WRITER_WAIT, settled).await {
            return match &*now {
                Standing::Ready { store } => Ok(store.clone()),
                Standing::Leaving { .. } | Standing::Away | Standing::Waiting { .. } => Err(self.not_active()),
            };
        }
        let reason = match &*self.standing.borrow() {
            Standing::Waiting { reason, .. } => reason.to_string(),
            Standing::Ready { .. } | Standing::Leaving { .. } | Standing::Away => "it has just changed".to_owned(),
        };
        let message = format!("no writer at the moment: {reason}; try again, here or at another server");
        Err(CallError::new(RefusalCode::Unavailable, message))
    }

    /// The refusal of a server that takes no clients: it says who does.
    pub fn not_active(&self) -> CallError {
        let view = self.view();
        let active: Vec<String> =
            crate::standing::addresses(&view).into_iter().filter(|s| s.active).map(|s| s.url).collect();
        let message = format!("server {} is not active; active are: {}", self.name, active.join(", "));
        CallError::new(RefusalCode::NotActive, message)
    }
}

/// The signed-in user who calls.
pub struct Caller {
    /// Its number.
    pub id: PrincipalId,
    /// Its name.
    pub name: String,
    /// Whether it is an administrator.
    pub administrator: bool,
    /// The hash of the token it came with.
    pub token: TokenHash,
}

impl Caller {
    /// Refuse everybody but administrators.
    pub fn must_administer(&self) -> Result<(), CallError> {
        if self.administrator { Ok(()) } else { Err(Refusal::NotAdministrator.into()) }
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = CallError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, CallError> {
        let refused = |message| CallError::new(RefusalCode::NotSignedIn, message);
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| refused("sign in first, and send 'Authorization: Bearer …' with the token"))?;
        let token = TokenHash::of(token.trim());
        let store = app.store().await?;
        let user = store
            .token_owner(&token)
            .await?
            .ok_or_else(|| refused("the token is unknown or revoked; sign in again"))?;
        Ok(Self { id: user.id, name: user.name, administrator: user.administrator, token })
    }
}

/// A JSON body, with errors in the API's own form.
pub struct Body<T>(pub T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = CallError;

    async fn from_request(request: Request, state: &S) -> Result<Self, CallError> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(rejection) => {
                let code = match &rejection {
                    JsonRejection::BytesRejection(_) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                        RefusalCode::TooLarge
                    }
                    _ => RefusalCode::BadRequest,
                };
                Err(CallError::new(code, format!("the body cannot be read: {}", rejection.body_text())))
            }
        }
    }
}

/// The parameters of a path, with errors in the API's own form.
pub struct Id(pub i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = CallError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CallError> {
        axum::extract::Path::<i64>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|_| CallError::new(RefusalCode::NotFound, "the path names no number of a room or category"))
    }
}

/// The parameters after `?`, with errors in the API's own form.
pub struct Parameters<T>(pub T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = CallError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, CallError> {
        axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map(|query| Self(query.0))
            .map_err(|e| CallError::new(RefusalCode::BadRequest, e.body_text()))
    }
}

/// A checked name of a room or category.
pub fn node_name(text: &str) -> Result<String, CallError> {
    Ok(NodeName::try_from(text)?.into())
}

/// A checked name of a user or group.
pub fn principal_name(text: &str) -> Result<String, CallError> {
    Ok(PrincipalName::try_from(text).map_err(|e| named(text, &e))?.into())
}

fn named(text: &str, error: &NameError) -> CallError {
    let short: String = text.chars().take(40).collect();
    CallError::new(RefusalCode::BadRequest, format!("'{}': {error}", short.escape_debug()))
}

/// Answer to a path that does not exist.
pub async fn no_such_path() -> CallError {
    CallError::new(RefusalCode::NotFound, "there is nothing at this path; /openapi.json lists what there is")
}

/// Answer to a method that a path does not offer.
pub async fn no_such_method() -> Response {
    let body = ErrorBody {
        code: RefusalCode::BadRequest,
        message: "this path does not offer that method; /openapi.json lists what it offers".to_owned(),
        come_back_ms: None,
    };
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(body)).into_response()
}
