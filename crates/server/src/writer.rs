//! Keeping hold of the writer: connect to whom the record names, prove the epoch with a real write, let go at once when
//! the record or the connection says so.

use crate::app::{App, View};
use crate::session::MOVE_WINDOW_MAX_MS;
use crate::standing::{Goal, Standing, goal};
use cluster::secret::Purpose;
use rand::Rng;
use rules::id::Epoch;
use std::sync::Arc;
use std::time::Duration;
use store::{Connections, FirstAdministrator, Store, StoreError, Target};

/// Longest time that clients may take to move: the window over which they are told to, and a little.
pub const DRAIN_MAX: Duration = Duration::from_millis(MOVE_WINDOW_MAX_MS + 2_000);
/// Between two looks whether they have moved.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Time before a writer that cannot be used as the topology or a file names it is tried again.
const UNUSABLE_WAIT: Duration = Duration::from_secs(1);
/// Time before a writer is tried again that is being stopped, or has refused the epoch, while the record still names it.
const SENT_AWAY_WAIT: Duration = Duration::from_millis(250);
/// Name of the first administrator.
const FIRST_ADMINISTRATOR: &str = "admin";

/// Hold the server to what the record asks, for as long as the process lives.
pub async fn keep(app: Arc<App>) {
    let mut view = app.view.subscribe();
    let first = first_administrator(&app).await;
    let mut epoch_settled: Option<Epoch> = None;
    loop {
        let goal = goal(&view.borrow_and_update(), &app.name);
        tracing::info!(?goal, "following the record");
        match &goal {
            Goal::Away => set(&app, Standing::Away),
            Goal::Wait { reason } => set(&app, Standing::waiting(*reason)),
            Goal::Write { at, epoch } => {
                set(&app, Standing::waiting(format!("connecting to the writer at {at}")));
                tokio::select! {
                    () = goal_changed(&app, &goal) => leave(&app, *epoch).await,
                    () = write(&app, at, *epoch, &first, &mut epoch_settled) => {}
                }
                let_go(&app);
                continue;
            }
        }
        goal_changed(&app, &goal).await;
    }
}

fn set(app: &App, standing: Standing) {
    app.standing.send_modify(|now| *now = standing.after(now));
}

/// A server that has left the list of active servers, or has been asked to end, drains: its clients are told where to go, and what they post is
/// written until they have moved. Not when no server is active, nor when the writer changes: then nobody writes any more.
async fn leave(app: &App, epoch: Epoch) {
    let may_drain =
        |view: &View| goal(view, &app.name) == Goal::Away && view.record.as_ref().is_some_and(|r| r.epoch == epoch);
    let mut view = app.view.subscribe();
    let now = app.standing.borrow().clone();
    let (Standing::Ready { store }, true) = (now, may_drain(&view.borrow_and_update())) else { return };
    tracing::info!(sessions = app.sessions(), "not active any more: clients are told to move");
    set(app, Standing::Leaving { store: store.clone() });
    tokio::select! {
        () = moved(app) => {}
        () = store.broken() => {}
        // An error means that the server ends.
        _ = view.wait_for(|view| !may_drain(view)) => {}
        () = tokio::time::sleep(DRAIN_MAX) => tracing::warn!(sessions = app.sessions(), "clients have not moved in time"),
    }
    if may_drain(&app.view()) {
        // Straight from leaving to away: nobody who is left waits for a writer in between.
        set(app, Standing::Away);
        store.close();
    }
}

/// Until no client is connected and no post waits.
pub async fn moved(app: &App) {
    while app.sessions() > 0 || app.poster.waiting() > 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Drop the connections at once, whoever still uses them.
fn let_go(app: &App) {
    let mut old = None;
    app.standing.send_if_modified(|now| {
        old = now.store().cloned();
        let goes = !matches!(now, Standing::Away);
        if goes {
            *now = Standing::waiting("looking for the writer").after(now);
        }
        goes
    });
    if let Some(store) = old {
        store.close();
    }
}

async fn goal_changed(app: &App, present: &Goal) {
    let mut view = app.view.subscribe();
    // An error means that the server ends.
    let _ = view.wait_for(|view| goal(view, &app.name) != *present).await;
}

/// Be ready for as long as the connection holds; returns when it broke.
async fn write(app: &App, at: &str, epoch: Epoch, first: &FirstAdministrator, epoch_settled: &mut Option<Epoch>) {
    let store = Arc::new(open(app, at, epoch, first).await);
    while let Err(error) = crate::mend::settle(app, &store, *epoch_settled).await {
        if error.is_passing() || store.is_broken() {
            store.close();
            return;
        }
        tracing::error!(%error, "rooms could not be brought in line with the writer; trying again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    *epoch_settled = Some(epoch);
    tracing::info!(at, %epoch, "ready");
    set(app, Standing::Ready { store: store.clone() });
    app.mender.compare_all();
    store.broken().await;
    tracing::warn!(at, "the connection to the writer broke; looking for the writer");
    if store.was_sent_away() {
        // The record will say where to go. To try here again meanwhile would hold up whoever is being stopped.
        let_go(app);
        tokio::time::sleep(SENT_AWAY_WAIT).await;
    }
}

async fn open(app: &App, at: &str, epoch: Epoch, first: &FirstAdministrator) -> Store {
    let mut told = String::new();
    let mut kept = app.mirror.take(at);
    loop {
        let target = match app.target(at) {
            Ok(target) => target,
            Err(reason) => {
                if reason != told {
                    tracing::error!(at, reason, "the writer cannot be used; a person must look");
                    set(app, Standing::waiting(reason.as_str()));
                    told = reason;
                }
                tokio::time::sleep(UNUSABLE_WAIT).await;
                continue;
            }
        };
        match try_open(&mut kept, &target, epoch, first).await {
            Ok(store) => return store,
            Err(error) => {
                let reason = error.to_string();
                if reason != told {
                    report(app, &error, &reason);
                    told = reason;
                }
            }
        }
        let pause = rand::rng().random_range(10..50);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// With the connections that are kept, if they hold. A standby's are kept for the next try: it may be on its way to be a writer.
async fn try_open(
    kept: &mut Option<Connections>,
    target: &Target,
    epoch: Epoch,
    first: &FirstAdministrator,
) -> Result<Store, StoreError> {
    let connections = match kept.take().filter(|kept| !kept.is_broken() && kept.target() == target) {
        Some(kept) => kept,
        None => Connections::open(target).await?,
    };
    // Those that were kept to the mirror prove it by the first write: the record names nobody who has not been promoted.
    if connections.are_complete() || connections.take_writes().await? {
        return Store::over(connections, epoch, first).await;
    }
    if !target.is_several() {
        *kept = Some(connections);
    }
    Err(StoreError::NotAWriter { at: target.at() })
}

fn report(app: &App, error: &StoreError, reason: &str) {
    if error.is_passing() {
        tracing::info!(reason, "no writer yet");
    } else {
        tracing::error!(reason, "the writer cannot be used; a person must look");
    }
    set(app, Standing::waiting(format!("no writer yet: {reason}")));
}

async fn first_administrator(app: &App) -> FirstAdministrator {
    let password = app.secret.derive(Purpose::FirstAdministrator);
    loop {
        match app.passwords.hash(password.clone()).await {
            Ok(password_hash) => {
                return FirstAdministrator { name: FIRST_ADMINISTRATOR.to_owned(), password_hash };
            }
            Err(error) => {
                tracing::error!(%error, "the first administrator's password cannot be hashed; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
