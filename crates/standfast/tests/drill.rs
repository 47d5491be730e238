//! A drill on a throwaway copy: real figures, nothing of the pool touched, and nothing left behind, whatever becomes of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use serde_json::Value;
use std::path::Path;
use support::{Lab, assert_clean};

/// The drills of all hosts, newest first.
fn drills(lab: &Lab) -> Vec<Value> {
    let ran = lab.cli(&["drill", "list", "--json"]);
    let all: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    all.as_array().cloned().unwrap_or_default()
}

/// Processes that have this folder, or something in it, as an argument.
fn processes_of(folder: &Path) -> Vec<String> {
    let wanted = folder.to_str().unwrap();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(wanted).then_some(line)
    });
    lines.collect()
}

/// Every file of the log share, with its size.
fn share(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            all.extend(share(&entry.path()));
        } else {
            all.push(entry.path().display().to_string());
        }
    }
    all
}

#[test]
fn a_drill_measures_on_a_copy_and_leaves_nothing_behind() {
    let lab = Lab::up();
    let folder = lab.dir.join("hosts/s2a/drill");
    let replay = lab.replay(&[]);
    replay.until_acknowledged(&lab, 50);

    // While people post: figures, and the pool does not notice.
    let before = lab.record();
    let ran = lab.cli(&["drill", "sandbox", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(report["rto_ms"].as_u64().is_some_and(|ms| ms > 0), "{report:#}");
    assert!(report["entries"].as_u64().is_some_and(|n| n >= 50), "every entry was read: {report:#}");
    assert!(
        report["rpo_entries"].as_u64().is_some_and(|n| n < 50),
        "what was on its way is all that lacks: {report:#}"
    );
    assert!(report["rpo_ms"].as_u64().is_some_and(|ms| ms < 10_000), "{report:#}");
    assert!(!folder.exists(), "it is cleared away");
    assert_eq!(processes_of(&folder), Vec::<String>::new());
    let mut after = lab.record();
    after["version"] = before["version"].clone();
    assert_eq!(after, before, "the record is as it was");
    assert_eq!(lab.instance("s2a")["state"], "standby", "the backup is as it was");
    assert_eq!(lab.instance("s2a")["database_epoch"], 1);
    // A promoted instance that archived would have begun another timeline there.
    let of_others: Vec<String> = share(&lab.dir.join("share")).into_iter().filter(|f| f.contains(".history")).collect();
    assert_eq!(of_others, Vec::<String>::new(), "nothing of the drill is in the share");
    let said = lab.ok(&["pool", "status"]);
    assert!(said.contains("last drill: sandbox-") && said.contains("all fit"), "{said}");

    // Nobody who posts has lost anything, and nobody sees the drill's own room.
    replay.until_acknowledged(&lab, 20);
    assert_clean(&lab.audit(&replay.end()));
    assert!(!lab.ok(&["room", "list"]).contains("sandbox-"));

    // Quiet, nothing lacks; and the backup's mirror may be copied in place of the backup.
    let quiet = lab.cli(&["drill", "sandbox", "--on", "s2b", "--json"]);
    assert_eq!(quiet.code, Some(0), "{}", quiet.all());
    let quiet: Value = serde_json::from_str(&quiet.stdout).unwrap();
    assert_eq!((&quiet["rpo_entries"], &quiet["host"]), (&Value::from(0), &Value::from("s2b")));

    // A writer is never copied for a drill.
    let refused = lab.cli(&["drill", "sandbox", "--on", "s1a"]);
    assert_eq!(refused.code, Some(3), "{}", refused.all());
    assert!(refused.all().contains("never a writer"), "{}", refused.all());

    // The agent is killed in the middle: when it is back, everything is cleared away, and the drill counts as failed.
    let mut watching = lab.command(&["drill", "sandbox"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    lab.until("the copy runs", |_| folder.join("pg/mgc/data/postmaster.pid").exists());
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "start", "s2a"]);
    lab.until("the drill is told to have failed", |lab| {
        drills(lab)
            .first()
            .is_some_and(|d| d["over"] == true && d["failed"].as_str().is_some_and(|f| f.contains("ended meanwhile")))
    });
    assert!(!folder.exists());
    assert_eq!(processes_of(&folder), Vec::<String>::new());
    assert_ne!(watching.wait().unwrap().code(), Some(0), "whoever watched is told");
    lab.until("the backup follows again", |lab| lab.instance("s2a")["shipping"]["streaming"] == true);

    // A run comes first: the drill makes way.
    let mut watching = lab.command(&["drill", "sandbox"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    lab.until("a drill is under way", |lab| drills(lab).first().is_some_and(|d| d["over"] == false));
    lab.ok(&["database", "failover", "--new-principal", "mirror", "--yes"]);
    watching.wait().unwrap();
    lab.until("it is over", |lab| drills(lab).first().is_some_and(|d| d["over"] == true));
    assert!(!folder.exists());
    // Somebody has changed an entry in the database itself: the copy shows it.
    lab.until("the backup follows the new principal", |lab| lab.instance("s2a")["shipping"]["streaming"] == true);
    lab.sql(
        "s1b",
        "UPDATE standfast.entries SET body = 'never said' WHERE (room, seq) = (SELECT room, max(seq) FROM \
                    standfast.entries GROUP BY room ORDER BY room LIMIT 1)",
    );
    let ran = lab.cli(&["drill", "sandbox"]);
    assert_ne!(ran.code, Some(0), "{}", ran.all());
    let says = ran.all();
    assert!(says.contains("does not fit: its text is not the one that was written"), "{says}");
}
