//! What must always hold, in words that a person can judge; and what must happen at some time.

use crate::protection::Protection;
use crate::state::{Ask, Book, HOSTS, HostNumber, Message, POSTS_MAX, Postgres, S1A, State, What, site};
use crate::words::posts;
use crate::world::{Action, World};

/// What is broken in this state, if anything is.
pub fn broken(state: &State) -> Option<String> {
    one_writer(state).or_else(|| promise_one(state)).or_else(|| nothing_shipped_is_lost(state)).or_else(|| kept(state))
}

/// No two instances are open for writing in one epoch, and no two have acknowledged in one.
fn one_writer(state: &State) -> Option<String> {
    for a in HOSTS {
        for b in HOSTS.into_iter().filter(|b| *b > a) {
            let (x, y) = (state.host(a), state.host(b));
            let open = x.postgres == Postgres::Writer && y.postgres == Postgres::Writer;
            if open && x.log.stands_for() == y.log.stands_for() {
                return Some(format!("one writer: two are open in epoch {}", x.log.stands_for()));
            }
        }
    }
    let by = state.acknowledged;
    let two = by.iter().enumerate().any(|(at, (e, h))| *e != 0 && by[..at].iter().any(|(f, g)| f == e && g != h));
    two.then(|| "one writer: two hosts have acknowledged posts in one epoch".into())
}

/// Promise 1: while the record says "synchronised", what the principal has acknowledged is on the mirror.
fn promise_one(state: &State) -> Option<String> {
    let record = state.newest_record();
    let (Some(principal), Some((mirror, true))) = (record.principal, record.mirror) else { return None };
    let mirrored = state.host(mirror).log.posts();
    let epoch = state.host(principal).log.writer();
    for (post, by) in state.acknowledged.iter().enumerate() {
        if *by == (epoch, principal) && mirrored & 1 << post == 0 {
            return Some(format!(
                "promise 1: p{post} is acknowledged, the record says synchronised, and the mirror lacks it"
            ));
        }
    }
    None
}

/// The host with the present history: that of the latest promotion, or of a writer that was opened again after it. An epoch for
/// which a writer was handed over, and that nobody has opened yet, is not begun: its run may still be overruled.
fn present(state: &State) -> usize {
    let opened = state.hosts.iter().filter(|h| h.handed_over != h.history).map(|h| h.history).max().unwrap_or(1);
    let key = |h: usize| {
        let log = state.hosts[h].log;
        (log.stands_for_by(opened), log.writer(), log.len())
    };
    (0..4).rev().max_by_key(|h| key(*h)).expect("there are four hosts")
}

/// Whatever lies in the share of an epoch that is over is in the present history; but for what a forced switch, which does
/// without the share, has left behind there.
fn nothing_shipped_is_lost(state: &State) -> Option<String> {
    let log = state.hosts[present(state)].log;
    let from = (0..=log.writer()).rev().find(|e| state.forced & 1 << e != 0).unwrap_or(0);
    let older = &state.share[usize::from(from)..usize::from(log.writer())];
    let shipped = older.iter().fold(0, |all, log| all | log.posts());
    let lost = shipped & !log.posts();
    (lost != 0)
        .then(|| format!("nothing shipped is lost: {} was shipped and is not in the present history", posts(lost)))
}

/// An acknowledged post is in the present history; or it was rewound by a failover, and is on the old site's disks or in a
/// salvage.
fn kept(state: &State) -> Option<String> {
    let log = state.hosts[present(state)].log;
    for post in 0..POSTS_MAX {
        let (epoch, _) = state.acknowledged[post];
        let bit = 1 << post;
        if epoch == 0 || log.posts() & bit != 0 {
            continue;
        }
        // Of two histories that went on without hearing of each other the one with the later epoch stands, whichever forked first.
        let other = log.forks() & !state.acknowledged_after[post] & state.loses != 0;
        let rewound = other || (epoch + 1..=log.stands_for()).any(|e| state.loses & 1 << e != 0);
        if !rewound {
            return Some(format!("acknowledged is kept: p{post} of epoch {epoch} is lost without a failover"));
        }
        if !state.hosts.iter().any(|h| (h.log.posts() | h.salvage) & bit != 0) {
            return Some(format!("acknowledged is kept: p{post} of epoch {epoch} was rewound, and nobody has kept it"));
        }
    }
    None
}

