//! What a session tells its owner.

use rules::durability::Durability;
use rules::id::{Epoch, RoomId, Seq};
use rules::receipt::Durable;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use wire::chat::{Cursor, Entry, PoolStands, RefusalCode, TailReturned};
use wire::receipt::Receipt;

/// What a session tells its owner, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A server has let the session in.
    Connected {
        /// The server's name.
        server: String,
        /// The epoch that it writes as.
        epoch: Epoch,
    },
    /// The connection is gone; another one is sought.
    Disconnected {
        /// Why, for people.
        reason: String,
    },
    /// The server waits for a writer; posts are held.
    Waiting {
        /// For people.
        reason: String,
        /// Since when: microseconds since the Unix epoch; 0 when the server does not say.
        since_us: i64,
    },
    /// The server has a writer again.
    Ready {
        /// The epoch that it writes as.
        epoch: Epoch,
    },
    /// Many sign in at the moment: the session's turn comes.
    Queued {
        /// So many are before.
        ahead: u64,
        /// About how long it will take.
        about: Duration,
    },
    /// More than can wait at the server: the session comes back by itself, to the place that it had.
    ComesBack {
        /// After this time.
        after: Duration,
        /// For people.
        reason: String,
    },
    /// The pool stands elsewhere than when the session last heard of it: it has failed over, come back, or got another writer.
    PoolChanged {
        /// The epoch now.
        epoch: Epoch,
        /// Where it stands now.
        now: PoolStands,
        /// Whether it was failed over before.
        was_failed_over: bool,
    },
    /// The server sends its clients elsewhere.
    Moved {
        /// For people.
        reason: String,
    },
    /// A room was joined, or joined again on a new connection.
    Joined {
        /// Which room.
        room: RoomId,
        /// Its name.
        name: String,
        /// The last number that the session had; `None`: joined afresh, with some history.
        after: Option<Seq>,
        /// The room's newest entry.
        head: Cursor,
    },
    /// What was seen from `from` on is void: a failover lost it.
    Rewound {
        /// Which room.
        room: RoomId,
        /// The first number that is void.
        from: Seq,
    },
    /// Own posts that were acknowledged, and that a failover may have lost, are being offered again.
    OfferedAgain {
        /// How many.
        posts: usize,
    },
    /// The room was left. No entry of it follows.
    Left {
        /// Which room.
        room: RoomId,
        /// Whether the session asked for it; if not, the user may not be in the room any more.
        asked: bool,
    },
    /// An entry that follows the last one.
    Entry(Entry),
    /// An entry that does not follow the last one: the server broke the protocol. The session resumes from its cursor.
    Disorder {
        /// What came.
        entry: Entry,
        /// What was to come; `None` for a room that is not joined.
        expected: Option<Seq>,
    },
    /// An own post is durable.
    Acknowledged {
        /// The room that holds it.
        room: RoomId,
        /// The client message id.
        client_id: Uuid,
        /// Its text.
        text: Arc<str>,
        /// Its number.
        seq: Seq,
        /// The epoch in which it was written.
        epoch: Epoch,
        /// When it was written: microseconds since the Unix epoch.
        at_us: i64,
        /// How long it took since it was handed to the session, or since it was offered again.
        took: Duration,
        /// Whether it had been acknowledged before, and was offered again because that may have been lost.
        again: bool,
        /// Where it was durable by then, as far as the server knew.
        durable: Durable,
        /// Set when that is less than the room's category asks for: what it asks for.
        less_than: Option<Durability>,
        /// The receipt, if the session asks for them.
        receipt: Option<Box<Receipt>>,
    },
    /// An own post is written and not yet as durable as its room's category asks for: it is acknowledged by and by.
    PostWaits {
        /// The room that holds it.
        room: RoomId,
        /// The client message id.
        client_id: Uuid,
        /// What it waits for.
        durability: Durability,
        /// For people.
        reason: String,
    },
    /// An own post was given up: the server will not take it.
    GivenUp {
        /// Which room.
        room: RoomId,
        /// The client message id.
        client_id: Uuid,
        /// Machine-readable reason.
        code: RefusalCode,
        /// For people.
        message: String,
        /// Whether it had been acknowledged before, and was offered again because that may have been lost.
        again: bool,
    },
    /// A room cannot be joined.
    JoinRefused {
        /// Which room.
        room: RoomId,
        /// Machine-readable reason.
        code: RefusalCode,
        /// For people.
        message: String,
    },
    /// What a lost site had acknowledged has come back.
    TailReturned(TailReturned),
    /// The server complained of something that this client sent.
    Complaint {
        /// For people.
        message: String,
    },
    /// The session is over for good.
    Ended {
        /// Why, for people.
        reason: String,
    },
}
