//! Acknowledgements carry receipts that anybody can check, and that the rooms' logs bear out.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::chain::content_digest;
use rules::id::RoomId;
use rules::receipt::{Checker, Durable};
use serde_json::json;
use support::{Person, World};
use uuid::Uuid;
use wire::chain::ChainPage;
use wire::chat::{ClientFrame, ServerFrame};
use wire::http::Posted;
use wire::receipt::{Keys, Receipt};

const POOL: &str = "chat.example.net";

/// Post, and take the receipt out of the acknowledgement.
async fn receipt(person: &mut Person, room: RoomId, client_id: Uuid, text: &str) -> Receipt {
    let id = person.post(room, client_id, text).await;
    person.wait_for(|frame| receipt_of(frame, id)).await
}

fn receipt_of(frame: &ServerFrame, request: u64) -> Option<Receipt> {
    let ServerFrame::Ack { id, room, client_id, seq, epoch, at_us, repeated: _, durable, less_than: _, receipt } =
        frame
    else {
        return None;
    };
    let signed = receipt.as_deref().cloned().filter(|_| *id == request)?;
    let (room, seq, epoch, at_us, client_id) = (*room, *seq, *epoch, *at_us, *client_id);
    Some(Receipt { pool: POOL.to_owned(), room, seq, epoch, at_us, client_id, durable: *durable, signed })
}

async fn checker(world: &World, server: usize) -> Checker {
    let (status, keys) = world.call(server, "GET", "/v1/keys", "", None).await;
    assert_eq!(status, 200);
    let keys: Keys = serde_json::from_value(keys).unwrap();
    assert_eq!(keys.pool, POOL);
    Checker::trusting(keys.keys.into_iter().map(|key| key.public).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_gives_receipts_that_the_log_bears_out() {
    let world = World::new(2).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    // The second server's posts are written by the first.
    let (mut here, mut there) = (world.person(0, &tokens[0]).await, world.person(1, &tokens[0]).await);
    let ids: Vec<Uuid> = (0..40).map(|_| Uuid::now_v7()).collect();
    let mut receipts = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let person = if n % 2 == 0 { &mut here } else { &mut there };
        receipts.push((n, receipt(person, room, *id, &format!("post {n}")).await));
    }
    // A post that is sent again gets a receipt of the same entry, signed anew.
    let again = receipt(&mut there, room, ids[3], "something else").await;
    assert_eq!(again.statement(), receipts[3].1.statement());
    receipts.push((3, again));
    let path = format!("/v1/rooms/{room}/entries");
    let body = json!({"client_id": ids[4], "text": "over HTTP"});
    let (status, posted) = world.call(1, "POST", &path, &tokens[0], Some(body)).await;
    assert_eq!(status, 200, "{posted}");
    let posted: Posted = serde_json::from_value(posted).unwrap();
    assert_eq!((posted.repeated, posted.durable), (true, Durable::Disk));
    receipts.push((4, posted.receipt.unwrap()));

    let (_, page) = world.call(0, "GET", &format!("/v1/rooms/{room}/chain"), &world.admin, None).await;
    let page: ChainPage = serde_json::from_value(page).unwrap();
    let mut checkers = [checker(&world, 0).await, checker(&world, 1).await];
    for (n, receipt) in receipts {
        for checker in &mut checkers {
            assert_eq!(checker.check(&receipt.statement(), &receipt.proof()), Ok(()), "{receipt:?}");
        }
        let entry = &page.entries[n];
        assert_eq!((entry.seq, entry.client_id), (receipt.seq, Some(receipt.client_id)));
        assert_eq!(
            (entry.chain, entry.digest, entry.author),
            (receipt.signed.chain, receipt.signed.digest, receipt.signed.author)
        );
        // With the nonce the author proves the text.
        let text = format!("post {n}");
        assert_eq!(content_digest(receipt.signed.nonce.map(|nonce| (nonce, text.as_str()))), receipt.signed.digest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_that_are_answered_together_are_signed_together() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    let ids: Vec<Uuid> = (0..200).map(|_| Uuid::now_v7()).collect();
    ada.post_together(room, &ids, "together").await;
    let mut checker = checker(&world, 0).await;
    let (mut signatures, mut seen) = (std::collections::HashSet::new(), 0);
    while seen < ids.len() {
        let frame = ada.next().await;
        let ServerFrame::Ack { id, .. } = frame else { continue };
        let receipt = receipt_of(&frame, id).unwrap();
        assert_eq!(checker.check(&receipt.statement(), &receipt.proof()), Ok(()), "{receipt:?}");
        signatures.insert(receipt.signed.signature);
        seen += 1;
    }
    assert!(signatures.len() < ids.len() / 2, "{} signatures for {} posts", signatures.len(), ids.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_no_receipts_gets_none() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada =
        world.dial_saying(0, &ClientFrame::Hello { token: tokens[0].clone(), ticket: None, receipts: false }).await;
    let id = ada.post(room, Uuid::now_v7(), "plain").await;
    let plain = |frame: &ServerFrame| match frame {
        ServerFrame::Ack { id: i, durable, receipt, .. } if *i == id => Some((*durable, receipt.is_none())),
        _ => None,
    };
    assert_eq!(ada.wait_for(plain).await, (Durable::Disk, true));
}
