//! Would a run begin right now, and what would make it worse than it has to be? Judged from reports alone; nothing is
//! ordered. For `standfast preflight`, which runs from cron.

use crate::name::{DatabaseName, HostName, SiteName};
use crate::record::PoolState;
use crate::report::InstanceState;
use crate::runbook::{Runbook, Unmet, View};
use serde::{Deserialize, Serialize};

/// A backup that is further behind than this, in milliseconds, is warned of: log shipping to the stream takes milliseconds.
pub const BEHIND_MAX_MS: u64 = 10_000;
/// A share that was last in order longer ago than this, in milliseconds, is warned of.
pub const SHARE_AGE_MAX_MS: u64 = 60_000;
/// A volume that is full sooner than this, in seconds, is warned of: a day.
pub const FULL_IN_MIN_S: u64 = 86_400;
/// A volume with less free than this is warned of: 1 GiB.
pub const FREE_MIN_BYTES: u64 = 1 << 30;
/// A server that was last heard longer ago than this, in milliseconds, counts as not running.
const SERVER_AGE_MAX_MS: u64 = 3_000;
/// A runbook that was last carried out to its end longer ago than this, in seconds, is warned of: 90 days.
pub const SUCCESS_AGE_MAX_S: u64 = 90 * 86_400;

/// What is looked at, by the names that the metrics carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Hosts and authorities that the run needs answer.
    Hosts,
    /// The principal's mirror is synchronised.
    Mirror,
    /// The backup is fed and near the principal.
    LogShipping,
    /// The share is in order, written and read.
    Share,
    /// The backup's warm mirror follows.
    WarmMirror,
    /// Disks have room.
    Disk,
    /// Servers run where the users would go.
    Servers,
    /// The runbook was carried out to its end not too long ago.
    Practice,
}

impl Check {
    /// Every check.
    pub const ALL: [Check; 8] = [
        Check::Hosts,
        Check::Mirror,
        Check::LogShipping,
        Check::Share,
        Check::WarmMirror,
        Check::Disk,
        Check::Servers,
        Check::Practice,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Check::Hosts => "hosts",
            Check::Mirror => "mirror",
            Check::LogShipping => "log-shipping",
            Check::Share => "share",
            Check::WarmMirror => "warm-mirror",
            Check::Disk => "disk",
            Check::Servers => "servers",
            Check::Practice => "practice",
        }
    }
}

/// Something that does not stop the run and makes it worse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What was looked at.
    pub check: Check,
    /// What was seen.
    pub says: String,
    /// What a person can do.
    pub hint: String,
}

/// How ready the pool is for a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Set when there is nothing to do: the pool is where the runbook leads.
    pub already: Option<String>,
    /// What would be refused.
    pub refused: Vec<Unmet>,
    /// What would make it worse.
    pub warnings: Vec<Warning>,
}

/// Judge a failover or a failback. `success_s_ago` is when the runbook was last carried out to its end, in seconds.
///
/// That the other site lives does not count against a failover here: it is asked while all is well.
pub fn judge(runbook: &Runbook, view: &View<'_>, success_s_ago: Option<u64>) -> Readiness {
    let mut judged = Readiness::default();
    if let Some(run) = &view.record.run {
        judged.refused.push(Unmet {
            why: format!("{} is under way, begun by {} at {}", run.runbook, run.started_by, run.started_at),
            hint: "standfast runbook watch shows how far it is".into(),
            can_be_forced: false,
        });
    }
    match (runbook.name, view.record.state) {
        ("failover" | "planned-failover", PoolState::FailedOver) => judged.refused.push(Unmet {
            why: format!("the pool is FailedOver: {} serves, and there is no site left to go to", view.record.home),
            hint: "bring the other site back, then standfast failback".into(),
            can_be_forced: false,
        }),
        ("failback", PoolState::Normal) => {
            judged.already =
                Some(format!("the pool is Normal: {} serves; nothing is to be failed back", view.record.home));
        }
        _ => judged.refused.extend((runbook.preflight)(view).into_iter().filter(|unmet| !unmet.can_be_forced)),
    }
    if judged.already.is_none() {
        let mut look = Look { view, warnings: &mut judged.warnings };
        look.hosts();
        look.databases(runbook.name != "failback");
        look.disks();
        look.servers();
        look.practice(runbook.name, success_s_ago);
    }
    judged
}

struct Look<'a, 'v> {
    view: &'a View<'v>,
    warnings: &'a mut Vec<Warning>,
}

impl Look<'_, '_> {
    fn warn(&mut self, check: Check, says: String, hint: impl Into<String>) {
        self.warnings.push(Warning { check, says, hint: hint.into() });
    }

    fn hosts(&mut self) {
        let to = &self.view.facts.to_site;
        let silent: Vec<(HostName, SiteName)> = self
            .view
            .topology
            .hosts
            .iter()
            .filter(|h| h.site == *to && !self.view.reports.contains_key(&h.name))
            .map(|h| (h.name.clone(), h.site.clone()))
            .collect();
        for (host, site) in silent {
            let authority = self.view.topology.site(&site).is_some_and(|s| s.authority == host);
            let role = if authority { ", the authority, which would carry the run" } else { "" };
            let how = self.view.silence(&host);
            self.warn(
                Check::Hosts,
                format!("{host} at {site}{role} does not answer ({how})"),
                format!("start the agent on {host}"),
            );
        }
    }

