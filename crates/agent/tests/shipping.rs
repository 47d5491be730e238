//! Log shipping with real PostgreSQL: by files alone, up to the last byte that reached the share.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use cluster::order::{Order, Outcome, Stamp};
use cluster::record::PoolRecord;
use cluster::report::InstanceState;
use nix::libc::O_NONBLOCK;
use rules::id::Epoch;
use std::os::unix::fs::OpenOptionsExt;
use support::{Relay, World};

fn mgc() -> cluster::name::DatabaseName {
    "mgc".into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_answer_of_an_agent_names_its_databases() {
    let world = World::two_sites(None).await;
    for (host, first) in &world.first_answers {
        assert!(first.instances.contains_key(&mgc()), "{host}: {first:#?}");
    }
}

/// A pool whose backup was copied over the relay; the line is open.
async fn copied(relay: &Relay) -> World {
    backed_up(World::two_sites(Some(relay.port)).await, relay).await
}

/// With the backup in its part, and streaming.
async fn streaming(relay: &Relay) -> World {
    let world = copied(relay).await;
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    let streams = async |w: &World| w.instance("b").await.shipping.is_some_and(|s| s.streaming);
    world.until("the backup streams", streams).await;
    world
}

fn kill_postmaster(data: &std::path::Path) {
    kill("-KILL", &postmaster(data).unwrap());
}

fn kill(signal: &str, pid: &str) {
    assert!(std::process::Command::new("kill").args([signal, pid]).status().unwrap().success());
}

/// The pid of the postmaster that works in this data.
fn postmaster(data: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next().map(str::to_owned)
}

/// Why the backup is to be copied anew.
async fn a_person_is_told(world: &World, why: &str) {
    let said = async |w: &World| {
        let report = w.report("b").await.unwrap();
        report.waiting_for.iter().any(|waits| waits.contains(why) && waits.contains("copy it anew"))
    };
    world.until("a person is told", said).await;
}

async fn backed_up(world: World, relay: &Relay) -> World {
    world.done("a", 1, Order::Initialise { database: mgc(), epoch: Epoch(1) }).await;
    world.set_record("a", |_| ()).await;
    world.until("b has heard of the record", async |w| w.report("b").await.unwrap().record.is_some()).await;
    relay.lead_to(world.postgres_port("a"));
    world.done("b", 1, Order::Seed { database: mgc(), from: "a".into() }).await;
    world
}

/// A backup that was killed has more on its disk than it has applied, and than the share has: the share's file does not take
/// that one's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_backup_had_received_outlives_an_older_file_of_the_share() {
    let relay = Relay::to_nobody().await;
    let share = World::folder().join("share");
    std::fs::create_dir_all(&share).unwrap();
    // Held back for so long that the share's file is on offer before the backup has read its own to the end.
    let settings = format!("share = \"{}\", restore_delay = \"5s\"", share.display());
    let world = World::shipping_through(Some(relay.port), &settings, share, None).await;
    let world = backed_up(world, &relay).await;
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    let streams = async |w: &World| w.instance("b").await.shipping.is_some_and(|s| s.streaming);
    world.until("the backup streams", streams).await;
    let writer = world.sql("a").await;
    writer
        .batch_execute("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 20)")
        .await
        .unwrap();
    let shipped = world.instance("a").await.written.unwrap();
    world.until("the share holds the first half", async |w| w.in_share(shipped)).await;
    let file = world.being_written().expect("it lies where it is written");
    let first_half = std::fs::read(&file).unwrap();
    writer.batch_execute("INSERT INTO t SELECT generate_series(21, 40)").await.unwrap();
    let written = world.instance("a").await.written;
    world.until("the backup has received it all", async |w| w.instance("b").await.written >= written).await;
    assert_eq!(world.being_written().as_ref(), Some(&file), "both halves are in one segment");

    // The site dies before it has shipped the second half, and the backup's host with it, which comes back.
    relay.cut();
    world.done("a", 1, Order::Fence { database: mgc(), epoch: Epoch(2) }).await;
    world.crash_postgres("b").await;
    std::fs::write(&file, first_half).unwrap();
    let applied = async |w: &World| w.instance("b").await.applied >= written;
    world.until("the backup has applied all that it had", applied).await;
    world.crash_postgres("b").await;
    world.until("it has it all after another crash", applied).await;
    assert_eq!(rows(&world, "b").await, (1..=40).collect::<Vec<_>>());
}

