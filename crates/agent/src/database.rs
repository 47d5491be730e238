//! One database on this host: its instance, the agent's memory of it, and what is being done with it.
//!
//! Whoever changes the instance holds `work`: the reconciler for a moment at a time, an order for as long as it takes.
//! Reports never wait for it.

use crate::bucket::{Bucket, OpenedWith, Shipping};
use crate::error::Error;
use crate::host::Host;
use crate::jobs::Jobs;
use crate::log_on_disk::{LogOnDisk, log_in};
use crate::postgres::conf::Conf;
use crate::postgres::copy::{CopyDestination, CopyJob, Has};
use crate::postgres::instance::{Instance, volume};
use crate::postgres::process::{Process, first_in};
use crate::postgres::receive::Receive;
use crate::postgres::share::{Share, WriterPlaces};
use crate::postgres::share_folder::Folder;
use crate::postgres::sql::{ChatProbe, Probe};
use crate::rejoin::Rejoin;
use crate::state_file::{State, StateFile};
use crate::tail;
use cluster::alert::Alert;
use cluster::fence::MayOpen;
use cluster::goal::{Goal, goal};
use cluster::name::{DatabaseName, HostName};
use cluster::order::{Outcome, Stamp};
use cluster::record::PoolRecord;
use cluster::report::{
    BackupReport, CleanStop, FollowsFrom, InstanceReport, InstanceState, ShippingReport, TailReport,
};
use cluster::shipping_settings::LogShipping;
use cluster::topology::{HoldBack, PartnerTimeout};
use cluster::wal::Lsn;
use nix::sys::signal::Signal;
use rules::id::Epoch;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// How old a look at what the share has may be in a report.
const SHARE_AGE: Duration = Duration::from_secs(1);

/// How old a look at the log on disk may be in a report: its folder has hundreds of files, and whoever asks for reports asks all
/// hosts at once.
const LOG_AGE: Duration = Duration::from_secs(1);

/// How old a count of entries may be in a report.
const COUNT_AGE: Duration = Duration::from_millis(200);

/// One database on this host.
pub struct Database {
    /// Its name.
    pub name: DatabaseName,
    /// Its instance.
    pub instance: Instance,
    /// Held by whoever changes the instance.
    pub work: tokio::sync::Mutex<Work>,
    /// Wakes the reconciler.
    pub wake: Notify,
    /// Somebody wants its data read through.
    pub scrub_asked: Notify,
    /// The stamp of the order that is being carried out in this process.
    pub executing: watch::Sender<Option<Stamp>>,
    /// The history of its backup, copy and restore jobs.
    pub jobs: Jobs,
    state: Mutex<StateFile>,
    seen: Mutex<Seen>,
    /// The canaries that are applied here.
    canaries: crate::canaries::Watch,
    /// The tails that lie here.
    tails: Mutex<Vec<TailReport>>,
    /// The share, where it is in a bucket.
    bucket: Mutex<Option<Arc<Bucket>>>,
}

/// What the reconciler keeps between two looks.
pub struct Work {
    /// The copy job of a backup.
    pub copy: CopyJob,
    /// Where it copies to.
    pub destination: CopyDestination,
    /// When the copy job last ran.
    pub copied_at: Option<Instant>,
    /// The program that ships the log while it is written, while this host ships.
    pub receive: Receive,
    /// Since when PostgreSQL has been configured without a stream.
    pub stream_off_since: Option<Instant>,
    /// Since when the stream has been down.
    pub stream_down_since: Option<Instant>,
    /// Whether the source of the stream took a connection, and when that was tried.
    pub reached: Option<(bool, Instant)>,
    /// When the mirror was last heard.
    pub mirror_seen: Option<Instant>,
    /// Its last reply: another one shows that it has been heard again.
    pub mirror_reply: Option<String>,
    /// Since when this pair is watched, and which.
    pub watching: Option<(HostName, Instant)>,
    /// When the share was last trimmed.
    pub trimmed_at: Option<Instant>,
    /// How the backup job of a principal stands.
    pub ships: crate::shipper::Standing,
    /// How the restore job of a backup stands.
    pub restores: crate::feed::Standing,
    /// Whether "synchronised" may have been asked for without an answer: so it is after a start, when nobody knows.
    pub unanswered: bool,
    /// Whether the other hosts are being asked who the writer is, since the instance was last seen running.
    pub asking: bool,
    /// What is seen of a standby that cannot follow.
    pub rejoin: Rejoin,
    /// Whether the chat servers have been let see the standbys of this writer, since it was last seen running.
    pub standbys_seen: bool,
    /// The epoch whose folder in the share has been given what older writers may not have shipped.
    pub chain_begun: Option<Epoch>,
    /// The mirror that was last written into the configuration; PostgreSQL may need a moment to take it.
    pub wait_for_set: Option<Option<HostName>>,
}

