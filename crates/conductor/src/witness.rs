//! The witness at work: it looks at a principal that its mirror has lost, and begins the automatic failover.
//!
//! The decision is `cluster::witness`, the run is the forced switch to the mirror: journalled, resumable and reported like
//! one that an administrator has begun.

use crate::Conductor;
use crate::api::answer;
use crate::observe::{all_hosts, ask};
use crate::plan::{Situation, facts};
use cluster::runbook::{Facts, Silence};
use cluster::switching::FORCE_MIRROR;
use cluster::topology::Topology;
use cluster::witness::{Reach, TakeOverRequest, agrees};
use std::sync::Arc;
use std::time::Duration;
use wire::agent::TakeOverAnswer;
use wire::run::{RunAnswer, StartRun};

/// Longest time that the witness gives anybody to answer, while clients wait.
const ANSWER_MAX: Duration = Duration::from_millis(400);

/// A mirror has lost its principal.
///
/// # Errors
/// When this host's own agent does not answer, or the run cannot be journalled.
pub async fn take_over(conductor: &Arc<Conductor>, request: &TakeOverRequest) -> Result<TakeOverAnswer, String> {
    let refused = |message: String| Ok(TakeOverAnswer::Refused { message });
    let _one_at_a_time = conductor.starting.lock().await;
    let agents = &conductor.agents;
    let topology = agents.topology()?;
    let Some(record) = agents.own_record().await? else { return refused("there is no pool yet".into()) };
    if conductor.dir.join("store/hearsay").exists() {
        return refused("it lost its record, and decides nothing until it has heard both partners".into());
    }
    let database = &request.database;
    let Some(principal) = record.databases.get(database).and_then(|d| d.principal.clone()) else {
        return refused(format!("{database} has no principal at the moment"));
    };
    let limit = answer_within(&topology, request);
    let known_silent = conductor.observer.silent();
    let hosts = all_hosts(&topology).into_iter().filter(|h| !known_silent.contains_key(h) || *h == principal);
    let (seen, mut look) =
        tokio::join!(agents.reach(&topology, database, &principal, limit), ask(agents, &topology, hosts, limit),);
    let take_over = match agrees(&topology, &agents.host, &record, request, seen?) {
        Ok(take_over) => take_over,
        Err(why) => return refused(why),
    };
    if let Some(newer) = look.newest_record().filter(|r| r.supersedes(&record)) {
        return refused(format!("somebody knows of epoch {}, version {}, already", newer.epoch, newer.version));
    }
    for (host, silence) in known_silent {
        if !look.reports.contains_key(&host) {
            look.silent.entry(host).or_insert(silence);
        }
    }
    if !look.reports.contains_key(&principal) {
        let silence = if take_over.seen == Reach::Refused { Silence::Refused } else { Silence::TimedOut };
        conductor.observer.found_silent(&principal, *look.silent.get(&principal).unwrap_or(&silence));
    }
    let facts = Facts { automatic: Some(take_over), ..facts(&topology, &record, conductor) };
    let now = Situation { topology, record, look, facts };
    let wanted = StartRun {
        runbook: FORCE_MIRROR.name.to_owned(),
        what_if: false,
        force: false,
        only_step: None,
        new_principal: None,
        started_by: format!("the witness {}", agents.host),
    };
    match answer(conductor, FORCE_MIRROR, wanted, &now)? {
        RunAnswer::Started { id, .. } => {
            tracing::warn!(%database, run = %id, "the principal is lost: its mirror takes over");
            Ok(TakeOverAnswer::Begun { run: id })
        }
        RunAnswer::Refused { unmet, .. } => refused(unmet.into_iter().map(|u| u.why).collect::<Vec<_>>().join("; ")),
        RunAnswer::AlreadyThere { message } => refused(message),
        RunAnswer::Plan(_) => refused("a plan was made, and nothing else".into()),
    }
}

/// How long anybody may take to answer: a part of what a partner's silence may last.
fn answer_within(topology: &Topology, request: &TakeOverRequest) -> Duration {
    let timeout = topology.database(&request.database).map(|d| d.partner_timeout).unwrap_or_default().0;
    (timeout.duration() / 4).min(ANSWER_MAX)
}