async fn rows(world: &World, host: &str) -> Vec<i32> {
    let rows = world.sql(host).await.query("SELECT n FROM t ORDER BY n", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reached_the_share_is_applied_to_the_last_byte_before_a_promotion() {
    let relay = Relay::to_nobody().await;
    let world = copied(&relay).await;
    relay.cut();
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    world.until("the backup follows", async |w| w.instance("b").await.state == InstanceState::Standby).await;

    let writer = world.sql("a").await;
    writer.batch_execute("CREATE TABLE t (n int PRIMARY KEY)").await.unwrap();
    for n in 1..=20 {
        writer.execute("INSERT INTO t VALUES ($1)", &[&n]).await.unwrap();
    }
    let written = world.instance("a").await.written;
    world.until("partial segments arrive and are applied", async |w| w.instance("b").await.applied >= written).await;
    assert_eq!(rows(&world, "b").await, (1..=20).collect::<Vec<_>>());
    assert!(!world.instance("b").await.shipping.unwrap().streaming);

    // The primary dies; what is in the share by then is to be there after the promotion.
    for n in 21..=40 {
        writer.execute("INSERT INTO t VALUES ($1)", &[&n]).await.unwrap();
    }
    let written = world.instance("a").await.written.unwrap();
    world.until("the share holds it", async |w| w.in_share(written)).await;
    world.kill_postgres("a");
    world.record_failover().await;
    world.done("b", 2, Order::CloseShare { database: mgc(), epoch: Epoch(2) }).await;
    world.done("b", 2, Order::StopLogShipping { database: mgc() }).await;
    world.done("b", 2, Order::CopyRemainingLog { database: mgc() }).await;
    world.done("b", 2, Order::ApplyRemainingLog { database: mgc() }).await;
    let promote = Order::Promote { database: mgc(), epoch: Epoch(2) };
    world.done("b", 2, promote.clone()).await;
    assert_eq!(rows(&world, "b").await, (1..=40).collect::<Vec<_>>());
    // Every order may be given again, and none that is older than one that was taken.
    world.done("b", 2, promote.clone()).await;
    world.done("b", 2, Order::ApplyRemainingLog { database: mgc() }).await;
    let late = world.order_stamped("b", Stamp { epoch: 1, version: 1, number: 1 }, promote).await;
    assert!(matches!(late, Outcome::TooOld { .. }), "{late:?}");
}

/// PostgreSQL removes the signal of a standby before it begins the new timeline. What is killed in between would be recovered as
/// a writer's on the timeline of before, on which the old writer may go on as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_is_cut_off_before_its_timeline_began_is_begun_anew() {
    use nix::sys::signal::{Signal, kill};
    let relay = Relay::to_nobody().await;
    let world = copied(&relay).await;
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    let writer = world.sql("a").await;
    writer.batch_execute("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1), (2)").await.unwrap();
    let written = world.instance("a").await.written;
    world.until("the backup has it", async |w| w.instance("b").await.applied >= written).await;
    world.kill_postgres("a");
    world.record_failover().await;
    world.done("b", 2, Order::StopLogShipping { database: mgc() }).await;
    let row =
        world.sql("b").await.query_one("SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'", &[]).await;
    let startup = nix::unistd::Pid::from_raw(row.unwrap().get(0));

    kill(startup, Signal::SIGSTOP).unwrap();
    let promote = Order::Promote { database: mgc(), epoch: Epoch(2) };
    let cut_off = async {
        world.until("the promotion is begun", async |w| w.asked_to_be_promoted("b")).await;
        std::fs::remove_file(world.dir.join("b/pg/mgc/data/standby.signal")).unwrap();
        world.kill_postgres("b");
        kill(startup, Signal::SIGKILL).unwrap();
    };
    let (outcome, ()) = tokio::join!(world.order("b", 2, promote.clone()), cut_off);
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    let promoted = async |w: &World| matches!(w.order("b", 2, promote.clone()).await, Outcome::Done { .. });
    world.until("it is promoted", promoted).await;
    assert_eq!(rows(&world, "b").await, [1, 2]);
    let file = world.sql("b").await.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await.unwrap();
    assert!(file.get::<_, &str>(0).starts_with("00000002"), "it writes {}", file.get::<_, &str>(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_from_stream_to_files_and_back_by_itself() {
    let relay = Relay::to_nobody().await;
    let world = copied(&relay).await;
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    let streams = async |w: &World| w.instance("b").await.shipping.is_some_and(|s| s.streaming);
    world.until("the backup streams", streams).await;
    let writer = world.sql("a").await;
    writer.batch_execute("CREATE TABLE t (n int PRIMARY KEY, padding text)").await.unwrap();
    let mut next = 1;
    for round in 0..3 {
        relay.cut();
        for _ in 0..20 {
            // Large rows, so that some rounds cross a segment's end.
            let padding = "x".repeat(20_000);
            writer.execute("INSERT INTO t VALUES ($1, $2)", &[&next, &padding]).await.unwrap();
            next += 1;
        }
        let written = world.instance("a").await.written;
        world
            .until(&format!("files arrive in round {round}"), async |w| w.instance("b").await.applied >= written)
            .await;
        assert!(!streams(&world).await, "the line is cut");
        relay.lead_to(world.postgres_port("a"));
        world.until(&format!("the backup streams again in round {round}"), streams).await;
        writer.execute("INSERT INTO t VALUES ($1, 'y')", &[&next]).await.unwrap();
        next += 1;
        let written = world.instance("a").await.written;
        world.until("the stream arrives", async |w| w.instance("b").await.applied >= written).await;
    }
    assert_eq!(rows(&world, "b").await, (1..next).collect::<Vec<_>>());
}

/// The sites do not hear each other: one hands its writer over for the epoch that its run is to begin, and the other one fails over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_was_handed_over_for_an_epoch_that_was_overruled_joins_the_present_history() {
    let relay = Relay::to_nobody().await;
    let world = copied(&relay).await;
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    let writer = world.sql("a").await;
    writer.batch_execute("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let written = world.instance("a").await.written;
    world.until("the backup has it", async |w| w.instance("b").await.applied >= written).await;
    relay.cut();
    world.done("b", 1, Order::StopLogShipping { database: mgc() }).await;
    writer.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
    world.done("a", 1, Order::HandOver { database: mgc(), epoch: Epoch(3) }).await;
    world.record_failover().await;
    world.done("b", 2, Order::Promote { database: mgc(), epoch: Epoch(2) }).await;
    let left_behind = async |w: &World| w.instance("a").await.state == InstanceState::LeftBehind;
    world.until("the old site hears of it, and has a tail", left_behind).await;

    let fed = |r: &mut PoolRecord| {
        let parts = r.databases.get_mut(&mgc()).unwrap();
        (parts.principal, parts.backup) = (Some("b".into()), Some("a".into()));
    };
    world.set_record("b", fed).await;
    let follows = async |w: &World| w.instance("a").await.state == InstanceState::Standby;
    world.until("the old writer follows the new one", follows).await;
    world.sql("b").await.execute("INSERT INTO t VALUES (3)", &[]).await.unwrap();
    world.until("it has what is written", async |w| rows(w, "a").await == [1, 3]).await;
    assert!(world.dir.join("a/pg/mgc/salvage/left-behind-by-2/complete").exists(), "and its tail is kept");
}

/// A switch was given up: the old principal goes on in an epoch of its own, on its own timeline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_waits_for_an_epoch_that_begins_late_on_the_timeline_of_before() {
    let relay = Relay::to_nobody().await;
    let world = copied(&relay).await;
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    let streams = async |w: &World| w.instance("b").await.shipping.is_some_and(|s| s.streaming);
    world.until("the backup streams", streams).await;
    let schema = include_str!("../../store/migrations/0001_chat.sql");
    world.sql("a").await.batch_execute(schema).await.unwrap();
    world.sql("a").await.batch_execute("INSERT INTO standfast.pool_epoch (epoch) VALUES (1)").await.unwrap();
    world.done("a", 1, Order::HandOver { database: mgc(), epoch: Epoch(2) }).await;
    world.set_record("a", |r| r.epoch = Epoch(3)).await;
    world.until("the backup streams again", streams).await;

    let began = std::time::Instant::now();
    let salvage = world.dir.join("b/pg/mgc/salvage");
    let left_alone = async |w: &World| {
        assert!(w.instance("b").await.state != InstanceState::Busy, "nobody joins what has not gone another way");
        assert!(std::fs::read_dir(&salvage).is_ok_and(|mut kept| kept.next().is_none()), "nothing is salvaged");
        began.elapsed() > std::time::Duration::from_secs(5)
    };
    world.until("it was watched for longer than it takes to call a standby stuck", left_alone).await;
    // Not even when it is told to.
    world.done("b", 3, Order::Rewind { database: mgc(), from: "a".into() }).await;

    world.done("a", 3, Order::Reopen { database: mgc(), epoch: Epoch(3), after: Epoch(1) }).await;
    let written = world.instance("a").await.written;
    world.until("the backup follows into the epoch", async |w| w.instance("b").await.applied >= written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_that_hangs_does_not_hold_a_hand_over_up() {
    let relay = Relay::to_nobody().await;
    let world = streaming(&relay).await;
    let writer = world.sql("a").await;
    writer.batch_execute("CREATE TABLE t (n int PRIMARY KEY)").await.unwrap();
    let segment: String = writer.query_one("SELECT pg_walfile_name(pg_current_wal_lsn())", &[]).await.unwrap().get(0);
    // Whoever copies the segment into the share waits for a reader, and there is none.
    let shipped = World::folder().join("share/mgc/1/wal");
    let pipe = shipped.join(format!(".{segment}.new"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());

    world.done("a", 1, Order::HandOver { database: mgc(), epoch: Epoch(2) }).await;
    let waits = world.dir.join(format!("a/pg/mgc/data/pg_wal/archive_status/{segment}.ready"));
    assert!(waits.exists() && !shipped.join(&segment).exists(), "it waits to be shipped");

    std::fs::remove_file(&pipe).unwrap();
    world.set_record("a", |r| r.epoch = Epoch(3)).await;
    world.done("a", 3, Order::Reopen { database: mgc(), epoch: Epoch(3), after: Epoch(1) }).await;
    let share = World::folder().join("share/mgc");
    let arrived = async |_: &World| share.join("3/wal").join(&segment).exists();
    world.until("it is shipped when the writer is opened again", arrived).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_starting_is_handed_over_when_it_is_down_again() {
    let relay = Relay::to_nobody().await;
    let world = streaming(&relay).await;
    let data = world.dir.join("a/pg/mgc/data");
    let hba = data.join("pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).unwrap();
    // PostgreSQL stands in the midst of its start until somebody writes into the pipe.
    let pipe = data.join("starts.pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::write(&hba, format!("{rules}host @{} all all reject\n", pipe.display())).unwrap();
    let before = postmaster(&data).unwrap();
    kill("-INT", &before);
    let held = std::sync::Mutex::new(None);
    let starts = async |_: &World| {
        // It can be opened when there is a reader.
        let opened = std::fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&pipe).ok();
        let starts = opened.is_some();
        *held.lock().unwrap() = opened;
        starts
    };
    world.until("its agent starts it again", starts).await;
    std::fs::write(&hba, rules).unwrap();

    let mut order = std::pin::pin!(world.done("a", 1, Order::HandOver { database: mgc(), epoch: Epoch(2) }));
    let said = async |w: &World| w.instance("a").await.doing.is_some_and(|doing| doing.contains("until it answers"));
    tokio::select! {
        detail = &mut order => panic!("{detail}, while it starts"),
        () = world.until("the order waits for it", said) => {}
    }
    drop(held.lock().unwrap().take());
    let detail = order.await;
    let gone = async |_: &World| !data.join("postmaster.pid").exists();
    world.until("nobody works in the data any more", gone).await;
    // The place of the last checkpoint (`src/include/catalog/pg_control.h`).
    let control = std::fs::read(data.join("global/pg_control")).unwrap();
    let end = cluster::wal::Lsn(u64::from_ne_bytes(control[32..40].try_into().unwrap()));
    assert_eq!(detail, format!("stopped cleanly at {end}"), "it wrote nothing after it was said to be down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_stops_at_once_when_its_mirror_has_everything_and_cleanly_when_it_has_not() {
    let relay = Relay::to_nobody().await;
    let world = mirrored(&relay).await;
    let said = world.done("a", 1, Order::HandOver { database: mgc(), epoch: Epoch(2) }).await;
    assert!(said.contains("b has the log up to") && said.ends_with("stopped at once"), "{said}");
    let left_to = world.report("a").await.unwrap().orders[&mgc()].left_to.clone().expect("it is said to whom");
    let has = async |w: &World| w.instance("b").await.applied >= Some(left_to.at);
    world.until("the mirror applies it without its source", has).await;
    let again = world.done("a", 1, Order::HandOver { database: mgc(), epoch: Epoch(2) }).await;
    assert_eq!(again, "handed over already");
    assert_eq!(world.report("a").await.unwrap().orders[&mgc()].left_to, Some(left_to));

    world.set_record("a", |r| r.epoch = Epoch(3)).await;
    world.done("a", 3, Order::Reopen { database: mgc(), epoch: Epoch(3), after: Epoch(1) }).await;
    assert_eq!(epoch_in(&world, "a").await, 3, "nothing of it was lost");
    relay.cut();
    let said = world.done("a", 3, Order::HandOver { database: mgc(), epoch: Epoch(5) }).await;
    assert!(said.starts_with("stopped cleanly at"), "{said}");
    assert_eq!(world.report("a").await.unwrap().orders[&mgc()].left_to, None);
}

/// With `b` as the synchronised mirror of `a`, and the chat schema.
async fn mirrored(relay: &Relay) -> World {
    let world = copied(relay).await;
    let mirror = cluster::record::MirrorRecord { host: "b".into(), synchronised: false };
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().mirror = Some(mirror)).await;
    let synchronised = async |w: &World| {
        let record = w.report("a").await.unwrap().record.unwrap();
        record.databases[&mgc()].mirror.as_ref().is_some_and(|m| m.synchronised)
    };
    world.until("the mirror is synchronised", synchronised).await;
    world.sql("a").await.batch_execute(include_str!("../../store/migrations/0001_chat.sql")).await.unwrap();
    world.sql("a").await.batch_execute("INSERT INTO standfast.pool_epoch (epoch) VALUES (1)").await.unwrap();
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_that_could_not_refuse_writers_in_time_can_be_given_again_or_taken_back() {
    let relay = Relay::to_nobody().await;
    let world = mirrored(&relay).await;
    let writer = world.sql("a").await;
    // As a writer does whose commit waits for the mirror.
    writer.batch_execute("SELECT pg_advisory_lock_shared(5374616164)").await.unwrap();
    let outcome = world.order("a", 1, Order::HandOver { database: mgc(), epoch: Epoch(2) }).await;
    assert!(matches!(&outcome, Outcome::Failed { message } if message.contains("55P03")), "{outcome:?}");
    writer.batch_execute("SELECT pg_advisory_unlock_shared(5374616164)").await.unwrap();

    world.set_record("a", |r| r.epoch = Epoch(3)).await;
    world.done("a", 3, Order::Reopen { database: mgc(), epoch: Epoch(3), after: Epoch(1) }).await;
    assert_eq!(epoch_in(&world, "a").await, 3);
    world.done("a", 3, Order::HandOver { database: mgc(), epoch: Epoch(5) }).await;
}

/// The epoch that the database carries.
async fn epoch_in(world: &World, host: &str) -> i64 {
    world.sql(host).await.query_one("SELECT epoch FROM standfast.pool_epoch", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_catalogs_are_damaged_is_said() {
    let relay = Relay::to_nobody().await;
    let world = streaming(&relay).await;
    // The index by which every function is found, that tells whether it is a standby included.
    let query = "SELECT pg_relation_filepath('pg_proc_oid_index')";
    let index: String = world.sql("a").await.query_one(query, &[]).await.unwrap().get(0);
    let file = world.dir.join("b/pg/mgc/data").join(index);
    let pages = std::fs::metadata(&file).unwrap().len().div_ceil(8192);
    let index = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    for page in 1..pages {
        std::os::unix::fs::FileExt::write_all_at(&index, &[0xFF; 8], page * 8192 + 4_000).unwrap();
    }
    // What was in memory is forgotten, with the connections.
    kill_postmaster(&world.dir.join("b/pg/mgc/data"));

    a_person_is_told(&world, "cannot be asked anything").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_of_the_present_history_that_ends_at_every_start_is_said() {
    let relay = Relay::to_nobody().await;
    let world = streaming(&relay).await;
    let data = world.dir.join("b/pg/mgc/data");
    std::fs::write(data.join("postgresql.auto.conf"), "no_setting_of_postgresql = on\n").unwrap();
    kill_postmaster(&world.dir.join("b/pg/mgc/data"));

    a_person_is_told(&world, "ends whenever it is started").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_a_killed_agent_left_behind_is_waited_for() {
    let world = World::two_sites(None).await;
    world.done("a", 1, Order::Initialise { database: mgc(), epoch: Epoch(1) }).await;
    world.set_record("a", |_| ()).await;
    world.until("b has heard of the record", async |w| w.report("b").await.unwrap().record.is_some()).await;
    // As pg_rewind or pg_basebackup run on without their agent: the lock is their standard input.
    let folder = World::folder().join("b/pg/mgc");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("rebuilding.lock")).unwrap();
    lock.lock().unwrap();
    let mut left = std::process::Command::new("sleep").arg("1000").stdin(lock).spawn().unwrap();
    let waits = async |w: &World| w.instance("b").await.doing.is_some_and(|doing| doing.starts_with("copying"));
    let copied = world.done("b", 1, Order::Seed { database: mgc(), from: "a".into() });
    tokio::pin!(copied);
    tokio::select! {
        detail = &mut copied => panic!("it did not wait: {detail}"),
        () = world.until("the agent is at it", waits) => {}
    }
    assert!(!folder.join("data").exists() && !folder.join("data.new").exists(), "nothing is touched meanwhile");
    left.kill().unwrap();
    left.wait().unwrap();
    assert!(copied.await.starts_with("copied from"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_cannot_use_the_log_that_it_is_to_recover_from_is_copied_anew() {
    let relay = Relay::to_nobody().await;
    let world = streaming(&relay).await;
    let data = world.dir.join("b/pg/mgc/data");
    // PostgreSQL reads it at every start, and ends.
    std::fs::write(data.join("pg_wal/00000002.history"), "no timeline\n").unwrap();
    kill_postmaster(&data);

    let writer = world.sql("a").await;
    writer.batch_execute("CREATE TABLE t (n int PRIMARY KEY)").await.unwrap();
    let written = world.instance("a").await.written;
    world.until("it is copied and follows", async |w| w.instance("b").await.applied >= written).await;
    assert!(!data.join("pg_wal/00000002.history").exists(), "with everything that it had");
}
