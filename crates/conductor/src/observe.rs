//! Looking at all hosts: fresh for a step, and all the time for the exposure.

use crate::Conductor;
use crate::agents::{Agents, REPORT};
use cluster::Epoch;
use cluster::alert::{self, Alert};
use cluster::canary;
use cluster::exposure::{History, Sample};
use cluster::name::{DatabaseName, HostName, SiteName};
use cluster::notify::alarm::{Alarm, Sight, alarms};
use cluster::record::PoolRecord;
use cluster::report::HostReport;
use cluster::runbook::{Exposure, Silence};
use cluster::topology::Topology;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Time between two looks from the site that is not home: what a failover would lose is known there.
const ROUND_AWAY: Duration = Duration::from_millis(200);
/// The same from the home site, where only a run wants to know who is silent.
const ROUND_HOME: Duration = Duration::from_secs(1);

/// One look at the pool.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Reports of hosts that answered.
    pub reports: BTreeMap<HostName, HostReport>,
    /// Hosts that did not.
    pub silent: BTreeMap<HostName, Silence>,
}

impl Look {
    /// The newest record that anybody has.
    pub fn newest_record(&self) -> Option<PoolRecord> {
        let records = self.reports.values().filter_map(|r| r.record.as_ref());
        records
            .fold(None, |best: Option<&PoolRecord>, r| match best {
                Some(best) if !r.supersedes(best) => Some(best),
                _ => Some(r),
            })
            .cloned()
    }
}

/// What was seen lately.
#[derive(Default)]
pub struct Observer(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    silent: BTreeMap<HostName, Silence>,
    heard: BTreeSet<HostName>,
    alerts: BTreeMap<DatabaseName, Vec<Alert>>,
    alarms: Vec<Alarm>,
    overdue_canaries: usize,
    histories: BTreeMap<DatabaseName, History>,
    epoch: Option<Epoch>,
    began: Option<Instant>,
}

impl Observer {
    fn with<T>(&self, f: impl FnOnce(&mut Seen) -> T) -> T {
        f(&mut self.0.lock().expect("nothing panics while it holds what was seen"))
    }

    /// Hosts that did not answer the last round.
    pub fn silent(&self) -> BTreeMap<HostName, Silence> {
        self.with(|s| s.silent.clone())
    }

    /// A host was just found silent: looks of a run pass over it until the next round.
    pub fn found_silent(&self, host: &HostName, silence: Silence) {
        self.with(|s| s.silent.insert(host.clone(), silence));
    }

    /// Hosts that answered the last round.
    pub fn heard(&self) -> BTreeSet<HostName> {
        self.with(|s| s.heard.clone())
    }

    /// The log-shipping alerts that stood in the last round.
    pub fn alerts(&self) -> BTreeMap<DatabaseName, Vec<Alert>> {
        self.with(|s| s.alerts.clone())
    }

    /// Canaries that were overdue in the last round.
    pub fn overdue_canaries(&self) -> usize {
        self.with(|s| s.overdue_canaries)
    }

    /// What needed a person in the last round, as this site's authority is to tell it.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.with(|s| s.alarms.clone())
    }

    /// What each database stands to lose now, as far as is known here.
    pub fn exposure(&self) -> BTreeMap<DatabaseName, Exposure> {
        self.with(|s| {
            let now = s.began.map_or(0, |at| at.elapsed().as_millis() as u64);
            s.histories.iter().map(|(name, history)| (name.clone(), history.exposure(now))).collect()
        })
    }

    /// Take a look at everybody into account, as it is seen from `site`.
    pub fn note(&self, look: &Look, topology: &Topology, site: &SiteName) {
        self.with(|s| {
            s.silent = look.silent.clone();
            s.heard = look.reports.keys().cloned().collect();
            let Some(record) = look.newest_record() else { return };
            s.alerts = alert::all(topology, &record, |host, name| look.reports.get(host)?.instances.get(name));
            let sight = Sight { topology, record: &record, reports: &look.reports, silent: &look.silent };
            s.overdue_canaries = canary::overdue(topology, &record, &look.reports).len();
            s.alarms = alarms(&sight, site);
            let began = *s.began.get_or_insert_with(Instant::now);
            if s.epoch != Some(record.epoch) && record.databases.values().any(|d| d.principal.is_some()) {
                s.epoch = Some(record.epoch);
                s.histories.clear();
            }
            for (name, d) in &record.databases {
                let seen = |host: &Option<HostName>| {
                    let instance = look.reports.get(host.as_ref()?)?.instances.get(name)?;
                    Some((instance.written?, instance.entries))
                };
                if d.principal.is_some() && d.backup.is_some() {
                    let at_ms = began.elapsed().as_millis() as u64;
                    let sample = Sample { at_ms, principal: seen(&d.principal), backup: seen(&d.backup) };
                    s.histories.entry(name.clone()).or_default().add(sample);
                }
            }
        });
    }
}

/// Ask these hosts for fresh reports, all at once, and wait no longer than `limit` for any.
pub async fn ask(
    agents: &Agents,
    topology: &Topology,
    hosts: impl IntoIterator<Item = HostName>,
    limit: Duration,
) -> Look {
    let mut asked = JoinSet::new();
    for host in hosts {
        let (agents, topology) = (agents.clone(), topology.clone());
        asked.spawn(async move {
            let report = agents.report(&topology, &host, limit).await;
            (host, report)
        });
    }
    let mut look = Look::default();
    while let Some(Ok((host, report))) = asked.join_next().await {
        match report {
            Ok(report) => {
                look.reports.insert(host, report);
            }
            Err(silence) => {
                look.silent.insert(host, silence);
            }
        }
    }
    look
}

/// Every host of a topology.
pub fn all_hosts(topology: &Topology) -> BTreeSet<HostName> {
    topology.hosts.iter().map(|h| h.name.clone()).collect()
}

/// Look at everybody, for as long as the process lives.
pub async fn watch(conductor: Arc<Conductor>) {
    loop {
        let mut at_home = false;
        if let Ok(topology) = conductor.agents.topology() {
            let look = ask(&conductor.agents, &topology, all_hosts(&topology), REPORT).await;
            at_home = look.newest_record().is_some_and(|r| r.home == conductor.agents.site);
            conductor.observer.note(&look, &topology, &conductor.agents.site);
            conductor.notifier.note(&look, &topology, &conductor);
        }
        tokio::time::sleep(if at_home { ROUND_HOME } else { ROUND_AWAY }).await;
    }
}
