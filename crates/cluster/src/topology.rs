//! The topology: what there is, where it runs, how it is reached. One TOML file, checked as a whole, published to
//! every host. `docs/topology.md` describes each key.

pub use crate::shipping_settings::LogShipping;

use crate::name::{DatabaseName, HostName, ServerName, SiteName};
use crate::shipping_settings::Span;
use rules::id::Epoch;
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
    /// How often each active server writes something that everybody else has to see.
    #[serde(default, skip_serializing_if = "is_default")]
    pub canary: crate::canary::Canary,
    /// Who is told when a run begins, ends or waits, and when something needs a person.
    #[serde(rename = "notify", default, skip_serializing_if = "Vec::is_empty")]
    pub receivers: Vec<crate::notify::Receiver>,
}

fn is_default(canary: &crate::canary::Canary) -> bool {
    *canary == crate::canary::Canary::default()
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
#[serde(try_from = "SiteText", into = "SiteText")]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// The host whose agent keeps this site's management store: the witness, where there is one.
    pub authority: HostName,
    /// Whether the authority is the witness of the site's mirror pairs: it stands on a host without a part in them, and
    /// only it gives automatic failover (ha-dr §4, §13.3).
    pub witnessed: bool,
}

/// A site as the file has it: one host is named, as witness or as authority alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteText {
    name: SiteName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authority: Option<HostName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    witness: Option<HostName>,
}

impl TryFrom<SiteText> for Site {
    type Error = String;
    fn try_from(text: SiteText) -> Result<Self, String> {
        let SiteText { name, authority, witness } = text;
        match (authority, witness) {
            (Some(authority), None) => Ok(Site { name, authority, witnessed: false }),
            (None, Some(authority)) => Ok(Site { name, authority, witnessed: true }),
            (Some(authority), Some(witness)) => Err(format!(
                "the site {name} names an authority ({authority}) and a witness ({witness}); the witness keeps the \
                 management store too: take authority away"
            )),
            (None, None) => Err(format!(
                "the site {name} names nobody who keeps its management store; add authority = \"a host\", or \
                 witness = \"a host without a database\" for automatic failover"
            )),
        }
    }
}

impl From<Site> for SiteText {
    fn from(site: Site) -> SiteText {
        let Site { name, authority, witnessed } = site;
        let (authority, witness) = if witnessed { (None, Some(authority)) } else { (Some(authority), None) };
        SiteText { name, authority, witness }
    }
}

impl Site {
    /// The witness, if there is one.
    pub fn witness(&self) -> Option<&HostName> {
        self.witnessed.then_some(&self.authority)
    }
}

/// An address with a port, and how other sites or single hosts reach the same thing where that differs (VPN, NAT).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `address:port` within the site, and elsewhere unless `seen_from` says otherwise.
    pub at: String,
    /// `address:port` for hosts of the named site, or for the named host, which counts more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seen_from: BTreeMap<String, String>,
}

impl Endpoint {
    /// The `address:port` under which a host of a site reaches this.
    pub fn seen_by(&self, host: &HostName, site: &SiteName) -> &str {
        let seen = self.seen_from.get(host.as_str()).or_else(|| self.seen_from.get(site.as_str()));
        seen.unwrap_or(&self.at)
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
    /// How long a partner of a mirror pair may be silent before it counts as lost (ha-dr §13.3: 10 s there). Where death is
    /// evident nobody waits for it.
    #[serde(default, skip_serializing_if = "PartnerTimeout::is_default")]
    pub partner_timeout: PartnerTimeout,
}

/// What the restore job holds back, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldBack {
    /// How old what was committed has to be before it is applied.
    pub delay_ms: u64,
    /// Time between two runs; 0 applies all the time.
    pub every_ms: u64,
}

impl Database {
    /// What the restore job holds back at a host: at the backup alone. A primary that is fed as one, in a failback, applies what
    /// arrives at once, because the hand-over waits for it.
    pub fn hold_back(&self, host: &HostName) -> HoldBack {
        let at_the_backup = self.backup.as_ref().is_some_and(|backup| backup.host == *host);
        let settings = self.log_shipping.as_ref().filter(|_| at_the_backup);
        settings
            .map_or_else(HoldBack::default, |s| HoldBack { delay_ms: s.restore_delay.ms, every_ms: s.restore_every.ms })
    }
}

/// The partner time-out of mirror pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartnerTimeout(pub Span);

impl PartnerTimeout {
    /// Least that is taken: a quarter of it is how long an answer may take.
    pub const MIN: Span = Span::ms(500);
    /// Most that is taken: clients wait meanwhile.
    pub const MAX: Span = Span::minutes(1);

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for PartnerTimeout {
    /// Shorter than the reference's, whose networks and servers were slower; clients wait for commits meanwhile.
    fn default() -> Self {
        Self(Span::ms(2_500))
    }
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

    /// The next epoch after `last` whose writer is at `site`. The sites take epochs in turn, odd ones at the first site and
    /// even ones at the second: two sites that do not hear each other, a failover at one and a switch at the other, never
    /// begin the same epoch.
    pub fn next_epoch(&self, last: Epoch, site: &SiteName) -> Epoch {
        let at = self.sites.iter().position(|s| s.name == *site).unwrap_or_default();
        let next = last.next();
        if self.sites.len() < 2 || (next.0 - Epoch::FIRST.0) % 2 == at as i64 % 2 { next } else { next.next() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sites_never_begin_the_same_epoch() {
        let text = "pool = \"chat.example.org\"\n[[site]]\nname = \"one\"\nauthority = \"a\"\n[[site]]\nname = \"two\"\n\
                    authority = \"b\"\n[[host]]\nname = \"a\"\nsite = \"one\"\nagent = { at = \"a:1\" }\n[[host]]\n\
                    name = \"b\"\nsite = \"two\"\nagent = { at = \"b:1\" }\n";
        let mut topology: Topology = toml::from_str(&format!("server = []\n{text}")).expect("it is a topology");
        let next = |t: &Topology, last, site: &str| t.next_epoch(Epoch(last), &site.into()).0;
        assert_eq!((next(&topology, 1, "two"), next(&topology, 2, "one")), (2, 3), "a failover, then a failback");
        assert_eq!((next(&topology, 1, "one"), next(&topology, 2, "two")), (3, 4), "a switch at either site");
        topology.sites.truncate(1);
        assert_eq!(next(&topology, 1, "one"), 2);
    }

    #[test]
    fn the_backup_alone_holds_back() {
        let mut shipping = LogShipping::into_share("/share");
        (shipping.restore_delay, shipping.restore_every) = (Span::minutes(10), Span::minutes(15));
        let at = |host: &str| {
            let at = Endpoint { at: format!("{host}:5432"), seen_from: BTreeMap::new() };
            Some(Instance { host: host.into(), postgres: at })
        };
        let database = Database {
            name: "mgc".into(),
            primary: at("a").expect("it is one"),
            mirror: None,
            backup: at("b"),
            backup_mirror: at("c"),
            log_shipping: Some(shipping),
            partner_timeout: PartnerTimeout::default(),
        };
        assert_eq!(database.hold_back(&"b".into()), HoldBack { delay_ms: 600_000, every_ms: 900_000 });
        assert_eq!(database.hold_back(&"a".into()), HoldBack::default(), "a primary that returns");
        assert_eq!(database.hold_back(&"c".into()), HoldBack::default());
        let unshipped = Database { log_shipping: None, ..database };
        assert_eq!(unshipped.hold_back(&"b".into()), HoldBack::default());
    }
}
