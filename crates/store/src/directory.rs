//! Categories and rooms: creating them and changing their lists.
//!
//! Each change is decided on inside its own transaction, on what that transaction sees, and raises the access version
//! of every room that it is about. The rooms are returned, so that the caller can tell other servers.

use crate::access::{AFFILIATIONS, kind_text, privacy_text, role_of, role_text};
use crate::connection::{Store, TxError};
use crate::error::StoreError;
use crate::journal::note;
use crate::principals::{fold, principals_named};
use rules::access::{Asker, Deed, Privacy, Refusal, Role, RoomAccess, RoomKind, decide, may_create_room, may_hold};
use rules::change::{Change, Lists, Named, Roles};
use rules::durability::{Durability, Rule, WhenUnavailable};
use rules::id::{CategoryId, Epoch, PrincipalId, RoomId};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Transaction;

/// Names on a category's lists: all of them, or those to add or take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CategoryLists {
    /// The scope.
    pub allowed: Vec<String>,
    /// The exclusions.
    pub denied: Vec<String>,
    /// Who creates rooms.
    pub creators: Vec<String>,
}

/// Lists by the names of their kinds in the table.
pub(crate) fn by_column(lists: &Lists) -> [(&'static str, &[Named<PrincipalId>]); 3] {
    [("allowed", &lists.allowed), ("denied", &lists.denied), ("creators", &lists.creators)]
}

/// A category.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryRow {
    /// Its number.
    pub id: CategoryId,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Its lists.
    pub lists: CategoryLists,
    /// What acknowledgements in its rooms wait for.
    pub durability: Rule,
}

/// Changes to a category.
#[derive(Clone, Debug, Default)]
pub struct CategoryPatch {
    /// Names to put on lists.
    pub add: CategoryLists,
    /// Names to take off lists.
    pub remove: CategoryLists,
    /// What acknowledgements wait for from now on; what is left out stays.
    pub durability: Option<Durability>,
    /// What happens when that cannot be had from now on.
    pub when_unavailable: Option<WhenUnavailable>,
}

/// A room to be created.
#[derive(Clone, Debug)]
pub struct NewRoomRow {
    /// Its name, checked.
    pub name: String,
    /// Its category's name.
    pub category: String,
    /// For people.
    pub description: String,
    /// Who finds and joins.
    pub privacy: Privacy,
    /// Who posts.
    pub kind: RoomKind,
    /// Members from the start.
    pub members: Vec<String>,
}

/// Changes to a room.
#[derive(Clone, Debug, Default)]
pub struct RoomPatch {
    /// Names to put on lists.
    pub add: Vec<(Role, Vec<String>)>,
    /// Names to take off lists.
    pub remove: Vec<(Role, Vec<String>)>,
    /// Off or on.
    pub disabled: Option<bool>,
    /// New privacy.
    pub privacy: Option<Privacy>,
}

