//! The log share in a folder that every host reads and writes.

use super::share::{EPOCHS_KEPT, NEEDS_AGE, SEGMENTS_MAX, Shipped, Trimmed, is_segment, list, place, refuse_closed};
use crate::error::Error;
use crate::postgres::programs::Programs;
use cluster::name::DatabaseName;
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time for a try whether the share takes files.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// Begin of the names of files in which hosts say what they still need.
const NEEDS: &str = "needs.";

/// A share that is a folder.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The share of a database below the topology's path.
    pub fn new(share: &str, database: &DatabaseName) -> Self {
        Self { root: Path::new(share).join(database.as_str()) }
    }

    /// The folder of this database.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn top(&self) -> &Path {
        self.root.parent().unwrap_or(Path::new("/"))
    }

    /// The first epoch that may ship, as the marker in the share says.
    pub fn open_from(&self) -> io::Result<Option<Epoch>> {
        match fs::read_to_string(self.root.join("open-from")) {
            Ok(text) => Ok(text.trim().parse().ok().map(Epoch)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The share itself must be there: a missing mount looks like an empty folder's parent.
                fs::metadata(self.top()).map(|_| None)
            }
            Err(error) => Err(error),
        }
    }

    /// Folders for a writer of this epoch: finished segments and stream. Refused if the share is closed to it.
    pub fn writer_folders(&self, epoch: Epoch, programs: &Programs) -> Result<(PathBuf, PathBuf), Error> {
        let what = || format!("use the share {}", self.root.display());
        refuse_closed(self.open_from().map_err(Error::file(what()))?, epoch)?;
        let folder = self.root.join(epoch.to_string());
        for path in [&self.root, &folder, &folder.join("wal"), &folder.join("stream")] {
            if !path.is_dir() {
                fs::create_dir(path).map_err(Error::file(what()))?;
                programs.give(path)?;
            }
        }
        Ok((folder.join("wal"), folder.join("stream")))
    }

    /// The folder of finished segments of an epoch, whether it is there or not.
    pub fn folder_of(&self, epoch: Epoch) -> PathBuf {
        self.root.join(epoch.to_string()).join("wal")
    }

    /// Close the share to epochs before `epoch`. May be repeated.
    pub fn close(&self, epoch: Epoch, programs: &Programs) -> Result<(), Error> {
        let what = || format!("close the share {} to epochs before {epoch}", self.root.display());
        fs::metadata(self.top()).map_err(Error::file(what()))?;
        let closed = self.root.join("closed");
        fs::create_dir_all(&closed).map_err(Error::file(what()))?;
        programs.give(&self.root)?;
        let marker = self.root.join("open-from");
        crate::files::replace(&marker, epoch.to_string().as_bytes(), 0o644).map_err(Error::file(what()))?;
        let open = epochs(&self.root).map_err(Error::file(what()))?;
        // Switches within a site leave the share open: what they shipped one after the other is one chain.
        if let Some(first) = open.keys().next().filter(|first| **first < epoch) {
            let chain = closed.join(CHAIN);
            let begun = fs::read_to_string(&chain).ok().and_then(|text| chain_of(&text)).filter(|(_, of)| *of == epoch);
            if begun.is_none() {
                let text = format!("{first} {epoch}");
                crate::files::replace(&chain, text.as_bytes(), 0o644).map_err(Error::file(what()))?;
            }
        }
        for (older, path) in open {
            if older < epoch {
                fs::rename(&path, closed.join(older.to_string())).map_err(Error::file(what()))?;
            }
        }
        Ok(())
    }

    /// Everything that was shipped, by the names that PostgreSQL asks for. Later epochs win, and finished segments win
    /// over partial ones. With `closed`, of the epochs that were closed last.
    pub fn shipped(&self, closed: bool) -> io::Result<BTreeMap<String, Shipped>> {
        fs::metadata(self.top())?;
        let folder = if closed { self.root.join("closed") } else { self.root.clone() };
        let all = epochs(&folder)?;
        let mut files = BTreeMap::new();
        let newest = all.keys().next_back().copied();
        let chain = fs::read_to_string(folder.join(CHAIN)).ok().and_then(|text| chain_of(&text));
        let first = chain.map(|(first, _)| first).min(newest).or(newest);
        for (_, path) in all.into_iter().filter(|(epoch, _)| !closed || Some(*epoch) >= first) {
            for (part, partial) in [("stream", true), ("stream", false), ("wal", false)] {
                list(&path.join(part), partial, &mut files)?;
            }
        }
        Ok(files)
    }

    /// Where finished segments of a writer of this epoch lie, open or closed.
    pub fn archive_of(&self, epoch: Epoch) -> Option<PathBuf> {
        let name = epoch.to_string();
        let places = [self.root.join(&name), self.root.join("closed").join(&name)];
        places.into_iter().map(|folder| folder.join("wal")).find(|folder| folder.is_dir())
    }

    /// Whether the account of PostgreSQL can put a segment into a folder of the share; what the system says, if not.
    pub async fn takes_files(&self, folder: &Path, programs: &Programs) -> Result<(), String> {
        let probe = folder.join(".probe");
        let mut command = programs.command("/bin/sh");
        command.arg("-c").arg("head -c 1048576 /dev/zero > \"$0\" && sync \"$0\"").arg(&probe);
        let ran = command.kill_on_drop(true).output();
        let ran = tokio::time::timeout(PROBE_MAX, ran).await;
        let _ = fs::remove_file(&probe);
        match ran {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", PROBE_MAX.as_secs())),
        }
    }

    /// Say which segments a host that is fed from here still needs: those from this place on.
    pub fn say_needs(&self, host: &str, from: Lsn) -> io::Result<()> {
        fs::write(self.root.join(format!("{NEEDS}{host}")), place(from))
    }

    /// The first place that somebody still needs, as far as anybody has said so lately.
    fn needed_from(&self, lately: Duration) -> Option<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let said = entries.filter(|e| e.file_name().to_string_lossy().starts_with(NEEDS));
        let fresh = said.filter(|e| !is_older(&e.path(), lately));
        fresh.filter_map(|e| fs::read_to_string(e.path()).ok()).map(|text| text.trim().to_owned()).min()
    }

    /// Take away segments that are too old and that nobody needs, the oldest beyond the bound on the share's size in any
    /// case, and the folders of epochs long over.
    pub fn trim(&self, epoch: Epoch, older_than: Duration) -> io::Result<Trimmed> {
        let open = epochs(&self.root)?;
        let closed = epochs(&self.root.join("closed"))?;
        let needed = self.needed_from(older_than.max(NEEDS_AGE));
        let mut trimmed = Trimmed::default();
        for (of, folder) in open.into_iter().chain(closed).filter(|(of, _)| *of <= epoch) {
            if epoch.0 - of.0 > EPOCHS_KEPT {
                fs::remove_dir_all(&folder)?;
                continue;
            }
            for part in ["wal", "stream"] {
                let mut files = BTreeMap::new();
                list(&folder.join(part), false, &mut files)?;
                let segments: Vec<(&String, &Shipped)> = files.iter().filter(|(n, _)| is_segment(n)).collect();
                let too_many = segments.len().saturating_sub(SEGMENTS_MAX);
                for (n, (name, file)) in segments.iter().enumerate() {
                    let is_needed = of == epoch && needed.as_ref().is_some_and(|from| name[8..] >= from[..]);
                    let too_old = is_older(&file.path, older_than);
                    if n < too_many || (too_old && !is_needed) {
                        fs::remove_file(&file.path)?;
                        trimmed.files += 1;
                        if is_needed && part == "wal" {
                            trimmed.lost_for = Some((*name).clone());
                        }
                    }
                }
            }
        }
        trimmed.needed_from = needed;
        Ok(trimmed)
    }
}

fn is_older(path: &Path, than: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|m| m.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > than))
}

/// In the folder of closed epochs: the first one of those that were closed last, and the epoch that closed them.
const CHAIN: &str = "chain-from";

fn chain_of(text: &str) -> Option<(Epoch, Epoch)> {
    let mut numbers = text.split_whitespace().map(|n| n.parse().ok().map(Epoch));
    Some((numbers.next()??, numbers.next()??))
}

/// The folders of epochs in a folder.
fn epochs(folder: &Path) -> io::Result<BTreeMap<Epoch, PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let mut all = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(epoch) = entry.file_name().to_string_lossy().parse() {
            all.insert(Epoch(epoch), entry.path());
        }
    }
    Ok(all)
}
