//! Users, groups, tokens.

use crate::connection::{Store, TxError};
use crate::error::StoreError;
use crate::journal::note;
use crate::token::TokenHash;
use rules::change::{Change, Named};
use rules::id::{PrincipalId, RoomId};
use std::collections::HashMap;
use tokio_postgres::Transaction;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Its number.
    pub id: PrincipalId,
    /// Its name.
    pub name: String,
    /// The hash of its password, if it has one.
    pub password_hash: Option<String>,
    /// Whether it is an administrator.
    pub administrator: bool,
    /// Whether the account is off.
    pub disabled: bool,
}

/// A user to be created.
#[derive(Clone)]
pub struct NewUserRow {
    /// Its name, checked.
    pub name: String,
    /// The hash of its password, if it has one.
    pub password_hash: Option<String>,
    /// Whether it is an administrator.
    pub administrator: bool,
}

/// The form in which names are compared: lower case in every script.
pub(crate) fn fold(name: &str) -> String {
    name.to_lowercase()
}

fn user_of(row: &tokio_postgres::Row) -> UserRow {
    UserRow {
        id: PrincipalId(row.get(0)),
        name: row.get(1),
        password_hash: row.get(2),
        administrator: row.get(3),
        disabled: row.get(4),
    }
}

impl Store {
    /// The user of that name, in any case of letters.
    pub async fn user(&self, name: &str) -> Result<Option<UserRow>, StoreError> {
        let rows = self
            .reader()
            .read(
                "look a user up",
                "SELECT id, name, password_hash, administrator, disabled FROM standfast.principals
                 WHERE folded = $1 AND kind = 'user'",
                &[&fold(name)],
            )
            .await?;
        Ok(rows.first().map(user_of))
    }

    /// Who presents this token; `None` when it is unknown or revoked, or the account is off.
    pub async fn token_owner(&self, token: &TokenHash) -> Result<Option<UserRow>, StoreError> {
        let rows = self
            .reader()
            .read(
                "look a token up",
                "SELECT p.id, p.name, NULL::text, p.administrator, p.disabled
                 FROM standfast.tokens t JOIN standfast.principals p ON p.id = t.principal
                 WHERE t.hash = $1 AND t.revoked IS NULL AND NOT p.disabled",
                &[&token.0],
            )
            .await?;
        Ok(rows.first().map(user_of))
    }

    /// Who presents each of these tokens: one place for each, `None` as for `token_owner`.
    pub async fn token_owners(&self, tokens: &[TokenHash]) -> Result<Vec<Option<UserRow>>, StoreError> {
        let hashes: Vec<&[u8]> = tokens.iter().map(|token| token.0.as_slice()).collect();
        let rows = self
            .reader()
            .read(
                "look tokens up",
                "SELECT p.id, p.name, NULL::text, p.administrator, p.disabled, t.hash
                 FROM standfast.tokens t JOIN standfast.principals p ON p.id = t.principal
                 WHERE t.hash = ANY ($1) AND t.revoked IS NULL AND NOT p.disabled",
                &[&hashes],
            )
            .await?;
        let owners: HashMap<&[u8], &tokio_postgres::Row> = rows.iter().map(|row| (row.get(5), row)).collect();
        Ok(tokens.iter().map(|token| owners.get(token.0.as_slice()).map(|row| user_of(row))).collect())
    }

