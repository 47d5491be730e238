//! Frames and entries, serialised once and shared.

use axum::extract::ws::Utf8Bytes;
use rules::id::RoomId;
use store::{EntryKind, EntryRow, LateRow};
use wire::chat::{Content, Entry, Late, ServerFrame};

/// A frame as the text that goes out; cloning it copies nothing.
pub fn encode(frame: &ServerFrame) -> Utf8Bytes {
    serde_json::to_string(frame).expect("frames hold no maps with keys that JSON lacks").into()
}

/// An entry as the text that goes out, and the entry back.
pub fn encode_entry(entry: Entry) -> (Utf8Bytes, Entry) {
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
