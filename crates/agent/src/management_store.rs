//! The management store: the newest record and the published topology, on this host's disk.
//!
//! Of two records the one with the higher `(epoch, version)` is kept, whoever tells it. A change by compare-and-swap is
//! taken only here at the authority of the home site, or, with a higher epoch, at the authority of the site that takes over.
//!
//! A witness whose disk was lost has only what others tell it, and somebody may know more: it decides nothing until both
//! partners of each pair have been heard (`cluster::witness::knows_enough`).

use crate::error::Error;
use crate::files;
use cluster::active_servers::broken;
use cluster::name::{HostName, SiteName};
use cluster::record::PoolRecord;
use cluster::topology::Topology;
use cluster::topology_change::still_to_be_done;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tokio::sync::watch;
use wire::agent::{RecordAnswer, TopologyAnswer};

/// Left in the store while its record is hearsay; the conductor looks for it too.
const HEARSAY: &str = "hearsay";

/// The store.
pub struct ManagementStore {
    folder: PathBuf,
    host: HostName,
    site: SiteName,
    record: watch::Sender<Option<PoolRecord>>,
    /// The newest record that was decided, here or elsewhere; it may not be on this host's disk yet.
    heard: watch::Sender<Option<PoolRecord>>,
    /// Sent to when a record was decided here.
    decided: watch::Sender<()>,
    topology: watch::Sender<Topology>,
    writing: Mutex<()>,
}

