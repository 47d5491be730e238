//! The schema's versions, applied by the first chat server that reaches the writer.
//!
//! Several servers may try at once: a lock in the database lets one through, and the others find the work done.

use crate::connection::Connection;
use crate::error::StoreError;
use rules::id::Epoch;

/// Taken while the schema is changed.
const MIGRATION_LOCK: i64 = 5_374_616_165;

/// The versions, in order. A version that has been released is never edited; a new one is added.
const MIGRATIONS: &[(i32, &str)] = &[
    (1, include_str!("../migrations/0001_chat.sql")),
    (2, include_str!("../migrations/0002_late_arrivals.sql")),
    (3, include_str!("../migrations/0003_changes.sql")),
    (4, include_str!("../migrations/0004_canaries.sql")),
    (5, include_str!("../migrations/0005_chain.sql")),
    (6, include_str!("../migrations/0006_durability.sql")),
    (7, include_str!("../migrations/0007_disk.sql")),
];

/// The user that a new pool begins with.
#[derive(Clone)]
pub struct FirstAdministrator {
    /// Its name.
    pub name: String,
    /// Its password, in the PHC string format of argon2id.
    pub password_hash: String,
}

/// Bring the schema up to date. The first version also sets the database's epoch and creates the first administrator.
pub(crate) async fn migrate(
    connection: &mut Connection,
    epoch: Epoch,
    first: &FirstAdministrator,
) -> Result<(), StoreError> {
    let doing = "bring the chat schema up to date";
    if is_present(connection).await? {
        return Ok(());
    }
    let at = connection.at().to_owned();
    let sort = |e| StoreError::of(doing, &at, e);
    let tx = connection.client.transaction().await.map_err(sort)?;
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await.map_err(sort)?;
    tx.batch_execute(
        "CREATE SCHEMA IF NOT EXISTS standfast;
         CREATE TABLE IF NOT EXISTS standfast.schema_versions (
             version int PRIMARY KEY, applied timestamptz NOT NULL DEFAULT clock_timestamp())",
    )
    .await
    .map_err(sort)?;
    let row =
        tx.query_one("SELECT coalesce(max(version), 0) FROM standfast.schema_versions", &[]).await.map_err(sort)?;
    let mut version: i32 = row.get(0);
    if version > 0 {
        tx.execute("SELECT standfast.enter($1)", &[&epoch.0]).await.map_err(sort)?;
    }
    for (next, sql) in MIGRATIONS.iter().filter(|(next, _)| *next > version).collect::<Vec<_>>() {
        tx.batch_execute(sql).await.map_err(sort)?;
        tx.execute("INSERT INTO standfast.schema_versions (version) VALUES ($1)", &[next]).await.map_err(sort)?;
        if *next == 1 {
            tx.execute("INSERT INTO standfast.pool_epoch (epoch) VALUES ($1)", &[&epoch.0]).await.map_err(sort)?;
            tx.execute("INSERT INTO standfast.epochs (epoch) VALUES ($1)", &[&epoch.0]).await.map_err(sort)?;
            tx.execute(
                "INSERT INTO standfast.principals (name, folded, kind, password_hash, administrator)
                 VALUES ($1, $2, 'user', $3, true)",
                &[&first.name, &crate::principals::fold(&first.name), &first.password_hash],
            )
            .await
            .map_err(sort)?;
        }
        version = *next;
    }
    tx.commit().await.map_err(sort)?;
    tracing::info!(version, "the chat schema is up to date");
    Ok(())
}

/// Whether the schema is of this program's version, or of a later one.
pub(crate) async fn is_present(connection: &Connection) -> Result<bool, StoreError> {
    Ok(present_version(connection).await? >= latest())
}

fn latest() -> i32 {
    MIGRATIONS.iter().map(|(version, _)| *version).max().unwrap_or(0)
}

async fn present_version(connection: &Connection) -> Result<i32, StoreError> {
    let doing = "ask for the version of the chat schema";
    let there = connection
        .read(doing, "SELECT to_regclass('standfast.schema_versions') IS NOT NULL", &[])
        .await?
        .first()
        .is_some_and(|row| row.get(0));
    if !there {
        return Ok(0);
    }
    let rows = connection.read(doing, "SELECT coalesce(max(version), 0) FROM standfast.schema_versions", &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}
