//! What only the running system shows of a topology: who answers, which PostgreSQL runs, how the clocks stand, and whether the
//! share is one folder that every database host of both sites reads and writes. And what a topology that passes may still lack.

use crate::name::{HostName, SiteName};
use crate::remark::Remark;
use crate::shipping_settings::BUCKET;
use crate::topology::{Database, Topology};
use std::collections::{BTreeMap, BTreeSet};

/// Most that the clocks of two hosts may differ, in milliseconds. Safety never rests on clocks; journals and times of posts do.
pub const CLOCKS_MAX_MS: i64 = 5_000;

/// What a host has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its clock against that of whoever asked, in milliseconds.
    pub clock_ms: i64,
    /// What its PostgreSQL says of itself: `postgres (PostgreSQL) 16.4`.
    pub postgres: String,
    /// Other hosts whose agent it does not reach.
    pub unreached: BTreeSet<HostName>,
    /// Shares, by path.
    pub shares: BTreeMap<String, ShareSeen>,
}

/// A share as one host sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareSeen {
    /// Why it could not be written, read back and deleted.
    pub fault: Option<String>,
    /// It lies inside the folder in which this host keeps its own data.
    pub inside_host_folder: bool,
    /// Hosts whose mark was found in it.
    pub sees: BTreeSet<HostName>,
}

/// What speaks against a topology, as its hosts have shown themselves; `Err` holds why one did not answer. Hosts at a site
/// that a failover has declared lost are left out.
pub fn judge(
    topology: &Topology,
    seen: &BTreeMap<HostName, Result<Seen, String>>,
    lost: &BTreeSet<SiteName>,
) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let hosts = topology.hosts.iter().filter(|h| !lost.contains(&h.site));
    let mut answered: BTreeMap<&HostName, &Seen> = BTreeMap::new();
    for host in hosts {
        match seen.get(&host.name) {
            Some(Ok(shown)) => {
                answered.insert(&host.name, shown);
            }
            Some(Err(why)) => remarks.push(Remark::new(
                "ha-dr §4",
                format!("the agent of {} at {} does not answer: {why}", host.name, host.agent.at),
                "start it, with this topology in its folder, or look at the line",
            )),
            None => {}
        }
    }
    for (host, shown) in &answered {
        for other in shown.unreached.iter().filter(|other| answered.contains_key(other)) {
            let site = topology.site_of(host);
            let at = topology.host(other).zip(site).map_or("", |(h, site)| h.agent.seen_by(host, site));
            remarks.push(Remark::new(
                "ha-dr §3",
                format!("{host} does not reach the agent of {other} at {at}"),
                "open the way between them, or say under which address it is seen from there (seen_from)",
            ));
        }
    }
    clocks(&answered, &mut remarks);
    for database in &topology.databases {
        versions(database, &answered, &mut remarks);
        share(database, &answered, &mut remarks);
    }
    remarks
}

fn clocks(answered: &BTreeMap<&HostName, &Seen>, remarks: &mut Vec<Remark>) {
    let first = answered.iter().min_by_key(|(_, s)| s.clock_ms);
    let last = answered.iter().max_by_key(|(_, s)| s.clock_ms);
    let (Some((behind, a)), Some((ahead, b))) = (first, last) else { return };
    let apart = b.clock_ms - a.clock_ms;
    if apart > CLOCKS_MAX_MS {
        remarks.push(Remark::new(
            "clocks within 5 s",
            format!("the clock of {ahead} is {:.1} s ahead of that of {behind}", apart as f64 / 1000.0),
            "let both follow the same time server",
        ));
    }
}

