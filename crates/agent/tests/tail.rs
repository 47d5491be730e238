//! Tails with real PostgreSQL: what only the lost site holds is read before its data is rewound, and the rewind is one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use cluster::order::Order;
use cluster::record::PoolRecord;
use cluster::report::{InstanceState, TailReport};
use cluster::secret::{PoolSecret, Purpose, ROLE_CHAT};
use rules::access::{Privacy, RoomKind};
use rules::durability::Rule;
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use store::{Attempt, Batch, CategoryLists, EntryKind, FirstAdministrator, NewEntry, NewRoomRow, Store, Target};
use support::{Relay, World};
use uuid::Uuid;
use wire::tail::{TailEntry, TailKind, TailLine};

fn mgc() -> cluster::name::DatabaseName {
    "mgc".into()
}

/// A pool of which the primary chats, and a backup that follows it over the relay.
struct Chat {
    relay: Relay,
    world: World,
    store: Store,
    admin: PrincipalId,
}

async fn open(world: &World, host: &str, epoch: i64) -> Store {
    let password = PoolSecret::from_text(support::SECRET).unwrap().derive(Purpose::PostgresChat);
    let target = Target::new(("127.0.0.1", world.postgres_port(host)), ROLE_CHAT, &password, "mgc", "test");
    let first = FirstAdministrator { name: "admin".to_owned(), password_hash: "none".to_owned() };
    Store::open(&target, Epoch(epoch), &first).await.unwrap()
}

impl Chat {
    async fn begin() -> Self {
        let relay = Relay::to_nobody().await;
        let world = World::two_sites(Some(relay.port)).await;
        world.done("a", 1, Order::Initialise { database: mgc(), epoch: Epoch(1) }).await;
        world.set_record("a", |_| ()).await;
        world.until("b has heard of the record", async |w| w.report("b").await.unwrap().record.is_some()).await;
        let store = open(&world, "a", 1).await;
        let admin = store.user("admin").await.unwrap().unwrap().id;
        let lists = CategoryLists { allowed: vec!["everyone".to_owned()], ..CategoryLists::default() };
        store.create_category("Staff", "", &lists, Rule::default(), admin).await.unwrap();
        relay.lead_to(world.postgres_port("a"));
        world.done("b", 1, Order::Seed { database: mgc(), from: "a".into() }).await;
        world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
        Self { relay, world, store, admin }
    }

    async fn room(&self, name: &str) -> RoomId {
        let room = NewRoomRow {
            name: name.to_owned(),
            category: "staff".to_owned(),
            description: String::new(),
            privacy: Privacy::Open,
            kind: RoomKind::Normal,
            members: Vec::new(),
        };
        self.store.create_room(&room, self.admin).await.unwrap()
    }

    async fn write(&self, room: RoomId, kind: EntryKind, target: Option<Seq>, body: Option<&str>) {
        let entry = NewEntry {
            room,
            author: self.admin,
            client_id: Some(Uuid::now_v7()),
            kind,
            target,
            body: body.map(str::to_owned),
            access_version: 1,
        };
        self.store.append(&Batch::new(vec![entry]), Attempt::First).await.unwrap();
    }

    async fn post(&self, room: RoomId, text: &str) {
        self.write(room, EntryKind::Post, None, Some(text)).await;
    }

    /// The backup has everything; from now on it gets nothing, neither over the line nor through the share.
    async fn cut(&self) {
        let written = self.world.instance("a").await.written;
        self.world.until("the backup has it", async |w| w.instance("b").await.applied >= written).await;
        self.relay.cut();
        std::fs::rename(self.world.dir.join("share"), self.world.dir.join("share.away")).unwrap();
    }

    /// The site of the primary is lost, and the backup is the writer of epoch 2.
    async fn fail_over(&self) {
        let world = &self.world;
        world.record_failover().await;
        world
            .until("the old principal is stopped", async |w| w.instance("a").await.state == InstanceState::LeftBehind)
            .await;
        world.done("b", 2, Order::StopLogShipping { database: mgc() }).await;
        world.done("b", 2, Order::ApplyRemainingLog { database: mgc() }).await;
        std::fs::rename(world.dir.join("share.away"), world.dir.join("share")).unwrap();
        world.done("b", 2, Order::CloseShare { database: mgc(), epoch: Epoch(2) }).await;
        world.done("b", 2, Order::Promote { database: mgc(), epoch: Epoch(2) }).await;
        world
            .set_record("b", |r| {
                let d = r.databases.get_mut(&mgc()).unwrap();
                (d.principal, d.backup) = (Some("b".into()), None);
            })
            .await;
        world.done("b", 2, Order::Checkpoint { database: mgc() }).await;
    }

