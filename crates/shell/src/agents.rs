//! Talking to the agents of the pool, as an administrator who sits at no site.

use crate::failure::{Failure, Outcome};
use crate::folder::Folder;
use crate::output;
use cluster::backup::{AskBackup, Backup};
use cluster::drill::{DrillReport, Drills, StartDrill};
use cluster::job_history::JobRun;
use cluster::name::{DatabaseName, HostName, ServerName, SiteName};
use cluster::record::PoolRecord;
use cluster::report::{HostReport, TailReport};
use cluster::runbook::{Exposure, Silence};
use cluster::secret::Purpose;
use cluster::topology::Topology;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wire::agent::{
    AgentError, PoolView, Probe, Probed, PublishTopology, RecordAnswer, SessionReport, SetRecord, TopologyAnswer,
    WantService, Watched,
};
use wire::notification::{ReceiverReport, TestNotification, Tested};
use wire::run::{AbortAnswer, AbortRun, RunAnswer, RunProgress, RunSummary, StartRun};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_millis(400);
/// Longest wait for a report.
const REPORT: Duration = Duration::from_millis(1_200);
/// Longest wait for anything else, beside the time that a request asks to be held open.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait for the progress of a run, beside the time that the request asks to be held open.
const PROGRESS: Duration = Duration::from_secs(3);

/// Longest time for reading a tail.
const TAIL: Duration = Duration::from_secs(600);

/// Longest wait until receivers have been told something.
const NOTIFY: Duration = Duration::from_secs(15);

/// Time that a glance gives the others once an authority has answered.
const GLANCE: Duration = Duration::from_millis(150);
/// How long an authority that does not answer is asked again to begin a run: its agent may just be starting.
const BEGIN: Duration = Duration::from_secs(10);
/// The same while a run is under way there, which only it can carry on.
const BEGIN_AGAIN: Duration = Duration::from_secs(600);
/// Time between two tries.
const AGAIN: Duration = Duration::from_millis(100);

/// The agents of a pool.
#[derive(Clone)]
pub struct Agents {
    /// The topology of the administrator's folder.
    pub topology: Topology,
    http: reqwest::Client,
    key: String,
}

/// What a look at all hosts found.
pub struct Look {
    /// The pool as those who answered see it.
    pub view: PoolView,
    /// Hosts that answered, but with a complaint in place of a report.
    pub said: BTreeMap<HostName, String>,
}

/// Why an agent gave no answer that can be used.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// It does not answer.
    Silent(Silence),
    /// It refused, with its words.
    Said(String),
}

/// Whether the authority that carries a run was found.
pub enum Carrier {
    /// This one knows the run.
    Found(HostName),
    /// Nobody who answers knows it, and these do not answer.
    Silent(Vec<HostName>),
    /// Every authority answers, and none knows it.
    Unknown,
}

/// The runs that are known.
pub struct Runs {
    /// Each with the authority that carried it, newest first.
    pub all: Vec<(HostName, RunSummary)>,
    /// Authorities that did not tell theirs.
    pub silent: Vec<HostName>,
}

impl Look {
    /// The failure when nobody has a record: nobody answers, nobody takes this key, or there is no pool yet.
    pub fn nobody(&self) -> Failure {
        let pool = &self.view.topology.pool;
        if !self.view.reports.is_empty() {
            return Failure::Failed(format!(
                "the pool {pool} is not initialised: its agents answer, and none has a record; begin with \
                 standfast pool initialise"
            ));
        }
        if let Some((host, words)) = self.said.iter().next() {
            return Failure::Failed(format!("look at the pool {pool}: {host} answers: {words}"));
        }
        let hosts = self.view.topology.hosts.iter().map(|h| format!("{} at {}", h.name, h.agent.at));
        Failure::Failed(format!(
            "no agent of the pool {pool} answers; asked: {}; start their agents, or see whether this machine reaches them",
            hosts.collect::<Vec<_>>().join(", ")
        ))
    }
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
    pub async fn look(&self) -> Look {
        let asked = self.topology.hosts.iter().map(|h| async { (h.name.clone(), self.report(&h.name).await) });
        let mut reports = Vec::new();
        let mut silent = Vec::new();
        let mut said = BTreeMap::new();
        for (host, report) in join_all(asked).await {
            match report {
                Ok(report) => reports.push(report),
                Err(Trouble::Silent(silence)) => silent.push((host, silence)),
                Err(Trouble::Said(words)) => {
                    silent.push((host.clone(), Silence::Refused));
                    said.insert(host, words);
                }
            }
        }
        let record = newest(&reports);
        Look { view: PoolView { topology: self.topology.clone(), record, reports, silent }, said }
    }

