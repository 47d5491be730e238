//! The chat servers of this host: started, watched, started again when they end, stopped when an administrator says so.
//!
//! `cluster::service` decides; here it is carried out. What is wanted, and which process was started, are on disk before
//! anything else happens (`agent/servers/<server>.json`), so an agent that was killed finds its servers again, and one that
//! was stopped stays stopped. Servers outlive their agent as its databases do. A server that somebody else has started from
//! this host's folder is taken over.

use crate::error::Error;
use crate::files;
use crate::host::Host;
use crate::postgres::process::{Process, with_arguments};
use cluster::name::ServerName;
use cluster::report::ServerReport;
use cluster::service::{self, Act, ENDS_UNTIL_TOLD, Seen, ServiceReport, Wanted};
use cluster::topology::Topology;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::Notify;

/// Time between two looks at a server's process.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A server that has not spoken for so long, in milliseconds, does not count as running: it speaks five times a second.
const HEARD_MS: u128 = 3_000;
/// The end of a server's log that is looked through for why it ended.
const LOG_TAIL_BYTES: u64 = 4_096;

/// What is remembered of a server across the agent's own death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Memory {
    wanted: Wanted,
    process: Option<Process>,
}

/// A chat server of this host.
struct Service {
    name: ServerName,
    file: PathBuf,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    memory: Memory,
    at_once: bool,
    asked_to_end: Option<Instant>,
    started: Option<Instant>,
    ended: Option<Instant>,
    ends: u32,
    /// How the last one ended that was not to end.
    why: Option<String>,
}

/// The chat servers of this host.
#[derive(Default)]
pub struct Services {
    all: Mutex<BTreeMap<ServerName, Arc<Service>>>,
}

impl Services {
    /// What is wanted of each server, and how it stands. `said` is what each told last, and when.
    pub fn report(&self, said: &BTreeMap<ServerName, (ServerReport, Instant)>) -> BTreeMap<ServerName, ServiceReport> {
        let all = self.all.lock().expect("nothing panics while it holds the services");
        all.values().map(|service| (service.name.clone(), service.report(said.get(&service.name)))).collect()
    }

    /// What a person should look at.
    pub fn waiting_for(&self) -> Vec<String> {
        let all = self.all.lock().expect("nothing panics while it holds the services");
        let told = all.values().filter_map(|service| {
            let state = service.state.lock().expect("nothing panics while it holds a service");
            let often = state.ends >= ENDS_UNTIL_TOLD && state.memory.wanted == Wanted::Started;
            let why = state.why.clone().filter(|_| often)?;
            Some(format!("{} ends again and again: {why}", service.name))
        });
        told.collect()
    }

    /// Want a server started or stopped; after this returns that survives a crash. `at_once`: its clients are not moved.
    ///
    /// # Errors
    /// When this host has no such server, or the wish cannot be written down.
    pub fn want(&self, name: &ServerName, wanted: Wanted, at_once: bool) -> Result<(), Error> {
        let all = self.all.lock().expect("nothing panics while it holds the services");
        let Some(service) = all.get(name) else {
            let known: Vec<&str> = all.keys().map(ServerName::as_str).collect();
            let known =
                if known.is_empty() { "it has none".to_owned() } else { format!("it has: {}", known.join(", ")) };
            return Err(Error::Unfit(format!("the topology puts no server '{name}' on this host; {known}")));
        };
        let mut state = service.state.lock().expect("nothing panics while it holds a service");
        service.remember(&mut state, |memory| memory.wanted = wanted)?;
        state.at_once = at_once;
        if wanted == Wanted::Started {
            // Somebody has looked: it is tried at once, whatever was before.
            (state.ends, state.ended) = (0, None);
        }
        tracing::info!(server = %name, ?wanted, at_once, "wanted by an administrator");
        drop(state);
        service.wake.notify_one();
        Ok(())
    }
}

