//! `GET /metrics`: what this host sees, for Prometheus. It takes a key of its own, with which nothing else can be done.

use crate::AddMetrics;
use crate::api::{authorization, host_report};
use crate::host::Host;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cluster::name::DatabaseName;
use cluster::record::{Part, PoolRecord, PoolState};
use cluster::report::{BackupReport, HostReport, InstanceReport, InstanceState, ShippingReport};
use cluster::secret::Purpose;
use std::sync::Arc;
use wire::metrics::{CONTENT_TYPE, Page, catalogue as c};

struct Served {
    host: Arc<Host>,
    beside: AddMetrics,
}

/// The route.
pub fn router(host: &Arc<Host>, beside: AddMetrics) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(Arc::new(Served { host: host.clone(), beside }))
}

async fn metrics(State(served): State<Arc<Served>>, headers: HeaderMap) -> Response {
    let host = &served.host;
    if !host.secret.is_brought_by(authorization(&headers), Purpose::Metrics) {
        let message = "metrics take the key that standfast metrics config writes\n";
        return (StatusCode::UNAUTHORIZED, message).into_response();
    }
    let report = host_report(host).await;
    let topology = host.store.topology();
    let mut page =
        Page::new(&[("pool", &topology.pool), ("site", report.site.as_str()), ("host", report.host.as_str())]);
    own(&mut page, &report);
    if topology.site(&report.site).is_some_and(|site| site.authority == host.name) {
        (served.beside)(&mut page);
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.text()).into_response()
}

