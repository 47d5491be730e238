//! What is brought from the bucket: for the copy job everything that it has not copied yet, and for PostgreSQL what it asks
//! for by itself when it starts, is rewound, or has lost its stream.

use super::index::{File, Index};
use super::{AT_ONCE, Bucket, Copying};
use crate::postgres::share::{SEGMENT_BYTES, Shipped, is_segment};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use rules::id::Epoch;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How old a list may be that a request is answered from.
const LIST_AGE: Duration = Duration::from_secs(1);
/// Files that were asked for and are kept, at most.
const KEPT: usize = 64;

impl Bucket {
    fn local(&self, file: &File) -> PathBuf {
        self.folder.join("in").join(file.epoch.to_string()).join(&file.below)
    }

    /// Everything that was shipped, as the copy job reads it. What is not here yet comes with a later look.
    pub fn shipped(&self, index: &Index, closed: bool) -> BTreeMap<String, Shipped> {
        let files = index.shipped(closed).into_iter();
        files.map(|(name, file)| (name, Shipped { path: self.local(&file), partial: file.partial })).collect()
    }

    /// Look at the bucket, and bring what is wanted of it. With `closed`, of the epochs that were closed last.
    ///
    /// # Errors
    /// What the store says, or what cannot be written here.
    pub async fn bring(&self, copying: &Copying, closed: bool) -> Result<(), String> {
        let _one_at_a_time = self.listing.lock().await;
        self.bring_alone(copying, closed).await
    }

    /// The same for the copy job, unless it has been stopped meanwhile: then a run brings what it needs, and nothing of that
    /// may be taken away again.
    pub(super) async fn bring_if_wanted(&self, copying: &Copying) -> Result<(), String> {
        let _one_at_a_time = self.listing.lock().await;
        if self.wanted().copying.as_ref() == Some(copying) { self.bring_alone(copying, false).await } else { Ok(()) }
    }

    async fn bring_alone(&self, copying: &Copying, closed: bool) -> Result<(), String> {
        let index = self.look_alone().await?;
        let wanted = |(name, file): &(String, File)| {
            (!is_segment(name) || name[8..] >= copying.from[..]) && (copying.partial || !file.partial)
        };
        let files: Vec<(String, File)> = index.shipped(closed).into_iter().filter(wanted).collect();
        let brought: Vec<_> = files.iter().map(|(_, file)| self.bring_one(file).boxed()).collect();
        // In order: what comes after one that is missing is of no use.
        let brought = stream::iter(brought).buffered(AT_ONCE).try_collect::<Vec<()>>().await;
        let kept: Vec<PathBuf> = files.iter().map(|(_, file)| self.local(file)).collect();
        let closed_epochs = |epoch: Epoch| index.is_closed(epoch) != closed;
        tidy(&self.folder.join("in"), &kept, closed_epochs);
        self.seen(|s| s.unread = brought.as_ref().err().cloned());
        brought.map(|_| ())
    }

    async fn bring_one(&self, file: &File) -> Result<(), String> {
        let to = self.local(file);
        let tag = to.with_extension("tag");
        let known = fs::read_to_string(&tag).ok().filter(|_| to.exists());
        let now = format!("{} {} {:?}", file.object.bytes, file.object.changed_ms, file.object.tag);
        if known.as_ref() == Some(&now) {
            return Ok(());
        }
        // Trimmed, or finished, since the list was made: the next one tells.
        let Some((mut content, _)) = self.store.get(&file.object.name).await? else { return Ok(()) };
        if file.partial {
            content.resize(usize::try_from(SEGMENT_BYTES).unwrap_or(content.len()), 0);
        }
        let failed = |e: std::io::Error| format!("write {}: {e}", to.display());
        put_in_place(&to, &content).and_then(|()| fs::write(&tag, now)).map_err(failed)
    }

    /// Folders through which PostgreSQL asks for finished files: of one epoch, or of any.
    pub fn requests_of(&self, epoch: Option<Epoch>) -> PathBuf {
        self.folder.join("fetch").join(epoch.map_or("any".to_owned(), |e| e.to_string()))
    }

    /// The same, created.
    ///
    /// # Errors
    /// When they cannot be.
    pub fn create_requests(&self, epoch: Option<Epoch>) -> Result<PathBuf, crate::error::Error> {
        let folder = self.requests_of(epoch);
        for part in [&self.folder, &self.folder.join("fetch"), &folder, &folder.join("want"), &folder.join("have")] {
            if !part.is_dir() {
                self.programs.folder(part)?;
            }
        }
        Ok(folder)
    }

    /// Answer what PostgreSQL asks for: bring it if the bucket has it, and take the request away in any case.
    pub(super) async fn serve_requests(&self) -> Result<(), String> {
        for folder in folders(&self.folder.join("fetch")) {
            let epoch = folder.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()).map(Epoch);
            for want in files(&folder.join("want")) {
                let name = want.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let answered = self.answer(&folder, epoch, &name).await;
                let _ = fs::remove_file(&want);
                answered?;
            }
        }
        Ok(())
    }

    async fn answer(&self, folder: &Path, epoch: Option<Epoch>, name: &str) -> Result<(), String> {
        let have = folder.join("have");
        if have.join(name).exists() {
            return Ok(());
        }
        let listed = self.seen(|s| s.listed_at.filter(|at| at.elapsed() < LIST_AGE).and(s.index.clone()));
        let index = match listed {
            Some(index) => index,
            None => self.look().await?,
        };
        let Some(file) = index.finished(name, epoch) else { return Ok(()) };
        let Some((content, _)) = self.store.get(&file.object.name).await? else { return Ok(()) };
        let to = have.join(name);
        put_in_place(&to, &content).map_err(|e| format!("write {}: {e}", to.display()))?;
        self.programs.give(&to).map_err(|e| e.to_string())?;
        let mut kept = files(&have);
        kept.sort_by_key(|path| fs::metadata(path).and_then(|m| m.modified()).ok());
        let too_many = kept.len().saturating_sub(KEPT);
        kept.into_iter().take(too_many).for_each(|path| drop(fs::remove_file(path)));
        Ok(())
    }
}

/// A file is there as a whole or not at all. It need not outlive a crash of the machine: it can be brought again.
fn put_in_place(to: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = to.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder.join(format!(".{name}.new"));
    fs::write(&aside, content)?;
    fs::rename(&aside, to)
}

/// Take away what was brought and is not wanted any more; epochs that this look was not about are left alone.
fn tidy(folder: &Path, kept: &[PathBuf], not_about: impl Fn(Epoch) -> bool) {
    for of in folders(folder) {
        let epoch = of.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()).map(Epoch);
        if epoch.is_some_and(&not_about) {
            continue;
        }
        for path in folders(&of).iter().flat_map(|part| files(part)) {
            let whole =
                if path.extension().is_some_and(|e| e == "tag") { path.with_extension("") } else { path.clone() };
            let is_kept = kept.iter().any(|k| *k == whole || k.with_extension("") == whole);
            if !is_kept {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    entries.filter(|path| path.is_dir()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    entries
        .filter(|path| path.is_file() && !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')))
        .collect()
}