impl Store {
    /// Create a category, in the name of `actor`.
    pub async fn create_category(
        &self,
        name: &str,
        description: &str,
        lists: &CategoryLists,
        durability: Rule,
        actor: PrincipalId,
    ) -> Result<CategoryId, StoreError> {
        self.write_tx("create a category", async |tx: &Transaction<'_>| {
            take_node_name(tx, name).await?;
            let row = tx
                .query_one(
                    "INSERT INTO standfast.categories (name, folded, description, durability)
                     VALUES ($1, $2, $3, $4) RETURNING id",
                    &[&name, &fold(name), &description, &durability.code()],
                )
                .await?;
            let category = Named { id: CategoryId(row.get(0)), name: name.to_owned() };
            let id = category.id;
            let lists = add_to_lists(tx, id.0, lists).await?;
            let change = Change::CategoryCreated { category, description: description.to_owned(), lists, durability };
            note(tx, self.epoch(), actor, &[change]).await?;
            Ok(id)
        })
        .await
    }

    /// Change a category, in the name of `actor`. Returns its rooms: access to each may have changed.
    pub async fn change_category(
        &self,
        category: CategoryId,
        patch: &CategoryPatch,
        actor: PrincipalId,
    ) -> Result<Vec<RoomId>, StoreError> {
        self.write_tx("change a category", async |tx: &Transaction<'_>| {
            let lock = "SELECT name, durability FROM standfast.categories WHERE id = $1 FOR UPDATE";
            let Some(row) = tx.query_opt(lock, &[&category.0]).await? else {
                return Err(StoreError::NotFound(format!("there is no category {category}")).into());
            };
            let named = Named { id: category, name: row.get(0) };
            let rows = tx.query("SELECT id FROM standfast.rooms WHERE category = $1", &[&category.0]).await?;
            let rooms: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            tx.execute("SELECT standfast.touch_access($1)", &[&rooms]).await?;
            let remove = remove_from_lists(tx, category.0, &patch.remove).await?;
            let add = add_to_lists(tx, category.0, &patch.add).await?;
            let before = Rule::of_code(row.get(1));
            let rule = before.changed(patch.durability, patch.when_unavailable).map_err(StoreError::Invalid)?;
            let durability = (rule != before).then_some(rule);
            if let Some(rule) = durability {
                set_durability(tx, category, rule).await?;
            }
            let change = Change::CategoryChanged { category: named, add, remove, durability };
            if !change.touched().is_empty() {
                note(tx, self.epoch(), actor, &[change]).await?;
            }
            Ok(rooms.into_iter().map(RoomId).collect())
        })
        .await
    }

    /// All categories, by name.
    pub async fn categories(&self) -> Result<Vec<CategoryRow>, StoreError> {
        let rows = self
            .reader()
            .read(
                "list the categories",
                "SELECT c.id, c.name, c.description, l.list, p.name, c.durability
                 FROM standfast.categories c
                 LEFT JOIN standfast.category_entries l ON l.category = c.id
                 LEFT JOIN standfast.principals p ON p.id = l.principal ORDER BY c.folded, l.list, p.folded",
                &[],
            )
            .await?;
        let mut categories: Vec<CategoryRow> = Vec::new();
        for row in rows {
            let id = CategoryId(row.get(0));
            if categories.last().is_none_or(|last| last.id != id) {
                let (lists, durability) = (CategoryLists::default(), Rule::of_code(row.get(5)));
                categories.push(CategoryRow { id, name: row.get(1), description: row.get(2), lists, durability });
            }
            let (Some(category), Some(list), Some(name)) =
                (categories.last_mut(), row.get::<_, Option<&str>>(3), row.get::<_, Option<String>>(4))
            else {
                continue;
            };
            match list {
                "allowed" => category.lists.allowed.push(name),
                "denied" => category.lists.denied.push(name),
                _ => category.lists.creators.push(name),
            }
        }
        Ok(categories)
    }

    /// Create a room in the name of `creator`, who becomes its manager.
    pub async fn create_room(&self, room: &NewRoomRow, creator: PrincipalId) -> Result<RoomId, StoreError> {
        self.write_tx("create a room", async |tx: &Transaction<'_>| {
            let category = category_named(tx, &room.category).await?;
            let [allowed, denied, creators] = lists_of(tx, category).await?;
            let asker = asker(tx, creator).await?;
            may_create_room(&asker, &allowed, &denied, &creators).map_err(StoreError::Refused)?;
            take_node_name(tx, &room.name).await?;
            let row = tx
                .query_one(
                    "INSERT INTO standfast.rooms (name, folded, category, description, privacy, kind)
                     VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
                    &[
                        &room.name,
                        &fold(&room.name),
                        &category,
                        &room.description,
                        &privacy_text(room.privacy),
                        &kind_text(room.kind),
                    ],
                )
                .await?;
            let id: i64 = row.get(0);
            insert_head(tx, id, category, self.epoch()).await?;
            let mut access = RoomAccess {
                privacy: room.privacy,
                kind: room.kind,
                disabled: false,
                allowed,
                denied,
                roles: BTreeSet::new(),
            };
            let members = add_role(tx, id, &mut access, Role::Member, &room.members).await?;
            insert_roles(tx, id, Role::Manager, &[creator.0]).await?;
            let mut roles = Roles::from([(Role::Manager, vec![named(tx, creator).await?])]);
            if !members.is_empty() {
                roles.insert(Role::Member, members);
            }
            let change = Change::RoomCreated {
                room: Named { id: RoomId(id), name: room.name.clone() },
                category: Named { id: CategoryId(category), name: room.category.clone() },
                description: room.description.clone(),
                privacy: room.privacy,
                room_kind: room.kind,
                roles,
            };
            note(tx, self.epoch(), creator, &[change]).await?;
            Ok(RoomId(id))
        })
        .await
    }

    /// Change a room in the name of `who`.
    pub async fn change_room(&self, room: RoomId, patch: &RoomPatch, who: PrincipalId) -> Result<(), StoreError> {
        self.write_tx("change a room", async |tx: &Transaction<'_>| {
            // The head is locked first: from here on no post is written on the old decisions.
            tx.execute("SELECT standfast.touch_access($1)", &[&vec![room.0]]).await?;
            let mut access = access_of(tx, room).await?;
            let asker = asker(tx, who).await?;
            decide(&asker, &access, Deed::Manage).map_err(StoreError::Refused)?;
            if patch.disabled == Some(false) && access.disabled && !asker.administrator {
                return Err(StoreError::Refused(Refusal::NotAdministrator).into());
            }
            if let Some(privacy) = patch.privacy {
                access.privacy = privacy;
            }
            let row = tx
                .query_one(
                    "UPDATE standfast.rooms SET disabled = coalesce($2, disabled), privacy = $3 WHERE id = $1 RETURNING name",
                    &[&room.0, &patch.disabled, &privacy_text(access.privacy)],
                )
                .await?;
            let (mut add, mut remove) = (Roles::new(), Roles::new());
            for (role, names) in &patch.remove {
                let named = remove_role(tx, room.0, &mut access, *role, names).await?;
                remove.entry(*role).or_default().extend(named);
            }
            // Members first: a presenter must be one.
            let mut adds: Vec<&(Role, Vec<String>)> = patch.add.iter().collect();
            adds.sort_by_key(|(role, _)| *role);
            for (role, names) in adds {
                let named = add_role(tx, room.0, &mut access, *role, names).await?;
                add.entry(*role).or_default().extend(named);
            }
            [&mut add, &mut remove].into_iter().for_each(|roles| roles.retain(|_, names| !names.is_empty()));
            let named = Named { id: room, name: row.get(0) };
            let change =
                Change::RoomChanged { room: named, privacy: patch.privacy, disabled: patch.disabled, add, remove };
            if !change.touched().is_empty() {
                note(tx, self.epoch(), who, &[change]).await?;
            }
            Ok(())
        })
        .await
    }

    /// The names on a room's lists, for those who may manage it.
    pub async fn room_lists(&self, room: RoomId) -> Result<BTreeMap<Role, Vec<String>>, StoreError> {
        let rows = self
            .reader()
            .read(
                "read a room's lists",
                "SELECT r.role, p.name FROM standfast.room_roles r JOIN standfast.principals p ON p.id = r.principal
                 WHERE r.room = $1 ORDER BY p.folded",
                &[&room.0],
            )
            .await?;
        let mut lists: BTreeMap<Role, Vec<String>> = BTreeMap::new();
        for row in rows {
            if let Some(role) = role_of(row.get(0)) {
                lists.entry(role).or_default().push(row.get(1));
            }
        }
        Ok(lists)
    }
}

