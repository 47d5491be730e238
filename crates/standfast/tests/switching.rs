//! Principal and mirror change places while people chat: as planned, to and fro; by force, when the principal is gone.

mod support;
use std::collections::BTreeSet;
use support::{Lab, Replay, assert_clean};

fn switch(lab: &Lab, to: &str, more: &[&str]) -> support::Ran {
    let mut arguments = vec!["database", "failover", "--new-principal", to, "--yes"];
    arguments.extend_from_slice(more);
    lab.cli(&arguments)
}

fn until_pair(lab: &Lab, principal: &str, mirror: &str) {
    lab.until(&format!("{principal} is principal and {mirror} its synchronised mirror"), |lab| {
        let d = lab.record()["databases"]["mgc"].clone();
        d["principal"] == principal && d["mirror"]["host"] == mirror && d["mirror"]["synchronised"] == true
    });
}

/// The backup and its mirror hold what the principal holds, and stream.
fn until_shipped(lab: &Lab, principal: &str) {
    lab.until("log shipping follows", |lab| {
        let entries = lab.instance(principal)["entries"].as_u64();
        ["s2a", "s2b"].into_iter().all(|host| {
            let standby = lab.instance(host);
            standby["shipping"]["streaming"] == true && standby["entries"].as_u64() >= entries
        })
    });
}

/// The longest time between two acknowledgements, in milliseconds.
fn longest_gap(replay: &Replay) -> i64 {
    let acknowledged = replay.acknowledged();
    acknowledged.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default()
}

