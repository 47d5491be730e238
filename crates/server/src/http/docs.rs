//! What describes the API: an OpenAPI document generated from the code, and a page on the WebSocket frames.

use super::{categories, chain, entries, keys, pool, rooms, sign_in, tails, users};
use axum::Json;
use axum::response::Html;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "Standfast chat server", description = "Chat over HTTP; live delivery over the WebSocket at \
        /v1/chat, whose frames /docs/frames describes."),
    paths(
        sign_in::sign_in, sign_in::sign_out, pool::servers, pool::health, keys::keys, users::create_user, users::create_users,
        users::create_group, categories::list, categories::create, categories::change, rooms::list, rooms::create,
        rooms::change, entries::page, entries::post, chain::page, tails::list, tails::page,
    ),
    modifiers(&Bearer)
)]
struct Api;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The OpenAPI document.
pub async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}

/// The page on frames.
pub async fn frames() -> Html<&'static str> {
    Html(include_str!("frames.html"))
}
