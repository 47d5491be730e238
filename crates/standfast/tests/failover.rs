//! The product's main job: people chat, a site dies, one command moves the pool, one command brings it home, and an
//! auditor proves that nothing was lost or doubled.

mod support;
use support::{Lab, assert_clean};

#[test]
fn a_site_dies_and_comes_back_while_people_chat() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "site-1"]);

    let said = lab.cli(&["failover", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_epoch(&lab, 2);
    assert_eq!(lab.state(), "FailedOver");
    assert_eq!(lab.record()["databases"]["mgc"]["principal"], "s2a");
    lab.until("the new principal has its mirror", |lab| {
        lab.record()["databases"]["mgc"]["mirror"]["synchronised"] == true
    });

    lab.start_site("site-1");
    let said = lab.cli(&["failback", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_epoch(&lab, 3);
    lab.until_normal();
    let record = lab.record();
    assert_eq!(record["databases"]["mgc"]["principal"], "s1a");
    assert_eq!(record["databases"]["mgc"]["mirror"]["host"], "s1b");
    assert_eq!(record["databases"]["mgc"]["backup"], "s2a");
    assert_eq!(record["databases"]["mgc"]["backup_mirror"], "s2b");
    assert_eq!(record["active_servers"], serde_json::json!(["server-1", "server-2"]));
    replay.until_acknowledged(&lab, 20);

    let ledger = replay.end();
    let (acknowledged, _) = assert_clean(&lab.audit(&ledger));
    assert!(acknowledged > 25, "{acknowledged} acknowledged");
}

#[test]
fn a_tail_that_never_left_the_lost_site_is_announced_and_listed() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "link", "down"]);
    // Line and share both out of reach: what is acknowledged from here on stays at site 1.
    let share = lab.dir.join("share");
    std::fs::rename(&share, lab.dir.join("share.away")).unwrap();
    replay.until_acknowledged(&lab, 15);
    lab.ok(&["lab", "kill", "site-1"]);
    std::fs::rename(lab.dir.join("share.away"), &share).unwrap();
    let before = replay.acknowledged();

    let said = lab.cli(&["failover", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_epoch(&lab, 2);
    replay.until_acknowledged(&lab, 20);
    let ledger = replay.end();
    let audit = lab.audit(&ledger);
    assert_clean(&audit);
    // Its authors are all still there, so each has posted again what was rewound.
    assert!(audit.all().contains("re-offered"), "{}", audit.all());
    assert!(before.len() > 15);
}

#[test]
fn what_waits_for_both_sites_is_not_in_what_a_failover_loses() {
    let lab = Lab::up();
    lab.until_normal();
    let replay = lab.replay(&[]);
    lab.ok(&["category", "change", "Replays", "--durability", "both-sites", "--when-unavailable", "wait"]);
    replay.until_acknowledged(&lab, 10);
    // Line and share out of reach: posts are written at site 1, and wait.
    lab.ok(&["lab", "link", "down"]);
    let share = lab.dir.join("share");
    std::fs::rename(&share, lab.dir.join("share.away")).unwrap();
    let held = |lab: &Lab| {
        let status = lab.cli(&["pool", "status"]).stdout;
        status.lines().any(|line| line.contains("are not acknowledged, the oldest for"))
    };
    lab.until("posts wait, and pool status says so", held);
    let before = replay.acknowledged().len();
    lab.until("more of them wait", |lab| {
        let reports = lab.status()["reports"].clone();
        let servers =
            reports.as_array().into_iter().flatten().flat_map(|r| r["servers"].as_object().into_iter().flatten());
        servers.filter_map(|(_, s)| s["held"]["oldest_ms"].as_u64()).max() > Some(2_000)
    });
    assert_eq!(replay.acknowledged().len(), before, "nothing is acknowledged that the other site lacks");
    lab.ok(&["lab", "kill", "site-1"]);
    std::fs::rename(lab.dir.join("share.away"), &share).unwrap();

    let said = lab.cli(&["failover", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    // With one site left both sites cannot be had: it is said, and it is an administrator's to decide.
    lab.until("posts wait at site 2 for a second site", |lab| {
        lab.cli(&["pool", "status"]).stdout.contains("waiting for a second site")
    });
    lab.ok(&["category", "change", "Replays", "--when-unavailable", "acknowledge-as-less"]);
    replay.until_epoch(&lab, 2);
    replay.until_acknowledged(&lab, 20);
    let ledger = replay.end();
    let audit = lab.audit(&ledger);
    let (_, rewound) = assert_clean(&audit);
    assert_eq!(rewound, 0, "{}", audit.all());
}

#[test]
fn a_failover_is_refused_while_site_1_lives() {
    let lab = Lab::up();
    let before = lab.record();
    let said = lab.cli(&["failover", "--yes"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("s1a"), "it says what it saw: {}", said.all());
    assert!(said.all().contains("--force"), "it says what can be done: {}", said.all());
    let after = lab.record();
    assert_eq!((&before["epoch"], &before["state"]), (&after["epoch"], &after["state"]));
    assert!(after["run"].is_null());
}

#[test]
fn a_forced_failover_of_a_living_site_loses_nothing_and_leaves_one_writer() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    let said = lab.cli(&["failover", "--yes", "--force"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_epoch(&lab, 2);
    lab.until("the old principal is left behind", |lab| lab.instance("s1a")["state"] == "left-behind");
    assert_eq!(lab.instance("s2a")["state"], "online");
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn what_if_shows_the_steps_and_changes_nothing() {
    let lab = Lab::up();
    lab.ok(&["lab", "kill", "site-1"]);
    let before = lab.record();
    let said = lab.cli(&["failover", "--what-if"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    for step in cluster::failover::FAILOVER.steps {
        assert!(said.stdout.contains(step.id), "{} is missing in\n{}", step.id, said.stdout);
    }
    assert_eq!(lab.record(), before);
}

#[test]
fn a_primary_that_comes_back_asks_first_and_stays_out() {
    let lab = Lab::up();
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    lab.ok(&["lab", "start", "site-1"]);
    lab.until("the old principal knows that it was left behind", |lab| {
        lab.instance("s1a")["state"] == "left-behind" && lab.instance("s1b")["state"] == "left-behind"
    });
    assert_eq!(lab.instance("s2a")["state"], "online");
    assert_eq!(lab.record()["databases"]["mgc"]["principal"], "s2a");
}

#[test]
fn a_site_that_restarts_alone_waits_for_the_other_until_it_is_told_not_to() {
    let lab = Lab::up();
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["lab", "kill", "site-2"]);
    lab.ok(&["lab", "start", "site-1"]);
    lab.until("the principal asks", |lab| lab.instance("s1a")["state"] == "asking-peer");
    lab.ok(&["lab", "start", "site-2"]);
    lab.until("the answer lets it open", |lab| lab.instance("s1a")["state"] == "online");
    lab.until_normal();

    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["lab", "kill", "site-2"]);
    lab.ok(&["lab", "start", "site-1", "--without-peer"]);
    lab.until("it opens alone", |lab| lab.instance("s1a")["state"] == "online");
    lab.ok(&["lab", "start", "site-2"]);
    lab.until("the backup follows again", |lab| lab.instance("s2a")["shipping"]["streaming"] == true);
}

#[test]
fn a_post_that_is_tried_again_across_the_failover_is_one_message_with_one_number() {
    let lab = Lab::up();
    let id = "0193a000-0000-7000-8000-00000000beef";
    let post = |text: &str| {
        let mut command = lab.command(&["post", "--user", "ines", "--room", "Operations", "--client-id", id, "--json"]);
        let ran: support::Ran = command.arg(text).env("STANDFAST_PASSWORD", "harbour-watch").output().unwrap().into();
        assert_eq!(ran.code, Some(0), "{}", ran.all());
        serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()
    };
    let first = post("pump 2 is off");
    lab.until("the backup has the post", |lab| {
        lab.instance("s2a")["entries"] == lab.instance("s1a")["entries"]
            && lab.instance("s1a")["entries"].as_u64() > Some(0)
    });
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    let second = post("pump 2 is off");
    assert_eq!((&first["seq"], &first["epoch"]), (&second["seq"], &second["epoch"]));
    assert_eq!(second["repeated"], true);
    let mut history = lab.command(&["history", "--user", "ines", "--room", "Operations", "--json"]);
    let history: support::Ran = history.env("STANDFAST_PASSWORD", "harbour-watch").output().unwrap().into();
    assert_eq!(history.stdout.matches("pump 2 is off").count(), 1, "{}", history.all());
}

#[test]
fn a_step_by_itself_is_the_next_one_or_nothing() {
    let lab = Lab::up();
    lab.ok(&["lab", "kill", "site-1"]);
    let out_of_order = lab.cli(&["step", "failover", "bring-backup-online"]);
    assert_eq!(out_of_order.code, Some(3), "{}", out_of_order.all());
    assert!(out_of_order.all().contains("fence-old-primary"), "it says what comes first: {}", out_of_order.all());
    assert_eq!(lab.record()["epoch"], 1);
    for step in cluster::failover::FAILOVER.steps {
        lab.ok(&["step", "failover", step.id]);
        let before = lab.record();
        lab.cli(&["step", "failover", step.id]);
        assert_eq!(lab.record()["version"], before["version"], "{} typed twice is done once", step.id);
    }
    assert_eq!(lab.state(), "FailedOver");
    assert!(lab.record()["run"].is_null());
}

#[test]
fn a_run_that_was_lost_with_its_site_does_not_stop_the_failover() {
    let lab = Lab::up();
    lab.ok(&["mirror", "remove", "--yes"]);
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a", "--env", "STANDFAST_FAILPOINTS=install-mirror.seed-mirror.before=pause"]);
    let mut command = lab.command(&["mirror", "install", "--yes"]);
    let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut watching = None;
    let marker = lab.dir.join("hosts/s1a/failpoint.install-mirror.seed-mirror.before");
    lab.until("the run stands still", |_| {
        let over = watching.as_mut().is_none_or(|child: &mut std::process::Child| child.try_wait().unwrap().is_some());
        if over {
            watching = Some(command.spawn().unwrap());
        }
        marker.exists()
    });
    lab.ok(&["lab", "kill", "site-1"]);
    let mut watching = watching.unwrap();
    watching.kill().ok();
    watching.wait().unwrap();
    lab.until("the other site knows of the run", |lab| lab.record()["run"]["runbook"] == "install-mirror");
    let said = lab.cli(&["failover", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(lab.state(), "FailedOver");
    lab.ok(&["lab", "start", "site-1"]);
    lab.until("the lost run has ended by itself", |lab| {
        let runs = lab.cli(&["runbook", "list", "--json"]);
        let runs: serde_json::Value = serde_json::from_str(&runs.stdout).unwrap_or_default();
        let lost = runs.as_array().and_then(|all| all.iter().find(|r| r["runbook"] == "install-mirror").cloned());
        lost.is_some_and(|run| run["complete"] == false)
    });
    lab.ok(&["failback", "--yes"]);
}
