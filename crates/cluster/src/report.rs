//! Reports: what an agent sees on its host. Measured, never assumed; what could not be measured is `None`.

use crate::backup::BackupsReport;
use crate::canary::{AppliedCanary, ServerCanaries};
use crate::drill::DrillReport;
use crate::name::{DatabaseName, HostName, ServerName, SiteName};
use crate::order::{Outcome, Stamp, StampedOrder};
use crate::record::PoolRecord;
use crate::service::ServiceReport;
use crate::wal::{Lsn, Timeline};
use rules::id::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one agent sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// The host.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// When this was measured: milliseconds since the Unix epoch by the host's own clock; for people and for ages on
    /// the same host, never for safety.
    pub measured_at_ms: i64,
    /// Rises with every change of what this agent reports, from one process start on.
    pub change: u64,
    /// The record that this host works from.
    pub record: Option<PoolRecord>,
    /// Version of the published topology that this host works from.
    pub topology_version: u64,
    /// The instances on this host.
    pub instances: BTreeMap<DatabaseName, InstanceReport>,
    /// The latest order taken and its outcome, a database each.
    pub orders: BTreeMap<DatabaseName, OrderReport>,
    /// Chat servers of this host that the agent has heard from, with what they said last.
    #[serde(default)]
    pub servers: BTreeMap<ServerName, ServerReport>,
    /// Every chat server that the topology puts on this host: whether it is wanted, and whether it runs.
    #[serde(default)]
    pub services: BTreeMap<ServerName, ServiceReport>,
    /// What holds the agent back from what the record asks of it, for people; empty when nothing does.
    #[serde(default)]
    pub waiting_for: Vec<String>,
    /// The other site, where it has to answer before a run opens anything for writing on this host, and has not since its agent
    /// started (`fence::other_to_ask`).
    #[serde(default)]
    pub asks: Option<SiteName>,
    /// The last drill that was over on this host.
    #[serde(default)]
    pub last_drill: Option<DrillReport>,
    /// The backups on this host; `None` when there are none.
    #[serde(default)]
    pub backups: Option<BackupsReport>,
    /// The tails that lie on this host, whether the present principal has them or not.
    #[serde(default)]
    pub tails: Vec<TailReport>,
}

/// A tail: what data that an epoch left behind held alone, read before it was rewound, and kept beside its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailReport {
    /// `<database>-<left_by>-<host>`.
    pub id: String,
    /// Which database.
    pub database: DatabaseName,
    /// Whose data it was.
    pub host: HostName,
    /// The epoch that left it behind: the first of the present history that the old data lacks. Of data that could not be
    /// read, the epoch in which that was tried.
    pub left_by: Epoch,
    /// The last epoch of the old data; `None` if it could not be read.
    pub old_epoch: Option<Epoch>,
    /// Where the log forked, as far as that is known.
    pub fork: Option<Lsn>,
    /// When it was read: milliseconds since the Unix epoch.
    pub extracted_at_ms: i64,
    /// Entries of rooms in it.
    pub posts: u64,
    /// Administrators' changes in it.
    pub changes: u64,
    /// SHA-256 of its lines, in hexadecimal.
    pub sha256: String,
    /// Why it could not be read. Its log is kept all the same.
    pub unreadable: Option<String>,
}

/// The latest order that an agent has taken for a database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderReport {
    /// Its stamp.
    pub stamp: Stamp,
    /// The run that gave it.
    pub run: String,
    /// What it asked for.
    pub order: crate::order::Order,
    /// How far it is.
    pub outcome: Outcome,
    /// It handed a writer over, and this is who holds all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_to: Option<LeftTo>,
}

impl OrderReport {
    /// An order that was given, and how far it is.
    pub fn of(given: StampedOrder, outcome: Outcome) -> Self {
        Self { stamp: given.stamp, run: given.run, order: given.order, outcome, left_to: None }
    }
}

/// What a writer leaves that refuses everybody and was stopped at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftTo {
    /// The mirror: whatever was committed is on its disk.
    pub host: HostName,
    /// Where the log stood when nobody wrote any more.
    pub at: Lsn,
}

/// What a chat server told its host's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// The epoch with which the server writes now; `None` when it uses no database.
    pub writes_as: Option<Epoch>,
    /// Clients connected.
    pub sessions: u64,
    /// Posts that wait for a writer.
    pub waiting_posts: u64,
    /// Posts that are written and wait to be as durable as their categories ask for.
    #[serde(default)]
    pub held: Held,
    /// The record version that the server works from.
    pub record_version: u64,
    /// What it knows of canaries; `None` while it is not active, or none are written.
    #[serde(default)]
    pub canaries: Option<ServerCanaries>,
    /// Age of this report in milliseconds when the host's report was made.
    pub age_ms: u64,
}

