//! The agent's world: this host, its databases, the other hosts, and what they have said.

use crate::backup::Shelf;
use crate::database::Database;
use crate::drill::DrillBook;
use crate::error::Error;
use crate::management_store::ManagementStore;
use crate::postgres::programs::Programs;
use crate::services::Services;
use cluster::fence::{self, Answers};
use cluster::name::{DatabaseName, HostName, ServerName, SiteName};
use cluster::record::PoolRecord;
use cluster::report::ServerReport;
use cluster::secret::{PoolSecret, Purpose};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use wire::agent::{RecordAnswer, SetRecord};

/// This host.
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Its folder.
    pub folder: PathBuf,
    /// The pool's secret.
    pub secret: PoolSecret,
    /// PostgreSQL's programs.
    pub programs: Programs,
    /// Record and topology.
    pub store: ManagementStore,
    /// Talks to other agents.
    pub http: reqwest::Client,
    /// The databases with an instance here.
    pub databases: RwLock<BTreeMap<DatabaseName, Arc<Database>>>,
    /// This program: chat servers are started with it.
    pub program: PathBuf,
    /// The chat servers of this host, and what is wanted of them.
    pub services: Services,
    /// Chat servers of this host, and when they last spoke.
    pub servers: Mutex<BTreeMap<ServerName, (ServerReport, Instant)>>,
    /// What other hosts have said since this agent started.
    pub answers: Mutex<Answers>,
    /// When each other host last answered.
    answered: Mutex<BTreeMap<HostName, Instant>>,
    /// Drills on this host.
    pub drills: DrillBook,
    /// Backups on this host.
    pub backups: Shelf,
    began: Instant,
    /// What a witness that lost its disk waits for.
    hearsay: Mutex<Option<String>>,
    changes: AtomicU64,
}

