//! Bodies of the chat servers' HTTP API. The server generates `/openapi.json` from these.
//!
//! A token from `sign-in` goes into `Authorization: Bearer …`. Errors have the status of their code and an
//! `ErrorBody`. Lists of members are principals' names: users or groups.

use crate::chat::{Entry, RefusalCode, ServerAddress};
use crate::receipt::Receipt;
use rules::access::{Privacy, Role, RoomKind};
use rules::durability::{Durability, WhenUnavailable};
use rules::id::{CategoryId, Epoch, RoomId, Seq};
use rules::receipt::Durable;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every error's body.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Machine-readable reason.
    pub code: RefusalCode,
    /// What failed, on what, why, and what to do.
    pub message: String,
    /// With `overloaded`: come back after so many milliseconds; everybody is given another time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub come_back_ms: Option<u64>,
}

/// `POST /v1/sign-in`
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// A signed-in session.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SignedIn {
    /// The user's name.
    pub user: String,
    /// Opaque; valid at every server and both sites until revoked.
    pub token: String,
    /// Whether the user is an administrator.
    pub administrator: bool,
}

/// `GET /v1/servers` (no token needed): where clients can connect.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Servers {
    /// All servers of the pool, active ones first.
    pub servers: Vec<ServerAddress>,
    /// The present epoch.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
}

/// `POST /v1/users` (administrators)
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Unique among principals.
    pub name: String,
    /// Without one the user cannot sign in by password (bots; an administrator issues tokens).
    #[serde(default)]
    pub password: Option<String>,
    /// Whether the user is an administrator.
    #[serde(default)]
    pub administrator: bool,
}

/// `POST /v1/users/batch` (administrators): users that exist already are left as they are.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUsers {
    /// Users without passwords; a token for each comes back.
    pub names: Vec<String>,
}

/// Answer to `POST /v1/users/batch`, in the order of the request. Names are compared without regard to case: a user that
/// was there already comes back as it is spelled there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct NewTokens {
    /// A session each.
    pub sessions: Vec<SignedIn>,
}

/// `POST /v1/groups` (administrators)
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// Unique among principals.
    pub name: String,
    /// Users and groups in it.
    #[serde(default)]
    pub members: Vec<String>,
}

/// `POST /v1/categories` (administrators)
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCategory {
    /// Unique among categories and rooms.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The scope: who may hold any role in its rooms. The group `Everyone` holds every user.
    #[serde(default)]
    pub allowed_members: Vec<String>,
    /// Exclusions; they always win.
    #[serde(default)]
    pub denied_members: Vec<String>,
    /// Who may create rooms.
    #[serde(default)]
    pub creators: Vec<String>,
    /// What an acknowledgement in its rooms waits for: `disk`, `mirror` (when left out) or `both_sites`.
    #[serde(default)]
    #[schema(value_type = String)]
    pub durability: Durability,
    /// When that cannot be had: `acknowledge_as_less` (when left out) or `wait`; not with `disk`, which is always there.
    #[serde(default)]
    #[schema(value_type = String)]
    pub when_unavailable: WhenUnavailable,
}

/// A list changed: `PATCH /v1/categories/{id}` and `PATCH /v1/rooms/{id}`; names to add and to take away.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ListChange {
    /// To add.
    #[serde(default)]
    pub add: Vec<String>,
    /// To take away.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// `PATCH /v1/categories/{id}` (administrators)
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CategoryChange {
    /// The scope.
    #[serde(default)]
    pub allowed_members: ListChange,
    /// The exclusions.
    #[serde(default)]
    pub denied_members: ListChange,
    /// Who may create rooms.
    #[serde(default)]
    pub creators: ListChange,
    /// What an acknowledgement in its rooms waits for from now on: `disk`, `mirror` or `both_sites`. `disk` takes `wait` back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub durability: Option<Durability>,
    /// When that cannot be had: `acknowledge_as_less` or `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub when_unavailable: Option<WhenUnavailable>,
}

/// A category.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Category {
    /// Its number.
    #[schema(value_type = i64)]
    pub id: CategoryId,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The scope.
    pub allowed_members: Vec<String>,
    /// The exclusions.
    pub denied_members: Vec<String>,
    /// Who may create rooms.
    pub creators: Vec<String>,
    /// What an acknowledgement in its rooms waits for: `disk`, `mirror` or `both_sites`.
    #[serde(default)]
    #[schema(value_type = String)]
    pub durability: Durability,
    /// When that cannot be had: `acknowledge_as_less` or `wait`.
    #[serde(default)]
    #[schema(value_type = String)]
    pub when_unavailable: WhenUnavailable,
}

