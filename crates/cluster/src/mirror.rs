//! The mirror pair: when commits wait for the mirror, and when they no longer do.
//!
//! The rule that everything rests on: an acknowledged post is on the mirror unless the record says "not synchronised".
//! So waiting stops only *after* "not synchronised" is durable at the authority, and "synchronised" is recorded only
//! *after* PostgreSQL waits and the mirror has confirmed everything that was there before.

use crate::name::HostName;
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
}

/// Silence after which a connected-then-lost mirror counts as lost, in milliseconds. The reference's partner time-out is
/// 10 s, with less not recommended on its networks (ha-dr §13.3); PostgreSQL sees a closed connection at once, and
/// clients wait for commits meanwhile, so ours is shorter.
pub const PARTNER_TIMEOUT_MS: u64 = 3_000;

/// The same where there is evidence of death.
pub const PARTNER_TIMEOUT_DEAD_MS: u64 = 300;

/// How far behind a mirror may be for commits to begin waiting for it, in bytes: what streams in a few milliseconds.
pub const NEARLY_CAUGHT_UP_BYTES: u64 = 4 * 1024 * 1024;

/// Decide the next thing to do.
pub fn advance(view: &PairView) -> PairAction {
    let Some(mirror) = &view.mirror else {
        // No mirror in the record: nothing recorded can be contradicted.
        return if view.waits_for.is_some() { PairAction::WaitForNobody } else { PairAction::Nothing };
    };
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
    silent >= if view.evidently_dead { PARTNER_TIMEOUT_DEAD_MS } else { PARTNER_TIMEOUT_MS }
}

/// The pair's state in the reference's words (ha-dr §13.3).
pub fn state_in_words(view: &PairView) -> &'static str {
    match (&view.mirror, view.recorded_synchronised, view.connection) {
        (None, _, _) => "NONE",
        (Some(_), true, Some(_)) => "SYNCHRONIZED",
        (Some(_), false, Some(_)) => "SYNCHRONIZING",
        (Some(_), _, None) => "DISCONNECTED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                v.silent_ms = Some(PARTNER_TIMEOUT_MS - 1);
            },
            &PairAction::Nothing,
        );
    }

    #[test]
    fn a_lost_mirror_is_recorded_before_commits_stop_waiting() {
        check(
            |v| {
                v.connection = None;
                v.silent_ms = Some(PARTNER_TIMEOUT_MS);
            },
            &PairAction::RecordNotSynchronised,
        );
        check(
            |v| {
                v.connection = None;
                v.silent_ms = Some(PARTNER_TIMEOUT_MS);
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
