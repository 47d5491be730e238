//! Joining the present principal's history again: what a host does by itself when the record gives it the part of a standby
//! and its data has gone another way.
//!
//! So it is with a principal that a forced switch has replaced, when its host returns; and with a standby that had received
//! more from an old principal than the new one has: PostgreSQL cannot follow then, and log shipping would stand still
//! without a word. What the new principal never had is salvaged first, so nothing is discarded silently.
//!
//! The last rung is a copy anew: of a standby whose source has not kept the log that comes next, and that finds it nowhere
//! else, or whose disk has damaged it. It holds nothing that its source has not, and keeps its old data until the copy is whole.

use crate::database::{Database, Work};
use crate::error::Error;
use crate::feed::reaches;
use crate::files;
use crate::host::Host;
use crate::order;
use crate::postgres::instance::volume;
use crate::postgres::rebuild::{self, Course};
use crate::postgres::sql::Probe;
use cluster::drill::ROOM_BESIDE_BYTES;
use cluster::name::HostName;
use cluster::record::{Part, PoolRecord};
use cluster::wal::Lsn;
use std::time::{Duration, Instant};

/// A standby that has applied nothing for so long, although its source answers and the epoch's beginning is missing, cannot
/// follow.
const STUCK: Duration = Duration::from_secs(2);
/// Time between two attempts.
const AGAIN: Duration = Duration::from_secs(10);
/// A standby that has received and applied nothing for so long, and streams nothing, may lack log that its source has not
/// kept. PostgreSQL tries its stream again after five seconds at most.
const STARVED: Duration = Duration::from_secs(6);
/// Least time between two attempts to copy data anew that holds damaged pages: the instance is down meanwhile.
const MEND_AGAIN: Duration = Duration::from_secs(30);
/// And so many times what the last one took: a source that holds damaged pages itself is not copied again and again.
const MEND_REST: u32 = 10;
/// So many starts in one epoch, with no look at a running instance in between, show that it cannot follow either.
const STARTS: u32 = 3;

/// What is kept between two looks.
#[derive(Debug, Default)]
pub struct Rejoin {
    stuck: Option<(Lsn, Instant)>,
    starved: Option<(Lsn, Instant)>,
    tried: Option<Instant>,
    /// When damaged pages were last to be copied anew, and how long that took.
    mended: Option<(Instant, Duration)>,
    /// Since when a running one has not answered.
    mute: Option<Instant>,
    starts: u32,
}

/// The present principal, if this instance has to join its history: it knows an older epoch alone, and somebody else is
/// the writer of the present one. One that was promoted for the present epoch, before the record names it, never has to.
fn principal_to_join(host: &Host, database: &Database, record: &PoolRecord) -> Option<HostName> {
    let older = database.state().is_behind(record.epoch);
    let principal = record.databases.get(&database.name)?.principal.clone()?;
    (older && principal != host.name).then_some(principal)
}

/// A stopped instance with a writer's data, in the part of a standby: join. Tells whether it is one that may.
pub async fn stopped_writer(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
) -> Result<bool, Error> {
    let Some(principal) = principal_to_join(host, database, record) else { return Ok(false) };
    join(host, database, work, &principal, "it was the writer of an older epoch").await?;
    Ok(true)
}

/// A rewind was begun and did not come to its end: the data is part of no history and is never started. It is copied anew.
pub async fn half_rewound(host: &Host, database: &Database, record: &PoolRecord, work: &mut Work) -> Result<(), Error> {
    let Some(principal) = principal_to_join(host, database, record) else {
        let why = "a rewind of its data was cut off, and there is no principal yet that it could be copied from";
        database.waits_for(Some(format!("{}: {why}", database.name)));
        return Ok(());
    };
    join(host, database, work, &principal, "a rewind of its data was cut off").await.map(|_| ())
}

/// A standby is about to be started. One whose log goes beyond a place where the present principal's history left its timeline
/// would apply that, and one that ends again and again cannot follow: join. Tells whether it did.
pub async fn starting(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    part: Part,
    upstream: Option<&HostName>,
) -> Result<bool, Error> {
    work.rejoin.starts += 1;
    let Some(principal) = principal_to_join(host, database, record) else {
        // It is on the present history, and something that it needs to come up is damaged: a segment of its log, perhaps, that it had
        // from the share.
        if work.rejoin.starts > STARTS {
            let found = "its database ends whenever it is started";
            if part == Part::Backup && database.instance.could_not_recover() && !database.instance.met_a_damaged_page()
            {
                recover_elsewhere(host, database, work, upstream, found).await?;
            } else {
                mend(host, database, work, part, upstream, found).await?;
            }
        }
        return Ok(work.rejoin.starts == 0);
    };
    if let Some(at) = host.postgres_of(&database.name, &principal)
        && reaches(&at).await
        // A principal that does not answer yet is seen at the next start, or when its standby does not follow.
        && let Ok(Some(log)) = rebuild::log_of_others(&database.instance, &at).await
    {
        let why = format!("its log holds what that history does not, {log}");
        return join(host, database, work, &principal, &why).await;
    }
    if work.rejoin.starts <= STARTS {
        return Ok(false);
    }
    join(host, database, work, &principal, "its database ends whenever it is started").await
}

