//! Sessions against real chat servers on a real PostgreSQL: whatever breaks, each post is one entry, each entry is seen
//! once and in order, and what a failover lost is offered again.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../server/tests/support/mod.rs"]
mod support;

use client::audit::read::{LedgerFile, audit};
use client::replay::{Options, Plan, Progress, Speed};
use client::{Directory, Event, Http, Identity, Proof, Session};
use rules::id::{Epoch, RoomId, Seq};
use std::sync::Arc;
use std::time::Duration;
use support::World;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use wire::chat::Content;

/// A session and what it has told so far.
struct Client {
    session: Session,
    events: mpsc::Receiver<(u32, Event)>,
    told: Vec<Event>,
}

fn directory(world: &World) -> Arc<Directory> {
    Directory::new(world.addresses.iter().map(|at| format!("http://{at}")))
}

fn administrator(world: &World) -> Arc<Http> {
    Arc::new(Http::with_token(directory(world), "admin", &world.admin, Duration::from_secs(20)))
}

impl Client {
    async fn new(world: &World, user: &str) -> Self {
        let token = world.users(&[user]).await.remove(0);
        let identity = Identity { user: user.to_owned(), token, proof: Proof::TokenOnly, receipts: true };
        let (sender, events) = mpsc::channel(1024);
        let session = Session::open(directory(world), identity, 0, sender);
        Self { session, events, told: Vec::new() }
    }

    /// Wait until something was told, from the beginning of the session on.
    async fn until(&mut self, what: &str, seen: impl Fn(&[Event]) -> bool) {
        while !seen(&self.told) {
            let next = tokio::time::timeout(Duration::from_secs(15), self.events.recv()).await;
            let Ok(Some((_, event))) = next else { panic!("waited in vain until {what}: {:#?}", self.told) };
            assert!(
                !matches!(event, Event::Disorder { .. } | Event::GivenUp { .. } | Event::Ended { .. }),
                "{event:?}"
            );
            self.told.push(event);
        }
    }

    async fn until_acknowledged(&mut self, count: usize) {
        self.until("posts are acknowledged", |told| acknowledged(told).len() == count).await;
    }

    fn entries(&self) -> Vec<(i64, String)> {
        let text = |content: &Content| client::replay::book::text_of(content).to_owned();
        self.told
            .iter()
            .filter_map(|e| if let Event::Entry(e) = e { Some((e.seq.0, text(&e.content))) } else { None })
            .collect()
    }
}

fn acknowledged(told: &[Event]) -> Vec<(i64, i64, String)> {
    let pick = |event: &Event| match event {
        Event::Acknowledged { seq, epoch, text, .. } => Some((seq.0, epoch.0, text.to_string())),
        _ => None,
    };
    told.iter().filter_map(pick).collect()
}

fn count(told: &[Event], wanted: fn(&Event) -> bool) -> usize {
    told.iter().filter(|e| wanted(e)).count()
}

async fn tea(world: &World) -> RoomId {
    world.category().await;
    world.room("tea", "open", &[]).await
}

