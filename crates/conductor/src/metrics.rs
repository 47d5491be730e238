//! The pool as this site's authority sees it, for the agent's page of metrics.

use crate::Conductor;
use cluster::alert::{BACKUP_LATE, RESTORE_LATE};
use std::collections::BTreeMap;
use wire::metrics::{Page, catalogue as c, exposure};
use wire::run::RunSummary;

/// Add them to a page.
pub fn add(conductor: &Conductor, page: &mut Page) {
    let observer = &conductor.observer;
    exposure(page, &observer.exposure());
    for (heard, hosts) in
        [(true, observer.heard().into_iter().collect()), (false, observer.silent().into_keys().collect::<Vec<_>>())]
    {
        hosts.iter().for_each(|host| page.add_truth(&c::AGENT_HEARD, &[host.as_str()], heard));
    }
    let alerts = observer.alerts();
    for name in observer.exposure().keys() {
        let stands = |number: u32| alerts.get(name).is_some_and(|all| all.iter().any(|a| a.number == number));
        for number in [BACKUP_LATE, RESTORE_LATE] {
            page.add_truth(&c::ALERT, &[name.as_str(), &number.to_string()], stands(number));
        }
    }
    page.add(&c::CANARIES_OVERDUE, &[], observer.overdue_canaries() as f64);
    page.add(&c::ALARMS, &[], observer.alarms().len() as f64);
    runs(page, conductor);
}

/// The last run of each runbook, and the last one that was carried out to its end.
fn runs(page: &mut Page, conductor: &Conductor) {
    let mut by_runbook: BTreeMap<String, Vec<RunSummary>> = BTreeMap::new();
    for run in conductor.all_runs().iter().map(|journal| journal.summary()) {
        by_runbook.entry(run.runbook.clone()).or_default().push(run);
    }
    for (runbook, mut runs) in by_runbook {
        runs.sort_by(|a, b| b.started_at.cmp(&a.started_at));
        let runbook = [runbook.as_str()];
        page.add_known(&c::RUN_STARTED, &runbook, runs.first().and_then(began_s));
        if let Some((run, complete)) = runs.iter().find_map(|run| Some((run, run.complete?))) {
            page.add_truth(&c::RUN_COMPLETE, &runbook, complete);
            page.add(&c::RUN_DURATION, &runbook, run.elapsed_ms as f64 / 1000.0);
        }
        let success = runs.iter().find(|run| run.complete == Some(true) && !run.aborted);
        page.add_known(&c::RUN_SUCCESS, &runbook, success.and_then(began_s));
    }
}

fn began_s(run: &RunSummary) -> Option<f64> {
    run.started_at.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond() as f64 / 1000.0)
}
