//! A witness whose disk was lost: it asks both partners of each pair until it knows enough to decide again.

use crate::host::Host;
use cluster::record::PoolRecord;
use cluster::report::HostReport;
use cluster::witness::knows_enough;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Time between two rounds.
const ROUND: Duration = Duration::from_millis(500);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_millis(800);

/// Ask for as long as the record is hearsay; look out for that for as long as the process lives.
pub async fn run(host: Arc<Host>) {
    loop {
        if host.store.is_hearsay()
            && let Some(record) = host.store.record()
        {
            let reports = ask(&host, &record).await;
            // What was heard meanwhile is judged in the next round.
            let unchanged = host.store.record().as_ref() == Some(&record);
            match knows_enough(&record, &reports) {
                Ok(()) if unchanged => match host.store.is_certain() {
                    Ok(()) => {
                        tracing::warn!("this witness lost its record, has heard both partners, and decides again");
                        host.set_hearsay(None);
                    }
                    Err(error) => tracing::error!(%error, "cannot note that the record is certain"),
                },
                Ok(()) => {}
                Err(missing) => {
                    let says = format!("this witness lost its record and decides nothing yet: {missing}");
                    if host.hearsay().as_ref() != Some(&says) {
                        tracing::warn!("{says}");
                        host.set_hearsay(Some(says));
                    }
                }
            }
        } else {
            host.set_hearsay(None);
        }
        tokio::time::sleep(ROUND).await;
    }
}

/// The reports of the partners that answer.
async fn ask(host: &Host, record: &PoolRecord) -> BTreeMap<cluster::name::HostName, HostReport> {
    let mut reports = BTreeMap::new();
    for parts in record.databases.values() {
        for partner in parts.principal.iter().chain(parts.mirror.as_ref().map(|m| &m.host)) {
            let Some(base) = host.agent_of(partner) else { continue };
            let sent = host.http.get(format!("{base}/v1/report")).timeout(ANSWER).send().await;
            let Ok(answer) = sent.and_then(reqwest::Response::error_for_status) else { continue };
            if let Ok(report) = answer.json::<HostReport>().await {
                reports.insert(partner.clone(), report);
            }
        }
    }
    reports
}
