//! Chat servers as services of their hosts: kept running by their agents, stopped and started by administrators, whatever
//! is killed meanwhile.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Lab, assert_clean};

/// What `service list` says of a server.
fn service(lab: &Lab, server: &str) -> Value {
    let all: Value = serde_json::from_str(&lab.ok(&["service", "list", "--json"])).unwrap();
    let of = |all: &Value| all.as_array()?.iter().find(|s| s["server"] == server).map(|s| s["service"].clone());
    of(&all).unwrap_or_default()
}

fn sessions(lab: &Lab, server: &str) -> Option<u64> {
    let status = lab.status();
    let reports = status["reports"].as_array().cloned().unwrap_or_default();
    reports.iter().find_map(|r| r["servers"][server]["sessions"].as_u64())
}

#[test]
fn a_server_that_is_stopped_moves_its_clients_and_stays_stopped() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until("both servers have clients", |lab| {
        ["server-1", "server-2"].iter().all(|s| sessions(lab, s).is_some_and(|n| n > 0))
    });
    let said = lab.ok(&["service", "stop", "server-1"]);
    assert!(said.contains("server-1: Stopped"), "{said}");
    let log = std::fs::read_to_string(lab.dir.join("hosts/s1a/server-1.log")).unwrap();
    assert!(log.contains("clients are told to move") && !log.contains("have not moved in time"), "{log}");
    replay.until_acknowledged(&lab, 20);

    // It stays in the list of active servers, and stopped, also when its agent comes again.
    assert_eq!(lab.record()["active_servers"], serde_json::json!(["server-1", "server-2"]));
    lab.ok(&["lab", "kill", "s1a/agent"]);
    lab.ok(&["lab", "start", "s1a/agent"]);
    lab.until("its agent says that it is stopped", |lab| service(lab, "server-1")["status"] == "stopped");

    // Nobody would be left to serve: that is asked.
    let refused = lab.cli(&["service", "stop", "server-2"]);
    assert_eq!(refused.code, Some(3), "{}", refused.all());
    assert!(refused.all().contains("no other active server runs"), "{}", refused.all());
    assert_eq!(service(&lab, "server-2")["status"], "running");

    let said = lab.ok(&["service", "start", "server-1"]);
    assert!(said.contains("server-1: Running"), "{said}");
    replay.until_acknowledged(&lab, 20);
    assert_clean(&lab.audit(&replay.end()));
}

#[test]
fn a_server_that_ends_is_started_again_and_outlives_its_agent() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    let pid = |lab: &Lab| service(lab, "server-2")["pid"].as_i64();
    let first = pid(&lab).unwrap();

    lab.ok(&["lab", "kill", "s1b/agent"]);
    lab.ok(&["lab", "start", "s1b/agent"]);
    lab.until("its agent has found it again", |lab| service(lab, "server-2")["status"] == "running");
    assert_eq!(pid(&lab), Some(first), "it went on");

    kill(Pid::from_raw(i32::try_from(first).unwrap()), Signal::SIGKILL).unwrap();
    lab.until("another one runs", |lab| {
        service(lab, "server-2")["status"] == "running" && pid(lab).is_some_and(|pid| pid != first)
    });
    assert!(service(&lab, "server-2")["ended"].as_str().is_some_and(|why| why.contains("ended by itself")));

    // Killed in the lab it stays down, and the statements of the reference start it.
    lab.ok(&["lab", "kill", "server-2"]);
    lab.until("it is stopped", |lab| service(lab, "server-2")["status"] == "stopped");
    lab.ok(&["shell", "-c", "Start-CsWindowsService -Name RTCCHAT -ComputerName s1b"]);
    assert_eq!(service(&lab, "server-2")["status"], "running");
    lab.ok(&["shell", "-c", "Stop-CsWindowsService -Name server-2 -Graceful"]);
    let shown = lab.ok(&["shell", "-c", "Get-CsWindowsService server-2 | Select-Object Status -ExpandProperty Status"]);
    assert_eq!(shown.trim(), "Stopped");
    let refused = lab.cli(&["shell", "-c", "Stop-CsWindowsService -Name postgres -ComputerName s1a"]);
    assert_eq!(refused.code, Some(3), "{}", refused.all());
    assert!(refused.all().contains("let its mirror take over"), "{}", refused.all());

    replay.until_acknowledged(&lab, 20);
    assert_clean(&lab.audit(&replay.end()));
}
