//! The copy job of a backup: share → copy destination.
//!
//! PostgreSQL prefers a restored file to what it has received, and puts it in its place. So a segment that is still being
//! written may be offered only while no stream can write into it, and only if it holds all that was received of it:
//! otherwise the log on disk would end before what has been applied, and a promotion would find a hole.

use crate::error::Error;
use crate::postgres::programs::Programs;
use crate::postgres::share::{SEGMENT_BYTES, Share, Shipped, is_segment, place, start_of};
use cluster::report::Hole;
use cluster::wal::Lsn;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// What may be offered to PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offer {
    /// Nothing: the jobs are stopped.
    #[default]
    Nothing,
    /// Finished segments: a stream is, or may come, up.
    Finished,
    /// Partial segments too: no stream can come up.
    Partial,
}

/// The copy destination: finished segments in the folder itself, partial ones in [`PARTIAL`] below it, so that whoever comes
/// next knows which is which.
#[derive(Debug)]
pub struct CopyDestination {
    folder: PathBuf,
    offer: Mutex<Offer>,
}

/// Folder of partial segments, below the copy destination.
pub const PARTIAL: &str = "partial";

impl CopyDestination {
    /// The destination in this folder; nothing is offered yet. Partial segments that a killed agent has left on offer are
    /// withdrawn: a stream may have brought more meanwhile, and PostgreSQL would put the older one in its place.
    pub fn new(folder: PathBuf) -> Result<Self, Error> {
        let destination = Self { folder, offer: Mutex::default() };
        destination.withdraw()?;
        Ok(destination)
    }

    /// What may be offered now.
    pub fn offer(&self) -> Offer {
        *self.lock()
    }

    /// Change what may be offered. When this returns, nothing is on offer that may not be.
    pub fn set_offer(&self, offer: Offer) -> Result<(), Error> {
        let mut now = self.lock();
        if offer != Offer::Partial {
            self.withdraw()?;
        }
        *now = offer;
        Ok(())
    }

    fn withdraw(&self) -> Result<(), Error> {
        super::rebuild::clear(&self.folder.join(PARTIAL))
    }

