//! What goes wrong with the share: named, with what can be done; shipping resumes by itself, and nothing stops silently.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use support::{Lab, Ran, assert_clean};

/// `log-shipping state --json` of the content database.
fn state(lab: &Lab) -> Value {
    let ran = lab.cli(&["log-shipping", "state", "--json"]);
    serde_json::from_str::<Value>(&ran.stdout).map(|all| all[0].clone()).unwrap_or_default()
}

fn until_fault(lab: &Lab, words: &str) {
    lab.until(&format!("a fault says: {words}"), |lab| state(lab)["faults"].to_string().contains(words));
    let said = lab.cli(&["log-shipping", "state"]);
    assert_eq!(said.code, Some(5), "a script sees it too: {}", said.all());
    assert!(lab.ok(&["pool", "status"]).contains(words));
}

/// The share has everything again, and nothing is wrong.
fn until_shipped(lab: &Lab) {
    let written = lab.sql("s1a", "SELECT pg_walfile_name(pg_switch_wal())");
    lab.until("the share has the log up to here, and no fault is left", |lab| {
        let file = lab.dir.join("share/mgc/1/wal").join(&written);
        file.exists() && lab.cli(&["log-shipping", "state"]).code == Some(0)
    });
}

fn system(program: &str, arguments: &[&str]) -> Ran {
    Command::new(program).args(arguments).output().expect("the program runs").into()
}

/// A small file system in place of the share; unmounted at the end, whatever happens.
struct Mount(PathBuf);

impl Mount {
    fn with(at: PathBuf, options: &str) -> Option<Mount> {
        let said = system("mount", &["-t", "tmpfs", "-o", options, "tmpfs", at.to_str().unwrap()]);
        if said.code != Some(0) {
            eprintln!("not tried, because this account may not mount: {}", said.all());
            return None;
        }
        Some(Mount(at))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        system("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

#[test]
fn a_share_that_is_missing_full_or_read_only_is_named_and_shipping_resumes() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    until_shipped(&lab);

    lab.publish_log_shipping("backup_threshold = \"2s\", restore_threshold = \"2s\"");
    let share = lab.dir.join("share");
    std::fs::rename(&share, lab.dir.join("share.away")).unwrap();
    lab.write_log("s1a", 3);
    until_fault(&lab, "is missing");
    // The stream goes on without it.
    let entries = lab.instance("s2a")["entries"].as_u64();
    lab.until("posts arrive by stream", |lab| lab.instance("s2a")["entries"].as_u64() > entries);
    let alerts = |lab: &Lab| state(lab)["alerts"].to_string();
    lab.until("the backup job is late", |lab| alerts(lab).contains("14420"));
    assert!(alerts(&lab).contains("The log shipping primary database s1a.mgc has backup threshold of 0 minutes"));
    lab.ok(&["lab", "link", "down"]);
    until_fault(&lab, "NOTHING ARRIVES");
    lab.until("the restore job is late too", |lab| alerts(lab).contains("14421"));
    assert!(lab.ok(&["pool", "status"]).contains("ALERT 14421: The log shipping secondary database s2a.mgc"));
    lab.ok(&["lab", "link", "up"]);
    std::fs::rename(lab.dir.join("share.away"), &share).unwrap();
    until_shipped(&lab);
    let log = std::fs::read_to_string(lab.dir.join("hosts/s1a/agent.log")).unwrap_or_default();
    assert_eq!(log.matches("has not performed a backup log operation").count(), 1, "once, at the edge");

    if let Some(_mount) = Mount::with(share.clone(), "size=24m") {
        until_shipped(&lab);
        let filler = std::fs::File::create(share.join("filler")).unwrap();
        let full = std::io::copy(&mut std::io::repeat(1), &mut &filler).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        drop(filler);
        lab.write_log("s1a", 3);
        until_fault(&lab, "is full");
        let waiting = state(&lab)["primary"]["waiting_files"].as_u64();
        assert!(waiting > Some(0), "they wait at the principal: {waiting:?}");
        std::fs::remove_file(share.join("filler")).unwrap();
        until_shipped(&lab);

        let read_only = Mount::with(share.clone(), "ro");
        lab.write_log("s1a", 3);
        until_fault(&lab, "is read-only");
        drop(read_only);
        until_shipped(&lab);
    }
    let runs = lab.ok(&["log-shipping", "history", "--job", "backup", "--json"]);
    let runs: Vec<Value> = serde_json::from_str(&runs).unwrap();
    let failed = runs.iter().filter(|r| r["status"] == "error" && r["message"].to_string().contains("is missing"));
    assert!(failed.count() > 0 && runs.iter().any(|r| r["status"] == "success"), "{runs:#?}");
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

/// Take a segment that the stopped backup still needs out of the share; its name.
fn make_hole(lab: &Lab, megabytes: u32) -> String {
    lab.ok(&["lab", "kill", "s2a"]);
    let from = lab.sql("s1a", "SELECT pg_walfile_name(pg_switch_wal())");
    lab.write_log("s1a", megabytes);
    lab.sql("s1a", "CHECKPOINT");
    let last = lab.sql("s1a", "SELECT pg_walfile_name(pg_switch_wal())");
    let wal = lab.dir.join("share/mgc/1/wal");
    lab.until("the share has it all", |_| wal.join(&last).exists());
    let mut after: Vec<String> =
        wal.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    after.retain(|name| name.len() == 24 && *name > from);
    after.sort();
    std::fs::remove_file(wal.join(&after[1])).unwrap();
    let _ = std::fs::remove_file(lab.dir.join("share/mgc/1/stream").join(&after[1]));
    after[1].clone()
}

#[test]
fn a_hole_in_the_share_is_filled_by_the_stream_or_asks_for_an_initialisation() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    let follows = |lab: &Lab| lab.instance("s2a")["shipping"]["streaming"] == true;
    lab.until("the backup streams", follows);
    lab.ok(&["lab", "link", "down"]);
    let missing = make_hole(&lab, 4);
    lab.ok(&["lab", "start", "s2a"]);
    until_fault(&lab, &format!("the share lacks {}", &missing[8..]));
    assert!(state(&lab)["faults"].to_string().contains("goes on when its stream comes up"), "{}", state(&lab));
    lab.ok(&["lab", "link", "up"]);
    lab.until("the stream fills it", follows);
    lab.until("the fault is over", |lab| lab.cli(&["log-shipping", "state"]).code == Some(0));

    // The principal does not keep it any more either.
    lab.ok(&["lab", "link", "down"]);
    let missing = make_hole(&lab, 280);
    lab.until("the principal has let go of it", |lab| {
        lab.sql("s1a", "CHECKPOINT");
        !lab.dir.join("hosts/s1a/pg/mgc/data/pg_wal").join(&missing).exists()
    });
    lab.ok(&["lab", "start", "s2a"]);
    lab.ok(&["lab", "link", "up"]);
    until_fault(&lab, "has to be initialised again: standfast log-shipping enable");
    lab.ok(&["log-shipping", "enable", "--yes"]);
    lab.until("the backup streams again", follows);
    lab.until("nothing is wrong any more", |lab| lab.cli(&["log-shipping", "state"]).code == Some(0));
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}
