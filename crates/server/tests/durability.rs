//! Posts wait to be as durable as their category asks for: beside everybody else's, in order, seen by nobody, and whoever
//! posts them again waits as well.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use cluster::record::MirrorRecord;
use rules::durability::Durability;
use rules::id::{Epoch, RoomId, Seq};
use rules::receipt::Durable;
use serde_json::json;
use support::postgres::{Receiver, until};
use support::{Person, World};
use uuid::Uuid;
use wire::chat::{Cursor, ServerFrame};
use wire::http::Page;

/// An acknowledgement, as far as this is about it.
type Acked = (Seq, Epoch, bool, Durable, Option<Durability>);

fn ack_of(frame: &ServerFrame, request: u64) -> Option<Acked> {
    match frame {
        ServerFrame::Ack { id, seq, epoch, repeated, durable, less_than, .. } if *id == request => {
            Some((*seq, *epoch, *repeated, *durable, *less_than))
        }
        ServerFrame::Refused { id, message, .. } if *id == request => panic!("{message}"),
        _ => None,
    }
}

async fn acked(person: &mut Person, request: u64) -> Acked {
    person.wait_for(|frame| ack_of(frame, request)).await
}

/// Wait until a post is said to wait; why.
async fn waits(person: &mut Person, request: u64) -> String {
    person
        .wait_for(|frame| {
            assert_eq!(ack_of(frame, request), None, "it was acknowledged");
            match frame {
                ServerFrame::PostWaits { id, reason, .. } if *id == request => Some(reason.clone()),
                _ => None,
            }
        })
        .await
}

/// Post, and wait until the post is said to wait.
async fn post_and_wait(person: &mut Person, room: RoomId, id: Uuid, text: &str) -> u64 {
    let request = person.post(room, id, text).await;
    waits(person, request).await;
    request
}

async fn world(rule: (&str, &str)) -> (World, Vec<String>, RoomId, RoomId) {
    let world = World::new(2).await;
    let admin = world.postgres.admin("mgc").await;
    admin.batch_execute("GRANT pg_read_all_stats TO standfast_chat").await.unwrap();
    let tokens = world.users(&["ada", "bob"]).await;
    world.category().await;
    let body = json!({
        "name": "Board", "allowed_members": ["Everyone"], "creators": ["Everyone"], "durability": rule.0,
        "when_unavailable": rule.1,
    });
    let made = world.administer("POST", "/v1/categories", body).await;
    assert_eq!((made["durability"].as_str(), made["when_unavailable"].as_str()), (Some(rule.0), Some(rule.1)));
    let tea = world.room("tea", "open", &[]).await;
    let board = world.room_in("Board", "minutes", "open", &[]).await;
    (world, tokens, board, tea)
}

async fn page(world: &World, server: usize, room: RoomId) -> (usize, i64) {
    let (status, page) = world.call(server, "GET", &format!("/v1/rooms/{room}/entries"), &world.admin, None).await;
    assert_eq!(status, 200, "{page}");
    let page: Page = serde_json::from_value(page).unwrap();
    (page.entries.len(), page.last_seq.0)
}

fn has_backup(world: &World) {
    world.change(|record| record.databases.get_mut(&"mgc".into()).unwrap().backup = Some("s2a".into()));
}

