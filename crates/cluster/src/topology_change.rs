//! Changing a running pool by publishing: what has to be done before the new topology is published, and what after.
//!
//! The rule behind all of it: a topology never takes away what the record still uses. So whatever leaves is taken out of the
//! record first, and whatever comes is put into the record afterwards. The authority checks the same rule when it publishes.

use crate::name::{DatabaseName, HostName, ServerName};
use crate::record::{Part, PoolRecord, PoolState};
use crate::runbook::named;
use crate::topology::{LatencyClass, Role, Topology};
use crate::topology_diff::{Difference, diff};
use serde::Serialize;

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Consequence {
    /// Take servers out of the list of active servers; they drain.
    Deactivate {
        /// Those that leave.
        leaving: Vec<ServerName>,
        /// Those that stay active.
        staying: Vec<ServerName>,
    },
    /// Carry out a runbook.
    Run {
        /// Its name.
        runbook: &'static str,
        /// What for.
        says: String,
    },
}

impl Consequence {
    /// For people.
    pub fn says(&self) -> String {
        match self {
            Consequence::Deactivate { leaving, .. } => {
                let names: Vec<&str> = leaving.iter().map(ServerName::as_str).collect();
                format!("take {} out of the list of active servers; clients move and resume", names.join(", "))
            }
            Consequence::Run { runbook, says } => format!("{says} (runbook {runbook})"),
        }
    }
}

/// Why a topology is not published as things stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What stands against it.
    pub why: String,
    /// What a person can do.
    pub hint: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.why, self.hint)
    }
}

/// What a new topology takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What stands against publishing; nothing is done while there is any.
    pub refusals: Vec<Refusal>,
    /// To be done before, in this order.
    pub before: Vec<Consequence>,
    /// To be done afterwards, in this order.
    pub after: Vec<Consequence>,
}

/// What it takes to go from the published topology to the wanted one, given the pool's record; `None` before the pool is
/// initialised, when everything goes.
pub fn plan(published: &Topology, wanted: &Topology, record: Option<&PoolRecord>) -> Plan {
    let mut planning = Planning { published, wanted, record: None, plan: Plan::default() };
    let Some(record) = record else { return planning.plan };
    planning.record = Some(record);
    planning.run_under_way(record);
    for change in diff(published, wanted) {
        planning.difference(&change.difference, record);
    }
    planning.servers(record);
    let Plan { before, after, .. } = &mut planning.plan;
    before.sort_by_key(order);
    before.dedup();
    after.sort_by_key(order);
    after.dedup();
    planning.plan
}

/// What the authority has to hear before it publishes: nothing, when what leaves is out of use already. What comes
/// afterwards is no reason to refuse.
pub fn still_to_be_done(published: &Topology, wanted: &Topology, record: Option<&PoolRecord>) -> Vec<String> {
    let plan = plan(published, wanted, record);
    let refused = plan.refusals.iter().map(Refusal::to_string);
    let first = plan.before.iter().map(|c| format!("first: {}; standfast topology publish does it", c.says()));
    refused.chain(first).collect()
}

/// Servers leave before anything else, so that clients have moved; copies leave from the far end, and come from the near one.
fn order(consequence: &Consequence) -> usize {
    const ORDER: [&str; 6] = [
        "remove-backup-mirror",
        "disable-log-shipping",
        "remove-mirror",
        "install-mirror",
        "enable-log-shipping",
        "add-backup-mirror",
    ];
    match consequence {
        Consequence::Deactivate { .. } => 0,
        Consequence::Run { runbook, .. } => 1 + ORDER.iter().position(|o| o == runbook).unwrap_or(ORDER.len()),
    }
}

struct Planning<'a> {
    published: &'a Topology,
    wanted: &'a Topology,
    record: Option<&'a PoolRecord>,
    plan: Plan,
}

