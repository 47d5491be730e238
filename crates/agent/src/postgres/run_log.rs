//! What PostgreSQL has written into its log: some troubles show nowhere else.

use crate::postgres::instance::Instance;
use std::fs;
use std::time::Duration;

/// Between two looks whether a standby that is starting stands still.
const STUCK_LOOK: Duration = Duration::from_millis(500);

impl Instance {
    /// Whether its last run met a damaged page, as its log says: one that is replaying log ends then, at every start.
    pub fn met_a_damaged_page(&self) -> bool {
        self.log_of_last_run().is_some_and(|log| log.contains("invalid page in block"))
    }

    /// Whether its last run ended because what it was to recover from is unusable, as its log says: a damaged segment or history,
    /// perhaps, that it had from the share. Not because its disk was full.
    pub fn could_not_recover(&self) -> bool {
        self.log_of_last_run().is_some_and(|log| could_not_recover(&log))
    }

    /// What its last run has written into its log.
    fn log_of_last_run(&self) -> Option<String> {
        let log = fs::read(self.folder.join("log")).ok()?;
        let log = String::from_utf8_lossy(&log);
        Some(log.rfind("starting PostgreSQL").map_or(&log[..], |at| &log[at..]).to_owned())
    }

    /// Wait until a standby without a source stands still before its data is consistent, so that nobody can ever connect to it; returns
    /// where its log ends. PostgreSQL 15 and later tell it in their log.
    pub async fn until_stuck(&self) -> String {
        loop {
            tokio::time::sleep(STUCK_LOOK).await;
            if let Some(at) = self.log_of_last_run().as_deref().and_then(stuck) {
                return at.to_owned();
            }
        }
    }
}

fn could_not_recover(log: &str) -> bool {
    log.contains("shutting down due to startup process failure") && !log.contains("No space left on device")
}

/// Where a standby waits for log that does not come, by the log of its run: so many times it has said so of the same place, and nothing
/// else, and it takes no connections yet.
fn stuck(log: &str) -> Option<&str> {
    const WAITS: &str = "waiting for WAL to become available at ";
    const TIMES: usize = 10;
    let refusal = |line: &&str| line.contains("FATAL:  the database system is");
    let mut last = log.lines().rev().filter(|line| !refusal(line)).map(|line| line.split_once(WAITS).map(|(_, at)| at));
    let at = last.next()??;
    let all = last.take(TIMES - 1).filter(|place| *place == Some(at)).count() == TIMES - 1;
    (all && !log.contains("ready to accept")).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_that_failed_is_told_from_a_full_disk() {
        let fails = "LOG:  redo starts at 0/A1589C8\nFATAL:  according to history file, WAL location 0/A17FFF0 belongs to timeline \
                     189, but previous recovered WAL file came from timeline 190\nLOG:  shutting down due to startup process \
                     failure\n";
        assert!(could_not_recover(fails));
        assert!(!could_not_recover("FATAL:  lock file \"postmaster.pid\" already exists\n"));
        assert!(!could_not_recover(&fails.replace("according", "could not extend file: No space left on device;")));
    }

    #[test]
    fn a_standby_that_says_nothing_but_that_it_waits_at_one_place_is_stuck() {
        let waits = |at: &str| {
            format!("2026-11-27 23:22:27.377 GMT [2204]  LOG:  waiting for WAL to become available at {at}\n")
        };
        let refuses = "2026-11-27 23:22:27.382 GMT [2205] [unknown] FATAL:  the database system is starting up\n";
        let begins = "starting PostgreSQL 15.18\nLOG:  entering standby mode\n";
        let (here, there) = (waits("0/3A02000"), waits("0/3B02000"));
        let stands = format!("{begins}{}", format!("{here}{refuses}").repeat(10));
        assert_eq!(stuck(&stands), Some("0/3A02000"));
        assert_eq!(stuck(&format!("{begins}{}", here.repeat(9))), None, "not for long enough yet");
        assert_eq!(stuck(&format!("{begins}{}{}", here.repeat(9), there)), None, "it goes on");
        assert_eq!(stuck(&format!("{begins}{}LOG:  redo starts at 0/3A02000\n", here.repeat(10))), None);
        let open = "LOG:  database system is ready to accept read-only connections\n";
        assert_eq!(stuck(&format!("{begins}{open}{}", here.repeat(20))), None, "it has replayed all it has");
        assert_eq!(stuck(begins), None);
        assert_eq!(stuck(""), None);
    }
}
