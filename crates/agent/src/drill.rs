//! Drills on this host: begun, watched, kept, and cleared away whatever becomes of the agent.
//!
//! [`sandbox`] is what a drill does. It never touches the database's own instance beyond copying it online, has a folder, ports
//! and a secret of its own, archives nothing, and gives way to every run of the pool.

pub(crate) mod client;
pub(crate) mod sandbox;

use crate::error::Error;
use crate::files;
use crate::host::Host;
use crate::one_host;
use crate::postgres::process::{anybody_in, kill_those_in, running};
use cluster::drill::{Before, DrillReport, DrillStep, Drills, StartDrill, Work, refusal};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Drills that are kept.
const KEPT: usize = 50;
/// Longest wait for the processes of a killed drill to be gone.
const GONE: Duration = Duration::from_secs(20);

/// The folder of a drill, in the host's.
const FOLDER: &str = "drill";

/// Where a throwaway pool lies.
pub fn folder_of(host: &Host) -> PathBuf {
    host.folder.join(FOLDER)
}

/// The drills of a host, with their file.
pub struct DrillBook {
    path: PathBuf,
    drills: Mutex<(Drills, Instant)>,
}

impl DrillBook {
    /// Take up what was kept.
    pub fn open(host_folder: &Path) -> Result<Self, Error> {
        let path = host_folder.join("drills.json");
        let kept = files::read_json(&path).map_err(Error::file(format!("read {}", path.display())))?;
        Ok(Self { path, drills: Mutex::new((kept.unwrap_or_default(), Instant::now())) })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Drills, &mut Instant) -> T) -> T {
        let mut held = self.drills.lock().expect("nothing panics while it holds the drills");
        let (drills, since) = &mut *held;
        let value = change(drills, since);
        if let Err(error) = files::replace_json(&self.path, drills) {
            tracing::error!(path = %self.path.display(), %error, "the drills cannot be kept");
        }
        value
    }

    /// All of them, as they stand.
    pub fn all(&self) -> Drills {
        let held = self.drills.lock().expect("nothing panics while it holds the drills");
        let (mut drills, since) = held.clone();
        if let Some(drill) = &mut drills.under_way {
            drill.took_ms = since.elapsed().as_millis() as u64;
        }
        drills
    }

    /// The last drill that is over.
    pub fn last(&self) -> Option<DrillReport> {
        let held = self.drills.lock().expect("nothing panics while it holds the drills");
        held.0.past.iter().rfind(|d| d.work.is_drill() && d.over).cloned()
    }

    /// Keep what is told of a drill that is carried out elsewhere, in the place of what was told of it before.
    pub fn keep(&self, told: DrillReport) {
        self.change(|drills, _| {
            match drills.past.iter_mut().find(|d| d.id == told.id) {
                Some(kept) => *kept = told,
                None => drills.past.push(told),
            }
            let too_many = drills.past.len().saturating_sub(KEPT);
            drills.past.drain(..too_many);
        });
    }

    /// Begin one, unless another is under way.
    fn begin(&self, report: &DrillReport) -> bool {
        self.change(|drills, since| {
            let free = drills.under_way.is_none();
            if free {
                drills.under_way = Some(report.clone());
                *since = Instant::now();
            }
            free
        })
    }

    /// Change what is told of the one under way.
    fn note(&self, note: impl FnOnce(&mut DrillReport)) {
        self.change(|drills, _| drills.under_way.as_mut().map(note));
    }

    /// It is over.
    fn end(&self, came_of_it: Result<Option<String>, String>) {
        self.change(|drills, since| {
            let Some(mut report) = drills.under_way.take() else { return };
            report.took_ms = since.elapsed().as_millis() as u64;
            report.doing = None;
            report.over = true;
            (report.said, report.failed) = came_of_it.map_or_else(|why| (None, Some(why)), |said| (said, None));
            drills.past.push(report);
            let too_many = drills.past.len().saturating_sub(KEPT);
            drills.past.drain(..too_many);
        });
    }
}

/// What a drill was killed in is cleared away, and it counts as failed.
pub async fn end_of_killed(host: &Host) {
    if let Err(error) = clear_away(&folder_of(host)).await {
        tracing::error!(%error, "what a killed drill has left cannot be cleared away");
    }
    if host.drills.all().under_way.is_some() {
        host.drills.end(Err("the agent was ended meanwhile; what it had left is cleared away".into()));
    }
}

