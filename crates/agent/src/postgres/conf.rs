//! The configuration of an instance: one file that the agent writes whole, so that what PostgreSQL does is what this says.

use cluster::name::HostName;
use cluster::shipping_settings::Compression;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Size of a WAL segment, in MB. Small ones make partial segments cheap to ship and a promotion quick (8 ms against 25).
pub const WAL_SEGMENT_MB: u32 = 1;

/// Log kept for standbys that are away, in MB, at most; less on a small volume. What is older they fetch from the share. A
/// segment that is not kept is used again, and one that is used again need not be filled with zeros first, which costs a
/// commit some milliseconds.
const WAL_KEEP_MB_MAX: u64 = 192;

/// More log than any volume holds, in MB: the largest value that PostgreSQL takes.
const WAL_KEEP_ALL_MB: u64 = i32::MAX as u64;

/// Longest silence on a stream, in milliseconds, where no mirror pair asks for less.
pub const SILENCE_MS: u64 = 5_000;

/// Where PostgreSQL finds finished segments of the share by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archive {
    /// The share's own folder: those of every epoch.
    Share(PathBuf),
    /// A folder of finished segments: those of one epoch.
    Epoch(PathBuf),
    /// A folder through which it asks the agent for them.
    Requests(PathBuf),
}

/// Where PostgreSQL archives finished segments to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveTo {
    /// A folder that it copies them into.
    Folder(PathBuf),
    /// A folder of marks: the agent ships them from where they are, and marks what is in the share for good.
    Marks(PathBuf),
    /// Nowhere for now: they wait.
    Later,
}

/// Where the recovery of a backup ends; it is a writer's from there on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoverTo {
    /// The last transaction that was committed by this time.
    Time(String),
    /// The end of the log that there is. Of a backup alone that is where it is consistent, or a moment later; PostgreSQL's own target
    /// for that place, `immediate`, is never reached by a backup whose log ends there, as it does where nobody writes.
    End,
}

/// Everything that varies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conf {
    /// Name of the host: the instance's `cluster_name`.
    pub host: HostName,
    /// Address to listen on.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Folder of the Unix socket.
    pub socket: PathBuf,
    /// The data is a standby's.
    pub is_standby: bool,
    /// The mirror that commits wait for.
    pub wait_for: Option<HostName>,
    /// Where a standby streams from: a connection string.
    pub stream_from: Option<String>,
    /// Folder that a standby restores files from.
    pub files_from: Option<PathBuf>,
    /// The share itself, from which a standby that is starting fetches what is nowhere nearer: after a rewind or a long
    /// absence it may need more log than its source has kept.
    pub archive: Option<Archive>,
    /// File in which each request for a file to restore is noted.
    pub asked: PathBuf,
    /// File of the script that restores: `Conf::restore_script`.
    pub restore: PathBuf,
    /// Segments in which the instance's history left their timeline, with the bytes of each that belong to it. The share may have
    /// more of them, from a principal that was replaced; PostgreSQL would apply that past the fork, where it finds the segment of
    /// the newer timeline nowhere yet.
    pub left_in: Vec<(String, u64)>,
    /// Where finished segments are archived to.
    pub archive_to: Option<ArchiveTo>,
    /// A segment is finished at least this often while anything is written, in seconds; 0: only when it is full.
    pub archive_timeout_s: u64,
    /// What was committed is held back so long before a standby applies it, in milliseconds.
    pub apply_delay_ms: u64,
    /// How long a standby waits for a word of its source, and its source for one of it, in milliseconds.
    pub silence_ms: u64,
    /// How the log is made smaller.
    pub compression: Compression,
    /// Size of the volume, in MB.
    pub volume_mb: u64,
    /// A standby without a source, started only to be read: it keeps to its own timeline, and throws none of its log away,
    /// which a rewind needs back to the last checkpoint that it has in common with its source.
    pub only_read: bool,
    /// Of a backup that is restored: where its recovery ends.
    pub recover_to: Option<RecoverTo>,
}

