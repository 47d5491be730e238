//! Two administrators at once, each with a folder of their own; and what one asks before anything is begun.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::{Lab, Ran};

/// An administrator's own folder: the topology and the secret, and who types.
struct Administrator<'a> {
    name: &'a str,
    dir: PathBuf,
}

impl<'a> Administrator<'a> {
    fn new(lab: &Lab, name: &'a str) -> Self {
        let dir = lab.dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for file in ["topology.toml", "pool.secret"] {
            std::fs::copy(lab.dir.join(file), dir.join(file)).unwrap();
        }
        Self { name, dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(support::STANDFAST);
        command.arg("--dir").arg(&self.dir).args(arguments).env("SUDO_USER", self.name).stdin(Stdio::null());
        command
    }

    fn cli(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }

    /// Begin a command that is to be watched.
    fn begin(&self, arguments: &[&str]) -> Watched {
        let (out, talk) = (self.dir.join("out"), self.dir.join("talk"));
        let file = |path: &PathBuf| std::fs::File::create(path).unwrap();
        let child = self.command(arguments).stdout(file(&out)).stderr(file(&talk)).spawn().unwrap();
        Watched { child, out, talk }
    }
}

/// A command under way, and what it has printed so far.
struct Watched {
    child: Child,
    out: PathBuf,
    talk: PathBuf,
}

impl Watched {
    fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    /// Wait for its end.
    fn ended(mut self) -> Ran {
        let code = self.child.wait().unwrap().code();
        Ran { code, stdout: self.stdout(), stderr: std::fs::read_to_string(&self.talk).unwrap() }
    }
}

fn runs(lab: &Lab, runbook: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(&lab.ok(&["runbook", "list", "--json"])).unwrap();
    all.as_array().unwrap().iter().filter(|run| run["runbook"] == runbook).cloned().collect()
}

#[test]
fn of_two_administrators_one_begins_and_the_other_is_told_who_what_and_since_when() {
    let lab = Lab::up();
    let (ines, marek) = (Administrator::new(&lab, "ines"), Administrator::new(&lab, "marek"));

    // Before anything: is the pool ready? It is, and has never practised.
    let metrics = lab.dir.join("standfast.prom");
    lab.until("all is well but for practice", |_| {
        let ready = ines.cli(&["preflight", "failover", "--json", "--metrics", metrics.to_str().unwrap()]);
        let said: Value = serde_json::from_str(&ready.stdout).unwrap_or_default();
        let checks: Vec<&str> =
            said["warnings"].as_array().into_iter().flatten().filter_map(|w| w["check"].as_str()).collect();
        ready.code == Some(5) && said["ready"] == true && checks.iter().all(|c| ["practice", "disk"].contains(c))
    });
    let text = std::fs::read_to_string(&metrics).unwrap();
    assert!(text.contains("standfast_preflight_ready{") && text.contains("check=\"practice\"} 1"), "{text}");
    assert_eq!(ines.cli(&["preflight", "failback"]).code, Some(0), "nothing is to be failed back");

    // Both type at the same moment; the run stands still at its first step.
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "start", "s2a", "--env", "STANDFAST_FAILPOINTS=failover.fence-old-primary.before=pause"]);
    let both = [ines.begin(&["failover", "--yes"]), marek.begin(&["failover", "--yes"])];
    let marker = lab.dir.join("hosts/s2a/failpoint.failover.fence-old-primary.before");
    lab.until("the run stands still", |_| marker.exists());
    lab.until("the record names the run", |lab| lab.record()["run"]["runbook"] == "failover");
    lab.until("both watch it", |_| both.iter().all(|w| w.stdout().contains("failover begun by")));
    let all = runs(&lab, "failover");
    assert_eq!(all.len(), 1, "one run: {all:#?}");
    let winner = lab.record()["run"]["started_by"].as_str().unwrap().to_owned();
    let since = lab.record()["run"]["started_at"].as_str().unwrap().to_owned();

    // Whoever wants something else is told who, what and since when, and nothing is done.
    for other in [&["failback", "--yes"][..], &["mirror", "install", "--yes"]] {
        let said = marek.cli(other);
        assert_eq!(said.code, Some(3), "{other:?}: {}", said.all());
        for told in ["failover", &winner, &since] {
            assert!(said.all().contains(told), "{other:?} does not tell {told}: {}", said.all());
        }
    }
    let refused = ines.cli(&["preflight", "failover"]);
    assert_eq!(refused.code, Some(3), "{}", refused.all());

    lab.ok(&["lab", "kill", "s2a"]);
    lab.ok(&["lab", "start", "s2a"]);
    let ended = both.map(Watched::ended);
    let told = |ran: &&Ran| ran.stderr.contains(&format!("begun by {winner}"));
    assert!(ended.iter().all(|ran| ran.code == Some(0)), "both see its end: {ended:#?}");
    assert_eq!(ended.iter().filter(told).count(), 1, "the other one was told who had begun it: {ended:#?}");
    assert_eq!(lab.state(), "FailedOver");
    assert_eq!(runs(&lab, "failover").len(), 1);
}