/// Kill everything that runs in the folder of a drill, and remove it.
async fn clear_away(folder: &Path) -> Result<(), Error> {
    if !folder.exists() {
        return Ok(());
    }
    let began = Instant::now();
    let program = std::env::current_exe().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
    loop {
        let servers = program.as_deref().map(|name| running(name, folder)).unwrap_or_default();
        let copying = running("pg_basebackup", &sandbox::fresh_data(folder));
        servers.iter().chain(&copying).for_each(|process| process.signal(Signal::SIGKILL));
        let data = one_host::data(folder);
        kill_those_in(&data);
        if servers.is_empty() && copying.is_empty() && !anybody_in(&data) {
            break;
        }
        if began.elapsed() > GONE {
            return Err(Error::Late {
                what: "the end of the processes of a drill".into(),
                seconds: GONE.as_secs(),
                hint: format!("see which processes work in {}", folder.display()),
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    crate::postgres::instance::remove(folder)
}

/// Begin a drill; it goes on by itself.
///
/// # Errors
/// When it may not begin, with the reason and what to do.
pub async fn begin(host: &Arc<Host>, wanted: StartDrill) -> Result<DrillReport, Error> {
    let unfit =
        |why: String| Error::Unfit(format!("a drill of {} on {} cannot begin: {why}", wanted.database, host.name));
    let database = host.database(&wanted.database).ok_or_else(|| unfit("there is no instance of it here".into()))?;
    let record = host.store.record().ok_or_else(|| unfit("the pool is not initialised".into()))?;
    let instance = database.report(host).await;
    let data = database.instance.data();
    let data_bytes = tokio::task::spawn_blocking(move || files::bytes_in(&data)).await.unwrap_or(u64::MAX);
    let under_way = host.drills.all().under_way;
    let under_way = under_way.as_ref();
    if let Some(why) = refusal(&Before { record: &record, instance: &instance, data_bytes, under_way }) {
        return Err(unfit(why));
    }
    go(host, Work::Sandbox, &wanted, async move |host, report| {
        sandbox::rehearse(&host, &database, &folder_of(&host), &report.id).await.map(|()| None)
    })
}

/// Begin some work; it goes on by itself, and what it leaves in the folder of drills is cleared away, whatever came of it.
///
/// # Errors
/// When something is under way here, or in the pool.
pub fn go<W, F>(host: &Arc<Host>, work: Work, wanted: &StartDrill, does: W) -> Result<DrillReport, Error>
where
    W: FnOnce(Arc<Host>, DrillReport) -> F + Send + 'static,
    F: Future<Output = Result<Option<String>, Error>> + Send,
{
    let unfit = |why: String| Error::Unfit(format!("a {} on {} cannot begin: {why}", work.says(), host.name));
    if let Some(run) = host.store.record().and_then(|r| r.run) {
        return Err(unfit(format!("{} is under way in the pool; begin it when that is over", run.runbook)));
    }
    let now = jiff::Timestamp::now();
    let id = format!("{}-{}", work.word(), now.strftime("%Y%m%dT%H%M%SZ"));
    let report = DrillReport::begun(id, work, wanted, host.name.clone(), now.as_millisecond());
    if !host.drills.begin(&report) {
        let under_way = host.drills.all().under_way.map(|d| d.id).unwrap_or_default();
        return Err(unfit(format!("{under_way} is under way here; begin it when that is over")));
    }
    tracing::info!(id = report.id, by = wanted.by, "begun");
    let (host, begun) = (host.clone(), report.clone());
    tokio::spawn(async move {
        let mut came_of_it = Box::pin(does(host.clone(), begun)).await.map_err(|e| e.to_string());
        if let Err(error) = clear_away(&folder_of(&host)).await {
            let before = came_of_it.err().map(|f| format!("{f}; then: ")).unwrap_or_default();
            came_of_it = Err(format!("{before}{error}"));
        }
        tracing::info!(?came_of_it, "over");
        host.drills.end(came_of_it);
        host.changed();
    });
    Ok(report)
}

/// The steps of the drill under way: each is told when it begins, and kept with its time when it is done.
pub struct Steps<'a> {
    /// Whose book they are written into.
    pub host: &'a Host,
}

impl Steps<'_> {
    /// Do one. A run that has begun in the pool comes first: the drill ends.
    pub async fn step<T>(&self, says: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.host.drills.note(|report| report.doing = Some(says.to_owned()));
        let began = Instant::now();
        let done = tokio::select! {
            done = work => done?,
            why = self.pool_needs_the_host() => return Err(Error::Unfit(why)),
        };
        let took_ms = began.elapsed().as_millis() as u64;
        self.host.drills.note(|report| {
            report.doing = None;
            report.steps.push(DrillStep { says: says.to_owned(), took_ms });
        });
        Ok(done)
    }

    /// Returns when a run is under way in the pool.
    async fn pool_needs_the_host(&self) -> String {
        let mut record = self.host.store.watch_record();
        let run = record.wait_for(|r| r.as_ref().is_some_and(|r| r.run.is_some())).await;
        let runbook = run.ok().and_then(|r| Some(r.as_ref()?.run.as_ref()?.runbook.clone())).unwrap_or_default();
        format!("{runbook} began in the pool, and this made way for it; begin it again when that is over")
    }
}
