//! Metrics: agents and servers answer Prometheus, every metric of the list is there, and figures are those of the pool.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use cluster::secret::{PoolSecret, Purpose};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use support::Lab;
use wire::metrics::{By, catalogue};

/// Status and body of `GET /metrics` with this key.
fn get(at: &str, key: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// The targets of a scrape configuration.
fn targets(config: &str) -> Vec<String> {
    config.lines().filter_map(|l| l.trim().strip_prefix("- \"")?.strip_suffix('"').map(str::to_owned)).collect()
}

/// All series of a pool, by their text before the value.
fn scrape(targets: &[String], key: &str) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for at in targets {
        let (status, page) = get(at, key);
        assert_eq!(status, 200, "{at}: {page}");
        for line in page.lines().filter(|l| l.starts_with("standfast_")) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            all.insert(series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{at}: {line}")));
        }
    }
    all
}

/// The value of the one series of a metric whose labels hold all of these.
fn value(all: &BTreeMap<String, f64>, metric: &str, labels: &[&str]) -> Option<f64> {
    let fits = |s: &str| s.starts_with(&format!("{metric}{{")) && labels.iter().all(|l| s.contains(l));
    let found: Vec<_> = all.iter().filter(|(s, _)| fits(s)).collect();
    assert!(found.len() < 2, "{metric} {labels:?}: {found:?}");
    found.first().map(|(_, v)| **v)
}

/// Metrics that only what this test does not do brings about.
const NOT_HERE: &[&str] = &[
    "standfast_full_seconds",
    "standfast_drill_last_timestamp_seconds",
    "standfast_drill_last_succeeded",
    "standfast_drill_last_rto_seconds",
    "standfast_drill_last_rpo_entries",
    "standfast_drill_last_rpo_seconds",
];

#[test]
fn prometheus_reads_what_a_pool_is_and_does() {
    let lab = Lab::up();
    let key_file = lab.dir.join("metrics.key");
    let config = lab.ok(&["metrics", "config", "--key-file", key_file.to_str().unwrap()]);
    let targets = targets(&config);
    let key = std::fs::read_to_string(&key_file).unwrap();
    let topology =
        cluster::topology::Topology::from_toml(&std::fs::read_to_string(lab.dir.join("topology.toml")).unwrap());
    let topology = topology.unwrap();
    assert_eq!(targets.len(), topology.hosts.len() + topology.servers.len(), "{config}");

    // The key for metrics opens nothing else, and nothing else opens metrics.
    let secret = PoolSecret::from_text(&std::fs::read_to_string(lab.dir.join("pool.secret")).unwrap()).unwrap();
    let agents_key = secret.derive(Purpose::AgentApi);
    for at in &targets {
        assert_eq!(get(at, "").0, 401, "{at}");
        assert_eq!(get(at, &agents_key).0, 401, "{at}");
    }
    assert!(!config.contains(&key) && !config.contains(&agents_key), "no secret is printed");

    // Posts are counted where they are posted, and what they stand for is where it is to be.
    let replay = lab.replay(&[]);
    replay.until_acknowledged(&lab, 50);
    let acknowledged = replay.acknowledged().len();
    replay.end();
    lab.until("the backup holds everything", |_| {
        let all = scrape(&targets, &key);
        value(&all, "standfast_exposure_entries", &["site=\"site-2\""]) == Some(0.0)
            && value(&all, "standfast_database_synchronised", &["host=\"s1a\""]) == Some(1.0)
    });
    let all = scrape(&targets, &key);
    let sum = |metric: &str, label: &str| -> f64 {
        let fits = |s: &str| s.starts_with(&format!("{metric}{{")) && s.contains(label);
        all.iter().filter(|(s, _)| fits(s)).map(|(_, v)| v).sum()
    };
    assert!(sum("standfast_server_posts_total", "outcome=\"written\"") >= acknowledged as f64, "{all:#?}");
    assert!(sum("standfast_server_acknowledgement_seconds_count", "") >= acknowledged as f64);
    assert!(sum("standfast_server_batch_posts_sum", "") >= acknowledged as f64, "whoever writes counts the batch");
    assert_eq!(value(&all, "standfast_epoch", &["host=\"s2a\""]), Some(1.0));
    assert_eq!(value(&all, "standfast_database_role", &["host=\"s1a\"", "role=\"principal\""]), Some(1.0));
    assert_eq!(value(&all, "standfast_database_state", &["host=\"s2a\"", "state=\"standby\""]), Some(1.0));
    assert!(value(&all, "standfast_copy_lag_bytes", &["host=\"s1a\"", "copy=\"s2a\""]).is_some());

    lab.ok(&["backup", "create"]);
    lab.ok(&["backup", "prove"]);
    lab.ok(&["database", "scrub"]);

    // The cron's file is of the same list.
    let file = lab.dir.join("standfast.prom");
    lab.cli(&["preflight", "failover", "--metrics", file.to_str().unwrap()]);
    let by_cron = std::fs::read_to_string(&file).unwrap();

    // A run of each site's authority shows in metrics, too.
    lab.ok(&["database", "failover", "--new-principal", "mirror", "--yes"]);
    lab.until("a server writes at the new principal", |_| {
        scrape(&targets, &key).keys().any(|s| s.starts_with("standfast_server_epoch{"))
    });
    let all = scrape(&targets, &key);
    assert!(value(&all, "standfast_run_last_complete", &["runbook=\"switch-mirror\""]) == Some(1.0), "{all:#?}");
    let seen: BTreeSet<&str> = all
        .keys()
        .map(|s| s.split_once('{').unwrap().0)
        .chain(by_cron.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_once('{').unwrap().0))
        .collect();
    for metric in catalogue::ALL.iter().filter(|m| !NOT_HERE.contains(&m.name)) {
        let count = format!("{}_count", metric.name);
        assert!(seen.contains(metric.name) || seen.contains(count.as_str()), "nobody writes {}", metric.name);
    }
    let preflight = catalogue::ALL.iter().filter(|m| m.by == By::Preflight);
    preflight.for_each(|m| assert!(by_cron.contains(&format!("# TYPE {} ", m.name)), "{}", m.name));

    // A site that goes dark is seen from the other one.
    lab.ok(&["lab", "kill", "site-1"]);
    let site_2: Vec<String> = targets.iter().filter(|at| TcpStream::connect(at).is_ok()).cloned().collect();
    lab.until("site 2 sees that nobody answers", |_| {
        let all = scrape(&site_2, &key);
        value(&all, "standfast_agent_heard", &["agent=\"s1a\""]) == Some(0.0)
            && value(&all, "standfast_alarms", &["site=\"site-2\""]).is_some_and(|n| n > 0.0)
    });
}
