//! Late arrivals: which entries of a lost site's tail may be entered again.
//!
//! What was posted before the loss was allowed then, and nobody is asked for membership again. What came in between is
//! respected: walls that have been raised since, accounts and rooms that were switched off, removals. What an administrator
//! removed or replaced in the tail is carried out whoever may post now.

use crate::access::{Asker, Deed, Refusal, RoomAccess, decide};
use crate::id::{PrincipalId, RoomId, Seq};
use std::collections::BTreeMap;

/// What an entry of a tail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateKind {
    /// A post.
    Post,
    /// An administrator removed an earlier entry.
    Removal,
    /// An administrator replaced the text of an earlier entry.
    Replacement,
    /// The room changed.
    RoomChange,
}

/// An entry of a tail. Numbers are those that it had at the lost site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateEntry {
    /// To which room.
    pub room: RoomId,
    /// Its number.
    pub seq: Seq,
    /// Who wrote it.
    pub author: PrincipalId,
    /// What it is.
    pub kind: LateKind,
    /// What it is about, if it is about an earlier entry.
    pub target: Option<Seq>,
}

/// An entry that another one is about, as history has it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// It is there.
    Stands,
    /// It is there, and its text was removed.
    Removed,
    /// It is not there: it was refused itself.
    Missing,
}

/// What decides.
#[derive(Clone, Debug, Default)]
pub struct LateFacts {
    /// The authors that exist.
    pub authors: BTreeMap<PrincipalId, Asker>,
    /// The rooms that exist.
    pub rooms: BTreeMap<RoomId, RoomAccess>,
    /// What entries are about, by the numbers that the lost site gave, unless it stands among those to be decided on. What is
    /// not listed is missing.
    pub targets: BTreeMap<(RoomId, Seq), Target>,
}

/// Why an entry is not entered again. It is kept with its tail, and listed with this sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LateRefusal {
    /// The room was made in the tail, and could not be made again.
    #[error("the room is not there")]
    RoomGone,
    /// The room was switched off since.
    #[error("the room is disabled")]
    RoomDisabled,
    /// The account was made in the tail, and could not be made again.
    #[error("the author's account is not there")]
    AuthorGone,
    /// The account was switched off since.
    #[error("the author's account is disabled")]
    AuthorDisabled,
    /// The category's lists keep the author out now.
    #[error("the category's allowed and denied members keep its author out")]
    OutOfScope,
    /// What it is about was refused.
    #[error("the entry that it is about is not in the room's log")]
    TargetMissing,
    /// What it is about was removed since.
    #[error("the entry that it is about was removed in the meantime")]
    TargetRemoved,
}

/// Decide on entries of one tail, in their order: what is refused is missing for those after it.
pub fn decide_late(entries: &[LateEntry], facts: &LateFacts) -> Vec<Result<(), LateRefusal>> {
    let mut targets = facts.targets.clone();
    entries
        .iter()
        .map(|entry| {
            let about = entry.target.map(|seq| (entry.room, seq));
            let target = about.map(|place| targets.get(&place).copied().unwrap_or(Target::Missing));
            let decision = decide_one(entry, target, facts);
            let now = if decision.is_ok() { Target::Stands } else { Target::Missing };
            targets.insert((entry.room, entry.seq), now);
            if let (LateKind::Removal, Ok(()), Some(place)) = (entry.kind, decision, about) {
                targets.insert(place, Target::Removed);
            }
            decision
        })
        .collect()
}

fn decide_one(entry: &LateEntry, target: Option<Target>, facts: &LateFacts) -> Result<(), LateRefusal> {
    let room = facts.rooms.get(&entry.room).ok_or(LateRefusal::RoomGone)?;
    match (entry.kind, target) {
        (LateKind::Post, _) => may_post(facts.authors.get(&entry.author), room),
        (LateKind::RoomChange, _) | (_, Some(Target::Stands)) => Ok(()),
        (LateKind::Removal | LateKind::Replacement, Some(Target::Removed)) => Err(LateRefusal::TargetRemoved),
        (LateKind::Removal | LateKind::Replacement, Some(Target::Missing) | None) => Err(LateRefusal::TargetMissing),
    }
}

