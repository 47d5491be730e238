//! Both stretched variants of the reference (ha-dr §3), up, used at both sites, and failed over.

mod support;
use support::{Lab, assert_clean};

fn servers(numbers: &[u8]) -> serde_json::Value {
    numbers.iter().map(|n| format!("server-{n}")).collect()
}

/// Bring the variant up, lose site 1, and fail over; which servers are active before and after.
fn check(variant: &str, before: &[u8], after: &[u8]) {
    let lab = Lab::up_with(&["--variant", variant]);
    lab.until_normal();
    assert_eq!(lab.record()["active_servers"], servers(before));
    let drawn = lab.ok(&["topology", "show"]);
    assert!(drawn.contains("server-8"), "{drawn}");
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    assert_eq!(lab.record()["active_servers"], servers(after));
    replay.until_epoch(&lab, 2);
    assert_clean(&lab.audit(&replay.end()));
}

#[test]
fn variant_a_has_active_servers_at_both_sites() {
    check("a", &[1, 2, 5, 6], &[5, 7, 6, 8]);
}

#[test]
fn variant_b_has_its_active_servers_near_the_database() {
    check("b", &[1, 3, 2, 4], &[5, 7, 6, 8]);
}