    /// The newest record that anybody has.
    ///
    /// # Errors
    /// When nobody has one.
    pub async fn record(&self) -> Result<PoolRecord, Failure> {
        let look = self.look().await;
        look.view.record.clone().ok_or_else(|| look.nobody())
    }

    /// The newest record that is known at once: no host that is slow or dead is waited for, once an authority has
    /// answered. Good enough to choose whom to ask, because who is asked looks for itself.
    pub async fn glance(&self) -> Option<PoolRecord> {
        self.glance_at_all().await.map(|(record, _)| record)
    }

    /// The same, with the reports of those who answered at once.
    pub async fn glance_at_all(&self) -> Option<(PoolRecord, Vec<HostReport>)> {
        let asked = self.topology.hosts.iter().map(|h| async { (h.name.clone(), self.report(&h.name).await) });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut waited_for: Vec<&HostName> = self.topology.sites.iter().map(|s| &s.authority).collect();
        let mut reports = Vec::new();
        let mut until = None;
        while !waited_for.is_empty() {
            let left = until.map_or(REPORT, |at: Instant| at.saturating_duration_since(Instant::now()));
            let Ok(Some((host, report))) = tokio::time::timeout(left, answers.next()).await else { break };
            let authority = waited_for.contains(&&host);
            waited_for.retain(|h| **h != host);
            if let Ok(report) = report {
                if authority && report.record.is_some() {
                    until.get_or_insert_with(|| Instant::now() + GLANCE);
                }
                reports.push(report);
            }
        }
        newest(&reports).map(|record| (record, reports))
    }

