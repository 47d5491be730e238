//! The journal of administrative changes, and what a lost site had changed made again: once, and inside what was decided since.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use rules::access::{Privacy, Role, RoomKind};
use rules::durability::Rule;
use rules::history::parting;
use rules::id::{CategoryId, Epoch, PrincipalId, RoomId, Seq};
use store::left_behind::{self, Keeping, TailHead, TailSize};
use store::{
    Attempt, Batch, CategoryLists, CategoryPatch, EntryKind, NewEntry, NewRoomRow, NewUserRow, RoomPatch, Store,
    TailPart,
};
use support::Postgres;
use uuid::Uuid;

/// A site's database: of two that are made alike, the numbers are the same, as those of one that follows the other.
struct Site {
    postgres: Postgres,
    store: Store,
    admin: PrincipalId,
    staff: CategoryId,
    pier: RoomId,
}

fn lists(allowed: &[&str], denied: &[&str]) -> CategoryLists {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    CategoryLists { allowed: names(allowed), denied: names(denied), creators: Vec::new() }
}

fn patch(add: CategoryLists, remove: CategoryLists) -> CategoryPatch {
    CategoryPatch { add, remove, ..CategoryPatch::default() }
}

fn user(name: &str, password_hash: Option<&str>) -> NewUserRow {
    NewUserRow { name: name.to_owned(), password_hash: password_hash.map(str::to_owned), administrator: false }
}

