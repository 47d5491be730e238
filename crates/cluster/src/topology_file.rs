//! Reading a topology file: every finding names the line, what is wrong and what would be right.

use crate::canary::Every;
use crate::name::{HostName, SiteName};
use crate::topology::{Database, Endpoint, LatencyClass, PartnerTimeout, Topology};
pub use rules::nearest::nearest;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most servers of a pool (ha-dr §1).
pub const SERVERS_MAX: usize = 8;
/// Most active servers (ha-dr §1).
pub const ACTIVE_SERVERS_MAX: usize = 4;
/// Name of the content database.
pub const CONTENT_DATABASE: &str = "mgc";
/// Most sites.
pub const SITES_MAX: usize = 2;

/// Something that is wrong with a topology.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl Topology {
    /// Read and check a topology file.
    ///
    /// # Errors
    /// Every finding, in the order of the lines. A file that is not TOML, or has an unknown key, has one.
    pub fn from_toml(text: &str) -> Result<Topology, Vec<Finding>> {
        let topology: Topology = toml::from_str(text).map_err(|error| vec![unreadable(text, &error)])?;
        let findings = check(&topology, text);
        if findings.is_empty() { Ok(topology) } else { Err(findings) }
    }

    /// The topology as TOML, without the comments that its author may have written.
    ///
    /// # Errors
    /// Never for a topology that was read; the type allows for it.
    pub fn to_toml(&self) -> Result<String, String> {
        toml::to_string_pretty(self).map_err(|error| error.to_string())
    }
}

/// What is allowed and hardly meant, in the order of the lines.
pub fn warnings(topology: &Topology, text: &str) -> Vec<Finding> {
    let lines = Lines(text);
    let mut found = Vec::new();
    for database in &topology.databases {
        let line = lines.key("database", database.name.as_str(), "log_shipping");
        let said = database.log_shipping.iter().flat_map(crate::shipping_settings::LogShipping::warnings);
        found.extend(said.map(|(_, message)| Finding { line, message }));
    }
    found.sort();
    found
}

fn unreadable(text: &str, error: &toml::de::Error) -> Finding {
    let offset = error.span().map_or(0, |span| span.start);
    let line = text[..offset.min(text.len())].matches('\n').count() + 1;
    let said = error.message();
    let names: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
    let message = match (said.starts_with("unknown field"), names.split_first()) {
        (true, Some((unknown, known))) => match nearest(unknown, known) {
            Some(near) => format!("there is no key '{unknown}'; did you mean '{near}'?"),
            None => format!("there is no key '{unknown}'; these are known: {}", known.join(", ")),
        },
        _ => format!("{said}; docs/topology.md describes the file"),
    };
    Finding { line, message }
}

/// Where things stand in the text, for findings.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    /// The line of `name = "…"` in a table of this kind, or the table's first, or 1.
    fn named(&self, table: &str, name: &str) -> usize {
        let header = format!("[[{table}]]");
        let wanted = format!("\"{name}\"");
        let mut inside = false;
        let mut first = None;
        for (number, line) in self.0.lines().enumerate() {
            let line = line.trim();
            if line.starts_with("[[") {
                inside = line.starts_with(&header);
                if inside && first.is_none() {
                    first = Some(number + 1);
                }
            } else if inside && line.starts_with("name") && line.contains(&wanted) {
                return number + 1;
            }
        }
        first.unwrap_or(1)
    }

    /// The line of a key below the named table.
    fn key(&self, table: &str, name: &str, key: &str) -> usize {
        let from = self.named(table, name);
        let rest = self.0.lines().enumerate().skip(from.saturating_sub(1));
        rest.take_while(|(number, line)| number + 1 == from || !line.trim().starts_with("[["))
            .find(|(_, line)| line.trim().starts_with(key))
            .map_or(from, |(number, _)| number + 1)
    }
}

struct Check<'a> {
    topology: &'a Topology,
    lines: Lines<'a>,
    findings: Vec<Finding>,
}

