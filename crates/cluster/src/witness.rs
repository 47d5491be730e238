//! The witness of a mirror pair: automatic failover inside a site (ha-dr §4, §6, §13.3).
//!
//! Of principal, mirror and witness two must see each other for anybody to serve. The witness is the site's authority on a
//! host without a database, and it keeps the record; so three rules make it safe, and none of them rests on a clock:
//!
//! - the principal commits only with its mirror until the witness has recorded "not synchronised"
//!   ([`crate::mirror::advance`]);
//! - the mirror takes over only by a change of the record at the witness, which raises the epoch, and only while the
//!   record says "synchronised": then it holds every acknowledged post;
//! - both are compare-and-swap on one record, so of "go on alone" and "take over" one wins, and the other finds out.
//!
//! Silence and refusal decide only how soon. A refused connection is evidence of death, silence is not: a silent principal
//! is waited for as long as the partner time-out says.
//!
//! Here and in the reference: there, a mirror that was cut off from both others may not take over when it meets the witness
//! again, because nothing durable says whether the principal went on alone. Here the record says it.

use crate::name::{DatabaseName, HostName};
use crate::record::PoolRecord;
use crate::report::{HostReport, InstanceReport, InstanceState};
use crate::runbook::{Unmet, View};
use crate::shipping_settings::Span;
use crate::topology::{PartnerTimeout, Topology};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The witness's look takes no longer than this, however long a partner may be silent.
const LOOK_MAX: Span = Span::ms(400);

/// How an instance of PostgreSQL looks to somebody who has just tried to connect to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// It answers, be it that it is starting.
    Answers,
    /// Its host refuses the connection, or it was closed without a word: evidence that it does not run.
    Refused,
    /// No answer in time: it may be alive.
    Silent,
}

/// What a mirror that has lost its principal tells the witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOverRequest {
    /// The database.
    pub database: DatabaseName,
    /// The mirror.
    pub mirror: HostName,
    /// Milliseconds since the mirror last heard the principal, when it asks; the time of the witness's own look comes to it.
    pub silent_ms: u64,
}

/// A take-over that the witness has agreed to: journalled with its run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeOver {
    /// The database.
    pub database: DatabaseName,
    /// The witness.
    pub witness: HostName,
    /// How the witness saw the principal.
    pub seen: Reach,
    /// Milliseconds since the mirror last heard the principal.
    pub silent_ms: u64,
}

/// Whether the witness agrees that the mirror takes over, from the record and from how it sees the principal itself.
///
/// # Errors
/// The sentence says why not; the mirror asks again as long as its principal is lost.
pub fn agrees(
    topology: &Topology,
    witness: &HostName,
    record: &PoolRecord,
    request: &TakeOverRequest,
    seen: Reach,
) -> Result<TakeOver, String> {
    let TakeOverRequest { database, mirror, silent_ms } = request;
    let site = topology.site(&record.home);
    if site.and_then(|s| s.witness()) != Some(witness) {
        return Err(format!("{witness} is not the witness of {}, the pool's home", record.home));
    }
    let (Some(settings), Some(parts)) = (topology.database(database), record.databases.get(database)) else {
        return Err(format!("the pool has no database {database}"));
    };
    let Some(principal) = &parts.principal else {
        return Err(format!("{database} has no principal at the moment: a change of writer is under way"));
    };
    let Some(recorded) = parts.mirror.as_ref().filter(|m| m.host == *mirror) else {
        return Err(format!("{mirror} is not the mirror of {database} in the record"));
    };
    if !recorded.synchronised {
        return Err(format!(
            "the record says that {mirror} is not synchronised: {principal} may have acknowledged posts that {mirror} lacks"
        ));
    }
    if let Some(run) = &record.run {
        return Err(format!("{} is under way, begun by {}", run.runbook, run.started_by));
    }
    let timeout = settings.partner_timeout.0;
    match seen {
        Reach::Answers => Err(format!("{principal} answers {witness}: it keeps serving")),
        Reach::Silent if *silent_ms < timeout.ms => {
            Err(format!("{principal} is silent, and may be so for {timeout} before it counts as lost"))
        }
        Reach::Refused | Reach::Silent => {
            Ok(TakeOver { database: database.clone(), witness: witness.clone(), seen, silent_ms: *silent_ms })
        }
    }
}

