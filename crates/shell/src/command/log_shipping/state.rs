//! `log-shipping state`: what the reference's monitor tables say (ha-dr §13.1, `log_shipping_monitor_primary`,
//! `log_shipping_monitor_secondary`), under their column names.

use crate::agents::Agents;
use crate::command::pool::exposed;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::alert::{self, Alert};
use cluster::name::{DatabaseName, HostName};
use cluster::record::{DatabaseRecord, PoolRecord};
use cluster::report::{BackupReport, InstanceReport, ShippingReport};
use cluster::runbook::Exposure;
use cluster::share_fault;
use cluster::shipping_settings::LogShipping;
use cluster::wal::Lsn;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use wire::agent::PoolView;

/// A moment in RFC 3339, from milliseconds since the Unix epoch.
pub fn time(at_ms: Option<i64>) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(at_ms?).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// How log shipping of one database stands.
struct Row<'a> {
    name: &'a DatabaseName,
    database: &'a DatabaseRecord,
    settings: &'a LogShipping,
    backup: Option<&'a BackupReport>,
    secondary: Option<&'a InstanceReport>,
    shipping: Option<&'a ShippingReport>,
    alerts: Vec<Alert>,
    faults: Vec<String>,
    exposure: Option<Exposure>,
}

/// Run the command.
///
/// # Errors
/// When no agent answers; when there is an alert or a fault, with an exit status of its own.
pub async fn run(context: &Context) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let (look, mut exposures) = tokio::join!(agents.look(), agents.exposures());
    let view = &look.view;
    let record = view.record.as_ref().ok_or_else(|| look.nobody())?;
    let mut alerts = all_alerts(view, record);
    let mut rows = Vec::new();
    for (name, database) in &record.databases {
        let settings = agents.topology.database(name).and_then(|d| d.log_shipping.as_ref());
        let Some(settings) = settings else { continue };
        let site = database.backup.as_ref().and_then(|host| agents.topology.site_of(host));
        let exposure = site.and_then(|site| exposures.get_mut(site)?.remove(name));
        let primary = database.principal.as_ref().and_then(|host| instance(view, host, name));
        let secondary = database.backup.as_ref().and_then(|host| instance(view, host, name));
        rows.push(Row {
            name,
            database,
            settings,
            backup: primary.and_then(|i| i.backup_job.as_ref()),
            secondary,
            shipping: secondary.and_then(|i| i.shipping.as_ref()),
            alerts: alerts.remove(name).unwrap_or_default(),
            faults: faults(view, name, database),
            exposure,
        });
    }
    if context.json {
        output::json(&rows.iter().map(as_json).collect::<Vec<_>>())?;
    } else if rows.is_empty() {
        output::line("the topology has no log shipping")?;
    } else {
        rows.iter().try_for_each(show)?;
    }
    let wrong = rows.iter().map(|r| r.alerts.len() + r.faults.len()).sum::<usize>();
    if wrong > 0 { Err(Failure::Alert(format!("{wrong} alerts or faults of log shipping"))) } else { Ok(()) }
}

fn instance<'a>(view: &'a PoolView, host: &HostName, database: &DatabaseName) -> Option<&'a InstanceReport> {
    view.reports.iter().find(|r| r.host == *host).and_then(|r| r.instances.get(database))
}

/// Every alert that stands.
pub fn all_alerts(view: &PoolView, record: &PoolRecord) -> BTreeMap<DatabaseName, Vec<Alert>> {
    alert::all(&view.topology, record, |host, database| instance(view, host, database))
}

/// What is wrong with the share, at either end, with what can still be done.
pub fn faults(view: &PoolView, name: &DatabaseName, database: &DatabaseRecord) -> Vec<String> {
    let mut faults = Vec::new();
    let primary = database.principal.as_ref().and_then(|host| instance(view, host, name));
    if let (Some(host), Some(fault)) =
        (&database.principal, primary.and_then(|i| i.backup_job.as_ref()).and_then(|j| j.fault.as_ref()))
    {
        faults.push(format!("{host}: {fault}"));
    }
    let Some(host) = &database.backup else { return faults };
    let Some(secondary) = instance(view, host, name) else {
        faults.push(format!("{host} does not answer: whether anything is copied and restored there is not known"));
        return faults;
    };
    if let Some(shipping) = &secondary.shipping {
        match (&shipping.hole, &shipping.fault) {
            (Some(hole), _) => {
                faults.push(format!("{host}: {}", share_fault::hole(hole, primary.and_then(|i| i.kept_from))));
            }
            (None, Some(fault)) => faults.push(format!("{host}: {fault}")),
            (None, None) => {}
        }
    }
    faults
}

