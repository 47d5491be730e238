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
use cluster::witness::{Reach, TakeOverRequest, agrees, look_within};
use std::sync::Arc;
use std::time::Instant;
use wire::agent::TakeOverAnswer;
use wire::run::{RunAnswer, StartRun};

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
    let limit = look_within(topology.database(database).map(|d| d.partner_timeout).unwrap_or_default()).duration();
    let began = Instant::now();
    let known_silent = conductor.observer.silent();
    let hosts = all_hosts(&topology).into_iter().filter(|h| !known_silent.contains_key(h) || *h == principal);
    let (seen, mut look) =
        tokio::join!(agents.reach(&topology, database, &principal, limit), ask(agents, &topology, hosts, limit),);
    // A principal that was silent to the witness all the while was so to its mirror.
    let silent_ms = request.silent_ms + began.elapsed().as_millis() as u64;
    let request = TakeOverRequest { silent_ms, ..request.clone() };
    let take_over = match agrees(&topology, &agents.host, &record, &request, seen?) {
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
        limits: None,
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