/// What the host's report says.
fn own(page: &mut Page, report: &HostReport) {
    page.add(&c::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    page.add(&c::TOPOLOGY_VERSION, &[], report.topology_version as f64);
    page.add(&c::HOST_WAITING, &[], report.waiting_for.len() as f64);
    page.add(&c::TAILS, &[], report.tails.len() as f64);
    if let Some(drill) = &report.last_drill {
        page.add(&c::DRILL_AT, &[], drill.began_at_ms as f64 / 1000.0);
        page.add_truth(&c::DRILL_SUCCEEDED, &[], drill.failed.is_none());
        page.add_known(&c::DRILL_RTO, &[], drill.rto_ms.map(seconds));
        page.add_known(&c::DRILL_RPO_ENTRIES, &[], drill.rpo_entries.map(|n| n as f64));
        page.add_known(&c::DRILL_RPO, &[], drill.rpo_ms.map(seconds));
    }
    if let Some(backups) = &report.backups {
        page.add(&c::BACKUP_AT, &[], backups.newest.done_at_ms as f64 / 1000.0);
        page.add(&c::BACKUP_BYTES, &[], backups.newest.bytes as f64);
        if let Some(proof) = &backups.newest.proof {
            page.add_truth(&c::BACKUP_PROVEN, &[], proof.failed.is_none());
        }
        if let Some(proof) = backups.proven.as_ref().and_then(|b| b.proof.as_ref()) {
            page.add(&c::BACKUP_PROVEN_AT, &[], proof.at_ms as f64 / 1000.0);
            page.add(&c::BACKUP_PROOF_SECONDS, &[], seconds(proof.took_ms));
        }
    }
    if let Some(record) = &report.record {
        of_record(page, report, record);
    }
    for (name, instance) in &report.instances {
        of_instance(page, name, instance);
    }
}

fn of_record(page: &mut Page, report: &HostReport, record: &PoolRecord) {
    page.add(&c::EPOCH, &[], record.epoch.0 as f64);
    page.add(&c::RECORD_VERSION, &[], record.version as f64);
    page.add_truth(&c::FAILED_OVER, &[], record.state == PoolState::FailedOver);
    page.add(&c::ACTIVE_SERVERS, &[], record.active_servers.len() as f64);
    page.add_truth(&c::RUN_UNDER_WAY, &[], record.run.is_some());
    for (name, database) in &record.databases {
        let own = database.part_of(&report.host);
        for part in [Part::Principal, Part::Mirror, Part::Backup, Part::BackupMirror] {
            page.add_truth(&c::ROLE, &[name.as_str(), &part.to_string().replace(' ', "-")], own == Some(part));
        }
        if let Some(mirror) = &database.mirror {
            page.add_truth(&c::SYNCHRONISED, &[name.as_str()], mirror.synchronised);
        }
    }
}

fn of_instance(page: &mut Page, name: &DatabaseName, instance: &InstanceReport) {
    use InstanceState::{Absent, AskingPeer, Busy, LeftBehind, Online, Standby, Stopped};
    let database = [name.as_str()];
    for state in [Absent, Stopped, Busy, Standby, Online, LeftBehind, AskingPeer] {
        page.add_truth(&c::STATE, &[name.as_str(), word(state)], instance.state == state);
    }
    page.add_known(&c::DATABASE_EPOCH, &database, instance.database_epoch.map(|e| e.0 as f64));
    page.add_known(&c::ENTRIES, &database, instance.entries.map(|n| n as f64));
    page.add_known(&c::WRITTEN, &database, instance.written.map(|l| l.0 as f64));
    page.add_known(&c::APPLIED, &database, instance.applied.map(|l| l.0 as f64));
    for receiver in &instance.receivers {
        let copy = [name.as_str(), receiver.host.as_str()];
        let lag = |has: Option<cluster::wal::Lsn>| Some(instance.written?.bytes_after(has?) as f64);
        page.add_known(&c::LAG, &copy, lag(receiver.flushed));
        page.add_known(&c::APPLY_LAG, &copy, lag(receiver.applied));
        page.add_truth(&c::COPY_SYNCHRONOUS, &copy, receiver.synchronous);
    }
    page.add(&c::WAL_ON_DISK, &database, instance.wal_bytes as f64);
    page.add(&c::FREE, &database, instance.free_bytes as f64);
    page.add_known(&c::FULL_IN, &database, instance.full_in_s.map(|s| s as f64));
    if let Some(scrub) = &instance.scrub {
        page.add(&c::DAMAGED_PAGES, &database, scrub.damaged_pages as f64);
        page.add(&c::SCRUBBED_AT, &database, scrub.ended_at_ms as f64 / 1000.0);
    }
    page.add(&c::DATABASE_SESSIONS, &database, f64::from(instance.sessions));
    for (server, canary) in &instance.canaries {
        let from = [name.as_str(), server.as_str()];
        page.add(&c::CANARY_APPLIED_AGE, &from, seconds(canary.age_ms));
        page.add_known(&c::CANARY_APPLIED_LAG, &from, canary.lag_ms.map(seconds));
    }
    if let Some(job) = instance.backup_job.as_ref().filter(|job| job.enabled) {
        of_backup_job(page, name, job);
    }
    if let Some(shipping) = instance.shipping.as_ref().filter(|shipping| shipping.enabled) {
        of_shipping(page, name, shipping);
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

fn of_backup_job(page: &mut Page, name: &DatabaseName, job: &BackupReport) {
    let database = [name.as_str()];
    page.add_known(&c::BACKUP_AGE, &database, job.age_ms.map(seconds));
    page.add(&c::BACKUP_WAITING, &database, job.waiting_files as f64);
    page.add_truth(&c::BACKUP_FAULT, &database, job.fault.is_some());
}

fn of_shipping(page: &mut Page, name: &DatabaseName, shipping: &ShippingReport) {
    let database = [name.as_str()];
    page.add_known(&c::COPY_AGE, &database, shipping.share_age_ms.map(seconds));
    page.add_known(&c::RESTORE_AGE, &database, shipping.restored_age_ms.map(seconds));
    page.add_truth(&c::COPY_FAULT, &database, shipping.fault.is_some() || shipping.hole.is_some());
    page.add_truth(&c::STREAMING, &database, shipping.streaming);
}

/// The state as reports spell it.
fn word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Absent => "absent",
        InstanceState::Stopped => "stopped",
        InstanceState::Busy => "busy",
        InstanceState::Standby => "standby",
        InstanceState::Online => "online",
        InstanceState::LeftBehind => "left-behind",
        InstanceState::AskingPeer => "asking-peer",
    }
}
