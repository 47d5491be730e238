//! The log that an instance has on its disk.

use crate::postgres::share::{SEGMENT_BYTES, is_segment, start_of};
use cluster::wal::Lsn;

/// The log that an instance has on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOnDisk {
    /// Bytes of segments, those included that are kept to be used again.
    pub bytes: u64,
    /// Where the oldest begins.
    pub oldest: Option<Lsn>,
}

/// The log in a folder, by the names alone: all segments are of one size. Those that are kept to be used again have later names.
pub fn log_in(folder: &std::path::Path) -> LogOnDisk {
    let mut log = LogOnDisk::default();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_segment(name)) else { continue };
        log.bytes += SEGMENT_BYTES;
        log.oldest = [log.oldest, start_of(name)].into_iter().flatten().min();
    }
    log
}
