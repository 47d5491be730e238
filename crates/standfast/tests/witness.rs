//! A pair with a witness: of principal, mirror and witness two must see each other for anybody to serve (ha-dr §13.3).

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use support::{Lab, Replay, assert_clean};

/// A pool with a witness at each site, everything synchronised, and people who chat.
fn chatting() -> (Lab, Replay) {
    let lab = Lab::up_with(&["--witness"]);
    lab.until_normal();
    let replay = lab.replay(&[]);
    (lab, replay)
}

fn principal(lab: &Lab) -> String {
    lab.record()["databases"]["mgc"]["principal"].as_str().unwrap_or_default().to_owned()
}

/// The mirror has taken over, people chat on, and the run says who began it.
fn until_taken_over(lab: &Lab, replay: &Replay) {
    lab.until("the mirror has taken over", |lab| principal(lab) == "s1b" && lab.record()["run"].is_null());
    replay.until_epoch(lab, 3);
    let runs = lab.ok(&["runbook", "list"]);
    assert!(runs.contains("force-mirror") && runs.contains("the witness s1w"), "{runs}");
}

/// The old principal is the mirror now, synchronised, without anybody's help.
fn until_rejoined(lab: &Lab) {
    lab.until("the old principal is the mirror, synchronised", |lab| {
        let mirror = &lab.record()["databases"]["mgc"]["mirror"];
        mirror["host"] == "s1a" && mirror["synchronised"] == true
    });
}

/// What the agent of a host says that it waits for.
fn waits_for(lab: &Lab, host: &str) -> String {
    let status = lab.status();
    let reports = status["reports"].as_array().cloned().unwrap_or_default();
    reports.iter().find(|r| r["host"] == host).map(|r| r["waiting_for"].to_string()).unwrap_or_default()
}

fn audited(lab: &Lab, replay: Replay) {
    let ledger = replay.end();
    let (acknowledged, rewound) = assert_clean(&lab.audit(&ledger));
    assert!(acknowledged > 0);
    assert_eq!(rewound, 0, "a synchronised mirror lacks nothing");
}

#[test]
fn a_principal_whose_host_dies_is_replaced_by_itself_and_comes_back_as_the_mirror() {
    let (lab, replay) = chatting();
    lab.ok(&["lab", "kill", "s1a"]);
    until_taken_over(&lab, &replay);
    lab.ok(&["lab", "start", "s1a"]);
    until_rejoined(&lab);
    replay.until_acknowledged(&lab, 20);
    // And back again by the same way: the mirror of the second epoch takes over from the second principal.
    lab.ok(&["lab", "kill", "s1b"]);
    lab.until("the first one is principal again", |lab| principal(lab) == "s1a");
    replay.until_epoch(&lab, 5);
    audited(&lab, replay);
}

#[test]
fn a_database_that_is_killed_alone_is_replaced_or_restarted_whichever_is_sooner() {
    let (lab, replay) = chatting();
    lab.ok(&["lab", "kill", "s1a/postgres"]);
    replay.until_acknowledged(&lab, 20);
    lab.until("the pair is synchronised, and nothing is under way", |lab| {
        let record = lab.record();
        record["run"].is_null() && record["databases"]["mgc"]["mirror"]["synchronised"] == true
    });
    audited(&lab, replay);
}

#[test]
fn a_frozen_principal_is_waited_for_as_long_as_the_partner_time_out_says_and_then_replaced() {
    let (lab, replay) = chatting();
    lab.ok(&["lab", "freeze", "s1a"]);
    until_taken_over(&lab, &replay);
    // It wakes up, holds itself to be principal for a moment, and can acknowledge nothing.
    lab.ok(&["lab", "thaw", "s1a"]);
    until_rejoined(&lab);
    replay.until_acknowledged(&lab, 20);
    audited(&lab, replay);
}

#[test]
fn a_principal_that_is_cut_off_stops_serving_and_its_mirror_takes_over() {
    let (lab, replay) = chatting();
    lab.ok(&["lab", "link", "--host", "s1a", "freeze"]);
    until_taken_over(&lab, &replay);
    // The lab's own view of s1a is not cut: it has stopped, and says why.
    lab.until("the old principal has stopped serving", |lab| {
        let state = lab.instance("s1a")["state"].clone();
        state != "online" && state != "standby"
    });
    lab.ok(&["lab", "link", "--host", "s1a", "up"]);
    until_rejoined(&lab);
    audited(&lab, replay);
}

