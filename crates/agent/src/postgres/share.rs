//! The log share.
//!
//! `<share>/<db>/<epoch>/wal` holds finished segments, `stream` what pg_receivewal is writing. A writer ships into the
//! folder of its own epoch. Closing the share to older epochs is one rename of each older folder to `closed/<epoch>`:
//! an archiver that comes later finds no folder, fails, and keeps its segment.
//!
//! A share in a bucket is the same thing to everybody else: here each question is answered from one or the other. `bucket`
//! says how files get there and back.

use crate::bucket::{Bucket, Copying, Shipping};
use crate::error::Error;
use crate::postgres::conf::{Archive, ArchiveTo, WAL_SEGMENT_MB};
use crate::postgres::history::{History, Kept, segment};
use crate::postgres::programs::Programs;
use crate::postgres::share_folder::Folder;
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Segments kept in each folder of the share: a bound on its size, 1 GB.
pub(crate) const SEGMENTS_MAX: usize = 1024;

/// Older epochs whose folders are kept.
pub(crate) const EPOCHS_KEPT: i64 = 3;

/// The share's bound, in bytes.
pub const BYTES_MAX: u64 = SEGMENTS_MAX as u64 * SEGMENT_BYTES;

/// What a host said longer ago than this does not count, unless segments are kept longer.
pub(crate) const NEEDS_AGE: Duration = Duration::from_secs(3600);

/// Size of a segment.
pub const SEGMENT_BYTES: u64 = WAL_SEGMENT_MB as u64 * 1024 * 1024;

/// The share of one database.
#[derive(Clone)]
pub enum Share {
    /// A folder that every host reads and writes.
    Folder(Folder),
    /// A bucket.
    Bucket(Arc<Bucket>),
}

/// Where a writer ships to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterPlaces {
    /// Finished segments, by PostgreSQL.
    pub archive_to: ArchiveTo,
    /// What is being written, by pg_receivewal.
    pub stream: PathBuf,
    /// What a new writer adds of older ones.
    pub added: PathBuf,
}

impl Share {
    /// Places for a writer of this epoch. Refused if the share is closed to it.
    pub fn writer_places(&self, epoch: Epoch, programs: &Programs) -> Result<WriterPlaces, Error> {
        match self {
            Share::Folder(folder) => {
                let (wal, stream) = folder.writer_folders(epoch, programs)?;
                Ok(WriterPlaces { archive_to: ArchiveTo::Folder(wal.clone()), stream, added: wal })
            }
            Share::Bucket(bucket) => {
                let open_from = bucket.index().ok().and_then(|index| index.open_from);
                refuse_closed(open_from, epoch)?;
                let out = bucket.create_out(epoch)?;
                Ok(WriterPlaces { archive_to: ArchiveTo::Marks(out.marks), stream: out.stream, added: out.added })
            }
        }
    }

    /// Where a writer of this epoch archives finished segments to, also while the share does not take them: the archiver goes
    /// on trying, and PostgreSQL keeps what it cannot ship.
    pub fn archive_to(&self, epoch: Epoch, programs: &Programs) -> ArchiveTo {
        self.writer_places(epoch, programs).map_or_else(|_| self.archive_of_fault(epoch), |places| places.archive_to)
    }

    /// The same, whether it is there or not.
    pub fn archive_of_fault(&self, epoch: Epoch) -> ArchiveTo {
        match self {
            Share::Folder(folder) => ArchiveTo::Folder(folder.folder_of(epoch)),
            Share::Bucket(bucket) => ArchiveTo::Marks(bucket.out(epoch).marks),
        }
    }

    /// Let a writer's finished segments be shipped, or none any more. PostgreSQL itself ships them into a folder.
    pub fn ship(&self, shipping: Option<Shipping>) {
        if let Share::Bucket(bucket) = self {
            bucket.ship(shipping);
        }
    }

    /// Close the share to epochs before `epoch`. May be repeated.
    pub async fn close(&self, epoch: Epoch, programs: &Programs) -> Result<(), Error> {
        match self {
            Share::Folder(folder) => folder.close(epoch, programs),
            Share::Bucket(bucket) => bucket
                .close(epoch)
                .await
                .map_err(|cause| Error::Share { what: format!("close the share to epochs before {epoch}"), cause }),
        }
    }

    /// Let the chain go on without a gap: put what a new writer has of the timelines before its own, and the share has not,
    /// into the folder of what is added. An old writer may have died before it had shipped its last segments.
    pub fn begin_chain(&self, pg_wal: &Path, to: &Path, programs: &Programs) -> Result<(), Error> {
        let what = || format!("add to {}", to.display());
        let mut there = self.shipped(false).map_err(Error::file(what()))?;
        there.extend(self.shipped(true).map_err(Error::file(what()))?);
        add_missing(pg_wal, to, &there, programs)
    }

    /// Everything that was shipped, by the names that PostgreSQL asks for. Later epochs win, and finished segments win
    /// over partial ones. With `closed`, of the epochs that were closed last.
    pub fn shipped(&self, closed: bool) -> io::Result<BTreeMap<String, Shipped>> {
        match self {
            Share::Folder(folder) => folder.shipped(closed),
            Share::Bucket(bucket) => {
                let index = bucket.index().map_err(io::Error::other)?;
                Ok(bucket.shipped(&index, closed))
            }
        }
    }

