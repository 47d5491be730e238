//! A pool as a picture: sites as boxes, hosts in them, what runs on each and how it stands, and who feeds whom.
//!
//! [`picture`] says what is to be seen, [`text`] and [`svg`] draw it. All of it is pure: topology and what was seen in,
//! drawing out.

pub mod svg;
pub mod text;

use cluster::mirror::PairState;
use cluster::name::{DatabaseName, HostName};
use cluster::record::{DatabaseRecord, MirrorRecord, Part, PoolRecord};
use cluster::report::{HostReport, InstanceReport, InstanceState, ServerReport};
use cluster::topology::{Database, Host, Instance, LatencyClass, Server, Topology};
use wire::agent::PoolView;

/// How something stands, for its colour and its sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it is to be.
    Good,
    /// In reserve.
    Idle,
    /// Not as it is to be.
    Bad,
    /// Nobody has said.
    Unknown,
}

/// Something that runs on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// `mgc principal`, `server-1`.
    pub what: String,
    /// How it stands, in a few words.
    pub state: String,
    /// The same as a colour.
    pub mood: Mood,
    /// The database, where it is one.
    pub database: Option<DatabaseName>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBox {
    /// Its name.
    pub name: HostName,
    /// What is special about it.
    pub note: String,
    /// What runs on it.
    pub rows: Vec<Row>,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteBox {
    /// Its name.
    pub name: String,
    /// What is special about it.
    pub note: String,
    /// A failover has declared it lost.
    pub lost: bool,
    /// Its hosts; those with copies of a database first, so that partners stand beside each other.
    pub hosts: Vec<HostBox>,
}

/// Why log flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// To the synchronous partner.
    Mirror,
    /// To the backup.
    Shipping,
    /// From the backup to its mirror.
    Feed,
}

/// Log that flows from host to host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Of which database.
    pub database: DatabaseName,
    /// From.
    pub from: HostName,
    /// To.
    pub to: HostName,
    /// Why.
    pub kind: FlowKind,
    /// How it stands, in a few words.
    pub label: String,
    /// Whether it stands as it is to be.
    pub mood: Mood,
}

/// A log share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareBox {
    /// Of which database.
    pub database: DatabaseName,
    /// The folder.
    pub path: String,
    /// Who ships into it, if anybody.
    pub from: Option<HostName>,
    /// Who copies from it, if anybody.
    pub to: Option<HostName>,
}

/// What is to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The pool.
    pub title: String,
    /// State and line.
    pub subtitle: String,
    /// The sites, the home first as the topology has it.
    pub sites: Vec<SiteBox>,
    /// Who feeds whom.
    pub flows: Vec<Flow>,
    /// Shares.
    pub shares: Vec<ShareBox>,
    /// Databases that somebody else operates: name and connection string.
    pub existing: Vec<(DatabaseName, String)>,
}

/// The picture of a pool; without `view` as the topology has it, with it as it stands.
pub fn picture(topology: &Topology, view: Option<&PoolView>) -> Picture {
    let seen = Seen { topology, view, record: view.and_then(|v| v.record.as_ref()) };
    let line = match topology.latency {
        LatencyClass::Low => "a fast line between the sites",
        LatencyClass::High => "a slow line between the sites",
    };
    let mut subtitle = vec![format!("version {}", topology.version)];
    match (seen.record, view) {
        (Some(record), _) => subtitle.push(format!("{}, epoch {}", record.state, record.epoch)),
        (None, Some(_)) => subtitle.push("not initialised, or nobody answers".into()),
        (None, None) => {}
    }
    if topology.sites.len() > 1 {
        subtitle.push(line.into());
    }
    if let Some(run) = seen.record.and_then(|r| r.run.as_ref()) {
        subtitle.push(format!("{} is under way", run.runbook));
    }
    Picture {
        title: topology.pool.clone(),
        subtitle: subtitle.join(" · "),
        sites: topology.sites.iter().map(|site| seen.site(site)).collect(),
        flows: topology.databases.iter().flat_map(|d| seen.flows(d)).collect(),
        shares: topology.databases.iter().filter_map(|d| seen.share(d)).collect(),
        existing: topology.existing_databases.iter().map(|d| (d.name.clone(), d.dsn.clone())).collect(),
    }
}

