//! How log shipping is set up: schedules, retention, delay, compression, thresholds (ha-dr §7, §13.1). `docs/topology.md`
//! says what each key means here, where the log streams beside the files.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A length of time, written as `500ms`, `30s`, `15min`, `72h` or `14d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    /// Milliseconds.
    pub ms: u64,
}

/// Units, longest first, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

impl Span {
    /// So many milliseconds.
    pub const fn ms(ms: u64) -> Self {
        Self { ms }
    }

    /// So many minutes.
    pub const fn minutes(minutes: u64) -> Self {
        Self { ms: minutes * 60_000 }
    }

    /// For waiting.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no length of time; write it as 500ms, 30s, 15min, 72h or 14d");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        number.checked_mul(*factor).map(Span::ms).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) =
            UNITS.iter().find(|(_, f)| self.ms.is_multiple_of(*f) && self.ms >= *f).unwrap_or(&("s", 1));
        write!(f, "{}{name}", self.ms / factor)
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

/// How the log is made smaller before it is shipped: PostgreSQL's `wal_compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    Off,
    /// Quick.
    #[default]
    Lz4,
    /// Smaller, and dearer.
    Zstd,
}

impl Compression {
    /// PostgreSQL's word.
    pub fn word(self) -> &'static str {
        match self {
            Compression::Off => "off",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

/// Where a bucket is. Its key is in a file of each host's folder, never here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// `https://host:port` of an S3-compatible store; that of Amazon for the region when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region; `us-east-1` when left out, which other stores than Amazon's take as they like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// A share, and all that is needed to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareAt {
    /// A folder, or a place in a bucket.
    pub share: String,
    /// Where the bucket is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

impl ShareAt {
    /// Whether it is a bucket.
    pub fn is_bucket(&self) -> bool {
        self.share.starts_with(BUCKET)
    }
}

/// Begin of the address of a share in a bucket.
pub const BUCKET: &str = "s3://";

/// Bucket and prefix of `s3://bucket/prefix`; the prefix may be empty.
pub fn split_bucket(share: &str) -> Option<(&str, &str)> {
    let rest = share.strip_prefix(BUCKET)?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    Some((bucket, prefix.trim_matches('/')))
}

/// Log shipping of a database. Each field's default is the reference's where it names one that fits a log that streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogShipping {
    /// A folder that every host of the database reads and writes, best on a host of neither site; or a place in a bucket:
    /// `s3://bucket/prefix`.
    pub share: String,
    /// Where the bucket is, if the share is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// The backup job: a segment is finished at least this often while anything is written. What is written meanwhile is in
    /// the share all the same, as a partial segment.
    #[serde(default = "default_backup_every")]
    pub backup_every: Span,
    /// The copy job: time between two rounds while the stream is up; without it there is no pause.
    #[serde(default = "default_copy_every")]
    pub copy_every: Span,
    /// Segments in the share that are older go, unless the backup still needs them; so do the oldest beyond 1 GB, in any case.
    #[serde(default = "default_delete_older_than")]
    pub delete_older_than: Span,
    /// The restore job: time between two runs, each applying what had arrived when it began; 0 applies all the time. Nothing
    /// waits for a run while the stream is down, nor in a failover.
    #[serde(default = "default_restore_every")]
    pub restore_every: Span,
    /// The restore job: what was committed is held back so long before it is applied.
    #[serde(default = "default_restore_delay")]
    pub restore_delay: Span,
    /// How the log is made smaller.
    #[serde(default)]
    pub compression: Compression,
    /// Alert 14420 when the share has lacked something of the log for so long.
    #[serde(default = "default_backup_threshold")]
    pub backup_threshold: Span,
    /// Alert 14421 when the backup has not applied all that it could for so long, beyond what the restore job holds back.
    #[serde(default = "default_restore_threshold")]
    pub restore_threshold: Span,
    /// Whether there are alerts.
    #[serde(default = "default_threshold_alerts")]
    pub threshold_alerts: bool,
    /// How long the history of the jobs is kept.
    #[serde(default = "default_history_retention")]
    pub history_retention: Span,
}

/// The longest time between two runs of the restore job, in milliseconds.
const RESTORE_EVERY_MAX_MS: u64 = 86_400_000;

fn default_backup_every() -> Span {
    Span::minutes(15)
}
fn default_copy_every() -> Span {
    Span::ms(1_000)
}
fn default_delete_older_than() -> Span {
    Span::minutes(72 * 60)
}
fn default_restore_every() -> Span {
    Span::ms(0)
}
fn default_restore_delay() -> Span {
    Span::ms(0)
}
fn default_backup_threshold() -> Span {
    Span::minutes(60)
}
fn default_restore_threshold() -> Span {
    Span::minutes(45)
}
fn default_threshold_alerts() -> bool {
    true
}
fn default_history_retention() -> Span {
    Span::minutes(14_420)
}

impl LogShipping {
    /// How long what has arrived may wait until it is applied, in milliseconds: what the schedule of the restore job and its
    /// delay add to any threshold.
    pub fn held_ms(&self) -> u64 {
        self.restore_delay.ms.saturating_add(self.restore_every.ms)
    }

