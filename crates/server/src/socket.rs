//! A client's WebSocket, taken apart: what the client sends is read here by its session alone; what goes out is written by
//! whoever has it, through the session's [`Outbox`].

use crate::frame::Frame;
use crate::http::CallError;
use crate::outbox::Outbox;
use crate::places::Placed;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use rules::limit::CLIENT_FRAME_BYTES_MAX;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use wire::chat::RefusalCode;

/// Buffer for reading from a WebSocket. The usual 128 KB for each connection would be most of the server's memory.
const READ_BUFFER_BYTES: usize = 4096;

/// A client's connection.
pub struct Socket {
    incoming: WebSocketStream<Halves>,
    outbox: Outbox,
    writing: Arc<OwnedWriteHalf>,
    _place: OwnedSemaphorePermit,
}

/// Bytes come from the socket; the protocol's own answers (pong, close) go where all frames go.
struct Halves {
    /// What came together with the upgrade.
    early: Bytes,
    reading: OwnedReadHalf,
    outbox: Outbox,
}

/// Answer a request for an upgrade and, when it is one, serve the client on a task of its own in `runtime`, to which its
/// connection moves.
pub fn upgrade<F>(
    mut request: Request,
    outbox: Outbox,
    runtime: Handle,
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = hyper::upgrade::on(&mut request);
    let response = match create_response_with_body(&request.map(|_| ()), Body::empty) {
        Ok(response) => response,
        Err(error) => {
            let message = format!("this is the chat WebSocket, see /docs/frames; the upgrade failed: {error}");
            return CallError::new(RefusalCode::BadRequest, message).into_response();
        }
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => match taken_out(upgraded) {
                Ok((stream, place, early)) => {
                    runtime.spawn(async move {
                        match Socket::new(stream, place, early, outbox).await {
                            Ok(socket) => serve(socket).await,
                            Err(error) => {
                                tracing::error!(%error, "an upgraded connection cannot be served; it is closed");
                            }
                        }
                    });
                }
                Err(error) => tracing::error!(%error, "an upgraded connection cannot be taken over; it is closed"),
            },
            Err(error) => tracing::debug!(%error, "a client went during the upgrade"),
        }
    });
    response
}

/// The connection under an upgrade, belonging to no runtime, and what came together with the upgrade.
fn taken_out(upgraded: Upgraded) -> io::Result<(std::net::TcpStream, OwnedSemaphorePermit, Bytes)> {
    let parts = downcast::<TokioIo<Placed>>(upgraded).map_err(|_| io::Error::other("it is no TCP connection"))?;
    let Placed { stream, place } = parts.io.into_inner();
    Ok((stream.into_std()?, place, parts.read_buf))
}

impl Socket {
    async fn new(
        stream: std::net::TcpStream,
        place: OwnedSemaphorePermit,
        early: Bytes,
        outbox: Outbox,
    ) -> io::Result<Self> {
        let (reading, writing) = TcpStream::from_std(stream)?.into_split();
        let writing = Arc::new(writing);
        outbox.connect(writing.clone());
        let halves = Halves { early, reading, outbox: outbox.clone() };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(CLIENT_FRAME_BYTES_MAX))
            .max_frame_size(Some(CLIENT_FRAME_BYTES_MAX));
        let incoming = WebSocketStream::from_raw_socket(halves, Role::Server, Some(config)).await;
        Ok(Self { incoming, outbox, writing, _place: place })
    }

    /// Where everything for this client goes.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The next message; `None` at the end, and when the connection is broken or breaks the protocol. May be dropped.
    pub async fn next(&mut self) -> Option<Message> {
        self.incoming.next().await?.ok()
    }

    /// The next message, while what the client did not take at once is written. May be dropped.
    pub async fn next_while_writing(&mut self) -> Option<Message> {
        let Self { incoming, outbox, writing, .. } = self;
        tokio::select! {
            message = incoming.next() => message?.ok(),
            () = outbox.keep_writing(writing) => None,
        }
    }

    /// Ask the client whether it is there. `false` when the connection is broken.
    pub async fn ping(&mut self) -> bool {
        self.incoming.send(Message::Ping(Bytes::new())).await.is_ok()
    }

    /// Write what waits, and close.
    pub async fn close(&mut self, code: u16, reason: &str) {
        self.outbox.finish(Frame::of_close(code, reason), &self.writing).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.outbox.disconnect();
    }
}

impl AsyncRead for Halves {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.reading).poll_read(cx, buffer);
        }
        let count = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..count]);
        self.early.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Halves {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.outbox.push(Frame::raw(bytes));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
