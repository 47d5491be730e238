//! The decision procedure of the reference (chat-model §5.3): may this user join, read, post, see, manage?
//!
//! Input is plain data that the store fetched in one snapshot; the answer is `Ok` or the rule that refuses. A principal
//! is a user or a group; a user's affiliations are itself and every group it belongs to, and a list applies to a user
//! when it names any affiliation.

use crate::id::PrincipalId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Who finds and who joins a room (chat-model §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privacy {
    /// Everybody in the category's scope finds and joins it.
    Open,
    /// Everybody in scope finds it, members join.
    Closed,
    /// Members find and join it.
    Secret,
}

/// Who posts (chat-model §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoomKind {
    /// Everybody who may join may post.
    Normal,
    /// Only presenters post.
    Auditorium,
}

/// A role entry of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees, joins, reads, searches, and posts in normal rooms.
    Member,
    /// Edits the room; not thereby a member.
    Manager,
    /// Posts in an auditorium; must be a member too.
    Presenter,
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// See the room in the directory.
    Find,
    /// Join and receive live entries.
    Join,
    /// Read history without being joined.
    Read,
    /// Post.
    Post,
    /// Change the room and its lists.
    Manage,
}

/// The user who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The user and every group that it belongs to.
    pub affiliations: BTreeSet<PrincipalId>,
    /// Whether the account is switched off.
    pub disabled: bool,
    /// Whether the user is an administrator.
    pub administrator: bool,
}

/// The room and its category, as one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomAccess {
    /// Who finds and joins.
    pub privacy: Privacy,
    /// Who posts.
    pub kind: RoomKind,
    /// Whether the room is switched off.
    pub disabled: bool,
    /// The category's scope.
    pub allowed: BTreeSet<PrincipalId>,
    /// The category's exclusions; they always win.
    pub denied: BTreeSet<PrincipalId>,
    /// Role entries of the room.
    pub roles: BTreeSet<(Role, PrincipalId)>,
}

/// The rule that refuses, in the order in which the rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The account is off.
    #[error("the account is disabled; ask an administrator to enable it")]
    AccountDisabled,
    /// The room is off.
    #[error("the room is disabled; an administrator can enable it")]
    RoomDisabled,
    /// The category denies the user, or does not allow it.
    #[error("outside the category's scope: its allowed and denied members keep you out")]
    OutOfScope,
    /// A closed or secret room without membership.
    #[error("only members may do this; ask a manager of the room to add you")]
    NotMember,
    /// An auditorium, and not a presenter.
    #[error("only presenters may post in this auditorium; ask a manager of the room")]
    NotPresenter,
    /// Neither manager nor administrator.
    #[error("only a manager of the room or an administrator may do this")]
    NotManager,
    /// Neither a creator of the category nor an administrator.
    #[error("only a creator of the category or an administrator may create rooms in it")]
    NotCreator,
    /// Something that is left to administrators.
    #[error("only an administrator may do this")]
    NotAdministrator,
}

/// Why a principal may not be put on a room's list (chat-model §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ineligible {
    /// Outside allowed minus denied.
    #[error("outside the category's scope: allow it in the category first")]
    NotInScope,
    /// A presenter must be a member.
    #[error("not a member of the room: add it to the members first")]
    NotMember,
    /// Presenters exist in auditoriums only.
    #[error("the room is not an auditorium, and only those have presenters")]
    NotAuditorium,
}

impl RoomAccess {
    fn in_scope(&self, asker: &Asker) -> bool {
        let named = |list: &BTreeSet<PrincipalId>| asker.affiliations.iter().any(|a| list.contains(a));
        !named(&self.denied) && named(&self.allowed)
    }

    fn has(&self, role: Role, asker: &Asker) -> bool {
        asker.affiliations.iter().any(|a| self.roles.contains(&(role, *a)))
    }

    fn may_enter(&self, asker: &Asker) -> Result<(), Refusal> {
        if !self.in_scope(asker) {
            Err(Refusal::OutOfScope)
        } else if self.privacy == Privacy::Open || self.has(Role::Member, asker) {
            Ok(())
        } else {
            Err(Refusal::NotMember)
        }
    }
}