    fn databases(&mut self, failover: bool) {
        for (name, d) in &self.view.record.databases {
            match &d.mirror {
                Some(m) if m.synchronised => {}
                Some(m) => self.warn(
                    Check::Mirror,
                    format!("{name}: the mirror {} is not synchronised: the principal runs exposed", m.host),
                    "standfast mirror state; see that its host runs and is reached",
                ),
                None => {
                    self.warn(
                        Check::Mirror,
                        format!("{name}: the principal has no mirror"),
                        "standfast mirror install",
                    );
                }
            }
            if !failover {
                continue;
            }
            if d.shipping_off {
                self.warn(
                    Check::LogShipping,
                    format!("{name}: log shipping is turned off"),
                    "standfast log-shipping enable",
                );
                continue;
            }
            if let Some(backup) = &d.backup {
                self.backup(name, backup, d.principal.as_ref());
            }
            match &d.backup_mirror {
                None => self.warn(
                    Check::WarmMirror,
                    format!("{name}: the backup has no warm mirror: after a failover the principal would run exposed"),
                    "standfast mirror install --backup",
                ),
                Some(host) => {
                    let follows = self.view.instance(host, name).and_then(|i| i.shipping.as_ref());
                    if !follows.is_some_and(|s| s.streaming) {
                        let says = format!("{name}: the backup's mirror {host} does not follow it");
                        self.warn(Check::WarmMirror, says, format!("standfast pool status; start the agent on {host}"));
                    }
                }
            }
        }
    }

    fn backup(&mut self, name: &DatabaseName, host: &HostName, principal: Option<&HostName>) {
        let status = "standfast log-shipping state; standfast pool status";
        if let Some(shipping) = self.view.instance(host, name).and_then(|i| i.shipping.as_ref()) {
            if !shipping.enabled {
                self.warn(Check::LogShipping, format!("{name}: the jobs on {host} are stopped"), status);
            } else if !shipping.streaming {
                let says = format!("{name}: {host} does not stream; what it lacks is what the files lack");
                self.warn(Check::LogShipping, says, status);
            }
            if let Some(fault) = &shipping.fault {
                self.warn(
                    Check::Share,
                    format!("{name}: {host}: {fault}"),
                    "mend the share; the stream goes on without it",
                );
            } else if shipping.share_age_ms.is_none_or(|age| age > SHARE_AGE_MAX_MS) {
                let says = format!("{name}: {host} has not found the share in order for a while");
                self.warn(Check::Share, says, "see that the share is mounted and readable there");
            }
            if let Some(hole) = &shipping.hole {
                let says = format!("{name}: the share lacks {} and has {} later files", hole.file, hole.later_files);
                self.warn(Check::Share, says, status);
            }
        }
        let job = principal.and_then(|p| self.view.instance(p, name)).and_then(|i| i.backup_job.as_ref());
        if let Some(fault) = job.and_then(|j| j.fault.as_ref()) {
            let says = format!("{name}: the principal cannot write to the share: {fault}");
            self.warn(Check::Share, says, "see that the share is mounted and writable, and has room");
        }
        match self.view.facts.exposure.get(name).and_then(|e| e.behind_ms) {
            None => self.warn(
                Check::LogShipping,
                format!("{name}: how far the backup is behind is not known"),
                "see that the backup's site reaches the principal's agent",
            ),
            Some(behind) if behind > BEHIND_MAX_MS => {
                let says = format!("{name}: the backup is {} s behind", behind / 1000);
                self.warn(Check::LogShipping, says, status);
            }
            Some(_) => {}
        }
    }

    fn disks(&mut self) {
        for (host, report) in self.view.reports {
            for (name, instance) in report.instances.iter().filter(|(_, i)| i.state != InstanceState::Absent) {
                let free = instance.free_bytes >> 20;
                if let Some(s) = instance.full_in_s.filter(|s| *s < FULL_IN_MIN_S) {
                    let says = format!("{host}: the disk of {name} is full in {} h ({free} MiB free)", s / 3600);
                    self.warn(Check::Disk, says, "make room, or see what writes so much");
                } else if instance.free_bytes < FREE_MIN_BYTES {
                    let says = format!("{host}: the disk of {name} has {free} MiB free");
                    self.warn(Check::Disk, says, "make room");
                }
            }
        }
    }

    fn servers(&mut self) {
        let to = &self.view.facts.to_site;
        let topology = self.view.topology;
        let wanted: Vec<_> = topology.servers.iter().filter(|s| topology.site_of(&s.host) == Some(to)).collect();
        let heard = |server: &crate::topology::Server| {
            let said = self.view.reports.get(&server.host).and_then(|r| r.servers.get(&server.name));
            said.is_some_and(|s| s.age_ms < SERVER_AGE_MAX_MS)
        };
        let missing: Vec<String> = wanted.iter().filter(|s| !heard(s)).map(|s| s.name.to_string()).collect();
        if wanted.is_empty() {
            let says = format!("there is no chat server at {to}: the users would have nowhere to go");
            self.warn(Check::Servers, says, "add [[server]]s there to the topology and publish it");
        } else if !missing.is_empty() {
            let says =
                format!("at {to}, {} of {} servers do not run: {}", missing.len(), wanted.len(), missing.join(", "));
            self.warn(Check::Servers, says, "start them: standfast serve");
        }
    }

    fn practice(&mut self, runbook: &str, success_s_ago: Option<u64>) {
        let says = match success_s_ago {
            None => format!("no {runbook} has ever been carried out to its end here"),
            Some(s) if s > SUCCESS_AGE_MAX_S => {
                format!("the last {runbook} that was carried out to its end is {} days ago", s / 86_400)
            }
            Some(_) => return,
        };
        self.warn(Check::Practice, says, "plan a drill: what is never done is not known to work");
    }
}

#[cfg(test)]
mod tests;
