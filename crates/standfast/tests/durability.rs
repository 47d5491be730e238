//! What categories ask for besides what holds everywhere: rooms that go on with the principal's disk alone, and what a change of writer
//! inside the site does to them; rooms that wait for a mirror that is lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use std::path::PathBuf;
use support::{Lab, Replay, assert_clean};

fn until_pair(lab: &Lab, principal: &str, mirror: &str) {
    lab.until(&format!("{principal} is principal and {mirror} its synchronised mirror"), |lab| {
        let record = lab.record();
        let d = &record["databases"]["mgc"];
        let stands =
            d["principal"] == principal && d["mirror"]["host"] == mirror && d["mirror"]["synchronised"] == true;
        stands && record["run"].is_null()
    });
}

/// A replay into rooms whose category has this setting.
fn replay_with(lab: &Lab, settings: &[&str]) -> Replay {
    // The first one makes the category.
    let first = lab.replay(&[]);
    let mut change = vec!["category", "change", "Replays"];
    change.extend_from_slice(settings);
    lab.ok(&change);
    first.until_acknowledged(lab, 20);
    first
}

/// End a replay and put its ledger where the next one's does not come.
fn ended(lab: &Lab, replay: Replay, name: &str) -> PathBuf {
    let ledger = lab.dir.join(name);
    std::fs::rename(replay.end(), &ledger).unwrap();
    ledger
}

#[test]
fn what_the_principals_disk_alone_had_comes_home_after_a_take_over_and_a_planned_switch_loses_none_of_it() {
    let lab = Lab::up();
    lab.until_normal();
    // The site's authority outlives the principal, and a mirror that is silent is waited for.
    let text = std::fs::read_to_string(lab.dir.join("topology.toml")).unwrap();
    let file = lab.dir.join("wanted.toml");
    let text = text.replace("authority = \"s1a\"", "authority = \"s1b\"");
    std::fs::write(&file, text.replace("[[database]]", "[[database]]\npartner_timeout = \"1min\"")).unwrap();
    lab.ok(&["topology", "publish", file.to_str().unwrap(), "--yes"]);

    let replay = replay_with(&lab, &["--durability", "disk"]);
    for (to, principal, mirror, epoch) in [("mirror", "s1b", "s1a", 3), ("primary", "s1a", "s1b", 5)] {
        let said = lab.cli(&["database", "failover", "--new-principal", to, "--yes"]);
        assert_eq!(said.code, Some(0), "{}", said.all());
        replay.until_epoch(&lab, epoch);
        until_pair(&lab, principal, mirror);
    }
    replay.until_acknowledged(&lab, 20);
    let planned = ended(&lab, replay, "planned.jsonl");
    let (_, rewound) = assert_clean(&lab.audit(&planned));
    assert_eq!(rewound, 0);

    // The mirror hears nothing more, and is not given up for a minute: every other commit waits for it.
    // Nor does anything reach the other site, so the principal's disk is the only one.
    let replay = lab.replay(&[]);
    let share = lab.dir.join("share");
    lab.ok(&["lab", "link", "down"]);
    std::fs::rename(&share, lab.dir.join("share.away")).unwrap();
    lab.sql("s1b", "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1'");
    lab.sql("s1b", "SELECT pg_reload_conf()");
    lab.until("the mirror follows no more", |lab| {
        lab.sql("s1a", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "0"
    });
    replay.until_acknowledged(&lab, 40);
    let before = ended(&lab, replay, "before.jsonl");
    let receipts = std::fs::read_to_string(&before).unwrap();
    assert!(receipts.contains(r#""durable":"disk""#), "no receipt says that the principal's disk alone has the post");
    lab.ok(&["lab", "kill", "s1a"]);
    std::fs::rename(lab.dir.join("share.away"), &share).unwrap();
    lab.ok(&["lab", "link", "up"]);
    lab.sql("s1b", "ALTER SYSTEM RESET primary_conninfo");
    // The record says "synchronised", so nothing has to be forced.
    let said = lab.cli(&["database", "failover", "--new-principal", "mirror", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("asks for the disk alone"), "{}", said.all());
    let since = lab.replay(&[]);
    since.until_epoch(&lab, 7);
    let (_, rewound) = assert_clean(&lab.audit(&before));
    assert!(rewound >= 40, "{rewound} are missing until the old principal is back");
    lab.ok(&["lab", "start", "s1a"]);
    until_pair(&lab, "s1b", "s1a");
    lab.until("all that the mirror had not is in the rooms again", |lab| {
        let audit = lab.audit(&before);
        let (_, rewound) = assert_clean(&audit);
        rewound == 0
    });
    let audit = lab.audit(&before);
    assert!(audit.stdout.contains(&format!("late arrivals {rewound}:")), "{}", audit.all());
    since.until_acknowledged(&lab, 10);
    let (_, rewound) = assert_clean(&lab.audit(&since.end()));
    assert_eq!(rewound, 0);
    lab.ok(&["verify", "pool"]);
    let doubled = "SELECT count(*) FROM (SELECT 1 FROM standfast.entries GROUP BY client_id HAVING count(*) > 1) d";
    assert_eq!(lab.sql("s1b", doubled), "0");
}

#[test]
fn rooms_that_wait_for_the_mirror_wait_while_the_principal_runs_without_it_and_others_do_not() {
    let lab = Lab::up();
    lab.until_normal();
    let replay = replay_with(&lab, &["--durability", "mirror", "--when-unavailable", "wait"]);
    lab.ok(&["lab", "kill", "s1b"]);
    lab.until("the principal runs without its mirror", |lab| {
        lab.record()["databases"]["mgc"]["mirror"]["synchronised"] == false
    });
    lab.until("the status says what waits, and for what", |lab| {
        let said = lab.cli(&["pool", "status"]).all();
        said.contains("for the mirror") && said.contains("waiting for the mirror: it is not synchronised")
    });
    let waiting = replay.acknowledged().len();
    let mut post = lab.command(&["post", "--user", "ines", "--room", "Operations", "others go on"]);
    let posted: support::Ran = post.env("STANDFAST_PASSWORD", "harbour-watch").output().unwrap().into();
    assert_eq!(posted.code, Some(0), "{}", posted.all());
    assert_eq!(replay.acknowledged().len(), waiting, "what waits was acknowledged without the mirror");
    lab.ok(&["lab", "start", "s1b"]);
    lab.until_normal();
    replay.until_acknowledged(&lab, 40);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
    let ledger = std::fs::read_to_string(&ledger).unwrap();
    let acks: Vec<&str> = ledger.lines().filter(|line| line.contains(r#""line":"ack""#)).collect();
    // Those that waited: the mirror has them, and the other site may have them too.
    let levels = [r#""durable":"mirror""#, r#""durable":"site""#];
    for ack in &acks[waiting..waiting + 10] {
        assert!(levels.iter().any(|level| ack.contains(level)), "acknowledged before the mirror had it: {ack}");
    }
}
