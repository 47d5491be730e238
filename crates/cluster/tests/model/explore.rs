//! Exploring: breadth first with the shortest counterexample, long seeded walks, and the way out of every state: with the
//! faults over, a run always finishes.

use crate::properties;
use crate::state::{Book, HOSTS, Postgres, State};
use crate::world::{Action, World, act, actions, apply};
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

/// States by their fingerprints, with their numbers. Fingerprints come from a hasher with fixed keys.
#[derive(Default)]
#[allow(clippy::disallowed_types, reason = "never iterated, so its order can decide nothing")]
struct Known(std::collections::HashMap<u64, u32>);

impl Known {
    /// The number of a state, and whether it is new; it gets `number` then.
    fn add(&mut self, state: &State, number: usize) -> (u32, bool) {
        let mut new = false;
        let number = *self.0.entry(fingerprint(state)).or_insert_with(|| {
            new = true;
            number as u32
        });
        (number, new)
    }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Steps that order nothing.
const WAITS_ONLY: &[&str] = &["recreate-mirror", "follow-principal", "mirror-and-feed"];

/// What an exploration found.
#[derive(Default)]
pub struct Found {
    pub states: usize,
    pub steps: usize,
    /// Properties of the kind "at some time" that were seen.
    pub seen: BTreeSet<String>,
    /// The first thing that was broken, with the way to it.
    pub broken: Option<(String, Vec<(Action, State)>)>,
    /// Every state within the bounds was visited.
    pub complete: bool,
}

impl Found {
    /// This must have been seen.
    pub fn expect(&self, what: &str) {
        assert!(self.seen.contains(what), "never: {what}; there were {:#?}", self.seen);
    }

    /// The conductor must have been seen to die, and to come back, at every step: before anything of it was ordered, and, for
    /// a step that orders something, after.
    pub fn expect_a_crash_at_every_step(&self, world: &World, book: Book) {
        for step in world.steps(book) {
            self.expect(&format!("{book:?} crashes before {}", step.id));
            // A planned failover sets them with the state.
            let set_before = book == Book::Planned && step.id == "set-active-servers";
            if !WAITS_ONLY.contains(&step.id) && !set_before {
                self.expect(&format!("{book:?} crashes during {}", step.id));
            }
        }
    }