    /// The old principal salvages its tail, and follows the present one after a rewind, not a copy.
    async fn come_back(&self) -> String {
        let world = &self.world;
        let salvaged = world.done("a", 2, Order::SalvageTail { database: mgc(), from: "b".into() }).await;
        assert_eq!(world.instance("a").await.state, InstanceState::LeftBehind, "it is what it was before");
        assert!(!world.dir.join("a/pg/mgc/data/standby.signal").exists());
        let again = world.done("a", 2, Order::SalvageTail { database: mgc(), from: "b".into() }).await;
        assert!(again.contains("salvaged before") && again.contains("read before"), "{again}");
        let rewound = world.done("a", 2, Order::Rewind { database: mgc(), from: "b".into() }).await;
        assert!(rewound.contains("rewound to the history of"), "{rewound}");
        world.set_record("b", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("a".into())).await;
        self.follows().await;
        salvaged
    }

    async fn follows(&self) {
        let writer = self.world.sql("b").await;
        writer.batch_execute("CREATE TABLE IF NOT EXISTS after_it (n int)").await.unwrap();
        let written = self.world.instance("b").await.written;
        self.world.until("the old principal follows", async |w| w.instance("a").await.applied >= written).await;
    }

    async fn tails(&self) -> Vec<TailReport> {
        self.world.report("a").await.unwrap().tails
    }

    /// Segments of the log that are kept beside the tail.
    fn kept_segments(&self) -> usize {
        let folder = std::fs::read_dir(self.world.dir.join("a/pg/mgc/salvage/left-behind-by-2")).unwrap();
        let names: Vec<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(
            ["complete", "tail.json", "tail.jsonl"].iter().all(|n| names.iter().any(|name| name == n)),
            "{names:?}"
        );
        names.iter().filter(|name| name.len() == 24).count()
    }

