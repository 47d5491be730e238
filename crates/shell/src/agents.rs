//! Talking to the agents of the pool, as an administrator who sits at no site.

use crate::failure::Failure;
use crate::folder::Folder;
use cluster::name::{DatabaseName, HostName, SiteName};
use cluster::record::PoolRecord;
use cluster::report::HostReport;
use cluster::runbook::{Exposure, Silence};
use cluster::secret::Purpose;
use cluster::topology::Topology;
use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::agent::{AgentError, PoolView, PublishTopology, RecordAnswer, SetRecord, TopologyAnswer, Watched};
use wire::run::{RunAnswer, RunProgress, RunSummary, StartRun};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(400);
/// Longest wait for a report.
const REPORT: Duration = Duration::from_millis(1_200);
/// Longest wait for anything else, beside the time that a request asks to be held open.
const ANSWER: Duration = Duration::from_secs(10);

/// The agents of a pool.
#[derive(Clone)]
pub struct Agents {
    /// The topology of the administrator's folder.
    pub topology: Topology,
    http: reqwest::Client,
    key: String,
}

/// Why an agent gave no answer that can be used.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It does not answer.
    Silent(Silence),
    /// It refused, with its words.
    Said(String),
}

impl Agents {
    /// The agents of the folder's topology.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(folder: &Folder) -> Result<Self, Failure> {
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT).build();
        let http = http.map_err(|e| Failure::Failed(format!("set up the HTTP client: {e}")))?;
        Ok(Self { topology: folder.topology.clone(), http, key: folder.secret.derive(Purpose::AgentApi) })
    }

    fn url(&self, host: &HostName, path: &str) -> String {
        let at = self.topology.host(host).map(|h| h.agent.at.clone()).unwrap_or_default();
        format!("http://{at}{path}")
    }

    fn get(&self, host: &HostName, path: &str) -> RequestBuilder {
        self.http.get(self.url(host, path)).bearer_auth(&self.key).timeout(ANSWER)
    }

    fn post(&self, host: &HostName, path: &str) -> RequestBuilder {
        self.http.post(self.url(host, path)).bearer_auth(&self.key).timeout(ANSWER)
    }

    /// A fresh report of a host.
    ///
    /// # Errors
    /// How it was silent, or what it said instead.
    pub async fn report(&self, host: &HostName) -> Result<HostReport, Trouble> {
        answer(self.get(host, "/v1/report").timeout(REPORT)).await
    }

    /// Every host at once.
    pub async fn look(&self) -> PoolView {
        let asked = self.topology.hosts.iter().map(|h| async { (h.name.clone(), self.report(&h.name).await) });
        let mut reports = Vec::new();
        let mut silent = Vec::new();
        for (host, report) in join_all(asked).await {
            match report {
                Ok(report) => reports.push(report),
                Err(Trouble::Silent(silence)) => silent.push((host, silence)),
                Err(Trouble::Said(_)) => silent.push((host, Silence::Refused)),
            }
        }
        let record = newest(&reports);
        PoolView { topology: self.topology.clone(), record, reports, silent }
    }

    /// What each database stands to lose, as the authorities know it; that of `site` counts first.
    pub async fn exposure(&self, site: Option<&SiteName>) -> BTreeMap<DatabaseName, Exposure> {
        let mut sites: Vec<_> = self.topology.sites.iter().collect();
        sites.sort_by_key(|s| Some(&s.name) != site);
        let asked = sites.iter().map(|s| answer(self.get(&s.authority, "/v1/exposure").timeout(REPORT)));
        let known: Vec<BTreeMap<DatabaseName, Exposure>> = join_all(asked).await.into_iter().flatten().collect();
        known.into_iter().find(|e| !e.is_empty()).unwrap_or_default()
    }

    /// The authority of a site.
    ///
    /// # Errors
    /// When the topology has no such site.
    pub fn authority(&self, site: &SiteName) -> Result<HostName, Failure> {
        let found = self.topology.site(site).map(|s| s.authority.clone());
        found
            .ok_or_else(|| Failure::Failed(format!("the topology has no site {site}; look at standfast topology show")))
    }

    /// Start a run at an authority, or plan one.
    ///
    /// # Errors
    /// When it does not answer, or refuses the request as such.
    pub async fn start_run(&self, host: &HostName, run: &StartRun) -> Result<RunAnswer, Failure> {
        let said = answer(self.post(host, "/v1/runs").json(run)).await;
        said.map_err(|t| t.failure(&format!("ask {host}, the authority, to begin {}", run.runbook), host))
    }

    /// Events of a run after a number; waits for the next for a while.
    ///
    /// # Errors
    /// How the authority was silent, or what it said instead.
    pub async fn progress(&self, host: &HostName, id: &str, after: u64, wait_ms: u64) -> Result<RunProgress, Trouble> {
        let path = format!("/v1/runs/{id}?after={after}&wait_ms={wait_ms}");
        answer(self.get(host, &path).timeout(Duration::from_millis(wait_ms) + ANSWER)).await
    }

    /// Every run that an authority knows of, newest first, with the authority that carried it.
    pub async fn runs(&self) -> Vec<(HostName, RunSummary)> {
        let asked = self.topology.sites.iter().map(|s| async {
            let runs: Vec<RunSummary> =
                answer(self.get(&s.authority, "/v1/runs").timeout(REPORT)).await.unwrap_or_default();
            runs.into_iter().map(|run| (s.authority.clone(), run)).collect::<Vec<_>>()
        });
        let mut all: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        all.sort_by(|a, b| b.1.started_at.cmp(&a.1.started_at));
        all
    }

    /// The authority that carries a run.
    pub async fn carrier(&self, id: &str) -> Option<HostName> {
        self.runs().await.into_iter().find(|(_, run)| run.id == id).map(|(host, _)| host)
    }

    /// Change the record by compare-and-swap at the home site's authority.
    ///
    /// # Errors
    /// When the authority does not answer or does not take the change.
    pub async fn change_record(&self, from: &PoolRecord, change: impl FnOnce(&mut PoolRecord)) -> Result<(), Failure> {
        let host = self.authority(&from.home)?;
        let mut record = from.clone();
        change(&mut record);
        record.version = from.version + 1;
        let body = SetRecord { expected_version: from.version, record };
        let said: Result<RecordAnswer, Trouble> = answer(self.post(&host, "/v1/record").json(&body)).await;
        match said.map_err(|t| t.failure(&format!("change the pool's record at {host}"), &host))? {
            RecordAnswer::Taken => Ok(()),
            RecordAnswer::Conflict { .. } => Err(Failure::Refused(
                "the pool's record changed at the same moment; nothing was done: look at standfast pool status and try \
                 again"
                    .into(),
            )),
            RecordAnswer::NotAuthority { message } => Err(Failure::Refused(message)),
        }
    }

    /// Publish a topology at an authority.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn publish(&self, host: &HostName, body: &PublishTopology) -> Result<TopologyAnswer, Failure> {
        let said = answer(self.post(host, "/v1/topology").json(body)).await;
        said.map_err(|t| t.failure(&format!("publish at {host}, the authority"), host))
    }

    /// The topology that an agent works from.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn published(&self, host: &HostName) -> Result<Topology, Failure> {
        let said: Result<Watched, Trouble> = answer(self.get(host, "/v1/watch?epoch=9223372036854775807")).await;
        said.map(|w| w.topology).map_err(|t| t.failure(&format!("ask {host} for the topology"), host))
    }

    /// The text of the topology that an agent works from.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn published_text(&self, host: &HostName) -> Result<String, Failure> {
        let said: Result<Option<String>, Trouble> = answer(self.get(host, "/v1/topology")).await;
        said.map(Option::unwrap_or_default).map_err(|t| t.failure(&format!("ask {host} for the topology"), host))
    }
}