    /// The counterexample, as a person reads it.
    pub fn story(&self) -> String {
        let Some((what, way)) = &self.broken else { return String::new() };
        let mut story = format!("{what}\n");
        for (action, _) in way {
            story += &format!("  {action:?}\n");
        }
        let last = way.last().map_or(String::new(), |(_, state)| brief(state));
        format!("{story}{last}")
    }
}

/// A state as a few lines.
pub fn brief(state: &State) -> String {
    let mut text = format!(
        "    runs {:?}\n    network {:?}\n",
        state.runs.map(|r| r.map(|r| (r.book, r.done, r.undoing, r.over))),
        state.network
    );
    for h in &state.hosts {
        text += &format!(
            "    {} {:?}{} {:?} up={:?} history={} over={} fenced={} waits={:?}/{} record {}.{} p={:?} m={:?} b={:?} bm={:?} order={:?}\n",
            if h.up { "up" } else { "down" },
            h.postgres,
            if h.standby_signal { "(signal)" } else { "" },
            h.log,
            h.upstream,
            h.history,
            h.handed_over,
            h.fenced_by,
            h.waits_for,
            h.waits_really,
            h.record.epoch,
            h.record.version,
            h.record.principal,
            h.record.mirror,
            h.record.backup,
            h.record.backup_mirror,
            h.order,
        );
    }
    text + &format!(
        "    share {:?} open from {} acknowledged {:?}",
        state.share, state.share_open_from, state.acknowledged
    )
}

/// Visit every state within the bounds, nearest first; at most `states_max`. Then look whether every one of them has a way
/// out: without any further fault, a way to a state in which nothing is under way and the pool serves.
pub fn breadth_first(world: &World, first: &State, states_max: usize) -> Found {
    let mut found = Found { complete: true, ..Found::default() };
    let mut known = Known::default();
    let mut all: Vec<(State, usize, Option<Action>)> = vec![(first.clone(), 0, None)];
    let mut edges = Vec::new();
    known.add(first, 0);
    let mut at = 0;
    while at < all.len() {
        let state = all[at].0.clone();
        for action in actions(world, &state) {
            let Some((action, next)) = act(world, &state, action) else { continue };
            found.steps += 1;
            note(world, &state, action, &next, &mut found.seen);
            if let Some(what) = wrong(world, &state, action, &next) {
                all.push((next, at, Some(action)));
                found.states = all.len();
                found.broken = Some((what, way_to(&all, all.len() - 1)));
                return found;
            }
            let (number, new) = known.add(&next, all.len());
            if !action.is_fault() {
                edges.push((number, at as u32));
            }
            if new {
                all.push((next, at, Some(action)));
            }
            if all.len() > states_max {
                found.complete = false;
                found.states = all.len();
                return found;
            }
        }
        at += 1;
    }
    found.states = all.len();
    found.broken = without_way_out(world, &all, edges);
    found
}

/// The nearest state from which no way leads to a pool in order.
fn without_way_out(
    world: &World,
    all: &[(State, usize, Option<Action>)],
    mut edges: Vec<(u32, u32)>,
) -> Option<(String, Vec<(Action, State)>)> {
    edges.sort_unstable();
    let mut gets_out: Vec<bool> = all.iter().map(|(state, ..)| not_in_order(world, state).is_none()).collect();
    let mut open: Vec<u32> = (0..all.len() as u32).filter(|n| gets_out[*n as usize]).collect();
    while let Some(to) = open.pop() {
        let first = edges.partition_point(|(t, _)| *t < to);
        for (_, from) in edges[first..].iter().take_while(|(t, _)| *t == to) {
            if !std::mem::replace(&mut gets_out[*from as usize], true) {
                open.push(*from);
            }
        }
    }
    let lost = gets_out.iter().position(|out| !out)?;
    let what = not_in_order(world, &all[lost].0).unwrap_or_default();
    Some((what, way_to(all, lost)))
}

fn way_to(all: &[(State, usize, Option<Action>)], mut at: usize) -> Vec<(Action, State)> {
    let mut way = Vec::new();
    while let (state, from, Some(action)) = &all[at] {
        way.push((*action, state.clone()));
        at = *from;
    }
    way.reverse();
    way
}

fn note(world: &World, before: &State, action: Action, after: &State, seen: &mut BTreeSet<String>) {
    properties::happened(world, before, after, action, &mut |what| {
        seen.insert(what);
    });
}

fn wrong(world: &World, before: &State, action: Action, after: &State) -> Option<String> {
    properties::broken_by(world, before, action, after).or_else(|| properties::broken(after))
}

/// Whether the pool stays stuck although every fault is over: hosts run, links are whole, messages arrive, and everybody
/// has their turn.
fn stuck(world: &World, from: &State) -> Option<String> {
    let mut state = from.clone();
    state.linked = true;
    if state.runs.iter().flatten().all(|r| r.over || r.book != Book::Failover) {
        state.hosts.iter_mut().for_each(|h| h.up = true);
    }
    for _ in 0..TURNS_MAX {
        match everybody_has_a_turn(world, &state) {
            Ok(next) if next == state => return not_in_order(world, &state),
            Ok(next) => state = next,
            Err(broken) => return Some(format!("on the way out: {broken}")),
        }
    }
    Some("stuck: goes round in circles".into())
}

/// So many turns of everybody are enough to end any run.
const TURNS_MAX: usize = 300;

/// One turn of everybody, each in what it has to do; no posts, no faults.
fn everybody_has_a_turn(world: &World, from: &State) -> Result<State, String> {
    let mut state = from.clone();
    let step = |state: &mut State, action: Action| -> Result<bool, String> {
        let Some(next) = apply(world, state, action) else { return Ok(false) };
        if let Some(wrong) = wrong(world, state, action, &next) {
            return Err(format!("{wrong}, by {action:?}\n{}", brief(&next)));
        }
        *state = next;
        Ok(true)
    };
    let mut acted = false;
    while !state.network.is_empty() {
        let message = state.network[0];
        let there = state.reaches(message.from, message.to);
        acted |= step(&mut state, if there { Action::Deliver(0) } else { Action::Lose(0) })?;
    }
    for host in HOSTS.into_iter().filter(|h| from.host(*h).up) {
        for other in HOSTS.into_iter().filter(|o| *o != host) {
            acted |= step(&mut state, Action::Hear { host, from: other })?;
        }
        while !state.host(host).executing.is_empty() {
            acted |= step(&mut state, Action::Execute(host))?;
        }
        for action in [Action::Round(host), Action::SettingArrives(host), Action::FromShare(host), Action::Ship(host)] {
            acted |= step(&mut state, action)?;
        }
        while step(&mut state, Action::Stream(host))? {
            acted = true;
        }
    }
    for at in [0, 1] {
        if crate::conductor::may_look(world, &state, at) {
            let moved = step(&mut state, Action::Turn(at))?;
            if !moved && !acted {
                step(&mut state, Action::LateTurn(at))?;
            }
        }
    }
    Ok(state)
}

/// What is not as it should be in a pool that has come to rest.
fn not_in_order(world: &World, state: &State) -> Option<String> {
    if let Some(run) = state.runs.iter().flatten().find(|r| !r.over) {
        let step = world.steps(run.book).get(usize::from(run.done)).map_or("its end", |s| s.id);
        return Some(format!("stuck: the {:?} never gets past {step}\n{}", run.book, brief(state)));
    }
    let record = state.newest_record();
    let serves = record.principal.is_some_and(|p| {
        let h = state.host(p);
        !h.up || h.postgres == Postgres::Writer && h.log.epoch() == record.epoch
    });
    if !serves {
        return Some(format!("stuck: at rest, and the principal does not serve\n{}", brief(state)));
    }
    record.run.ne(&0).then(|| format!("stuck: at rest, and a run still holds the pool\n{}", brief(state)))
}

/// A random walk; one seed decides everything.
pub fn walk(world: &World, first: &State, seed: u64, steps_max: usize) -> Found {
    let mut found = Found::default();
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut state = first.clone();
    let mut way = Vec::new();
    for _ in 0..steps_max {
        let mut open = actions(world, &state);
        let mut next = None;
        while next.is_none() && !open.is_empty() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let action = open.swap_remove((random % open.len() as u64) as usize);
            // Faults are rare against what goes on all the time, so that runs get somewhere between them.
            if rare(action) && random >> 40 & 31 != 0 {
                continue;
            }
            next = act(world, &state, action);
        }
        let Some((action, after)) = next else { continue };
        found.steps += 1;
        note(world, &state, action, &after, &mut found.seen);
        let wrong = wrong(world, &state, action, &after);
        way.push((action, after.clone()));
        if let Some(what) = wrong {
            found.broken = Some((what, way));
            return found;
        }
        state = after;
    }
    if let Some(what) = stuck(world, &state) {
        found.broken = Some((what, way));
    }
    found
}

fn rare(action: Action) -> bool {
    action.is_fault() || matches!(action, Action::Return | Action::Heal | Action::Start(..) | Action::Post(_))
}

/// Walk quietly: start a run and let everybody have their turn until it is over, or has come to the step named.
pub fn carry_through(world: &World, from: &State, book: Book, to_step: Option<&str>) -> State {
    let carrier = book.carrier(from.newest_record().home);
    let mut state = apply(world, from, Action::Start(carrier, book)).expect("nothing speaks against the run");
    let run = |state: &State| state.runs[usize::from(carrier)];
    let there = |state: &State| {
        let step = run(state).and_then(|r| world.steps(book).get(usize::from(r.done)));
        to_step.is_some() && step.map(|s| s.id) == to_step
    };
    while !there(&state)
        && let Ok(next) = everybody_has_a_turn(world, &state)
        && next != state
    {
        state = next;
    }
    assert!(there(&state) || run(&state).is_some_and(|r| r.over), "the run did not get there:\n{}", brief(&state));
    state
}
