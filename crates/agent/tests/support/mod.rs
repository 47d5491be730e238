//! Agents of a pool over two sites in this process, with the PostgreSQL instances that they start, in a folder of the
//! test's own. There is no conductor: the test gives the orders.

#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../../../store/tests/support/port.rs"]
mod port;

use cluster::order::{Order, Outcome, Stamp, StampedOrder};
use cluster::record::{DatabaseRecord, PoolRecord, PoolState};
use cluster::report::{HostReport, InstanceReport, OrderReport};
use cluster::secret::{PoolSecret, Purpose, ROLE_ADMIN};
use cluster::wal::Lsn;
pub use port::free_port;
use rules::id::Epoch;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wire::agent::{RecordAnswer, SetRecord};

/// The secret of the pool.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
/// Longest time that anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host: its agent's port and PostgreSQL's.
#[derive(Clone, Debug)]
struct At {
    name: &'static str,
    agent: u16,
    postgres: u16,
}

/// The pool.
pub struct World {
    pub dir: PathBuf,
    hosts: Vec<At>,
    http: reqwest::Client,
    stamp: AtomicU64,
    /// The folder in which the share's files lie, wherever it is.
    share: PathBuf,
    /// What each agent said when it answered for the first time.
    pub first_answers: BTreeMap<&'static str, HostReport>,
}

impl World {
    /// Two sites with a host each: `a` for the primary, `b` for the backup. The stream from `a` to `b` leads to
    /// `stream_port`, whatever listens there.
    pub async fn two_sites(stream_port: Option<u16>) -> Self {
        let share = Self::folder().join("share");
        std::fs::create_dir_all(&share).expect("a folder for the share");
        Self::shipping_through(stream_port, &format!("share = \"{}\"", share.display()), share, None).await
    }

    /// The folder of this test.
    pub fn folder() -> PathBuf {
        std::env::temp_dir().join(format!("standfast-agent-{}", std::process::id()))
    }

