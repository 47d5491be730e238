//! What differs between two topologies, in an administrator's words: what publishing does, what it needs beforehand, and
//! whether users notice. Pure; `topology_change` says what has to be done, given how the pool stands.

mod words;

use crate::existing::ExistingDatabase;
use crate::name::{DatabaseName, HostName, ServerName, SiteName};
use crate::notify::Receiver;
use crate::topology::{Database, Endpoint, Host, LatencyClass, PartnerTimeout, Role, Server, Site, Topology};
use serde::Serialize;
use std::collections::BTreeSet;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Difference {
    /// The pool's name.
    PoolRenamed {
        /// Published.
        from: String,
        /// In the file.
        to: String,
    },
    /// How good the line between the sites is said to be.
    LatencyClass {
        /// Published.
        from: LatencyClass,
        /// In the file.
        to: LatencyClass,
    },
    /// A new site.
    SiteAdded {
        /// Its name.
        site: SiteName,
    },
    /// A site goes.
    SiteRemoved {
        /// Its name.
        site: SiteName,
    },
    /// The first site, which is home in state Normal, is another one.
    HomeSite {
        /// Published.
        from: SiteName,
        /// In the file.
        to: SiteName,
    },
    /// Another host keeps a site's management store.
    Authority {
        /// The site.
        site: SiteName,
        /// Published.
        from: HostName,
        /// In the file.
        to: HostName,
    },
    /// A site has another witness, one for the first time, or none any more.
    Witness {
        /// The site.
        site: SiteName,
        /// In the file.
        to: Option<HostName>,
    },
    /// A new host.
    HostAdded {
        /// Its name.
        host: HostName,
        /// Where it stands.
        site: SiteName,
    },
    /// A host goes.
    HostRemoved {
        /// Its name.
        host: HostName,
        /// Where it stood.
        site: SiteName,
    },
    /// A host stands at another site.
    HostMoved {
        /// Its name.
        host: HostName,
        /// Published.
        from: SiteName,
        /// In the file.
        to: SiteName,
    },
    /// An agent's address.
    AgentAddress {
        /// The host.
        host: HostName,
        /// Published.
        from: Endpoint,
        /// In the file.
        to: Endpoint,
    },
    /// A new database.
    DatabaseAdded {
        /// Its name.
        database: DatabaseName,
    },
    /// A database goes.
    DatabaseRemoved {
        /// Its name.
        database: DatabaseName,
    },
    /// A new instance of a database: a mirror, a backup, a backup's mirror.
    InstanceAdded {
        /// The database.
        database: DatabaseName,
        /// What it is to be in state Normal.
        role: Role,
        /// Its host.
        host: HostName,
    },
    /// An instance goes.
    InstanceRemoved {
        /// The database.
        database: DatabaseName,
        /// What it was in state Normal.
        role: Role,
        /// Its host.
        host: HostName,
    },
    /// An instance has another role in state Normal.
    InstanceRole {
        /// The database.
        database: DatabaseName,
        /// Its host.
        host: HostName,
        /// Published.
        from: Role,
        /// In the file.
        to: Role,
    },
    /// Where an instance listens.
    InstanceAddress {
        /// The database.
        database: DatabaseName,
        /// Its host.
        host: HostName,
        /// Published.
        from: Endpoint,
        /// In the file.
        to: Endpoint,
    },
    /// How log shipping is set up, the share aside.
    ShippingSettings {
        /// Whose.
        database: DatabaseName,
        /// `key: from → to`, each that differs.
        changed: Vec<String>,
    },
    /// The log share; `None` where there is no log shipping.
    Share {
        /// The database.
        database: DatabaseName,
        /// Published.
        from: Option<String>,
        /// In the file.
        to: Option<String>,
    },
    /// How long a partner of a mirror pair may be silent.
    PartnerTimeout {
        /// The database.
        database: DatabaseName,
        /// Published.
        from: PartnerTimeout,
        /// In the file.
        to: PartnerTimeout,
    },
    /// A database that somebody else operates; `None` where there is none of the name.
    ExistingDatabase {
        /// The database.
        database: DatabaseName,
        /// The published connection string.
        from: Option<String>,
        /// The one in the file.
        to: Option<String>,
    },
    /// A new chat server.
    ServerAdded {
        /// Its name.
        server: ServerName,
        /// Its host.
        host: HostName,
    },
    /// A chat server goes.
    ServerRemoved {
        /// Its name.
        server: ServerName,
        /// Its host.
        host: HostName,
    },
    /// A chat server runs on another host.
    ServerMoved {
        /// Its name.
        server: ServerName,
        /// Published.
        from: HostName,
        /// In the file.
        to: HostName,
    },
    /// Where clients or the other servers reach a server.
    ServerAddress {
        /// Its name.
        server: ServerName,
        /// `clients` or `link`.
        what: &'static str,
        /// Published.
        from: Endpoint,
        /// In the file.
        to: Endpoint,
    },
    /// Whether a server is active in state Normal.
    ServerActive {
        /// Its name.
        server: ServerName,
        /// In the file.
        active: bool,
    },
    /// How often canaries are written.
    Canary {
        /// Published.
        from: crate::canary::Every,
        /// In the file.
        to: crate::canary::Every,
    },
    /// A receiver of notices; `None` where there is none of the name.
    Receiver {
        /// Its name.
        receiver: String,
        /// Where the published one is told.
        from: Option<String>,
        /// Where the one in the file is told.
        to: Option<String>,
    },
}

