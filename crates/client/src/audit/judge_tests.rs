use super::*;
use rules::chain::Bytes;
use rules::id::PrincipalId;
use rules::merkle::Tree;
use rules::receipt::signed_root;
use rules::signature::SigningKey;
use wire::chat::{Content, Entry, Late};
use wire::http::EpochStart;
use wire::receipt::Signed;

const ROOM: RoomId = RoomId(1);

fn id(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_bytes(bytes)
}

/// A log of one room from `seq/epoch name` each; the name is text and client message id, its author is `ada`. With
/// `seq/epoch late name` it is a late arrival.
fn log(entries: &[&str], epochs: &[(i64, i64)]) -> BTreeMap<RoomId, RoomLog> {
    let mut log = RoomLog::new("tea");
    for entry in entries {
        let (place, name) = entry.split_once(' ').unwrap();
        let (seq, epoch) = place.split_once('/').unwrap();
        let is_late = name.starts_with("late ");
        let name = name.trim_start_matches("late ");
        let content = match name.strip_prefix("removes ") {
            Some(target) => Content::Removal { target: Seq(target.parse().unwrap()) },
            None => Content::Post { text: name.to_owned() },
        };
        log.push(&Entry {
            room: ROOM,
            seq: Seq(seq.parse().unwrap()),
            epoch: Epoch(epoch.parse().unwrap()),
            author: "ada".to_owned(),
            at_us: 0,
            client_id: matches!(content, Content::Post { .. }).then(|| id(name)),
            late: is_late.then_some(Late { epoch: Epoch(1), seq: Seq(1), at_us: 0 }),
            content,
        });
    }
    log.set_epochs(epochs.iter().map(|(e, s)| EpochStart { epoch: Epoch(*e), last_seq: Seq(*s) }).collect());
    BTreeMap::from([(ROOM, log)])
}

/// A line from `ack 1/1 a`, `seen 1/1 a`, `joined`, `joined 4`, `left`, `rewound 3`, `disconnected`. What clients do is
/// bob's, acknowledgements are ada's. A text after `=` stands for the name.
fn line(text: &str) -> LedgerLine {
    let words: Vec<&str> = text.split(' ').collect();
    let (room, at_ms) = (ROOM, 0);
    let number = |at: usize| words.get(at).map(|n| Seq(n.parse().unwrap()));
    let bob = || "bob".to_owned();
    let place = || {
        let (seq, epoch) = words[1].split_once('/').unwrap();
        (Seq(seq.parse().unwrap()), Epoch(epoch.parse().unwrap()))
    };
    let post = || {
        let (name, text) = words[2].split_once('=').unwrap_or((words[2], words[2]));
        (id(name), crate::audit::hash_of(text))
    };
    match words[0] {
        "ack" => {
            let ((seq, epoch), (client_id, hash), user) = (place(), post(), "ada".to_owned());
            LedgerLine::Ack { room, seq, epoch, client_id, user, hash, at_ms, took_ms: 1, receipt: None }
        }
        "seen" => {
            let ((seq, epoch), (client_id, hash)) = (place(), post());
            LedgerLine::Seen { room, seq, epoch, client_id: Some(client_id), user: bob(), hash, at_ms }
        }
        "joined" => LedgerLine::Joined { room, user: bob(), after: number(1), at_ms },
        "left" => LedgerLine::Left { room, user: bob(), at_ms },
        "rewound" => LedgerLine::Rewound { room, user: bob(), from: number(1).unwrap(), at_ms },
        "disconnected" => LedgerLine::Disconnected { user: bob(), reason: "test".to_owned(), at_ms },
        other => panic!("{other}"),
    }
}

/// Expect `acknowledged lost duplicated out-of-order rewound re-offered`.
fn check(lines: &[&str], logs: &BTreeMap<RoomId, RoomLog>, expect: [u64; 6]) {
    let v = judge(lines.iter().map(|l| line(l)), logs, Checker::default());
    let found = [v.acknowledged, v.lost, v.duplicated, v.out_of_order, v.rewound, v.re_offered];
    assert_eq!(found, expect, "{lines:?}: {v:#?}");
}

