//! A model of one mirror pair and its witness, explored state by state: every interleaving of crashes, restarts, cut links,
//! requests that come late and lost disks, with several posts in flight, as far as its bounds allow.
//!
//! What decides is the product's own: `mirror::advance`, `witness::agrees`, `fence::may_open`, and the steps of the forced
//! switch with `runbook::advance`. `docs/safety.md` says what must hold; `mistakes_are_caught` puts one mistake in after the
//! other, and expects each to be found. The model of the whole pool is `../model`.
//!
//! What it leaves out: time (every time-out may fire at any moment), the insides of PostgreSQL, orders that end half-way
//! (the model of the pool has those), the other site, a planned switch.

mod state;
mod witness;
mod words;
mod world;

use crate::state::{Bounds, HOSTS, Postgres, State, epoch_of, partner, posts};
use crate::world::{Action, Mistake, World, actions};
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

/// Most states of one exploration.
const STATES_MAX: usize = 600_000;
/// States that the everyday run visits of an exploration that is larger.
const NEAREST: usize = 20_000;

/// The host with the present history: that of the latest promotion.
fn present(state: &State) -> usize {
    let key = |h: &usize| (epoch_of(&state.hosts[*h].log), state.hosts[*h].log.len());
    HOSTS.into_iter().max_by_key(key).expect("there are two hosts")
}

/// What is broken in this state, if anything is.
fn broken(state: &State) -> Option<String> {
    let present = posts(&state.hosts[present(state)].log);
    for (post, by) in state.acknowledged.iter().enumerate() {
        if by.is_some() && present & 1 << post == 0 && !state.excused {
            return Some(format!("acknowledged is kept: p{post} is not in the present history"));
        }
    }
    for (at, by) in state.acknowledged.iter().enumerate() {
        let others = state.acknowledged[..at].iter().flatten();
        if let Some((host, epoch)) = by
            && others.clone().any(|(h, e)| e == epoch && h != host)
        {
            return Some(format!("one writer: two hosts have acknowledged in epoch {epoch}"));
        }
    }
    // A witness that lost its disk knows that what it has heard may be old.
    let record = state.witness.record.filter(|_| state.witness.heard == [true; 2])?;
    if let (Some(principal), Some((mirror, true))) = (record.principal, record.mirror)
        && state.hosts[mirror].postgres != Postgres::Absent
    {
        let epoch = epoch_of(&state.hosts[principal].log);
        let on_mirror = posts(&state.hosts[mirror].log);
        let lacks = state
            .acknowledged
            .iter()
            .enumerate()
            .find(|(post, by)| **by == Some((principal, epoch)) && on_mirror & 1 << post == 0);
        if let Some((post, _)) = lacks {
            return Some(format!("synchronised means synchronised: p{post} is acknowledged, and the mirror lacks it"));
        }
    }
    None
}

/// What this step breaks, if anything.
fn broken_by(before: &State, action: Action, after: &State) -> Option<String> {
    let newest = before.acknowledged.iter().flatten().map(|(_, epoch)| *epoch).max().unwrap_or(0);
    for (was, is) in before.acknowledged.iter().zip(&after.acknowledged) {
        if let (None, Some((host, epoch))) = (was, is)
            && *epoch < newest
        {
            return Some(format!(
                "no stale acknowledgement: host {host} acknowledged in epoch {epoch} after epoch {newest} had begun to"
            ));
        }
    }
    if let Action::Ask(mirror) = action
        && before.witness.run.is_none()
        && after.witness.run.is_some()
        && let Some(principal) = before.witness.record.and_then(|r| r.principal)
        && before.meets_witness(principal)
        && before.hosts[principal].postgres == Postgres::Writer
    {
        return Some(format!("cut partners stay: host {mirror} takes over although the witness sees the principal"));
    }
    if let Action::Round { host, .. } = action
        && before == after
        && alone(after, host)
    {
        return Some(format!("two of three: host {host} serves although it sees neither of the others"));
    }
    None
}

/// Whether a host serves that sees neither of the other two.
fn alone(state: &State, host: usize) -> bool {
    let h = &state.hosts[host];
    let has_mirror = h.record.is_some_and(|r| r.principal == Some(host) && r.mirror.is_some());
    h.postgres == Postgres::Writer && has_mirror && !state.meets_witness(host) && !state.partners_meet()
}