struct Seen<'a> {
    topology: &'a Topology,
    view: Option<&'a PoolView>,
    record: Option<&'a PoolRecord>,
}

impl Seen<'_> {
    fn report(&self, host: &HostName) -> Option<&HostReport> {
        self.view?.reports.iter().find(|r| r.host == *host)
    }

    fn instance(&self, host: &HostName, database: &DatabaseName) -> Option<&InstanceReport> {
        self.report(host)?.instances.get(database)
    }

    /// Who plays which part: as the record says, or as the topology has it in state Normal.
    fn parts(&self, database: &Database) -> DatabaseRecord {
        let recorded = self.record.and_then(|r| r.databases.get(&database.name)).cloned();
        recorded.unwrap_or_else(|| {
            let host = |i: &Instance| i.host.clone();
            let principal = Some(database.primary.host.clone());
            let mut parts = DatabaseRecord { principal, ..DatabaseRecord::default() };
            parts.mirror = database.mirror.as_ref().map(|m| MirrorRecord { host: host(m), synchronised: false });
            parts.backup = database.backup.as_ref().map(host);
            parts.backup_mirror = database.backup_mirror.as_ref().map(host);
            parts
        })
    }

    fn site(&self, site: &cluster::topology::Site) -> SiteBox {
        let lost = self.record.is_some_and(|r| r.lost_sites.contains_key(&site.name));
        let home = match self.record {
            Some(record) => record.home == site.name,
            None => self.topology.primary_site().is_some_and(|s| s.name == site.name),
        };
        let note = match (lost, home && self.topology.sites.len() > 1) {
            (true, _) => "declared lost",
            (false, true) => "home",
            (false, false) => "",
        };
        let here = self.topology.hosts.iter().filter(|h| h.site == site.name);
        let mut hosts: Vec<&Host> = here.collect();
        let rank = |host: &HostName| {
            let roles = self.topology.databases.iter().filter_map(|d| d.role_of(host));
            roles.min().map_or(usize::MAX, |role| role as usize)
        };
        hosts.sort_by_key(|h| rank(&h.name));
        let keeper = if site.witnessed { "witness" } else { "authority" };
        let hosts = hosts.into_iter().map(|h| self.host(h, (h.name == site.authority).then_some(keeper))).collect();
        SiteBox { name: site.name.to_string(), note: note.to_owned(), lost, hosts }
    }

    fn host(&self, host: &Host, keeper: Option<&'static str>) -> HostBox {
        let mut notes: Vec<&str> = keeper.into_iter().collect();
        if self.view.is_some() && self.report(&host.name).is_none() {
            notes.push("does not answer");
        }
        let databases = self.topology.databases.iter().filter(|d| d.role_of(&host.name).is_some());
        let servers = self.topology.servers.iter().filter(|s| s.host == host.name);
        let rows = databases.map(|d| self.database(d, &host.name)).chain(servers.map(|s| self.server(s)));
        HostBox { name: host.name.clone(), note: notes.join(", "), rows: rows.collect() }
    }

    fn database(&self, database: &Database, host: &HostName) -> Row {
        let part = self.parts(database).part_of(host);
        let what = match part {
            Some(part) => format!("{} {part}", database.name),
            None => format!("{} (no part now)", database.name),
        };
        let row = |state: &str, mood| Row { what, state: state.into(), mood, database: Some(database.name.clone()) };
        if self.view.is_none() {
            return row("", Mood::Unknown);
        }
        let Some(instance) = self.instance(host, &database.name) else { return row("not known", Mood::Unknown) };
        let word = word_of(instance.state);
        let mood = match (part, instance.state) {
            (Some(Part::Principal), InstanceState::Online) => Mood::Good,
            (Some(Part::Mirror | Part::Backup | Part::BackupMirror), InstanceState::Standby) => Mood::Good,
            (None, InstanceState::Stopped | InstanceState::Absent | InstanceState::Standby) => Mood::Idle,
            _ => Mood::Bad,
        };
        row(word, mood)
    }

    fn server(&self, server: &Server) -> Row {
        let row = |state: String, mood| Row { what: server.name.to_string(), state, mood, database: None };
        let Some(record) = self.record else {
            let (state, mood) = if server.active { ("active", Mood::Unknown) } else { ("idle", Mood::Idle) };
            return row(state.into(), mood);
        };
        let said: Option<&ServerReport> = self.report(&server.host).and_then(|r| r.servers.get(&server.name));
        let clients = |said: &ServerReport| match said.sessions {
            1 => "1 client".to_owned(),
            n => format!("{n} clients"),
        };
        match (record.is_active(&server.name), said) {
            (true, Some(said)) if said.writes_as == Some(record.epoch) => {
                row(format!("active, {}", clients(said)), Mood::Good)
            }
            (true, Some(said)) => row(format!("active, no writer, {}", clients(said)), Mood::Bad),
            (true, None) => row("active, not heard".into(), Mood::Bad),
            (false, Some(said)) if said.sessions > 0 => row(format!("idle, {} moving", clients(said)), Mood::Idle),
            (false, Some(_)) => row("idle".into(), Mood::Idle),
            (false, None) => row("idle, not heard".into(), Mood::Unknown),
        }
    }

    fn flows(&self, database: &Database) -> Vec<Flow> {
        let parts = self.parts(database);
        let name = &database.name;
        let mut flows = Vec::new();
        let mut flow = |from: &HostName, to: &HostName, kind, (label, mood): (&str, Mood)| {
            let (database, from, to) = (name.clone(), from.clone(), to.clone());
            flows.push(Flow { database, from, to, kind, label: label.to_owned(), mood });
        };
        if let (Some(principal), Some(mirror)) = (&parts.principal, &parts.mirror) {
            let stands = match cluster::mirror::state(&parts, |host| self.instance(host, name)) {
                _ if self.view.is_none() => ("mirror", Mood::Unknown),
                _ if self.instance(principal, name).is_none() => ("mirror: not known", Mood::Unknown),
                PairState::Synchronized => ("mirror: SYNCHRONIZED", Mood::Good),
                PairState::Synchronizing => ("mirror: SYNCHRONIZING", Mood::Bad),
                PairState::Suspended => ("mirror: SUSPENDED", Mood::Bad),
                PairState::PendingFailover => ("mirror: PENDING_FAILOVER", Mood::Bad),
                PairState::None | PairState::Disconnected => ("mirror: DISCONNECTED", Mood::Bad),
            };
            flow(principal, &mirror.host, FlowKind::Mirror, stands);
        }
        if let (Some(principal), Some(backup)) = (&parts.principal, &parts.backup) {
            let seen = self.instance(backup, name).and_then(|i| i.shipping.as_ref());
            let stands = match seen.map(|s| (s.enabled, s.streaming)) {
                _ if self.view.is_none() => ("log shipping", Mood::Unknown),
                Some((false, _)) => ("shipping stopped", Mood::Bad),
                Some((true, true)) => ("stream and files", Mood::Good),
                Some((true, false)) => ("files alone", Mood::Bad),
                None => ("shipping: not known", Mood::Unknown),
            };
            flow(principal, backup, FlowKind::Shipping, stands);
        }
        if let (Some(backup), Some(mirror)) = (&parts.backup, &parts.backup_mirror) {
            let seen = self.instance(mirror, name).and_then(|i| i.shipping.as_ref());
            let stands = match seen.map(|s| s.streaming) {
                _ if self.view.is_none() => ("fed by the backup", Mood::Unknown),
                Some(true) => ("fed by the backup", Mood::Good),
                Some(false) => ("not fed", Mood::Bad),
                None => ("not known", Mood::Unknown),
            };
            flow(backup, mirror, FlowKind::Feed, stands);
        }
        flows
    }

    fn share(&self, database: &Database) -> Option<ShareBox> {
        let path = database.log_shipping.as_ref()?.share.clone();
        let parts = self.parts(database);
        let from = parts.principal.filter(|_| parts.backup.is_some());
        Some(ShareBox { database: database.name.clone(), path, from, to: parts.backup })
    }
}

fn word_of(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Absent => "nothing there",
        InstanceState::Stopped => "stopped",
        InstanceState::Busy => "starting",
        InstanceState::Standby => "standby",
        InstanceState::Online => "online",
        InstanceState::LeftBehind => "left behind",
        InstanceState::AskingPeer => "asking the other site",
    }
}

#[cfg(test)]
mod tests;
