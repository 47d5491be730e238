//! Following the host's agent: the newest record and topology come from it, and it hears how this server is.
//!
//! While the agent is away the server goes on with the copies on disk, which the agent may still change before its next
//! start is complete.

use crate::app::{App, View};
use crate::host_folder;
use crate::standing::Standing;
use cluster::report::ServerReport;
use cluster::secret::Purpose;
use std::sync::Arc;
use std::time::Duration;
use wire::agent::Watched;

/// How long the agent may hold a question.
const WATCH_MS: u64 = 2000;
/// Between reports when nothing changes.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// Between attempts while the agent is away.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Keep `app.view` the newest that the agent, or the disk, knows.
pub async fn watch(app: Arc<App>) {
    let key = app.secret.derive(Purpose::AgentApi);
    let mut away = false;
    loop {
        let Some(base) = agent_address(&app) else {
            tokio::time::sleep(RETRY_AFTER).await;
            take_from_disk(&app).await;
            continue;
        };
        let view = app.view();
        let (epoch, version) = view.record.as_ref().map_or((0, 0), |r| (r.epoch.0, r.version));
        let url = format!("{base}/v1/watch?epoch={epoch}&version={version}&wait_ms={WATCH_MS}");
        let request = app.http.get(url).bearer_auth(&key).timeout(Duration::from_millis(2 * WATCH_MS));
        match fetch(request).await {
            Ok(watched) => {
                if away {
                    tracing::info!("the host's agent answers again");
                    away = false;
                }
                take(&app, View { topology: watched.topology, record: watched.record, ending: None });
            }
            Err(error) => {
                if !away {
                    tracing::warn!(%error, agent = base, "the host's agent does not answer; going on with the copies on disk");
                    away = true;
                }
                take_from_disk(&app).await;
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn fetch(request: reqwest::RequestBuilder) -> Result<Watched, reqwest::Error> {
    request.send().await?.error_for_status()?.json().await
}

fn agent_address(app: &App) -> Option<String> {
    let view = app.view();
    let host = &view.topology.server(&app.name)?.host;
    view.topology.host(host).map(|h| format!("http://{}", h.agent.at))
}

async fn take_from_disk(app: &App) {
    match host_folder::read_view(&app.dir).await {
        Ok(view) => take(app, view),
        Err(error) => tracing::debug!(%error, "the copies on disk cannot be read now"),
    }
}

/// Take over what is newer; what is older than known is never gone back to.
fn take(app: &App, new: View) {
    app.view.send_if_modified(|view| {
        let record = match (&view.record, new.record) {
            (Some(old), Some(new)) if new.supersedes(old) => Some(new),
            (None, Some(new)) => Some(new),
            (old, _) => old.clone(),
        };
        let topology = if new.topology.version > view.topology.version { new.topology } else { view.topology.clone() };
        let merged = View { topology, record, ending: view.ending.clone() };
        let changed = **view != merged;
        if changed {
            *view = Arc::new(merged);
        }
        changed
    });
}

/// Tell the agent how this server is: at once when it begins or stops to write, else five times a second.
pub async fn report(app: Arc<App>) {
    let key = app.secret.derive(Purpose::AgentApi);
    let mut standing = app.standing.subscribe();
    loop {
        let writes_as = standing.borrow_and_update().epoch();
        if let Some(base) = agent_address(&app) {
            let report = ServerReport {
                writes_as,
                sessions: app.sessions(),
                waiting_posts: app.poster.waiting(),
                held: app.held.report(),
                record_version: app.view().record.as_ref().map_or(0, |r| r.version),
                canaries: app.canaries.report(),
                age_ms: 0,
            };
            let url = format!("{base}/v1/servers/{}", app.name);
            let request = app.http.post(url).bearer_auth(&key).json(&report).timeout(Duration::from_secs(1));
            match fetch(request).await {
                Ok(watched) => take(&app, View { topology: watched.topology, record: watched.record, ending: None }),
                Err(error) => tracing::debug!(%error, "the host's agent did not take a report"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(REPORT_EVERY) => {}
            () = writes_differ(&mut standing, writes_as) => {}
        }
    }
}

async fn writes_differ(standing: &mut tokio::sync::watch::Receiver<Standing>, told: Option<rules::id::Epoch>) {
    // An error means that the server ends.
    let _ = standing.wait_for(|now| now.epoch() != told).await;
}
