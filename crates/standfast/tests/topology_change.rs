//! Changing a running pool by publishing its topology, while people post: servers and copies come and go, nothing is lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;
use support::{Lab, Ran, assert_clean};

/// Publish a changed topology; returns what was said.
fn publish(lab: &Lab, change: impl FnOnce(String) -> String) -> Ran {
    let text = std::fs::read_to_string(lab.dir.join("topology.toml")).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed);
    let file = lab.dir.join("wanted.toml");
    std::fs::write(&file, changed).unwrap();
    lab.cli(&["topology", "publish", file.to_str().unwrap(), "--yes"])
}

fn published(lab: &Lab, change: impl FnOnce(String) -> String) -> String {
    let ran = publish(lab, change);
    assert_eq!(ran.code, Some(0), "{}", ran.all());
    ran.all()
}

/// Without the line that begins with this.
fn without_line(text: &str, beginning: &str) -> String {
    let lines = text.lines().filter(|l| !l.starts_with(beginning));
    lines.map(|l| format!("{l}\n")).collect()
}

/// Without this server's table.
fn without_server(text: &str, server: &str) -> String {
    let parts: Vec<&str> = text.split("\n[[").collect();
    let kept: Vec<&str> = parts.into_iter().filter(|p| !p.contains(&format!("name = \"{server}\""))).collect();
    kept.join("\n[[")
}

/// Without the second site, and what stands there.
fn without_site_2(text: &str) -> String {
    let of_site_2 = ["name = \"site-2\"", "site = \"site-2\"", "host = \"s2a\"\n", "host = \"s2b\"\n"];
    let parts = text.split("\n[[").filter(|part| !of_site_2.iter().any(|o| part.contains(o)));
    let rest = parts.collect::<Vec<_>>().join("\n[[");
    let rest = without_line(&without_line(&rest, "backup = "), "log_shipping = ");
    let mut lines = String::new();
    for line in rest.lines() {
        // Nobody sees anything from there any more.
        let mut line = line.to_owned();
        while let Some(from) = line.find(", seen_from = {") {
            let to = from + line[from..].find('}').unwrap();
            line.replace_range(from..=to, "");
        }
        lines.push_str(&line);
        lines.push('\n');
    }
    lines
}

fn without_version(text: &str) -> String {
    without_line(text, "version = ")
}

/// Whether the agent of its host says that a server runs.
fn runs(lab: &Lab, server: &str) -> bool {
    let status = lab.status();
    let reports = status["reports"].as_array().cloned().unwrap_or_default();
    reports.iter().any(|r| r["services"][server]["pid"].is_i64())
}

fn serves(lab: &Lab, server: &str) -> bool {
    let status = lab.status();
    let reports = status["reports"].as_array().cloned().unwrap_or_default();
    reports.iter().any(|r| r["servers"][server]["writes_as"].is_i64())
}

#[test]
fn servers_and_copies_come_and_go_while_people_post() {
    let lab = Lab::up();
    lab.until_normal();
    let replay = lab.replay(&[]);

    let (clients, link) = (lab.base_port + 90, lab.base_port + 91);
    let third = format!(
        "\n[[server]]\nname = \"server-3\"\nhost = \"s1b\"\nclients = {{ at = \"127.0.0.1:{clients}\" }}\n\
         link = {{ at = \"127.0.0.1:{link}\" }}\n"
    );
    let said = published(&lab, |text| text + &third);
    assert!(said.contains("server-3 is added on s1b (site-1)"), "{said}");
    // Its agent starts it as soon as it has the new topology.
    lab.until("the new server runs", |lab| runs(lab, "server-3"));
    lab.ok(&["active-servers", "add", "server-3"]);
    lab.until("the new server writes", |lab| serves(lab, "server-3"));
    let said = lab.cli(&["active-servers", "add", "server-5"]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("R4"), "{}", said.all());

    // An active server goes: it drains first, and its clients are elsewhere before it is gone from the topology.
    let said = published(&lab, |text| without_server(&text, "server-2"));
    assert!(said.contains("every client has moved"), "{said}");
    assert_eq!(lab.record()["active_servers"], serde_json::json!(["server-1", "server-3"]));
    lab.until("its agent has ended it", |lab| !runs(lab, "server-2"));
    replay.until_acknowledged(&lab, 20);

    // Another host keeps the record from here on, and the runs that follow begin there.
    published(&lab, |text| text.replace("authority = \"s1a\"", "authority = \"s1b\""));

    let mirror = "mirror = ";
    let before = std::fs::read_to_string(lab.dir.join("topology.toml")).unwrap();
    let line = before.lines().find(|l| l.starts_with(mirror)).unwrap().to_owned();
    published(&lab, |text| without_line(&text, mirror));
    assert!(lab.record()["databases"]["mgc"]["mirror"].is_null());
    replay.until_acknowledged(&lab, 20);
    published(&lab, |text| text.replace("\nbackup = ", &format!("\n{line}\nbackup = ")));
    assert_eq!(lab.record()["databases"]["mgc"]["mirror"]["synchronised"], true);

    let line_of = |beginning: &str| before.lines().find(|l| l.starts_with(beginning)).unwrap().to_owned();
    published(&lab, |text| without_line(&text, "backup_mirror = "));
    assert!(lab.record()["databases"]["mgc"]["backup_mirror"].is_null());
    // The second site goes, with everything that stands there, and comes again.
    let whole = std::fs::read_to_string(lab.dir.join("topology.toml")).unwrap();
    published(&lab, |text| without_site_2(&text));
    assert!(lab.record()["databases"]["mgc"]["backup"].is_null());
    replay.until_acknowledged(&lab, 20);
    let backup = format!("{}\n{}\n", line_of("backup = "), line_of("log_shipping = "));
    published(&lab, |_| without_version(&whole));
    assert!(whole.contains(&backup), "{whole}");
    assert_eq!(lab.record()["databases"]["mgc"]["backup"], "s2a");
    let again = line_of("backup_mirror = ");
    published(&lab, |text| text.replace("\nmirror = ", &format!("\n{again}\nmirror = ")));
    assert_eq!(lab.instance("s2b")["state"], "standby");

    // What only the hosts show: a share that is not one folder, or not to be written, is found before anything is changed.
    let file = lab.dir.join("topology.toml");
    let checked = lab.cli(&["topology", "check", file.to_str().unwrap(), "--live"]);
    assert_eq!(checked.code, Some(0), "{}", checked.all());
    let share = lab.dir.join("share");
    assert_eq!(std::fs::read_dir(&share).unwrap().flatten().count(), 1, "no mark is left");
    let inside = lab.dir.join("hosts/s2a");
    let said = publish(&lab, |text| text.replace(share.to_str().unwrap(), inside.to_str().unwrap()));
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("lies inside the folder in which s2a keeps its data"), "{}", said.all());
    let said = publish(&lab, |text| text.replace(share.to_str().unwrap(), "/nowhere/at/all"));
    assert!(said.all().contains("s1a cannot use the share /nowhere/at/all"), "{}", said.all());

    // What is in use stays.
    let said = publish(&lab, |text| {
        let swapped = text.replace("primary = { host = \"s1a\"", "primary = { host = \"tmp\"");
        swapped.replace("mirror = { host = \"s1b\"", "mirror = { host = \"s1a\"").replace("\"tmp\"", "\"s1b\"")
    });
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert!(said.all().contains("not its principal now"), "{}", said.all());

    assert_clean(&lab.audit(&replay.end()));
}
