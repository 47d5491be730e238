//! A topology from a few answers: what `standfast topology init` asks, and the commented file that it writes.

use crate::topology::LatencyClass;
use crate::topology_file::{ACTIVE_SERVERS_MAX, SERVERS_MAX};
use std::fmt::Write;

/// Port of agents.
pub const AGENT_PORT: u16 = 8012;
/// Port of PostgreSQL.
pub const POSTGRES_PORT: u16 = 5432;
/// Port of clients, that of the reference; each further server of a host has the next one.
pub const CLIENTS_PORT: u16 = 5041;
/// Port of server links, that of the reference; each further server of a host has one ten higher.
pub const LINK_PORT: u16 = 8011;

/// A host: its name and its address, without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftHost {
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub address: String,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftSite {
    /// Its name.
    pub name: String,
    /// Its hosts, at least one; the first keeps the management store and the first copy of the database.
    pub hosts: Vec<DraftHost>,
    /// How many chat servers it has; they are spread over its hosts.
    pub servers: usize,
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Name of the pool.
    pub pool: String,
    /// The line between the sites.
    pub latency: LatencyClass,
    /// One or two sites, home first.
    pub sites: Vec<DraftSite>,
    /// Whether the primary has a mirror; takes a second host at the first site.
    pub mirror: bool,
    /// Whether there is a backup; takes a second site.
    pub backup: bool,
    /// Whether the backup has a mirror; takes a second host at the second site.
    pub backup_mirror: bool,
    /// The log share, where there is a backup.
    pub share: String,
    /// Servers that are active in state Normal.
    pub active: Vec<String>,
}

impl Default for Draft {
    fn default() -> Self {
        let host = |name: &str, address: &str| DraftHost { name: name.into(), address: address.into() };
        let site = |name: &str, hosts| DraftSite { name: name.into(), hosts, servers: 2 };
        Draft {
            pool: "chat.example.org".into(),
            latency: LatencyClass::High,
            sites: vec![
                site("site-1", vec![host("s1a", "10.1.0.11"), host("s1b", "10.1.0.12")]),
                site("site-2", vec![host("s2a", "10.2.0.11"), host("s2b", "10.2.0.12")]),
            ],
            mirror: true,
            backup: true,
            backup_mirror: true,
            share: "/srv/standfast/share".into(),
            active: vec!["server-1".into(), "server-2".into()],
        }
    }
}

impl Draft {
    /// The servers with their sites, by number. The second site's begin with server-5, as in the reference, unless the first
    /// has more than four.
    pub fn servers(&self) -> Vec<(usize, String)> {
        let mut all = Vec::new();
        let mut number = 1;
        for (index, site) in self.sites.iter().enumerate() {
            if index == 1 && number <= ACTIVE_SERVERS_MAX {
                number = ACTIVE_SERVERS_MAX + 1;
            }
            for _ in 0..site.servers {
                all.push((index, format!("server-{number}")));
                number += 1;
            }
        }
        all
    }

    /// Which servers may be active: those at the first site and, where the line is fast, the second site's too.
    pub fn may_be_active(&self) -> Vec<String> {
        let all = self.servers().into_iter();
        all.filter(|(site, _)| *site == 0 || self.latency == LatencyClass::Low).map(|(_, name)| name).collect()
    }

    /// Which are active unless somebody says otherwise: up to four, half of them at each site where the line is fast
    /// (ha-dr §3).
    pub fn active_by_default(&self) -> Vec<String> {
        let servers = self.servers();
        if self.latency == LatencyClass::High || self.sites.len() < 2 {
            return self.may_be_active().into_iter().take(ACTIVE_SERVERS_MAX).collect();
        }
        let of = |site: usize| servers.iter().filter(move |(s, _)| *s == site).map(|(_, name)| name.clone());
        of(0).take(ACTIVE_SERVERS_MAX / 2).chain(of(1).take(ACTIVE_SERVERS_MAX / 2)).collect()
    }

    /// How many servers a site may have, given those before it.
    pub fn servers_left(&self, site: usize) -> usize {
        let others: usize = self.sites.iter().enumerate().filter(|(i, _)| *i != site).map(|(_, s)| s.servers).sum();
        SERVERS_MAX.saturating_sub(others)
    }

