//! Receipts: what is stated cannot be changed, and nothing else is proved by its proof.

use super::*;
use crate::chain::content_digest;
use crate::merkle::Tree;
use crate::signature::SigningKey;
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::from_seed(&Bytes([3; 32]))
}

fn statement(n: i64) -> Statement {
    Statement {
        pool: "north".to_owned(),
        room: RoomId(5),
        seq: Seq(n),
        epoch: Epoch(1),
        at_us: 1_700_000_000_000_000,
        author: PrincipalId(11),
        client_id: [9; 16],
        content: content_digest(Some((Bytes([7; 16]), "Grüße"))),
        durable: Durable::Mirror,
        chain: Bytes([n as u8; 32]),
    }
}

/// Receipts of so many posts, signed together.
fn signed(count: u32) -> Vec<(Statement, Proof)> {
    let key = key();
    let statements: Vec<Statement> = (1..=i64::from(count)).map(statement).collect();
    let tree = Tree::over(statements.iter().map(Statement::leaf).collect()).unwrap();
    let signature = key.sign(&signed_root(tree.size(), &tree.root()));
    let proof = |index| Proof { key: key.id(), index, size: tree.size(), path: tree.path(index), signature };
    statements.into_iter().zip((0..).map(proof)).collect()
}

fn checker() -> Checker {
    Checker::trusting(vec![key().public()])
}

/// One change to a statement, by number.
fn changed(statement: &Statement, which: usize, by: u8) -> Statement {
    let mut s = statement.clone();
    let (by, n) = (by.max(1), i64::from(by.max(1)));
    match which {
        0 => s.pool.push(char::from(b'a' + by % 26)),
        1 => s.room.0 ^= n,
        2 => s.seq.0 ^= n,
        3 => s.epoch.0 ^= n,
        4 => s.at_us ^= n,
        5 => s.author.0 ^= n,
        6 => s.client_id[usize::from(by % 16)] ^= by,
        7 => s.content.0[usize::from(by % 32)] ^= by,
        8 => s.durable = if by % 2 == 0 { Durable::Disk } else { Durable::Site },
        _ => s.chain.0[usize::from(by % 32)] ^= by,
    }
    s
}

proptest! {
    #[test]
    fn any_field_that_was_changed_is_noticed(count in 1_u32..40, at: u32, which in 0_usize..10, by: u8) {
        let all = signed(count);
        let (statement, proof) = &all[(at % count) as usize];
        let mut checker = checker();
        prop_assert_eq!(checker.check(statement, proof), Ok(()));
        let wrong = changed(statement, which, by);
        prop_assert_ne!(&wrong, statement);
        prop_assert_eq!(checker.check(&wrong, proof), Err(Unproved::Signature));
    }

    #[test]
    fn the_proof_of_another_receipt_is_refused(count in 2_u32..40, at: u32, other: u32) {
        let all = signed(count);
        let (at, other) = (at % count, other % count);
        prop_assume!(at != other);
        let refused = checker().check(&all[at as usize].0, &all[other as usize].1);
        prop_assert_eq!(refused, Err(Unproved::Signature));
    }

    #[test]
    fn any_byte_of_the_proof_counts(count in 2_u32..40, at: u32, which in 0_usize..5, by in 1_u8..) {
        let all = signed(count);
        let (statement, proof) = &all[(at % count) as usize];
        let mut wrong = proof.clone();
        match which {
            0 => wrong.key.0[usize::from(by % 8)] ^= by,
            1 => wrong.index ^= u32::from(by),
            2 => wrong.size += u32::from(by),
            3 => wrong.signature.0[usize::from(by % 64)] ^= by,
            _ => wrong.path[0].0[usize::from(by % 32)] ^= by,
        }
        prop_assert!(checker().check(statement, &wrong).is_err());
    }
}

#[test]
fn a_signature_is_checked_once_and_never_stands_for_another_root() {
    let all = signed(3);
    let mut checker = checker();
    for (statement, proof) in &all {
        assert_eq!(checker.check(statement, proof), Ok(()));
    }
    assert_eq!(checker.checked.len(), 1);
    let stranger = Checker::trusting(Vec::new()).check(&all[0].0, &all[0].1);
    assert_eq!(stranger, Err(Unproved::UnknownKey(key().id())));
}

#[test]
fn hashes_are_joined_and_separated() {
    let path = vec![Bytes([1; 32]), Bytes([2; 32])];
    assert_eq!(separated(&joined(&path)), Some(path));
    assert_eq!(separated(&[0; 33]), None);
    assert_eq!(separated(&[0; 33 * 32]), None);
}

/// What the page gives as an example, so that somebody else can check a program of their own.
#[test]
fn the_example_of_the_page_holds() {
    let page = include_str!("../../../docs/receipts.md");
    let all = signed(3);
    let (statement, proof) = &all[1];
    let tree = Tree::over(all.iter().map(|(s, _)| s.leaf()).collect()).unwrap();
    let shown = [statement.leaf().to_string(), tree.root().to_string(), key().public().to_string()];
    for hash in shown.into_iter().chain([proof.key.to_string(), proof.signature.to_string()]) {
        assert!(page.contains(&hash), "the page lacks {hash}");
    }
}
