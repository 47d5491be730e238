//! Getting what is judged: lines from the ledger's file, logs from the pool.

use super::judge::{Judge, Verdict};
use super::log::RoomLog;
use crate::error::ClientError;
use crate::http::{Http, Which};
use crate::verify::read_chain;
use rules::id::{RoomId, Seq};
use rules::receipt::Checker;
use rules::signature::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use wire::chain::ChainedEntry;
use wire::chat::RefusalCode;
use wire::ledger::LedgerLine;

/// Entries in one page.
const PAGE: u32 = 1000;
/// Longest line that is taken for one: a hash, a name and some numbers, by far.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// A ledger's file, as far as it was written when it was opened.
#[derive(Debug)]
pub struct LedgerFile {
    path: PathBuf,
    bytes: u64,
    /// Notes for people: what was skipped.
    pub notes: Vec<String>,
}

impl LedgerFile {
    /// Open a ledger. What is written from now on is left to the next audit.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path) -> Result<Self, ClientError> {
        let length = std::fs::metadata(path).map_err(|e| ClientError::file("read ledger", path, &e))?.len();
        Ok(Self { path: path.to_owned(), bytes: length, notes: Vec::new() })
    }

    /// Hand every line to `take`.
    ///
    /// # Errors
    /// When the file cannot be read, or a line other than the last is no line of a ledger.
    pub fn lines(&mut self, mut take: impl FnMut(LedgerLine)) -> Result<(), ClientError> {
        let failed = |why: &dyn std::fmt::Display| ClientError::file("read ledger", &self.path, why);
        let file = File::open(&self.path).map_err(|e| failed(&e))?;
        let mut reader = BufReader::with_capacity(1 << 20, file.take(self.bytes));
        let (mut line, mut number, mut unknown) = (Vec::new(), 0_u64, 0_u64);
        let mut cut = false;
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
            if read.map_err(|e| failed(&e))? == 0 {
                break;
            }
            number += 1;
            match serde_json::from_slice(&line) {
                Ok(read) => take(read),
                Err(_) if line.trim_ascii().is_empty() => {}
                Err(_) if is_unknown(&line) => unknown += 1,
                // A replay that was killed leaves half a line behind.
                Err(_) if line.last() != Some(&b'\n') && line.len() < LINE_BYTES_MAX => cut = true,
                Err(error) => {
                    return Err(failed(&format!("line {number} is no line of a ledger: {error}; see docs/ledger.md")));
                }
            }
        }
        self.notes.clear();
        if cut {
            self.notes.push("the last line is cut off, as a killed replay leaves it; it was skipped".to_owned());
        }
        if unknown > 0 {
            self.notes.push(format!("{unknown} lines of kinds that are unknown here were skipped"));
        }
        Ok(())
    }

    /// The rooms that its receipts are about.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rooms_of_receipts(&mut self) -> Result<BTreeSet<RoomId>, ClientError> {
        let mut rooms = BTreeSet::new();
        self.lines(|line| {
            if let LedgerLine::Ack { receipt: Some(receipt), .. } = line {
                rooms.insert(receipt.room);
            }
        })?;
        Ok(rooms)
    }

    /// The rooms that it is about, with their names where it has them.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rooms(&mut self) -> Result<BTreeMap<RoomId, String>, ClientError> {
        let mut rooms = BTreeMap::new();
        self.lines(|line| match line {
            LedgerLine::Room { room, name, .. } => {
                rooms.insert(room, name);
            }
            LedgerLine::Ack { room, .. } | LedgerLine::Seen { room, .. } if !rooms.contains_key(&room) => {
                rooms.insert(room, format!("number {room}"));
            }
            _ => {}
        })?;
        Ok(rooms)
    }
}

/// A line that is JSON and names a kind that this auditor does not know.
fn is_unknown(line: &[u8]) -> bool {
    const KINDS: &[&str] = &["head", "room", "ack", "seen", "joined", "left", "rewound", "disconnected", "end"];
    let value: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    value.and_then(|v| Some(!KINDS.contains(&v.get("line")?.as_str()?))).unwrap_or(false)
}

/// Read a room's whole log. `None` when the pool has no such room.
///
/// # Errors
/// When it cannot be read.
pub async fn read_log(http: &Http, room: RoomId, name: &str) -> Result<Option<RoomLog>, ClientError> {
    let mut log = RoomLog::new(name);
    let mut after = Seq::START;
    loop {
        let page = match http.page(room, Which::After(after), PAGE).await {
            Ok(page) => page,
            Err(error) if error.is(RefusalCode::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        log.set_epochs(page.epochs);
        let Some(last) = page.entries.last().map(|e| e.seq) else {
            if after < page.last_seq {
                let (last, name) = (page.last_seq, &log.name);
                log.disorders.push(format!("room '{name}': the log ends at {after}, and the room says {last}"));
            }
            return Ok(Some(log));
        };
        page.entries.iter().for_each(|entry| log.push(entry));
        // A page that does not go forward would be read for ever.
        after = last.max(after.next());
    }
}

/// Audit a ledger against the pool, with the pool's logs read after the ledger's last line was written. `keys`: whose receipts
/// are taken for true.
///
/// # Errors
/// When the ledger or a log cannot be read.
pub async fn audit(http: &Http, ledger: &mut LedgerFile, keys: Vec<PublicKey>) -> Result<Verdict, ClientError> {
    let mut logs = BTreeMap::new();
    let with_receipts = ledger.rooms_of_receipts()?;
    for (room, name) in ledger.rooms()? {
        match read_log(http, room, &name).await? {
            Some(mut log) => {
                if with_receipts.contains(&room) {
                    let push = |entry: ChainedEntry| {
                        log.push_chain(entry.chain);
                        Ok::<(), ClientError>(())
                    };
                    read_chain(http, room, push).await?;
                }
                logs.insert(room, log);
            }
            None => ledger.notes.push(format!("the pool has no room {room} ('{name}')")),
        }
    }
    let mut judge = Judge::new(&logs, Checker::trusting(keys));
    let notes = std::mem::take(&mut ledger.notes);
    ledger.lines(|line| judge.take(line))?;
    let of_rooms = notes.into_iter().filter(|note| note.starts_with("the pool"));
    ledger.notes.extend(of_rooms);
    Ok(judge.close())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, lines: Option<usize>, notes: usize) {
        let path = std::env::temp_dir().join(format!("standfast-ledger-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let mut ledger = LedgerFile::open(&path).unwrap();
        let mut count = 0;
        let read = ledger.lines(|_| count += 1);
        std::fs::remove_file(&path).unwrap();
        assert_eq!((read.ok().map(|()| count), ledger.notes.len()), (lines, notes), "{text}");
    }

    #[test]
    fn a_cut_last_line_and_unknown_kinds_are_skipped_and_rubbish_is_not() {
        let left = r#"{"line":"left","room":1,"user":"a","at_ms":1}"#;
        check("whole", &format!("{left}\n{left}\n"), Some(2), 0);
        check("cut", &format!("{left}\n{}", &left[..20]), Some(1), 1);
        check("kind", &format!("{left}\n{{\"line\":\"weather\"}}\n"), Some(1), 1);
        check("keys", &format!("{}\n", left.replace('}', ",\"more\":1}")), Some(1), 0);
        check("rubbish", &format!("{left}\nrubbish\n{left}\n"), None, 0);
        check("keyless", "{\"line\":\"left\"}\n", None, 0);
    }
}