/// `POST /v1/rooms` (administrators and creators)
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRoom {
    /// Unique among categories and rooms.
    pub name: String,
    /// The category's name.
    pub category: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// `closed` when left out.
    #[serde(default = "closed")]
    #[schema(value_type = String)]
    pub privacy: Privacy,
    /// `normal` when left out.
    #[serde(default = "normal")]
    #[schema(value_type = String)]
    pub kind: RoomKind,
    /// Members from the start.
    #[serde(default)]
    pub members: Vec<String>,
}

fn closed() -> Privacy {
    Privacy::Closed
}

fn normal() -> RoomKind {
    RoomKind::Normal
}

/// `PATCH /v1/rooms/{id}` (administrators and managers)
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomChange {
    /// Lists to change.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, ListChange>)]
    pub roles: std::collections::BTreeMap<Role, ListChange>,
    /// Switch the room off (managers, administrators) or on (administrators).
    #[serde(default)]
    pub disabled: Option<bool>,
    /// New privacy.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub privacy: Option<Privacy>,
}

/// A room as the asker may see it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Room {
    /// Its number.
    #[schema(value_type = i64)]
    pub id: RoomId,
    /// Its name.
    pub name: String,
    /// Its category's name.
    pub category: String,
    /// For people.
    pub description: String,
    /// Who finds and joins.
    #[schema(value_type = String)]
    pub privacy: Privacy,
    /// Who posts.
    #[schema(value_type = String)]
    pub kind: RoomKind,
    /// Whether it is off.
    pub disabled: bool,
    /// Number of its newest entry.
    #[schema(value_type = i64)]
    pub last_seq: Seq,
}

/// `GET /v1/rooms?name=…` (all that the asker may find, or the one of that name)
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Rooms {
    /// The rooms, by name.
    pub rooms: Vec<Room>,
}

/// `GET /v1/rooms/{id}/entries?after=…|before=…&limit=…`: a page of history. Both bounds exclusive; without either the
/// latest page. Always in rising order. Administrators may read every room here (`standfast audit`).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page {
    /// The entries, in order.
    pub entries: Vec<Entry>,
    /// Number of the room's newest entry.
    #[schema(value_type = i64)]
    pub last_seq: Seq,
    /// Where later epochs began in this room, oldest first.
    pub epochs: Vec<EpochStart>,
}

/// Where an epoch began in a room: entries of earlier epochs with larger numbers than `last_seq` were lost to the
/// failover that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EpochStart {
    /// The epoch.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// The room's last entry of earlier epochs.
    #[schema(value_type = i64)]
    pub last_seq: Seq,
}

/// `POST /v1/rooms/{id}/entries`: post without a WebSocket.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPost {
    /// The client message id.
    pub client_id: uuid::Uuid,
    /// The text.
    pub text: String,
}

/// Answer to a post: the same as the `ack` frame, with its receipt.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Posted {
    /// The client message id.
    pub client_id: uuid::Uuid,
    /// Its number in the room.
    #[schema(value_type = i64)]
    pub seq: Seq,
    /// The epoch in which it was written.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    /// Whether it was there already.
    pub repeated: bool,
    /// Where it is durable by now, as far as that is known: `disk`, `mirror` or `site`.
    #[schema(value_type = String)]
    pub durable: Durable,
    /// Set when that is less than the room's category asks for: what it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub less_than: Option<Durability>,
    /// The receipt. None when a server of an earlier version wrote the post.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

/// `GET /v1/health`: a real write was done (503 with the reason when it was not).
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The server's name.
    pub server: String,
    /// Whether it accepts clients.
    pub active: bool,
    /// The epoch with which it writes; `None` when it has no writer.
    #[schema(value_type = Option<i64>)]
    pub writes_as: Option<Epoch>,
    /// Clients connected.
    pub sessions: u64,
    /// Microseconds that the write took.
    pub write_us: Option<u64>,
    /// Processor time used by the process so far, in microseconds (for benchmarks).
    pub cpu_us: u64,
}
