//! A throw-away PostgreSQL for tests: a folder below the system's temporary one, a free port, trust for everybody, gone
//! at the end. As root it runs under an unprivileged account, because PostgreSQL refuses root.

#![allow(dead_code, reason = "each test binary uses its part")]

mod port;

pub use port::free_port;
use rules::id::{Epoch, RoomId, Seq};
use rules::verify::{Fault, Verifier};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use store::{FirstAdministrator, Store, StoreError, Target};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A running PostgreSQL.
pub struct Postgres {
    pub dir: PathBuf,
    pub port: u16,
    account: Option<(u32, u32)>,
    postmaster: Option<Child>,
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let out = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn programs() -> PathBuf {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin"))
        .collect();
    folders.sort();
    folders.extend(output("pg_config", &["--bindir"]).map(PathBuf::from));
    let found = folders.into_iter().rev().find(|folder| folder.join("initdb").exists());
    found.expect("PostgreSQL's programs are needed for this test: apt-get install postgresql")
}

fn unprivileged() -> Option<(u32, u32)> {
    if output("id", &["-u"])? != "0" {
        return None;
    }
    let account = ["postgres", "nobody"].into_iter().find(|name| output("id", &["-u", name]).is_some())?;
    let number = |flag| output("id", &[flag, account]).and_then(|n| n.parse().ok());
    Some((number("-u")?, number("-g")?))
}

impl Postgres {
    /// Start one with an empty database `mgc` that belongs to `standfast_chat`.
    pub async fn start() -> Self {
        let name = format!("standfast-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("a folder for the test");
        let account = unprivileged();
        if let Some((user, group)) = account {
            std::os::unix::fs::chown(&dir, Some(user), Some(group)).expect("root gives its folder away");
        }
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("own folder");
        let mut postgres = Self { dir, port: free_port(), account, postmaster: None };
        let done = postgres
            .command("initdb")
            .args(["-U", "standfast_admin", "-A", "trust", "--no-locale", "-E", "UTF8", "-N", "-D"])
            .arg(postgres.dir.join("data"))
            .output()
            .expect("initdb runs");
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        postgres.run().await;
        let admin = postgres.admin("postgres").await;
        admin.batch_execute("CREATE ROLE standfast_chat LOGIN").await.expect("a new role");
        admin.batch_execute("CREATE DATABASE mgc OWNER standfast_chat").await.expect("a new database");
        postgres
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(&self.dir);
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    /// Start the postmaster and wait until it answers.
    pub async fn run(&mut self) {
        let log = std::fs::File::create(self.dir.join("log")).expect("a log file");
        let socket = format!("unix_socket_directories={}", self.dir.display());
        let port = format!("port={}", self.port);
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.dir.join("data"));
        for setting in ["listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=32MB", "max_connections=60"] {
            command.args(["-c", setting]);
        }
        command.args(["-c", &socket, "-c", &port]).stderr(log);
        self.postmaster = Some(command.spawn().expect("postgres starts"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.connect("postgres", "standfast_admin").await.is_err() {
            assert!(Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stop it at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            // Immediate shutdown: the backends go with it and no checkpoint is written.
            let pid = postmaster.id().to_string();
            let _ = Command::new("kill").args(["-QUIT", &pid]).status();
            let _ = postmaster.wait();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    async fn connect(&self, database: &str, user: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let config = format!("host=127.0.0.1 port={} user={user} dbname={database}", self.port);
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A superuser's connection.
    pub async fn admin(&self, database: &str) -> tokio_postgres::Client {
        self.connect(database, "standfast_admin").await.expect("PostgreSQL runs")
    }

    /// How a chat server reaches it.
    pub fn target(&self, server: &str) -> Target {
        Target::new(("127.0.0.1", self.port), "standfast_chat", "trusted", "mgc", server)
    }

    /// Connect to it as a chat server does; the first to come makes the chat schema, with the administrator `admin`.
    pub async fn open(&self, server: &str, epoch: i64) -> Result<Store, StoreError> {
        let first = FirstAdministrator { name: "admin".to_owned(), password_hash: "none".to_owned() };
        Store::open(&self.target(server), Epoch(epoch), &first).await
    }

    /// A standby that only receives the log and tells how far it has flushed it, under this name.
    pub fn receiver(&self, name: &str) -> Receiver {
        let folder = self.dir.join(format!("received-by-{name}"));
        std::fs::create_dir_all(&folder).expect("a folder for the log");
        if let Some((user, group)) = self.account {
            std::os::unix::fs::chown(&folder, Some(user), Some(group)).expect("root gives its folder away");
        }
        let from = format!("host=127.0.0.1 port={} user=standfast_admin application_name={name}", self.port);
        let mut command = self.command("pg_receivewal");
        command.args(["--synchronous", "--no-loop", "-d", &from, "-D"]).arg(&folder).stderr(Stdio::null());
        Receiver(command.spawn().expect("pg_receivewal starts"))
    }

    /// Its folder, for what a test keeps beside it.
    pub fn folder(&self) -> &Path {
        &self.dir
    }
}

/// Receives the log until it is dropped.
pub struct Receiver(Child);

impl Receiver {
    /// Have it stand still, connected, and tell nothing more.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Have it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(done.success(), "the receiver takes no signal");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Wait until `condition` holds; 10 seconds at most.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Check a room's log against its chain.
pub async fn check_chain(store: &Store, room: RoomId) -> Result<Seq, Fault> {
    let mut verifier = Verifier::new(room);
    loop {
        let page = store.logged(room, verifier.last(), 100).await.expect("the log can be read");
        let is_last = page.entries.len() < 100;
        for (entry, _) in page.entries {
            verifier.entry(entry)?;
        }
        if is_last {
            return verifier.head(page.last, page.chain).map(|()| page.last);
        }
    }
}
