//! Backups: made while people post, proven by restoring them, restored to a time; what is damaged is found, and nothing half
//! stays.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{Lab, assert_clean};

fn backups(lab: &Lab) -> Vec<Value> {
    let all: Value = serde_json::from_str(&lab.ok(&["backup", "list", "--json"])).unwrap();
    all.as_array().cloned().unwrap()
}

/// Entries of all rooms at an instance.
fn entries(lab: &Lab, host: &str) -> u64 {
    lab.sql(host, "SELECT count(*) FROM standfast.entries").parse().unwrap()
}

/// The share has everything that was written so far in finished segments.
fn ship(lab: &Lab) {
    let segment = lab.sql("s1a", "SELECT pg_walfile_name(pg_switch_wal())");
    let shipped = lab.dir.join("share/mgc/1/wal").join(segment);
    lab.until("the segment is in the share", |_| shipped.exists());
}

/// The largest file of a folder and those below it.
fn largest(folder: &Path) -> (u64, PathBuf) {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let sizes = entries.map(|entry| {
        let path = entry.path();
        if path.is_dir() { largest(&path) } else { (entry.metadata().unwrap().len(), path) }
    });
    sizes.max().unwrap_or_default()
}

/// A restored pool, run by its agent.
struct Restored {
    folder: PathBuf,
    agent: Child,
}

impl Restored {
    fn start(folder: PathBuf, host: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standfast"));
        command.arg("--dir").arg(&folder).args(["agent", "--host", host]).stdout(Stdio::null()).stderr(Stdio::null());
        Self { agent: command.spawn().unwrap(), folder }
    }

    fn cli(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standfast"));
        let output = command.arg("--dir").arg(&self.folder).args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        // Its server and its database outlive an agent: they are named by the folder.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(self.folder.to_str().unwrap()) {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
            }
        }
    }
}

#[test]
fn a_backup_is_made_and_proven_and_restored_to_a_time() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    replay.until_acknowledged(&lab, 50);
    assert!(lab.ok(&["pool", "status"]).contains("last backup: never"));
    let nothing = lab.cli(&["backup", "prove"]);
    assert_eq!(nothing.code, Some(3), "{}", nothing.all());
    assert!(nothing.all().contains("standfast backup create makes one"), "{}", nothing.all());

    // While people post.
    lab.ok(&["backup", "create"]);
    let made = backups(&lab);
    let [backup] = made.as_slice() else { panic!("{made:#?}") };
    let id = backup["id"].as_str().unwrap();
    assert_eq!((&backup["host"], &backup["proof"]), (&Value::from("s2a"), &Value::Null), "{backup:#}");
    let folder = lab.dir.join("hosts/s2a/backups").join(id);
    for file in ["pool.secret", "record.json", "topology.toml"] {
        assert!(folder.join("pool").join(file).exists(), "{file}");
    }
    let mode = std::fs::metadata(folder.join("pool/pool.secret")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads the pool's secret");

    // A proof chats on it, reads everything, and leaves nothing.
    lab.ok(&["backup", "prove"]);
    let proof = backups(&lab)[0]["proof"].clone();
    assert_eq!(proof["failed"], Value::Null, "{proof:#}");
    assert!(proof["entries"].as_u64().unwrap() >= 50, "{proof:#}");
    assert!(!lab.dir.join("hosts/s2a/drill").exists());
    let said = lab.ok(&["pool", "status"]);
    assert!(said.contains(&format!("last backup: {id} on s2a")) && said.contains("proven"), "{said}");

    // To a time between two posts, through the log in the share.
    replay.until_acknowledged(&lab, 10);
    let at = lab.sql("s1a", "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')");
    let then = entries(&lab, "s1a");
    replay.until_acknowledged(&lab, 10);
    ship(&lab);
    let into = lab.dir.join("restored");
    let said = lab.ok(&["backup", "restore", "--into", into.to_str().unwrap(), "--to", &at]);
    assert!(said.contains("all fit") && said.contains("standfast --dir"), "{said}");
    let restored = Restored::start(into, "s2a");
    lab.until("the restored pool serves", |_| restored.cli(&["room", "list"]).0 == Some(0));
    let names = |list: &str| list.lines().map(|l| l.rsplit_once(',').unwrap().0.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&restored.cli(&["room", "list"]).1), names(&lab.ok(&["room", "list"])));
    let (code, verified) = restored.cli(&["verify", "pool"]);
    assert_eq!(code, Some(0), "{verified}");
    let logged: Value = serde_json::from_str(&restored.cli(&["verify", "pool", "--json"]).1).unwrap();
    let logged: u64 = logged.as_array().unwrap().iter().map(|room| room["last_seq"].as_u64().unwrap()).sum();
    let proven = proof["entries"].as_u64().unwrap();
    assert!(logged > proven && logged <= then, "{proven} in the backup, {logged} restored, {then} at that time");
    drop(restored);

    // What cannot be is refused before anything is done.
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let ran = lab.cli(arguments);
        assert_eq!(ran.code, Some(code), "{}", ran.all());
        assert!(ran.all().contains(words), "{words}: {}", ran.all());
    };
    refused(&["backup", "restore", "--into", "here"], 3, "no absolute path");
    refused(&["backup", "restore", "--into", lab.dir.to_str().unwrap()], 3, "is there already");
    refused(&["backup", "restore", "--into", "/x", "--to", "noon"], 2, "write a time with its zone");
    refused(&["backup", "restore", "--into", "/x", "--to", "2001-01-01T00:00:00Z"], 3, "newer than that time");
    refused(&["backup", "prove", "backup-0"], 3, "standfast backup list");
    let late = lab.dir.join("late");
    let ahead = ["backup", "restore", "--into", late.to_str().unwrap(), "--to", "2099-01-01T00:00:00Z"];
    refused(&ahead, 1, "end before the time that is wanted");
    assert!(!late.exists());
    assert_clean(&lab.audit(&replay.end()));
}

