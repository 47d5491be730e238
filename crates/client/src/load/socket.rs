//! A WebSocket with nothing to spare: text frames in, text frames out, no allocation for either.
//!
//! Client frames have to be masked; the mask is zero, which the protocol allows and which leaves the text as it is.

use crate::error::ClientError;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Buffer for what comes in; a frame has to fit.
const READ_BYTES: usize = 128 * 1024;
/// What a buffer begins with; most connections never need more.
const READ_BYTES_FIRST: usize = 4 * 1024;
/// Longest wait for the upgrade.
const UPGRADE_WAIT: Duration = Duration::from_secs(5);
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// The reading half's memory.
#[derive(Debug)]
pub struct Incoming {
    buffer: Vec<u8>,
    filled: usize,
}

/// What was found in a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A text frame.
    Text(&'a [u8]),
    /// The server asks whether anybody is there.
    Ping,
    /// The server closes, with this code.
    Close(u16),
    /// Something of no interest.
    Other,
}

/// Connect and upgrade.
///
/// # Errors
/// A sentence: the server, and what happened.
pub async fn open(url: &str) -> Result<TcpStream, ClientError> {
    open_from(url, None).await
}

/// Connect, from this address if one is given, and upgrade. One address has no more than the system's local ports for all
/// connections to one server.
///
/// # Errors
/// A sentence: the server, and what happened.
pub async fn open_from(url: &str, source: Option<Ipv4Addr>) -> Result<TcpStream, ClientError> {
    let failed = |why: &dyn std::fmt::Display| ClientError::Connection(format!("connect to {url}: {why}"));
    let at = url.strip_prefix("http://").ok_or_else(|| failed(&"the address does not begin with http://"))?;
    let stream = connect(at, source).await.map_err(|e| failed(&e))?;
    stream.set_nodelay(true).map_err(|e| failed(&e))?;
    let request = format!(
        "GET /v1/chat HTTP/1.1\r\nHost: {at}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c3RhbmRmYXN0IGJlbmNoIQ==\r\n\r\n"
    );
    write(&stream, request.as_bytes()).await.map_err(|e| failed(&e))?;
    match timeout(UPGRADE_WAIT, upgraded(&stream)).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(why)) => Err(failed(&why)),
        Err(_) => Err(failed(&format!("no upgrade within {} s", UPGRADE_WAIT.as_secs()))),
    }
}

pub(super) async fn connect(at: &str, source: Option<Ipv4Addr>) -> std::io::Result<TcpStream> {
    let target: Option<SocketAddr> = at.parse().ok();
    match (source, target) {
        (Some(source), Some(target)) if target.is_ipv4() => {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            socket.connect(target).await
        }
        _ => TcpStream::connect(at).await,
    }
}

/// Read the answer to the upgrade, and not a byte more: the server says nothing before it has heard hello.
async fn upgraded(stream: &TcpStream) -> Result<(), String> {
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.readable().await.map_err(|e| e.to_string())?;
        match stream.try_read_buf(&mut answer) {
            Ok(0) => return Err("closed during the upgrade".to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let first = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    if first.contains(" 101 ") { Ok(()) } else { Err(first) }
}

/// Write everything.
///
/// # Errors
/// When the connection is broken.
pub async fn write(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Append a text frame.
pub fn frame(text: &[u8], out: &mut Vec<u8>) {
    const MASKED: u8 = 0x80;
    out.push(TEXT);
    match text.len() {
        length @ 0..=125 => out.push(MASKED + length as u8),
        length @ 126..=0xffff => {
            out.push(MASKED + 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED + 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(text);
}

/// The answer to a ping.
pub const PONG_FRAME: [u8; 6] = [PONG, 0x80, 0, 0, 0, 0];

impl Default for Incoming {
    fn default() -> Self {
        Self { buffer: vec![0; READ_BYTES_FIRST], filled: 0 }
    }
}

impl Incoming {
    /// Read what is there, waiting for something, and hand every whole frame to `take`.
    ///
    /// # Errors
    /// When the connection is over, or holds what no server of this protocol sends.
    pub async fn read(&mut self, stream: &mut OwnedReadHalf, mut take: impl FnMut(Found)) -> Result<(), String> {
        // Not `try_read`: after less than a buffer full, `read` waits without asking the kernel a second time.
        match stream.read(&mut self.buffer[self.filled..]).await {
            Ok(0) => return Err("the server closed the connection".to_owned()),
            Ok(count) => self.filled += count,
            Err(error) => return Err(error.to_string()),
        }
        let mut at = 0;
        while let Some((found, length)) = first(&self.buffer[at..self.filled]) {
            take(found);
            at += length;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.filled == self.buffer.len() {
            if self.buffer.len() >= READ_BYTES {
                return Err(format!("a frame is larger than {READ_BYTES} bytes"));
            }
            self.buffer.resize(READ_BYTES, 0);
        }
        Ok(())
    }
}

/// The first whole frame, and its length with its head.
fn first(bytes: &[u8]) -> Option<(Found<'_>, usize)> {
    let (kind, length) = (*bytes.first()?, *bytes.get(1)?);
    let (head, length) = match length {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    let body = bytes.get(head..head + length)?;
    let found = match kind {
        TEXT => Found::Text(body),
        PING => Found::Ping,
        CLOSE => Found::Close(body.first_chunk::<2>().map_or(0, |code| u16::from_be_bytes(*code))),
        _ => Found::Other,
    };
    Some((found, head + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as a server sends it: not masked.
    fn sent(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(text, &mut out);
        let head = out.len() - text.len();
        out[1] &= 0x7f;
        out.drain(head - 4..head);
        out
    }

    #[test]
    fn frames_of_every_length_are_found() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let text = vec![b'x'; length];
            let mut bytes = sent(&text);
            bytes.extend(sent(b"next"));
            let (found, used) = first(&bytes).unwrap();
            assert_eq!(found, Found::Text(&text), "{length}");
            assert_eq!(first(&bytes[used..]).unwrap().0, Found::Text(b"next"));
            assert!(first(&bytes[..used - 1]).is_none(), "half a frame of {length}");
        }
        assert_eq!(first(&[CLOSE, 2, 0x0f, 0xa1]).unwrap(), (Found::Close(4001), 4));
        assert_eq!(first(&[PING, 0]).unwrap(), (Found::Ping, 2));
    }
}