/// What users see of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Users {
    /// Nothing.
    NotAtAll,
    /// Clients of one server reconnect to another and resume; nothing is lost.
    SomeReconnect,
    /// Everybody waits for a moment.
    Wait,
}

impl Users {
    /// For people.
    pub fn says(self) -> &'static str {
        match self {
            Users::NotAtAll => "users notice nothing",
            Users::SomeReconnect => "clients of this server reconnect to another one and resume",
            Users::Wait => "all users wait for a moment",
        }
    }
}

/// A difference with what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What differs.
    #[serde(flatten)]
    pub difference: Difference,
    /// The difference as a sentence.
    pub says: String,
    /// What publishing does.
    pub publishing: String,
    /// What has to be there or done first; empty when nothing.
    pub needs: Vec<String>,
    /// What users see.
    pub users: Users,
}

/// Everything that differs between the published topology and the one that is to be, in the order of the file: pool,
/// sites, hosts, databases, servers, receivers. The version counts for nothing.
pub fn diff(published: &Topology, wanted: &Topology) -> Vec<Change> {
    let mut found = Vec::new();
    if published.pool != wanted.pool {
        found.push(Difference::PoolRenamed { from: published.pool.clone(), to: wanted.pool.clone() });
    }
    if published.latency != wanted.latency {
        found.push(Difference::LatencyClass { from: published.latency, to: wanted.latency });
    }
    if published.canary != wanted.canary {
        found.push(Difference::Canary { from: published.canary.every, to: wanted.canary.every });
    }
    sites(published, wanted, &mut found);
    for (old, new) in pairs(&published.hosts, &wanted.hosts, |h| &h.name) {
        host(old, new, &mut found);
    }
    for (old, new) in pairs(&published.databases, &wanted.databases, |d| &d.name) {
        match (old, new) {
            (Some(old), Some(new)) => database(old, new, &mut found),
            (None, Some(new)) => found.push(Difference::DatabaseAdded { database: new.name.clone() }),
            (Some(old), None) => found.push(Difference::DatabaseRemoved { database: old.name.clone() }),
            (None, None) => {}
        }
    }
    for (old, new) in pairs(&published.existing_databases, &wanted.existing_databases, |d| &d.name) {
        if let Some(database) = new.or(old).filter(|_| old != new).map(|d| d.name.clone()) {
            let dsn = |d: Option<&ExistingDatabase>| d.map(|d| d.dsn.clone());
            found.push(Difference::ExistingDatabase { database, from: dsn(old), to: dsn(new) });
        }
    }
    for (old, new) in pairs(&published.servers, &wanted.servers, |s| &s.name) {
        server(old, new, &mut found);
    }
    for (old, new) in pairs(&published.receivers, &wanted.receivers, |r| &r.name) {
        if let Some(receiver) = new.or(old).filter(|_| old != new).map(|r| r.name.clone()) {
            let place = |r: Option<&Receiver>| r.map(Receiver::place);
            found.push(Difference::Receiver { receiver, from: place(old), to: place(new) });
        }
    }
    found.into_iter().map(|difference| words::explained(difference, published, wanted)).collect()
}

/// Things of the same name, those of the wanted topology first, in their order; then those that are there no more.
fn pairs<'a, T, N: Ord>(old: &'a [T], new: &'a [T], name: impl Fn(&T) -> &N) -> Vec<(Option<&'a T>, Option<&'a T>)> {
    let mut all: Vec<(Option<&T>, Option<&T>)> =
        new.iter().map(|n| (old.iter().find(|o| name(o) == name(n)), Some(n))).collect();
    all.extend(old.iter().filter(|o| !new.iter().any(|n| name(n) == name(o))).map(|o| (Some(o), None)));
    all
}

