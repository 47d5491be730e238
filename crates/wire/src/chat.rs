//! Frames of the chat WebSocket, `GET /v1/chat` upgraded: one JSON object a text frame, told apart by `type`.
//!
//! A connection begins with `hello` from the client and `welcome` from the server. From then on either side sends at any
//! time. A request carries an `id` of the client's choice, and exactly one answer (`joined`, `left`, `ack` or `refused`)
//! carries it back. A client that resumes joins each room with the cursor of the last entry that it has.

use crate::receipt::Signed;
use rules::durability::Durability;
use rules::id::{Epoch, RoomId, Seq};
use rules::receipt::Durable;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a client stands in a room's log: the last entry that it has, and the epoch that the entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Cursor {
    /// Epoch of the last entry seen.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// Number of the last entry seen; 0 for none.
    #[schema(value_type = i64)]
    pub seq: Seq,
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientFrame {
    /// First frame of a connection.
    Hello {
        /// The token that `POST /v1/sign-in` returned.
        token: String,
        /// The ticket of the last `come_back`, if there was one: it keeps the place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<String>,
        /// Whether acknowledgements are to carry receipts.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        receipts: bool,
    },
    /// Join a room: from now on its entries are delivered. Joining again moves the cursor.
    Join {
        /// Comes back in the answer.
        id: u64,
        /// Which room.
        room: RoomId,
        /// Everything after this place is delivered first, however much it is.
        #[serde(default)]
        after: Option<Cursor>,
        /// Without `after`: so many of the latest entries are delivered first; 30 when left out.
        #[serde(default)]
        history: Option<u32>,
    },
    /// Leave a room.
    Leave {
        /// Comes back in the answer.
        id: u64,
        /// Which room.
        room: RoomId,
    },
    /// Post. Sent again with the same `client_id`, on any connection, it is answered with the first result.
    Post {
        /// Comes back in the answer.
        id: u64,
        /// Which room.
        room: RoomId,
        /// The client message id: unique for this author, kept by the client until the post is acknowledged.
        client_id: Uuid,
        /// The text, 1 to 16,384 bytes of UTF-8.
        text: String,
    },
}

/// What a server sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerFrame {
    /// Answer to `hello`.
    Welcome {
        /// The signed-in user.
        user: String,
        /// The server's name.
        server: String,
        /// The pool's name, which receipts state.
        #[serde(default)]
        pool_name: String,
        /// The epoch that the server writes as.
        epoch: Epoch,
        /// Where clients can connect now.
        servers: Vec<ServerAddress>,
        /// Longest text of a post in bytes.
        post_bytes_max: usize,
        /// Where the pool stands.
        #[serde(flatten)]
        pool: PoolStands,
    },
    /// Many sign in at the moment: the turn of this client comes. Stay connected; `welcome` follows. Comes again while it
    /// lasts.
    Queued {
        /// So many are let in before.
        ahead: u64,
        /// How long that will take, at the present pace.
        about_ms: u64,
    },
    /// More than can wait here at once: the server closes the connection (`close::COME_BACK`). Connect again after exactly this
    /// time and show the ticket in `hello`: whoever comes with it is let in in the order of the first visit.
    ComeBack {
        /// After so many milliseconds. Everybody is given another time.
        after_ms: u64,
        /// For the next `hello`, at whichever server.
        ticket: String,
        /// Where, best first; empty: here again, or wherever else clients are taken.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        servers: Vec<ServerAddress>,
        /// For people.
        reason: String,
    },
    /// Answer to `join`. Entries after the cursor follow.
    Joined {
        /// The request's id.
        id: u64,
        /// Which room.
        room: RoomId,
        /// Its name.
        name: String,
        /// Its newest entry when it was joined.
        head: Cursor,
        /// Set when the cursor stood on entries that history no longer has, because a failover lost them: everything
        /// from this number on in the cursor's epoch is void. Entries follow from this number. Own posts from there on
        /// should be posted again with their client message ids.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rewound_from: Option<Seq>,
    },
    /// Answer to `leave`; no entry of the room follows it. Also sent unasked, with id 0, when the user may not be in
    /// the room any more.
    Left {
        /// The request's id; 0 when it was not asked for.
        id: u64,
        /// Which room.
        room: RoomId,
    },
    /// Answer to `post`: durable on the principal, and on the mirror while the pair is synchronised, or as the room's category
    /// asks for.
    Ack {
        /// The request's id.
        id: u64,
        /// Which room.
        room: RoomId,
        /// The client message id.
        client_id: Uuid,
        /// Its number in the room.
        seq: Seq,
        /// The epoch in which it was written.
        epoch: Epoch,
        /// When it was written: microseconds since the Unix epoch.
        at_us: i64,
        /// Whether this was a repetition of a post that was there already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        repeated: bool,
        /// Where it is durable by now, as far as that is known: it may be durable in more places.
        #[serde(default)]
        durable: Durable,
        /// Set when that is less than the room's category asks for: what it asks for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        less_than: Option<Durability>,
        /// The receipt, if `hello` asked for them. A repetition gets a fresh one of the same entry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<Signed>>,
    },
    /// A post is written and is not durable yet as the room's category asks for: it is neither acknowledged nor shown to anybody.
    /// Its `ack` follows by itself. Comes again when the reason changes.
    PostWaits {
        /// The request's id.
        id: u64,
        /// Which room.
        room: RoomId,
        /// The client message id.
        client_id: Uuid,
        /// What it waits for.
        durability: Durability,
        /// For people.
        reason: String,
    },
    /// A request that was not carried out; nothing was changed by it.
    Refused {
        /// The request's id; 0 when the frame could not be read that far.
        id: u64,
        /// Machine-readable reason.
        code: RefusalCode,
        /// What was refused, why, and what to do.
        message: String,
    },
    /// An entry of a joined room. For one connection and room, numbers come without gap and in order.
    Entry(Entry),
    /// What a lost site had acknowledged has come back: told to its authors and to the managers of its rooms, at their next
    /// sign-in if they are away. May come twice for one tail.
    TailReturned(TailReturned),
    /// The server waits for a writer; posts that it holds are neither acknowledged nor lost.
    Waiting {
        /// For people.
        reason: String,
        /// Since when: microseconds since the Unix epoch.
        #[serde(default)]
        since_us: i64,
    },
    /// The server has a writer again.
    Ready {
        /// The epoch that it writes as.
        epoch: Epoch,
        /// Where the pool stands.
        #[serde(flatten)]
        pool: PoolStands,
    },
    /// Connect elsewhere: this server stops taking clients. What is posted here after this frame is not answered;
    /// unacknowledged posts are to be sent again there.
    Move {
        /// Where, best first; empty when nobody takes clients at the moment: try again by and by.
        servers: Vec<ServerAddress>,
        /// Leave after this many milliseconds, so that not everybody leaves at once.
        after_ms: u64,
        /// For people.
        reason: String,
    },
}

