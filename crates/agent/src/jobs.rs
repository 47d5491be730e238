//! The history of the backup, copy and restore jobs on this host: `agent/<db>.jobs.jsonl`, a run a line, bounded.

use crate::error::Error;
use cluster::job_history::{AgentType, JobLog, JobRun, Noted};
use cluster::name::DatabaseName;
use cluster::shipping_settings::Span;
use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::Instant;

/// Runs that are kept.
const RUNS_MAX: usize = 1_000;

/// Milliseconds of a clock that never goes back.
pub fn steady_ms() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed().as_millis() as u64
}

/// Milliseconds since the Unix epoch, for people.
pub fn wall_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// The jobs of one database.
pub struct Jobs {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    logs: [JobLog; 3],
    runs: VecDeque<JobRun>,
    /// Lines in the file, those that are no longer kept included.
    lines: usize,
}

impl Jobs {
    /// Read what is kept. A line that was cut short by a crash is passed over.
    pub fn open(host_folder: &Path, database: &DatabaseName) -> Result<Self, Error> {
        let folder = host_folder.join("agent");
        std::fs::create_dir_all(&folder).map_err(Error::file(format!("create {}", folder.display())))?;
        let path = folder.join(format!("{database}.jobs.jsonl"));
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(Error::file(format!("read {}", path.display())))?,
        };
        let runs: VecDeque<JobRun> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let logs = [AgentType::Backup, AgentType::Copy, AgentType::Restore].map(JobLog::new);
        Ok(Self { path, inner: Mutex::new(Inner { logs, runs, lines: text.lines().count() }) })
    }

    /// Note a round of a job. A history that cannot be written is said in the log, and holds nothing up.
    pub fn note(&self, job: AgentType, noted: Noted, retention: Span) {
        let mut inner = self.lock();
        let now = wall_ms();
        let ended = inner.logs[job as usize].note(now, noted);
        self.keep(&mut inner, ended, now, retention);
    }

    /// A job has no part here any more.
    pub fn end(&self, job: AgentType) {
        let mut inner = self.lock();
        let now = wall_ms();
        let ended = inner.logs[job as usize].end(now);
        self.keep(&mut inner, ended, now, Span::ms(u64::MAX));
    }

    fn keep(&self, inner: &mut Inner, ended: Option<JobRun>, now: i64, retention: Span) {
        let Some(run) = ended else { return };
        let text = serde_json::to_string(&run).unwrap_or_default();
        inner.runs.push_back(run);
        let old = |run: &JobRun| now.saturating_sub(run.start_ms).unsigned_abs() > retention.ms;
        while inner.runs.len() > RUNS_MAX || inner.runs.front().is_some_and(old) {
            inner.runs.pop_front();
        }
        let written = if inner.lines >= 2 * RUNS_MAX {
            inner.lines = inner.runs.len();
            let all: Vec<String> = inner.runs.iter().filter_map(|r| serde_json::to_string(r).ok()).collect();
            crate::files::replace(&self.path, format!("{}\n", all.join("\n")).as_bytes(), 0o600)
        } else {
            inner.lines += 1;
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path);
            file.and_then(|mut file| writeln!(file, "{text}"))
        };
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "the history of the log-shipping jobs cannot be written");
        }
    }

    /// Every run that is kept, oldest first, those under way last.
    pub fn all(&self) -> Vec<JobRun> {
        let inner = self.lock();
        let under_way = inner.logs.iter().filter_map(JobLog::under_way);
        inner.runs.iter().chain(under_way).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the history")
    }
}
