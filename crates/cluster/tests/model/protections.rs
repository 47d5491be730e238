//! With a protection switched off something breaks, and the model says what: else its properties would prove nothing.

use crate::explore::{breadth_first, carry_through};
use crate::state::{Book, Bounds, S1A, S2A, State};
use crate::world::{Action, Protection, World, apply, normal};
use crate::{AUTHORITIES, FAILBACK, FAILOVER, NOTHING, failed_over};

/// Switch a protection off, explore from `first`, and expect what breaks to begin like this.
fn check(off: Protection, authorities: usize, first: impl FnOnce(&World) -> State, expect: &str) {
    let mut world = World::new(AUTHORITIES[authorities], true, &[off]);
    let first = first(&world);
    world.coarse = first.left.failovers + first.left.failbacks > 0 || first.run.is_some();
    let found = breadth_first(&world, &first, 100_000);
    println!("without {off:?}, after {} states: {}", found.states, found.story());
    let (what, _) = found.broken.unwrap_or_else(|| panic!("{off:?} is switched off, and nothing breaks"));
    assert!(what.starts_with(expect), "{off:?} is switched off, and this breaks instead: {what}");
}

#[test]
fn without_the_fence_something_shipped_late_is_lost() {
    let first = |_: &World| normal(Bounds { posts: 1, ..FAILOVER });
    check(Protection::FenceFirst, 0, first, "nothing shipped is lost");
}

#[test]
fn with_the_share_open_to_the_old_site_something_shipped_late_is_lost() {
    let first = |_: &World| normal(Bounds { posts: 1, cuts: 1, ..FAILOVER });
    check(Protection::ShareCloses, 0, first, "nothing shipped is lost");
}

#[test]
fn without_stamps_a_late_order_rewinds_the_new_primary() {
    let first = |w: &World| failed_over(w, Bounds { delays: 1, ..FAILBACK });
    check(Protection::Stamps, 0, first, "epochs only rise");
}

#[test]
fn a_writer_that_somebody_else_has_stopped_is_not_handed_over() {
    let first = |w: &World| {
        let state = failed_over(w, FAILBACK);
        let state = apply(w, &state, Action::Site1Returns).expect("site 1 is down");
        let state = apply(w, &state, Action::Hear { host: S1A, from: S2A }).expect("site 1 hears of the new epoch");
        let mut state = carry_through(w, &state, Book::Failback, Some("final-backup"));
        state.left = Bounds { clean_stops: 1, ..NOTHING };
        state
    };
    check(Protection::OwnOrders, 0, first, "stuck");
}

#[test]
fn without_asking_a_left_behind_primary_opens() {
    let first = |_: &World| normal(Bounds { site_losses: 1, cuts: 1, ..FAILOVER });
    check(Protection::ReturningAsks, 0, first, "a left-behind instance never opens");
}

#[test]
fn exposure_before_the_record_says_so_breaks_promise_1() {
    let first = |_: &World| normal(Bounds { posts: 1, reboots: 1, ..NOTHING });
    check(Protection::RecordBeforeExposure, 0, first, "promise 1");
}

#[test]
fn synchronised_before_commits_wait_breaks_promise_1() {
    let first = |_: &World| normal(Bounds { posts: 1, reboots: 1, ..NOTHING });
    check(Protection::MirrorConfirms, 0, first, "promise 1");
}

#[test]
fn a_late_request_to_record_synchronised_breaks_promise_1() {
    let first = |_: &World| normal(Bounds { posts: 1, reboots: 2, delays: 1, ..NOTHING });
    check(Protection::UnansweredIsOverruled, 2, first, "promise 1");
}

#[test]
fn without_a_salvage_a_rewind_discards_what_was_acknowledged() {
    check(Protection::SalvageFirst, 0, |w| failed_over(w, FAILBACK), "acknowledged is kept");
}

#[test]
fn a_primary_that_was_cut_off_is_not_promoted_without_the_last_bytes() {
    let first = |w: &World| failed_over(w, Bounds { cuts: 1, ..FAILBACK });
    check(Protection::EveryByte, 0, first, "every byte");
}

/// A failover that has come to its point of no return.
fn about_to_promote(world: &World, agent_crashes: u8) -> State {
    let mut state = carry_through(world, &normal(FAILOVER), Book::Failover, Some("bring-backup-online"));
    state.left = Bounds { agent_crashes, ..NOTHING };
    state
}

#[test]
fn an_interrupted_order_that_is_not_reported_as_failed_holds_the_run_up_for_ever() {
    check(Protection::InterruptedOrdersFail, 1, |w| about_to_promote(w, 1), "stuck");
}

#[test]
fn a_promotion_that_is_not_remembered_first_is_stopped_half_way_for_ever() {
    check(Protection::PromotionIsRememberedFirst, 1, |w| about_to_promote(w, 1), "stuck");
}