async fn log_of(world: &World, room: RoomId) -> Vec<(i64, i64, String)> {
    let log = client::http::Which::After(Seq(0));
    let page = administrator(world).page(room, log, 1000).await.unwrap();
    let text = |content: &Content| client::replay::book::text_of(content).to_owned();
    page.entries.iter().map(|e| (e.seq.0, e.epoch.0, text(&e.content))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_post_is_one_entry_and_is_seen_once_however_often_connections_break() {
    let world = World::new(2).await;
    let room = tea(&world).await;
    let (mut ada, mut bob) = (Client::new(&world, "ada").await, Client::new(&world, "bob").await);
    ada.session.join(room, None).await;
    bob.session.join(room, None).await;
    bob.until("bob is in the room", |told| count(told, |e| matches!(e, Event::Joined { .. })) == 1).await;
    for n in 0..600 {
        ada.session.post(room, Uuid::now_v7(), n.to_string()).await;
        if n % 50 == 25 {
            for client in [&mut ada, &mut bob] {
                let connections = |told: &[Event]| count(told, |e| matches!(e, Event::Connected { .. }));
                client.until("it is connected again", |told| connections(told) == 1 + n / 50).await;
                client.session.break_connection().await;
            }
        }
    }
    ada.until_acknowledged(600).await;
    bob.until("bob has seen everything", |told| count(told, |e| matches!(e, Event::Entry(_))) == 600).await;
    let expect: Vec<(i64, String)> = (0..600).map(|n| (n + 1, n.to_string())).collect();
    assert_eq!(bob.entries(), expect);
    let log: Vec<(i64, String)> = log_of(&world, room).await.into_iter().map(|(seq, _, text)| (seq, text)).collect();
    assert_eq!(log, expect);
    assert_eq!(count(&ada.told, |e| matches!(e, Event::Disconnected { .. })), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_wait_while_the_writer_is_away() {
    let mut world = World::new(2).await;
    let room = tea(&world).await;
    let mut ada = Client::new(&world, "ada").await;
    ada.session.join(room, None).await;
    ada.session.post(room, Uuid::now_v7(), "before").await;
    ada.until_acknowledged(1).await;
    world.postgres.kill();
    ada.session.post(room, Uuid::now_v7(), "meanwhile").await;
    ada.until("it hears of it", |told| count(told, |e| matches!(e, Event::Waiting { .. })) > 0).await;
    ada.session.break_connection().await;
    world.postgres.run().await;
    ada.until_acknowledged(2).await;
    let expect = vec![(1, 1, "before".to_owned()), (2, 1, "meanwhile".to_owned())];
    assert_eq!(log_of(&world, room).await, expect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failover_lost_is_offered_again_in_order() {
    let world = World::new(2).await;
    let room = tea(&world).await;
    let mut ada = Client::new(&world, "ada").await;
    ada.session.join(room, None).await;
    for text in ["a", "b", "c", "d"] {
        ada.session.post(room, Uuid::now_v7(), text).await;
    }
    ada.until_acknowledged(4).await;
    // Nobody writes; a post waits; what the new writer has ends with the second entry.
    world.change(|record| record.active_servers.clear());
    ada.until("it hears of it", |told| count(told, |e| matches!(e, Event::Waiting { .. })) > 0).await;
    ada.session.post(room, Uuid::now_v7(), "e").await;
    let admin = world.postgres.admin("mgc").await;
    admin.batch_execute("DELETE FROM standfast.entries WHERE seq > 2").await.unwrap();
    admin.batch_execute("UPDATE standfast.room_heads SET last_seq = 2").await.unwrap();
    admin.execute("SELECT standfast.begin_epoch(2)", &[]).await.unwrap();
    world.change(|record| {
        record.epoch = Epoch(2);
        record.active_servers = vec!["server-2".into()];
    });
    ada.until_acknowledged(7).await;
    assert!(ada.told.contains(&Event::Rewound { room, from: Seq(3) }), "{:#?}", ada.told);
    let log = log_of(&world, room).await;
    let mut texts: Vec<&str> = log.iter().map(|(_, _, text)| text.as_str()).collect();
    assert_eq!(&log[..2], &[(1, 1, "a".to_owned()), (2, 1, "b".to_owned())]);
    texts.sort_unstable();
    assert_eq!(texts, ["a", "b", "c", "d", "e"]);
    let place = |text: &str| log.iter().position(|(_, _, t)| t == text).unwrap();
    assert!(place("c") < place("d"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_follows_the_active_servers() {
    let world = World::new(2).await;
    let room = tea(&world).await;
    let mut ada = Client::new(&world, "ada").await;
    ada.session.join(room, None).await;
    for (n, active) in (1..).zip(["server-2", "server-1", "server-2", "server-1"]) {
        world.change(|record| record.active_servers = vec![active.into()]);
        let here = |told: &[Event]| {
            let connected =
                |e: &Event| if let Event::Connected { server, .. } = e { Some(server.clone()) } else { None };
            told.iter().filter_map(connected).next_back().as_deref() == Some(active)
        };
        ada.until("it is at the active server", here).await;
        ada.session.post(room, Uuid::now_v7(), n.to_string()).await;
        ada.until_acknowledged(n).await;
    }
    assert_eq!(log_of(&world, room).await.len(), 4);
}

fn sample() -> client::replay::log::Log {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/harbour-watch.txt");
    client::replay::log::read(&std::fs::read(path).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_audited_clean_and_a_ledger_that_was_tampered_with_is_not() {
    let world = World::new(2).await;
    let http = administrator(&world);
    let plan = Plan::new(&[sample(), sample()]);
    let ledger = world.postgres.folder().join("ledger.jsonl");
    let options = Options {
        pool: "chat.example.net".to_owned(),
        sources: vec!["harbour-watch.txt".to_owned(), "again.txt".to_owned()],
        speed: Speed::Max,
        ledger: Some(ledger.clone()),
        repeat: false,
        duration: None,
    };
    let (stop, stopped) = watch::channel(0);
    let progress = watch::Sender::new(Progress::default());
    let summary = client::replay::play(http.clone(), &plan, &options, stopped, progress).await.unwrap();
    drop(stop);
    assert_eq!((summary.acknowledged, summary.given_up), (plan.posts() as u64, 0));

    let verdict = audit(&http, &mut LedgerFile::open(&ledger).unwrap(), vec![World::key()]).await.unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!(verdict.acknowledged, plan.posts() as u64);
    assert!(verdict.seen >= 3 * verdict.acknowledged, "everybody in the room saw it: {}", verdict.seen);

    let text = std::fs::read_to_string(&ledger).unwrap();
    let ack = text.lines().find(|l| l.contains(r#""line":"ack""#)).unwrap();
    let mut invented: serde_json::Value = serde_json::from_str(ack).unwrap();
    invented["client_id"] = "01890000-0000-7000-8000-000000000000".into();
    invented["seq"] = 999_999.into();
    std::fs::write(&ledger, format!("{text}{invented}\n")).unwrap();
    let verdict = audit(&http, &mut LedgerFile::open(&ledger).unwrap(), vec![World::key()]).await.unwrap();
    assert_eq!((verdict.lost, verdict.duplicated, verdict.out_of_order), (1, 0, 0), "{verdict:#?}");
}
