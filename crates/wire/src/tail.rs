//! Tails: what a lost site had acknowledged and history had to go on without.
//!
//! A tail is a text of JSON lines, changes first, then entries in the order in which they are entered again. So it lies
//! beside its log on the host whose data it was (`salvage/left-behind-by-<epoch>/tail.jsonl`), so it goes from agent to agent, and so
//! `standfast tail export` writes it.

use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A line of a tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum TailLine {
    /// What an administrator changed.
    Change(TailChange),
    /// An entry of a room.
    Entry(TailEntry),
}

/// An entry of a room that is in a tail. Names stand beside ids: an id that history lacks means nothing there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TailEntry {
    /// Its place among the tail's entries: 1, 2, 3 … in the order of re-entry.
    pub n: i64,
    /// Which room.
    #[schema(value_type = i64)]
    pub room: RoomId,
    /// The room's name in the old data.
    pub room_name: String,
    /// The number that it had.
    #[schema(value_type = i64)]
    pub seq: Seq,
    /// The epoch in which it was written.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// Who wrote it.
    #[schema(value_type = i64)]
    pub author: PrincipalId,
    /// The author's name in the old data.
    pub author_name: String,
    /// When it was written: microseconds since the Unix epoch.
    pub at_us: i64,
    /// The author's client message id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Uuid>,
    /// The entry that it is about, by the number that that had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub target: Option<Seq>,
    /// What it is.
    pub kind: TailKind,
    /// Its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Of an entry that was a late arrival itself: the epoch in which it was first written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub first_epoch: Option<Epoch>,
    /// The number that it had then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub first_seq: Option<Seq>,
    /// When that was: microseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at_us: Option<i64>,
    /// What became of it; nothing yet, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dealt: Option<TailOutcome>,
}

/// What an entry in a tail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TailKind {
    /// A post.
    Post,
    /// An earlier entry was removed.
    Removal,
    /// An earlier entry's text was replaced.
    Replacement,
    /// The room changed.
    RoomChange,
}

/// What an administrator changed in a tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TailChange {
    /// Its number in the journal of the old data; they are made again in this order.
    pub n: i64,
    /// The epoch in which it was made.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// Who made it; nobody, where the program did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub actor: Option<PrincipalId>,
    /// The name of who made it, in the old data.
    pub actor_name: String,
    /// When, RFC 3339 in UTC.
    pub at: String,
    /// What was changed, told apart by `kind`.
    #[schema(value_type = Object)]
    pub change: serde_json::Value,
    /// Of a change that had been made again before: the epoch in which it was first made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub first_epoch: Option<Epoch>,
    /// The number that it had then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_n: Option<i64>,
    /// What became of it; nothing yet, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dealt: Option<TailOutcome>,
}

/// What became of a line of a tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TailOutcome {
    /// Which.
    pub outcome: TailFate,
    /// An entry's number in the room now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub seq: Option<Seq>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was dealt with, RFC 3339 in UTC.
    pub at: String,
}

/// The ways in which a line of a tail is dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TailFate {
    /// Entered again, as a late arrival.
    Entered,
    /// History had it already: its author had offered it again, or another disk of the site held it too.
    There,
    /// Not entered, for the reason given. It stays in the tail.
    Refused,
}

/// A tail that the present principal's database has: `GET /v1/tails` (administrators).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tail {
    /// `<database>-<left_by>-<host>`.
    pub id: String,
    /// Which database.
    pub database: String,
    /// Whose data it was.
    pub host: String,
    /// The epoch that left it behind.
    #[schema(value_type = i64)]
    pub left_by: Epoch,
    /// The last epoch of the old data.
    #[schema(value_type = i64)]
    pub old_epoch: Epoch,
    /// Where the log forked; `unknown` where that is not known.
    pub fork: String,
    /// When it was read from the old data, RFC 3339 in UTC.
    pub extracted_at: String,
    /// When it came into this database, RFC 3339 in UTC.
    pub came_at: String,
    /// When all of it had been dealt with, RFC 3339 in UTC; not yet, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub re_entered_at: Option<String>,
    /// Its entries.
    pub entries: TailCount,
    /// Its changes.
    pub changes: TailCount,
}

/// What has become of the lines of a tail so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TailCount {
    /// How many there are.
    pub all: u64,
    /// Entered again.
    pub entered: u64,
    /// There already.
    pub there: u64,
    /// Refused.
    pub refused: u64,
}

/// A part of a tail's lines: `GET /v1/tails/{id}?after=…` (administrators).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TailPage {
    /// The lines, in order: changes first.
    pub lines: Vec<TailLine>,
    /// What to ask for next; left out at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
