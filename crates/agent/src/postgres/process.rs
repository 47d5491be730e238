//! Processes by what they are, not by what a lock file says: a pid counts only together with its start time.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A process that this agent, or the one before it, started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its start, in clock ticks since the machine booted: with the pid it names a process for ever.
    pub start: u64,
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        Some(Self { pid, start: stat(pid)?.1 })
    }

    /// Whether it is alive.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(state, start)| start == self.start && state != 'Z' && state != 'X')
    }

    /// Send it a signal, if it is still the same process.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may end in between; then there is nothing left to tell it.
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit_once(')')?.1;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Whether any process still works in this folder: every process of an instance has its data folder as its own. The
/// children of a postmaster that was killed notice within moments, and hold its memory until then.
pub fn anybody_in(folder: &Path) -> bool {
    !working_in(folder).is_empty()
}

/// SIGKILL to every process that works in this folder: those that a postmaster has left behind.
pub fn kill_those_in(folder: &Path) {
    for pid in working_in(folder) {
        // It may end in between; then there is nothing left to kill.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The process in this folder whose parent is not in it: the postmaster, whoever started it.
pub fn first_in(folder: &Path) -> Option<Process> {
    let pids = working_in(folder);
    let first = pids.iter().find(|pid| parent(**pid).is_none_or(|parent| !pids.contains(&parent)))?;
    // Children of a postmaster that is gone are adopted by init; only a program with the folder as argument leads.
    let line = std::fs::read(format!("/proc/{first}/cmdline")).ok()?;
    let names_folder = line.split(|b| *b == 0).any(|part| Path::new(&*String::from_utf8_lossy(part)) == folder);
    if names_folder { Process::of(u32::try_from(*first).ok()?) } else { None }
}

/// Processes that have all of these as arguments.
pub fn with_arguments(wanted: &[&Path]) -> Vec<Process> {
    let with = |pid: &i32| {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let parts: Vec<_> = line.split(|b| *b == 0).map(String::from_utf8_lossy).collect();
        wanted.iter().all(|w| parts.iter().skip(1).any(|part| Path::new(&**part) == *w))
    };
    let found = pids().filter(with).filter_map(|pid| Process::of(u32::try_from(pid).ok()?));
    found.filter(Process::is_alive).collect()
}

/// Processes of a program that have this path as an argument.
pub fn running(program: &str, path: &Path) -> Vec<Process> {
    let with = |pid: &i32| {
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let mut parts = line.split(|b| *b == 0).map(String::from_utf8_lossy);
        parts.next().is_some_and(|first| Path::new(&*first).file_name().is_some_and(|name| name == program))
            && parts.any(|part| Path::new(&*part) == path)
    };
    pids().filter(with).filter_map(|pid| Process::of(u32::try_from(pid).ok()?)).collect()
}

fn working_in(folder: &Path) -> Vec<i32> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let in_it = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder);
    pids().filter(in_it).collect()
}

fn pids() -> impl Iterator<Item = i32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