/// Set what acknowledgements in a category's rooms wait for.
pub(crate) async fn set_durability(tx: &Transaction<'_>, category: CategoryId, rule: Rule) -> Result<(), TxError> {
    tx.execute("SELECT standfast.set_durability($1, $2)", &[&category.0, &rule.code()]).await?;
    Ok(())
}

/// The head of a room that is being created.
pub(crate) async fn insert_head(tx: &Transaction<'_>, room: i64, category: i64, epoch: Epoch) -> Result<(), TxError> {
    let head = "INSERT INTO standfast.room_heads (room, last_epoch, durability)
         SELECT $1, $2, c.durability FROM standfast.categories c WHERE c.id = $3";
    tx.execute(head, &[&room, &epoch.0, &category]).await?;
    Ok(())
}

fn numbers(principals: &[Named<PrincipalId>]) -> Vec<i64> {
    principals.iter().map(|p| p.id.0).collect()
}

async fn named(tx: &Transaction<'_>, who: PrincipalId) -> Result<Named<PrincipalId>, TxError> {
    let row = tx.query_one("SELECT name FROM standfast.principals WHERE id = $1", &[&who.0]).await?;
    Ok(Named { id: who, name: row.get(0) })
}

pub(crate) async fn take_node_name(tx: &Transaction<'_>, name: &str) -> Result<(), TxError> {
    let taken = tx
        .execute("INSERT INTO standfast.node_names (folded) VALUES ($1) ON CONFLICT DO NOTHING", &[&fold(name)])
        .await?
        == 0;
    if taken {
        let message = format!("the name '{name}' is taken by a room or a category; choose another");
        return Err(StoreError::Conflict(message).into());
    }
    Ok(())
}

