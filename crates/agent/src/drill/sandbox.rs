//! A failover, rehearsed on a copy: the standby is copied online, the copy follows it, and at one moment counts as all that is
//! left. It is promoted, a real chat server serves from it, somebody posts and reads, and every entry is read.

use super::Steps;
use super::client::Client;
use crate::database::Database;
use crate::error::Error;
use crate::host::Host;
use crate::one_host::{Names, OneHost, content, is_whole, new_secret};
use crate::postgres::process::Process;
use crate::postgres::rebuild::base_backup;
use cluster::report::HostReport;
use cluster::secret::ROLE_REPLICATION;
use cluster::topology_file::CONTENT_DATABASE;
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for the copy to have what its source had.
const FOLLOW_MAX: Duration = Duration::from_secs(60);

/// What the sandbox's one host, site and server are called.
const NAME: &str = "drill";

/// Where its copy is made.
pub fn fresh_data(folder: &Path) -> PathBuf {
    folder.join("pg").join(CONTENT_DATABASE).join("data.new")
}

/// The throwaway pool.
struct Sandbox(OneHost);

/// What a throwaway pool's parts are called.
pub fn names() -> Names {
    Names { pool: "drill.invalid".into(), site: NAME.into(), host: NAME.into(), server: NAME.into() }
}

/// The epoch that a throwaway pool begins.
pub fn next_epoch(host: &Host) -> Epoch {
    Epoch(host.store.record().map_or(Epoch::FIRST, |r| r.epoch).0 + 1)
}

/// What stood at the moment of the loss.
struct Moment {
    at: Instant,
    at_ms: i64,
    /// What the principal had written, and its entries; `None` when it did not answer.
    principal: Option<(Lsn, Option<u64>)>,
    /// What the standby had.
    standby: Lsn,
}

/// Rehearse; what is left in the folder afterwards is for the caller to clear away, whatever came of it.
///
/// # Errors
/// What failed, and on what: the drill has shown that a failover would have met the same.
pub async fn rehearse(host: &Host, database: &Database, folder: &Path, id: &str) -> Result<(), Error> {
    if database.name != content() {
        return Err(Error::Unfit(format!("chat servers serve from {CONTENT_DATABASE}, not from {}", database.name)));
    }
    let steps = Steps { host };
    let epoch = next_epoch(host);
    let sandbox = Sandbox(OneHost::prepare(host, folder, names(), &new_secret(), &host.secret, epoch)?);
    let source = format!("{}:{}", loopback(&database.instance.listen.0), database.instance.listen.1);
    steps.step("Copy the standby online.", base_backup(&sandbox.0.instance, &source)).await?;
    let process = steps.step("Let the copy follow its standby.", sandbox.follow(&source)).await?;
    let _server = sandbox.0.start_server()?;
    let moment = Moment::now(host, database).await?;
    steps
        .step("Take this moment for the loss, and apply what the standby has.", sandbox.apply(process, moment.standby))
        .await?;
    steps.step("Promote the copy, and begin a new epoch in it.", sandbox.promote()).await?;
    let client = Client::new(&sandbox.0.clients_at, id)?;
    let room = steps.step("Sign in, and make a room.", Box::pin(make_room(&sandbox.0, &client, id))).await?;
    steps.step("Post, and wait for the acknowledgement.", client.post(room)).await?;
    let rto_ms = moment.at.elapsed().as_millis() as u64;
    host.drills.note(|report| report.rto_ms = Some(rto_ms));
    steps.step("Read the post again.", client.read_again(room)).await?;
    let last_applied_ms = sandbox.0.last_applied_ms().await?;
    let whole = steps
        .step("Read every entry of every room, and check it against the room's chain.", sandbox.0.read_all(room))
        .await?;
    host.drills.note(|report| {
        report.rooms = whole.rooms;
        report.entries = whole.entries;
        if let Some((written, entries)) = moment.principal {
            report.rpo_entries = entries.map(|had| had.saturating_sub(whole.numbers));
            let older = last_applied_ms.map(|at| u64::try_from(moment.at_ms - at).unwrap_or(0));
            report.rpo_ms = if moment.standby >= written { Some(0) } else { older };
        }
    });
    is_whole(&whole)
}

/// An address to connect to for one to listen on.
fn loopback(listens: &str) -> &str {
    match listens {
        "0.0.0.0" | "*" | "" => "127.0.0.1",
        "::" => "[::1]",
        other => other,
    }
}

/// A room of somebody's own, in which they may post.
pub async fn make_room(pool: &OneHost, client: &Client, id: &str) -> Result<rules::id::RoomId, Error> {
    client.make_room(pool.user(id).await?).await
}

impl Moment {
    /// Now. What the principal has is asked before what the standby has, so that nothing counts as lost that was on its way.
    async fn now(host: &Host, database: &Database) -> Result<Self, Error> {
        let record = host.store.record();
        let principal = record.and_then(|r| r.databases.get(&database.name)?.principal.clone());
        let asked = async {
            let base = host.agent_of(principal.as_ref()?)?;
            let report: HostReport = host.http.get(format!("{base}/v1/report")).send().await.ok()?.json().await.ok()?;
            let instance = report.instances.get(&database.name)?;
            Some((instance.written?, instance.entries))
        };
        let principal = asked.await;
        let probe = database.probe().await;
        let gone = || Error::Unfit("the standby that is copied does not answer any more".into());
        let standby = probe.map(|p| p.written).ok_or_else(gone)?;
        Ok(Self { at: Instant::now(), at_ms: jiff::Timestamp::now().as_millisecond(), principal, standby })
    }
}

impl Sandbox {
    /// Start the copy as a standby of its source. It reads no share, and writes none: its archive command keeps nothing.
    async fn follow(&self, source: &str) -> Result<Process, Error> {
        let mut conf = self.0.instance.plain_conf();
        conf.stream_from =
            Some(self.0.instance.connection_to(source, ROLE_REPLICATION, "replication", "standfast_drill"));
        self.0.instance.configure(&conf)?;
        let process = self.0.instance.start().await?;
        self.0.instance.until_postgres_answers(process).await?;
        Ok(process)
    }

    /// Wait until the copy has applied the log up to here.
    async fn apply(&self, process: Process, up_to: Lsn) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let applied = self.0.instance.sql.probe().await.map(|p| p.applied).unwrap_or_default();
            if applied >= up_to {
                return Ok(());
            }
            if !process.is_alive() || began.elapsed() > FOLLOW_MAX {
                return Err(Error::Late {
                    what: format!("the copy: it has applied {applied} of {up_to}"),
                    seconds: began.elapsed().as_secs(),
                    hint: "see standfast log-shipping state: its source may not have the log any more".into(),
                });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn promote(&self) -> Result<(), Error> {
        let sql = &self.0.instance.sql;
        sql.promote().await?;
        sql.call_chat("begin_epoch", self.0.epoch).await?;
        self.0.let_in().await
    }
}
