//! The tests' world: a lab as an administrator has it, driven by the same commands. Each test has a lab of its own, in a
//! folder and on ports of its own, and takes it down again, whatever happens.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest time that anything in the lab may take before the test says what it waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub const STANDFAST: &str = env!("CARGO_BIN_EXE_standfast");

/// The sample conversation of the repository.
pub fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/harbour-watch.txt")
}

/// A lab with a whole pool.
pub struct Lab {
    /// Its folder.
    pub dir: PathBuf,
    /// The first of its ports; it has a hundred.
    pub base_port: u16,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit status; `None` after a signal.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

impl Ran {
    /// The last line of the data.
    pub fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }

    /// Data and talk together, for looking for a sentence.
    pub fn all(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Lab {
    /// A stretched pool over two sites.
    pub fn up() -> Lab {
        Lab::up_with(&[])
    }

    /// A lab with further options of `lab up`.
    pub fn up_with(options: &[&str]) -> Lab {
        let pid = std::process::id();
        let lab = Lab {
            dir: std::env::temp_dir().join(format!("standfast-test-{pid}")),
            base_port: 12_000 + u16::try_from(pid % 180).unwrap() * 100,
        };
        let port = lab.base_port.to_string();
        let mut arguments = vec!["lab", "up", "--detach", "--base-port", &port];
        arguments.extend_from_slice(options);
        lab.ok(&arguments);
        lab.until_shipped();
        lab
    }

    /// Wait until the backup and its mirror stream, where the pool has them: a pool that has just come up is not moved before.
    fn until_shipped(&self) {
        self.until("the backup and its mirror stream", |lab| {
            let content = lab.record()["databases"]["mgc"].clone();
            let standbys = ["backup", "backup_mirror"].map(|part| content[part].as_str().map(str::to_owned));
            standbys.into_iter().flatten().all(|host| lab.instance(&host)["shipping"]["streaming"] == true)
        });
    }

    /// A command on this lab, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(STANDFAST);
        command.env("STANDFAST_DIR", &self.dir).args(arguments).stdin(Stdio::null());
        command
    }

    /// Run a command to its end.
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().expect("the program runs").into()
    }

