//! Drawings are compared with files in `tests/golden`; `STANDFAST_GOLDEN=write` writes them anew, to be looked at.

use super::*;
use cluster::Epoch;
use cluster::record::PoolState;
use std::path::Path;

fn stretched() -> Topology {
    Topology::from_toml(include_str!("../../tests/stretched.toml")).expect("the example passes")
}

/// The smallest pool: one site, one host.
fn single() -> Topology {
    let mut topology = stretched();
    topology.sites.truncate(1);
    topology.hosts.truncate(1);
    topology.servers.truncate(1);
    let mgc = &mut topology.databases[0];
    (mgc.mirror, mgc.backup, mgc.backup_mirror, mgc.log_shipping) = (None, None, None, None);
    topology
}

fn instance(state: &str, receivers: &[&str], streaming: Option<bool>) -> serde_json::Value {
    let receiver = |host: &&str| serde_json::json!({ "host": host, "state": "streaming", "flushed": null, "applied": null, "synchronous": true });
    serde_json::json!({
        "state": state, "timeline": 1, "written": null, "applied": null, "entries": null, "database_epoch": null,
        "synchronous": [], "receivers": receivers.iter().map(receiver).collect::<Vec<_>>(), "wal_bytes": 0, "free_bytes": 0,
        "full_in_s": null, "sessions": 0, "shut_down_at": null, "doing": null,
        "shipping": streaming.map(|streaming| serde_json::json!({
            "enabled": true, "streaming": streaming, "shipped_file": null, "shipped": null, "copied": null,
            "share_age_ms": null, "share_epoch": null, "fault": null })),
    })
}

fn report(host: &str, site: &str, instance: &serde_json::Value, servers: &serde_json::Value) -> HostReport {
    let value = serde_json::json!({
        "host": host, "site": site, "measured_at_ms": 0, "change": 0, "record": null, "topology_version": 3,
        "instances": { "mgc": instance }, "orders": {}, "servers": servers,
    });
    serde_json::from_value(value).expect("a report reads as one")
}

fn server(writes_as: Option<i64>, sessions: u64) -> serde_json::Value {
    serde_json::json!({ "writes_as": writes_as, "sessions": sessions, "waiting_posts": 0, "record_version": 1, "age_ms": 0 })
}

fn record() -> PoolRecord {
    let mirror = Some(MirrorRecord { host: "s1b".into(), synchronised: true });
    let mut mgc = DatabaseRecord { principal: Some("s1a".into()), mirror, ..DatabaseRecord::default() };
    mgc.backup = Some("s2a".into());
    mgc.backup_mirror = Some("s2b".into());
    PoolRecord {
        version: 9,
        epoch: Epoch(1),
        state: PoolState::Normal,
        home: "site-1".into(),
        active_servers: vec!["server-1".into(), "server-2".into()],
        databases: [("mgc".into(), mgc)].into(),
        lost_sites: std::collections::BTreeMap::new(),
        run: None,
    }
}

fn normal() -> PoolView {
    let reports = vec![
        report(
            "s1a",
            "site-1",
            &instance("online", &["s1b", "s2a"], None),
            &serde_json::json!({ "server-1": server(Some(1), 12) }),
        ),
        report(
            "s1b",
            "site-1",
            &instance("standby", &[], Some(true)),
            &serde_json::json!({ "server-2": server(Some(1), 1), "server-3": server(None, 0) }),
        ),
        report(
            "s2a",
            "site-2",
            &instance("standby", &["s2b"], Some(true)),
            &serde_json::json!({ "server-5": server(None, 0) }),
        ),
        report(
            "s2b",
            "site-2",
            &instance("standby", &[], Some(true)),
            &serde_json::json!({ "server-6": server(None, 0) }),
        ),
    ];
    let topology = Topology { version: 3, ..stretched() };
    PoolView { topology, record: Some(record()), reports, silent: Vec::new() }
}

/// Site 1 is lost, and the pool is served from site 2.
fn failed_over() -> PoolView {
    let mut view = normal();
    view.reports = vec![
        report(
            "s2a",
            "site-2",
            &instance("online", &["s2b"], None),
            &serde_json::json!({ "server-5": server(Some(2), 9) }),
        ),
        report(
            "s2b",
            "site-2",
            &instance("standby", &[], Some(true)),
            &serde_json::json!({ "server-6": server(Some(2), 4) }),
        ),
    ];
    let record = view.record.as_mut().expect("there is one");
    (record.state, record.epoch, record.home) = (PoolState::FailedOver, Epoch(2), "site-2".into());
    record.lost_sites.insert("site-1".into(), Epoch(2));
    record.active_servers = vec!["server-5".into(), "server-6".into()];
    let mgc = record.databases.get_mut(&"mgc".into()).expect("there is one");
    mgc.principal = Some("s2a".into());
    mgc.mirror = Some(MirrorRecord { host: "s2b".into(), synchronised: true });
    (mgc.backup, mgc.backup_mirror) = (None, None);
    view
}

fn check(drawing: &str, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("STANDFAST_GOLDEN").is_some_and(|v| v == "write") {
        std::fs::write(&path, drawing).expect("the folder takes files");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(drawing, golden, "{file}: look at it, and write it anew with STANDFAST_GOLDEN=write");
}

#[test]
fn the_topology_is_drawn_as_text() {
    check(&text::draw(&picture(&stretched(), None), 120), "stretched.txt");
    check(&text::draw(&picture(&stretched(), None), 80), "stretched-narrow.txt");
    check(&text::draw(&picture(&single(), None), 120), "single.txt");
}

#[test]
fn the_pool_is_drawn_as_it_stands() {
    let (normal, failed_over) = (normal(), failed_over());
    check(&text::draw(&picture(&normal.topology, Some(&normal)), 120), "normal.txt");
    check(&text::draw(&picture(&failed_over.topology, Some(&failed_over)), 120), "failed-over.txt");
}

#[test]
fn the_pool_is_drawn_as_svg() {
    let (normal, failed_over) = (normal(), failed_over());
    check(&svg::draw(&picture(&normal.topology, Some(&normal))), "normal.svg");
    check(&svg::draw(&picture(&failed_over.topology, Some(&failed_over))), "failed-over.svg");
    check(&svg::draw(&picture(&single(), None)), "single.svg");
}

#[test]
fn a_backup_that_feeds_the_other_way_is_an_arrow_to_the_left() {
    let mut view = failed_over();
    view.record.as_mut().expect("there is one").databases.values_mut().for_each(|d| d.backup = Some("s1a".into()));
    let drawn = text::draw(&picture(&view.topology, Some(&view)), 120);
    assert!(drawn.contains('◀'), "{drawn}");
}

#[test]
fn names_stay_text_in_svg() {
    let topology = Topology { pool: "<script>&\"".into(), ..stretched() };
    let drawn = svg::draw(&picture(&topology, None));
    assert!(!drawn.contains("<script") && drawn.contains("&lt;script&gt;&amp;&quot;"), "{drawn}");
}
