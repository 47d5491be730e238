//! Checking rooms' logs against their chains: as a server tells them, or as an export has them.

use crate::error::ClientError;
use crate::http::Http;
use rules::chain::Hash;
use rules::id::{RoomId, Seq};
use rules::limit::HISTORY_PAGE_MAX;
use rules::verify::{Fault, Verifier};
use std::io::BufRead;
use wire::chain::{ChainedEntry, ExportLine};

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
) -> Result<(Seq, Option<Hash>), E> {
    let mut after = Seq::START;
    loop {
        let page = http.chain_page(room, after).await?;
        let is_last = page.entries.len() < HISTORY_PAGE_MAX as usize;
        for entry in page.entries {
            after = entry.seq;
            each(entry)?;
        }
        if is_last {
            return Ok((page.last_seq, page.chain));
        }
    }
}

/// Check a room's log as the pool has it.
///
/// # Errors
/// When it is refused, or nobody answers. An entry that does not fit is no error: it is in the answer.
pub async fn verify_room(http: &Http, room: RoomId, name: &str) -> Result<Checked, ClientError> {
    let checked = verify_once(http, room, name).await?;
    if checked.fault.is_none() {
        return Ok(checked);
    }
    // A change of writer may have come between two pages, and they belong to two lines of history: what does not fit does
    // not fit again.
    verify_once(http, room, name).await
}

async fn verify_once(http: &Http, room: RoomId, name: &str) -> Result<Checked, ClientError> {
    let mut verifier = Verifier::new(room);
    let mut fault = None;
    let read = |entry: ChainedEntry| {
        if fault.is_none() {
            fault = verifier.entry(entry.into()).err();
        }
        Ok::<(), ClientError>(())
    };
    let (last_seq, chain) = read_chain(http, room, read).await?;
    let fault = fault.or_else(|| verifier.head(last_seq, chain).err()).map(Into::into);
    Ok(Checked { room, name: name.to_owned(), last_seq, chain, fault })
}

/// Check an export, offline.
///
/// # Errors
/// When it cannot be read, or is none. An entry that does not fit is no error: it is in the answer.
pub fn verify_export(mut from: impl BufRead) -> Result<Checked, ExportError> {
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
            Some(ExportLine::End { last_seq, chain }) => {
                if next_line(&mut from, &mut lines)?.is_some() {
                    return Err(wrong(lines, "nothing comes after an export's end".to_owned()));
                }
                let fault = fault.or_else(|| verifier.head(last_seq, chain).err()).map(Into::into);
                return Ok(Checked { room, name, last_seq, chain, fault });
            }
            Some(ExportLine::Room { .. }) => return Err(wrong(lines, "an export has one room".to_owned())),
            None => return Err(ExportError::BreaksOff { lines }),
        }
    }
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
mod tests {
    use super::*;
    use rules::chain::{Bytes, content_digest};
    use rules::id::{Epoch, PrincipalId};
    use rules::verify::{Logged, chain_at};

    /// An export of three posts.
    fn export() -> Vec<String> {
        let room = RoomId(5);
        let mut chain = rules::chain::chain_start(room);
        let mut lines = vec![ExportLine::Room { room, name: "tea".to_owned(), format: FORMAT }];
        for n in 1..=3 {
            let (nonce, text) = (Bytes([n as u8; 16]), format!("text {n}"));
            let mut entry = Logged {
                seq: Seq(n),
                epoch: Epoch(1),
                author: PrincipalId(11),
                at_us: 1_000 * n,
                kind: 0,
                target: None,
                client_id: Some([n as u8; 16]),
                first: None,
                content: content_digest(Some((nonce, &text))),
                text: Some(text),
                nonce: Some(nonce),
                chain,
            };
            entry.chain = chain_at(room, &chain, &entry);
            chain = entry.chain;
            lines.push(ExportLine::Entry((entry, "ada".to_owned()).into()));
        }
        lines.push(ExportLine::End { last_seq: Seq(3), chain: Some(chain) });
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    fn check(change: impl FnOnce(&mut Vec<String>), expect: &str) {
        let mut lines = export();
        change(&mut lines);
        let said = match verify_export(lines.concat().as_bytes()) {
            Ok(Checked { fault: None, last_seq, .. }) => format!("{last_seq} fit"),
            Ok(Checked { fault: Some(fault), .. }) => format!("{}: {}", fault.seq, fault.differs),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expect), "{said}");
    }

    #[test]
    fn an_export_is_checked_without_the_pool() {
        check(|_| {}, "3 fit");
        check(|lines| lines[2] = lines[2].replace("text 2", "text two"), "2: its text is not");
        check(
            |lines| lines[1] = lines[1].replace(r#""author":11"#, r#""author":12"#),
            "1: its author was principal 11",
        );
        check(|lines| drop(lines.remove(2)), "2: it is missing");
        check(|lines| lines.swap(1, 2), "1: it is missing");
    }

    #[test]
    fn what_is_no_export_is_refused_with_the_line() {
        check(Vec::clear, "breaks off after 0 lines");
        check(|lines| lines.truncate(3), "breaks off after 3 lines");
        check(|lines| assert!(lines[4].pop().is_some()), "breaks off after 4 lines");
        check(|lines| drop(lines.remove(0)), "line 1 of the export");
        check(|lines| lines[0] = lines[0].replace(r#""format":1"#, r#""format":2"#), "it has format 2");
        check(|lines| lines[1] = "{}\n".to_owned(), "line 2 of the export");
        check(|lines| lines.push(lines[1].clone()), "nothing comes after");
        check(|lines| lines[1] = lines[1].replace(r#""chain":""#, r#""chain":"zz"#), "64 hexadecimal digits");
    }
}
