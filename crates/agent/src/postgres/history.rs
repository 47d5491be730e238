//! Timelines of the log: where each was left, and which segments belong to a history.

use crate::postgres::share::{SEGMENT_BYTES, is_history, is_segment, place, start_of};
use cluster::wal::Lsn;
use std::fs;
use std::path::Path;

/// The timeline of a segment, by its name, and the place that it begins at.
pub fn segment(name: &str) -> Option<(u32, Lsn)> {
    let timeline = u32::from_str_radix(name.get(..8)?, 16).ok()?;
    Some((timeline, start_of(name).filter(|_| is_segment(name))?))
}

/// A timeline, and where each one before it was left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The timeline, where it is wanted.
    pub present: Option<u32>,
    /// Each one before, with the place where it was left.
    pub left: Vec<(u32, Lsn)>,
}

impl History {
    /// From the text of a history file: a line for each timeline before.
    pub fn read(present: Option<u32>, text: &str) -> Self {
        let left = text.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        Self { present, left: left.collect() }
    }

    /// How much of a segment belongs to this history, from its beginning on.
    pub fn keeps(&self, (timeline, begins): (u32, Lsn)) -> Kept {
        if Some(timeline) == self.present {
            return Kept::Whole;
        }
        match self.left.iter().find(|(t, _)| *t == timeline) {
            Some((_, fork)) if fork.0 >= begins.0 + SEGMENT_BYTES => Kept::Whole,
            Some((_, fork)) if *fork > begins => Kept::UpTo(fork.0 - begins.0),
            _ => Kept::Nothing,
        }
    }
}

/// How much of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of it.
    Whole,
    /// So many bytes.
    UpTo(u64),
    /// None of it.
    Nothing,
}

/// Name of a timeline's history file.
pub fn file_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// The newest history in a folder: that of the timeline with the highest number.
pub fn newest(pg_wal: &Path) -> Option<History> {
    let names = fs::read_dir(pg_wal).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let name = names.filter(|name| is_history(name)).max()?;
    let text = fs::read_to_string(pg_wal.join(&name)).ok()?;
    Some(History::read(u32::from_str_radix(&name[..8], 16).ok(), &text))
}

/// The segments in which the newest history in a folder left their timelines, with the bytes of each that belong to it.
pub fn left_in(pg_wal: &Path) -> Vec<(String, u64)> {
    let left = newest(pg_wal).unwrap_or_default().left.into_iter();
    let inside = |fork: Lsn| Some(fork.0 % SEGMENT_BYTES).filter(|bytes| *bytes > 0);
    left.filter_map(|(timeline, fork)| Some((format!("{timeline:08X}{}", place(fork)), inside(fork)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_what_it_has_of_each_segment() {
        // Timeline 1 was left where segment 30 begins, 2 in segment 50; segments are of 1 MB.
        let text = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000100\tno recovery target specified\n";
        let history = History::read(Some(3), text);
        let keeps = |name: &str| history.keeps(segment(name).unwrap());
        assert_eq!(keeps("000000010000000000000002"), Kept::Whole);
        assert_eq!(keeps("000000010000000000000030"), Kept::Nothing);
        assert_eq!(keeps("000000020000000000000050"), Kept::UpTo(256));
        assert_eq!(keeps("00000002000000000000004F"), Kept::Whole);
        assert_eq!(keeps("000000020000000000000051"), Kept::Nothing);
        assert_eq!(keeps("000000030000000000000099"), Kept::Whole);
        assert_eq!(keeps("000000040000000000000001"), Kept::Nothing);
        assert_eq!(segment("00000003.history"), None);
    }
}