/// What this step from one state to the next breaks, if anything.
pub fn broken_by(world: &World, before: &State, action: Action, after: &State) -> Option<String> {
    if let Action::Deliver(at) = action
        && let Message { to, what: What::Give(order), .. } = before.network[usize::from(at)]
        && order.stamp < before.host(to).latest
        && after.host(to).executing.len() > before.host(to).executing.len()
        && world.on(Protection::Stamps)
    {
        return Some(format!("stamps: host {to} took an older order"));
    }
    if let Some(host) = fence_is_missing(world, before, action, after) {
        return Some(format!("the fence holds: host {host} answers, and nothing keeps it from opening"));
    }
    for host in HOSTS {
        let (b, a) = (before.host(host), after.host(host));
        if a.record != b.record && !a.record.supersedes(&b.record) {
            return Some(format!("epochs only rise: the record of host {host} went back"));
        }
        // What was handed over for an epoch that never began is part of what has overruled that, once it has been rewound.
        if a.history < b.history && !b.is_overruled_by(b.record.epoch) {
            return Some(format!("epochs only rise: the history of host {host} went back"));
        }
        let opened = b.postgres == Postgres::Stopped && a.postgres == Postgres::Writer;
        let newest = after.hosts[present(after)].log.writer();
        // Which of two that did not hear of each other is left behind is known when they meet.
        let beside = after.forced & after.loses & 1 << newest != 0;
        let left_behind = a.log.writer() < newest && !beside;
        if opened && left_behind && (!b.heard_other_site || b.fenced_by > a.log.writer()) {
            return Some(format!("a left-behind instance never opens: host {host} did, after a later promotion"));
        }
        let promoted = b.postgres == Postgres::Standby && a.postgres == Postgres::Writer;
        let by = b.executing.first().filter(|(given, _)| matches!(given.ask, Ask::Promote(_)));
        if promoted
            && let Some(run) = by.and_then(|(given, _)| before.run(given.run))
            && matches!(run.book, Book::Failback | Book::Switch | Book::Planned)
            && let Some(old) = run.before.principal
            && old != host
            && !before.host(old).log.is_prefix_of(b.log)
        {
            return Some(format!("every byte: host {host} was promoted without all that host {old} had"));
        }
    }
    None
}

/// A host that a run should have fenced by now, with its first step; and has not, although the host answers.
fn fence_is_missing(world: &World, before: &State, action: Action, after: &State) -> Option<HostNumber> {
    for (was, is) in before.runs.iter().zip(&after.runs) {
        let (Some(was), Some(is)) = (was, is) else { continue };
        if is.undoing || (was.id, was.done, is.done) != (is.id, 0, 1) {
            continue;
        }
        let old = is.before.principal.unwrap_or(S1A);
        let fenced: Vec<HostNumber> = match is.book {
            Book::Failover if world.on(Protection::FenceFirst) => {
                HOSTS.into_iter().filter(|h| site(*h) == site(old)).collect()
            }
            // A principal that answers and does not stop is done without after a while: it commits nothing without its mirror.
            Book::Force if matches!(action, Action::LateTurn(_)) => continue,
            Book::Force => vec![old],
            Book::Failover | Book::Failback | Book::Switch | Book::Planned => continue,
        };
        let carrier = is.book.carrier(is.before.home);
        let missing = fenced.into_iter().find(|host| could_open(before, world.authority(carrier), *host));
        if missing.is_some() {
            return missing;
        }
    }
    None
}

/// Whether a host of the old writer that answers could open in the old epoch, or is open.
fn could_open(state: &State, carrier: HostNumber, host: HostNumber) -> bool {
    let h = state.host(host);
    let epoch = state.host(carrier).record.epoch;
    let knows = h.record.epoch >= epoch || h.fenced_by >= epoch;
    let open = h.postgres != Postgres::Stopped;
    state.reaches(carrier, host) && (open || !knows)
}

/// What happened, for the properties of the kind "at some time".
pub fn happened(world: &World, before: &State, after: &State, action: Action, seen: &mut impl FnMut(String)) {
    for (was, is) in before.runs.iter().zip(&after.runs) {
        let (Some(was), Some(is)) = (was, is) else { continue };
        let steps = world.steps(is.book);
        if was.id != is.id {
            continue;
        }
        if !was.over && is.over && is.undoing {
            seen(format!("a {:?} is undone", is.book));
        }
        let finished = !was.over && is.over && !is.undoing && usize::from(is.done) == steps.len();
        if finished {
            seen(format!("a {:?} finishes", is.book));
        }
        let taken_back = is.book == Book::Switch && finished && after.newest_record().principal == is.before.principal;
        if taken_back {
            seen("a writer is taken back".into());
        }
        let faults = matches!(action, Action::CrashAgent { .. } | Action::Reboot(_) | Action::LoseHost(_));
        let crashed = faults && was.claimed && !is.claimed;
        if crashed && !was.over && was.undoing {
            seen(format!("{:?} crashes while it is undone", was.book));
        } else if crashed && !was.over {
            let step = steps.get(usize::from(was.done)).map_or("finish", |s| s.id);
            let moment = if was.acted { "during" } else { "before" };
            seen(format!("{:?} crashes {moment} {step}", was.book));
        }
    }
    let (b, a) = (before.host(S1A), after.host(S1A));
    if a.fenced_by > b.fenced_by {
        seen("a primary is fenced".into());
    }
    if b.log.writer() == 1 && !b.standby_signal && b.record.epoch > 1 && a.standby_signal {
        seen("a left-behind primary becomes a standby".into());
    }
    if !b.heard_other_site && a.heard_other_site {
        seen("a returning primary asks".into());
    }
    let synchronised = |s: &State| s.newest_record().mirror.is_some_and(|(_, synchronised)| synchronised);
    if !synchronised(before) && synchronised(after) && before.newest_record().mirror.is_some() {
        seen("a mirror is lost and synchronised again".into());
    }
    for (b, a) in before.hosts.iter().zip(&after.hosts) {
        if b.log.posts() & !a.log.posts() != 0 {
            seen("something is rewound".into());
        }
        if a.salvage != b.salvage {
            seen("something is salvaged".into());
        }
    }
}
