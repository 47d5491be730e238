//! A lost site's disks have returned: what it had acknowledged comes late, once, to everybody, and people are told.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::id::{Epoch, RoomId, Seq};
use serde_json::json;
use support::postgres::until;
use support::{Person, World};
use uuid::Uuid;
use wire::chat::{Cursor, Entry, ServerFrame, TailReturned};

/// A post of a tail: author, number in epoch 1, client message id, text.
struct Lost<'a> {
    author: &'a str,
    room: RoomId,
    seq: i64,
    client_id: Uuid,
    text: String,
}

/// Enter a tail, as an agent does: in one transaction.
async fn tail_comes(world: &World, tail: &str, posts: &[Lost<'_>]) {
    let mut admin = world.postgres.admin("mgc").await;
    let tx = admin.transaction().await.unwrap();
    tx.execute(
        "INSERT INTO standfast.tails (id, database, host, left_by, old_epoch, fork, extracted_at, posts, changes)
         VALUES ($1, 'mgc', 's1a', 2, 1, '0/1', now(), $2, 0)",
        &[&tail, &(posts.len() as i64)],
    )
    .await
    .unwrap();
    for (n, post) in (1_i64..).zip(posts) {
        tx.execute(
            "INSERT INTO standfast.tail_entries (tail, n, room, room_name, seq, epoch, author, author_name, at_us,
                 client_id, kind, body)
             VALUES ($1, $2, $3, 'as it was', $4, 1, coalesce((SELECT id FROM standfast.principals WHERE name = $5), 0),
                     $5, 1000000, $6, 0, $7)",
            &[&tail, &n, &post.room.0, &post.seq, &post.author, &post.client_id, &post.text],
        )
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

fn lost<'a>(author: &'a str, room: RoomId, seq: i64, text: &str) -> Lost<'a> {
    Lost { author, room, seq, client_id: Uuid::now_v7(), text: text.to_owned() }
}

async fn dealt_with(world: &World, tail: &str) {
    let admin = world.postgres.admin("mgc").await;
    let asked = "SELECT re_entered_at IS NOT NULL FROM standfast.tails WHERE id = $1";
    until("the tail has been dealt with", || async {
        admin.query_one(asked, &[&tail]).await.is_ok_and(|row| row.get::<_, bool>(0))
    })
    .await;
}

/// The next so many late arrivals of a person.
async fn entries(person: &mut Person, count: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    while entries.len() < count {
        match person.next().await {
            ServerFrame::Entry(entry) if entry.late.is_some() => entries.push(entry),
            _ => {}
        }
    }
    entries
}

