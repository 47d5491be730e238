//! What `GET /metrics` of an agent and of a chat server tells, and `preflight --metrics` writes: Prometheus text exposition
//! format, version 0.0.4.
//!
//! [`catalogue`] is the one list of what there is; `docs/metrics.md` is made from it, and a test compares the dashboard and
//! the alert rules of the repository with it. A [`Page`] takes what was measured for one request; nothing is counted here.

pub mod catalogue;
mod pool;

pub use self::pool::exposure;

use std::collections::BTreeMap;
use std::fmt::Write;

/// The content type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only rises, from the start of the process on.
    Counter,
    /// How many observations were at most so large.
    Histogram,
}

impl Kind {
    /// Its word in a TYPE line.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        }
    }
}

/// Who writes a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Every agent, of its own host and of what it knows of the pool; labels `pool`, `site`, `host`.
    Agent,
    /// The agent of each site's authority, of the whole pool as that site sees it; labels `pool`, `site`, `host`.
    Authority,
    /// Every chat server; labels `pool`, `site`, `server`.
    Server,
    /// `standfast preflight --metrics`; label `pool`.
    Preflight,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with the unit last.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// Who writes it.
    pub by: By,
    /// Labels beside those of every series of the page.
    pub labels: &'static [&'static str],
    /// The HELP line.
    pub help: &'static str,
}

/// Counts of a histogram, as they are at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The upper ends of the buckets and how many observations fell into each alone, in rising order.
    pub buckets: Vec<(f64, u64)>,
    /// Observations above the last end.
    pub above: u64,
    /// The sum of all observations.
    pub sum: f64,
}

/// A page under way.
#[derive(Clone, Debug, Default)]
pub struct Page {
    labels: String,
    /// The series of each metric, in the order of the catalogue.
    found: BTreeMap<usize, String>,
}

impl Page {
    /// A page whose series all carry these labels.
    pub fn new(labels: &[(&str, &str)]) -> Self {
        Self { labels: joined(labels), found: BTreeMap::new() }
    }

    /// Add a series. `labels` are the metric's own, in its order.
    pub fn add(&mut self, metric: &Metric, labels: &[&str], value: f64) {
        let labels = self.labels_of(metric, labels);
        let out = self.series(metric);
        let _ = writeln!(out, "{}{{{labels}}} {}", metric.name, number(value));
    }

    /// Add a series if its value is known: what is not known is left out, so that an alert can tell it from 0.
    pub fn add_known(&mut self, metric: &Metric, labels: &[&str], value: Option<f64>) {
        if let Some(value) = value {
            self.add(metric, labels, value);
        }
    }

    /// Add a series that is 1 when something is so, and 0 when it is not.
    pub fn add_truth(&mut self, metric: &Metric, labels: &[&str], is: bool) {
        self.add(metric, labels, if is { 1.0 } else { 0.0 });
    }

    /// Add a histogram.
    pub fn add_histogram(&mut self, metric: &Metric, labels: &[&str], histogram: &Histogram) {
        let labels = self.labels_of(metric, labels);
        let comma = if labels.is_empty() { "" } else { "," };
        let out = self.series(metric);
        let name = metric.name;
        let mut count = 0;
        for (end, in_it) in &histogram.buckets {
            count += in_it;
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {count}", number(*end));
        }
        count += histogram.above;
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", number(histogram.sum));
        let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
    }

    /// The page's text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (place, series) in &self.found {
            let metric = catalogue::ALL[*place];
            let _ =
                write!(out, "# HELP {0} {1}\n# TYPE {0} {2}\n{series}", metric.name, metric.help, metric.kind.word());
        }
        out
    }

    fn labels_of(&self, metric: &Metric, values: &[&str]) -> String {
        assert_eq!(metric.labels.len(), values.len(), "{} has the labels {:?}", metric.name, metric.labels);
        let own: Vec<(&str, &str)> = metric.labels.iter().copied().zip(values.iter().copied()).collect();
        let own = joined(&own);
        let comma = if self.labels.is_empty() || own.is_empty() { "" } else { "," };
        format!("{}{comma}{own}", self.labels)
    }

    fn series(&mut self, metric: &Metric) -> &mut String {
        let place = catalogue::ALL.iter().position(|m| m.name == metric.name);
        self.found.entry(place.expect("every metric is in the catalogue; a test looks")).or_default()
    }
}

fn joined(labels: &[(&str, &str)]) -> String {
    let escaped = |raw: &str| raw.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let each = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    each.collect::<Vec<_>>().join(",")
}

/// A value, as the format wants it.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::catalogue::{ALL, EXPOSURE_ENTRIES, SERVER_ACKNOWLEDGEMENT_SECONDS, SERVER_SESSIONS};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_page_has_help_and_type_once_and_labels_cannot_break_out() {
        let mut page = Page::new(&[("pool", "chat.\"x\"\nexample\\")]);
        page.add(&SERVER_SESSIONS, &[], 3.0);
        page.add(&EXPOSURE_ENTRIES, &["mgc"], 0.0);
        page.add(&EXPOSURE_ENTRIES, &["other"], 12.0);
        page.add_known(&EXPOSURE_ENTRIES, &["unknown"], None);
        let pool = "pool=\"chat.\\\"x\\\"\\nexample\\\\\"";
        let expect = format!(
            "# HELP standfast_exposure_entries {}\n# TYPE standfast_exposure_entries gauge\n\
             standfast_exposure_entries{{{pool},database=\"mgc\"}} 0\n\
             standfast_exposure_entries{{{pool},database=\"other\"}} 12\n\
             # HELP standfast_server_sessions {}\n# TYPE standfast_server_sessions gauge\n\
             standfast_server_sessions{{{pool}}} 3\n",
            EXPOSURE_ENTRIES.help, SERVER_SESSIONS.help
        );
        assert_eq!(page.text(), expect);
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let mut page = Page::new(&[]);
        let histogram = Histogram { buckets: vec![(0.005, 2), (0.01, 0), (0.1, 1)], above: 1, sum: 2.5 };
        page.add_histogram(&SERVER_ACKNOWLEDGEMENT_SECONDS, &[], &histogram);
        let name = "standfast_server_acknowledgement_seconds";
        let expect = format!(
            "{name}_bucket{{le=\"0.005\"}} 2\n{name}_bucket{{le=\"0.01\"}} 2\n{name}_bucket{{le=\"0.1\"}} 3\n\
             {name}_bucket{{le=\"+Inf\"}} 4\n{name}_sum{{}} 2.5\n{name}_count{{}} 4\n"
        );
        assert_eq!(page.text().split_once("histogram\n").expect("it has a type").1, expect);
    }

    #[test]
    fn names_follow_the_conventions_and_are_there_once() {
        let mut seen = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("standfast_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}: counters end in _total");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}: its help is a sentence");
            for unit in ["_ms", "_millis", "_milliseconds", "_minutes", "_kilobytes"] {
                assert!(!name.ends_with(unit), "{name}: base units only");
            }
        }
    }
}