/// Posts that are written and wait to be as durable as their categories ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Those that wait for the mirror.
    pub mirror: u64,
    /// Those that wait for the other site.
    pub both_sites: u64,
    /// For how long the oldest has waited, in milliseconds; 0 when none does.
    pub oldest_ms: u64,
    /// What it waits for, for people; empty when none does.
    pub reason: String,
}

/// How a database instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Nothing there yet.
    Absent,
    /// Data is there, no process.
    Stopped,
    /// Starting, recovering or being rebuilt.
    Busy,
    /// A standby: RESTORING in the reference's words.
    Standby,
    /// A writer.
    Online,
    /// Left behind by a later epoch and kept stopped until a failback rewinds it.
    LeftBehind,
    /// The agent does not know yet whether it may open: it asks the other site first.
    AskingPeer,
}

/// What an agent sees of one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// How it stands.
    pub state: InstanceState,
    /// Present timeline.
    pub timeline: Option<Timeline>,
    /// Writer: flushed. Standby: received and flushed.
    pub written: Option<Lsn>,
    /// Standby: applied. Writer: same as `written`.
    pub applied: Option<Lsn>,
    /// Sum of the last numbers of all rooms, as visible in this instance: how many entries it holds.
    pub entries: Option<u64>,
    /// The newest epoch that has begun in the database itself.
    pub database_epoch: Option<Epoch>,
    /// Categories that ask for the principal's disk alone, as visible in this instance.
    #[serde(default)]
    pub disk_categories: u64,
    /// Writer: names in `synchronous_standby_names`; empty when commits wait for nobody.
    pub synchronous: Vec<HostName>,
    /// Writer or cascading standby: who receives from it.
    pub receivers: Vec<Receiver>,
    /// Standby: how its log arrives.
    pub shipping: Option<ShippingReport>,
    /// Writer: how its log goes into the share.
    #[serde(default)]
    pub backup_job: Option<BackupReport>,
    /// Running: start of the oldest log on its disk, which is the oldest that whoever follows it can get from it.
    #[serde(default)]
    pub kept_from: Option<Lsn>,
    /// Stopped standby: what it needs to follow again.
    #[serde(default)]
    pub follows_from: Option<FollowsFrom>,
    /// Bytes of WAL on disk.
    pub wal_bytes: u64,
    /// Bytes free on the volume of the data.
    pub free_bytes: u64,
    /// Seconds until the volume is full at the present rate of writing; `None` when it does not grow.
    pub full_in_s: Option<u64>,
    /// Open sessions of chat servers.
    pub sessions: u32,
    /// Stopped: the last checkpoint's position in the control file, and whether the stop was clean.
    pub shut_down_at: Option<CleanStop>,
    /// What the agent is doing with it, for people.
    pub doing: Option<String>,
    /// Standby: the canaries of the active servers, as far as they are applied here.
    #[serde(default)]
    pub canaries: BTreeMap<ServerName, AppliedCanary>,
    /// What was found when its data was last read through; `None` when it has not been since it was made or copied.
    #[serde(default)]
    pub scrub: Option<ScrubReport>,
}

/// What was found when the data of an instance was read through, page by page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// When it began, in milliseconds since the Unix epoch by the host's clock.
    pub began_at_ms: i64,
    /// When it ended.
    pub ended_at_ms: i64,
    /// Pages that were read, of 8 KB each.
    pub pages: u64,
    /// So many of them do not fit their checksum.
    pub damaged_pages: u64,
    /// The first of those.
    pub damaged: Vec<DamagedPage>,
}

/// A page that does not fit its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPage {
    /// The file, in the folder of the data.
    pub file: String,
    /// The page's number in its relation.
    pub block: u32,
}

impl ScrubReport {
    /// What was found, for people.
    pub fn words(&self) -> String {
        let Self { pages, damaged_pages, damaged, .. } = self;
        if *damaged_pages == 0 {
            return format!("every one of {pages} pages is whole");
        }
        let mut places: Vec<String> = damaged.iter().take(3).map(|d| format!("{} page {}", d.file, d.block)).collect();
        if *damaged_pages > places.len() as u64 {
            places.push("others".to_owned());
        }
        let are = if *damaged_pages == 1 { "is" } else { "are" };
        format!("{damaged_pages} of {pages} pages {are} damaged on its disk ({})", places.join(", "))
    }
}

/// A cleanly stopped instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanStop {
    /// Position of the shutdown checkpoint.
    pub checkpoint: Lsn,
    /// First byte after it: a standby that holds the log up to here holds everything.
    pub end: Lsn,
}

