//! Late arrivals: a tail is entered once, in order, after the room's present end, whoever tries and whatever ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::durability::Rule;
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::late::Target;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{
    Appended, Attempt, Batch, Bound, CategoryLists, EntryKind, EntryRow, LateOutcome, NewEntry, NewRoomRow, NewUserRow,
    ReEntered, Store, StoreError,
};
use support::{Postgres, check_chain};
use uuid::Uuid;

/// A database of epoch 2 with one room, in which two entries of epoch 1 stand: `old 1` and `old 2`.
struct Place {
    postgres: Postgres,
    store: Store,
    ada: PrincipalId,
    room: RoomId,
}

async fn place() -> Place {
    let postgres = Postgres::start().await;
    let before = postgres.open("server-1", 1).await.unwrap();
    let user = NewUserRow { name: "ada".to_owned(), password_hash: None, administrator: false };
    let admin = before.user("admin").await.unwrap().unwrap().id;
    let ada = before.create_user(&user, admin).await.unwrap();
    let lists = CategoryLists { allowed: vec!["everyone".to_owned()], ..CategoryLists::default() };
    before.create_category("Staff", "", &lists, Rule::default(), admin).await.unwrap();
    let room = before
        .create_room(
            &NewRoomRow {
                name: "tea".to_owned(),
                category: "staff".to_owned(),
                description: String::new(),
                privacy: rules::access::Privacy::Open,
                kind: rules::access::RoomKind::Normal,
                members: Vec::new(),
            },
            admin,
        )
        .await
        .unwrap();
    let old = (1..=2).map(|n| post(room, ada, Uuid::now_v7(), &format!("old {n}"))).collect();
    before.append(&Batch::new(old), Attempt::First).await.unwrap();
    postgres.admin("mgc").await.execute("SELECT standfast.begin_epoch(2)", &[]).await.unwrap();
    let store = postgres.open("server-1", 2).await.unwrap();
    Place { postgres, store, ada, room }
}

fn post(room: RoomId, author: PrincipalId, client_id: Uuid, text: &str) -> NewEntry {
    NewEntry {
        room,
        author,
        client_id: Some(client_id),
        kind: EntryKind::Post,
        target: None,
        body: Some(text.to_owned()),
        access_version: 1,
    }
}

/// An entry of a tail: number in epoch 1, kind, target, client message id, text.
type Lost<'a> = (i64, i16, Option<i64>, Option<Uuid>, Option<&'a str>);

fn lost(seq: i64, text: &str) -> Lost<'_> {
    (seq, 0, None, Some(Uuid::now_v7()), Some(text))
}

