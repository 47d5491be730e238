//! The check of a topology against the running hosts: each is asked to show what only it can.

use crate::agents::{Agents, Trouble};
use crate::failure::Outcome;
use crate::output;
use cluster::name::{HostName, SiteName};
use cluster::remark::Remark;
use cluster::runbook::Silence;
use cluster::shipping_settings::{LogShipping, ShareAt};
use cluster::topology::{Host, Topology};
use cluster::topology_live::{Seen, ShareSeen, judge};
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use wire::agent::{Probe, ProbeAct, Probed};

/// What speaks against the topology, as its hosts show themselves.
pub async fn look(agents: &Agents, lost: &BTreeSet<SiteName>) -> Vec<Remark> {
    let topology = &agents.topology;
    let token = format!("{:x}", jiff::Timestamp::now().as_microsecond());
    let marked = ask_all(agents, lost, &token, ProbeAct::Mark).await;
    let seen = ask_all(agents, lost, &token, ProbeAct::See).await;
    let deleted = ask_all(agents, lost, &token, ProbeAct::Delete).await;
    let mut all = BTreeMap::new();
    for (host, marked) in marked {
        let rest = [seen.get(&host), deleted.get(&host)].map(|said| said.and_then(|s| s.as_ref().ok()));
        all.insert(
            host.clone(),
            marked.map(|(clock_ms, probed)| put_together(topology, &host, clock_ms, &probed, rest)),
        );
    }
    judge(topology, &all, lost)
}

/// What a host answered, with its clock against this machine's.
type Answered = Result<(i64, Probed), String>;

async fn ask_all(
    agents: &Agents,
    lost: &BTreeSet<SiteName>,
    token: &str,
    act: ProbeAct,
) -> BTreeMap<HostName, Answered> {
    let topology = &agents.topology;
    let hosts = topology.hosts.iter().filter(|h| !lost.contains(&h.site));
    let asked = hosts.map(|host| async move {
        let reach = match act {
            ProbeAct::Mark => others(topology, host, lost),
            ProbeAct::See | ProbeAct::Delete => Vec::new(),
        };
        let shares = shares(topology, &host.name);
        let probe = Probe { token: token.to_owned(), act, shares, reach };
        let said = agents.probe(&host.name, &probe).await;
        let ended = jiff::Timestamp::now().as_millisecond();
        // The host reads its clock last, so it is compared with the end of the answer.
        let answered = said.map_err(in_words).map(|probed| (probed.clock_ms - ended, probed));
        (host.name.clone(), answered)
    });
    join_all(asked).await.into_iter().collect()
}

/// The shares of the databases that have a copy on a host.
fn shares(topology: &Topology, host: &HostName) -> Vec<ShareAt> {
    let databases = topology.databases.iter().filter(|d| d.role_of(host).is_some());
    databases.filter_map(|d| d.log_shipping.as_ref()).map(LogShipping::at).collect()
}

fn others(topology: &Topology, host: &Host, lost: &BTreeSet<SiteName>) -> Vec<(HostName, String)> {
    let others = topology.hosts.iter().filter(|o| o.name != host.name && !lost.contains(&o.site));
    others.map(|o| (o.name.clone(), o.agent.seen_by(&host.name, &host.site).to_owned())).collect()
}

fn put_together(
    topology: &Topology,
    host: &HostName,
    clock_ms: i64,
    marked: &Probed,
    [seen, deleted]: [Option<&(i64, Probed)>; 2],
) -> Seen {
    let share = |(index, at): (usize, ShareAt)| {
        let of = |probed: &Probed| probed.shares.get(index).cloned();
        let [first, second, third] = [Some(marked), seen.map(|s| &s.1), deleted.map(|s| &s.1)].map(|p| p.and_then(of));
        let fault = [&first, &second, &third].into_iter().flatten().find_map(|s| s.fault.clone());
        let share = ShareSeen {
            fault,
            inside_host_folder: first.as_ref().is_some_and(|s| s.inside_host_folder),
            sees: second.map(|s| s.sees.into_iter().collect()).unwrap_or_default(),
        };
        (at.share, share)
    };
    Seen {
        clock_ms,
        postgres: marked.postgres.clone(),
        unreached: marked.unreached.iter().cloned().collect(),
        shares: shares(topology, host).into_iter().enumerate().map(share).collect(),
    }
}

fn in_words(trouble: Trouble) -> String {
    match trouble {
        Trouble::Silent(Silence::Refused) => "connection refused".into(),
        Trouble::Silent(Silence::TimedOut) => "no answer in time".into(),
        Trouble::Said(said) => said,
    }
}

/// Print remarks as lines.
///
/// # Errors
/// When standard output is closed.
pub fn print(remarks: &[Remark]) -> Outcome {
    remarks.iter().try_for_each(|remark| output::line(&remark.to_string()))
}
