//! What each client saw in each room: between joining and leaving, numbers go up by one.

use super::judge::{Kind, Verdict};
use rules::id::{RoomId, Seq};
use std::collections::HashMap;

/// A client in a room.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    /// Whether deliveries are due.
    open: bool,
    /// The last number; `None` after a fresh join until the first entry.
    last: Option<Seq>,
}

/// All clients.
#[derive(Debug, Default)]
pub struct Clients(HashMap<String, HashMap<RoomId, Stretch>>);

impl Clients {
    fn stretch(&mut self, user: &str, room: RoomId) -> &mut Stretch {
        if !self.0.contains_key(user) {
            self.0.insert(user.to_owned(), HashMap::new());
        }
        self.0.get_mut(user).expect("it was put there a line above").entry(room).or_default()
    }

    /// A client joined.
    pub fn joined(&mut self, user: &str, room: RoomId, after: Option<Seq>, verdict: &mut Verdict) {
        let stretch = self.stretch(user, room);
        // Who resumes has to go on where it was; who joins afresh begins anew.
        if let (Some(last), Some(after)) = (stretch.last, after)
            && last != after
        {
            let kind = if after > last { Kind::OutOfOrder } else { Kind::Duplicated };
            verdict.add(kind, format!("room {room}: {user} had everything up to {last} and resumed after {after}"));
        }
        *stretch = Stretch { open: true, last: after };
    }

    /// A client left.
    pub fn left(&mut self, user: &str, room: RoomId) {
        *self.stretch(user, room) = Stretch::default();
    }

    /// A client lost its connection: it is in no room until it joins again.
    pub fn disconnected(&mut self, user: &str) {
        for stretch in self.0.get_mut(user).into_iter().flat_map(HashMap::values_mut) {
            stretch.open = false;
        }
    }

    /// A client was told that everything from a number on is void.
    pub fn rewound(&mut self, user: &str, room: RoomId, from: Seq, verdict: &mut Verdict) {
        let stretch = self.stretch(user, room);
        if stretch.last.is_some_and(|last| from > last.next()) {
            let last = stretch.last.unwrap_or(Seq::START);
            let what = format!("room {room}: {user} had everything up to {last} and was set forward to {from}");
            verdict.add(Kind::OutOfOrder, what);
        }
        stretch.last = Some(Seq(from.0 - 1));
    }

    /// A client was delivered an entry.
    pub fn seen(&mut self, user: &str, room: RoomId, seq: Seq, verdict: &mut Verdict) {
        let stretch = self.stretch(user, room);
        if !stretch.open {
            verdict
                .add(Kind::OutOfOrder, format!("room {room}: {user} was delivered entry {seq} without being joined"));
            return;
        }
        match stretch.last {
            Some(last) if seq <= last => {
                verdict.add(Kind::Duplicated, format!("room {room}: {user} was delivered entry {seq} again"));
                return;
            }
            Some(last) if seq != last.next() => {
                let what = format!("room {room}: {user} was delivered entry {seq} after {last}");
                verdict.add(Kind::OutOfOrder, what);
            }
            Some(_) | None => {}
        }
        stretch.last = Some(seq);
    }
}