/// The major version in what PostgreSQL says of itself.
fn major(said: &str) -> Option<u32> {
    let version = said.split(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn versions(database: &Database, answered: &BTreeMap<&HostName, &Seen>, remarks: &mut Vec<Remark>) {
    let mut of: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for instance in database.instances() {
        let Some(shown) = answered.get(&instance.host) else { continue };
        if let Some(major) = major(&shown.postgres) {
            of.entry(major).or_default().push(instance.host.as_str());
        }
    }
    if of.len() > 1 {
        let all: Vec<String> = of.iter().map(|(major, hosts)| format!("{major} on {}", hosts.join(", "))).collect();
        remarks.push(Remark::new(
            "ha-dr §6",
            format!("the copies of {} have different versions of PostgreSQL: {}", database.name, all.join("; ")),
            "install the same major version everywhere: a copy of another one cannot be fed",
        ));
    }
}

fn share(database: &Database, answered: &BTreeMap<&HostName, &Seen>, remarks: &mut Vec<Remark>) {
    const RULE: &str = "ha-dr §4, resource 5, and §9, R6";
    let Some(path) = database.log_shipping.as_ref().map(|l| &l.share) else { return };
    let mut fit: Vec<(&HostName, &ShareSeen)> = Vec::new();
    for instance in database.instances() {
        let host = &instance.host;
        let Some(shown) = answered.get(host).and_then(|s| s.shares.get(path)) else { continue };
        if shown.inside_host_folder {
            remarks.push(Remark::new(
                RULE,
                format!("the share {path} lies inside the folder in which {host} keeps its data"),
                "it would be lost with what it is to replace: take a folder elsewhere, best on another machine",
            ));
        }
        match &shown.fault {
            Some(fault) => remarks.push(Remark::new(
                RULE,
                format!("{host} cannot use the share {path}: {fault}"),
                if path.starts_with(BUCKET) {
                    "see s3.credentials in its folder, the endpoint, and what the key may do: list, read, write and delete"
                } else {
                    "mount it there, and let the account of PostgreSQL read and write it"
                },
            )),
            None => fit.push((host, shown)),
        }
    }
    for (host, shown) in &fit {
        let missing: Vec<&str> = fit
            .iter()
            .map(|(other, _)| *other)
            .filter(|o| o != host && !shown.sees.contains(*o))
            .map(HostName::as_str)
            .collect();
        if !missing.is_empty() {
            remarks.push(Remark::new(
                RULE,
                format!("{host} does not find in {path} what {} wrote there", missing.join(", ")),
                "mount the same folder on every database host of both sites",
            ));
        }
    }
}

/// What a topology that passes may still lack; nothing here keeps it from being published.
pub fn advice(topology: &Topology) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut say = |rule, why: String, hint: &str| remarks.push(Remark::new(rule, why, hint));
    if !topology.servers.iter().any(|s| s.active) {
        let why = "no server is active in state Normal: nobody is served until the list is set".into();
        say("ha-dr §14, H-3", why, "write active = true for at least one, or set the list by hand");
    }
    for database in &topology.databases {
        let name = &database.name;
        if database.mirror.is_none() {
            let why = format!("{name} has no mirror: the loss of {} stops the pool", database.primary.host);
            say("ha-dr §2", why, "add a mirror on a second host of its site");
        }
        let hasty = database.log_shipping.iter().flat_map(crate::topology::LogShipping::warnings);
        for (_, why) in hasty {
            say("ha-dr §13.1", format!("{name}: {why}"), "");
        }
        let Some(backup) = &database.backup else {
            if topology.sites.len() > 1 {
                let why = format!("{name} has no backup: the loss of the first site is the loss of the pool");
                say("ha-dr §2", why, "add a backup at the other site, and log_shipping");
            }
            continue;
        };
        if database.backup_mirror.is_none() {
            let why = format!("the backup of {name} has no mirror: after a failover the pool runs on one copy");
            say("ha-dr §4, resource 3", why, "add a backup_mirror beside it");
        }
        let site = topology.site_of(&backup.host);
        if !topology.servers.iter().any(|s| topology.site_of(&s.host) == site) {
            let site = site.map_or("", SiteName::as_str);
            let why = format!("there is no server at {site}: after a failover nobody would be served");
            say("ha-dr §3", why, "add servers beside the backup");
        }
    }
    for (a, b) in one_machine(topology) {
        let why = format!("{a} and {b} have the same address: are they one machine?");
        say("ha-dr §4", why, "a copy on the same machine is lost with the other");
    }
    remarks
}

/// Hosts with copies that share an address; loopback is somebody's rehearsal.
fn one_machine(topology: &Topology) -> Vec<(&HostName, &HostName)> {
    let address =
        |host: &HostName| topology.host(host).and_then(|h| h.agent.at.rsplit_once(':')).map(|(address, _)| address);
    let loopback = |a: &str| a.starts_with("127.") || a == "localhost" || a == "[::1]";
    let hosts: BTreeSet<&HostName> = topology.databases.iter().flat_map(Database::instances).map(|i| &i.host).collect();
    let hosts: Vec<&HostName> = hosts.into_iter().collect();
    let mut found = Vec::new();
    for (index, a) in hosts.iter().enumerate() {
        let rest = hosts.iter().skip(index + 1);
        let same = rest.filter(|b| address(a).is_some_and(|at| !loopback(at) && address(b) == Some(at)));
        found.extend(same.map(|b| (*a, *b)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: &str = "/srv/standfast/share";

    fn stretched() -> Topology {
        Topology::from_toml(include_str!("../../shell/tests/stretched.toml")).expect("the example passes")
    }

    /// Everybody answers, and all is well.
    fn well() -> BTreeMap<HostName, Result<Seen, String>> {
        let topology = stretched();
        let hosts: BTreeSet<HostName> = topology.hosts.iter().map(|h| h.name.clone()).collect();
        let share = ShareSeen { sees: hosts.clone(), ..ShareSeen::default() };
        let seen = Seen {
            postgres: "postgres (PostgreSQL) 16.4 (Debian 16.4-1)".into(),
            shares: [(SHARE.to_owned(), share)].into(),
            ..Seen::default()
        };
        hosts.into_iter().map(|h| (h, Ok(seen.clone()))).collect()
    }

    fn check(change: impl FnOnce(&mut BTreeMap<HostName, Result<Seen, String>>), expect: &[&str]) {
        let mut seen = well();
        change(&mut seen);
        let got: Vec<String> = judge(&stretched(), &seen, &BTreeSet::new()).into_iter().map(|r| r.why).collect();
        assert_eq!(got, expect);
    }

    fn of<'a>(seen: &'a mut BTreeMap<HostName, Result<Seen, String>>, host: &str) -> &'a mut Seen {
        seen.get_mut(&host.into()).and_then(|s| s.as_mut().ok()).expect("it is there")
    }

    fn share_of<'a>(seen: &'a mut BTreeMap<HostName, Result<Seen, String>>, host: &str) -> &'a mut ShareSeen {
        of(seen, host).shares.get_mut(SHARE).expect("it is there")
    }

    #[test]
    fn nothing_is_said_when_all_is_well() {
        check(|_| (), &[]);
    }

    #[test]
    fn a_silent_host_is_named_unless_its_site_is_lost() {
        let silent = |seen: &mut BTreeMap<HostName, Result<Seen, String>>| {
            seen.insert("s2b".into(), Err("connection refused".into()));
        };
        check(silent, &["the agent of s2b at 10.2.0.12:8012 does not answer: connection refused"]);
        let mut seen = well();
        silent(&mut seen);
        assert_eq!(judge(&stretched(), &seen, &["site-2".into()].into()), []);
    }

    #[test]
    fn a_cut_way_between_hosts_is_named() {
        check(
            |seen| {
                of(seen, "s2a").unreached.insert("s1a".into());
            },
            &["s2a does not reach the agent of s1a at 10.1.0.11:8012"],
        );
    }

    #[test]
    fn clocks_and_versions_agree() {
        check(|seen| of(seen, "s1b").clock_ms = 5_000, &[]);
        check(|seen| of(seen, "s1b").clock_ms = 5_100, &["the clock of s1b is 5.1 s ahead of that of s1a"]);
        check(|seen| of(seen, "s2b").postgres = "postgres (PostgreSQL) 16.1".into(), &[]);
        check(
            |seen| of(seen, "s2b").postgres = "postgres (PostgreSQL) 17beta1".into(),
            &["the copies of mgc have different versions of PostgreSQL: 16 on s1a, s1b, s2a; 17 on s2b"],
        );
    }

    #[test]
    fn the_share_is_one_folder_that_all_write() {
        check(
            |seen| share_of(seen, "s2a").fault = Some("permission denied".into()),
            &["s2a cannot use the share /srv/standfast/share: permission denied"],
        );
        check(
            |seen| {
                share_of(seen, "s2a").sees.remove(&"s1b".into());
            },
            &["s2a does not find in /srv/standfast/share what s1b wrote there"],
        );
        check(
            |seen| share_of(seen, "s1a").inside_host_folder = true,
            &["the share /srv/standfast/share lies inside the folder in which s1a keeps its data"],
        );
    }

    fn advised(change: impl FnOnce(&mut Topology), expect: &[&str]) {
        let mut topology = stretched();
        change(&mut topology);
        let got: Vec<&str> = advice(&topology).into_iter().map(|r| r.rule).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn what_may_be_missing_is_said() {
        advised(|_| (), &[]);
        advised(|t| t.servers.iter_mut().for_each(|s| s.active = false), &["ha-dr §14, H-3"]);
        advised(|t| t.databases[0].mirror = None, &["ha-dr §2"]);
        advised(|t| t.databases[0].backup_mirror = None, &["ha-dr §4, resource 3"]);
        advised(|t| t.servers.retain(|s| s.host.as_str().starts_with("s1")), &["ha-dr §3"]);
        advised(|t| t.hosts[1].agent.at = "10.1.0.11:8013".into(), &["ha-dr §4"]);
    }
}
