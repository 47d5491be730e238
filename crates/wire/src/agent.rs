//! The agents' HTTP API. Every request carries `Authorization: Bearer <key for AgentApi>`.
//!
//! | Request | Body → answer | Meaning |
//! | --- | --- | --- |
//! | `GET /v1/report` | → `HostReport` | what the agent sees now, measured for this request |
//! | `GET /v1/watch?epoch=E&version=V&wait_ms=N` | → `Watched` | returns at once if the record or topology is newer than `(E, V)`, else when it becomes so, at the latest after N ms |
//! | `POST /v1/record` | `SetRecord` → `RecordAnswer` | compare-and-swap; only a site's authority takes it |
//! | `POST /v1/gossip` | `PoolRecord` → `PoolRecord` | tell and hear the newest record; the higher `(epoch, version)` is kept |
//! | `POST /v1/topology` | `PublishTopology` → `TopologyAnswer` | publish (authority) or take over (others) |
//! | `POST /v1/orders?wait_ms=N` | `StampedOrder` → `OrderReport` | carry out; answers when it is over, or after N ms as it stands |
//! | `POST /v1/servers/{name}` | `ServerReport` → `Watched` | a chat server of this host says how it is |
//! | `POST /v1/services/{name}` | `WantService` → | a chat server of this host is to run, or not to; kept until said otherwise |
//! | `POST /v1/probe` | `Probe` → `Probed` | show what only this host can: clock, PostgreSQL, shares, ways to others |
//! | `GET /v1/reach/{database}/{host}?limit_ms=N` | → `Reach` | how another host's instance looks from here, tried now, for up to N ms |
//! | `GET /v1/jobs/{database}` | → `Vec<JobRun>` | history of the backup, copy and restore jobs on that host, oldest first |
//! | `GET /v1/tails` | → `Vec<TailReport>` | the tails that lie on this host |
//! | `GET /v1/tails/{database}/{id}` | → lines of [`crate::tail`] | one of them |
//! | `GET /v1/backups`, `POST /v1/backups` | → list of `Backup`; `AskBackup` → `DrillReport` | backups on that host; make, prove or restore one: watched as drills are |
//! | `GET /v1/heads/{database}` | → lines of [`crate::heads::Countersigned`] | the rooms' heads that this host has countersigned, oldest first |
//! | `GET /v1/drills`, `POST /v1/drills` | → `Drills`; `StartDrill` → `DrillReport` | drills on that host, those under way included; begin one |
//! | `PUT /v1/drills` | `DrillReport` → nothing | keep what is told of a drill of a switch, which the command line carries out |
//! | `POST /v1/without-peer` | → | the administrator's permission to start without the other site |
//! | `GET /v1/sessions/{database}` | → `Vec<SessionReport>` | the sessions of this host's instance (`sp_who2`) |
//! | `DELETE /v1/sessions/{database}/{spid}` | → | end one of them (`kill`); refused for the agent's own and the system's |
//! | `POST /v1/take-over` | `TakeOverRequest` → `TakeOverAnswer` | a mirror that has lost its principal asks its witness |
//! | `POST /v1/runs`, `GET /v1/runs/…` | see [`crate::run`] | runbooks, at an authority |

use cluster::record::PoolRecord;
use cluster::report::HostReport;
use cluster::topology::Topology;
use serde::{Deserialize, Serialize};

/// Compare-and-swap of the record at an authority.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SetRecord {
    /// The version that the change was made from.
    pub expected_version: u64,
    /// The whole new record. Its epoch is the same or higher.
    pub record: PoolRecord,
}

/// Answer to a compare-and-swap.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum RecordAnswer {
    /// Durable at the authority.
    Taken,
    /// The record has changed meanwhile; this is the newest.
    Conflict {
        /// The newest record.
        newest: Box<PoolRecord>,
    },
    /// This agent is not the authority that may change the record.
    NotAuthority {
        /// Why, and who is.
        message: String,
    },
    /// The record would break a rule.
    Refused {
        /// Which, on what, and what to do.
        message: String,
    },
}

