//! Talking to agents, this host's own included, over the same API.

use cluster::name::{DatabaseName, HostName, SiteName};
use cluster::order::StampedOrder;
use cluster::record::PoolRecord;
use cluster::report::{HostReport, OrderReport};
use cluster::runbook::Silence;
use cluster::secret::{PoolSecret, Purpose};
use cluster::topology::Topology;
use cluster::witness::Reach;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::agent::{AgentError, RecordAnswer, SetRecord, Watched};

/// Longest wait for a report.
pub const REPORT: Duration = Duration::from_millis(700);
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(300);
/// How long an order may hold its request open; its outcome shows in reports afterwards.
const ORDER_WAIT_MS: u64 = 20_000;

/// All agents of the pool, as this host reaches them.
#[derive(Clone)]
pub struct Agents {
    /// This host.
    pub host: HostName,
    /// This host's site.
    pub site: SiteName,
    http: reqwest::Client,
    file: Arc<TopologyFile>,
}

/// The topology that a host works from: its file is read each time, and understood when it has changed.
struct TopologyFile {
    folder: PathBuf,
    last: Mutex<Option<(String, Topology)>>,
}

impl TopologyFile {
    fn read(&self) -> Result<Topology, String> {
        let published = self.folder.join("store/topology.toml");
        let path = if published.exists() { published } else { self.folder.join("topology.toml") };
        let text = std::fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let mut last = self.last.lock().expect("nothing panics while it holds the last topology");
        if let Some((_, topology)) = last.as_ref().filter(|(before, _)| *before == text) {
            return Ok(topology.clone());
        }
        let topology = Topology::from_toml(&text).map_err(|findings| {
            format!("{}: {}", path.display(), findings.first().map_or(String::new(), ToString::to_string))
        })?;
        *last = Some((text, topology.clone()));
        Ok(topology)
    }
}

impl Agents {
    /// The agents of the topology in a host folder.
    pub fn new(dir: &Path, host: &HostName, secret: &PoolSecret) -> Result<Self, String> {
        let file = TopologyFile { folder: dir.to_owned(), last: Mutex::default() };
        let site = file.read()?.site_of(host).cloned().ok_or_else(|| format!("the topology has no host {host}"))?;
        let mut headers = reqwest::header::HeaderMap::new();
        let bearer = format!("Bearer {}", secret.derive(Purpose::AgentApi));
        let mut value = reqwest::header::HeaderValue::from_str(&bearer).map_err(|e| e.to_string())?;
        value.set_sensitive(true);
        headers.insert(reqwest::header::AUTHORIZATION, value);
        let http = reqwest::Client::builder().default_headers(headers).no_proxy().connect_timeout(CONNECT).build();
        Ok(Self { host: host.clone(), site, http: http.map_err(|e| e.to_string())?, file: Arc::new(file) })
    }

    /// The topology that this host works from now.
    pub fn topology(&self) -> Result<Topology, String> {
        self.file.read()
    }

    fn base(&self, topology: &Topology, host: &HostName) -> Result<String, String> {
        let host = topology.host(host).ok_or_else(|| format!("the topology has no host {host}"))?;
        Ok(format!("http://{}", host.agent.seen_by(&self.host, &self.site)))
    }

    /// A fresh report of a host, waited for no longer than `limit`.
    pub async fn report(&self, topology: &Topology, host: &HostName, limit: Duration) -> Result<HostReport, Silence> {
        let Ok(base) = self.base(topology, host) else { return Err(Silence::Refused) };
        let request = self.http.get(format!("{base}/v1/report")).timeout(limit);
        let response = request.send().await.map_err(|e| silence(&e))?;
        response.json().await.map_err(|e| silence(&e))
    }

    /// The newest record that this host's own agent knows.
    pub async fn own_record(&self) -> Result<Option<PoolRecord>, String> {
        let topology = self.topology()?;
        let base = self.base(&topology, &self.host)?;
        let request = self.http.get(format!("{base}/v1/watch?epoch=9223372036854775807")).timeout(REPORT);
        let watched: Watched = answer(request.send().await, &self.host).await?;
        Ok(watched.record)
    }

    /// How the instance of a database on another host looks from this one.
    pub async fn reach(
        &self,
        topology: &Topology,
        database: &DatabaseName,
        host: &HostName,
        limit: Duration,
    ) -> Result<Reach, String> {
        let base = self.base(topology, &self.host)?;
        let path = format!("{base}/v1/reach/{database}/{host}?limit_ms={}", limit.as_millis());
        answer(self.http.get(path).timeout(limit + REPORT).send().await, &self.host).await
    }

    /// Change the record by compare-and-swap at the authority of a site.
    pub async fn set_record(
        &self,
        topology: &Topology,
        at: &SiteName,
        record: &PoolRecord,
    ) -> Result<RecordAnswer, String> {
        let site = topology.site(at).ok_or_else(|| format!("the topology has no site {at}"))?;
        let base = self.base(topology, &site.authority)?;
        let body = SetRecord { expected_version: record.version - 1, record: record.clone() };
        let request = self.http.post(format!("{base}/v1/record")).timeout(Duration::from_secs(2)).json(&body);
        answer(request.send().await, &site.authority).await
    }

    /// Give an order, and wait until it is over, within reason.
    pub async fn order(
        &self,
        topology: &Topology,
        host: &HostName,
        order: &StampedOrder,
    ) -> Result<OrderReport, String> {
        let base = self.base(topology, host)?;
        let limit = Duration::from_millis(ORDER_WAIT_MS + 2_000);
        let request = self.http.post(format!("{base}/v1/orders?wait_ms={ORDER_WAIT_MS}")).timeout(limit).json(order);
        answer(request.send().await, host).await
    }
}

async fn answer<T: serde::de::DeserializeOwned>(
    sent: Result<reqwest::Response, reqwest::Error>,
    host: &HostName,
) -> Result<T, String> {
    let response = sent.map_err(|e| format!("{host} does not answer: {e}"))?;
    if response.status().is_success() {
        return response.json().await.map_err(|e| format!("{host} answered in an unexpected form: {e}"));
    }
    let status = response.status();
    let said = response.json::<AgentError>().await.map_or_else(|_| status.to_string(), |e| e.message);
    Err(format!("{host}: {said}"))
}

fn silence(error: &reqwest::Error) -> Silence {
    if error.is_timeout() { Silence::TimedOut } else { Silence::Refused }
}
