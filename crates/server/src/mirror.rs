//! Connections kept to the mirror of the content database. Those of a standby outlive its promotion: when the mirror takes
//! over, this server has its writer as soon as there is one, and does not open connections when every other server does too.

use crate::app::App;
use crate::standing::{self, MirrorAt, Standing};
use rand::Rng;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Connections;

/// Before connections are opened, in milliseconds: not all servers at once.
const OPEN_AFTER_MS: std::ops::Range<u64> = 10..200;
/// Before a mirror that did not answer is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What is kept.
#[derive(Default)]
pub struct Mirror {
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    at: String,
    connections: Connections,
}

impl Mirror {
    /// The connections to there, if there are any that hold. They are the caller's from now on.
    pub fn take(&self, at: &str) -> Option<Connections> {
        let kept = self.lock().take_if(|kept| kept.at == at)?;
        (!kept.connections.is_broken()).then_some(kept.connections)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// Nothing.
    Rest,
    /// What is kept leads nowhere any more.
    Drop,
    /// Open connections to there.
    Open(String),
}

/// How the server stands, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// It writes.
    Ready,
    /// It will write as soon as there is a writer.
    Waiting,
    /// It is not active, or will not be.
    Going,
}

impl From<&Standing> for Stands {
    fn from(standing: &Standing) -> Self {
        match standing {
            Standing::Ready { .. } => Stands::Ready,
            Standing::Waiting { .. } => Stands::Waiting,
            Standing::Leaving { .. } | Standing::Away => Stands::Going,
        }
    }
}

/// What is to be done, given where what is kept leads and whether it holds. While there is no writer it stays: whoever was the
/// mirror may be the next one.
fn act(kept: Option<(&str, bool)>, stands: Stands, mirror: Option<MirrorAt>) -> Act {
    match (kept, stands) {
        (Some((_, false)), _) | (Some(_), Stands::Going) => Act::Drop,
        (Some((at, true)), Stands::Ready) if mirror.as_ref().is_none_or(|mirror| mirror.at != at) => Act::Drop,
        (None, Stands::Ready) => match mirror {
            Some(MirrorAt { at, synchronised: true }) => Act::Open(at),
            // It has come up when it is synchronised, and does not take over before.
            Some(_) | None => Act::Rest,
        },
        _ => Act::Rest,
    }
}

/// Keep them for as long as the process lives.
pub async fn keep(app: Arc<App>) {
    let mut view = app.view.subscribe();
    let mut standing = app.standing.subscribe();
    loop {
        let now = view.borrow_and_update().clone();
        let stands = standing.borrow_and_update().clone();
        let (act, broken) = {
            let kept = app.mirror.lock();
            let known = kept.as_ref().map(|k| (k.at.as_str(), !k.connections.is_broken()));
            let act = act(known, Stands::from(&stands), standing::mirror(&now, &app.name));
            (act, kept.as_ref().map(|k| k.connections.broken()))
        };
        let wait = match act {
            Act::Rest => None,
            Act::Drop => {
                app.mirror.lock().take();
                continue;
            }
            Act::Open(at) => {
                // A server that stops to write meanwhile begins anew.
                let stops = async { standing.wait_for(|s| !matches!(s, Standing::Ready { .. })).await.is_ok() };
                tokio::select! {
                    _ = stops => continue,
                    opened = open(&app, &at, &stands) => match opened {
                        Ok(connections) => {
                            tracing::debug!(at, "connections to the mirror are kept");
                            *app.mirror.lock() = Some(Kept { at, connections });
                            continue;
                        }
                        Err(reason) => {
                            tracing::debug!(at, reason, "no connections to the mirror yet");
                            Some(RETRY_AFTER)
                        }
                    }
                }
            }
        };
        let broke = async {
            match broken {
                Some(broken) => broken.await,
                None => std::future::pending().await,
            }
        };
        let later = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error means that the server ends.
            _ = view.changed() => {}
            _ = standing.changed() => {}
            () = broke => {}
            () = later => {}
        }
    }
}

async fn open(app: &App, at: &str, stands: &Standing) -> Result<Connections, String> {
    let epoch = stands.epoch().ok_or("the server does not write")?;
    let target = app.target(at)?;
    let pause = rand::rng().random_range(OPEN_AFTER_MS);
    tokio::time::sleep(Duration::from_millis(pause)).await;
    Connections::open_all(&target, epoch).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_kept_to_the_mirror_while_the_server_writes_or_will() {
        let at = |at: &str, synchronised| Some(MirrorAt { at: at.to_owned(), synchronised });
        let m = || at("m:5432", true);
        let (held, broken) = (Some(("m:5432", true)), Some(("m:5432", false)));
        let cases = [
            (None, Stands::Ready, m(), Act::Open("m:5432".into())),
            (None, Stands::Ready, at("m:5432", false), Act::Rest),
            (None, Stands::Ready, None, Act::Rest),
            // Nobody opens connections while a take-over is under way.
            (None, Stands::Waiting, m(), Act::Rest),
            (None, Stands::Going, m(), Act::Rest),
            (held, Stands::Ready, m(), Act::Rest),
            (held, Stands::Ready, at("m:5432", false), Act::Rest),
            (held, Stands::Ready, None, Act::Drop),
            (held, Stands::Ready, at("other:5432", true), Act::Drop),
            // Amid a change of writer the record names no mirror: it may be the next writer.
            (held, Stands::Waiting, None, Act::Rest),
            (held, Stands::Going, m(), Act::Drop),
            (broken, Stands::Ready, m(), Act::Drop),
            (broken, Stands::Waiting, None, Act::Drop),
        ];
        for (kept, stands, mirror, expected) in cases {
            assert_eq!(act(kept, stands, mirror.clone()), expected, "{kept:?} {stands:?} {mirror:?}");
        }
    }
}