/// What the witness says to a mirror that wants to take over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum TakeOverAnswer {
    /// It is under way: this run carries it out, and the mirror's agent gets its orders from it.
    Begun {
        /// The run.
        run: String,
    },
    /// Not now.
    Refused {
        /// Why, for people.
        message: String,
    },
}

/// What a watcher gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watched {
    /// The newest record; `None` before the pool is initialised.
    pub record: Option<PoolRecord>,
    /// The published topology.
    pub topology: Topology,
}

/// A topology to publish, as the text that the administrator wrote, so that positions in messages fit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PublishTopology {
    /// The version that it replaces.
    pub expected_version: u64,
    /// TOML.
    pub text: String,
}

/// Answer to a publication.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum TopologyAnswer {
    /// Published under this version.
    Published {
        /// The new version.
        version: u64,
    },
    /// Not published; each line says what is wrong and what would be right.
    Refused {
        /// The findings.
        findings: Vec<String>,
    },
}

/// What a host is to show of itself for the check of a topology, published or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Names this check; letters and digits.
    pub token: String,
    /// What to do in the shares.
    pub act: ProbeAct,
    /// Folders, each an absolute path, and places in buckets.
    pub shares: Vec<cluster::shipping_settings::ShareAt>,
    /// Agents to reach, `address:port` as this host's site is to see them.
    pub reach: Vec<(cluster::name::HostName, String)>,
}

/// What to do in a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeAct {
    /// Leave a small mark, as the account of PostgreSQL, and read it back.
    Mark,
    /// Say whose marks are there.
    See,
    /// Delete the own mark.
    Delete,
}

/// What a host has shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probed {
    /// Milliseconds since the Unix epoch, by its clock.
    pub clock_ms: i64,
    /// What its PostgreSQL says of itself.
    pub postgres: String,
    /// The shares, in the order of the request.
    pub shares: Vec<ShareProbed>,
    /// Hosts whose agent it does not reach.
    pub unreached: Vec<cluster::name::HostName>,
}

/// A share as a host sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShareProbed {
    /// Why the act did not succeed.
    pub fault: Option<String>,
    /// It lies inside this host's own folder.
    pub inside_host_folder: bool,
    /// Whose marks are there.
    pub sees: Vec<cluster::name::HostName>,
}

/// `POST /v1/services/{server}`: a chat server of the agent's host is to run, or not to run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WantService {
    /// What is wanted.
    pub wanted: cluster::service::Wanted,
    /// It ends at once: its clients are not told where to go.
    pub at_once: bool,
}

/// The whole pool as an administrator sees it: assembled by whoever asks all agents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PoolView {
    /// The topology.
    pub topology: Topology,
    /// The newest record seen.
    pub record: Option<PoolRecord>,
    /// Reports of hosts that answered.
    pub reports: Vec<HostReport>,
    /// Hosts that did not.
    pub silent: Vec<(cluster::name::HostName, cluster::runbook::Silence)>,
}

/// A session of an instance. What it runs is told by its first word alone: statements hold what people write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Process id of its backend.
    pub spid: i32,
    /// `active`, `idle`, `idle in transaction`; empty for processes of the system.
    pub state: String,
    /// The role; empty for processes of the system.
    pub login: String,
    /// Address of the client; empty over the instance's own socket.
    pub from: String,
    /// The session that it waits for.
    pub blocked_by: Option<i32>,
    /// The database; empty for those of the whole instance.
    pub database: String,
    /// First word of what it runs, or ran last.
    pub command: String,
    /// When that began, RFC 3339 in UTC.
    pub since: String,
    /// What the client calls itself.
    pub program: String,
    /// Not a client's: the agent's own, replication, or a process of the system. It cannot be ended from outside.
    pub system: bool,
}

/// Every error's body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentError {
    /// What failed, on what, why, and what to do.
    pub message: String,
}
