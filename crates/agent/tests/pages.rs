//! Damaged pages, with PostgreSQL alone: its own checksums are what is compared.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../store/tests/support/port.rs"]
mod port;

use agent::postgres::instance::Instance;
use agent::postgres::page::PAGE;
use agent::postgres::programs::Programs;
use agent::scrub::{Seen, read_through};
use cluster::report::DamagedPage;
use cluster::secret::PoolSecret;
use nix::sys::signal::Signal;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        agent::postgres::process::kill_those_in(&self.0.join("host/pg/mgc/data"));
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_written_are_whole_and_one_that_the_disk_has_changed_is_found() {
    let folder = Folder(std::env::temp_dir().join(format!("standfast-agent-pages-{}", std::process::id())));
    let port = port::free_port();
    let secret = PoolSecret::from_text("0123456789abcdef0123456789abcdef0123456789abcdef").unwrap();
    let (name, database, programs) = ("host".into(), "mgc".into(), Programs::find().unwrap());
    let listen = ("127.0.0.1".into(), port);
    let instance = Arc::new(Instance::new(&folder.0.join("host"), &name, &database, listen, programs, &secret));
    instance.initdb().await.unwrap();
    let process = instance.start().await.unwrap();
    instance.until_postgres_answers(process).await.unwrap();
    instance.create_roles().await.unwrap();

    // While rows are written and checkpoints write pages, every page that stays is whole.
    instance.sql.run_apart("write", "mgc", &["CREATE TABLE rows (n int, text text)"]).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let writes = tokio::spawn({
        let (instance, over) = (instance.clone(), over.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                let insert = "INSERT INTO rows SELECT n, repeat('x', 200) FROM generate_series(1, 2000) n";
                instance
                    .sql
                    .run_apart("write", "mgc", &[insert, "UPDATE rows SET n = n + 1", "CHECKPOINT"])
                    .await
                    .unwrap();
            }
        }
    });
    let data = instance.data();
    for _ in 0..3 {
        let at = data.clone();
        let seen = tokio::task::spawn_blocking(move || read_through(&at, u64::MAX)).await.unwrap().unwrap();
        assert!(seen.pages > 1_000 && seen.damaged.is_empty(), "{seen:?}");
    }
    over.store(true, Ordering::Relaxed);
    writes.await.unwrap();

    let client = instance.sql.client().await.unwrap();
    let file: String = client.query_one("SELECT pg_relation_filepath('pg_proc')", &[]).await.unwrap().get(0);
    let before = read_through(&data, u64::MAX).unwrap();
    let relation = std::fs::OpenOptions::new().read(true).write(true).open(data.join(&file)).unwrap();
    let at = 7 * PAGE as u64 + 4_000;
    let mut byte = [0];
    relation.read_exact_at(&mut byte, at).unwrap();
    relation.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    let after = read_through(&data, u64::MAX).unwrap();
    let damaged = vec![DamagedPage { file, block: 7 }];
    assert_eq!(after, Seen { pages: before.pages, damaged });
    // So it finds what PostgreSQL refuses.
    instance.stop(process, Signal::SIGINT).await.unwrap();
    let process = instance.start().await.unwrap();
    instance.until_postgres_answers(process).await.unwrap();
    let client = instance.sql.client().await.unwrap();
    let refused = client.query_one("SELECT count(*) FROM pg_proc WHERE prosrc LIKE '%x%'", &[]).await.unwrap_err();
    assert!(format!("{refused:?}").contains("invalid page in block 7"), "{refused:?}");
    assert!(instance.met_a_damaged_page());
    instance.stop(process, Signal::SIGINT).await.unwrap();
}
