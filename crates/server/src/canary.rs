//! The canary: while this server is active it writes one all the time, tells the other servers over the links, and listens for
//! theirs. `cluster::canary` says when one is overdue.
//!
//! It waits for its turn in the chat path, so that a chat path which stands still holds it up, and is then written in a
//! transaction of its own beside the posts, which do not wait for it.

use crate::app::App;
use crate::standing::{Standing, peers};
use cluster::canary::{Expected, ServerCanaries};
use cluster::name::ServerName;
use rules::id::Epoch;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Between two looks at whether one is due.
const LOOK: Duration = Duration::from_millis(500);

/// Who waits for a turn in the chat path.
pub type Turn = oneshot::Sender<()>;

/// What is known of canaries.
pub struct Canaries {
    began: Instant,
    turns: mpsc::Sender<Turn>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The own one, while this server is to write it: how long it took.
    own: Expected<(), u64>,
    /// What the last own one was, and when it was begun.
    last: Option<(Epoch, i64, Instant)>,
    heard: Expected<ServerName, ()>,
    echo_ms: BTreeMap<ServerName, u64>,
}

impl Canaries {
    /// Nothing known yet, and the queue of those who wait for a turn.
    pub fn new() -> (Self, mpsc::Receiver<Turn>) {
        let (turns, queue) = mpsc::channel(1);
        (Self { began: Instant::now(), turns, state: Mutex::default() }, queue)
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the canaries")
    }

    /// What this server tells of them.
    pub fn report(&self) -> Option<ServerCanaries> {
        let (now, state) = (self.now_ms(), self.state());
        let ((), age_ms, took) = state.own.ages(now).next()?;
        Some(ServerCanaries {
            age_ms,
            took_ms: took.copied(),
            heard_ms: state.heard.ages(now).map(|(server, age, _)| (server.clone(), age)).collect(),
            echo_ms: state.echo_ms.clone(),
        })
    }

    /// Another server has written one; it is told that this was heard.
    pub fn heard(&self, app: &App, server: &str, epoch: Epoch, n: i64) {
        self.state().heard.see(&server.into(), (), self.now_ms());
        app.links.canary_heard(server, epoch, n);
    }

    /// Another server has heard of this one's.
    pub fn echoed(&self, server: &str, epoch: Epoch, n: i64) {
        let mut state = self.state();
        if let Some((_, _, began)) = state.last.filter(|(e, own, _)| (*e, *own) == (epoch, n)) {
            state.echo_ms.insert(server.into(), began.elapsed().as_millis() as u64);
        }
    }

    /// Who is expected to write one now, this server included, if any are written.
    fn expect(&self, app: &App) -> Option<Duration> {
        let view = app.view();
        let active = view.record.as_ref().is_some_and(|r| r.is_active(&app.name));
        let every = view.topology.canary.every.0.filter(|_| active);
        let others: Vec<ServerName> = if every.is_some() {
            peers(&view, &app.name).into_iter().map(|(name, _)| name).collect()
        } else {
            Vec::new()
        };
        let now = self.now_ms();
        let mut state = self.state();
        state.echo_ms.retain(|server, _| others.contains(server));
        state.heard.expect(others, now);
        state.own.expect(every.map(|_| ()), now);
        every.map(cluster::shipping_settings::Span::duration)
    }
}

/// Write canaries for as long as the process lives.
pub async fn run(app: Arc<App>) {
    let mut written: Option<Instant> = None;
    loop {
        match app.canaries.expect(&app) {
            Some(every) if written.is_none_or(|at| at.elapsed() >= every) => {
                if write(&app).await {
                    written = Some(Instant::now());
                }
            }
            Some(_) => {}
            None => written = None,
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Write one, if the chat path gives this a turn and there is a writer. Whether it is durable.
async fn write(app: &App) -> bool {
    let began = Instant::now();
    let (turn, mine) = oneshot::channel();
    // One that waits already is enough.
    if app.canaries.turns.try_send(turn).is_err() || mine.await.is_err() {
        return false;
    }
    let Standing::Ready { store } = app.standing.borrow().clone() else { return false };
    match store.write_canary().await {
        Ok(n) => {
            let took = began.elapsed().as_millis() as u64;
            let now = app.canaries.now_ms();
            {
                let mut state = app.canaries.state();
                state.own.see(&(), took, now);
                state.last = Some((store.epoch(), n, began));
            }
            app.links.tell_canary(store.epoch(), n);
            true
        }
        Err(error) => {
            tracing::info!(%error, "a canary could not be written; trying again");
            false
        }
    }
}
