//! The mirror pair: when commits wait for the mirror, and when they no longer do.
//!
//! The rule that everything rests on: an acknowledged post is on the mirror unless the record says "not synchronised".
//! So waiting stops only *after* "not synchronised" is durable at the authority, and "synchronised" is recorded only
//! *after* PostgreSQL waits and the mirror has confirmed everything that was there before.

use crate::name::HostName;
use crate::record::DatabaseRecord;
use crate::report::{InstanceReport, InstanceState};
use crate::wal::Lsn;

/// What the principal's agent sees of its pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairView {
    /// The mirror of the record; `None` when there is none.
    pub mirror: Option<HostName>,
    /// What the newest record says.
    pub recorded_synchronised: bool,
    /// The host in `synchronous_standby_names`, as PostgreSQL has it.
    pub waits_for: Option<HostName>,
    /// Flushed position of the principal.
    pub written: Lsn,
    /// The mirror's connection, if there is one now: `(streaming, flushed)`.
    pub connection: Option<(bool, Lsn)>,
    /// Milliseconds since the mirror was last seen connected; `None` when never since the agent started watching.
    pub silent_ms: Option<u64>,
    /// Milliseconds for which the agent has watched this pair.
    pub watched_ms: u64,
    /// Whether there is evidence that the mirror is dead, not merely silent: its host's agent says that the instance is
    /// stopped, or connections to it are refused.
    pub evidently_dead: bool,
    /// The partner time-out, in milliseconds.
    pub timeout_ms: u64,
    /// Milliseconds since the site's witness was last heard; `None` where the site has none. With a witness, of the three
    /// two must see each other for anybody to serve (ha-dr §13.3).
    pub witness_silent_ms: Option<u64>,
}

/// What to do about the pair. One thing at a time; the next view decides what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PairAction {
    /// Nothing to do.
    Nothing,
    /// Make commits wait for this host.
    WaitFor(HostName),
    /// Record at the authority that the pair is synchronised.
    RecordSynchronised,
    /// Record at the authority that the pair is not synchronised. Commits go on waiting until that is durable.
    RecordNotSynchronised,
    /// Let commits wait for nobody; the record says "not synchronised" already.
    WaitForNobody,
    /// Neither mirror nor witness is seen: stop serving until one of them is. The mirror may have taken over.
    StopServing,
}

/// Silence after which a connected-then-lost mirror counts as lost where there is evidence of death, in milliseconds: clients
/// wait for commits meanwhile. Without it the database's partner time-out is waited for.
pub const PARTNER_TIMEOUT_DEAD_MS: u64 = 300;

/// How far behind a mirror may be for commits to begin waiting for it, in bytes: what streams in a few milliseconds.
pub const NEARLY_CAUGHT_UP_BYTES: u64 = 4 * 1024 * 1024;

/// Decide the next thing to do.
pub fn advance(view: &PairView) -> PairAction {
    let Some(mirror) = &view.mirror else {
        // No mirror in the record: nothing recorded can be contradicted.
        return if view.waits_for.is_some() { PairAction::WaitForNobody } else { PairAction::Nothing };
    };
    if alone(view) {
        return PairAction::StopServing;
    }
    let waits = view.waits_for.as_ref() == Some(mirror);
    let streaming = view.connection.filter(|(streaming, _)| *streaming).map(|(_, flushed)| flushed);
    match (view.recorded_synchronised, waits, streaming) {
        // The record promises what PostgreSQL does not do (a restart with an old configuration): do it.
        (true, false, _) => PairAction::WaitFor(mirror.clone()),
        (true, true, Some(_)) => PairAction::Nothing,
        (true, true, None) if lost(view) => PairAction::RecordNotSynchronised,
        (true, true, None) => PairAction::Nothing,
        (false, true, Some(flushed)) if flushed >= view.written => PairAction::RecordSynchronised,
        // It waits for a mirror that is connected and still catching up.
        (false, true, Some(_)) => PairAction::Nothing,
        (false, true, None) => PairAction::WaitForNobody,
        (false, false, Some(flushed)) if view.written.bytes_after(flushed) <= NEARLY_CAUGHT_UP_BYTES => {
            PairAction::WaitFor(mirror.clone())
        }
        (false, false, _) => {
            if view.waits_for.is_some() {
                PairAction::WaitForNobody
            } else {
                PairAction::Nothing
            }
        }
    }
}

