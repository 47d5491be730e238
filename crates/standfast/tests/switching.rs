//! Principal and mirror change places while people chat: as planned, to and fro; by force, when the principal is gone.

mod support;
use support::{Lab, Replay, assert_clean};

fn switch(lab: &Lab, to: &str, more: &[&str]) -> support::Ran {
    let mut arguments = vec!["database", "failover", "--new-principal", to, "--yes"];
    arguments.extend_from_slice(more);
    lab.cli(&arguments)
}

fn until_pair(lab: &Lab, principal: &str, mirror: &str) {
    lab.until(&format!("{principal} is principal and {mirror} its synchronised mirror"), |lab| {
        let d = lab.record()["databases"]["mgc"].clone();
        d["principal"] == principal && d["mirror"]["host"] == mirror && d["mirror"]["synchronised"] == true
    });
}

/// The backup and its mirror hold what the principal holds, and stream.
fn until_shipped(lab: &Lab, principal: &str) {
    lab.until("log shipping follows", |lab| {
        let entries = lab.instance(principal)["entries"].as_u64();
        ["s2a", "s2b"].into_iter().all(|host| {
            let standby = lab.instance(host);
            standby["shipping"]["streaming"] == true && standby["entries"].as_u64() >= entries
        })
    });
}

/// The longest time between two acknowledgements, in milliseconds.
fn longest_gap(replay: &Replay) -> i64 {
    let acknowledged = replay.acknowledged();
    acknowledged.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default()
}

#[test]
fn principal_and_mirror_change_places_to_and_fro_while_people_chat() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    lab.until_normal();
    for (to, principal, mirror, epoch) in [("mirror", "s1b", "s1a", 2), ("primary", "s1a", "s1b", 3)] {
        let said = switch(&lab, to, &[]);
        assert_eq!(said.code, Some(0), "{}", said.all());
        replay.until_epoch(&lab, epoch);
        until_pair(&lab, principal, mirror);
        let record = lab.record();
        assert_eq!((&record["state"], &record["home"]), (&"Normal".into(), &"site-1".into()));
        assert_eq!(record["databases"]["mgc"]["backup"], "s2a");
        assert_eq!(record["databases"]["mgc"]["backup_mirror"], "s2b");
        until_shipped(&lab, principal);
        let again = switch(&lab, to, &[]);
        assert_eq!(again.code, Some(0), "{}", again.all());
        assert!(again.all().contains("already"), "{}", again.all());
        assert_eq!(lab.record()["epoch"], epoch);
    }
    replay.until_acknowledged(&lab, 5);
    println!("longest gap: {} ms", longest_gap(&replay));
    let ledger = replay.end();
    let (_, rewound) = assert_clean(&lab.audit(&ledger));
    assert_eq!(rewound, 0);
}