/// A look at a running standby. One that stands still although its source answers cannot follow: join.
pub async fn running(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    upstream: Option<&HostName>,
    applied: Lsn,
) -> Result<(), Error> {
    let (Some(principal), Some(upstream)) = (principal_to_join(host, database, record), upstream) else {
        work.rejoin.stuck = None;
        return Ok(());
    };
    let since = match work.rejoin.stuck {
        Some((at, since)) if at == applied => since,
        _ => {
            work.rejoin.stuck = Some((applied, Instant::now()));
            return Ok(());
        }
    };
    // The beginning of an epoch is written as soon as it has a writer; a database without the chat schema shows none.
    if since.elapsed() < STUCK || database.chat().await.epoch.is_none_or(|e| e >= record.epoch) {
        return Ok(());
    }
    let (Some(at), Some(source)) =
        (host.postgres_of(&database.name, upstream), host.postgres_of(&database.name, &principal))
    else {
        return Ok(());
    };
    // A principal that has not begun the epoch yet, or begins it on the timeline of before, is waited for.
    if reaches(&at).await
        && let Ok(Course::Left(fork)) = rebuild::course(&database.instance, &source).await
        && fork < applied
    {
        join(host, database, work, &principal, "its log goes beyond where the epoch begins").await?;
    }
    Ok(())
}

/// A look at a running standby that no stream comes to. One that stands still because its source has not kept the log that
/// comes next is copied anew from it.
pub async fn starved(
    host: &Host,
    database: &Database,
    work: &mut Work,
    upstream: &HostName,
    probe: &Probe,
) -> Result<(), Error> {
    let has = probe.written.max(probe.applied);
    let since = match work.rejoin.starved {
        Some((at, since)) if at == has => since,
        _ => {
            work.rejoin.starved = Some((has, Instant::now()));
            return Ok(());
        }
    };
    if since.elapsed() < STARVED || work.rejoin.tried.is_some_and(|at| at.elapsed() < AGAIN) {
        return Ok(());
    }
    let Some(at) = host.postgres_of(&database.name, upstream) else { return Ok(()) };
    if !reaches(&at).await {
        return Ok(());
    }
    work.rejoin.tried = Some(Instant::now());
    let Ok(Some(oldest)) = rebuild::oldest_kept(&database.instance, &at).await else { return Ok(()) };
    if has >= oldest {
        return Ok(());
    }
    let why =
        format!("{}: {upstream} keeps the log from {oldest} on, and the log after {has} is nowhere", database.name);
    copy_anew(host, database, work, upstream, &why).await
}

/// How long a running standby may not answer before its log is read for the reason.
const MUTE: Duration = Duration::from_secs(2);

/// A standby runs and does not answer. Whether its log tells of damaged pages: they are its catalogs' then, and nobody will ever be answered.
pub fn is_mute(database: &Database, work: &mut Work) -> bool {
    if work.rejoin.mute.get_or_insert_with(Instant::now).elapsed() < MUTE {
        return false;
    }
    work.rejoin.mute = None;
    database.instance.met_a_damaged_page()
}

/// A standby answers.
pub fn answers(work: &mut Work) {
    (work.rejoin.mute, work.rejoin.starts) = (None, 0);
}

/// A standby whose data holds damaged pages is copied anew, from a source whose own are whole: PostgreSQL compares every page while
/// it copies. `part`: a backup is left to a person, because its data may be the last that there is.
pub async fn damaged(
    host: &Host,
    database: &Database,
    work: &mut Work,
    part: Part,
    upstream: Option<&HostName>,
) -> Result<(), Error> {
    let found = match database.state().scrub.filter(|s| s.damaged_pages > 0) {
        Some(scrub) => scrub.words(),
        None if database.running().is_none() && database.instance.met_a_damaged_page() => {
            "it ended at a page that is damaged on its disk".to_owned()
        }
        None => {
            database.damage(None);
            return Ok(());
        }
    };
    mend(host, database, work, part, upstream, &found).await
}

