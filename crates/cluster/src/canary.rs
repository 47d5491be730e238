//! The canary: a small write that every active server does all the time, and that everybody else has to see.
//!
//! Whoever is to see something counts from the moment in which it was to be expected, so that what never comes is late like what
//! has stopped coming. Ages are each watcher's own steady clock; only the lag at a standby rests on two hosts' clocks.

use crate::name::{DatabaseName, HostName, ServerName};
use crate::record::PoolRecord;
use crate::report::HostReport;
use crate::shipping_settings::{LogShipping, Span};
use crate::topology::Topology;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The `[canary]` of a topology.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// How often each active server writes one.
    #[serde(default)]
    pub every: Every,
}

/// How often, or never: `"10s"`, `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Every(pub Option<Span>);

impl Every {
    /// The shortest that is taken.
    pub const MIN: Span = Span::ms(1_000);
    /// The longest that is taken.
    pub const MAX: Span = Span::minutes(60);
}

impl Default for Every {
    /// Often enough to be told within a minute, and two small transactions a minute beside the pool's own.
    fn default() -> Self {
        Self(Some(Span::ms(10_000)))
    }
}

impl TryFrom<String> for Every {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        Span::try_from(text).map(|span| Self(Some(span))).map_err(|e| format!("{e}, or \"off\""))
    }
}

impl From<Every> for String {
    fn from(every: Every) -> String {
        every.to_string()
    }
}

impl std::fmt::Display for Every {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(span) => span.fmt(f),
            None => f.write_str("off"),
        }
    }
}

/// Time beyond three intervals after which a canary is late, in milliseconds: a change of writer takes less.
const GRACE_MS: u64 = 5_000;

/// What an active server tells of canaries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerCanaries {
    /// Milliseconds since its own was last durable, or since it was to write one.
    pub age_ms: u64,
    /// How long that took, in milliseconds, its turn in the chat path included; `None` before the first.
    pub took_ms: Option<u64>,
    /// Milliseconds since each other active server's was last heard over the link, or was to be expected.
    pub heard_ms: BTreeMap<ServerName, u64>,
    /// From the beginning of its own last one until that server had heard of it and said so, in milliseconds.
    pub echo_ms: BTreeMap<ServerName, u64>,
}

/// A server's canary as it is applied in a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedCanary {
    /// Milliseconds since a newer one was last seen there, or was to be expected.
    pub age_ms: u64,
    /// From its write to the look that saw it applied, in milliseconds, by the clocks of both hosts; `None` before the first.
    pub lag_ms: Option<u64>,
}

/// Who lacks a canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// The server itself: it could not write it.
    Written,
    /// Another server.
    HeardBy(ServerName),
    /// A standby.
    AppliedAt(DatabaseName, HostName),
}

/// A canary that is overdue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overdue {
    /// Whose.
    pub server: ServerName,
    /// Where it lacks.
    pub missing: Missing,
    /// Since when, in milliseconds.
    pub age_ms: u64,
}

impl std::fmt::Display for Overdue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Overdue { server, age_ms, .. } = self;
        let s = age_ms / 1000;
        match &self.missing {
            Missing::Written => write!(
                f,
                "{server} has written no canary for {s} s: what its clients post waits too; see its log and the principal's"
            ),
            Missing::HeardBy(by) => write!(
                f,
                "{by} has heard no canary of {server} for {s} s: the link between them is down, or {server} writes none; \
                 meanwhile {by} finds new posts by reading"
            ),
            Missing::AppliedAt(database, host) => write!(
                f,
                "no canary of {server} was applied to {database} on {host} for {s} s: a failover would lose that time; see \
                 standfast log-shipping state"
            ),
        }
    }
}

