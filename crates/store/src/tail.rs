//! Tails of lost sites, on their way back into the rooms' logs, and who is to be told.
//!
//! A tail stands in the database whole, or not at all. What becomes of an entry is noted by the transaction that enters
//! it, and that transaction goes on only where the last one ended: so every entry is dealt with once, whoever tries, and
//! whatever ends in between. An answer `Unknown` needs no repetition: what is pending says what was done, and the next
//! durable chunk makes the one before durable.

use crate::connection::Store;
use crate::error::StoreError;
use crate::history::{EntryKind, LateRow};
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::late::{LateEntry, LateKind, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

/// How the tails stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailsState {
    /// The tail that is to be dealt with next: the one that was left behind first.
    pub next: Option<String>,
    /// Tails that have been dealt with.
    pub finished: i64,
}

/// An entry of a tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailEntryRow {
    /// What decides about it.
    pub entry: LateEntry,
    /// When and as what it was first written.
    pub first: LateRow,
    /// Its author's name.
    pub author: String,
    /// The author's client message id.
    pub client_id: Option<Uuid>,
    /// Its text.
    pub body: Option<String>,
}

/// Entries of a tail that are to be dealt with next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailChunk {
    /// Which tail.
    pub tail: String,
    /// The place of the first one in its tail.
    pub first: i64,
    /// The entries, in order.
    pub entries: Vec<TailEntryRow>,
    /// What they are about, where that is not one of them.
    pub targets: BTreeMap<(RoomId, Seq), Target>,
}

/// What became of an entry of a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateOutcome {
    /// It has this number now.
    Entered(Seq),
    /// History had it already.
    There,
    /// It is kept with its tail, and the reason with it.
    Refused,
}

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReEntered {
    /// Each has its outcome.
    Done {
        /// In the order of the entries.
        outcomes: Vec<LateOutcome>,
        /// When they were entered: microseconds since the Unix epoch.
        at_us: i64,
    },
    /// A room's access has changed since it was decided on: nothing was written.
    Stale,
    /// The tail goes on at another place: another server has been at it.
    Elsewhere,
}

/// What a user is to be told of one tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailNotice {
    /// Which tail.
    pub tail: String,
    /// The host whose disk held it.
    pub host: String,
    /// Own entries that have been entered.
    pub entered: u64,
    /// Own entries that history had already.
    pub there: u64,
    /// Own entries that were refused.
    pub refused: u64,
    /// The first of those that were refused.
    pub reasons: Vec<RefusedRow>,
    /// Rooms in it that the user or a group of the user has the manager's role in, by number.
    pub rooms: Vec<ReturnedRoomRow>,
}

/// An own entry that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// Which room.
    pub room: RoomId,
    /// The room's name when it was written.
    pub room_name: String,
    /// Its number then.
    pub seq: Seq,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it was written: microseconds since the Unix epoch.
    pub at_us: i64,
    /// The author's client message id.
    pub client_id: Option<Uuid>,
    /// Why.
    pub reason: String,
}

/// A room in a tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnedRoomRow {
    /// Which room.
    pub room: RoomId,
    /// Its name when it was lost.
    pub name: String,
    /// Entries that have been entered.
    pub entered: u64,
    /// Entries that were refused.
    pub refused: u64,
}

/// Refused entries that a notice names.
pub const REASONS_MAX: i64 = 100;

const CHUNK: &str = "SELECT e.n, e.room, e.seq, e.author, e.kind, e.target,
        coalesce(p.name, e.author_name), e.client_id, e.body, coalesce(e.first_epoch, e.epoch),
        coalesce(e.first_seq, e.seq), coalesce(e.first_at_us, e.at_us)
    FROM standfast.tail_entries e LEFT JOIN standfast.principals p ON p.id = e.author
    WHERE e.tail = $1 AND e.outcome IS NULL ORDER BY e.n LIMIT $2";

const TARGETS: &str = "SELECT w.room, w.seq, x.seq IS NOT NULL, x.body IS NOT NULL
    FROM unnest($2::bigint[], $3::bigint[]) AS w (room, seq)
    LEFT JOIN standfast.tail_entries t ON t.tail = $1 AND t.room = w.room AND t.seq = w.seq
    LEFT JOIN standfast.entries x ON x.room = w.room
        AND x.seq = CASE WHEN t.n IS NULL THEN w.seq ELSE t.entered_seq END";

const RE_ENTER: &str = "SELECT answer, outcomes, seqs, at_us FROM standfast.re_enter($1, $2, $3, $4, $5, $6)";

