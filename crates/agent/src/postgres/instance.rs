//! One instance: its folders, its process, its data. Starting and stopping only; who it is to be is decided elsewhere.

use crate::error::Error;
use crate::files;
use crate::postgres::conf::{Conf, WAL_SEGMENT_MB};
use crate::postgres::history;
use crate::postgres::process::{Process, anybody_in, kill_those_in};
use crate::postgres::programs::Programs;
use crate::postgres::sql::Sql;
use cluster::name::{DatabaseName, HostName};
use cluster::report::CleanStop;
use cluster::secret::{PoolSecret, Purpose, ROLE_ADMIN, ROLE_CHAT, ROLE_REPLICATION};
use cluster::wal::Lsn;
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an immediate stop may take before it is insisted on.
const INSIST: Duration = Duration::from_secs(2);
/// Longest time for giving the chat servers a right.
const GRANT: Duration = Duration::from_secs(2);

/// Longest path of a Unix socket's folder: the socket's own name and the limit of the system leave this much.
const SOCKET_FOLDER_BYTES_MAX: usize = 80;

/// A log that is longer than this, in bytes, is put aside at the next start.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One instance of PostgreSQL on this host.
pub struct Instance {
    /// Which database.
    pub database: DatabaseName,
    /// This host.
    pub host: HostName,
    /// `pg/<db>` in the host's folder.
    pub folder: PathBuf,
    /// Address and port that it listens on.
    pub listen: (String, u16),
    /// PostgreSQL's programs.
    pub programs: Programs,
    /// What it says of itself.
    pub sql: Sql,
    secret: PoolSecret,
    socket: PathBuf,
}