    /// The same with another share: its settings, the folder in which its files lie, and the key to it.
    pub async fn shipping_through(stream_port: Option<u16>, settings: &str, share: PathBuf, key: Option<&str>) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_env("STANDFAST_LOG");
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let dir = Self::folder();
        let hosts: Vec<At> =
            ["a", "b"].map(|name| At { name, agent: free_port(), postgres: free_port() }).into_iter().collect();
        let topology = topology(settings, &hosts, stream_port.unwrap_or(hosts[0].postgres));
        let (http, stamp) = (reqwest::Client::new(), AtomicU64::new(1));
        let mut world = Self { dir, hosts, http, stamp, share, first_answers: BTreeMap::new() };
        for host in &world.hosts {
            let folder = world.dir.join(host.name);
            std::fs::create_dir_all(&folder).expect("a folder for the host");
            std::fs::write(folder.join("topology.toml"), &topology).expect("the folder takes files");
            std::fs::write(folder.join("pool.secret"), SECRET).expect("the folder takes files");
            if let Some(key) = key {
                std::fs::write(folder.join("s3.credentials"), key).expect("the folder takes files");
            }
            let config = agent::Config { dir: folder, host: host.name.into(), without_peer: false };
            tokio::spawn(async move { agent::run(config, agent::Beside::nothing()).await.expect("the agent runs") });
        }
        for host in ["a", "b"] {
            let first = Mutex::new(None);
            let answers = async |w: &World| {
                let report = w.report(host).await;
                let answered = report.is_some();
                *first.lock().expect("nothing panics while it holds an answer") = report;
                answered
            };
            world.until(&format!("the agent of {host} answers"), answers).await;
            let first = first.into_inner().expect("nothing panicked").expect("it has answered");
            world.first_answers.insert(host, first);
        }
        world
    }

    fn at(&self, host: &str) -> &At {
        self.hosts.iter().find(|h| h.name == host).expect("the host is one of the test's")
    }

    fn bearer() -> String {
        PoolSecret::from_text(SECRET).expect("it is long enough").derive(Purpose::AgentApi)
    }

    /// What an agent says.
    pub async fn report(&self, host: &str) -> Option<HostReport> {
        let url = format!("http://127.0.0.1:{}/v1/report", self.at(host).agent);
        self.http.get(url).bearer_auth(Self::bearer()).send().await.ok()?.json().await.ok()
    }

    /// What an agent says of its instance.
    pub async fn instance(&self, host: &str) -> InstanceReport {
        let report = self.report(host).await.expect("the agent answers");
        report.instances.get(&"mgc".into()).cloned().expect("the host has an instance")
    }

    /// Change the record at the authority of a host's site, from what that host knows.
    pub async fn set_record(&self, host: &str, change: impl FnOnce(&mut PoolRecord)) -> PoolRecord {
        let known = self.report(host).await.expect("the agent answers").record;
        let expected_version = known.as_ref().map_or(0, |r| r.version);
        let mut record = known.unwrap_or_else(first_record);
        record.version = expected_version + 1;
        change(&mut record);
        let url = format!("http://127.0.0.1:{}/v1/record", self.at(host).agent);
        let body = SetRecord { expected_version, record: record.clone() };
        let answer = self.http.post(url).bearer_auth(Self::bearer()).json(&body).send().await.expect("it answers");
        let answer: RecordAnswer = answer.json().await.expect("an answer of the API");
        assert!(matches!(answer, RecordAnswer::Taken), "{answer:?}");
        record
    }

    /// The record of a failover to `b` in epoch 2, as the authority there has it before `b` is promoted.
    pub async fn record_failover(&self) {
        let change = |r: &mut PoolRecord| {
            r.epoch = Epoch(2);
            r.home = "site-2".into();
            r.databases.entry("mgc".into()).or_default().principal = None;
            r.lost_sites.insert("site-1".into(), Epoch(2));
        };
        self.set_record("b", change).await;
    }

    /// Give an order with the next stamp, and wait until it is over.
    pub async fn order(&self, host: &str, epoch: i64, order: Order) -> Outcome {
        let number = self.stamp.fetch_add(1, Ordering::Relaxed);
        self.order_stamped(host, Stamp { epoch, version: 1, number }, order).await
    }

    /// Give an order with this stamp.
    pub async fn order_stamped(&self, host: &str, stamp: Stamp, order: Order) -> Outcome {
        let url = format!("http://127.0.0.1:{}/v1/orders?wait_ms=60000", self.at(host).agent);
        let body = StampedOrder { stamp, run: "test".into(), order };
        let answer = self.http.post(url).bearer_auth(Self::bearer()).json(&body).send().await.expect("it answers");
        answer.json::<OrderReport>().await.expect("an answer of the API").outcome
    }

    /// Give an order that has to be carried out.
    pub async fn done(&self, host: &str, epoch: i64, order: Order) -> String {
        match self.order(host, epoch, order.clone()).await {
            Outcome::Done { detail } => detail,
            other => panic!("{host}: {order:?}: {other:?}"),
        }
    }

    /// A connection to an instance, as the agent's superuser.
    pub async fn sql(&self, host: &str) -> tokio_postgres::Client {
        let password = PoolSecret::from_text(SECRET).expect("it is long enough").derive(Purpose::PostgresAdmin);
        let port = self.at(host).postgres;
        let config = format!("host=127.0.0.1 port={port} user={ROLE_ADMIN} password={password} dbname=mgc");
        let (client, connection) =
            tokio_postgres::connect(&config, tokio_postgres::NoTls).await.expect("PostgreSQL takes connections");
        tokio::spawn(connection);
        client
    }

    /// The port of a host's PostgreSQL.
    pub fn postgres_port(&self, host: &str) -> u16 {
        self.at(host).postgres
    }

    /// The file that pg_receivewal is writing in the share of epoch 1.
    pub fn being_written(&self) -> Option<PathBuf> {
        let files = std::fs::read_dir(self.share.join("mgc/1/stream")).into_iter().flatten().flatten();
        files.map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "partial")).max()
    }

    /// Whether the share holds the log up to here: the segment is there, and is not empty beyond that place.
    pub fn in_share(&self, written: Lsn) -> bool {
        let segment = format!("{:08X}{:08X}", written.0 >> 32, (written.0 & 0xFFFF_FFFF) >> 20);
        let offset = usize::try_from(written.0 & 0xF_FFFF).expect("an offset in a segment fits");
        ["stream", "wal"].iter().any(|part| {
            let folder = self.share.join("mgc/1").join(part);
            let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
            files
                .filter(|f| f.file_name().to_string_lossy().get(8..24) == Some(segment.as_str()))
                .filter_map(|f| std::fs::read(f.path()).ok())
                .any(|bytes| offset > 0 && bytes.get(offset - 8..offset).is_some_and(|b| b.iter().any(|b| *b != 0)))
        })
    }

    /// Whether PostgreSQL has been told to promote a host's instance: it looks for this file when it is woken.
    pub fn asked_to_be_promoted(&self, host: &str) -> bool {
        self.dir.join(host).join("pg/mgc/data/promote").exists()
    }

    fn postmaster(&self, host: &str) -> Option<i32> {
        let pid = self.dir.join(host).join("pg/mgc/data/postmaster.pid");
        std::fs::read_to_string(pid).ok()?.lines().next()?.trim().parse().ok()
    }

    /// SIGKILL to a host's postmaster and its children.
    pub fn kill_postgres(&self, host: &str) {
        let pid = nix::unistd::Pid::from_raw(self.postmaster(host).expect("it runs"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
    }

    /// The same; returns when the agent has begun to start it again.
    pub async fn crash_postgres(&self, host: &str) {
        let before = self.postmaster(host);
        self.kill_postgres(host);
        self.until("its agent starts it again", async |w| w.postmaster(host).is_some_and(|now| Some(now) != before))
            .await;
    }

    /// Wait until `seen` holds.
    pub async fn until(&self, what: &str, seen: impl AsyncFn(&World) -> bool) {
        let began = Instant::now();
        while !seen(self).await {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in &self.hosts {
            if let Some(pid) = self.postmaster(host.name) {
                // These are the postmasters of this test's own folder.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
            }
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The record of a pool whose primary is `a`.
pub fn first_record() -> PoolRecord {
    PoolRecord {
        version: 0,
        epoch: Epoch(1),
        state: PoolState::Normal,
        home: "site-1".into(),
        active_servers: Vec::new(),
        databases: [("mgc".into(), DatabaseRecord { principal: Some("a".into()), ..DatabaseRecord::default() })].into(),
        lost_sites: BTreeMap::new(),
        run: None,
    }
}

fn topology(log_shipping: &str, hosts: &[At], stream_port: u16) -> String {
    let mut text = String::from("pool = \"test.standfast.example\"\n");
    for (site, host) in [("site-1", "a"), ("site-2", "b")] {
        write!(text, "\n[[site]]\nname = \"{site}\"\nauthority = \"{host}\"\n").expect("a string takes text");
    }
    for (site, host) in ["site-1", "site-2"].into_iter().zip(hosts) {
        let (name, port) = (host.name, host.agent);
        write!(text, "\n[[host]]\nname = \"{name}\"\nsite = \"{site}\"\nagent = {{ at = \"127.0.0.1:{port}\" }}\n")
            .expect("a string takes text");
    }
    let (primary, backup) = (hosts[0].postgres, hosts[1].postgres);
    let seen = if stream_port == primary {
        String::new()
    } else {
        format!(", seen_from = {{ \"site-2\" = \"127.0.0.1:{stream_port}\" }}")
    };
    write!(
        text,
        "\n[[database]]\nname = \"mgc\"\n\
         primary = {{ host = \"a\", postgres = {{ at = \"127.0.0.1:{primary}\"{seen} }} }}\n\
         backup = {{ host = \"b\", postgres = {{ at = \"127.0.0.1:{backup}\" }} }}\n\
         log_shipping = {{ {log_shipping} }}\n"
    )
    .expect("a string takes text");
    let (clients, link) = (free_port(), free_port());
    write!(
        text,
        "\n[[server]]\nname = \"server-1\"\nhost = \"a\"\nclients = {{ at = \"127.0.0.1:{clients}\" }}\n\
         link = {{ at = \"127.0.0.1:{link}\" }}\nactive = true\n"
    )
    .expect("a string takes text");
    text
}

/// A port that leads to another one, or to nobody.
pub struct Relay {
    /// The port.
    pub port: u16,
    to: tokio::sync::watch::Sender<Option<u16>>,
}

impl Relay {
    /// A new one.
    pub async fn to_nobody() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = tokio::sync::watch::Sender::new(None);
        let state = to.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = state.clone();
                let Some(port) = *state.borrow_and_update() else { continue };
                tokio::spawn(async move {
                    let Ok(mut far) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.changed() => {}
                    }
                });
            }
        });
        Self { port, to }
    }

    /// From now on it leads there.
    pub fn lead_to(&self, port: u16) {
        self.to.send_replace(Some(port));
    }

    /// From now on it leads nowhere.
    pub fn cut(&self) {
        self.to.send_replace(None);
    }
}