fn word(row: &Row<'_>) -> &'static str {
    match (row.database.backup.is_some(), row.database.shipping_off, row.shipping) {
        (_, true, _) => "OFF",
        (false, false, _) => "NO SECONDARY",
        (true, _, None) => "NOT KNOWN",
        (true, _, Some(s)) if !s.enabled => "STOPPED",
        (true, _, Some(s)) if s.streaming => "STREAM AND FILES",
        (true, _, Some(_)) => "FILES ALONE",
    }
}

fn as_json(row: &Row<'_>) -> Value {
    let minutes = |ms: u64| ms as f64 / 60_000.0;
    let (backup, shipping) = (row.backup, row.shipping);
    json!({
        "state": word(row),
        "primary": {
            "primary_server": row.database.principal, "primary_database": row.name,
            "backup_threshold": minutes(row.settings.backup_threshold.ms),
            "threshold_alert": alert::BACKUP_LATE, "threshold_alert_enabled": row.settings.threshold_alerts,
            "enabled": backup.map(|b| b.enabled),
            "last_backup_file": backup.and_then(|b| b.last_backup_file.as_ref()),
            "last_backup_date": backup.and_then(|b| time(b.last_backup_at_ms)),
            "last_backup_lsn": backup.and_then(|b| b.shipped),
            "time_since_last_backup_ms": backup.and_then(|b| b.age_ms),
            "waiting_files": backup.map(|b| b.waiting_files),
            "history_retention_period": minutes(row.settings.history_retention.ms),
        },
        "secondary": row.database.backup.as_ref().map(|host| json!({
            "secondary_server": host, "secondary_database": row.name,
            "restore_threshold": minutes(row.settings.restore_threshold.ms),
            "threshold_alert": alert::RESTORE_LATE, "threshold_alert_enabled": row.settings.threshold_alerts,
            "restore_every": minutes(row.settings.restore_every.ms),
            "restore_delay": minutes(row.settings.restore_delay.ms),
            "streaming": shipping.map(|s| s.streaming),
            "last_copied_file": shipping.and_then(|s| s.last_copied_file.as_ref()),
            "last_copied_date": shipping.and_then(|s| time(s.last_copied_at_ms)),
            "last_copied_lsn": shipping.and_then(|s| s.copied),
            "last_restored_file": shipping.and_then(|s| s.last_restored_file.as_ref()),
            "last_restored_date": shipping.and_then(|s| time(s.last_restored_at_ms)),
            "last_restored_lsn": row.secondary.and_then(|i| i.applied),
            "last_restored_latency_ms": shipping.and_then(|s| s.restored_age_ms),
            "share_age_ms": shipping.and_then(|s| s.share_age_ms),
        })),
        "exposure": row.exposure,
        "alerts": row.alerts,
        "faults": row.faults,
    })
}

fn show(row: &Row<'_>) -> Outcome {
    let host = |h: &Option<HostName>| h.as_ref().map_or("none".to_owned(), ToString::to_string);
    output::line(&format!(
        "{}: {}; primary {}, secondary {}, share {}",
        row.name,
        word(row),
        host(&row.database.principal),
        host(&row.database.backup),
        row.settings.share
    ))?;
    let heading = ["  JOB", "LAST FILE", "LSN", "AT", "WHOLE", "ALERT AFTER"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    let cells =
        |job: &str, file: Option<&String>, lsn: Option<Lsn>, at: Option<i64>, age: Option<u64>, after: String| {
            let dash = || "–".to_owned();
            vec![
                format!("  {job}"),
                file.cloned().unwrap_or_else(dash),
                lsn.map_or_else(dash, |l| l.to_string()),
                time(at).unwrap_or_else(dash),
                age.map_or_else(dash, |ms| format!("{:.1} s ago", ms as f64 / 1000.0)),
                after,
            ]
        };
    if let Some(b) = row.backup.filter(|b| b.enabled) {
        let after = row.settings.backup_threshold.to_string();
        rows.push(cells("backup", b.last_backup_file.as_ref(), b.shipped, b.last_backup_at_ms, b.age_ms, after));
    }
    if let Some(s) = row.shipping.filter(|s| s.enabled) {
        let copied = s.last_copied_file.as_ref();
        rows.push(cells("copy", copied, s.copied, s.last_copied_at_ms, s.share_age_ms, "–".into()));
        let applied = row.secondary.and_then(|i| i.applied);
        let after = row.settings.restore_threshold.to_string();
        let restored = s.last_restored_file.as_ref();
        rows.push(cells("restore", restored, applied, s.last_restored_at_ms, s.restored_age_ms, after));
    }
    if rows.len() > 1 {
        output::table(&rows)?;
    }
    if let Some(exposure) = &row.exposure {
        output::line(&format!("  exposure: {}", exposed(exposure)))?;
    }
    row.faults.iter().try_for_each(|fault| output::line(&format!("  FAULT: {fault}")))?;
    row.alerts.iter().try_for_each(|alert| output::line(&format!("  ALERT {alert}")))
}