impl Conf {
    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = String::from("# Written by the standfast agent. Changes here are overwritten.\n");
        let keep_mb = (self.volume_mb / 20).clamp(64, WAL_KEEP_MB_MAX);
        let (timeline, wal_keep_mb) = if self.only_read { ("current", WAL_KEEP_ALL_MB) } else { ("latest", keep_mb) };
        // A standby that comes up again by itself while it is promoted would go on with the timeline of before: its agent has
        // to look at it first.
        let restarts = if self.is_standby { "off" } else { "on" };
        let fixed: &[(&str, String)] = &[
            ("listen_addresses", self.address.clone()),
            ("port", self.port.to_string()),
            ("unix_socket_directories", self.socket.display().to_string()),
            ("unix_socket_permissions", "0700".into()),
            ("cluster_name", self.host.to_string()),
            ("max_connections", "100".into()),
            ("shared_buffers", "96MB".into()),
            ("jit", "off".into()),
            ("wal_level", "replica".into()),
            ("wal_log_hints", "on".into()),
            ("fsync", "on".into()),
            ("full_page_writes", "on".into()),
            ("synchronous_commit", "on".into()),
            ("wal_compression", self.compression.word().into()),
            ("archive_timeout", format!("{}s", self.archive_timeout_s)),
            ("recovery_min_apply_delay", format!("{}ms", self.apply_delay_ms)),
            ("min_wal_size", format!("{keep_mb}MB")),
            ("max_wal_size", "512MB".into()),
            ("checkpoint_timeout", "2min".into()),
            ("max_wal_senders", "12".into()),
            ("wal_keep_size", format!("{wal_keep_mb}MB")),
            ("max_slot_wal_keep_size", format!("{keep_mb}MB")),
            ("hot_standby", "on".into()),
            ("recovery_target_timeline", timeline.into()),
            // How long a standby sleeps after its stream or a file failed: 5 s by default, which hides in many tails.
            ("wal_retrieve_retry_interval", "20ms".into()),
            ("wal_receiver_status_interval", "1s".into()),
            // A standby asks for a word after half of this.
            ("wal_receiver_timeout", format!("{}ms", self.silence_ms)),
            ("wal_sender_timeout", "5s".into()),
            ("tcp_keepalives_idle", "5".into()),
            ("tcp_keepalives_interval", "1".into()),
            ("tcp_keepalives_count", "3".into()),
            ("tcp_user_timeout", "5s".into()),
            ("archive_mode", "on".into()),
            ("restart_after_crash", restarts.into()),
            ("log_line_prefix", "%m [%p] %a ".into()),
            ("log_checkpoints", "off".into()),
            ("password_encryption", "scram-sha-256".into()),
        ];
        for (name, value) in fixed {
            setting(&mut text, name, value);
        }
        let quoted = |h: &HostName| format!("FIRST 1 (\"{h}\")");
        setting(&mut text, "synchronous_standby_names", &self.wait_for.as_ref().map(quoted).unwrap_or_default());
        // The source is told how long it may wait for a reply: a mirror's may be shorter than a backup's.
        let patience = |at: &String| format!("{at} options='-c wal_sender_timeout={}ms'", self.silence_ms);
        setting(&mut text, "primary_conninfo", &self.stream_from.as_ref().map(patience).unwrap_or_default());
        let restore = format!("sh '{}' '%f' '%p'", self.restore.display());
        setting(&mut text, "restore_command", if self.restores() { &restore } else { "" });
        if let Some(RecoverTo::Time(at)) = &self.recover_to {
            setting(&mut text, "recovery_target_time", at);
            setting(&mut text, "recovery_target_action", "promote");
        }
        // Before it replays, PostgreSQL flushes what a writer that was killed has written: file by file, or all at once.
        setting(&mut text, "recovery_init_sync_method", if self.only_read { "syncfs" } else { "fsync" });
        let archive = self.archive_to.as_ref().map_or("true".to_owned(), archive_command);
        setting(&mut text, "archive_command", &archive);
        text
    }
}

fn setting(text: &mut String, name: &str, value: &str) {
    writeln!(text, "{name} = '{}'", value.replace('\'', "''")).expect("writing to a string cannot fail");
}

impl Conf {
    /// Whether there is anywhere to restore from.
    fn restores(&self) -> bool {
        self.files_from.is_some() || self.archive.is_some()
    }

