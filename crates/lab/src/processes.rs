//! Real processes, found and killed by pid and start time, with everything below them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// Parent, start time and state of every process. One whose first thread is over while others still end is not gone: it
/// holds its ports.
fn table() -> BTreeMap<i32, (i32, u64, char)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let rest = text.rsplit_once(')')?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let state = fields.first()?.chars().next()?;
        let threads: u32 = fields.get(17)?.parse().ok()?;
        let state = if state == 'Z' && threads > 1 { 'D' } else { state };
        Some((pid, (fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?, state)))
    })
    .collect()
}

/// Whether the process with this pid and start time runs.
pub fn runs(pid: i32, start: u64) -> bool {
    table().get(&pid).is_some_and(|(_, s, state)| *s == start && *state != 'Z')
}

/// The start time of a process.
pub fn start_of(pid: i32) -> Option<u64> {
    table().get(&pid).filter(|(_, _, state)| *state != 'Z').map(|(_, start, _)| *start)
}

/// These processes and everything below them.
pub fn with_descendants(roots: &[i32]) -> BTreeSet<i32> {
    let table = table();
    let mut all: BTreeSet<i32> = roots.iter().copied().filter(|pid| table.contains_key(pid)).collect();
    loop {
        let more: Vec<i32> = table
            .iter()
            .filter(|(pid, (ppid, _, _))| all.contains(ppid) && !all.contains(pid))
            .map(|(p, _)| *p)
            .collect();
        if more.is_empty() {
            return all;
        }
        all.extend(more);
    }
}

/// Send every one of them a signal, and wait until all are gone.
pub async fn end_all(pids: &BTreeSet<i32>, signal: Signal, patience: Duration) -> Result<(), String> {
    let before: BTreeMap<i32, u64> = pids.iter().filter_map(|pid| Some((*pid, start_of(*pid)?))).collect();
    for pid in before.keys() {
        // It may be gone in between.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
    let began = Instant::now();
    loop {
        let now = table();
        let left =
            before.iter().filter(|(pid, start)| now.get(pid).is_some_and(|(_, s, state)| s == *start && *state != 'Z'));
        let left = left.count();
        if left == 0 {
            return Ok(());
        }
        if began.elapsed() > patience {
            return Err(format!("{left} processes are still there {} s after {signal}", patience.as_secs()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A chat server as its host's agent has noted it down.
#[derive(Clone, Copy, Debug, Default)]
pub struct Server {
    /// Its pid, while it runs.
    pub pid: Option<i32>,
    /// It was stopped, and its agent does not start it.
    pub is_stopped: bool,
}

#[derive(Deserialize)]
struct ServerState {
    wanted: cluster::service::Wanted,
    process: Option<Postmaster>,
}

/// The servers that a host's agent has noted down, those that came after the lab was made among them.
pub fn servers(host_folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(host_folder.join("agent/servers")).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.strip_suffix(".json").map(str::to_owned)).collect()
}

/// A server of a host.
pub fn server(host_folder: &Path, name: &str) -> Server {
    let file = host_folder.join("agent/servers").join(format!("{name}.json"));
    let state = std::fs::read(file).ok().and_then(|text| serde_json::from_slice::<ServerState>(&text).ok());
    let Some(state) = state else { return Server::default() };
    Server {
        pid: state.process.filter(|p| runs(p.pid, p.start)).map(|p| p.pid),
        is_stopped: state.wanted == cluster::service::Wanted::Stopped,
    }
}

#[derive(Deserialize)]
struct AgentState {
    postmaster: Option<Postmaster>,
}

#[derive(Deserialize)]
struct Postmaster {
    pid: i32,
    start: u64,
}

/// The postmasters that a host's agent has started and that run.
pub fn postmasters(host_folder: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir(host_folder.join("agent")).into_iter().flatten().flatten();
    entries
        .filter(|e| e.path().extension().is_some_and(|x| x == "json"))
        .filter_map(|e| serde_json::from_slice::<AgentState>(&std::fs::read(e.path()).ok()?).ok()?.postmaster)
        .filter(|p| runs(p.pid, p.start))
        .map(|p| p.pid)
        .collect()
}

/// Processes that belong to a lab although nobody supervises them any more: the postmasters of its hosts, and what was
/// started with a folder of the lab as an argument.
pub fn of_lab(dir: &Path) -> Vec<i32> {
    let hosts = std::fs::read_dir(dir.join("hosts")).into_iter().flatten().flatten().map(|e| e.path());
    let mut pids: Vec<i32> = Vec::new();
    for host in hosts {
        pids.extend(postmasters(&host));
        for pid in table().into_keys() {
            let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            if line.split(|b| *b == 0).any(|part| Path::new(&*String::from_utf8_lossy(part)) == host) {
                pids.push(pid);
            }
        }
    }
    pids
}
