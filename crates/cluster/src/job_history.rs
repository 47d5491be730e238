//! The history of the backup, copy and restore jobs, as the reference's monitor keeps it (ha-dr §13.1,
//! `log_shipping_monitor_history_detail`). The jobs here go on without a pause, so a run of one is what it did in up to a
//! minute, or for as long as the same thing was wrong with it. A job with nothing to do writes nothing.

use crate::wal::Lsn;
use serde::{Deserialize, Serialize};

/// A run that goes well ends after so long, in milliseconds.
const RUN_MS: u64 = 60_000;

/// Which job (`agent_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentType {
    /// 0: into the share.
    Backup,
    /// 1: from the share to the backup's host.
    Copy,
    /// 2: into the backup.
    Restore,
}

impl AgentType {
    /// The reference's word.
    pub fn word(self) -> &'static str {
        match self {
            AgentType::Backup => "backup",
            AgentType::Copy => "copy",
            AgentType::Restore => "restore",
        }
    }
}

/// How a run stands (`session_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// 0: begun, nothing done yet.
    Starting,
    /// 1: under way.
    Running,
    /// 2: over, all well.
    Success,
    /// 3: the job could not do its work.
    Error,
    /// 4: the job did its work, and something is to be looked at.
    Warning,
}

impl SessionStatus {
    /// The reference's word.
    pub fn word(self) -> &'static str {
        match self {
            SessionStatus::Starting => "starting",
            SessionStatus::Running => "running",
            SessionStatus::Success => "success",
            SessionStatus::Error => "error",
            SessionStatus::Warning => "warning",
        }
    }
}

/// A run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// Which job.
    pub agent_type: AgentType,
    /// When it began, in milliseconds since the Unix epoch by its host's clock.
    pub start_ms: i64,
    /// When it ended; `None` while it runs.
    pub end_ms: Option<i64>,
    /// How it stands.
    pub session_status: SessionStatus,
    /// Files finished.
    pub files: u64,
    /// Bytes of log.
    pub bytes: u64,
    /// Newest file.
    pub file: Option<String>,
    /// How far it came.
    pub lsn: Option<Lsn>,
    /// What was wrong; empty when nothing was.
    pub message: String,
}

/// What a round of a job came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Files finished in this round.
    pub files: u64,
    /// Bytes of log in this round.
    pub bytes: u64,
    /// Newest file.
    pub file: Option<String>,
    /// How far it came.
    pub lsn: Option<Lsn>,
    /// What is wrong: `Error` when the job cannot do its work, `Warning` when it can.
    pub problem: Option<(SessionStatus, String)>,
}

/// A job's run under way.
#[derive(Clone, Debug)]
pub struct JobLog {
    agent_type: AgentType,
    run: Option<JobRun>,
}

impl JobLog {
    /// Nothing yet.
    pub fn new(agent_type: AgentType) -> Self {
        Self { agent_type, run: None }
    }

    /// The run under way.
    pub fn under_way(&self) -> Option<&JobRun> {
        self.run.as_ref()
    }

    /// Note a round; returns the run that has ended, if one has.
    pub fn note(&mut self, now_ms: i64, noted: Noted) -> Option<JobRun> {
        let problem = noted.problem.as_ref().map(|(status, _)| *status);
        let trouble = |run: &JobRun| {
            Some(run.session_status).filter(|s| matches!(s, SessionStatus::Error | SessionStatus::Warning))
        };
        let over = self.run.as_ref().is_some_and(|run| {
            trouble(run) != problem || (problem.is_none() && (now_ms - run.start_ms).unsigned_abs() >= RUN_MS)
        });
        let ended = if over { self.end(now_ms) } else { None };
        if noted.files == 0 && noted.bytes == 0 && noted.problem.is_none() {
            return ended;
        }
        let run = self.run.get_or_insert_with(|| JobRun {
            agent_type: self.agent_type,
            start_ms: now_ms,
            end_ms: None,
            session_status: SessionStatus::Starting,
            files: 0,
            bytes: 0,
            file: None,
            lsn: None,
            message: String::new(),
        });
        run.files += noted.files;
        run.bytes += noted.bytes;
        run.file = noted.file.or_else(|| run.file.take());
        run.lsn = noted.lsn.max(run.lsn);
        (run.session_status, run.message) = noted.problem.unwrap_or((SessionStatus::Running, String::new()));
        ended
    }

    /// End the run under way: the job stops, or its host's part changes.
    pub fn end(&mut self, now_ms: i64) -> Option<JobRun> {
        let mut run = self.run.take()?;
        run.end_ms = Some(now_ms);
        if matches!(run.session_status, SessionStatus::Running | SessionStatus::Starting) {
            run.session_status = SessionStatus::Success;
        }
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(files: u64) -> Noted {
        Noted { files, bytes: files * 10, lsn: Some(Lsn(files)), ..Noted::default() }
    }

    fn failed(why: &str) -> Noted {
        Noted { problem: Some((SessionStatus::Error, why.into())), ..Noted::default() }
    }

    #[test]
    fn a_run_is_what_was_done_in_a_minute_and_idle_rounds_are_none() {
        let mut log = JobLog::new(AgentType::Copy);
        assert_eq!(log.note(0, did(0)), None);
        assert!(log.under_way().is_none());
        assert_eq!(log.note(1_000, did(1)), None);
        assert_eq!(log.note(2_000, did(2)), None);
        assert_eq!(log.under_way().map(|r| r.session_status), Some(SessionStatus::Running));
        let ended = log.note(61_000, did(4)).expect("a minute is over");
        assert_eq!((ended.start_ms, ended.end_ms, ended.files, ended.bytes), (1_000, Some(61_000), 3, 30));
        assert_eq!(ended.session_status, SessionStatus::Success);
        assert_eq!(log.under_way().map(|r| r.files), Some(4));
    }

    #[test]
    fn trouble_is_a_run_of_its_own_for_as_long_as_it_lasts() {
        let mut log = JobLog::new(AgentType::Backup);
        log.note(0, did(1));
        let ended = log.note(100, failed("the share is full")).expect("what went well is over");
        assert_eq!(ended.session_status, SessionStatus::Success);
        assert_eq!(log.note(500_000, failed("the share is full")), None);
        let ended = log.note(600_000, did(1)).expect("the trouble is over");
        assert_eq!((ended.session_status, ended.message.as_str()), (SessionStatus::Error, "the share is full"));
        assert_eq!((ended.start_ms, ended.end_ms), (100, Some(600_000)));
    }
}