fn room(name: &str, members: &[&str]) -> NewRoomRow {
    NewRoomRow {
        name: name.to_owned(),
        category: "staff".to_owned(),
        description: String::new(),
        privacy: Privacy::Closed,
        kind: RoomKind::Normal,
        members: members.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn add(role: Role, name: &str) -> RoomPatch {
    RoomPatch { add: vec![(role, vec![name.to_owned()])], ..RoomPatch::default() }
}

impl Site {
    async fn new() -> Self {
        let postgres = Postgres::start().await;
        let store = postgres.open("server-1", 1).await.unwrap();
        let admin = store.user("admin").await.unwrap().unwrap().id;
        for name in ["ines", "mara"] {
            store.create_user(&user(name, None), admin).await.unwrap();
        }
        let staff =
            store.create_category("Staff", "", &lists(&["everyone"], &[]), Rule::default(), admin).await.unwrap();
        let pier = store.create_room(&room("Pier", &["ines"]), admin).await.unwrap();
        Self { postgres, store, admin, staff, pier }
    }

    /// The writer of epoch 2 goes on here.
    async fn begin_epoch_2(&mut self) {
        self.postgres.admin("mgc").await.execute("SELECT standfast.begin_epoch(2)", &[]).await.unwrap();
        self.store = self.postgres.open("server-1", 2).await.unwrap();
    }

    /// Bring home what `lost` holds alone, as the tail of one of its hosts, and deal with its changes.
    async fn take_home(&self, lost: &Site, host: &str) -> Vec<(String, Option<String>)> {
        let old = lost.postgres.admin("mgc").await;
        let mut present = self.postgres.admin("mgc").await;
        let epochs = left_behind::epochs(&present, "here").await.unwrap().unwrap();
        let parting = parting(&epochs, &left_behind::epochs(&old, "there").await.unwrap().unwrap()).unwrap();
        let starts = left_behind::starts(&present, "here", parting.left_by).await.unwrap();
        let mut lines = Vec::new();
        let take = |line: &str| {
            lines.push(line.to_owned());
            Ok(())
        };
        let size = left_behind::read_tail(&old, "there", &parting, &epochs, &starts, take).await.unwrap();
        let id = format!("mgc-2-{host}");
        self.keep(&mut present, &id, size, &lines).await;
        while self.store.re_enter_change(&id).await.unwrap().is_some() {}
        let became = "SELECT outcome, reason FROM standfast.tail_changes WHERE tail = $1 ORDER BY n";
        present.query(became, &[&id]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn keep(&self, client: &mut tokio_postgres::Client, id: &str, size: TailSize, lines: &[String]) {
        let head = TailHead {
            id: id.to_owned(),
            database: "mgc".to_owned(),
            host: "s1a".to_owned(),
            left_by: Epoch(2),
            old_epoch: Epoch(1),
            fork: "0/1".to_owned(),
            extracted_at_ms: 1,
            size,
        };
        let mut keeping = Keeping::begin(client, "here", head.clone()).await.unwrap().unwrap();
        keeping.lines(&format!("[{}]", lines.join(","))).await.unwrap();
        keeping.commit(Epoch(2)).await.unwrap();
        assert!(Keeping::begin(client, "here", head).await.unwrap().is_none(), "it is kept once");
    }

    async fn kinds(&self) -> Vec<(i64, i64, String, Option<i64>)> {
        let query = "SELECT n, epoch, change->>'kind', first_n FROM standfast.changes ORDER BY n";
        let rows = self.postgres.admin("mgc").await.query(query, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    }
}

fn entered() -> (String, Option<String>) {
    ("entered".to_owned(), None)
}

#[tokio::test]
async fn every_change_is_in_the_journal_and_an_epoch_notes_where_it_begins() {
    let mut site = Site::new().await;
    let (store, admin) = (&site.store, site.admin);
    store.create_group("watch", &["ines".to_owned()], admin).await.unwrap();
    store.change_category(site.staff, &patch(lists(&[], &["mara"]), CategoryLists::default()), admin).await.unwrap();
    store.change_room(site.pier, &add(Role::Manager, "ines"), admin).await.unwrap();
    // What was refused, and what changes nothing, is not in it.
    store.create_user(&user("Ines", None), admin).await.unwrap_err();
    store.change_room(site.pier, &RoomPatch::default(), admin).await.unwrap();
    site.begin_epoch_2().await;
    site.store.create_user(&user("zoe", Some("$hash")), admin).await.unwrap();

    let kinds = site.kinds().await;
    let named: Vec<&str> = kinds.iter().map(|(_, _, kind, _)| kind.as_str()).collect();
    assert_eq!(
        named,
        [
            "user_created",
            "user_created",
            "category_created",
            "room_created",
            "group_created",
            "category_changed",
            "room_changed",
            "user_created",
        ]
    );
    assert!(kinds.iter().zip(1..).all(|((n, ..), place)| *n == place), "{kinds:?}");
    let client = site.postgres.admin("mgc").await;
    let noted = "SELECT last_change FROM standfast.epochs WHERE epoch = 2";
    assert_eq!(client.query_one(noted, &[]).await.unwrap().get::<_, i64>(0), 7);
    let secret = "SELECT count(*) FROM standfast.changes WHERE change::text LIKE '%hash%'";
    assert_eq!(client.query_one(secret, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn what_a_lost_site_changed_is_made_again_once_with_its_numbers() {
    let lost = Site::new().await;
    let mut present = Site::new().await;
    assert_eq!((lost.staff, lost.pier), (present.staff, present.pier));
    present.begin_epoch_2().await;
    // Lost: a user, a group, a room for her with a post of hers, a wall.
    let zoe = lost.store.create_user(&user("zoe", Some("$hash")), lost.admin).await.unwrap();
    lost.store.create_group("night", &["zoe".to_owned()], lost.admin).await.unwrap();
    let dock = lost.store.create_room(&room("Dock", &["night"]), lost.admin).await.unwrap();
    lost.store
        .change_category(lost.staff, &patch(lists(&[], &["mara"]), CategoryLists::default()), lost.admin)
        .await
        .unwrap();
    let post = NewEntry {
        room: dock,
        author: zoe,
        client_id: Some(Uuid::now_v7()),
        kind: EntryKind::Post,
        target: None,
        body: Some("at the dock".to_owned()),
        access_version: 2,
    };
    lost.store.append(&Batch::new(vec![post]), Attempt::First).await.unwrap();

    assert_eq!(present.take_home(&lost, "s1a").await, [entered(), entered(), entered(), entered()]);
    let back = present.store.user("zoe").await.unwrap().unwrap();
    assert_eq!((back.id, back.password_hash.as_deref()), (zoe, Some("$hash")));
    let facts = present.store.facts(&[zoe], &[dock]).await.unwrap();
    let access = &facts.rooms[&dock].access;
    assert!(rules::access::decide(&facts.askers[&zoe], access, rules::access::Deed::Read).is_ok());
    // Whoever saw the post is told that history went on without it.
    assert_eq!(present.store.epoch_starts(dock, Epoch(1)).await.unwrap(), [(Epoch(2), Seq(0))]);
    let chunk = present.store.tail_chunk("mgc-2-s1a", 10).await.unwrap().unwrap();
    assert_eq!((chunk.entries.len(), chunk.entries[0].entry.room, chunk.entries[0].entry.author), (1, dock, zoe));
    let shown = present.store.tail_lines("mgc-2-s1a", TailPart::Changes(0), 10).await.unwrap();
    assert!(shown.iter().all(|line| !line.to_string().contains("$hash")), "{shown:?}");
    // They are in the journal of now, as what they were; the hash is nowhere any more.
    assert_eq!(
        present.kinds().await[4..],
        [
            (5, 2, "user_created".to_owned(), Some(5)),
            (6, 2, "group_created".to_owned(), Some(6)),
            (7, 2, "room_created".to_owned(), Some(7)),
            (8, 2, "category_changed".to_owned(), Some(8)),
        ]
    );
    let secrets = "SELECT (SELECT count(*) FROM standfast.changes WHERE change::text LIKE '%$hash%')
        + (SELECT count(*) FROM standfast.tail_changes WHERE change::text LIKE '%$hash%')";
    let client = present.postgres.admin("mgc").await;
    assert_eq!(client.query_one(secrets, &[]).await.unwrap().get::<_, i64>(0), 0);

    // The mirror's disk holds the same.
    let there = || ("there".to_owned(), None);
    assert_eq!(present.take_home(&lost, "s1b").await, [there(), there(), there(), there()]);
    assert_eq!(present.kinds().await.len(), 8);
}

#[tokio::test]
async fn what_was_decided_since_stands() {
    let lost = Site::new().await;
    let mut present = Site::new().await;
    present.begin_epoch_2().await;
    // Lost: ines becomes a manager, mara is put in a room, a wall against ines, and a user.
    lost.store.change_room(lost.pier, &add(Role::Manager, "ines"), lost.admin).await.unwrap();
    lost.store.create_room(&room("Dock", &["mara"]), lost.admin).await.unwrap();
    lost.store
        .change_category(lost.staff, &patch(lists(&[], &["ines"]), CategoryLists::default()), lost.admin)
        .await
        .unwrap();
    lost.store.create_user(&user("zoe", None), lost.admin).await.unwrap();
    // Since: ines was considered and is no manager, mara is denied, ines was let in, and another zoe came.
    let (store, admin) = (&present.store, present.admin);
    let remove = RoomPatch { remove: vec![(Role::Manager, vec!["ines".to_owned()])], ..RoomPatch::default() };
    store.change_room(present.pier, &remove, admin).await.unwrap();
    store.change_category(present.staff, &patch(lists(&[], &["mara"]), lists(&[], &["ines"])), admin).await.unwrap();
    let other = store.create_user(&user("zoe", None), admin).await.unwrap();

    let became = present.take_home(&lost, "s1a").await;
    let outcomes: Vec<&str> = became.iter().map(|(outcome, _)| outcome.as_str()).collect();
    assert_eq!(outcomes, ["refused", "entered", "refused", "refused"], "{became:?}");
    let why = |place: usize| became[place].1.as_deref().unwrap_or_default();
    assert!(why(0).contains("later change stands") && why(2).contains("later change stands"), "{became:?}");
    assert!(why(1).contains("without 'mara'") && why(1).contains("scope"), "{became:?}");
    assert!(why(3).contains("name has been given"), "{became:?}");
    assert_eq!(present.store.user("zoe").await.unwrap().unwrap().id, other);
}
