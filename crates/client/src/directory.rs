//! Where a client can connect, shared by everything in this process that talks to the pool.
//!
//! Every server answers `GET /v1/servers`. As long as anybody here has no server, each known server is asked again every
//! few milliseconds, once for all who wait: thousands of clients cost a failover nothing. A server is a candidate when its
//! own answer says so in the highest epoch heard: it is active, or nobody is and clients wait with whom they have.

use rand::Rng;
use rand::seq::IndexedRandom;
use rules::id::Epoch;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use wire::chat::ServerAddress;
use wire::http::Servers;

/// Longest wait for one server's answer.
const ANSWER_WAIT: Duration = Duration::from_millis(300);
/// Pause between two questions to one server, in milliseconds, when the search is young.
const PAUSE_YOUNG_MS: std::ops::Range<u64> = 8..20;
/// The same when it has gone on for a while.
const PAUSE_OLD_MS: std::ops::Range<u64> = 25..50;
/// From then on the search is not young any more.
const OLD_AFTER: Duration = Duration::from_secs(10);
/// Most servers that are kept in mind: far more than a pool may have.
const PLACES_MAX: usize = 64;

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    epoch: Epoch,
    takes_clients: bool,
}

#[derive(Debug, Default)]
struct Place {
    known: Option<Known>,
    asked: bool,
}

#[derive(Debug, Default)]
struct State {
    places: BTreeMap<Arc<str>, Place>,
    seekers: usize,
    seeking_since: Option<Instant>,
}

/// The servers of a pool, as far as this process knows them.
#[derive(Debug)]
pub struct Directory {
    http: reqwest::Client,
    state: Mutex<State>,
    candidates: watch::Sender<Arc<[Arc<str>]>>,
}

/// Somebody who has no server at the moment; as long as one exists, servers are asked.
#[derive(Debug)]
pub struct Seeker {
    directory: Arc<Directory>,
    candidates: watch::Receiver<Arc<[Arc<str>]>>,
}

impl Directory {
    /// A directory that begins with these base addresses, `http://address:port`.
    pub fn new(urls: impl IntoIterator<Item = String>) -> Arc<Self> {
        let places = urls.into_iter().map(|url| (url.trim_end_matches('/').into(), Place::default())).collect();
        let state = Mutex::new(State { places, ..State::default() });
        let (candidates, _) = watch::channel(Arc::from([]));
        Arc::new(Self { http: reqwest::Client::new(), state, candidates })
    }

    /// The client for HTTP that everything here shares.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Base addresses of all servers known so far.
    pub fn urls(&self) -> Vec<String> {
        self.lock().places.keys().map(ToString::to_string).collect()
    }

    /// Begin to look for a server.
    pub fn seek(self: &Arc<Self>) -> Seeker {
        {
            let mut state = self.lock();
            state.seekers += 1;
            state.seeking_since.get_or_insert_with(Instant::now);
        }
        let mut candidates = self.candidates.subscribe();
        candidates.mark_changed();
        if candidates.borrow().is_empty() {
            self.ask_all();
        }
        Seeker { directory: self.clone(), candidates }
    }

    /// This server did not take a connection, or broke one.
    pub fn failed(self: &Arc<Self>, url: &str) {
        self.change(|state| {
            if let Some(place) = state.places.get_mut(url) {
                place.known = None;
            }
        });
        self.ask_all();
    }