/// Every canary that is overdue, from what hosts report. A host or server that does not report is somebody else's alarm.
pub fn overdue(topology: &Topology, record: &PoolRecord, reports: &BTreeMap<HostName, HostReport>) -> Vec<Overdue> {
    let Some(every) = topology.canary.every.0 else { return Vec::new() };
    let limit = every.ms.saturating_mul(3).saturating_add(GRACE_MS);
    let mut found = Vec::new();
    let said = |name: &ServerName| reports.values().find_map(|r| r.servers.get(name)?.canaries.as_ref());
    for server in &record.active_servers {
        let Some(own) = said(server) else { continue };
        if own.age_ms > limit {
            let missing = Missing::Written;
            found.push(Overdue { server: server.clone(), missing, age_ms: own.age_ms });
            // Nobody else can have seen it: one alarm is enough.
            continue;
        }
        for other in &record.active_servers {
            let heard = said(other).and_then(|o| o.heard_ms.get(server)).filter(|age| **age > limit);
            let missing = Missing::HeardBy(other.clone());
            found.extend(heard.map(|age| Overdue { server: server.clone(), missing, age_ms: *age }));
        }
        for (name, database) in &record.databases {
            let held = topology.database(name).and_then(|d| d.log_shipping.as_ref()).map_or(0, LogShipping::held_ms);
            for host in database.backup.iter().chain(&database.backup_mirror) {
                let instance = reports.get(host).and_then(|r| r.instances.get(name));
                let applied = instance.and_then(|i| i.canaries.get(server)).filter(|a| a.age_ms > limit + held);
                let missing = Missing::AppliedAt(name.clone(), host.clone());
                found.extend(applied.map(|a| Overdue { server: server.clone(), missing, age_ms: a.age_ms }));
            }
        }
    }
    found
}

/// What was last seen of each that is expected, for a watcher with a clock of its own.
#[derive(Clone, Debug)]
pub struct Expected<K, T> {
    seen: BTreeMap<K, (u64, Option<T>)>,
}