/// Look after each server that the topology puts on this host, and stop those that it does not have any more.
pub fn take_up(host: &Arc<Host>, topology: &Topology) {
    let mut all = host.services.all.lock().expect("nothing panics while it holds the services");
    for server in topology.servers.iter().filter(|s| s.host == host.name) {
        if all.contains_key(&server.name) {
            continue;
        }
        match Service::open(&host.folder, &server.name) {
            Ok(service) => {
                let service = Arc::new(service);
                all.insert(server.name.clone(), service.clone());
                tokio::spawn(keep(host.clone(), service));
            }
            Err(error) => tracing::error!(server = %server.name, %error, "cannot look after this server"),
        }
    }
}

/// Hold a server to what is wanted, until the topology does not have it on this host any more.
async fn keep(host: Arc<Host>, service: Arc<Service>) {
    let mut told = String::new();
    loop {
        let here = host.store.topology().server(&service.name).is_some_and(|s| s.host == host.name);
        match service.round(&host, here) {
            Ok(Act::Rest) if !here && !service.runs() => break,
            Ok(act) => {
                if act != Act::Rest {
                    host.changed();
                }
                told.clear();
            }
            Err(error) => {
                let text = error.to_string();
                if text != told {
                    tracing::error!(server = %service.name, error = %text, "cannot do what is wanted of this server");
                    service.state.lock().expect("nothing panics while it holds a service").why = Some(text.clone());
                    told = text;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = service.wake.notified() => {}
        }
    }
    tracing::info!(server = %service.name, "the topology has this server here no more");
    let mut all = host.services.all.lock().expect("nothing panics while it holds the services");
    all.remove(&service.name);
    // What was wanted of it is over: a server of this name that comes later is a new one.
    let _ = std::fs::remove_file(&service.file);
}

impl Service {
    fn open(folder: &Path, name: &ServerName) -> Result<Self, Error> {
        let file = folder.join("agent/servers").join(format!("{name}.json"));
        let memory: Option<Memory> =
            files::read_json(&file).map_err(Error::file(format!("read {}", file.display())))?;
        let mut memory = memory.unwrap_or_default();
        // One that ended while nobody looked, as with its whole host, has not failed.
        memory.process = memory.process.filter(Process::is_alive);
        let state = State { memory, ..State::default() };
        Ok(Self { name: name.clone(), file, state: Mutex::new(state), wake: Notify::new() })
    }

    fn remember(&self, state: &mut State, change: impl FnOnce(&mut Memory)) -> Result<(), Error> {
        let mut next = state.memory;
        change(&mut next);
        if next != state.memory {
            files::replace_json(&self.file, &next).map_err(Error::file(format!("write {}", self.file.display())))?;
            state.memory = next;
        }
        Ok(())
    }

    fn runs(&self) -> bool {
        let state = self.state.lock().expect("nothing panics while it holds a service");
        state.memory.process.is_some_and(|p| p.is_alive())
    }

    fn report(&self, said: Option<&(ServerReport, Instant)>) -> ServiceReport {
        let state = self.state.lock().expect("nothing panics while it holds a service");
        let process = state.memory.process.filter(Process::is_alive);
        let since = state.started;
        // What an earlier process said does not count for this one.
        let speaks = said.is_some_and(|(_, at)| at.elapsed().as_millis() < HEARD_MS && since.is_none_or(|s| *at > s));
        ServiceReport {
            wanted: state.memory.wanted,
            status: service::status(state.memory.wanted, process.is_some(), speaks),
            pid: process.map(|p| p.pid),
            ended: state.why.clone(),
        }
    }

    /// One look, and what it asks for.
    fn round(self: &Arc<Self>, host: &Arc<Host>, here: bool) -> Result<Act, Error> {
        let speaks = host.servers.lock().expect("nothing panics while it holds the servers").get(&self.name).cloned();
        let speaks = speaks.is_some_and(|(_, at)| at.elapsed().as_millis() < HEARD_MS);
        let mut state = self.state.lock().expect("nothing panics while it holds a service");
        let wanted = if here { state.memory.wanted } else { Wanted::Stopped };
        let mut runs = state.memory.process.is_some_and(|p| p.is_alive());
        if !runs {
            if state.memory.process.is_some() {
                self.has_ended(host, &mut state, wanted)?;
            }
            // Before one is started, or counted as stopped: somebody may have started it by hand.
            let sought = wanted == Wanted::Started || speaks;
            if let Some(process) = sought.then(|| started_by_hand(&host.folder, &self.name)).flatten() {
                tracing::info!(server = %self.name, pid = process.pid, "taking over a server that runs");
                self.remember(&mut state, |memory| memory.process = Some(process))?;
                runs = true;
            }
        }
        let since = |at: Option<Instant>| at.map(|at| at.elapsed().as_millis() as u64);
        let seen =
            Seen { runs, asked_to_end_ms: since(state.asked_to_end), ended_ms: since(state.ended), ends: state.ends };
        let act = service::act(wanted, state.at_once, &seen);
        match act {
            Act::Rest => {}
            Act::Start => self.start(host, &mut state)?,
            Act::AskToEnd => {
                tracing::info!(server = %self.name, "asking the server to end");
                state.asked_to_end = Some(Instant::now());
                signal(&state, Signal::SIGTERM);
            }
            Act::Kill => {
                tracing::warn!(server = %self.name, "ending the server at once");
                signal(&state, Signal::SIGKILL);
            }
        }
        Ok(act)
    }

    fn start(self: &Arc<Self>, host: &Arc<Host>, state: &mut State) -> Result<(), Error> {
        let path = log_of(&host.folder, &self.name);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(Error::file(format!("open {}", path.display())))?;
        let errors = log.try_clone().map_err(Error::file(format!("open {}", path.display())))?;
        let mut command = Command::new(&host.program);
        command.args(["serve", "--server", self.name.as_str(), "--dir"]).arg(&host.folder);
        // Its own process group: a signal to the agent's terminal is not meant for it.
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0).kill_on_drop(false);
        let mut child = command.spawn().map_err(Error::file(format!("start {}", host.program.display())))?;
        let process = child.id().and_then(Process::of);
        state.started = Some(Instant::now());
        (state.asked_to_end, state.at_once) = (None, false);
        tracing::info!(server = %self.name, pid = child.id(), "started");
        let service = self.clone();
        tokio::spawn(async move {
            // Its end is collected here, so that it never stays as a zombie.
            let _ = child.wait().await;
            service.wake.notify_one();
        });
        // A server that was started and not noted down is found by its arguments.
        self.remember(state, |memory| memory.process = process)
    }

    fn has_ended(&self, host: &Host, state: &mut State, wanted: Wanted) -> Result<(), Error> {
        self.remember(state, |memory| memory.process = None)?;
        let asked = state.asked_to_end.take().is_some() || wanted == Wanted::Stopped;
        let ran_ms = state.started.map_or(0, |at| at.elapsed().as_millis() as u64);
        state.at_once = false;
        state.ended = Some(Instant::now());
        if asked {
            (state.ends, state.why) = (0, None);
            tracing::info!(server = %self.name, "stopped");
            return Ok(());
        }
        state.ends = service::ends_after(state.ends, ran_ms);
        let log = log_of(&host.folder, &self.name);
        let said = last_line(&log).map_or(String::new(), |line| format!("\"{line}\"; "));
        let why = format!("it ended by itself after {:.1} s: {said}see {}", ran_ms as f64 / 1_000.0, log.display());
        tracing::warn!(server = %self.name, ends = state.ends, why, "the server has ended");
        state.why = Some(why);
        Ok(())
    }
}

fn signal(state: &State, signal: Signal) {
    if let Some(process) = state.memory.process {
        process.signal(signal);
    }
}

/// A server of this name that runs from this host's folder, whoever started it.
fn started_by_hand(folder: &Path, name: &ServerName) -> Option<Process> {
    let wanted = [Path::new("serve"), Path::new(name.as_str()), folder];
    with_arguments(&wanted).into_iter().next()
}

fn log_of(folder: &Path, name: &ServerName) -> PathBuf {
    folder.join(format!("{name}.log"))
}

/// The last line of a log, without colours.
fn last_line(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES))).ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