/// The processes of PostgreSQL that serve the chat servers there.
fn serve_chat(lab: &Lab, host: &str) -> BTreeSet<String> {
    let asked = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'server-%'";
    lab.try_sql(host, asked).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn principal_and_mirror_change_places_to_and_fro_while_people_chat() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    for (to, principal, mirror, epoch) in [("mirror", "s1b", "s1a", 3), ("primary", "s1a", "s1b", 5)] {
        lab.until("both servers keep connections to the mirror", |lab| serve_chat(lab, principal).len() == 10);
        let kept = serve_chat(&lab, principal);
        let said = switch(&lab, to, &[]);
        assert_eq!(said.code, Some(0), "{}", said.all());
        replay.until_epoch(&lab, epoch);
        assert!(serve_chat(&lab, principal).is_superset(&kept), "the servers write over what they had kept");
        until_pair(&lab, principal, mirror);
        let record = lab.record();
        assert_eq!((&record["state"], &record["home"]), (&"Normal".into(), &"site-1".into()));
        assert_eq!(record["databases"]["mgc"]["backup"], "s2a");
        assert_eq!(record["databases"]["mgc"]["backup_mirror"], "s2b");
        until_shipped(&lab, principal);
        let again = switch(&lab, to, &[]);
        assert_eq!(again.code, Some(0), "{}", again.all());
        assert!(again.all().contains("already"), "{}", again.all());
        assert_eq!(lab.record()["epoch"], epoch);
        lab.ok(&["mirror", "remove", "--yes"]);
        let alone = switch(&lab, if to == "mirror" { "primary" } else { "mirror" }, &[]);
        assert_eq!(alone.code, Some(3), "{}", alone.all());
        lab.ok(&["mirror", "install", "--yes"]);
        until_pair(&lab, principal, mirror);
    }
    replay.until_acknowledged(&lab, 5);
    println!("longest gap: {} ms", longest_gap(&replay));
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

/// A lab in which each site's authority is the mirror's host: it outlives the principal's.
fn with_the_authority_at_the_mirror() -> Lab {
    let lab = Lab::up();
    lab.until_normal();
    let text = std::fs::read_to_string(lab.dir.join("topology.toml")).expect("a lab has a topology");
    let file = lab.dir.join("wanted.toml");
    let wanted = text.replace("authority = \"s1a\"", "authority = \"s1b\"");
    let wanted = wanted.replace("authority = \"s2a\"", "authority = \"s2b\"");
    // A mirror that hangs is not given up while a test goes on.
    let wanted = wanted.replace("name = \"mgc\"", "name = \"mgc\"\npartner_timeout = \"1min\"");
    std::fs::write(&file, wanted).expect("the folder takes files");
    lab.ok(&["topology", "publish", file.to_str().expect("the path is text"), "--yes"]);
    lab
}

#[test]
fn a_principal_that_is_gone_is_replaced_by_its_mirror_and_comes_back_as_the_mirror() {
    let lab = with_the_authority_at_the_mirror();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "s1a"]);
    // Nothing that was acknowledged can be lost, so nothing has to be forced.
    let said = switch(&lab, "mirror", &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("nothing that was acknowledged"), "{}", said.all());
    replay.until_epoch(&lab, 3);
    assert_eq!(lab.record()["databases"]["mgc"]["principal"], "s1b");
    replay.until_acknowledged(&lab, 5);
    lab.ok(&["lab", "start", "s1a"]);
    until_pair(&lab, "s1b", "s1a");
    until_shipped(&lab, "s1b");
    println!("longest gap: {} ms", longest_gap(&replay));

    // The site is lost in turn, and comes home to where it was before everything.
    lab.ok(&["lab", "kill", "site-1"]);
    let said = lab.cli(&["failover", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_epoch(&lab, 4);
    lab.start_site("site-1");
    let said = lab.cli(&["failback", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_epoch(&lab, 5);
    until_pair(&lab, "s1a", "s1b");
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn a_backup_that_is_ahead_of_the_new_principal_is_rewound_by_itself() {
    use nix::sys::signal::{Signal, kill};
    let lab = with_the_authority_at_the_mirror();
    let replay = lab.replay(&[]);
    lab.until("the backup streams", |lab| lab.instance("s2a")["shipping"]["streaming"] == true);
    let receiver = lab.sql("s1b", "SELECT pid FROM pg_stat_wal_receiver");
    let receiver = nix::unistd::Pid::from_raw(receiver.parse().expect("a pid is a number"));
    kill(receiver, Signal::SIGSTOP).expect("the mirror's receiver can be stopped");
    let before = lab.sql("s1a", "SELECT pg_current_wal_lsn()");
    lab.write_log("s1a", 24);
    lab.until("the backup has more than the mirror", |lab| {
        lab.sql("s2a", &format!("SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '{before}') > 24000000")) == "t"
    });
    lab.ok(&["lab", "kill", "s1a"]);
    kill(receiver, Signal::SIGCONT).expect("the mirror's receiver goes on");
    let said = switch(&lab, "mirror", &["--force"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_epoch(&lab, 3);
    until_shipped(&lab, "s1b");
    for host in ["s2a", "s2b"] {
        let salvaged = lab.dir.join(format!("hosts/{host}/pg/mgc/salvage/left-behind-by-3/complete"));
        assert!(salvaged.exists(), "{host} kept what the new principal never had");
    }
    lab.ok(&["lab", "start", "s1a"]);
    until_pair(&lab, "s1b", "s1a");
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn the_agent_that_carries_a_switch_is_killed_at_every_step_and_the_switch_goes_on() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    for step in cluster::switching::SWITCH_MIRROR.steps {
        let point = |when: &str| format!("switch-mirror.{}.{when}", step.id);
        let armed = format!("STANDFAST_FAILPOINTS={}=pause,{}=pause", point("during"), point("after"));
        lab.ok(&["lab", "kill", "s1a/agent"]);
        lab.ok(&["lab", "start", "s1a", "--env", &armed]);
        let mut typed: Option<std::process::Child> = None;
        lab.until(&format!("the switch stands at {}", step.id), |_| {
            if typed.as_mut().is_none_or(|child| child.try_wait().expect("a child can be asked").is_some()) {
                let mut command = lab.command(&["database", "failover", "--new-principal", "mirror", "--yes"]);
                let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
                typed = Some(command.spawn().expect("the program runs"));
            }
            ["during", "after"]
                .iter()
                .any(|when| lab.dir.join("hosts/s1a/failpoint.".to_owned() + &point(when)).exists())
        });
        if let Some(mut child) = typed {
            child.kill().ok();
            child.wait().expect("a child ends");
        }
    }
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a"]);
    lab.until("the command finds the run, or what it came to", |lab| switch(lab, "mirror", &[]).code == Some(0));
    until_pair(&lab, "s1b", "s1a");
    until_shipped(&lab, "s1b");
    replay.until_acknowledged(&lab, 5);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn the_writer_goes_back_when_the_mirror_dies_amid_the_switch() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a", "--env", "STANDFAST_FAILPOINTS=switch-mirror.promote-mirror.before=pause"]);
    let mut typed: Option<std::process::Child> = None;
    lab.until("the principal is handed over", |lab| {
        if typed.as_mut().is_none_or(|child| child.try_wait().expect("a child can be asked").is_some()) {
            let mut command = lab.command(&["database", "failover", "--new-principal", "mirror", "--yes"]);
            let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            typed = Some(command.spawn().expect("the program runs"));
        }
        lab.dir.join("hosts/s1a/failpoint.switch-mirror.promote-mirror.before").exists()
    });
    lab.ok(&["lab", "kill", "s1b"]);
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a"]);
    if let Some(mut child) = typed {
        child.kill().ok();
        child.wait().expect("a child ends");
    }
    // An epoch further, so that a mirror which is promoted all the same is left behind.
    replay.until_epoch(&lab, 5);
    lab.until("the switch is over", |lab| lab.record()["run"].is_null());
    let record = lab.record();
    assert_eq!((&record["databases"]["mgc"]["principal"], &record["epoch"]), (&"s1a".into(), &5.into()));
    lab.ok(&["lab", "start", "s1b"]);
    lab.until("its agent answers", |lab| lab.instance("s1b")["state"].is_string());
    lab.ok(&["mirror", "install", "--yes"]);
    until_pair(&lab, "s1a", "s1b");
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn a_pool_that_is_failed_over_changes_places_to_and_fro_and_by_force_and_comes_home() {
    let lab = with_the_authority_at_the_mirror();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    replay.until_epoch(&lab, 2);
    until_pair(&lab, "s2a", "s2b");
    for (to, principal, mirror, epoch) in [("mirror", "s2b", "s2a", 4), ("primary", "s2a", "s2b", 6)] {
        let said = switch(&lab, to, &[]);
        assert_eq!(said.code, Some(0), "{}", said.all());
        replay.until_epoch(&lab, epoch);
        until_pair(&lab, principal, mirror);
        let record = lab.record();
        assert_eq!((&record["state"], &record["home"]), (&"FailedOver".into(), &"site-2".into()));
    }
    lab.ok(&["lab", "kill", "s2a"]);
    let said = switch(&lab, "mirror", &[]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("nothing that was acknowledged"), "{}", said.all());
    replay.until_epoch(&lab, 8);
    lab.ok(&["lab", "start", "s2a"]);
    until_pair(&lab, "s2b", "s2a");
    lab.start_site("site-1");
    let said = lab.cli(&["failback", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_epoch(&lab, 9);
    until_pair(&lab, "s1a", "s1b");
    until_shipped(&lab, "s1a");
    assert_eq!(lab.state(), "Normal");
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn a_switch_is_undone_before_the_mirror_is_promoted_and_refused_after() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    for step in ["write-out", "hand-over"] {
        lab.ok(&["step", "switch-mirror", step]);
    }
    assert_eq!(lab.record()["epoch"], 3, "the principal is handed over");
    // The agent that carries the abort dies amid it, and the abort goes on.
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a", "--env", "STANDFAST_FAILPOINTS=switch-mirror.reopen-principal.during=pause"]);
    lab.until("the agent answers", |lab| lab.instance("s1a")["state"].is_string());
    let what_if = lab.ok(&["runbook", "abort", "--what-if"]);
    assert!(what_if.contains("part-pair") && what_if.contains("reopen-principal"), "{what_if}");
    let marker = lab.dir.join("hosts/s1a/failpoint.switch-mirror.reopen-principal.during");
    let mut command = lab.command(&["runbook", "abort", "--yes"]);
    let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut watching = command.spawn().expect("the program runs");
    lab.until("the abort stands still", |_| marker.exists());
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a"]);
    assert!(watching.wait().expect("a child ends").success(), "whoever watches it sees its end");
    replay.until_epoch(&lab, 3);
    until_pair(&lab, "s1a", "s1b");
    until_shipped(&lab, "s1a");
    assert!(lab.record()["run"].is_null());

    // Past the point of no return it is refused, and says what to do.
    for step in ["write-out", "hand-over", "promote-mirror"] {
        lab.ok(&["step", "switch-mirror", step]);
    }
    let said = lab.cli(&["runbook", "abort", "--yes"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("promote-mirror") && said.all().contains("database failover"), "{}", said.all());
    for step in ["record-principal", "follow-principal"] {
        lab.ok(&["step", "switch-mirror", step]);
    }
    replay.until_epoch(&lab, 5);
    until_pair(&lab, "s1b", "s1a");
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn a_forced_switch_is_undone_while_the_old_principal_can_still_be_opened() {
    let lab = with_the_authority_at_the_mirror();
    let replay = lab.replay(&[]);
    lab.ok(&["step", "force-mirror", "fence-principal", "--force"]);
    lab.until("the principal is stopped", |lab| lab.instance("s1a")["state"] != "online");
    let said = lab.cli(&["runbook", "abort", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("s1a stays the principal of mgc, in epoch 3"), "{}", said.all());
    replay.until_epoch(&lab, 3);
    until_pair(&lab, "s1a", "s1b");
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

/// While `typed` is carried by the agent of s1a and stands at a point of the switch, the line between the sites and the whole
/// site are lost.
fn lose_the_site_at(lab: &Lab, point: &str, typed: &[&str]) {
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a", "--env", &format!("STANDFAST_FAILPOINTS={point}=pause")]);
    lab.until("the agent answers", |lab| lab.instance("s1a")["state"].is_string());
    let marker = lab.dir.join(format!("hosts/s1a/failpoint.{point}"));
    let mut watching: Option<std::process::Child> = None;
    lab.until(&format!("the run stands at {point}"), |_| {
        // Refused, perhaps, because the pair is not well again yet.
        if watching.as_mut().is_none_or(|child| child.try_wait().expect("a child can be asked").is_some()) {
            let mut command = lab.command(typed);
            let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            watching = Some(command.spawn().expect("the program runs"));
        }
        marker.exists()
    });
    let mut watching = watching.expect("it was typed");
    lab.ok(&["lab", "link", "down"]);
    lab.ok(&["lab", "kill", "site-1"]);
    watching.kill().ok();
    watching.wait().expect("a child ends");
}

/// A switch is being taken back, its principal handed over, when the site is lost.
fn lose_the_site_amid_an_abort(lab: &Lab) {
    for step in ["write-out", "hand-over"] {
        lab.ok(&["step", "switch-mirror", step]);
    }
    lose_the_site_at(lab, "switch-mirror.reopen-principal.during", &["runbook", "abort", "--yes"]);
}

/// A principal is handed over to its mirror, and the mirror is not promoted yet, when the site is lost.
fn lose_the_site_amid_a_switch(lab: &Lab) {
    let typed = ["database", "failover", "--new-principal", "mirror", "--yes"];
    lose_the_site_at(lab, "switch-mirror.promote-mirror.before", &typed);
}

/// The run is taken up again, and the other site does not answer.
fn until_it_asks(lab: &Lab, host: &str) {
    let log = lab.dir.join(format!("hosts/{host}/agent.log"));
    lab.until("nothing is opened for writing before the other site has answered", |_| {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("site-2 has not answered yet who the writer is"))
    });
    assert_ne!(lab.instance(host)["state"], "online");
}

/// The pool fails over to the other site meanwhile; the lost one comes back cut off, and is brought home when it is heard.
fn the_other_site_went_on(lab: &Lab, replay: Replay, asks: &str) {
    lab.ok(&["failover", "--yes"]);
    replay.until_acknowledged(lab, 5);
    lab.ok(&["lab", "start", "site-1"]);
    until_it_asks(lab, asks);
    lab.ok(&["lab", "link", "up"]);
    lab.start_site("site-1");
    let said = lab.cli(&["failback", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    lab.until_normal();
    replay.until_acknowledged(lab, 5);
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

/// The site comes back cut off, and is let go on by itself.
fn the_site_goes_on_alone(lab: &Lab, replay: Replay, asks: &str, pair: (&str, &str)) {
    lab.ok(&["lab", "start", "site-1"]);
    until_it_asks(lab, asks);
    lab.ok(&["pool", "start-alone", "--site", "site-1", "--yes"]);
    replay.until_epoch(lab, 3);
    lab.ok(&["lab", "link", "up"]);
    until_pair(lab, pair.0, pair.1);
    assert!(lab.record()["run"].is_null());
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}

#[test]
fn a_switch_that_is_taken_back_after_its_site_was_lost_asks_the_other_site_before_it_opens_the_writer() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    lose_the_site_amid_an_abort(&lab);
    the_other_site_went_on(&lab, replay, "s1a");
}

#[test]
fn a_switch_that_is_taken_back_at_a_site_that_is_let_start_alone_opens_the_writer() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    lose_the_site_amid_an_abort(&lab);
    the_site_goes_on_alone(&lab, replay, "s1a", ("s1a", "s1b"));
}

#[test]
fn a_switch_that_goes_on_after_its_site_was_lost_asks_the_other_site_before_it_promotes_the_mirror() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    lose_the_site_amid_a_switch(&lab);
    the_other_site_went_on(&lab, replay, "s1b");
}

#[test]
fn a_switch_that_goes_on_at_a_site_that_is_let_start_alone_promotes_the_mirror() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    lose_the_site_amid_a_switch(&lab);
    the_site_goes_on_alone(&lab, replay, "s1b", ("s1b", "s1a"));
}