#[test]
fn a_damaged_backup_is_found_and_nothing_half_stays() {
    let lab = Lab::up();
    // Nobody writes: the log of the backup ends where it is consistent.
    let text = std::fs::read_to_string(lab.dir.join("topology.toml")).unwrap();
    let quiet = lab.dir.join("quiet.toml");
    std::fs::write(&quiet, format!("{text}\n[canary]\nevery = \"off\"\n")).unwrap();
    lab.ok(&["topology", "publish", quiet.to_str().unwrap(), "--yes"]);
    lab.until("nothing is written any more", |lab| {
        let (before, after) = (lab.instance("s1a")["written"].clone(), lab.instance("s1a")["written"].clone());
        before == after && lab.instance("s2a")["applied"] == after
    });
    lab.ok(&["backup", "create"]);
    lab.ok(&["backup", "prove"]);
    let id = backups(&lab)[0]["id"].as_str().unwrap().to_owned();
    let shelf = lab.dir.join("hosts/s2a/backups");
    let (_, file) = largest(&shelf.join(&id).join("data/base"));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let ran = lab.cli(&["backup", "prove"]);
    assert_eq!(ran.code, Some(1), "{}", ran.all());
    assert!(ran.all().contains("checksum mismatch"), "{}", ran.all());
    let said = lab.ok(&["pool", "status"]);
    assert!(said.contains(&format!("! the newest backup, {id} on s2a, could not be restored")), "{said}");

    // Another one takes its place.
    lab.ok(&["backup", "create", "--keep", "1"]);
    let made = backups(&lab);
    assert_eq!(made.len(), 1, "{made:#?}");
    assert_ne!(made[0]["id"], *id);
    assert!(!shelf.join(&id).exists());

    // What is no backup is left alone, whatever an agent finds when it starts.
    std::fs::create_dir(shelf.join("by-hand")).unwrap();
    std::fs::create_dir(shelf.join("damaged")).unwrap();
    std::fs::write(shelf.join("damaged/backup.json"), "half a descr").unwrap();

    // The agent is killed amid the next one: nothing of it stays.
    let mut watching = lab.command(&["backup", "create"]).stderr(Stdio::null()).spawn().unwrap();
    let half = || {
        let folders = std::fs::read_dir(&shelf).unwrap().flatten();
        folders
            .map(|f| f.path())
            .find(|f| f.file_name().unwrap().to_str().unwrap().starts_with(".half-") && f.join("data").exists())
    };
    lab.until("a copy is under way", |_| half().is_some() || watching.try_wait().unwrap().is_some());
    if half().is_some() {
        lab.ok(&["lab", "kill", "s2a"]);
        lab.ok(&["lab", "start", "s2a"]);
    }
    lab.until("whoever watched is told", |_| watching.try_wait().unwrap().is_some());
    lab.until("the agent is back", |lab| lab.cli(&["backup", "prove"]).code == Some(0));
    assert!(half().is_none());
    assert!(shelf.join("by-hand").exists() && shelf.join("damaged/backup.json").exists());
}
