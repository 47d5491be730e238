//! Changes that administrators made at a lost site, made again: one after the other, each with its outcome in the same
//! transaction. `rules::change` decides; numbers stay what they were, so that the entries of the tail find their rooms and authors.

use crate::access::{AFFILIATIONS, kind_text, privacy_text};
use crate::connection::{Store, TxError};
use crate::directory::{
    access_of, by_column, delete_roles, insert_head, insert_roles, lists_of, set_durability, take_node_name,
};
use crate::error::StoreError;
use crate::principals::fold;
use rules::change::{Change, ChangeFacts, LeftOut, Lists, Named, Roles, Touched, Verdict, decide_change};
use rules::durability::Rule;
use rules::id::{CategoryId, PrincipalId, RoomId};
use std::collections::BTreeSet;
use tokio_postgres::Transaction;

/// The next change that has no outcome, and what became of the same one in another tail or line of history.
const NEXT: &str = "SELECT c.n, c.change, w.outcome, w.reason, t.left_by, EXISTS (
        SELECT 1 FROM standfast.changes h
        WHERE h.first_n = coalesce(c.first_n, c.n) AND h.first_epoch = coalesce(c.first_epoch, c.epoch))
    FROM standfast.tails t JOIN standfast.tail_changes c ON c.tail = t.id AND c.outcome IS NULL
    LEFT JOIN LATERAL (
        SELECT x.outcome, x.reason FROM standfast.tail_changes x
        WHERE coalesce(x.first_n, x.n) = coalesce(c.first_n, c.n)
          AND coalesce(x.first_epoch, x.epoch) = coalesce(c.first_epoch, c.epoch)
          AND x.tail <> c.tail AND x.outcome IS NOT NULL LIMIT 1) w ON true
    WHERE t.id = $1 ORDER BY c.n LIMIT 1";

const DEALT: &str = "UPDATE standfast.tail_changes
    SET outcome = $3, reason = $4, dealt_at = clock_timestamp(), change = change - 'password_hash'
    WHERE tail = $1 AND n = $2";

/// What was decided about the same things since an epoch began, by whoever was there.
const SINCE: &str = "SELECT c.change FROM standfast.changes c
    WHERE c.first_n IS NULL AND c.n > (SELECT e.last_change FROM standfast.epochs e WHERE e.epoch = $1)
      AND (c.change->'category'->>'id' = $2 AND c.change->>'kind' = 'category_changed'
           OR c.change->'room'->>'id' = $3 AND c.change->>'kind' = 'room_changed')";

/// What became of a change.
enum Became {
    Entered(Option<String>),
    There,
    Refused(String),
}

