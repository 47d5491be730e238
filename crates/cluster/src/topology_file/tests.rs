//! One thing wrong at a time: the finding names its line, and the rule where the reference has one.

use super::*;

const VARIANT_A: &str = include_str!("../../../../samples/topologies/variant-a.toml");
const VARIANT_B: &str = include_str!("../../../../samples/topologies/variant-b.toml");
const SINGLE_SITE: &str = include_str!("../../../../samples/topologies/single-site.toml");

/// What is found when `from` is replaced, everywhere: a part of the line, and a part of what is said.
fn check(from: &str, to: &str, expect: &[(&str, &str)]) {
    let changed = VARIANT_B.replace(from, to);
    assert_ne!(changed, VARIANT_B, "'{from}' is in the sample");
    let findings = Topology::from_toml(&changed).err().unwrap_or_default();
    assert_eq!(findings.len(), expect.len(), "{from} -> {to}: {findings:?}");
    for (finding, (on, says)) in findings.iter().zip(expect) {
        let line = changed.lines().nth(finding.line - 1).unwrap_or_default();
        assert!(finding.message.contains(says) && line.contains(on), "{from} -> {to}: {finding}: {line}");
    }
}

#[test]
fn the_samples_pass_and_nothing_is_missing_in_the_stretched_ones() {
    for (text, servers, active) in [(VARIANT_A, 8, 4), (VARIANT_B, 8, 4), (SINGLE_SITE, 4, 3)] {
        let topology = Topology::from_toml(text).unwrap_or_else(|f| panic!("{f:?}"));
        let counted = (topology.servers.len(), topology.servers.iter().filter(|s| s.active).count());
        assert_eq!(counted, (servers, active));
        assert_eq!(crate::topology_live::advice(&topology), []);
    }
}

#[test]
fn limits_are_kept() {
    let server = |n: u32| {
        format!(
            "[[server]]\nname = \"server-{n}\"\nhost = \"s1a\"\nclients = {{ at = \"10.1.0.11:{}\" }}\nlink = {{ at = \
             \"10.1.0.11:{}\" }}\n",
            6000 + n,
            7000 + n
        )
    };
    let nine = format!("{}[[server]]\nname = \"server-1\"", server(9));
    check("[[server]]\nname = \"server-1\"", &nine, &[("server-8", "at most 8 servers; this one has 9 (ha-dr §1)")]);
    check(
        "at = \"10.2.0.11:8011\" }\nactive = false",
        "at = \"10.2.0.11:8011\" }\nactive = true",
        &[("active", "at most 4 servers may be active; here 5 are (ha-dr §1)"), ("active", "(ha-dr §9, R4)")],
    );
    let third = "[[site]]\nname = \"site-3\"\nauthority = \"s3a\"\n\n[[host]]\nname = \"s3a\"\nsite = \"site-3\"\nagent = { at \
                 = \"10.3.0.1:8012\" }\n\n[[database]]";
    check("[[database]]", third, &[("", "one or two sites; this one has 3 (ha-dr §3)")]);
}

#[test]
fn copies_stand_where_they_help() {
    check(
        "mirror = { host = \"s1b\", postgres = { at = \"10.1.0.12:5432\" } } ",
        "mirror = { host = \"s2b\", postgres = { at = \"10.2.0.12:5433\" } } ",
        &[
            ("mgc", "two instances of mgc stand on s2b"),
            ("mirror", "the mirror stands at another site than the primary"),
        ],
    );
    check(
        "backup = { host = \"s2a\", postgres = { at = \"10.2.0.11:5432\" } }",
        "backup = { host = \"s1a\", postgres = { at = \"10.1.0.11:5433\" } }",
        &[
            ("mgc", "two instances of mgc stand on s1a"),
            ("backup", "the backup stands at the primary's site; it must stand at the other one (ha-dr §4)"),
            ("backup_mirror", "the backup mirror stands at another site than the backup"),
        ],
    );
    check("log_shipping = { share = \"/srv/standfast/share\" }\n", "", &[("backup", "a backup needs log shipping")]);
    check("\"/srv/standfast/share\"", "\"srv\"", &[("log_shipping", "the share 'srv' is no absolute path")]);
    check("\"/srv/standfast/share\"", "\"/srv/../share\"", &[("log_shipping", "is no plain path")]);
    check("\"/srv/standfast/share\"", "\"/\"", &[("log_shipping", "is no plain path")]);
    check("name = \"mgc\"", "name = \"chat\"", &[("database", "no database named mgc")]);
}

#[test]
fn every_name_and_address_is_one_thing() {
    check("authority = \"s2a\"", "authority = \"s2c\"", &[("authority", "did you mean 's2a'?")]);
    check("authority = \"s2a\"", "authority = \"s1b\"", &[("authority", "stands in site-1; name a host of site-2")]);
    check("name = \"server-2\"", "name = \"server-1\"", &[("server-1", "two servers named 'server-1'")]);
    check("10.1.0.12:5432", "10.1.0.11:5432", &[("mgc", "is the address of two things")]);
    check("10.1.0.12:5432", "10.1.0.12", &[("mgc", "is no address")]);
    check("pool = \"chat.example.org\"", "pool = \" \"", &[("", "the pool has no name")]);
    check("pool = \"chat.example.org\"", "pol = \"chat.example.org\"", &[("pol", "did you mean 'pool'?")]);
    check(
        "agent = { at = \"10.1.0.12:8012\" }",
        "agent = { at = \"10.1.0.12:8012\", seen_from = { \"site-3\" = \"192.0.2.1:1\" } }",
        &[("agent", "seen_from names 'site-3', which is no site and no host")],
    );
}

