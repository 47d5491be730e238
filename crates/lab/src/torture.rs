//! What a torture does to a pool, and when: a schedule that a seed determines wholly. Nothing here acts.
//!
//! A schedule is a list of episodes. Each begins with a pool that is well, strikes it for some seconds, then lets everything
//! run again; whoever carries it out waits until the pool is well, and has the ledger audited. Blows name parts (the
//! principal, the witness at home), not hosts: who that is is seen when the blow falls.

mod draw;
mod plan;

pub use plan::episode;

use crate::protocol::LinkState;
use serde::Serialize;
use std::fmt;

/// Whom a blow strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The host of the present principal.
    Principal,
    /// The host of its mirror.
    Mirror,
    /// The host of the backup.
    Backup,
    /// The host of the backup's mirror.
    BackupMirror,
    /// The witness of the site that was home when the episode began.
    Witness,
    /// The witness of the other site: there runs over both sites are carried out.
    OtherWitness,
    /// Everything at the site that was home when the episode began.
    Home,
}

/// Which processes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Process {
    /// All of them.
    All,
    /// The agent.
    Agent,
    /// PostgreSQL.
    Database,
    /// The chat server.
    Server,
}

/// What an administrator types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Typed {
    /// `failover`.
    Failover,
    /// `failover --force`.
    ForcedFailover,
    /// `failover --planned`.
    Planned,
    /// `failback`.
    Failback,
    /// `database failover --new-principal mirror`.
    Switch,
    /// The same with `--force`.
    ForcedSwitch,
    /// `database scrub`.
    Scrub,
}

/// One thing that is done to the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blow {
    /// SIGKILL.
    Kill(Part, Process),
    /// SIGSTOP.
    Freeze(Part, Process),
    /// SIGCONT.
    Thaw(Part, Process),
    /// Start what does not run.
    Start(Part),
    /// Change the links between the sites.
    Line(LinkState),
    /// Change all links of one host.
    Links(Part, LinkState),
    /// Leave so many kilobytes free on the disk of a host's database.
    Fill(Part, u64),
    /// Make room there again.
    MakeRoom(Part),
    /// Let nothing be written to the disk of a host's database, for so many milliseconds at a time with 50 between.
    Stall(Part, u64),
    /// Let it write again.
    Unstall(Part),
    /// Write zeros into the middle of the newest whole log file of the share.
    DamageShare,
    /// Change a bit of a page on the disk of a host's database, so far into its relations in thousandths.
    DamagePage(Part, u64),
    /// Turn the clocks of all processes of a host by so many seconds, while they run.
    Clock(Part, i64),
    /// Have the run that comes next, which this host carries, end with its agent at a named point:
    /// `failover.fence-old-primary.during`.
    StopAt(Part, String),
    /// Type a command.
    Type(Typed),
}

/// A blow and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Act {
    /// Milliseconds from the beginning of the episode.
    pub at_ms: u64,
    /// What is done.
    pub blow: Blow,
}

/// What an episode is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Processes and hosts of one site are killed, frozen and cut off.
    Site,
    /// The home site is lost, the pool fails over and back; runs are stopped at named points.
    Disaster,
    /// The line between the sites is cut, frozen or slow, with processes lost meanwhile.
    Line,
    /// Both sites live, they do not see each other, and somebody forces a failover.
    Split,
    /// Principal and mirror change places while processes are lost; runs are stopped at named points.
    Switch,
    /// Both sites live, and the pool is handed over to the other one and brought home; runs are stopped at named points.
    Planned,
    /// The disk of a database is full, stands still or is slow.
    Disk,
    /// A log file in the share is damaged, and the site is lost before anybody saw it.
    Damage,
    /// The clocks of a host jump.
    Clock,
    /// A disk changes a page of a standby, which is read through.
    Page,
}

impl Kind {
    /// All, in the order of their names here.
    pub const ALL: [Kind; 10] = [
        Kind::Site,
        Kind::Disaster,
        Kind::Line,
        Kind::Split,
        Kind::Switch,
        Kind::Planned,
        Kind::Disk,
        Kind::Damage,
        Kind::Clock,
        Kind::Page,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Site => "site",
            Kind::Disaster => "disaster",
            Kind::Line => "line",
            Kind::Split => "split",
            Kind::Switch => "switch",
            Kind::Planned => "planned",
            Kind::Disk => "disk",
            Kind::Damage => "damage",
            Kind::Clock => "clock",
            Kind::Page => "page",
        }
    }
}

/// Some seconds of blows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Episode {
    /// Its number, from 1.
    pub number: u64,
    /// What it is about.
    pub kind: Kind,
    /// In the order of their times.
    pub acts: Vec<Act>,
    /// When everything is let run again, in milliseconds.
    pub heal_at_ms: u64,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Principal => "the principal",
            Part::Mirror => "the mirror",
            Part::Backup => "the backup",
            Part::BackupMirror => "the backup mirror",
            Part::Witness => "the witness at home",
            Part::OtherWitness => "the other witness",
            Part::Home => "the home site",
        })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Process::All => "everything on",
            Process::Agent => "the agent of",
            Process::Database => "the database of",
            Process::Server => "the chat server of",
        })
    }
}

impl fmt::Display for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Typed::Failover => "failover",
            Typed::ForcedFailover => "failover --force",
            Typed::Planned => "failover --planned",
            Typed::Failback => "failback",
            Typed::Switch => "database failover --new-principal mirror",
            Typed::ForcedSwitch => "database failover --new-principal mirror --force",
            Typed::Scrub => "database scrub",
        })
    }
}

/// A state of links in words.
fn state(link: LinkState) -> String {
    match link {
        LinkState::Up => "up".into(),
        LinkState::Down => "down".into(),
        LinkState::Frozen => "frozen".into(),
        LinkState::Delayed(ms) => format!("{ms} ms slow"),
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blow::Kill(part, process) => write!(f, "kill {process} {part}"),
            Blow::Freeze(part, process) => write!(f, "freeze {process} {part}"),
            Blow::Thaw(part, process) => write!(f, "thaw {process} {part}"),
            Blow::Start(part) => write!(f, "start {part}"),
            Blow::Line(link) => write!(f, "the line between the sites is {}", state(*link)),
            Blow::Links(part, link) => write!(f, "the links of {part} are {}", state(*link)),
            Blow::Fill(part, kb) => write!(f, "fill the disk of {part} up to {kb} KB"),
            Blow::MakeRoom(part) => write!(f, "make room on the disk of {part}"),
            Blow::Stall(part, ms) => write!(f, "the disk of {part} stands still for {ms} ms at a time"),
            Blow::Unstall(part) => write!(f, "the disk of {part} writes again"),
            Blow::DamageShare => f.write_str("damage the newest whole log file of the share"),
            Blow::DamagePage(part, at) => write!(f, "change a bit {at} thousandths into the pages of {part}"),
            Blow::Clock(part, seconds) => write!(f, "turn the clocks of {part} by {seconds} s"),
            Blow::StopAt(part, point) => write!(f, "the next run is to be killed at {point}, with the agent of {part}"),
            Blow::Type(typed) => write!(f, "type {typed}"),
        }
    }
}