fn may_post(author: Option<&Asker>, room: &RoomAccess) -> Result<(), LateRefusal> {
    match decide(author.ok_or(LateRefusal::AuthorGone)?, room, Deed::Post) {
        Err(Refusal::AccountDisabled) => Err(LateRefusal::AuthorDisabled),
        Err(Refusal::RoomDisabled) => Err(LateRefusal::RoomDisabled),
        Err(Refusal::OutOfScope) => Err(LateRefusal::OutOfScope),
        // Who has left a room, or presents no more, has posted all the same.
        Err(Refusal::NotMember | Refusal::NotPresenter) | Ok(()) => Ok(()),
        Err(Refusal::NotManager | Refusal::NotCreator | Refusal::NotAdministrator) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Privacy, RoomKind};

    const ADA: PrincipalId = PrincipalId(1);
    const ROOM: RoomId = RoomId(1);
    const HALL: RoomId = RoomId(2);

    fn facts() -> LateFacts {
        let asker = Asker { affiliations: [ADA].into(), disabled: false, administrator: false };
        let room = RoomAccess {
            privacy: Privacy::Closed,
            kind: RoomKind::Normal,
            disabled: false,
            allowed: [ADA].into(),
            denied: [].into(),
            roles: [].into(),
        };
        let hall = RoomAccess { kind: RoomKind::Auditorium, ..room.clone() };
        let targets = [((ROOM, Seq(1)), Target::Stands), ((ROOM, Seq(2)), Target::Removed)].into();
        LateFacts { authors: [(ADA, asker)].into(), rooms: [(ROOM, room), (HALL, hall)].into(), targets }
    }

    fn entry(room: RoomId, seq: i64, kind: LateKind, target: i64) -> LateEntry {
        LateEntry { room, seq: Seq(seq), author: ADA, kind, target: (target > 0).then_some(Seq(target)) }
    }

    fn post(room: RoomId, seq: i64) -> LateEntry {
        entry(room, seq, LateKind::Post, 0)
    }

    fn check(entries: &[LateEntry], facts: &LateFacts, expect: &[Option<LateRefusal>]) {
        let got: Vec<Option<LateRefusal>> = decide_late(entries, facts).into_iter().map(Result::err).collect();
        assert_eq!(got, expect, "{entries:?}");
    }

    #[test]
    fn who_has_left_the_room_has_posted_all_the_same() {
        check(&[post(ROOM, 5), post(HALL, 1)], &facts(), &[None, None]);
    }

    #[test]
    fn what_came_in_between_is_respected() {
        let mut denied = facts();
        denied.rooms.get_mut(&ROOM).unwrap().denied.insert(ADA);
        check(&[post(ROOM, 5), post(HALL, 1)], &denied, &[Some(LateRefusal::OutOfScope), None]);
        let mut room_off = facts();
        room_off.rooms.get_mut(&ROOM).unwrap().disabled = true;
        check(&[post(ROOM, 5)], &room_off, &[Some(LateRefusal::RoomDisabled)]);
        let mut account_off = facts();
        account_off.authors.get_mut(&ADA).unwrap().disabled = true;
        check(&[post(ROOM, 5)], &account_off, &[Some(LateRefusal::AuthorDisabled)]);
        check(&[post(RoomId(9), 1)], &facts(), &[Some(LateRefusal::RoomGone)]);
        let nobody = LateFacts { authors: BTreeMap::new(), ..facts() };
        check(&[post(ROOM, 5)], &nobody, &[Some(LateRefusal::AuthorGone)]);
    }

    #[test]
    fn an_administrators_removal_needs_its_target_and_nothing_else() {
        let mut walled = facts();
        let room = walled.rooms.get_mut(&ROOM).unwrap();
        (room.disabled, room.allowed) = (true, [].into());
        let removal = |target| entry(ROOM, 9, LateKind::Removal, target);
        check(&[removal(1)], &walled, &[None]);
        check(&[removal(2)], &walled, &[Some(LateRefusal::TargetRemoved)]);
        check(&[removal(3), removal(0)], &walled, &[Some(LateRefusal::TargetMissing); 2]);
        check(&[entry(ROOM, 9, LateKind::RoomChange, 0)], &walled, &[None]);
    }

    #[test]
    fn what_stands_among_the_late_is_a_target_for_those_after_it() {
        let replaced = [post(ROOM, 5), entry(ROOM, 6, LateKind::Replacement, 5)];
        check(&replaced, &facts(), &[None, None]);
        let removed = [post(ROOM, 5), entry(ROOM, 6, LateKind::Removal, 5), entry(ROOM, 7, LateKind::Replacement, 5)];
        check(&removed, &facts(), &[None, None, Some(LateRefusal::TargetRemoved)]);
        let mut denied = facts();
        denied.rooms.get_mut(&ROOM).unwrap().denied.insert(ADA);
        let refused = [Some(LateRefusal::OutOfScope), Some(LateRefusal::TargetMissing)];
        check(&replaced, &denied, &refused);
    }
}
