//! Appending: gapless, exactly once, refused for another epoch or on stale access.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::durability::Rule;
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use std::sync::Arc;
use store::{
    Appended, Attempt, Batch, Bound, CategoryLists, EntryKind, NewEntry, NewRoomRow, Store, StoreError, Waits,
};
use support::{Postgres, check_chain, until};
use uuid::Uuid;

struct Place {
    postgres: Postgres,
    store: Store,
    admin: PrincipalId,
    rooms: Vec<RoomId>,
}

async fn place(rooms: usize) -> Place {
    let postgres = Postgres::start().await;
    let store = postgres.open("server-1", 1).await.unwrap();
    let admin = store.user("Admin").await.unwrap().unwrap().id;
    let lists = CategoryLists { allowed: vec!["everyone".to_owned()], ..CategoryLists::default() };
    store.create_category("Staff", "", &lists, Rule::default(), admin).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..rooms {
        ids.push(store.create_room(&room(&format!("room {n}")), admin).await.unwrap());
    }
    Place { postgres, store, admin, rooms: ids }
}

fn room(name: &str) -> NewRoomRow {
    NewRoomRow {
        name: name.to_owned(),
        category: "staff".to_owned(),
        description: String::new(),
        privacy: rules::access::Privacy::Open,
        kind: rules::access::RoomKind::Normal,
        members: Vec::new(),
    }
}

fn post(room: RoomId, author: PrincipalId, client_id: Uuid, access_version: i64) -> NewEntry {
    NewEntry {
        room,
        author,
        client_id: Some(client_id),
        kind: EntryKind::Post,
        target: None,
        body: Some("text".to_owned()),
        access_version,
    }
}

fn seqs(results: &[Appended]) -> Vec<(i64, bool)> {
    results
        .iter()
        .map(|result| match result {
            Appended::At { seq, repeated, .. } => (seq.0, *repeated),
            Appended::Stale => (0, false),
        })
        .collect()
}