fn sites(published: &Topology, wanted: &Topology, found: &mut Vec<Difference>) {
    for (old, new) in pairs(&published.sites, &wanted.sites, |s: &Site| &s.name) {
        match (old, new) {
            (None, Some(new)) => found.push(Difference::SiteAdded { site: new.name.clone() }),
            (Some(old), None) => found.push(Difference::SiteRemoved { site: old.name.clone() }),
            (Some(old), Some(new)) => {
                let site = || new.name.clone();
                if old.authority != new.authority {
                    let (from, to) = (old.authority.clone(), new.authority.clone());
                    found.push(Difference::Authority { site: site(), from, to });
                }
                if old.witness() != new.witness() {
                    found.push(Difference::Witness { site: site(), to: new.witness().cloned() });
                }
            }
            (None, None) => {}
        }
    }
    if let (Some(from), Some(to)) = (published.primary_site(), wanted.primary_site())
        && from.name != to.name
    {
        found.push(Difference::HomeSite { from: from.name.clone(), to: to.name.clone() });
    }
}

fn host(old: Option<&Host>, new: Option<&Host>, found: &mut Vec<Difference>) {
    match (old, new) {
        (None, Some(new)) => {
            found.push(Difference::HostAdded { host: new.name.clone(), site: new.site.clone() });
        }
        (Some(old), None) => {
            found.push(Difference::HostRemoved { host: old.name.clone(), site: old.site.clone() });
        }
        (Some(old), Some(new)) => {
            if old.site != new.site {
                let (from, to) = (old.site.clone(), new.site.clone());
                found.push(Difference::HostMoved { host: new.name.clone(), from, to });
            }
            if old.agent != new.agent {
                let (from, to) = (old.agent.clone(), new.agent.clone());
                found.push(Difference::AgentAddress { host: new.name.clone(), from, to });
            }
        }
        (None, None) => {}
    }
}

fn database(old: &Database, new: &Database, found: &mut Vec<Difference>) {
    let database = &new.name;
    let hosts: BTreeSet<&HostName> = old.instances().chain(new.instances()).map(|i| &i.host).collect();
    let mut instances: Vec<(Role, Difference)> = Vec::new();
    for host in hosts {
        let there = |d: &Database| d.role_of(host).zip(d.instance_on(host).map(|i| i.postgres.clone()));
        let (database, host) = (database.clone(), host.clone());
        match (there(old), there(new)) {
            (None, Some((role, _))) => instances.push((role, Difference::InstanceAdded { database, role, host })),
            (Some((role, _)), None) => instances.push((role, Difference::InstanceRemoved { database, role, host })),
            (Some((was, from)), Some((role, to))) => {
                if was != role {
                    let (database, host) = (database.clone(), host.clone());
                    instances.push((role, Difference::InstanceRole { database, host, from: was, to: role }));
                }
                if from != to {
                    instances.push((role, Difference::InstanceAddress { database, host, from, to }));
                }
            }
            (None, None) => {}
        }
    }
    instances.sort_by_key(|(role, _)| *role);
    found.extend(instances.into_iter().map(|(_, difference)| difference));
    let share = |d: &Database| d.log_shipping.as_ref().map(|l| l.share.clone());
    if share(old) != share(new) {
        found.push(Difference::Share { database: database.clone(), from: share(old), to: share(new) });
    }
    if let (Some(old), Some(new)) = (&old.log_shipping, &new.log_shipping) {
        let changed = new.changed_from(old);
        if !changed.is_empty() {
            found.push(Difference::ShippingSettings { database: database.clone(), changed });
        }
    }
    if old.partner_timeout != new.partner_timeout {
        let (from, to) = (old.partner_timeout, new.partner_timeout);
        found.push(Difference::PartnerTimeout { database: database.clone(), from, to });
    }
}

