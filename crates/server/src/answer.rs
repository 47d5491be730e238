//! Telling everybody what became of their posts: sessions, callers, and the servers that have forwarded some.
//!
//! Receipts are signed here, one signature for all that are answered at once. So each server signs for its own clients, also what
//! another one has written for it.

use crate::app::App;
use crate::forward::Answers;
use crate::frame;
use crate::outbox::Outbox;
use crate::poster::Post;
use rules::durability::{Durability, Rule};
use rules::id::{Epoch, RoomId, Seq};
use rules::merkle::Tree;
use rules::receipt::{Durable, Grounds, Statement, signed_root};
use std::sync::Arc;
use tokio::sync::oneshot;
use wire::chat::{RefusalCode, ServerFrame};
use wire::link::ForwardOutcome;
use wire::receipt::Signed;

/// Who waits for the outcome of a post.
pub enum Answer {
    /// A session's request.
    Session {
        /// The request's id.
        id: u64,
        /// Where the answer goes.
        outbox: Outbox,
    },
    /// A call over HTTP.
    Call(oneshot::Sender<(Outcome, Option<Box<Signed>>)>),
    /// Another server, which has forwarded the post.
    Server {
        /// Its name.
        server: Arc<str>,
        /// Its run.
        run: u64,
        /// Its number for the post.
        number: u64,
    },
}

/// What became of a post.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Durable.
    Written(Written),
    /// Written, and acknowledged when it is as durable as this rule asks for, by the writer of this epoch.
    Committed(Written, Rule, Epoch),
    /// Not written.
    Refused {
        /// Machine-readable reason.
        code: RefusalCode,
        /// For people.
        message: String,
    },
}

/// A post that is durable.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// The room that holds it.
    pub room: RoomId,
    /// Its number.
    pub seq: Seq,
    /// The epoch in which it was written.
    pub epoch: Epoch,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    /// Whether it was there already.
    pub repeated: bool,
    /// Where it is durable.
    pub durable: Durable,
    /// Set when that is less than the room's category asks for: what it asks for.
    pub less_than: Option<Durability>,
    /// What its receipt rests on; `None` when it was written by a server that does not say.
    pub grounds: Option<Grounds>,
}

impl Outcome {
    /// As another server is told of it.
    fn forwarded(self, receipt: bool) -> ForwardOutcome {
        match self {
            Outcome::Written(Written { room, seq, epoch, at_us, repeated, durable, less_than: _, grounds }) => {
                let grounds = grounds.filter(|_| receipt);
                ForwardOutcome::Written { room, seq, epoch, at_us, repeated, durable, grounds }
            }
            Outcome::Committed(Written { room, seq, epoch, at_us, repeated, grounds, .. }, rule, writer) => {
                let grounds = grounds.filter(|_| receipt);
                ForwardOutcome::Committed { room, seq, epoch, at_us, repeated, grounds, rule, writer }
            }
            Outcome::Refused { code, message } => ForwardOutcome::Refused { code, message },
        }
    }
}

/// More posts wait to be durable enough than can. `seq`: this one's number, if it is written.
pub fn too_many_wait(rule: Rule, seq: Option<Seq>) -> Outcome {
    let written =
        seq.map(|seq| format!("the post is written as number {seq} and not acknowledged: ")).unwrap_or_default();
    let message = format!(
        "{written}too many posts wait already to be as durable as the room's category asks for ({}); post it again later with the \
         same client_id",
        rule.durability
    );
    Outcome::Refused { code: RefusalCode::Overloaded, message }
}

/// Tell everybody what became of their posts, which the chat path is done with. Who is to be told later is.
pub fn answer_all(app: &App, answers: Vec<(Post, Outcome)>) {
    answers.iter().for_each(|(post, _)| app.poster.resolved(post));
    answer_released(app, answers);
}

/// The same for posts that the chat path was done with already.
pub fn answer_released(app: &App, answers: Vec<(Post, Outcome)>) {
    let mut to_servers = Answers::default();
    let mut later = Vec::new();
    let receipts = sign(app, &answers);
    for ((post, outcome), receipt) in answers.into_iter().zip(receipts) {
        let is_own = !matches!(post.answer, Answer::Server { .. });
        let outcome = match outcome {
            Outcome::Committed(written, rule, writer) if is_own && app.held.has_room() => {
                later.push((post, written, rule, writer));
                continue;
            }
            Outcome::Committed(written, rule, _) if is_own => too_many_wait(rule, Some(written.seq)),
            outcome => outcome,
        };
        if is_own {
            app.counts.answered(&outcome, post.arrived.elapsed());
        }
        match post.answer {
            Answer::Session { id, outbox } => {
                let frame = match outcome {
                    Outcome::Written(written) | Outcome::Committed(written, ..) => {
                        let Written { room, seq, epoch, at_us, repeated, durable, less_than, grounds: _ } = written;
                        let client_id = post.client_id;
                        ServerFrame::Ack {
                            id,
                            room,
                            client_id,
                            seq,
                            epoch,
                            at_us,
                            repeated,
                            durable,
                            less_than,
                            receipt,
                        }
                    }
                    Outcome::Refused { code, message } => ServerFrame::Refused { id, code, message },
                };
                outbox.push(frame::encode(&frame));
            }
            Answer::Call(call) => {
                // Who does not wait any more finds the outcome by the client message id.
                let _ = call.send((outcome, receipt));
            }
            Answer::Server { server, number, .. } => {
                to_servers.add(server, number, post.client_id, outcome.forwarded(post.receipt));
            }
        }
    }
    to_servers.send(app);
    app.held.answer_later(later);
}

/// A receipt for each answer that is to have one, all signed together.
fn sign(app: &App, answers: &[(Post, Outcome)]) -> Vec<Option<Box<Signed>>> {
    let mut receipts: Vec<Option<Box<Signed>>> = vec![None; answers.len()];
    let view = app.view();
    let stated: Vec<(usize, Statement, Grounds)> = answers
        .iter()
        .enumerate()
        .filter_map(|(at, (post, outcome))| {
            let (statement, grounds) = statement_of(&view.topology.pool, post, outcome)?;
            Some((at, statement, grounds))
        })
        .collect();
    let Some(tree) = Tree::over(stated.iter().map(|(_, statement, _)| statement.leaf()).collect()) else {
        return receipts;
    };
    let (key, size) = (&app.signing_key, tree.size());
    let signature = key.sign(&signed_root(size, &tree.root()));
    for (index, (at, statement, grounds)) in (0..).zip(stated) {
        receipts[at] = Some(Box::new(Signed {
            author: statement.author,
            digest: grounds.content,
            nonce: grounds.nonce,
            chain: grounds.chain,
            key: key.id(),
            index,
            size,
            path: tree.path(index),
            signature,
        }));
    }
    receipts
}

/// What the receipt of an answer states; `None` when it gets none from this server.
fn statement_of(pool: &str, post: &Post, outcome: &Outcome) -> Option<(Statement, Grounds)> {
    let Outcome::Written(Written { room, seq, epoch, at_us, durable, grounds, .. }) = *outcome else {
        return None;
    };
    let grounds = grounds.filter(|_| post.receipt && !matches!(post.answer, Answer::Server { .. }))?;
    let statement = Statement {
        pool: pool.to_owned(),
        room,
        seq,
        epoch,
        at_us,
        author: post.author.id,
        client_id: post.client_id.into_bytes(),
        content: grounds.content,
        durable,
        chain: grounds.chain,
    };
    Some((statement, grounds))
}
