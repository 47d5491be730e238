//! Letting clients in when many come at once: after a server, a site or a network was lost, everybody signs in again in the
//! same second, at whoever is left.
//!
//! Three decisions, each pure: how many are let in at a time ([`Pace`]), what becomes of somebody who cannot wait here
//! ([`door`], [`Appointments`]), and who is sent to a server with more room ([`elsewhere`]). Times come in as numbers.
//!
//! Always true: people who are here and post go first. Nobody is refused: who cannot wait connected is given a time to come
//! back, another one to everybody, and comes back to the place in the row that the first visit had.

/// Posts that take longer than this to be acknowledged make letting in slower.
pub const ACK_SLOW_MS: u64 = 250;
/// While posts take no longer than this, letting in may become quicker.
pub const ACK_QUICK_MS: u64 = 100;
/// A round of letting in that takes longer than this does not grow; one that takes twice as long shrinks.
pub const ROUND_MS: u64 = 60;
/// Most that are let in in one round.
pub const AT_ONCE_MAX: u32 = 512;
/// Fewest.
pub const AT_ONCE_MIN: u32 = 8;
/// What a server begins with.
pub const AT_ONCE_FIRST: u32 = 64;
/// Longest time that anybody is told to come back after, in milliseconds: what is expected further off is not known.
pub const COME_BACK_MAX_MS: u64 = 60_000;
/// Shortest: coming back costs a connection.
pub const COME_BACK_MIN_MS: u64 = 200;
/// With fewer than this waiting here, nobody is sent elsewhere: it would take longer than waiting.
pub const ELSEWHERE_MIN: u64 = 256;

/// What was seen since the last decision on the pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The longest that a post took to be acknowledged, or has been waiting for it. 0: nobody posts.
    pub ack_ms: u64,
    /// How long the last round took.
    pub round_ms: u64,
    /// How many it let in.
    pub let_in: u32,
    /// Whether others had to wait for the next round.
    pub others_wait: bool,
}

/// How many are let in in one round, adapted to how long acknowledgements take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    at_once: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { at_once: AT_ONCE_FIRST }
    }
}

impl Pace {
    /// Most to let in in the next round; [`AT_ONCE_MIN`] to [`AT_ONCE_MAX`].
    pub fn at_once(self) -> u32 {
        self.at_once
    }

    /// The pace after a round: half when posts or the round itself took too long, a quarter more when both were quick and
    /// there is a reason to be quicker.
    pub fn after(self, seen: Seen) -> Self {
        let slow = seen.ack_ms > ACK_SLOW_MS || seen.round_ms > 2 * ROUND_MS;
        let quick = seen.ack_ms <= ACK_QUICK_MS && seen.round_ms <= ROUND_MS;
        let at_once = if slow {
            self.at_once / 2
        } else if quick && seen.others_wait {
            self.at_once + self.at_once / 4
        } else {
            self.at_once
        };
        Self { at_once: at_once.clamp(AT_ONCE_MIN, AT_ONCE_MAX) }
    }

    /// How long to rest after a round, so that what others do here has its turn: as long as the round took while people post,
    /// and four times as long while they wait for it; not at all when nobody posts.
    pub fn rest_ms(self, seen: Seen) -> u64 {
        match seen.ack_ms {
            0 => 0,
            slow if slow > ACK_SLOW_MS => 4 * seen.round_ms.max(5),
            _ => seen.round_ms,
        }
    }
}

/// So many are let in a second, as seen over the last rounds. Slowly forgotten, so that one odd round changes little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(f64);

impl Default for Rate {
    fn default() -> Self {
        // Before anything was seen: what a small machine does.
        Self(500.0)
    }
}

impl Rate {
    /// So many a second, at least one.
    pub fn per_second(count: u32) -> Self {
        Self(f64::from(count.max(1)))
    }

    /// The rate after a round that let in so many, and took so long with its rest.
    pub fn after(self, let_in: u32, took_ms: u64) -> Self {
        const WEIGHT: f64 = 0.2;
        let now = f64::from(let_in) * 1000.0 / took_ms.max(1) as f64;
        Self((self.0 * (1.0 - WEIGHT) + now * WEIGHT).clamp(1.0, 1e6))
    }

    /// How long it takes to let in so many, in milliseconds.
    pub fn time_for_ms(self, count: u64) -> u64 {
        (count as f64 * 1000.0 / self.0) as u64
    }
}

/// What becomes of somebody who is at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Waits here, connected.
    Wait,
    /// Is given a time to come back.
    ComeBack,
}

/// Whether somebody may wait here. `waiting` do already; `most` may, and as many again of those who were told to come back
/// and have: newcomers never take their places.
pub fn door(waiting: u64, most: u64, has_ticket: bool) -> Door {
    let most = if has_ticket { most.saturating_mul(2) } else { most };
    if waiting < most { Door::Wait } else { Door::ComeBack }
}

/// The times that were given away, so that everybody is given another one: they come back one by one, as they can be let in,
/// and not all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Appointments {
    /// The next time that is free, in milliseconds of the server's own clock.
    next_ms: f64,
}

