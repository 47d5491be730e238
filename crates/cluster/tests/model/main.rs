//! A model of a pool over two sites, with every fault that its bounds allow, explored state by state.
//!
//! What decides is the product's own: the tables of steps of failovers, failback and both switches with `runbook::advance`,
//! `goal`, `may_open`, `mirror::advance`. What surrounds it is modelled after `agent` and `conductor`: four hosts, their logs as
//! sequences of entries, the share, gossip, orders and changes of the record as messages that may be lost or late, journals,
//! agents and hosts and sites that die and return, links that are cut, an authority at each site that carries a run. `properties`
//! says what must hold; `protections` switches off one protection after the other, and expects each to be missed. Four of them the
//! agent must have for the model to hold: an order that was interrupted is reported as failed; a promotion is remembered before it
//! is begun, and finished when it is ordered again; an unanswered request to record "synchronised" is overruled before commits stop
//! waiting; and what others said before an instance stopped is no answer to whether it may open.
//!
//! What it leaves out: time (a time-out may fire at any moment, and patience may end at any moment), the insides of
//! PostgreSQL, disks that are lost, a rewind that is interrupted half-way, more than one database, and lines that are cut within
//! a site.

mod agent;
mod conductor;
mod explore;
mod planned;
mod properties;
mod protection;
mod protections;
mod state;
mod switches;
mod words;
mod world;

use crate::explore::{Found, breadth_first, carry_through, walk};
use crate::state::{Book, Bounds, S1A, S1B, S2A, S2B, State};
use crate::world::{Action, World, apply, normal};

use std::collections::BTreeSet;

/// The authority of each site is the host of the lab's topology; or site 2's is the one that does not hold the backup.
const AUTHORITIES: [[u8; 2]; 3] = [[S1A, S2A], [S1A, S2B], [S1B, S2B]];

/// Most states of one exploration.
const STATES_MAX: usize = 1_000_000;
/// States that the everyday run visits of an exploration that is larger.
const NEAREST: usize = 5_000;

const NOTHING: Bounds = Bounds {
    posts: 0,
    agent_crashes: 0,
    reboots: 0,
    site_losses: 0,
    host_losses: 0,
    cuts: 0,
    delays: 0,
    clean_stops: 0,
    failovers: 0,
    failbacks: 0,
    switches: 0,
    forces: 0,
    planned: 0,
    aborts: 0,
};

/// What may happen in a walk.
const WALK: Bounds = Bounds {
    posts: 3,
    agent_crashes: 2,
    reboots: 2,
    site_losses: 1,
    host_losses: 0,
    cuts: 2,
    delays: 2,
    clean_stops: 1,
    failovers: 1,
    failbacks: 1,
    switches: 0,
    forces: 0,
    planned: 0,
    aborts: 0,
};

/// Every state within the bounds holds to every property.
fn holds(world: &World, first: &State) -> Found {
    let found = breadth_first(world, first, STATES_MAX);
    println!("{:?}: {} states, {} steps", first.left, found.states, found.steps);
    assert!(found.broken.is_none(), "{}", found.story());
    assert!(found.complete, "more than {STATES_MAX} states: something grows without bounds");
    found
}

/// A larger exploration: whole where there is time, else its nearest states.
fn holds_far(world: &World, first: &State, reaches: &str) {
    if full() {
        return holds(world, first).expect(reaches);
    }
    let found = breadth_first(world, first, NEAREST);
    assert!(found.broken.is_none(), "{}", found.story());
    assert!(found.states > NEAREST, "{:?} is small enough for the everyday run: {} states", first.left, found.states);
}

/// Failed over, with a post at site 1 that never reached site 2; site 1 is down.
fn failed_over(world: &World, left: Bounds) -> State {
    let state = normal(Bounds { posts: 1, site_losses: 1, failovers: 1, ..NOTHING });
    let state = apply(world, &state, Action::Post(S1A)).expect("the principal takes posts");
    let state = apply(world, &state, Action::Stream(S1B)).expect("the mirror follows");
    let state = apply(world, &state, Action::LoseSite1).expect("site 1 may be lost");
    let mut state = carry_through(world, &state, Book::Failover, None);
    state.left = left;
    state
}

/// Whether there is time for the larger explorations too: in a release build, or with `MODEL_FULL=1`.
fn full() -> bool {
    !cfg!(debug_assertions) || number("MODEL_FULL").is_some()
}

const FAILOVER: Bounds = Bounds { failovers: 1, ..NOTHING };
const FAILBACK: Bounds = Bounds { failbacks: 1, ..NOTHING };

#[test]
fn a_failover_is_safe_and_ends_although_an_agent_or_the_conductor_dies() {
    for at in if full() { 0..2 } else { 1..2 } {
        let world = World::new(AUTHORITIES[at], true, &[]);
        let found = holds(&world, &normal(Bounds { agent_crashes: 1, ..FAILOVER }));
        found.expect("a Failover finishes");
        found.expect("a primary is fenced");
        found.expect_a_crash_at_every_step(&world, Book::Failover);
    }
}

#[test]
fn a_failover_loses_nothing_that_was_shipped() {
    for at in if full() { 0..2 } else { 0..1 } {
        let world = World::new(AUTHORITIES[at], true, &[]);
        let found = holds(&world, &normal(Bounds { posts: 1, site_losses: 1, ..FAILOVER }));
        found.expect("a Failover finishes");
        found.expect("a returning primary asks");
    }
}

#[test]
fn a_failover_is_safe_and_ends_although_a_host_loses_power() {
    for at in if full() { 0..2 } else { 1..2 } {
        let world = World::new(AUTHORITIES[at], true, &[]);
        holds(&world, &normal(Bounds { reboots: 1, ..FAILOVER })).expect("a Failover finishes");
    }
}

