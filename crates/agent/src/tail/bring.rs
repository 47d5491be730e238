//! Bringing tails home: the agent of the present principal fetches what other hosts offer, and keeps in the principal's
//! database what that does not have yet: all of a tail or nothing of it, as a writer of the present epoch.

use super::lines_of;
use crate::database::Database;
use crate::error::Error;
use crate::host::Host;
use axum::body::Bytes;
use cluster::name::{DatabaseName, HostName};
use cluster::record::PoolRecord;
use cluster::report::TailReport;
use futures_util::future::join_all;
use rules::id::Epoch;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use store::left_behind::{self, Keeping, TailHead, TailSize};
use tokio::io::AsyncReadExt;

/// Time between two looks at what is offered.
const ROUND: Duration = Duration::from_millis(500);
/// Longest wait for what a host offers.
const ANSWER: Duration = Duration::from_millis(800);
/// Longest silence while a tail is fetched.
const SILENCE: Duration = Duration::from_secs(10);
/// Longest time for fetching a tail.
const FETCH: Duration = Duration::from_secs(3_600);
/// Lines that are kept by one statement.
const LINES_AT_ONCE: usize = 500;
/// Longest line, in bytes: far more than the longest post, or a thousand names.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What is known of the principals here.
#[derive(Default)]
struct Known {
    epoch: Option<Epoch>,
    /// Tails that the database has.
    kept: BTreeSet<(DatabaseName, String)>,
    /// What was last said of one that does not come.
    said: String,
}

