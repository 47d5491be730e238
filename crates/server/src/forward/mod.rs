//! One server writes for all: the others forward their posts to it over the links.
//!
//! Two servers that write at once wait for each other in the database: a transaction holds its rooms until its mirror has
//! confirmed. So the active servers agree, without a word, on one of them, the gatherer, from the record alone. It puts
//! what they forward into its own batches, shows it, tells every server, and answers. This is a matter of speed and never of
//! truth: a server that hears nothing, or whose link breaks, or that is declined, writes the same posts itself, carefully;
//! the client message ids make that exact. Until that is done it writes nothing newer, so the posts of a session keep their
//! order.

mod away;
#[cfg(test)]
mod simulation;

use self::away::{Away, Identified, Trust};
use crate::answer::{Answer, Outcome, Written, answer_all};
use crate::app::App;
use crate::poster::{Author, Post, Way};
use crate::standing::Standing;
use cluster::name::{DatabaseName, ServerName};
use rules::receipt::Durable;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use wire::link::{Answered, ForwardOutcome, Forwarded};

/// Between two looks at whether the gatherer has to be given up.
const LOOK: Duration = Duration::from_millis(50);

/// The posts that are with the gatherer.
#[derive(Default)]
pub struct Forward {
    away: Mutex<Away<Post>>,
    changed: Notify,
    /// As the gatherer: the run of each other server of which a post was declined.
    declined: Mutex<BTreeMap<Arc<str>, u64>>,
}

impl Identified for Post {
    fn client_id(&self) -> uuid::Uuid {
        self.client_id
    }
}

/// The gatherer: the first active server at the writer's site, in the order of the record, else the first of all. `None`
/// when nobody is active.
pub fn gatherer(active: &[ServerName], is_beside_writer: impl Fn(&ServerName) -> bool) -> Option<&ServerName> {
    active.iter().find(|name| is_beside_writer(name)).or_else(|| active.first())
}

impl Forward {
    fn away(&self) -> std::sync::MutexGuard<'_, Away<Post>> {
        self.away.lock().expect("nothing panics while it holds what is away")
    }

    /// To whom this server forwards now; `None` when it writes itself.
    fn target(&self, app: &App) -> Option<ServerName> {
        if !writes(app) {
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
        let goes = *to != app.name && !self.away().shuns(to, Instant::now()) && app.links.is_up(to);
        goes.then(|| to.clone())
    }

    /// Forward these posts, or give them back because this server has to write them itself. Whatever is away already comes
    /// back with them, before them.
    pub fn forward(&self, app: &App, posts: Vec<Post>) -> Result<(), Vec<Post>> {
        // Counted before it is looked at: a link that ends in between is found by the count.
        let broken = app.links.broken();
        let Some(to) = self.target(app) else { return Err(self.take_back(None, posts)) };
        let mut frame: Vec<Forwarded> = posts.iter().map(forwarded).collect();
        let sent = self.away().send(&to, broken, Instant::now(), posts);
        let (run, first) = match sent {
            Ok(sent) => sent,
            Err(posts) => return Err(self.take_back(None, posts)),
        };
        frame.iter_mut().zip(first..).for_each(|(post, number)| post.number = number);
        if !app.links.forward(&to, run, frame) {
            return Err(self.take_back(None, Vec::new()));
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Returns the posts that this server has to write itself after all, in their order.
    pub async fn given_up(&self, app: &App) -> Vec<Post> {
        loop {
            if self.away().is_empty() {
                self.changed.notified().await;
                continue;
            }
            let trust = self.away().trust(app.links.broken(), writes(app), Instant::now());
            match trust {
                Trust::Lost => return self.take_back(None, Vec::new()),
                Trust::Silent(gatherer) => return self.take_back(Some(gatherer), Vec::new()),
                Trust::Kept => {}
            }
            // Whichever comes first: a broken link, a word from the gatherer, or the time to look again.
            let _ = tokio::time::timeout(LOOK, self.changed.notified()).await;
        }
    }

    fn take_back(&self, shun: Option<ServerName>, newer: Vec<Post>) -> Vec<Post> {
        let mut posts = self.away().take_back(shun.clone(), Instant::now());
        match shun {
            Some(gatherer) => {
                tracing::warn!(%gatherer, posts = posts.len(), "forwarded posts are not answered; they are written here");
            }
            None if !posts.is_empty() => {
                tracing::info!(posts = posts.len(), "forwarded posts are written here after all");
            }
            None => {}
        }
        posts.extend(newer);
        posts
    }

    /// What the gatherer says of posts that were forwarded to it.
    pub fn take(&self, app: &App, answers: Vec<Answered>) {
        let now = Instant::now();
        let mut done = Vec::with_capacity(answers.len());
        for Answered { number, client_id, outcome } in answers {
            let outcome = match outcome {
                ForwardOutcome::Declined => {
                    self.away().declined(now);
                    continue;
                }
                ForwardOutcome::Written { room, seq, epoch, at_us, repeated, durable, grounds } => {
                    Outcome::Written(Written { room, seq, epoch, at_us, repeated, durable, less_than: None, grounds })
                }
                ForwardOutcome::Committed { room, seq, epoch, at_us, repeated, grounds, rule, writer } => {
                    let (durable, less_than) = (Durable::Disk, None);
                    let written = Written { room, seq, epoch, at_us, repeated, durable, less_than, grounds };
                    Outcome::Committed(written, rule, writer)
                }
                ForwardOutcome::Refused { code, message } => Outcome::Refused { code, message },
            };
            done.extend(self.away().answered(number, client_id, now).map(|post| (post, outcome)));
        }
        answer_all(app, done);
        self.changed.notify_one();
    }

    /// As the gatherer: whether a post of this run was declined, so that those that follow must be.
    pub fn has_declined(&self, server: &str, run: u64) -> bool {
        let declined = self.declined.lock().expect("nothing panics while it holds what was declined");
        declined.get(server) == Some(&run)
    }

    /// As the gatherer: a post of this run is being declined.
    pub fn decline(&self, server: &Arc<str>, run: u64) {
        let mut declined = self.declined.lock().expect("nothing panics while it holds what was declined");
        declined.insert(server.clone(), run);
    }

    /// A link has broken: look at once.
    pub fn link_broke(&self) {
        self.changed.notify_one();
    }
}

fn writes(app: &App) -> bool {
    matches!(*app.standing.borrow(), Standing::Ready { .. })
}

fn forwarded(post: &Post) -> Forwarded {
    Forwarded {
        number: 0,
        room: post.room,
        author: post.author.id,
        author_name: post.author.name.to_string(),
        client_id: post.client_id,
        text: post.text.clone(),
        receipt: post.receipt,
    }
}

/// At the gatherer: put what another server forwards among this server's posts.
pub fn gather(app: &App, server: &Arc<str>, run: u64, posts: Vec<Forwarded>) {
    for post in posts {
        app.poster.post(
            app,
            Post {
                room: post.room,
                author: Author { id: post.author, name: post.author_name.into() },
                client_id: post.client_id,
                text: post.text,
                arrived: tokio::time::Instant::now(),
                receipt: post.receipt,
                answer: Answer::Server { server: server.clone(), run, number: post.number },
                way: Way::default(),
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
