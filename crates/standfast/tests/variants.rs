//! Both stretched variants of the reference (ha-dr §3), up, used at both sites, and failed over.

mod support;
use support::{Lab, assert_clean};

fn servers(numbers: &[u8]) -> serde_json::Value {
    numbers.iter().map(|n| format!("server-{n}")).collect()
}

#[test]
fn variant_a_has_active_servers_at_both_sites_and_fails_over() {
    let lab = Lab::up_with(&["--variant", "a"]);
    lab.until_normal();
    assert_eq!(lab.record()["active_servers"], servers(&[1, 2, 5, 6]));
    let drawn = lab.ok(&["topology", "show"]);
    assert!(drawn.contains("server-8"), "{drawn}");
    let replay = lab.replay(&[]);
    lab.ok(&["lab", "kill", "site-1"]);
    lab.ok(&["failover", "--yes"]);
    assert_eq!(lab.record()["active_servers"], servers(&[5, 7, 6, 8]));
    replay.until_epoch(&lab, 2);
    assert_clean(&lab.audit(&replay.end()));
}

#[test]
fn variant_b_has_its_active_servers_near_the_database_and_no_others() {
    let lab = Lab::up_with(&["--variant", "b"]);
    lab.until_normal();
    assert_eq!(lab.record()["active_servers"], servers(&[1, 3, 2, 4]));
    let far = lab.cli(&["active-servers", "set", "server-1", "server-5"]);
    assert_eq!(far.code, Some(3), "{}", far.all());
    assert!(far.all().contains("R4"), "{}", far.all());
    let swapped = lab.cli(&["active-servers", "swap"]);
    assert_eq!(swapped.code, Some(3), "{}", swapped.all());
    lab.ok(&["active-servers", "remove", "server-4"]);
    assert_eq!(lab.record()["active_servers"], servers(&[1, 3, 2]));
}
