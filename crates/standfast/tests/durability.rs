//! What categories ask for besides what holds everywhere: rooms that wait for a mirror that is lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use support::{Lab, Replay, assert_clean};

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
    let receipts = std::fs::read_to_string(&ledger).unwrap();
    let ends = receipts.lines().filter(|line| line.contains(r#""line":"ack""#)).skip(waiting);
    assert!(ends.take(10).all(|ack| !ack.contains(r#""durable":"disk""#)), "acknowledged before the mirror had it");
}
