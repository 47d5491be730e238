//! A whole failover and failback with the log share in a bucket, while people post; and a store that goes and comes back.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../store/tests/support/port.rs"]
mod port;
#[path = "../../agent/tests/support/s3.rs"]
mod s3;
mod support;

use s3::S3;
use serde_json::Value;
use support::{Lab, assert_clean};

/// `log-shipping state --json` of the content database.
fn state(lab: &Lab) -> Value {
    let ran = lab.cli(&["log-shipping", "state", "--json"]);
    serde_json::from_str::<Value>(&ran.stdout).map(|all| all[0].clone()).unwrap_or_default()
}

/// The bucket has everything, and nothing is wrong.
fn until_shipped(lab: &Lab, server: &S3, writer: &str, epoch: i64) {
    let written = lab.sql(writer, "SELECT pg_walfile_name(pg_switch_wal())");
    let object = server.bucket().join(format!("pool/mgc/{epoch}/wal")).join(&written);
    lab.until("the bucket has the log up to here, and no fault is left", |lab| {
        object.exists() && lab.cli(&["log-shipping", "state"]).code == Some(0)
    });
}

#[test]
fn a_failover_and_a_failback_over_a_bucket_lose_nothing_and_a_store_that_is_away_stops_nobody() {
    let folder = std::env::temp_dir().join(format!("standfast-s3-{}", std::process::id()));
    let mut server = S3::start(&folder, port::free_port());
    let key = folder.join("key");
    std::fs::write(&key, S3::credentials()).unwrap();
    let endpoint = server.endpoint();
    let lab = Lab::up_with(&[
        "--share",
        "s3://log/pool",
        "--s3-endpoint",
        &endpoint,
        "--s3-credentials",
        key.to_str().unwrap(),
    ]);
    lab.until_normal();
    let checked = lab.cli(&["topology", "check", lab.dir.join("topology.toml").to_str().unwrap(), "--live"]);
    assert_eq!(checked.code, Some(0), "{}", checked.all());
    let replay = lab.replay(&[]);
    until_shipped(&lab, &server, "s1a", 1);

    // The store goes: posts flow, the stream goes on, it is said; and everything arrives when it is back.
    server.stop();
    lab.write_log("s1a", 3);
    lab.until("the fault is named", |lab| state(lab)["faults"].to_string().contains("cannot be reached"));
    replay.until_acknowledged(&lab, 20);
    let entries = lab.instance("s2a")["entries"].as_u64();
    lab.until("posts arrive by stream", |lab| lab.instance("s2a")["entries"].as_u64() > entries);
    server.start_again();
    until_shipped(&lab, &server, "s1a", 1);

    // Without a stream the bucket alone feeds the backup.
    lab.ok(&["lab", "link", "down"]);
    lab.until("files alone", |lab| lab.instance("s2a")["shipping"]["streaming"] == false);
    let entries = lab.instance("s2a")["entries"].as_u64();
    lab.until("posts arrive through the bucket", |lab| lab.instance("s2a")["entries"].as_u64() > entries);

    // The site is lost, and what only the bucket has is applied.
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    assert_eq!(lab.state(), "FailedOver");
    replay.until_epoch(&lab, 2);
    replay.until_acknowledged(&lab, 20);

    lab.ok(&["lab", "link", "up"]);
    lab.start_site("site-1");
    lab.ok(&["failback", "--yes"]);
    lab.until_normal();
    replay.until_acknowledged(&lab, 20);
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
    drop(lab);
    std::fs::remove_dir_all(&folder).unwrap();
}