/// What reports are made from, beside fresh looks.
#[derive(Default)]
struct Seen {
    doing: Option<String>,
    waiting_for: Option<String>,
    /// What the mirror's lookout says.
    lookout: Option<String>,
    /// Which pages are damaged, and what becomes of that.
    damage: Option<String>,
    shipping: Option<ShippingReport>,
    share_in_order_at: Option<Instant>,
    chat: Option<(ChatProbe, Instant)>,
    clean_stop: Option<CleanStop>,
    /// It was shut down, and its processes may still be on their way out.
    goes_out: bool,
    /// How a writer's log goes into the share.
    backup_job: Option<BackupReport>,
    /// From where a stopped standby needs the log.
    follows_from: Option<Lsn>,
    /// Up to where the share has it, and when that was looked up.
    share_reaches: Option<(Lsn, Instant)>,
    /// The log on disk, and when it was looked at.
    log: Option<(LogOnDisk, Instant)>,
    /// Numbers of alerts that stand.
    alerts: Vec<u32>,
    growth: Option<(u64, Instant)>,
    full_in_s: Option<u64>,
}

impl Database {
    /// A database in its host's folder.
    pub fn new(host: &Host, name: &DatabaseName, listen: (String, u16)) -> Result<Self, Error> {
        let instance = Instance::new(&host.folder, &host.name, name, listen, host.programs.clone(), &host.secret);
        let work = Work {
            copy: CopyJob::default(),
            destination: CopyDestination::new(instance.copied())?,
            copied_at: None,
            receive: Receive::default(),
            stream_off_since: None,
            stream_down_since: None,
            reached: None,
            mirror_seen: None,
            mirror_reply: None,
            watching: None,
            trimmed_at: None,
            ships: crate::shipper::Standing::default(),
            restores: crate::feed::Standing::default(),
            wait_for_set: None,
            unanswered: true,
            asking: false,
            rejoin: Rejoin::default(),
            standbys_seen: false,
            chain_begun: None,
        };
        let mut state = StateFile::open(&host.folder, name)?;
        // Whoever waits for an order that a killed agent was carrying out learns that it has to be given again.
        state.change(|s| {
            if let Some(order) = s.order.as_mut().filter(|o| matches!(o.outcome, Outcome::Running { .. })) {
                let message = "the agent was started again while it carried this out; it is to be given again".into();
                order.outcome = Outcome::Failed { message };
            }
        })?;
        // An agent that was killed between starting a postmaster and noting it has left one that nobody knows of.
        if state.get().postmaster.is_none_or(|p| !p.is_alive()) {
            let found = first_in(&instance.data());
            state.change(|s| s.postmaster = found)?;
        }
        tail::let_go_of_log(&instance);
        Ok(Self {
            name: name.clone(),
            state: Mutex::new(state),
            work: tokio::sync::Mutex::new(work),
            wake: Notify::new(),
            scrub_asked: Notify::new(),
            executing: watch::Sender::new(None),
            jobs: Jobs::open(&host.folder, name)?,
            bucket: Mutex::default(),
            seen: Mutex::default(),
            canaries: crate::canaries::Watch::new(),
            tails: Mutex::new(tail::kept(&instance)),
            instance,
        })
    }