impl Host {
    /// Put the world together.
    pub fn new(
        folder: PathBuf,
        name: HostName,
        secret: PoolSecret,
        programs: Programs,
        store: ManagementStore,
        without_peer: bool,
    ) -> Result<Self, Error> {
        let mut headers = reqwest::header::HeaderMap::new();
        let bearer = format!("Bearer {}", secret.derive(Purpose::AgentApi));
        let mut value = reqwest::header::HeaderValue::from_str(&bearer).expect("hexadecimal digits fit into a header");
        value.set_sensitive(true);
        headers.insert(reqwest::header::AUTHORIZATION, value);
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .no_proxy()
            .connect_timeout(Duration::from_millis(400))
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| Error::Unfit(format!("set up the HTTP client: {error}")))?;
        let drills = DrillBook::open(&folder)?;
        let backups = Shelf::open(&folder)?;
        Ok(Self {
            drills,
            backups,
            name,
            folder,
            secret,
            programs,
            store,
            http,
            databases: RwLock::default(),
            program: std::env::current_exe().map_err(Error::file("find this program on disk"))?,
            services: Services::default(),
            servers: Mutex::default(),
            answers: Mutex::new(Answers { without_peer, ..Answers::default() }),
            answered: Mutex::default(),
            began: Instant::now(),
            hearsay: Mutex::default(),
            changes: AtomicU64::new(1),
        })
    }

    /// Something that this agent reports has changed.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts changes.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The instance of a database here.
    pub fn database(&self, name: &DatabaseName) -> Option<Arc<Database>> {
        self.databases.read().expect("nothing panics while it holds the databases").get(name).cloned()
    }

    /// Every instance here.
    pub fn all_databases(&self) -> Vec<Arc<Database>> {
        self.databases.read().expect("nothing panics while it holds the databases").values().cloned().collect()
    }

    /// Base address of another agent, as this host reaches it.
    pub fn agent_of(&self, host: &HostName) -> Option<String> {
        let topology = self.store.topology();
        topology.host(host).map(|h| format!("http://{}", h.agent.seen_by(&self.name, self.store.site())))
    }

    /// `address:port` of an instance, as this host reaches it.
    pub fn postgres_of(&self, database: &DatabaseName, host: &HostName) -> Option<String> {
        let topology = self.store.topology();
        let instance = topology.database(database)?.instance_on(host)?;
        Some(instance.postgres.seen_by(&self.name, self.store.site()).to_owned())
    }

    /// Another host has answered, whatever it said.
    pub fn answered(&self, host: &HostName) {
        self.answered.lock().expect("nothing panics while it holds the answers").insert(host.clone(), Instant::now());
    }

    /// An administrator lets this host go on without those who would have to answer.
    pub fn go_on_alone(&self) -> Result<(), Error> {
        tracing::warn!("an administrator lets this host go on without those who would have to answer");
        self.answers.lock().expect("nothing panics while it holds the answers").without_peer = true;
        self.store.is_certain()?;
        self.all_databases().iter().for_each(|d| d.wake.notify_one());
        Ok(())
    }

    /// What a witness that lost its disk waits for, for people.
    pub fn hearsay(&self) -> Option<String> {
        self.hearsay.lock().expect("nothing panics while it holds a sentence").clone()
    }

    /// Say what a witness that lost its disk waits for.
    pub fn set_hearsay(&self, what: Option<String>) {
        *self.hearsay.lock().expect("nothing panics while it holds a sentence") = what;
    }

    /// Milliseconds since a host last answered, or since this agent started if it never did.
    pub fn silent_ms(&self, host: &HostName) -> u64 {
        let answered = self.answered.lock().expect("nothing panics while it holds the answers");
        answered.get(host).unwrap_or(&self.began).elapsed().as_millis() as u64
    }

    /// The witness of this host's site, if it has one and this host is not it.
    pub fn witness(&self) -> Option<HostName> {
        let topology = self.store.topology();
        topology.site(self.store.site())?.witness().filter(|w| **w != self.name).cloned()
    }

    /// Another host has said what it knows.
    pub fn heard(&self, host: &HostName, site: &SiteName, record: PoolRecord) {
        let mut answers = self.answers.lock().expect("nothing panics while it holds the answers");
        answers.records.insert(host.clone(), (site.clone(), record));
        if !answers.without_peer {
            return;
        }
        let (topology, witness) = (self.store.topology(), self.witness());
        let other_site = topology.other_site(self.store.site()).map(|s| &s.name);
        let ask = fence::Askable { other_site, witness: witness.as_ref() };
        if self.store.record().is_some_and(|own| fence::alone_is_over(&self.name, &own, ask, &answers)) {
            tracing::warn!("those who would have to answer have answered: this host asks again after a stop");
            answers.without_peer = false;
        }
    }

    /// Forget what other hosts have said: it was before an instance stopped, and who the writer is may have changed since.
    pub fn ask_anew(&self) {
        self.answers.lock().expect("nothing panics while it holds the answers").records.clear();
    }

    /// What other hosts have said.
    pub fn answers(&self) -> Answers {
        self.answers.lock().expect("nothing panics while it holds the answers").clone()
    }

    /// Change the record at the authority of its home site.
    pub async fn change_record(&self, from: &PoolRecord, change: impl FnOnce(&mut PoolRecord)) -> Result<bool, Error> {
        let mut record = from.clone();
        change(&mut record);
        record.version = from.version + 1;
        let topology = self.store.topology();
        let Some(home) = topology.site(&from.home) else { return Ok(false) };
        let answer = if home.authority == self.name {
            self.store.swap(from.version, record)?
        } else {
            let Some(base) = self.agent_of(&home.authority) else { return Ok(false) };
            let body = SetRecord { expected_version: from.version, record: record.clone() };
            let unreachable = |e: reqwest::Error| {
                Error::Unfit(format!("the authority {} of {} does not answer: {e}", home.authority, home.name))
            };
            let response = self.http.post(format!("{base}/v1/record")).json(&body).send().await.map_err(unreachable)?;
            let answer: RecordAnswer = response.json().await.map_err(unreachable)?;
            if matches!(answer, RecordAnswer::Taken) {
                self.store.adopt(record)?;
            }
            answer
        };
        match answer {
            RecordAnswer::Taken => Ok(true),
            RecordAnswer::Conflict { newest } => {
                self.store.adopt(*newest)?;
                Ok(false)
            }
            RecordAnswer::NotAuthority { message } | RecordAnswer::Refused { message } => Err(Error::Unfit(message)),
        }
    }
}
