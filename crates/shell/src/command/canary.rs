//! Canaries in `pool status`: who has seen whose, how long ago and how late.

use crate::command::pool::millis;
use crate::failure::Outcome;
use crate::output;
use cluster::canary::{self, Overdue};
use cluster::record::PoolRecord;
use wire::agent::PoolView;

/// Those that are overdue.
pub fn overdue(view: &PoolView, record: &PoolRecord) -> Vec<Overdue> {
    let reports = view.reports.iter().map(|r| (r.host.clone(), r.clone())).collect();
    canary::overdue(&view.topology, record, &reports)
}

/// A row for each active server; nothing where no canaries are written.
///
/// # Errors
/// When standard output is closed.
pub fn show(view: &PoolView, record: &PoolRecord) -> Outcome {
    if view.topology.canary.every.0.is_none() {
        return Ok(());
    }
    let mut rows = vec![["CANARY OF", "WRITTEN", "TOOK", "HEARD BY", "APPLIED AT"].map(str::to_owned).to_vec()];
    for server in &record.active_servers {
        let said = |name| view.reports.iter().find_map(|r| r.servers.get(name)?.canaries.as_ref());
        let Some(own) = said(server) else { continue };
        let heard = record.active_servers.iter().filter_map(|other| {
            let age = said(other)?.heard_ms.get(server)?;
            Some(late(other.as_str(), *age, own.echo_ms.get(other).copied()))
        });
        let standbys = view.reports.iter().flat_map(|r| r.instances.values().map(move |i| (&r.host, i)));
        let applied = standbys.filter_map(|(host, i)| {
            let canary = i.canaries.get(server)?;
            Some(late(host.as_str(), canary.age_ms, canary.lag_ms))
        });
        let listed = |all: Vec<String>| if all.is_empty() { "–".to_owned() } else { all.join(", ") };
        rows.push(vec![
            server.to_string(),
            own.took_ms.map_or("never".to_owned(), |_| format!("{} ago", millis(own.age_ms))),
            own.took_ms.map_or("–".to_owned(), |ms| format!("{ms} ms")),
            listed(heard.collect()),
            listed(applied.collect()),
        ]);
    }
    if rows.len() == 1 {
        return Ok(());
    }
    output::line("")?;
    output::table(&rows)
}

/// `s2a 1.2 s ago (+8 ms)`.
fn late(name: &str, age_ms: u64, lag_ms: Option<u64>) -> String {
    match lag_ms {
        Some(lag) => format!("{name} {} ago (+{lag} ms)", millis(age_ms)),
        None => format!("{name} never"),
    }
}