    /// The agent's memory of the instance.
    pub fn state(&self) -> State {
        self.state.lock().expect("nothing panics while it holds the state").get().clone()
    }

    /// Change the memory, durably.
    pub fn remember(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        self.state.lock().expect("nothing panics while it holds the state").change(change)
    }

    fn seen<T>(&self, with: impl FnOnce(&mut Seen) -> T) -> T {
        with(&mut self.seen.lock().expect("nothing panics while it holds what was seen"))
    }

    /// The tails that lie here.
    pub fn tails(&self) -> Vec<TailReport> {
        self.tails.lock().expect("nothing panics while it holds the tails").clone()
    }

    /// Look again which tails lie here.
    pub fn look_for_tails(&self) {
        *self.tails.lock().expect("nothing panics while it holds the tails") = tail::kept(&self.instance);
    }

    /// Say what is being done, for people.
    pub fn doing(&self, what: Option<&str>) {
        self.seen(|s| s.doing = what.map(str::to_owned));
    }

    /// Say what holds the agent back, for people.
    pub fn waits_for(&self, what: Option<String>) {
        self.seen(|s| s.waiting_for = what);
    }

    /// Say what the mirror's lookout sees, for people.
    pub fn lookout(&self, what: Option<String>) {
        self.seen(|s| s.lookout = what);
    }

    /// Say which pages are damaged, and what becomes of that, for people.
    pub fn damage(&self, what: Option<String>) {
        self.seen(|s| s.damage = what);
    }

    /// What holds the agent back, what its lookout sees, and what is damaged.
    pub fn waiting_for(&self) -> Vec<String> {
        self.seen(|s| s.waiting_for.iter().chain(&s.lookout).chain(&s.damage).cloned().collect())
    }

    /// Say how the log arrives.
    pub fn shipping(&self, report: Option<ShippingReport>, share_in_order: bool) {
        self.seen(|s| {
            if share_in_order {
                s.share_in_order_at = Some(Instant::now());
            }
            s.shipping = report;
        });
    }

    /// How the log arrived at the last look.
    pub fn last_shipping(&self) -> Option<ShippingReport> {
        self.seen(|s| s.shipping.clone())
    }

    /// Say how the log goes into the share.
    pub fn backup_job(&self, report: Option<BackupReport>) {
        self.seen(|s| s.backup_job = report);
    }

    /// How the log went into the share at the last look.
    pub fn last_backup_job(&self) -> Option<BackupReport> {
        self.seen(|s| s.backup_job.clone())
    }

    /// What a stopped standby needs to follow again. The share is looked at once a second at most.
    fn follows_from(&self, host: &Host) -> Option<FollowsFrom> {
        let (from, known) = self.seen(|s| (s.follows_from, s.share_reaches));
        let from = from?;
        let share_reaches = if let Some((reaches, _)) = known.filter(|(_, at)| at.elapsed() < SHARE_AGE) {
            reaches
        } else {
            let reaches = self.share(host).and_then(|share| share.reaches(from).ok()).unwrap_or(from);
            self.seen(|s| s.share_reaches = Some((reaches, Instant::now())));
            reaches
        };
        Some(FollowsFrom { from, share_reaches })
    }

    /// The postmaster, if it is alive.
    pub fn running(&self) -> Option<Process> {
        self.state().postmaster.filter(Process::is_alive)
    }

    /// Start the instance with this configuration, and remember the postmaster before anything else is done.
    pub async fn start(&self, conf: &Conf) -> Result<Process, Error> {
        self.instance.prepare_folders()?;
        self.instance.configure(conf)?;
        let process = self.instance.start().await?;
        self.remember(|s| s.postmaster = Some(process))?;
        self.seen(|s| s.clean_stop = None);
        Ok(process)
    }

    /// Stop the instance if it runs, and note where it ends if the stop was clean.
    pub async fn stop(&self, signal: Signal) -> Result<(), Error> {
        if let Some(process) = self.running() {
            self.instance.stop(process, signal).await?;
        } else if self.seen(|s| std::mem::take(&mut s.goes_out)) {
            self.instance.until_nobody_is_left().await?;
        }
        self.remember(|s| s.postmaster = None)?;
        self.note_clean_stop().await
    }