impl<K, T> Default for Expected<K, T> {
    fn default() -> Self {
        Self { seen: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, T> Expected<K, T> {
    /// These are expected from now on, those that were before included; others are forgotten.
    pub fn expect(&mut self, keys: impl IntoIterator<Item = K>, now_ms: u64) {
        let mut before = std::mem::take(&mut self.seen);
        self.seen = keys
            .into_iter()
            .map(|k| {
                let seen = before.remove(&k).unwrap_or((now_ms, None));
                (k, seen)
            })
            .collect();
    }

    /// One was seen; nothing where it is not expected.
    pub fn see(&mut self, key: &K, what: T, now_ms: u64) {
        if let Some(seen) = self.seen.get_mut(key) {
            *seen = (now_ms, Some(what));
        }
    }

    /// What was last seen of one.
    pub fn last(&self, key: &K) -> Option<&T> {
        self.seen.get(key)?.1.as_ref()
    }

    /// Each with its age in milliseconds, and what was last seen of it.
    pub fn ages(&self, now_ms: u64) -> impl Iterator<Item = (&K, u64, Option<&T>)> {
        self.seen.iter().map(move |(key, (at, what))| (key, now_ms.saturating_sub(*at), what.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{InstanceReport, InstanceState, ServerReport};

    const STRETCHED: &str = include_str!("../../shell/tests/stretched.toml");

    struct Pool {
        topology: Topology,
        record: PoolRecord,
        reports: BTreeMap<HostName, HostReport>,
    }

    /// Two active servers, each heard by the other, and their canaries applied at the backup, all a second ago.
    fn pool() -> Pool {
        let topology = Topology::from_toml(STRETCHED).expect("the topology passes");
        let mut record = PoolRecord {
            version: 1,
            epoch: rules::id::Epoch::FIRST,
            state: crate::record::PoolState::Normal,
            home: topology.sites[0].name.clone(),
            active_servers: Vec::new(),
            databases: [("mgc".into(), crate::record::DatabaseRecord::default())].into(),
            lost_sites: BTreeMap::new(),
            run: None,
        };
        let active: Vec<ServerName> = topology.servers.iter().take(2).map(|s| s.name.clone()).collect();
        record.active_servers.clone_from(&active);
        let mut reports = BTreeMap::new();
        for host in &topology.hosts {
            reports.insert(host.name.clone(), HostReport::empty(host.name.clone(), host.site.clone()));
        }
        for (own, other) in [(0, 1), (1, 0)] {
            let canaries = ServerCanaries {
                age_ms: 1_000,
                heard_ms: [(active[other].clone(), 1_000)].into(),
                ..ServerCanaries::default()
            };
            let report = ServerReport { canaries: Some(canaries), ..ServerReport::default() };
            let host = &topology.server(&active[own]).expect("it is there").host;
            reports.get_mut(host).expect("it reports").servers.insert(active[own].clone(), report);
        }
        let mut backup = InstanceReport::unmeasured(InstanceState::Standby);
        backup.canaries =
            active.iter().map(|s| (s.clone(), AppliedCanary { age_ms: 1_000, lag_ms: Some(3) })).collect();
        record.databases.get_mut(&"mgc".into()).expect("it is there").backup = Some("s2a".into());
        reports.get_mut(&"s2a".into()).expect("it reports").instances.insert("mgc".into(), backup);
        Pool { topology, record, reports }
    }

    fn check(change: impl FnOnce(&mut Pool, &[ServerName]), expect: &[&str]) {
        let mut pool = pool();
        let active = pool.record.active_servers.clone();
        change(&mut pool, &active);
        let said: Vec<String> =
            overdue(&pool.topology, &pool.record, &pool.reports).iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), expect.len(), "{said:#?}");
        for (said, expect) in said.iter().zip(expect) {
            assert!(said.starts_with(expect), "{said}");
        }
    }

    fn of<'a>(pool: &'a mut Pool, server: &ServerName) -> &'a mut ServerCanaries {
        let reports = pool.reports.values_mut();
        let report = reports.flat_map(|r| r.servers.iter_mut()).find(|(name, _)| *name == server);
        report.and_then(|(_, r)| r.canaries.as_mut()).expect("it reports")
    }

    #[test]
    fn whoever_lacks_a_canary_for_three_times_its_interval_is_named() {
        check(|_, _| {}, &[]);
        check(|pool, s| of(pool, &s[0]).age_ms = 35_000, &[]);
        check(|pool, s| of(pool, &s[0]).age_ms = 36_000, &["server-1 has written no canary for 36 s"]);
        check(
            |pool, s| {
                of(pool, &s[1]).heard_ms.insert(s[0].clone(), 40_000);
            },
            &["server-2 has heard no canary of server-1 for 40 s"],
        );
        let late = |pool: &mut Pool, s: &[ServerName]| {
            let instance = pool.reports.get_mut(&"s2a".into()).and_then(|r| r.instances.get_mut(&"mgc".into()));
            instance.expect("it reports").canaries.get_mut(&s[1]).expect("it is expected").age_ms = 100_000;
        };
        check(late, &["no canary of server-2 was applied to mgc on s2a for 100 s"]);
        check(
            |pool, s| {
                late(pool, s);
                let database = pool.topology.databases.first_mut().expect("it is there");
                database.log_shipping.as_mut().expect("it ships").restore_delay = Span::minutes(2);
            },
            &[],
        );
        check(
            |pool, s| {
                late(pool, s);
                let database = pool.topology.databases.first_mut().expect("it is there");
                database.log_shipping.as_mut().expect("it ships").restore_every = Span::minutes(2);
            },
            &[],
        );
        check(
            |pool, s| {
                of(pool, &s[0]).age_ms = 100_000;
                pool.topology.canary.every = Every(None);
            },
            &[],
        );
    }

    #[test]
    fn what_is_expected_is_late_from_the_moment_it_was_expected() {
        let mut expected: Expected<&str, u64> = Expected::default();
        expected.expect(["a", "b"], 100);
        expected.see(&"a", 7, 150);
        expected.see(&"c", 7, 150);
        expected.expect(["a", "b"], 200);
        let ages: Vec<_> = expected.ages(250).map(|(k, age, what)| (*k, age, what.copied())).collect();
        assert_eq!(ages, [("a", 100, Some(7)), ("b", 150, None)]);
        expected.expect(["b"], 300);
        assert_eq!(expected.last(&"a"), None);
    }

    #[test]
    fn off_and_a_span_are_written_as_they_are_read() {
        for text in ["off", "10s", "500ms"] {
            let every = Every::try_from(text.to_owned()).expect("it is one");
            assert_eq!(String::from(every), text);
        }
        assert!(Every::try_from("often".to_owned()).expect_err("it is none").contains("\"off\""));
    }
}
