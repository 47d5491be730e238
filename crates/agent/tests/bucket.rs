//! Log shipping through a bucket, with a real S3 server and real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "support/s3.rs"]
mod s3;
mod support;

use agent::bucket::store::{New, Store};
use cluster::order::{Order, Outcome, Stamp};
use cluster::report::InstanceState;
use cluster::shipping_settings::{LogShipping, S3 as Place};
use rules::id::Epoch;
use s3::S3;
use support::World;

fn mgc() -> cluster::name::DatabaseName {
    "mgc".into()
}

fn folder() -> std::path::PathBuf {
    let folder = World::folder();
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn store(server: &S3, key: &str, share: &str) -> Store {
    let host = folder().join("host");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("s3.credentials"), key).unwrap();
    let s3 = Some(Place { endpoint: Some(server.endpoint()), region: None });
    let settings = LogShipping { s3, ..LogShipping::into_share(share) };
    Store::open(&settings, &mgc(), &host).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_bucket_is_named() {
    use cluster::share_fault::{ShareFault, named};
    let mut server = S3::start(&folder().join("s3"), support::free_port());
    let good = store(&server, &S3::credentials(), "s3://log/pool");
    assert_eq!(good.put_new("a", b"one".to_vec()).await, Ok(New::Created));
    assert_eq!(good.put_new("a", b"two".to_vec()).await, Ok(New::There));
    let (content, version) = good.get("a").await.unwrap().unwrap();
    assert_eq!(content, b"one");
    assert_eq!(good.replace("a", b"three".to_vec(), version).await, Ok(true));
    assert_eq!(good.get("b").await.unwrap(), None);
    let names: Vec<String> = good.list().await.unwrap().into_iter().map(|o| o.name).collect();
    assert_eq!(names, ["a"]);
    assert_eq!((good.delete("a").await, good.delete("a").await), (Ok(()), Ok(())));

    let fault = async |of: &Store| named(&of.list().await.unwrap_err());
    assert_eq!(fault(&store(&server, &S3::credentials(), "s3://lost/pool")).await, ShareFault::Missing);
    let other = S3::credentials().replace("of the tests", "of somebody else");
    assert_eq!(fault(&store(&server, &other, "s3://log/pool")).await, ShareFault::Denied);
    server.stop();
    assert_eq!(fault(&good).await, ShareFault::Unreachable);
    // Somebody takes connections there, and answers nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", server.port)).unwrap();
    assert_eq!(fault(&good).await, ShareFault::Slow);
    drop(silent);
}

async fn rows(world: &World, host: &str) -> Vec<i32> {
    let rows = world.sql(host).await.query("SELECT n FROM t ORDER BY n", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// A pool that ships through a bucket and has no stream: nobody listens where it leads to, once the backup was copied.
async fn copied(server: &S3, relay: &support::Relay) -> World {
    let settings = format!("share = \"s3://log/pool\", s3 = {{ endpoint = \"{}\" }}", server.endpoint());
    let files = server.bucket().join("pool");
    let world = World::shipping_through(Some(relay.port), &settings, files, Some(&S3::credentials())).await;
    world.done("a", 1, Order::Initialise { database: mgc(), epoch: Epoch(1) }).await;
    world.set_record("a", |_| ()).await;
    world.until("b has heard of the record", async |w| w.report("b").await.unwrap().record.is_some()).await;
    relay.lead_to(world.postgres_port("a"));
    world.done("b", 1, Order::Seed { database: mgc(), from: "a".into() }).await;
    relay.cut();
    world.set_record("a", |r| r.databases.get_mut(&mgc()).unwrap().backup = Some("b".into())).await;
    world.until("the backup follows", async |w| w.instance("b").await.state == InstanceState::Standby).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_reached_the_bucket_is_applied_to_the_last_byte_and_what_comes_later_is_not_acknowledged() {
    let mut server = S3::start(&folder().join("s3"), support::free_port());
    let relay = support::Relay::to_nobody().await;
    let world = copied(&server, &relay).await;
    let writer = world.sql("a").await;
    // Nothing is made smaller, so that segments end.
    let table = "CREATE TABLE t (n int PRIMARY KEY, padding text); ALTER TABLE t ALTER padding SET STORAGE EXTERNAL";
    writer.batch_execute(table).await.unwrap();
    let insert = async |from: i32, to: i32, padding: usize| {
        for n in from..=to {
            writer.execute("INSERT INTO t VALUES ($1, $2)", &[&n, &"x".repeat(padding)]).await.unwrap();
        }
    };
    insert(1, 20, 200_000).await;
    let written = world.instance("a").await.written;
    world.until("it arrives and is applied", async |w| w.instance("b").await.applied >= written).await;
    assert!(!world.instance("b").await.shipping.unwrap().streaming);

    // The server goes, and comes back: it is said, and everything arrives.
    server.stop();
    insert(21, 30, 200_000).await;
    let fault = async |w: &World| w.instance("a").await.backup_job.and_then(|j| j.fault).unwrap_or_default();
    world.until("the fault is named", async |w| fault(w).await.contains("cannot be reached")).await;
    world.until("it waits", async |w| w.instance("a").await.backup_job.is_some_and(|j| j.waiting_files > 0)).await;
    server.start_again();
    let written = world.instance("a").await.written;
    world.until("what waited arrives", async |w| w.instance("b").await.applied >= written).await;
    world
        .until("nothing waits any more", async |w| {
            w.instance("a").await.backup_job.is_some_and(|j| j.waiting_files == 0 && j.fault.is_none())
        })
        .await;

    // A failover while the old writer lives on and knows nothing of it.
    insert(31, 40, 100).await;
    let written = world.instance("a").await.written.unwrap();
    world.until("the bucket holds it", async |w| w.in_share(written)).await;
    world.done("b", 2, Order::CloseShare { database: mgc(), epoch: Epoch(2) }).await;
    let archived =
        async || -> i64 { writer.query_one("SELECT archived_count FROM pg_stat_archiver", &[]).await.unwrap().get(0) };
    let before = archived().await;
    insert(41, 60, 200_000).await;
    world
        .until("the old writer is told that it is closed", async |w| {
            fault(w).await.contains("closed to epochs before 2")
        })
        .await;
    assert_eq!(archived().await, before, "nothing that came after the close is acknowledged");
    world.record_failover().await;
    world.done("b", 2, Order::StopLogShipping { database: mgc() }).await;
    world.done("b", 2, Order::CopyRemainingLog { database: mgc() }).await;
    world.done("b", 2, Order::ApplyRemainingLog { database: mgc() }).await;
    world.done("b", 2, Order::Promote { database: mgc(), epoch: Epoch(2) }).await;
    // The segment that was being written may have got a little further before the old writer was told: the log is the same.
    let rows = rows(&world, "b").await;
    assert!((40..=60).contains(&rows.len()) && rows.iter().zip(1..).all(|(row, n)| *row == n), "{rows:?}");
    let late = world
        .order_stamped("b", Stamp { epoch: 1, version: 1, number: 1 }, Order::CopyRemainingLog { database: mgc() })
        .await;
    assert!(matches!(late, Outcome::TooOld { .. }), "{late:?}");
}
