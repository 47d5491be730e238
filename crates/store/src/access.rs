//! What an access decision needs, for `rules::access` to decide on.
//!
//! The room's access version is read first and everything else later. What is decided on may so be newer than the
//! version says, never older; a write that states the version is refused when it has moved on.

use crate::connection::Store;
use crate::error::StoreError;
use rules::access::{Asker, Privacy, Role, RoomAccess, RoomKind};
use rules::durability::Rule;
use rules::id::{CategoryId, Epoch, PrincipalId, RoomId, Seq};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A room, and what decides about it for the askers that were asked about.
#[derive(Clone, Debug)]
pub struct RoomFacts {
    /// Which room.
    pub id: RoomId,
    /// Its name.
    pub name: String,
    /// Its category.
    pub category: CategoryId,
    /// Its category's name.
    pub category_name: String,
    /// For people.
    pub description: String,
    /// Version of what decides about access.
    pub access_version: i64,
    /// Number of its newest entry.
    pub last_seq: Seq,
    /// Epoch of its newest entry.
    pub last_epoch: Epoch,
    /// What acknowledgements in it wait for, as its category says.
    pub durability: Rule,
    /// What decides. Lists hold only principals that the askers are affiliated with.
    pub access: RoomAccess,
}

/// Askers and rooms.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The askers that exist.
    pub askers: HashMap<PrincipalId, Asker>,
    /// The rooms that exist.
    pub rooms: BTreeMap<RoomId, RoomFacts>,
}

/// Which rooms.
enum Rooms<'a> {
    These(&'a [RoomId]),
    Named(&'a str),
    All,
}

/// A principal's affiliations: itself, every group it is in, directly or through groups, and Everyone (number 1).
pub(crate) const AFFILIATIONS: &str = "WITH RECURSIVE affiliation (principal, holds) AS (
        SELECT p.id, p.id FROM standfast.principals p WHERE p.id = ANY ($1)
        UNION SELECT p.id, 1 FROM standfast.principals p WHERE p.id = ANY ($1)
        UNION SELECT a.principal, m.group_id FROM affiliation a
              JOIN standfast.group_members m ON m.member = a.holds)
    SELECT p.id, p.disabled, p.administrator, array_agg(a.holds)
    FROM affiliation a JOIN standfast.principals p ON p.id = a.principal GROUP BY p.id";

const SELECT_ROOM: &str = "SELECT r.id, r.name, r.category, c.name, r.description, r.privacy, r.kind, r.disabled,
        h.access_version, h.last_seq, h.last_epoch, h.durability
    FROM standfast.rooms r JOIN standfast.categories c ON c.id = r.category
    JOIN standfast.room_heads h ON h.room = r.id";

impl Store {
    /// Facts about these askers and rooms.
    pub async fn facts(&self, askers: &[PrincipalId], rooms: &[RoomId]) -> Result<Facts, StoreError> {
        self.read_facts(askers, Rooms::These(rooms)).await
    }

    /// Facts about one asker and every room, or the room of that name.
    pub async fn directory(&self, asker: PrincipalId, name: Option<&str>) -> Result<Facts, StoreError> {
        self.read_facts(&[asker], name.map_or(Rooms::All, Rooms::Named)).await
    }

    async fn read_facts(&self, askers: &[PrincipalId], which: Rooms<'_>) -> Result<Facts, StoreError> {
        let doing = "read what decides about access";
        let connection = self.reader();
        let rows = match which {
            Rooms::These(rooms) => {
                let ids: Vec<i64> = rooms.iter().map(|r| r.0).collect();
                connection.read(doing, by_id(), &[&ids]).await?
            }
            Rooms::Named(name) => connection.read(doing, by_name(), &[&crate::principals::fold(name)]).await?,
            Rooms::All => connection.read(doing, SELECT_ROOM, &[]).await?,
        };
        let mut rooms: BTreeMap<RoomId, RoomFacts> = rows.iter().map(room_of).map(|facts| (facts.id, facts)).collect();

        let ids: Vec<i64> = askers.iter().map(|a| a.0).collect();
        let mut found = HashMap::with_capacity(askers.len());
        let mut affiliations = BTreeSet::new();
        for row in connection.read(doing, AFFILIATIONS, &[&ids]).await? {
            let holds: Vec<i64> = row.get(3);
            affiliations.extend(holds.iter().copied());
            let asker = Asker {
                affiliations: holds.into_iter().map(PrincipalId).collect(),
                disabled: row.get(1),
                administrator: row.get(2),
            };
            found.insert(PrincipalId(row.get(0)), asker);
        }
        let affiliations: Vec<i64> = affiliations.into_iter().collect();
        self.add_roles(&mut rooms, &affiliations).await?;
        self.add_scopes(&mut rooms, &affiliations).await?;
        Ok(Facts { askers: found, rooms })
    }

