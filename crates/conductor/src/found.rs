//! What was found, in plain sentences: the first thing that an administrator reads before a run.

use crate::observe::Look;
use cluster::record::{Part, PoolRecord};
use cluster::report::InstanceState;
use cluster::runbook::{Facts, Silence};
use cluster::topology::Topology;

/// What a look found, a sentence each.
pub fn sentences(topology: &Topology, record: &PoolRecord, look: &Look, facts: &Facts) -> Vec<String> {
    let mut found = vec![format!(
        "the pool {} is {} in epoch {}, at home at {}",
        topology.pool, record.state, record.epoch, record.home
    )];
    for site in &topology.sites {
        found.push(format!("{}: {}", site.name, hosts(topology, record, look, site)));
    }
    for (database, exposure) in &facts.exposure {
        let what = match (exposure.entries, exposure.behind_ms, exposure.heard_ms_ago) {
            (Some(entries), Some(behind), Some(heard)) => format!(
                "the principal was last heard {} ago; the backup then lacked {entries} posts ({} behind)",
                seconds(heard),
                seconds(behind)
            ),
            (None, Some(behind), Some(heard)) => {
                format!(
                    "the principal was last heard {} ago; the backup was {} behind",
                    seconds(heard),
                    seconds(behind)
                )
            }
            (_, _, Some(heard)) => format!("the principal was last heard {} ago", seconds(heard)),
            _ => "the principal has not been heard since this agent started; what the backup lacks is not known".into(),
        };
        found.push(format!("{database}: {what}"));
    }
    found
}

/// What would be lost by a failover now.
pub fn loss(facts: &Facts) -> Vec<String> {
    let mut said = Vec::new();
    for (database, exposure) in &facts.exposure {
        said.push(match exposure.entries {
            Some(0) => format!(
                "{database}: nothing that was known; only what {} acknowledged after it was last heard and had not sent",
                facts.from_site
            ),
            Some(entries) => format!(
                "{database}: {entries} posts, and what {} acknowledged after it was last heard; what lies in the share is \
                 still applied first",
                facts.from_site
            ),
            None => format!("{database}: not known; what lies in the share is still applied first"),
        });
    }
    said
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

fn hosts(topology: &Topology, record: &PoolRecord, look: &Look, site: &cluster::topology::Site) -> String {
    let all = topology.hosts.iter().filter(|h| h.site == site.name);
    all.map(|host| match (look.reports.get(&host.name), look.silent.get(&host.name)) {
        (Some(report), _) => {
            let instances = report.instances.iter().map(|(database, instance)| {
                let part = record.databases.get(database).and_then(|d| d.part_of(&host.name));
                let part = part.map_or("no part".to_owned(), |p: Part| p.to_string());
                format!("{database} {part}, {}", word(instance.state))
            });
            let instances: Vec<String> = instances.collect();
            format!("{} answers ({})", host.name, instances.join("; "))
        }
        (None, Some(Silence::TimedOut)) => format!("{} does not answer (timed out: it may be alive)", host.name),
        (None, _) => format!("{} does not answer (connection refused)", host.name),
    })
    .collect::<Vec<_>>()
    .join(", ")
}

fn word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Absent => "nothing there",
        InstanceState::Stopped => "stopped",
        InstanceState::Busy => "starting or being rebuilt",
        InstanceState::Standby => "standby",
        InstanceState::Online => "online",
        InstanceState::LeftBehind => "left behind",
        InstanceState::AskingPeer => "asking the other site",
    }
}