/// Longest time that the witness gives anybody to answer while clients wait: a part of what a partner's silence may last.
pub fn look_within(timeout: PartnerTimeout) -> Span {
    Span::ms((timeout.0.ms / 4).min(LOOK_MAX.ms))
}

/// After how much silence the mirror asks the witness. The witness's own look is a part of the partner time-out: when the
/// principal is silent to it as well, the time-out has run out at the end of the look, and nobody has waited longer.
pub fn asks_after(timeout: PartnerTimeout) -> Span {
    Span::ms(timeout.0.ms - look_within(timeout).ms)
}

/// What speaks against an automatic failover, as the hosts report. Nothing of it can be forced.
pub fn unmet(view: &View<'_>, take_over: &TakeOver) -> Vec<Unmet> {
    let database = &take_over.database;
    let no = |why: String| vec![Unmet { why, hint: "the pair is left as it is".into(), can_be_forced: false }];
    let Some(parts) = view.record.databases.get(database) else {
        return no(format!("there is no database {database}"));
    };
    let (Some(principal), Some(mirror)) = (&parts.principal, &parts.mirror) else {
        return no(format!("{database} has no mirror pair now"));
    };
    if !mirror.synchronised {
        return no(format!("the record says that {} is not synchronised", mirror.host));
    }
    if view.instance(principal, database).is_some_and(|i| i.state == InstanceState::Online) {
        return no(format!("{database} on {principal} is online and its agent answers"));
    }
    match view.instance(&mirror.host, database) {
        Some(instance) if instance.state != InstanceState::Standby => {
            no(format!("{database} on {}, the mirror, is not running", mirror.host))
        }
        Some(instance) if hears(instance) && take_over.seen == Reach::Refused => {
            no(format!("{} receives log from {principal} again", mirror.host))
        }
        Some(_) => Vec::new(),
        None => no(format!("{}, the mirror, does not answer ({})", mirror.host, view.silence(&mirror.host))),
    }
}

/// Whether a witness that lost its disk knows enough to decide again: both partners of each pair have been heard, nobody's
/// record is newer, and no database has begun a later epoch than the record, as it would amid a take-over.
///
/// # Errors
/// The sentence says what is missing.
pub fn knows_enough(record: &PoolRecord, reports: &BTreeMap<HostName, HostReport>) -> Result<(), String> {
    for (database, parts) in &record.databases {
        let Some(principal) = &parts.principal else {
            return Err(format!("{database} has no principal in what was heard: a change of writer was under way"));
        };
        for host in std::iter::once(principal).chain(parts.mirror.as_ref().map(|m| &m.host)) {
            let Some(report) = reports.get(host) else { return Err(format!("{host} has not been heard yet")) };
            if report.record.as_ref().is_some_and(|r| r.supersedes(record)) {
                return Err(format!("{host} knows a newer record"));
            }
            let instance = report.instances.get(database);
            match instance.filter(|i| matches!(i.state, InstanceState::Online | InstanceState::Standby)) {
                None => return Err(format!("{database} on {host} is not running, so how far it is is not known")),
                Some(i) if i.database_epoch.is_some_and(|e| e > record.epoch) => {
                    return Err(format!("{database} on {host} has begun a later epoch than anybody's record says"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Whether its stream is up. One that a frozen principal has left open looks so too, for a while.
fn hears(instance: &InstanceReport) -> bool {
    instance.shipping.as_ref().is_some_and(|s| s.streaming)
}

/// What was found, in plain sentences, for the run's report.
pub fn found(record: &PoolRecord, take_over: &TakeOver) -> String {
    let TakeOver { database, witness, seen, silent_ms } = take_over;
    let principal = record.databases.get(database).and_then(|d| d.principal.as_ref());
    let principal = principal.map_or("the principal".to_owned(), ToString::to_string);
    let how = match seen {
        Reach::Refused => "refuses connections",
        Reach::Answers | Reach::Silent => "does not answer",
    };
    format!("{database}: {principal} {how} to the witness {witness}, and its mirror last heard it {silent_ms} ms ago")
}

#[cfg(test)]
mod tests;
