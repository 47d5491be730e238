//! The canaries of the active servers, as a standby of this host has applied them.

use crate::host::Host;
use crate::postgres::sql::Sql;
use cluster::canary::{AppliedCanary, Expected};
use cluster::name::ServerName;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How old a look may be in a report.
const LOOK_AGE: Duration = Duration::from_millis(200);

/// Epoch and number of a canary.
type Which = (i64, i64);

/// What was seen lately.
pub struct Watch {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each server's newest, and how late it was when it was first seen, in milliseconds.
    seen: Expected<ServerName, (Which, u64)>,
    looked_at: Option<Instant>,
}

impl Watch {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the canaries")
    }

    /// Look at a standby, unless that was done just now; what is no standby is to apply nothing.
    pub async fn look(&self, host: &Host, sql: &Sql, is_standby: bool) -> BTreeMap<ServerName, AppliedCanary> {
        let is_on = is_standby && host.store.topology().canary.every.0.is_some();
        let active = host.store.record().filter(|_| is_on).map(|r| r.active_servers).unwrap_or_default();
        let now_ms = || self.began.elapsed().as_millis() as u64;
        let is_due = {
            let mut state = self.state();
            state.seen.expect(active, now_ms());
            let is_due = is_on && state.looked_at.is_none_or(|at| at.elapsed() >= LOOK_AGE);
            if is_due {
                state.looked_at = Some(Instant::now());
            }
            is_due
        };
        // A standby that gives no answer has shown nothing new.
        let found = if is_due { sql.probe_canaries().await.unwrap_or_default() } else { Vec::new() };
        let mut state = self.state();
        for (server, which, lag_ms) in found {
            if state.seen.last(&server).is_none_or(|(last, _)| *last < which) {
                state.seen.see(&server, (which, lag_ms), now_ms());
            }
        }
        let applied = |(server, age_ms, seen): (&ServerName, u64, Option<&(Which, u64)>)| {
            (server.clone(), AppliedCanary { age_ms, lag_ms: seen.map(|(_, lag)| *lag) })
        };
        state.seen.ages(now_ms()).map(applied).collect()
    }
}
