//! The canary: everybody sees every active server's, all the time; whoever does not is named; and nobody else notices it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use serde_json::Value;
use support::{Lab, assert_clean};

/// Publish the topology with canaries so often.
fn publish(lab: &Lab, every: &str) {
    let text = std::fs::read_to_string(lab.dir.join("topology.toml")).unwrap();
    let without = text.split("\n[canary]").next().unwrap();
    let file = lab.dir.join("wanted.toml");
    std::fs::write(&file, format!("{without}\n[canary]\nevery = \"{every}\"\n")).unwrap();
    lab.ok(&["topology", "publish", file.to_str().unwrap(), "--yes"]);
}

fn active(lab: &Lab) -> Vec<String> {
    let servers = lab.record()["active_servers"].clone();
    servers.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
}

/// What a server tells of canaries.
fn told(status: &Value, server: &str) -> Value {
    let reports = status["reports"].as_array().cloned().unwrap_or_default();
    let found = reports.iter().find_map(|r| r["servers"].get(server).cloned());
    found.map(|s| s["canaries"].clone()).unwrap_or_default()
}

/// Age and lag of a server's canary at a standby.
fn applied(lab: &Lab, host: &str, server: &str) -> (Option<u64>, Option<u64>) {
    let canary = lab.instance(host)["canaries"][server].clone();
    (canary["age_ms"].as_u64(), canary["lag_ms"].as_u64())
}

fn overdue(lab: &Lab) -> Vec<Value> {
    lab.status()["canaries_overdue"].as_array().cloned().unwrap_or_default()
}

#[test]
fn every_canary_comes_through_everywhere_and_whoever_lacks_one_is_named() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    replay.until_acknowledged(&lab, 20);
    let ledger = replay.end();
    lab.until("the backup counts every entry", |lab| {
        let counted = |host: &str| lab.instance(host)["entries"].as_u64();
        counted("s1a").is_some() && counted("s1a") == counted("s2a")
    });
    let rooms = lab.ok(&["room", "list"]);
    let entries = lab.instance("s1a")["entries"].clone();

    // Each active server writes; the others hear it and say so; both standbys at site 2 apply it.
    publish(&lab, "1s");
    let servers = active(&lab);
    assert!(servers.len() > 1, "there is somebody to hear it: {servers:?}");
    lab.until("all have seen all", |lab| {
        let status = lab.status();
        servers.iter().all(|server| {
            let own = told(&status, server);
            let others = servers.iter().filter(|o| *o != server);
            let heard =
                others.clone().all(|o| told(&status, o)["heard_ms"][server].as_u64().is_some_and(|ms| ms < 3_000));
            let echoed = others.clone().all(|o| own["echo_ms"][o].as_u64().is_some());
            let there = ["s2a", "s2b"].iter().all(|host| {
                let (age, lag) = applied(lab, host, server);
                age.is_some_and(|ms| ms < 3_000) && lag.is_some()
            });
            own["took_ms"].as_u64().is_some() && heard && echoed && there
        })
    });
    assert!(lab.ok(&["pool", "status"]).contains("CANARY OF"));
    assert_eq!(overdue(&lab), Vec::<Value>::new());

    // Nothing of it is anywhere among what people wrote.
    assert_eq!(lab.instance("s1a")["entries"], entries);
    assert_eq!(lab.ok(&["room", "list"]), rooms);
    let exposure = |lab: &Lab| lab.status()["exposure"]["mgc"]["entries"].clone();
    assert_eq!(exposure(&lab), 0, "a canary on its way is no entry that would be lost");
    assert_clean(&lab.audit(&ledger));

    // A standby that receives everything and applies nothing looks well by its stream; its canaries say that it is not.
    lab.sql("s2a", "SELECT pg_wal_replay_pause()");
    lab.until("site 2 lacks each server's canary", |lab| {
        let missing = overdue(lab);
        let at = |host: &str, server: &String| {
            let place = Value::from(vec!["mgc", host]);
            missing.iter().any(|o| o["server"] == **server && o["missing"]["applied-at"] == place)
        };
        servers.iter().all(|server| at("s2a", server))
    });
    let said = lab.ok(&["pool", "status"]);
    assert!(said.contains(&format!("no canary of {} was applied to mgc on s2a", servers[0])), "{said}");
    lab.sql("s2a", "SELECT pg_wal_replay_resume()");
    lab.until("they come through again", |lab| overdue(lab).is_empty());

    // After a failover the servers of the other site write them, in the new epoch.
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    lab.until("the new servers write theirs", |lab| {
        let status = lab.status();
        active(lab).iter().all(|s| told(&status, s)["took_ms"].as_u64().is_some())
    });
    let epochs = lab.sql("s2a", "SELECT max(epoch) FROM standfast.canaries");
    assert_eq!(epochs, "2");
    lab.until("the backup mirror applies them", |lab| {
        active(lab).iter().all(|server| applied(lab, "s2b", server).1.is_some())
    });

    // And off is off.
    publish(&lab, "off");
    lab.until("nobody tells of canaries", |lab| {
        let status = lab.status();
        active(lab).iter().all(|s| told(&status, s).is_null())
    });
    lab.until("nothing has been written for longer than several would take", |lab| {
        lab.sql("s2a", "SELECT clock_timestamp() - max(at) > interval '5 s' FROM standfast.canaries") == "t"
    });
}