#[test]
fn larger_failovers_are_safe_and_end() {
    for left in [Bounds { posts: 1, cuts: 1, ..FAILOVER }, Bounds { delays: 1, agent_crashes: 1, ..FAILOVER }] {
        for authorities in &AUTHORITIES[..2] {
            holds_far(&World::new(*authorities, true, &[]), &normal(left), "a Failover finishes");
        }
    }
}

#[test]
fn a_failback_loses_nothing_that_was_acknowledged() {
    for at in if full() { 0..2 } else { 0..1 } {
        let world = World::new(AUTHORITIES[at], true, &[]);
        let found = holds(&world, &failed_over(&world, Bounds { posts: 1, ..FAILBACK }));
        found.expect("a Failback finishes");
        found.expect("something is rewound");
        found.expect("something is salvaged");
        found.expect("a left-behind primary becomes a standby");
    }
}

#[test]
fn a_failback_is_safe_and_ends_although_an_agent_or_the_conductor_dies() {
    for at in if full() { 0..2 } else { 1..2 } {
        let world = World::new(AUTHORITIES[at], true, &[]);
        let found = holds(&world, &failed_over(&world, Bounds { agent_crashes: 1, ..FAILBACK }));
        found.expect("a Failback finishes");
        found.expect_a_crash_at_every_step(&world, Book::Failback);
    }
}

#[test]
fn a_failback_is_safe_and_ends_although_the_links_are_cut() {
    for at in if full() { 0..2 } else { 0..1 } {
        let world = World::new(AUTHORITIES[at], true, &[]);
        holds(&world, &failed_over(&world, Bounds { cuts: 1, ..FAILBACK })).expect("a Failback finishes");
    }
}

#[test]
fn larger_failbacks_are_safe_and_end() {
    for left in [Bounds { reboots: 1, ..FAILBACK }, Bounds { posts: 1, clean_stops: 1, ..FAILBACK }] {
        for authorities in &AUTHORITIES[..2] {
            let world = World::new(*authorities, true, &[]);
            holds_far(&world, &failed_over(&world, left), "a Failback finishes");
        }
    }
}

#[test]
fn a_failover_is_undone_safely_from_wherever_it_is() {
    let agent_crashes = u8::from(full());
    let world = World::new(AUTHORITIES[1], true, &[]);
    let found = holds(&world, &normal(Bounds { aborts: 1, agent_crashes, ..FAILOVER }));
    found.expect("a Failover is undone");
}

#[test]
fn a_failback_is_undone_safely_from_wherever_it_is() {
    let agent_crashes = u8::from(full());
    for at in if full() { 0..2 } else { 0..1 } {
        let world = World::new(AUTHORITIES[at], true, &[]);
        let found = holds(&world, &failed_over(&world, Bounds { aborts: 1, agent_crashes, ..FAILBACK }));
        found.expect("a Failback is undone");
    }
}

#[test]
fn long_walks_in_which_runs_are_undone_are_safe_and_end() {
    let left = Bounds { aborts: 2, failovers: 2, failbacks: 2, site_losses: 0, ..WALK };
    let mut seen = BTreeSet::new();
    for seed in 1..=number("MODEL_WALKS").unwrap_or(100) {
        let mut world = World::new(AUTHORITIES[(seed % 3) as usize], true, &[]);
        world.coarse = false;
        let found = walk(&world, &normal(left), seed, 400);
        assert!(found.broken.is_none(), "seed {seed}: {}", found.story());
        seen.extend(found.seen);
    }
    for what in
        ["a Failover is undone", "a Failback is undone", "a Failback finishes", "Failover crashes while it is undone"]
    {
        assert!(seen.contains(what), "in no walk: {what}; there were {seen:#?}");
    }
}

#[test]
fn a_mirror_pair_keeps_its_promise_whatever_happens_to_the_mirror_and_to_answers() {
    let left = if full() {
        Bounds { posts: 2, reboots: 2, delays: 1, ..NOTHING }
    } else {
        Bounds { posts: 1, reboots: 1, delays: 1, ..NOTHING }
    };
    for authorities in [AUTHORITIES[0], AUTHORITIES[2]] {
        let mut world = World::new(authorities, true, &[]);
        world.coarse = false;
        holds(&world, &normal(left)).expect("a mirror is lost and synchronised again");
    }
}

/// A number that a person has set for this run of the tests.
#[allow(clippy::disallowed_methods, reason = "a person replays one walk; the model itself reads no environment")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// `MODEL_SEED` replays one walk; `MODEL_WALKS` takes so many.
#[test]
fn long_walks_with_every_fault_are_safe_and_end() {
    let alone = number("MODEL_SEED").is_some();
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("MODEL_WALKS").unwrap_or(300) + 1,
    };
    let mut seen = BTreeSet::new();
    let mut steps = 0;
    for seed in seeds {
        let mut world = World::new(AUTHORITIES[(seed % 3) as usize], seed % 5 != 0, &[]);
        world.coarse = false;
        let found = walk(&world, &normal(WALK), seed, 400);
        assert!(found.broken.is_none(), "seed {seed} (MODEL_SEED={seed} replays it): {}", found.story());
        steps += found.steps;
        seen.extend(found.seen);
    }
    println!("{steps} steps in all");
    let expected = ["a Failover finishes", "a Failback finishes", "something is rewound", "something is salvaged"];
    for what in expected {
        assert!(alone || seen.contains(what), "in no walk: {what}; there were {seen:#?}");
    }
}
