//! The end of a server: asked to (SIGTERM), it sends its clients to the other active servers, as one does that leaves the
//! list of active servers, and ends when they have gone. Where no other server is active nobody is moved: clients look for
//! a server again by themselves, and post what was not acknowledged again.

use crate::app::{App, View};
use crate::standing::Standing;
use crate::writer::DRAIN_MAX;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// What the server needs, when its clients have moved, to see that it has.
const SLACK: Duration = Duration::from_secs(1);

/// Returns when the process has been asked to end and may.
pub async fn when_asked(app: &App) {
    let mut asked = signal(SignalKind::terminate()).expect("a process may listen for its own signals");
    asked.recv().await;
    tracing::info!(sessions = app.sessions(), "asked to end");
    if app.sessions() > 0 && app.view().has_another_active(&app.name) {
        let until_drained = drain(app);
        tokio::select! {
            () = until_drained => {}
            // Asked again: whoever does that does not want to wait.
            _ = asked.recv() => tracing::warn!(sessions = app.sessions(), "asked to end again: not waiting for clients"),
        }
    }
    tracing::info!(sessions = app.sessions(), "ends");
}

/// Count as active no more, and wait until that has taken effect.
async fn drain(app: &App) {
    let mut standing = app.standing.subscribe();
    app.view.send_modify(|view| *view = Arc::new(View { ending: Some(app.name.clone()), ..(**view).clone() }));
    let gone = async {
        // An error means that the server ends.
        let _ = standing.wait_for(|now| matches!(now, Standing::Away)).await;
        crate::writer::moved(app).await;
    };
    if tokio::time::timeout(DRAIN_MAX + SLACK, gone).await.is_err() {
        tracing::warn!(sessions = app.sessions(), "clients have not moved in time");
    }
}
