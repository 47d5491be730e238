//! A pair of PostgreSQL that somebody else operates: made, watched and failed over with PostgreSQL's own programs alone.

#![allow(dead_code, reason = "each test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../../../store/tests/support/port.rs"]
mod port;

pub use port::free_port;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The password of the role that chat servers sign in with.
pub const PASSWORD: &str = "theirs and not derived";

/// Two instances, the second one a synchronous standby of the first.
pub struct Pair {
    dir: PathBuf,
    /// Their ports.
    pub ports: [u16; 2],
    postmasters: [Option<Child>; 2],
}

impl Pair {
    /// Make and start one below a folder.
    pub fn start(below: &Path) -> Pair {
        let dir = below.join("theirs");
        std::fs::create_dir_all(&dir).unwrap();
        if let Some((user, group)) = account() {
            std::os::unix::fs::chown(&dir, Some(user), Some(group)).unwrap();
        }
        let mut pair = Pair { dir, ports: [free_port(), free_port()], postmasters: [None, None] };
        let one = pair.data(0);
        pair.ok("initdb", &["-U", "dba", "-A", "trust", "--no-locale", "-E", "UTF8", "-N", "-D", &one]);
        let rules = "local all all trust\nhost replication dba 127.0.0.1/32 trust\nhost all dba 127.0.0.1/32 trust\n\
                     host all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(Path::new(&one).join("pg_hba.conf"), rules).unwrap();
        pair.run(0);
        pair.sql(0, &format!("CREATE ROLE chat LOGIN PASSWORD '{PASSWORD}'"));
        pair.sql(0, "CREATE DATABASE talk OWNER chat");
        let port = pair.ports[0].to_string();
        let two = pair.data(1);
        let copy = ["-h", "127.0.0.1", "-p", &port, "-U", "dba", "-D", &two, "-R", "-X", "stream", "-c", "fast"];
        pair.ok("pg_basebackup", &copy);
        pair.run(1);
        pair.sql(0, "ALTER SYSTEM SET synchronous_standby_names = '*'");
        pair.sql(0, "SELECT pg_reload_conf()");
        pair
    }

    /// The connection string that names both.
    pub fn dsn(&self) -> String {
        format!("postgresql://chat@127.0.0.1:{},127.0.0.1:{}/talk", self.ports[0], self.ports[1])
    }

    /// Have the first speak TLS with this certificate and key, as PEM.
    pub fn speak_tls(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = Path::new(&self.data(0)).join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            if let Some((user, group)) = account() {
                std::os::unix::fs::chown(&path, Some(user), Some(group)).unwrap();
            }
        }
        self.set(0, "ssl", "on");
    }

    /// Change a setting of one of them, and wait until it counts.
    pub fn set(&self, which: usize, name: &str, value: &str) {
        self.sql(which, &format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.sql(which, "SELECT pg_reload_conf()");
        let began = Instant::now();
        while self.value(which, &format!("SHOW {name}")) != value {
            assert!(began.elapsed() < Duration::from_secs(30), "{name} does not become {value}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a statement answers.
    pub fn value(&self, which: usize, statement: &str) -> String {
        String::from_utf8_lossy(&self.query(which, statement).stdout).trim().to_owned()
    }

    /// Fail over as those who operate it do: the first is gone at once, the second is promoted.
    pub fn fail_over(&mut self) {
        let first = self.postmasters[0].take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(first.id() as i32), nix::sys::signal::Signal::SIGQUIT)
            .unwrap();
        let mut first = first;
        first.wait().unwrap();
        let two = self.data(1);
        self.ok("pg_ctl", &["promote", "-D", &two]);
    }

    fn data(&self, which: usize) -> String {
        self.dir.join(format!("data{which}")).display().to_string()
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(programs().join(name));
        command.current_dir(&self.dir).stdin(Stdio::null());
        if let Some((user, group)) = account() {
            command.uid(user).gid(group);
        }
        command
    }

    fn ok(&self, name: &str, arguments: &[&str]) {
        let done = self.program(name).args(arguments).output().unwrap();
        assert!(done.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn run(&mut self, which: usize) {
        let log = std::fs::File::create(self.dir.join(format!("log{which}"))).unwrap();
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={}", self.ports[which]),
            format!("unix_socket_directories={}", self.dir.display()),
        ];
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data(which)).stderr(log);
        for setting in &settings {
            command.args(["-c", setting]);
        }
        self.postmasters[which] = Some(command.spawn().unwrap());
        let began = Instant::now();
        while !self.query(which, "SELECT 1").status.success() {
            assert!(began.elapsed() < Duration::from_secs(30), "their PostgreSQL {which} does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn query(&self, which: usize, statement: &str) -> std::process::Output {
        let port = self.ports[which].to_string();
        let arguments = ["-h", "127.0.0.1", "-p", &port, "-U", "dba", "-d", "postgres", "-Atc", statement];
        self.program("psql").args(arguments).output().unwrap()
    }

    fn sql(&self, which: usize, statement: &str) {
        let done = self.query(which, statement);
        assert!(done.status.success(), "{statement}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for mut postmaster in self.postmasters.iter_mut().filter_map(Option::take) {
            let pid = nix::unistd::Pid::from_raw(postmaster.id() as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT);
            let _ = postmaster.wait();
        }
    }
}

/// PostgreSQL refuses root: the account that it runs under then.
fn account() -> Option<(u32, u32)> {
    if !nix::unistd::getuid().is_root() {
        return None;
    }
    let found = ["postgres", "nobody"].into_iter().find_map(|name| nix::unistd::User::from_name(name).ok().flatten());
    found.map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

fn programs() -> PathBuf {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    folders.sort();
    folders.pop().expect("PostgreSQL's programs are needed for this test: apt-get install postgresql")
}
