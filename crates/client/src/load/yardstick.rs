//! What this machine can do at all: small writes to many loopback sockets, each read at the other end.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Bytes of each write.
const WRITE_BYTES: usize = 150;

/// Writes a second, each of 150 bytes, to so many sockets in turn, with somebody who reads at the other end of each.
///
/// # Errors
/// A sentence, when sockets cannot be had.
pub async fn socket_writes_per_second(sockets: usize, length: Duration) -> Result<f64, String> {
    let failed = |e: std::io::Error| format!("measure {sockets} loopback sockets: {e}");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    let read = Arc::new(AtomicU64::new(0));
    let mut senders = Vec::with_capacity(sockets);
    let mut readers = Vec::with_capacity(sockets);
    for _ in 0..sockets {
        let sender = TcpStream::connect(at).await.map_err(failed)?;
        sender.set_nodelay(true).map_err(failed)?;
        let (receiver, _) = listener.accept().await.map_err(failed)?;
        readers.push(tokio::spawn(drain(receiver, read.clone())));
        senders.push(sender);
    }
    let began = Instant::now();
    let written = tokio::spawn(write_in_turn(senders, began + length));
    written.await.map_err(|e| e.to_string())?.map_err(failed)?;
    let bytes = read.load(Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(bytes as f64 / WRITE_BYTES as f64 / seconds)
}

/// Seconds that so many bare TCP connections take that are made at once, each greeted and greeting back. Both ends are here.
///
/// # Errors
/// A sentence, when sockets cannot be had.
pub async fn seconds_to_connect(connections: usize) -> Result<f64, String> {
    let failed = move |e: std::io::Error| format!("measure {connections} connections at once: {e}");
    let socket = TcpSocket::new_v4().map_err(failed)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
    let listener = socket.listen(16 * 1024).map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    let greet = tokio::spawn(async move {
        let mut kept = Vec::with_capacity(connections);
        for _ in 0..connections {
            let (stream, _) = listener.accept().await?;
            stream.try_write(b"hello")?;
            kept.push(stream);
        }
        std::io::Result::Ok(kept)
    });
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..connections {
        clients.spawn(async move {
            let stream = super::socket::connect(&at.to_string(), Some(super::storm::source_of(n))).await?;
            stream.readable().await?;
            stream.try_write(b"hello")?;
            std::io::Result::Ok(stream)
        });
    }
    let mut kept = Vec::with_capacity(connections);
    while let Some(client) = clients.join_next().await {
        kept.push(client.map_err(|e| e.to_string())?.map_err(failed)?);
    }
    let seconds = began.elapsed().as_secs_f64();
    greet.await.map_err(|e| e.to_string())?.map_err(failed)?;
    Ok(seconds)
}

async fn write_in_turn(senders: Vec<TcpStream>, end: Instant) -> std::io::Result<()> {
    let bytes = [b'x'; WRITE_BYTES];
    while Instant::now() < end {
        for sender in &senders {
            loop {
                match sender.try_write(&bytes) {
                    Ok(_) => break,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => sender.writable().await?,
                    Err(error) => return Err(error),
                }
            }
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn drain(receiver: TcpStream, read: Arc<AtomicU64>) {
    let mut buffer = [0; 4096];
    while receiver.readable().await.is_ok() {
        match receiver.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                read.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
