//! One server writes for all: the others forward their posts to it over the links.
//!
//! Two servers that write at once wait for each other in the database: a transaction holds its rooms until its mirror has
//! confirmed. So the active servers agree, without a word, on one of them, the gatherer, from the record alone. It puts
//! what they forward into its own batches, shows it, tells every server, and answers. This is a matter of speed and never of
//! truth: a server that hears nothing, or whose link breaks, or that is declined, writes the same posts itself, carefully;
//! the client message ids make that exact. Until that is done it writes nothing newer, so the posts of a session keep their
//! order.

use crate::app::App;
use crate::chat_path::{Answer, Author, Outcome, Post, answer_all};
use crate::standing::Standing;
use cluster::name::{DatabaseName, ServerName};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::link::{Answered, ForwardOutcome, Forwarded};

/// Posts that may be with the gatherer at a time.
const AWAY_MAX: usize = 10_000;
/// A gatherer that has answered nothing for so long, with posts before it, is given up.
const PATIENCE: Duration = Duration::from_millis(500);
/// For how long a gatherer that was given up gets nothing.
const SHUN: Duration = Duration::from_secs(5);
/// Between two looks at whether the gatherer has to be given up.
const LOOK: Duration = Duration::from_millis(50);

/// The posts that are with the gatherer.
#[derive(Default)]
pub struct Forward {
    away: Mutex<Away>,
    changed: Notify,
}

#[derive(Default)]
struct Away {
    /// By number, which rises in the order in which they were posted here.
    posts: BTreeMap<u64, Post>,
    /// The number of the last one.
    last: u64,
    /// Who has them, and how often links had broken when the first of them was sent.
    with: Option<(ServerName, u64)>,
    /// When the gatherer last answered, or took the first of them.
    heard: Option<Instant>,
    /// It will not write them.
    declined: bool,
    /// Whom nothing is forwarded to until then.
    shunned: Option<(ServerName, Instant)>,
}

/// How this server stands to the gatherer, with posts before it.
enum Trust {
    /// It is expected to answer.
    Kept,
    /// It will not write them, or may not have got them.
    Lost,
    /// It has been silent for too long.
    Silent(ServerName),
}

/// The gatherer: the first active server at the writer's site, in the order of the record, else the first of all. `None`
/// when nobody is active.
pub fn gatherer(active: &[ServerName], is_beside_writer: impl Fn(&ServerName) -> bool) -> Option<&ServerName> {
    active.iter().find(|name| is_beside_writer(name)).or_else(|| active.first())
}