    /// Run a command that has to work, and return its data.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.cli(arguments);
        assert_eq!(ran.code, Some(0), "standfast {arguments:?} failed:\n{}\n{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// `pool status --json`.
    pub fn status(&self) -> Value {
        let ran = self.cli(&["pool", "status", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)
    }

    /// The newest record that anybody has.
    pub fn record(&self) -> Value {
        self.status()["record"].clone()
    }

    /// The pool's state in the reference's words.
    pub fn state(&self) -> String {
        self.record()["state"].as_str().unwrap_or_default().to_owned()
    }

    /// What the agent of `host` says of its instance of the content database.
    pub fn instance(&self, host: &str) -> Value {
        let status = self.status();
        let reports = status["reports"].as_array().cloned().unwrap_or_default();
        let report = reports.iter().find(|r| r["host"] == host).cloned().unwrap_or_default();
        report["instances"]["mgc"].clone()
    }

    /// Wait until `seen` holds; the sentence says what for.
    pub fn until(&self, sentence: &str, mut seen: impl FnMut(&Lab) -> bool) {
        let began = Instant::now();
        while !seen(self) {
            assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for: {sentence}\nstatus: {:#}", self.status());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Start a site and wait until its agents answer: a run that begins before that passes over who does not.
    pub fn start_site(&self, site: &str) {
        self.ok(&["lab", "start", site]);
        self.until("its agents answer", |lab| {
            let status = lab.status();
            let silent = status["silent"].as_array().is_some_and(Vec::is_empty);
            silent && status["reports"].as_array().is_some_and(|all| all.iter().any(|r| r["site"] == site))
        });
    }

    /// The whole pool is as it is to be in state Normal: mirror synchronised, backup and its mirror fed.
    pub fn until_normal(&self) {
        self.until("Normal, mirror synchronised, nothing under way", |lab| {
            let record = lab.record();
            record["state"] == "Normal"
                && record["run"].is_null()
                && record["databases"]["mgc"]["mirror"]["synchronised"] == true
        });
    }

    /// Start playing the sample conversation, endlessly, into the ledger.
    pub fn replay(&self, extra: &[&str]) -> Replay {
        let ledger = self.dir.join("ledger.jsonl");
        let file = sample();
        let mut command = self.command(&["replay", file.to_str().unwrap(), "--speed", "1200", "--loop"]);
        command.args(["--ledger", ledger.to_str().unwrap()]).args(extra);
        let log = std::fs::File::create(self.dir.join("replay.log")).expect("the lab's folder takes files");
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("the program runs");
        let replay = Replay { child: Some(child), ledger };
        replay.until_acknowledged(self, 5);
        replay
    }

    /// What PostgreSQL says of itself that it must never have to say.
    fn panics(&self) -> Vec<String> {
        let hosts = std::fs::read_dir(self.dir.join("hosts")).into_iter().flatten().flatten();
        let logs = hosts.filter_map(|h| std::fs::read_to_string(h.path().join("pg/mgc/log")).ok());
        logs.flat_map(|log| log.lines().filter(|l| l.contains("PANIC:")).map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// Run SQL on the instance of the content database on `host`, as the agents' own role; what it printed, unadorned.
    pub fn sql(&self, host: &str, statements: &str) -> String {
        let ran = self.psql(host, statements);
        assert_eq!(ran.code, Some(0), "{statements}: {}", ran.all());
        ran.stdout.trim().to_owned()
    }

    /// The same where the instance may not answer.
    pub fn try_sql(&self, host: &str, statements: &str) -> Option<String> {
        let ran = self.psql(host, statements);
        (ran.code == Some(0)).then(|| ran.stdout.trim().to_owned())
    }

    fn psql(&self, host: &str, statements: &str) -> Ran {
        let topology = std::fs::read_to_string(self.dir.join("topology.toml")).unwrap();
        let topology = cluster::topology::Topology::from_toml(&topology).unwrap();
        let instance = topology.databases[0].instances().find(|i| i.host.as_str() == host).unwrap();
        let secret = std::fs::read_to_string(self.dir.join("pool.secret")).unwrap();
        let secret = cluster::secret::PoolSecret::from_text(&secret).unwrap();
        let port = instance.postgres.port().unwrap();
        let at = format!("host=127.0.0.1 port={port} dbname=mgc user={}", cluster::secret::ROLE_ADMIN);
        let mut psql = Command::new("psql");
        psql.env("PGPASSWORD", secret.derive(cluster::secret::Purpose::PostgresAdmin)).stdin(Stdio::null());
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &at, "-c", statements])
            .output()
            .unwrap()
            .into()
    }

    /// Publish the topology with other settings of log shipping, beside the share.
    pub fn publish_log_shipping(&self, settings: &str) {
        let text = std::fs::read_to_string(self.dir.join("topology.toml")).unwrap();
        let set = |line: &str| match line
            .strip_prefix("log_shipping = { share = ")
            .and_then(|l| l.split_once('"')?.1.split_once('"'))
        {
            Some((share, _)) => format!("log_shipping = {{ share = \"{share}\", {settings} }}"),
            None => line.to_owned(),
        };
        let changed: Vec<String> = text.lines().map(set).collect();
        let file = self.dir.join("wanted.toml");
        std::fs::write(&file, changed.join("\n")).unwrap();
        self.ok(&["topology", "publish", file.to_str().unwrap(), "--yes"]);
    }

    /// Write so many megabytes of log at the writer on `host`, quickly, and nothing else.
    pub fn write_log(&self, host: &str, megabytes: u32) {
        let statement = format!(
            "SELECT count(pg_logical_emit_message(false, 'test', r.bytes)) \
             FROM (SELECT string_agg(sha256(n::text::bytea), '') AS bytes FROM generate_series(1, 32768) n) r, \
             generate_series(1, {megabytes})"
        );
        self.sql(host, &statement);
    }

    /// Audit a ledger: exit status and the last line.
    pub fn audit(&self, ledger: &Path) -> Ran {
        self.cli(&["audit", "--ledger", ledger.to_str().unwrap()])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("STANDFAST_KEEP_LAB").is_some() {
            eprintln!("the lab is kept: {}", self.dir.display());
            return;
        }
        let panics = self.panics();
        let _ = self.cli(&["lab", "down", "--delete"]);
        assert!(panics.is_empty() || std::thread::panicking(), "PostgreSQL panicked:\n{}", panics.join("\n"));
    }
}

/// A replay under way.
pub struct Replay {
    child: Option<Child>,
    /// Its ledger.
    pub ledger: PathBuf,
}

impl Replay {
    /// Acknowledgements in the ledger so far, as `(epoch, at_ms)`.
    pub fn acknowledged(&self) -> Vec<(i64, i64)> {
        let Ok(file) = std::fs::File::open(&self.ledger) else { return Vec::new() };
        BufReader::new(file)
            .lines()
            .map_while(Result::ok)
            .filter(|line| line.contains(r#""line":"ack""#))
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
            .filter_map(|ack| Some((ack["epoch"].as_i64()?, ack["at_ms"].as_i64()?)))
            .collect()
    }

    /// Wait until so many more posts have been acknowledged than there are now.
    pub fn until_acknowledged(&self, lab: &Lab, more: usize) {
        let before = self.acknowledged().len();
        lab.until("more acknowledged posts", |_| self.acknowledged().len() >= before + more);
    }

    /// Wait until posts are acknowledged in `epoch`.
    pub fn until_epoch(&self, lab: &Lab, epoch: i64) {
        lab.until("acknowledged posts of the new epoch", |_| self.acknowledged().iter().any(|(e, _)| *e >= epoch));
    }

    /// End it as Ctrl-C does, and wait for it.
    pub fn end(mut self) -> PathBuf {
        self.stop();
        self.ledger.clone()
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
            let status = child.wait().expect("the replay ends");
            assert!(std::thread::panicking() || status.success(), "the replay ended with {status}");
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The audit's last line says that nothing was lost, doubled or out of order; returns how many were acknowledged and
/// how many rewound.
pub fn assert_clean(audit: &Ran) -> (u64, u64) {
    assert_eq!(audit.code, Some(0), "{}", audit.all());
    let line = audit.last_line();
    let numbers: Vec<u64> = line
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().expect("digits are a number"))
        .collect();
    let [acknowledged, lost, duplicated, out_of_order, rewound] = numbers[..] else { panic!("last line: {line}") };
    assert_eq!(
        line,
        format!("acknowledged {acknowledged}, lost 0, duplicated 0, out of order 0, rewound {rewound}"),
        "{lost} {duplicated} {out_of_order}"
    );
    (acknowledged, rewound)
}