async fn told(person: &mut Person) -> TailReturned {
    person
        .wait_for(|frame| match frame {
            ServerFrame::TailReturned(told) => Some(told.clone()),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_site_had_acknowledged_comes_late_to_everybody_and_people_are_told() {
    let world = World::new(2).await;
    let tokens = world.users(&["ada", "bob", "eve"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let closed = world.room("shut", "open", &[]).await;
    world.administer("PATCH", &format!("/v1/rooms/{closed}"), json!({"disabled": true})).await;
    let mut ada = world.person(0, &tokens[0]).await;
    let mut bob = world.person(1, &tokens[1]).await;
    ada.join(room, None).await;
    bob.join(room, None).await;
    // Ada's client was there for the failover, and has offered one of them again.
    let mut tail: Vec<Lost<'_>> =
        [("ada", 3, "one"), ("eve", 4, "two"), ("ada", 5, "three")].map(|(a, n, t)| lost(a, room, n, t)).into();
    tail.push(lost("ada", closed, 1, "four"));
    ada.post_acked(room, tail[2].client_id, "three").await;
    bob.post_acked(room, Uuid::now_v7(), "new").await;
    tail_comes(&world, "mgc-2-s1a", &tail).await;

    let seen = entries(&mut bob, 2).await;
    let short: Vec<_> =
        seen.iter().map(|e| (e.seq.0, &*e.author, support::text_of(e), e.late.map(|l| l.seq.0))).collect();
    assert_eq!(short, [(3, "ada", "one".to_owned(), Some(3)), (4, "eve", "two".to_owned(), Some(4)),]);
    let late = seen[0].late.unwrap();
    assert_eq!((late.epoch, late.at_us), (Epoch(1), 1_000_000));
    assert!(seen[0].at_us > 1_000_000);

    let own = told(&mut ada).await;
    assert_eq!((own.host.as_str(), own.entered, own.there, own.refused), ("s1a", 1, 1, 1));
    assert_eq!((own.reasons[0].room, own.reasons[0].reason.as_str()), (closed, "the room is disabled"));
    assert!(own.rooms.is_empty(), "she manages none");
    // Who was away is told after the next sign-in, at whichever server, and not again after that.
    let mut eve = world.person(1, &tokens[2]).await;
    assert_eq!(told(&mut eve).await.entered, 1);
    let mut manager = world.person(0, &world.admin).await;
    let rooms = told(&mut manager).await.rooms;
    assert_eq!(
        rooms.iter().map(|r| (r.room, r.entered, r.refused)).collect::<Vec<_>>(),
        [(room, 2, 0), (closed, 0, 1)]
    );
    let admin = world.postgres.admin("mgc").await;
    until("everybody has been told", || async {
        let open = "SELECT count(*) FROM standfast.tail_notices WHERE told_at IS NULL";
        admin.query_one(open, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) == 0)
    })
    .await;
    // History has the same, and the refused one is in none.
    let (_, page) = world.call(0, "GET", &format!("/v1/rooms/{room}/entries"), &tokens[0], None).await;
    assert_eq!(page["entries"][2]["late"], json!({"epoch": 1, "seq": 3, "at_us": 1_000_000}));
    let (_, page) = world.call(0, "GET", &format!("/v1/rooms/{closed}/entries"), &world.admin, None).await;
    assert_eq!(page["entries"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn walls_that_were_raised_in_between_are_respected() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada", "bob"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let (_, categories) = world.call(0, "GET", "/v1/categories", &world.admin, None).await;
    let path = format!("/v1/categories/{}", categories[0]["id"]);
    world.administer("PATCH", &path, json!({"denied_members": {"add": ["bob"]}})).await;
    let mut posts = vec![lost("ada", room, 1, "mine"), lost("bob", room, 2, "walled off")];
    posts.push(lost("nobody", room, 3, "of an account that is not there"));
    posts.push(lost("ada", RoomId(999), 1, "in a room that is not there"));
    tail_comes(&world, "mgc-2-s1a", &posts).await;
    let mut ada = world.person(0, &tokens[0]).await;
    let own = told(&mut ada).await;
    assert_eq!((own.entered, own.refused), (1, 1));
    let mut bob = world.person(0, &tokens[1]).await;
    let walled = told(&mut bob).await;
    assert_eq!(walled.reasons[0].reason, "the category's allowed and denied members keep its author out");
    let (_, page) = world.call(0, "GET", &format!("/v1/rooms/{room}/entries"), &world.admin, None).await;
    let texts: Vec<&str> = page["entries"].as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["mine"]);
    let admin = world.postgres.admin("mgc").await;
    let kept = "SELECT reason FROM standfast.tail_entries WHERE outcome = 'refused' ORDER BY n";
    let kept: Vec<String> = admin.query(kept, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(kept[1..], ["the author's account is not there", "the room is not there"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_is_entered_once_although_the_writer_is_killed_in_the_middle() {
    let mut world = World::new(2).await;
    let tokens = world.users(&["ada", "bob"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let posts: Vec<Lost<'_>> = (1..=1500).map(|n| lost("ada", room, n, &format!("late {n}"))).collect();
    let mut bob = world.person(0, &tokens[1]).await;
    bob.join(room, None).await;
    tail_comes(&world, "mgc-2-s1a", &posts).await;
    let dealt = "SELECT count(*) FROM standfast.tail_entries WHERE outcome IS NOT NULL";
    for least in [100_i64, 500] {
        let admin = world.postgres.admin("mgc").await;
        until("some of it has been entered", || async {
            admin.query_one(dealt, &[]).await.unwrap().get::<_, i64>(0) >= least
        })
        .await;
        world.postgres.kill();
        world.postgres.run().await;
    }
    dealt_with(&world, "mgc-2-s1a").await;
    let seen = entries(&mut bob, 1500).await;
    let firsts: Vec<i64> = seen.iter().map(|e| e.late.unwrap().seq.0).collect();
    assert_eq!(firsts, (1..=1500).collect::<Vec<_>>());
    assert_eq!(seen.iter().map(|e| e.seq.0).collect::<Vec<_>>(), firsts);
    world.healthy(0).await;
    let (_, body) = world.call(0, "GET", "/v1/rooms", &world.admin, None).await;
    assert_eq!(body["rooms"][0]["last_seq"], json!(1500));
    let mut ada = world.person(1, &tokens[0]).await;
    assert_eq!(told(&mut ada).await.entered, 1500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_offers_again_and_one_that_was_away_end_with_one_post_each() {
    let world = World::new(1).await;
    let tokens = world.users(&["ada", "bob"]).await;
    world.category().await;
    let room = world.room("tea", "open", &[]).await;
    let mut ada = world.person(0, &tokens[0]).await;
    ada.join(room, None).await;
    for n in 0..3 {
        ada.post_acked(room, Uuid::now_v7(), &format!("kept {n}")).await;
    }
    // A site was lost that had acknowledged ada's 4 and bob's 5.
    let posts = [lost("ada", room, 4, "ada's"), lost("bob", room, 5, "bob's")];
    world.change(|record| record.active_servers.clear());
    ada.wait_for(|f| matches!(f, ServerFrame::Waiting { .. }).then_some(())).await;
    world.postgres.admin("mgc").await.execute("SELECT standfast.begin_epoch(2)", &[]).await.unwrap();
    world.change(|record| {
        record.epoch = Epoch(2);
        record.active_servers = vec!["server-1".into()];
    });
    ada.wait_for(|f| matches!(f, ServerFrame::Ready { epoch: Epoch(2), .. }).then_some(())).await;
    // Ada was told of the epoch, and offers hers; bob is away until his has come late.
    let (seq, ..) = ada.post_acked(room, posts[0].client_id, "ada's").await;
    assert_eq!(seq, Seq(4));
    tail_comes(&world, "mgc-2-s1a", &posts).await;
    dealt_with(&world, "mgc-2-s1a").await;
    let mut bob = world.person(0, &tokens[1]).await;
    let joined = bob.join(room, Some(Cursor { epoch: Epoch(1), seq: Seq(5) })).await;
    assert!(matches!(joined, ServerFrame::Joined { rewound_from: Some(Seq(4)), .. }), "{joined:?}");
    let (seq, epoch, repeated) = bob.post_acked(room, posts[1].client_id, "bob's").await;
    assert_eq!((seq, epoch, repeated), (Seq(5), Epoch(2), true));
    let (_, page) = world.call(0, "GET", &format!("/v1/rooms/{room}/entries"), &tokens[0], None).await;
    let texts: Vec<&str> = page["entries"].as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["kept 0", "kept 1", "kept 2", "ada's", "bob's"]);
}
