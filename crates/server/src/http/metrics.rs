//! `GET /metrics`: what this server counts, for Prometheus. It takes the pool's key for metrics, not a user's token.

use super::call::CallError;
use crate::app::App;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use cluster::secret::Purpose;
use std::sync::Arc;
use wire::chat::RefusalCode;
use wire::metrics::{CONTENT_TYPE, Page, catalogue as c};

/// The page.
pub async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, CallError> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !app.secret.is_brought_by(given, Purpose::Metrics) {
        let message = "metrics take the key that standfast metrics config writes";
        return Err(CallError::new(RefusalCode::NotSignedIn, message));
    }
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], page(&app).text()).into_response())
}

fn page(app: &App) -> Page {
    let view = app.view();
    let topology = &view.topology;
    let site = topology.site_of_server(&app.name).map(ToString::to_string).unwrap_or_default();
    let mut page = Page::new(&[("pool", &topology.pool), ("site", &site), ("server", app.name.as_str())]);
    page.add_truth(&c::SERVER_ACTIVE, &[], view.record.as_ref().is_some_and(|r| r.is_active(&app.name)));
    page.add_known(&c::SERVER_WRITES_AS, &[], app.standing.borrow().epoch().map(|e| e.0 as f64));
    page.add(&c::SERVER_SESSIONS, &[], app.sessions() as f64);
    page.add(&c::SERVER_QUEUE, &[], app.reception.waiting() as f64);
    for (outcome, count) in app.reception.counts.by_outcome() {
        page.add(&c::SERVER_ARRIVALS, &[outcome], count as f64);
    }
    page.add(&c::SERVER_WAITING, &[], app.poster.waiting() as f64);
    let held = app.held.report();
    page.add(&c::SERVER_HELD, &["mirror"], held.mirror as f64);
    page.add(&c::SERVER_HELD, &["both_sites"], held.both_sites as f64);
    page.add(&c::SERVER_HELD_AGE, &[], held.oldest_ms as f64 / 1000.0);
    page.add(&c::SERVER_LINKS, &[], app.links.count_up() as f64);
    for (outcome, count) in app.counts.outcomes() {
        page.add(&c::SERVER_POSTS, &[outcome], count as f64);
    }
    if let Some(canaries) = app.canaries.report() {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        page.add(&c::CANARY_AGE, &[], seconds(canaries.age_ms));
        page.add_known(&c::CANARY_WRITE, &[], canaries.took_ms.map(seconds));
        for (from, age) in &canaries.heard_ms {
            page.add(&c::CANARY_HEARD_AGE, &[from.as_str()], seconds(*age));
        }
        for (to, echo) in &canaries.echo_ms {
            page.add(&c::CANARY_ECHO, &[to.as_str()], seconds(*echo));
        }
    }
    page.add_histogram(&c::SERVER_ACKNOWLEDGEMENT_SECONDS, &[], &app.counts.acknowledgements.histogram());
    page.add_histogram(&c::SERVER_BATCH_POSTS, &[], &app.counts.batches.histogram());
    page.add_histogram(&c::SERVER_COMMIT_SECONDS, &[], &app.counts.commits.histogram());
    page
}