    /// Issue a token.
    pub async fn add_token(&self, user: PrincipalId, token: &TokenHash) -> Result<(), StoreError> {
        self.write_tx("issue a token", async |tx: &Transaction<'_>| {
            tx.execute("INSERT INTO standfast.tokens (hash, principal) VALUES ($1, $2)", &[&token.0, &user.0]).await?;
            Ok(())
        })
        .await
    }

    /// Revoke a token. Revoking an unknown one does nothing.
    pub async fn revoke_token(&self, token: &TokenHash) -> Result<(), StoreError> {
        self.write_tx("revoke a token", async |tx: &Transaction<'_>| {
            tx.execute(
                "UPDATE standfast.tokens SET revoked = clock_timestamp() WHERE hash = $1 AND revoked IS NULL",
                &[&token.0],
            )
            .await?;
            Ok(())
        })
        .await
    }

    /// Create a user, in the name of `actor`.
    pub async fn create_user(&self, user: &NewUserRow, actor: PrincipalId) -> Result<PrincipalId, StoreError> {
        self.write_tx("create a user", async |tx: &Transaction<'_>| {
            let row = tx
                .query_opt(
                    "INSERT INTO standfast.principals (name, folded, kind, password_hash, administrator)
                     VALUES ($1, $2, 'user', $3, $4) ON CONFLICT (folded) DO NOTHING RETURNING id",
                    &[&user.name, &fold(&user.name), &user.password_hash, &user.administrator],
                )
                .await?;
            let id = row.map(|row| PrincipalId(row.get(0))).ok_or_else(|| taken(&user.name))?;
            let named = Named { id, name: user.name.clone() };
            note(tx, self.epoch(), actor, &[created(named, user.administrator)]).await?;
            Ok(id)
        })
        .await
    }

    /// Create the users that do not exist yet, in the name of `actor`, and issue a token to each, new and old. A name that is a
    /// group's is an error.
    pub async fn create_users_with_tokens(
        &self,
        users: &[(String, TokenHash)],
        actor: PrincipalId,
    ) -> Result<Vec<UserRow>, StoreError> {
        let names: Vec<&str> = users.iter().map(|(name, _)| name.as_str()).collect();
        let folded: Vec<String> = names.iter().map(|name| fold(name)).collect();
        let hashes: Vec<&[u8]> = users.iter().map(|(_, hash)| hash.0.as_slice()).collect();
        self.write_tx("create users and issue tokens", async |tx: &Transaction<'_>| {
            let new = tx
                .query(
                    "INSERT INTO standfast.principals (name, folded, kind)
                     SELECT DISTINCT ON (n.folded) n.name, n.folded, 'user'
                     FROM unnest($1::text[], $2::text[]) n (name, folded)
                     ORDER BY n.folded ON CONFLICT (folded) DO NOTHING RETURNING id, name",
                    &[&names, &folded],
                )
                .await?;
            let rows = tx
                .query(
                    "SELECT p.id, p.name, NULL::text, p.administrator, p.disabled, p.kind = 'user'
                     FROM unnest($1::text[]) WITH ORDINALITY AS n (folded, place)
                     JOIN standfast.principals p ON p.folded = n.folded ORDER BY n.place",
                    &[&folded],
                )
                .await?;
            if let Some(group) = rows.iter().find(|row| !row.get::<_, bool>(5)) {
                let name: &str = group.get(1);
                return Err(StoreError::Conflict(format!("'{name}' is a group; only users sign in")).into());
            }
            let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            tx.execute(
                "INSERT INTO standfast.tokens (hash, principal) SELECT * FROM unnest($1::bytea[], $2::bigint[])",
                &[&hashes, &ids],
            )
            .await?;
            let new = new.iter().map(|row| created(Named { id: PrincipalId(row.get(0)), name: row.get(1) }, false));
            note(tx, self.epoch(), actor, &new.collect::<Vec<_>>()).await?;
            Ok(rows.iter().map(user_of).collect())
        })
        .await
    }

    /// Create a group with members, in the name of `actor`.
    pub async fn create_group(
        &self,
        name: &str,
        members: &[String],
        actor: PrincipalId,
    ) -> Result<PrincipalId, StoreError> {
        self.write_tx("create a group", async |tx: &Transaction<'_>| {
            let members = principals_named(tx, members).await?;
            let row = tx
                .query_opt(
                    "INSERT INTO standfast.principals (name, folded, kind) VALUES ($1, $2, 'group')
                     ON CONFLICT (folded) DO NOTHING RETURNING id",
                    &[&name, &fold(name)],
                )
                .await?;
            let group: i64 = row.ok_or_else(|| taken(name))?.get(0);
            tx.execute(
                "INSERT INTO standfast.group_members (group_id, member) SELECT $1, m FROM unnest($2::bigint[]) m
                 ON CONFLICT DO NOTHING",
                &[&group, &members.iter().map(|m| m.id.0).collect::<Vec<i64>>()],
            )
            .await?;
            let named = Named { id: PrincipalId(group), name: name.to_owned() };
            note(tx, self.epoch(), actor, &[Change::GroupCreated { group: named, members }]).await?;
            // A new group is on no list, so no room's access changes.
            Ok(PrincipalId(group))
        })
        .await
    }

    /// Names of rooms that exist, of those asked about: for messages.
    pub async fn room_name(&self, room: RoomId) -> Result<Option<String>, StoreError> {
        let rows = self
            .reader()
            .read("look a room's name up", "SELECT name FROM standfast.rooms WHERE id = $1", &[&room.0])
            .await?;
        Ok(rows.first().map(|row| row.get(0)))
    }
}

fn taken(name: &str) -> TxError {
    StoreError::Conflict(format!("the name '{name}' is taken by a user or group; choose another")).into()
}

fn created(user: Named<PrincipalId>, administrator: bool) -> Change {
    Change::UserCreated { user, administrator, password_hash: None }
}

/// The principals of those names, in that order; an error names those that do not exist.
pub(crate) async fn principals_named(
    tx: &Transaction<'_>,
    names: &[String],
) -> Result<Vec<Named<PrincipalId>>, TxError> {
    let folded: Vec<String> = names.iter().map(|name| fold(name)).collect();
    let rows = tx
        .query(
            "SELECT p.id, p.name FROM unnest($1::text[]) WITH ORDINALITY AS n (folded, place)
             LEFT JOIN standfast.principals p ON p.folded = n.folded ORDER BY n.place",
            &[&folded],
        )
        .await?;
    let found: Vec<Option<Named<PrincipalId>>> = rows
        .iter()
        .map(|row| row.get::<_, Option<i64>>(0).map(|id| Named { id: PrincipalId(id), name: row.get(1) }))
        .collect();
    let unknown: Vec<&str> =
        found.iter().zip(names).filter(|(found, _)| found.is_none()).map(|(_, name)| name.as_str()).collect();
    if unknown.is_empty() {
        Ok(found.into_iter().flatten().collect())
    } else {
        let list = unknown.join("', '");
        Err(StoreError::NotFound(format!("no user or group is named '{list}'; create it first")).into())
    }
}