impl Place {
    /// A tail of ada's entries in the room, as an agent enters it.
    async fn tail(&self, tail: &str, entries: &[Lost<'_>]) {
        let mut admin = self.postgres.admin("mgc").await;
        let tx = admin.transaction().await.unwrap();
        tx.execute(
            "INSERT INTO standfast.tails (id, database, host, left_by, old_epoch, fork, extracted_at, posts, changes)
             VALUES ($1, 'mgc', $1, 2, 1, '0/1', now(), $2, 0)",
            &[&tail, &(entries.len() as i64)],
        )
        .await
        .unwrap();
        for (n, (seq, kind, target, client_id, body)) in (1_i64..).zip(entries) {
            tx.execute(
                "INSERT INTO standfast.tail_entries (tail, n, room, room_name, seq, epoch, author, author_name, at_us,
                     client_id, target, kind, body) VALUES ($1, $2, $3, 'tea', $4, 1, $5, 'ada', 77, $6, $7, $8, $9)",
                &[&tail, &n, &self.room.0, seq, &self.ada.0, client_id, target, kind, body],
            )
            .await
            .unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Deal with all of a tail, refusing what `reason` gives one for, and end it.
    async fn deal(&self, tail: &str, reason: impl Fn(i64) -> Option<&'static str>) -> Vec<LateOutcome> {
        let mut all = Vec::new();
        while let Some(chunk) = self.store.tail_chunk(tail, 3).await.unwrap() {
            let reasons: Vec<Option<String>> =
                chunk.entries.iter().map(|e| reason(e.entry.seq.0).map(str::to_owned)).collect();
            let versions = BTreeMap::from([(self.room, 1)]);
            let ReEntered::Done { outcomes, .. } = self.store.re_enter(&chunk, &reasons, &versions).await.unwrap()
            else {
                panic!("nobody else is here");
            };
            all.extend(outcomes);
        }
        assert!(self.store.finish_tail(tail).await.unwrap());
        assert!(!self.store.finish_tail(tail).await.unwrap(), "it ends once");
        all
    }

    async fn log(&self) -> Vec<EntryRow> {
        let log = self.store.page(self.room, Bound::After(Seq(0)), 1000).await.unwrap().entries;
        assert!(log.iter().zip(1..).all(|(entry, n)| entry.seq.0 == n), "{log:?}");
        assert_eq!(check_chain(&self.store, self.room).await, Ok(Seq(log.len() as i64)));
        log
    }

    async fn texts(&self) -> Vec<String> {
        self.log().await.into_iter().map(|e| e.body.unwrap_or_else(|| "-".to_owned())).collect()
    }
}

#[tokio::test]
async fn a_tail_is_entered_after_the_present_end_and_marked() {
    let place = place().await;
    let offered = Uuid::now_v7();
    let new =
        Batch::new(vec![post(place.room, place.ada, offered, "b"), post(place.room, place.ada, Uuid::now_v7(), "new")]);
    place.store.append(&new, Attempt::First).await.unwrap();
    let entries = [lost(3, "a"), (4, 0, None, Some(offered), Some("b")), lost(5, "c"), lost(6, "d"), lost(7, "e")];
    place.tail("mgc-2-s1a", &entries).await;
    let state = place.store.tails_state().await.unwrap();
    assert_eq!((state.next.as_deref(), state.finished), (Some("mgc-2-s1a"), 0));
    let outcomes = place.deal("mgc-2-s1a", |seq| (seq == 5).then_some("the room is disabled")).await;
    let at = |seq| LateOutcome::Entered(Seq(seq));
    assert_eq!(outcomes, [at(5), LateOutcome::There, LateOutcome::Refused, at(6), at(7)]);
    assert_eq!(place.texts().await, ["old 1", "old 2", "b", "new", "a", "d", "e"]);
    let log = place.log().await;
    let late = log[5].late.unwrap();
    assert_eq!((late.epoch, late.seq, late.at_us), (Epoch(1), Seq(6), 77));
    assert_eq!((log[5].epoch, log[3].late, &*log[5].author), (Epoch(2), None, "ada"));
    assert!(log[5].at_us > 77);
    // Its author comes back and offers it: the first result stands.
    let again = Batch::new(vec![post(place.room, place.ada, entries[3].3.unwrap(), "d")]);
    let answer = place.store.append(&again, Attempt::First).await.unwrap();
    assert!(matches!(answer[0], Appended::At { seq: Seq(6), repeated: true, .. }), "{answer:?}");
    let state = place.store.tails_state().await.unwrap();
    assert_eq!((state.next, state.finished), (None, 1));
    // The refused one is kept with the reason.
    let admin = place.postgres.admin("mgc").await;
    let kept = "SELECT n, reason FROM standfast.tail_entries WHERE outcome = 'refused'";
    let kept = admin.query_one(kept, &[]).await.unwrap();
    assert_eq!((kept.get::<_, i64>(0), kept.get::<_, String>(1)), (3, "the room is disabled".to_owned()));
}

#[tokio::test]
async fn the_same_tail_from_two_disks_is_entered_once() {
    let place = place().await;
    // A removal carries no client message id: only its first place says that it is the same.
    let entries = [lost(3, "a"), lost(4, "b"), (5, 1, Some(1), None, None)];
    place.tail("mgc-2-s1a", &entries).await;
    place.tail("mgc-2-s1b", &entries[..]).await;
    place.deal("mgc-2-s1a", |seq| (seq == 4).then_some("no")).await;
    let outcomes = place.deal("mgc-2-s1b", |_| None).await;
    assert_eq!(outcomes, [LateOutcome::There; 3]);
    assert_eq!(place.texts().await, ["-", "old 2", "a", "-"]);
    // Nobody is told of the second one.
    let admin = place.postgres.admin("mgc").await;
    let told = admin.query("SELECT DISTINCT tail FROM standfast.tail_notices", &[]).await.unwrap();
    assert_eq!(told.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["mgc-2-s1a"]);
}

#[tokio::test]
async fn what_was_entered_from_one_tail_and_is_lost_again_keeps_its_first_place() {
    let place = place().await;
    place.tail("mgc-2-s1a", &[(3, 1, Some(1), None, None)]).await;
    place.deal("mgc-2-s1a", |_| None).await;
    // The next writer lacks what was entered, and the next tail holds it as the late arrival that it was.
    place.tail("mgc-3-s2a", &[(9, 1, Some(1), None, None), lost(10, "b")]).await;
    let admin = place.postgres.admin("mgc").await;
    let late = "UPDATE standfast.tail_entries SET epoch = 2, first_epoch = 1, first_seq = 3, first_at_us = 77
                WHERE tail = 'mgc-3-s2a' AND n = 1";
    admin.execute(late, &[]).await.unwrap();
    let outcomes = place.deal("mgc-3-s2a", |_| None).await;
    assert_eq!(outcomes, [LateOutcome::There, LateOutcome::Entered(Seq(4))]);
}

#[tokio::test]
async fn removals_and_replacements_follow_their_targets() {
    let place = place().await;
    place
        .store
        .append(&Batch::new(vec![post(place.room, place.ada, Uuid::now_v7(), "new")]), Attempt::First)
        .await
        .unwrap();
    let entries = [
        lost(3, "a"),
        lost(4, "b"),
        (5, 1, Some(3), None, None),
        (6, 2, Some(1), None, Some("old 1, replaced")),
        (7, 2, Some(4), None, Some("b, replaced")),
        (8, 1, Some(2), None, None),
    ];
    place.tail("mgc-2-s1a", &entries).await;
    let outcomes = place.deal("mgc-2-s1a", |_| None).await;
    assert!(outcomes.iter().all(|o| matches!(o, LateOutcome::Entered(_))), "{outcomes:?}");
    let texts = place.texts().await;
    let replaced = ["old 1, replaced", "-", "new", "-", "b, replaced", "-", "old 1, replaced", "b, replaced", "-"];
    assert_eq!(texts, replaced);
    let targets: Vec<Option<i64>> = place.log().await.iter().map(|e| e.target.map(|t| t.0)).collect();
    assert_eq!(targets, [None, None, None, None, None, Some(4), Some(1), Some(5), Some(2)]);
    // What decides about the next ones: what stands, what was removed, what was refused.
    place.tail("mgc-2-s1b", &[lost(20, "x"), lost(21, "y"), lost(22, "z")]).await;
    let about: [Lost<'_>; 3] =
        [(23, 1, Some(20), None, None), (24, 1, Some(1), None, None), (25, 1, Some(2), None, None)];
    let admin = place.postgres.admin("mgc").await;
    for (n, (seq, kind, target, ..)) in (4_i64..).zip(about) {
        admin
            .execute(
                "INSERT INTO standfast.tail_entries (tail, n, room, room_name, seq, epoch, author, author_name, at_us,
                     kind, target) VALUES ('mgc-2-s1b', $1, $2, 'tea', $3, 1, $4, 'ada', 77, $5, $6)",
                &[&n, &place.room.0, &seq, &place.ada.0, &kind, &target],
            )
            .await
            .unwrap();
    }
    let refuse = |chunk: &store::TailChunk| vec![Some("no".to_owned()); chunk.entries.len()];
    let chunk = place.store.tail_chunk("mgc-2-s1b", 3).await.unwrap().unwrap();
    place.store.re_enter(&chunk, &refuse(&chunk), &BTreeMap::new()).await.unwrap();
    let chunk = place.store.tail_chunk("mgc-2-s1b", 3).await.unwrap().unwrap();
    let target = |seq| chunk.targets[&(place.room, Seq(seq))];
    assert_eq!((target(20), target(1), target(2)), (Target::Missing, Target::Stands, Target::Removed));
}

#[tokio::test]
async fn nothing_is_entered_on_decisions_that_do_not_hold_or_for_another_epoch() {
    let place = place().await;
    place.tail("mgc-2-s1a", &[lost(3, "a")]).await;
    let chunk = place.store.tail_chunk("mgc-2-s1a", 9).await.unwrap().unwrap();
    let enter = async |version| place.store.re_enter(&chunk, &[None], &BTreeMap::from([(place.room, version)])).await;
    assert_eq!(enter(7).await.unwrap(), ReEntered::Stale);
    assert_eq!(place.texts().await, ["old 1", "old 2"]);
    assert!(matches!(enter(1).await.unwrap(), ReEntered::Done { .. }));
    assert_eq!(enter(1).await.unwrap(), ReEntered::Elsewhere);
    assert_eq!(place.texts().await, ["old 1", "old 2", "a"]);
    assert!(!place.store.finish_tail("mgc-2-s1z").await.unwrap(), "a tail that is not there does not end");
    place.postgres.admin("mgc").await.execute("SELECT standfast.begin_epoch(3)", &[]).await.unwrap();
    assert!(matches!(enter(1).await, Err(StoreError::EpochRefused { .. })));
    let lease = place.store.hold_lease("job", "server-1", Duration::from_secs(1)).await;
    assert!(matches!(lease, Err(StoreError::EpochRefused { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_and_people_who_post_leave_no_gap_and_no_double() {
    let place = place().await;
    let texts: Vec<String> = (0..200).map(|n| format!("late {n}")).collect();
    let entries: Vec<Lost<'_>> = (3..).zip(&texts).map(|(seq, text)| lost(seq, text)).collect();
    place.tail("mgc-2-s1a", &entries).await;
    let again: Vec<Uuid> = entries.iter().step_by(3).map(|e| e.3.unwrap()).collect();
    let stores = [
        Arc::new(place.postgres.open("server-2", 2).await.unwrap()),
        Arc::new(place.postgres.open("server-3", 2).await.unwrap()),
    ];
    let mut tasks = Vec::new();
    for store in &stores {
        let (store, room) = (store.clone(), place.room);
        tasks.push(tokio::spawn(async move {
            while let Some(chunk) = store.tail_chunk("mgc-2-s1a", 7).await.unwrap() {
                let reasons = vec![None; chunk.entries.len()];
                match store.re_enter(&chunk, &reasons, &BTreeMap::from([(room, 1)])).await {
                    Ok(_) => {}
                    Err(error) if error.is_passing() => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }));
    }
    // Meanwhile a third of them is offered again by their author, among new ones.
    let (store, room, ada) = (stores[0].clone(), place.room, place.ada);
    tasks.push(tokio::spawn(async move {
        for id in again {
            let batch = Batch::new(vec![post(room, ada, id, "again"), post(room, ada, Uuid::now_v7(), "new")]);
            let mut attempt = Attempt::First;
            while let Err(error) = store.append(&batch, attempt).await {
                assert!(error.is_passing(), "{error}");
                attempt = Attempt::Again;
            }
        }
    }));
    for task in tasks {
        task.await.unwrap();
    }
    let log = place.log().await;
    let mut ids: Vec<Uuid> = log.iter().filter_map(|e| e.client_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((log.len(), ids.len()), (2 + 200 + 67, 2 + 200 + 67));
    let late: Vec<i64> = log.iter().filter_map(|e| e.late.map(|l| l.seq.0)).collect();
    assert!(late.is_sorted(), "{late:?}");
}

#[tokio::test]
async fn a_lease_has_one_holder_until_it_runs_out() {
    let place = place().await;
    let hold = async |holder: &str, ms| place.store.hold_lease("job", holder, Duration::from_millis(ms)).await.unwrap();
    assert!(hold("server-1", 60_000).await);
    assert!(!hold("server-2", 60_000).await);
    assert!(hold("server-1", 1).await, "the holder renews it, for as long as it says");
    support::until("the lease has run out", || hold("server-2", 60_000)).await;
    assert!(!hold("server-1", 60_000).await);
}

#[tokio::test]
async fn authors_and_managers_are_to_be_told_until_they_were() {
    let place = place().await;
    let store = &place.store;
    let admin = store.user("admin").await.unwrap().unwrap().id;
    for name in ["bob", "eve"] {
        let user = NewUserRow { name: name.to_owned(), password_hash: None, administrator: false };
        store.create_user(&user, admin).await.unwrap();
    }
    store.create_group("stewards", &["bob".to_owned()], admin).await.unwrap();
    let bob = store.user("bob").await.unwrap().unwrap().id;
    let add = vec![(rules::access::Role::Manager, vec!["stewards".to_owned()])];
    store.change_room(place.room, &store::RoomPatch { add, ..Default::default() }, admin).await.unwrap();
    place.tail("mgc-2-s1a", &[lost(3, "a"), lost(4, "b"), lost(5, "c")]).await;
    assert!(store.untold().await.unwrap().is_empty(), "nobody before it is over");
    while let Some(chunk) = store.tail_chunk("mgc-2-s1a", 9).await.unwrap() {
        let reasons = [None, Some("the walls".to_owned()), None];
        store.re_enter(&chunk, &reasons, &BTreeMap::from([(place.room, 2)])).await.unwrap();
    }
    store.finish_tail("mgc-2-s1a").await.unwrap();
    let mut untold = store.untold().await.unwrap();
    untold.sort_unstable();
    let mut expect = vec![admin, place.ada, bob];
    expect.sort_unstable();
    assert_eq!(untold, expect, "its author, its creator, who is its manager, and the user in the group; not eve");
    let own = &store.tail_notices(place.ada).await.unwrap()[0];
    assert_eq!((own.entered, own.there, own.refused, own.rooms.len()), (2, 0, 1, 0));
    assert_eq!((own.reasons[0].seq, own.reasons[0].reason.as_str()), (Seq(4), "the walls"));
    let managed = &store.tail_notices(bob).await.unwrap()[0];
    assert_eq!((managed.entered, managed.refused, managed.reasons.len()), (0, 0, 0));
    assert_eq!((managed.rooms[0].room, managed.rooms[0].entered, managed.rooms[0].refused), (place.room, 2, 1));
    store.told(&[(bob, own.tail.clone()), (place.ada, own.tail.clone())]).await.unwrap();
    assert!(store.tail_notices(bob).await.unwrap().is_empty());
    assert_eq!(store.untold().await.unwrap(), [admin]);
}

#[tokio::test]
async fn a_database_of_the_first_version_is_brought_up_to_date_with_what_it_holds() {
    let postgres = Postgres::start().await;
    let old = postgres.admin("mgc").await;
    old.batch_execute("SET ROLE standfast_chat").await.unwrap();
    old.batch_execute(include_str!("../migrations/0001_chat.sql")).await.unwrap();
    old.batch_execute(
        "CREATE TABLE standfast.schema_versions (version int PRIMARY KEY, applied timestamptz DEFAULT now());
         INSERT INTO standfast.schema_versions VALUES (1);
         INSERT INTO standfast.pool_epoch (epoch) VALUES (1);
         INSERT INTO standfast.epochs (epoch) VALUES (1);
         INSERT INTO standfast.node_names VALUES ('staff'), ('tea');
         INSERT INTO standfast.categories (name, folded) VALUES ('Staff', 'staff');
         INSERT INTO standfast.rooms (name, folded, category, privacy, kind) VALUES ('tea', 'tea', 1, 'open', 'normal');
         INSERT INTO standfast.room_heads (room, last_seq, last_epoch) VALUES (1, 1, 1);
         INSERT INTO standfast.entries (room, seq, epoch, author, at_us, kind, body) VALUES (1, 1, 1, 1, 5, 0, 'old');",
    )
    .await
    .unwrap();
    let store = postgres.open("server-1", 1).await.unwrap();
    let batch = Batch::new(vec![post(RoomId(1), PrincipalId(1), Uuid::now_v7(), "new")]);
    store.append(&batch, Attempt::First).await.unwrap();
    let log = store.page(RoomId(1), Bound::Latest, 9).await.unwrap().entries;
    assert_eq!(
        log.iter().map(|e| (e.body.clone().unwrap(), e.late)).collect::<Vec<_>>(),
        [("old".to_owned(), None), ("new".to_owned(), None)]
    );
    assert_eq!(check_chain(&store, RoomId(1)).await, Ok(Seq(2)));
    assert_eq!(store.tails_state().await.unwrap(), store::TailsState::default());
}
