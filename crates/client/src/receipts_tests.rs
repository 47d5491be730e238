use super::*;
use rules::chain::{Bytes, content_digest};
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::merkle::Tree;
use rules::receipt::{Durable, signed_root};
use rules::signature::SigningKey;
use uuid::Uuid;
use wire::receipt::Signed;

fn key() -> SigningKey {
    SigningKey::from_seed(&Bytes([3; 32]))
}

/// Two receipts, signed together.
fn receipts() -> Vec<Receipt> {
    let unsigned = |n: u8| Receipt {
        pool: "north".to_owned(),
        room: RoomId(5),
        seq: Seq(n.into()),
        epoch: Epoch(1),
        at_us: 1_700_000_000_000_000,
        client_id: Uuid::from_bytes([n; 16]),
        durable: Durable::Mirror,
        signed: Signed {
            author: PrincipalId(11),
            digest: content_digest(Some((Bytes([7; 16]), "tea"))),
            nonce: Some(Bytes([7; 16])),
            chain: Bytes([n; 32]),
            key: key().id(),
            index: 0,
            size: 2,
            path: Vec::new(),
            signature: Bytes([0; 64]),
        },
    };
    let mut all = vec![unsigned(1), unsigned(2)];
    let tree = Tree::over(all.iter().map(|r| r.statement().leaf()).collect()).unwrap();
    let signature = key().sign(&signed_root(2, &tree.root()));
    for (index, receipt) in (0..).zip(&mut all) {
        receipt.signed = Signed { index, path: tree.path(index), signature, ..receipt.signed.clone() };
    }
    all
}

/// A receipt by itself, and one in a ledger.
fn file() -> String {
    let all = receipts();
    let Receipt { room, seq, epoch, client_id, .. } = all[1];
    let ack = LedgerLine::Ack {
        room,
        seq,
        epoch,
        client_id,
        user: "ada".to_owned(),
        hash: String::new(),
        at_ms: 1,
        took_ms: 1,
        receipt: Some(Box::new(all[1].clone())),
    };
    let left = r#"{"line":"left","room":5,"user":"ada","at_ms":1}"#;
    format!("{}\n{}\n{left}\n", serde_json::to_string(&all[0]).unwrap(), serde_json::to_string(&ack).unwrap())
}

fn check(file: &str, keys: Vec<PublicKey>, expect: &str) {
    let said = match check_file(file.as_bytes(), keys) {
        Ok(Checked { receipts, unproved: 0, .. }) => format!("{receipts} fit"),
        Ok(checked) => format!("line {}: {}", checked.findings[0].line, checked.findings[0].why),
        Err(error) => error.to_string(),
    };
    assert!(said.contains(expect), "{said}");
}

#[test]
fn receipts_are_checked_without_the_pool() {
    let ours = || vec![key().public()];
    check(&file(), ours(), "2 fit");
    check("", ours(), "0 fit");
    check(&file(), Vec::new(), "line 1: the receipt of post 01010101");
    check(&file(), vec![Bytes([1; 32])], "none of those that are trusted here");
    check(&file().replacen("mirror", "site", 1), ours(), "not what was signed");
    check(&file().replacen("north", "south", 1), ours(), "not what was signed");
    // The acknowledgement beside the receipt says something else.
    check(&file().replacen(r#""line":"ack","room":5,"seq":2"#, r#""line":"ack","room":5,"seq":3"#, 1), ours(), BESIDE);
}

#[test]
fn what_holds_no_receipts_is_refused_with_the_line() {
    check("rubbish\n", Vec::new(), "line 1 is neither");
    check("{\"a\":1}\n", Vec::new(), "line 1 is neither");
    check(&format!("{}{{\"receipt\":{{}}}}\n", file()), Vec::new(), "line 4 is neither");
    check(&file()[..80], Vec::new(), "line 1 is neither");
}