#[test]
fn a_witness_stands_apart_from_the_databases() {
    let witness = |host: &str| {
        let text = VARIANT_B.replacen("authority = \"s1a\"", &format!("witness = \"{host}\""), 1);
        assert_ne!(text, VARIANT_B);
        text.replacen(
            "[[host]]",
            "[[host]]\nname = \"s1w\"\nsite = \"site-1\"\nagent = { at = \"10.1.0.19:8012\" }\n\n[[host]]",
            1,
        )
    };
    let topology = Topology::from_toml(&witness("s1w")).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(topology.sites[0].witness().map(HostName::as_str), Some("s1w"));
    assert_eq!(topology.sites[1].witness(), None);
    let again = Topology::from_toml(&topology.to_toml().expect("it is written")).unwrap_or_else(|f| panic!("{f:?}"));
    assert_eq!(again, topology);
    let found = Topology::from_toml(&witness("s1b")).expect_err("a partner is no witness");
    assert!(found.iter().any(|f| f.message.contains("put the witness on a host without a database")), "{found:?}");
    check("authority = \"s2a\"", "authority = \"s2a\"\nwitness = \"s2b\"", &[("site", "take authority away")]);
    check("authority = \"s2a\"\n", "", &[("site", "names nobody who keeps its management store")]);
    check(
        "name = \"mgc\"",
        "name = \"mgc\"\npartner_timeout = \"100ms\"",
        &[("partner_timeout", "from 500ms to 1min")],
    );
}

#[test]
fn receivers_are_complete_and_hold_no_secret() {
    let with = |receiver: &str| format!("\n[[notify]]\nname = \"ops\"\n{receiver}\n\n[[database]]\n");
    let check = |receiver: &str, expect: &[(&str, &str)]| check("\n[[database]]\n", &with(receiver), expect);
    check("kind = \"webhook\"\nurl = \"https://chat.example.org/hooks/1\"", &[]);
    check("kind = \"webhook\"", &[]);
    let mail =
        "kind = \"mail\"\nsmtp = \"mail.example.org:587\"\nfrom = \"pool@example.org\"\nto = [\"on-call@example.org\"]";
    check(mail, &[]);
    check("kind = \"pigeon\"", &[("kind", "unknown variant `pigeon`")]);
    check("kind = \"webhook\"\nurl = \"ftp://example.org\"", &[("url", "is no web address")]);
    check("kind = \"webhook\"\nurl = \"https://me:secret@example.org\"", &[("url", "holds a password")]);
    check("kind = \"webhook\"\nfrom = \"a@example.org\"", &[("from", "from is for mail")]);
    check(&mail.replace(":587", ""), &[("smtp", "is no address")]);
    check(&mail.replace("pool@", "pool"), &[("from", "is no mail address")]);
    check(&mail.replace("on-call@example.org", "a@b, c@d"), &[("to", "is no mail address")]);
    check("kind = \"mail\"", &[("kind", "needs a sender"), ("kind", "needs recipients"), ("kind", "needs the server")]);
    check(&format!("{mail}\ntls = \"none\"\nuser = \"pool\""), &[("tls", "in the clear")]);
    check(&format!("{mail}\nevents = []"), &[("events", "events is empty")]);
    check(&format!("{mail}\nevent = [\"failed\"]"), &[("event", "did you mean 'events'?")]);
}

#[test]
fn a_share_may_be_in_a_bucket_and_its_key_is_not_in_the_file() {
    let check = |share: &str, expect: &[(&str, &str)]| check("share = \"/srv/standfast/share\"", share, expect);
    check("share = \"s3://log/chat\"", &[]);
    check("share = \"s3://log\", s3 = { endpoint = \"http://10.0.0.1:9000\", region = \"eu-1\" }", &[]);
    check("share = \"s3:///chat\"", &[("log_shipping", "is no place in a bucket")]);
    check("share = \"s3://log/a/../b\"", &[("log_shipping", "is no place in a bucket")]);
    check("share = \"/srv/share\", s3 = { region = \"eu-1\" }", &[("log_shipping", "s3 is for a share in a bucket")]);
    check("share = \"s3://log\", s3 = { endpoint = \"10.0.0.1:9000\" }", &[("log_shipping", "is no web address")]);
    check("share = \"s3://log\", s3 = { endpoint = \"http://a:b@10.0.0.1\" }", &[("log_shipping", "holds a key")]);
    check("share = \"s3://log\", s3 = { url = \"x\" }", &[("log_shipping", "there is no key 'url'")]);
}
