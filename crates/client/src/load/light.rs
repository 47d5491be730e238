//! A light load of full sessions, which live through a change of writer: for measuring how long people notice it.

use super::crowd::Crowd;
use crate::event::Event;
use crate::http::Http;
use crate::session::{Identity, Proof, Session};
use rules::id::Epoch;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Events that may wait.
const EVENTS_MAX: usize = 16 * 1024;
/// How often posts that are due are sent.
const TICK: Duration = Duration::from_millis(5);

/// What the sessions were told since the last mark.
#[derive(Clone, Copy, Debug, Default)]
pub struct Since {
    /// Posts acknowledged.
    pub acknowledged: u64,
    /// Longest time between two acknowledgements.
    pub longest_gap: Duration,
    /// Longest time that a single post waited for its acknowledgement.
    pub longest_wait: Duration,
    last: Option<Instant>,
}

/// A load under way. Dropping it ends it.
#[derive(Debug)]
pub struct Light {
    since: Arc<Mutex<Since>>,
    epoch: watch::Receiver<(Epoch, Instant)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Light {
    /// Everybody in the crowd joins, and together they post so many a second.
    pub async fn start(http: &Arc<Http>, crowd: Crowd, per_second: f64) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let since = Arc::new(Mutex::new(Since::default()));
        let (epochs, epoch) = watch::channel((Epoch(0), Instant::now()));
        let listen = tokio::spawn(listen(events, since.clone(), epochs));
        let mut people = Vec::with_capacity(crowd.seats.len());
        for (n, seat) in crowd.seats.into_iter().enumerate() {
            let identity =
                Identity { user: seat.user, token: seat.token, proof: Proof::IssuedBy(http.clone()), receipts: false };
            let session = Session::open(http.directory().clone(), identity, n as u32, sender.clone());
            session.join(seat.room, Some(0)).await;
            people.push((session, seat.room));
        }
        let post = tokio::spawn(async move {
            let began = Instant::now();
            let mut sent = 0_u64;
            let mut tick = tokio::time::interval(TICK);
            loop {
                tick.tick().await;
                let due = (began.elapsed().as_secs_f64() * per_second) as u64;
                for n in sent..due {
                    let (session, room) = &people[n as usize % people.len()];
                    session.post(*room, Uuid::now_v7(), format!("load {n}")).await;
                }
                sent = sent.max(due);
            }
        });
        Self { since, epoch, tasks: vec![listen, post] }
    }

    /// Begin to count anew.
    pub fn mark(&self) {
        let mut since = self.lock();
        *since = Since { last: since.last, ..Since::default() };
    }

    /// What was told since the last mark, a silence that lasts still included.
    pub fn since(&self) -> Since {
        let mut since = *self.lock();
        if let Some(last) = since.last {
            since.longest_gap = since.longest_gap.max(last.elapsed());
        }
        since
    }

    /// When the first post was acknowledged in this epoch or a later one; waits for it.
    pub async fn first_in(&mut self, epoch: Epoch) -> Option<Instant> {
        self.epoch.wait_for(|(newest, _)| *newest >= epoch).await.ok().map(|now| now.1)
    }

    /// The newest epoch in which a post was acknowledged; waits for the first one.
    pub async fn epoch(&mut self) -> Epoch {
        self.epoch.wait_for(|(newest, _)| newest.0 > 0).await.map_or(Epoch::FIRST, |now| now.0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Since> {
        self.since.lock().expect("nothing that holds this lock can panic")
    }
}

impl Drop for Light {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn listen(
    mut events: mpsc::Receiver<(u32, Event)>,
    since: Arc<Mutex<Since>>,
    epochs: watch::Sender<(Epoch, Instant)>,
) {
    while let Some((_, event)) = events.recv().await {
        let Event::Acknowledged { epoch, took, again: false, .. } = event else { continue };
        let now = Instant::now();
        {
            let mut since = since.lock().expect("nothing that holds this lock can panic");
            since.acknowledged += 1;
            since.longest_wait = since.longest_wait.max(took);
            if let Some(last) = since.last.replace(now) {
                since.longest_gap = since.longest_gap.max(now - last);
            }
        }
        epochs.send_if_modified(|newest| {
            let newer = epoch > newest.0;
            if newer {
                *newest = (epoch, now);
            }
            newer
        });
    }
}