    /// Shut a writer down that is open, and note where it ends. Its processes may still be on their way out; that there is no postmaster any
    /// more is left for the caller to remember, with what it does about it.
    pub async fn shut_down(&self) -> Result<(), Error> {
        if let Some(process) = self.running() {
            self.seen(|s| s.goes_out = true);
            self.instance.shut_down(process).await?;
        }
        self.note_end(true).await
    }

    /// Let a writer end at once. Its processes may still be on their way out, and that is for the caller to remember, as above.
    pub async fn quit(&self) {
        if let Some(process) = self.running() {
            self.seen(|s| s.goes_out = true);
            self.instance.quit(process).await;
        }
    }

    /// Look up where a stopped instance ends.
    pub async fn note_clean_stop(&self) -> Result<(), Error> {
        self.note_end(self.running().is_none()).await
    }

    async fn note_end(&self, stopped: bool) -> Result<(), Error> {
        let stopped = stopped && self.instance.has_data();
        let end = if stopped { self.instance.clean_stop().await? } else { None };
        let follows_from = if stopped { self.instance.follows_from().await? } else { None };
        self.seen(|s| {
            s.clean_stop = end;
            s.follows_from = follows_from;
            s.share_reaches = None;
        });
        Ok(())
    }

    /// Where the stopped instance ends, if its last stop was clean.
    pub fn clean_stop(&self) -> Option<CleanStop> {
        self.seen(|s| s.clean_stop)
    }

    /// Let a running instance take a changed configuration.
    pub fn reload(&self, conf: &Conf) -> Result<bool, Error> {
        let changed = self.instance.configure(conf)?;
        if changed && let Some(process) = self.running() {
            process.signal(Signal::SIGHUP);
        }
        Ok(changed)
    }

    /// How log shipping is set up, if the topology has it for this database.
    pub fn settings(&self, host: &Host) -> Option<LogShipping> {
        host.store.topology().database(&self.name)?.log_shipping.clone()
    }

    /// What the restore job holds back on this host; nothing while an order says so.
    pub fn hold_back(&self, host: &Host) -> HoldBack {
        let at_once = self.state().applies_at_once_in;
        if at_once.is_some() && at_once == host.store.record().map(|r| r.epoch) {
            return HoldBack::default();
        }
        host.store.topology().database(&self.name).map_or_else(HoldBack::default, |d| d.hold_back(&host.name))
    }

    /// The share, if the topology has one for this database.
    pub fn share(&self, host: &Host) -> Option<Share> {
        self.usable_share(host)?.ok()
    }

    /// The same, with the fault where it cannot be used at all: a bucket whose key is not here.
    pub fn usable_share(&self, host: &Host) -> Option<Result<Share, Error>> {
        let settings = self.settings(host)?;
        if !settings.is_bucket() {
            return Some(Ok(Share::Folder(Folder::new(&settings.share, &self.name))));
        }
        let mut bucket = self.bucket.lock().expect("nothing panics while it holds the bucket");
        let now = OpenedWith::now(&settings, &host.folder);
        if let Some(bucket) = bucket.as_ref().filter(|bucket| bucket.is_opened_with(&now)) {
            return Some(Ok(Share::Bucket(bucket.clone())));
        }
        let folder = self.instance.folder.join("share");
        let opened = Bucket::open(&host.name, &host.folder, &settings, &self.name, folder, &host.programs);
        let opened = opened.map_err(|cause| Error::Share { what: format!("use the share {}", settings.share), cause });
        Some(opened.map(|opened| {
            *bucket = Some(opened.clone());
            Share::Bucket(opened)
        }))
    }

    /// Nothing is shipped from here.
    pub fn ships_nothing(&self) {
        if let Some(bucket) = self.bucket.lock().expect("nothing panics while it holds the bucket").as_ref() {
            bucket.ship(None);
        }
    }