/// May `asker` do `deed` in `room`? The order of the rules is the reference's (chat-model §5.3).
pub fn decide(asker: &Asker, room: &RoomAccess, deed: Deed) -> Result<(), Refusal> {
    if asker.disabled {
        return Err(Refusal::AccountDisabled);
    }
    if deed == Deed::Manage {
        // Administrators are exempt from scope when managing, and may manage a disabled room to enable it again.
        return if asker.administrator {
            Ok(())
        } else if room.disabled {
            Err(Refusal::RoomDisabled)
        } else if !room.in_scope(asker) {
            Err(Refusal::OutOfScope)
        } else if room.has(Role::Manager, asker) {
            Ok(())
        } else {
            Err(Refusal::NotManager)
        };
    }
    if room.disabled {
        return Err(Refusal::RoomDisabled);
    }
    match deed {
        Deed::Find if room.privacy == Privacy::Closed => {
            if room.in_scope(asker) {
                Ok(())
            } else {
                Err(Refusal::OutOfScope)
            }
        }
        Deed::Find | Deed::Join | Deed::Read => room.may_enter(asker),
        Deed::Post => {
            room.may_enter(asker)?;
            if room.kind == RoomKind::Auditorium && !room.has(Role::Presenter, asker) {
                return Err(Refusal::NotPresenter);
            }
            Ok(())
        }
        Deed::Manage => Err(Refusal::NotManager),
    }
}

/// May a principal with these affiliations be given `role` in `room`? Its lists are those after the change.
pub fn may_hold(affiliations: &BTreeSet<PrincipalId>, room: &RoomAccess, role: Role) -> Result<(), Ineligible> {
    let holder = Asker { affiliations: affiliations.clone(), disabled: false, administrator: false };
    if !room.in_scope(&holder) {
        return Err(Ineligible::NotInScope);
    }
    if role == Role::Presenter && room.kind != RoomKind::Auditorium {
        return Err(Ineligible::NotAuditorium);
    }
    if role == Role::Presenter && room.privacy != Privacy::Open && !room.has(Role::Member, &holder) {
        return Err(Ineligible::NotMember);
    }
    Ok(())
}

