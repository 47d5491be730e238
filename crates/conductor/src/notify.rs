//! Telling people: what `cluster::notify` says is due goes out to each receiver, by a task of its own.
//!
//! A run never waits for it. What a receiver has been told is on disk before the next thing is tried, so a process that is
//! started again goes on where the last one was; only what it was just telling is told again, under the same id.

mod mail;
mod state_file;
mod webhook;

use crate::Conductor;
use crate::journal::Journal;
use crate::observe::Look;
use cluster::notify::alarm::{Book, Sight, alarms};
use cluster::notify::delivery::{Delivery, Failed, NEWS_MS, Next};
use cluster::notify::run::{Moment, What, notices};
use cluster::notify::{Event, Kind, Notice, Receiver, Secret};
use cluster::topology::Topology;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wire::notification::{ReceiverReport, Standing, Tested, Told};
use wire::run::{RunEvent, RunEventKind};

/// Time between two looks for something to tell.
const LOOK: Duration = Duration::from_millis(250);
/// Longest time that a receiver may take.
const TRY_MAX: Duration = Duration::from_secs(10);
/// What became of the last notices is shown of so many.
const SHOWN: usize = 20;

/// What is known of receivers and alarms.
pub struct Notifier {
    folder: PathBuf,
    deliveries: Mutex<BTreeMap<String, Delivery>>,
    book: Mutex<Book>,
    /// Receivers that are being told something.
    busy: Mutex<std::collections::BTreeSet<String>>,
}

/// Everything that a try needs.
struct Way<'a> {
    dir: &'a Path,
    pool: &'a str,
    host: &'a str,
    receiver: &'a Receiver,
}

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

fn at(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.3}"))
}

impl Notifier {
    /// Take up what was left in a host folder.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let folder = dir.join("notify");
        let (deliveries, book) = state_file::read_all(&folder)?;
        Ok(Self { folder, deliveries: Mutex::new(deliveries), book: Mutex::new(book), busy: Mutex::default() })
    }

    fn deliveries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Delivery>> {
        self.deliveries.lock().expect("nothing panics while it holds the deliveries")
    }

    /// Take a look at the pool into account.
    pub fn note(&self, look: &Look, topology: &Topology, conductor: &Conductor) {
        let site = &conductor.agents.site;
        let is_authority = topology.site(site).is_some_and(|s| s.authority == conductor.agents.host);
        let Some(record) = look.newest_record().filter(|_| is_authority && !topology.receivers.is_empty()) else {
            return;
        };
        let seen = Sight { topology, record: &record, reports: &look.reports, silent: &look.silent };
        let mut book = self.book.lock().expect("nothing panics while it holds the book");
        if book.note(&topology.pool, &alarms(&seen, site), now_ms()) {
            state_file::write(&self.folder, state_file::BOOK, &*book);
        }
    }

    /// Change what is known of a receiver, and have it on disk.
    fn change(&self, receiver: &str, change: impl FnOnce(&mut Delivery)) {
        let mut deliveries = self.deliveries();
        let delivery = deliveries.entry(receiver.to_owned()).or_insert_with(|| Delivery::new(now_ms()));
        change(delivery);
        state_file::write(&self.folder, receiver, delivery);
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeSet<String>> {
        self.busy.lock().expect("nothing panics while it holds the names")
    }
}

/// Everything that there is to tell by now.
fn all_notices(conductor: &Conductor, pool: &str, now: i64) -> Vec<Notice> {
    let mut all = conductor.notifier.book.lock().expect("nothing panics while it holds the book").notices.clone();
    for journal in conductor.all_runs() {
        all.extend(of_run(&journal, pool, now));
    }
    all
}

/// What there is to tell of a run.
fn of_run(journal: &Journal, pool: &str, now: i64) -> Vec<Notice> {
    journal.with_events(|events| {
        let last = events.last().map_or(0, |e| ms(&e.at));
        if now.saturating_sub(last) > NEWS_MS {
            return Vec::new();
        }
        let moments: Vec<Moment<'_>> = events.iter().map(moment).collect();
        notices(pool, &journal.id, &moments, now)
    })
}

fn ms(at: &str) -> i64 {
    at.parse::<Timestamp>().map_or(0, Timestamp::as_millisecond)
}

