//! The writer is lost, comes back, or is another: nothing acknowledged is doubled or lost, nobody has to know.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::id::{Epoch, Seq};
use serde_json::json;
use std::collections::BTreeSet;
use support::World;
use support::postgres::until;
use uuid::Uuid;
use wire::chat::{ClientFrame, Cursor, ServerFrame, close};

async fn begin_epoch(world: &World, epoch: i64) {
    world.postgres.admin("mgc").await.execute("SELECT standfast.begin_epoch($1)", &[&epoch]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_wait_while_the_writer_is_down_and_are_acknowledged_when_it_is_back() {
    let mut world = World::new(1).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    ada.join(room, None).await;
    ada.post_acked(room, Uuid::now_v7(), "before").await;
    world.postgres.kill();
    ada.wait_for(|f| matches!(f, ServerFrame::Waiting { .. }).then_some(())).await;
    let id = ada.post(room, Uuid::now_v7(), "meanwhile").await;
    // Who comes now is held, and let in with everybody else.
    let mut late = world.dial(0, &tokens[0]).await;
    let frame = late.next().await;
    assert!(matches!(frame, ServerFrame::Waiting { .. }), "{frame:?}");
    world.postgres.run().await;
    ada.wait_for(|f| matches!(f, ServerFrame::Ready { epoch: Epoch(1), .. }).then_some(())).await;
    let seq = ada
        .wait_for(|f| match f {
            ServerFrame::Ack { id: i, seq, .. } if *i == id => Some(*seq),
            _ => None,
        })
        .await;
    assert_eq!(seq, Seq(2));
    late.wait_for(|f| matches!(f, ServerFrame::Welcome { .. }).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_epoch_without_loss_goes_on_where_the_old_one_ended() {
    let world = World::new(2).await;
    let tokens = world.users(&["ada", "bob"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    let mut bob = world.person(1, &tokens[1]).await;
    ada.join(room, None).await;
    bob.join(room, None).await;
    ada.post_acked(room, Uuid::now_v7(), "one").await;
    world.change(|record| record.active_servers.clear());
    ada.wait_for(|f| matches!(f, ServerFrame::Waiting { .. }).then_some(())).await;
    until("the agent hears that nobody writes", || async {
        world.reports.lock().unwrap().values().all(|r| r.writes_as.is_none() && r.record_version == 2)
    })
    .await;
    let held = ada.post(room, Uuid::now_v7(), "two").await;
    begin_epoch(&world, 2).await;
    world.change(|record| {
        record.epoch = Epoch(2);
        record.active_servers = vec!["server-1".into(), "server-2".into()];
    });
    let (seq, epoch) = ada
        .wait_for(|f| match f {
            ServerFrame::Ack { id, seq, epoch, .. } if *id == held => Some((*seq, *epoch)),
            _ => None,
        })
        .await;
    assert_eq!((seq, epoch), (Seq(2), Epoch(2)));
    assert_eq!(bob.entries(2).await, [(1, "one".to_owned()), (2, "two".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_saw_a_lost_tail_resume_and_are_told_from_where() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    ada.join(room, None).await;
    let kept = Uuid::now_v7();
    let lost = Uuid::now_v7();
    ada.post_acked(room, kept, "kept").await;
    ada.post_acked(room, lost, "lost").await;
    // What a promotion without the last entry would find.
    world.change(|record| record.active_servers.clear());
    ada.wait_for(|f| matches!(f, ServerFrame::Waiting { .. }).then_some(())).await;
    let admin = world.postgres.admin("mgc").await;
    admin.batch_execute("DELETE FROM standfast.entries WHERE seq = 2").await.unwrap();
    admin.batch_execute("UPDATE standfast.room_heads SET last_seq = 1").await.unwrap();
    begin_epoch(&world, 2).await;
    world.change(|record| {
        record.epoch = Epoch(2);
        record.active_servers = vec!["server-1".into()];
    });
    let code = loop {
        if let Err(code) = ada.next_or_close().await {
            break code;
        }
    };
    assert_eq!(code, close::RESUME);
    let mut ada = world.person(0, &tokens[0]).await;
    let joined = ada.join(room, Some(Cursor { epoch: Epoch(1), seq: Seq(2) })).await;
    assert!(matches!(joined, ServerFrame::Joined { rewound_from: Some(Seq(2)), .. }), "{joined:?}");
    assert_eq!(ada.post_acked(room, lost, "lost").await, (Seq(2), Epoch(2), false));
    assert_eq!(ada.post_acked(room, kept, "kept").await, (Seq(1), Epoch(1), true));
}

/// What was decided on access may have been lost with the old writer, and all rooms are decided on together at the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_shown_anything_of_a_new_epoch_before_their_access_was_decided_on_again() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada", "bob"]).await;
    world.category().await;
    let mut rooms = Vec::new();
    for n in 0..6 {
        rooms.push(world.room(&format!("room {n}"), "closed", &["ada", "bob"]).await);
    }
    let mut ada = world.person(0, &tokens[0]).await;
    let mut bob = world.person(0, &tokens[1]).await;
    for room in &rooms {
        ada.join(*room, None).await;
        bob.join(*room, None).await;
    }
    world.change(|record| record.active_servers.clear());
    bob.wait_for(|f| matches!(f, ServerFrame::Waiting { .. }).then_some(())).await;
    let admin = world.postgres.admin("mgc").await;
    let left: Vec<_> = rooms.iter().copied().step_by(2).collect();
    let ids: Vec<i64> = left.iter().map(|room| room.0).collect();
    let taken = admin
        .execute(
            "DELETE FROM standfast.room_roles WHERE room = ANY ($1)
             AND principal = (SELECT id FROM standfast.principals WHERE name = 'bob')",
            &[&ids],
        )
        .await
        .unwrap();
    assert_eq!(taken, 3);
    begin_epoch(&world, 2).await;
    world.change(|record| {
        record.epoch = Epoch(2);
        record.active_servers = vec!["server-1".into()];
    });
    // Posted at once: the first of these is what the server does first at the new writer.
    for room in &rooms {
        ada.post(*room, Uuid::now_v7(), "of the new epoch").await;
    }
    let (mut shown, mut gone) = (BTreeSet::new(), BTreeSet::new());
    while shown.len() + gone.len() < rooms.len() {
        match bob.next().await {
            ServerFrame::Entry(entry) => assert!(shown.insert(entry.room)),
            ServerFrame::Left { room, .. } => assert!(gone.insert(room)),
            _ => {}
        }
    }
    assert_eq!(gone, left.into_iter().collect());
    assert!(shown.is_disjoint(&gone), "{shown:?}");
    let more = ada.post_acked(rooms[0], Uuid::now_v7(), "once more").await;
    assert_eq!((more.1, more.2), (Epoch(2), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_active_any_more_sends_its_clients_away() {
    let world = World::new(2).await;
    let tokens = world.users(&["ada"]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    world.change(|record| record.active_servers = vec!["server-2".into()]);
    let servers = ada
        .wait_for(|f| match f {
            ServerFrame::Move { servers, .. } => Some(servers.clone()),
            _ => None,
        })
        .await;
    assert_eq!(servers.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["server-2"]);
    assert_eq!(ada.next_or_close().await, Err(close::MOVED));
    let mut late = world.dial(0, &tokens[0]).await;
    assert!(matches!(late.next().await, ServerFrame::Move { .. }));
    assert_eq!(late.next_or_close().await, Err(close::MOVED));
    let (status, body) = world.call(0, "GET", "/v1/rooms", &tokens[0], None).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("not_active")));
    let (status, body) = world.call(0, "GET", "/v1/servers", "", None).await;
    assert_eq!((status, body["servers"][0]["name"].as_str()), (200, Some("server-2")));
    world.person(1, &tokens[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_posted_while_a_server_leaves_is_written_once() {
    const POSTS: u128 = 400;
    let world = World::new(2).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("leaving", "closed", &["ada"]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    for id in 1..=POSTS / 2 {
        ada.post(room, Uuid::from_u128(id), "under way").await;
    }
    world.change(|record| record.active_servers = vec!["server-2".into()]);
    // At once: a client that is told to move may be gone before it has sent them one by one.
    let late: Vec<Uuid> = (POSTS / 2 + 1..=POSTS).map(Uuid::from_u128).collect();
    ada.post_together(room, &late, "under way").await;
    let mut told = false;
    let mut acknowledged = 0;
    let code = loop {
        match ada.next_or_close().await {
            Ok(ServerFrame::Ack { .. }) => acknowledged += 1,
            Ok(ServerFrame::Move { .. }) => told = true,
            Ok(frame @ (ServerFrame::Waiting { .. } | ServerFrame::Refused { .. })) => panic!("{frame:?}"),
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    assert_eq!((told, code), (true, close::MOVED));
    let mut there = world.person(1, &tokens[0]).await;
    let mut numbers = std::collections::BTreeSet::new();
    let mut repeated = 0;
    for id in 1..=POSTS {
        let (seq, _, again) = there.post_acked(room, Uuid::from_u128(id), "under way").await;
        numbers.insert(seq.0);
        repeated += u128::from(again);
    }
    assert!(repeated >= acknowledged, "{acknowledged} were acknowledged and {repeated} were there");
    assert_eq!(numbers, (1..=i64::try_from(POSTS).unwrap()).collect(), "each is written once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_waits_for_a_database_that_is_not_at_the_records_epoch() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada"]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    world.change(|record| record.epoch = Epoch(2));
    ada.wait_for(|f| matches!(f, ServerFrame::Waiting { .. }).then_some(())).await;
    let (status, _) = world.call(0, "GET", "/v1/health", "", None).await;
    assert_eq!(status, 503);
    begin_epoch(&world, 2).await;
    ada.wait_for(|f| matches!(f, ServerFrame::Ready { epoch: Epoch(2), .. }).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_told_to_resume_and_holds_nobody_up() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada", "slow"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    let mut slow = world.person(0, &tokens[1]).await;
    slow.join(room, None).await;
    let text = "x".repeat(16_000);
    for _ in 0..2_000 {
        ada.post_acked(room, Uuid::now_v7(), &text).await;
    }
    let mut last = 0;
    let code = loop {
        match slow.next_or_close().await {
            Ok(ServerFrame::Entry(entry)) => {
                assert_eq!(entry.seq.0, last + 1);
                last = entry.seq.0;
            }
            Ok(_) => {}
            Err(code) => break code,
        }
    };
    assert!(code == close::RESUME || code == 0, "{code}");
    assert!(last < 2_000);
    let mut again = world.person(0, &tokens[1]).await;
    again.join(room, Some(Cursor { epoch: Epoch(1), seq: Seq(last) })).await;
    let rest = again.entries(2_000 - last as usize).await;
    assert_eq!(rest.last().map(|(seq, _)| *seq), Some(2_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_wait_for_the_mirror_is_never_acknowledged_as_it_stands() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    ada.join(room, None).await;
    let admin = world.postgres.admin("mgc").await;
    // A mirror that is not there: commits wait.
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("commits wait for the mirror", || async {
        let row = admin.query_one("SHOW synchronous_standby_names", &[]).await.unwrap();
        row.get::<_, &str>(0) == "nobody"
    })
    .await;
    let id = Uuid::now_v7();
    let request = ada.post(room, id, "on the principal alone").await;
    let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%standfast.append%'";
    for _ in 0..3 {
        until("the batch waits for the mirror", || async { !admin.query(waits, &[]).await.unwrap().is_empty() }).await;
        admin.batch_execute(&format!("SELECT pg_cancel_backend(pid) FROM ({waits}) w")).await.unwrap();
    }
    // Longer than the server's own comparison with the database takes to come round: it sees the entry, too.
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(1500), ada.next()).await;
    assert!(quiet.is_err(), "told although the mirror does not have it: {quiet:?}");
    // Nor does history show it.
    let path = format!("/v1/rooms/{room}/entries");
    let page = world.call(0, "GET", &path, &tokens[0], None);
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(300), page).await;
    assert!(quiet.is_err(), "shown although the mirror does not have it: {quiet:?}");
    admin.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let mut seen = (false, false);
    while seen != (true, true) {
        match ada.next().await {
            ServerFrame::Ack { id, seq: Seq(1), .. } if id == request => seen.0 = true,
            ServerFrame::Entry(entry) if entry.seq == Seq(1) => seen.1 = true,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_while_posts_flow_leaves_no_gap() {
    let world = World::new(2).await;
    let names: Vec<String> = (0..10).map(|n| format!("reader {n}")).collect();
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("writer");
    let tokens = world.users(&all).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut writer = world.person(0, &tokens[10]).await;
    let mut readers = Vec::new();
    for (n, token) in tokens[..10].iter().enumerate() {
        for _ in 0..30 {
            writer.post(room, Uuid::now_v7(), "x").await;
        }
        let mut reader = world.person(n % 2, token).await;
        let after = Some(Cursor { epoch: Epoch(1), seq: Seq(0) });
        reader.send(&ClientFrame::Join { id: 1, room, after, history: None }).await;
        readers.push(reader);
    }
    for reader in &mut readers {
        let numbers: Vec<i64> = reader.entries(300).await.into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
    }
    let (status, body) = world.call(0, "GET", "/v1/rooms", &world.admin, None).await;
    assert_eq!((status, body["rooms"][0]["last_seq"].clone()), (200, json!(300)));
}