    /// A share with every default.
    pub fn into_share(share: &str) -> Self {
        Self {
            share: share.to_owned(),
            s3: None,
            backup_every: default_backup_every(),
            copy_every: default_copy_every(),
            delete_older_than: default_delete_older_than(),
            restore_every: default_restore_every(),
            restore_delay: default_restore_delay(),
            compression: Compression::default(),
            backup_threshold: default_backup_threshold(),
            restore_threshold: default_restore_threshold(),
            threshold_alerts: default_threshold_alerts(),
            history_retention: default_history_retention(),
        }
    }

    /// What differs from before, the share aside: `key: from → to`.
    pub fn changed_from(&self, old: &LogShipping) -> Vec<String> {
        let place = |s: &LogShipping| {
            let of = |text: Option<&String>| text.cloned().unwrap_or_else(|| "default".into());
            let s3 = s.s3.as_ref();
            format!(
                "endpoint {}, region {}",
                of(s3.and_then(|s| s.endpoint.as_ref())),
                of(s3.and_then(|s| s.region.as_ref()))
            )
        };
        let said = |s: &LogShipping| {
            [
                ("backup_every", s.backup_every.to_string()),
                ("copy_every", s.copy_every.to_string()),
                ("delete_older_than", s.delete_older_than.to_string()),
                ("restore_every", s.restore_every.to_string()),
                ("restore_delay", s.restore_delay.to_string()),
                ("compression", s.compression.word().to_owned()),
                ("backup_threshold", s.backup_threshold.to_string()),
                ("restore_threshold", s.restore_threshold.to_string()),
                ("threshold_alerts", s.threshold_alerts.to_string()),
                ("s3", place(s)),
                ("history_retention", s.history_retention.to_string()),
            ]
        };
        let pairs = said(old).into_iter().zip(said(self)).filter(|(old, new)| old != new);
        pairs.map(|((key, from), (_, to))| format!("{key}: {from} → {to}")).collect()
    }

    /// What cannot be: a key and what is wrong with it.
    pub fn findings(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if let Some((bucket, prefix)) = split_bucket(&self.share) {
            self.bucket_findings(bucket, prefix, &mut found);
        } else if self.s3.is_some() {
            found.push(("s3", format!("s3 is for a share in a bucket; '{}' is a folder: take s3 out", self.share)));
        } else if !self.share.starts_with('/') {
            found.push((
                "share",
                format!("the share '{}' is no absolute path; write it from / on, or as s3://bucket/prefix", self.share),
            ));
        } else if self.share.trim_matches('/').is_empty() || self.share.split('/').any(|part| part == "..") {
            let says = "is no plain path; name a folder of its own, without '..' (ha-dr §4)";
            found.push(("share", format!("the share '{}' {says}", self.share)));
        }
        if self.backup_every.ms < 1_000 {
            found.push(("backup_every", format!("backup_every is {}; it is at least 1s", self.backup_every)));
        }
        if self.copy_every.ms < 100 {
            found.push(("copy_every", format!("copy_every is {}; it is at least 100ms", self.copy_every)));
        }
        if (1..1_000).contains(&self.restore_every.ms) || self.restore_every.ms > RESTORE_EVERY_MAX_MS {
            let says = "it is 0s, which applies all the time, or from 1s to 24h";
            found.push(("restore_every", format!("restore_every is {}; {says}", self.restore_every)));
        }
        if self.restore_delay.ms > 2_147_483_647 {
            found.push(("restore_delay", format!("restore_delay is {}; it is at most 24d", self.restore_delay)));
        }
        for (key, span) in [
            ("backup_threshold", self.backup_threshold),
            ("restore_threshold", self.restore_threshold),
            ("delete_older_than", self.delete_older_than),
            ("history_retention", self.history_retention),
        ] {
            if span.ms == 0 {
                found.push((key, format!("{key} is nothing; leave it out for the default")));
            }
        }
        found
    }