#[tokio::test]
async fn repetitions_are_answered_with_the_first_result() {
    let Place { postgres: _postgres, store, admin, rooms } = place(2).await;
    let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
    let entries = |ids: &[Uuid]| ids.iter().map(|id| post(rooms[0], admin, *id, 1)).collect::<Vec<_>>();
    let run = async |ids: &[Uuid], attempt| seqs(&store.append(&Batch::new(entries(ids)), attempt).await.unwrap());
    // Twice in one batch.
    assert_eq!(run(&[ids[0], ids[1], ids[0]], Attempt::First).await, [(1, false), (2, false), (1, true)]);
    // Known and new ones mixed, whether that is expected or not.
    assert_eq!(run(&[ids[1], ids[2]], Attempt::First).await, [(2, true), (3, false)]);
    assert_eq!(run(&[ids[3], ids[2], ids[0]], Attempt::Again).await, [(4, false), (3, true), (1, true)]);
    // In another room with another text: still the first result.
    let elsewhere = Batch::new(vec![post(rooms[1], admin, ids[0], 1)]);
    let result = store.append(&elsewhere, Attempt::First).await.unwrap();
    assert!(matches!(result[0], Appended::At { room, seq: Seq(1), repeated: true, .. } if room == rooms[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_two_servers_leave_no_gap_and_no_double() {
    let Place { postgres, store, admin, rooms } = place(20).await;
    let stores = [Arc::new(store), Arc::new(postgres.open("server-2", 1).await.unwrap())];
    let rooms = Arc::new(rooms);
    // Every third post is offered to both servers.
    let shared: Arc<Vec<Uuid>> = Arc::new((0..400).map(|_| Uuid::now_v7()).collect());
    let mut tasks = Vec::new();
    for (server, store) in stores.iter().enumerate() {
        let (store, rooms, shared) = (store.clone(), rooms.clone(), shared.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..40 {
                let entries: Vec<NewEntry> = (0..30)
                    .map(|n| {
                        let place = if server == 0 { n } else { 29 - n };
                        let id = if n % 3 == 0 { shared[round * 10 + n / 3] } else { Uuid::now_v7() };
                        let room = if n % 3 == 0 { rooms[n / 3] } else { rooms[place % 20] };
                        post(room, admin, id, 1)
                    })
                    .collect();
                let batch = Batch::new(entries);
                let mut attempt = Attempt::First;
                loop {
                    match store.append(&batch, attempt).await {
                        Ok(_) => break,
                        Err(error) if error.is_passing() => attempt = Attempt::Again,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut ids = std::collections::HashSet::new();
    for room in rooms.iter() {
        check_chain(&stores[0], *room).await.unwrap();
        let page = stores[0].page(*room, Bound::After(Seq(0)), 10_000).await.unwrap();
        let numbers: Vec<i64> = page.entries.iter().map(|e| e.seq.0).collect();
        assert_eq!(numbers, (1..=page.head.last_seq.0).collect::<Vec<_>>());
        assert!(page.entries.iter().all(|e| ids.insert(e.client_id.unwrap())));
    }
    assert_eq!(ids.len(), 400 + 2 * 40 * 20);
}

#[tokio::test]
async fn stale_access_keeps_its_rooms_out_and_lets_the_others_in() {
    let Place { postgres, store, admin, rooms } = place(3).await;
    let sql = postgres.admin("mgc").await;
    sql.execute("SELECT standfast.touch_access(ARRAY[$1::bigint])", &[&rooms[1].0]).await.unwrap();
    for attempt in [Attempt::First, Attempt::Again] {
        let entries = [rooms[0], rooms[1], rooms[2], RoomId(999), rooms[1]];
        let entries = entries.map(|room| post(room, admin, Uuid::now_v7(), 1)).to_vec();
        let results = store.append(&Batch::new(entries), attempt).await.unwrap();
        let stale: Vec<bool> = results.iter().map(|r| *r == Appended::Stale).collect();
        assert_eq!(stale, [false, true, false, true, true], "{attempt:?}");
    }
    let heads = store.heads(&rooms).await.unwrap();
    let mut heads: Vec<(i64, i64)> = heads.iter().map(|h| (h.room.0, h.last_seq.0)).collect();
    heads.sort_unstable();
    assert_eq!(heads.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [2, 0, 2]);
}

#[tokio::test]
async fn another_epoch_is_refused_in_every_writing_transaction() {
    let Place { postgres, store, admin, rooms } = place(1).await;
    let batch = |id| Batch::new(vec![post(rooms[0], admin, id, 1)]);
    store.append(&batch(Uuid::now_v7()), Attempt::First).await.unwrap();
    let sql = postgres.admin("mgc").await;
    sql.batch_execute("SELECT standfast.refuse_writers_before(2)").await.unwrap();
    for result in [
        store.append(&batch(Uuid::now_v7()), Attempt::First).await.map(|_| ()),
        store.append(&batch(Uuid::now_v7()), Attempt::Again).await.map(|_| ()),
        store.prove_writable().await,
        store.create_room(&room("late"), admin).await.map(|_| ()),
        store.add_token(admin, &store::Token::new().hash()).await,
    ] {
        assert!(matches!(result, Err(StoreError::EpochRefused { .. })), "{result:?}");
    }
    let refused = postgres.open("server-2", 1).await;
    assert!(matches!(refused, Err(StoreError::EpochRefused { .. })), "{refused:?}");

    // Nor does the new epoch write before it has begun: a writer that was handed over may be opened again.
    let early = postgres.open("server-1", 2).await;
    assert!(matches!(early, Err(StoreError::EpochRefused { .. })), "{early:?}");

    // The same epoch begins once, with the place in every room; an older one never again.
    let begun = sql.query_one("SELECT standfast.begin_epoch(2)", &[]).await.unwrap();
    assert_eq!(begun.get::<_, i64>(0), 1);
    let store = postgres.open("server-1", 2).await.unwrap();
    store.append(&batch(Uuid::now_v7()), Attempt::First).await.unwrap();
    let again = sql.query_one("SELECT standfast.begin_epoch(2)", &[]).await.unwrap();
    assert_eq!(again.get::<_, i64>(0), 0);
    assert_eq!(store.epoch_starts(rooms[0], Epoch(1)).await.unwrap(), [(Epoch(2), Seq(1))]);
    let older = sql.query_one("SELECT standfast.begin_epoch(1)", &[]).await.unwrap_err();
    assert_eq!(older.code().unwrap().code(), "SF001");
    // What is created now never takes a number that a lost tail of epoch 1 may have given.
    let late = store.create_room(&room("late"), admin).await.unwrap();
    assert!(late.0 > 1 << 32, "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_epoch_waits_for_writers_in_flight() {
    let Place { postgres, store, admin, rooms } = place(1).await;
    let sql = postgres.admin("mgc").await;
    let writer = postgres.admin("mgc").await;
    writer.batch_execute("BEGIN; SELECT standfast.enter(1)").await.unwrap();
    let begin = tokio::spawn(async move { sql.batch_execute("SELECT standfast.begin_epoch(2)").await });
    let look = postgres.admin("mgc").await;
    until("begin_epoch waits", || async {
        let waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'";
        !look.query(waits, &[]).await.unwrap().is_empty()
    })
    .await;
    assert!(!begin.is_finished());
    writer.batch_execute("COMMIT").await.unwrap();
    begin.await.unwrap().unwrap();
    let late = store.append(&Batch::new(vec![post(rooms[0], admin, Uuid::now_v7(), 1)]), Attempt::First).await;
    assert!(matches!(late, Err(StoreError::EpochRefused { .. })), "{late:?}");
}

#[tokio::test]
async fn a_store_that_is_closed_says_so() {
    let Place { postgres: _postgres, store, admin, rooms } = place(1).await;
    store.close();
    store.broken().await;
    let result = store.append(&Batch::new(vec![post(rooms[0], admin, Uuid::now_v7(), 1)]), Attempt::First).await;
    assert!(matches!(result, Err(StoreError::Lost { .. })), "{result:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_no_mirror_is_written_beside_what_does() {
    let Place { postgres, store, admin, rooms } = place(2).await;
    let store = Arc::new(store);
    let sql = postgres.admin("mgc").await;
    sql.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("commits wait", || async {
        let shown = sql.query_one("SHOW synchronous_standby_names", &[]).await.unwrap();
        shown.get::<_, String>(0) == "nobody"
    })
    .await;
    let shared = Uuid::now_v7();
    let slow = {
        let (store, batch) = (store.clone(), Batch::new(vec![post(rooms[0], admin, shared, 1)]));
        tokio::spawn(async move { store.append(&batch, Attempt::First).await })
    };
    until("a commit waits for the mirror", || async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        sql.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let quick = |room, id| Batch::new(vec![post(room, admin, id, 1)]).waiting(Waits::ForNobody);
    let first = Uuid::now_v7();
    for (attempt, id, expect) in [
        (Attempt::First, first, (1, false)),
        (Attempt::Again, first, (1, true)),
        (Attempt::First, Uuid::now_v7(), (2, false)),
    ] {
        let (results, flushed) = store.append_and_ask(&quick(rooms[1], id), attempt).await.unwrap();
        assert_eq!(seqs(&results), [expect]);
        assert!(flushed.unwrap().by.is_empty());
        let Appended::At { evidence, .. } = results[0] else { panic!("it is stale") };
        assert!(!evidence.waited_for_standby);
    }
    // What the other transaction keeps is not waited for: its room, and the client message id that it writes.
    for batch in [quick(rooms[0], Uuid::now_v7()), quick(rooms[1], shared)] {
        let held_up = store.append(&batch, Attempt::First).await;
        assert!(matches!(held_up, Err(StoreError::HeldUp { .. })), "{held_up:?}");
    }
    assert_eq!((slow.is_finished(), store.is_broken()), (false, false));
    let _mirror = postgres.receiver("nobody");
    assert_eq!(seqs(&slow.await.unwrap().unwrap()), [(1, false)]);
    assert_eq!(seqs(&store.append(&quick(rooms[1], shared), Attempt::First).await.unwrap()), [(1, true)]);
    assert_eq!((check_chain(&store, rooms[0]).await, check_chain(&store, rooms[1]).await), (Ok(Seq(1)), Ok(Seq(2))));
    // Both connections end together.
    store.close();
    let closed = store.append(&quick(rooms[1], Uuid::now_v7()), Attempt::First).await;
    assert!(closed.is_err(), "{closed:?}");
}
