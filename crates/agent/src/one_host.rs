//! A pool of one host in a folder of its own, around a copy of the content database: for a drill, for the proof of a backup, and
//! as what a backup is restored to.
//!
//! Its addresses are of this machine alone, its archive command keeps nothing, and its record gives the pool to its own host.

use crate::error::Error;
use crate::files;
use crate::host::Host;
use crate::postgres::instance::Instance;
use cluster::name::{DatabaseName, HostName};
use cluster::record::{DatabaseRecord, PoolRecord, PoolState};
use cluster::secret::{PoolSecret, Purpose, ROLE_CHAT, SECRET_FILE};
use cluster::topology_file::CONTENT_DATABASE;
use rules::id::{Epoch, RoomId};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How far below the ports of connections a free one is looked for.
const PORTS_BELOW: u16 = 2_700;
/// Tries to find one.
const PORTS_TRIED: u32 = 1_000;
/// Longest wait for the database to take a connection.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// What its one site, host and server are called.
#[derive(Clone, Debug)]
pub struct Names {
    /// The pool.
    pub pool: String,
    /// The site.
    pub site: String,
    /// The host.
    pub host: HostName,
    /// The chat server.
    pub server: String,
}

/// The pool.
pub struct OneHost {
    /// Where everything of it lies.
    pub folder: PathBuf,
    /// Its database.
    pub instance: Instance,
    /// The epoch that begins in it.
    pub epoch: Epoch,
    /// Where its server listens for clients.
    pub clients_at: String,
    server: String,
    secret: PoolSecret,
}

/// The database that chat servers know.
pub fn content() -> DatabaseName {
    CONTENT_DATABASE.into()
}

/// Where its data is.
pub fn data(folder: &Path) -> PathBuf {
    folder.join("pg").join(CONTENT_DATABASE).join("data")
}

/// A secret that nobody has: with it nothing of another pool can be opened.
pub fn new_secret() -> String {
    rand::random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect()
}

/// Ports of this machine that nobody uses now, below those that the system gives to connections: one of those might be taken
/// before it is listened on.
fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let given_from = range.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(32_768_u16);
    let below = given_from.saturating_sub(PORTS_BELOW).max(1_024)..given_from.max(1_025);
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let free =
            (0..PORTS_TRIED).find_map(|_| TcpListener::bind(("127.0.0.1", rand::random_range(below.clone()))).ok());
        let none = || Error::Unfit(format!("no port between {} and {} of 127.0.0.1 is free", below.start, below.end));
        let listener = free.ok_or_else(none)?;
        *port = listener.local_addr().map_err(Error::file("look for a free port"))?.port();
        held.push(listener);
    }
    Ok(ports)
}

