//! A run is undone before its point of no return: the users stay where they were, and nothing is lost or doubled.

mod support;
use support::{Lab, assert_clean};

/// The report of a run as data.
fn report(lab: &Lab, file: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(lab.dir.join(file)).expect("the report was written");
    serde_json::from_str(&text).expect("it is JSON")
}

#[test]
fn a_failover_of_a_living_site_is_undone_and_the_site_serves_on() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    let unforced = lab.cli(&["step", "failover", "fence-old-primary", "--what-if"]);
    assert!(unforced.code == Some(3) && unforced.all().contains("is online and answers"), "{}", unforced.all());
    let what_if = lab.ok(&["step", "failover", "fence-old-primary", "--force", "--what-if"]);
    let order = ["order s1a: fence mgc", "order s2a: close-share mgc", "check:  not yet", "Nothing was done"];
    assert!(order.iter().all(|said| what_if.contains(said)), "{what_if}");
    assert!(lab.record()["run"].is_null() && lab.record()["epoch"] == 1, "nothing was done");
    let steps = ["fence-old-primary", "stop-log-shipping", "copy-remaining-log", "apply-remaining-log"];
    for step in steps {
        lab.ok(&["step", "failover", step, "--force"]);
    }
    let what_if = lab.ok(&["step", "failover", "disconnect-sessions", "--what-if"]);
    assert!(what_if.contains("order s2a: disconnect-sessions mgc"), "{what_if}");
    assert_eq!(lab.cli(&["step", "failover", "bring-backup-online", "--what-if"]).code, Some(3), "it is not the next");
    lab.until("the old principal is stopped", |lab| lab.instance("s1a")["state"] != "online");

    // The host of the run dies amid the abort, and the abort goes on.
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "start", "s2a", "--env", "STANDFAST_FAILPOINTS=failover.reopen-old-primary.during=pause"]);
    lab.until("the agent of s2a, which has the journal, answers", |lab| !lab.instance("s2a").is_null());
    let what_if = lab.ok(&["runbook", "abort", "--what-if"]);
    assert!(what_if.contains("reopen-old-primary") && what_if.contains("resume-log-shipping"), "{what_if}");
    assert_eq!(lab.record()["run"]["runbook"], "failover", "nothing was done");
    let marker = lab.dir.join("hosts/s2a/failpoint.failover.reopen-old-primary.during");
    let mut command = lab.command(&["runbook", "abort", "--yes"]);
    let mut watching = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    lab.until("the abort stands still", |_| marker.exists());
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "start", "s2a"]);
    assert!(watching.wait().unwrap().success(), "whoever watches it sees its end");

    let record = lab.record();
    let mgc = &record["databases"]["mgc"];
    assert_eq!((record["state"].as_str(), record["epoch"].as_i64()), (Some("Normal"), Some(2)), "{record:#}");
    assert_eq!((mgc["principal"].as_str(), mgc["backup"].as_str()), (Some("s1a"), Some("s2a")));
    assert_eq!(record["home"], "site-1");
    assert_eq!(record["active_servers"], serde_json::json!(["server-1", "server-2"]));
    replay.until_epoch(&lab, 2);
    lab.until_normal();
    lab.until("the backup follows again", |lab| {
        lab.instance("s2a")["shipping"]["streaming"] == true && lab.instance("s2a")["entries"].as_u64() > Some(0)
    });

    let file = lab.dir.join("undone.json");
    lab.ok(&["runbook", "show", "--report", file.to_str().unwrap()]);
    let told = report(&lab, "undone.json");
    assert_eq!((told["standing"].as_str(), told["after"]["epoch"].as_i64()), (Some("aborted"), Some(2)), "{told:#}");
    assert_eq!(lab.cli(&["runbook", "abort"]).code, Some(3), "nothing is under way any more");

    // The pool is whole: the next failover is a real one, and still nothing is lost.
    lab.ok(&["lab", "kill", "site-1"]);
    let file = lab.dir.join("failover.html");
    lab.ok(&["failover", "--yes", "--report", file.to_str().unwrap()]);
    let page = std::fs::read_to_string(file).unwrap();
    assert!(page.contains("Complete after") && page.contains("bring-backup-online"), "{page}");
    replay.until_epoch(&lab, 3);
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
    let plan = lab.ok(&["failover", "--what-if"]);
    assert!(plan.contains("the last run took"), "{plan}");
}

#[test]
fn a_failback_is_undone_before_the_primary_is_restored_and_users_are_served_on() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    lab.ok(&["lab", "start", "site-1"]);
    replay.until_epoch(&lab, 2);
    for step in cluster::failback::FAILBACK.steps.iter().take_while(|s| s.id != "restore-on-primary") {
        lab.ok(&["step", "failback", step.id]);
    }
    assert_eq!(lab.record()["epoch"], 3, "the writer is stopped for the hand-over");
    let said = lab.cli(&["runbook", "abort", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert!(said.all().contains("site-2 serves on"), "{}", said.all());
    assert_eq!(lab.state(), "FailedOver");
    assert_eq!(lab.record()["databases"]["mgc"]["principal"], "s2a");
    replay.until_epoch(&lab, 3);
    replay.until_acknowledged(&lab, 10);

    // Past the point of no return it is refused, with what can be done instead.
    lab.ok(&["failback", "--yes"]);
    replay.until_epoch(&lab, 4);
    lab.until_normal();
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}