    /// Whether the share is in a bucket.
    pub fn is_bucket(&self) -> bool {
        self.share.starts_with(BUCKET)
    }

    /// The share, and all that is needed to find it.
    pub fn at(&self) -> ShareAt {
        ShareAt { share: self.share.clone(), s3: self.s3.clone() }
    }

    fn bucket_findings(&self, bucket: &str, prefix: &str, found: &mut Vec<(&'static str, String)>) {
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if bucket.is_empty() || !plain(bucket) || !prefix.split('/').all(|part| plain(part) && part != "..") {
            let says =
                "is no place in a bucket; write it as s3://bucket/prefix, with letters, digits, '-', '_' and '.'";
            found.push(("share", format!("the share '{}' {says}", self.share)));
        }
        let Some(endpoint) = self.s3.as_ref().and_then(|s3| s3.endpoint.as_deref()) else { return };
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if rest.is_none_or(|rest| rest.is_empty() || rest.contains(char::is_whitespace)) {
            found.push(("endpoint", format!("'{endpoint}' is no web address; write it as https://host:port")));
        } else if rest.is_some_and(|rest| rest.contains('@')) {
            let says = "the endpoint holds a key, and the topology is copied to every host; write it into s3.credentials in \
                        the folder of each host instead";
            found.push(("endpoint", says.into()));
        }
    }

    /// What may be, and is hardly meant: a key and a sentence.
    pub fn warnings(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for (key, threshold, job, every) in [
            ("backup_threshold", self.backup_threshold, "backup_every", self.backup_every),
            ("restore_threshold", self.restore_threshold, "copy_every", self.copy_every),
        ] {
            if threshold.ms < 3 * every.ms {
                let says = format!(
                    "{key} is {threshold}, less than three times {job} ({every}): it may alert while all is well (ha-dr §13.1)"
                );
                found.push((key, says));
            }
        }
        if self.restore_delay.ms > 0 {
            let says = format!(
                "restore_delay holds the backup back by {}: a failover has to apply all of that first",
                self.restore_delay
            );
            found.push(("restore_delay", says));
        }
        if self.delete_older_than.ms < 3 * self.backup_every.ms {
            let says = format!("delete_older_than is {}, less than three backups", self.delete_older_than);
            found.push(("delete_older_than", says));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_read_and_written_in_its_largest_unit() {
        for (text, ms, back) in [
            ("500ms", 500, "500ms"),
            ("90s", 90_000, "90s"),
            ("60min", 3_600_000, "1h"),
            ("14d", 1_209_600_000, "14d"),
            ("0s", 0, "0s"),
        ] {
            let span = Span::try_from(text.to_owned()).expect("it is one");
            assert_eq!((span.ms, span.to_string().as_str()), (ms, back), "{text}");
        }
        for text in ["", "15", "min", "15 years", "-1s", "99999999999999999d"] {
            assert!(Span::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_references_defaults_are_sound() {
        let shipping = LogShipping::into_share("/share");
        assert_eq!((shipping.findings(), shipping.warnings()), (vec![], vec![]));
        let hasty = LogShipping { backup_threshold: Span::minutes(20), restore_delay: Span::minutes(5), ..shipping };
        let keys: Vec<&str> = hasty.warnings().iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["backup_threshold", "restore_delay"]);
    }
}