impl Store {
    /// Deal with the next change of a tail. Returns the rooms to which access may have changed; `None` when every change of the
    /// tail has its outcome.
    pub async fn re_enter_change(&self, tail: &str) -> Result<Option<Vec<RoomId>>, StoreError> {
        self.write_tx("make a change again", async |tx: &Transaction<'_>| {
            tx.execute("SELECT 1 FROM standfast.tails WHERE id = $1 FOR NO KEY UPDATE", &[&tail]).await?;
            let Some(row) = tx.query_opt(NEXT, &[&tail]).await? else { return Ok(None) };
            let n: i64 = row.get(0);
            let before: Option<String> = row.get(2);
            let known: bool = row.get(5);
            let mut rooms = Vec::new();
            let became = match before.as_deref() {
                Some("refused") => Became::Refused(row.get::<_, Option<String>>(3).unwrap_or_default()),
                Some(_) => Became::There,
                None if known => Became::There,
                None => match serde_json::from_value::<Change>(row.get(1)) {
                    Ok(change) => self.make_again(tx, &change, row.get(4), &mut rooms).await?,
                    Err(error) => Became::Refused(format!("this program does not know such a change: {error}")),
                },
            };
            if matches!(became, Became::Entered(_)) {
                tx.execute("SELECT standfast.note_late_change($1, $2, $3)", &[&self.epoch().0, &tail, &n]).await?;
            }
            let (outcome, reason) = match became {
                Became::Entered(without) => ("entered", without),
                Became::There => ("there", None),
                Became::Refused(why) => ("refused", Some(why)),
            };
            tx.execute(DEALT, &[&tail, &n, &outcome, &reason]).await?;
            Ok(Some(rooms))
        })
        .await
    }

    /// Refuse the next change of a tail: PostgreSQL did not take it.
    pub async fn refuse_change(&self, tail: &str, why: &str) -> Result<(), StoreError> {
        self.write_tx("refuse a change", async |tx: &Transaction<'_>| {
            let next = "UPDATE standfast.tail_changes
                SET outcome = 'refused', reason = $2, dealt_at = clock_timestamp(), change = change - 'password_hash'
                WHERE tail = $1 AND n = (SELECT min(n) FROM standfast.tail_changes WHERE tail = $1 AND outcome IS NULL)";
            tx.execute(next, &[&tail, &why]).await?;
            Ok(())
        })
        .await
    }

    async fn make_again(
        &self,
        tx: &Transaction<'_>,
        change: &Change,
        left_by: i64,
        rooms: &mut Vec<RoomId>,
    ) -> Result<Became, TxError> {
        let facts = facts(tx, change, left_by).await?;
        let without = match decide_change(change, &facts) {
            Verdict::There => return Ok(Became::There),
            Verdict::Refused(why) => return Ok(Became::Refused(why.to_string())),
            Verdict::Make { without } => without,
        };
        let left_out: BTreeSet<PrincipalId> = without.iter().map(|(who, _)| *who).collect();
        let with = |names: &[Named<PrincipalId>]| -> Vec<i64> {
            names.iter().map(|p| p.id).filter(|id| !left_out.contains(id)).map(|id| id.0).collect()
        };
        match change {
            Change::UserCreated { user, administrator, password_hash } => {
                let insert = "INSERT INTO standfast.principals (id, name, folded, kind, password_hash, administrator)
                     VALUES ($1, $2, $3, 'user', $4, $5)";
                let (id, folded) = (user.id.0, fold(&user.name));
                tx.execute(insert, &[&id, &user.name, &folded, password_hash, administrator]).await?;
            }
            Change::GroupCreated { group, members } => {
                let insert = "INSERT INTO standfast.principals (id, name, folded, kind) VALUES ($1, $2, $3, 'group')";
                tx.execute(insert, &[&group.id.0, &group.name, &fold(&group.name)]).await?;
                let insert = "INSERT INTO standfast.group_members (group_id, member)
                     SELECT $1, m FROM unnest($2::bigint[]) m ON CONFLICT DO NOTHING";
                tx.execute(insert, &[&group.id.0, &with(members)]).await?;
            }
            Change::CategoryCreated { category, description, lists, durability } => {
                take_node_name(tx, &category.name).await?;
                let insert = "INSERT INTO standfast.categories (id, name, folded, description, durability)
                     VALUES ($1, $2, $3, $4, $5)";
                let (id, folded) = (category.id.0, fold(&category.name));
                tx.execute(insert, &[&id, &category.name, &folded, description, &durability.code()]).await?;
                put_on_lists(tx, category.id, lists, with).await?;
            }
            Change::CategoryChanged { category, add, remove, durability } => {
                let of = tx.query("SELECT id FROM standfast.rooms WHERE category = $1", &[&category.id.0]).await?;
                let of: Vec<i64> = of.iter().map(|row| row.get(0)).collect();
                tx.execute("SELECT standfast.touch_access($1)", &[&of]).await?;
                rooms.extend(of.into_iter().map(RoomId));
                for (list, names) in by_column(remove) {
                    let gone: Vec<i64> = names.iter().map(|p| p.id.0).collect();
                    let delete = "DELETE FROM standfast.category_entries
                         WHERE category = $1 AND list = $2 AND principal = ANY ($3)";
                    tx.execute(delete, &[&category.id.0, &list, &gone]).await?;
                }
                put_on_lists(tx, category.id, add, with).await?;
                if let Some(rule) = durability {
                    set_durability(tx, category.id, *rule).await?;
                }
            }
            Change::RoomCreated { room, category, description, privacy, room_kind, roles } => {
                take_node_name(tx, &room.name).await?;
                let insert = "INSERT INTO standfast.rooms (id, name, folded, category, description, privacy, kind)
                     VALUES ($1, $2, $3, $4, $5, $6, $7)";
                let (folded, privacy, kind) = (fold(&room.name), privacy_text(*privacy), kind_text(*room_kind));
                let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
                    [&room.id.0, &room.name, &folded, &category.id.0, description, &privacy, &kind];
                tx.execute(insert, &values).await?;
                insert_head(tx, room.id.0, category.id.0, self.epoch()).await?;
                // Who saw what was written in it is told, as in any room, that history went on without that.
                let starts = "INSERT INTO standfast.epoch_starts (room, epoch, last_seq)
                     SELECT $1, e.epoch, 0 FROM standfast.epochs e WHERE e.epoch >= $2";
                tx.execute(starts, &[&room.id.0, &left_by]).await?;
                put_in_roles(tx, room.id, roles, with).await?;
            }
            Change::RoomChanged { room, privacy, disabled, add, remove } => {
                let update = "UPDATE standfast.rooms SET disabled = coalesce($2, disabled),
                     privacy = coalesce($3, privacy) WHERE id = $1";
                tx.execute(update, &[&room.id.0, disabled, &privacy.map(privacy_text)]).await?;
                for (role, names) in remove {
                    let gone: Vec<i64> = names.iter().map(|p| p.id.0).collect();
                    delete_roles(tx, room.id.0, *role, &gone).await?;
                }
                put_in_roles(tx, room.id, add, with).await?;
                rooms.push(room.id);
            }
        }
        Ok(Became::Entered(says_without(change, &without)))
    }
}