impl Appointments {
    /// Give a time away: the milliseconds from `now_ms` on. Not before those who wait here now are in, nor before those who
    /// were given a time earlier. Beyond [`COME_BACK_MAX_MS`] times are given again from the middle on.
    pub fn give(&mut self, now_ms: u64, waiting: u64, rate: Rate) -> u64 {
        let now = now_ms as f64;
        let earliest = now + rate.time_for_ms(waiting).max(COME_BACK_MIN_MS) as f64;
        let mut at = self.next_ms.max(earliest);
        if at > now + COME_BACK_MAX_MS as f64 {
            at = now + COME_BACK_MAX_MS as f64 / 2.0;
        }
        self.next_ms = at + 1000.0 / rate.0;
        ((at - now) as u64).clamp(COME_BACK_MIN_MS, COME_BACK_MAX_MS)
    }
}

/// What is known of another active server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// So many wait there, as it last said.
    pub waiting: u64,
    /// So many were sent there since it said so.
    pub sent: u64,
}

/// To whom somebody is sent, as a place in `others`: the server where fewest wait, if it is less than half of those who wait
/// here. What was sent since is counted as waiting there, so that two servers do not send everybody to and fro.
pub fn elsewhere(waiting: u64, others: &[Other]) -> Option<usize> {
    if waiting < ELSEWHERE_MIN {
        return None;
    }
    let there = |other: &Other| other.waiting + other.sent;
    let (at, least) = others.iter().enumerate().min_by_key(|(_, other)| there(other))?;
    (there(least) < waiting / 2).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(at_once: u32, seen: Seen, expect: u32) {
        assert_eq!(Pace { at_once }.after(seen).at_once(), expect, "{at_once} {seen:?}");
    }

    #[test]
    fn the_pace_follows_the_acknowledgements() {
        let quick = Seen { ack_ms: 20, round_ms: 10, let_in: 64, others_wait: true };
        check(64, quick, 80);
        check(AT_ONCE_MAX, quick, AT_ONCE_MAX);
        check(64, Seen { others_wait: false, ..quick }, 64);
        check(64, Seen { ack_ms: ACK_QUICK_MS + 1, ..quick }, 64);
        check(64, Seen { ack_ms: ACK_SLOW_MS + 1, ..quick }, 32);
        check(64, Seen { round_ms: ROUND_MS + 1, ..quick }, 64);
        check(64, Seen { round_ms: 2 * ROUND_MS + 1, ..quick }, 32);
        check(AT_ONCE_MIN, Seen { ack_ms: 9_000, ..quick }, AT_ONCE_MIN);
        // Nobody posts: only the rounds themselves count.
        check(64, Seen { ack_ms: 0, ..quick }, 80);
    }

    #[test]
    fn who_posts_has_at_least_half_of_the_time() {
        let seen = |ack_ms| Seen { ack_ms, round_ms: 20, let_in: 64, others_wait: true };
        let rest = |ack_ms| Pace::default().rest_ms(seen(ack_ms));
        assert_eq!((rest(0), rest(30), rest(ACK_SLOW_MS + 1)), (0, 20, 80));
    }

    #[test]
    fn newcomers_never_take_the_places_of_those_who_come_back() {
        assert_eq!(door(99, 100, false), Door::Wait);
        assert_eq!(door(100, 100, false), Door::ComeBack);
        assert_eq!(door(199, 100, true), Door::Wait);
        assert_eq!(door(200, 100, true), Door::ComeBack);
    }

    #[test]
    fn everybody_is_given_another_time_as_fast_as_they_can_be_let_in() {
        let mut appointments = Appointments::default();
        let rate = Rate(1000.0);
        let times: Vec<u64> = (0..10_000).map(|_| appointments.give(5_000, 2_000, rate)).collect();
        assert_eq!(times[0], 2_000, "not before those who wait are in");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 2), "evenly, without a crowd");
        assert!(times[9_999].abs_diff(12_000) < 20, "{}", times[9_999]);
        // Nobody is sent away for longer than anybody can foresee.
        let slow = Rate(1.0);
        assert!((0..1_000).all(|_| appointments.give(5_000, 2_000, slow) <= COME_BACK_MAX_MS));
        // Long after, the times that were given do not matter any more.
        assert_eq!(appointments.give(500_000, 0, rate), COME_BACK_MIN_MS);
    }

    #[test]
    fn somebody_is_sent_where_it_is_really_sooner_and_not_to_and_fro() {
        let other = |waiting, sent| Other { waiting, sent };
        assert_eq!(elsewhere(ELSEWHERE_MIN - 1, &[other(0, 0)]), None);
        assert_eq!(elsewhere(1_000, &[]), None);
        assert_eq!(elsewhere(1_000, &[other(800, 0), other(100, 0)]), Some(1));
        assert_eq!(elsewhere(1_000, &[other(500, 0)]), None);
        // One server has everybody, the other nobody: they are shared out, and then nobody is sent any more.
        let (mut here, mut sent) = (0, 0);
        for _ in 0..20_000 {
            if elsewhere(here, &[other(0, sent)]).is_some() { sent += 1 } else { here += 1 }
        }
        assert!(here.abs_diff(2 * sent) < ELSEWHERE_MIN, "{here} here, {sent} there");
        assert_eq!(elsewhere(sent, &[other(here, 0)]), None);
    }

    #[test]
    fn the_rate_is_what_was_seen() {
        let mut rate = Rate::default();
        for _ in 0..40 {
            rate = rate.after(100, 50);
        }
        assert!(rate.time_for_ms(2_000).abs_diff(1_000) < 10, "{rate:?}");
    }
}
