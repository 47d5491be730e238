//! The copy job of a backup: share → copy destination.
//!
//! PostgreSQL prefers a restored file to what it has received, and puts it in its place. So a segment that is still being
//! written may be offered only while no stream can write into it, and only if it holds all that was received of it, and
//! more: otherwise the log on disk would end before what has been applied. PostgreSQL would not start on it again, and a
//! promotion would find a hole.

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

    /// Put a file on offer, if it still may be; tells where it is.
    fn publish(&self, aside: &Path, name: &str, partial: bool, programs: &Programs) -> io::Result<Option<PathBuf>> {
        let offer = self.lock();
        let may = match *offer {
            Offer::Nothing => false,
            Offer::Finished => !partial,
            Offer::Partial => true,
        };
        if !may {
            fs::remove_file(aside)?;
            return Ok(None);
        }
        let below = self.folder.join(PARTIAL);
        if partial {
            programs.folder(&below).map_err(io::Error::other)?;
            let at = below.join(name);
            fs::rename(aside, &at)?;
            return Ok(Some(at));
        }
        let at = self.folder.join(name);
        fs::rename(aside, &at)?;
        // The same segment, while it was being written, is of no use any more.
        match fs::remove_file(below.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Some(at)),
        }
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
    copied: BTreeMap<String, Known>,
}

/// A file that was looked at.
#[derive(Debug)]
struct Known {
    file: Shipped,
    /// When it was changed last.
    changed: SystemTime,
    /// Where a segment's content ends.
    end: Option<Lsn>,
    /// Where it is on offer; nothing, where the standby has all of it.
    offered: Option<PathBuf>,
}

impl Known {
    /// Whether there is nothing to do for this file: it is as it was, and so is what became of it.
    fn stands(&self, file: &Shipped, changed: SystemTime) -> bool {
        self.file == *file && self.changed == changed && self.offered.as_ref().is_none_or(|at| at.exists())
    }
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
            if self.copied.get(name).is_some_and(|known| known.stands(file, changed)) {
                continue;
            }
            match copy(file, name, to, has, programs) {
                Ok(Copy::Offered { at, end }) => {
                    let before = self.copied.get(name).and_then(|known| known.end).or_else(|| start_of(name));
                    result.bytes += end.zip(before).map_or(0, |(end, before)| end.bytes_after(before));
                    result.newest_copied = result.newest_copied.max(Some(name.clone()));
                    let known = Known { file: file.clone(), changed, end, offered: Some(at) };
                    self.copied.insert(name.clone(), known);
                    result.files += 1;
                }
                Ok(Copy::Had(end)) => {
                    let known = Known { file: file.clone(), changed, end: Some(end), offered: None };
                    self.copied.insert(name.clone(), known);
                }
                Ok(Copy::NotOffered) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        result.hole = hole(shipped.keys().filter(|n| is_segment(n)), has.end);
        result.copied = self.copied.values().filter_map(|known| known.end).max();
        let newest = result.newest.as_ref();
        let known = newest.and_then(|n| self.copied.get(n)).and_then(|known| known.end);
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
    /// The standby has all of it, up to here.
    Had(Lsn),
    /// It is on offer there; a segment's content ends here.
    Offered { at: PathBuf, end: Option<Lsn> },
}

/// Copy one file.
fn copy(file: &Shipped, name: &str, to: &CopyDestination, has: &Has, programs: &Programs) -> io::Result<Copy> {
    if file.partial && to.offer() != Offer::Partial {
        return Ok(Copy::NotOffered);
    }
    let content = fs::read(&file.path)?;
    let start = start_of(name).filter(|_| is_segment(name));
    let used = if file.partial { content.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1) } else { content.len() };
    let end = start.map(|start| Lsn(start.0 + used as u64));
    if let Some(start) = start {
        if content.len() as u64 != SEGMENT_BYTES {
            return Ok(Copy::NotOffered);
        }
        let own = match fs::read(has.wal.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            own => Some(own?),
        };
        let known = usize::try_from(has.end.bytes_after(start).min(SEGMENT_BYTES)).unwrap_or(usize::MAX);
        match own.map_or(Against::Less, |own| against(&own, known, &content[..used])) {
            Against::Less => {}
            // What is finished has all that there will ever be.
            Against::All if !file.partial => {}
            Against::All => return Ok(Copy::Had(Lsn(start.0 + used as u64))),
            Against::Other => return Ok(Copy::NotOffered),
        }
    }
    let aside = to.folder.join(format!(".{name}.new"));
    fs::write(&aside, &content)?;
    programs.give(&aside).map_err(io::Error::other)?;
    let Some(at) = to.publish(&aside, name, file.partial, programs)? else { return Ok(Copy::NotOffered) };
    Ok(Copy::Offered { at, end })
}

/// What a standby has of a segment, against what the share has of it. Both are the beginning of what one writer wrote, and
/// whatever comes after a standby's, which may be left of an older segment, is no log: where the two differ within the
/// share's, the standby's has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    /// The share has all of it, and more.
    Less,
    /// The standby has all of the share's, and maybe more.
    All,
    /// They are not of one log, or the share lacks what the standby is known to have.
    Other,
}

/// Compare a standby's own segment, the first `known` bytes of which are known to be log, with the share's, as far as it is used.
fn against(own: &[u8], known: usize, shipped: &[u8]) -> Against {
    if own.starts_with(shipped) {
        Against::All
    } else if own.get(..known).is_some_and(|had| shipped.starts_with(had)) {
        Against::Less
    } else {
        Against::Other
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
    fn a_partial_segment_takes_the_place_of_one_only_if_it_adds_to_it() {
        let cases: [(&[u8], usize, &[u8], Against); 9] = [
            (b"abcd00", 4, b"abcdef", Against::Less),
            (b"abcd00", 4, b"abcd", Against::All),
            (b"abcd00", 4, b"abc", Against::All),
            // One that has been started again does not know yet how much it has.
            (b"abcd00", 1, b"abc", Against::All),
            (b"abcd00", 0, b"abcdef", Against::Less),
            // What is left of an older segment is no log.
            (b"abxxxx", 2, b"abcd", Against::Less),
            (b"xxxxxx", 0, b"abcd", Against::Less),
            (b"abcd00", 4, b"abxd", Against::Other),
            (b"abc", 4, b"abcdef", Against::Other),
        ];
        for (own, known, shipped, expected) in cases {
            assert_eq!(against(own, known, shipped), expected, "{own:?} {known} {shipped:?}");
        }
    }
}
