//! The log-shipping alerts 14420 and 14421 (ha-dr §13.1), and the ages that they are raised on.

use crate::name::{DatabaseName, HostName};
use crate::record::PoolRecord;
use crate::report::{BackupReport, InstanceReport, ShippingReport};
use crate::shipping_settings::LogShipping;
use crate::topology::Topology;
use crate::wal::Lsn;
use serde::Serialize;
use std::collections::BTreeMap;

/// The backup job is late.
pub const BACKUP_LATE: u32 = 14_420;
/// The restore job is late.
pub const RESTORE_LATE: u32 = 14_421;
/// The severity of both.
pub const SEVERITY: u32 = 16;

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// Its number.
    pub number: u32,
    /// Its severity.
    pub severity: u32,
    /// Its text, in the reference's words.
    pub text: String,
}

impl std::fmt::Display for Alert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.number, self.text)
    }
}

fn minutes(ms: u64) -> u64 {
    ms / 60_000
}

/// The alert of a backup job, if it is due.
pub fn backup(settings: &LogShipping, host: &HostName, database: &DatabaseName, job: &BackupReport) -> Option<Alert> {
    let age = job.age_ms.filter(|_| job.enabled && settings.threshold_alerts)?;
    let threshold = settings.backup_threshold.ms;
    (age > threshold).then(|| Alert {
        number: BACKUP_LATE,
        severity: SEVERITY,
        text: format!(
            "The log shipping primary database {host}.{database} has backup threshold of {} minutes and has not performed a \
             backup log operation for {} minutes. Check agent log and logshipping monitor information.",
            minutes(threshold),
            minutes(age)
        ),
    })
}

/// The alert of a restore job, if it is due.
pub fn restore(
    settings: &LogShipping,
    host: &HostName,
    database: &DatabaseName,
    job: &ShippingReport,
) -> Option<Alert> {
    let age = job.restored_age_ms.filter(|_| job.enabled && settings.threshold_alerts)?;
    let threshold = settings.restore_threshold.ms;
    (age > threshold.saturating_add(settings.held_ms())).then(|| Alert {
        number: RESTORE_LATE,
        severity: SEVERITY,
        text: format!(
            "The log shipping secondary database {host}.{database} has restore threshold of {} minutes and is out of sync. No \
             restore was performed for {} minutes. Restored latency is {} minutes. Check agent log and logshipping monitor \
             information.",
            minutes(threshold),
            minutes(age),
            minutes(age)
        ),
    })
}

/// Every alert of a pool, from what its hosts report.
pub fn all<'a>(
    topology: &Topology,
    record: &PoolRecord,
    instance: impl Fn(&HostName, &DatabaseName) -> Option<&'a InstanceReport>,
) -> BTreeMap<DatabaseName, Vec<Alert>> {
    let mut alerts = BTreeMap::new();
    for (name, d) in &record.databases {
        let Some(settings) = topology.database(name).and_then(|t| t.log_shipping.as_ref()) else { continue };
        let primary = d.principal.as_ref().and_then(|host| {
            // Without a backup the archive goes on, and nobody waits for it.
            backup(settings, host, name, instance(host, name)?.backup_job.as_ref().filter(|_| d.backup.is_some())?)
        });
        let secondary =
            d.backup.as_ref().and_then(|host| restore(settings, host, name, instance(host, name)?.shipping.as_ref()?));
        let found: Vec<Alert> = primary.into_iter().chain(secondary).collect();
        if !found.is_empty() {
            alerts.insert(name.clone(), found);
        }
    }
    alerts
}

/// Since when something has all that it is to have: it has to reach what was wanted at some moment, to count as whole at
/// that moment. Milliseconds of any steady clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency {
    whole_at_ms: u64,
    mark: Option<(Lsn, u64)>,
}

impl Currency {
    /// Whole at this moment.
    pub fn new(now_ms: u64) -> Self {
        Self { whole_at_ms: now_ms, mark: None }
    }

    /// A look: what there is, and what there is to be.
    pub fn note(&mut self, now_ms: u64, has: Lsn, wanted: Lsn) {
        if has >= wanted {
            *self = Self::new(now_ms);
            return;
        }
        match self.mark {
            Some((mark, at)) if has >= mark => {
                self.whole_at_ms = self.whole_at_ms.max(at);
                self.mark = Some((wanted, now_ms));
            }
            Some(_) => {}
            None => self.mark = Some((wanted, now_ms)),
        }
    }

    /// How long ago it was last whole.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.whole_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipping_settings::Span;

    fn settings() -> LogShipping {
        LogShipping::into_share("/share")
    }

    #[test]
    fn a_late_backup_is_alert_14420_beyond_its_threshold() {
        let job = |age: u64| BackupReport { enabled: true, age_ms: Some(age), ..BackupReport::default() };
        let raised = |settings: &LogShipping, job: &BackupReport| backup(settings, &"s1a".into(), &"mgc".into(), job);
        assert_eq!(raised(&settings(), &job(60 * 60_000)), None);
        let alert = raised(&settings(), &job(61 * 60_000)).expect("it is late");
        assert_eq!((alert.number, alert.severity), (14_420, 16));
        assert_eq!(
            alert.text,
            "The log shipping primary database s1a.mgc has backup threshold of 60 minutes and has not performed a backup log \
             operation for 61 minutes. Check agent log and logshipping monitor information."
        );
        assert_eq!(raised(&LogShipping { threshold_alerts: false, ..settings() }, &job(u64::MAX)), None);
        assert_eq!(raised(&settings(), &BackupReport { enabled: false, ..job(u64::MAX) }), None);
        assert_eq!(raised(&settings(), &BackupReport { age_ms: None, ..job(0) }), None);
    }

    #[test]
    fn a_late_restore_is_alert_14421_beyond_threshold_and_delay() {
        let job = |age: u64| ShippingReport { enabled: true, restored_age_ms: Some(age), ..ShippingReport::default() };
        let raised =
            |settings: &LogShipping, job: &ShippingReport| restore(settings, &"s2a".into(), &"mgc".into(), job);
        let in_runs = LogShipping { restore_every: Span::minutes(10), ..settings() };
        assert_eq!(raised(&in_runs, &job(55 * 60_000)), None);
        assert!(raised(&in_runs, &job(56 * 60_000)).is_some(), "counted from when a run is due");
        let delayed = LogShipping { restore_delay: Span::minutes(10), ..settings() };
        assert_eq!(raised(&delayed, &job(55 * 60_000)), None);
        let alert = raised(&delayed, &job(56 * 60_000)).expect("it is late");
        assert_eq!(alert.number, 14_421);
        assert!(alert.text.starts_with(
            "The log shipping secondary database s2a.mgc has restore threshold of 45 minutes and is out of sync. No restore \
             was performed for 56 minutes. Restored latency is 56 minutes."
        ));
    }

    #[test]
    fn what_reaches_an_earlier_mark_was_whole_then() {
        let mut currency = Currency::new(0);
        currency.note(100, Lsn(5), Lsn(5));
        assert_eq!(currency.age_ms(100), 0);
        currency.note(200, Lsn(5), Lsn(9));
        currency.note(300, Lsn(8), Lsn(12));
        assert_eq!(currency.age_ms(300), 200, "it has not reached 9 yet");
        currency.note(400, Lsn(10), Lsn(15));
        assert_eq!(currency.age_ms(400), 200, "it reached 9, which was wanted at 200");
        currency.note(500, Lsn(15), Lsn(15));
        assert_eq!(currency.age_ms(500), 0);
    }
}
