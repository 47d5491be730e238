//! A planned failover: both sites live, the pool is handed over to the other site and home again while people chat, and
//! nothing is lost, whoever is killed meanwhile; or it gives itself up and the pool is as it was.

mod support;
use support::{Lab, Replay, assert_clean};

/// The parts of the content database, as the record has them.
fn parts(lab: &Lab) -> [String; 4] {
    let d = lab.record()["databases"]["mgc"].clone();
    let name = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    [name(&d["principal"]), name(&d["mirror"]["host"]), name(&d["backup"]), name(&d["backup_mirror"])]
}

/// The longest time between two acknowledgements, in milliseconds.
fn longest_gap(replay: &Replay) -> i64 {
    let acknowledged = replay.acknowledged();
    acknowledged.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default()
}

#[test]
fn the_pool_is_handed_over_as_planned_and_home_again_while_people_chat() {
    let lab = Lab::up();
    lab.until_normal();
    // What the restore job holds back is applied first.
    lab.publish_log_shipping("restore_delay = \"30min\"");
    let replay = lab.replay(&[]);
    let what_if = lab.ok(&["failover", "--planned", "--what-if"]);
    for step in cluster::planned_failover::PLANNED_FAILOVER.steps {
        assert!(what_if.contains(step.id), "{} is missing in\n{what_if}", step.id);
    }
    assert!(what_if.contains("limits: nobody unable to post for longer than 10.0 s"), "{what_if}");

    let said = lab.cli(&["failover", "--planned", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("nothing was lost"), "{}", said.all());
    replay.until_epoch(&lab, 3);
    lab.until("the other site is home, and the old one is fed without being copied anew", |lab| {
        let record = lab.record();
        (record["state"].as_str(), record["home"].as_str()) == (Some("FailedOver"), Some("site-2"))
            && parts(lab) == ["s2a", "s2b", "s1a", "s1b"]
    });
    let again = lab.cli(&["failover", "--planned", "--yes"]);
    assert_eq!(again.code, Some(0), "{}", again.all());
    assert!(again.all().contains("already"), "{}", again.all());
    replay.until_acknowledged(&lab, 5);

    let said = lab.cli(&["failback", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("nothing to salvage"), "{}", said.all());
    replay.until_epoch(&lab, 5);
    lab.until_normal();
    assert_eq!(parts(&lab), ["s1a", "s1b", "s2a", "s2b"]);
    println!("longest gap: {} ms", longest_gap(&replay));
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);

    // What takes both sites is refused when one is lost, and says what does not.
    lab.ok(&["lab", "kill", "site-2"]);
    let said = lab.cli(&["failover", "--planned", "--yes"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("s2a"), "{}", said.all());
}

/// Start the agent that carries the run with these failpoints armed, and type the command until the run stands at one.
fn stop_at(lab: &Lab, points: &[String]) {
    let armed: Vec<String> = points.iter().map(|point| format!("{point}=pause")).collect();
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a", "--env", &format!("STANDFAST_FAILPOINTS={}", armed.join(","))]);
    let mut typed: Option<std::process::Child> = None;
    lab.until(&format!("the run stands at {}", points.join(" or ")), |_| {
        if typed.as_mut().is_none_or(|child| child.try_wait().expect("a child can be asked").is_some()) {
            let mut command = lab.command(&["failover", "--planned", "--yes"]);
            let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            typed = Some(command.spawn().expect("the program runs"));
        }
        points.iter().any(|point| lab.dir.join("hosts/s1a").join(format!("failpoint.{point}")).exists())
    });
    if let Some(mut child) = typed {
        child.kill().ok();
        child.wait().expect("a child ends");
    }
}

#[test]
fn the_agent_that_carries_a_planned_failover_is_killed_at_every_step_that_users_notice_and_it_goes_on() {
    let lab = Lab::up();
    lab.until_normal();
    // Killed so often, it takes longer than anybody would allow: this is about going on. Step by step there is no limit.
    lab.ok(&["step", "planned-failover", "apply-at-once"]);
    let replay = lab.replay(&[]);
    // From the first that they notice to the one after which nothing that is left needs this site.
    let noticed =
        ["clear-active-servers", "remove-mirroring", "hand-over", "bring-backup-online", "set-pool-failed-over"];
    for step in noticed {
        let point = |when: &str| format!("planned-failover.{step}.{when}");
        stop_at(&lab, &[point("during"), point("after")]);
    }
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a"]);
    lab.until("the command finds the run, or what it came to", |lab| {
        lab.cli(&["failover", "--planned", "--yes"]).code == Some(0)
    });
    replay.until_epoch(&lab, 3);
    lab.until("failed over", |lab| lab.state() == "FailedOver" && parts(lab) == ["s2a", "s2b", "s1a", "s1b"]);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn a_planned_failover_that_takes_too_long_is_given_up_and_the_pool_is_as_it_was() {
    let lab = Lab::up();
    lab.until_normal();
    let replay = lab.replay(&[]);
    stop_at(&lab, &["planned-failover.catch-up.after".to_owned()]);
    // The backup receives, and applies nothing any more.
    lab.sql("s2a", "SELECT pg_wal_replay_pause()");
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a"]);
    lab.until("the run is over", |lab| lab.record()["run"].is_null() && lab.state() == "Normal");
    lab.sql("s2a", "SELECT pg_wal_replay_resume()");
    let record = lab.record();
    let shown = lab.ok(&["runbook", "show"]);
    assert!(shown.contains("nobody has been able to post for"), "{shown}");
    assert_eq!(record["home"], "site-1", "{shown}");
    assert_eq!(record["active_servers"], serde_json::json!(["server-1", "server-2"]));
    println!("{shown}");
    replay.until_acknowledged(&lab, 5);
    lab.until_normal();
    assert_eq!(parts(&lab), ["s1a", "s1b", "s2a", "s2b"]);

    // Once it can, it does.
    lab.until("the backup streams again", |lab| lab.instance("s2a")["shipping"]["streaming"] == true);
    lab.ok(&["failover", "--planned", "--yes"]);
    replay.until_epoch(&lab, record["epoch"].as_i64().unwrap_or_default() + 2);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn a_planned_failover_whose_writer_has_stopped_is_given_up_or_undone_and_the_writer_goes_on() {
    let lab = Lab::up();
    lab.until_normal();
    let replay = lab.replay(&[]);
    let serves_on = |lab: &Lab, epoch: i64| {
        replay.until_epoch(lab, epoch);
        lab.until_normal();
        assert_eq!(parts(lab), ["s1a", "s1b", "s2a", "s2b"]);
        let record = lab.record();
        assert_eq!((record["home"].as_str(), record["run"].is_null()), (Some("site-1"), true), "{record:#}");
        assert_eq!(record["active_servers"], serde_json::json!(["server-1", "server-2"]));
        replay.until_acknowledged(lab, 5);
    };

    // The backup is lost when the writer has just been stopped for it: the run gives itself up.
    stop_at(&lab, &["planned-failover.hand-over.during".to_owned()]);
    lab.until("the writer is stopped", |lab| lab.instance("s1a")["state"] == "stopped");
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a"]);
    lab.until("the run is over", |lab| lab.record()["run"].is_null() && lab.state() == "Normal");
    let shown = lab.ok(&["runbook", "show"]);
    assert!(shown.contains("nobody has been able to post for"), "{shown}");
    lab.ok(&["lab", "start", "s2a"]);
    let epoch = lab.record()["epoch"].as_i64().unwrap_or_default();
    assert!(epoch > 1, "a writer that was opened again has an epoch of its own: {shown}");
    serves_on(&lab, epoch);

    // The new epoch has begun without a writer, and somebody thinks better of it.
    lab.until("the other site follows again", |lab| {
        ["s2a", "s2b"].iter().all(|host| lab.instance(host)["shipping"]["streaming"] == true)
    });
    let steps = cluster::planned_failover::PLANNED_FAILOVER.steps.iter().map(|step| step.id);
    for step in steps.take_while(|id| *id != "bring-backup-online") {
        lab.ok(&["step", "planned-failover", step]);
    }
    assert!(lab.record()["databases"]["mgc"]["principal"].is_null(), "{:#}", lab.record());
    let said = lab.cli(&["runbook", "abort", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("site-1 serves on"), "{}", said.all());
    serves_on(&lab, epoch + 2);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}
