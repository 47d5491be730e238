//! Whatever is changed in a log, the first entry that it was changed in is named.

use super::*;
use crate::chain::Bytes;
use proptest::prelude::*;

const ROOM: RoomId = RoomId(5);

/// A log in which number 4 removes 2, and 5 replaces the text of 3.
fn log() -> Vec<Logged> {
    let mut before = chain_start(ROOM);
    let mut log: Vec<Logged> = (1..=9)
        .map(|n| {
            let (kind, target, text) = match n {
                4 => (REMOVAL, Some(Seq(2)), None),
                5 => (REPLACEMENT, Some(Seq(3)), Some("better".to_owned())),
                _ => (0, None, Some(format!("text {n}"))),
            };
            let nonce = text.is_some().then_some(Bytes([n as u8; 16]));
            let first = (n == 8).then_some(First { epoch: Epoch(1), seq: Seq(7), at_us: 3 });
            let mut entry = Logged {
                seq: Seq(n),
                epoch: Epoch(1 + n / 4),
                author: PrincipalId(10 + n % 3),
                at_us: 1_000 + 17 * n * n,
                kind,
                target,
                client_id: Some([n as u8; 16]),
                first,
                content: content_digest(nonce.zip(text.as_deref())),
                text,
                nonce,
                chain: before,
            };
            entry.chain = chain_at(ROOM, &before, &entry);
            before = entry.chain;
            entry
        })
        .collect();
    (log[1].text, log[1].nonce) = (None, None);
    (log[2].text, log[2].nonce) = (Some("better".to_owned()), None);
    log
}

fn verify(log: &[Logged], last: i64, chain: Hash) -> Result<(), Fault> {
    let mut verifier = Verifier::new(ROOM);
    for entry in log {
        verifier.entry(entry.clone())?;
    }
    verifier.head(Seq(last), Some(chain))
}

/// What is said of the log after a change, if its head stays what it was.
fn check(change: impl FnOnce(&mut Vec<Logged>), expect: Option<(i64, Differs)>) {
    let mut log = log();
    let (last, chain) = (log.len() as i64, log[log.len() - 1].chain);
    change(&mut log);
    let expect = expect.map(|(seq, differs)| Fault { room: ROOM, seq: Seq(seq), differs });
    assert_eq!(verify(&log, last, chain).err(), expect);
}

#[test]
fn a_log_as_it_was_written_fits_with_its_removals() {
    check(|_| {}, None);
    assert_eq!(Verifier::new(ROOM).head(Seq::START, None), Ok(()));
}

#[test]
fn what_was_changed_is_named() {
    check(|log| log[5].text = Some("another".to_owned()), Some((6, Differs::Text)));
    check(|log| log[5].nonce = Some(Bytes([0; 16])), Some((6, Differs::Text)));
    check(|log| log[5].content = Bytes([0; 32]), Some((6, Differs::Digest)));
    check(|log| log[5].author = PrincipalId(77), Some((6, Differs::Author { was: PrincipalId(10) })));
    check(|log| log[8].author = PrincipalId(77), Some((9, Differs::Author { was: PrincipalId(10) })));
    check(|log| log[5].epoch = Epoch(3), Some((6, Differs::Epoch { was: Epoch(2) })));
    check(|log| log[5].kind = 3, Some((6, Differs::Kind { was: 0 })));
    check(|log| log[3].target = Some(Seq(1)), Some((4, Differs::Target { was: Some(Seq(2)) })));
    check(|log| log[5].at_us += 1, Some((6, Differs::TimeOrClientId)));
    check(|log| log[8].at_us += 1, Some((9, Differs::TimeOrClientId)));
    check(|log| log[5].client_id = None, Some((6, Differs::TimeOrClientId)));
    check(|log| log[7].first = None, Some((8, Differs::TimeOrClientId)));
    check(|log| log[5].chain = Bytes([0; 32]), Some((6, Differs::Chain)));
    check(|log| log[8].chain = Bytes([0; 32]), Some((9, Differs::Chain)));
}

#[test]
fn a_text_that_went_without_a_removal_is_named() {
    check(|log| (log[5].text, log[5].nonce) = (None, None), Some((6, Differs::TextWithoutReason)));
    check(|log| (log[5].text, log[5].nonce) = (Some("mine".to_owned()), None), Some((6, Differs::TextWithoutReason)));
    check(|log| log[1].text = Some("back".to_owned()), Some((2, Differs::TextWithoutReason)));
    check(|log| log[2].text = Some("other".to_owned()), Some((3, Differs::TextWithoutReason)));
}

#[test]
fn entries_that_are_missing_swapped_or_put_in_are_named() {
    check(|log| drop(log.remove(4)), Some((5, Differs::Missing)));
    check(|log| log.truncate(7), Some((8, Differs::Missing)));
    check(
        |log| {
            let body = (log[5].text.clone(), log[5].nonce, log[5].content);
            (log[5].text, log[5].nonce, log[5].content) = (log[6].text.clone(), log[6].nonce, log[6].content);
            (log[6].text, log[6].nonce, log[6].content) = body;
        },
        Some((6, Differs::Entry)),
    );
    check(
        |log| {
            log.swap(5, 6);
            (log[5].seq, log[6].seq) = (Seq(6), Seq(7));
        },
        Some((6, Differs::Entry)),
    );
    let mut longer = log();
    let chain = longer[8].chain;
    let mut put_in = Logged { seq: Seq(10), ..longer[0].clone() };
    put_in.chain = chain_at(ROOM, &chain, &put_in);
    longer.push(put_in);
    let fault = verify(&longer, 9, chain).unwrap_err();
    assert_eq!((fault.seq, fault.differs), (Seq(10), Differs::BeyondHead));
}

proptest! {
    /// One field of one entry is changed: that entry is named, whatever the field.
    #[test]
    fn any_single_change_is_found_where_it_is(at in 0_usize..9, field in 0..10, by in 1_i64..1_000_000) {
        let mut log = log();
        let (chain, entry) = (log[8].chain, &mut log[at]);
        match field {
            0 => entry.epoch.0 += by,
            1 => entry.author.0 += by,
            2 => entry.at_us += by,
            3 => entry.kind += by.min(100) as i16,
            4 => entry.target = Some(Seq(entry.target.map_or(0, |target| target.0) + by)),
            5 => entry.client_id = None,
            6 => entry.first = Some(First { epoch: Epoch(by), seq: Seq(by), at_us: by }),
            7 => entry.text = Some(by.to_string()),
            8 => entry.content.0[by as usize % 32] ^= 1,
            _ => entry.chain.0[by as usize % 32] ^= 1,
        }
        let fault = verify(&log, 9, chain).unwrap_err();
        prop_assert_eq!(fault.seq, Seq(at as i64 + 1), "{}", fault);
    }
}
