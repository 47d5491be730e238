//! Processor time of the pool's processes on this machine, from /proc.

use client::load::Processor;
use std::path::{Path, PathBuf};

/// Length of a tick of the kernel's figures; the same on every Linux that matters.
const TICK_US: u64 = 10_000;

/// What the pool in this folder, and this process, have used so far.
pub fn used(folder: &Path) -> Processor {
    let mut sum = Processor { load_us: ticks(Path::new("/proc/self"), false) * TICK_US, ..Processor::default() };
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path()) {
        match kind_of(&process, folder) {
            Some(Kind::Server) => sum.servers_us += ticks(&process, false) * TICK_US,
            Some(Kind::Postgres) => sum.postgres_us += ticks(&process, false) * TICK_US,
            // A postmaster also has the time of its children that have ended.
            Some(Kind::Postmaster) => sum.postgres_us += ticks(&process, true) * TICK_US,
            None => {}
        }
    }
    sum
}

/// How many chat servers and PostgreSQL processes were found: none means that the figures say nothing.
pub fn found(folder: &Path) -> (usize, usize) {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|e| kind_of(&e.path(), folder));
    all.fold((0, 0), |(servers, postgres), kind| match kind {
        Kind::Server => (servers + 1, postgres),
        Kind::Postgres | Kind::Postmaster => (servers, postgres + 1),
    })
}

enum Kind {
    Server,
    Postgres,
    Postmaster,
}

fn kind_of(process: &Path, folder: &Path) -> Option<Kind> {
    let name = std::fs::read_to_string(process.join("comm")).ok()?;
    match name.trim_end() {
        "standfast" => {
            let line = std::fs::read(process.join("cmdline")).ok()?;
            let mut words = line.split(|b| *b == 0).map(String::from_utf8_lossy);
            let serves = words.clone().any(|word| word == "serve");
            let here = words.any(|word| is_below(Path::new(word.as_ref()), folder));
            (serves && here).then_some(Kind::Server)
        }
        "postgres" => {
            let data = std::fs::read_link(process.join("cwd")).ok()?;
            if !is_below(&data, folder) {
                return None;
            }
            let leader = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
            let leads = process.file_name()?.to_str()? == leader.lines().next()?;
            Some(if leads { Kind::Postmaster } else { Kind::Postgres })
        }
        _ => None,
    }
}

fn is_below(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder) || path.canonicalize().is_ok_and(|path: PathBuf| path.starts_with(folder))
}

/// Ticks in user and kernel mode, with those of children that have ended if wanted.
fn ticks(process: &Path, with_ended: bool) -> u64 {
    let Ok(stat) = std::fs::read_to_string(process.join("stat")) else { return 0 };
    // Counted after the name, which stands in parentheses and may hold blanks.
    let Some((_, fields)) = stat.rsplit_once(')') else { return 0 };
    let wanted = if with_ended { 4 } else { 2 };
    fields.split_whitespace().skip(11).take(wanted).filter_map(|t| t.parse::<u64>().ok()).sum()
}
