//! Alarms: what of the pool needs a person, told when it has lasted, and told again when it is over.

use super::{Event, Notice};
use crate::alert;
use crate::canary::{self, Missing};
use crate::name::{DatabaseName, HostName, ServerName, SiteName};
use crate::record::PoolRecord;
use crate::report::{Held, HostReport, InstanceReport, ServerReport};
use crate::runbook::Silence;
use crate::topology::Topology;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What lasts shorter is not told, in milliseconds.
pub const TOLD_AFTER_MS: i64 = 15_000;
/// What has been away for so long is over, in milliseconds.
pub const OVER_AFTER_MS: i64 = 30_000;
/// Notices of alarms that are kept: those of a day, and no more than these.
const KEPT: usize = 200;
/// Posts that wait for so long to be durable enough are told of, in milliseconds.
const HELD_TOLD_MS: u64 = 1_000;
/// A volume that is full sooner is an alarm, in seconds.
const FULL_IN_S: u64 = 24 * 3_600;

/// Something that needs a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The same as long as it is the same thing: `mgc 14420`, `host s1a`.
    pub key: String,
    /// What is so, in a sentence.
    pub says: String,
}

/// What a site's authority sees.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The published topology.
    pub topology: &'a Topology,
    /// The newest record.
    pub record: &'a PoolRecord,
    /// Reports of the hosts that answered.
    pub reports: &'a BTreeMap<HostName, HostReport>,
    /// Hosts that did not.
    pub silent: &'a BTreeMap<HostName, Silence>,
}

/// What needs a person, as the authority of `site` is to tell it: the home site's tells everything; the other one only that
/// the home site is gone, which that site cannot tell itself.
pub fn alarms(seen: &Sight<'_>, site: &SiteName) -> Vec<Alarm> {
    let Sight { topology, record, silent, .. } = *seen;
    if record.home != *site {
        let home = topology.site(&record.home).map(|s| &s.authority);
        let gone = home.filter(|host| silent.contains_key(*host));
        let says = |host: &HostName| {
            format!(
                "{host}, the authority of {}, where the pool is at home, does not answer {site}; see standfast pool status, and \
                 decide whether to fail over",
                record.home
            )
        };
        return gone.map(|host| Alarm { key: format!("home {}", record.home), says: says(host) }).into_iter().collect();
    }
    let mut found = Vec::new();
    for host in silent.keys() {
        let lost = topology.site_of(host).is_some_and(|s| record.lost_sites.contains_key(s));
        if !lost {
            found.push(Alarm { key: format!("host {host}"), says: format!("the agent of {host} does not answer") });
        }
    }
    let instance = |host: &HostName, name: &DatabaseName| seen.reports.get(host).and_then(|r| r.instances.get(name));
    for (name, alerts) in alert::all(topology, record, instance) {
        found.extend(alerts.into_iter().map(|a| Alarm { key: format!("{name} {}", a.number), says: a.to_string() }));
    }
    for late in canary::overdue(topology, record, seen.reports) {
        let key = match &late.missing {
            Missing::Written => format!("canary {}", late.server),
            Missing::HeardBy(by) => format!("canary {} at {by}", late.server),
            Missing::AppliedAt(name, host) => format!("canary {} at {host} {name}", late.server),
        };
        found.push(Alarm { key, says: late.to_string() });
    }
    for (server, held) in held(seen.reports.values()) {
        found.push(Alarm { key: format!("held {server}"), says: held });
    }
    for (name, database) in &record.databases {
        let mut add = |what: &str, says: String| found.push(Alarm { key: format!("{name} {what}"), says });
        if let Some(mirror) = database.mirror.as_ref().filter(|m| !m.synchronised && database.principal.is_some()) {
            add(
                "mirror",
                format!(
                    "{name} runs EXPOSED: its mirror on {} is not synchronised, and commits do not wait for it",
                    mirror.host
                ),
            );
        }
        let principal = database.principal.as_ref().and_then(|host| instance(host, name));
        if let Some(fault) = principal.and_then(|i| i.backup_job.as_ref()?.fault.as_ref()) {
            add("backup job", format!("{name}: {fault}"));
        }
        let backup = database.backup.as_ref().and_then(|host| instance(host, name));
        if let Some(fault) = backup.and_then(|i| i.shipping.as_ref()?.fault.as_ref()) {
            add("copy job", format!("{name}: {fault}"));
        }
        for (host, report) in seen.reports {
            let full = report.instances.get(name).and_then(|i: &InstanceReport| i.full_in_s).filter(|s| *s < FULL_IN_S);
            if let Some(s) = full {
                add(
                    &format!("disk {host}"),
                    format!("the disk of {name} on {host} is full in {} min at this rate", s / 60),
                );
            }
        }
    }
    found
}

/// Posts that wait to be as durable as their categories ask for, a sentence for each server that has some.
pub fn held<'a>(reports: impl IntoIterator<Item = &'a HostReport>) -> Vec<(&'a ServerName, String)> {
    let servers = reports.into_iter().flat_map(|report| &report.servers);
    let says = |(server, report): (&'a ServerName, &ServerReport)| {
        let Held { mirror, both_sites, oldest_ms, reason } = &report.held;
        let posts = mirror + both_sites;
        (posts > 0 && *oldest_ms >= HELD_TOLD_MS && report.age_ms < 3_000).then(|| {
            let says = format!(
                "{posts} posts at {server} are not acknowledged, the oldest for {} s: {reason}, as their categories ask for \
                 (standfast category change --when-unavailable acknowledge-as-less lets them go)",
                oldest_ms / 1000
            );
            (server, says)
        })
    };
    servers.filter_map(says).collect()
}