impl Instance {
    /// An instance in its folder; nothing is created yet.
    pub fn new(
        host_folder: &Path,
        host: &HostName,
        database: &DatabaseName,
        listen: (String, u16),
        programs: Programs,
        secret: &PoolSecret,
    ) -> Self {
        let folder = host_folder.join("pg").join(database.as_str());
        let socket = socket_folder(&folder);
        let sql = Sql::new(socket.clone(), listen.1, secret.derive(Purpose::PostgresAdmin), database.clone());
        let (database, host, secret) = (database.clone(), host.clone(), secret.clone());
        Self { database, host, folder, listen, programs, sql, secret, socket }
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The copy destination of log shipping.
    pub fn copied(&self) -> PathBuf {
        self.folder.join("copied")
    }

    /// Where PostgreSQL notes each file that it asks to restore.
    pub fn asked(&self) -> PathBuf {
        self.folder.join("asked")
    }

    /// Whether there is data at all.
    pub fn has_data(&self) -> bool {
        self.data().join("PG_VERSION").exists() && self.data().join("global/pg_control").exists()
    }

    /// Whether the data is that of a standby.
    pub fn is_standby(&self) -> bool {
        self.data().join("standby.signal").exists()
    }

    /// Whether a promotion was cut off between two of its first steps: PostgreSQL removes the signal of a standby before it begins
    /// the new timeline (`src/backend/access/transam/xlog.c`: `StartupXLOG`). Started like this, the data would be recovered as that
    /// of a writer and go on with the timeline of before, as its old writer may do too.
    pub fn is_half_promoted(&self) -> bool {
        !self.is_standby() && self.control_state() == Some(DB_IN_ARCHIVE_RECOVERY)
    }

    /// Make the data that of a standby, at the next start.
    pub fn become_standby(&self) -> Result<(), Error> {
        let signal = self.data().join("standby.signal");
        files::replace(&signal, b"", 0o600).map_err(Error::file(format!("write {}", signal.display())))?;
        self.programs.give(&signal)
    }

    /// Make the data that of a backup to be recovered, at the next start.
    pub fn become_restored(&self) -> Result<(), Error> {
        let signal = self.data().join("recovery.signal");
        files::replace(&signal, b"", 0o600).map_err(Error::file(format!("write {}", signal.display())))?;
        let standby = self.data().join("standby.signal");
        match fs::remove_file(&standby) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file(format!("remove {}", standby.display()))(error));
            }
            _ => {}
        }
        self.programs.give(&signal)
    }

    /// Folders with the right owner and mode.
    pub fn prepare_folders(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.folder).map_err(Error::file(format!("create {}", self.folder.display())))?;
        self.programs.reaches(&self.folder.join("data"))?;
        for folder in [self.folder.clone(), self.socket.clone(), self.copied(), self.salvage()] {
            self.programs.folder(&folder)?;
        }
        let passwords = self.passfile();
        let replication = self.secret.derive(Purpose::PostgresReplication);
        let admin = self.secret.derive(Purpose::PostgresAdmin);
        let text = format!("*:*:*:{ROLE_REPLICATION}:{replication}\n*:*:*:{ROLE_ADMIN}:{admin}\n");
        files::replace(&passwords, text.as_bytes(), 0o600)
            .map_err(Error::file(format!("write {}", passwords.display())))?;
        self.programs.give(&passwords)
    }

    /// The file that holds the passwords for programs and streams.
    pub fn passfile(&self) -> PathBuf {
        self.folder.join("passfile")
    }

    /// A connection string to another instance, at `address:port`. `name` is what the other side sees: this host's name
    /// is for the stream of a standby alone, because commits may wait for whoever has it.
    pub fn connection_to(&self, at: &str, role: &str, database: &str, name: &str) -> String {
        let (host, port) = at.rsplit_once(':').unwrap_or((at, "5432"));
        let host = host.trim_matches(['[', ']']);
        format!(
            "host={host} port={port} user={role} dbname={database} application_name='{name}' passfile='{}' connect_timeout=2 \
             keepalives_idle=5 keepalives_interval=1 keepalives_count=3 tcp_user_timeout=5000 sslmode=prefer",
            self.passfile().display()
        )
    }

    /// A connection string to this instance itself, over its socket, for the program that ships its log.
    pub fn connection_to_self(&self) -> String {
        format!(
            "host='{}' port={} user={ROLE_REPLICATION} dbname=replication application_name=pg_receivewal passfile='{}'",
            self.socket.display(),
            self.listen.1,
            self.passfile().display()
        )
    }

    /// The connection string of a stream.
    pub fn stream_from(&self, at: &str) -> String {
        self.connection_to(at, ROLE_REPLICATION, "replication", self.host.as_str())
    }

    /// A configuration with nothing that varies set.
    pub fn plain_conf(&self) -> Conf {
        Conf {
            host: self.host.clone(),
            address: self.listen.0.clone(),
            port: self.listen.1,
            socket: self.socket.clone(),
            is_standby: self.is_standby(),
            wait_for: None,
            stream_from: None,
            files_from: None,
            archive: None,
            asked: self.asked(),
            restore: self.folder.join("restore.sh"),
            left_in: history::left_in(&self.data().join("pg_wal")),
            archive_to: None,
            archive_timeout_s: 0,
            apply_delay_ms: 0,
            silence_ms: crate::postgres::conf::SILENCE_MS,
            compression: cluster::shipping_settings::Compression::default(),
            volume_mb: volume(&self.folder).map_or(10_000, |v| v.0 / 1024 / 1024),
            only_read: false,
            recover_to: None,
        }
    }

    /// The configuration of old data that is run as a standby for its tail to be read: nobody but the agent reaches it.
    pub fn conf_to_read(&self) -> Conf {
        Conf { address: String::new(), only_read: true, ..self.plain_conf() }
    }

    /// Where tails and their log are kept.
    pub fn salvage(&self) -> PathBuf {
        self.folder.join("salvage")
    }

    /// Write the configuration; tells whether it has changed. It is written anew before each start.
    pub fn configure(&self, conf: &Conf) -> Result<bool, Error> {
        self.put(&conf.restore, &conf.restore_script())?;
        self.put(&self.data().join("standfast.conf"), &conf.text())
    }

    /// Write a file that PostgreSQL reads, if it is not there like this. Tells whether it was not.
    fn put(&self, path: &Path, text: &str) -> Result<bool, Error> {
        if fs::read_to_string(path).is_ok_and(|there| there == text) {
            return Ok(false);
        }
        files::replace_for_readers(path, text.as_bytes(), 0o600)
            .map_err(Error::file(format!("write {}", path.display())))?;
        self.programs.give(path)?;
        Ok(true)
    }

    /// Create a database cluster with the pool's roles and settings, not yet started.
    pub async fn initdb(&self) -> Result<(), Error> {
        self.prepare_folders()?;
        let fresh = self.folder.join("data.new");
        for old in [&fresh, &self.data()] {
            remove(old)?;
        }
        let password = self.folder.join(".password");
        files::replace(&password, self.secret.derive(Purpose::PostgresAdmin).as_bytes(), 0o600)
            .map_err(Error::file(format!("write {}", password.display())))?;
        self.programs.give(&password)?;
        let made = self
            .programs
            .run("initdb", self.database.as_str(), |command| {
                command.arg("-D").arg(&fresh).arg("--data-checksums").arg(format!("--wal-segsize={WAL_SEGMENT_MB}"));
                command.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--username", ROLE_ADMIN]);
                command.arg("--pwfile").arg(&password);
            })
            .await;
        fs::remove_file(&password).map_err(Error::file("remove the password file"))?;
        made?;
        // Renamed only when it is whole: a data folder that is there can be started.
        fs::rename(&fresh, self.data()).map_err(Error::file(format!("put {} in place", self.data().display())))?;
        self.include_conf()?;
        self.configure(&self.plain_conf()).map(|_| ())
    }

    /// Let `postgresql.conf` take the agent's file, and `pg_hba.conf` the pool's roles.
    fn include_conf(&self) -> Result<(), Error> {
        let main = self.data().join("postgresql.conf");
        let text = "include = 'standfast.conf'\n";
        files::replace(&main, text.as_bytes(), 0o600).map_err(Error::file(format!("write {}", main.display())))?;
        self.programs.give(&main)?;
        let hba = self.data().join("pg_hba.conf");
        let text = format!(
            "# Written by the standfast agent.\n\
             local all {ROLE_ADMIN} scram-sha-256\n\
             local replication {ROLE_REPLICATION} scram-sha-256\n\
             host all {ROLE_ADMIN},{ROLE_CHAT} all scram-sha-256\n\
             host replication {ROLE_REPLICATION} all scram-sha-256\n"
        );
        files::replace(&hba, text.as_bytes(), 0o600).map_err(Error::file(format!("write {}", hba.display())))?;
        self.programs.give(&hba)
    }

    /// Create the pool's roles and the database. May be repeated.
    pub async fn create_roles(&self) -> Result<(), Error> {
        let chat = self.secret.derive(Purpose::PostgresChat);
        let replication = self.secret.derive(Purpose::PostgresReplication);
        let role = |name: &str, attributes: &str, password: &str| {
            format!(
                "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN \
                 CREATE ROLE {name} LOGIN {attributes} PASSWORD '{password}'; END IF; END $$"
            )
        };
        let statements = [role(ROLE_CHAT, "", &chat), role(ROLE_REPLICATION, "REPLICATION", &replication)];
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        self.sql.run_apart("create roles", "postgres", &statements).await?;
        let create = format!("CREATE DATABASE \"{}\" OWNER {ROLE_CHAT}", self.database);
        match self.sql.run_apart("create the database", "postgres", &[&create]).await {
            Err(Error::Sql { cause, .. }) if cause.contains("42P04") => Ok(()),
            created => created,
        }
    }

    /// Let the chat servers see which standbys have flushed the log. May be repeated. Nobody is waited for: the mirror may be away,
    /// and what is lost with this host is granted again by the next principal.
    pub async fn let_chat_see_standbys(&self) -> Result<(), Error> {
        let statement = format!(
            "DO $$ BEGIN IF NOT pg_has_role('{ROLE_CHAT}', 'pg_read_all_stats', 'MEMBER') THEN \
             SET LOCAL synchronous_commit = local; GRANT pg_read_all_stats TO {ROLE_CHAT}; END IF; END $$"
        );
        let what = "let the chat servers see the standbys";
        let statements = [statement.as_str()];
        let grant = self.sql.run_apart(what, self.database.as_str(), &statements);
        let late = |_| Error::Late {
            what: format!("{}: {what}", self.database),
            seconds: GRANT.as_secs(),
            hint: "it is tried again".to_owned(),
        };
        tokio::time::timeout(GRANT, grant).await.map_err(late)?
    }

    /// Start the postmaster and return it; does not wait until it takes connections.
    pub async fn start(&self) -> Result<Process, Error> {
        let data = self.data();
        self.release_locks().await?;
        let path = self.folder.join("log");
        if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
            let _ = fs::rename(&path, self.folder.join("log.old"));
        }
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::file(format!("open {}", path.display())))?;
        let errors = log.try_clone().map_err(Error::file("open the log"))?;
        let mut command = self.programs.command("postgres");
        command.arg("-D").arg(&data).stdout(log).stderr(errors);
        let failed =
            |said: String| Error::Program { program: "postgres".into(), database: self.database.to_string(), said };
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        let process = child.id().and_then(Process::of);
        // Its end is collected by the runtime, so that it never stays as a zombie.
        tokio::spawn(async move {
            let _ = child.wait().await;
        });
        process.ok_or_else(|| failed(format!("it ended at once; see {}", path.display())))
    }

    /// Wait until nobody works in the data, and remove what an earlier postmaster has left of its locks: its pid may be somebody
    /// else's by now, and a lock file that is empty, because its writer was killed between making it and writing it, keeps
    /// PostgreSQL from starting for ever.
    pub async fn release_locks(&self) -> Result<(), Error> {
        self.until_nobody_is_left().await?;
        let socket = self.socket.join(format!(".s.PGSQL.{}", self.listen.1));
        let lock = self.socket.join(format!(".s.PGSQL.{}.lock", self.listen.1));
        for left in [self.data().join("postmaster.pid"), lock, socket] {
            if let Err(error) = fs::remove_file(&left)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(Error::file(format!("remove {}, which a dead postmaster has left", left.display()))(error));
            }
        }
        Ok(())
    }

    /// Wait until no process of an earlier postmaster holds the data. What does not notice that it is gone, frozen perhaps,
    /// is killed.
    pub async fn until_nobody_is_left(&self) -> Result<(), Error> {
        let began = Instant::now();
        let data = self.data();
        let mut insisted = false;
        while anybody_in(&data) {
            if !insisted && began.elapsed() > INSIST {
                insisted = true;
                kill_those_in(&data);
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err(Error::Late {
                    what: format!("the end of the old processes of {}", self.database),
                    seconds: 30,
                    hint: format!("see which processes work in {}", data.display()),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Wait until the instance takes connections, whether its database is there yet or not.
    pub async fn until_postgres_answers(&self, process: Process) -> Result<(), Error> {
        let began = Instant::now();
        while self.sql.run_apart("ask", "postgres", &["SELECT 1"]).await.is_err() {
            if !process.is_alive() {
                return Err(Error::Program {
                    program: "postgres".into(),
                    database: self.database.to_string(),
                    said: format!("it ended while starting; see {}", self.folder.join("log").display()),
                });
            }
            if began.elapsed() > Duration::from_secs(300) {
                return Err(Error::Late {
                    what: format!("the start of {}", self.database),
                    seconds: 300,
                    hint: format!("see {}", self.folder.join("log").display()),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Stop the postmaster with a signal (SIGINT: fast and clean; SIGQUIT: at once) and wait until everything is gone.
    pub async fn stop(&self, process: Process, signal: Signal) -> Result<(), Error> {
        self.end(process, signal, || false).await?;
        self.until_nobody_is_left().await
    }

    /// Let the postmaster of a writer that is open shut down, and wait until its last checkpoint is written: from there on it writes no more
    /// log, and all that it still does is to send what it has to its standbys. Whoever starts the instance again waits until it is gone.
    /// Not for one that is starting: its control file says the same of the stop before, and for a moment at the end of a recovery.
    pub async fn shut_down(&self, process: Process) -> Result<(), Error> {
        self.end(process, Signal::SIGINT, || self.is_shut_down()).await
    }

    /// Let the postmaster and all its processes end at once, and wait for nobody. Whoever starts the instance again does.
    pub async fn quit(&self, process: Process) {
        process.signal(Signal::SIGQUIT);
        self.sql.forget().await;
    }

    /// Send the signal, and wait until the postmaster is gone, or this is so.
    async fn end(&self, process: Process, signal: Signal, or: impl Fn() -> bool) -> Result<(), Error> {
        self.sql.forget().await;
        process.signal(signal);
        let began = Instant::now();
        let mut insisted = false;
        while process.is_alive() && !or() {
            // A frozen process takes no other signal, and nothing of what it holds is needed after an immediate stop.
            if signal == Signal::SIGQUIT && !insisted && began.elapsed() > INSIST {
                insisted = true;
                process.signal(Signal::SIGKILL);
            }
            if began.elapsed() > Duration::from_secs(60) {
                return Err(Error::Late {
                    what: format!("the stop of {}", self.database),
                    seconds: 60,
                    hint: format!("see {}", self.folder.join("log").display()),
                });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Whether the control file says that a writer was shut down.
    fn is_shut_down(&self) -> bool {
        self.control_state() == Some(DB_SHUTDOWNED)
    }

    /// The state in the control file: its fifth word, in all versions since 8.4.
    fn control_state(&self) -> Option<u32> {
        let control = fs::read(self.data().join("global/pg_control")).ok()?;
        Some(u32::from_ne_bytes(control.get(16..20)?.try_into().ok()?))
    }

    /// Where a stopped instance ends, if it was stopped cleanly.
    pub async fn clean_stop(&self) -> Result<Option<CleanStop>, Error> {
        let data = self.data();
        let said = self.programs.run("pg_controldata", self.database.as_str(), |c| {
            c.arg("-D").arg(&data);
        });
        let said = said.await?;
        let value = |name: &str| said.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
        if value("Database cluster state:") != Some("shut down") {
            return Ok(None);
        }
        let checkpoint = value("Latest checkpoint location:").and_then(|t| t.parse::<Lsn>().ok());
        // Positions that a standby reports are ends of records, and the shutdown checkpoint is the last record: whoever has
        // applied anything beyond its first byte has applied all of it.
        Ok(checkpoint.map(|checkpoint| CleanStop { checkpoint, end: Lsn(checkpoint.0 + 1) }))
    }

    /// Whether a rewind takes the data for one that has gone on beyond a place: it looks at where the last checkpoint lies, or
    /// where a standby would be consistent, and not at the log.
    pub async fn shows_more_than(&self, place: Lsn) -> Result<bool, Error> {
        let data = self.data();
        let said = self.programs.run("pg_controldata", self.database.as_str(), |c| {
            c.arg("-D").arg(&data);
        });
        let said = said.await?;
        let names = ["Minimum recovery ending location:", "Latest checkpoint location:"];
        let places = names.iter().filter_map(|name| {
            said.lines().find_map(|l| l.strip_prefix(name)).and_then(|t| t.trim().parse::<Lsn>().ok())
        });
        Ok(places.max().is_some_and(|end| end > place))
    }

    /// Recover stopped data as a writer's, and stop it again, with nobody able to reach it meanwhile: a checkpoint is the last
    /// thing in its log then. So does pg_rewind with data that was not stopped cleanly.
    pub async fn recover_alone(&self) -> Result<(), Error> {
        self.release_locks().await?;
        let data = self.data();
        let run = self.programs.run("postgres", self.database.as_str(), |c| {
            c.arg("--single").arg("-F").arg("-D").arg(&data).arg("template1");
        });
        run.await.map(|_| ())
    }

    /// The place from which a stopped standby needs the log to follow again: what comes before it has itself.
    pub async fn follows_from(&self) -> Result<Option<Lsn>, Error> {
        if !self.has_data() || !self.is_standby() {
            return Ok(None);
        }
        let data = self.data();
        let said = self.programs.run("pg_controldata", self.database.as_str(), |c| {
            c.arg("-D").arg(&data);
        });
        let said = said.await?;
        let place = |name: &str| said.lines().find_map(|l| l.strip_prefix(name)).and_then(|t| t.trim().parse().ok());
        let ends: Option<Lsn> = place("Minimum recovery ending location:");
        let redo: Option<Lsn> = place("Latest checkpoint's REDO location:");
        // PostgreSQL asks for whole segments.
        let segment = super::share::SEGMENT_BYTES;
        Ok(ends.max(redo).map(|end| Lsn(end.0 / segment * segment)))
    }
}

/// States of the control file (`src/include/catalog/pg_control.h`: `DBState`).
const DB_SHUTDOWNED: u32 = 1;
const DB_IN_ARCHIVE_RECOVERY: u32 = 5;

/// Remove a folder with everything in it, if it is there.
pub fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { what: format!("clear {}", folder.display()), cause: error })
        }
        _ => Ok(()),
    }
}

impl Instance {
    /// Let the kernel write out what it holds for the volume of the data: a later flush of PostgreSQL waits behind it.
    pub async fn write_out(&self) -> Result<(), Error> {
        let data = self.data();
        let what = || format!("write out the volume of {}", data.display());
        let volume = fs::File::open(&data).map_err(Error::file(what()))?;
        let written = tokio::task::spawn_blocking(move || nix::unistd::syncfs(volume)).await;
        let written = written.map_err(std::io::Error::other).and_then(|done| done.map_err(std::io::Error::from));
        written.map_err(Error::file(what()))
    }
}

/// Size and free bytes of the volume that holds a folder.
pub fn volume(folder: &Path) -> Option<(u64, u64)> {
    let stat = nix::sys::statvfs::statvfs(folder).ok()?;
    Some((stat.blocks() * stat.fragment_size(), stat.blocks_available() * stat.fragment_size()))
}

/// The folder of the instance's socket: in its own folder, or, where that path is too long for a socket, a short one.
fn socket_folder(folder: &Path) -> PathBuf {
    let own = folder.join("socket");
    if own.as_os_str().len() <= SOCKET_FOLDER_BYTES_MAX {
        return own;
    }
    let hash = Sha256::digest(own.as_os_str().as_encoded_bytes());
    let short: String = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
    std::env::temp_dir().join(format!("standfast-{short}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_instance_that_was_killed_while_it_wrote_its_locks_starts_again() {
        let folder = std::env::temp_dir().join(format!("standfast-agent-locks-{}", std::process::id()));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let secret = PoolSecret::from_text("0123456789abcdef0123456789abcdef0123456789abcdef").unwrap();
        let (host, database) = (HostName::from("a"), DatabaseName::from("mgc"));
        let programs = Programs::find().unwrap();
        let instance = Instance::new(&folder, &host, &database, ("127.0.0.1".into(), port), programs, &secret);
        instance.initdb().await.unwrap();
        let process = instance.start().await.unwrap();
        instance.until_postgres_answers(process).await.unwrap();
        process.signal(Signal::SIGKILL);
        kill_those_in(&instance.data());

        let locks = [
            instance.data().join("postmaster.pid"),
            instance.socket.join(format!(".s.PGSQL.{port}.lock")),
            instance.socket.join(format!(".s.PGSQL.{port}")),
        ];
        assert!(locks.iter().all(|lock| lock.exists()), "{locks:?} are what PostgreSQL leaves");
        for lock in &locks[..2] {
            fs::write(lock, "").unwrap();
        }
        let process = instance.start().await.unwrap();
        instance.until_postgres_answers(process).await.unwrap();
        instance.stop(process, Signal::SIGINT).await.unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