impl Store {
    /// How the tails stand.
    pub async fn tails_state(&self) -> Result<TailsState, StoreError> {
        let rows = self
            .reader()
            .read(
                "ask for tails of lost sites",
                "SELECT (SELECT t.id FROM standfast.tails t WHERE t.re_entered_at IS NULL
                         ORDER BY t.left_by, t.came_at, t.id LIMIT 1),
                        (SELECT count(*) FROM standfast.tails t WHERE t.re_entered_at IS NOT NULL)",
                &[],
            )
            .await?;
        Ok(rows.first().map_or_else(TailsState::default, |row| TailsState { next: row.get(0), finished: row.get(1) }))
    }

    /// Take or renew the lease of a job, so that one server at a time does it. Returns whether `holder` has it.
    pub async fn hold_lease(&self, job: &str, holder: &str, keep: Duration) -> Result<bool, StoreError> {
        let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
        let sql = "SELECT standfast.hold_lease($1, $2, $3, $4)";
        let rows = self.write_one("hold a lease", sql, &[&self.epoch().0, &job, &holder, &keep_ms]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// The next entries of a tail, `limit` at most; `None` when every one has its outcome.
    pub async fn tail_chunk(&self, tail: &str, limit: u32) -> Result<Option<TailChunk>, StoreError> {
        let doing = "read a tail";
        let rows = self.reader().read(doing, CHUNK, &[&tail, &i64::from(limit)]).await?;
        let Some(first) = rows.first().map(|row| row.get(0)) else { return Ok(None) };
        let entries: Vec<TailEntryRow> = rows.iter().map(tail_entry_of).collect();
        let own: BTreeSet<(RoomId, Seq)> = entries.iter().map(|e| (e.entry.room, e.entry.seq)).collect();
        let about: BTreeSet<(RoomId, Seq)> = entries
            .iter()
            .filter_map(|e| Some((e.entry.room, e.entry.target?)))
            .filter(|place| !own.contains(place))
            .collect();
        let mut targets = BTreeMap::new();
        if !about.is_empty() {
            let rooms: Vec<i64> = about.iter().map(|(room, _)| room.0).collect();
            let seqs: Vec<i64> = about.iter().map(|(_, seq)| seq.0).collect();
            for row in self.reader().read(doing, TARGETS, &[&tail, &rooms, &seqs]).await? {
                let target = match (row.get(2), row.get(3)) {
                    (true, true) => Target::Stands,
                    (true, false) => Target::Removed,
                    (false, _) => Target::Missing,
                };
                targets.insert((RoomId(row.get(0)), Seq(row.get(1))), target);
            }
        }
        Ok(Some(TailChunk { tail: tail.to_owned(), first, entries, targets }))
    }

    /// Deal with a chunk in one transaction. `reasons`: why each entry is refused, `None` to enter it. `versions`: the rooms
    /// that exist, and the access version on which the decisions rest.
    pub async fn re_enter(
        &self,
        chunk: &TailChunk,
        reasons: &[Option<String>],
        versions: &BTreeMap<RoomId, i64>,
    ) -> Result<ReEntered, StoreError> {
        let rooms: Vec<i64> = versions.keys().map(|room| room.0).collect();
        let versions: Vec<i64> = versions.values().copied().collect();
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&self.epoch().0, &chunk.tail, &chunk.first, &reasons, &rooms, &versions];
        let rows = self.write_one("enter late arrivals", RE_ENTER, &parameters).await?;
        let unexpected = || StoreError::Invalid("late arrivals were entered with an unexpected answer".to_owned());
        let row = rows.first().ok_or_else(unexpected)?;
        match row.get(0) {
            "done" => {}
            "stale" => return Ok(ReEntered::Stale),
            _ => return Ok(ReEntered::Elsewhere),
        }
        let (outcomes, seqs): (Vec<String>, Vec<Option<i64>>) = (row.get(1), row.get(2));
        if outcomes.len() != chunk.entries.len() || seqs.len() != outcomes.len() {
            return Err(unexpected());
        }
        let outcome = |(outcome, seq): (&String, &Option<i64>)| match (outcome.as_str(), seq) {
            ("entered", Some(seq)) => LateOutcome::Entered(Seq(*seq)),
            ("refused", _) => LateOutcome::Refused,
            _ => LateOutcome::There,
        };
        let outcomes = outcomes.iter().zip(&seqs).map(outcome).collect();
        Ok(ReEntered::Done { outcomes, at_us: row.get(3) })
    }

    /// Note that all of a tail has been dealt with, and who is to be told. Returns whether that was done now.
    pub async fn finish_tail(&self, tail: &str) -> Result<bool, StoreError> {
        let sql = "SELECT standfast.finish_tail($1, $2)";
        let rows = self.write_one("end a tail", sql, &[&self.epoch().0, &tail]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// The users who are to be told of a tail.
    pub async fn untold(&self) -> Result<Vec<PrincipalId>, StoreError> {
        let rows = self
            .reader()
            .read(
                "ask who is to be told of a tail",
                "SELECT DISTINCT n.principal FROM standfast.tail_notices n WHERE n.told_at IS NULL",
                &[],
            )
            .await?;
        Ok(rows.iter().map(|row| PrincipalId(row.get(0))).collect())
    }

    /// What a user is to be told, a notice for each tail.
    pub async fn tail_notices(&self, user: PrincipalId) -> Result<Vec<TailNotice>, StoreError> {
        let doing = "read what a user is to be told of a tail";
        let connection = self.reader();
        let mut notices: BTreeMap<String, TailNotice> =
            connection.read(doing, OWN, &[&user.0]).await?.iter().map(|row| (row.get(0), notice_of(row))).collect();
        if notices.is_empty() {
            return Ok(Vec::new());
        }
        for row in connection.read(doing, REASONS, &[&user.0, &REASONS_MAX]).await? {
            if let Some(notice) = notices.get_mut(row.get::<_, &str>(0)) {
                notice.reasons.push(refused_of(&row));
            }
        }
        for row in connection.read(doing, MANAGED, &[&user.0]).await? {
            if let Some(notice) = notices.get_mut(row.get::<_, &str>(0)) {
                let (room, name) = (RoomId(row.get(1)), row.get(2));
                notice.rooms.push(ReturnedRoomRow { room, name, entered: count(&row, 3), refused: count(&row, 4) });
            }
        }
        Ok(notices.into_values().collect())
    }

    /// These users have been told of these tails.
    pub async fn told(&self, told: &[(PrincipalId, String)]) -> Result<(), StoreError> {
        let users: Vec<i64> = told.iter().map(|(user, _)| user.0).collect();
        let tails: Vec<&str> = told.iter().map(|(_, tail)| tail.as_str()).collect();
        self.write_tx("note who was told of a tail", async |tx: &Transaction<'_>| {
            tx.execute(
                "UPDATE standfast.tail_notices n SET told_at = clock_timestamp()
                 FROM unnest($1::bigint[], $2::text[]) AS t (principal, tail)
                 WHERE n.principal = t.principal AND n.tail = t.tail AND n.told_at IS NULL",
                &[&users, &tails],
            )
            .await?;
            Ok(())
        })
        .await
    }
}

const OWN: &str = "SELECT t.id, t.host, count(*) FILTER (WHERE e.outcome = 'entered'),
        count(*) FILTER (WHERE e.outcome = 'there' AND e.reason IS NULL), count(*) FILTER (WHERE e.outcome = 'refused')
    FROM standfast.tail_notices n JOIN standfast.tails t ON t.id = n.tail
    LEFT JOIN standfast.tail_entries e ON e.tail = n.tail AND e.author = n.principal
    WHERE n.principal = $1 AND n.told_at IS NULL GROUP BY t.id, t.host";

const REASONS: &str = "SELECT e.tail, e.room, e.room_name, e.seq, e.epoch, e.at_us, e.client_id, coalesce(e.reason, '')
    FROM standfast.tail_notices n JOIN standfast.tail_entries e ON e.tail = n.tail AND e.author = n.principal
    WHERE n.principal = $1 AND n.told_at IS NULL AND e.outcome = 'refused' ORDER BY e.tail, e.n LIMIT $2";

const MANAGED: &str = "WITH RECURSIVE affiliation (holds) AS (
        SELECT $1::bigint UNION SELECT m.group_id FROM affiliation a JOIN standfast.group_members m ON m.member = a.holds)
    SELECT e.tail, e.room, max(e.room_name), count(*) FILTER (WHERE e.outcome = 'entered'),
           count(*) FILTER (WHERE e.outcome = 'refused')
    FROM standfast.tail_notices n JOIN standfast.tail_entries e ON e.tail = n.tail
    WHERE n.principal = $1 AND n.told_at IS NULL AND e.outcome IN ('entered', 'refused')
      AND e.room IN (SELECT r.room FROM standfast.room_roles r JOIN affiliation a ON a.holds = r.principal
                     WHERE r.role = 'manager')
    GROUP BY e.tail, e.room ORDER BY e.tail, e.room";

