//! Changes of places within a pair, explored: planned and forced, undone, beside a failover that a second administrator
//! begins, and while the pool is failed over.

use crate::conductor::Site;
use crate::explore::{carry_through, walk};
use crate::state::{Book, Bounds, S2A, S2B, State};
use crate::world::{World, normal};
use crate::{AUTHORITIES, NOTHING, WALK, failed_over, full, holds, number};
use std::collections::BTreeSet;

pub const SWITCH: Bounds = Bounds { switches: 1, ..NOTHING };
pub const FORCE: Bounds = Bounds { forces: 1, ..NOTHING };

/// A pool whose pair of this site is looked at closely.
fn world(authorities: usize, pair: Site, force: bool) -> World {
    let mut world = World::new(AUTHORITIES[authorities], force, &[]);
    world.switching = Some(pair);
    world
}

#[test]
fn a_switch_is_safe_and_ends_although_an_agent_or_the_conductor_dies() {
    for at in [0, 2] {
        let world = world(at, 0, false);
        let found = holds(&world, &normal(Bounds { agent_crashes: 1, posts: 1, ..SWITCH }));
        found.expect("a Switch finishes");
        found.expect_a_crash_at_every_step(&world, Book::Switch);
    }
}

#[test]
fn a_switch_is_safe_and_ends_although_a_host_is_lost_and_the_writer_is_taken_back() {
    for at in if full() { 0..3 } else { 0..1 } {
        let world = world(at, 0, false);
        let found = holds(&world, &normal(Bounds { host_losses: 1, ..SWITCH }));
        found.expect("a Switch finishes");
        found.expect("a writer is taken back");
    }
}

#[test]
fn a_switch_is_safe_and_ends_although_the_links_are_cut_or_an_answer_is_lost() {
    let world = world(0, 0, true);
    holds(&world, &normal(Bounds { cuts: 1, posts: 1, ..SWITCH })).expect("a Switch finishes");
    holds(&world, &normal(Bounds { delays: 1, ..SWITCH })).expect("a Switch finishes");
}

#[test]
fn a_forced_switch_is_safe_and_ends_although_an_agent_or_the_conductor_dies() {
    let world = world(2, 0, true);
    let found = holds(&world, &normal(Bounds { agent_crashes: 1, posts: 1, ..FORCE }));
    found.expect("a Force finishes");
    found.expect_a_crash_at_every_step(&world, Book::Force);
}

#[test]
fn a_forced_switch_loses_nothing_that_was_acknowledged_when_the_principal_is_gone() {
    for force in [false, true] {
        let world = world(2, 0, force);
        let found = holds(&world, &normal(Bounds { host_losses: 1, posts: 1, ..FORCE }));
        found.expect("a Force finishes");
        found.expect("a left-behind primary becomes a standby");
    }
}

#[test]
fn a_forced_switch_is_safe_and_ends_although_the_links_are_cut_or_an_answer_is_lost() {
    let world = world(2, 0, true);
    holds(&world, &normal(Bounds { cuts: 1, posts: 1, ..FORCE })).expect("a Force finishes");
    holds(&world, &normal(Bounds { delays: 1, ..FORCE })).expect("a Force finishes");
}

#[test]
fn a_switch_is_undone_safely_from_wherever_it_is() {
    for left in [
        Bounds { aborts: 1, agent_crashes: 1, ..SWITCH },
        Bounds { aborts: 1, posts: 1, host_losses: u8::from(full()), ..SWITCH },
    ] {
        holds(&world(0, 0, false), &normal(left)).expect("a Switch is undone");
    }
}

#[test]
fn a_forced_switch_is_undone_safely_from_wherever_it_is() {
    for left in [
        Bounds { aborts: 1, agent_crashes: 1, ..FORCE },
        Bounds { aborts: 1, posts: 1, host_losses: u8::from(full()), ..FORCE },
    ] {
        holds(&world(2, 0, true), &normal(left)).expect("a Force is undone");
    }
}

#[test]
fn a_switch_beside_a_failover_that_somebody_else_begins_at_the_other_site_is_safe_and_both_end() {
    let world = world(2, 0, true);
    let steps = [("hand-over", Book::Switch), ("promote-mirror", Book::Switch), ("force-service", Book::Force)];
    for (step, book) in if full() { &steps[..] } else { &steps[2..] } {
        let mut state = carry_through(&world, &normal(Bounds { forces: 1, ..SWITCH }), *book, Some(step));
        state.left = Bounds { failovers: 1, ..NOTHING };
        holds(&world, &state).expect("a Failover finishes");
    }
}

#[test]
fn a_forced_switch_and_a_failover_that_do_not_hear_of_each_other_are_safe_and_one_of_them_holds() {
    let mut world = World::new(AUTHORITIES[2], true, &[]);
    let mut state = unheard(&world);
    state.left.posts = 1;
    if full() {
        holds(&world, &state).expect("a Failover finishes");
    }
    world.heals = false;
    holds(&world, &state).expect("a Failover finishes");
}

/// A forced switch about to promote its mirror, of which the other site has not heard; the links are cut.
pub fn unheard(world: &World) -> State {
    let mut state = carry_through(world, &normal(FORCE), Book::Force, Some("force-service"));
    state.left = Bounds { failovers: 1, ..NOTHING };
    let old = normal(NOTHING);
    [S2A, S2B].into_iter().for_each(|host| state.host_mut(host).record = old.host(host).record);
    state.linked = false;
    state
}

#[test]
fn a_pool_that_is_failed_over_changes_places_safely() {
    for (left, book) in [(SWITCH, Book::Switch), (FORCE, Book::Force)] {
        let world = world(1, 1, true);
        let failed_over = failed_over(&world, Bounds { agent_crashes: 1, posts: 1, ..left });
        let found = holds(&world, &failed_over);
        found.expect(&format!("a {book:?} finishes"));
    }
}

/// Failed over, with the places changed at site 2.
fn failed_over_and_switched(world: &World, left: Bounds) -> State {
    let mut state = carry_through(world, &failed_over(world, SWITCH), Book::Switch, None);
    state.left = left;
    state
}

#[test]
fn a_failback_from_a_pool_that_has_changed_places_loses_nothing() {
    let mut world = world(0, 1, true);
    let state = failed_over_and_switched(&world, Bounds { failbacks: 1, posts: u8::from(full()), ..NOTHING });
    world.switching = None;
    holds(&world, &state).expect("a Failback finishes");
}

#[test]
fn long_walks_with_switches_and_every_other_run_are_safe_and_end() {
    let left = Bounds { switches: 2, forces: 1, host_losses: 0, aborts: 1, ..WALK };
    let mut seen = BTreeSet::new();
    for seed in 1..=number("MODEL_WALKS").unwrap_or(100) {
        let mut world = world((seed % 3) as usize, 0, seed % 2 == 0);
        world.coarse = false;
        let found = walk(&world, &normal(left), seed, 400);
        assert!(found.broken.is_none(), "seed {seed}: {}", found.story());
        seen.extend(found.seen);
    }
    for what in ["a Switch finishes", "a Force finishes", "a Failover finishes", "a Switch is undone"] {
        assert!(seen.contains(what), "in no walk: {what}; there were {seen:#?}");
    }
}