/// The categories and rooms that a change is about are locked, so that what was decided on is what is changed.
async fn facts(tx: &Transaction<'_>, change: &Change, left_by: i64) -> Result<ChangeFacts, TxError> {
    let (category, room, principal, node) = match change {
        Change::UserCreated { user: named, .. } | Change::GroupCreated { group: named, .. } => {
            (None, None, Some(named), None)
        }
        Change::CategoryCreated { category, .. } => (Some(category.id), None, None, Some(&category.name)),
        Change::CategoryChanged { category, .. } => (Some(category.id), None, None, None),
        Change::RoomCreated { room, category, .. } => (Some(category.id), Some(room.id), None, Some(&room.name)),
        Change::RoomChanged { room, .. } => (None, Some(room.id), None, None),
    };
    let mut facts = ChangeFacts::default();
    if let Some(CategoryId(id)) = category {
        let lock = "SELECT durability FROM standfast.categories WHERE id = $1 FOR UPDATE";
        if let Some(row) = tx.query_opt(lock, &[&id]).await? {
            facts.category = Some(lists_of(tx, id).await?);
            facts.durability = Rule::of_code(row.get(0));
        }
    }
    if let Some(room) = room {
        tx.execute("SELECT standfast.touch_access($1)", &[&vec![room.0]]).await?;
        facts.room = match access_of(tx, room).await {
            Ok(access) => Some(access),
            Err(TxError::Store(StoreError::NotFound(_))) => None,
            Err(error) => return Err(error),
        };
    }
    let ids = change.puts().into_iter().chain(principal).map(|p| p.id.0).collect::<BTreeSet<_>>();
    for row in tx.query(AFFILIATIONS, &[&ids.into_iter().collect::<Vec<i64>>()]).await? {
        let holds: Vec<i64> = row.get(3);
        facts.principals.insert(PrincipalId(row.get(0)), holds.into_iter().map(PrincipalId).collect());
    }
    let taken = match (principal, node) {
        (Some(named), _) => {
            tx.query_opt("SELECT 1 FROM standfast.principals WHERE folded = $1", &[&fold(&named.name)]).await?
        }
        (None, Some(name)) => {
            tx.query_opt("SELECT 1 FROM standfast.node_names WHERE folded = $1", &[&fold(name)]).await?
        }
        (None, None) => None,
    };
    facts.name_taken = taken.is_some();
    let id = |id: Option<i64>| id.map_or(String::new(), |id| id.to_string());
    let since = tx.query(SINCE, &[&left_by, &id(category.map(|c| c.0)), &id(room.map(|r| r.0))]).await?;
    let since = since.iter().filter_map(|row| serde_json::from_value::<Change>(row.get(0)).ok());
    facts.since = since.flat_map(|change| change.touched()).collect::<BTreeSet<Touched>>();
    Ok(facts)
}

async fn put_on_lists(
    tx: &Transaction<'_>,
    category: CategoryId,
    lists: &Lists,
    with: impl Fn(&[Named<PrincipalId>]) -> Vec<i64>,
) -> Result<(), TxError> {
    for (list, names) in by_column(lists) {
        let insert = "INSERT INTO standfast.category_entries (category, list, principal)
             SELECT $1, $2, p FROM unnest($3::bigint[]) p ON CONFLICT DO NOTHING";
        tx.execute(insert, &[&category.0, &list, &with(names)]).await?;
    }
    Ok(())
}

async fn put_in_roles(
    tx: &Transaction<'_>,
    room: RoomId,
    roles: &Roles,
    with: impl Fn(&[Named<PrincipalId>]) -> Vec<i64>,
) -> Result<(), TxError> {
    for (role, names) in roles {
        insert_roles(tx, room.0, *role, &with(names)).await?;
    }
    Ok(())
}

/// Who was left out, and why, for people.
fn says_without(change: &Change, without: &[(PrincipalId, LeftOut)]) -> Option<String> {
    let puts = change.puts();
    let one = |(who, why): &(PrincipalId, LeftOut)| {
        let name = puts.iter().find(|p| p.id == *who).map_or("?", |p| p.name.as_str());
        format!("'{name}' ({why})")
    };
    let all: Vec<String> = without.iter().map(one).collect();
    (!all.is_empty()).then(|| format!("without {}", all.join(", ")))
}
