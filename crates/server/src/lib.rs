//! A chat server: HTTP and WebSocket for clients, group commit, fan-out, links to the other servers of the pool.
//!
//! It keeps no truth of its own. The record, which it hears from its host's agent, says whether it is active and who the
//! writer is ([`follow`], [`writer`]); the database holds the rooms' logs; a server gathers posts into transactions
//! ([`chat_path`]) and shows every session each room's log without gap, in order, once ([`room`], [`session`]).

mod app;
mod canary;
mod chat_path;
mod counts;
mod ending;
mod error;
mod follow;
mod forward;
mod frame;
mod host_folder;
mod http;
mod join;
mod link;
mod mend;
mod notices;
mod outbox;
mod re_entry;
mod room;
mod rooms;
mod session;
mod socket;
mod standing;
mod writer;

pub use error::Error;

use app::App;
use cluster::name::ServerName;
use std::path::PathBuf;
use std::sync::Arc;

/// What a chat server is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The host's folder.
    pub dir: PathBuf,
    /// Which server of the topology this is.
    pub server: ServerName,
}

/// Run a chat server until the process is asked to end (SIGTERM) and its clients have moved. Returns an error only where a
/// restart of the same configuration meets it again: an unreadable folder, an unknown server, an address in use.
pub async fn run(config: Config) -> Result<(), Error> {
    let folder = host_folder::HostFolder::read(&config).await?;
    let clients = listen(&folder.me.clients.at, "clients").await?;
    let links = listen(&folder.me.link.at, "server links").await?;
    let (app, tasks) = App::new(config, folder)?;
    tracing::info!(server = %app.name, clients = %app.clients_at, "chat server listens");
    app.writers.start();
    tokio::spawn(follow::watch(app.clone()));
    tokio::spawn(follow::report(app.clone()));
    tokio::spawn(writer::keep(app.clone()));
    tokio::spawn(chat_path::run(app.clone(), tasks.posts, tasks.turns));
    tokio::spawn(canary::run(app.clone()));
    tokio::spawn(mend::run(app.clone(), tasks.mend));
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

async fn listen(at: &str, what: &'static str) -> Result<tokio::net::TcpListener, Error> {
    tokio::net::TcpListener::bind(at).await.map_err(|source| Error::Listen { what, at: at.to_owned(), source })
}

async fn serve_clients(app: Arc<App>, listener: tokio::net::TcpListener) -> Result<(), Error> {
    use axum::serve::ListenerExt;
    let at = app.clients_at.clone();
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a client's connection keeps its delay");
        }
    });
    axum::serve(listener, http::router(app)).await.map_err(|source| Error::Listen { what: "clients", at, source })
}