    async fn add_roles(&self, rooms: &mut BTreeMap<RoomId, RoomFacts>, principals: &[i64]) -> Result<(), StoreError> {
        let ids: Vec<i64> = rooms.keys().map(|r| r.0).collect();
        let rows = self.reader().read("read rooms' roles", ROLES, &[&ids, &principals]).await?;
        for row in rows {
            if let (Some(room), Some(role)) = (rooms.get_mut(&RoomId(row.get(0))), role_of(row.get(1))) {
                room.access.roles.insert((role, PrincipalId(row.get(2))));
            }
        }
        Ok(())
    }

    async fn add_scopes(&self, rooms: &mut BTreeMap<RoomId, RoomFacts>, principals: &[i64]) -> Result<(), StoreError> {
        let ids: BTreeSet<i64> = rooms.values().map(|r| r.category.0).collect();
        let ids: Vec<i64> = ids.into_iter().collect();
        let rows = self.reader().read("read categories' scopes", SCOPES, &[&ids, &principals]).await?;
        let mut scopes: HashMap<i64, (BTreeSet<PrincipalId>, BTreeSet<PrincipalId>)> = HashMap::new();
        for row in rows {
            let (allowed, denied) = scopes.entry(row.get(0)).or_default();
            let list = if row.get::<_, &str>(1) == "allowed" { allowed } else { denied };
            list.insert(PrincipalId(row.get(2)));
        }
        for room in rooms.values_mut() {
            if let Some((allowed, denied)) = scopes.get(&room.category.0) {
                room.access.allowed.clone_from(allowed);
                room.access.denied.clone_from(denied);
            }
        }
        Ok(())
    }
}

fn room_of(row: &tokio_postgres::Row) -> RoomFacts {
    let privacy = match row.get(5) {
        "open" => Privacy::Open,
        "closed" => Privacy::Closed,
        _ => Privacy::Secret,
    };
    let kind = if row.get::<_, &str>(6) == "normal" { RoomKind::Normal } else { RoomKind::Auditorium };
    RoomFacts {
        id: RoomId(row.get(0)),
        name: row.get(1),
        category: CategoryId(row.get(2)),
        category_name: row.get(3),
        description: row.get(4),
        access_version: row.get(8),
        last_seq: Seq(row.get(9)),
        last_epoch: Epoch(row.get(10)),
        durability: Rule::of_code(row.get(11)),
        access: RoomAccess {
            privacy,
            kind,
            disabled: row.get(7),
            allowed: BTreeSet::new(),
            denied: BTreeSet::new(),
            roles: BTreeSet::new(),
        },
    }
}

pub(crate) fn role_of(text: &str) -> Option<Role> {
    match text {
        "member" => Some(Role::Member),
        "manager" => Some(Role::Manager),
        "presenter" => Some(Role::Presenter),
        _ => None,
    }
}

pub(crate) fn role_text(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Manager => "manager",
        Role::Presenter => "presenter",
    }
}

pub(crate) fn privacy_text(privacy: Privacy) -> &'static str {
    match privacy {
        Privacy::Open => "open",
        Privacy::Closed => "closed",
        Privacy::Secret => "secret",
    }
}

pub(crate) fn kind_text(kind: RoomKind) -> &'static str {
    match kind {
        RoomKind::Normal => "normal",
        RoomKind::Auditorium => "auditorium",
    }
}

pub(crate) const ROLES: &str = "SELECT room, role, principal FROM standfast.room_roles
    WHERE room = ANY ($1) AND principal = ANY ($2)";

pub(crate) const SCOPES: &str = "SELECT category, list, principal FROM standfast.category_entries
    WHERE category = ANY ($1) AND principal = ANY ($2) AND list IN ('allowed', 'denied')";

pub(crate) fn by_id() -> &'static str {
    static SQL: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| format!("{SELECT_ROOM} WHERE r.id = ANY ($1)"));
    &SQL
}

fn by_name() -> &'static str {
    static SQL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| format!("{SELECT_ROOM} WHERE r.folded = $1"));
    &SQL
}
