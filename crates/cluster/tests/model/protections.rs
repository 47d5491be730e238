//! With a protection switched off something breaks, and the model says what: else its properties would prove nothing.

use crate::explore::{breadth_first, carry_through};
use crate::planned::PLANNED;
use crate::protection::Protection;
use crate::state::{Book, Bounds, S1A, S2A, State};
use crate::switches::{FORCE, SWITCH, unheard};
use crate::world::{Action, World, apply, normal};
use crate::{AUTHORITIES, FAILBACK, FAILOVER, NOTHING, failed_over};

/// Switch a protection off, explore from `first`, and expect what breaks to begin like this.
fn check(off: Protection, authorities: usize, first: impl FnOnce(&World) -> State, expect: &str) {
    let world = World::new(AUTHORITIES[authorities], true, &[off]);
    check_in(world, off, first, expect);
}

fn check_in(mut world: World, off: Protection, first: impl FnOnce(&World) -> State, expect: &str) {
    let first = first(&world);
    world.coarse = first.left.failovers + first.left.failbacks + first.left.planned > 0 || first.runs != [None; 2];
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
        let state = apply(w, &state, Action::Return).expect("site 1 is down");
        let state = apply(w, &state, Action::Hear { host: S1A, from: S2A }).expect("site 1 hears of the new epoch");
        let mut state = carry_through(w, &state, Book::Failback, Some("final-backup"));
        state.left = Bounds { clean_stops: 1, ..NOTHING };
        state
    };
    // It would salvage and rewind by itself, and its users wait until then.
    let world = World::new(AUTHORITIES[0], true, &[Protection::OwnOrders, Protection::Rejoins]);
    check_in(world, Protection::OwnOrders, first, "stuck");
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

/// The same in a pool whose pair at site 1 is looked at closely.
fn check_switch(off: &[Protection], authorities: usize, force: bool, left: Bounds, expect: &str) {
    let mut world = World::new(AUTHORITIES[authorities], force, off);
    world.switching = Some(0);
    check_in(world, off[0], |_| normal(left), expect);
}

#[test]
fn sites_that_begin_the_same_epoch_have_two_writers_in_it() {
    let mut world = World::new(AUTHORITIES[2], true, &[Protection::EpochsOfSites]);
    world.heals = false;
    check_in(world, Protection::EpochsOfSites, unheard, "one writer");
}

#[test]
fn a_mirror_that_lacks_the_last_bytes_is_not_promoted_by_a_switch() {
    let left = Bounds { reboots: 1, ..SWITCH };
    check_switch(&[Protection::EveryByteOfSwitch], 0, false, left, "every byte");
}

#[test]
fn a_principal_does_not_stop_at_once_before_its_mirror_has_everything() {
    let left = Bounds { reboots: 1, ..SWITCH };
    check_switch(&[Protection::MirrorFlushes], 0, false, left, "every byte");
}

#[test]
fn a_backup_that_lacks_the_last_bytes_is_not_promoted_by_a_planned_failover() {
    let first = |_: &World| normal(Bounds { cuts: 1, ..PLANNED });
    check(Protection::EveryByteOfPlanned, 0, first, "every byte");
}

#[test]
fn without_its_fence_a_forced_switch_leaves_the_old_principal_open() {
    check_switch(&[Protection::ForceFences], 2, true, FORCE, "the fence holds");
}

#[test]
fn a_forced_switch_that_does_not_ask_again_loses_what_was_acknowledged_meanwhile() {
    let first = |w: &World| {
        let state = normal(Bounds { host_losses: 1, ..FORCE });
        let state = apply(w, &state, Action::LoseHost(S1A)).expect("a host may be lost");
        let state = apply(w, &state, Action::Start(0, Book::Force)).expect("nothing speaks against it");
        let mut state = apply(w, &state, Action::Return).expect("the host is down");
        state.left = Bounds { posts: 1, host_losses: 1, reboots: 1, ..NOTHING };
        state
    };
    let mut world = World::new(AUTHORITIES[2], false, &[Protection::AskedAgainOnClaim]);
    world.switching = Some(0);
    check_in(world, Protection::AskedAgainOnClaim, first, "acknowledged is kept");
}

#[test]
fn a_backup_that_is_ahead_and_does_not_rejoin_never_follows() {
    let ahead = |w: &World| {
        let state = normal(Bounds { posts: 1, ..NOTHING });
        let state = apply(w, &state, Action::Post(S1A)).expect("the principal takes posts");
        let mut state = apply(w, &state, Action::Stream(S2A)).expect("the backup follows, and the mirror not yet");
        state.left = FORCE;
        state
    };
    let mut world = World::new(AUTHORITIES[2], true, &[Protection::Rejoins]);
    world.switching = Some(0);
    check_in(world, Protection::Rejoins, ahead, "stuck");
}

#[test]
fn a_switch_that_is_undone_with_its_pair_in_the_record_breaks_promise_1() {
    let left = Bounds { posts: 1, aborts: 1, ..FORCE };
    check_switch(&[Protection::PartsThePair], 2, true, left, "promise 1");
}
