//! What a principal puts into the bucket: finished segments as soon as PostgreSQL says that they are, and what is being
//! written as pg_receivewal gets it.
//!
//! PostgreSQL's `archive_command` waits for a mark here. A mark says: the object is in the bucket, and the bucket was open to
//! this epoch *after* that. Whoever closes it lists what is there after it has said so; so what was marked is in its list,
//! whoever of the two was first, without either waiting for the other.

use super::{AT_ONCE, Bucket, Shipping, Wanted};
use crate::bucket::store::New;
use crate::postgres::share::{EPOCHS_KEPT, SEGMENT_BYTES, is_segment, start_of};
use cluster::wal::Lsn;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use rules::id::Epoch;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Finished files that are sent in one go, before their marks are set.
const BATCH: usize = 16;
/// Time between two notes of what is being written: what a failover without a stream may lose.
const PARTIAL_EVERY: Duration = Duration::from_millis(250);
/// Files of pg_receivewal that are kept here, at most, while the bucket takes none: PostgreSQL has them too.
const STREAM_FILES_MAX: usize = 8;
/// File beside the marks that says that the bucket takes nothing, so that nobody waits for it.
pub const FAULT: &str = ".fault";

/// What was sent.
#[derive(Default)]
pub struct Sent {
    epoch: Option<Epoch>,
    /// Finished files of this epoch that are in the bucket for certain.
    finished: BTreeSet<String>,
    /// The file that is being written, how much of it was sent, and when.
    partial: Option<(String, usize, Instant)>,
}

/// Folders of what goes out in an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// What a new writer adds of older ones.
    pub added: PathBuf,
    /// What pg_receivewal writes.
    pub stream: PathBuf,
    /// The marks.
    pub marks: PathBuf,
}

impl Bucket {
    /// Folders of what goes out in an epoch.
    pub fn out(&self, epoch: Epoch) -> Out {
        let folder = self.folder.join("out").join(epoch.to_string());
        Out { added: folder.join("added"), stream: folder.join("stream"), marks: folder.join("marks") }
    }

