//! Checking rooms' logs against their chains: as a server tells them, or as an export has them.

use crate::countersigned::OfRoom;
use crate::error::ClientError;
use crate::http::{Http, Which};
use rules::chain::Hash;
use rules::head::Head;
use rules::id::{RoomId, Seq};
use rules::limit::HISTORY_PAGE_MAX;
use rules::signature::PublicKey;
use rules::verify::{Fault, Verifier};
use std::io::BufRead;
use wire::chain::{ChainedEntry, ExportLine, SignedHead};

/// The version of the export's format that this program writes and reads.
pub const FORMAT: u32 = 1;
/// Longest line of an export that is read: an entry of the largest text, escaped, and its hashes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// What a room's log came to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// Which room.
    pub room: RoomId,
    /// Its name.
    pub name: String,
    /// Number of its newest entry.
    pub last_seq: Seq,
    /// The running hash at it; none of a room without entries.
    pub chain: Option<Hash>,
    /// The first entry that does not fit, if one does not.
    pub fault: Option<Named>,
}

/// The first entry that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Named {
    /// Its number.
    pub seq: Seq,
    /// What differs, for people.
    pub differs: String,
}

impl From<Fault> for Named {
    fn from(fault: Fault) -> Self {
        Self { seq: fault.seq, differs: fault.differs.to_string() }
    }
}

/// The head of a room, as a server tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomHead {
    /// Number of its newest entry.
    pub last_seq: Seq,
    /// The running hash at it; none of a room without entries.
    pub chain: Option<Hash>,
    /// The same, signed.
    pub signed: Option<SignedHead>,
}

/// Why an export cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file cannot be read.
    #[error("the export cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// A line is not what an export has there.
    #[error("line {line} of the export is not what one has there: {why}")]
    Line {
        /// Which line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// It has no end.
    #[error("the export breaks off after {lines} lines, without its end: export the room again")]
    BreaksOff {
        /// Lines that were read.
        lines: u64,
    },
}

/// Read a room's log from its first entry to its end, page by page. Each entry is handed to `each`; the head comes back. What
/// is written meanwhile is read too, or not: head and last entries come from one snapshot.
///
/// # Errors
/// When it is refused, nobody answers, or `each` wants no more.
pub async fn read_chain<E: From<ClientError>>(
    http: &Http,
    room: RoomId,
    mut each: impl FnMut(ChainedEntry) -> Result<(), E>,
) -> Result<RoomHead, E> {
    let mut after = Seq::START;
    loop {
        let page = http.chain_page(room, after).await?;
        let is_last = page.entries.len() < HISTORY_PAGE_MAX as usize;
        for entry in page.entries {
            after = entry.seq;
            each(entry)?;
        }
        if is_last {
            return Ok(RoomHead { last_seq: page.last_seq, chain: page.chain, signed: page.signed });
        }
    }
}

/// Check a room's log as the pool has it, and that it still has the heads that were countersigned.
///
/// # Errors
/// When it is refused, or nobody answers. An entry that does not fit is no error: it is in the answer.
pub async fn verify_room(http: &Http, room: RoomId, name: &str, heads: &OfRoom) -> Result<Checked, ClientError> {
    let checked = verify_once(http, room, name, heads).await?;
    if checked.fault.is_none() {
        return Ok(checked);
    }
    // A change of writer may have come between two pages, and they belong to two lines of history: what does not fit does
    // not fit again.
    verify_once(http, room, name, heads).await
}

async fn verify_once(http: &Http, room: RoomId, name: &str, heads: &OfRoom) -> Result<Checked, ClientError> {
    let mut verifier = Verifier::new(room);
    let mut fault = None;
    let mut heads = heads.clone();
    let read = |entry: ChainedEntry| {
        heads.entry(entry.seq, entry.chain);
        if fault.is_none() {
            fault = verifier.entry(entry.into()).err();
        }
        Ok::<(), ClientError>(())
    };
    let RoomHead { last_seq, chain, signed: _ } = read_chain(http, room, read).await?;
    let mut fault: Option<Named> = fault.or_else(|| verifier.head(last_seq, chain).err()).map(Into::into);
    if heads.differs() {
        let epochs = http.page(room, Which::Latest, 1).await?.epochs;
        let unexplained = heads.first_unexplained(&epochs).map(|(seq, differs)| Named { seq, differs });
        fault = [fault, unexplained].into_iter().flatten().min_by_key(|named| named.seq);
    }
    Ok(Checked { room, name: name.to_owned(), last_seq, chain, fault })
}

/// Check an export, offline. With keys given, one of them has to have signed its head.
///
/// # Errors
/// When it cannot be read, or is none. An entry that does not fit is no error: it is in the answer.
pub fn verify_export(mut from: impl BufRead, keys: &[PublicKey]) -> Result<Checked, ExportError> {
    let mut lines = 0;
    let (room, name) = match next_line(&mut from, &mut lines)? {
        Some(ExportLine::Room { room, name, format: FORMAT }) => (room, name),
        Some(ExportLine::Room { format, .. }) => {
            return Err(wrong(lines, format!("it has format {format}; this program reads format {FORMAT}")));
        }
        Some(_) => return Err(wrong(lines, "an export begins with its room".to_owned())),
        None => return Err(ExportError::BreaksOff { lines }),
    };
    let mut verifier = Verifier::new(room);
    let mut fault = None;
    loop {
        match next_line(&mut from, &mut lines)? {
            Some(ExportLine::Entry(entry)) => {
                if fault.is_none() {
                    fault = verifier.entry(entry.into()).err();
                }
            }
            Some(ExportLine::End { last_seq, chain, signed }) => {
                if next_line(&mut from, &mut lines)?.is_some() {
                    return Err(wrong(lines, "nothing comes after an export's end".to_owned()));
                }
                let fault = fault.or_else(|| verifier.head(last_seq, chain).err()).map(Into::into);
                let fault = fault.or_else(|| unsigned(room, last_seq, chain, signed, keys));
                return Ok(Checked { room, name, last_seq, chain, fault });
            }
            Some(ExportLine::Room { .. }) => return Err(wrong(lines, "an export has one room".to_owned())),
            None => return Err(ExportError::BreaksOff { lines }),
        }
    }
}

/// What is wrong with the signature of a head, when keys are given.
fn unsigned(
    room: RoomId,
    seq: Seq,
    chain: Option<Hash>,
    signed: Option<SignedHead>,
    keys: &[PublicKey],
) -> Option<Named> {
    let differs = match signed {
        _ if keys.is_empty() => return None,
        None => "the head is not signed",
        Some(SignedHead { pool, at_us, signature, key: _ }) => {
            let head = Head { pool, room, seq, chain, at_us };
            if head.is_signed_by(keys, &signature) {
                return None;
            }
            "the head is signed with none of the keys that were given, or was changed since"
        }
    };
    Some(Named { seq, differs: differs.to_owned() })
}

fn wrong(line: u64, why: String) -> ExportError {
    ExportError::Line { line, why }
}

/// The next line; `None` at the end of the file.
fn next_line(from: &mut impl BufRead, lines: &mut u64) -> Result<Option<ExportLine>, ExportError> {
    let mut line = String::new();
    let read = std::io::Read::take(&mut *from, LINE_BYTES_MAX).read_line(&mut line)?;
    if read == 0 {
        return Ok(None);
    }
    *lines += 1;
    if !line.ends_with('\n') {
        return Err(ExportError::BreaksOff { lines: *lines - 1 });
    }
    serde_json::from_str(&line).map(Some).map_err(|e| wrong(*lines, e.to_string()))
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
