//! The run's host is killed before, during and after every step of both runbooks, and the command typed again: the run
//! goes on where it was, and nothing is lost or doubled.

mod support;
use cluster::runbook::Runbook;
use support::{Lab, Replay, assert_clean};

/// Kill the run's host and start it again with failpoints armed, until the run stands at one of them; which one.
fn stop_at(lab: &Lab, runbook: &Runbook, points: &[String]) -> String {
    let armed: Vec<String> = points.iter().map(|point| format!("{point}=pause")).collect();
    let variable = format!("STANDFAST_FAILPOINTS={}", armed.join(","));
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "start", "s2a", "--env", &variable]);
    let marker = |point: &String| lab.dir.join("hosts/s2a").join(format!("failpoint.{point}"));
    let mut watching: Option<std::process::Child> = None;
    let mut reached = None;
    lab.until(&format!("the run stands at {}", points.join(" or ")), |_| {
        // Typed again whenever it has ended: before the agent answers it cannot begin anything.
        if watching.as_mut().is_none_or(|child| child.try_wait().expect("a child can be asked").is_some()) {
            let mut command = lab.command(&[runbook.name, "--yes"]);
            let command = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            watching = Some(command.spawn().expect("the program runs"));
        }
        reached = points.iter().find(|point| marker(point).exists()).cloned();
        reached.is_some()
    });
    if let Some(mut child) = watching {
        child.kill().ok();
        child.wait().expect("a child ends");
    }
    reached.expect("it was waited for")
}

/// Kill the host of the run before, during and after every step, one after the other, in a single run.
fn kill_at_every_point(lab: &Lab, replay: &Replay, runbook: &Runbook) {
    let mut without_deeds = Vec::new();
    for step in runbook.steps {
        let [before, during, after] =
            ["before", "during", "after"].map(|when| format!("{}.{}.{when}", runbook.name, step.id));
        stop_at(lab, runbook, &[before]);
        // A step that only waits has nothing to give, and passes from before to after.
        if stop_at(lab, runbook, &[during.clone(), after.clone()]) == during {
            stop_at(lab, runbook, &[after]);
        } else {
            without_deeds.push(step.id);
        }
    }
    assert!(without_deeds.iter().all(|step| *step == "recreate-mirror"), "not stopped amid {without_deeds:?}");
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "start", "s2a"]);
    lab.until("the command finds the run, or what it came to", |lab| lab.cli(&[runbook.name, "--yes"]).code == Some(0));
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
    lab.start_site("site-1");
    kill_at_every_point(&lab, &replay, cluster::failback::FAILBACK);
    lab.until_normal();
    let ledger = replay.end();
    assert_clean(&lab.audit(&ledger));
}
