//! A chat server: HTTP and WebSocket for clients, group commit, fan-out, links to the other servers of the pool.
//!
//! It keeps no truth of its own. The record, which it hears from its host's agent, says whether it is active and who the
//! writer is ([`follow`], [`writer`]); the database holds the rooms' logs; a server gathers posts into transactions
//! ([`chat_path`]) and shows every session each room's log without gap, in order, once ([`room`], [`session`]).

mod after_commit;
mod answer;
mod app;
mod canary;
mod chat_path;
#[cfg(test)]
mod choices;
mod counts;
mod decisions;
mod durable;
mod ending;
mod error;
mod follow;
mod forward;
mod frame;
mod held;
mod host_folder;
mod http;
mod join;
mod lanes;
mod link;
mod mend;
mod mirror;
mod notices;
mod outbox;
mod places;
mod poster;
mod re_entry;
mod reception;
mod room;
mod rooms;
mod session;
mod socket;
mod standing;
mod visible;
mod writer;

pub use error::Error;

use app::App;
use cluster::name::ServerName;
use lanes::Lane;
use places::Door;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpSocket};

/// What a chat server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host's folder.
    pub dir: PathBuf,
    /// Which server of the topology this is.
    pub server: ServerName,
    /// So many files may the process have open. Clients get what the server does not need itself.
    pub open_files: u64,
}

/// Run a chat server until the process is asked to end (SIGTERM) and its clients have moved. Returns an error only where a
/// restart of the same configuration meets it again: an unreadable folder, an unknown server, an address in use.
pub async fn run(config: Config) -> Result<(), Error> {
    let open_files = config.open_files;
    let folder = host_folder::HostFolder::read(&config).await?;
    let clients = listen(&folder.me.clients.at, "clients").await?;
    let links = listen(&folder.me.link.at, "server links").await?;
    let (app, tasks) = App::new(config, folder)?;
    let places = app.places;
    tracing::info!(server = %app.name, clients = %app.clients_at, sessions = places.sessions, "chat server listens");
    if places.sessions < places::SESSIONS_EXPECTED {
        tracing::warn!(
            sessions = places.sessions,
            open_files,
            "more people than that are told to come back later; allow more open files (LimitNOFILE= of its service, ulimit -Hn)"
        );
    }
    app.writers.start();
    tokio::spawn(follow::watch(app.clone()));
    tokio::spawn(follow::report(app.clone()));
    tokio::spawn(writer::keep(app.clone()));
    tokio::spawn(mirror::keep(app.clone()));
    let ([posts, disk_posts], [mend, disk_mend]) = (tasks.posts, tasks.mend);
    tokio::spawn(chat_path::run(app.clone(), posts, tasks.turns));
    tokio::spawn(chat_path::run_disk(app.clone(), disk_posts));
    tokio::spawn(held::run(app.clone()));
    tokio::spawn(reception::run(app.clone()));
    tokio::spawn(reception::tell(app.clone()));
    tokio::spawn(canary::run(app.clone()));
    tokio::spawn(mend::run(app.clone(), Lane::Mirror, mend));
    tokio::spawn(mend::run(app.clone(), Lane::Disk, disk_mend));
    tokio::spawn(mend::poll(app.clone()));
    tokio::spawn(link::accept(app.clone(), links));
    tokio::spawn(link::keep(app.clone()));
    tokio::spawn(re_entry::run(app.clone()));
    tokio::spawn(notices::run(app.clone()));
    tokio::select! {
        over = serve_clients(app.clone(), clients) => over,
        () = ending::when_asked(&app) => Ok(()),
    }
}

/// Connections that may wait to be accepted: all clients of a lost server come in the same second. The system may allow less.
const BACKLOG: u32 = 16 * 1024;

async fn listen(at: &str, what: &'static str) -> Result<TcpListener, Error> {
    let failed = |source| Error::Listen { what, at: at.to_owned(), source };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host(at).await.map_err(failed)? {
        match listen_at(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serve HTTP, and connections until they are upgraded, on threads of their own: a crowd at the door keeps those busy, and
/// neither the chat path nor anybody who is in. Ends with the process, or with this future.
async fn serve_clients(app: Arc<App>, listener: TcpListener) -> Result<(), Error> {
    let at = app.clients_at.clone();
    let failed = move |source| Error::Listen { what: "clients", at: at.clone(), source };
    let listener = listener.into_std().map_err(&failed)?;
    let threads = app.runtime.metrics().num_workers();
    let door = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let entrance = Entrance(Some(door.map_err(&failed)?));
    let serving = entrance.spawn(async move {
        let door = Door::new(TcpListener::from_std(listener)?, app.places);
        axum::serve(door, http::router(app)).await
    });
    serving.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(&failed)
}

/// The runtime of the door; ends when it is dropped, without waiting for what is under way.
struct Entrance(Option<tokio::runtime::Runtime>);

impl Entrance {
    fn spawn<F>(&self, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.as_ref().expect("it is there until it is dropped").spawn(work)
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
