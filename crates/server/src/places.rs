//! Places for clients' connections. Every connection is an open file, and a process may have only so many: if clients could take
//! the last one, the server could not reach its database, its agent or another server any more. So clients get what is left
//! besides those, and who comes when every place is taken waits to be accepted.

use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Sessions of one server, those who wait for their turn included: the reference's most for a whole pool, so that one server can
/// take them all.
const SESSIONS_MAX: u64 = 80_000;
/// Open files for everything but clients: connections to databases, to the agent and to other servers, runtimes, the log.
/// A server that has just lost its writer has about 50.
const OWN_FILES: u64 = 112;
/// Places that sessions leave to those who are told to come back, and to calls.
const AT_THE_DOOR: u64 = 16;

/// Users of one server that the reference names: with places for fewer it is worth a word.
pub const SESSIONS_EXPECTED: u64 = 20_000;

/// How many connections a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Connections of all kinds.
    pub connections: u64,
    /// Of these, sessions: fewer, so that somebody can still be told that there is no place.
    pub sessions: u64,
}

impl Places {
    /// Of a process that may have so many files open. At least one session, however little that is.
    pub fn with(open_files: u64) -> Self {
        let sessions = open_files.saturating_sub(OWN_FILES + AT_THE_DOOR).clamp(1, SESSIONS_MAX);
        Self { connections: sessions + AT_THE_DOOR, sessions }
    }
}

/// A listener that accepts while there are places.
pub struct Door {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

/// A connection and its place.
pub struct Placed {
    /// The connection.
    pub stream: TcpStream,
    /// Given back when this is dropped.
    pub place: OwnedSemaphorePermit,
}

impl Door {
    /// With so many places.
    pub fn new(listener: TcpListener, places: Places) -> Self {
        let count = usize::try_from(places.connections).unwrap_or(Semaphore::MAX_PERMITS);
        Self { listener, free: Arc::new(Semaphore::new(count)) }
    }
}

impl Listener for Door {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        let place = self.free.clone().acquire_owned().await.expect("the places are never closed");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a client's connection keeps its delay");
        }
        (Placed { stream, place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_get_the_last_files() {
        for open_files in [0, 1, 127, 128, 129, 1_024, 20_000, 1_000_000] {
            let places = Places::with(open_files);
            assert!(places.sessions >= 1 && places.sessions < places.connections, "{open_files}: {places:?}");
            assert!(places.sessions <= SESSIONS_MAX, "{open_files}: {places:?}");
            assert!(
                open_files <= OWN_FILES + AT_THE_DOOR || places.connections + OWN_FILES <= open_files,
                "{open_files}: {places:?}"
            );
        }
        assert_eq!(Places::with(20_000), Places { connections: 19_888, sessions: 19_872 });
    }
}
