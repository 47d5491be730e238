//! A drill with the pool itself: to the other site and home again with nothing lost; or not at all, when a limit would be broken.

mod support;
use serde_json::Value;
use support::{Lab, assert_clean};

/// The drills of all hosts, newest first.
fn drills(lab: &Lab) -> Vec<Value> {
    let ran = lab.cli(&["drill", "list", "--json"]);
    let all: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    all.as_array().cloned().unwrap_or_default()
}

#[test]
fn the_pool_goes_there_and_back_while_people_chat_and_a_canary_measures_it() {
    let lab = Lab::up();
    lab.until_normal();
    let replay = lab.replay(&[]);
    let what_if = lab.ok(&["drill", "switch", "--there-and-back", "--what-if"]);
    assert!(what_if.contains("hand-over") && what_if.contains("longer than 5.0 s"), "{what_if}");
    assert_eq!(drills(&lab).len(), 0, "nothing was done");

    let ran =
        lab.cli(&["drill", "switch", "--there-and-back", "--yes", "--stay", "1s", "--longest-gap", "20s", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    let report: Value = serde_json::from_str(&ran.stdout).expect("the report alone is on standard output");
    let figures = &report["switch"];
    let number = |name: &str| figures[name].as_u64().unwrap_or(u64::MAX);
    assert!(number("there_gap_ms") < 20_000 && number("back_gap_ms") < 20_000, "{report:#}");
    assert_eq!((number("lost"), number("doubled")), (0, 0), "{report:#}");
    assert!(number("acknowledged") > 20, "{report:#}");
    assert_eq!(figures["servers"].as_array().map(Vec::len), Some(2), "a canary came through each: {report:#}");
    lab.until_normal();
    replay.until_epoch(&lab, 5);
    let listed = drills(&lab);
    assert_eq!((&listed[0]["id"], &listed[0]["over"]), (&report["id"], &Value::Bool(true)));
    lab.until("the last drill is in the status", |lab| {
        lab.ok(&["pool", "status"]).contains(report["id"].as_str().unwrap_or("none"))
    });

    // The time that it took is known now, and longer than what is asked for: it does not begin, and nothing is changed.
    let before = lab.record();
    let ran = lab.cli(&["drill", "switch", "--yes", "--longest-gap", "1ms"]);
    assert_eq!(ran.code, Some(3), "{}", ran.all());
    assert!(ran.all().contains("as in the last runs, and the limit is 0.0 s"), "{}", ran.all());
    assert_eq!(lab.record()["epoch"], before["epoch"]);
    assert_eq!(lab.record()["active_servers"], before["active_servers"]);
    assert!(drills(&lab)[0]["failed"].as_str().is_some_and(|why| why.contains("serves as before")));

    // Its command is killed at the other site: typed again, it says what it finds.
    let mut command =
        lab.command(&["drill", "switch", "--there-and-back", "--yes", "--stay", "10min", "--longest-gap", "20s"]);
    let mut child =
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("it runs");
    lab.until("the pool is at the other site", |lab| lab.state() == "FailedOver" && lab.record()["run"].is_null());
    child.kill().ok();
    child.wait().expect("a child ends");
    let again = lab.cli(&["drill", "switch", "--there-and-back", "--yes"]);
    assert_eq!(again.code, Some(3), "{}", again.all());
    assert!(
        again.all().contains("ended before it was over") && again.all().contains("standfast failback"),
        "{}",
        again.all()
    );
    assert!(drills(&lab)[0]["failed"].as_str().is_some_and(|why| why.contains("ended before it was over")));
    lab.ok(&["failback", "--yes"]);
    lab.until_normal();
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}