impl Planning<'_> {
    fn refuse(&mut self, why: String, hint: impl Into<String>) {
        self.plan.refusals.push(Refusal { why, hint: hint.into() });
    }

    /// A runbook, or a refusal if this version has none of that name.
    fn run(&mut self, before: bool, runbook: &'static str, says: String) {
        if named(runbook).is_none() {
            return self.refuse(
                format!("it takes the runbook {runbook} to {says}, and this version has none"),
                "leave that part of the topology as it is published",
            );
        }
        let list = if before { &mut self.plan.before } else { &mut self.plan.after };
        list.push(Consequence::Run { runbook, says });
    }

    fn run_under_way(&mut self, record: &PoolRecord) {
        if let Some(run) = &record.run {
            self.refuse(
                format!("{} is under way, started by {} at {}", run.runbook, run.started_by, run.started_at),
                "publish when it is over: standfast runbook watch",
            );
        }
    }

    fn part(&self, database: &DatabaseName, host: &HostName) -> Option<Part> {
        self.record?.databases.get(database)?.part_of(host)
    }

    /// Parts that a host plays for any database.
    fn parts_on(&self, host: &HostName) -> Vec<(DatabaseName, Part)> {
        let all = self.record.into_iter().flat_map(|r| &r.databases);
        all.filter_map(|(name, d)| Some((name.clone(), d.part_of(host)?))).collect()
    }

    fn difference(&mut self, difference: &Difference, record: &PoolRecord) {
        match difference {
            Difference::SiteRemoved { site } => {
                if record.home == *site {
                    self.refuse(
                        format!("{site} is the home of the pool: its authority keeps the record"),
                        "fail back first: standfast failback",
                    );
                }
                self.not_lost(record, site.as_str());
            }
            Difference::HomeSite { from, to } => self.refuse(
                format!("the primary site would change from {from} to {to}"),
                "leave the order of the sites; a failover moves the pool, and the topology does not follow it",
            ),
            Difference::Authority { site, .. } => self.not_lost(record, site.as_str()),
            Difference::HostRemoved { host, site } => {
                if record.lost_sites.contains_key(site) {
                    self.refuse(
                        format!("{host} stands at {site}, which a failover has declared lost"),
                        "fail back first, so that what only it holds is salvaged: standfast failback",
                    );
                }
            }
            Difference::HostMoved { host, from, to } => self.refuse(
                format!("{host} would move from {from} to {to}, and a host keeps its site while it is part of a pool"),
                format!("take {host} out, publish, then add it at {to} and publish again"),
            ),
            // How it is seen from elsewhere changes nothing for whoever listens.
            Difference::AgentAddress { from, to, .. } | Difference::InstanceAddress { from, to, .. }
                if from.at == to.at => {}
            Difference::AgentAddress { host, .. } => {
                if let Some((database, part)) = self.parts_on(host).first() {
                    let why =
                        format!("{host} is the {part} of {database}, and its agent would be out of reach for a while");
                    self.refuse(why, "give the host another name and address: add it, then take the old one out");
                }
            }
            Difference::DatabaseRemoved { database } => {
                if record.databases.contains_key(database) {
                    self.refuse(format!("{database} is in use"), "leave it in the topology");
                }
            }
            Difference::ExistingDatabase { database, from, to } => {
                if from.is_none() || to.is_none() {
                    let why = format!("who operates {database} would change while the pool is in use");
                    self.refuse(why, "leave it as it is: rooms and history do not move from one database to another");
                }
            }
            Difference::InstanceAdded { database, role, host } => self.added(record, database, *role, host),
            Difference::InstanceRemoved { database, role, host } => self.removed(record, database, *role, host),
            Difference::InstanceRole { database, host, from, to } => self.exchanged(database, host, *from, *to),
            Difference::InstanceAddress { database, host, .. } => {
                if let Some(part) = self.part(database, host) {
                    self.refuse(
                        format!("{host} is the {part} of {database} and listens at the old address"),
                        "take the instance out of the topology, publish, and add it with the new address",
                    );
                }
            }
            Difference::Share { database, from: Some(_), to: None } => {
                if record.databases.get(database).is_some_and(|d| d.backup.is_some()) {
                    self.run(true, "disable-log-shipping", format!("disable log shipping of {database}"));
                }
            }
            // Names, servers and the line's class are looked at as a whole, or change nothing that is in use.
            Difference::PoolRenamed { .. }
            | Difference::LatencyClass { .. }
            | Difference::SiteAdded { .. }
            | Difference::HostAdded { .. }
            | Difference::DatabaseAdded { .. }
            | Difference::Share { .. }
            | Difference::ShippingSettings { .. }
            | Difference::PartnerTimeout { .. }
            | Difference::Witness { .. }
            | Difference::ServerAdded { .. }
            | Difference::ServerRemoved { .. }
            | Difference::ServerMoved { .. }
            | Difference::ServerAddress { .. }
            | Difference::ServerActive { .. }
            | Difference::Canary { .. }
            | Difference::Receiver { .. } => {}
        }
    }

    fn not_lost(&mut self, record: &PoolRecord, site: &str) {
        if record.lost_sites.keys().any(|s| s.as_str() == site) {
            self.refuse(
                format!("a failover has declared {site} lost"),
                "fail back first: what comes back there has to know that it was left behind (standfast failback)",
            );
        }
    }

    /// R10: failback assumes that no new mirror or backup was deployed during the outage.
    fn normal(&mut self, record: &PoolRecord, what: &str) -> bool {
        let normal = record.state == PoolState::Normal && record.lost_sites.is_empty();
        if !normal {
            self.refuse(
                format!(
                    "{what} while the pool is {}: a failback knows only what there was (ha-dr §9, R10)",
                    record.state
                ),
                "fail back first, then publish",
            );
        }
        normal
    }

    fn added(&mut self, record: &PoolRecord, database: &DatabaseName, role: Role, host: &HostName) {
        if !record.databases.contains_key(database) {
            return;
        }
        if !self.normal(record, &format!("{database} would get a {role} on {host}")) {
            return;
        }
        match role {
            Role::Primary => self.refuse(
                format!("{database} would get another primary, {host}"),
                "a pool keeps its primary; add the host as mirror, switch to it, then exchange the two in the topology",
            ),
            Role::Mirror => self.run(false, "install-mirror", format!("install the mirror of {database} on {host}")),
            Role::Backup => {
                self.run(false, "enable-log-shipping", format!("ship the log of {database} to {host}"));
            }
            // A backup that comes with its mirror brings it along.
            Role::BackupMirror if self.backup_stays(record, database) => {
                self.run(false, "add-backup-mirror", format!("copy the backup of {database} to {host}, and feed it"));
            }
            Role::BackupMirror => {}
        }
    }

    /// Whether the database has a backup now and keeps it.
    fn backup_stays(&self, record: &PoolRecord, database: &DatabaseName) -> bool {
        let now = record.databases.get(database).and_then(|d| d.backup.as_ref());
        let then = self.wanted.database(database).and_then(|d| d.backup.as_ref()).map(|i| &i.host);
        now.is_some() && now == then
    }

    fn removed(&mut self, record: &PoolRecord, database: &DatabaseName, role: Role, host: &HostName) {
        if !record.databases.contains_key(database) {
            return;
        }
        if !self.normal(record, &format!("the {role} of {database} on {host} would go")) {
            return;
        }
        match self.part(database, host) {
            Some(Part::Principal) => self.refuse(
                format!("{host} is the principal of {database}"),
                "switch to the mirror first (Invoke-CsDatabaseFailover), and exchange the two in the topology",
            ),
            Some(Part::Mirror) => {
                self.run(true, "remove-mirror", format!("remove the mirror of {database} from {host}"));
            }
            Some(Part::Backup) => {
                self.run(true, "disable-log-shipping", format!("disable log shipping of {database} to {host}"));
            }
            Some(Part::BackupMirror) if self.backup_stays(record, database) => {
                self.run(true, "remove-backup-mirror", format!("take the backup mirror of {database} on {host} out"));
            }
            Some(Part::BackupMirror) | None => {}
        }
    }

    /// Exchanging primary and mirror, or backup and its mirror, changes only where a failback leads; across sites it is a
    /// failover.
    fn exchanged(&mut self, database: &DatabaseName, host: &HostName, from: Role, to: Role) {
        let near = |role| matches!(role, Role::Primary | Role::Mirror);
        if near(from) != near(to) {
            self.refuse(
                format!("{host} would be the {to} of {database} instead of its {from}"),
                "take it out, publish, then add it in its new role",
            );
        } else if to == Role::Primary && self.part(database, host) != Some(Part::Principal) {
            self.refuse(
                format!("{host} would be the primary of {database}, and it is not its principal now"),
                "switch to it first (Invoke-CsDatabaseFailover)",
            );
        } else if self.part(database, host) == Some(Part::Backup)
            || self.part(database, host) == Some(Part::BackupMirror)
        {
            self.refuse(
                format!("{host} would be the {to} of {database}, and log is shipped to it as the {from}"),
                "take the backup mirror out, publish, then add the two in their new roles",
            );
        }
    }

    /// Active servers that go, move, or are too far from the principal in the topology that is to be.
    fn servers(&mut self, record: &PoolRecord) {
        let principals: Vec<&HostName> = record.databases.values().filter_map(|d| d.principal.as_ref()).collect();
        let far = |server: &ServerName| {
            let site = self.wanted.site_of_server(server);
            self.wanted.latency == LatencyClass::High && principals.iter().any(|p| self.wanted.site_of(p) != site)
        };
        let stays = |server: &ServerName| {
            let host = |t: &Topology| t.server(server).map(|s| s.host.clone());
            let there = host(self.wanted).is_some_and(|new| host(self.published).is_none_or(|old| old == new));
            there && !far(server)
        };
        let (staying, leaving): (Vec<ServerName>, Vec<ServerName>) =
            record.active_servers.iter().cloned().partition(stays);
        if !leaving.is_empty() {
            if staying.is_empty() {
                self.refuse(
                    "no active server would be left, and nobody would be served".into(),
                    "make one active that stays: standfast active-servers add",
                );
            }
            self.plan.before.push(Consequence::Deactivate { leaving, staying });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;
    use crate::existing::ExistingDatabase;
    use crate::record::{DatabaseRecord, MirrorRecord, RunRef};

    const STRETCHED: &str = include_str!("../../shell/tests/stretched.toml");
    const MIRROR: &str = "mirror = { host = \"s1b\", postgres = { at = \"10.1.0.12:5432\" } }\n";
    const BACKUP_MIRROR: &str = "backup_mirror = { host = \"s2b\", postgres = { at = \"10.2.0.12:5432\" } }\n";

    fn topology(text: &str) -> Topology {
        Topology::from_toml(text).unwrap_or_else(|f| panic!("{f:?}\n{text}"))
    }

    fn record() -> PoolRecord {
        let mirror = Some(MirrorRecord { host: "s1b".into(), synchronised: true });
        let mut mgc = DatabaseRecord { principal: Some("s1a".into()), mirror, ..DatabaseRecord::default() };
        mgc.backup = Some("s2a".into());
        mgc.backup_mirror = Some("s2b".into());
        PoolRecord {
            version: 1,
            epoch: Epoch(1),
            state: PoolState::Normal,
            home: "site-1".into(),
            active_servers: vec!["server-1".into(), "server-2".into()],
            databases: [("mgc".into(), mgc)].into(),
            lost_sites: std::collections::BTreeMap::new(),
            run: None,
        }
    }

    /// From the example to the changed one; what has to be done, each in a word, refusals first.
    fn check(change: impl Fn(&mut Topology), pool: impl Fn(&mut PoolRecord), expect: &[&str]) {
        let old = topology(STRETCHED);
        let mut new = old.clone();
        change(&mut new);
        let mut record = record();
        pool(&mut record);
        let plan = plan(&old, &new, Some(&record));
        let word = |c: &Consequence| match c {
            Consequence::Deactivate { leaving, .. } => format!("deactivate {}", leaving[0]),
            Consequence::Run { runbook, .. } => (*runbook).to_owned(),
        };
        let mut got: Vec<String> = plan.refusals.iter().map(|r| format!("refused: {}", r.why)).collect();
        got.extend(plan.before.iter().map(|c| format!("before: {}", word(c))));
        got.extend(plan.after.iter().map(|c| format!("after: {}", word(c))));
        assert_eq!(got, expect);
        let held_up = still_to_be_done(&old, &new, Some(&record)).len();
        assert_eq!(held_up, plan.refusals.len() + plan.before.len());
    }

    fn without_server(name: &str) -> impl Fn(&mut Topology) {
        move |t| t.servers.retain(|s| s.name.as_str() != name)
    }

    #[test]
    fn what_changes_nothing_in_use_is_published_as_it_is() {
        check(|_| (), |_| (), &[]);
        check(|t| t.pool = "talk.example.org".into(), |_| (), &[]);
        check(without_server("server-5"), |_| (), &[]);
        check(|t| t.latency = LatencyClass::Low, |_| (), &[]);
        let seen = |t: &mut Topology| {
            t.hosts[0].agent.seen_from.insert("site-2".into(), "198.51.100.7:9012".into());
        };
        check(seen, |_| (), &[]);
    }

    #[test]
    fn an_active_server_that_goes_drains_first_and_the_last_one_does_not_go() {
        check(without_server("server-2"), |_| (), &["before: deactivate server-2"]);
        check(|t| t.servers[1].host = "s1a".into(), |_| (), &["before: deactivate server-2"]);
        check(
            without_server("server-2"),
            |r| r.active_servers = vec!["server-2".into()],
            &["refused: no active server would be left, and nobody would be served", "before: deactivate server-2"],
        );
    }

    #[test]
    fn a_slow_line_takes_far_servers_out_of_the_list() {
        let old = Topology { latency: LatencyClass::Low, ..topology(STRETCHED) };
        let mut record = record();
        record.active_servers.push("server-5".into());
        let plan = plan(&old, &topology(STRETCHED), Some(&record));
        let leaving = vec!["server-5".into()];
        let staying = vec!["server-1".into(), "server-2".into()];
        assert_eq!(plan.before, [Consequence::Deactivate { leaving, staying }]);
    }

    #[test]
    fn a_mirror_is_removed_before_it_leaves_the_topology_and_installed_after_it_came() {
        check(|t| t.databases[0].mirror = None, |_| (), &["before: remove-mirror"]);
        check(|t| t.databases[0].mirror = None, |r| r.databases.values_mut().for_each(|d| d.mirror = None), &[]);
        let whole = topology(STRETCHED);
        let plan = plan(&topology(&STRETCHED.replace(MIRROR, "")), &whole, Some(&record()));
        assert!(matches!(&plan.after[..], [Consequence::Run { runbook: "install-mirror", .. }]), "{plan:?}");
        assert!(plan.refusals.is_empty() && plan.before.is_empty(), "{plan:?}");
    }

    #[test]
    fn a_backup_mirror_comes_and_goes_by_itself_beside_a_backup_that_stays() {
        check(|t| t.databases[0].backup_mirror = None, |_| (), &["before: remove-backup-mirror"]);
        let whole = topology(STRETCHED);
        let plan = plan(&topology(&STRETCHED.replace(BACKUP_MIRROR, "")), &whole, Some(&record()));
        assert!(matches!(&plan.after[..], [Consequence::Run { runbook: "add-backup-mirror", .. }]), "{plan:?}");
    }

    #[test]
    fn the_principal_never_leaves() {
        check(
            |t| {
                let mirror = t.databases[0].mirror.take().expect("the example has one");
                t.databases[0].primary = mirror;
            },
            |_| (),
            &[
                "refused: s1a is the principal of mgc",
                "refused: s1b would be the primary of mgc, and it is not its principal now",
            ],
        );
    }

    #[test]
    fn who_operates_the_database_stays_and_where_it_is_may_change() {
        let existing = |dsn: &str| ExistingDatabase { name: "mgc".into(), dsn: dsn.into() };
        let theirs = Topology {
            databases: Vec::new(),
            existing_databases: vec![existing("postgresql://chat@db1/talk")],
            ..topology(STRETCHED)
        };
        let moved = Topology { existing_databases: vec![existing("postgresql://chat@db2/talk")], ..theirs.clone() };
        let mut record = record();
        record.databases.clear();
        assert_eq!(plan(&theirs, &moved, Some(&record)), Plan::default());
        let refused = plan(&theirs, &topology(STRETCHED), Some(&record)).refusals;
        assert!(refused.iter().any(|r| r.why.contains("who operates mgc would change")), "{refused:?}");
    }

    #[test]
    fn nothing_is_published_while_a_run_is_under_way() {
        let run = RunRef { id: "x".into(), runbook: "failback".into(), started_by: "m".into(), started_at: "t".into() };
        check(|_| (), |r| r.run = Some(run.clone()), &["refused: failback is under way, started by m at t"]);
    }

    #[test]
    fn what_a_failback_counts_on_stays_until_it_is_over() {
        let failed_over = |r: &mut PoolRecord| {
            r.state = PoolState::FailedOver;
            r.home = "site-2".into();
            r.lost_sites.insert("site-1".into(), Epoch(2));
        };
        check(
            |t| t.databases[0].backup_mirror = None,
            failed_over,
            &[
                "refused: the backup mirror of mgc on s2b would go while the pool is FailedOver: a failback knows only what \
               there was (ha-dr §9, R10)",
            ],
        );
        check(|t| t.sites[0].authority = "s1b".into(), failed_over, &["refused: a failover has declared site-1 lost"]);
    }

    #[test]
    fn before_there_is_a_pool_everything_goes() {
        let old = topology(STRETCHED);
        let mut new = old.clone();
        new.databases[0].primary.host = "s1b".into();
        assert_eq!(plan(&old, &new, None), Plan::default());
    }
}