fn server(old: Option<&Server>, new: Option<&Server>, found: &mut Vec<Difference>) {
    match (old, new) {
        (None, Some(new)) => {
            found.push(Difference::ServerAdded { server: new.name.clone(), host: new.host.clone() });
        }
        (Some(old), None) => {
            found.push(Difference::ServerRemoved { server: old.name.clone(), host: old.host.clone() });
        }
        (Some(old), Some(new)) => {
            let server = || new.name.clone();
            if old.host != new.host {
                let (from, to) = (old.host.clone(), new.host.clone());
                found.push(Difference::ServerMoved { server: server(), from, to });
            }
            for (what, from, to) in [("clients", &old.clients, &new.clients), ("link", &old.link, &new.link)] {
                if from != to {
                    let (from, to) = (from.clone(), to.clone());
                    found.push(Difference::ServerAddress { server: server(), what, from, to });
                }
            }
            if old.active != new.active {
                found.push(Difference::ServerActive { server: server(), active: new.active });
            }
        }
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCHED: &str = include_str!("../../shell/tests/stretched.toml");

    fn check(from: &str, to: &str, expect: &[&str]) {
        let changed = STRETCHED.replace(from, to);
        assert_ne!(changed, STRETCHED, "'{from}' is in the example");
        let read = |text: &str| Topology::from_toml(text).expect("the topology passes");
        let said: Vec<String> = diff(&read(STRETCHED), &read(&changed)).into_iter().map(|c| c.says).collect();
        assert_eq!(said, expect, "{from} -> {to}");
    }

    #[test]
    fn the_same_topology_has_no_difference_whatever_its_version() {
        let topology = Topology::from_toml(STRETCHED).expect("the topology passes");
        assert_eq!(diff(&topology, &Topology { version: 7, ..topology.clone() }), []);
    }

    #[test]
    fn what_differs_is_said_as_an_administrator_says_it() {
        check("chat.example.org", "talk.example.org", &["the pool is named talk.example.org, not chat.example.org"]);
        check(
            "[[site]]\nname = \"site-1\"",
            "[canary]\nevery = \"off\"\n\n[[site]]\nname = \"site-1\"",
            &["servers write a canary every: off, not 10s"],
        );
        check("\"high\"", "\"low\"", &["the line between the sites counts as fast"]);
        check("authority = \"s1a\"", "authority = \"s1b\"", &["s1b keeps the management store of site-1, not s1a"]);
        check(
            "authority = \"s2a\"\n\n[[host]]\n",
            "witness = \"s2w\"\n\n[[host]]\nname = \"s2w\"\nsite = \"site-2\"\nagent = { at = \"10.2.0.13:8012\" }\n\n[[host]]\n",
            &[
                "s2w keeps the management store of site-2, not s2a",
                "s2w is the witness of site-2: its mirror pairs fail over by themselves",
                "the host s2w is added at site-2",
            ],
        );
        check(
            "name = \"mgc\"",
            "name = \"mgc\"\npartner_timeout = \"1s\"",
            &["a partner of mgc counts as lost after 1s of silence, not 2500ms"],
        );
        check(
            "10.1.0.12:8012",
            "10.1.0.13:8012",
            &["the agent of s1b is reached at 10.1.0.13:8012, not 10.1.0.12:8012"],
        );
        check(
            "agent = { at = \"10.1.0.12:8012\" }",
            "agent = { at = \"10.1.0.12:8012\", seen_from = { \"site-2\" = \"198.51.100.7:9012\" } }",
            &["the agent of s1b is reached from elsewhere at 198.51.100.7:9012 from site-2, not 10.1.0.12:8012"],
        );
        check(
            "/srv/standfast/share",
            "/mnt/log",
            &["log of mgc is shipped through /mnt/log, not /srv/standfast/share"],
        );
        check(
            "mirror = { host = \"s1b\", postgres = { at = \"10.1.0.12:5432\" } }\nbackup ",
            "backup ",
            &["the mirror of mgc on s1b (site-1) is taken away"],
        );
        check(
            "backup_mirror = { host = \"s2b\", postgres = { at = \"10.2.0.12:5432\" } }\n",
            "",
            &["the backup mirror of mgc on s2b (site-2) is taken away"],
        );
    }

    #[test]
    fn roles_that_are_exchanged_are_no_instances_that_come_and_go() {
        let a = "primary = { host = \"s1a\", postgres = { at = \"10.1.0.11:5432\" } }\n\
                 mirror = { host = \"s1b\", postgres = { at = \"10.1.0.12:5432\" } }";
        let b = "primary = { host = \"s1b\", postgres = { at = \"10.1.0.12:5432\" } }\n\
                 mirror = { host = \"s1a\", postgres = { at = \"10.1.0.11:5432\" } }";
        check(
            a,
            b,
            &[
                "s1b is the primary of mgc in state Normal, not its mirror",
                "s1a is the mirror of mgc in state Normal, not its primary",
            ],
        );
    }

    #[test]
    fn a_server_that_comes_takes_no_clients_by_itself_and_one_that_goes_drains() {
        let one = Topology::from_toml(STRETCHED).expect("the topology passes");
        let mut two = one.clone();
        let gone = two.servers.remove(1);
        let [change] = &diff(&one, &two)[..] else { panic!("one change") };
        assert_eq!(change.users, Users::SomeReconnect);
        assert_eq!(change.says, format!("{} on s1b (site-1) is taken away", gone.name));
        let [change] = &diff(&two, &one)[..] else { panic!("one change") };
        assert_eq!(change.users, Users::NotAtAll);
        assert!(change.needs.iter().any(|n| n.contains("standfast active-servers add server-2")), "{:?}", change.needs);
    }
}