    /// Restores a file, by name, to a place; nothing, where there is nowhere to restore from. Plain shell, so that a standby depends
    /// on nothing but its own files; a file of its own, because it has a line for each timeline that the history left, and what
    /// a command may hold is limited. Each request is noted: that the same segment is asked for again shows that everything
    /// in it has been applied.
    pub fn restore_script(&self) -> String {
        if !self.restores() {
            return String::new();
        }
        let mut places = String::new();
        let mut last = "exit 1".to_owned();
        if let Some(folder) = &self.files_from {
            let (folder, partial) = (folder.display(), crate::postgres::copy::PARTIAL);
            write!(places, "'{folder}'/$1 '{folder}/{partial}'/$1 ").expect("writing to a string cannot fail");
        }
        match &self.archive {
            None => {}
            Some(Archive::Share(share)) => {
                let share = share.display();
                write!(places, "'{share}'/*/wal/$1 '{share}'/closed/*/wal/$1 ")
                    .expect("writing to a string cannot fail");
            }
            Some(Archive::Epoch(wal)) => {
                write!(places, "'{}'/$1 ", wal.display()).expect("writing to a string cannot fail");
            }
            Some(Archive::Requests(folder)) => last = request(folder),
        }
        let near = if places.is_empty() {
            String::new()
        } else {
            format!("for f in {places}; do test -f \"$f\" && give \"$f\"; done\n")
        };
        format!(
            "# Written by the standfast agent. Changes here are overwritten.\nname=$1; to=$2\necho $name >> '{}'\n{}{near}{last}\n",
            self.asked.display(),
            give(&self.left_in)
        )
    }
}

/// A function that hands a file over and ends: whole, or, where its timeline was left inside it, up to there and zeros after.
fn give(left_in: &[(String, u64)]) -> String {
    let mut cases = String::new();
    for (name, bytes) in left_in {
        let rest = super::share::SEGMENT_BYTES.saturating_sub(*bytes);
        writeln!(cases, "{name}) {{ head -c {bytes} \"$1\"; head -c {rest} /dev/zero; }} > \"$to\"; exit;;")
            .expect("writing to a string cannot fail");
    }
    format!("give() {{ case $name in\n{cases}*) exec cp \"$1\" \"$to\";;\nesac; }}\n")
}

/// Ask the agent, which takes the request away when it has answered it; an agent that is away answers nothing.
fn request(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "w='{folder}/want/'$name; h='{folder}/have/'$name; : > \"$w\" || exit 1; i=0; while test $i -lt 150; do test -f \"$w\" || {{ \
         test -f \"$h\" && give \"$h\"; exit 1; }}; i=$((i+1)); sleep 0.02; done; exit 1"
    )
}

