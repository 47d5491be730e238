//! Frames and entries, serialised once and shared, as they go over a WebSocket.

use bytes::Bytes;
use rules::id::RoomId;
use store::{EntryKind, EntryRow, LateRow};
use wire::chat::{Content, Entry, Late, ServerFrame};

/// Longest head of a WebSocket frame that a server sends (RFC 6455 §5.2).
const HEAD_MAX: usize = 10;
/// A whole text message.
const TEXT: u8 = 0x81;
/// The end of the connection.
const CLOSE: u8 = 0x88;

/// A WebSocket frame, head and body; cloning it copies nothing.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    head: usize,
}

impl Frame {
    /// A text frame. `text` is UTF-8.
    pub fn of_text(text: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_MAX + text.len());
        bytes.resize(HEAD_MAX, 0);
        bytes.extend_from_slice(text);
        Self::with_head(TEXT, bytes)
    }

    /// The frame that closes a connection. `reason` has 123 bytes at most.
    pub fn of_close(code: u16, reason: &str) -> Self {
        let mut bytes = vec![0; HEAD_MAX];
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(reason.as_bytes());
        Self::with_head(CLOSE, bytes)
    }

    /// Frames as they stand.
    pub fn raw(bytes: &[u8]) -> Self {
        Self { bytes: Bytes::copy_from_slice(bytes), head: 0 }
    }

    /// Put the head before the body, which begins after room for the longest.
    fn with_head(kind: u8, mut bytes: Vec<u8>) -> Self {
        let length = bytes.len() - HEAD_MAX;
        let mut head = [kind, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let size = match length {
            0..=125 => {
                head[1] = length as u8;
                2
            }
            126..=0xffff => {
                head[1] = 126;
                head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                4
            }
            _ => {
                head[1] = 127;
                head[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                10
            }
        };
        bytes[HEAD_MAX - size..HEAD_MAX].copy_from_slice(&head[..size]);
        Self { bytes: Bytes::from(bytes).slice(HEAD_MAX - size..), head: size }
    }

    /// All of it, as it goes out.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its body.
    pub fn text(&self) -> &[u8] {
        &self.bytes[self.head..]
    }
}

/// A frame as it goes out.
pub fn encode(frame: &ServerFrame) -> Frame {
    let mut bytes = Vec::with_capacity(512);
    bytes.resize(HEAD_MAX, 0);
    serde_json::to_writer(&mut bytes, frame).expect("frames hold no maps with keys that JSON lacks");
    Frame::with_head(TEXT, bytes)
}

/// An entry as the text that goes out, and the entry back.
pub fn encode_entry(entry: Entry) -> (Frame, Entry) {
    let frame = ServerFrame::Entry(entry);
    let text = encode(&frame);
    let ServerFrame::Entry(entry) = frame else { unreachable!("it was made an entry two lines above") };
    (text, entry)
}

/// An entry of the store as clients see it.
pub fn entry_of(room: RoomId, row: EntryRow) -> Entry {
    let text = row.body.unwrap_or_default();
    let target = row.target.unwrap_or(rules::id::Seq::START);
    let content = match row.kind {
        EntryKind::Post => Content::Post { text },
        EntryKind::Removal => Content::Removal { target },
        EntryKind::Replacement => Content::Replacement { target, text },
        EntryKind::RoomChange => Content::RoomChange { text },
    };
    Entry {
        room,
        seq: row.seq,
        epoch: row.epoch,
        author: row.author,
        at_us: row.at_us,
        client_id: row.client_id,
        late: row.late.map(late_of),
        content,
    }
}

/// What a late arrival was, as clients see it.
pub fn late_of(late: LateRow) -> Late {
    Late { epoch: late.epoch, seq: late.seq, at_us: late.at_us }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_fit_their_bodies() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let text = vec![b'x'; length];
            let frame = Frame::of_text(&text);
            let (head, stated) = match frame.bytes()[1] {
                126 => (4, usize::from(u16::from_be_bytes([frame.bytes()[2], frame.bytes()[3]]))),
                127 => (10, u64::from_be_bytes(*frame.bytes()[2..].first_chunk().unwrap()) as usize),
                short => (2, usize::from(short)),
            };
            assert_eq!((stated, frame.bytes().len(), frame.text()), (length, head + length, &text[..]));
        }
        assert_eq!(Frame::of_close(4001, "no").bytes(), [CLOSE, 4, 0x0f, 0xa1, b'n', b'o']);
    }
}
