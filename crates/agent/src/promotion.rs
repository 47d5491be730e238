//! A standby becomes a writer: once, on a timeline of its own, however often it is killed meanwhile.

use crate::asking::{is_not_over, leave_to_open};
use crate::database::Database;
use crate::error::Error;
use crate::host::Host;
use crate::order::{archive_of, not_running};
use crate::postgres::conf::Conf;
use rules::id::Epoch;
use std::time::Instant;

/// Make a standby the writer of an epoch, or one that was promoted for it before.
///
/// # Errors
/// When a newer epoch has begun, the other site has to answer and does not, or the instance does not run.
pub(crate) async fn promote(host: &Host, database: &Database, epoch: Epoch) -> Result<String, Error> {
    let began = Instant::now();
    let sql = &database.instance.sql;
    is_not_over(host, epoch)?;
    let mut probe = database.probe().await;
    if probe.as_ref().is_none_or(|p| p.in_recovery) {
        leave_to_open(host, database, epoch).await?;
    }
    if probe.is_none() {
        start_again(host, database, epoch).await?;
        probe = database.probe().await;
    }
    let Some(probe) = probe else { return Err(not_running(database)) };
    if probe.in_recovery {
        database.doing(Some("promoting"));
        // Remembered first: whoever is killed in between leaves a writer of this epoch, not of an older one.
        database.remember(|s| {
            s.history_epoch = s.history_epoch.max(Some(epoch));
            s.promoting = true;
        })?;
        // Whoever was waited for belongs to the old writer's pair.
        let mut conf = database.instance.plain_conf();
        conf.files_from = Some(database.instance.copied());
        // The new timeline's history is archived at once, and a standby that is fed by the share cannot do without it.
        conf.archive_to = archive_of(host, database, epoch);
        database.reload(&conf)?;
        sql.promote().await?;
    }
    sql.call_chat("begin_epoch", epoch).await?;
    database.remember(|s| {
        s.history_epoch = s.history_epoch.max(Some(epoch));
        (s.handed_over, s.left_to) = (None, None);
        s.promoting = false;
    })?;
    Ok(format!("online in epoch {epoch} after {} ms", began.elapsed().as_millis()))
}

/// A writer that had been promoted for this epoch and was stopped before the record named it: nobody but this order may
/// start it.
async fn start_again(host: &Host, database: &Database, epoch: Epoch) -> Result<(), Error> {
    settle(database).await?;
    let instance = &database.instance;
    let state = database.state();
    let promoted = state.history_epoch.is_some_and(|e| e >= epoch) && state.handed_over.is_none();
    let writer = instance.has_data() && !instance.is_standby();
    if database.running().is_none() && writer && promoted {
        database.doing(Some("starting what was promoted before"));
        let conf = Conf { archive_to: archive_of(host, database, epoch), ..instance.plain_conf() };
        let process = database.start(&conf).await?;
        instance.until_postgres_answers(process).await?;
    }
    Ok(())
}

/// A promotion that was cut off before its timeline began has left a standby, whose promotion begins anew.
pub(crate) async fn settle(database: &Database) -> Result<(), Error> {
    if !database.state().promoting || database.running().is_some() {
        return Ok(());
    }
    // Orphans of a postmaster that was killed may go on with it for a moment.
    database.instance.until_nobody_is_left().await?;
    if database.instance.is_half_promoted() {
        tracing::warn!(database = %database.name, "a promotion was cut off before its timeline began: a standby again");
        database.instance.become_standby()?;
    }
    database.remember(|s| s.promoting = false)
}
