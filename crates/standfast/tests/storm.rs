//! A storm: a server is killed, and everybody who was connected to it comes to the one that is left in the same moment.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use serde_json::Value;
use support::Lab;

/// A measurement is a storm with everything in it: `bench storm` kills, counts who is back, and looks at every entry's number.
#[test]
fn everybody_of_a_killed_server_is_let_in_by_and_by_while_others_post() {
    let lab = Lab::up();
    lab.until_normal();
    let arguments =
        ["bench", "storm", "--clients", "400", "--members", "5", "--posters", "20", "--rate", "40", "--seconds", "1"];
    let report = lab.ok(&[&arguments[..], &["--rounds", "2", "--json"]].concat());
    let report: Value = serde_json::from_str(&report).unwrap();
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2, "either server is lost once: {report:#}");
    for round in rounds {
        let number = |name: &str| round[name].as_u64().unwrap();
        assert_eq!(number("clients"), 400, "all are back: {round:#}");
        assert_eq!(number("disorder"), 0, "nothing is lost or doubled: {round:#}");
        assert_eq!(number("refused"), 0, "every post is acknowledged: {round:#}");
        for phase in ["before", "during", "after"] {
            assert!(round[phase]["posts"].as_u64().unwrap() > 0, "posts are acknowledged {phase}: {round:#}");
        }
    }
}
