//! What can be wrong with the share, named, with what can still be done.

use crate::report::Hole;
use crate::wal::Lsn;

/// Segments that wait for a share that does not take them, at most: a bound on what a fault of the share may cost on the
/// principal's disk. Beyond it the share is given up until it takes files again, and lacks what came in between.
pub const WAITING_MB_MAX: u64 = 384;

/// What is wrong with the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareFault {
    /// The folder, or the mount that it lies on, is not there.
    Missing,
    /// No space, or no space within a quota.
    Full,
    /// Mounted read-only.
    ReadOnly,
    /// The account that runs PostgreSQL may not write.
    Denied,
    /// Something else, in the system's words.
    Other(String),
}

/// What the system's words mean, as its programs print them in the locale C.
pub fn named(said: &str) -> ShareFault {
    let words: [(&str, ShareFault); 6] = [
        ("No space left on device", ShareFault::Full),
        ("Disk quota exceeded", ShareFault::Full),
        ("Read-only file system", ShareFault::ReadOnly),
        ("Permission denied", ShareFault::Denied),
        ("Operation not permitted", ShareFault::Denied),
        ("No such file or directory", ShareFault::Missing),
    ];
    let found = words.into_iter().find(|(words, _)| said.contains(words));
    found.map_or_else(|| ShareFault::Other(said.trim().to_owned()), |(_, fault)| fault)
}

/// What is wrong and what can be done, for people. `waiting`: segments, of 1 MB each, that wait on the principal's disk.
pub fn says(fault: &ShareFault, share: &str, waiting: u64, most: u64) -> String {
    let what = match fault {
        ShareFault::Missing => format!("the share {share} is missing: mount it, or bring the folder back"),
        ShareFault::Full => {
            format!("the share {share} is full: free space there, or shorten delete_older_than in the topology")
        }
        ShareFault::ReadOnly => format!("the share {share} is read-only: mount it for reading and writing"),
        ShareFault::Denied => {
            format!(
                "the share {share} may not be written by the account of PostgreSQL: give it the folder (ha-dr §9, R6)"
            )
        }
        ShareFault::Other(said) => format!("the share {share} takes no files: {said}"),
    };
    format!(
        "{what}; the stream goes on without it, shipping resumes by itself, and meanwhile the principal keeps the log for it \
         ({waiting} MB of at most {most} MB)"
    )
}

/// How much may wait on a volume of this size, in MB.
pub fn waiting_max(volume_mb: u64) -> u64 {
    (volume_mb / 10).clamp(16, WAITING_MB_MAX)
}

/// The share has been given up: what that means, for people.
pub fn given_up(share: &str, fault: Option<&ShareFault>, from: Lsn) -> String {
    let state = match fault {
        Some(_) => "it still takes no files",
        None => "it takes files again",
    };
    format!(
        "the share {share} lacks the log from {from} on, which waited for it until it would have filled the disk; {state}. A \
         backup that streams has it; one that does not is to be initialised again: standfast log-shipping enable"
    )
}

/// What a hole right after what the backup has means, and what can be done. `kept_from`: what the principal still has.
pub fn hole(hole: &Hole, kept_from: Option<Lsn>) -> String {
    let what = format!(
        "the share lacks {}, the next file that the backup needs, and has {} later ones",
        hole.file, hole.later_files
    );
    match kept_from {
        Some(kept) if kept <= hole.from => {
            format!("{what}; the principal still keeps it: the backup goes on when its stream comes up again")
        }
        Some(kept) => format!(
            "{what}; the principal keeps its log from {kept} on only: the backup has to be initialised again: \
             standfast log-shipping enable"
        ),
        None => format!("{what}; whether the principal still keeps it is not known, it does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_understood() {
        for (said, fault) in [
            ("cp: error writing '/s/x': No space left on device", ShareFault::Full),
            ("cp: cannot create regular file '/s/x': Read-only file system", ShareFault::ReadOnly),
            ("cp: cannot create regular file '/s/x': No such file or directory", ShareFault::Missing),
            ("sh: 1: cannot create /s/x: Permission denied", ShareFault::Denied),
            ("Input/output error", ShareFault::Other("Input/output error".into())),
        ] {
            assert_eq!(named(said), fault, "{said}");
        }
    }

    #[test]
    fn what_waits_is_bounded_by_the_volume() {
        assert_eq!((waiting_max(100_000), waiting_max(1_000), waiting_max(10)), (384, 100, 16));
    }

    #[test]
    fn a_hole_that_the_principal_cannot_fill_asks_for_an_initialisation() {
        let missing = Hole { file: "0000000000000005".into(), from: Lsn(0x50_0000), later_files: 3 };
        assert!(hole(&missing, Some(Lsn(0x40_0000))).contains("goes on when its stream comes up"));
        assert!(hole(&missing, Some(Lsn(0x60_0000))).contains("standfast log-shipping enable"));
    }
}