/// May `asker` create a room in a category with these lists? Creators count only within the category's scope.
pub fn may_create_room(
    asker: &Asker,
    allowed: &BTreeSet<PrincipalId>,
    denied: &BTreeSet<PrincipalId>,
    creators: &BTreeSet<PrincipalId>,
) -> Result<(), Refusal> {
    let named = |list: &BTreeSet<PrincipalId>| asker.affiliations.iter().any(|a| list.contains(a));
    if asker.disabled {
        Err(Refusal::AccountDisabled)
    } else if asker.administrator {
        Ok(())
    } else if named(denied) || !named(allowed) {
        Err(Refusal::OutOfScope)
    } else if named(creators) {
        Ok(())
    } else {
        Err(Refusal::NotCreator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: PrincipalId = PrincipalId(1);
    const GROUP: PrincipalId = PrincipalId(2);

    fn asker() -> Asker {
        Asker { affiliations: [USER, GROUP].into(), disabled: false, administrator: false }
    }

    fn room(privacy: Privacy) -> RoomAccess {
        RoomAccess {
            privacy,
            kind: RoomKind::Normal,
            disabled: false,
            allowed: [GROUP].into(),
            denied: [].into(),
            roles: [].into(),
        }
    }

    #[test]
    fn an_open_room_needs_scope_alone() {
        for deed in [Deed::Find, Deed::Join, Deed::Read, Deed::Post] {
            assert_eq!(decide(&asker(), &room(Privacy::Open), deed), Ok(()));
        }
    }

    #[test]
    fn denied_wins_over_allowed_and_over_membership() {
        let mut room = room(Privacy::Closed);
        room.roles.insert((Role::Member, USER));
        room.allowed.insert(USER);
        room.denied.insert(GROUP);
        for deed in [Deed::Find, Deed::Join, Deed::Read, Deed::Post] {
            assert_eq!(decide(&asker(), &room, deed), Err(Refusal::OutOfScope));
        }
    }

    #[test]
    fn closed_is_found_by_all_and_joined_by_members() {
        let mut room = room(Privacy::Closed);
        assert_eq!(decide(&asker(), &room, Deed::Find), Ok(()));
        assert_eq!(decide(&asker(), &room, Deed::Join), Err(Refusal::NotMember));
        room.roles.insert((Role::Member, GROUP));
        assert_eq!(decide(&asker(), &room, Deed::Join), Ok(()));
    }

    #[test]
    fn secret_is_not_even_found() {
        assert_eq!(decide(&asker(), &room(Privacy::Secret), Deed::Find), Err(Refusal::NotMember));
    }

    #[test]
    fn a_manager_is_not_thereby_a_member() {
        let mut room = room(Privacy::Closed);
        room.roles.insert((Role::Manager, USER));
        assert_eq!(decide(&asker(), &room, Deed::Manage), Ok(()));
        assert_eq!(decide(&asker(), &room, Deed::Post), Err(Refusal::NotMember));
    }

    #[test]
    fn an_auditorium_takes_posts_of_presenters_who_are_members() {
        let mut room = room(Privacy::Closed);
        room.kind = RoomKind::Auditorium;
        room.roles.insert((Role::Member, USER));
        assert_eq!(decide(&asker(), &room, Deed::Read), Ok(()));
        assert_eq!(decide(&asker(), &room, Deed::Post), Err(Refusal::NotPresenter));
        room.roles.insert((Role::Presenter, USER));
        assert_eq!(decide(&asker(), &room, Deed::Post), Ok(()));
        room.roles.remove(&(Role::Member, USER));
        assert_eq!(decide(&asker(), &room, Deed::Post), Err(Refusal::NotMember));
    }

    #[test]
    fn disabled_rooms_and_accounts_refuse_everything_but_administration() {
        let mut off = room(Privacy::Open);
        off.disabled = true;
        assert_eq!(decide(&asker(), &off, Deed::Join), Err(Refusal::RoomDisabled));
        let admin = Asker { administrator: true, ..asker() };
        assert_eq!(decide(&admin, &off, Deed::Manage), Ok(()));
        assert_eq!(decide(&admin, &off, Deed::Join), Err(Refusal::RoomDisabled));
        let gone = Asker { disabled: true, administrator: true, ..asker() };
        assert_eq!(decide(&gone, &room(Privacy::Open), Deed::Manage), Err(Refusal::AccountDisabled));
    }

    #[test]
    fn roles_are_for_those_in_scope_and_presenters_are_members_of_auditoriums() {
        let mut hall = room(Privacy::Closed);
        assert_eq!(may_hold(&[PrincipalId(9)].into(), &hall, Role::Member), Err(Ineligible::NotInScope));
        assert_eq!(may_hold(&[GROUP].into(), &hall, Role::Member), Ok(()));
        assert_eq!(may_hold(&[GROUP].into(), &hall, Role::Presenter), Err(Ineligible::NotAuditorium));
        hall.kind = RoomKind::Auditorium;
        assert_eq!(may_hold(&[GROUP].into(), &hall, Role::Presenter), Err(Ineligible::NotMember));
        hall.roles.insert((Role::Member, GROUP));
        assert_eq!(may_hold(&[GROUP].into(), &hall, Role::Presenter), Ok(()));
    }

    #[test]
    fn rooms_are_created_by_creators_within_scope_and_by_administrators() {
        let create = |asker: &Asker, allowed: &[PrincipalId], denied: &[PrincipalId], creators: &[PrincipalId]| {
            let set = |list: &[PrincipalId]| list.iter().copied().collect();
            may_create_room(asker, &set(allowed), &set(denied), &set(creators))
        };
        assert_eq!(create(&asker(), &[GROUP], &[], &[USER]), Ok(()));
        assert_eq!(create(&asker(), &[GROUP], &[], &[]), Err(Refusal::NotCreator));
        assert_eq!(create(&asker(), &[], &[], &[USER]), Err(Refusal::OutOfScope));
        assert_eq!(create(&asker(), &[GROUP], &[USER], &[USER]), Err(Refusal::OutOfScope));
        let admin = Asker { administrator: true, ..asker() };
        assert_eq!(create(&admin, &[], &[], &[]), Ok(()));
    }

    #[test]
    fn an_administrator_bypasses_scope_but_not_membership() {
        let admin = Asker { administrator: true, affiliations: [PrincipalId(9)].into(), disabled: false };
        assert_eq!(decide(&admin, &room(Privacy::Open), Deed::Manage), Ok(()));
        assert_eq!(decide(&admin, &room(Privacy::Open), Deed::Read), Err(Refusal::OutOfScope));
    }
}
