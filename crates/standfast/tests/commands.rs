//! Commands as a newcomer and a script type them: clear errors, nothing half done, exit codes.

mod support;
use support::{Lab, Ran, STANDFAST, assert_clean, sample};

fn plain(arguments: &[&str]) -> Ran {
    std::process::Command::new(STANDFAST).args(arguments).output().expect("the program runs").into()
}

#[test]
fn the_small_edition_chats() {
    let lab = Lab::up_with(&["--single"]);
    let ledger = lab.dir.join("ledger.jsonl");
    let file = sample();
    lab.ok(&["replay", file.to_str().unwrap(), "--speed", "max", "--ledger", ledger.to_str().unwrap()]);
    let (acknowledged, rewound) = assert_clean(&lab.audit(&ledger));
    let lines = std::fs::read_to_string(&file).unwrap().lines().filter(|l| l.starts_with('[')).count();
    assert_eq!((acknowledged, rewound), (lines as u64, 0));
    let said = lab.cli(&["failover", "--yes"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("site"), "{}", said.all());
}

#[test]
fn a_ledger_that_was_tampered_with_does_not_pass() {
    let lab = Lab::up_with(&["--single"]);
    let ledger = lab.dir.join("ledger.jsonl");
    let file = sample();
    lab.ok(&["replay", file.to_str().unwrap(), "--speed", "max", "--ledger", ledger.to_str().unwrap()]);
    let text = std::fs::read_to_string(&ledger).unwrap();
    let ack = text.lines().find(|l| l.contains(r#""line":"ack""#)).unwrap();
    let invented = {
        let mut line: serde_json::Value = serde_json::from_str(ack).unwrap();
        line["client_id"] = "01890000-0000-7000-8000-000000000000".into();
        line["seq"] = 999_999.into();
        line.to_string()
    };
    std::fs::write(&ledger, format!("{text}{invented}\n")).unwrap();
    let audit = lab.audit(&ledger);
    assert_eq!(audit.code, Some(3), "{}", audit.all());
    assert!(audit.last_line().contains("lost 1"), "{}", audit.last_line());
}

#[test]
fn an_entry_that_was_changed_in_the_database_is_named() {
    let lab = Lab::up_with(&["--single"]);
    let file = sample();
    lab.ok(&["replay", file.to_str().unwrap(), "--speed", "max"]);
    assert!(lab.ok(&["verify", "pool"]).contains("0 rooms do not fit"));
    let room = lab.sql(
        "s1a",
        "SELECT r.name FROM standfast.rooms r JOIN standfast.room_heads h ON h.room = r.id
        WHERE h.last_seq > 5 ORDER BY r.id LIMIT 1",
    );
    let export = lab.dir.join("export.jsonl");
    let export = export.to_str().unwrap();
    lab.ok(&["verify", "export", &room, "--to", export]);
    let said = lab.cli(&["verify", "export", &room, "--to", export]);
    assert_eq!(said.code, Some(2), "what is there is not written over: {}", said.all());
    lab.ok(&["verify", "file", export]);
    let change = "UPDATE standfast.entries e SET body = 'never said' FROM standfast.rooms r
        WHERE r.id = e.room AND e.seq = 3 AND r.name = ";
    lab.sql("s1a", &format!("{change}'{room}'"));
    for what in [&["verify", "room", &room][..], &["verify", "pool"]] {
        let said = lab.cli(what);
        assert_eq!(said.code, Some(3), "{}", said.all());
        let named = format!("room '{room}', number 3: its text is not the one that was written");
        assert!(said.stdout.contains(&named), "{}", said.all());
    }
    // The export from before tells what was written, without the pool.
    let text = std::fs::read_to_string(export).unwrap();
    assert!(!text.contains("never said"));
    assert_eq!(plain(&["verify", "file", export]).code, Some(0));
    std::fs::write(export, text.replacen(r#""seq":4,"#, r#""seq":5,"#, 1)).unwrap();
    let said = plain(&["verify", "file", export]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.stdout.contains("number 4: it is missing"), "{}", said.all());
}

#[test]
fn a_bad_topology_is_refused_with_the_line() {
    let folder = std::env::temp_dir().join(format!("standfast-topology-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("bad.toml");
    std::fs::write(&file, "pool = \"p\"\n\n[[site]]\nname = \"site-1\"\nautority = \"s1a\"\n").unwrap();
    let said = plain(&["topology", "check", file.to_str().unwrap()]);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_ne!(said.code, Some(0));
    assert!(said.all().contains("line 5") || said.all().contains(":5"), "{}", said.all());
    assert!(said.all().contains("authority"), "it names the nearest key: {}", said.all());
}

#[test]
fn a_mistyped_command_is_a_usage_error() {
    let said = plain(&["failovr"]);
    assert_eq!(said.code, Some(2), "{}", said.all());
    assert!(said.stderr.contains("failover"), "{}", said.stderr);
}

#[test]
fn a_pool_that_is_not_there_is_named() {
    let said = plain(&["--dir", "/nonexistent/pool", "pool", "status"]);
    assert_ne!(said.code, Some(0));
    assert!(said.stderr.contains("/nonexistent/pool"), "{}", said.stderr);
}

#[test]
fn a_topology_that_init_writes_passes_and_is_not_overwritten() {
    let folder = std::env::temp_dir().join(format!("standfast-init-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("pool.toml");
    let file = path.to_str().unwrap();
    let made = plain(&["topology", "init", file, "--defaults"]);
    let checked = plain(&["topology", "check", file]);
    let again = plain(&["topology", "init", file, "--defaults"]);
    let forced = plain(&["topology", "init", file, "--defaults", "--force"]);
    let piped = std::process::Command::new(STANDFAST)
        .args(["topology", "init", file, "--force"])
        .stdin(std::process::Stdio::null())
        .output()
        .map(Ran::from)
        .unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((made.code, checked.code, forced.code), (Some(0), Some(0), Some(0)), "{} {}", made.all(), checked.all());
    assert_eq!(again.code, Some(3), "{}", again.all());
    assert_eq!(piped.code, Some(2), "{}", piped.all());
}

/// What a lab's replay has left: the ledger's path and the pool's key.
fn ledger_and_key(lab: &Lab) -> (String, String) {
    let ledger = lab.dir.join("ledger.jsonl").to_str().expect("paths of a lab are UTF-8").to_owned();
    let file = sample();
    lab.ok(&["replay", file.to_str().expect("paths of a lab are UTF-8"), "--speed", "max", "--ledger", &ledger]);
    (ledger, lab.ok(&["verify", "key"]).trim().to_owned())
}

#[test]
fn receipts_are_evidence_without_the_pool() {
    let lab = Lab::up_with(&["--single"]);
    let (ledger, key) = ledger_and_key(&lab);
    let audit = lab.audit(std::path::Path::new(&ledger));
    let (acknowledged, _) = assert_clean(&audit);
    let said = format!("receipts {acknowledged}, of those 0 about what a failover took, 0 do not fit");
    assert!(audit.stdout.contains(&said), "{}", audit.all());
    let said = plain(&["verify", "receipt", &ledger, "--key", &key]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stdout.contains(&format!("verified {acknowledged} receipts, 0 do not fit")), "{}", said.all());

    // One post by hand, with a file that is not written over.
    let receipt = lab.dir.join("receipt.json").to_str().unwrap().to_owned();
    let room = lab.sql("s1a", "SELECT name FROM standfast.rooms ORDER BY id LIMIT 1");
    let post = ["post", "--user", "admin", "--room", &room, "--receipt", &receipt, "all is well"];
    let said = lab.cli(&post);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.stderr.contains("durable on: "), "{}", said.all());
    assert_eq!(lab.cli(&post).code, Some(2), "the file is there already");
    assert_eq!(plain(&["verify", "receipt", &receipt, "--key", &key]).code, Some(0));
    let text = std::fs::read_to_string(&receipt).unwrap();
    let at = text.find("\"at_us\":").unwrap() + 8;
    std::fs::write(&receipt, format!("{}1{}", &text[..at], &text[at..])).unwrap();
    let said = plain(&["verify", "receipt", &receipt, "--key", &key]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.stdout.contains("line 1: "), "{}", said.all());
    let said = plain(&["verify", "receipt", &receipt, "--key", "abc"]);
    assert_eq!(said.code, Some(2), "{}", said.all());

    let export = lab.dir.join("export.jsonl").to_str().unwrap().to_owned();
    lab.ok(&["verify", "export", &room, "--to", &export]);
    assert_eq!(plain(&["verify", "file", &export, "--key", &key]).code, Some(0));
    let said = plain(&["verify", "file", &export, "--key", &"0".repeat(64)]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.stdout.contains("the head is signed with none of the keys"), "{}", said.all());

    // A room that was written anew, with a chain that fits, is not what the receipts say.
    let anew = "UPDATE standfast.entries SET chain = sha256(chain) WHERE seq = 3";
    lab.sql("s1a", anew);
    let audit = lab.audit(std::path::Path::new(&ledger));
    assert_eq!(audit.code, Some(3), "{}", audit.all());
    assert!(audit.stdout.contains("another running hash at this number"), "{}", audit.all());
}
