//! The topology: what there is, where it runs, how it is reached. One TOML file, checked as a whole, published to
//! every host. `docs/topology.md` describes each key.

pub use crate::shipping_settings::LogShipping;

use crate::name::{DatabaseName, HostName, ServerName, SiteName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A whole topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Name of the pool, a fully qualified domain name.
    pub pool: String,
    /// Rises with every publication; a file that is being written may leave it out.
    #[serde(default)]
    pub version: u64,
    /// The sites, one or two; the first is the pool's home in state Normal.
    #[serde(rename = "site")]
    pub sites: Vec<Site>,
    /// How good the line between the sites is.
    #[serde(default)]
    pub latency: LatencyClass,
    /// The hosts.
    #[serde(rename = "host")]
    pub hosts: Vec<Host>,
    /// The databases that the pool's agents operate.
    #[serde(rename = "database", default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Database>,
    /// The databases that somebody else operates.
    #[serde(rename = "existing_database", default, skip_serializing_if = "Vec::is_empty")]
    pub existing_databases: Vec<crate::existing::ExistingDatabase>,
    /// The chat servers.
    #[serde(rename = "server")]
    pub servers: Vec<Server>,
}

/// The line between the two sites (ha-dr §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatencyClass {
    /// High bandwidth, low latency: servers at either site may be active.
    Low,
    /// Low bandwidth, high latency: only servers near the principal may be active.
    #[default]
    High,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// The host whose agent keeps this site's management store.
    pub authority: HostName,
}

/// An address with a port, and how other sites reach the same thing where that differs (VPN, NAT).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `address:port` within the site, and elsewhere unless `seen_from` says otherwise.
    pub at: String,
    /// `address:port` for hosts of the named site.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen_from: BTreeMap<SiteName, String>,
}

impl Endpoint {
    /// The `address:port` under which hosts of `site` reach this.
    pub fn from_site(&self, site: &SiteName) -> &str {
        self.seen_from.get(site).unwrap_or(&self.at)
    }

    /// The port that the thing itself listens on.
    pub fn port(&self) -> Option<u16> {
        self.at.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
    }
}

/// A host: a machine with an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Where it stands.
    pub site: SiteName,
    /// The agent's API.
    pub agent: Endpoint,
}

/// A database and its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `mgc`.
    pub name: DatabaseName,
    /// Principal in state Normal.
    pub primary: Instance,
    /// Its synchronous partner, at the same site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Instance>,
    /// The log-shipping secondary, at the other site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Instance>,
    /// The backup's warm mirror, at the backup's site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_mirror: Option<Instance>,
    /// Log shipping from the principal to the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_shipping: Option<LogShipping>,
}

/// An instance of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// The host that runs it; one instance a database on a host.
    pub host: HostName,
    /// Where PostgreSQL listens.
    pub postgres: Endpoint,
}

/// A chat server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its name.
    pub name: ServerName,
    /// The host that runs it.
    pub host: HostName,
    /// Where clients connect: HTTP and WebSocket (default port of the reference: 5041).
    pub clients: Endpoint,
    /// Where the other servers of the pool connect (default port of the reference: 8011).
    pub link: Endpoint,
    /// Whether it is active in state Normal.
    #[serde(default)]
    pub active: bool,
}

impl Topology {
    /// The host of that name.
    pub fn host(&self, name: &HostName) -> Option<&Host> {
        self.hosts.iter().find(|h| h.name == *name)
    }

    /// The site of a host.
    pub fn site_of(&self, name: &HostName) -> Option<&SiteName> {
        self.host(name).map(|h| &h.site)
    }

    /// The site of that name.
    pub fn site(&self, name: &SiteName) -> Option<&Site> {
        self.sites.iter().find(|s| s.name == *name)
    }

    /// The first site: the pool's home in state Normal.
    pub fn primary_site(&self) -> Option<&Site> {
        self.sites.first()
    }

    /// The site that is not `name`, in a pool over two.
    pub fn other_site(&self, name: &SiteName) -> Option<&Site> {
        self.sites.iter().find(|s| s.name != *name)
    }

    /// The chat server of that name.
    pub fn server(&self, name: &ServerName) -> Option<&Server> {
        self.servers.iter().find(|s| s.name == *name)
    }

    /// The site of a server.
    pub fn site_of_server(&self, name: &ServerName) -> Option<&SiteName> {
        self.server(name).and_then(|s| self.site_of(&s.host))
    }

    /// The database of that name.
    pub fn database(&self, name: &DatabaseName) -> Option<&Database> {
        self.databases.iter().find(|d| d.name == *name)
    }
}

/// The role that the topology gives to an instance in state Normal. Who plays which part right now is in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Principal in state Normal.
    Primary,
    /// The primary's synchronous partner.
    Mirror,
    /// The log-shipping secondary.
    Backup,
    /// The backup's warm mirror.
    BackupMirror,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Mirror => "mirror",
            Role::Backup => "backup",
            Role::BackupMirror => "backup mirror",
        })
    }
}

impl Database {
    /// Every instance with its role, primary first.
    pub fn roles(&self) -> impl Iterator<Item = (Role, &Instance)> {
        let all = [
            (Role::Primary, Some(&self.primary)),
            (Role::Mirror, self.mirror.as_ref()),
            (Role::Backup, self.backup.as_ref()),
            (Role::BackupMirror, self.backup_mirror.as_ref()),
        ];
        all.into_iter().filter_map(|(role, instance)| Some((role, instance?)))
    }

    /// Every instance, primary first.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.roles().map(|(_, instance)| instance)
    }

    /// The role of `host`, if it has an instance.
    pub fn role_of(&self, host: &HostName) -> Option<Role> {
        self.roles().find(|(_, i)| i.host == *host).map(|(role, _)| role)
    }

    /// The instance on `host`.
    pub fn instance_on(&self, host: &HostName) -> Option<&Instance> {
        self.instances().find(|i| i.host == *host)
    }
}