/// A backup that cannot use the log that it needs to come up, although its source is well: as one whose source has not kept that
/// log, it is copied anew.
async fn recover_elsewhere(
    host: &Host,
    database: &Database,
    work: &mut Work,
    upstream: Option<&HostName>,
    found: &str,
) -> Result<(), Error> {
    let Some((upstream, at)) = upstream.and_then(|u| Some((u, host.postgres_of(&database.name, u)?))) else {
        return Ok(());
    };
    let found = format!("{} on {}: {found}, because of the log that it is to recover from", database.name, host.name);
    if work.rejoin.mended.is_some_and(rests) || !reaches(&at).await {
        database.waits_for(Some(format!("{found}; it is copied anew from {upstream}, where that answers")));
        return Ok(());
    }
    let began = Instant::now();
    let copied = copy_anew(host, database, work, upstream, &found).await;
    // Where that was not the reason, it is not copied again and again.
    work.rejoin.mended = Some((Instant::now(), began.elapsed()));
    copied
}

/// Whether it is too early to copy data anew once more.
fn rests((at, took): (Instant, Duration)) -> bool {
    at.elapsed() < MEND_AGAIN.max(took * MEND_REST)
}

/// The same where it shows in another way: `found` says how, for people.
pub async fn mend(
    host: &Host,
    database: &Database,
    work: &mut Work,
    part: Part,
    upstream: Option<&HostName>,
    found: &str,
) -> Result<(), Error> {
    let found = format!("{} on {}: {found}", database.name, host.name);
    if part == Part::Backup {
        database.damage(Some(format!(
            "{found}; while the principal is well, copy it anew: standfast log-shipping disable, then standfast log-shipping enable"
        )));
        return Ok(());
    }
    let at = upstream.and_then(|u| Some((u, host.postgres_of(&database.name, u)?)));
    let Some((upstream, at)) = at else {
        database.damage(Some(format!("{found}; there is nobody whom it could be copied from")));
        return Ok(());
    };
    database.damage(Some(format!("{found}; it is copied anew from {upstream}, where that answers")));
    if work.rejoin.mended.is_some_and(rests) || !reaches(&at).await {
        return Ok(());
    }
    let began = Instant::now();
    let copied = copy_anew(host, database, work, upstream, &found).await;
    if copied.is_err() {
        work.rejoin.mended = Some((Instant::now(), began.elapsed()));
    }
    copied
}

/// Copy the data anew; the old one stays until the copy is whole.
async fn copy_anew(
    host: &Host,
    database: &Database,
    work: &mut Work,
    upstream: &HostName,
    why: &str,
) -> Result<(), Error> {
    let name = &database.name;
    let needed = files::bytes_in(&database.instance.data()).saturating_add(ROOM_BESIDE_BYTES);
    let free = volume(&database.instance.folder).map_or(0, |v| v.1);
    if free < needed {
        database.waits_for(Some(format!(
            "{why}; a copy anew needs {} MB on the volume of its data, and {} MB are free: make room, and it goes on by itself",
            needed.div_ceil(1 << 20),
            free >> 20
        )));
        return Ok(());
    }
    tracing::warn!(database = %name, %upstream, why, "copying anew");
    let copied = order::seed(host, database, work, upstream, true).await;
    database.doing(None);
    database.forget_count();
    host.changed();
    let detail = copied?;
    work.rejoin = Rejoin::default();
    database.damage(None);
    tracing::info!(database = %name, detail, "copied anew");
    Ok(())
}

async fn join(
    host: &Host,
    database: &Database,
    work: &mut Work,
    principal: &HostName,
    why: &str,
) -> Result<bool, Error> {
    let name = &database.name;
    let says = |rest: &str| format!("{name}: it does not follow {principal}, because {why}; {rest}");
    if work.rejoin.tried.is_some_and(|at| at.elapsed() < AGAIN) {
        database.waits_for(Some(says("it is rewound soon")));
        return Ok(false);
    }
    let at = host.postgres_of(name, principal);
    let reached = match &at {
        Some(at) => reaches(at).await,
        None => false,
    };
    if !reached {
        database.waits_for(Some(says("it is rewound by itself as soon as that host can be reached")));
        return Ok(false);
    }
    work.rejoin.tried = Some(Instant::now());
    tracing::warn!(database = %name, %principal, why, "joining the present principal's history");
    let joined = match order::salvage(host, database, principal).await {
        Ok(kept) => order::rewind(host, database, work, principal).await.map(|detail| format!("{kept}; {detail}")),
        Err(error) => Err(error),
    };
    database.doing(None);
    database.forget_count();
    host.changed();
    let detail = joined?;
    work.rejoin = Rejoin::default();
    tracing::info!(database = %name, detail, "joined the present principal's history");
    database.waits_for(None);
    Ok(true)
}