impl ManagementStore {
    /// Open the store of a host folder. The folder's own `topology.toml` is the first topology.
    pub fn open(host_folder: &Path, host: &HostName) -> Result<Self, Error> {
        let folder = host_folder.join("store");
        fs::create_dir_all(&folder).map_err(Error::file(format!("create {}", folder.display())))?;
        let published = folder.join("topology.toml");
        let path = if published.exists() { published.clone() } else { host_folder.join("topology.toml") };
        let unusable = |cause: String| Error::HostFolder { path: path.display().to_string(), cause };
        let text = fs::read_to_string(&path).map_err(|e| unusable(e.to_string()))?;
        let topology = Topology::from_toml(&text)
            .map_err(|findings| unusable(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        if !published.exists() {
            files::replace(&published, text.as_bytes(), 0o644)
                .map_err(Error::file(format!("write {}", published.display())))?;
        }
        let record_file = folder.join("record.json");
        let record = files::read_json(&record_file).map_err(Error::file(format!("read {}", record_file.display())))?;
        let site = topology.site_of(host).cloned().ok_or_else(|| Error::NoSuchHost {
            host: host.to_string(),
            known: topology.hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        Ok(Self {
            folder,
            host: host.clone(),
            site,
            heard: watch::Sender::new(record.clone()),
            record: watch::Sender::new(record),
            decided: watch::Sender::new(()),
            topology: watch::Sender::new(topology),
            writing: Mutex::new(()),
        })
    }

    /// The site of this host.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// The newest record known.
    pub fn record(&self) -> Option<PoolRecord> {
        self.record.borrow().clone()
    }

    /// The published topology.
    pub fn topology(&self) -> Topology {
        self.topology.borrow().clone()
    }

    /// Follow the record.
    pub fn watch_record(&self) -> watch::Receiver<Option<PoolRecord>> {
        self.record.subscribe()
    }

    /// Follow the record for those who only want to know who the writer is, and have the writer itself tell them: chat servers. They do not
    /// wait for this host's disk.
    pub fn watch_heard(&self) -> watch::Receiver<Option<PoolRecord>> {
        self.heard.subscribe()
    }

    /// Follow what is decided here: nobody else tells others of it.
    pub fn watch_decided(&self) -> watch::Receiver<()> {
        self.decided.subscribe()
    }

    /// Follow the topology.
    pub fn watch_topology(&self) -> watch::Receiver<Topology> {
        self.topology.subscribe()
    }

    /// Keep a record if it is newer than the one here. Tells whether it was.
    pub fn adopt(&self, record: PoolRecord) -> Result<bool, Error> {
        let _one_at_a_time = self.writing.lock().expect("nothing panics while it writes the store");
        let own = self.record.borrow().clone();
        if own.as_ref().is_some_and(|own| !record.supersedes(own)) {
            return Ok(false);
        }
        let witness = self.topology.borrow().site(&self.site).and_then(|s| s.witness().cloned());
        if own.is_none() && record.home == self.site && witness.as_ref() == Some(&self.host) {
            // Before the record: a witness that is killed in between knows nothing, and begins again.
            let path = self.folder.join(HEARSAY);
            files::replace(&path, b"", 0o600).map_err(Error::file(format!("write {}", path.display())))?;
        }
        // It was decided elsewhere.
        self.heard.send_replace(Some(record.clone()));
        self.keep(record)?;
        Ok(true)
    }

    fn keep(&self, record: PoolRecord) -> Result<(), Error> {
        let path = self.folder.join("record.json");
        files::replace_json(&path, &record).map_err(Error::file(format!("write {}", path.display())))?;
        self.heard.send_replace(Some(record.clone()));
        self.record.send_replace(Some(record));
        Ok(())
    }

    /// Whether the record here is only what others have told since this witness lost its own.
    pub fn is_hearsay(&self) -> bool {
        self.folder.join(HEARSAY).exists()
    }

    /// The record here is certain: everybody who could know more has been heard, or a person has said so.
    pub fn is_certain(&self) -> Result<(), Error> {
        let path = self.folder.join(HEARSAY);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::File { what: format!("delete {}", path.display()), cause: error })
            }
            _ => Ok(()),
        }
    }

    /// Change the record by compare-and-swap.
    pub fn swap(&self, expected_version: u64, record: PoolRecord) -> Result<RecordAnswer, Error> {
        let _one_at_a_time = self.writing.lock().expect("nothing panics while it writes the store");
        // Asked under the lock: a publication that takes the authority away is over, or has not begun.
        if let Some(message) = self.not_authority() {
            return Ok(RecordAnswer::NotAuthority { message });
        }
        let own = self.record.borrow().clone();
        let conflict = |own: PoolRecord| RecordAnswer::Conflict { newest: Box::new(own) };
        let Some(own) = own else {
            if expected_version != 0 || record.home != self.site {
                let message = format!("there is no record yet; it begins with version 1 at {}", record.home);
                return Ok(RecordAnswer::NotAuthority { message });
            }
            return self.decide(record);
        };
        if own.version != expected_version || record.version != expected_version + 1 {
            return Ok(conflict(own));
        }
        let changes_at_home = own.home == self.site && record.epoch >= own.epoch;
        let takes_over = record.home == self.site && record.epoch > own.epoch;
        if !changes_at_home && !takes_over {
            let message = format!(
                "the record is changed at {}, not at {}; only a failover takes it here, with a higher epoch than {}",
                own.home, self.site, own.epoch
            );
            return Ok(RecordAnswer::NotAuthority { message });
        }
        if changes_at_home && self.is_hearsay() {
            let message = format!(
                "the witness {} has lost its record, and decides nothing until it has heard both partners of each pair; \
                 start their hosts, or, if one is gone for good: standfast agent --without-peer on {}",
                self.host, self.host
            );
            return Ok(RecordAnswer::Refused { message });
        }
        if record.active_servers != own.active_servers {
            let broken = broken(&self.topology.borrow(), &record, &record.active_servers);
            if let Some(first) = broken.first() {
                return Ok(RecordAnswer::Refused { message: format!("these servers may not be active: {first}") });
            }
        }
        self.decide(record)
    }

    fn decide(&self, record: PoolRecord) -> Result<RecordAnswer, Error> {
        self.keep(record)?;
        self.decided.send_replace(());
        Ok(RecordAnswer::Taken)
    }

    fn not_authority(&self) -> Option<String> {
        let topology = self.topology.borrow();
        let authority = &topology.site(&self.site)?.authority;
        (*authority != self.host)
            .then(|| format!("{} is not the authority of {}; {authority} is", self.host, self.site))
    }

    /// Publish a topology, at an authority: check it, also against what the record uses, and give it the next version.
    pub fn publish(&self, expected_version: u64, text: &str) -> Result<TopologyAnswer, Error> {
        let _one_at_a_time = self.writing.lock().expect("nothing panics while it writes the store");
        let refused = |finding: String| Ok(TopologyAnswer::Refused { findings: vec![finding] });
        if let Some(message) = self.not_authority() {
            return refused(message);
        }
        let present = self.topology.borrow().version;
        if expected_version != present {
            return refused(format!(
                "the topology has changed meanwhile: it has version {present}, this one was made from {expected_version}; \
                 look at standfast topology show and publish again"
            ));
        }
        match Topology::from_toml(text) {
            Err(findings) => {
                Ok(TopologyAnswer::Refused { findings: findings.iter().map(ToString::to_string).collect() })
            }
            Ok(topology) if topology.site_of(&self.host) != Some(&self.site) => {
                refused(format!("the topology has no host {} at {}", self.host, self.site))
            }
            Ok(topology) => {
                let record = self.record.borrow().clone();
                let findings = still_to_be_done(&self.topology.borrow(), &topology, record.as_ref());
                if !findings.is_empty() {
                    return Ok(TopologyAnswer::Refused { findings });
                }
                let version = present + 1;
                self.keep_topology(&with_version(text, version))?;
                Ok(TopologyAnswer::Published { version })
            }
        }
    }

    /// The text of the published topology.
    pub fn topology_text(&self) -> Result<String, Error> {
        let path = self.folder.join("topology.toml");
        fs::read_to_string(&path).map_err(Error::file(format!("read {}", path.display())))
    }

    /// Keep a topology that an authority has published, if it is newer.
    pub fn take_over_topology(&self, text: &str) -> Result<bool, Error> {
        let _one_at_a_time = self.writing.lock().expect("nothing panics while it writes the store");
        self.keep_topology(text)
    }

    fn keep_topology(&self, text: &str) -> Result<bool, Error> {
        let topology = Topology::from_toml(text)
            .map_err(|findings| Error::Unfit(format!("the topology does not pass: {}", findings[0])))?;
        if topology.version <= self.topology.borrow().version {
            return Ok(false);
        }
        let path = self.folder.join("topology.toml");
        files::replace(&path, text.as_bytes(), 0o644).map_err(Error::file(format!("write {}", path.display())))?;
        self.topology.send_replace(topology);
        Ok(true)
    }
}

/// The same text with this version, keeping everything else as its author wrote it.
fn with_version(text: &str, version: u64) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let tables = lines.iter().position(|l| l.trim_start().starts_with("[[")).unwrap_or(lines.len());
    let line = format!("version = {version}");
    match lines[..tables].iter().position(|l| l.trim_start().starts_with("version")) {
        Some(at) => lines[at] = line,
        None => lines.insert(tables.min(1), line),
    }
    lines.join("\n") + "\n"
}