/// Bring tails home for as long as the process lives.
pub async fn run(host: Arc<Host>) {
    let mut known = Known::default();
    loop {
        tokio::time::sleep(ROUND).await;
        let Some(record) = host.store.record() else { continue };
        if known.epoch != Some(record.epoch) {
            known = Known { epoch: Some(record.epoch), ..Known::default() };
        }
        for database in host.all_databases() {
            if !is_writer(&host, &database, &record) {
                continue;
            }
            let said = match round(&host, &database, record.epoch, &mut known).await {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            if said != known.said && !said.is_empty() {
                tracing::warn!(database = %database.name, error = said, "a tail does not come home yet; trying again");
            }
            known.said = said;
        }
    }
}

/// Whether this host's instance is the present writer. Should it not be any more, the database refuses the epoch.
fn is_writer(host: &Host, database: &Database, record: &PoolRecord) -> bool {
    let principal = record.databases.get(&database.name).and_then(|d| d.principal.as_ref());
    let state = database.state();
    principal == Some(&host.name)
        && state.handed_over.is_none()
        && state.history_epoch.is_some_and(|e| e >= record.epoch)
        && database.running().is_some()
}

async fn round(host: &Host, database: &Database, epoch: Epoch, known: &mut Known) -> Result<(), Error> {
    let name = &database.name;
    let mut offers = offers(host, database).await;
    offers.retain(|(_, tail)| tail.database == *name && tail.unreadable.is_none());
    offers.retain(|(_, tail)| !known.kept.contains(&(name.clone(), tail.id.clone())));
    if offers.is_empty() {
        return Ok(());
    }
    let mut client = database.instance.sql.client().await?;
    let failed = |what: &str, e: store::StoreError| Error::Sql {
        what: what.to_owned(),
        database: name.to_string(),
        cause: e.to_string(),
    };
    let at = host.name.as_str();
    let there = left_behind::known_tails(&client, at).await.map_err(|e| failed("look which tails are known", e))?;
    // A chat server brings the schema up to date first.
    let Some(there) = there else { return Ok(()) };
    for (from, tail) in offers {
        if !there.contains(&tail.id) {
            let keeping = Keeping::begin(&mut client, at, head(&tail)).await;
            if let Some(keeping) = keeping.map_err(|e| failed("begin to keep a tail", e))? {
                let lines = Lines::open(host, database, &from, &tail).await?;
                bring(keeping, lines, &tail, epoch).await?;
                tracing::info!(tail = tail.id, posts = tail.posts, changes = tail.changes, %from, "a tail came home");
            }
        }
        known.kept.insert((name.clone(), tail.id));
    }
    Ok(())
}

/// What every host that answers offers, this one first.
async fn offers(host: &Host, database: &Database) -> Vec<(HostName, TailReport)> {
    let own = database.tails().into_iter().map(|tail| (host.name.clone(), tail));
    let topology = host.store.topology();
    let others = topology.hosts.iter().map(|h| h.name.clone()).filter(|name| *name != host.name);
    let asked = others.map(async |other: HostName| {
        let base = host.agent_of(&other)?;
        let answer = host.http.get(format!("{base}/v1/tails")).timeout(ANSWER).send().await.ok()?;
        let tails: Vec<TailReport> = answer.error_for_status().ok()?.json().await.ok()?;
        Some(tails.into_iter().map(|tail| (other.clone(), tail)).collect::<Vec<_>>())
    });
    own.chain(join_all(asked).await.into_iter().flatten().flatten()).collect()
}

fn head(tail: &TailReport) -> TailHead {
    TailHead {
        id: tail.id.clone(),
        database: tail.database.to_string(),
        host: tail.host.to_string(),
        left_by: tail.left_by,
        old_epoch: tail.old_epoch.unwrap_or(tail.left_by),
        fork: tail.fork.map_or("unknown".to_owned(), |fork| fork.to_string()),
        extracted_at_ms: tail.extracted_at_ms,
        size: TailSize { entries: tail.posts, changes: tail.changes },
    }
}

/// Keep every line, and for good only if they are the ones that were offered.
async fn bring(mut keeping: Keeping<'_>, mut lines: Lines, tail: &TailReport, epoch: Epoch) -> Result<(), Error> {
    let failed = |cause: String| Error::Peer { what: format!("keep the tail {}", tail.id), cause };
    let mut hash = Sha256::new();
    let mut rest: Vec<u8> = Vec::new();
    let mut array = Array::default();
    while let Some(chunk) = lines.next().await? {
        hash.update(&chunk);
        rest.extend_from_slice(&chunk);
        let mut begin = 0;
        while let Some(length) = rest[begin..].iter().position(|b| *b == b'\n') {
            let line = std::str::from_utf8(&rest[begin..begin + length]).map_err(|e| failed(e.to_string()))?;
            array.push(line);
            begin += length + 1;
            if array.lines == LINES_AT_ONCE {
                keeping.lines(&array.take()).await.map_err(|e| failed(e.to_string()))?;
            }
        }
        rest.drain(..begin);
        if rest.len() > LINE_BYTES_MAX {
            return Err(failed(format!("a line has more than {LINE_BYTES_MAX} bytes; its file is damaged")));
        }
    }
    let sha256: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if sha256 != tail.sha256 || !rest.is_empty() {
        let cause = format!("what came has the SHA-256 {sha256}, and {} was offered; its file is damaged", tail.sha256);
        return Err(failed(cause));
    }
    keeping.lines(&array.take()).await.map_err(|e| failed(e.to_string()))?;
    keeping.commit(epoch).await.map_err(|e| failed(e.to_string()))
}

/// Lines on their way into a JSON array.
#[derive(Default)]
struct Array {
    text: String,
    lines: usize,
}

impl Array {
    fn push(&mut self, line: &str) {
        self.text.push(if self.lines == 0 { '[' } else { ',' });
        self.text.push_str(line);
        self.lines += 1;
    }

    fn take(&mut self) -> String {
        let Array { mut text, lines } = std::mem::take(self);
        if lines == 0 {
            text.push('[');
        }
        text.push(']');
        text
    }
}

/// Where the lines of a tail come from.
enum Lines {
    Here(tokio::fs::File),
    There(reqwest::Response, String),
}

impl Lines {
    async fn open(host: &Host, database: &Database, from: &HostName, tail: &TailReport) -> Result<Self, Error> {
        let what = || format!("fetch the tail {} from {from}", tail.id);
        let failed = |cause: String| Error::Peer { what: what(), cause };
        if *from == host.name {
            let path = lines_of(&database.instance, &tail.id).ok_or_else(|| failed("it is gone".to_owned()))?;
            return Ok(Lines::Here(tokio::fs::File::open(&path).await.map_err(Error::file(what()))?));
        }
        let base = host.agent_of(from).ok_or_else(|| failed("the topology has no such host any more".to_owned()))?;
        let request = host.http.get(format!("{base}/v1/tails/{}/{}", tail.database, tail.id)).timeout(FETCH);
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        Ok(Lines::There(answer.map_err(|e| failed(e.to_string()))?, what()))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Lines::Here(file) => chunk_of(file).await.map_err(Error::file("read a tail")),
            Lines::There(answer, what) => {
                let failed = |cause: String| Error::Peer { what: what.clone(), cause };
                let chunk = tokio::time::timeout(SILENCE, answer.chunk()).await;
                let late = |_| failed(format!("nothing came for {} s", SILENCE.as_secs()));
                chunk.map_err(late)?.map_err(|e| failed(e.to_string()))
            }
        }
    }
}

/// The next bytes of a file; `None` at its end.
pub(crate) async fn chunk_of(file: &mut tokio::fs::File) -> std::io::Result<Option<Bytes>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let read = file.read(&mut chunk).await?;
    chunk.truncate(read);
    Ok((read > 0).then(|| chunk.into()))
}

#[cfg(test)]
mod tests {
    use super::Array;

    #[test]
    fn lines_become_one_array() {
        let mut array = Array::default();
        assert_eq!(array.take(), "[]");
        array.push(r#"{"n":1}"#);
        array.push(r#"{"n":2}"#);
        assert_eq!(array.take(), r#"[{"n":1},{"n":2}]"#);
        assert_eq!(array.take(), "[]");
    }
}
