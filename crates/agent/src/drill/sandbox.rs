//! A failover, rehearsed on a copy: the standby is copied online, the copy follows it, and at one moment counts as all that is
//! left. It is promoted, a real chat server serves from it, somebody posts and reads, and every entry is read.

use super::Steps;
use super::client::Client;
use crate::database::Database;
use crate::error::Error;
use crate::files;
use crate::host::Host;
use crate::postgres::instance::Instance;
use crate::postgres::process::Process;
use crate::postgres::rebuild::base_backup;
use cluster::name::{DatabaseName, HostName};
use cluster::record::{DatabaseRecord, PoolRecord, PoolState};
use cluster::report::HostReport;
use cluster::secret::{PoolSecret, Purpose, ROLE_CHAT, ROLE_REPLICATION, SECRET_FILE};
use cluster::topology_file::CONTENT_DATABASE;
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Longest wait for the copy to have what its source had.
const FOLLOW_MAX: Duration = Duration::from_secs(60);

/// What the sandbox's one host, site and server are called.
const NAME: &str = "drill";

/// The database that is copied: chat servers know it by this name.
fn content() -> DatabaseName {
    CONTENT_DATABASE.into()
}

/// Where the data of a drill in this folder is.
pub fn data(folder: &Path) -> PathBuf {
    folder.join("pg").join(CONTENT_DATABASE).join("data")
}

/// Where its copy is made.
pub fn fresh_data(folder: &Path) -> PathBuf {
    folder.join("pg").join(CONTENT_DATABASE).join("data.new")
}

/// A throwaway pool of one host.
struct Sandbox {
    folder: PathBuf,
    instance: Instance,
    secret: PoolSecret,
    epoch: Epoch,
    clients_at: String,
}

/// What stood at the moment of the loss.
struct Moment {
    at: Instant,
    at_ms: i64,
    /// What the principal had written, and its entries; `None` when it did not answer.
    principal: Option<(Lsn, Option<u64>)>,
    /// What the standby had.
    standby: Lsn,
}

/// Rehearse; what is left in the folder afterwards is for the caller to clear away, whatever came of it.
///
/// # Errors
/// What failed, and on what: the drill has shown that a failover would have met the same.
pub async fn rehearse(host: &Host, database: &Database, folder: &Path, id: &str) -> Result<(), Error> {
    if database.name != content() {
        return Err(Error::Unfit(format!("chat servers serve from {CONTENT_DATABASE}, not from {}", database.name)));
    }
    let steps = Steps { host };
    let sandbox = Sandbox::prepare(host, folder)?;
    let source = format!("{}:{}", loopback(&database.instance.listen.0), database.instance.listen.1);
    steps.step("Copy the standby online.", base_backup(&sandbox.instance, &source)).await?;
    let process = steps.step("Let the copy follow its standby.", sandbox.follow(&source)).await?;
    let _server = sandbox.start_server()?;
    let moment = Moment::now(host, database).await?;
    steps
        .step("Take this moment for the loss, and apply what the standby has.", sandbox.apply(process, moment.standby))
        .await?;
    steps.step("Promote the copy, and begin a new epoch in it.", sandbox.promote()).await?;
    let client = Client::new(&sandbox.clients_at, id)?;
    let room = steps.step("Sign in, and make a room.", Box::pin(sandbox.make_room(&client, id))).await?;
    steps.step("Post, and wait for the acknowledgement.", client.post(room)).await?;
    let rto_ms = moment.at.elapsed().as_millis() as u64;
    host.drills.note(|report| report.rto_ms = Some(rto_ms));
    steps.step("Read the post again.", client.read_again(room)).await?;
    let last_applied_ms = sandbox.last_applied_ms().await?;
    let whole = steps
        .step("Read every entry of every room, and check it against the room's chain.", sandbox.read_all(room))
        .await?;
    host.drills.note(|report| {
        report.rooms = whole.rooms;
        report.entries = whole.entries;
        if let Some((written, entries)) = moment.principal {
            report.rpo_entries = entries.map(|had| had.saturating_sub(whole.numbers));
            let older = last_applied_ms.map(|at| u64::try_from(moment.at_ms - at).unwrap_or(0));
            report.rpo_ms = if moment.standby >= written { Some(0) } else { older };
        }
    });
    if let [first, others @ ..] = whole.faults.as_slice() {
        let others = match others.len() {
            0 => String::new(),
            n => format!(", nor do entries of {n} other rooms"),
        };
        return Err(Error::Unfit(format!(
            "the copy is not whole: {first}{others}; see whether the principal has it too: standfast verify pool"
        )));
    }
    Ok(())
}

