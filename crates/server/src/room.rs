//! One room as its sessions here see it.
//!
//! Entries come in from this server's commits, from links and from the database, in any order and more than once. They
//! go out to every session in order of their numbers, once, without a gap, and only while the sessions' access is known
//! to hold for the access version under which the entry was written.

use crate::frame::Frame;
use crate::outbox::{Outbox, SessionId};
use rules::id::{Epoch, PrincipalId, Seq};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Entries kept for sessions that are about to go live.
const RECENT_MAX: usize = 64;
/// Entries kept while an earlier one is missing; beyond this they are dropped and read from the database.
const EARLY_MAX: usize = 4096;

/// An entry ready to be shown.
#[derive(Clone)]
pub struct Offer {
    /// Its number.
    pub seq: Seq,
    /// An access version not older than the one under which it was written.
    pub access_version: i64,
    /// Its frame.
    pub frame: Frame,
}

/// A session in the room.
pub struct Member {
    /// Which session.
    pub session: SessionId,
    /// Whose.
    pub user: PrincipalId,
    /// Where its frames go.
    pub outbox: Outbox,
    /// The access version for which it was last decided that it may be here.
    pub decided: i64,
}

/// What a room needs after an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// Entries are missing, or access must be checked again.
    Mending,
}

/// One room.
pub struct Room {
    /// The epoch that all rooms show: what was read or committed in another one is not for them.
    shown: Arc<AtomicI64>,
    live: Mutex<Live>,
}

/// The room's state, while locked.
pub struct Live {
    /// The last number that went out; `None` until the first session is in.
    delivered: Option<Seq>,
    /// The highest number that is known to exist.
    known: Seq,
    /// Access of every member is known to hold up to this version.
    checked: i64,
    recent: VecDeque<Offer>,
    early: BTreeMap<Seq, Offer>,
    members: Vec<Member>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            delivered: None,
            known: Seq::START,
            checked: 0,
            recent: VecDeque::new(),
            early: BTreeMap::new(),
            members: Vec::new(),
        }
    }
}

/// Whether a session could go live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is live.
    Live,
    /// This many entries do not fit into its outbox now.
    NoRoom(usize),
    /// It is too far behind: it reads on from the database.
    Behind,
    /// The room has gone on to a later access version: its access is to be decided again.
    Decide,
}

impl Room {
    /// A room that shows nothing yet. `shown`: the epoch that all rooms show.
    pub fn new(shown: Arc<AtomicI64>) -> Self {
        Self { shown, live: Mutex::default() }
    }

    /// Lock the room.
    pub fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().expect("no code panics while it holds a room")
    }

    /// Take an entry that was read or committed in epoch `source`; show it, and what waited for it, if it is its turn.
    ///
    /// A commit may return to this server when a later epoch, which may lack it, is already shown; it is then left out.
    /// The epoch is compared under the room's lock, and a change of epoch passes every room's lock after it.
    pub fn offer(&self, offer: Offer, source: Epoch) -> Need {
        let mut live = self.lock();
        if self.shown.load(Ordering::Acquire) == source.0 { live.offer(offer) } else { Need::Nothing }
    }
}

impl Live {
    fn offer(&mut self, offer: Offer) -> Need {
        self.known = self.known.max(offer.seq);
        let Some(delivered) = self.delivered else { return self.keep_early(offer) };
        if offer.seq <= delivered {
            return Need::Nothing;
        }
        if offer.seq == delivered.next() && offer.access_version <= self.checked {
            self.show(offer);
            return if self.early.is_empty() { Need::Nothing } else { self.show_early() };
        }
        let need = self.keep_early(offer);
        if self.show_early() == Need::Nothing { Need::Nothing } else { need }
    }

    fn keep_early(&mut self, offer: Offer) -> Need {
        if self.early.len() < EARLY_MAX {
            self.early.insert(offer.seq, offer);
        }
        if self.delivered.is_some() { Need::Mending } else { Need::Nothing }
    }

    fn show_early(&mut self) -> Need {
        let Some(mut delivered) = self.delivered else { return Need::Nothing };
        while let Some(first) = self.early.first_entry() {
            if *first.key() <= delivered {
                first.remove();
            } else if *first.key() == delivered.next() && first.get().access_version <= self.checked {
                let offer = first.remove();
                delivered = offer.seq;
                self.show(offer);
            } else {
                return Need::Mending;
            }
        }
        Need::Nothing
    }

    fn show(&mut self, offer: Offer) {
        for member in &self.members {
            member.outbox.push(offer.frame.clone());
        }
        self.delivered = Some(offer.seq);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(offer);
    }