/// What stands, what was told of it, and what is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// What stands, by key.
    pub standing: BTreeMap<String, Standing>,
    /// What there is to tell of alarms, oldest first.
    pub notices: Vec<Notice>,
}

/// An alarm that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When it was seen last.
    pub seen_ms: i64,
    /// What is so.
    pub says: String,
    /// It has been told.
    pub told: bool,
}

impl Book {
    /// Take a look into account. Tells whether there is anything new to be kept.
    pub fn note(&mut self, pool: &str, alarms: &[Alarm], now_ms: i64) -> bool {
        let mut changed = false;
        for alarm in alarms {
            let begun = Standing { since_ms: now_ms, seen_ms: now_ms, says: alarm.says.clone(), told: false };
            let standing = self.standing.entry(alarm.key.clone()).or_insert(begun);
            standing.seen_ms = now_ms;
            standing.says.clone_from(&alarm.says);
            if !standing.told && now_ms.saturating_sub(standing.since_ms) >= TOLD_AFTER_MS {
                standing.told = true;
                changed = true;
                let id = format!("alert/{}/{}", alarm.key.replace(' ', "-"), standing.since_ms);
                self.notices.push(notice(id, now_ms, format!("{pool}: {}", alarm.says)));
            }
        }
        let over =
            |s: &Standing| now_ms.saturating_sub(s.seen_ms) >= if s.told { OVER_AFTER_MS } else { TOLD_AFTER_MS };
        let gone: Vec<String> = self.standing.iter().filter(|(_, s)| over(s)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            let Some(standing) = self.standing.remove(&key).filter(|s| s.told) else { continue };
            changed = true;
            let id = format!("alert/{}/{}/over", key.replace(' ', "-"), standing.since_ms);
            self.notices.push(notice(id, now_ms, format!("{pool}: OVER: {}", standing.says)));
        }
        let too_many = self.notices.len().saturating_sub(KEPT);
        self.notices.drain(..too_many);
        let before = self.notices.len();
        self.notices.retain(|n| now_ms.saturating_sub(n.at_ms) <= super::delivery::NEWS_MS);
        changed || before != self.notices.len()
    }
}

fn notice(id: String, at_ms: i64, says: String) -> Notice {
    Notice { id, event: Event::Alert, at_ms, run: None, says, details: vec!["standfast pool status".into()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(book: &Book) -> Vec<&str> {
        book.notices.iter().map(|n| n.says.as_str()).collect()
    }

    #[test]
    fn what_lasts_is_told_once_and_so_is_its_end() {
        let alarm = |says: &str| [Alarm { key: "mgc share".into(), says: says.into() }];
        let mut book = Book::default();
        assert!(!book.note("pool", &alarm("it is full"), 0));
        assert!(!book.note("pool", &alarm("it is full"), 14_999));
        assert!(book.note("pool", &alarm("it is full"), 15_000));
        assert!(!book.note("pool", &alarm("it is very full"), 90_000));
        assert!(!book.note("pool", &[], 119_999), "it may come back");
        assert!(book.note("pool", &[], 120_000));
        assert_eq!(says(&book), ["pool: it is full", "pool: OVER: it is very full"]);
        let ids: Vec<&str> = book.notices.iter().map(|n| n.id.as_str()).collect();
        assert_eq!(ids, ["alert/mgc-share/0", "alert/mgc-share/0/over"]);
    }

    #[test]
    fn what_is_short_is_not_told() {
        let mut book = Book::default();
        for n in 0..20 {
            let now = n * 20_000;
            assert!(!book.note("pool", &[Alarm { key: "host s1a".into(), says: "silent".into() }], now));
            assert!(!book.note("pool", &[], now + 15_000));
        }
        assert!(says(&book).is_empty() && book.standing.is_empty());
    }

    const VARIANT_B: &str = include_str!("../../../../samples/topologies/variant-b.toml");

    #[test]
    fn the_home_site_tells_everything_and_the_other_one_that_home_is_gone() {
        let topology = Topology::from_toml(VARIANT_B).unwrap();
        let mgc = crate::record::DatabaseRecord {
            principal: Some("s1a".into()),
            mirror: Some(crate::record::MirrorRecord { host: "s1b".into(), synchronised: false }),
            ..Default::default()
        };
        let record = PoolRecord {
            version: 1,
            epoch: rules::id::Epoch(1),
            state: crate::record::PoolState::Normal,
            home: "site-1".into(),
            active_servers: Vec::new(),
            databases: [("mgc".into(), mgc)].into(),
            lost_sites: BTreeMap::new(),
            run: None,
        };
        let check = |silent: &[&str], site: &str, expect: &[&str]| {
            let silent = silent.iter().map(|h| ((*h).into(), Silence::Refused)).collect();
            let seen = Sight { topology: &topology, record: &record, reports: &BTreeMap::new(), silent: &silent };
            let keys: Vec<String> = alarms(&seen, &site.into()).into_iter().map(|a| a.key).collect();
            assert_eq!(keys, expect, "{site}");
        };
        let report = |oldest_ms| {
            let held = Held { both_sites: 3, oldest_ms, reason: "waiting for site-2".into(), ..Held::default() };
            let server = ServerReport { held, ..ServerReport::default() };
            HostReport { servers: [("c1".into(), server)].into(), ..HostReport::empty("s1a".into(), "site-1".into()) }
        };
        assert!(held([&report(900)]).is_empty());
        let says = held([&report(61_000)]).remove(0).1;
        assert!(
            says.starts_with("3 posts at c1 are not acknowledged, the oldest for 61 s: waiting for site-2,"),
            "{says}"
        );
        check(&["s2b"], "site-1", &["host s2b", "mgc mirror"]);
        check(&["s2b", "s1b"], "site-2", &[]);
        check(&["s1a"], "site-2", &["home site-1"]);
    }
}
