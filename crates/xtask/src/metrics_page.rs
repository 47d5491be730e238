//! The page of metrics, from the one list of them.

use crate::pages::cell;
use std::fmt::Write;
use wire::metrics::{By, catalogue};

const HEAD: &str = "# Metrics

Generated from the code by `cargo run -p xtask`; a test compares it.

Every agent and every chat server answers `GET /metrics` in Prometheus' text format, at the address where it answers everything
else (`agent` of a host, `clients` of a server). It takes a key of its own, derived from the pool's secret, with which nothing else
can be done. `standfast metrics config --key-file FILE` writes the key and prints the `scrape_configs` with every address:

```
standfast metrics config --key-file /etc/prometheus/standfast.key >> /etc/prometheus/prometheus.yml
```

`ops/prometheus/alerts.yml` has alert rules and `ops/grafana/standfast.json` a dashboard (it asks for the data source and the pool);
a test compares the names in them with this list. `standfast preflight --metrics FILE` writes a few of the same metrics for
node_exporter's textfile collector, from cron (runbooks/preflight.md).

What is not known is left out, so that a rule can tell it from 0. Agents tell what they know: one that is cut off may know less than
another, so take the worse of two. Times are in seconds, sizes and positions of the log in bytes.
";

fn who(by: By) -> &'static str {
    match by {
        By::Agent => {
            "## Every agent\n\nOf its own host, and of the pool's record as it knows it. Labels of all: `pool`, `site`, `host`."
        }
        By::Authority => {
            "## The agent of each site's authority, beside those\n\nOf the whole pool, as that site sees it. Labels of all: `pool`, \
             `site`, `host`."
        }
        By::Server => "## Every chat server\n\nLabels of all: `pool`, `site`, `server`.",
        By::Preflight => "## `standfast preflight --metrics`\n\nLabel of all: `pool`.",
    }
}

/// The page.
pub fn metrics() -> String {
    let mut page = String::from(HEAD);
    for by in [By::Agent, By::Authority, By::Server, By::Preflight] {
        let _ = write!(page, "\n{}\n\n| metric | type | meaning |\n| --- | --- | --- |\n", who(by));
        for metric in catalogue::ALL.iter().filter(|m| m.by == by) {
            let labels = metric.labels.join(", ");
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(page, "| `{}{labels}` | {} | {} |", metric.name, metric.kind.word(), cell(metric.help));
        }
        if by == By::Preflight {
            page.push_str(
                "\nAnd `standfast_exposure_…` and `standfast_run_last_success_timestamp_seconds` of the authorities.\n",
            );
        }
    }
    page
}