/// The pool serves: the principal of the record is open in its epoch, and its commits come through.
fn serves(state: &State) -> bool {
    let Some(record) = state.witness.record else { return false };
    record.principal.is_some_and(|p| {
        let h = &state.hosts[p];
        let comes_through = !h.waits || !h.waits_really || state.streams(partner(p));
        h.up && h.postgres == Postgres::Writer && epoch_of(&h.log) == record.epoch && comes_through
    })
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// What an exploration found.
#[derive(Default)]
struct Found {
    states: usize,
    seen: BTreeSet<&'static str>,
    broken: Option<String>,
}

/// Visit every state within the bounds, nearest first; then look whether every one of them has a way out without any
/// further fault: to a state that serves. With `nearest`, only so many are visited, and no way out is looked for.
#[allow(clippy::disallowed_types, reason = "never iterated, so its order can decide nothing")]
fn explore(world: &World, first: &State, nearest: Option<usize>) -> Found {
    let mut found = Found::default();
    let mut known = std::collections::HashMap::from([(fingerprint(first), 0_u32)]);
    let mut all: Vec<(State, u32, Option<Action>)> = vec![(first.clone(), 0, None)];
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let state = all[at].0.clone();
        for action in actions(&state) {
            let next = world.apply(&state, action);
            let after = next.as_ref().unwrap_or(&state);
            if let Some(what) = broken(after).or_else(|| broken_by(&state, action, after)) {
                all.push((after.clone(), at as u32, Some(action)));
                found.broken = Some(story(&what, &all, all.len() - 1));
                found.states = all.len();
                return found;
            }
            let Some(next) = next else { continue };
            note(&state, &next, &mut found.seen);
            let number = *known.entry(fingerprint(&next)).or_insert(all.len() as u32);
            if !action.is_fault() {
                edges.push((number, at as u32));
            }
            if number as usize == all.len() {
                assert!(all.len() < STATES_MAX, "more than {STATES_MAX} states: something grows without bounds");
                all.push((next, at as u32, Some(action)));
            }
        }
        at += 1;
        if nearest.is_some_and(|nearest| all.len() > nearest) {
            found.states = all.len();
            return found;
        }
    }
    found.states = all.len();
    found.broken = stuck(&all, &mut edges);
    found
}

/// A state without a way to one that serves. A pool whose disks are gone is excused: a person has to decide then.
fn stuck(all: &[(State, u32, Option<Action>)], edges: &mut [(u32, u32)]) -> Option<String> {
    edges.sort_unstable();
    let mut good: Vec<bool> = all.iter().map(|(state, ..)| serves(state)).collect();
    let mut fresh: Vec<u32> = (0..all.len() as u32).filter(|n| good[*n as usize]).collect();
    while let Some(to) = fresh.pop() {
        let from = edges.partition_point(|(t, _)| *t < to);
        for (_, source) in edges[from..].iter().take_while(|(t, _)| *t == to) {
            if !std::mem::replace(&mut good[*source as usize], true) {
                fresh.push(*source);
            }
        }
    }
    let disks_lost = |state: &State| {
        state.witness.record.is_none()
            || state.witness.heard != [true; 2]
            || state.hosts.iter().any(|h| h.postgres == Postgres::Absent)
            // The journal of a run was on the witness's disk.
            || (state.witness.run.is_none() && state.witness.record.is_some_and(|r| r.run > 0) && state.left.disks == 0)
    };
    let lost = (0..all.len()).find(|n| !good[*n] && !disks_lost(&all[*n].0))?;
    Some(story("progress: with every fault over, nothing leads to a pool that serves", all, lost))
}

/// The way to a state, as a person reads it.
fn story(what: &str, all: &[(State, u32, Option<Action>)], mut at: usize) -> String {
    let last = format!("{:#?}", all[at].0);
    let mut way = Vec::new();
    while let (_, from, Some(action)) = &all[at] {
        way.push(format!("  {action:?}"));
        at = *from as usize;
    }
    way.reverse();
    format!("{what}\n{}\n{last}", way.join("\n"))
}

/// What happened, for what must happen at some time.
fn note(before: &State, after: &State, seen: &mut BTreeSet<&'static str>) {
    let record = |s: &State| s.witness.record;
    if let (Some(was), Some(is)) = (record(before), record(after)) {
        if was.run != 0 && is.run == 0 {
            seen.insert("a take-over ends");
        }
        if was.synchronised() && !is.synchronised() && was.epoch == is.epoch {
            seen.insert("a principal goes on alone");
        }
        if !was.synchronised() && is.synchronised() && is.epoch > 1 {
            seen.insert("an old principal is the synchronised mirror");
        }
    }
    for h in HOSTS {
        let (was, is) = (&before.hosts[h], &after.hosts[h]);
        if was.postgres == Postgres::Writer && is.postgres == Postgres::Stopped && alone(before, h) {
            seen.insert("a principal that is alone stops");
        }
        if posts(&was.log) & !posts(&is.log) != 0 && is.postgres != Postgres::Absent {
            seen.insert("something is rewound");
        }
    }
}

