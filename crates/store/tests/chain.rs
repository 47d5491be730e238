//! The chain: what is changed behind the server's back is named, and what the database hashes is what the page says.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::chain::{Bytes, chain_start, content_digest};
use rules::durability::Rule;
use rules::id::{PrincipalId, RoomId, Seq};
use rules::verify::{Differs, chain_at};
use store::{Appended, Attempt, Batch, CategoryLists, EntryKind, Evidence, NewEntry, NewRoomRow, Store};
use support::{Postgres, check_chain};
use uuid::Uuid;

struct Place {
    postgres: Postgres,
    store: Store,
    admin: PrincipalId,
    room: RoomId,
}

/// A room with nine posts, of two batches.
async fn place() -> Place {
    let postgres = Postgres::start().await;
    let store = postgres.open("server-1", 1).await.unwrap();
    let admin = store.user("admin").await.unwrap().unwrap().id;
    let lists = CategoryLists { allowed: vec!["everyone".to_owned()], ..CategoryLists::default() };
    store.create_category("Staff", "", &lists, Rule::default(), admin).await.unwrap();
    let row = NewRoomRow {
        name: "tea".to_owned(),
        category: "staff".to_owned(),
        description: String::new(),
        privacy: rules::access::Privacy::Open,
        kind: rules::access::RoomKind::Normal,
        members: Vec::new(),
    };
    let room = store.create_room(&row, admin).await.unwrap();
    assert_eq!(check_chain(&store, room).await, Ok(Seq(0)), "nothing has been written in it");
    let place = Place { postgres, store, admin, room };
    for numbers in [1..=4, 5..=9] {
        let posts: Vec<NewEntry> = numbers.map(|n| place.post(Uuid::now_v7(), &format!("text {n}"))).collect();
        place.append(posts, Attempt::First).await;
    }
    assert_eq!(check_chain(&place.store, room).await, Ok(Seq(9)));
    place
}

impl Place {
    fn post(&self, client_id: Uuid, text: &str) -> NewEntry {
        NewEntry {
            room: self.room,
            author: self.admin,
            client_id: Some(client_id),
            kind: EntryKind::Post,
            target: None,
            body: Some(text.to_owned()),
            access_version: 1,
        }
    }

    async fn append(&self, posts: Vec<NewEntry>, attempt: Attempt) -> Vec<(Seq, Evidence)> {
        let answers = self.store.append(&Batch::new(posts), attempt).await.unwrap();
        let at = |answer| match answer {
            Appended::At { seq, evidence, .. } => (seq, evidence),
            Appended::Stale => panic!("nobody else is here"),
        };
        answers.into_iter().map(at).collect()
    }

    /// What is said after `sql` was run by somebody with the database's own rights; what it did is undone.
    async fn check(&self, sql: &str, expect: (i64, Differs)) {
        let admin = self.postgres.admin("mgc").await;
        admin
            .batch_execute("CREATE TABLE e AS TABLE standfast.entries; CREATE TABLE h AS TABLE standfast.room_heads")
            .await
            .unwrap();
        admin.batch_execute(sql).await.unwrap();
        let fault = check_chain(&self.store, self.room).await.expect_err(sql);
        assert_eq!((fault.room, fault.seq.0, fault.differs), (self.room, expect.0, expect.1), "{sql}");
        let back = "TRUNCATE standfast.entries; INSERT INTO standfast.entries TABLE e; DROP TABLE e;
            UPDATE standfast.room_heads r SET last_seq = h.last_seq, chain = h.chain FROM h WHERE h.room = r.room; DROP TABLE h";
        admin.batch_execute(back).await.unwrap();
        assert_eq!(check_chain(&self.store, self.room).await, Ok(Seq(9)));
    }
}

#[tokio::test]
async fn a_row_that_was_changed_behind_the_servers_back_is_named() {
    let place = place().await;
    let was = place.admin;
    let update = |set: &str| format!("UPDATE standfast.entries SET {set} WHERE seq = 6");
    place.check(&update("body = 'never said'"), (6, Differs::Text)).await;
    place.check(&update("author = 77"), (6, Differs::Author { was })).await;
    place.check(&update("at_us = at_us - 3600000000"), (6, Differs::Time { was: time(&place, 6).await })).await;
    place.check(&update("client_id = gen_random_uuid()"), (6, Differs::TimeOrClientId)).await;
    place.check(&update("kind = 3"), (6, Differs::Kind { was: 0 })).await;
    place.check(&update("chain = sha256('x')"), (6, Differs::Chain)).await;
    place.check(&update("chain = 'x'"), (6, Differs::Chain)).await;
    place.check(&update("body = NULL, nonce = NULL"), (6, Differs::TextWithoutReason)).await;
    place.check("UPDATE standfast.entries SET seq = 100 WHERE seq = 5", (5, Differs::Missing)).await;
    place.check("DELETE FROM standfast.entries WHERE seq > 7", (8, Differs::Missing)).await;
    let swap = "UPDATE standfast.entries e SET body = o.body, nonce = o.nonce, digest = o.digest, client_id = NULL
        FROM standfast.entries o WHERE e.seq IN (3, 4) AND o.seq = 7 - e.seq";
    place.check(swap, (3, Differs::Entry)).await;
    let insert = "INSERT INTO standfast.entries (room, seq, epoch, author, at_us, kind, body, nonce, digest, chain)
        SELECT room, 10, epoch, author, at_us, kind, body, nonce, digest, chain FROM standfast.entries WHERE seq = 9";
    place.check(insert, (10, Differs::BeyondHead)).await;
    // With the right hash too: the room's head does not state it.
    let insert = insert.replace(
        "digest, chain FROM",
        "digest, standfast.chain_next(chain, 10, epoch, at_us, standfast.entry_digest(
            room, author, kind, NULL, NULL, NULL, NULL, NULL, digest)) FROM",
    );
    place.check(&insert, (10, Differs::BeyondHead)).await;
    place.check("UPDATE standfast.room_heads SET chain = sha256('x')", (9, Differs::Chain)).await;
}

