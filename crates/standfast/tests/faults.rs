//! What goes wrong without a site being lost: people go on chatting, and the auditor finds nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use support::{Lab, assert_clean};

#[test]
fn the_line_between_the_sites_is_cut_and_healed() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until("the backup streams", |lab| lab.instance("s2a")["shipping"]["streaming"] == true);
    lab.ok(&["lab", "link", "down"]);
    lab.until("the backup is fed by the share", |lab| lab.instance("s2a")["shipping"]["streaming"] == false);
    let entries = lab.instance("s2a")["entries"].as_u64();
    replay.until_acknowledged(&lab, 10);
    lab.until("posts arrive at the backup through the share", |lab| {
        lab.instance("s2a")["entries"].as_u64() >= entries.map(|e| e + 10)
    });
    lab.ok(&["lab", "link", "up"]);
    lab.until("the backup streams again", |lab| lab.instance("s2a")["shipping"]["streaming"] == true);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn a_mirror_is_lost_and_comes_back_while_posts_flow() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    lab.ok(&["lab", "kill", "s1b"]);
    lab.until("it is recorded that the pair is not synchronised", |lab| {
        lab.record()["databases"]["mgc"]["mirror"]["synchronised"] == false
    });
    replay.until_acknowledged(&lab, 10);
    lab.ok(&["lab", "start", "s1b"]);
    lab.until_normal();
    assert_eq!(lab.instance("s1a")["synchronous"], serde_json::json!(["s1b"]));
    replay.until_acknowledged(&lab, 10);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn a_chat_server_is_killed_and_its_clients_carry_on_at_another() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    for server in ["server-1", "server-2"] {
        lab.ok(&["lab", "kill", server]);
        replay.until_acknowledged(&lab, 15);
        lab.ok(&["lab", "start", server]);
        lab.until("the server writes again", |lab| {
            let status = lab.status();
            let reports = status["reports"].as_array().cloned().unwrap_or_default();
            reports
                .iter()
                .any(|r| r["servers"][server]["writes_as"] == 1 && r["servers"][server]["age_ms"].as_u64() < Some(1000))
        });
    }
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn the_server_that_gathers_posts_freezes_and_the_other_writes_for_itself() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    for server in ["server-1", "server-2"] {
        let status: serde_json::Value = serde_json::from_str(&lab.ok(&["lab", "status", "--json"])).unwrap();
        let processes = status["processes"].as_array().cloned().unwrap_or_default();
        let process = processes.iter().find(|p| p["name"] == server).expect("the server is there");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(process["pid"].as_i64().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        replay.until_acknowledged(&lab, 15);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
        replay.until_acknowledged(&lab, 15);
    }
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn the_principal_is_killed_and_restarted_by_its_agent() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "s1a/postgres"]);
    replay.until_acknowledged(&lab, 15);
    assert_eq!(lab.record()["epoch"], 1);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn a_site_that_may_not_start_by_itself_is_let_start_alone() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "link", "down"]);
    let idle = lab.cli(&["pool", "start-alone", "--site", "site-1", "--yes"]);
    assert!(idle.code == Some(0) && idle.all().contains("nothing was done"), "{}", idle.all());
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["lab", "start", "site-1"]);
    lab.until("the principal asks the other site", |lab| lab.instance("s1a")["state"] == "asking-peer");
    let unasked = lab.cli(&["pool", "start-alone", "--site", "site-1"]);
    assert_eq!(unasked.code, Some(3), "{}", unasked.all());
    let what_if = lab.ok(&["pool", "start-alone", "--site", "site-1", "--what-if"]);
    assert!(what_if.contains("would let s1a, s1b open"), "{what_if}");
    assert_eq!(lab.instance("s1a")["state"], "asking-peer");
    lab.ok(&["pool", "start-alone", "--site", "site-1", "--yes"]);
    replay.until_acknowledged(&lab, 5);

    // The leave ends when the other site has answered: after the next stop it is asked again.
    lab.ok(&["lab", "link", "up"]);
    let log = lab.dir.join("hosts/s1a/agent.log");
    lab.until("the leave has ended", |_| {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("asks again after a stop"))
    });
    lab.ok(&["lab", "link", "down"]);
    lab.ok(&["lab", "kill", "s1a/postgres"]);
    lab.until("the principal asks the other site again", |lab| lab.instance("s1a")["state"] == "asking-peer");

    // Not where the pool has failed over.
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    lab.ok(&["lab", "start", "site-1"]);
    lab.until("site 1 answers", |lab| lab.instance("s1a")["state"].is_string());
    let refused = lab.cli(&["pool", "start-alone", "--site", "site-1", "--yes"]);
    assert!(refused.code == Some(3) && refused.all().contains("left behind"), "{}", refused.all());
    lab.ok(&["lab", "link", "up"]);
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn a_backup_whose_host_restarts_amid_file_shipping_keeps_nothing_stale() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "link", "down"]);
    lab.until("the backup is fed by the share", |lab| lab.instance("s2a")["shipping"]["streaming"] == false);
    let partial = lab.dir.join("hosts/s2a/pg/mgc/copied/partial");
    lab.until("a partial segment is on offer", |_| partial.read_dir().is_ok_and(|mut files| files.next().is_some()));
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "link", "up"]);
    lab.ok(&["lab", "start", "s2a"]);
    lab.until("the backup streams again", |lab| lab.instance("s2a")["shipping"]["streaming"] == true);
    assert!(!partial.read_dir().is_ok_and(|mut files| files.next().is_some()), "what was on offer is withdrawn");
    replay.until_acknowledged(&lab, 10);
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    replay.until_epoch(&lab, 2);
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn shipping_into_the_share_goes_on_after_the_principals_host_was_killed() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "s1a"]);
    lab.ok(&["lab", "start", "s1a"]);
    replay.until_acknowledged(&lab, 5);
    lab.ok(&["lab", "link", "down"]);
    lab.until("the backup is fed by the share", |lab| lab.instance("s2a")["shipping"]["streaming"] == false);
    let entries = lab.instance("s2a")["entries"].as_u64();
    replay.until_acknowledged(&lab, 10);
    lab.until("posts arrive at the backup through the share", |lab| {
        lab.instance("s2a")["entries"].as_u64() >= entries.map(|e| e + 10)
    });
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