/// A finished segment is in the share whole and synced, its name as well, or not at all; a share whose folders cannot be synced
/// is taken as it is, as PostgreSQL does. When the folder has been taken away because the share is closed to this epoch, the
/// command fails and PostgreSQL keeps the segment; so it does where the agent, which ships into a bucket, has not marked the
/// segment in time, or says that the bucket takes nothing.
fn archive_command(to: &ArchiveTo) -> String {
    match to {
        // PostgreSQL keeps them until there is a command.
        ArchiveTo::Later => String::new(),
        ArchiveTo::Folder(folder) => {
            let to = folder.display();
            format!(
                "{{ test -f '{to}/%f' || {{ dd if='%p' of='{to}/.%f.new' bs=1M conv=fsync status=none && \
                 mv '{to}/.%f.new' '{to}/%f'; }}; }} && {{ sync '{to}'; exit 0; }}"
            )
        }
        ArchiveTo::Marks(folder) => {
            let (marks, fault) = (folder.display(), crate::bucket::FAULT);
            format!(
                "i=0; while test $i -lt 250; do test -f '{marks}/%f' && exit 0; test -f '{marks}/{fault}' && exit 1; \
                 i=$((i+1)); sleep 0.02; done; exit 1"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf() -> Conf {
        Conf {
            host: "a".into(),
            address: "127.0.0.1".into(),
            port: 5432,
            socket: "/s".into(),
            is_standby: false,
            wait_for: Some("b".into()),
            stream_from: Some("host=x password='y'".into()),
            files_from: None,
            archive: None,
            asked: "/a".into(),
            restore: "/r".into(),
            left_in: vec![("000000010000000000000012".into(), 1_000)],
            archive_to: Some(ArchiveTo::Folder("/share".into())),
            archive_timeout_s: 900,
            apply_delay_ms: 0,
            silence_ms: SILENCE_MS,
            compression: Compression::Lz4,
            volume_mb: 100_000,
            only_read: false,
            recover_to: None,
        }
    }

    #[test]
    fn quotes_survive_and_everything_that_varies_is_said() {
        let conf = conf();
        let text = conf.text();
        assert!(text.contains("synchronous_standby_names = 'FIRST 1 (\"b\")'"));
        assert!(text.contains("primary_conninfo = 'host=x password=''y'' options=''-c wal_sender_timeout=5000ms'''"));
        assert!(text.contains("restore_command = ''"));
        assert!(text.contains("wal_keep_size = '192MB'"));
        assert_eq!(conf.restore_script(), "");
        let text = Conf { files_from: Some("/c".into()), ..conf.clone() }.text();
        assert!(text.contains("restore_command = 'sh ''/r'' ''%f'' ''%p'''"), "{text}");
        let text = Conf { only_read: true, ..conf }.text();
        assert!(text.contains("wal_keep_size = '2147483647MB'"));
        assert!(text.contains("recovery_target_timeline = 'current'"));
    }

    #[test]
    fn a_segment_is_restored_up_to_where_its_timeline_was_left_however_many_there_were() {
        let dir = std::env::temp_dir().join(format!("standfast-agent-restore-{}", std::process::id()));
        let (there, to) = (dir.join("there"), dir.join("to"));
        std::fs::create_dir_all(&there).unwrap();
        let (cut, whole, nowhere) =
            ("0000100000000000000000FF", "0000100100000000000000FF", "0000100200000000000000FF");
        for name in [cut, whole] {
            std::fs::write(there.join(name), vec![7; 1 << 20]).unwrap();
        }
        let conf = Conf {
            archive: Some(Archive::Epoch("/nowhere".into())),
            files_from: Some(there),
            asked: dir.join("asked"),
            left_in: (1..=4_096).map(|timeline| (format!("{timeline:08X}00000000000000FF"), 1_000)).collect(),
            ..conf()
        };
        let script = dir.join("restore.sh");
        std::fs::write(&script, conf.restore_script()).unwrap();
        assert!(conf.restore_script().len() > 128 << 10, "no command may be so long");
        let restores = |name: &str| {
            let mut sh = std::process::Command::new("sh");
            sh.arg(&script).args([name.as_ref(), to.as_os_str()]).status().unwrap().success()
        };

        assert!(restores(whole));
        assert!(std::fs::read(&to).unwrap() == vec![7; 1 << 20]);
        assert!(restores(cut));
        let restored = std::fs::read(&to).unwrap();
        assert!(restored[..1_000] == [7; 1_000] && restored[1_000..] == vec![0; (1 << 20) - 1_000]);
        assert!(!restores(nowhere));
        let asked = std::fs::read_to_string(&conf.asked).unwrap();
        assert_eq!(asked.lines().collect::<Vec<_>>(), [whole, cut, nowhere]);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_segment_counts_as_archived_when_its_name_in_the_share_is_synced() {
        let dir = std::env::temp_dir().join(format!("standfast-agent-archive-{}", std::process::id()));
        let (share, programs, said) = (dir.join("share"), dir.join("programs"), dir.join("said"));
        std::fs::create_dir_all(&share).unwrap();
        std::fs::create_dir_all(&programs).unwrap();
        let segment = dir.join("segment");
        std::fs::write(&segment, vec![7; 1 << 20]).unwrap();
        // Tells what was in place when the folder was synced.
        let sync = programs.join("sync");
        let script = format!("#!/bin/sh\ntest -f \"$1/000A\" && echo \"$1\" >> '{}'\n", said.display());
        std::fs::write(&sync, script).unwrap();
        std::fs::set_permissions(&sync, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let archive = |share: &Path| {
            let command = archive_command(&ArchiveTo::Folder(share.to_owned()));
            let command = command.replace("%p", &segment.display().to_string()).replace("%f", "000A");
            let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
            std::process::Command::new("sh").args(["-c", &command]).env("PATH", path).status().unwrap().success()
        };
        let synced = || std::fs::read_to_string(&said).unwrap_or_default().lines().count();

        assert!(!archive(&dir.join("closed")), "the share is closed");
        assert!(archive(&share));
        assert_eq!(std::fs::read(share.join("000A")).unwrap(), std::fs::read(&segment).unwrap());
        assert_eq!(synced(), 1);
        // A crash may have come between the renaming and the syncing.
        assert!(archive(&share));
        assert_eq!(synced(), 2);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