impl Forward {
    fn away(&self) -> std::sync::MutexGuard<'_, Away> {
        self.away.lock().expect("nothing panics while it holds what is away")
    }

    /// To whom this server forwards now; `None` when it writes itself.
    fn target(&self, app: &App) -> Option<ServerName> {
        if !matches!(*app.standing.borrow(), Standing::Ready { .. }) {
            return None;
        }
        let view = app.view();
        let record = view.record.as_ref()?;
        let topology = &view.topology;
        let writer = record
            .databases
            .get(&DatabaseName::from(crate::standing::CONTENT_DATABASE))
            .and_then(|d| d.principal.as_ref());
        let site = writer.and_then(|host| topology.site_of(host));
        let to = gatherer(&record.active_servers, |name| topology.site_of_server(name) == site)?;
        let shunned = self.away().shunned.as_ref().is_some_and(|(name, until)| name == to && Instant::now() < *until);
        (*to != app.name && !shunned && app.links.is_up(to)).then(|| to.clone())
    }

    /// Forward these posts, or give them back because this server has to write them itself. Whatever is away already comes
    /// back with them, before them.
    pub fn forward(&self, app: &App, posts: Vec<Post>) -> Result<(), Vec<Post>> {
        // Counted before it is looked at: a link that ends in between is found by the count.
        let broken = app.links.broken();
        let Some(to) = self.target(app) else { return Err(self.take_back(app, posts, None)) };
        let sent = {
            let mut away = self.away();
            let fits = away.posts.len() + posts.len() <= AWAY_MAX;
            let same = away.posts.is_empty() || away.with.as_ref() == Some(&(to.clone(), broken));
            if fits && same && !away.declined {
                if away.posts.is_empty() {
                    away.with = Some((to.clone(), broken));
                    away.heard = Some(Instant::now());
                }
                let frame: Vec<Forwarded> = posts.iter().zip(away.last + 1..).map(|(p, n)| forwarded(p, n)).collect();
                for post in posts {
                    away.last += 1;
                    let number = away.last;
                    away.posts.insert(number, post);
                }
                drop(away);
                app.links.forward(&to, frame)
            } else {
                drop(away);
                return Err(self.take_back(app, posts, None));
            }
        };
        self.changed.notify_one();
        if sent { Ok(()) } else { Err(self.take_back(app, Vec::new(), None)) }
    }

    /// Returns the posts that this server has to write itself after all, in their order.
    pub async fn given_up(&self, app: &App) -> Vec<Post> {
        loop {
            if self.away().posts.is_empty() {
                self.changed.notified().await;
                continue;
            }
            match self.trust(app) {
                Trust::Lost => return self.take_back(app, Vec::new(), None),
                Trust::Silent(gatherer) => return self.take_back(app, Vec::new(), Some(gatherer)),
                Trust::Kept => {}
            }
            // Whichever comes first: a broken link, a word from the gatherer, or the time to look again.
            let _ = tokio::time::timeout(LOOK, self.changed.notified()).await;
        }
    }

    /// Whether what is away is still expected to be answered.
    fn trust(&self, app: &App) -> Trust {
        let broken = app.links.broken();
        let writes = matches!(*app.standing.borrow(), Standing::Ready { .. });
        let away = self.away();
        let Some((with, when)) = away.with.as_ref() else { return Trust::Lost };
        if away.heard.is_some_and(|at| at.elapsed() >= PATIENCE) {
            return Trust::Silent(with.clone());
        }
        if away.declined || *when != broken || !writes { Trust::Lost } else { Trust::Kept }
    }

    fn take_back(&self, app: &App, newer: Vec<Post>, shun: Option<ServerName>) -> Vec<Post> {
        let mut away = self.away();
        away.declined = false;
        away.with = None;
        let mut posts: Vec<Post> = std::mem::take(&mut away.posts).into_values().collect();
        if let Some(name) = shun {
            tracing::warn!(gatherer = %name, posts = posts.len(), "no answer to forwarded posts; this server writes them itself");
            away.shunned = Some((name, Instant::now() + SHUN));
        } else if !posts.is_empty() {
            tracing::info!(server = %app.name, posts = posts.len(), "forwarded posts are written here after all");
        }
        posts.extend(newer);
        posts
    }

    /// What the gatherer says of posts that were forwarded to it.
    pub fn take(&self, app: &App, answers: Vec<Answered>) {
        let mut done = Vec::with_capacity(answers.len());
        {
            let mut away = self.away();
            away.heard = Some(Instant::now());
            for Answered { number, client_id, outcome } in answers {
                let outcome = match outcome {
                    ForwardOutcome::Declined => {
                        away.declined = true;
                        continue;
                    }
                    ForwardOutcome::Written { room, seq, epoch, at_us, repeated } => {
                        Outcome::Written { room, seq, epoch, at_us, repeated }
                    }
                    ForwardOutcome::Refused { code, message } => Outcome::Refused { code, message },
                };
                // One that is not here was taken back, or forwarded by an earlier process of this server.
                if away.posts.get(&number).is_some_and(|post| post.client_id == client_id)
                    && let Some(post) = away.posts.remove(&number)
                {
                    done.push((post, outcome));
                }
            }
        }
        answer_all(app, done);
        self.changed.notify_one();
    }

    /// A link has broken: look at once.
    pub fn link_broke(&self) {
        self.changed.notify_one();
    }
}

fn forwarded(post: &Post, number: u64) -> Forwarded {
    Forwarded {
        number,
        room: post.room,
        author: post.author.id,
        author_name: post.author.name.to_string(),
        client_id: post.client_id,
        text: post.text.clone(),
    }
}

/// At the gatherer: put what another server forwards among this server's posts.
pub fn gather(app: &App, server: &Arc<str>, posts: Vec<Forwarded>) {
    for post in posts {
        app.poster.post(
            app,
            Post {
                room: post.room,
                author: Author { id: post.author, name: post.author_name.into() },
                client_id: post.client_id,
                text: post.text,
                answer: Answer::Server { server: server.clone(), number: post.number },
            },
        );
    }
}

/// At the gatherer: answers to other servers, a frame for each.
#[derive(Default)]
pub struct Answers {
    servers: BTreeMap<Arc<str>, Vec<Answered>>,
}

impl Answers {
    /// Note an answer.
    pub fn add(&mut self, server: Arc<str>, number: u64, client_id: uuid::Uuid, outcome: ForwardOutcome) {
        self.servers.entry(server).or_default().push(Answered { number, client_id, outcome });
    }

    /// Send them.
    pub fn send(self, app: &App) {
        for (server, answers) in self.servers {
            app.links.answer(&server, answers);
        }
    }
}

impl From<Outcome> for ForwardOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Written { room, seq, epoch, at_us, repeated } => {
                ForwardOutcome::Written { room, seq, epoch, at_us, repeated }
            }
            Outcome::Refused { code, message } => ForwardOutcome::Refused { code, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(active: &[&str], beside: &[&str], expect: Option<&str>) {
        let active: Vec<ServerName> = active.iter().map(|n| ServerName::from(*n)).collect();
        let got = gatherer(&active, |name| beside.contains(&name.as_str()));
        assert_eq!(got.map(ServerName::as_str), expect, "{active:?} {beside:?}");
    }

    #[test]
    fn every_server_finds_the_same_gatherer_beside_the_writer() {
        check(&["c", "a", "b"], &["a", "b"], Some("a"));
        check(&["c", "a"], &["c", "a"], Some("c"));
        check(&["c", "a"], &[], Some("c"));
        check(&[], &[], None);
    }
}
