//! A planned failover, explored: nothing that was acknowledged is lost by it, whatever is cut, killed or undone.

use crate::explore::carry_through;
use crate::state::{Book, Bounds, State};
use crate::world::{World, normal};
use crate::{AUTHORITIES, FAILBACK, NOTHING, full, holds, holds_far};

pub const PLANNED: Bounds = Bounds { planned: 1, ..NOTHING };

/// Nobody insists on anything.
fn world(authorities: usize) -> World {
    World::new(AUTHORITIES[authorities], false, &[])
}

#[test]
fn a_planned_failover_is_safe_and_ends_although_an_agent_or_the_conductor_dies() {
    for at in if full() { 0..3 } else { 0..1 } {
        let world = world(at);
        let found = holds(&world, &normal(Bounds { agent_crashes: 1, ..PLANNED }));
        found.expect("a Planned finishes");
        found.expect_a_crash_at_every_step(&world, Book::Planned);
    }
}

#[test]
fn a_planned_failover_loses_nothing_that_was_acknowledged() {
    let world = world(0);
    let found = holds(&world, &normal(Bounds { posts: 1, ..PLANNED }));
    found.expect("a Planned finishes");
    assert!(!found.seen.contains("something is rewound"), "nothing is taken back by it");
}

#[test]
fn a_planned_failover_is_safe_and_ends_although_the_links_are_cut() {
    holds(&world(0), &normal(Bounds { cuts: 1, ..PLANNED })).expect("a Planned finishes");
    holds_far(&world(1), &normal(Bounds { cuts: 1, posts: 1, ..PLANNED }), "a Planned finishes");
}

#[test]
fn a_planned_failover_is_undone_safely_from_wherever_it_is() {
    let agent_crashes = u8::from(full());
    let found = holds(&world(0), &normal(Bounds { aborts: 1, posts: 1, agent_crashes, ..PLANNED }));
    found.expect("a Planned is undone");
    assert!(!found.seen.contains("something is rewound"), "nothing is taken back by it");
}

#[test]
fn a_failover_takes_the_place_of_a_planned_one_whose_site_is_lost() {
    let world = world(0);
    let steps = ["remove-mirroring", "hand-over", "bring-backup-online", "set-pool-failed-over"];
    for step in if full() { &steps[..] } else { &steps[2..] } {
        let mut state = carry_through(&world, &normal(PLANNED), Book::Planned, Some(step));
        state.left = Bounds { site_losses: 1, failovers: 1, ..NOTHING };
        holds_far(&world, &state, "a Failover finishes");
    }
}

/// Failed over as planned, and everybody follows.
pub fn moved(world: &World, left: Bounds) -> State {
    let mut state = carry_through(world, &normal(PLANNED), Book::Planned, None);
    state.left = left;
    state
}

#[test]
fn a_failback_after_a_planned_failover_has_nothing_to_rewind() {
    let world = world(0);
    let found = holds(&world, &moved(&world, FAILBACK));
    found.expect("a Failback finishes");
    assert!(!found.seen.contains("something is rewound") && !found.seen.contains("something is salvaged"));
}