/// An address to connect to for one to listen on.
fn loopback(listens: &str) -> &str {
    match listens {
        "0.0.0.0" | "*" | "" => "127.0.0.1",
        "::" => "[::1]",
        other => other,
    }
}

/// Ports of this machine that nobody uses now.
fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let failed = || Error::file("look for a free port");
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed())?;
        *port = listener.local_addr().map_err(failed())?.port();
        held.push(listener);
    }
    Ok(ports)
}

impl Moment {
    /// Now. What the principal has is asked before what the standby has, so that nothing counts as lost that was on its way.
    async fn now(host: &Host, database: &Database) -> Result<Self, Error> {
        let record = host.store.record();
        let principal = record.and_then(|r| r.databases.get(&database.name)?.principal.clone());
        let asked = async {
            let base = host.agent_of(principal.as_ref()?)?;
            let report: HostReport = host.http.get(format!("{base}/v1/report")).send().await.ok()?.json().await.ok()?;
            let instance = report.instances.get(&database.name)?;
            Some((instance.written?, instance.entries))
        };
        let principal = asked.await;
        let probe = database.probe().await;
        let gone = || Error::Unfit("the standby that is copied does not answer any more".into());
        let standby = probe.map(|p| p.written).ok_or_else(gone)?;
        Ok(Self { at: Instant::now(), at_ms: jiff::Timestamp::now().as_millisecond(), principal, standby })
    }
}

impl Sandbox {
    /// Folders and files of a pool that knows nobody else. Its secret is new: with it nothing of the real pool can be opened.
    fn prepare(host: &Host, folder: &Path) -> Result<Self, Error> {
        let [postgres, clients, link, agent] = free_ports()?;
        let text: String = rand::random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect();
        let secret = PoolSecret::from_text(&text).map_err(|e| Error::Unfit(e.to_string()))?;
        let epoch = Epoch(host.store.record().map_or(Epoch::FIRST, |r| r.epoch).0 + 1);
        let name: HostName = NAME.into();
        let record = PoolRecord {
            version: 1,
            epoch,
            state: PoolState::Normal,
            home: NAME.into(),
            active_servers: vec![NAME.into()],
            databases: [(content(), DatabaseRecord { principal: Some(name.clone()), ..DatabaseRecord::default() })]
                .into(),
            lost_sites: [].into(),
            run: None,
        };
        let topology = format!(
            "pool = \"drill.invalid\"\n[[site]]\nname = \"{NAME}\"\nauthority = \"{NAME}\"\n[[host]]\nname = \"{NAME}\"\nsite = \
             \"{NAME}\"\nagent = {{ at = \"127.0.0.1:{agent}\" }}\n[[database]]\nname = \"{CONTENT_DATABASE}\"\nprimary = {{ host = \
             \"{NAME}\", postgres = {{ at = \"127.0.0.1:{postgres}\" }} }}\n[[server]]\nname = \"{NAME}\"\nhost = \"{NAME}\"\nclients = \
             {{ at = \"127.0.0.1:{clients}\" }}\nlink = {{ at = \"127.0.0.1:{link}\" }}\nactive = true\n"
        );
        let what = || format!("prepare {}", folder.display());
        std::fs::create_dir_all(folder.join("store")).map_err(Error::file(what()))?;
        files::replace(&folder.join(SECRET_FILE), text.as_bytes(), 0o600).map_err(Error::file(what()))?;
        files::replace(&folder.join("topology.toml"), topology.as_bytes(), 0o600).map_err(Error::file(what()))?;
        files::replace_json(&folder.join("store/record.json"), &record).map_err(Error::file(what()))?;
        let listen = ("127.0.0.1".to_owned(), postgres);
        let instance = Instance::new(folder, &name, &content(), listen, host.programs.clone(), &host.secret);
        Ok(Self { folder: folder.to_owned(), instance, secret, epoch, clients_at: format!("127.0.0.1:{clients}") })
    }

