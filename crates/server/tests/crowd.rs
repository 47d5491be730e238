//! A crowd comes at once: everybody is let in in turn, is told what there is to wait for, and nobody is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::id::{Epoch, Seq};
use std::sync::Mutex;
use support::World;
use support::postgres::until;
use uuid::Uuid;
use wire::chat::{ClientFrame, Cursor, ServerFrame, close};

/// More than wait at one server while the other has nobody.
const CROWD: usize = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_waits_for_the_writer_is_shared_out_and_let_in_in_turn() {
    let mut world = World::new(2).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let token = world.users(&["ada"]).await.remove(0);
    let mut ada = world.person(0, &token).await;
    ada.join(room, None).await;
    ada.post_acked(room, Uuid::now_v7(), "before").await;
    let names: Vec<String> = (0..CROWD).map(|n| format!("user-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tokens = world.users(&names).await;
    world.postgres.kill();
    ada.wait_for(|f| matches!(f, ServerFrame::Waiting { since_us, .. } if *since_us > 0).then_some(())).await;
    let mut here = Vec::new();
    let mut there = Vec::new();
    for token in &tokens {
        let mut person = world.dial(0, token).await;
        match person.next().await {
            ServerFrame::Waiting { since_us, .. } => {
                assert!(since_us > 0);
                here.push(person);
            }
            ServerFrame::ComeBack { after_ms, ticket, servers, .. } => {
                assert_eq!((after_ms, servers.len(), servers[0].name.as_str()), (0, 1, "server-2"));
                assert_eq!(person.next_or_close().await.unwrap_err(), close::COME_BACK);
                let mut person = world.dial_with(1, token, Some(ticket)).await;
                let frame = person.next().await;
                assert!(matches!(frame, ServerFrame::Waiting { .. }), "it is taken there: {frame:?}");
                there.push(person);
            }
            frame => panic!("{frame:?}"),
        }
    }
    assert!(here.len() > there.len() && there.len() > 50, "{} here, {} there", here.len(), there.len());

    world.postgres.run().await;
    let mut told_of_the_turn = 0;
    for person in here.iter_mut().chain(&mut there) {
        person
            .wait_for(|f| match f {
                ServerFrame::Queued { .. } => {
                    told_of_the_turn += 1;
                    None
                }
                ServerFrame::Welcome { pool, .. } => {
                    assert_eq!(pool.site, "site-1");
                    Some(())
                }
                _ => None,
            })
            .await;
    }
    assert!(told_of_the_turn > 0, "who does not get in with the first is told of the turn");
    // All of them resume at once, from before everything, and get the same.
    let (head, _, _) = ada.post_acked(room, Uuid::now_v7(), "after").await;
    let after = Some(Cursor { epoch: Epoch(1), seq: Seq(0) });
    for (id, person) in here.iter_mut().chain(&mut there).enumerate() {
        person.send(&ClientFrame::Join { id: id as u64, room, after, history: None }).await;
    }
    for person in here.iter_mut().chain(&mut there) {
        let mut seen = Vec::new();
        person
            .wait_for(|f| match f {
                ServerFrame::Entry(entry) => {
                    seen.push(entry.seq);
                    (entry.seq == head).then_some(())
                }
                _ => None,
            })
            .await;
        assert_eq!(seen, (1..=head.0).map(Seq).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_has_whoever_comes_come_back_and_lets_the_next_one_in_when_somebody_goes() {
    // Five sessions, and some at the door.
    let mut world = World::with_open_files(1, 133).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let tokens = world.users(&["ada", "ben", "cleo", "dov", "ema", "fay"]).await;
    let mut here = Vec::new();
    for token in &tokens[..5] {
        here.push(world.person(0, token).await);
    }
    let mut ticket = None;
    for _ in 0..40 {
        let mut fay = world.dial_with(0, &tokens[5], ticket).await;
        match fay.next().await {
            ServerFrame::ComeBack { after_ms, ticket: again, servers, .. } => {
                assert!(after_ms > 0 && servers.is_empty(), "here, later: {after_ms} ms, {servers:?}");
                ticket = Some(again);
            }
            frame => panic!("there is no place: {frame:?}"),
        }
        assert_eq!(fay.next_or_close().await.unwrap_err(), close::COME_BACK);
    }
    here[0].join(room, None).await;
    here[0].post_acked(room, Uuid::now_v7(), "who is in goes on").await;

    // Connections that never say a word take what is left; the server itself goes on all the same.
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(tokio::net::TcpStream::connect(&world.addresses[0]).await.unwrap());
    }
    world.postgres.kill();
    here[0].wait_for(|f| matches!(f, ServerFrame::Waiting { since_us, .. } if *since_us > 0).then_some(())).await;
    world.postgres.run().await;
    here[0].post_acked(room, Uuid::now_v7(), "and its writer is found again").await;
    drop(silent);

    here.pop();
    let let_in = Mutex::new(None);
    until("there is a place for fay", || async {
        let mut fay = world.dial_with(0, &tokens[5], ticket.clone()).await;
        let welcome = fay.wait_for(|f| match f {
            ServerFrame::Welcome { .. } => Some(true),
            ServerFrame::ComeBack { .. } => Some(false),
            _ => None,
        });
        let welcome = welcome.await;
        *let_in.lock().unwrap() = welcome.then_some(fay);
        welcome
    })
    .await;
    let mut fay = let_in.into_inner().unwrap().unwrap();
    fay.join(room, None).await;
    fay.post_acked(room, Uuid::now_v7(), "in").await;
}
