//! What follows a commit: its entries are shown to this server's sessions and told to the other servers, and its authors are answered.
//!
//! Beside the chat path, which has the next transaction on its way meanwhile, and in the order of the commits. What is here is
//! durable already: whatever becomes of the writer, it is shown and acknowledged.

use crate::answer::{Outcome, Written, answer_all};
use crate::app::App;
use crate::durable;
use crate::frame::{self, Frame};
use crate::poster::Post;
use crate::room::{Need, Offer};
use rules::durability::Rule;
use rules::id::{Epoch, RoomId, Seq};
use std::sync::Arc;
use store::{Flushed, Store, Waits};
use tokio::sync::mpsc;
use wire::chat::{Content, Entry, RefusalCode, ServerFrame};
use wire::link::Committed;

/// Transactions that may wait here before the chat path does.
const WAITING_MAX: usize = 4;

/// A post on which was decided: the room's access version on which that rests, and its rule.
pub type Decided = (Post, i64, Rule);

/// A transaction that has returned.
pub struct Transaction {
    /// The writer.
    pub store: Arc<Store>,
    /// What its commit waited for.
    pub waits: Waits,
    /// Its posts, what became of each, and whether the transaction that wrote or found it was to wait for a standby.
    pub posts: Vec<(Decided, Written, bool)>,
    /// Who had flushed the log up to its end, if that was asked and answered.
    pub flushed: Option<Flushed>,
}

/// Hands transactions over, in their order.
pub struct AfterCommit(mpsc::Sender<Transaction>);

impl AfterCommit {
    /// A task that does what follows each commit, for as long as this value lives.
    pub fn start(app: &Arc<App>) -> Self {
        let (transactions, mut queue) = mpsc::channel(WAITING_MAX);
        let app = app.clone();
        tokio::spawn(async move {
            while let Some(transaction) = queue.recv().await {
                show_and_answer(&app, transaction).await;
            }
        });
        Self(transactions)
    }

    /// Do what follows this one, soon.
    pub async fn take(&self, transaction: Transaction) {
        if self.0.send(transaction).await.is_err() {
            // The process ends; clients ask again elsewhere.
            tracing::warn!("what was committed last is not shown or acknowledged here any more");
        }
    }
}

async fn show_and_answer(app: &Arc<App>, transaction: Transaction) {
    let Transaction { store, waits, posts, flushed } = transaction;
    let mut shown = Shown::default();
    let mut acknowledged = Vec::with_capacity(posts.len());
    let (mut later, mut shown_later, mut elsewhere, mut waited) = (Vec::new(), Vec::new(), Vec::new(), false);
    for ((post, version, rule), written, waited_for_standby) in posts {
        let Written { room, seq, at_us, repeated, .. } = written;
        // Of another room's rule nothing is known here: it is looked up before the post is acknowledged.
        let rule = if room == post.room { rule } else { Rule::STRICTEST };
        if rule.asks_standbys() {
            if !repeated {
                shown_later.push((rule, version, entry_of(&post, seq, store.epoch(), at_us)));
            }
            let is_elsewhere = room != post.room && waits == Waits::ForNobody;
            let to = if is_elsewhere { &mut elsewhere } else { &mut later };
            to.push((post, Outcome::Committed(written, rule, store.epoch())));
            continue;
        }
        if repeated {
            // It may be of an attempt whose end was not seen, with no one told; its text is the first one's.
            hint(app, room, seq);
        } else {
            let epoch = store.epoch();
            shown.show(app, (room, seq, epoch), version, || entry_of(&post, seq, epoch, at_us));
        }
        waited |= waited_for_standby;
        acknowledged.push((post, written));
    }
    // Before the answers: a server shows what it has forwarded before it acknowledges it.
    shown.tell(app);
    app.held.show_later(store.epoch(), shown_later);
    answer_all(app, later);
    confirm_elsewhere(app, &store, elsewhere);
    if acknowledged.is_empty() {
        return;
    }
    let durable = durable::find_out(app, &store, waited, flushed).await;
    let answer = |(post, written)| (post, Outcome::Written(Written { durable, ..written }));
    answer_all(app, acknowledged.into_iter().map(answer).collect());
}

/// Posts that a commit which waited for nobody has found in another room, where the first of them may not be on the mirror yet: that is
/// waited for beside the lane.
fn confirm_elsewhere(app: &Arc<App>, store: &Arc<Store>, posts: Vec<(Post, Outcome)>) {
    if posts.is_empty() {
        return;
    }
    let (app, store) = (app.clone(), store.clone());
    tokio::spawn(async move {
        let confirmed = store.confirm().await;
        let outcome = |outcome: Outcome| match &confirmed {
            Ok(()) => outcome,
            Err(error) => {
                let message =
                    format!("the post is there and not confirmed: {error}; post it again with the same client_id");
                Outcome::Refused { code: RefusalCode::Unavailable, message }
            }
        };
        answer_all(&app, posts.into_iter().map(|(post, found)| (post, outcome(found))).collect());
    });
}

fn entry_of(post: &Post, seq: Seq, epoch: Epoch, at_us: i64) -> Entry {
    Entry {
        room: post.room,
        seq,
        epoch,
        author: post.author.name.to_string(),
        at_us,
        client_id: Some(post.client_id),
        late: None,
        content: Content::Post { text: post.text.clone() },
    }
}

/// What a transaction has committed, for the links.
#[derive(Default)]
pub struct Shown {
    entries: Vec<Committed>,
    frames: Vec<Frame>,
}

impl Shown {
    /// Show a committed entry to this server's sessions, if there are any in its room. It is made only when it is needed.
    pub fn show(
        &mut self,
        app: &App,
        (id, seq, epoch): (RoomId, Seq, Epoch),
        access_version: i64,
        entry: impl FnOnce() -> Entry,
    ) {
        let room = app.rooms.get(id);
        let links = app.links.any();
        if room.is_none() && !links {
            return;
        }
        let frame = frame::encode(&ServerFrame::Entry(entry()));
        if links {
            self.entries.push(Committed { room: id, seq, epoch, access_version });
            self.frames.push(frame.clone());
        }
        if let Some(room) = room {
            let need = room.offer(Offer { seq, access_version, frame }, epoch);
            app.mender.ask(id, need);
        }
    }

    /// Tell the other servers.
    pub fn tell(self, app: &App) {
        app.links.tell_committed(self.entries, &self.frames);
    }
}

/// An entry is known to be there without being at hand: it is read from the database.
pub fn hint(app: &App, room: RoomId, seq: Seq) {
    if let Some(live) = app.rooms.get(room) {
        let need: Need = live.lock().hint(seq, 0);
        app.mender.ask(room, need);
    }
}