async fn time(place: &Place, seq: usize) -> i64 {
    place.store.logged(place.room, Seq(0), 9).await.unwrap().entries[seq - 1].0.at_us
}

#[tokio::test]
async fn what_an_acknowledgement_rests_on_is_what_stands_in_the_log() {
    let place = place().await;
    let (known, new) = (Uuid::now_v7(), Uuid::now_v7());
    let first = place.append(vec![place.post(known, "first")], Attempt::First).await;
    // Among repetitions, sent again or twice in a batch, another text or not: the first result.
    let posts = || vec![place.post(new, "new"), place.post(known, "other"), place.post(new, "new")];
    for attempt in [Attempt::First, Attempt::Again] {
        let answers = place.append(posts(), attempt).await;
        assert_eq!(answers[1], first[0]);
        assert_eq!(answers[0], answers[2]);
        let log = place.store.logged(place.room, Seq(9), 100).await.unwrap();
        for (seq, evidence) in answers {
            let (entry, author) = &log.entries[seq.0 as usize - 10];
            assert_eq!((entry.chain, entry.content, entry.nonce), (evidence.chain, evidence.content, evidence.nonce));
            let text = entry.text.as_deref().unwrap();
            assert_eq!(content_digest(evidence.nonce.map(|nonce| (nonce, text))), evidence.content);
            assert_eq!((author.as_str(), evidence.waited_for_standby), ("admin", false));
        }
    }
    assert_eq!(check_chain(&place.store, place.room).await, Ok(Seq(11)));
}

#[tokio::test]
async fn the_database_hashes_what_the_page_says() {
    let place = place().await;
    let admin = place.postgres.admin("mgc").await;
    let row =
        admin.query_one("SELECT standfast.chain_start(5), standfast.content_digest(NULL, NULL)", &[]).await.unwrap();
    assert_eq!(Bytes::of(row.get(0)), Some(chain_start(RoomId(5))));
    assert_eq!(Bytes::of(row.get(1)), Some(content_digest(None)));
    let log = place.store.logged(place.room, Seq(0), 9).await.unwrap().entries;
    let mut entry = log[1].0.clone();
    let sql = "SELECT standfast.content_digest($1, $2), standfast.chain_next($3, 2, $4, $5, standfast.entry_digest(
        $6, $7, $8, $9, $10, $11, $12, $13, standfast.content_digest($1, $2)))";
    for (target, client_id, first) in
        [(None, None, None), (Some(Seq(1)), Some([7; 16]), Some((-1_i64, i64::MIN, i64::MAX)))]
    {
        let (nonce, text) = (Bytes([3; 16]), "Grüße 🍵");
        (entry.text, entry.nonce) = (Some(text.to_owned()), Some(nonce));
        entry.content = content_digest(Some((nonce, text)));
        (entry.target, entry.client_id) = (target, client_id);
        entry.first = first.map(|(epoch, seq, at_us)| rules::chain::First {
            epoch: rules::id::Epoch(epoch),
            seq: Seq(seq),
            at_us,
        });
        let before = log[0].0.chain;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 13] = [
            &&nonce.0[..],
            &text,
            &&before.0[..],
            &entry.epoch.0,
            &entry.at_us,
            &place.room.0,
            &entry.author.0,
            &entry.kind,
            &target.map(|t| t.0),
            &client_id.map(Uuid::from_bytes),
            &first.map(|f| f.0),
            &first.map(|f| f.1),
            &first.map(|f| f.2),
        ];
        let row = admin.query_one(sql, &values).await.unwrap();
        assert_eq!(Bytes::of(row.get(0)), Some(entry.content));
        assert_eq!(Bytes::of(row.get(1)), Some(chain_at(place.room, &before, &entry)));
    }
}
