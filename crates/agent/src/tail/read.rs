//! Reading a tail: the old data is run as a standby without a source, so that it replays all its own log and writes none.
//!
//! Nobody but the agent reaches it meanwhile, and it throws no log away, so that the rewind that follows finds what it needs.
//! It is stopped cleanly, and the rewind need not recover it once more. That it is being read is remembered first: an agent
//! that was killed meanwhile ends that, and begins anew with the next order.

use super::{HEADER, LINES};
use crate::database::Database;
use crate::error::Error;
use crate::files::{self, Aside};
use crate::postgres::rebuild::Salvaged;
use crate::state_file::Data;
use cluster::report::TailReport;
use cluster::wal::Lsn;
use nix::sys::signal::Signal;
use rules::history::{Parting, parting};
use rules::id::Epoch;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::Write;
use store::left_behind::{self, Starts, TailError, TailSize};

/// So many times the old data is tried before it counts as not readable.
const TRIES: u32 = 2;

/// What the present principal says of where it went on.
struct Present {
    epochs: BTreeSet<Epoch>,
    client: tokio_postgres::Client,
    at: String,
}

/// What was read of the old data.
struct Found {
    parting: Parting,
    size: TailSize,
    sha256: String,
}

/// Why the old data gave nothing.
enum Trouble {
    /// It is not to be had from this data, ever.
    Unreadable(String),
    /// Something else failed: it is to be tried again.
    Other(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Other(error)
    }
}

/// Read the tail of stopped data that `epoch` has left behind, and keep it beside its log. `at` is the present principal's
/// instance. May be repeated: what was read before is not read again.
///
/// # Errors
/// When the principal does not answer, or the tail cannot be kept. Data that cannot be read is no error: it says why, once
/// and for all.
pub async fn read(database: &Database, at: &str, epoch: Epoch, kept: &Salvaged) -> Result<String, Error> {
    if kept.folder.join(HEADER).exists() {
        return Ok("the tail was read before".into());
    }
    let instance = &database.instance;
    let client = instance.sql.client_at(at).await?;
    let peer = |e: store::StoreError| Error::Peer { what: format!("ask {at} where it went on"), cause: e.to_string() };
    let Some(epochs) = left_behind::epochs(&client, at).await.map_err(peer)? else {
        return Ok("the present principal has no chat schema, so there is no tail to read".into());
    };
    let present = Present { epochs, client, at: at.to_owned() };
    let mut tries = 0;
    let (found, unreadable) = loop {
        tries += 1;
        match read_data(database, &present, kept).await {
            Ok(found) => break (Some(found), None),
            Err(Trouble::Other(error)) => return Err(error),
            Err(Trouble::Unreadable(why)) if tries == TRIES => break (None, Some(why)),
            Err(Trouble::Unreadable(why)) => {
                tracing::warn!(database = %database.name, why, "trying again to read the tail");
            }
        }
    };
    let left_by = found.as_ref().map_or(epoch, |f| f.parting.left_by);
    let report = TailReport {
        id: format!("{}-{left_by}-{}", database.name, instance.host),
        database: database.name.clone(),
        host: instance.host.clone(),
        left_by,
        old_epoch: found.as_ref().map(|f| f.parting.old_epoch),
        fork: kept.fork,
        extracted_at_ms: jiff::Timestamp::now().as_millisecond(),
        posts: found.as_ref().map_or(0, |f| f.size.entries),
        changes: found.as_ref().map_or(0, |f| f.size.changes),
        sha256: found.map(|f| f.sha256).unwrap_or_default(),
        unreadable,
    };
    let header = kept.folder.join(HEADER);
    files::replace_json(&header, &report).map_err(Error::file(format!("write {}", header.display())))?;
    database.look_for_tails();
    super::let_go_of_log(instance);
    Ok(says(&report))
}

fn says(tail: &TailReport) -> String {
    let id = &tail.id;
    match &tail.unreadable {
        Some(why) => {
            tracing::error!(tail = id, why, "a tail could not be read; its log is kept");
            format!("the tail {id} could not be read: {why}; its log is kept")
        }
        None if tail.posts == 0 && tail.changes == 0 => "nothing in it that the present principal lacks".into(),
        None => format!("the tail {id} has {} entries and {} changes", tail.posts, tail.changes),
    }
}