/// The same for an agent that has asked for "synchronised" and got no answer, or has just started and cannot know whether
/// it had. What was asked for may still be taken, so before commits stop waiting the record is changed once more: a late
/// request then finds a newer version, and is refused. An agent that starts its principal lets it wait for the mirror of
/// the record, synchronised or not, until then.
pub fn advance_unanswered(view: &PairView) -> PairAction {
    match advance(view) {
        PairAction::WaitForNobody if view.mirror.is_some() && !view.recorded_synchronised => {
            PairAction::RecordNotSynchronised
        }
        action => action,
    }
}

fn lost(view: &PairView) -> bool {
    if view.connection.is_some() {
        return false;
    }
    let silent = view.silent_ms.unwrap_or(view.watched_ms);
    silent >= if view.evidently_dead { PARTNER_TIMEOUT_DEAD_MS } else { view.timeout_ms }
}

/// Whether a principal with a witness sees neither of the other two, for as long as a partner may be silent.
fn alone(view: &PairView) -> bool {
    let mirror_silent = view.silent_ms.unwrap_or(view.watched_ms) >= view.timeout_ms;
    view.connection.is_none() && mirror_silent && view.witness_silent_ms.is_some_and(|ms| ms >= view.timeout_ms)
}

/// The state of a pair in the reference's words (ha-dr §13.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairState {
    /// The record has no mirror.
    None,
    /// The mirror receives, and commits do not wait for it yet.
    Synchronizing,
    /// Commits wait for the mirror, and it receives.
    Synchronized,
    /// The mirror's host answers, and its database takes no log: it has yet to be rewound, or is stopped.
    Suspended,
    /// The two are changing places.
    PendingFailover,
    /// One of the two has lost the other.
    Disconnected,
}

impl std::fmt::Display for PairState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PairState::None => "NONE",
            PairState::Synchronizing => "SYNCHRONIZING",
            PairState::Synchronized => "SYNCHRONIZED",
            PairState::Suspended => "SUSPENDED",
            PairState::PendingFailover => "PENDING_FAILOVER",
            PairState::Disconnected => "DISCONNECTED",
        })
    }
}