    /// Have what the copy job wants brought here, from time to time; a folder has it.
    pub fn copy(&self, copying: Option<Copying>) {
        if let Share::Bucket(bucket) = self {
            bucket.copy(copying);
        }
    }

    /// Have what is wanted brought here now, for a run that has to know. With `closed`, of the epochs that were closed last.
    pub async fn bring(&self, copying: &Copying, closed: bool) -> io::Result<()> {
        match self {
            Share::Folder(_) => Ok(()),
            Share::Bucket(bucket) => bucket.bring(copying, closed).await.map_err(io::Error::other),
        }
    }

    /// Where PostgreSQL finds finished segments of every epoch by itself.
    pub fn archive(&self) -> Result<Archive, Error> {
        match self {
            Share::Folder(folder) => Ok(Archive::Share(folder.root().to_owned())),
            Share::Bucket(bucket) => bucket.create_requests(None).map(Archive::Requests),
        }
    }

    /// Where it finds those of a writer of this epoch, open or closed; `None` where there are none.
    pub fn archive_of(&self, epoch: Epoch) -> Option<Archive> {
        match self {
            Share::Folder(folder) => folder.archive_of(epoch).map(Archive::Epoch),
            Share::Bucket(bucket) => bucket.create_requests(Some(epoch)).ok().map(Archive::Requests),
        }
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

    /// Whether the share takes segments; what the system or the store says, if not.
    pub async fn takes_files(&self, epoch: Epoch, programs: &Programs) -> Result<(), String> {
        match self {
            Share::Folder(folder) => folder.takes_files(&folder.folder_of(epoch), programs).await,
            Share::Bucket(bucket) => bucket.fault().map_or(Ok(()), Err),
        }
    }

    /// Whether it tells by itself, without being tried, that it takes no segments.
    pub fn tells_faults(&self) -> bool {
        matches!(self, Share::Bucket(_))
    }

    /// Up to where the share has what is being written, as far as the share itself knows; a folder does not: there
    /// PostgreSQL does, which has been told by pg_receivewal.
    pub fn shipped_to(&self) -> Option<Lsn> {
        match self {
            Share::Folder(_) => None,
            Share::Bucket(bucket) => bucket.shipped_to(),
        }
    }

    /// Say which segments a host that is fed from here still needs: those from this place on.
    pub fn say_needs(&self, host: &str, from: Lsn) -> io::Result<()> {
        match self {
            Share::Folder(folder) => folder.say_needs(host, from),
            Share::Bucket(bucket) => {
                bucket.say_needs(place(from));
                Ok(())
            }
        }
    }

    /// Take away segments that are too old and that nobody needs, the oldest beyond the bound on the share's size in any
    /// case, and the folders of epochs long over. What is in a bucket is trimmed by itself: this tells of the last time.
    pub fn trim(&self, epoch: Epoch, older_than: Duration) -> io::Result<Trimmed> {
        match self {
            Share::Folder(folder) => folder.trim(epoch, older_than),
            Share::Bucket(bucket) => Ok(bucket.trimmed()),
        }
    }
}

/// Refuse a writer whom the share is closed to.
pub(crate) fn refuse_closed(open_from: Option<Epoch>, epoch: Epoch) -> Result<(), Error> {
    match open_from {
        Some(first) if epoch < first => {
            Err(Error::Unfit(format!("the share is closed to epochs before {first}; this writer has {epoch}")))
        }
        _ => Ok(()),
    }
}

/// Put what is in `pg_wal` of the timelines before the newest, and is not there yet, into a folder.
fn add_missing(pg_wal: &Path, to: &Path, there: &BTreeMap<String, Shipped>, programs: &Programs) -> Result<(), Error> {
    let what = || format!("add to {}", to.display());
    let is_there = |name: &String| there.get(name).is_some_and(|file| !file.partial);
    let mut own = BTreeMap::new();
    list(pg_wal, false, &mut own).map_err(Error::file(format!("list {}", pg_wal.display())))?;
    let newest = own.keys().rfind(|name| is_history(name));
    let Some(newest) = newest else { return Ok(()) };
    let text = fs::read_to_string(pg_wal.join(newest)).map_err(Error::file(format!("read {newest}")))?;
    let history = History::read(None, &text);
    for (name, file) in &own {
        // A segment that its timeline was left in is not whole.
        let whole = segment(name).is_some_and(|segment| history.keeps(segment) == Kept::Whole);
        if is_there(name) || !(is_history(name) || whole) {
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

/// A file in the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Where it lies.
    pub path: PathBuf,
    /// It is still being written: zeros follow what there is.
    pub partial: bool,
}

pub(crate) fn list(folder: &Path, partial: bool, files: &mut BTreeMap<String, Shipped>) -> io::Result<()> {
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

pub(crate) fn is_history(name: &str) -> bool {
    name.strip_suffix(".history").is_some_and(|timeline| timeline.len() == 8)
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
