//! The chat service of a host: whether a chat server is to run, and what its agent does about it.
//!
//! What is wanted is kept by the agent of the server's host, and is none of the pool's record: a server that is stopped
//! stays in the topology and on the list of active servers, as a Windows service that is stopped does (Start- and
//! Stop-CsWindowsService). A server that nobody has stopped is wanted.

use serde::{Deserialize, Serialize};

/// How long a server may take to end when it is asked to: the time in which its clients move, and a little.
pub const END_MAX_MS: u64 = 15_000;
/// A server that has run for so long was well, whatever ended it.
pub const WELL_AFTER_MS: u64 = 30_000;
/// Wait before a server that ended by itself is started again, the first time; it doubles each time that one was not well.
pub const AGAIN_MIN_MS: u64 = 200;
/// The longest such wait.
pub const AGAIN_MAX_MS: u64 = 15_000;
/// Ends in a row, none of them wanted, after which a person should look.
pub const ENDS_UNTIL_TOLD: u32 = 3;

/// What an administrator wants of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// It runs, and is started again whenever it ends.
    #[default]
    Started,
    /// It does not run, whatever restarts, until somebody starts it.
    Stopped,
}

/// What the agent sees of a server's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It runs.
    pub runs: bool,
    /// Milliseconds since it was asked to end, if it was.
    pub asked_to_end_ms: Option<u64>,
    /// Milliseconds since one ended, if one did while this agent looked.
    pub ended_ms: Option<u64>,
    /// Ends in a row, none of them wanted, of servers that had not been well.
    pub ends: u32,
}

/// What the agent does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Rest,
    /// Start it.
    Start,
    /// Ask it to end: it tells its clients where to go, and ends when they have gone.
    AskToEnd,
    /// End it at once: it has not ended when it was asked to.
    Kill,
}

/// What is to be done about a server. `at_once`: whoever wants it stopped does not want to wait for its clients.
pub fn act(wanted: Wanted, at_once: bool, seen: &Seen) -> Act {
    match (wanted, seen.runs) {
        (Wanted::Started, true) | (Wanted::Stopped, false) => Act::Rest,
        (Wanted::Started, false) => match seen.ended_ms {
            Some(ms) if ms < wait_ms(seen.ends) => Act::Rest,
            _ => Act::Start,
        },
        (Wanted::Stopped, true) if at_once => Act::Kill,
        (Wanted::Stopped, true) => match seen.asked_to_end_ms {
            None => Act::AskToEnd,
            Some(ms) if ms >= END_MAX_MS => Act::Kill,
            Some(_) => Act::Rest,
        },
    }
}

/// How long a server that ended so often in a row is left alone.
fn wait_ms(ends: u32) -> u64 {
    AGAIN_MIN_MS.saturating_mul(1 << ends.saturating_sub(1).min(16)).min(AGAIN_MAX_MS)
}

/// Ends in a row, after one more: a server that was well begins anew.
pub fn ends_after(ends: u32, ran_ms: u64) -> u32 {
    if ran_ms >= WELL_AFTER_MS { 1 } else { ends.saturating_add(1) }
}

/// How the chat service of a host stands, in the words of Windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The server runs, and has told its agent how it is.
    Running,
    /// It is wanted, and does not speak yet.
    StartPending,
    /// It is not wanted any more, and has not ended yet.
    StopPending,
    /// It does not run, and is not wanted.
    Stopped,
}

impl Status {
    /// As the reference writes it.
    pub fn word(self) -> &'static str {
        match self {
            Status::Running => "Running",
            Status::StartPending => "StartPending",
            Status::StopPending => "StopPending",
            Status::Stopped => "Stopped",
        }
    }

    /// Whether nothing is under way.
    pub fn is_settled(self) -> bool {
        matches!(self, Status::Running | Status::Stopped)
    }
}

/// What an agent reports of a chat server of its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// What is wanted.
    pub wanted: Wanted,
    /// How it stands.
    pub status: Status,
    /// Its process, while there is one.
    pub pid: Option<i32>,
    /// How the last one ended that was not to end, and what to look at; for people.
    pub ended: Option<String>,
}

/// How a server stands: `speaks` when it has told its agent lately how it is.
pub fn status(wanted: Wanted, runs: bool, speaks: bool) -> Status {
    match (wanted, runs) {
        (Wanted::Started, true) if speaks => Status::Running,
        (Wanted::Started, _) => Status::StartPending,
        (Wanted::Stopped, true) => Status::StopPending,
        (Wanted::Stopped, false) => Status::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: Wanted, seen: Seen, expect: Act) {
        assert_eq!(act(wanted, false, &seen), expect, "{wanted:?} {seen:?}");
    }

    #[test]
    fn a_server_that_ends_is_started_again_later_each_time() {
        check(Wanted::Started, Seen::default(), Act::Start);
        check(Wanted::Started, Seen { runs: true, ..Seen::default() }, Act::Rest);
        let mut ends = 0;
        for expect in [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000] {
            ends = ends_after(ends, 10);
            check(Wanted::Started, Seen { ended_ms: Some(expect - 1), ends, ..Seen::default() }, Act::Rest);
            check(Wanted::Started, Seen { ended_ms: Some(expect), ends, ..Seen::default() }, Act::Start);
        }
        assert_eq!(ends_after(ends, WELL_AFTER_MS), 1, "one that was well begins anew");
        assert_eq!(wait_ms(u32::MAX), AGAIN_MAX_MS);
    }

    #[test]
    fn a_server_that_is_stopped_is_asked_first_and_stays_stopped() {
        let runs = Seen { runs: true, ..Seen::default() };
        check(Wanted::Stopped, runs, Act::AskToEnd);
        check(Wanted::Stopped, Seen { asked_to_end_ms: Some(END_MAX_MS - 1), ..runs }, Act::Rest);
        check(Wanted::Stopped, Seen { asked_to_end_ms: Some(END_MAX_MS), ..runs }, Act::Kill);
        check(Wanted::Stopped, Seen { ended_ms: Some(100_000), ..Seen::default() }, Act::Rest);
        assert_eq!(act(Wanted::Stopped, true, &runs), Act::Kill);
        // Wanted again while it is still ending: it ends, and is started then.
        check(Wanted::Started, Seen { asked_to_end_ms: Some(1), ..runs }, Act::Rest);
    }

    #[test]
    fn a_status_says_what_is_wanted_and_what_is() {
        assert_eq!(status(Wanted::Started, true, true), Status::Running);
        assert_eq!(status(Wanted::Started, true, false), Status::StartPending);
        assert_eq!(status(Wanted::Started, false, false), Status::StartPending);
        assert_eq!(status(Wanted::Stopped, true, true), Status::StopPending);
        assert_eq!(status(Wanted::Stopped, false, true), Status::Stopped, "what it said is of before");
    }
}