    /// Start the copy as a standby of its source. It reads no share, and writes none: its archive command keeps nothing.
    async fn follow(&self, source: &str) -> Result<Process, Error> {
        let mut conf = self.instance.plain_conf();
        conf.stream_from =
            Some(self.instance.connection_to(source, ROLE_REPLICATION, "replication", "standfast_drill"));
        self.instance.configure(&conf)?;
        let process = self.instance.start().await?;
        self.instance.until_postgres_answers(process).await?;
        Ok(process)
    }

    /// Wait until the copy has applied the log up to here.
    async fn apply(&self, process: Process, up_to: Lsn) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let applied = self.instance.sql.probe().await.map(|p| p.applied).unwrap_or_default();
            if applied >= up_to {
                return Ok(());
            }
            if !process.is_alive() || began.elapsed() > FOLLOW_MAX {
                return Err(Error::Late {
                    what: format!("the copy: it has applied {applied} of {up_to}"),
                    seconds: began.elapsed().as_secs(),
                    hint: "see standfast log-shipping state: its source may not have the log any more".into(),
                });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn promote(&self) -> Result<(), Error> {
        let sql = &self.instance.sql;
        sql.promote().await?;
        sql.call_chat("begin_epoch", self.epoch).await?;
        // The drill's own server, and no other, signs in.
        let password = self.secret.derive(Purpose::PostgresChat);
        let statement = format!("ALTER ROLE {ROLE_CHAT} PASSWORD '{password}'");
        sql.run_apart("let the drill's server in", "postgres", &[&statement]).await
    }

    /// A real chat server, which looks for its writer from now on. It ends with what is returned.
    fn start_server(&self) -> Result<tokio::process::Child, Error> {
        let program = std::env::current_exe().map_err(Error::file("find the program"))?;
        let path = self.folder.join("server.log");
        let log = std::fs::File::create(&path).map_err(Error::file(format!("create {}", path.display())))?;
        let errors = log.try_clone().map_err(Error::file("open the server's log"))?;
        let mut command = tokio::process::Command::new(&program);
        command.arg("--dir").arg(&self.folder).args(["serve", "--server", NAME]);
        command.env_remove("STANDFAST_DIR").stdin(Stdio::null()).stdout(log).stderr(errors);
        command.process_group(0).kill_on_drop(true);
        command.spawn().map_err(Error::file(format!("start {}", program.display())))
    }

    /// A room of the drill's own, in which its own user may post.
    async fn make_room(&self, client: &Client, id: &str) -> Result<rules::id::RoomId, Error> {
        let (host, port) = (&self.instance.listen.0, self.instance.listen.1);
        let password = self.secret.derive(Purpose::PostgresChat);
        let target = store::Target::new((host, port), ROLE_CHAT, &password, CONTENT_DATABASE, "standfast drill");
        let nobody = store::FirstAdministrator { name: id.to_owned(), password_hash: String::new() };
        let failed =
            |e: store::StoreError| Error::Peer { what: "make a user on the copy".into(), cause: e.to_string() };
        let store = store::Store::open(&target, self.epoch, &nobody).await.map_err(failed)?;
        let token = client.user(&store).await.map_err(failed)?;
        store.close();
        client.make_room(token).await
    }

    /// When what was applied last had been committed, in milliseconds since the Unix epoch, by the clock of its writer.
    async fn last_applied_ms(&self) -> Result<Option<i64>, Error> {
        let client = self.instance.sql.client().await?;
        let sql = "SELECT (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000)::bigint";
        let failed =
            |e: tokio_postgres::Error| Error::Peer { what: "ask what was applied last".into(), cause: e.to_string() };
        Ok(client.query_one(sql, &[]).await.map_err(failed)?.get(0))
    }

    async fn read_all(&self, but: rules::id::RoomId) -> Result<store::whole::Whole, Error> {
        let client = self.instance.sql.client().await?;
        let failed = |e: store::StoreError| Error::Peer { what: "read the copy".into(), cause: e.to_string() };
        store::whole::read_all(&client, "the copy", but).await.map_err(failed)
    }
}
