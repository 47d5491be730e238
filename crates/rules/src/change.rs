//! Administrative changes as the journal keeps them, and which of those that a lost site had made may be made again.
//!
//! A change names things by number, which decides, and by name, for people. Numbers are never given twice, so a number in a
//! lost site's change names the same thing in the present history, or something that it lacks.

use crate::access::{Privacy, Role, RoomAccess, RoomKind, may_hold};
use crate::durability::Rule;
use crate::id::{CategoryId, PrincipalId, RoomId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Something with a number and a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named<Id> {
    /// Its number.
    pub id: Id,
    /// Its name when the change was made.
    pub name: String,
}

/// Principals on a category's lists: all of them, or those that were put there or taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lists {
    /// The scope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Named<PrincipalId>>,
    /// The exclusions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<Named<PrincipalId>>,
    /// Who creates rooms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub creators: Vec<Named<PrincipalId>>,
}

/// Principals on a room's lists.
pub type Roles = BTreeMap<Role, Vec<Named<PrincipalId>>>;

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A user was created.
    UserCreated {
        /// Which.
        user: Named<PrincipalId>,
        /// Whether it is an administrator.
        administrator: bool,
        /// The hash of its password. The journal does not hold it; a tail does, until the change has been dealt with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password_hash: Option<String>,
    },
    /// A group was created.
    GroupCreated {
        /// Which.
        group: Named<PrincipalId>,
        /// Users and groups in it.
        members: Vec<Named<PrincipalId>>,
    },
    /// A category was created.
    CategoryCreated {
        /// Which.
        category: Named<CategoryId>,
        /// For people.
        description: String,
        /// Its lists.
        lists: Lists,
        /// What acknowledgements in its rooms wait for.
        #[serde(default, skip_serializing_if = "Rule::is_default")]
        durability: Rule,
    },
    /// A category's lists, or what acknowledgements in its rooms wait for, were changed.
    CategoryChanged {
        /// Which.
        category: Named<CategoryId>,
        /// Put there.
        add: Lists,
        /// Taken away.
        remove: Lists,
        /// What acknowledgements wait for from then on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        durability: Option<Rule>,
    },
    /// A room was created.
    RoomCreated {
        /// Which.
        room: Named<RoomId>,
        /// In which category.
        category: Named<CategoryId>,
        /// For people.
        description: String,
        /// Who finds and joins.
        privacy: Privacy,
        /// Who posts.
        room_kind: RoomKind,
        /// Its lists.
        roles: Roles,
    },
    /// A room was changed.
    RoomChanged {
        /// Which.
        room: Named<RoomId>,
        /// New privacy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        privacy: Option<Privacy>,
        /// Off or on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        disabled: Option<bool>,
        /// Put on lists.
        #[serde(default, skip_serializing_if = "Roles::is_empty")]
        add: Roles,
        /// Taken off lists.
        #[serde(default, skip_serializing_if = "Roles::is_empty")]
        remove: Roles,
    },
}

/// A single thing that a change decides about. Of two changes of the same thing the later stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// Whether a principal is on a list of a category: allowed 0, denied 1, creators 2.
    OnList(CategoryId, u8, PrincipalId),
    /// What acknowledgements in a category's rooms wait for.
    Durability(CategoryId),
    /// Whether a principal has a role in a room.
    InRole(RoomId, Role, PrincipalId),
    /// Who finds and joins a room.
    Privacy(RoomId),
    /// Whether a room is off.
    Disabled(RoomId),
}

impl Lists {
    fn all(&self) -> [&Vec<Named<PrincipalId>>; 3] {
        [&self.allowed, &self.denied, &self.creators]
    }

    fn touched(&self, category: CategoryId) -> impl Iterator<Item = Touched> {
        let lists = (0..).zip(self.all());
        lists.flat_map(move |(list, all)| all.iter().map(move |p| Touched::OnList(category, list, p.id)))
    }
}

fn touched_roles(roles: &Roles, room: RoomId) -> impl Iterator<Item = Touched> {
    roles.iter().flat_map(move |(role, all)| all.iter().map(move |p| Touched::InRole(room, *role, p.id)))
}

