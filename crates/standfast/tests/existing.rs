//! A pool on a pair of PostgreSQL that somebody else operates: chat works and follows their writer, and what is theirs is
//! refused with a sentence that says so. Set up by hand, as an administrator without a lab does it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "support/pair.rs"]
mod pair;
mod support;

use pair::{PASSWORD, Pair, free_port};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use support::{PATIENCE, Ran, STANDFAST};

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

/// A pool of one host, with an agent and two servers.
struct Pool {
    dir: PathBuf,
    processes: Vec<Child>,
}

impl Pool {
    fn start(dir: &Path, dsn: &str) -> Pool {
        let ports: Vec<u16> = (0..5).map(|_| free_port()).collect();
        let server = |n: usize| {
            format!(
                "[[server]]\nname = \"server-{n}\"\nhost = \"a\"\nclients = {{ at = \"127.0.0.1:{}\" }}\n\
                 link = {{ at = \"127.0.0.1:{}\" }}\nactive = true\n",
                ports[2 * n - 1],
                ports[2 * n]
            )
        };
        let topology = format!(
            "pool = \"chat.example.net\"\n[[site]]\nname = \"site-1\"\nauthority = \"a\"\n[[host]]\nname = \"a\"\n\
             site = \"site-1\"\nagent = {{ at = \"127.0.0.1:{}\" }}\n[[existing_database]]\nname = \"mgc\"\n\
             dsn = \"{dsn}\"\n{}{}",
            ports[0],
            server(1),
            server(2)
        );
        let pool = Pool { dir: dir.join("host"), processes: Vec::new() };
        std::fs::create_dir_all(&pool.dir).unwrap();
        let write = |name: &str, text: &str| {
            let path = pool.dir.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("pool.secret", SECRET);
        write("topology.toml", &topology);
        write("existing-database.password", PASSWORD);
        pool
    }

    fn run(&mut self, arguments: &[&str]) {
        let log = std::fs::File::create(self.dir.join(format!("log{}", self.processes.len()))).unwrap();
        let mut command = Command::new(STANDFAST);
        command.args(arguments).arg("--dir").arg(&self.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.processes.push(command.spawn().unwrap());
    }

    fn cli(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(STANDFAST);
        command.arg("--dir").arg(&self.dir).args(arguments).stdin(Stdio::null());
        command
            .env("STANDFAST_PASSWORD", "anchor-watch")
            .env("STANDFAST_NEW_PASSWORD", "anchor-watch")
            .output()
            .unwrap()
            .into()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.cli(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.all());
        ran.stdout
    }

    fn refused(&self, arguments: &[&str], sentence: &str) {
        let ran = self.cli(arguments);
        assert_eq!(ran.code, Some(3), "{arguments:?}: {}", ran.all());
        assert!(ran.all().contains(sentence), "{arguments:?}: {}", ran.all());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Servers outlive their agent.
        let _ = self.cli(&["service", "stop", "--host", "a", "--now", "--yes"]);
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A folder of this test's own, gone at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_pool_on_somebody_elses_databases_follows_their_writer_and_leaves_the_rest_to_them() {
    let folder = Folder(std::env::temp_dir().join(format!("standfast-test-existing-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    std::fs::set_permissions(&folder.0, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut theirs = Pair::start(&folder.0);
    let mut pool = Pool::start(&folder.0, &theirs.dsn());
    pool.run(&["agent", "--host", "a"]);
    let began = Instant::now();
    while pool.cli(&["pool", "initialise", "--yes"]).code != Some(0) {
        assert!(began.elapsed() < PATIENCE, "{}", pool.cli(&["pool", "initialise", "--yes"]).all());
    }
    pool.ok(&["user", "add", "ines"]);
    pool.ok(&["category", "add", "Harbour", "--allow", "Everyone"]);
    pool.ok(&["room", "add", "Quay", "--category", "Harbour", "--privacy", "open"]);
    pool.ok(&["post", "--user", "ines", "--room", "Quay", "before"]);

    theirs.fail_over();
    pool.ok(&["post", "--user", "ines", "--room", "Quay", "after"]);
    let history = pool.ok(&["history", "--user", "ines", "--room", "Quay"]);
    assert!(history.contains("before") && history.contains("after"), "{history}");

    assert!(pool.ok(&["pool", "status"]).contains("operated by somebody else"));
    assert!(pool.ok(&["mirror", "state"]).contains("its mirror is theirs"));
    for command in [&["failover", "--yes"][..], &["failback", "--yes"], &["mirror", "install", "--yes"]] {
        pool.refused(command, "is operated by somebody else");
    }
    pool.refused(&["mirror", "remove", "--yes"], "has to be done with their means");
    assert!(pool.ok(&["pool", "initialise", "--yes"]).contains("is initialised"));
}
