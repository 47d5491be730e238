//! The links between the sites: each is a listener that passes bytes on, late or not at all when told so.

use crate::layout::Link;
use crate::protocol::LinkState;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes taken at once.
const CHUNK: usize = 64 * 1024;
/// Chunks under way on a delayed link.
const UNDER_WAY_MAX: usize = 4096;

/// Open a link; it follows `state` for as long as the process lives.
pub async fn open(link: &Link, state: watch::Receiver<LinkState>) -> Result<(), String> {
    let failed = |e: std::io::Error| {
        format!("open the link to {} seen from {} on port {}: {e}", link.name, link.from, link.listen)
    };
    let mut listener = Some(TcpListener::bind(("127.0.0.1", link.listen)).await.map_err(failed)?);
    let (port, to) = (link.listen, link.to);
    let mut watched = state.clone();
    tokio::spawn(async move {
        loop {
            if *watched.borrow_and_update() == LinkState::Down {
                // A closed listener refuses, as a router that has lost its line does.
                listener = None;
                if watched.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let Some(open) = &listener else {
                listener = reopen(port).await;
                continue;
            };
            tokio::select! {
                accepted = open.accept() => if let Ok((client, _)) = accepted {
                    tokio::spawn(pass(client, to, state.clone()));
                },
                changed = watched.changed() => if changed.is_err() { return },
            }
        }
    });
    Ok(())
}

async fn reopen(port: u16) -> Option<TcpListener> {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(port, %error, "cannot open a link again yet");
            tokio::time::sleep(Duration::from_millis(20)).await;
            None
        }
    }
}

async fn pass(client: TcpStream, to: u16, state: watch::Receiver<LinkState>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let mut down = state.clone();
    tokio::select! {
        () = one_way(client_read, server_write, state.clone()) => {}
        () = one_way(server_read, client_write, state.clone()) => {}
        _ = down.wait_for(|s| *s == LinkState::Down) => {}
    }
}

/// Pass bytes on in one direction, each chunk when its time has come.
async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<LinkState>) {
    let (under_way, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    let mut delays = state.clone();
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            let delay = match *delays.borrow_and_update() {
                LinkState::Delayed(ms) => Duration::from_millis(ms),
                LinkState::Up | LinkState::Down | LinkState::Frozen => Duration::ZERO,
            };
            if under_way.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = arriving.recv().await {
            tokio::time::sleep_until(due).await;
            if state.wait_for(|s| *s != LinkState::Frozen).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