/// A standby as its source sees it (`pg_stat_replication`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// The host that receives.
    pub host: HostName,
    /// `streaming`, `catchup`, `startup`, `backup`.
    pub state: String,
    /// Flushed at the receiver.
    pub flushed: Option<Lsn>,
    /// Applied at the receiver.
    pub applied: Option<Lsn>,
    /// Whether PostgreSQL counts it as synchronous now.
    pub synchronous: bool,
}

/// What a stopped standby needs to follow again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowsFrom {
    /// It needs the log from here on.
    pub from: Lsn,
    /// Up to here the share has it without a hole; the same as `from` when the share has none of it.
    pub share_reaches: Lsn,
}

/// The backup job of a writer: how its log goes into the share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// Whether it is on.
    pub enabled: bool,
    /// Newest finished file in the share (`last_backup_file`).
    pub last_backup_file: Option<String>,
    /// When it was put there, in milliseconds since the Unix epoch (`last_backup_date`).
    pub last_backup_at_ms: Option<i64>,
    /// End of what is in the share, the unfinished segment included.
    pub shipped: Option<Lsn>,
    /// Milliseconds since the share last held everything that had been written; `None` when it never did.
    pub age_ms: Option<u64>,
    /// Finished segments that wait for the share.
    pub waiting_files: u64,
    /// Start of the log that the share lacks because waiting for it would have filled the disk.
    pub hole: Option<Lsn>,
    /// What is wrong with the share, and what can still be done, for people; `None` when nothing is.
    pub fault: Option<String>,
}

/// A place in the share at which a file is missing and later ones are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The missing file, by its place in the log: any timeline's would do.
    pub file: String,
    /// Where it begins.
    pub from: Lsn,
    /// So many later files are there.
    pub later_files: usize,
}

/// How a standby's log arrives, in the reference's words: shipped to the share, copied here, applied here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippingReport {
    /// Whether copy and restore jobs and the stream are on.
    pub enabled: bool,
    /// Whether the stream is up.
    pub streaming: bool,
    /// Newest file in the share, as far as the copy job has seen.
    pub shipped_file: Option<String>,
    /// End of what has been shipped to the share, as far as the copy job has seen.
    pub shipped: Option<Lsn>,
    /// End of what has been copied.
    pub copied: Option<Lsn>,
    /// Milliseconds since the copy job last found the share in order.
    pub share_age_ms: Option<u64>,
    /// The epoch from which on the share takes files.
    pub share_epoch: Option<Epoch>,
    /// What is wrong with the share or the copy, for people; `None` when nothing is.
    pub fault: Option<String>,
    /// Newest file that was copied (`last_copied_file`).
    #[serde(default)]
    pub last_copied_file: Option<String>,
    /// When, in milliseconds since the Unix epoch (`last_copied_date`).
    #[serde(default)]
    pub last_copied_at_ms: Option<i64>,
    /// The segment that is being applied (`last_restored_file`).
    #[serde(default)]
    pub last_restored_file: Option<String>,
    /// When something was last applied, in milliseconds since the Unix epoch (`last_restored_date`).
    #[serde(default)]
    pub last_restored_at_ms: Option<i64>,
    /// Milliseconds since everything that could be had was last applied; `None` when that was never seen.
    #[serde(default)]
    pub restored_age_ms: Option<u64>,
    /// A hole in the share right after what this standby has.
    #[serde(default)]
    pub hole: Option<Hole>,
}

impl InstanceReport {
    /// A report of which only the state is known: nothing else was measured.
    pub fn unmeasured(state: InstanceState) -> Self {
        Self {
            state,
            timeline: None,
            written: None,
            applied: None,
            entries: None,
            disk_categories: 0,
            database_epoch: None,
            synchronous: Vec::new(),
            receivers: Vec::new(),
            shipping: None,
            backup_job: None,
            kept_from: None,
            follows_from: None,
            wal_bytes: 0,
            free_bytes: 0,
            full_in_s: None,
            sessions: 0,
            shut_down_at: None,
            doing: None,
            canaries: BTreeMap::new(),
            scrub: None,
        }
    }
}

impl HostReport {
    /// The report of a host that has nothing to say yet.
    pub fn empty(host: HostName, site: SiteName) -> Self {
        Self {
            host,
            site,
            measured_at_ms: 0,
            change: 0,
            record: None,
            topology_version: 0,
            instances: BTreeMap::new(),
            orders: BTreeMap::new(),
            servers: BTreeMap::new(),
            services: BTreeMap::new(),
            waiting_for: Vec::new(),
            asks: None,
            tails: Vec::new(),
            last_drill: None,
            backups: None,
        }
    }
}