/// The newest record that anybody has.
pub fn newest(reports: &[HostReport]) -> Option<PoolRecord> {
    let records = reports.iter().filter_map(|r| r.record.as_ref());
    records
        .fold(None, |best: Option<&PoolRecord>, r| if best.is_some_and(|b| !r.supersedes(b)) { best } else { Some(r) })
        .cloned()
}

impl Trouble {
    /// The failure of what was being done.
    pub fn failure(self, what: &str, host: &HostName) -> Failure {
        Failure::Failed(match self {
            Trouble::Silent(Silence::Refused) => {
                format!(
                    "{what}: {host} does not answer (connection refused); start its agent, or look whether the line is cut"
                )
            }
            Trouble::Silent(Silence::TimedOut) => {
                format!("{what}: {host} does not answer in time; it may be alive and out of reach from here")
            }
            Trouble::Said(said) => format!("{what}: {said}"),
        })
    }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Trouble> {
    let silence = |e: &reqwest::Error| if e.is_timeout() { Silence::TimedOut } else { Silence::Refused };
    let response = request.send().await.map_err(|e| Trouble::Silent(silence(&e)))?;
    let status = response.status();
    let bytes = response.bytes().await.map_err(|e| Trouble::Silent(silence(&e)))?;
    if status.is_success() {
        return serde_json::from_slice(&bytes)
            .map_err(|e| Trouble::Said(format!("answered in an unexpected form ({e}); is it of another version?")));
    }
    let said = serde_json::from_slice::<AgentError>(&bytes).map_or_else(|_| status.to_string(), |e| e.message);
    Err(Trouble::Said(said))
}