    /// Nothing is copied from the share to here.
    pub fn copies_nothing(&self) {
        if let Some(bucket) = self.bucket.lock().expect("nothing panics while it holds the bucket").as_ref() {
            bucket.copy(None);
        }
    }

    /// What a writer of an epoch here has to be shipped.
    pub fn shipping_in(&self, host: &Host, epoch: Epoch) -> Option<Shipping> {
        let older_than = self.settings(host)?.delete_older_than.duration();
        Some(Shipping { epoch, pg_wal: self.instance.data().join("pg_wal"), older_than })
    }

    /// Note which alert stands; one that was not there before goes into the log.
    pub fn alert(&self, number: u32, alert: Option<&Alert>) {
        let stood = self.seen(|s| {
            let stood = s.alerts.contains(&number);
            s.alerts.retain(|n| *n != number);
            s.alerts.extend(alert.map(|_| number));
            stood
        });
        match alert {
            Some(alert) if !stood => {
                tracing::error!(database = %self.name, number, severity = alert.severity, "{}", alert.text);
            }
            None if stood => tracing::info!(database = %self.name, number, "the alert is over"),
            _ => {}
        }
    }

    /// Where a writer of the record's epoch ships to; the fault where the share does not take it.
    pub fn writer_places(&self, host: &Host, record: &PoolRecord) -> Option<Result<WriterPlaces, Error>> {
        let share = self.share(host)?;
        share.ship(self.shipping_in(host, record.epoch));
        Some(share.writer_places(record.epoch, &host.programs))
    }

    /// What a standby has, so that nothing is offered to it that holds less.
    pub fn has(&self, probe: &Probe) -> Has {
        Has {
            wal: self.instance.data().join("pg_wal"),
            end: probe.applied.max(probe.received.unwrap_or_default()),
            applied: probe.applied,
            redo: probe.redo,
        }
    }

    /// Look at the instance, if it runs, and not only to be read.
    pub async fn probe(&self) -> Option<Probe> {
        self.running().filter(|_| self.state().being_read.is_none())?;
        self.instance.sql.probe().await.ok()
    }

    /// How long a partner of the mirror pair may be silent.
    pub fn partner_timeout(&self, host: &Host) -> PartnerTimeout {
        let topology = host.store.topology();
        topology.database(&self.name).map(|d| d.partner_timeout).unwrap_or_default()
    }

    /// How the instance stands, given what a look showed.
    pub fn standing(&self, host: &Host, probe: Option<&Probe>) -> InstanceState {
        if let Some(probe) = probe {
            return if probe.in_recovery { InstanceState::Standby } else { InstanceState::Online };
        }
        if self.running().is_some() || (self.executing.borrow().is_some() && self.seen(|s| s.doing.is_some())) {
            return InstanceState::Busy;
        }
        if !self.instance.has_data() {
            return InstanceState::Absent;
        }
        let state = self.state();
        let Some(record) = host.store.record() else { return InstanceState::Stopped };
        match goal(&record, &self.name, &host.name) {
            Goal::Principal { .. } if state.handed_over.is_some_and(|e| e > record.epoch) => InstanceState::Stopped,
            Goal::Principal { .. } if self.instance.is_standby() => InstanceState::Stopped,
            Goal::Principal { .. } => match self.may_open(host, &record) {
                MayOpen::Open => InstanceState::Stopped,
                MayOpen::Ask { .. } | MayOpen::NoQuorum { .. } => InstanceState::AskingPeer,
                MayOpen::LeftBehind { .. } => InstanceState::LeftBehind,
            },
            Goal::Standby { .. } if self.instance.is_standby() => InstanceState::Stopped,
            Goal::Standby { .. } | Goal::Idle if state.is_overruled_by(record.epoch) => InstanceState::LeftBehind,
            Goal::Standby { .. } if state.handed_over.is_some() => InstanceState::Stopped,
            Goal::Standby { .. } => InstanceState::LeftBehind,
            Goal::Idle if state.history_epoch.max(state.handed_over) >= Some(record.epoch) => InstanceState::Stopped,
            Goal::Idle => InstanceState::LeftBehind,
        }
    }