/// Run the data as a standby, read, and stop it again, whatever came of it.
async fn read_data(database: &Database, present: &Present, kept: &Salvaged) -> Result<Found, Trouble> {
    let instance = &database.instance;
    let data = if instance.is_standby() { Data::Standby } else { Data::Writer };
    database.remember(|s| s.being_read = Some(data))?;
    instance.become_standby()?;
    let read = run(database, present, kept).await;
    let replayed = read.as_ref().ok().map(|(_, replayed)| *replayed);
    database.stop(Signal::SIGINT).await?;
    remove_signal(database)?;
    // A rewind sees nothing to do where what lies beyond the fork has left no trace in the control file, and the standby
    // would stand still beyond the fork for ever.
    if let (Some(replayed), Some(fork)) = (replayed, kept.fork)
        && replayed > fork
        && !instance.shows_more_than(fork).await?
    {
        instance.recover_alone().await?;
    }
    end(database).await?;
    read.map(|(found, _)| found)
}

/// Read the running data: what it holds alone, and how far it has replayed its log.
async fn run(database: &Database, present: &Present, kept: &Salvaged) -> Result<(Found, Lsn), Trouble> {
    let instance = &database.instance;
    let failed = |error: Error| Trouble::Unreadable(error.to_string());
    let process = database.start(&instance.conf_to_read()).await.map_err(|error| match error {
        Error::Program { .. } => failed(error),
        error => Trouble::Other(error),
    })?;
    let client = tokio::select! {
        biased;
        client = instance.sql.client_of_starting(process) => client.map_err(failed)?,
        at = instance.until_stuck() => {
            return Err(Trouble::Unreadable(format!("the log that it has ends at {at}, before the data is consistent")));
        }
    };
    let replayed = instance.sql.replayed_all(&client).await.map_err(failed)?;
    let here = format!("{}, the old data of {}", instance.host, database.name);
    let failed = |error: store::StoreError| Trouble::Unreadable(error.to_string());
    let Some(old) = left_behind::epochs(&client, &here).await.map_err(failed)? else {
        return Err(Trouble::Unreadable("it has no chat schema".into()));
    };
    let parting = parting(&present.epochs, &old).map_err(|why| Trouble::Unreadable(why.to_string()))?;
    let starts = left_behind::starts(&present.client, &present.at, parting.left_by).await;
    let starts: Starts = starts.map_err(|e| {
        let what = format!("ask {} where epoch {} began", present.at, parting.left_by);
        Trouble::Other(Error::Peer { what, cause: e.to_string() })
    })?;
    let path = kept.folder.join(LINES);
    let what = || format!("write {}", path.display());
    let mut file = Aside::open(&path, 0o600).map_err(Error::file(what()))?;
    let mut hash = Sha256::new();
    let read = left_behind::read_tail(&client, &here, &parting, &present.epochs, &starts, |line| {
        for part in [line.as_bytes(), b"\n"] {
            hash.update(part);
            file.write_all(part)?;
        }
        Ok(())
    });
    let size = read.await.map_err(|error| match error {
        TailError::Store(error) => Trouble::Unreadable(error.to_string()),
        TailError::Line(cause) => Trouble::Other(Error::File { what: what(), cause }),
    })?;
    file.put_in_place().map_err(Error::file(what()))?;
    let sha256 = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok((Found { parting, size, sha256 }, replayed))
}

/// The data is what it was before it was read; it does not run any more. Nothing, where it was not being read.
pub async fn end(database: &Database) -> Result<(), Error> {
    let Some(data) = database.state().being_read else { return Ok(()) };
    database.stop(Signal::SIGQUIT).await?;
    match data {
        Data::Writer => remove_signal(database)?,
        Data::Standby => database.instance.become_standby()?,
    }
    database.remember(|s| s.being_read = None)
}

fn remove_signal(database: &Database) -> Result<(), Error> {
    let signal = database.instance.data().join("standby.signal");
    match std::fs::remove_file(&signal) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { what: format!("remove {}", signal.display()), cause: error })
        }
        _ => Ok(()),
    }
}