impl Change {
    /// What it decides about, where a later change may decide otherwise.
    pub fn touched(&self) -> BTreeSet<Touched> {
        match self {
            Change::UserCreated { .. } | Change::GroupCreated { .. } => BTreeSet::new(),
            Change::CategoryCreated { category, lists, .. } => lists.touched(category.id).collect(),
            Change::CategoryChanged { category, add, remove, durability } => add
                .touched(category.id)
                .chain(remove.touched(category.id))
                .chain(durability.map(|_| Touched::Durability(category.id)))
                .collect(),
            Change::RoomCreated { room, roles, .. } => touched_roles(roles, room.id).collect(),
            Change::RoomChanged { room, privacy, disabled, add, remove } => touched_roles(add, room.id)
                .chain(touched_roles(remove, room.id))
                .chain(privacy.map(|_| Touched::Privacy(room.id)))
                .chain(disabled.map(|_| Touched::Disabled(room.id)))
                .collect(),
        }
    }

    /// Every principal that it puts somewhere.
    pub fn puts(&self) -> Vec<&Named<PrincipalId>> {
        match self {
            Change::UserCreated { .. } => Vec::new(),
            Change::GroupCreated { members, .. } => members.iter().collect(),
            Change::CategoryCreated { lists, .. } | Change::CategoryChanged { add: lists, .. } => {
                lists.all().into_iter().flatten().collect()
            }
            Change::RoomCreated { roles, .. } | Change::RoomChanged { add: roles, .. } => {
                roles.values().flatten().collect()
            }
        }
    }
}

/// What the present history says about the things that a lost site's change names.
#[derive(Clone, Debug, Default)]
pub struct ChangeFacts {
    /// The principals that are there, each with its affiliations.
    pub principals: BTreeMap<PrincipalId, BTreeSet<PrincipalId>>,
    /// Whether the category is there, and the principals on its lists: allowed, denied, creators.
    pub category: Option<[BTreeSet<PrincipalId>; 3]>,
    /// What acknowledgements in the category's rooms wait for.
    pub durability: Rule,
    /// The room, if it is there.
    pub room: Option<RoomAccess>,
    /// The name of what is to be created is somebody else's.
    pub name_taken: bool,
    /// What has been changed since the site was lost.
    pub since: BTreeSet<Touched>,
}

/// What becomes of a lost site's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made again, without those principals, for these reasons.
    Make {
        /// Who is left out, and why.
        without: Vec<(PrincipalId, LeftOut)>,
    },
    /// The present history says the same already.
    There,
    /// It is not made.
    Refused(ChangeRefusal),
}

/// Why a principal is left out of a change that is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftOut {
    /// It is not there.
    #[error("not there: it could not be created again")]
    Missing,
    /// It may not hold the role any more.
    #[error("{0}")]
    Ineligible(crate::access::Ineligible),
}

/// Why a change is not made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// Its name is somebody else's now.
    #[error("the name has been given to something else since")]
    NameTaken,
    /// Its category is not there.
    #[error("the category is not there: it could not be created again")]
    NoCategory,
    /// Its room is not there.
    #[error("the room is not there: it could not be created again")]
    NoRoom,
    /// Somebody has decided otherwise since.
    #[error("the same was changed again after the site was lost, and the later change stands")]
    ChangedSince,
}

