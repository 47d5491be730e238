//! Carrying blows out: whom a part means at this moment, and what is done to it.

use super::ask;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use cluster::name::{HostName, SiteName};
use cluster::record::{DatabaseRecord, PoolRecord};
use lab::disks::Disks;
use lab::protocol::{LinkState, Links};
use lab::torture::{Blow, Part, Process, Typed};
use lab::{Answer, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How long a typed command is waited for when everything runs again.
const TYPED: Duration = Duration::from_secs(120);
/// How long the load may take to end: everything that was posted is waited for.
const END_OF_LOAD: Duration = Duration::from_secs(120);
/// How long the load may take to begin.
const BEGIN_OF_LOAD: Duration = Duration::from_secs(60);
/// Where libfaketime lies.
const LIBRARIES: &str = "/usr/lib";
/// Bytes of a log file that are overwritten.
const DAMAGE: usize = 64 * 1024;

/// The lab under torture.
pub(super) struct World {
    pub context: Context,
    agents: Option<Agents>,
    disks: Option<Disks>,
    clock: Option<PathBuf>,
    load: Vec<PathBuf>,
    speed: f64,
    /// The record as it was seen last.
    record: Option<PoolRecord>,
    /// The home site when the episode began.
    home: Option<SiteName>,
    /// Commands that were typed and are not known to be over.
    typed: Vec<Child>,
    /// The host whose agent is to end at a point, while it has not.
    armed: Option<HostName>,
    frozen: BTreeSet<String>,
    clocks: BTreeSet<HostName>,
}

/// libfaketime, which lets a process see another time.
pub(super) fn clock_library() -> Option<PathBuf> {
    let folders = std::fs::read_dir(LIBRARIES).ok()?.flatten().map(|entry| entry.path().join("faketime"));
    folders.map(|folder| folder.join("libfaketime.so.1")).find(|library| library.exists())
}

impl World {
    pub(super) fn new(
        context: Context,
        disks: Option<Disks>,
        clock: Option<PathBuf>,
        load: Vec<PathBuf>,
        speed: f64,
    ) -> Self {
        Self {
            context,
            agents: None,
            disks,
            clock,
            load,
            speed,
            record: None,
            home: None,
            typed: Vec::new(),
            armed: None,
            frozen: BTreeSet::new(),
            clocks: BTreeSet::new(),
        }
    }

    /// The same once the lab is up.
    pub(super) fn opened(mut self) -> Result<Self, Failure> {
        self.agents = Some(Agents::new(&self.context.folder()?)?);
        Ok(self)
    }

    pub(super) fn agents(&self) -> Result<&Agents, Failure> {
        self.agents.as_ref().ok_or_else(|| Failure::Failed("the lab is not up yet".into()))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.context.dir
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::Failed(format!("find this program: {e}")))?;
        let mut command = Command::new(program);
        command.arg("--dir").arg(self.dir()).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// Run a command to its end.
    pub(super) async fn to_the_end(&self, arguments: &[&str]) -> Outcome {
        let failed = |why: String| Failure::Failed(format!("standfast {}: {why}", arguments.join(" ")));
        let output = self.command(arguments)?.output().await.map_err(|e| failed(e.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
    }

    /// Run a command in the background; what it says goes into a file of the lab.
    pub(super) fn in_background(&self, arguments: &[&str]) -> Result<Child, Failure> {
        let path = self.dir().join("typed.log");
        let failed = |e: std::io::Error| Failure::Failed(format!("open {}: {e}", path.display()));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let child = self.command(arguments)?.stdout(log).stderr(errors).spawn();
        child.map_err(|e| Failure::Failed(format!("standfast {}: {e}", arguments.join(" "))))
    }

    /// Remember who is who, and which site is home.
    pub(super) async fn begin_episode(&mut self) -> Outcome {
        let record = self.agents()?.record().await?;
        self.home = Some(record.home.clone());
        self.record = Some(record);
        Ok(())
    }

    async fn look(&mut self) {
        let Ok(agents) = self.agents() else { return };
        if let Some(seen) = agents.glance().await {
            self.record = Some(seen);
        }
    }

    /// The name that the lab knows a part by.
    async fn target(&mut self, part: Part) -> Result<String, String> {
        let home = self.home.clone().ok_or("no episode has begun")?;
        if part == Part::Home {
            return Ok(home.to_string());
        }
        if let Part::Witness | Part::OtherWitness = part {
            let agents = self.agents().map_err(|e| e.to_string())?;
            let mut sites = agents.topology.sites.iter();
            let site = sites.find(|s| (s.name == home) == (part == Part::Witness));
            return site.map(|s| s.authority.to_string()).ok_or_else(|| format!("{part}: there is no such site"));
        }
        self.look().await;
        let record = self.record.as_ref().and_then(|r| r.databases.values().next());
        let host = record.and_then(|d| host_of(d, part));
        host.map(ToString::to_string).ok_or_else(|| format!("nobody is {part} at the moment"))
    }

    /// The same for processes of it.
    async fn targets(&mut self, part: Part, process: Process) -> Result<String, String> {
        let target = self.target(part).await?;
        Ok(match process {
            Process::All => target,
            Process::Agent => format!("{target}/agent"),
            Process::Database => format!("{target}/postgres"),
            Process::Server => {
                let agents = self.agents().map_err(|e| e.to_string())?;
                let mut servers = agents.topology.servers.iter();
                let server = servers.find(|s| s.host.as_str() == target);
                server.map(|s| s.name.to_string()).ok_or_else(|| format!("{target} has no chat server"))?
            }
        })
    }

    async fn tell(&self, request: Request) -> Result<String, String> {
        match ask(self.dir(), &request).await? {
            Answer::Done { message } => Ok(message),
            other => Err(format!("the lab answered {other:?}")),
        }
    }

    pub(super) async fn start(&self, target: &str, env: BTreeMap<String, String>) -> Result<String, String> {
        self.tell(Request::Start { target: target.to_owned(), env, without_peer: false }).await
    }

    /// Carry a blow out; a sentence on what it struck.
    pub(super) async fn strike(&mut self, blow: &Blow) -> Result<String, String> {
        match blow {
            Blow::Kill(part, process) => {
                let target = self.targets(*part, *process).await?;
                self.tell(Request::Kill { target }).await
            }
            Blow::Freeze(part, process) => {
                let target = self.targets(*part, *process).await?;
                self.frozen.insert(target.clone());
                self.tell(Request::Freeze { target }).await
            }
            Blow::Thaw(..) => {
                // Whoever was the principal when it was frozen may not be it any more.
                let frozen = std::mem::take(&mut self.frozen);
                for target in frozen {
                    self.tell(Request::Thaw { target }).await?;
                }
                Ok("thawed what was frozen".into())
            }
            Blow::Start(part) => {
                let target = self.target(*part).await?;
                let said = self.start(&target, BTreeMap::new()).await?;
                // Who was lost may not be that part any more.
                for site in ["site-1", "site-2"] {
                    self.start(site, BTreeMap::new()).await?;
                }
                Ok(said)
            }
            Blow::Line(state) => self.tell(Request::Link { state: *state, which: Links::BetweenSites }).await,
            Blow::Links(part, state) => {
                let which = Links::OfHost(self.target(*part).await?);
                self.tell(Request::Link { state: *state, which }).await
            }
            Blow::Fill(part, leave_kb) => {
                let host = self.target(*part).await?;
                self.disks()?.fill(&host, *leave_kb).map(|()| format!("{host} has {leave_kb} KB left"))
            }
            Blow::Stall(part, ms) => {
                let host = self.target(*part).await?;
                let disks = self.disks()?;
                disks.stall(&host, Duration::from_millis(*ms)).map(|()| format!("the disk of {host} stands still"))
            }
            Blow::MakeRoom(_) | Blow::Unstall(_) => {
                self.disks()?.heal();
                Ok("the disks are well".into())
            }
            Blow::DamageShare => damage_share(self.dir()),
            Blow::DamagePage(part, place) => {
                let host = self.target(*part).await?;
                damage_page(&self.dir().join("hosts").join(host.as_str()), *place)
            }
            Blow::Clock(part, seconds) => {
                let target = self.target(*part).await?;
                self.turn_clock(&target, *seconds).await
            }
            Blow::StopAt(part, point) => {
                let host = self.target(*part).await?;
                self.tell(Request::Kill { target: host.clone() }).await?;
                let env = BTreeMap::from([("STANDFAST_FAILPOINTS".to_owned(), format!("{point}=abort"))]);
                self.start(&host, env).await?;
                self.armed = Some(host.as_str().into());
                Ok(format!("{host} is to end at {point}"))
            }
            Blow::Type(typed) => {
                let (child, words) = self.type_in(*typed).await.map_err(|e| e.to_string())?;
                self.typed.push(child);
                Ok(format!("typed {words}"))
            }
        }
    }

    fn disks(&mut self) -> Result<&mut Disks, String> {
        self.disks.as_mut().ok_or_else(|| "the lab has no disks of its own".to_owned())
    }

    async fn type_in(&mut self, typed: Typed) -> Result<(Child, String), Failure> {
        let other = match typed {
            Typed::Switch | Typed::ForcedSwitch => {
                self.look().await;
                let present = self.record.as_ref().and_then(|r| Some((r.databases.iter().next()?, r)));
                let role = present.and_then(|((name, d), _)| {
                    let topology = &self.agents().ok()?.topology;
                    topology.database(name)?.role_of(d.principal.as_ref()?)
                });
                if role == Some(cluster::topology::Role::Mirror) { "primary" } else { "mirror" }
            }
            _ => "mirror",
        };
        let words: &[&str] = match typed {
            Typed::Failover => &["failover", "--yes"],
            Typed::ForcedFailover => &["failover", "--yes", "--force"],
            Typed::Planned => &["failover", "--planned", "--yes"],
            Typed::Failback => &["failback", "--yes"],
            Typed::Switch => &["database", "failover", "--new-principal", other, "--yes"],
            Typed::ForcedSwitch => &["database", "failover", "--new-principal", other, "--force", "--yes"],
            Typed::Scrub => &["database", "scrub"],
        };
        Ok((self.in_background(words)?, words.join(" ")))
    }

    /// Let a host's processes see another time: the first time they are started anew for it, with the right time, and the
    /// clock is turned while they run.
    async fn turn_clock(&mut self, host: &str, seconds: i64) -> Result<String, String> {
        let library = self.clock.clone().ok_or("libfaketime is not installed")?;
        let file = self.dir().join(format!("clock.{host}"));
        let write = |seconds: i64| {
            let text = format!("{seconds:+}\n");
            std::fs::write(&file, text).map_err(|e| format!("write {}: {e}", file.display()))
        };
        if self.clocks.insert(host.into()) {
            write(0)?;
            self.tell(Request::Kill { target: host.to_owned() }).await?;
            let env = BTreeMap::from([
                ("LD_PRELOAD".to_owned(), library.display().to_string()),
                ("FAKETIME_TIMESTAMP_FILE".to_owned(), file.display().to_string()),
                ("FAKETIME_CACHE_DURATION".to_owned(), "1".to_owned()),
                ("DONT_FAKE_MONOTONIC".to_owned(), "1".to_owned()),
            ]);
            self.start(host, env).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        write(seconds)?;
        Ok(format!("the clocks of {host} are {seconds:+} s off"))
    }

    /// Start again what was to end at a point and has.
    pub(super) async fn tend(&mut self) {
        let Some(host) = self.armed.clone() else { return };
        let Ok(Answer::Status { processes, .. }) = ask(self.dir(), &Request::Status).await else { return };
        let gone = processes.iter().any(|p| p.host == host.as_str() && p.name == "agent" && p.pid.is_none());
        if gone && self.start(host.as_str(), BTreeMap::new()).await.is_ok() {
            self.armed = None;
        }
    }

    /// Let everything run again, and everything reach everything.
    pub(super) async fn heal(&mut self) -> Outcome {
        let failed = |why: String| Failure::Failed(format!("let everything run again: {why}"));
        if let Some(disks) = &mut self.disks {
            disks.heal();
        }
        let Answer::Status { links, .. } = ask(self.dir(), &Request::Status).await.map_err(failed)? else {
            return Err(failed("the lab does not tell how it stands".into()));
        };
        for which in links.into_iter().map(|(which, _)| which).chain([Links::BetweenSites]) {
            self.tell(Request::Link { state: LinkState::Up, which }).await.map_err(failed)?;
        }
        self.strike(&Blow::Thaw(Part::Home, Process::All)).await.map_err(failed)?;
        let again = std::mem::take(&mut self.clocks).into_iter().chain(self.armed.take());
        for host in again.collect::<Vec<_>>() {
            self.tell(Request::Kill { target: host.to_string() }).await.map_err(failed)?;
        }
        self.start_all().await.map_err(failed)?;
        self.typed_are_over().await;
        Ok(())
    }

    /// Start what does not run.
    pub(super) async fn start_all(&self) -> Result<(), String> {
        let sites = self.agents().map_err(|e| e.to_string())?.topology.sites.iter().map(|s| s.name.to_string());
        for site in sites.collect::<Vec<_>>() {
            self.start(&site, BTreeMap::new()).await?;
        }
        Ok(())
    }

    /// Wait for the commands that were typed; one that takes longer than anything may is ended, as a person would.
    async fn typed_are_over(&mut self) {
        let until = Instant::now() + TYPED;
        for mut child in std::mem::take(&mut self.typed) {
            let left = until.saturating_duration_since(Instant::now());
            // A command that only watches may be ended; how the pool stands is seen by looking at it.
            let _ = tokio::time::timeout(left, child.wait()).await;
        }
    }

    /// Begin to play the conversation into a ledger of the episode's own; returns when the first post is acknowledged.
    pub(super) async fn begin_load(&self, number: u64) -> Result<Load, Failure> {
        let ledger = self.dir().join(format!("ledger-{number}.jsonl"));
        let _ = std::fs::remove_file(&ledger);
        let speed = self.speed.to_string();
        let (path, mut words) = (ledger.display().to_string(), vec!["replay"]);
        let files: Vec<String> = self.load.iter().map(|file| file.display().to_string()).collect();
        words.extend(files.iter().map(String::as_str));
        words.extend(["--speed", &speed, "--loop", "--ledger", &path]);
        let load = Load { child: self.in_background(&words)?, ledger };
        let began = Instant::now();
        while !std::fs::read_to_string(&load.ledger).is_ok_and(|text| text.contains(r#""line":"ack""#)) {
            if began.elapsed() > BEGIN_OF_LOAD {
                return Err(Failure::Failed(format!("nothing is acknowledged in a pool that is well; see {path}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(load)
    }

    /// Leave the lab as it is: its disks stay too.
    pub(super) fn leave(mut self) {
        if let Some(disks) = self.disks.take() {
            std::mem::forget(disks);
        }
    }

    /// Stop and delete the lab.
    pub(super) async fn take_down(mut self) -> Outcome {
        let stopped = self.to_the_end(&["lab", "down"]).await;
        self.disks.take();
        self.to_the_end(&["lab", "down", "--delete"]).await?;
        stopped
    }
}

fn host_of(record: &DatabaseRecord, part: Part) -> Option<&HostName> {
    match part {
        Part::Principal => record.principal.as_ref(),
        Part::Mirror => record.mirror.as_ref().map(|m| &m.host),
        Part::Backup => record.backup.as_ref(),
        Part::BackupMirror => record.backup_mirror.as_ref(),
        Part::Witness | Part::OtherWitness | Part::Home => None,
    }
}

/// Whether a file is a whole segment of log, by its name.
fn is_segment(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Write zeros into the middle of the newest whole log file.
fn damage_share(dir: &Path) -> Result<String, String> {
    let mut files = Vec::new();
    let mut folders = vec![dir.join("share")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_segment(&path) {
                let written = entry.metadata().and_then(|m| m.modified()).map_err(|e| e.to_string())?;
                files.push((written, path));
            }
        }
    }
    let (_, newest) = files.into_iter().max().ok_or("the share holds no whole log file yet")?;
    let failed = |e: std::io::Error| format!("damage {}: {e}", newest.display());
    let mut bytes = std::fs::read(&newest).map_err(failed)?;
    let middle = bytes.len() / 2;
    let end = bytes.len().min(middle + DAMAGE);
    bytes[middle..end].fill(0);
    std::fs::write(&newest, bytes).map_err(failed)?;
    Ok(format!("damaged {}", newest.strip_prefix(dir).unwrap_or(&newest).display()))
}

/// Change a bit of a page of a host's databases, `place` thousandths into all that their relations hold.
fn damage_page(host: &Path, place: u64) -> Result<String, String> {
    let mut files = Vec::new();
    for base in std::fs::read_dir(host.join("pg")).into_iter().flatten().flatten().map(|e| e.path().join("data/base")) {
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            for file in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let is_relation = file.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
                let bytes = file.metadata().map_or(0, |m| m.len());
                if is_relation && bytes > 0 {
                    files.push((file.path(), bytes));
                }
            }
        }
    }
    files.sort();
    let mut at = files.iter().map(|(_, bytes)| bytes).sum::<u64>() * place / 1000;
    for (path, bytes) in files {
        if at >= bytes {
            at -= bytes;
            continue;
        }
        let failed = |e: std::io::Error| format!("damage {}: {e}", path.display());
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).map_err(failed)?;
        file.write_all_at(&[byte[0] ^ 0x10], at).map_err(failed)?;
        return Ok(format!("changed byte {at} of {}", path.strip_prefix(host).unwrap_or(&path).display()));
    }
    Err(format!("there are no pages below {}", host.display()))
}

/// The load of an episode.
pub(super) struct Load {
    child: Child,
    ledger: PathBuf,
}

impl Load {
    /// End it in order: what was posted is waited for. The ledger, or what was wrong.
    pub(super) async fn end(mut self) -> Result<PathBuf, String> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).map(nix::unistd::Pid::from_raw);
        if let Some(pid) = pid {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).map_err(|e| format!("end the load: {e}"))?;
        }
        match tokio::time::timeout(END_OF_LOAD, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(self.ledger),
            Ok(Ok(status)) => Err(format!("the load ended with {status}; see typed.log")),
            Ok(Err(error)) => Err(format!("wait for the load: {error}")),
            Err(_) => Err(format!(
                "posts of the load were not answered within {} s of a pool that is well",
                END_OF_LOAD.as_secs()
            )),
        }
    }
}