#[test]
fn what_was_kept_is_clean() {
    let logs = log(&["1/1 a", "2/1 b", "3/1 c"], &[]);
    check(&[], &logs, [0; 6]);
    check(&["ack 1/1 a", "ack 2/1 b", "ack 2/1 b"], &logs, [2, 0, 0, 0, 0, 0]);
    check(&["joined", "seen 2/1 b", "seen 3/1 c", "left", "joined", "seen 1/1 a"], &logs, [0; 6]);
    check(&["joined", "seen 1/1 a", "disconnected", "joined 1", "seen 2/1 b"], &logs, [0; 6]);
    let verdict = judge([line("ack 1/1 a")], &logs, Checker::default());
    assert!(verdict.is_clean());
    assert_eq!(verdict.line(), "acknowledged 1, lost 0, duplicated 0, out of order 0, rewound 0");
}

#[test]
fn an_acknowledged_post_that_is_not_there_is_lost() {
    let logs = log(&["1/1 a", "2/1 b"], &[]);
    check(&["ack 3/1 c"], &logs, [1, 1, 0, 0, 0, 0]);
    check(&["ack 1/1 a=other"], &logs, [1, 1, 0, 0, 0, 0]);
    // Another post took its number: one of the two is lost.
    check(&["ack 1/1 a", "ack 1/1 x"], &logs, [2, 1, 0, 0, 0, 0]);
    // An epoch that began above it does not explain it.
    check(&["ack 2/1 x"], &log(&["1/1 a", "2/1 b"], &[(2, 2)]), [1, 1, 0, 0, 0, 0]);
    // Nor does one that is not later.
    check(&["ack 2/2 x"], &log(&["1/1 a"], &[(2, 1)]), [1, 1, 0, 0, 0, 0]);
    check(&["ack 1/1 a"], &BTreeMap::new(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_post_at_another_number_than_its_author_was_told_is_out_of_order() {
    check(&["ack 2/1 a"], &log(&["1/1 a"], &[]), [1, 0, 0, 1, 0, 0]);
}

#[test]
fn a_post_that_stands_twice_is_duplicated() {
    check(&[], &log(&["1/1 a", "2/1 a"], &[]), [0, 0, 1, 0, 0, 0]);
    check(&["ack 2/1 a"], &log(&["1/1 a", "2/1 a"], &[]), [1, 0, 1, 0, 0, 0]);
    let mut both = log(&["1/1 a"], &[]);
    both.insert(RoomId(2), both[&ROOM].clone());
    check(&[], &both, [0, 0, 1, 0, 0, 0]);
    // Told two numbers with nothing that explains it.
    check(&["ack 1/1 a", "ack 2/1 a"], &log(&["1/1 x", "2/1 a"], &[]), [1, 0, 1, 0, 0, 0]);
}

#[test]
fn a_log_with_gaps_or_two_writers_is_out_of_order() {
    check(&[], &log(&["1/1 a", "3/1 b"], &[]), [0, 0, 0, 1, 0, 0]);
    check(&[], &log(&["2/1 a"], &[]), [0, 0, 0, 1, 0, 0]);
    // The old writer wrote after the new epoch had begun.
    check(&[], &log(&["1/1 a", "2/1 b"], &[(2, 1)]), [0, 0, 0, 1, 0, 0]);
}

#[test]
fn what_a_failover_took_with_it_is_rewound_or_re_offered() {
    let logs = log(&["1/1 a", "2/2 c", "3/2 b"], &[(2, 1)]);
    check(&["ack 1/1 a", "ack 2/1 x"], &logs, [2, 0, 0, 0, 1, 0]);
    check(&["ack 2/1 b", "ack 3/2 b"], &logs, [1, 0, 0, 0, 0, 1]);
    // Posted again, but the ledger ended before its author was told.
    check(&["ack 2/1 b"], &logs, [1, 0, 0, 0, 0, 1]);
    // Told in the new epoch, and gone all the same.
    check(&["ack 2/1 x", "ack 4/2 x"], &logs, [1, 1, 0, 0, 0, 0]);
    let verdict = judge([line("ack 2/1 x")], &logs, Checker::default());
    assert_eq!((verdict.rewound_posts[0].seq, verdict.rewound_posts[0].author.as_str()), (Seq(2), "ada"));
}

#[test]
fn a_late_arrival_is_the_post_that_was_acknowledged() {
    let logs = log(&["1/1 a", "2/2 c", "3/2 late b", "4/2 late d"], &[(2, 1)]);
    let late = |lines: &[&str]| judge(lines.iter().map(|l| line(l)), &logs, Checker::default()).late;
    // Its author was away, or offered it again and was told its new number.
    let lines = ["ack 1/1 a", "ack 2/1 b", "ack 3/1 d", "ack 4/2 d"];
    check(&lines, &logs, [3, 0, 0, 0, 0, 0]);
    assert_eq!(late(&lines), 2);
    // Seen before the loss, and again at its number now, after what was posted in between.
    let seen =
        ["joined", "seen 1/1 a", "seen 2/1 b", "disconnected", "joined 2", "rewound 2", "seen 2/2 c", "seen 3/2 b"];
    check(&seen, &logs, [0; 6]);
    // What was refused is in no room, and is rewound still.
    check(&["ack 4/1 x"], &logs, [1, 0, 0, 0, 1, 0]);
    // It does not excuse another number of the same epoch, nor a second copy.
    check(&["ack 5/2 b"], &logs, [1, 0, 0, 1, 0, 0]);
    check(&["ack 2/1 b"], &log(&["1/1 a", "2/2 b", "3/2 late b"], &[(2, 1)]), [1, 0, 1, 0, 0, 0]);
}

#[test]
fn deliveries_with_gaps_are_out_of_order_and_repeated_ones_duplicated() {
    let logs = log(&["1/1 a", "2/1 b", "3/1 c"], &[]);
    check(&["joined", "seen 1/1 a", "seen 3/1 c"], &logs, [0, 0, 0, 1, 0, 0]);
    check(&["joined", "seen 1/1 a", "seen 1/1 a", "seen 2/1 b"], &logs, [0, 0, 1, 0, 0, 0]);
    check(&["joined 1", "seen 3/1 c"], &logs, [0, 0, 0, 1, 0, 0]);
    check(&["joined", "seen 2/1 b", "seen 1/1 a"], &logs, [0, 0, 1, 0, 0, 0]);
    check(&["seen 1/1 a"], &logs, [0, 0, 0, 1, 0, 0]);
    check(&["joined", "left", "seen 1/1 a"], &logs, [0, 0, 0, 1, 0, 0]);
    check(&["joined", "seen 1/1 a", "disconnected", "seen 2/1 b"], &logs, [0, 0, 0, 1, 0, 0]);
    // Resumed elsewhere than where it was.
    check(&["joined", "seen 1/1 a", "disconnected", "joined 2"], &logs, [0, 0, 0, 1, 0, 0]);
    check(&["joined", "seen 1/1 a", "seen 2/1 b", "disconnected", "joined 1"], &logs, [0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_rewind_voids_what_was_seen() {
    let logs = log(&["1/1 a", "2/2 c"], &[(2, 1)]);
    let told = ["joined", "seen 1/1 a", "seen 2/1 b", "disconnected", "joined 2", "rewound 2", "seen 2/2 c"];
    check(&told, &logs, [0; 6]);
    // The same without being told.
    let untold = ["joined", "seen 1/1 a", "seen 2/1 b", "disconnected", "joined 2", "seen 2/2 c"];
    check(&untold, &logs, [0, 0, 1, 0, 0, 0]);
    // A rewind does not set anybody forward.
    check(&["joined", "seen 1/1 a", "rewound 4"], &logs, [0, 0, 0, 1, 0, 0]);
}

#[test]
fn what_was_shown_and_is_not_in_the_log_is_lost_once() {
    let logs = log(&["1/1 a", "2/1 b"], &[]);
    check(&["joined", "seen 1/1 x"], &logs, [0, 1, 0, 0, 0, 0]);
    check(&["joined", "seen 1/1 a=other"], &logs, [0, 1, 0, 0, 0, 0]);
    check(&["joined", "seen 1/2 a"], &logs, [0, 1, 0, 0, 0, 0]);
    check(&["joined", "seen 3/1 c", "left", "joined", "seen 3/1 c"], &logs, [0, 1, 0, 0, 0, 0]);
    check(&["joined", "seen 3/1 c", "ack 3/1 c"], &logs, [1, 1, 0, 0, 0, 0]);
    check(&["joined", "seen 1/1 a=other", "ack 1/1 a"], &logs, [1, 1, 0, 0, 0, 0]);
}

#[test]
fn what_an_administrator_changed_is_not_lost() {
    let logs = log(&["1/1 a", "2/1 removes 1"], &[]);
    check(&["ack 1/1 a=before", "joined", "seen 1/1 a=before"], &logs, [1, 0, 0, 0, 0, 0]);
}

/// An acknowledgement, as [`line`] has it, with a receipt that states this running hash and is changed after it was signed.
fn receipted(text: &str, chain: u8, change: impl FnOnce(&mut Receipt)) -> LedgerLine {
    let mut line = line(text);
    let LedgerLine::Ack { room, seq, epoch, client_id, receipt, .. } = &mut line else { panic!("{text}") };
    let key = SigningKey::from_seed(&Bytes([3; 32]));
    let (author, digest, chain, key_id) = (PrincipalId(11), Bytes([1; 32]), Bytes([chain; 32]), key.id());
    let signed = Signed {
        author,
        digest,
        nonce: None,
        chain,
        key: key_id,
        index: 0,
        size: 1,
        path: Vec::new(),
        signature: Bytes([0; 64]),
    };
    let (room, seq, epoch, client_id) = (*room, *seq, *epoch, *client_id);
    let (pool, at_us, durable) = ("north".to_owned(), 0, Durable::Mirror);
    let mut made = Receipt { pool, room, seq, epoch, at_us, client_id, durable, signed };
    let tree = Tree::over(vec![made.statement().leaf()]).unwrap();
    made.signed.signature = key.sign(&signed_root(1, &tree.root()));
    change(&mut made);
    *receipt = Some(Box::new(made));
    line
}

/// Expect `receipts receipts-rewound unproved` and a word of the finding, if there is one.
fn check_receipt(line: LedgerLine, logs: &BTreeMap<RoomId, RoomLog>, expect: [u64; 3], word: &str) {
    let ours = Checker::trusting(vec![SigningKey::from_seed(&Bytes([3; 32])).public()]);
    let v = judge([line], logs, ours);
    assert_eq!([v.receipts, v.receipts_rewound, v.unproved], expect, "{v:#?}");
    assert_eq!(v.is_clean(), expect[2] == 0, "{v:#?}");
    assert!(v.findings.iter().all(|finding| finding.what.contains(word)), "{v:#?}");
}

#[test]
fn a_receipt_that_the_log_contradicts_or_nobody_signed_is_found() {
    let mut logs = log(&["1/1 a", "2/2 c"], &[(2, 1)]);
    let room = logs.get_mut(&ROOM).unwrap();
    room.push_chain(Bytes([1; 32]));
    room.push_chain(Bytes([2; 32]));
    check_receipt(receipted("ack 1/1 a", 1, |_| ()), &logs, [1, 0, 0], "");
    check_receipt(receipted("ack 1/1 a", 9, |_| ()), &logs, [1, 0, 1], "another running hash");
    check_receipt(receipted("ack 1/1 a", 1, |r| r.durable = Durable::Site), &logs, [1, 0, 1], "not what was signed");
    check_receipt(receipted("ack 1/1 a", 1, |r| r.signed.key.0[0] ^= 1), &logs, [1, 0, 1], "none of those");
    // What a failover took, it took with its place in the chain.
    check_receipt(receipted("ack 2/1 b", 7, |_| ()), &logs, [1, 1, 0], "");
    let at_the_other_site = |r: &mut Receipt| {
        r.durable = Durable::Site;
        let tree = Tree::over(vec![r.statement().leaf()]).unwrap();
        let key = SigningKey::from_seed(&Bytes([3; 32]));
        r.signed.signature = key.sign(&signed_root(1, &tree.root()));
    };
    check_receipt(receipted("ack 2/1 b", 7, at_the_other_site), &logs, [1, 1, 1], "durable at the other site");
    // A receipt of one post beside the acknowledgement of another.
    let LedgerLine::Ack { receipt, .. } = receipted("ack 1/1 a", 1, |_| ()) else { panic!() };
    let mut other = line("ack 2/2 c");
    if let LedgerLine::Ack { receipt: of_other, .. } = &mut other {
        *of_other = receipt;
    }
    check_receipt(other, &logs, [1, 0, 1], "another place");
}