fn moment(event: &RunEvent) -> Moment<'_> {
    let what = match &event.what {
        RunEventKind::Begun { runbook, started_by, only_step, found, .. } => {
            What::Begun { runbook, by: started_by, only_step: only_step.as_deref(), found }
        }
        RunEventKind::AbortBegun { started_by, .. } => What::AbortBegun { by: started_by },
        RunEventKind::StepBegun { step } => What::StepBegun(step),
        RunEventKind::Waiting { step, reason, needs_person: true } => What::Waiting { step, reason },
        RunEventKind::StepDone { step, .. } => What::StepDone(step),
        RunEventKind::Finished { complete, undone, message, .. } => {
            What::Finished { complete: *complete, undone: *undone, message }
        }
        RunEventKind::Resumed | RunEventKind::Ordered { .. } | RunEventKind::Waiting { .. } => What::Other,
    };
    Moment { number: event.number, at_ms: ms(&event.at), what }
}

/// Tell what is due, for as long as the process lives.
pub async fn watch(conductor: Arc<Conductor>) {
    loop {
        if let Ok(topology) = conductor.agents.topology() {
            round(&conductor, &topology);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn round(conductor: &Arc<Conductor>, topology: &Topology) {
    if topology.receivers.is_empty() {
        return;
    }
    let now = now_ms();
    let all = all_notices(conductor, &topology.pool, now);
    for receiver in &topology.receivers {
        let notifier = &conductor.notifier;
        if !notifier.deliveries().contains_key(&receiver.name) {
            notifier.change(&receiver.name, |_| {});
        }
        if notifier.busy().contains(&receiver.name) {
            continue;
        }
        let mut delivery = notifier.deliveries().get(&receiver.name).cloned().unwrap_or_default();
        if delivery.tidy(&all, now) {
            notifier.change(&receiver.name, |kept| *kept = delivery.clone());
        }
        if let Next::Tell(notice, attempt) = delivery.next(receiver, &all, now) {
            notifier.busy().insert(receiver.name.clone());
            let (conductor, receiver, notice) = (conductor.clone(), receiver.clone(), notice.clone());
            let pool = topology.pool.clone();
            tokio::spawn(async move { tell(&conductor, &pool, &receiver, &notice, attempt).await });
        }
    }
}

/// Tell a receiver something, and note what came of it.
async fn tell(conductor: &Conductor, pool: &str, receiver: &Receiver, notice: &Notice, attempt: u32) {
    let way = Way { dir: &conductor.dir, pool, host: conductor.agents.host.as_str(), receiver };
    let outcome = way.tell(notice, attempt).await;
    crate::failpoint::pass(&conductor.dir, "notify", &receiver.name, "after").await;
    let notifier = &conductor.notifier;
    match &outcome {
        Ok(()) => tracing::info!(receiver = %receiver.name, notice = %notice.id, attempt, "a notice was taken"),
        Err(failed) => {
            tracing::warn!(receiver = %receiver.name, notice = %notice.id, attempt, why = failed.why(), "a notice was not taken");
        }
    }
    notifier.change(&receiver.name, |delivery| match &outcome {
        Ok(()) => delivery.taken(notice, now_ms()),
        Err(failed) => delivery.failed(notice, failed, now_ms()),
    });
    notifier.busy().remove(&receiver.name);
}

impl Way<'_> {
    async fn tell(&self, notice: &Notice, attempt: u32) -> Result<(), Failed> {
        let telling = async {
            match self.receiver.kind {
                Kind::Webhook => webhook::post(self, notice, attempt).await,
                Kind::Mail => mail::send(self, notice).await,
            }
        };
        let late = || Failed::NotNow(format!("no answer within {} s", TRY_MAX.as_secs()));
        tokio::time::timeout(TRY_MAX, telling).await.unwrap_or_else(|_| Err(late()))
    }

    /// A secret of the receiver; `None` where there is no such file.
    fn secret(&self, secret: Secret) -> Result<Option<String>, Failed> {
        let path = self.dir.join(self.receiver.file(secret));
        let failed = |why: String| Failed::NotNow(format!("read {}: {why}", path.display()));
        match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(e.to_string())),
            Ok(text) if text.trim().is_empty() => Err(failed("it is empty".into())),
            Ok(text) => Ok(Some(text.trim().to_owned())),
        }
    }
}