/// The state of a database's pair, from the record and from what the agents of both hosts say of their instances.
pub fn state<'a>(record: &DatabaseRecord, instance: impl Fn(&HostName) -> Option<&'a InstanceReport>) -> PairState {
    let Some(mirror) = &record.mirror else { return PairState::None };
    let Some(principal) = &record.principal else { return PairState::PendingFailover };
    let receives = instance(principal).is_some_and(|i| i.receivers.iter().any(|r| r.host == mirror.host));
    match (receives, mirror.synchronised, instance(&mirror.host)) {
        (true, true, _) => PairState::Synchronized,
        (true, false, _) => PairState::Synchronizing,
        (false, _, Some(there)) if there.state != InstanceState::Standby => PairState::Suspended,
        (false, ..) => PairState::Disconnected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: u64 = 2_500;

    fn view() -> PairView {
        PairView {
            mirror: Some("b".into()),
            recorded_synchronised: true,
            waits_for: Some("b".into()),
            written: Lsn(1000),
            connection: Some((true, Lsn(1000))),
            silent_ms: Some(0),
            watched_ms: 60_000,
            evidently_dead: false,
            timeout_ms: TIMEOUT,
            witness_silent_ms: None,
        }
    }

    fn check(change: impl FnOnce(&mut PairView), expect: &PairAction) {
        let mut v = view();
        change(&mut v);
        assert_eq!(&advance(&v), expect, "{v:?}");
    }

    #[test]
    fn a_healthy_pair_is_left_alone() {
        check(|_| (), &PairAction::Nothing);
    }

    #[test]
    fn a_short_silence_is_waited_out() {
        check(
            |v| {
                v.connection = None;
                v.silent_ms = Some(TIMEOUT - 1);
            },
            &PairAction::Nothing,
        );
    }

    #[test]
    fn a_lost_mirror_is_recorded_before_commits_stop_waiting() {
        check(
            |v| {
                v.connection = None;
                v.silent_ms = Some(TIMEOUT);
            },
            &PairAction::RecordNotSynchronised,
        );
        check(
            |v| {
                v.connection = None;
                v.silent_ms = Some(TIMEOUT);
                v.recorded_synchronised = false;
            },
            &PairAction::WaitForNobody,
        );
    }

    #[test]
    fn evidence_of_death_shortens_the_wait() {
        check(
            |v| {
                v.connection = None;
                v.silent_ms = Some(PARTNER_TIMEOUT_DEAD_MS);
                v.evidently_dead = true;
            },
            &PairAction::RecordNotSynchronised,
        );
    }

    /// The quorum of ha-dr §13.3, as the principal sees it: which connections are lost, and what it does.
    #[test]
    fn a_principal_that_sees_neither_mirror_nor_witness_stops_serving() {
        let mirror_lost = |v: &mut PairView| {
            v.connection = None;
            v.silent_ms = Some(TIMEOUT);
        };
        // Mirror lost, witness in touch: exposed, once the witness has recorded it.
        check(
            |v| {
                mirror_lost(v);
                v.witness_silent_ms = Some(0);
            },
            &PairAction::RecordNotSynchronised,
        );
        // Witness lost, mirror in touch: it serves.
        check(|v| v.witness_silent_ms = Some(60_000), &PairAction::Nothing);
        // Both lost, synchronised or exposed.
        for synchronised in [true, false] {
            check(
                |v| {
                    mirror_lost(v);
                    v.recorded_synchronised = synchronised;
                    v.witness_silent_ms = Some(TIMEOUT);
                },
                &PairAction::StopServing,
            );
        }
        // A moment of silence of either is waited out, also where the mirror is evidently dead.
        check(
            |v| {
                v.connection = None;
                v.silent_ms = Some(PARTNER_TIMEOUT_DEAD_MS);
                v.evidently_dead = true;
                v.witness_silent_ms = Some(TIMEOUT);
            },
            &PairAction::RecordNotSynchronised,
        );
        // Without a witness the principal serves as long as it runs.
        check(mirror_lost, &PairAction::RecordNotSynchronised);
        // Without a mirror in the record nobody can take over.
        check(
            |v| {
                mirror_lost(v);
                v.mirror = None;
                v.waits_for = None;
                v.witness_silent_ms = Some(TIMEOUT);
            },
            &PairAction::Nothing,
        );
    }

    #[test]
    fn a_returning_mirror_is_waited_for_before_it_is_recorded() {
        let back = |v: &mut PairView| {
            v.recorded_synchronised = false;
            v.waits_for = None;
        };
        check(back, &PairAction::WaitFor("b".into()));
        check(
            |v| {
                back(v);
                v.waits_for = Some("b".into());
            },
            &PairAction::RecordSynchronised,
        );
        check(
            |v| {
                back(v);
                v.waits_for = Some("b".into());
                v.connection = Some((true, Lsn(999)));
            },
            &PairAction::Nothing,
        );
        check(
            |v| {
                back(v);
                v.written = Lsn(NEARLY_CAUGHT_UP_BYTES + 2000);
            },
            &PairAction::Nothing,
        );
    }

    #[test]
    fn what_was_asked_for_and_not_answered_is_overruled_before_commits_stop_waiting() {
        let gone = PairView { recorded_synchronised: false, connection: None, ..view() };
        assert_eq!(advance(&gone), PairAction::WaitForNobody);
        assert_eq!(advance_unanswered(&gone), PairAction::RecordNotSynchronised);
        assert_eq!(advance_unanswered(&PairView { mirror: None, ..gone }), PairAction::WaitForNobody);
        assert_eq!(advance_unanswered(&view()), PairAction::Nothing);
    }

    #[test]
    fn a_restarted_principal_waits_again_before_anything_else() {
        check(
            |v| {
                v.waits_for = None;
                v.connection = None;
                v.silent_ms = None;
                v.watched_ms = 0;
            },
            &PairAction::WaitFor("b".into()),
        );
    }
}