async fn category_named(tx: &Transaction<'_>, name: &str) -> Result<i64, TxError> {
    // Locked against a change of its lists until the room stands.
    let row = tx.query_opt("SELECT id FROM standfast.categories WHERE folded = $1 FOR SHARE", &[&fold(name)]).await?;
    row.map(|row| row.get(0))
        .ok_or_else(|| StoreError::NotFound(format!("there is no category '{name}'; create it first")).into())
}

pub(crate) async fn lists_of(tx: &Transaction<'_>, category: i64) -> Result<[BTreeSet<PrincipalId>; 3], TxError> {
    let rows =
        tx.query("SELECT list, principal FROM standfast.category_entries WHERE category = $1", &[&category]).await?;
    let mut lists = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for row in rows {
        let place = match row.get(0) {
            "allowed" => 0,
            "denied" => 1,
            _ => 2,
        };
        lists[place].insert(PrincipalId(row.get(1)));
    }
    Ok(lists)
}

/// The principals on these lists, by number and name.
async fn named_on(tx: &Transaction<'_>, lists: &CategoryLists) -> Result<Lists, TxError> {
    Ok(Lists {
        allowed: principals_named(tx, &lists.allowed).await?,
        denied: principals_named(tx, &lists.denied).await?,
        creators: principals_named(tx, &lists.creators).await?,
    })
}

async fn add_to_lists(tx: &Transaction<'_>, category: i64, lists: &CategoryLists) -> Result<Lists, TxError> {
    let lists = named_on(tx, lists).await?;
    for (list, principals) in by_column(&lists) {
        tx.execute(
            "INSERT INTO standfast.category_entries (category, list, principal)
             SELECT $1, $2, p FROM unnest($3::bigint[]) p ON CONFLICT DO NOTHING",
            &[&category, &list, &numbers(principals)],
        )
        .await?;
    }
    Ok(lists)
}

async fn remove_from_lists(tx: &Transaction<'_>, category: i64, lists: &CategoryLists) -> Result<Lists, TxError> {
    let lists = named_on(tx, lists).await?;
    for (list, principals) in by_column(&lists) {
        tx.execute(
            "DELETE FROM standfast.category_entries WHERE category = $1 AND list = $2 AND principal = ANY ($3)",
            &[&category, &list, &numbers(principals)],
        )
        .await?;
    }
    Ok(lists)
}