fn check(topology: &Topology, text: &str) -> Vec<Finding> {
    let mut check = Check { topology, lines: Lines(text), findings: Vec::new() };
    check.sites();
    check.hosts();
    check.databases();
    check.servers();
    check.addresses();
    check.receivers();
    check.canary(text);
    check.findings.sort();
    check.findings
}

impl Check<'_> {
    fn find(&mut self, line: usize, message: String) {
        self.findings.push(Finding { line, message });
    }

    fn twice<'n>(&mut self, table: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeSet::new();
        for name in names {
            if name.is_empty() || name.contains(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))) {
                let line = self.lines.named(table, name);
                self.find(line, format!("'{name}' is no name for a {table}: use letters, digits, '-', '_' and '.'"));
            }
            if !seen.insert(name) {
                let line = self.lines.named(table, name);
                self.find(line, format!("there are two {table}s named '{name}'; give each a name of its own"));
            }
        }
    }

    fn sites(&mut self) {
        let topology = self.topology;
        self.twice("site", topology.sites.iter().map(|s| s.name.as_str()));
        if topology.pool.trim().is_empty() {
            self.find(1, "the pool has no name; write pool = \"chat.example.org\"".into());
        }
        if topology.sites.is_empty() || topology.sites.len() > SITES_MAX {
            let count = topology.sites.len();
            self.find(1, format!("a pool has one or two sites; this one has {count} (ha-dr §3)"));
        }
        for site in &topology.sites {
            let part = if site.witnessed { "witness" } else { "authority" };
            let line = self.lines.key("site", site.name.as_str(), part);
            match topology.site_of(&site.authority) {
                Some(at) if *at == site.name => {}
                Some(at) => {
                    let (authority, name) = (&site.authority, &site.name);
                    self.find(line, format!("the {part} '{authority}' stands in {at}; name a host of {name}"));
                }
                None => {
                    let hosts: Vec<&str> = topology.hosts.iter().map(|h| h.name.as_str()).collect();
                    let hint = unknown_hint(site.authority.as_str(), &hosts);
                    self.find(line, format!("there is no host '{}' for the {part}; {hint}", site.authority));
                }
            }
            let partner = topology.databases.iter().find(|d| d.instance_on(&site.authority).is_some());
            if let Some(partner) = partner.filter(|_| site.witnessed) {
                self.find(
                    line,
                    format!(
                        "the witness '{}' has an instance of {} itself and would be lost with it; put the witness on a host \
                         without a database, or write authority in place of witness (ha-dr §4)",
                        site.authority, partner.name
                    ),
                );
            }
        }
    }

    fn hosts(&mut self) {
        let topology = self.topology;
        self.twice("host", topology.hosts.iter().map(|h| h.name.as_str()));
        let sites: Vec<&str> = topology.sites.iter().map(|s| s.name.as_str()).collect();
        for host in &topology.hosts {
            if topology.site(&host.site).is_none() {
                let line = self.lines.key("host", host.name.as_str(), "site");
                let hint = unknown_hint(host.site.as_str(), &sites);
                self.find(line, format!("there is no site '{}'; {hint}", host.site));
            }
        }
    }

    /// The site of a host that a key names; a finding if there is no such host.
    fn site_of(&mut self, line: usize, host: &HostName) -> Option<SiteName> {
        let topology = self.topology;
        let site = topology.site_of(host).cloned();
        if site.is_none() {
            let hosts: Vec<&str> = topology.hosts.iter().map(|h| h.name.as_str()).collect();
            let hint = unknown_hint(host.as_str(), &hosts);
            self.find(line, format!("there is no host '{host}'; {hint}"));
        }
        site
    }

    fn databases(&mut self) {
        let topology = self.topology;
        self.twice("database", topology.databases.iter().map(|d| d.name.as_str()));
        if topology.databases.is_empty() && topology.existing_databases.is_empty() {
            self.find(1, "the pool has no database; add a [[database]] named \"mgc\"".into());
        }
        let names: Vec<&str> = topology.databases.iter().map(|d| d.name.as_str()).collect();
        if !names.is_empty() && !names.contains(&CONTENT_DATABASE) {
            let line = self.lines.named("database", "");
            self.find(
                line,
                format!("there is no database named {CONTENT_DATABASE}; give the content database that name"),
            );
        }
        self.twice("existing_database", topology.existing_databases.iter().map(|d| d.name.as_str()));
        for existing in &topology.existing_databases {
            let line = self.lines.key("existing_database", existing.name.as_str(), "dsn");
            if let Some(fault) = existing.fault() {
                self.find(line, fault);
            }
            if let Some(own) = topology.databases.first() {
                let both = format!(
                    "the pool has a [[database]] ({}) and an [[existing_database]] ({}); either the agents operate its \
                     databases or somebody else does: keep one of the two",
                    own.name, existing.name
                );
                self.find(line, both);
            }
        }
        for database in &topology.databases {
            self.database(database);
        }
    }

    fn database(&mut self, database: &Database) {
        let name = database.name.as_str();
        let line = |check: &Self, key: &str| check.lines.key("database", name, key);
        let at = line(self, "primary");
        let home = self.topology.primary_site().map(|s| s.name.clone());
        let primary = self.site_of(at, &database.primary.host);
        if let (Some(primary), Some(home)) = (&primary, &home)
            && primary != home
        {
            self.find(at, format!("the primary stands in {primary}; it must stand in {home}, the first site"));
        }
        if let Some(mirror) = &database.mirror {
            let at = line(self, "mirror");
            let site = self.site_of(at, &mirror.host);
            if site.is_some() && primary.is_some() && site != primary {
                self.find(
                    at,
                    "the mirror stands at another site than the primary; put it beside its partner (ha-dr §4)".into(),
                );
            }
        }
        let mut backup_site = None;
        if let Some(backup) = &database.backup {
            let at = line(self, "backup");
            backup_site = self.site_of(at, &backup.host);
            if backup_site.is_some() && backup_site == primary {
                self.find(
                    at,
                    "the backup stands at the primary's site; it must stand at the other one (ha-dr §4)".into(),
                );
            }
            if database.log_shipping.is_none() {
                self.find(at, "a backup needs log shipping; add log_shipping = { share = \"/…\" }".into());
            }
        }
        if let Some(mirror) = &database.backup_mirror {
            let at = line(self, "backup_mirror");
            let site = self.site_of(at, &mirror.host);
            if database.backup.is_none() {
                self.find(at, "a backup mirror needs a backup; add backup = { host = …, postgres = … }".into());
            } else if site.is_some() && site != backup_site {
                self.find(
                    at,
                    "the backup mirror stands at another site than the backup; put it beside it (ha-dr §4)".into(),
                );
            }
        }
        if let Some(shipping) = &database.log_shipping {
            let at = line(self, "log_shipping");
            for (_, says) in shipping.findings() {
                self.find(at, says);
            }
        }
        let PartnerTimeout(timeout) = database.partner_timeout;
        if !(PartnerTimeout::MIN..=PartnerTimeout::MAX).contains(&timeout) {
            let at = line(self, "partner_timeout");
            let (least, most) = (PartnerTimeout::MIN, PartnerTimeout::MAX);
            self.find(at, format!("a partner time-out of {timeout} is not taken; write one from {least} to {most}"));
        }
        let mut hosts = BTreeSet::new();
        for instance in database.instances() {
            if !hosts.insert(&instance.host) {
                let at = self.lines.named("database", name);
                self.find(
                    at,
                    format!(
                        "two instances of {name} stand on {}; give each a host of its own (ha-dr §4)",
                        instance.host
                    ),
                );
            }
        }
    }

    fn servers(&mut self) {
        let topology = self.topology;
        self.twice("server", topology.servers.iter().map(|s| s.name.as_str()));
        if topology.servers.is_empty() {
            self.find(1, "the pool has no server; add a [[server]]".into());
        }
        if let Some(extra) = topology.servers.get(SERVERS_MAX) {
            let line = self.lines.named("server", extra.name.as_str());
            let count = topology.servers.len();
            self.find(line, format!("a pool has at most {SERVERS_MAX} servers; this one has {count} (ha-dr §1)"));
        }
        let active: Vec<_> = topology.servers.iter().filter(|s| s.active).collect();
        if let Some(extra) = active.get(ACTIVE_SERVERS_MAX) {
            let line = self.lines.key("server", extra.name.as_str(), "active");
            let count = active.len();
            self.find(line, format!("at most {ACTIVE_SERVERS_MAX} servers may be active; here {count} are (ha-dr §1)"));
        }
        let home = topology.primary_site().map(|s| s.name.clone());
        for server in &topology.servers {
            let at = self.lines.key("server", server.name.as_str(), "host");
            let site = self.site_of(at, &server.host);
            if server.active && site.is_some() && site != home && topology.latency == LatencyClass::High {
                let line = self.lines.key("server", server.name.as_str(), "active");
                self.find(
                    line,
                    format!(
                        "{} is active at another site than the principal; take active away, or write latency = \"low\" \
                         if the line between the sites is that good (ha-dr §9, R4)",
                        server.name
                    ),
                );
            }
        }
    }

    fn receivers(&mut self) {
        let topology = self.topology;
        self.twice("notify", topology.receivers.iter().map(|r| r.name.as_str()));
        for receiver in &topology.receivers {
            for (key, says) in receiver.findings() {
                let line = self.lines.key("notify", &receiver.name, key);
                self.find(line, says);
            }
        }
    }

    fn canary(&mut self, text: &str) {
        let every = self.topology.canary.every;
        if every.0.is_some_and(|span| !(Every::MIN..=Every::MAX).contains(&span)) {
            let at = text
                .lines()
                .skip_while(|l| !l.trim().starts_with("[canary]"))
                .position(|l| l.trim().starts_with("every"));
            let begin = text.lines().position(|l| l.trim().starts_with("[canary]")).unwrap_or(0);
            let (least, most) = (Every::MIN, Every::MAX);
            self.find(
                begin + at.unwrap_or(0) + 1,
                format!("a canary every {every} is not taken; write a time from {least} to {most}, or \"off\""),
            );
        }
    }

    fn addresses(&mut self) {
        let topology = self.topology;
        let mut endpoints: Vec<(usize, String, &Endpoint)> = Vec::new();
        for host in &topology.hosts {
            let line = self.lines.key("host", host.name.as_str(), "agent");
            endpoints.push((line, format!("agent of {}", host.name), &host.agent));
        }
        for database in &topology.databases {
            for instance in database.instances() {
                let line = self.lines.named("database", database.name.as_str());
                endpoints.push((line, format!("{} on {}", database.name, instance.host), &instance.postgres));
            }
        }
        for server in &topology.servers {
            let line = self.lines.key("server", server.name.as_str(), "clients");
            endpoints.push((line, format!("clients of {}", server.name), &server.clients));
            let line = self.lines.key("server", server.name.as_str(), "link");
            endpoints.push((line, format!("link of {}", server.name), &server.link));
        }
        let mut taken: BTreeMap<&str, String> = BTreeMap::new();
        for (line, what, endpoint) in endpoints {
            for address in std::iter::once(&endpoint.at).chain(endpoint.seen_from.values()) {
                let port = address
                    .rsplit_once(':')
                    .and_then(|(host, port)| port.parse::<u16>().ok().filter(|port| *port > 0 && !host.is_empty()));
                if port.is_none() {
                    self.find(line, format!("'{address}' ({what}) is no address; write it as host:port"));
                }
            }
            if let Some(other) = taken.insert(&endpoint.at, what.clone()) {
                self.find(line, format!("{} is the address of two things: {other}, and {what}", endpoint.at));
            }
            let known = |name: &&String| {
                topology.sites.iter().any(|s| s.name.as_str() == **name)
                    || topology.hosts.iter().any(|h| h.name.as_str() == **name)
            };
            for from in endpoint.seen_from.keys().filter(|name| !known(name)) {
                self.find(line, format!("seen_from names '{from}', which is no site and no host ({what})"));
            }
        }
    }
}

fn unknown_hint(unknown: &str, known: &[&str]) -> String {
    match nearest(unknown, known) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("there are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