/// May a lost site's change be made again? What was decided after the loss stands, walls hold, and a name has one owner.
pub fn decide_change(change: &Change, facts: &ChangeFacts) -> Verdict {
    let missing = || {
        let all = change.puts().into_iter().filter(|p| !facts.principals.contains_key(&p.id));
        all.map(|p| (p.id, LeftOut::Missing)).collect::<Vec<_>>()
    };
    let create = |there: bool| {
        if there {
            Verdict::There
        } else if facts.name_taken {
            Verdict::Refused(ChangeRefusal::NameTaken)
        } else {
            Verdict::Make { without: missing() }
        }
    };
    match change {
        Change::UserCreated { user: named, .. } | Change::GroupCreated { group: named, .. } => {
            create(facts.principals.contains_key(&named.id))
        }
        Change::CategoryCreated { .. } => create(facts.category.is_some()),
        Change::CategoryChanged { add, remove, durability, .. } => {
            let Some(lists) = &facts.category else { return Verdict::Refused(ChangeRefusal::NoCategory) };
            let holds = |names: &Lists, there: bool| {
                names
                    .all()
                    .into_iter()
                    .zip(lists)
                    .all(|(names, list)| names.iter().all(|p| list.contains(&p.id) == there))
            };
            let stands =
                holds(add, true) && holds(remove, false) && durability.is_none_or(|rule| rule == facts.durability);
            changed(change, facts, stands).unwrap_or_else(|| Verdict::Make { without: missing() })
        }
        Change::RoomCreated { privacy, room_kind, roles, .. } => {
            let Some([allowed, denied, _]) = &facts.category else {
                return Verdict::Refused(ChangeRefusal::NoCategory);
            };
            let made = create(facts.room.is_some());
            if !matches!(made, Verdict::Make { .. }) {
                return made;
            }
            let access = RoomAccess {
                privacy: *privacy,
                kind: *room_kind,
                disabled: false,
                allowed: allowed.clone(),
                denied: denied.clone(),
                roles: BTreeSet::new(),
            };
            Verdict::Make { without: left_out(roles, access, facts) }
        }
        Change::RoomChanged { privacy, disabled, add, remove, .. } => {
            let Some(access) = &facts.room else { return Verdict::Refused(ChangeRefusal::NoRoom) };
            let holds = |names: &Roles, there: bool| {
                names.iter().all(|(role, names)| names.iter().all(|p| access.roles.contains(&(*role, p.id)) == there))
            };
            let stands = privacy.is_none_or(|p| p == access.privacy)
                && disabled.is_none_or(|d| d == access.disabled)
                && holds(add, true)
                && holds(remove, false);
            changed(change, facts, stands).unwrap_or_else(|| {
                let mut after = access.clone();
                after.privacy = privacy.unwrap_or(after.privacy);
                for (role, names) in remove {
                    after.roles.retain(|(held, who)| held != role || names.iter().all(|p| p.id != *who));
                }
                Verdict::Make { without: left_out(add, after, facts) }
            })
        }
    }
}

/// The verdict on a change of something that is there, unless it is to be made.
fn changed(change: &Change, facts: &ChangeFacts, stands: bool) -> Option<Verdict> {
    if stands {
        Some(Verdict::There)
    } else if change.touched().intersection(&facts.since).next().is_some() {
        Some(Verdict::Refused(ChangeRefusal::ChangedSince))
    } else {
        None
    }
}

