//! A drill that is no rehearsal: the pool is handed over to the other site as planned, and home again.

use crate::name::{HostName, ServerName};
use crate::record::{PoolRecord, PoolState};
use crate::report::HostReport;
use crate::topology::Topology;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What such a drill has measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchFigures {
    /// Longest time in which no post of its own was acknowledged, on the way there, in milliseconds; `None` when it did not go.
    pub there_gap_ms: Option<u64>,
    /// The same on the way home.
    pub back_gap_ms: Option<u64>,
    /// Posts of its own that were acknowledged.
    pub acknowledged: u64,
    /// Those of them that are not in their room.
    pub lost: u64,
    /// Those that are there more than once.
    pub doubled: u64,
    /// Active servers at the other site whose canaries came through.
    pub servers: Vec<ServerName>,
}

impl SwitchFigures {
    /// What is wrong with what was measured; `None` when nothing is.
    pub fn fault(&self, gap_limit_ms: u64) -> Option<String> {
        let Self { acknowledged, lost, doubled, .. } = self;
        if *lost > 0 || *doubled > 0 {
            return Some(format!(
                "of {acknowledged} posts that were acknowledged, {lost} are not in their room and {doubled} are there more than \
                 once: keep everything as it is, and look with standfast verify"
            ));
        }
        let longest = self.there_gap_ms.max(self.back_gap_ms).filter(|gap| *gap > gap_limit_ms)?;
        Some(format!("nobody could post for {}, and the limit is {}", seconds(longest), seconds(gap_limit_ms)))
    }

    /// The figures in a sentence.
    pub fn says(&self) -> String {
        let gap = |way: &str, ms: Option<u64>| ms.map(|ms| format!("{way} {} without an acknowledgement", seconds(ms)));
        let mut said: Vec<String> =
            [gap("there", self.there_gap_ms), gap("back", self.back_gap_ms)].into_iter().flatten().collect();
        said.push(format!("{} posts acknowledged, {} lost, {} doubled", self.acknowledged, self.lost, self.doubled));
        if !self.servers.is_empty() {
            let names: Vec<&str> = self.servers.iter().map(ServerName::as_str).collect();
            said.push(format!("canaries of {} came through", names.join(", ")));
        }
        said.join("; ")
    }
}

fn seconds(ms: u64) -> String {
    format!("{:.2} s", ms as f64 / 1000.0)
}

/// Why it may not begin, and what to do: another one may have been left in the middle.
pub fn refusal(record: &PoolRecord) -> Option<String> {
    if let Some(run) = &record.run {
        return Some(format!(
            "{} is under way, begun by {} at {}: watch it with standfast runbook watch, take it up with standfast runbook resume \
             if it stands still, or undo it with standfast runbook abort",
            run.runbook, run.started_by, run.started_at
        ));
    }
    (record.state == PoolState::FailedOver).then(|| {
        format!(
            "the pool is FailedOver: {} serves, in epoch {}; to come home: standfast failback; then begin the drill again",
            record.home, record.epoch
        )
    })
}

/// The active servers whose canaries have come through in the last so many milliseconds, and what is missing of the others.
pub fn come_through(
    topology: &Topology,
    record: &PoolRecord,
    reports: &BTreeMap<HostName, HostReport>,
    within_ms: u64,
) -> (Vec<ServerName>, Vec<String>) {
    if topology.canary.every.0.is_none() {
        return (Vec::new(), Vec::new());
    }
    let said = |name: &ServerName| reports.values().find_map(|r| r.servers.get(name)?.canaries.as_ref());
    let mut through = Vec::new();
    let mut missing = Vec::new();
    for server in &record.active_servers {
        match said(server) {
            Some(own) if own.took_ms.is_some() && own.age_ms <= within_ms => {}
            Some(_) => {
                missing.push(format!("{server} has written no canary there yet"));
                continue;
            }
            None => {
                missing.push(format!("{server} is not heard of"));
                continue;
            }
        }
        let deaf = record.active_servers.iter().filter(|other| *other != server).find(|other| {
            let heard = said(other).and_then(|o| o.heard_ms.get(server));
            heard.is_none_or(|age| *age > within_ms)
        });
        match deaf {
            Some(other) => missing.push(format!("{other} has not heard the canary of {server} yet")),
            None => through.push(server.clone()),
        }
    }
    (through, missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::ServerCanaries;
    use crate::planned_failover::tests::Pool;
    use crate::report::ServerReport;

    #[test]
    fn a_drill_says_what_another_one_has_left() {
        let mut record = Pool::normal().record;
        assert!(refusal(&record).is_some_and(|why| why.contains("planned-failover is under way")));
        record.run = None;
        assert_eq!(refusal(&record), None);
        record.state = PoolState::FailedOver;
        assert!(refusal(&record).is_some_and(|why| why.contains("standfast failback")));
    }

    #[test]
    fn what_is_lost_or_too_long_is_a_fault() {
        let well =
            SwitchFigures { there_gap_ms: Some(400), back_gap_ms: Some(300), acknowledged: 9, ..Default::default() };
        assert_eq!(well.fault(400), None);
        assert_eq!(
            well.says(),
            "there 0.40 s without an acknowledgement; back 0.30 s without an acknowledgement; 9 posts acknowledged, 0 lost, 0 doubled"
        );
        assert!(well.fault(399).is_some_and(|why| why.contains("0.40 s")));
        assert!(SwitchFigures { lost: 1, ..well.clone() }.fault(400).is_some_and(|why| why.contains("1 are not")));
        assert!(SwitchFigures { doubled: 2, ..well }.fault(400).is_some_and(|why| why.contains("2 are there")));
    }

    #[test]
    fn every_active_server_has_to_be_heard_by_every_other() {
        let mut record = Pool::normal().record;
        record.active_servers = vec!["server-5".into(), "server-6".into()];
        let canaries = |took_ms, heard: &str, age| {
            let canaries = ServerCanaries {
                age_ms: age,
                took_ms,
                heard_ms: [(heard.into(), age)].into(),
                echo_ms: BTreeMap::new(),
            };
            ServerReport { canaries: Some(canaries), ..ServerReport::default() }
        };
        let topology = Pool::normal().view().topology.clone();
        let check = |five: ServerReport, six: ServerReport| {
            let report = HostReport {
                servers: [("server-5".into(), five), ("server-6".into(), six)].into(),
                ..HostReport::empty("s2a".into(), "site-2".into())
            };
            come_through(&topology, &record, &[("s2a".into(), report)].into(), 1_000)
        };
        let (through, missing) = check(canaries(Some(3), "server-6", 10), canaries(Some(3), "server-5", 10));
        assert_eq!((through.len(), missing), (2, vec![]));
        let (through, missing) = check(canaries(Some(3), "server-6", 10), canaries(Some(3), "server-5", 2_000));
        assert_eq!(through, Vec::<ServerName>::new());
        assert!(missing[0].contains("server-6 has not heard the canary of server-5"), "{missing:?}");
        let (_, missing) = check(canaries(None, "server-6", 10), canaries(Some(3), "server-5", 10));
        assert!(missing[0].contains("server-5 has written no canary"), "{missing:?}");
    }
}
