use super::*;
use rules::chain::{Bytes, content_digest};
use rules::id::{Epoch, PrincipalId};
use rules::signature::SigningKey;
use rules::verify::{Logged, chain_at};

fn key() -> SigningKey {
    SigningKey::from_seed(&Bytes([3; 32]))
}

/// An export of three posts.
fn export() -> Vec<String> {
    let room = RoomId(5);
    let mut chain = rules::chain::chain_start(room);
    let mut lines = vec![ExportLine::Room { room, name: "tea".to_owned(), format: FORMAT }];
    for n in 1..=3 {
        let (nonce, text) = (Bytes([n as u8; 16]), format!("text {n}"));
        let mut entry = Logged {
            seq: Seq(n),
            epoch: Epoch(1),
            author: PrincipalId(11),
            at_us: 1_000 * n,
            kind: 0,
            target: None,
            client_id: Some([n as u8; 16]),
            first: None,
            content: content_digest(Some((nonce, &text))),
            text: Some(text),
            nonce: Some(nonce),
            chain,
        };
        entry.chain = chain_at(room, &chain, &entry);
        chain = entry.chain;
        lines.push(ExportLine::Entry((entry, "ada".to_owned()).into()));
    }
    let head = Head { pool: "north".to_owned(), room, seq: Seq(3), chain: Some(chain), at_us: 5_000 };
    let signed = Some(SignedHead::new(&head, &key()));
    lines.push(ExportLine::End { last_seq: Seq(3), chain: Some(chain), signed });
    lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
}

fn check(change: impl FnOnce(&mut Vec<String>), expect: &str) {
    check_with(&[key().public()], change, expect);
}

fn check_with(keys: &[PublicKey], change: impl FnOnce(&mut Vec<String>), expect: &str) {
    let mut lines = export();
    change(&mut lines);
    let said = match verify_export(lines.concat().as_bytes(), keys) {
        Ok(Checked { fault: None, last_seq, .. }) => format!("{last_seq} fit"),
        Ok(Checked { fault: Some(fault), .. }) => format!("{}: {}", fault.seq, fault.differs),
        Err(error) => error.to_string(),
    };
    assert!(said.contains(expect), "{said}");
}

#[test]
fn an_export_is_checked_without_the_pool() {
    check(|_| {}, "3 fit");
    check(|lines| lines[2] = lines[2].replace("text 2", "text two"), "2: its text is not");
    check(|lines| lines[1] = lines[1].replace(r#""author":11"#, r#""author":12"#), "1: its author was principal 11");
    check(|lines| drop(lines.remove(2)), "2: it is missing");
    check(|lines| lines.swap(1, 2), "1: it is missing");
}

#[test]
fn what_is_no_export_is_refused_with_the_line() {
    check(Vec::clear, "breaks off after 0 lines");
    check(|lines| lines.truncate(3), "breaks off after 3 lines");
    check(|lines| assert!(lines[4].pop().is_some()), "breaks off after 4 lines");
    check(|lines| drop(lines.remove(0)), "line 1 of the export");
    check(|lines| lines[0] = lines[0].replace(r#""format":1"#, r#""format":2"#), "it has format 2");
    check(|lines| lines[1] = "{}\n".to_owned(), "line 2 of the export");
    check(|lines| lines.push(lines[1].clone()), "nothing comes after");
    check(|lines| lines[1] = lines[1].replace(r#""chain":""#, r#""chain":"zz"#), "64 hexadecimal digits");
}

#[test]
fn the_head_is_signed_by_a_key_that_was_given() {
    check_with(&[], |_| {}, "3 fit");
    check_with(&[Bytes([1; 32])], |_| {}, "3: the head is signed with none of the keys");
    check(|lines| lines[4] = lines[4].replace("north", "south"), "3: the head is signed with none of the keys");
    check(|lines| lines[4] = lines[4].replace("\"at_us\":5000", "\"at_us\":5001"), "3: the head is signed with none");
    let unsigned = |lines: &mut Vec<String>| {
        let end = lines[4].find(",\"signed\"").unwrap();
        lines[4].replace_range(end.., "}\n");
    };
    check(unsigned, "3: the head is not signed");
    check_with(&[], unsigned, "3 fit");
    // What was written later with a chain that fits has no signed head.
    check(
        |lines| {
            lines.remove(3);
            let at = lines[2].find("\"chain\":\"").unwrap() + 9;
            let chain = lines[2][at..at + 64].to_owned();
            let head = lines[3].find("\"chain\":\"").unwrap() + 9;
            lines[3].replace_range(head..head + 64, &chain);
            lines[3] = lines[3].replace("\"last_seq\":3", "\"last_seq\":2");
        },
        "2: the head is signed with none",
    );
}
