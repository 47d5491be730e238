//! The run's host is killed before, during and after every step of both runbooks, and the command typed again: the run
//! goes on where it was, and nothing is lost or doubled.

mod support;
use cluster::runbook::Runbook;
use support::{Lab, Replay, assert_clean};

/// Kill the host of the run at every point of every step, one after the other, in a single run.
fn kill_at_every_point(lab: &Lab, replay: &Replay, runbook: &Runbook) {
    let mut points = runbook
        .steps
        .iter()
        .flat_map(|step| ["before", "during", "after"].map(|when| format!("{}.{}.{when}", runbook.name, step.id)));
    let mut armed = points.next();
    while let Some(point) = armed.take() {
        let fail = format!("STANDFAST_FAILPOINTS={point}=pause");
        lab.ok(&["lab", "kill", "s2a"]);
        lab.ok(&["lab", "start", "s2a", "--env", &fail]);
        let marker = lab.dir.join("hosts/s2a").join(format!("failpoint.{point}"));
        let mut command = lab.command(&[runbook.name, "--yes"]);
        let mut watching = command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the program runs");
        let mut over = false;
        lab.until(&format!("the run reaches {point}, or passes it"), |_| {
            over = over || watching.try_wait().expect("a child can be asked").is_some();
            over || marker.exists()
        });
        watching.kill().ok();
        watching.wait().expect("a child ends");
        armed = points.next();
    }
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "start", "s2a"]);
    let said = lab.cli(&[runbook.name, "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    replay.until_acknowledged(lab, 5);
}

#[test]
fn the_host_of_the_run_is_killed_at_every_point_of_the_failover() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "site-1"]);
    kill_at_every_point(&lab, &replay, cluster::failover::FAILOVER);
    assert_eq!(lab.state(), "FailedOver");
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}

#[test]
fn the_host_of_the_run_is_killed_at_every_point_of_the_failback() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    lab.ok(&["lab", "start", "site-1"]);
    kill_at_every_point(&lab, &replay, cluster::failback::FAILBACK);
    lab.until_normal();
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}
