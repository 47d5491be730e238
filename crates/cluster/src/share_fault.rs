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
    /// The store of the bucket does not answer at its address.
    Unreachable,
    /// The store of the bucket takes longer than is waited for.
    Slow,
    /// Something else, in the system's words.
    Other(String),
}

/// What the system's words mean, as its programs print them in the locale C.
pub fn named(said: &str) -> ShareFault {
    let words: [(&str, ShareFault); 27] = [
        ("No space left on device", ShareFault::Full),
        ("Disk quota exceeded", ShareFault::Full),
        ("Read-only file system", ShareFault::ReadOnly),
        ("Permission denied", ShareFault::Denied),
        ("Operation not permitted", ShareFault::Denied),
        ("No such file or directory", ShareFault::Missing),
        ("NoSuchBucket", ShareFault::Missing),
        ("AccessDenied", ShareFault::Denied),
        ("SignatureDoesNotMatch", ShareFault::Denied),
        ("InvalidAccessKeyId", ShareFault::Denied),
        ("403 Forbidden", ShareFault::Denied),
        ("401 Unauthorized", ShareFault::Denied),
        ("QuotaExceeded", ShareFault::Full),
        ("StorageFull", ShareFault::Full),
        ("507 Insufficient Storage", ShareFault::Full),
        ("no answer within", ShareFault::Slow),
        ("operation timed out", ShareFault::Slow),
        ("SlowDown", ShareFault::Slow),
        ("error trying to connect", ShareFault::Unreachable),
        ("tcp connect error", ShareFault::Unreachable),
        ("Connection refused", ShareFault::Unreachable),
        ("connection closed before message completed", ShareFault::Unreachable),
        ("Connection reset by peer", ShareFault::Unreachable),
        ("Broken pipe", ShareFault::Unreachable),
        ("Network is unreachable", ShareFault::Unreachable),
        ("No route to host", ShareFault::Unreachable),
        ("dns error", ShareFault::Unreachable),
    ];
    let found = words.into_iter().find(|(words, _)| said.contains(words));
    found.map_or_else(|| ShareFault::Other(said.trim().to_owned()), |(_, fault)| fault)
}

/// What is wrong and what can be done, for people. `waiting`: segments, of 1 MB each, that wait on the principal's disk.
pub fn says(fault: &ShareFault, share: &str, waiting: u64, most: u64) -> String {
    let bucket = share.starts_with(crate::shipping_settings::BUCKET);
    let what = match fault {
        ShareFault::Missing if bucket => {
            format!("the bucket of the share {share} is missing: create it, or correct its name")
        }
        ShareFault::Denied if bucket => {
            format!(
                "the share {share} refuses the key: see s3.credentials in the host's folder, and what the key may do"
            )
        }
        ShareFault::Unreachable => {
            format!(
                "the store of the share {share} cannot be reached: see the endpoint in the topology, and the line to it"
            )
        }
        ShareFault::Slow => format!("the store of the share {share} does not answer in time"),
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

/// What the share lacks because it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Its begin.
    pub from: Lsn,
    /// Its end, once the share takes files again.
    pub to: Option<Lsn>,
}

/// How the principal stands with a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strain {
    /// Nothing is known against the share.
    pub takes_files: bool,
    /// What waits for it, in MB.
    pub waiting_mb: u64,
    /// What may wait at most, in MB.
    pub most_mb: u64,
    /// Start of what waits.
    pub oldest: Option<Lsn>,
    /// End of the log.
    pub written: Lsn,
}

/// What the share lacks from now on: it is given up when too much waits for it, and taken up when it takes files again.
/// While the end is open, nothing is archived, and PostgreSQL may let the log go.
pub fn lacks(before: Option<Lack>, strain: &Strain) -> Option<Lack> {
    let too_much = !strain.takes_files && strain.waiting_mb > strain.most_mb;
    match before {
        None if too_much => strain.oldest.map(|from| Lack { from, to: None }),
        None => None,
        Some(Lack { from, .. }) if too_much => Some(Lack { from, to: None }),
        Some(Lack { from, to: None }) if strain.takes_files => Some(Lack { from, to: Some(strain.written) }),
        Some(lack) => Some(lack),
    }
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
            ("Client error with status 404: <Error><Code>NoSuchBucket</Code></Error>", ShareFault::Missing),
            ("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>", ShareFault::Denied),
            ("<Code>XMinioStorageFull</Code>", ShareFault::Full),
            ("no answer within 5 s", ShareFault::Slow),
            ("client error (Connect): tcp connect error: Connection refused (os error 111)", ShareFault::Unreachable),
            ("client error (SendRequest): connection closed before message completed", ShareFault::Unreachable),
            ("client error (SendRequest): Connection reset by peer (os error 104)", ShareFault::Unreachable),
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
    fn a_share_is_given_up_beyond_the_bound_and_taken_up_when_it_takes_files() {
        let strain =
            Strain { takes_files: false, waiting_mb: 300, most_mb: 384, oldest: Some(Lsn(5)), written: Lsn(400) };
        assert_eq!(lacks(None, &strain), None);
        let much = Strain { waiting_mb: 385, ..strain };
        assert_eq!(lacks(None, &Strain { takes_files: true, ..much }), None, "a healthy archiver that is behind");
        let lack = lacks(None, &much);
        assert_eq!(lack, Some(Lack { from: Lsn(5), to: None }));
        let drained = Strain { waiting_mb: 0, oldest: None, ..much };
        assert_eq!(lacks(lack, &drained), lack, "it stays given up while it takes nothing");
        let mended = lacks(lack, &Strain { takes_files: true, ..drained });
        assert_eq!(mended, Some(Lack { from: Lsn(5), to: Some(Lsn(400)) }));
        assert_eq!(lacks(mended, &much), lack, "and given up again");
    }

    #[test]
    fn a_hole_that_the_principal_cannot_fill_asks_for_an_initialisation() {
        let missing = Hole { file: "0000000000000005".into(), from: Lsn(0x50_0000), later_files: 3 };
        assert!(hole(&missing, Some(Lsn(0x40_0000))).contains("goes on when its stream comes up"));
        assert!(hole(&missing, Some(Lsn(0x60_0000))).contains("standfast log-shipping enable"));
    }
}