    /// What each database stands to lose, as each site's authority knows it.
    pub async fn exposures(&self) -> BTreeMap<SiteName, BTreeMap<DatabaseName, Exposure>> {
        let asked = self.topology.sites.iter().map(|s| async {
            let said = answer(self.get(&s.authority, "/v1/exposure").timeout(REPORT)).await;
            Some((s.name.clone(), said.ok()?))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// What became of notices, as each authority that answers knows it.
    pub async fn notifications(&self) -> Vec<(HostName, Vec<ReceiverReport>)> {
        let asked = self.topology.sites.iter().map(|s| async {
            let said = answer(self.get(&s.authority, "/v1/notifications").timeout(REPORT)).await;
            Some((s.authority.clone(), said.ok()?))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Let each authority tell the receivers that this is a test.
    pub async fn test_notifications(&self, wanted: &TestNotification) -> Vec<(HostName, Result<Vec<Tested>, Trouble>)> {
        let asked = self.topology.sites.iter().map(|s| async {
            let request = self.post(&s.authority, "/v1/notifications/test").timeout(NOTIFY).json(wanted);
            (s.authority.clone(), answer(request).await)
        });
        join_all(asked).await
    }

    /// The history of a database's log-shipping jobs on a host.
    ///
    /// # Errors
    /// How the host was silent, or what it said instead.
    pub async fn jobs(&self, host: &HostName, database: &DatabaseName) -> Result<Vec<JobRun>, Trouble> {
        answer(self.get(host, &format!("/v1/jobs/{database}")).timeout(REPORT)).await
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

    /// Start a run at an authority, or plan one. An authority that does not answer is asked again for a while, longer
    /// where a run is under way: asking twice begins no second run.
    ///
    /// # Errors
    /// When it does not answer, or refuses the request as such.
    pub async fn start_run(&self, host: &HostName, run: &StartRun, under_way: bool) -> Result<RunAnswer, Failure> {
        let patience = if under_way { BEGIN_AGAIN } else { BEGIN };
        let began = Instant::now();
        let mut told = false;
        loop {
            let trouble = match answer(self.post(host, "/v1/runs").json(run)).await {
                Ok(said) => return Ok(said),
                Err(trouble) => trouble,
            };
            if matches!(trouble, Trouble::Said(_)) || began.elapsed() > patience {
                return Err(trouble.failure(&format!("ask {host}, the authority, to begin {}", run.runbook), host));
            }
            if !told {
                told = true;
                output::say(&format!(
                    "{host}, the authority, does not answer; asking it again for up to {} s; start its agent",
                    patience.as_secs()
                ));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Events of a run after a number; waits for the next for a while.
    ///
    /// # Errors
    /// How the authority was silent, or what it said instead.
    pub async fn progress(&self, host: &HostName, id: &str, after: u64, wait_ms: u64) -> Result<RunProgress, Trouble> {
        let path = format!("/v1/runs/{id}?after={after}&wait_ms={wait_ms}");
        answer(self.get(host, &path).timeout(Duration::from_millis(wait_ms) + PROGRESS)).await
    }

    /// Undo a run, at the authority that carries it.
    ///
    /// # Errors
    /// When it does not answer, or refuses the request as such.
    pub async fn abort(&self, host: &HostName, id: &str, wanted: &AbortRun) -> Result<AbortAnswer, Failure> {
        let said = answer(self.post(host, &format!("/v1/runs/{id}/abort")).json(wanted)).await;
        said.map_err(|t: Trouble| t.failure(&format!("ask {host} to undo {id}"), host))
    }

    async fn runs_of(&self, authority: &HostName) -> Result<Vec<RunSummary>, Trouble> {
        answer(self.get(authority, "/v1/runs").timeout(REPORT)).await
    }

    /// Every run that an authority knows of.
    pub async fn runs(&self) -> Runs {
        let asked = self.topology.sites.iter().map(|s| async { (&s.authority, self.runs_of(&s.authority).await) });
        let mut runs = Runs { all: Vec::new(), silent: Vec::new() };
        for (authority, said) in join_all(asked).await {
            match said {
                Ok(said) => runs.all.extend(said.into_iter().map(|run| (authority.clone(), run))),
                Err(_) => runs.silent.push(authority.clone()),
            }
        }
        runs.all.sort_by(|a, b| b.1.started_at.cmp(&a.1.started_at));
        runs
    }

    /// The authority that carries a run: the first that says so, without waiting for the other.
    pub async fn carrier(&self, id: &str) -> Carrier {
        let asked = self.topology.sites.iter().map(|s| async { (&s.authority, self.runs_of(&s.authority).await) });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut silent = Vec::new();
        while let Some((authority, said)) = answers.next().await {
            match said {
                Ok(runs) if runs.iter().any(|run| run.id == id) => return Carrier::Found(authority.clone()),
                Ok(_) => {}
                Err(_) => silent.push(authority.clone()),
            }
        }
        if silent.is_empty() { Carrier::Unknown } else { Carrier::Silent(silent) }
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
            RecordAnswer::NotAuthority { message } | RecordAnswer::Refused { message } => Err(Failure::Refused(message)),
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

    /// What a host shows of itself for the check of a topology.
    ///
    /// # Errors
    /// How it was silent, or what it said instead.
    pub async fn probe(&self, host: &HostName, probe: &Probe) -> Result<Probed, Trouble> {
        answer(self.post(host, "/v1/probe").json(probe)).await
    }

    /// Let an agent open its databases although the other site has not been heard.
    ///
    /// # Errors
    /// When the agent does not answer or refuses.
    pub async fn start_alone(&self, host: &HostName) -> Outcome {
        let what = format!("let {host} start alone");
        let request = self.post(host, "/v1/without-peer");
        let response = request.send().await.map_err(|e| Trouble::Silent(silence(&e)).failure(&what, host))?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(Failure::Failed(format!("{what}: {host} answered {}", response.status())))
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

/// Tails.
impl Agents {
    /// The lines of a tail that lies on a host, one after the other. They hold secrets.
    ///
    /// # Errors
    /// When its agent does not answer or has no such tail, or `line` fails.
    pub async fn tail_lines(&self, tail: &TailReport, line: impl FnMut(&str) -> Outcome) -> Outcome {
        let what = format!("read the tail {} on {}", tail.id, tail.host);
        self.lines(&tail.host, &format!("/v1/tails/{}/{}", tail.database, tail.id), &what, line).await
    }

    /// The rooms' heads that a host has countersigned, a line each time, oldest first.
    ///
    /// # Errors
    /// When its agent does not answer or has no instance of the database, or `line` fails.
    pub async fn heads(&self, host: &HostName, database: &DatabaseName, line: impl FnMut(&str) -> Outcome) -> Outcome {
        let what = format!("read the rooms' heads that {host} has countersigned");
        self.lines(host, &format!("/v1/heads/{database}"), &what, line).await
    }

    async fn lines(&self, host: &HostName, path: &str, what: &str, mut line: impl FnMut(&str) -> Outcome) -> Outcome {
        let failed = |e: &reqwest::Error| Trouble::Silent(silence(e)).failure(what, host);
        let mut response = self.get(host, path).timeout(TAIL).send().await.map_err(|e| failed(&e))?;
        if !response.status().is_success() {
            let said = response.json::<AgentError>().await.map_or_else(|e| e.to_string(), |e| e.message);
            return Err(Failure::Failed(format!("{what}: {said}")));
        }
        let mut rest = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| failed(&e))? {
            rest.extend_from_slice(&piece);
            let Some(end) = rest.iter().rposition(|b| *b == b'\n') else { continue };
            let whole: Vec<u8> = rest.drain(..=end).collect();
            String::from_utf8_lossy(&whole).lines().try_for_each(&mut line)?;
        }
        Ok(())
    }
}

/// Sessions of an instance.
impl Agents {
    /// The sessions of the instance on a host.
    ///
    /// # Errors
    /// When its agent does not answer, or has no such instance.
    pub async fn sessions(&self, host: &HostName, database: &DatabaseName) -> Result<Vec<SessionReport>, Failure> {
        let said = answer(self.get(host, &format!("/v1/sessions/{database}"))).await;
        said.map_err(|t| t.failure(&format!("list the sessions of {database} on {host}"), host))
    }

    /// Want a chat server of a host started or stopped.
    ///
    /// # Errors
    /// How its agent was silent, or why it refused.
    pub async fn want_service(
        &self,
        host: &HostName,
        server: &ServerName,
        wanted: &WantService,
    ) -> Result<(), Trouble> {
        let request = self.post(host, &format!("/v1/services/{server}")).json(wanted);
        let response = request.send().await.map_err(|e| Trouble::Silent(silence(&e)))?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(Trouble::Said(response.json::<AgentError>().await.map_or_else(|e| e.to_string(), |e| e.message)))
    }

    /// Have the data of the instance on a host read through; what is found is in its report.
    ///
    /// # Errors
    /// When its agent does not answer, or refuses: the instance is not there, or does not run.
    pub async fn scrub(&self, host: &HostName, database: &DatabaseName) -> Result<(), Trouble> {
        let request = self.post(host, &format!("/v1/scrubs/{database}"));
        let response = request.send().await.map_err(|e| Trouble::Silent(silence(&e)))?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(Trouble::Said(response.json::<AgentError>().await.map_or_else(|e| e.to_string(), |e| e.message)))
    }

    /// End a session of the instance on a host.
    ///
    /// # Errors
    /// When its agent does not answer, or refuses: the session is not there, or not a client's.
    pub async fn end_session(&self, host: &HostName, database: &DatabaseName, spid: i32) -> Outcome {
        let url = self.url(host, &format!("/v1/sessions/{database}/{spid}"));
        let request = self.http.delete(url).bearer_auth(&self.key).timeout(ANSWER);
        let what = format!("end session {spid} of {database} on {host}");
        let response = request.send().await.map_err(|e| Trouble::Silent(silence(&e)).failure(&what, host))?;
        if response.status().is_success() {
            return Ok(());
        }
        let said = response.json::<AgentError>().await.map_or_else(|e| e.to_string(), |e| e.message);
        Err(Failure::Refused(format!("{what}: {said}")))
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

fn silence(error: &reqwest::Error) -> Silence {
    if error.is_timeout() { Silence::TimedOut } else { Silence::Refused }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Trouble> {
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

/// Drills and backups.
impl Agents {
    /// Begin something with a backup on a host.
    ///
    /// # Errors
    /// When its agent does not answer, or says why it may not begin.
    pub async fn begin_backup(&self, host: &HostName, asked: &AskBackup) -> Result<DrillReport, Failure> {
        let said = answer(self.post(host, "/v1/backups").json(asked)).await;
        said.map_err(|trouble| match trouble {
            Trouble::Said(why) => Failure::Refused(why),
            silent @ Trouble::Silent(_) => silent.failure("begin this", host),
        })
    }

    /// The backups of a host.
    ///
    /// # Errors
    /// How the host was silent, or what it said instead.
    pub async fn backups(&self, host: &HostName) -> Result<Vec<Backup>, Trouble> {
        answer(self.get(host, "/v1/backups").timeout(REPORT)).await
    }

    /// Begin a drill on a host.
    ///
    /// # Errors
    /// When its agent does not answer, or says why none may begin.
    pub async fn begin_drill(&self, host: &HostName, wanted: &StartDrill) -> Result<DrillReport, Failure> {
        let said = answer(self.post(host, "/v1/drills").json(wanted)).await;
        said.map_err(|trouble| match trouble {
            Trouble::Said(why) => Failure::Refused(why),
            silent @ Trouble::Silent(_) => silent.failure("begin a drill", host),
        })
    }

    /// Let a host keep what is told of a drill that this command carries out.
    ///
    /// # Errors
    /// When its agent does not answer, or does not keep it.
    pub async fn keep_drill(&self, host: &HostName, told: &DrillReport) -> Outcome {
        let what = format!("keep {} at {host}", told.id);
        let request = self.http.put(self.url(host, "/v1/drills")).bearer_auth(&self.key).timeout(ANSWER).json(told);
        let response = request.send().await.map_err(|e| Trouble::Silent(silence(&e)).failure(&what, host))?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(Failure::Failed(format!("{what}: {host} answered {}", response.status())))
    }

    /// The drills of a host.
    ///
    /// # Errors
    /// How the host was silent, or what it said instead.
    pub async fn drills(&self, host: &HostName) -> Result<Drills, Trouble> {
        answer(self.get(host, "/v1/drills").timeout(REPORT)).await
    }
}