/// Tell receivers that this is a test, at once and once, whatever else is to be told them.
pub async fn test(conductor: &Conductor, topology: &Topology, only: Option<&str>, by: &str) -> Vec<Tested> {
    let wanted = topology.receivers.iter().filter(|r| only.is_none_or(|name| r.name == name));
    let tries = wanted.map(|receiver| {
        let host = conductor.agents.host.as_str();
        let now = now_ms();
        let notice = Notice {
            id: format!("test/{host}/{now}"),
            event: Event::Test,
            at_ms: now,
            run: None,
            says: format!("{}: a test by {by}: {host} reaches {}", topology.pool, receiver.name),
            details: Vec::new(),
        };
        let (dir, pool) = (conductor.dir.clone(), topology.pool.clone());
        let (host, receiver) = (host.to_owned(), receiver.clone());
        tokio::spawn(async move {
            let began = Instant::now();
            let way = Way { dir: &dir, pool: &pool, host: &host, receiver: &receiver };
            let outcome = way.tell(&notice, 1).await;
            Tested {
                receiver: receiver.name.clone(),
                kind: receiver.kind,
                place: receiver.place(),
                failed: outcome.err().map(|f| f.why().to_owned()),
                took_ms: began.elapsed().as_millis() as u64,
            }
        })
    });
    let mut tested = Vec::new();
    for tried in tries.collect::<Vec<_>>() {
        tested.extend(tried.await);
    }
    tested
}

/// How it stands with each receiver.
pub fn report(conductor: &Conductor, topology: &Topology) -> Vec<ReceiverReport> {
    let now = now_ms();
    let all = all_notices(conductor, &topology.pool, now);
    let deliveries = conductor.notifier.deliveries();
    let of = |receiver: &Receiver| {
        let mut told = Vec::new();
        if let Some(delivery) = deliveries.get(&receiver.name) {
            told.extend(delivery.due(receiver, &all, now).into_iter().map(|n| told_of(receiver, delivery, n)));
            let mut settled: Vec<_> = delivery.settled.iter().collect();
            settled.sort_by_key(|(_, s)| std::cmp::Reverse(s.at_ms));
            told.extend(settled.into_iter().take(SHOWN).map(|(id, s)| settled_of(receiver, id, s)));
        }
        ReceiverReport { name: receiver.name.clone(), kind: receiver.kind, place: receiver.place(), told }
    };
    topology.receivers.iter().map(of).collect()
}

/// Who was told of a run, of what, and how that went.
pub fn told(conductor: &Conductor, topology: &Topology, journal: &Journal) -> Vec<Told> {
    let now = now_ms();
    let all = of_run(journal, &topology.pool, now);
    let prefix = format!("{}/", journal.id);
    let deliveries = conductor.notifier.deliveries();
    let mut told = Vec::new();
    for receiver in &topology.receivers {
        let Some(delivery) = deliveries.get(&receiver.name) else { continue };
        let settled = delivery.settled.iter().filter(|(id, _)| id.starts_with(&prefix));
        let mut settled: Vec<_> = settled.collect();
        settled.sort_by_key(|(_, s)| s.at_ms);
        told.extend(settled.into_iter().map(|(id, s)| settled_of(receiver, id, s)));
        told.extend(delivery.due(receiver, &all, now).into_iter().map(|n| told_of(receiver, delivery, n)));
    }
    told
}

fn told_of(receiver: &Receiver, delivery: &Delivery, notice: &Notice) -> Told {
    let tried = delivery.tried.get(&notice.id);
    Told {
        receiver: receiver.name.clone(),
        id: notice.id.clone(),
        event: notice.event,
        standing: if tried.is_some() { Standing::Failing } else { Standing::Waiting },
        tries: tried.map_or(0, |t| t.tries),
        at: tried.map(|t| at(t.since_ms)),
        why: tried.map(|t| t.why.clone()),
    }
}

fn settled_of(receiver: &Receiver, id: &str, settled: &cluster::notify::delivery::Settled) -> Told {
    Told {
        receiver: receiver.name.clone(),
        id: id.to_owned(),
        event: settled.event,
        standing: if settled.gave_up.is_some() { Standing::GivenUp } else { Standing::Taken },
        tries: settled.tries,
        at: Some(at(settled.at_ms)),
        why: settled.gave_up.clone(),
    }
}