impl OneHost {
    /// Folders and files, without the data. `roles` is the secret that the roles of the data have their passwords from.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn prepare(
        host: &Host,
        folder: &Path,
        names: Names,
        secret: &str,
        roles: &PoolSecret,
        epoch: Epoch,
    ) -> Result<Self, Error> {
        let [postgres, clients, link, agent] = free_ports()?;
        let Names { pool, site, host: name, server } = names;
        let record = PoolRecord {
            version: 1,
            epoch,
            state: PoolState::Normal,
            home: site.as_str().into(),
            active_servers: vec![server.as_str().into()],
            databases: [(content(), DatabaseRecord { principal: Some(name.clone()), ..DatabaseRecord::default() })]
                .into(),
            lost_sites: [].into(),
            run: None,
        };
        let topology = format!(
            "pool = \"{pool}\"\n\n[[site]]\nname = \"{site}\"\nauthority = \"{name}\"\n\n[[host]]\nname = \"{name}\"\nsite = \
             \"{site}\"\nagent = {{ at = \"127.0.0.1:{agent}\" }}\n\n[[database]]\nname = \"{CONTENT_DATABASE}\"\nprimary = {{ host = \
             \"{name}\", postgres = {{ at = \"127.0.0.1:{postgres}\" }} }}\n\n[[server]]\nname = \"{server}\"\nhost = \
             \"{name}\"\nclients = {{ at = \"127.0.0.1:{clients}\" }}\nlink = {{ at = \"127.0.0.1:{link}\" }}\nactive = true\n"
        );
        let what = || format!("prepare {}", folder.display());
        std::fs::create_dir_all(folder.join("store")).map_err(Error::file(what()))?;
        files::replace(&folder.join(SECRET_FILE), secret.as_bytes(), 0o600).map_err(Error::file(what()))?;
        files::replace(&folder.join("topology.toml"), topology.as_bytes(), 0o600).map_err(Error::file(what()))?;
        files::replace_json(&folder.join("store/record.json"), &record).map_err(Error::file(what()))?;
        let listen = ("127.0.0.1".to_owned(), postgres);
        let instance = Instance::new(folder, &name, &content(), listen, host.programs.clone(), roles);
        let secret = PoolSecret::from_text(secret.trim()).map_err(|e| Error::Unfit(e.to_string()))?;
        let clients_at = format!("127.0.0.1:{clients}");
        Ok(Self { folder: folder.to_owned(), instance, secret, epoch, clients_at, server })
    }

    /// Let the pool's own server sign in to the database, and no other that knows the secret of the data.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn let_in(&self) -> Result<(), Error> {
        let password = self.secret.derive(Purpose::PostgresChat);
        let statement = format!("ALTER ROLE {ROLE_CHAT} PASSWORD '{password}'");
        self.instance.sql.run_apart("let the pool's server in", "postgres", &[&statement]).await
    }

    /// A real chat server, which looks for its writer from now on. It ends with what is returned.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_server(&self) -> Result<tokio::process::Child, Error> {
        let program = std::env::current_exe().map_err(Error::file("find the program"))?;
        let path = self.folder.join("server.log");
        let log = std::fs::File::create(&path).map_err(Error::file(format!("create {}", path.display())))?;
        let errors = log.try_clone().map_err(Error::file("open the server's log"))?;
        let mut command = tokio::process::Command::new(&program);
        command.arg("--dir").arg(&self.folder).args(["serve", "--server", &self.server]);
        command.env_remove("STANDFAST_DIR").stdin(Stdio::null()).stdout(log).stderr(errors);
        command.process_group(0).kill_on_drop(true);
        command.spawn().map_err(Error::file(format!("start {}", program.display())))
    }

    /// A user of this name, an administrator of the copy, with a token.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn user(&self, name: &str) -> Result<store::Token, Error> {
        let (host, port) = (&self.instance.listen.0, self.instance.listen.1);
        let password = self.secret.derive(Purpose::PostgresChat);
        let target = store::Target::new((host, port), ROLE_CHAT, &password, CONTENT_DATABASE, "standfast drill");
        let nobody = store::FirstAdministrator { name: name.to_owned(), password_hash: String::new() };
        let failed =
            |e: store::StoreError| Error::Peer { what: "make a user on the copy".into(), cause: e.to_string() };
        let began = Instant::now();
        let store = loop {
            match store::Store::open(&target, self.epoch, &nobody).await {
                // A busy machine.
                Err(store::StoreError::TimedOut { .. }) if began.elapsed() < OPEN_MAX => {}
                opened => break opened.map_err(failed)?,
            }
        };
        let user = store::NewUserRow { name: name.to_owned(), password_hash: None, administrator: true };
        let id = store.create_user(&user, rules::id::PrincipalId(1)).await.map_err(failed)?;
        let token = store::Token::new();
        store.add_token(id, &token.hash()).await.map_err(failed)?;
        store.close();
        Ok(token)
    }

    /// When what was applied last had been committed, in milliseconds since the Unix epoch, by the clock of its writer.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn last_applied_ms(&self) -> Result<Option<i64>, Error> {
        let client = self.instance.sql.client().await?;
        let sql = "SELECT (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000)::bigint";
        let failed =
            |e: tokio_postgres::Error| Error::Peer { what: "ask what was applied last".into(), cause: e.to_string() };
        Ok(client.query_one(sql, &[]).await.map_err(failed)?.get(0))
    }

    /// Read every entry of every room but one, and check it against its room's chain.
    ///
    /// # Errors
    /// When the database does not answer; and when something does not fit, with the first entry that does not.
    pub async fn read_all(&self, but: RoomId) -> Result<store::whole::Whole, Error> {
        let client = self.instance.sql.client().await?;
        let failed = |e: store::StoreError| Error::Peer { what: "read the copy".into(), cause: e.to_string() };
        store::whole::read_all(&client, "the copy", but).await.map_err(failed)
    }
}

/// What a copy that has been read says of itself, if it is not whole.
///
/// # Errors
/// The first entry that does not fit.
pub fn is_whole(whole: &store::whole::Whole) -> Result<(), Error> {
    let [first, others @ ..] = whole.faults.as_slice() else { return Ok(()) };
    let others = match others.len() {
        0 => String::new(),
        n => format!(", nor do entries of {n} other rooms"),
    };
    Err(Error::Unfit(format!(
        "the copy is not whole: {first}{others}; see whether the principal has it too: standfast verify pool"
    )))
}