/// Who may not have the roles in the room, members first: a presenter must be one. Managers were put there by the room's creation
/// or by a manager, and are judged like anybody.
fn left_out(roles: &Roles, mut access: RoomAccess, facts: &ChangeFacts) -> Vec<(PrincipalId, LeftOut)> {
    let mut without = Vec::new();
    for (role, named) in roles.iter().flat_map(|(role, names)| names.iter().map(move |named| (*role, named))) {
        let why = match facts.principals.get(&named.id) {
            None => Some(LeftOut::Missing),
            Some(affiliations) => may_hold(affiliations, &access, role).err().map(LeftOut::Ineligible),
        };
        match why {
            Some(why) => without.push((named.id, why)),
            None => {
                access.roles.insert((role, named.id));
            }
        }
    }
    without
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Ineligible;

    const INES: PrincipalId = PrincipalId(10);
    const ADMIN: PrincipalId = PrincipalId(11);
    const EVERYONE: PrincipalId = PrincipalId(1);
    const STAFF: CategoryId = CategoryId(1);
    const PIER: RoomId = RoomId(7);

    fn named<Id>(id: Id, name: &str) -> Named<Id> {
        Named { id, name: name.to_owned() }
    }

    fn ines() -> Vec<Named<PrincipalId>> {
        vec![named(INES, "ines")]
    }

    fn facts() -> ChangeFacts {
        let holds = |p| (p, [p, EVERYONE].into());
        ChangeFacts {
            principals: [holds(INES), holds(ADMIN)].into(),
            category: Some([[EVERYONE].into(), [].into(), [].into()]),
            room: Some(RoomAccess {
                privacy: Privacy::Closed,
                kind: RoomKind::Normal,
                disabled: false,
                allowed: [EVERYONE].into(),
                denied: [].into(),
                roles: [(Role::Manager, ADMIN)].into(),
            }),
            ..ChangeFacts::default()
        }
    }

    fn check(change: &Change, with: impl FnOnce(&mut ChangeFacts), expect: &Verdict) {
        let mut facts = facts();
        with(&mut facts);
        assert_eq!(decide_change(change, &facts), *expect);
    }

    fn make() -> Verdict {
        Verdict::Make { without: Vec::new() }
    }

    #[test]
    fn what_was_created_is_created_again_unless_it_is_there_or_its_name_is_taken() {
        let user = Change::UserCreated { user: named(INES, "ines"), administrator: false, password_hash: None };
        check(&user, |f| drop(f.principals.remove(&INES)), &make());
        check(&user, |_| (), &Verdict::There);
        let taken = |f: &mut ChangeFacts| {
            f.principals.remove(&INES);
            f.name_taken = true;
        };
        check(&user, taken, &Verdict::Refused(ChangeRefusal::NameTaken));
        let group = Change::GroupCreated { group: named(PrincipalId(12), "watch"), members: ines() };
        check(&group, |_| (), &make());
        let without = Verdict::Make { without: vec![(INES, LeftOut::Missing)] };
        check(&group, |f| drop(f.principals.remove(&INES)), &without);
    }

    #[test]
    fn a_room_is_created_again_inside_the_walls_of_now() {
        let room = Change::RoomCreated {
            room: named(PIER, "Pier"),
            category: named(STAFF, "Staff"),
            description: String::new(),
            privacy: Privacy::Closed,
            room_kind: RoomKind::Normal,
            roles: [(Role::Member, ines()), (Role::Manager, vec![named(ADMIN, "admin")])].into(),
        };
        check(&room, |f| f.room = None, &make());
        check(&room, |_| (), &Verdict::There);
        check(&room, |f| f.category = None, &Verdict::Refused(ChangeRefusal::NoCategory));
        let denied = |f: &mut ChangeFacts| {
            f.room = None;
            f.category = Some([[EVERYONE].into(), [INES].into(), [].into()]);
        };
        let ineligible = LeftOut::Ineligible(Ineligible::NotInScope);
        check(&room, denied, &Verdict::Make { without: vec![(INES, ineligible)] });
    }

    #[test]
    fn of_two_changes_of_the_same_the_later_stands() {
        let deny = Lists { denied: ines(), ..Lists::default() };
        let category = named(STAFF, "Staff");
        let change = Change::CategoryChanged { category, add: deny, remove: Lists::default(), durability: None };
        check(&change, |_| (), &make());
        let since = |f: &mut ChangeFacts| f.since.extend([Touched::OnList(STAFF, 1, INES)]);
        check(&change, since, &Verdict::Refused(ChangeRefusal::ChangedSince));
        check(&change, |f| f.since.extend([Touched::OnList(STAFF, 0, INES)]), &make());
        check(&change, |f| f.category = Some([[EVERYONE].into(), [INES].into(), [].into()]), &Verdict::There);

        let rule = Rule::of_code(3);
        let (category, none) = (named(STAFF, "Staff"), Lists::default());
        let change = Change::CategoryChanged { category, add: none.clone(), remove: none, durability: Some(rule) };
        check(&change, |_| (), &make());
        check(&change, |f| f.durability = rule, &Verdict::There);
        let since = |f: &mut ChangeFacts| f.since.extend([Touched::Durability(STAFF)]);
        check(&change, since, &Verdict::Refused(ChangeRefusal::ChangedSince));

        let join = [(Role::Member, ines())].into();
        let change = Change::RoomChanged {
            room: named(PIER, "Pier"),
            privacy: Some(Privacy::Secret),
            disabled: None,
            add: join,
            remove: Roles::new(),
        };
        check(&change, |_| (), &make());
        check(&change, |f| f.room = None, &Verdict::Refused(ChangeRefusal::NoRoom));
        let since = |f: &mut ChangeFacts| f.since.extend([Touched::Privacy(PIER)]);
        check(&change, since, &Verdict::Refused(ChangeRefusal::ChangedSince));
        let as_it_is = |f: &mut ChangeFacts| {
            if let Some(room) = &mut f.room {
                room.privacy = Privacy::Secret;
                room.roles.insert((Role::Member, INES));
            }
        };
        check(&change, as_it_is, &Verdict::There);
    }
}