fn check(left: Bounds, expect: &[&str]) {
    let found = explore(&World::new(None), &State::synchronised(left), None);
    println!("{left:?}: {} states", found.states);
    assert!(found.broken.is_none(), "{}", found.broken.unwrap_or_default());
    for what in expect {
        assert!(found.seen.contains(what), "never: {what}; there were {:#?}", found.seen);
    }
}

/// Whether there is time for the larger explorations too: in a release build, or with `MODEL_FULL=1`.
#[allow(clippy::disallowed_methods, reason = "a person asks for the larger explorations; the model reads nothing else")]
fn full() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("MODEL_FULL").is_some()
}

const TAKEN_OVER: [&str; 2] = ["a take-over ends", "an old principal is the synchronised mirror"];

#[test]
fn a_pair_is_safe_and_goes_on_whatever_crashes() {
    check(Bounds { posts: 2, crashes: 1, ..Bounds::default() }, &TAKEN_OVER);
    check(Bounds { posts: 1, crashes: 2, ..Bounds::default() }, &TAKEN_OVER);
}

#[test]
fn a_pair_is_safe_and_goes_on_whatever_is_cut() {
    let expect = ["a principal goes on alone", "a principal that is alone stops"];
    check(Bounds { posts: 1, cuts: 2, ..Bounds::default() }, &expect);
    check(Bounds { posts: 1, cuts: 1, crashes: 1, ..Bounds::default() }, &TAKEN_OVER);
}

#[test]
fn a_pair_is_safe_and_goes_on_although_requests_come_late() {
    check(Bounds { posts: 1, kills: 1, delays: 1, cuts: 1, ..Bounds::default() }, &TAKEN_OVER);
}

#[test]
fn a_pair_is_safe_although_a_disk_is_lost() {
    check(Bounds { posts: 1, disks: 1, crashes: 1, ..Bounds::default() }, &["a take-over ends"]);
}

#[test]
fn larger_pairs_are_safe_and_go_on() {
    let larger = [
        Bounds { posts: 3, crashes: 1, cuts: 1, ..Bounds::default() },
        Bounds { posts: 2, cuts: 2, kills: 1, ..Bounds::default() },
        Bounds { posts: 2, crashes: 1, delays: 2, cuts: 1, ..Bounds::default() },
    ];
    for left in larger {
        if full() {
            check(left, &TAKEN_OVER);
            continue;
        }
        let found = explore(&World::new(None), &State::synchronised(left), Some(NEAREST));
        assert!(found.broken.is_none(), "{}", found.broken.unwrap_or_default());
        assert!(found.states > NEAREST, "{left:?} is small enough for the everyday run: {} states", found.states);
    }
}

/// Each mistake is found, by the property that it breaks.
#[test]
fn mistakes_are_caught() {
    let some = Bounds { posts: 1, crashes: 1, cuts: 1, kills: 1, ..Bounds::default() };
    let cases = [
        (Mistake::ExposeBeforeRecording, some, "synchronised means synchronised"),
        (Mistake::RecordBeforeConfirming, some, "synchronised means synchronised"),
        (Mistake::AgreeUnsynchronised, some, "acknowledged is kept"),
        (Mistake::AgreeWhileItAnswers, some, "cut partners stay"),
        (Mistake::SwapWithoutCompare, Bounds { delays: 1, ..some }, ""),
        (Mistake::LateRequestStands, Bounds { delays: 1, ..some }, "synchronised means synchronised"),
        (Mistake::OpenAlone, some, ""),
        (Mistake::ServeAlone, some, "two of three"),
        (Mistake::ForgetfulWitness, Bounds { disks: 1, cuts: 0, ..some }, "acknowledged is kept"),
        (Mistake::SameEpoch, Bounds { posts: 2, kills: 1, cuts: 1, ..Bounds::default() }, "one writer"),
        (Mistake::NoRewind, some, ""),
    ];
    for (mistake, left, says) in cases {
        let found = explore(&World::new(Some(mistake)), &State::synchronised(left), None);
        let broken = found.broken.unwrap_or_else(|| panic!("{mistake:?} was not caught in {} states", found.states));
        println!("{mistake:?}: {} states: {}", found.states, broken.lines().next().unwrap_or_default());
        assert!(broken.contains(says), "{mistake:?} was caught by another property:\n{broken}");
    }
}