    /// Something is known to exist up to `seq` without being at hand.
    pub fn hint(&mut self, seq: Seq, access_version: i64) -> Need {
        self.known = self.known.max(seq);
        match self.delivered {
            Some(delivered) if self.known > delivered || access_version > self.checked => Need::Mending,
            _ => Need::Nothing,
        }
    }

    /// The last number shown; `None` until the first session is in.
    pub fn delivered(&self) -> Option<Seq> {
        self.delivered
    }

    /// The access version up to which every member has been checked.
    pub fn checked(&self) -> i64 {
        self.checked
    }

    /// Access of `users` was decided on at `version`, and those in `gone` may not be here any more: they are returned.
    /// Who came in meanwhile stands for its own decision.
    pub fn access_checked(&mut self, version: i64, users: &[PrincipalId], gone: &[PrincipalId]) -> Vec<Member> {
        let (out, mut stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.members).into_iter().partition(|m| gone.contains(&m.user));
        for member in stay.iter_mut().filter(|m| users.contains(&m.user)) {
            member.decided = member.decided.max(version);
        }
        self.members = stay;
        let held = self.members.iter().map(|m| m.decided).min().unwrap_or(version);
        self.checked = self.checked.max(held.min(version));
        self.show_early();
        out
    }

    /// The users with sessions here.
    pub fn users(&self) -> Vec<PrincipalId> {
        let mut users: Vec<PrincipalId> = self.members.iter().map(|m| m.user).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Whether no session is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Let a session go live that has everything up to `has`.
    /// A room that has shown nothing yet begins at `has`, so the session must have read the log to its end.
    pub fn admit(&mut self, member: Member, has: Seq) -> Admission {
        if self.members.is_empty() {
            self.checked = self.checked.max(member.decided);
        }
        if member.decided < self.checked {
            return Admission::Decide;
        }
        let delivered = *self.delivered.get_or_insert(has);
        if has > delivered {
            // It has read further than the room has shown: the room gets the same from the database in a moment.
            return Admission::Behind;
        }
        let lacks = (delivered.0 - has.0) as usize;
        if lacks > self.recent.len() {
            return Admission::Behind;
        }
        let frames = self.recent.iter().skip(self.recent.len() - lacks).map(|offer| offer.frame.clone());
        if !member.outbox.push_all(lacks, frames) {
            return Admission::NoRoom(lacks);
        }
        self.members.push(member);
        self.show_early();
        Admission::Live
    }

    /// Entries that were read from the log, for whoever comes with the same cursor: those that end where what is remembered
    /// begins, and that everybody here may see.
    pub fn remember(&mut self, read: Vec<Offer>) {
        let begins = self.recent.front().map(|offer| offer.seq).or(self.delivered.map(Seq::next));
        for offer in read.into_iter().rev().skip_while(|offer| begins.is_none_or(|begins| offer.seq >= begins)) {
            let next = self.recent.front().map(|first| first.seq).or(self.delivered.map(Seq::next));
            let fits = next == Some(offer.seq.next()) && offer.access_version <= self.checked;
            if !fits || self.recent.len() >= RECENT_MAX {
                return;
            }
            self.recent.push_front(offer);
        }
    }

    /// Whether a session is live here.
    pub fn holds(&self, session: SessionId) -> bool {
        self.members.iter().any(|m| m.session == session)
    }

    /// Take a session out; nothing of the room is put before it afterwards.
    pub fn remove(&mut self, session: SessionId) {
        self.members.retain(|m| m.session != session);
    }

    /// History was rewound below what was shown, or the room is gone: every session resumes from its cursors.
    pub fn resume_all(&mut self) {
        for member in self.members.drain(..) {
            member.outbox.resume();
        }
        *self = Live::default();
    }

    /// The epoch has changed and nothing that was shown was lost. What waits, and what access was decided on, may belong
    /// to the lost tail.
    pub fn forget_early(&mut self) {
        self.early.clear();
        self.checked = 0;
        self.known = self.delivered.unwrap_or(Seq::START);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::FRAMES_MAX;
    use proptest::prelude::*;

    const USER: PrincipalId = PrincipalId(1);
    const GUEST: PrincipalId = PrincipalId(2);

    fn offer(seq: i64, access_version: i64) -> Offer {
        Offer { seq: Seq(seq), access_version, frame: Frame::of_text(seq.to_string().as_bytes()) }
    }

    fn admit(live: &mut Live, session: SessionId, user: PrincipalId, has: i64, decided: i64) -> SeenBy {
        let outbox = Outbox::alone();
        let member = Member { session, user, outbox: outbox.clone(), decided };
        assert_eq!(live.admit(member, Seq(has)), Admission::Live);
        SeenBy(outbox)
    }

    struct SeenBy(Outbox);

    impl SeenBy {
        fn all(&self) -> Vec<i64> {
            self.0.take_texts().iter().map(|text| text.parse().unwrap()).collect()
        }
    }

    proptest! {
        #[test]
        fn entries_in_any_order_and_any_number_of_times_are_shown_once_and_in_order(
            order in Just((1..=20_i64).flat_map(|n| [n, n]).collect::<Vec<_>>()).prop_shuffle(),
            begins in 0..5_i64,
        ) {
            let mut live = Live::default();
            let seen = admit(&mut live, 1, USER, begins, 1);
            for seq in order {
                live.offer(offer(seq, 1));
            }
            prop_assert_eq!(seen.all(), (begins + 1..=20).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_entry_of_a_later_access_version_waits_until_access_was_checked() {
        let mut live = Live::default();
        let stays = admit(&mut live, 1, USER, 0, 1);
        let goes = admit(&mut live, 2, GUEST, 0, 1);
        assert_eq!(live.offer(offer(1, 1)), Need::Nothing);
        assert_eq!(live.offer(offer(2, 2)), Need::Mending);
        assert_eq!(live.offer(offer(3, 2)), Need::Mending);
        let out = live.access_checked(2, &[USER, GUEST], &[GUEST]);
        assert_eq!(out.iter().map(|m| m.session).collect::<Vec<_>>(), [2]);
        assert_eq!((stays.all(), goes.all()), (vec![1, 2, 3], vec![1]));
    }

    #[test]
    fn who_came_in_while_access_was_checked_is_checked_on_its_own() {
        let mut live = Live::default();
        let first = admit(&mut live, 1, USER, 0, 1);
        live.offer(offer(1, 2));
        let _guest = admit(&mut live, 2, GUEST, 0, 1);
        // Decided for the first one alone: the entry still waits.
        live.access_checked(2, &[USER], &[]);
        assert_eq!((first.all(), live.checked()), (vec![], 1));
        live.access_checked(2, &[USER, GUEST], &[GUEST]);
        assert_eq!(first.all(), [1]);
    }

    #[test]
    fn what_another_epoch_committed_is_not_shown() {
        let room = Room::new(Arc::new(AtomicI64::new(2)));
        let seen = admit(&mut room.lock(), 1, USER, 0, 1);
        room.offer(offer(1, 1), Epoch(1));
        assert!(seen.all().is_empty());
        room.offer(offer(1, 1), Epoch(2));
        assert_eq!(seen.all(), [1]);
    }

    #[test]
    fn what_one_session_has_read_is_there_for_the_next() {
        let mut live = Live::default();
        let _first = admit(&mut live, 1, USER, 5, 1);
        live.remember((3..=5).map(|seq| offer(seq, 1)).collect());
        assert_eq!(admit(&mut live, 2, GUEST, 2, 1).all(), [3, 4, 5]);
        live.offer(offer(6, 1));
        // Overlapping, not adjoining, and of a later access version: only what joins on is taken.
        live.remember((1..=4).map(|seq| offer(seq, 1)).collect());
        assert_eq!(admit(&mut live, 3, GUEST, 0, 1).all(), [1, 2, 3, 4, 5, 6]);
        let mut live = Live::default();
        let _first = admit(&mut live, 1, USER, 5, 1);
        live.remember(vec![offer(3, 1)]);
        live.remember(vec![offer(5, 2)]);
        let member = Member { session: 2, user: GUEST, outbox: Outbox::alone(), decided: 1 };
        assert_eq!(live.admit(member, Seq(4)), Admission::Behind);
    }

    #[test]
    fn a_session_that_is_behind_gets_what_the_room_remembers() {
        let mut live = Live::default();
        let _first = admit(&mut live, 1, USER, 0, 1);
        for seq in 1..=5 {
            live.offer(offer(seq, 1));
        }
        let outbox = Outbox::alone();
        let member = |decided| Member { session: 2, user: GUEST, outbox: outbox.clone(), decided };
        assert_eq!(live.admit(member(1), Seq(7)), Admission::Behind);
        assert_eq!(live.admit(member(0), Seq(5)), Admission::Decide);
        for _ in 1..FRAMES_MAX {
            outbox.push(Frame::of_text(b"0"));
        }
        assert_eq!(live.admit(member(1), Seq(3)), Admission::NoRoom(2));
        outbox.take_texts();
        assert_eq!(live.admit(member(1), Seq(3)), Admission::Live);
        assert_eq!(SeenBy(outbox).all(), [4, 5]);
    }
}
