//! Reading rooms' logs: pages both ways, heads, where epochs began.

use crate::connection::Store;
use crate::error::StoreError;
use rules::durability::Rule;
use rules::id::{Epoch, RoomId, Seq};
use std::collections::HashMap;
use tokio_postgres::Row;
use uuid::Uuid;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A post.
    Post,
    /// An earlier entry was removed.
    Removal,
    /// An earlier entry's text was replaced.
    Replacement,
    /// The room changed.
    RoomChange,
}

impl EntryKind {
    pub(crate) fn code(self) -> i16 {
        match self {
            EntryKind::Post => 0,
            EntryKind::Removal => 1,
            EntryKind::Replacement => 2,
            EntryKind::RoomChange => 3,
        }
    }

    pub(crate) fn of(code: i16) -> Self {
        match code {
            1 => EntryKind::Removal,
            2 => EntryKind::Replacement,
            3 => EntryKind::RoomChange,
            _ => EntryKind::Post,
        }
    }
}

/// An entry as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// Its number.
    pub seq: Seq,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// Its author's name.
    pub author: String,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    /// The author's client message id.
    pub client_id: Option<Uuid>,
    /// What it is.
    pub kind: EntryKind,
    /// What it is about.
    pub target: Option<Seq>,
    /// Its text.
    pub body: Option<String>,
    /// Of a late arrival: what it was before its site was lost.
    pub late: Option<LateRow>,
}

/// What a late arrival was before its site was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateRow {
    /// The epoch in which it was first written.
    pub epoch: Epoch,
    /// Its number then.
    pub seq: Seq,
    /// When that was: microseconds since the Unix epoch.
    pub at_us: i64,
}

/// Which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The first entries after this number.
    After(Seq),
    /// The last entries before this number.
    Before(Seq),
    /// The latest entries.
    Latest,
}

/// A page of a room's log with what belongs to it.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// The entries, rising.
    pub entries: Vec<EntryRow>,
    /// The room's head, read before the entries.
    pub head: RoomHead,
    /// The room's access version in the snapshot that the entries come from: none of them was written under a later one.
    pub access_version: i64,
}

/// A room's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomHead {
    /// Which room.
    pub room: RoomId,
    /// Number of its newest entry.
    pub last_seq: Seq,
    /// Epoch of its newest entry, or in which it was created.
    pub last_epoch: Epoch,
    /// Version of everything that decides about access to it.
    pub access_version: i64,
    /// What acknowledgements in it wait for.
    pub durability: Rule,
}

/// Heads of several rooms.
pub type Heads = Vec<RoomHead>;

const SELECT_ENTRY: &str =
    "SELECT e.seq, e.epoch, coalesce(p.name, '?'), e.at_us, e.client_id, e.kind, e.target, e.body,
        (SELECT h.access_version FROM standfast.room_heads h WHERE h.room = $1),
        e.first_epoch, e.first_seq, e.first_at_us
    FROM standfast.entries e LEFT JOIN standfast.principals p ON p.id = e.author";

fn entry_of(row: &Row) -> EntryRow {
    EntryRow {
        seq: Seq(row.get(0)),
        epoch: Epoch(row.get(1)),
        author: row.get(2),
        at_us: row.get(3),
        client_id: row.get(4),
        kind: EntryKind::of(row.get(5)),
        target: row.get::<_, Option<i64>>(6).map(Seq),
        body: row.get(7),
        late: late_of(row),
    }
}

fn late_of(row: &Row) -> Option<LateRow> {
    Some(LateRow {
        epoch: Epoch(row.get::<_, Option<i64>>(9)?),
        seq: Seq(row.get::<_, Option<i64>>(10)?),
        at_us: row.get::<_, Option<i64>>(11)?,
    })
}

fn head_of(row: &Row) -> RoomHead {
    RoomHead {
        room: RoomId(row.get(0)),
        last_seq: Seq(row.get(1)),
        last_epoch: Epoch(row.get(2)),
        access_version: row.get(3),
        durability: Rule::of_code(row.get(4)),
    }
}

