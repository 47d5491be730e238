//! One WebSocket to one server, with small buffers, so that thousands fit into one process.

use crate::error::ClientError;
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use wire::chat::ClientFrame;

/// Longest wait for a connection: a server that hangs is as good as none.
const CONNECT_WAIT: Duration = Duration::from_millis(300);
/// Longest wait for the upgrade.
const UPGRADE_WAIT: Duration = Duration::from_secs(2);
/// Buffers of a connection. The usual 128 KB each would be most of the process' memory.
const BUFFER_BYTES: usize = 4096;
/// Largest frame that a server may send.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait for a server to take what is written before the connection counts as broken.
const WRITE_WAIT: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<TcpStream>,
    unsent: bool,
}

/// What came over a connection.
#[derive(Debug)]
pub enum Heard {
    /// A text frame.
    Text(Utf8Bytes),
    /// A sign of life.
    Alive,
    /// The end: the close code, 0 for none, and why.
    End(u16, String),
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

impl Connection {
    /// Connect to a server's base address, and upgrade.
    ///
    /// # Errors
    /// A sentence: the server, and what happened.
    pub async fn open(url: &str) -> Result<Self, ClientError> {
        let failed = |why: &dyn std::fmt::Display| ClientError::Connection(format!("connect to {url}: {why}"));
        let at = url.strip_prefix("http://").ok_or_else(|| failed(&"the address does not begin with http://"))?;
        let stream = match timeout(CONNECT_WAIT, TcpStream::connect(at)).await {
            Ok(connected) => connected.map_err(|e| failed(&e))?,
            Err(_) => return Err(failed(&format!("no answer within {} ms", CONNECT_WAIT.as_millis()))),
        };
        stream.set_nodelay(true).map_err(|e| failed(&e))?;
        let request = format!("ws://{at}/v1/chat");
        let upgrade = tokio_tungstenite::client_async_with_config(request, stream, Some(config()));
        let (socket, _) = match timeout(UPGRADE_WAIT, upgrade).await {
            Ok(upgraded) => upgraded.map_err(|e| failed(&e))?,
            Err(_) => return Err(failed(&format!("no upgrade within {} s", UPGRADE_WAIT.as_secs()))),
        };
        Ok(Self { socket, unsent: false })
    }

    /// Put a frame into the buffer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn feed(&mut self, frame: &ClientFrame) -> Result<(), String> {
        let text = serde_json::to_string(frame).expect("frames hold no maps with keys that JSON lacks");
        self.feed_text(text.into()).await
    }

    /// Put a frame that is encoded already into the buffer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn feed_text(&mut self, text: Utf8Bytes) -> Result<(), String> {
        self.unsent = true;
        bounded(self.socket.feed(Message::Text(text))).await
    }

    /// Ask for a sign of life.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn ping(&mut self) -> Result<(), String> {
        bounded(self.socket.send(Message::Ping(bytes::Bytes::new()))).await
    }

    /// Send what is in the buffer.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn flush(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.unsent) { bounded(self.socket.flush()).await } else { Ok(()) }
    }

    /// The next that comes. May be dropped and called again without losing anything.
    pub async fn next(&mut self) -> Heard {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => Heard::Text(text),
            Some(Ok(Message::Close(Some(frame)))) => Heard::End(frame.code.into(), frame.reason.to_string()),
            Some(Ok(Message::Close(None))) | None => Heard::End(0, "the server closed the connection".to_owned()),
            Some(Ok(_)) => Heard::Alive,
            Some(Err(error)) => Heard::End(0, error.to_string()),
        }
    }

    /// Say goodbye; a server that does not listen any more does not matter.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_millis(300), self.socket.close(None)).await;
    }
}

async fn bounded(write: impl Future<Output = Result<(), Error>>) -> Result<(), String> {
    match timeout(WRITE_WAIT, write).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("the server has taken nothing for {} s", WRITE_WAIT.as_secs())),
    }
}