    /// Report on the instance, with a fresh look.
    pub async fn report(&self, host: &Host) -> InstanceReport {
        let probe = self.probe().await;
        let state = self.standing(host, probe.as_ref());
        let chat = if probe.is_some() { self.chat().await } else { ChatProbe::default() };
        let is_standby = probe.as_ref().is_some_and(|p| p.in_recovery);
        let canaries = self.canaries.look(host, &self.instance.sql, is_standby).await;
        let log = self.log_on_disk();
        let follows_from = if self.running().is_none() { self.follows_from(host) } else { None };
        let free_bytes = volume(&self.instance.folder).map_or(0, |v| v.1);
        let memory = self.state();
        let (doing, shipping, backup_job, shut_down_at, full_in_s) = self.seen(|s| {
            s.note_growth(free_bytes);
            let mut shipping = s.shipping.clone();
            if let Some(shipping) = &mut shipping {
                shipping.share_age_ms = s.share_in_order_at.map(|at| at.elapsed().as_millis() as u64);
                shipping.share_epoch = memory.share_epoch;
                if let Some(probe) = &probe {
                    shipping.streaming = probe.streaming;
                }
            }
            (s.doing.clone(), shipping, s.backup_job.clone(), s.clean_stop, s.full_in_s)
        });
        InstanceReport {
            state,
            timeline: probe.as_ref().map(|p| p.timeline),
            written: probe.as_ref().map(|p| p.written),
            applied: probe.as_ref().map(|p| p.applied),
            entries: chat.entries,
            database_epoch: chat.epoch,
            disk_categories: chat.disk_categories,
            synchronous: probe.as_ref().map(|p| p.synchronous.clone()).unwrap_or_default(),
            receivers: probe.as_ref().map(|p| p.receivers.clone()).unwrap_or_default(),
            shipping,
            backup_job: backup_job.filter(|_| state == InstanceState::Online),
            kept_from: log.oldest.filter(|_| probe.is_some()),
            follows_from,
            wal_bytes: log.bytes,
            free_bytes,
            full_in_s,
            sessions: probe.as_ref().map_or(0, |p| p.sessions),
            shut_down_at: shut_down_at.filter(|_| probe.is_none()),
            doing,
            canaries,
            scrub: memory.scrub,
        }
    }

    /// The log on disk; the look may be a moment old.
    fn log_on_disk(&self) -> LogOnDisk {
        if let Some((log, _)) = self.seen(|s| s.log).filter(|(_, at)| at.elapsed() < LOG_AGE) {
            return log;
        }
        let log = log_in(&self.instance.data().join("pg_wal"));
        self.seen(|s| s.log = Some((log, Instant::now())));
        log
    }

    /// The chat schema's figures; the count of entries may be a moment old.
    pub async fn chat(&self) -> ChatProbe {
        if let Some((chat, at)) = self.seen(|s| s.chat)
            && at.elapsed() < COUNT_AGE
        {
            return chat;
        }
        let chat = self.instance.sql.probe_chat().await.unwrap_or_default();
        self.seen(|s| s.chat = Some((chat, Instant::now())));
        chat
    }

    /// What was counted belongs to another epoch or instance.
    pub fn forget_count(&self) {
        self.seen(|s| s.chat = None);
    }
}

impl Seen {
    /// Seconds until the volume is full, from how it fills over at least ten seconds.
    fn note_growth(&mut self, free_bytes: u64) {
        match self.growth {
            None => self.growth = Some((free_bytes, Instant::now())),
            Some((before, at)) if at.elapsed() >= Duration::from_secs(10) => {
                let filled_per_s = before.saturating_sub(free_bytes) as f64 / at.elapsed().as_secs_f64();
                self.full_in_s = (filled_per_s > 1.0).then(|| (free_bytes as f64 / filled_per_s) as u64);
                self.growth = Some((free_bytes, Instant::now()));
            }
            Some(_) => {}
        }
    }
}