    /// A server said who is who: all servers with whether they are active, or those that are active alone.
    pub fn learn(self: &Arc<Self>, servers: &[ServerAddress], epoch: Option<Epoch>) {
        self.change(|state| {
            let newest = state.places.values().filter_map(|p| p.known).map(|k| k.epoch).max();
            let epoch = epoch.or(newest).unwrap_or(Epoch::FIRST);
            for place in state.places.values_mut() {
                place.known = place.known.map(|known| Known { takes_clients: false, ..known });
            }
            for server in servers {
                if let Some(place) = place_of(state, &server.url) {
                    place.known = Some(Known { epoch, takes_clients: server.active });
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing that holds this lock can panic")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let candidates = {
            let mut state = self.lock();
            change(&mut state);
            candidates(&state)
        };
        self.candidates.send_if_modified(|now| {
            let differs = **now != *candidates;
            if differs {
                *now = candidates.into();
            }
            differs
        });
    }

    /// See to it that every known server is being asked, if somebody looks for one.
    fn ask_all(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.seekers == 0 {
            return;
        }
        for (url, place) in &mut state.places {
            if !std::mem::replace(&mut place.asked, true) {
                tokio::spawn(self.clone().ask(url.clone()));
            }
        }
    }

    /// Ask one server until nobody looks for one any more.
    async fn ask(self: Arc<Self>, url: Arc<str>) {
        loop {
            let answer = self.question(&url).await;
            self.take_in(&url, answer.as_ref());
            let pause = {
                let mut state = self.lock();
                if state.seekers == 0 {
                    if let Some(place) = state.places.get_mut(&url) {
                        place.asked = false;
                    }
                    return;
                }
                let young = state.seeking_since.is_none_or(|since| since.elapsed() < OLD_AFTER);
                rand::rng().random_range(if young { PAUSE_YOUNG_MS } else { PAUSE_OLD_MS })
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn question(&self, url: &str) -> Option<Servers> {
        let answer = self.http.get(format!("{url}/v1/servers")).timeout(ANSWER_WAIT).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    fn take_in(self: &Arc<Self>, url: &str, answer: Option<&Servers>) {
        self.change(|state| {
            let known = answer.map(|answer| known_from(url, answer));
            if let Some(place) = state.places.get_mut(url) {
                place.known = known;
            }
            for server in answer.into_iter().flat_map(|a| &a.servers) {
                // A server that is new here is asked itself before anybody connects to it.
                place_of(state, &server.url);
            }
        });
        self.ask_all();
    }
}

fn place_of<'a>(state: &'a mut State, url: &str) -> Option<&'a mut Place> {
    if !state.places.contains_key(url) && state.places.len() >= PLACES_MAX {
        return None;
    }
    Some(state.places.entry(url.into()).or_default())
}

/// What a server's answer says about itself. One that is reached under another address than it has itself is taken at its
/// word that somebody is active: it sends its clients on if it is not the one.
fn known_from(url: &str, answer: &Servers) -> Known {
    let anybody = answer.servers.iter().any(|s| s.active);
    let itself = answer.servers.iter().find(|s| s.url == url);
    let takes_clients = itself.is_none_or(|s| s.active) || !anybody;
    Known { epoch: answer.epoch, takes_clients }
}

fn candidates(state: &State) -> Vec<Arc<str>> {
    let known = || state.places.iter().filter_map(|(url, place)| Some((url, place.known?)));
    let Some(newest) = known().map(|(_, k)| k.epoch).max() else { return Vec::new() };
    known().filter(|(_, k)| k.epoch == newest && k.takes_clients).map(|(url, _)| url.clone()).collect()
}

impl Seeker {
    /// A server that takes clients as far as anybody knows; waits until there is one.
    pub async fn next(&mut self) -> Arc<str> {
        loop {
            let chosen = self.candidates.borrow_and_update().choose(&mut rand::rng()).cloned();
            if let Some(url) = chosen {
                return url;
            }
            self.directory.ask_all();
            // The directory is held by this seeker, so the sender is there.
            let _ = self.candidates.changed().await;
        }
    }
}

impl Drop for Seeker {
    fn drop(&mut self) {
        let mut state = self.directory.lock();
        state.seekers -= 1;
        if state.seekers == 0 {
            state.seeking_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answers: &[(&str, i64, &[&str])], expect: &[&str]) {
        let address = |url: &&str, active: &[&str]| ServerAddress {
            name: (*url).to_owned(),
            url: (*url).to_owned(),
            active: active.contains(url),
        };
        let mut state = State::default();
        for (url, epoch, active) in answers {
            let servers = ["a", "b", "c", "d"].iter().map(|u| address(u, active)).collect();
            let known = known_from(url, &Servers { servers, epoch: Epoch(*epoch) });
            state.places.insert((*url).into(), Place { known: Some(known), asked: false });
        }
        let found: Vec<String> = candidates(&state).iter().map(ToString::to_string).collect();
        assert_eq!(found, expect, "{answers:?}");
    }

    #[test]
    fn clients_go_where_the_newest_epoch_takes_them() {
        check(&[("a", 1, &["a", "b"]), ("c", 1, &["a", "b"])], &["a"]);
        // Everybody active is dead, and the others say so: nobody to connect to yet.
        check(&[("c", 1, &["a", "b"]), ("d", 1, &["a", "b"])], &[]);
        // A change of writer is under way: clients wait with any server.
        check(&[("c", 2, &[]), ("d", 2, &[])], &["c", "d"]);
        // What was left behind by an epoch is not believed.
        check(&[("a", 1, &["a", "b"]), ("c", 2, &["c"])], &["c"]);
    }
}
