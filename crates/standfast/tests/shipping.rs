//! Log shipping over a pool's life: what is in the share is found when it is needed, and what stops is named.

mod support;
use support::{Lab, assert_clean};

#[test]
fn a_failback_finds_in_the_share_what_the_principal_has_not_kept() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    replay.until_epoch(&lab, 2);
    let fork = lab.sql("s2a", "SELECT pg_walfile_name(pg_current_wal_lsn())");
    // More than an instance keeps for standbys; it goes with the checkpoints.
    for _ in 0..2 {
        lab.write_log("s2a", 140);
        lab.sql("s2a", "CHECKPOINT");
    }
    let kept = lab.dir.join("hosts/s2a/pg/mgc/data/pg_wal").join(&fork);
    lab.until("the principal has let go of the log after the fork", |lab| {
        lab.sql("s2a", "CHECKPOINT");
        !kept.exists()
    });
    lab.ok(&["lab", "start", "site-1"]);
    let said = lab.cli(&["failback", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    for host in ["s1a", "s1b"] {
        let log = std::fs::read_to_string(lab.dir.join(format!("hosts/{host}/pg/mgc/log"))).unwrap();
        assert!(
            log.contains(&format!("restored log file \"{fork}\" from archive")),
            "{host} began at the fork:\n{log}"
        );
    }
    replay.until_epoch(&lab, 3);
    lab.until_normal();
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn log_shipping_is_turned_off_and_on_while_people_chat() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    let follows = |lab: &Lab| {
        lab.until("the backup and its mirror follow", |lab| {
            ["s2a", "s2b"].iter().all(|host| lab.instance(host)["shipping"]["streaming"] == true)
        });
    };
    follows(&lab);
    lab.ok(&["log-shipping", "disable", "--yes"]);
    assert_eq!((&lab.instance("s2a")["state"], &lab.instance("s2b")["state"]), (&"stopped".into(), &"stopped".into()));
    assert_eq!(lab.instance("s1a")["backup_job"]["enabled"], false);
    assert!(lab.ok(&["log-shipping", "disable", "--yes"]).contains("log shipping is off"));
    assert_eq!(lab.cli(&["failover", "--yes", "--force"]).code, Some(3), "there is nobody to fail over to");
    replay.until_acknowledged(&lab, 10);

    lab.ok(&["log-shipping", "enable", "--already-initialised", "--yes"]);
    follows(&lab);
    assert!(lab.ok(&["log-shipping", "enable", "--yes"]).contains("log shipping is on"));

    // More log than the principal keeps, and none of it in the share: the copy cannot follow any more.
    lab.ok(&["log-shipping", "disable", "--yes"]);
    let from = lab.instance("s2a")["follows_from"]["from"].as_str().unwrap().to_owned();
    lab.until("the principal has let go of what the copy needs", |lab| {
        lab.write_log("s1a", 70);
        lab.sql("s1a", "CHECKPOINT");
        lab.sql(
            "s1a",
            &format!("SELECT pg_wal_lsn_diff('{}', '{from}') > 0", lab.instance("s1a")["kept_from"].as_str().unwrap()),
        ) == "t"
    });
    let refused = lab.cli(&["log-shipping", "enable", "--already-initialised", "--yes"]);
    assert_eq!(refused.code, Some(3), "{}", refused.all());
    assert!(refused.all().contains("cannot follow again") && refused.all().contains("standfast log-shipping enable"));
    lab.ok(&["log-shipping", "enable", "--yes"]);
    follows(&lab);
    replay.until_acknowledged(&lab, 10);

    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    replay.until_epoch(&lab, 2);
    assert_eq!(lab.cli(&["log-shipping", "disable", "--yes"]).code, Some(3), "nothing is shipped while FailedOver");
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn a_failover_ends_the_restore_delay_and_a_failback_does_not_wait_for_it() {
    let lab = Lab::up();
    lab.publish_log_shipping("restore_delay = \"10min\"");
    lab.until("the backup holds back", |lab| lab.sql("s2a", "SHOW recovery_min_apply_delay") == "10min");
    let replay = lab.replay(&[]);
    replay.until_acknowledged(&lab, 20);
    lab.until("what was posted is on the backup's disk, and not applied", |lab| {
        let backup = lab.instance("s2a");
        backup["written"] == lab.instance("s1a")["written"] && backup["entries"] != lab.instance("s1a")["entries"]
    });
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    replay.until_epoch(&lab, 2);
    // More than may be missing at the hand-over, and all of it younger than the delay.
    lab.sql("s2a", "SELECT pg_logical_emit_message(true, 'much', repeat('x', 4000000))");
    lab.ok(&["lab", "start", "site-1"]);
    lab.ok(&["failback", "--yes"]);
    replay.until_epoch(&lab, 3);
    lab.until("the backup holds back again", |lab| lab.sql("s2a", "SHOW recovery_min_apply_delay") == "10min");
    assert_clean(&lab.audit(&replay.end()));
}

#[test]
fn the_restore_job_applies_in_runs_and_a_failover_does_not_wait_for_the_next() {
    let lab = Lab::up();
    lab.publish_log_shipping("restore_every = \"3s\"");
    let paused = |lab: &Lab| lab.sql("s2a", "SELECT pg_is_wal_replay_paused()") == "t";
    let replay = lab.replay(&[]);
    lab.until("a run is over", paused);
    replay.until_acknowledged(&lab, 20);
    let applied = |lab: &Lab| lab.sql("s2a", "SELECT pg_last_wal_replay_lsn()");
    let before = applied(&lab);
    lab.until("another run has applied more", |lab| applied(lab) != before && paused(lab));

    // From here on the next run is far away.
    lab.publish_log_shipping("restore_every = \"12h\"");
    lab.until("the backup holds back", paused);
    replay.until_acknowledged(&lab, 20);
    lab.until("what was posted is on the backup's disk, and not applied", |lab| {
        lab.instance("s2a")["entries"] != lab.instance("s1a")["entries"] && paused(lab)
    });
    // PostgreSQL begins no stream while it does not apply: nothing is held back until the stream is up again.
    lab.ok(&["lab", "link", "down"]);
    lab.until("applying goes on", |lab| !paused(lab));
    lab.ok(&["lab", "link", "up"]);
    lab.until("the stream is up, and the backup holds back", |lab| {
        lab.instance("s2a")["shipping"]["streaming"] == true && paused(lab)
    });
    replay.until_acknowledged(&lab, 20);
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    replay.until_epoch(&lab, 2);
    assert_clean(&lab.audit(&replay.end()));
}
