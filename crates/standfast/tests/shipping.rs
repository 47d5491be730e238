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
