//! HTTP for clients and administrators, and the upgrade to the chat WebSocket.

mod call;
mod categories;
mod chain;
mod docs;
mod entries;
mod keys;
mod metrics;
mod pool;
mod rooms;
mod sign_in;
mod tails;
mod users;

pub use self::call::CallError;
pub use self::sign_in::SignIns;
use crate::app::App;
use crate::{session, socket};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use std::sync::Arc;
use wire::chat::RefusalCode;

/// Largest body of a call: a thousand names of the longest kind, escaped.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Connections beyond those that a server takes, to be told when to come back, and where.
const CONNECTIONS_MAX: u64 = 90_000;

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat", get(chat))
        .route("/v1/sign-in", post(sign_in::sign_in))
        .route("/v1/sign-out", post(sign_in::sign_out))
        .route("/v1/servers", get(pool::servers))
        .route("/v1/health", get(pool::health))
        .route("/v1/keys", get(keys::keys))
        .route("/v1/users", post(users::create_user))
        .route("/v1/users/batch", post(users::create_users))
        .route("/v1/groups", post(users::create_group))
        .route("/v1/categories", get(categories::list).post(categories::create))
        .route("/v1/categories/{id}", patch(categories::change))
        .route("/v1/rooms", get(rooms::list).post(rooms::create))
        .route("/v1/rooms/{id}", patch(rooms::change))
        .route("/v1/rooms/{id}/entries", get(entries::page).post(entries::post))
        .route("/v1/rooms/{id}/chain", get(chain::page))
        .route("/v1/tails", get(tails::list))
        .route("/v1/tails/{id}", get(tails::page))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs/frames", get(docs::frames))
        .fallback(call::no_such_path)
        .method_not_allowed_fallback(call::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Response {
    if app.sessions() >= CONNECTIONS_MAX {
        let message = format!("{CONNECTIONS_MAX} clients are connected already; connect to another server");
        return CallError::new(RefusalCode::Overloaded, message).into_response();
    }
    let (outbox, runtime) = (app.writers.outbox(), app.runtime.clone());
    socket::upgrade(request, outbox, runtime, move |socket| session::serve(app, socket))
}