    /// Put a file on offer, if it still may be; tells whether it is.
    fn publish(&self, aside: &Path, name: &str, partial: bool, programs: &Programs) -> io::Result<bool> {
        let offer = self.lock();
        let may = match *offer {
            Offer::Nothing => false,
            Offer::Finished => !partial,
            Offer::Partial => true,
        };
        if !may {
            fs::remove_file(aside)?;
        } else if partial {
            let folder = self.folder.join(PARTIAL);
            programs.folder(&folder).map_err(io::Error::other)?;
            fs::rename(aside, folder.join(name))?;
        } else {
            fs::rename(aside, self.folder.join(name))?;
            // The same segment, while it was being written, is of no use any more.
            match fs::remove_file(self.folder.join(PARTIAL).join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(may)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Offer> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the standby has, so that nothing is offered which has less.
#[derive(Clone, Debug)]
pub struct Has {
    /// Its `pg_wal`.
    pub wal: PathBuf,
    /// End of what it has received and applied.
    pub end: Lsn,
    /// Applied.
    pub applied: Lsn,
    /// Start of the log that a restart would need.
    pub redo: Lsn,
}

/// What a round of the copy job found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Newest file in the share.
    pub newest: Option<String>,
    /// End of what is in the share.
    pub shipped: Option<Lsn>,
    /// End of what has been copied.
    pub copied: Option<Lsn>,
    /// Files copied in this round.
    pub files: usize,
    /// Bytes of log in them.
    pub bytes: u64,
    /// The newest of them.
    pub newest_copied: Option<String>,
    /// The share lacks the file that comes right after what the standby has.
    pub hole: Option<Hole>,
}

/// The copy job: remembers what it has copied.
#[derive(Debug, Default)]
pub struct CopyJob {
    copied: BTreeMap<String, (Shipped, SystemTime, Option<Lsn>)>,
}

impl CopyJob {
    /// Copy what is new. With `closed`, what the newest closed epoch has left.
    pub fn round(
        &mut self,
        share: &Share,
        closed: bool,
        to: &CopyDestination,
        has: &Has,
        programs: &Programs,
    ) -> io::Result<Copied> {
        let shipped = share.shipped(closed)?;
        let first = place(has.applied);
        self.copied.retain(|name, _| shipped.contains_key(name));
        let mut result = Copied { newest: shipped.keys().rfind(|n| is_segment(n)).cloned(), ..Copied::default() };
        for (name, file) in &shipped {
            if is_segment(name) && name[8..] < first[..] {
                continue;
            }
            // A file that was finished, renamed or trimmed since the folder was listed is seen in the next round.
            let Ok(changed) = fs::metadata(&file.path).and_then(|m| m.modified()) else { continue };
            if self.copied.get(name).is_some_and(|(f, at, _)| f == file && *at == changed) {
                continue;
            }
            match copy(file, name, to, has, programs) {
                Ok(Copy::Offered(end)) => {
                    let before = self.copied.get(name).and_then(|(_, _, end)| *end).or_else(|| start_of(name));
                    result.bytes += end.zip(before).map_or(0, |(end, before)| end.bytes_after(before));
                    result.newest_copied = result.newest_copied.max(Some(name.clone()));
                    self.copied.insert(name.clone(), (file.clone(), changed, end));
                    result.files += 1;
                }
                Ok(Copy::NotOffered) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        result.hole = hole(shipped.keys().filter(|n| is_segment(n)), has.end);
        result.copied = self.copied.values().filter_map(|(_, _, end)| *end).max();
        let newest = result.newest.as_ref();
        let known = newest.and_then(|n| self.copied.get(n)).and_then(|(_, _, end)| *end);
        result.shipped = known.or_else(|| newest.and_then(|n| start_of(n)));
        clean(&to.folder, has.redo)?;
        Ok(result)
    }
}

/// The file that comes right after what there is, if it is missing among these names and later ones are there.
fn hole<'a>(names: impl Iterator<Item = &'a String>, end: Lsn) -> Option<Hole> {
    let next = place(end);
    let places: std::collections::BTreeSet<&str> = names.map(|n| &n[8..]).filter(|p| *p >= next.as_str()).collect();
    let missing = !places.is_empty() && !places.contains(next.as_str());
    let from = Lsn(end.0 / SEGMENT_BYTES * SEGMENT_BYTES);
    missing.then(|| Hole { file: next.clone(), from, later_files: places.len() })
}

/// What became of one file.
enum Copy {
    /// It may not be offered now.
    NotOffered,
    /// It is on offer; a segment's content ends here.
    Offered(Option<Lsn>),
}

/// Copy one file.
fn copy(file: &Shipped, name: &str, to: &CopyDestination, has: &Has, programs: &Programs) -> io::Result<Copy> {
    if file.partial && to.offer() != Offer::Partial {
        return Ok(Copy::NotOffered);
    }
    let content = fs::read(&file.path)?;
    let start = start_of(name).filter(|_| is_segment(name));
    if let Some(start) = start
        && (content.len() as u64 != SEGMENT_BYTES || !covers(&content, start, name, has))
    {
        return Ok(Copy::NotOffered);
    }
    let aside = to.folder.join(format!(".{name}.new"));
    fs::write(&aside, &content)?;
    programs.give(&aside).map_err(io::Error::other)?;
    if !to.publish(&aside, name, file.partial, programs)? {
        return Ok(Copy::NotOffered);
    }
    let end = start.map(|start| {
        let used =
            if file.partial { content.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1) } else { content.len() };
        Lsn(start.0 + used as u64)
    });
    Ok(Copy::Offered(end))
}

/// Whether a segment from the share holds everything that the standby has of it.
fn covers(content: &[u8], start: Lsn, name: &str, has: &Has) -> bool {
    let had = usize::try_from(has.end.bytes_after(start).min(SEGMENT_BYTES)).unwrap_or(usize::MAX);
    if had == 0 {
        return true;
    }
    match fs::read(has.wal.join(name)) {
        Ok(own) => own.len() >= had && content.len() >= had && own[..had] == content[..had],
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Remove copied segments that not even a restart needs.
fn clean(folder: &Path, redo: Lsn) -> io::Result<()> {
    let first = place(redo);
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_segment(&name) && name[8..] < first[..] {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(received: u64, own: &[u8], shipped: &[u8], expect: bool) {
        let folder = std::env::temp_dir().join(format!("standfast-copy-{}-{received}", std::process::id()));
        fs::create_dir_all(&folder).expect("create a folder for the test");
        let name = "000000010000000000000003";
        let start = start_of(name).expect("it is a segment's name");
        let whole = |text: &[u8]| {
            let mut bytes = text.to_vec();
            bytes.resize(usize::try_from(SEGMENT_BYTES).expect("a segment fits in memory"), 0);
            bytes
        };
        fs::write(folder.join(name), whole(own)).expect("write the standby's segment");
        let end = Lsn(start.0 + received);
        let has = Has { wal: folder.clone(), end, applied: end, redo: start };
        assert_eq!(covers(&whole(shipped), start, name, &has), expect, "{own:?} {shipped:?}");
        fs::remove_dir_all(&folder).expect("remove the test's folder");
    }

    #[test]
    fn partial_segments_are_withdrawn_when_a_stream_may_come_up_and_when_an_agent_starts() {
        let folder = std::env::temp_dir().join(format!("standfast-offer-{}", std::process::id()));
        let partial = folder.join(PARTIAL).join("000000010000000000000003");
        let finished = folder.join("000000010000000000000002");
        let leave = || {
            fs::create_dir_all(folder.join(PARTIAL)).expect("create a folder for the test");
            fs::write(&partial, b"old").expect("leave a partial segment");
            fs::write(&finished, b"whole").expect("leave a finished segment");
        };
        leave();
        let destination = CopyDestination::new(folder.clone()).expect("the folder can be emptied");
        assert!(!partial.exists() && finished.exists());
        destination.set_offer(Offer::Partial).expect("it can be offered");
        leave();
        destination.set_offer(Offer::Finished).expect("it can be withdrawn");
        assert!(!partial.exists() && finished.exists());
        fs::remove_dir_all(&folder).expect("remove the test's folder");
    }

    #[test]
    fn a_hole_is_a_missing_file_before_later_ones() {
        let names: Vec<String> = [4, 6, 7].iter().map(|n| format!("0000000100000000{n:08X}")).collect();
        assert_eq!(hole(names.iter(), Lsn(0x40_0010)), None, "the next one is there");
        let found = hole(names.iter(), Lsn(0x50_0010)).expect("5 is missing, and 6 is there");
        assert_eq!((found.file.as_str(), found.from, found.later_files), ("0000000000000005", Lsn(0x50_0000), 2));
        assert_eq!(hole(names.iter(), Lsn(0x80_0000)), None, "nothing later is there");
    }

    #[test]
    fn a_partial_segment_never_replaces_one_that_holds_more() {
        check(4, b"abcd", b"abcdef", true);
        check(4, b"abcd", b"abcd", true);
        check(4, b"abcd", b"abc", false);
        check(3, b"abcx", b"abcd", true);
        check(0, b"zzzz", b"abcd", true);
    }
}
