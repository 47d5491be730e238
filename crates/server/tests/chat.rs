//! People chat: posts are acknowledged once, shown to everybody in order, and walls hold.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::id::{Epoch, Seq};
use serde_json::json;
use support::World;
use uuid::Uuid;
use wire::chat::{Cursor, RefusalCode, ServerFrame};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_on_two_servers_see_each_others_posts_in_one_order() {
    let world = World::new(2).await;
    let tokens = world.users(&["ada", "bob"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    let mut bob = world.person(1, &tokens[1]).await;
    ada.join(room, None).await;
    bob.join(room, None).await;
    for n in 0..50 {
        ada.post(room, Uuid::now_v7(), &format!("ada {n}")).await;
        bob.post(room, Uuid::now_v7(), &format!("bob {n}")).await;
    }
    let (seen_by_ada, seen_by_bob) = (ada.entries(100).await, bob.entries(100).await);
    assert_eq!(seen_by_ada, seen_by_bob);
    assert_eq!(seen_by_ada.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_is_sent_again_is_one_message_on_any_server() {
    let world = World::new(2).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let (mut here, mut there) = (world.person(0, &tokens[0]).await, world.person(1, &tokens[0]).await);
    let id = Uuid::now_v7();
    assert_eq!(here.post_acked(room, id, "once").await, (Seq(1), Epoch(1), false));
    assert_eq!(here.post_acked(room, id, "twice").await, (Seq(1), Epoch(1), true));
    assert_eq!(there.post_acked(room, id, "thrice").await, (Seq(1), Epoch(1), true));
    let path = format!("/v1/rooms/{room}/entries");
    let (status, body) =
        world.call(1, "POST", &path, &tokens[0], Some(json!({"client_id": id, "text": "again"}))).await;
    assert_eq!((status, body["seq"].as_i64(), body["repeated"].as_bool()), (200, Some(1), Some(true)));
    // At both servers at the same moment.
    for n in 2..12 {
        let id = Uuid::now_v7();
        let (one, two) = tokio::join!(here.post_acked(room, id, "both"), there.post_acked(room, id, "both"));
        assert_eq!((one.0, two.0), (Seq(n), Seq(n)));
        assert!(one.2 != two.2, "one is first, the other is told that it was there");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_resumes_after_its_cursor() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    for n in 1..=700 {
        ada.post(room, Uuid::now_v7(), &n.to_string()).await;
    }
    ada.wait_for(|f| matches!(f, ServerFrame::Ack { seq: Seq(700), .. }).then_some(())).await;
    let cursor = Cursor { epoch: Epoch(1), seq: Seq(3) };
    let joined = ada.join(room, Some(cursor)).await;
    assert!(matches!(joined, ServerFrame::Joined { rewound_from: None, .. }), "{joined:?}");
    let numbers: Vec<i64> = ada.entries(697).await.into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(numbers, (4..=700).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn walls_hold_on_every_path() {
    let world = World::new(2).await;
    let tokens = world.users(&["ada", "eve"]).await;
    world.category().await;
    let room = world.room("board", "secret", &["ada"]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    ada.join(room, None).await;
    ada.post_acked(room, Uuid::now_v7(), "secret").await;
    let mut eve = world.person(1, &tokens[1]).await;
    let refused = eve.join(room, None).await;
    assert!(matches!(refused, ServerFrame::Refused { code: RefusalCode::NotFound, .. }), "{refused:?}");
    let id = eve.post(room, Uuid::now_v7(), "let me in").await;
    let code = eve
        .wait_for(|f| match f {
            ServerFrame::Refused { id: i, code, .. } if *i == id => Some(*code),
            _ => None,
        })
        .await;
    assert_eq!(code, RefusalCode::NotFound);
    let path = format!("/v1/rooms/{room}/entries");
    for (method, path, body) in [
        ("GET", path.clone(), None),
        ("POST", path.clone(), Some(json!({"client_id": Uuid::now_v7(), "text": "x"}))),
        ("PATCH", format!("/v1/rooms/{room}"), Some(json!({"privacy": "open"}))),
    ] {
        let (status, body) = world.call(1, method, &path, &tokens[1], body).await;
        assert_eq!(status, 404, "{method} {path} {body}");
    }
    let (_, body) = world.call(1, "GET", "/v1/rooms", &tokens[1], None).await;
    assert_eq!(body["rooms"], json!([]));

    // Once a member, and then not any more: gone at once, at the other server as well.
    world.administer("PATCH", &format!("/v1/rooms/{room}"), json!({"roles": {"member": {"add": ["eve"]}}})).await;
    eve.join(room, None).await;
    assert_eq!(eve.entries(1).await, [(1, "secret".to_owned())]);
    world.administer("PATCH", &format!("/v1/rooms/{room}"), json!({"roles": {"member": {"remove": ["eve"]}}})).await;
    ada.post_acked(room, Uuid::now_v7(), "without eve").await;
    let next = eve.next().await;
    assert!(matches!(next, ServerFrame::Left { id: 0, .. }), "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_are_refused_and_then_ended() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada"]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    for bad in ["{", "[]", r#"{"type":"fly","id":7}"#, r#"{"type":"leave","id":1,"room":1,"x":2}"#] {
        ada.say(bad).await;
        let frame = ada.next().await;
        assert!(matches!(frame, ServerFrame::Refused { code: RefusalCode::BadRequest, .. }), "{bad}: {frame:?}");
    }
    for text in [String::new(), "x\0y".to_owned(), "x".repeat(16_385)] {
        let id = ada.post(rules::id::RoomId(1), Uuid::now_v7(), &text).await;
        let frame = ada.next().await;
        assert!(matches!(frame, ServerFrame::Refused { id: i, .. } if i == id), "{frame:?}");
    }
    for _ in 0..6 {
        ada.say("{").await;
    }
    let code = loop {
        if let Err(code) = ada.next_or_close().await {
            break code;
        }
    };
    assert_eq!(code, wire::chat::close::BAD_FRAME);
    let mut stranger = world.dial(0, "no such token").await;
    let frame = stranger.next().await;
    assert!(matches!(frame, ServerFrame::Refused { code: RefusalCode::NotSignedIn, .. }), "{frame:?}");
}
