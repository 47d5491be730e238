//! The split that nobody can prevent: the line is cut, both sites live, and an administrator fails over all the same.

mod support;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::time::Instant;
use support::Lab;

/// Where a chat server takes clients, `address:port`.
fn at(lab: &Lab, server: &str) -> String {
    let topology = std::fs::read_to_string(lab.dir.join("topology.toml")).expect("a lab has a topology");
    let rest = topology.split(&format!("name = \"{server}\"")).nth(1).expect("the topology has the server");
    let at = rest.split("clients = { at = \"").nth(1).and_then(|r| r.split('"').next());
    at.expect("it takes clients").to_owned()
}

/// A call of this server, by somebody who sees no other.
fn call(lab: &Lab, server: &str, method: &str, path: &str, token: &str, body: &str) -> Value {
    let at = at(lab, server);
    let mut stream = std::net::TcpStream::connect(&at).expect("the server takes connections");
    let key = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n{key}content-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .expect("it reads the call");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(head.contains(" 200 ") || head.contains(" 201 "), "{method} {path} at {server}: {answer}");
    serde_json::from_str(body).expect("it answers JSON")
}

/// Ines, at one server.
struct Ines {
    token: String,
    room: i64,
}

impl Ines {
    fn new(lab: &Lab, server: &str) -> Self {
        let who = r#"{"user":"ines","password":"harbour-watch"}"#;
        let signed_in = call(lab, server, "POST", "/v1/sign-in", "", who);
        let token = signed_in["token"].as_str().expect("she has a token").to_owned();
        let rooms = call(lab, server, "GET", "/v1/rooms", &token, "");
        let room = rooms["rooms"].as_array().and_then(|all| all.iter().find(|r| r["name"] == "Operations"));
        Self { token, room: room.and_then(|r| r["id"].as_i64()).expect("the lab has that room") }
    }

    /// Post; the epoch in which it was acknowledged.
    fn post(&self, lab: &Lab, server: &str, text: &str, n: u32) -> i64 {
        let body = format!(r#"{{"client_id":"0193a000-0000-7000-8000-00000000000{n}","text":"{text}"}}"#);
        let path = format!("/v1/rooms/{}/entries", self.room);
        let posted = call(lab, server, "POST", &path, &self.token, &body);
        posted["epoch"].as_i64().expect("an acknowledgement names its epoch")
    }

    /// What was said of the gate, in the room's order, and whether it came late.
    fn history(&self, lab: &Lab, server: &str) -> Vec<(String, bool)> {
        let page = call(lab, server, "GET", &format!("/v1/rooms/{}/entries", self.room), &self.token, "");
        let entries = page["entries"].as_array().expect("a page has entries");
        let text = |e: &Value| e["text"].as_str().unwrap_or_default().to_owned();
        let said = entries.iter().map(|e| (text(e), e["late"].is_object()));
        said.filter(|(text, _)| text.starts_with("lock gate")).collect()
    }
}

#[test]
fn a_pool_that_was_split_ends_with_one_writer_and_both_lines_of_history() {
    let lab = Lab::up();
    lab.until_normal();
    let ines = Ines::new(&lab, "server-1");
    assert_eq!(ines.post(&lab, "server-1", "lock gate shut, both sites see it", 1), 1);
    lab.until("the backup has the post", |lab| {
        lab.instance("s2a")["entries"] == lab.instance("s1a")["entries"]
            && lab.instance("s1a")["entries"].as_u64() > Some(0)
    });

    lab.ok(&["lab", "link", "down"]);
    // The share is gone with the line: nothing of site 1 reaches site 2 from here on, and no word of site 2 site 1.
    let share = lab.dir.join("share");
    std::fs::rename(&share, lab.dir.join("share.away")).expect("the share can be taken away");
    assert_eq!(ines.post(&lab, "server-1", "lock gate open, said at site 1 before the failover", 2), 1);
    let said = lab.cli(&["failover", "--yes", "--force"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    assert_eq!(ines.post(&lab, "server-5", "lock gate jammed, said at site 2", 3), 2);
    assert_eq!(ines.post(&lab, "server-1", "lock gate mended, said at site 1 after the failover", 4), 1);

    // The moment that the sites see each other, the older epoch stops.
    std::fs::rename(lab.dir.join("share.away"), &share).expect("the share comes back");
    lab.ok(&["lab", "link", "up"]);
    let seen = Instant::now();
    lab.until("the older epoch has stopped", |lab| lab.instance("s1a")["state"] == "left-behind");
    println!("the older epoch stopped within {} ms", seen.elapsed().as_millis());
    assert_eq!(lab.instance("s2a")["state"], "online");
    assert_eq!(ines.post(&lab, "server-5", "lock gate checked, said when they saw each other", 5), 2);

    let said = lab.cli(&["failback", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.all());
    lab.until_normal();
    lab.until("what site 1 had acknowledged is back", |lab| {
        ines.history(lab, "server-1").iter().filter(|(_, late)| *late).count() == 2
    });
    let expect = [
        ("lock gate shut, both sites see it", false),
        ("lock gate jammed, said at site 2", false),
        ("lock gate checked, said when they saw each other", false),
        ("lock gate open, said at site 1 before the failover", true),
        ("lock gate mended, said at site 1 after the failover", true),
    ];
    let expect: Vec<(String, bool)> = expect.into_iter().map(|(text, late)| (text.to_owned(), late)).collect();
    assert_eq!(ines.history(&lab, "server-1"), expect);
}