    fn entries(&self) -> Vec<TailEntry> {
        let file = self.world.dir.join("a/pg/mgc/salvage/left-behind-by-2/tail.jsonl");
        let text = std::fs::read_to_string(file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter_map(|line| match line {
                TailLine::Entry(entry) => Some(entry),
                TailLine::Change(_) => None,
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_lost_site_holds_is_read_before_it_is_rewound() {
    let chat = Chat::begin().await;
    let pier = chat.room("Pier").await;
    for n in 1..=3 {
        chat.post(pier, &format!("common {n}")).await;
    }
    chat.cut().await;
    chat.post(pier, "lost 4\nwith \"quotes\" and ä").await;
    let dock = chat.room("Dock").await;
    chat.post(dock, "lost 1").await;
    chat.write(pier, EntryKind::Removal, Some(Seq(2)), None).await;
    // Log of several segments, of which some would be thrown away by whoever starts a writer.
    for _ in 0..4 {
        chat.post(dock, &"x".repeat(600_000)).await;
    }
    chat.fail_over().await;

    let said = chat.come_back().await;
    let tails = chat.tails().await;
    let [tail] = &tails[..] else { panic!("{said}: {tails:?}") };
    assert_eq!((tail.id.as_str(), tail.left_by, tail.old_epoch), ("mgc-2-a", Epoch(2), Some(Epoch(1))));
    assert_eq!((tail.posts, tail.changes, tail.unreadable.as_deref()), (7, 1, None));
    assert!(tail.fork.is_some() && said.contains("7 entries and 1 changes"), "{said}");
    assert!(chat.kept_segments() > 0, "the log of what was lost is kept");
    let entries = chat.entries();
    let seen: Vec<_> = entries.iter().map(|e| (e.n, e.room_name.as_str(), e.seq.0, e.kind, e.target)).collect();
    assert_eq!(
        seen[..3],
        [
            (1, "Pier", 4, TailKind::Post, None),
            (2, "Dock", 1, TailKind::Post, None),
            (3, "Pier", 5, TailKind::Removal, Some(Seq(2))),
        ]
    );
    assert_eq!(seen.len(), 7);
    assert_eq!(entries[0].body.as_deref(), Some("lost 4\nwith \"quotes\" and ä"));
    assert!(entries.iter().all(|e| e.author_name == "admin" && e.epoch == Epoch(1) && e.client_id.is_some()));

    // The present principal's agent brings it home: all of it, once.
    let writer = chat.world.sql("b").await;
    let home = "SELECT t.old_epoch, t.fork::pg_lsn::text, t.posts, t.re_entered_at IS NULL,
            (SELECT count(*) FROM standfast.tail_entries e WHERE e.tail = t.id)
        FROM standfast.tails t WHERE t.id = 'mgc-2-a'";
    let arrived = async |_: &World| !writer.query(home, &[]).await.unwrap().is_empty();
    chat.world.until("the tail is in the principal's database", arrived).await;
    let row = writer.query_one(home, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(2), row.get(3), row.get(4)), (1_i64, 7_i64, true, 7_i64));
    assert_eq!(tail.fork.map(|fork| fork.to_string()), row.get::<_, Option<String>>(1));
    let kept = "SELECT n, room, seq, kind, target, body FROM standfast.tail_entries ORDER BY n";
    for (row, entry) in writer.query(kept, &[]).await.unwrap().iter().zip(&entries) {
        assert_eq!((row.get(0), row.get(1), row.get(2)), (entry.n, entry.room.0, entry.seq.0));
        assert_eq!(row.get::<_, i16>(3) == 1, entry.kind == TailKind::Removal);
        assert_eq!((row.get(4), row.get(5)), (entry.target.map(|t| t.0), entry.body.clone()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_beyond_the_fork_that_changed_nothing_is_rewound_all_the_same() {
    let chat = Chat::begin().await;
    let pier = chat.room("Pier").await;
    chat.post(pier, "common 1").await;
    chat.world.done("a", 1, Order::Checkpoint { database: mgc() }).await;
    chat.cut().await;
    let writer = chat.world.sql("a").await;
    let beyond = "SELECT pg_logical_emit_message(false, 'test', repeat('x', 300)), pg_switch_wal()";
    writer.batch_execute(&format!("{beyond}; {beyond}")).await.unwrap();
    chat.fail_over().await;
    let said = chat.come_back().await;
    assert!(said.contains("nothing in it"), "{said}");
    assert_eq!(chat.tails().await, []);
    assert_eq!(chat.kept_segments(), 0, "log that holds nothing is let go");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_that_cannot_be_read_is_listed_with_the_reason_and_does_not_hold_the_host_up() {
    let chat = Chat::begin().await;
    let pier = chat.room("Pier").await;
    chat.post(pier, "common 1").await;
    chat.cut().await;
    chat.post(pier, "lost 2").await;
    chat.fail_over().await;
    // The catalogue of the databases is gone: nobody can connect.
    let data = chat.world.dir.join("a/pg/mgc/data");
    std::fs::write(data.join("global/pg_filenode.map"), b"not a map").unwrap();

    let said = chat.world.done("a", 2, Order::SalvageTail { database: mgc(), from: "b".into() }).await;
    assert!(said.contains("could not be read") && said.contains("its log is kept"), "{said}");
    let tails = chat.tails().await;
    let [tail] = &tails[..] else { panic!("{tails:?}") };
    assert_eq!((tail.id.as_str(), tail.posts), ("mgc-2-a", 0));
    assert!(tail.unreadable.is_some());
    chat.world.done("a", 2, Order::Rewind { database: mgc(), from: "b".into() }).await;
    chat.world.set_record("b", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("a".into())).await;
    chat.follows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_log_ends_before_its_data_is_consistent_does_not_hold_its_host_up() {
    let chat = Chat::begin().await;
    let (world, pier) = (&chat.world, chat.room("Pier").await);
    chat.post(pier, "common 1").await;
    let written = world.instance("a").await.written;
    world.until("b has it", async |w| w.instance("b").await.applied >= written).await;
    let leaves_b_out = |r: &mut PoolRecord| {
        r.epoch = Epoch(2);
        r.databases.get_mut(&mgc()).unwrap().backup = None;
    };
    world.set_record("a", leaves_b_out).await;
    world.done("a", 2, Order::Promote { database: mgc(), epoch: Epoch(2) }).await;
    world.until("b is stopped", async |w| w.instance("b").await.state == InstanceState::LeftBehind).await;
    // As if damaged segments of the share had taken the place of its own.
    for file in std::fs::read_dir(world.dir.join("b/pg/mgc/data/pg_wal")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.file_name().is_some_and(|name| name.len() == 24) {
            std::fs::write(&file, vec![0; 1024 * 1024]).unwrap();
        }
    }

    let said = world.done("b", 2, Order::SalvageTail { database: mgc(), from: "a".into() }).await;
    assert!(said.contains("could not be read: the log that it has ends at"), "{said}");
    let tails = world.report("b").await.unwrap().tails;
    assert!(tails.iter().any(|tail| tail.unreadable.is_some()), "{tails:?}");
    world.done("b", 2, Order::Rewind { database: mgc(), from: "a".into() }).await;
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    world.until("b follows", async |w| w.instance("b").await.state == InstanceState::Standby).await;
}
