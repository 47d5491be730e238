//! What all parts of a server share.

use crate::canary::{Canaries, Turn};
use crate::counts::Counts;
use crate::error::Error;
use crate::forward::Forward;
use crate::held::Held;
use crate::host_folder::HostFolder;
use crate::http::SignIns;
use crate::link::Links;
use crate::mend::Mender;
use crate::mirror::Mirror;
use crate::notices::Listeners;
use crate::outbox::Writers;
use crate::places::Places;
use crate::poster::{self, Poster};
use crate::reception::Reception;
use crate::rooms::Rooms;
use crate::standing::Standing;
use crate::{Config, mend};
use cluster::name::ServerName;
use cluster::record::PoolRecord;
use cluster::secret::{PoolSecret, Purpose, ROLE_CHAT};
use cluster::topology::Topology;
use rules::signature::SigningKey;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{Passwords, Target};
use tokio::sync::{mpsc, watch};

/// Password hashes under way at once: each takes a whole core for tens of milliseconds, and half of the cores are for those
/// who are here.
fn hashes_at_once() -> usize {
    (std::thread::available_parallelism().map_or(1, std::num::NonZero::get) / 2).max(1)
}

/// Topology and record as this host knows them.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The published topology.
    pub topology: Topology,
    /// The pool's record; `None` before the pool is initialised.
    pub record: Option<PoolRecord>,
    /// This server itself, once it has been asked to end: from then on it does not count as active.
    pub ending: Option<ServerName>,
}

impl View {
    /// Whether a server takes clients, as far as this one knows.
    pub fn is_active(&self, server: &ServerName) -> bool {
        self.record.as_ref().is_some_and(|r| r.is_active(server)) && self.ending.as_ref() != Some(server)
    }

    /// Whether another server than this one takes clients.
    pub fn has_another_active(&self, server: &ServerName) -> bool {
        self.record.as_ref().is_some_and(|r| r.active_servers.iter().any(|s| s != server))
    }
}

/// What all parts of a server share.
pub struct App {
    /// This server's name.
    pub name: ServerName,
    /// Where clients connect.
    pub clients_at: String,
    /// The host's folder.
    pub dir: PathBuf,
    /// The pool's secret.
    pub secret: PoolSecret,
    /// Signs receipts.
    pub signing_key: SigningKey,
    /// Topology and record.
    pub view: watch::Sender<Arc<View>>,
    /// How the server stands.
    pub standing: watch::Sender<Standing>,
    /// Rooms with sessions.
    pub rooms: Rooms,
    /// Connections kept to the mirror.
    pub mirror: Mirror,
    /// Write to the sessions.
    pub writers: Writers,
    /// How many connections it takes.
    pub places: Places,
    /// Lets clients in.
    pub reception: Arc<Reception>,
    /// Where sessions live: what is new at the door is not let into it before its turn.
    pub runtime: tokio::runtime::Handle,
    /// Takes posts.
    pub poster: Poster,
    /// Posts that are written and not durable enough yet.
    pub held: Held,
    /// Closes gaps and checks access again.
    pub mender: Mender,
    /// Links to other servers.
    pub links: Links,
    /// Posts that another server writes for this one.
    pub forward: Forward,
    /// What is known of canaries.
    pub canaries: Canaries,
    /// What is counted for metrics.
    pub counts: Counts,
    /// Sessions that can be told something.
    pub listeners: Listeners,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// When those come back for whose passwords there is no room now.
    pub sign_ins: SignIns,
    /// Speaks to the host's agent.
    pub http: reqwest::Client,
    sessions: AtomicU64,
}

/// The receiving ends of the queues in `App`.
pub struct Tasks {
    /// Posts to be written, by lane.
    pub posts: poster::Queues,
    /// Who waits for a turn of the chat path.
    pub turns: mpsc::Receiver<Turn>,
    /// Rooms to be mended, by lane.
    pub mend: mend::Queues,
}

impl App {
    /// The shared state of a server, and the receiving ends of its queues.
    pub fn new(config: Config, folder: HostFolder) -> Result<(Arc<Self>, Tasks), Error> {
        let (poster, posts) = Poster::new();
        let (mender, mend) = Mender::new(poster.shared_lanes());
        let (canaries, turns) = Canaries::new();
        let reception = Reception::new(&folder.secret);
        let runtime = tokio::runtime::Handle::current();
        let app = Self {
            name: config.server,
            clients_at: folder.me.clients.at.clone(),
            dir: config.dir,
            signing_key: folder.secret.signing_key(),
            secret: folder.secret,
            view: watch::Sender::new(Arc::new(folder.view)),
            standing: watch::Sender::new(Standing::waiting("the server has just started")),
            rooms: Rooms::default(),
            mirror: Mirror::default(),
            writers: Writers::new(runtime.metrics().num_workers()),
            places: Places::with(config.open_files),
            reception,
            runtime,
            poster,
            held: Held::default(),
            mender,
            links: Links::default(),
            forward: Forward::default(),
            canaries,
            counts: Counts::default(),
            listeners: Listeners::default(),
            passwords: Passwords::new(hashes_at_once())?,
            sign_ins: SignIns::new(hashes_at_once()),
            http: reqwest::Client::builder().no_proxy().build()?,
            sessions: AtomicU64::new(0),
        };
        Ok((Arc::new(app), Tasks { posts, turns, mend }))
    }

    /// Where and as whom to sign in at the writer at `host:port`, or at the one of a connection string.
    ///
    /// # Errors
    /// When neither is what it should be, in a sentence.
    pub fn target(&self, at: &str) -> Result<Target, String> {
        if at.contains("://") {
            return Target::existing(at, self.existing_password()?.as_deref(), &self.dir, self.name.as_str());
        }
        let parts = at.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.ok_or("the writer's address in the topology is not host:port; publish one that is")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let password = self.secret.derive(Purpose::PostgresChat);
        Ok(Target::new((host, port), ROLE_CHAT, &password, crate::standing::CONTENT_DATABASE, self.name.as_str()))
    }

    /// The password for a database that somebody else operates, if there is a file with one.
    fn existing_password(&self) -> Result<Option<String>, String> {
        let path = self.dir.join(cluster::existing::PASSWORD_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("read the password in {}: {error}", path.display())),
        }
    }

    /// Topology and record as known now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Sessions connected.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Count a session for as long as the answer lives.
    pub fn count_session(self: &Arc<Self>) -> SessionCount {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        SessionCount(self.clone())
    }

    /// Access to rooms changed: sessions are checked here and at the other servers. Empty: all rooms.
    pub fn access_changed(&self, rooms: &[rules::id::RoomId]) {
        self.mender.check_access(rooms, self);
        self.links.tell_access_changed(rooms);
    }
}

/// Counts one session.
pub struct SessionCount(Arc<App>);

impl Drop for SessionCount {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
