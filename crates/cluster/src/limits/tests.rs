//! When a run is given up, and when it does not begin.

use super::*;
use crate::planned_failover::tests::Pool;
use crate::report::CleanStop;
use crate::wal::Lsn;

const LIMITS: Limits = Limits { gap_ms: 5_000, whole_ms: 60_000, behind_bytes: 16 << 20, room_bytes: 1 << 20 };

fn check(progress: Progress, change: impl FnOnce(&mut Pool), expect: Option<&str>) {
    let mut pool = Pool::normal();
    change(&mut pool);
    let said = broken(&LIMITS, &progress, &pool.view());
    assert_eq!(said.is_some(), expect.is_some(), "{said:?}");
    let said = said.unwrap_or_default();
    assert!(said.contains(expect.unwrap_or_default()), "{said}");
}

#[test]
fn a_run_is_given_up_when_it_takes_or_will_take_longer_than_it_may() {
    let none = Progress::default();
    check(none, |_| {}, None);
    check(Progress { whole_ms: 60_000, gap_ms: Some(5_000), last_gap_ms: Some(5_000) }, |_| {}, None);
    check(Progress { whole_ms: 60_001, ..none }, |_| {}, Some("it has taken 60.0 s, and may take 60.0 s"));
    check(Progress { gap_ms: Some(5_001), ..none }, |_| {}, Some("nobody has been able to post for 5.0 s"));
    check(Progress { last_gap_ms: Some(5_001), ..none }, |_| {}, Some("for about 5.0 s, as in the last runs"));
}

#[test]
fn what_is_still_to_be_applied_counts_only_while_users_wait() {
    let backlog = |pool: &mut Pool| pool.on("s1a").written = Some(Lsn(100 + (64 << 20)));
    check(Progress::default(), backlog, None);
    check(Progress { gap_ms: Some(500), ..Progress::default() }, backlog, None);
    check(Progress { gap_ms: Some(1_500), ..Progress::default() }, backlog, Some("for about 5.5 s"));
    // A writer that is stopped says where it ends.
    let stopped = |pool: &mut Pool| {
        let end = Lsn(100 + (64 << 20));
        pool.on("s1a").written = None;
        pool.on("s1a").shut_down_at = Some(CleanStop { checkpoint: end, end });
    };
    check(Progress { gap_ms: Some(1_500), ..Progress::default() }, stopped, Some("for about 5.5 s"));
}

#[test]
fn it_does_not_begin_far_behind_or_without_room() {
    let refused = |change: &dyn Fn(&mut Pool)| {
        let mut pool = Pool::normal();
        change(&mut pool);
        preflight(&LIMITS, None, &pool.view()).into_iter().map(|u| u.why).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(refused(&|_| {}), "");
    let behind = refused(&|pool| pool.on("s1a").written = Some(Lsn(100 + (17 << 20))));
    assert!(behind.contains("site-2 lacks 17 MB of log") && behind.contains("the limit is 16 MB"), "{behind}");
    let full = refused(&|pool| pool.on("s2b").free_bytes = 0);
    assert!(full.contains("mgc on s2b has 0 MB free"), "{full}");
    assert_eq!(behind_bytes(&Pool::normal().view()), Some(0));
}