/// Change a byte in the middle of the largest relation's file of an instance, and return the file as it is reported. What nobody
/// writes to any more is there.
fn damage(lab: &Lab, host: &str) -> String {
    use std::os::unix::fs::FileExt;
    let data = lab.dir.join("hosts").join(host).join("pg/mgc/data");
    let path = lab.sql("s1a", "SELECT pg_relation_filepath('pg_proc')");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(data.join(&path)).unwrap();
    let at = file.metadata().unwrap().len() / 2 + 4_000;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    path
}

#[test]
fn damaged_pages_are_found_and_a_damaged_mirror_is_copied_anew_by_itself() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    lab.ok(&["database", "scrub"]);
    let file = damage(&lab, "s1b");
    let found = lab.cli(&["database", "scrub", "--host", "s1b"]);
    assert_eq!(found.code, Some(5), "{}", found.all());
    assert!(found.all().contains(&file), "{}", found.all());
    lab.until("what was damaged has gone", |lab| lab.instance("s1b")["scrub"].is_null());
    lab.until_normal();
    lab.ok(&["database", "scrub"]);
    replay.until_acknowledged(&lab, 5);
    let (_, rewound) = assert_clean(&lab.audit(&replay.end()));
    assert_eq!(rewound, 0);
}

#[test]
fn a_damaged_principal_is_said_and_copied_anew_when_its_mirror_has_taken_its_place() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    let file = damage(&lab, "s1a");
    assert_eq!(lab.cli(&["database", "scrub", "--json"]).code, Some(5));
    let says = lab.cli(&["pool", "status"]).all();
    assert!(says.contains(&file) && says.contains("standfast database failover --new-principal"), "{says}");
    lab.ok(&["database", "failover", "--new-principal", "mirror", "--yes"]);
    lab.until("what was damaged has gone", |lab| lab.instance("s1a")["scrub"].is_null());
    lab.until_normal();
    lab.ok(&["database", "scrub"]);
    let (_, rewound) = assert_clean(&lab.audit(&replay.end()));
    assert_eq!(rewound, 0);
}

#[test]
fn a_copy_whose_source_has_let_go_of_its_log_is_copied_anew_by_itself() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    let follows = |lab: &Lab| lab.instance("s2b")["shipping"]["streaming"] == true;
    lab.until("the backup's mirror streams", follows);
    lab.ok(&["lab", "kill", "s2b"]);
    let next = lab.sql("s1a", "SELECT pg_walfile_name(pg_switch_wal())");
    // More than an instance keeps for standbys; it goes with the checkpoints.
    let kept = lab.dir.join("hosts/s2a/pg/mgc/data/pg_wal").join(&next);
    for _ in 0..2 {
        lab.write_log("s1a", 140);
        lab.sql("s1a", "CHECKPOINT");
    }
    lab.until("the backup has let go of what its mirror lacks", |lab| {
        lab.sql("s1a", "CHECKPOINT");
        lab.sql("s2a", "CHECKPOINT");
        !kept.exists()
    });
    // The share keeps no log for ever either.
    for folder in ["wal", "stream"] {
        let _ = std::fs::remove_file(lab.dir.join("share/mgc/1").join(folder).join(&next));
    }
    lab.ok(&["lab", "start", "s2b"]);
    replay.until_acknowledged(&lab, 5);
    lab.until("it has every entry", |lab| lab.instance("s2b")["entries"] == lab.instance("s1a")["entries"]);
    assert_clean(&lab.audit(&replay.end()));
}
