//! The log share.
//!
//! `<share>/<db>/<epoch>/wal` holds finished segments, `stream` what pg_receivewal is writing. A writer ships into the
//! folder of its own epoch. Closing the share to older epochs is one rename of each older folder to `closed/<epoch>`:
//! an archiver that comes later finds no folder, fails, and keeps its segment.

use crate::error::Error;
use crate::postgres::conf::WAL_SEGMENT_MB;
use crate::postgres::programs::Programs;
use cluster::name::DatabaseName;
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Segments kept in each folder of the share: a bound on its size, 1 GB.
const SEGMENTS_MAX: usize = 1024;

/// Older epochs whose folders are kept.
const EPOCHS_KEPT: i64 = 3;

/// The share's bound, in bytes.
pub const BYTES_MAX: u64 = SEGMENTS_MAX as u64 * SEGMENT_BYTES;

/// Longest time for a try whether the share takes files.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// Begin of the names of files in which hosts say what they still need.
const NEEDS: &str = "needs.";

/// What a host said longer ago than this does not count, unless segments are kept longer.
const NEEDS_AGE: Duration = Duration::from_secs(3600);

/// Size of a segment.
pub const SEGMENT_BYTES: u64 = WAL_SEGMENT_MB as u64 * 1024 * 1024;

/// The share of one database.
#[derive(Clone, Debug)]
pub struct Share {
    root: PathBuf,
}

impl Share {
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
        let open_from = self.open_from().map_err(Error::file(what()))?;
        if open_from.is_some_and(|first| epoch < first) {
            let first = open_from.unwrap_or(epoch);
            return Err(Error::Unfit(format!("the share is closed to epochs before {first}; this writer has {epoch}")));
        }
        let folder = self.root.join(epoch.to_string());
        for path in [&self.root, &folder, &folder.join("wal"), &folder.join("stream")] {
            if !path.is_dir() {
                fs::create_dir(path).map_err(Error::file(what()))?;
                programs.give(path)?;
            }
        }
        Ok((folder.join("wal"), folder.join("stream")))
    }

    /// The folder that a writer of this epoch archives finished segments to. Where the share does not take them the archiver
    /// goes on trying, and PostgreSQL keeps what it cannot ship.
    pub fn wal_folder(&self, epoch: Epoch, programs: &Programs) -> PathBuf {
        self.writer_folders(epoch, programs).map_or_else(|_| self.folder_of(epoch), |(wal, _)| wal)
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

    /// Let the chain go on without a gap: put what a new writer has of the timelines before its own, and the share has not,
    /// into the folder that it archives to. An old writer may have died before it had shipped its last segments.
    pub fn begin_chain(&self, pg_wal: &Path, to: &Path, programs: &Programs) -> Result<(), Error> {
        let what = || format!("add to {}", to.display());
        let mut there = self.shipped(false).map_err(Error::file(what()))?;
        there.extend(self.shipped(true).map_err(Error::file(what()))?);
        there.retain(|_, file| !file.partial);
        let mut own = BTreeMap::new();
        list(pg_wal, false, &mut own).map_err(Error::file(format!("list {}", pg_wal.display())))?;
        let newest = own.keys().rfind(|name| is_history(name));
        let Some(newest) = newest else { return Ok(()) };
        let history = fs::read_to_string(pg_wal.join(newest)).map_err(Error::file(format!("read {newest}")))?;
        for (name, file) in &own {
            if there.contains_key(name) || !(is_history(name) || is_of(name, &history)) {
                continue;
            }
            let aside = to.join(format!(".{name}.new"));
            fs::copy(&file.path, &aside).map_err(Error::file(what()))?;
            fs::File::open(&aside).and_then(|f| f.sync_all()).map_err(Error::file(what()))?;
            programs.give(&aside)?;
            fs::rename(&aside, to.join(name)).map_err(Error::file(what()))?;
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

    /// Up to where the share has the log without a hole from `from` on, of any timeline; `from` when it has none of it.
    pub fn reaches(&self, from: Lsn) -> io::Result<Lsn> {
        let shipped = self.shipped(false)?;
        let finished = shipped.iter().filter(|(name, file)| is_segment(name) && !file.partial);
        let places: std::collections::BTreeSet<&str> = finished.map(|(name, _)| &name[8..]).collect();
        let mut at = from;
        while places.contains(place(at).as_str()) {
            at = Lsn((at.0 / SEGMENT_BYTES + 1) * SEGMENT_BYTES);
        }
        Ok(at)
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

/// What a trim did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Files taken away.
    pub files: usize,
    /// The newest of them that somebody still needed.
    pub lost_for: Option<String>,
    /// The first place that somebody who is fed from here still needs.
    pub needed_from: Option<String>,
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

/// A file in the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Where it lies.
    pub path: PathBuf,
    /// It is still being written: zeros follow what there is.
    pub partial: bool,
}

fn list(folder: &Path, partial: bool, files: &mut BTreeMap<String, Shipped>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.strip_suffix(".partial") {
            Some(segment) if partial && is_segment(segment) => {
                files.insert(segment.to_owned(), Shipped { path: entry.path(), partial });
            }
            None if !partial && (is_segment(&name) || is_history(&name)) => {
                files.insert(name, Shipped { path: entry.path(), partial });
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_history(name: &str) -> bool {
    name.strip_suffix(".history").is_some_and(|timeline| timeline.len() == 8)
}

/// Whether a segment belongs to a timeline of this history, and ends before that timeline was left.
fn is_of(name: &str, history: &str) -> bool {
    let Some(start) = start_of(name).filter(|_| is_segment(name)) else { return false };
    history.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let timeline = fields.next().and_then(|t| t.parse::<u32>().ok());
        let left = fields.next().and_then(|lsn| lsn.parse::<Lsn>().ok());
        timeline == u32::from_str_radix(&name[..8], 16).ok() && left.is_some_and(|lsn| start.0 + SEGMENT_BYTES <= lsn.0)
    })
}

/// Whether a file name is that of a segment.
pub fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The last sixteen digits of the name of the segment that holds this position.
pub fn place(lsn: Lsn) -> String {
    let segment = (lsn.0 & 0xFFFF_FFFF) / SEGMENT_BYTES;
    format!("{:08X}{segment:08X}", lsn.0 >> 32)
}

/// Where a segment begins.
pub fn start_of(name: &str) -> Option<Lsn> {
    let number = |from: usize| u64::from_str_radix(name.get(from..from + 8)?, 16).ok();
    Some(Lsn((number(8)? << 32) + number(16)? * SEGMENT_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_in_the_segment_that_postgresql_names() {
        assert_eq!(place(Lsn(0x16_B374_D848)), "0000001600000B37");
        assert_eq!(start_of("000000010000001600000B37"), Some(Lsn(0x16_B370_0000)));
    }
}
