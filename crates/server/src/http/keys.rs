//! The keys that check what this pool signs.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use wire::receipt::Keys;

/// The keys that check receipts and exports. Needs no token. Who is to judge without trusting the pool's servers gets the key
/// from an administrator: `standfast verify key`.
#[utoipa::path(get, path = "/v1/keys", tag = "pool", responses((status = 200, body = Keys)))]
pub async fn keys(State(app): State<Arc<App>>) -> Json<Keys> {
    Json(Keys { pool: app.view().topology.pool.clone(), keys: vec![app.signing_key.public().into()] })
}