impl Store {
    /// A page of a room's log; `limit` entries at most. The head is read first, so every entry up to it is in reach of
    /// the page. Every entry in it is durable when this returns (see `confirm`), in a room that asks for the writer's own disk alone
    /// there: what is visible is.
    pub async fn page(&self, room: RoomId, bound: Bound, limit: u32) -> Result<LogPage, StoreError> {
        let doing = "read a room's log";
        let connection = self.reader();
        let heads = connection.read(doing, HEADS, &[&vec![room.0]]).await?;
        let head =
            heads.first().map(head_of).ok_or_else(|| StoreError::NotFound(format!("there is no room {room}")))?;
        let limit = i64::from(limit);
        let rows = match bound {
            Bound::After(seq) => connection.read(doing, after(), &[&room.0, &seq.0, &limit]).await?,
            Bound::Before(seq) => connection.read(doing, before(), &[&room.0, &seq.0, &limit]).await?,
            Bound::Latest => connection.read(doing, before(), &[&room.0, &head.last_seq.next().0, &limit]).await?,
        };
        let access_version = rows.first().map_or(head.access_version, |row| row.get(8));
        let mut entries: Vec<EntryRow> = rows.iter().map(entry_of).collect();
        if !matches!(bound, Bound::After(_)) {
            entries.reverse();
        }
        // Whoever changes what is asked for raises the access version.
        let on_disk = head.durability.is_disk() && access_version == head.access_version;
        if let Some(last) = entries.last().filter(|_| !on_disk) {
            self.confirm_up_to(room, last.seq, head.last_seq).await?;
        }
        Ok(LogPage { entries, head, access_version })
    }

    /// Heads of rooms, those that exist.
    pub async fn heads(&self, rooms: &[RoomId]) -> Result<Heads, StoreError> {
        let rooms: Vec<i64> = rooms.iter().map(|r| r.0).collect();
        let rows = self.reader().read("read rooms' heads", HEADS, &[&rooms]).await?;
        Ok(rows.iter().map(head_of).collect())
    }

    /// Where epochs later than `since` began in a room, oldest first.
    pub async fn epoch_starts(&self, room: RoomId, since: Epoch) -> Result<Vec<(Epoch, Seq)>, StoreError> {
        Ok(self.epoch_starts_in(&[room], since).await?.remove(&room).unwrap_or_default())
    }

    /// Where epochs later than `since` began in several rooms, oldest first in each.
    pub async fn epoch_starts_in(
        &self,
        rooms: &[RoomId],
        since: Epoch,
    ) -> Result<HashMap<RoomId, Vec<(Epoch, Seq)>>, StoreError> {
        let rooms: Vec<i64> = rooms.iter().map(|r| r.0).collect();
        let rows = self
            .reader()
            .read(
                "read where epochs began in rooms",
                "SELECT room, epoch, last_seq FROM standfast.epoch_starts WHERE room = ANY ($1) AND epoch > $2
                 ORDER BY room, epoch",
                &[&rooms, &since.0],
            )
            .await?;
        let mut starts: HashMap<RoomId, Vec<(Epoch, Seq)>> = HashMap::new();
        for row in rows {
            starts.entry(RoomId(row.get(0))).or_default().push((Epoch(row.get(1)), Seq(row.get(2))));
        }
        Ok(starts)
    }

    /// For each room that exists: the smallest number after which an epoch later than `since` began, if any did.
    pub async fn rewound(&self, rooms: &[RoomId], since: Epoch) -> Result<Vec<(RoomId, Seq)>, StoreError> {
        let rooms: Vec<i64> = rooms.iter().map(|r| r.0).collect();
        let rows = self.reader().read("read where rooms were rewound", REWOUND, &[&rooms, &since.0]).await?;
        Ok(rows.iter().map(|row| (RoomId(row.get(0)), Seq(row.get(1)))).collect())
    }
}

pub(crate) const REWOUND: &str =
    "SELECT room, min(last_seq) FROM standfast.epoch_starts WHERE room = ANY ($1) AND epoch > $2 GROUP BY room";

pub(crate) const HEADS: &str = "SELECT room, last_seq, last_epoch, access_version, durability FROM standfast.room_heads
    WHERE room = ANY ($1)";

pub(crate) fn after() -> &'static str {
    static SQL: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| format!("{SELECT_ENTRY} WHERE e.room = $1 AND e.seq > $2 ORDER BY e.seq LIMIT $3"));
    &SQL
}

fn before() -> &'static str {
    static SQL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        format!("{SELECT_ENTRY} WHERE e.room = $1 AND e.seq < $2 ORDER BY e.seq DESC LIMIT $3")
    });
    &SQL
}
