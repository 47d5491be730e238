//! Gossip: every host tells every other the newest record that it knows, a few times a second, and at once when it has decided on it itself.
//! What it has heard from another it does not pass on at once: whoever decided tells everybody, and while a writer changes all hosts would
//! be telling each other what all know.
//!
//! One task for each other host, so that one that is cut off holds nobody up.

use crate::host::Host;
use cluster::name::{HostName, SiteName};
use cluster::record::PoolRecord;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Time between two rounds when nothing changes.
const ROUND: Duration = Duration::from_millis(300);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_millis(800);
/// So many rounds between two looks at an authority's topology.
const TOPOLOGY_ROUNDS: u32 = 2;

/// Gossip with every host of the topology, for as long as the process lives.
pub async fn run(host: Arc<Host>) {
    let mut topology = host.store.watch_topology();
    let mut known = BTreeSet::new();
    loop {
        let others: Vec<HostName> =
            topology.borrow_and_update().hosts.iter().map(|h| h.name.clone()).filter(|n| *n != host.name).collect();
        // The task of a host that goes ends by itself; one that comes back needs another.
        known.retain(|host| others.contains(host));
        for other in others {
            if known.insert(other.clone()) {
                tokio::spawn(with_one(host.clone(), other));
            }
        }
        if topology.changed().await.is_err() {
            return;
        }
    }
}

async fn with_one(host: Arc<Host>, other: HostName) {
    let mut decided = host.store.watch_decided();
    let mut round = 0_u32;
    loop {
        let topology = host.store.topology();
        let Some(there) = topology.host(&other) else { return };
        let site = there.site.clone();
        decided.mark_unchanged();
        let own = host.store.record();
        hear(&host, &other, &site, own.as_ref()).await;
        let tells = round.is_multiple_of(TOPOLOGY_ROUNDS) && topology.sites.iter().any(|s| s.authority == other);
        if tells && let Some(text) = newer_topology(&host, &other, topology.version).await {
            // Once more before it is kept: a host that becomes an authority by this topology then has the last record of the
            // one before it, which takes no change any more once it has published.
            let own = host.store.record();
            if hear(&host, &other, &site, own.as_ref()).await {
                take_over_topology(&host, &other, &text);
            }
        }
        round = round.wrapping_add(1);
        tokio::select! {
            changed = decided.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(ROUND) => {}
        }
    }
}

/// Tell a host the newest record, and keep its own if that is newer. Tells whether it answered.
async fn hear(host: &Host, other: &HostName, site: &SiteName, own: Option<&PoolRecord>) -> bool {
    let Some(answer) = exchange(host, other, own).await else { return false };
    host.answered(other);
    let Some(said) = answer else { return true };
    host.heard(other, site, said.clone());
    if let Err(error) = host.store.adopt(said) {
        tracing::error!(%error, from = %other, "a newer record could not be kept");
        return false;
    }
    true
}

/// `None` when it does not answer; nothing inside when it has no record.
#[allow(clippy::option_option, reason = "the two are told apart")]
async fn exchange(host: &Host, other: &HostName, own: Option<&PoolRecord>) -> Option<Option<PoolRecord>> {
    let base = host.agent_of(other)?;
    let request = host.http.post(format!("{base}/v1/gossip")).timeout(ANSWER).json(&own);
    let answer = request.send().await.ok()?.error_for_status().ok()?;
    answer.json::<Option<PoolRecord>>().await.ok()
}

async fn newer_topology(host: &Host, other: &HostName, version: u64) -> Option<String> {
    let base = host.agent_of(other)?;
    let request = host.http.get(format!("{base}/v1/topology?newer_than={version}")).timeout(ANSWER);
    request.send().await.ok()?.json::<Option<String>>().await.ok()?
}

fn take_over_topology(host: &Host, other: &HostName, text: &str) {
    match host.store.take_over_topology(text) {
        Ok(true) => tracing::info!(from = %other, "took over the published topology"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, from = %other, "a published topology could not be kept"),
    }
}