async fn asker(tx: &Transaction<'_>, who: PrincipalId) -> Result<Asker, TxError> {
    let row = tx.query_opt(AFFILIATIONS, &[&vec![who.0]]).await?;
    let row = row.ok_or_else(|| StoreError::NotFound(format!("there is no user {who}")))?;
    let holds: Vec<i64> = row.get(3);
    Ok(Asker {
        affiliations: holds.into_iter().map(PrincipalId).collect(),
        disabled: row.get(1),
        administrator: row.get(2),
    })
}

pub(crate) async fn access_of(tx: &Transaction<'_>, room: RoomId) -> Result<RoomAccess, TxError> {
    let row = tx
        .query_opt("SELECT category, privacy, kind, disabled FROM standfast.rooms WHERE id = $1", &[&room.0])
        .await?
        .ok_or_else(|| StoreError::NotFound(format!("there is no room {room}")))?;
    let [allowed, denied, _] = lists_of(tx, row.get(0)).await?;
    let privacy = match row.get(1) {
        "open" => Privacy::Open,
        "closed" => Privacy::Closed,
        _ => Privacy::Secret,
    };
    let kind = if row.get::<_, &str>(2) == "normal" { RoomKind::Normal } else { RoomKind::Auditorium };
    let rows = tx.query("SELECT role, principal FROM standfast.room_roles WHERE room = $1", &[&room.0]).await?;
    let roles = rows.iter().filter_map(|row| Some((role_of(row.get(0))?, PrincipalId(row.get(1))))).collect();
    Ok(RoomAccess { privacy, kind, disabled: row.get(3), allowed, denied, roles })
}

async fn add_role(
    tx: &Transaction<'_>,
    room: i64,
    access: &mut RoomAccess,
    role: Role,
    names: &[String],
) -> Result<Vec<Named<PrincipalId>>, TxError> {
    let principals = principals_named(tx, names).await?;
    for row in tx.query(AFFILIATIONS, &[&numbers(&principals)]).await? {
        let holds: Vec<i64> = row.get(3);
        let affiliations = holds.into_iter().map(PrincipalId).collect();
        may_hold(&affiliations, access, role).map_err(|why| {
            let id = PrincipalId(row.get(0));
            let name = principals.iter().position(|p| p.id == id).map_or("?", |place| names[place].as_str());
            StoreError::Invalid(format!("'{name}' cannot be {}: {why}", role_text(role)))
        })?;
    }
    insert_roles(tx, room, role, &numbers(&principals)).await?;
    access.roles.extend(principals.iter().map(|p| (role, p.id)));
    Ok(principals)
}

pub(crate) async fn insert_roles(
    tx: &Transaction<'_>,
    room: i64,
    role: Role,
    principals: &[i64],
) -> Result<(), TxError> {
    tx.execute(
        "INSERT INTO standfast.room_roles (room, role, principal)
         SELECT $1, $2, p FROM unnest($3::bigint[]) p ON CONFLICT DO NOTHING",
        &[&room, &role_text(role), &principals],
    )
    .await?;
    Ok(())
}

async fn remove_role(
    tx: &Transaction<'_>,
    room: i64,
    access: &mut RoomAccess,
    role: Role,
    names: &[String],
) -> Result<Vec<Named<PrincipalId>>, TxError> {
    let principals = principals_named(tx, names).await?;
    delete_roles(tx, room, role, &numbers(&principals)).await?;
    access.roles.retain(|(held, who)| {
        !(principals.iter().any(|p| p.id == *who)
            && (*held == role || (role == Role::Member && *held == Role::Presenter)))
    });
    Ok(principals)
}

/// Who is no member any more is no presenter either.
pub(crate) async fn delete_roles(
    tx: &Transaction<'_>,
    room: i64,
    role: Role,
    principals: &[i64],
) -> Result<(), TxError> {
    let roles: &[&str] = if role == Role::Member { &["member", "presenter"] } else { &[role_text(role)] };
    let delete = "DELETE FROM standfast.room_roles WHERE room = $1 AND role = ANY ($2) AND principal = ANY ($3)";
    tx.execute(delete, &[&room, &roles, &principals]).await?;
    Ok(())
}