#[test]
fn partners_that_are_cut_from_each_other_and_both_see_the_witness_stay_as_they_are() {
    let (lab, replay) = chatting();
    lab.ok(&["lab", "link", "--host", "s1b", "--to", "s1a", "down"]);
    lab.until("the witness has recorded that the principal goes on alone", |lab| {
        lab.record()["databases"]["mgc"]["mirror"]["synchronised"] == false
    });
    replay.until_acknowledged(&lab, 20);
    // The principal is lost now: its mirror lacks posts, and does not take over.
    lab.ok(&["lab", "kill", "s1a"]);
    lab.ok(&["lab", "link", "--host", "s1b", "--to", "s1a", "up"]);
    let refused = lab.cli(&["database", "failover", "--new-principal", "mirror", "--yes"]);
    assert_ne!(refused.code, Some(0), "{}", refused.all());
    assert_eq!(principal(&lab), "s1a");
    lab.ok(&["lab", "start", "s1a"]);
    lab.until_normal();
    audited(&lab, replay);
}

#[test]
fn without_the_witness_nobody_takes_over_and_with_it_again_the_pair_goes_on() {
    let (lab, replay) = chatting();
    // Principal and mirror are in touch: they serve.
    lab.ok(&["lab", "kill", "s1w"]);
    replay.until_acknowledged(&lab, 20);
    // Now the mirror is alone.
    lab.ok(&["lab", "kill", "s1a"]);
    lab.until("the mirror says why it does not take over", |lab| {
        waits_for(lab, "s1b").contains("the witness s1w does not answer either, so nobody takes over")
    });
    assert_eq!(lab.instance("s1b")["state"], "standby");
    // Mirror and witness meet again, and the record says that the mirror has everything.
    lab.ok(&["lab", "start", "s1w"]);
    until_taken_over(&lab, &replay);
    lab.ok(&["lab", "start", "s1a"]);
    until_rejoined(&lab);
    audited(&lab, replay);
}

#[test]
fn a_database_that_is_frozen_alone_is_replaced() {
    let (lab, replay) = chatting();
    lab.ok(&["lab", "freeze", "s1a/postgres"]);
    until_taken_over(&lab, &replay);
    // Its agent insists, and makes a mirror of it.
    until_rejoined(&lab);
    audited(&lab, replay);
}

#[test]
fn a_witness_that_lost_its_disk_decides_nothing_until_it_has_heard_both_partners() {
    let (lab, replay) = chatting();
    lab.ok(&["lab", "kill", "s1w"]);
    std::fs::remove_file(lab.dir.join("hosts/s1w/store/record.json")).unwrap();
    lab.ok(&["lab", "kill", "s1b"]);
    lab.ok(&["lab", "start", "s1w"]);
    lab.until("it says what it waits for", |lab| {
        waits_for(lab, "s1w").contains("decides nothing yet: s1b has not been heard yet")
    });
    // The principal may not go on alone meanwhile: the witness does not know whether the mirror has taken over.
    assert_eq!(lab.record()["databases"]["mgc"]["mirror"]["synchronised"], true);
    lab.ok(&["lab", "start", "s1b"]);
    lab.until("it decides again", |lab| waits_for(lab, "s1w") == "[]");
    lab.until_normal();
    lab.ok(&["lab", "kill", "s1a"]);
    until_taken_over(&lab, &replay);
    audited(&lab, replay);
}

#[test]
fn a_mirror_that_does_not_see_the_other_site_leaves_the_take_over_to_a_person() {
    let (lab, replay) = chatting();
    lab.ok(&["lab", "link", "down"]);
    replay.until_acknowledged(&lab, 20);
    lab.ok(&["lab", "kill", "s1a"]);
    lab.until("the mirror says why it does not take over", |lab| {
        waits_for(lab, "s1b").contains("no host of site-2 answers")
    });
    assert_eq!(lab.instance("s1b")["state"], "standby");
    // With the line, it does by itself what a person would have had to insist on.
    lab.ok(&["lab", "link", "up"]);
    until_taken_over(&lab, &replay);
    lab.ok(&["lab", "start", "s1a"]);
    until_rejoined(&lab);
    audited(&lab, replay);
}
