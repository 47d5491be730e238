//! The timetable of a replay. Pure: logs in, steps out.
//!
//! Always true of the steps: times do not fall; nobody says anything in a room without being in it; nobody joins a room
//! twice without leaving it in between.

use super::log::{Deed, Log};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const MINUTES_PER_DAY: u32 = 24 * 60;
const MINUTE_MS: u64 = 60_000;

/// How fast a log is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was.
    Times(f64),
    /// As fast as the pool takes it.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Speed::Max),
            Ok(times) if times > 0.0 && times.is_finite() => Ok(Speed::Times(times)),
            _ => Err("give a number above 0, so many times as fast as it was, or 'max'".to_owned()),
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Join the room.
    Join,
    /// Leave it.
    Leave,
    /// Say something in it.
    Say(Arc<str>),
}

/// A step of the timetable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, from the beginning, at the log's own speed.
    pub at: Duration,
    /// Which log, and so which room.
    pub log: usize,
    /// Who, as a place in `Plan::people`.
    pub who: usize,
    /// What.
    pub act: Act,
}

/// The timetable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Everybody, by name.
    pub people: Vec<String>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// How long one round takes at the logs' own speed.
    pub length: Duration,
}

impl Plan {
    /// Make the timetable of some logs that are played side by side from the same moment on.
    pub fn new(logs: &[Log]) -> Plan {
        let mut plan = Plan::default();
        let mut numbers = BTreeMap::new();
        for (at, log) in logs.iter().enumerate() {
            plan.add(at, log, &mut numbers);
        }
        plan.steps.sort_by_key(|step| step.at);
        plan
    }

    /// Posts in one round.
    pub fn posts(&self) -> usize {
        self.steps.iter().filter(|s| matches!(s.act, Act::Say(_))).count()
    }

    fn add(&mut self, log: usize, lines: &Log, numbers: &mut BTreeMap<String, usize>) {
        let times = times(lines);
        let mut present = BTreeSet::new();
        for (line, at) in lines.lines.iter().zip(times) {
            let mut who = |plan: &mut Plan, nick: &str| {
                // The pool does not tell names apart that differ in case alone.
                *numbers.entry(nick.to_lowercase()).or_insert_with(|| {
                    plan.people.push(nick.to_owned());
                    plan.people.len() - 1
                })
            };
            let mut acts = Vec::with_capacity(2);
            let person = who(self, &line.nick);
            match &line.deed {
                Deed::Join => acts.push((person, Act::Join)),
                Deed::Leave => acts.push((person, Act::Leave)),
                Deed::Say(text) => acts.extend([(person, Act::Join), (person, Act::Say(text.as_str().into()))]),
                Deed::Rename(other) => acts.extend([(person, Act::Leave), (who(self, other), Act::Join)]),
            }
            for (who, act) in acts {
                let happens = match act {
                    Act::Join => present.insert(who),
                    Act::Leave => present.remove(&who),
                    Act::Say(_) => true,
                };
                if happens {
                    self.steps.push(Step { at, log, who, act });
                }
            }
            self.length = self.length.max(at);
        }
    }
}

/// When each line happens, from the first on: lines of one minute are spread over it evenly.
fn times(log: &Log) -> Vec<Duration> {
    let minutes = minutes(log);
    let mut times = Vec::with_capacity(minutes.len());
    for same in minutes.chunk_by(|a, b| a == b) {
        let count = same.len() as u64;
        times.extend((0..count).map(|n| {
            let ms = u64::from(same[0]) * MINUTE_MS + n * MINUTE_MS / count;
            Duration::from_millis(ms)
        }));
    }
    times
}

/// The minute of each line, counted from the first one: over midnight, and never falling.
fn minutes(log: &Log) -> Vec<u32> {
    let first = log.lines.iter().find_map(|l| l.minute).unwrap_or(0);
    let (mut day, mut before) = (0, first);
    log.lines
        .iter()
        .map(|line| {
            let mut now = line.minute.map_or(before, |minute| minute + day * MINUTES_PER_DAY);
            // A great step back is midnight; a small one is a clock that was set.
            if now + MINUTES_PER_DAY / 2 < before {
                day += 1;
                now += MINUTES_PER_DAY;
            }
            before = before.max(now);
            before - first
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::log;
    use super::*;

    /// The steps in short: `0.0 a joins`, `30.0 a: hello`.
    fn check(logs: &[&str], expect: &[&str]) {
        let logs: Vec<Log> = logs.iter().map(|l| log::read(l.as_bytes())).collect();
        let plan = Plan::new(&logs);
        let short = |step: &Step| {
            let (at, who, log) = (step.at.as_secs_f64(), &plan.people[step.who], step.log);
            match &step.act {
                Act::Join => format!("{at} {log} {who} joins"),
                Act::Leave => format!("{at} {log} {who} leaves"),
                Act::Say(text) => format!("{at} {log} {who}: {text}"),
            }
        };
        assert_eq!(plan.steps.iter().map(short).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn lines_of_a_minute_are_spread_and_midnight_is_passed() {
        check(
            &["[23:59] <a> 1\n[23:59] <a> 2\n[00:00] <a> 3\n"],
            &["0 0 a joins", "0 0 a: 1", "30 0 a: 2", "60 0 a: 3"],
        );
    }

    #[test]
    fn who_talks_is_there_and_who_is_there_does_not_come_again() {
        check(
            &[
                "=== a has joined #x\n[10:00] <a> 1\n[10:00] <b> 2\n=== a has joined #x\n=== c has left #x\n=== b has quit",
            ],
            &["0 0 a joins", "10 0 a: 1", "20 0 b joins", "20 0 b: 2", "50 0 b leaves"],
        );
    }

    #[test]
    fn who_is_renamed_goes_on_as_somebody_new() {
        check(
            &["[10:00] <a> 1\n=== A is now known as b\n[10:01] <B> 2\n"],
            &["0 0 a joins", "0 0 a: 1", "30 0 a leaves", "30 0 b joins", "60 0 b: 2"],
        );
    }

    #[test]
    fn logs_are_played_side_by_side() {
        check(
            &["[10:00] <a> 1\n[10:01] <a> 2\n", "[22:10] <a> 3\n"],
            &["0 0 a joins", "0 0 a: 1", "0 1 a joins", "0 1 a: 3", "60 0 a: 2"],
        );
    }

    #[test]
    fn speeds_are_numbers_or_max() {
        assert_eq!("60".parse(), Ok(Speed::Times(60.0)));
        assert_eq!("max".parse(), Ok(Speed::Max));
        for bad in ["0", "-1", "fast", "inf", "NaN"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }
}