    /// The same, created.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn create_out(&self, epoch: Epoch) -> Result<Out, crate::error::Error> {
        let out = self.out(epoch);
        for folder in [&out.added, &out.stream, &out.marks] {
            if !folder.is_dir() {
                for parent in [&self.folder, &self.folder.join("out")] {
                    self.programs.folder(parent)?;
                }
                if let Some(parent) = folder.parent() {
                    self.programs.folder(parent)?;
                }
                self.programs.folder(folder)?;
                self.forget_before(epoch);
            }
        }
        Ok(out)
    }

    /// Folders of epochs long over are of no use.
    fn forget_before(&self, epoch: Epoch) {
        for folder in fs::read_dir(self.folder.join("out")).into_iter().flatten().flatten() {
            let of = folder.file_name().to_str().and_then(|n| n.parse::<i64>().ok());
            if of.is_some_and(|of| epoch.0 - of > EPOCHS_KEPT) {
                let _ = fs::remove_dir_all(folder.path());
            }
        }
    }

    /// Let `archive_command` know that nothing can be archived now, or that it can.
    pub(super) fn show_fault(&self, wanted: &Wanted, fault: Option<&str>) {
        let Some(shipping) = &wanted.shipping else { return };
        let file = self.out(shipping.epoch).marks.join(FAULT);
        match fault {
            Some(fault) => {
                if fs::write(&file, fault).is_ok() {
                    let _ = self.programs.give(&file);
                }
            }
            // It is not there, as a rule.
            None => drop(fs::remove_file(&file)),
        }
    }

    fn sent<T>(&self, epoch: Epoch, look: impl FnOnce(&mut Sent) -> T) -> T {
        let mut sent = self.sent.lock().expect("nothing panics while it holds what was sent");
        if sent.epoch != Some(epoch) {
            *sent = Sent { epoch: Some(epoch), ..Sent::default() };
        }
        look(&mut sent)
    }

    pub(super) async fn ship_round(&self, shipping: &Shipping) -> Result<(), String> {
        let out = self.create_out(shipping.epoch).map_err(|e| e.to_string())?;
        let ready = ready(&shipping.pg_wal);
        take_marks_away(&out.marks, &ready);
        let without = ready.iter().filter(|name| !out.marks.join(name).exists());
        let mut files: Vec<(String, PathBuf)> =
            without.map(|name| (name.clone(), shipping.pg_wal.join(name))).take(BATCH).collect();
        let added = names(&out.added);
        files.extend(added.iter().map(|name| (name.clone(), out.added.join(name))).take(BATCH));
        let streamed = names(&out.stream);
        let finished: Vec<&String> = streamed.iter().filter(|name| is_segment(name)).collect();
        let unsent = |name: &&&String| !self.sent(shipping.epoch, |s| s.finished.contains(**name));
        files.extend(finished.iter().filter(unsent).map(|name| ((*name).clone(), out.stream.join(name))).take(BATCH));
        files.sort();
        files.dedup_by(|a, b| a.0 == b.0);
        let sent_any = !files.is_empty();
        let result = self.send_all(shipping.epoch, files).await;
        self.tidy_stream(shipping.epoch, &out.stream, &finished);
        result?;
        let sent_partial = self.send_partial(shipping.epoch, &out.stream, &streamed).await?;
        if !sent_any && !sent_partial {
            return Ok(());
        }
        self.still_open(shipping.epoch).await?;
        for name in &added {
            if self.sent(shipping.epoch, |s| s.finished.contains(name)) {
                let _ = fs::remove_file(out.added.join(name));
            }
        }
        for name in ready.iter().filter(|name| self.sent(shipping.epoch, |s| s.finished.contains(*name))) {
            let mark = out.marks.join(name);
            let failed = |e: std::io::Error| format!("mark {}: {e}", mark.display());
            fs::write(&mark, "").map_err(failed)?;
            self.programs.give(&mark).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Whether the bucket is still open to this epoch, as the store says now.
    async fn still_open(&self, epoch: Epoch) -> Result<(), String> {
        match self.open_from().await?.0 {
            Some(first) if epoch < first => {
                Err(format!("the share is closed to epochs before {first}; this writer has {epoch}"))
            }
            _ => Ok(()),
        }
    }

    async fn send_all(&self, epoch: Epoch, files: Vec<(String, PathBuf)>) -> Result<(), String> {
        let sending: Vec<_> = files.into_iter().map(|(name, path)| self.send_one(epoch, name, path).boxed()).collect();
        stream::iter(sending).buffered(AT_ONCE).try_collect::<Vec<()>>().await.map(|_| ())
    }

    async fn send_one(&self, epoch: Epoch, name: String, path: PathBuf) -> Result<(), String> {
        // Read when its turn comes: no more of them are in memory than are on their way.
        match fs::read(&path) {
            // PostgreSQL, or pg_receivewal, has let go of it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(format!("read {}: {e}", path.display())),
            Ok(content) => self.send_finished(epoch, &name, content).await,
        }
    }

    async fn send_finished(&self, epoch: Epoch, name: &str, content: Vec<u8>) -> Result<(), String> {
        let object = format!("{epoch}/wal/{name}");
        if self.store.put_new(&object, content.clone()).await? == New::There {
            // Sent before, and the answer was lost; or somebody else ships in this epoch.
            let there = self.store.get(&object).await?.map(|(there, _)| there);
            if there.as_ref().is_some_and(|there| *there != content) {
                return Err(format!(
                    "{object} is there with another content: another pool ships into the same place; give each a prefix of \
                     its own"
                ));
            }
            if there.is_none() {
                return Err(format!("{object} was there and is gone: something else deletes from the share"));
            }
        }
        self.sent(epoch, |s| s.finished.insert(name.to_owned()));
        if let Some(start) = start_of(name).filter(|_| is_segment(name)) {
            self.reached(Lsn(start.0 + SEGMENT_BYTES));
        }
        Ok(())
    }

    fn reached(&self, end: Lsn) {
        self.seen(|s| s.shipped = s.shipped.max(Some(end)));
    }

    /// What is being written, when there is more of it than was sent. Tells whether there was.
    async fn send_partial(&self, epoch: Epoch, folder: &Path, streamed: &[String]) -> Result<bool, String> {
        let Some(name) = streamed.iter().rfind(|n| n.ends_with(".partial")) else { return Ok(false) };
        let before = self.sent(epoch, |s| s.partial.clone()).filter(|(of, ..)| of == name);
        if before.as_ref().is_some_and(|(_, _, at)| at.elapsed() < PARTIAL_EVERY) {
            return Ok(false);
        }
        let Ok(mut content) = fs::read(folder.join(name)) else { return Ok(false) };
        let used = content.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
        if used <= before.map_or(0, |(_, used, _)| used) {
            return Ok(false);
        }
        content.truncate(used);
        self.store.put(&format!("{epoch}/stream/{name}"), content).await?;
        self.sent(epoch, |s| s.partial = Some((name.clone(), used, Instant::now())));
        if let Some(start) = start_of(name) {
            self.reached(Lsn(start.0 + used as u64));
        }
        Ok(true)
    }

    /// pg_receivewal looks for the newest file to go on from; older ones that were sent are of no use, and of those that
    /// could not be sent PostgreSQL keeps its own.
    fn tidy_stream(&self, epoch: Epoch, folder: &Path, finished: &[&String]) {
        let Some((newest, older)) = finished.split_last() else { return };
        let too_many = older.len().saturating_sub(STREAM_FILES_MAX);
        for (n, name) in older.iter().enumerate() {
            if name < newest && (n < too_many || self.sent(epoch, |s| s.finished.contains(*name))) {
                let _ = fs::remove_file(folder.join(name));
            }
        }
    }
}

/// Names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

/// What PostgreSQL wants to be archived. Histories first: without them nobody finds the way through the segments.
fn ready(pg_wal: &Path) -> Vec<String> {
    let mut ready: Vec<String> = names(&pg_wal.join("archive_status"))
        .iter()
        .filter_map(|n| n.strip_suffix(".ready").map(str::to_owned))
        .collect();
    ready.sort_by_key(|name| (!name.ends_with(".history"), name.clone()));
    ready
}

/// Marks of what PostgreSQL does not wait for any more.
fn take_marks_away(marks: &Path, ready: &[String]) {
    for name in names(marks) {
        if !ready.contains(&name) {
            let _ = fs::remove_file(marks.join(name));
        }
    }
}
