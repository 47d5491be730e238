//! Rewinds with PostgreSQL alone: no agents, three instances that the test starts.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../store/tests/support/port.rs"]
mod port;

use agent::postgres::conf::Conf;
use agent::postgres::instance::Instance;
use agent::postgres::process::Process;
use agent::postgres::programs::Programs;
use agent::postgres::rebuild;
use cluster::secret::PoolSecret;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        for host in ["principal", "mirror", "backup"] {
            agent::postgres::process::kill_those_in(&self.0.join(host).join("pg/mgc/data"));
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn instance(folder: &Folder, host: &str) -> Instance {
    let port = port::free_port();
    let secret = PoolSecret::from_text("0123456789abcdef0123456789abcdef0123456789abcdef").unwrap();
    let (name, database, programs) = (host.into(), "mgc".into(), Programs::find().unwrap());
    Instance::new(&folder.0.join(host), &name, &database, ("127.0.0.1".into(), port), programs, &secret)
}

fn at(instance: &Instance) -> String {
    format!("127.0.0.1:{}", instance.listen.1)
}

async fn run(instance: &Instance) -> Process {
    let process = instance.start().await.unwrap();
    instance.until_postgres_answers(process).await.unwrap();
    process
}

/// A standby of another instance, which applies what it receives so many milliseconds late.
async fn standby(instance: &Instance, of: &Instance, apply_delay_ms: u64) -> Process {
    let (stream_from, files_from) = (Some(instance.stream_from(&at(of))), Some(instance.copied()));
    instance.configure(&Conf { stream_from, files_from, apply_delay_ms, ..instance.plain_conf() }).unwrap();
    run(instance).await
}

async fn ask(instance: &Instance, query: &str) -> String {
    let client = instance.sql.client().await.unwrap();
    client.query_one(&format!("SELECT ({query})::text"), &[]).await.unwrap().get(0)
}

async fn write(instance: &Instance, statements: &[&str]) {
    instance.sql.run_apart("write", "mgc", statements).await.unwrap();
}

async fn until(sentence: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(30), "waited 30 s for: {sentence}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The segment of the first timeline in which the second one began.
fn fork_segment(instance: &Instance) -> String {
    let history = std::fs::read_to_string(instance.data().join("pg_wal/00000002.history")).unwrap();
    let fork = history.split_whitespace().nth(1).unwrap().parse().unwrap();
    format!("00000001{}", agent::postgres::share::place(fork))
}

#[tokio::test]
async fn log_of_another_history_that_was_received_and_not_applied_is_not_applied_after_a_rewind() {
    let folder = Folder(std::env::temp_dir().join(format!("standfast-agent-rewind-{}", std::process::id())));
    let [principal, mirror, backup] = ["principal", "mirror", "backup"].map(|host| instance(&folder, host));
    principal.initdb().await.unwrap();
    let process = run(&principal).await;
    principal.create_roles().await.unwrap();
    for (copy, delay) in [(&mirror, 0), (&backup, 600_000)] {
        rebuild::base_backup(copy, &at(&principal)).await.unwrap();
        standby(copy, &principal, delay).await;
    }

    write(&principal, &["CREATE TABLE said (what text)", "INSERT INTO said VALUES ('to all')"]).await;
    let end = ask(&principal, "pg_current_wal_flush_lsn()").await;
    until("the mirror has applied it", async || {
        ask(&mirror, &format!("pg_last_wal_replay_lsn() >= '{end}'::pg_lsn")).await == "true"
    })
    .await;
    let of_mirror = agent::postgres::process::first_in(&mirror.data()).unwrap();
    mirror.stop(of_mirror, Signal::SIGINT).await.unwrap();
    write(&principal, &["INSERT INTO said SELECT 'to the backup alone, ' || n FROM generate_series(1, 100) n"]).await;
    let end = ask(&principal, "pg_current_wal_flush_lsn()").await;
    until("the backup has received it", async || {
        ask(&backup, &format!("pg_last_wal_receive_lsn() >= '{end}'::pg_lsn")).await == "true"
    })
    .await;
    principal.stop(process, Signal::SIGQUIT).await.unwrap();

    mirror.configure(&mirror.plain_conf()).unwrap();
    run(&mirror).await;
    mirror.sql.promote().await.unwrap();
    write(&mirror, &["CHECKPOINT", "INSERT INTO said SELECT 'in the new epoch, ' || n FROM generate_series(1, 50) n"])
        .await;

    let of_backup = agent::postgres::process::first_in(&backup.data()).unwrap();
    backup.stop(of_backup, Signal::SIGINT).await.unwrap();
    // Segments that PostgreSQL has made before it needed them are full of zeros, and tell a program nothing of their size.
    for ahead in 0x40..0xA0 {
        let blank = backup.data().join(format!("pg_wal/00000001{:08X}{ahead:08X}", 0));
        std::fs::write(&blank, vec![0; 1024 * 1024]).unwrap();
        backup.programs.give(&blank).unwrap();
    }
    assert!(rebuild::log_of_others(&backup, &at(&mirror)).await.unwrap().is_some());
    rebuild::rewind(&backup, &at(&mirror), None, || Ok(())).await.unwrap();
    assert!(rebuild::log_of_others(&backup, &at(&mirror)).await.unwrap().is_none());
    // The old principal had finished the segment and shipped it; the new one has not finished its own yet.
    let fork = fork_segment(&mirror);
    let shipped = backup.copied().join(&fork);
    std::fs::copy(principal.data().join("pg_wal").join(&fork), &shipped).unwrap();
    backup.programs.give(&shipped).unwrap();
    // It was stopped when it had begun to receive the new timeline, and nothing of that was on its disk yet.
    let begun = backup.data().join("pg_wal").join(fork.replacen('1', "2", 1));
    std::fs::write(&begun, vec![0; 1024 * 1024]).unwrap();
    backup.programs.give(&begun).unwrap();
    rebuild::take_away_unbegun(&backup).await.unwrap();
    assert!(!begun.exists());
    standby(&backup, &mirror, 0).await;
    let all = "SELECT string_agg(what, ';' ORDER BY what) FROM said";
    let there = ask(&mirror, all).await;
    let client = backup.sql.client().await.unwrap();
    until("the backup follows the new principal", async || {
        let said = client.query_one(all, &[]).await;
        said.is_ok_and(|row| row.get::<_, Option<String>>(0).as_ref() == Some(&there))
    })
    .await;
    assert!(!there.contains("backup alone"), "{there}");
}