fn tail_entry_of(row: &Row) -> TailEntryRow {
    let kind = match EntryKind::of(row.get(4)) {
        EntryKind::Post => LateKind::Post,
        EntryKind::Removal => LateKind::Removal,
        EntryKind::Replacement => LateKind::Replacement,
        EntryKind::RoomChange => LateKind::RoomChange,
    };
    TailEntryRow {
        entry: LateEntry {
            room: RoomId(row.get(1)),
            seq: Seq(row.get(2)),
            author: PrincipalId(row.get(3)),
            kind,
            target: row.get::<_, Option<i64>>(5).map(Seq),
        },
        first: LateRow { epoch: Epoch(row.get(9)), seq: Seq(row.get(10)), at_us: row.get(11) },
        author: row.get(6),
        client_id: row.get(7),
        body: row.get(8),
    }
}

fn notice_of(row: &Row) -> TailNotice {
    let (reasons, rooms) = (Vec::new(), Vec::new());
    let (entered, there, refused) = (count(row, 2), count(row, 3), count(row, 4));
    TailNotice { tail: row.get(0), host: row.get(1), entered, there, refused, reasons, rooms }
}

fn refused_of(row: &Row) -> RefusedRow {
    RefusedRow {
        room: RoomId(row.get(1)),
        room_name: row.get(2),
        seq: Seq(row.get(3)),
        epoch: Epoch(row.get(4)),
        at_us: row.get(5),
        client_id: row.get(6),
        reason: row.get(7),
    }
}

fn count(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).unsigned_abs()
}