    /// The commented file.
    pub fn to_toml(&self) -> String {
        let mut file = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut file);
        file
    }

    fn write(&self, file: &mut String) -> std::fmt::Result {
        let latency = match self.latency {
            LatencyClass::Low => "low",
            LatencyClass::High => "high",
        };
        writeln!(file, "# The topology of the pool {}. docs/topology.md describes each key.", self.pool)?;
        writeln!(file, "# Check it with: standfast topology check FILE")?;
        writeln!(file, "pool = {}", quoted(&self.pool))?;
        if self.sites.len() > 1 {
            writeln!(
                file,
                "# The line between the sites: \"low\" lets servers of both be active, \"high\" only those near"
            )?;
            writeln!(file, "# the principal (ha-dr §3, and rule R4).")?;
        }
        writeln!(file, "latency = \"{latency}\"")?;
        for (index, site) in self.sites.iter().enumerate() {
            let what =
                if index == 0 { "Home in state Normal." } else { "Where the pool goes when the first site is lost." };
            writeln!(file, "\n# {what} The authority keeps the management store and carries out runbooks.")?;
            writeln!(file, "[[site]]\nname = {}", quoted(&site.name))?;
            writeln!(file, "authority = {}", quoted(site.hosts.first().map_or("", |h| &h.name)))?;
        }
        writeln!(
            file,
            "\n# Every machine with an agent (standfast agent). Where other sites reach it under another address, add"
        )?;
        writeln!(
            file,
            "# seen_from = {{ \"SITE\" = \"ADDRESS:PORT\" }} beside at; the same holds for every address below."
        )?;
        for site in &self.sites {
            for host in &site.hosts {
                writeln!(file, "[[host]]\nname = {}\nsite = {}", quoted(&host.name), quoted(&site.name))?;
                writeln!(file, "agent = {}\n", at(&host.address, AGENT_PORT))?;
            }
        }
        self.write_database(file)?;
        self.write_servers(file)
    }

    fn write_database(&self, file: &mut String) -> std::fmt::Result {
        writeln!(file, "# The content database: one private instance of PostgreSQL for each copy.")?;
        writeln!(file, "[[database]]\nname = \"mgc\"")?;
        let mut copy = |key: &str, site: usize, host: usize, says: &str| match self
            .sites
            .get(site)
            .and_then(|s| s.hosts.get(host))
        {
            Some(host) => {
                let at = at(&host.address, POSTGRES_PORT);
                writeln!(file, "# {says}\n{key} = {{ host = {}, postgres = {at} }}", quoted(&host.name))
            }
            None => Ok(()),
        };
        copy("primary", 0, 0, "Principal in state Normal.")?;
        if self.mirror {
            copy("mirror", 0, 1, "Its synchronous partner: an acknowledged post is on both.")?;
        }
        if self.backup {
            copy("backup", 1, 0, "The log-shipping secondary, which a failover brings online.")?;
            if self.backup_mirror {
                copy("backup_mirror", 1, 1, "The backup's warm mirror: after a failover, the new principal's mirror.")?;
            }
            writeln!(file, "# A folder that every host above reads and writes, best on a machine of neither site.")?;
            writeln!(file, "log_shipping = {{ share = {} }}", quoted(&self.share))?;
        }
        Ok(())
    }

    fn write_servers(&self, file: &mut String) -> std::fmt::Result {
        writeln!(
            file,
            "\n# Chat servers (standfast serve): at most {SERVERS_MAX}, of which at most {ACTIVE_SERVERS_MAX} active."
        )?;
        let mut of_site = vec![0_usize; self.sites.len()];
        for (site, name) in self.servers() {
            let Some(DraftSite { hosts, .. }) = self.sites.get(site) else { continue };
            let number = of_site[site];
            of_site[site] += 1;
            let Some(host) = hosts.get(number % hosts.len().max(1)) else { continue };
            let nth = u16::try_from(number / hosts.len().max(1)).unwrap_or(0);
            writeln!(file, "[[server]]\nname = {}\nhost = {}", quoted(&name), quoted(&host.name))?;
            writeln!(file, "clients = {}", at(&host.address, CLIENTS_PORT + nth))?;
            writeln!(file, "link = {}", at(&host.address, LINK_PORT + 10 * nth))?;
            writeln!(file, "active = {}\n", self.active.contains(&name))?;
        }
        Ok(())
    }
}

fn at(address: &str, port: u16) -> String {
    format!("{{ at = {} }}", quoted(&format!("{address}:{port}")))
}

/// A TOML string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    #[test]
    fn the_default_passes_and_says_what_it_means() {
        let text = Draft::default().to_toml();
        let topology = Topology::from_toml(&text).unwrap_or_else(|f| panic!("{f:?}\n{text}"));
        assert_eq!(topology.servers.iter().filter(|s| s.active).count(), 2);
        assert!(text.lines().filter(|l| l.starts_with('#')).count() > 10, "{text}");
    }

    #[test]
    fn servers_are_numbered_and_active_as_in_the_reference() {
        let mut draft = Draft { latency: LatencyClass::Low, ..Draft::default() };
        draft.sites.iter_mut().for_each(|s| s.servers = 4);
        assert_eq!(draft.active_by_default(), ["server-1", "server-2", "server-5", "server-6"]);
        draft.latency = LatencyClass::High;
        assert_eq!(draft.active_by_default(), ["server-1", "server-2", "server-3", "server-4"]);
        assert_eq!(draft.servers_left(1), 4);
    }

    fn site(index: usize, hosts: usize, servers: usize) -> DraftSite {
        let host = |h| DraftHost { name: format!("h{index}{h}"), address: format!("10.{index}.0.{h}") };
        DraftSite { name: format!("site-{index}"), hosts: (0..hosts).map(host).collect(), servers }
    }

    fn check(sites: Vec<DraftSite>, latency: LatencyClass, [mirror, backup, backup_mirror]: [bool; 3]) {
        let beside = |site: usize| sites.get(site).is_some_and(|s: &DraftSite| s.hosts.len() > 1);
        let backup = backup && sites.len() > 1;
        let mut draft = Draft {
            latency,
            mirror: mirror && beside(0),
            backup,
            backup_mirror: backup && backup_mirror && beside(1),
            sites,
            ..Draft::default()
        };
        draft.active = draft.active_by_default();
        let text = draft.to_toml();
        Topology::from_toml(&text).unwrap_or_else(|f| panic!("{f:?}\n{text}"));
    }

    #[test]
    fn every_draft_passes() {
        let shapes: Vec<(usize, usize)> =
            (1..4).flat_map(|hosts| (1..5).map(move |servers| (hosts, servers))).collect();
        for &(hosts, servers) in &shapes {
            for bits in 0..8_u8 {
                let yes = [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0];
                check(vec![site(1, hosts, servers * 2)], LatencyClass::High, yes);
                for &(other_hosts, other_servers) in &shapes {
                    for latency in [LatencyClass::High, LatencyClass::Low] {
                        check(vec![site(1, hosts, servers), site(2, other_hosts, other_servers)], latency, yes);
                    }
                }
            }
        }
    }
}