fn has_mirror(world: &World, synchronised: bool) {
    let mirror = Some(MirrorRecord { host: "s1b".into(), synchronised });
    world.change(|record| record.databases.get_mut(&"mgc".into()).unwrap().mirror = mirror);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_wait_for_the_other_site_while_other_rooms_go_on() {
    let (world, tokens, board, tea) = world(("both_sites", "wait")).await;
    has_backup(&world);
    let mut ada = world.person(0, &tokens[0]).await;
    let mut bob = world.person(1, &tokens[1]).await;
    for person in [&mut ada, &mut bob] {
        person.join(board, None).await;
        person.join(tea, None).await;
    }
    // Reads only.
    let mut eve = world.person(1, &tokens[1]).await;
    eve.join(board, None).await;
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let first = ada.post(board, ids[0], "one").await;
    assert_eq!(waits(&mut ada, first).await, "waiting for site-2");
    // Between posts at two servers there is no order, so each is written before the next one is sent.
    let second = post_and_wait(&mut ada, board, ids[1], "two").await;
    // Through the second server, which the first one writes for.
    let third = post_and_wait(&mut bob, board, ids[2], "three").await;
    // Another room is not held up, whoever posts.
    assert_eq!(ada.post_acked(tea, Uuid::now_v7(), "tea?").await.0, Seq(1));
    assert_eq!(bob.post_acked(tea, Uuid::now_v7(), "tea!").await.0, Seq(2));
    // Whoever posts it again, at another server too, waits as well, and nobody is shown anything.
    let mut again = world.person(1, &tokens[0]).await;
    let repeated = post_and_wait(&mut again, board, ids[0], "something else").await;
    assert_eq!((page(&world, 0, board).await, page(&world, 1, board).await), ((0, 0), (0, 0)));
    let joined = again.join(board, None).await;
    assert!(matches!(joined, ServerFrame::Joined { head, .. } if head.seq == Seq(0)), "{joined:?}");
    until("the agent hears what waits", || async {
        let reports = world.reports.lock().unwrap();
        reports.values().map(|r| r.held.both_sites).sum::<u64>() == 4
            && reports.values().all(|r| r.held.oldest_ms > 0 && r.held.reason == "waiting for site-2")
    })
    .await;

    let receiver: Receiver = world.postgres.receiver("s2a");
    for (person, request, seq, is_again) in [(&mut bob, third, 3, false), (&mut again, repeated, 1, true)] {
        let got = acked(person, request).await;
        assert_eq!(got, (Seq(seq), Epoch(1), is_again, Durable::Site, None));
    }
    for (request, seq) in [(first, 1), (second, 2)] {
        assert_eq!(acked(&mut ada, request).await, (Seq(seq), Epoch(1), false, Durable::Site, None));
    }
    let all = [(1, "one".to_owned()), (2, "two".to_owned()), (3, "three".to_owned())];
    assert_eq!(eve.entries(3).await, all);
    until("both servers show the log", || async {
        page(&world, 0, board).await == (3, 3) && page(&world, 1, board).await == (3, 3)
    })
    .await;
    // With the other site there nobody has to wait long.
    let fourth = bob.post(board, ids[3], "four").await;
    assert_eq!(acked(&mut bob, fourth).await.3, Durable::Site);

    // The line is cut: what was shown stays, what is new waits, until the category says otherwise.
    drop(receiver);
    let fifth = ada.post(board, Uuid::now_v7(), "five").await;
    waits(&mut ada, fifth).await;
    assert_eq!((page(&world, 0, board).await, page(&world, 1, board).await), ((4, 4), (4, 4)));
    let categories = world.call(0, "GET", "/v1/categories", &world.admin, None).await.1;
    let id = categories.as_array().unwrap().iter().find(|c| c["name"] == "Board").unwrap()["id"].clone();
    let change = json!({"when_unavailable": "acknowledge_as_less"});
    let changed = world.administer("PATCH", &format!("/v1/categories/{id}"), change).await;
    assert_eq!(changed["durability"], "both_sites");
    let less = Some(Durability::BothSites);
    assert_eq!(acked(&mut ada, fifth).await, (Seq(5), Epoch(1), false, Durable::Disk, less));
    assert_eq!(eve.entries(2).await, [(4, "four".to_owned()), (5, "five".to_owned())]);
    let sixth = bob.post(board, Uuid::now_v7(), "six").await;
    assert_eq!(acked(&mut bob, sixth).await, (Seq(6), Epoch(1), false, Durable::Disk, less));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_wait_for_a_mirror_that_is_lost() {
    let (world, tokens, board, _) = world(("mirror", "wait")).await;
    has_mirror(&world, false);
    let _mirror = world.postgres.receiver("s1b");
    let mut ada = world.person(0, &tokens[0]).await;
    ada.join(board, None).await;
    let request = ada.post(board, Uuid::now_v7(), "one").await;
    assert_eq!(waits(&mut ada, request).await, "waiting for the mirror: it is not synchronised");
    has_mirror(&world, true);
    assert_eq!(acked(&mut ada, request).await, (Seq(1), Epoch(1), false, Durable::Mirror, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_would_wait_for_too_long_is_told_so() {
    let (world, tokens, board, _) = world(("both_sites", "wait")).await;
    let path = format!("/v1/rooms/{board}/entries");
    let body = json!({"client_id": Uuid::now_v7(), "text": "over HTTP"});
    let (status, answer) = world.call(0, "POST", &path, &tokens[0], Some(body.clone())).await;
    assert_eq!((status, answer["code"].as_str()), (503, Some("unavailable")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("waiting for a second site"), "{answer}");
    has_backup(&world);
    let _backup = world.postgres.receiver("s2a");
    let (status, answer) = world.call(1, "POST", &path, &tokens[0], Some(body)).await;
    assert_eq!((status, answer["seq"].as_i64(), answer["repeated"].as_bool()), (200, Some(1), Some(true)), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_writer_does_not_acknowledge_what_waited_at_the_old_one_too_early() {
    let (world, tokens, board, _) = world(("both_sites", "wait")).await;
    let mut ada = world.person(0, &tokens[0]).await;
    let mut bob = world.person(1, &tokens[1]).await;
    let id = Uuid::now_v7();
    let request = post_and_wait(&mut ada, board, id, "one").await;
    let other = post_and_wait(&mut bob, board, Uuid::now_v7(), "two").await;
    let begin = async |epoch: i64| {
        world.change(|record| record.active_servers.clear());
        until("nobody writes", || async { world.reports.lock().unwrap().values().all(|r| r.writes_as.is_none()) })
            .await;
        let admin = world.postgres.admin("mgc").await;
        admin.execute("SELECT standfast.begin_epoch($1)", &[&epoch]).await.unwrap();
        world.change(|record| {
            record.epoch = Epoch(epoch);
            record.active_servers = vec!["server-1".into(), "server-2".into()];
        });
    };
    // Another writer at this site: nothing has come to the other one by that.
    begin(3).await;
    assert_eq!(page(&world, 0, board).await, (0, 0));
    let mut again = world.person(0, &tokens[0]).await;
    let repeated = post_and_wait(&mut again, board, id, "one").await;
    // A writer at the other site: what it has, two sites have had.
    begin(4).await;
    let got = acked(&mut ada, request).await;
    assert_eq!(got, (Seq(1), Epoch(1), true, Durable::Site, None));
    assert_eq!(acked(&mut again, repeated).await.0, Seq(1));
    assert_eq!(acked(&mut bob, other).await.0, Seq(2));
    assert_eq!(page(&world, 1, board).await, (2, 2));
    let new = post_and_wait(&mut ada, board, Uuid::now_v7(), "three").await;
    has_backup(&world);
    let _backup = world.postgres.receiver("s2a");
    assert_eq!(acked(&mut ada, new).await, (Seq(3), Epoch(4), false, Durable::Site, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_is_no_setting_is_refused() {
    let world = World::new(1).await;
    world.category().await;
    let call = async |body| world.call(0, "POST", "/v1/categories", &world.admin, Some(body)).await;
    let (status, answer) = call(json!({"name": "Board", "durability": "disks"})).await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = call(json!({"name": "Board", "when_unavailable": "never"})).await;
    assert_eq!(status, 400, "{answer}");
    let (status, answer) = call(json!({"name": "Board", "durability": "disk", "when_unavailable": "wait"})).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("no post waits for it"), "{answer}");
    let (status, made) = call(json!({"name": "Board", "durability": "disk"})).await;
    assert_eq!((status, made["when_unavailable"].as_str()), (201, Some("acknowledge_as_less")), "{made}");
    let path = format!("/v1/categories/{}", made["id"]);
    let (status, answer) = world.call(0, "PATCH", &path, &world.admin, Some(json!({"when_unavailable": "wait"}))).await;
    assert_eq!(status, 400, "{answer}");
}

/// How many backends wait for this, as PostgreSQL says.
async fn backends(sql: &tokio_postgres::Client, waiting: &str) -> i64 {
    let asked = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = 'mgc' AND {waiting}");
    sql.query_one(&asked, &[]).await.unwrap().get(0)
}

/// Every commit waits for the mirror, which follows.
async fn pair(world: &World) -> (Receiver, tokio_postgres::Client) {
    let sql = world.postgres.admin("mgc").await;
    let mirror = world.postgres.receiver("s1b");
    sql.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 's1b'").await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("the mirror is synchronous", || async {
        let asked = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        sql.query_one(asked, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    has_mirror(world, true);
    (mirror, sql)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_ask_for_the_disk_alone_go_on_while_the_mirror_stands_still() {
    let (world, tokens, board, tea) = world(("disk", "acknowledge_as_less")).await;
    let (mirror, sql) = pair(&world).await;
    let mut ada = world.person(0, &tokens[0]).await;
    let mut bob = world.person(1, &tokens[1]).await;
    for person in [&mut ada, &mut bob] {
        person.join(board, None).await;
        person.join(tea, None).await;
    }
    let post = async |person: &mut Person, room, text: &str| person.post(room, Uuid::now_v7(), text).await;
    let said = post(&mut ada, tea, "tea 1").await;
    assert_eq!(acked(&mut ada, said).await, (Seq(1), Epoch(1), false, Durable::Mirror, None));
    let said = post(&mut bob, board, "board 1").await;
    assert_eq!(acked(&mut bob, said).await, (Seq(1), Epoch(1), false, Durable::Disk, None));

    // Reads only, at the second server.
    let mut eve = world.person(1, &tokens[1]).await;
    eve.join(board, None).await;
    let mut texts = vec![(1, "board 1".to_owned())];

    mirror.freeze();
    let (ada_waits, bob_waits) = (post(&mut ada, tea, "tea 2").await, post(&mut bob, tea, "tea 3").await);
    until("a commit waits for the mirror", || async { backends(&sql, "wait_event = 'SyncRep'").await >= 1 }).await;
    // The second server has given the first one up, and waits for the room itself.
    until("another one waits for the room", || async { backends(&sql, "wait_event_type = 'Lock'").await >= 1 }).await;
    let mut seq = 1;
    for round in 0..5 {
        for person in [&mut ada, &mut bob] {
            seq += 1;
            let text = format!("board {seq} in round {round}");
            let said = post(person, board, &text).await;
            assert_eq!(acked(person, said).await, (Seq(seq), Epoch(1), false, Durable::Disk, None));
            texts.push((seq, text));
        }
    }
    // By a call, and by one who has not joined; and whoever comes now is shown all of it.
    for server in [0, 1] {
        seq += 1;
        let body = json!({"client_id": Uuid::now_v7(), "text": format!("call {seq}")});
        let (status, answer) =
            world.call(server, "POST", &format!("/v1/rooms/{board}/entries"), &tokens[0], Some(body)).await;
        assert_eq!(
            (status, answer["seq"].as_i64(), answer["durable"].as_str()),
            (200, Some(seq), Some("disk")),
            "{answer}"
        );
        texts.push((seq, format!("call {seq}")));
    }
    assert_eq!(eve.entries(texts.len()).await, texts);
    let mut late = world.person(1, &tokens[1]).await;
    let joined = late.join(board, Some(Cursor { epoch: Epoch(1), seq: Seq(0) })).await;
    assert!(matches!(joined, ServerFrame::Joined { head, .. } if head.seq == Seq(seq)), "{joined:?}");
    assert_eq!(late.entries(texts.len()).await, texts);
    assert_eq!(page(&world, 0, board).await, (texts.len(), seq));
    assert!(backends(&sql, "wait_event = 'SyncRep'").await >= 1, "the mirror was not waited for");

    mirror.thaw();
    let mut seqs = [acked(&mut ada, ada_waits).await, acked(&mut bob, bob_waits).await].map(|(seq, ..)| seq.0);
    seqs.sort_unstable();
    assert_eq!(seqs, [2, 3]);

    // The setting is another one from the next post on, and so is the lane.
    let path = board_category(&world).await;
    for (setting, expect) in [("mirror", Durable::Mirror), ("disk", Durable::Disk), ("mirror", Durable::Mirror)] {
        world.administer("PATCH", &path, json!({"durability": setting})).await;
        for person in [&mut ada, &mut bob] {
            let requests =
                [post(person, board, "a").await, post(person, board, "b").await, post(person, board, "c").await];
            for request in requests {
                seq += 1;
                let got = acked(person, request).await;
                assert_eq!((got.0, got.3, got.4), (Seq(seq), expect, None), "{setting}");
            }
        }
    }
}

/// Where the category of the board is changed.
async fn board_category(world: &World) -> String {
    let categories = world.call(0, "GET", "/v1/categories", &world.admin, None).await.1;
    let board = categories.as_array().unwrap().iter().find(|c| c["name"] == "Board").unwrap();
    format!("/v1/categories/{}", board["id"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_keep_their_order_while_their_room_goes_from_lane_to_lane() {
    const EACH: usize = 20;
    let (world, tokens, board, _) = world(("disk", "acknowledge_as_less")).await;
    let _pair = pair(&world).await;
    let path = board_category(&world).await;
    let mut people = [world.person(0, &tokens[0]).await, world.person(1, &tokens[1]).await];
    let mut requests = [Vec::new(), Vec::new()];
    let settings = [("mirror", "acknowledge_as_less"), ("disk", "acknowledge_as_less"), ("mirror", "wait")];
    for (durability, when_unavailable) in settings.into_iter().cycle().take(9) {
        let say = async |people: &mut [Person; 2], requests: &mut [Vec<u64>; 2]| {
            for (person, requests) in people.iter_mut().zip(requests) {
                for _ in 0..EACH {
                    requests.push(person.post(board, Uuid::now_v7(), "in order").await);
                }
            }
        };
        say(&mut people, &mut requests).await;
        let change = json!({"durability": durability, "when_unavailable": when_unavailable});
        let (changed, ()) = tokio::join!(world.administer("PATCH", &path, change), say(&mut people, &mut requests));
        assert_eq!(changed["durability"], durability);
    }
    let mut all = Vec::new();
    for (person, requests) in people.iter_mut().zip(requests) {
        let mut seqs = std::collections::BTreeMap::new();
        while seqs.len() < requests.len() {
            let frame = person.next().await;
            seqs.extend(requests.iter().filter_map(|request| Some((*request, ack_of(&frame, *request)?.0))));
        }
        let in_order: Vec<Seq> = requests.iter().map(|request| seqs[request]).collect();
        assert!(in_order.is_sorted(), "{in_order:?}");
        all.extend(in_order);
    }
    all.sort_unstable();
    assert_eq!(all, (1..=all.len() as i64).map(Seq).collect::<Vec<_>>());
}