/// Where the pool stands, as far as people should know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStands {
    /// The site that is home: where the writer is. Empty before the pool is initialised.
    #[serde(default)]
    pub site: String,
    /// Whether it has failed over to that site, and is to come back from there some time.
    #[serde(default)]
    pub failed_over: bool,
}

/// A server as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServerAddress {
    /// Its name.
    pub name: String,
    /// Base address, `http://address:port`.
    pub url: String,
    /// Whether it takes clients now.
    pub active: bool,
}

/// An entry of a room's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Entry {
    /// Which room.
    #[schema(value_type = i64)]
    pub room: RoomId,
    /// Its number: 1, 2, 3 … without a gap.
    #[schema(value_type = i64)]
    pub seq: Seq,
    /// The epoch in which it was written.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// Who wrote it.
    pub author: String,
    /// When: microseconds since the Unix epoch.
    pub at_us: i64,
    /// The author's client message id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Uuid>,
    /// Set on a late arrival: a site had acknowledged it and was lost before anybody else had it; it was entered again when
    /// the site's disks returned. What stands above is its place now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
    /// What it is.
    #[serde(flatten)]
    pub content: Content,
}

/// What a late arrival was before its site was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Late {
    /// The epoch in which it was first written.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// Its number then; another entry may have that number now.
    #[schema(value_type = i64)]
    pub seq: Seq,
    /// When it was first written: microseconds since the Unix epoch.
    pub at_us: i64,
}

/// What has become of the entries that one disk of a lost site held and history lacked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailReturned {
    /// The tail's id, as `standfast tail show` takes it.
    pub tail: String,
    /// The host whose disk held it.
    pub host: String,
    /// Own entries that stand in their rooms again, as late arrivals.
    pub entered: u64,
    /// Own entries that were there already, because they had been offered again.
    pub there: u64,
    /// Own entries that were not entered again. They are kept with the tail.
    pub refused: u64,
    /// The first of those that were not, 100 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<RefusedEntry>,
    /// Rooms that the user manages and that the tail is about, whoever wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<ReturnedRoom>,
}

/// An own entry that was not entered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEntry {
    /// To which room it was.
    pub room: RoomId,
    /// The room's name when it was written.
    pub name: String,
    /// Its number then.
    pub seq: Seq,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it was written: microseconds since the Unix epoch.
    pub at_us: i64,
    /// The client message id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Uuid>,
    /// Why, for people.
    pub reason: String,
}

/// A room that entries have come back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnedRoom {
    /// Which room.
    pub room: RoomId,
    /// Its name.
    pub name: String,
    /// Entries that stand in it again.
    pub entered: u64,
    /// Entries that were not entered again.
    pub refused: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// A post.
    Post {
        /// Its text; what an administrator has removed or replaced shows as it is now.
        text: String,
    },
    /// An earlier entry was removed by an administrator.
    Removal {
        /// The entry that is gone.
        #[schema(value_type = i64)]
        target: Seq,
    },
    /// The text of an earlier entry was replaced by an administrator.
    Replacement {
        /// The entry that changed.
        #[schema(value_type = i64)]
        target: Seq,
        /// Its text now.
        text: String,
    },
    /// The room changed: name, description, privacy, members.
    RoomChange {
        /// What changed, for people.
        text: String,
    },
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The frame or body is not what the protocol allows.
    BadRequest,
    /// The token is unknown, expired or revoked.
    NotSignedIn,
    /// Access rules forbid it.
    Forbidden,
    /// No such room, or one that the asker may not know of.
    NotFound,
    /// It exists already.
    Conflict,
    /// Larger than the limit.
    TooLarge,
    /// Too many requests wait already; try again.
    Overloaded,
    /// No writer at the moment; try again, or at another server.
    Unavailable,
    /// This server is not active; connect to one that is.
    NotActive,
    /// Something failed that should not have.
    Internal,
}

/// WebSocket close codes beyond the standard ones.
pub mod close {
    /// The connection could not keep up: connect again and join with your cursors.
    pub const RESUME: u16 = 4001;
    /// This server takes no clients now: connect elsewhere (a `move` frame said where).
    pub const MOVED: u16 = 4002;
    /// Not signed in.
    pub const NOT_SIGNED_IN: u16 = 4003;
    /// A frame broke the protocol.
    pub const BAD_FRAME: u16 = 4004;
    /// More than can wait here at once: a `come_back` frame said when, and where.
    pub const COME_BACK: u16 = 4005;
}
