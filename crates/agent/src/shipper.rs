//! The backup job of a principal: finished segments by PostgreSQL's archiver, the unfinished one by pg_receivewal.
//!
//! A share that takes nothing costs disk here, because PostgreSQL keeps what it cannot archive. Beyond a bound the share is
//! given up until it takes files again, and it is said what it lacks.

use crate::database::{Database, Work};
use crate::host::Host;
use crate::jobs::steady_ms;
use crate::postgres::conf::Conf;
use crate::postgres::programs::Programs;
use crate::postgres::share::{SEGMENT_BYTES, Share, is_segment, place, start_of};
use crate::postgres::sql::{ArchiverProbe, Probe};
use cluster::alert::{self, Currency};
use cluster::job_history::{AgentType, Noted, SessionStatus};
use cluster::record::PoolRecord;
use cluster::report::BackupReport;
use cluster::share_fault::{self, Lack, ShareFault, Strain};
use cluster::shipping_settings::LogShipping;
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two trims of the share.
const TRIM: Duration = Duration::from_secs(30);
/// Time between two tries whether a share that failed takes files again.
const TRY: Duration = Duration::from_secs(1);
/// Time between two looks at the archiver.
const LOOK: Duration = Duration::from_millis(250);

/// What goes into the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ships {
    /// There is a backup: the unfinished segment too.
    pub to_backup: bool,
    /// Finished segments.
    pub archives: bool,
}

/// How the backup job stands, between two rounds.
#[derive(Default)]
pub struct Standing {
    currency: Option<Currency>,
    looked_at: Option<Instant>,
    archiver: ArchiverProbe,
    tried_at: Option<Instant>,
    fault: Option<ShareFault>,
    /// What the share lacks because it was given up.
    lack: Option<Lack>,
    /// Segments archived at the last look.
    files: Option<u64>,
    /// What the last trim had to say.
    trimmed: Option<String>,
}

/// Ship into the share; returns what is wrong with it, for people.
pub async fn round(
    host: &Host,
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    conf: &mut Conf,
    ships: Ships,
    probe: &Probe,
) -> Option<String> {
    let settings = database.settings(host)?;
    conf.compression = settings.compression;
    if !ships.archives {
        stop(work).await;
        database.ships_nothing();
        work.ships = Standing::default();
        database.jobs.end(AgentType::Backup);
        database.alert(alert::BACKUP_LATE, None);
        let before = database.last_backup_job().unwrap_or_default();
        database.backup_job(Some(BackupReport { enabled: false, age_ms: None, fault: None, ..before }));
        return None;
    }
    conf.archive_timeout_s = settings.backup_every.ms.div_ceil(1_000);
    let waiting = waiting_files(&database.instance.data().join("pg_wal/archive_status"));
    let most = share_fault::waiting_max(conf.volume_mb);
    let share = match database.usable_share(host)? {
        Ok(share) => share,
        Err(error) => {
            // Nothing is known of it, not even where to archive to: what there is stays here, and it is said.
            stop(work).await;
            return Some(error.to_string());
        }
    };
    share.ship(database.shipping_in(host, record.epoch));
    look(database, work).await;
    let places = share.writer_places(record.epoch, &host.programs);
    let refused = places.as_ref().err().map(ToString::to_string);
    examine(host, &share, work, record.epoch, refused.as_deref(), waiting.count).await;
    work.ships.lack = share_fault::lacks(
        work.ships.lack,
        &Strain {
            takes_files: work.ships.fault.is_none(),
            waiting_mb: waiting.count * SEGMENT_BYTES / 1024 / 1024,
            most_mb: most,
            oldest: waiting.oldest,
            written: probe.written,
        },
    );
    let given_up = work.ships.lack.is_some_and(|l| l.to.is_none());
    // While the share has a fault, the archiver goes on trying, and PostgreSQL keeps what it cannot ship.
    conf.archive_to = (!given_up).then(|| share.archive_to(record.epoch, &host.programs));
    let added = places.as_ref().ok().map(|places| places.added.clone());
    begin_chain(database, record, work, &share, added.as_deref(), &host.programs);
    match places.ok().map(|places| places.stream).filter(|_| ships.to_backup && !given_up) {
        Some(stream) => {
            if let Err(error) = work.receive.ensure(&database.instance, &stream).await {
                work.receive.fault = Some(error.to_string());
            }
        }
        None => stop(work).await,
    }
    if work.ships.fault.is_none() && work.trimmed_at.is_none_or(|at| at.elapsed() > TRIM) {
        work.trimmed_at = Some(Instant::now());
        work.ships.trimmed = match share.trim(record.epoch, settings.delete_older_than.duration()) {
            Ok(trimmed) => {
                // Whoever is fed from the share is past what it lacks.
                let past =
                    |lack: &Lack| lack.to.zip(trimmed.needed_from.as_ref()).is_some_and(|(to, n)| place(to) < *n);
                work.ships.lack = work.ships.lack.filter(|lack| !past(lack));
                trimmed.lost_for.map(|needs| {
                    format!(
                        "the share is bounded, and lost {needs}, which the backup still needed: see the backup's state"
                    )
                })
            }
            Err(error) => Some(format!("trim the share: {error}")),
        };
    }
    let fault = fault_now(work, &settings, waiting.count, most);
    report(host, database, work, &settings, probe, waiting.count, share.shipped_to(), fault, ships.to_backup)
}

/// Once in an epoch: the chain goes on without a gap. What cannot be added now is tried again in the next round.
fn begin_chain(
    database: &Database,
    record: &PoolRecord,
    work: &mut Work,
    share: &Share,
    to: Option<&Path>,
    programs: &Programs,
) {
    let Some(to) = to.filter(|_| work.chain_begun != Some(record.epoch)) else { return };
    match share.begin_chain(&database.instance.data().join("pg_wal"), to, programs) {
        Ok(()) => work.chain_begun = Some(record.epoch),
        Err(error) => tracing::warn!(database = %database.name, %error, "older writers' log is not in the share yet"),
    }
}

/// Look at the archiver, now and then.
async fn look(database: &Database, work: &mut Work) {
    if work.ships.looked_at.is_some_and(|at| at.elapsed() < LOOK) {
        return;
    }
    work.ships.looked_at = Some(Instant::now());
    if let Ok(archiver) = database.instance.sql.probe_archiver().await {
        work.ships.archiver = archiver;
    }
}

/// Whether the share takes files, tried when something speaks against it.
async fn examine(host: &Host, share: &Share, work: &mut Work, epoch: Epoch, refused: Option<&str>, waiting: u64) {
    let standing = &mut work.ships;
    let doubtful = share.tells_faults()
        || standing.fault.is_some()
        || standing.lack.is_some_and(|l| l.to.is_none())
        || refused.is_some()
        || (standing.archiver.failing && waiting > 0)
        || work.receive.fault.is_some();
    if !doubtful || standing.tried_at.is_some_and(|at| at.elapsed() < TRY) {
        return;
    }
    standing.tried_at = Some(Instant::now());
    let before = standing.fault.take();
    standing.fault = match refused {
        Some(said) => Some(share_fault::named(said)),
        None => share.takes_files(epoch, &host.programs).await.err().map(|said| share_fault::named(&said)),
    };
    if standing.fault.is_none() && before.is_some() {
        tracing::info!("the share takes files again");
    }
}

fn fault_now(work: &Work, settings: &LogShipping, waiting: u64, most: u64) -> Option<(SessionStatus, String)> {
    let standing = &work.ships;
    let share = &settings.share;
    match (standing.lack, &standing.fault) {
        (Some(Lack { from, to: None }), fault) => {
            Some((SessionStatus::Error, share_fault::given_up(share, fault.as_ref(), from)))
        }
        (_, Some(fault)) => Some((SessionStatus::Error, share_fault::says(fault, share, waiting, most))),
        (Some(Lack { from, to: Some(_) }), None) => {
            Some((SessionStatus::Warning, share_fault::given_up(share, None, from)))
        }
        (None, None) => {
            let interrupted = work.receive.fault.clone().map(|said| (SessionStatus::Error, said));
            interrupted.or_else(|| standing.trimmed.clone().map(|said| (SessionStatus::Warning, said)))
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "all that a report is made from")]
fn report(
    host: &Host,
    database: &Database,
    work: &mut Work,
    settings: &LogShipping,
    probe: &Probe,
    waiting_files: u64,
    shipped_to: Option<Lsn>,
    fault: Option<(SessionStatus, String)>,
    to_backup: bool,
) -> Option<String> {
    let before = database.last_backup_job().unwrap_or_default();
    let archiver = work.ships.archiver.clone();
    let finished = archiver.last_file.as_deref().and_then(end_of);
    let given_up = work.ships.lack.is_some_and(|l| l.to.is_none());
    // What pg_receivewal has is in a folder at once, and in a bucket when the agent has sent it.
    let received = if settings.is_bucket() { shipped_to } else { archiver.received };
    let shipped = if given_up { before.shipped } else { received.max(finished).max(before.shipped) };
    let now = steady_ms();
    let currency = work.ships.currency.get_or_insert_with(|| Currency::new(now));
    currency.note(now, shipped.unwrap_or_default(), probe.written);
    let job = BackupReport {
        enabled: true,
        last_backup_at_ms: archiver.last_at_ms,
        shipped,
        age_ms: Some(currency.age_ms(now)),
        waiting_files,
        hole: work.ships.lack.map(|l| l.from),
        fault: fault.as_ref().map(|(_, says)| says.clone()),
        last_backup_file: archiver.last_file.filter(|name| is_segment(name)).or(before.last_backup_file.clone()),
    };
    // What is let go while the share is given up counts as archived for PostgreSQL alone.
    let noted = Noted {
        files: work.ships.files.replace(archiver.files).map_or(0, |before| archiver.files.saturating_sub(before))
            * u64::from(!given_up),
        bytes: before.shipped.map_or(0, |before| shipped.unwrap_or_default().bytes_after(before)),
        file: job.last_backup_file.clone(),
        lsn: shipped,
        problem: fault.clone(),
    };
    database.jobs.note(AgentType::Backup, noted, settings.history_retention);
    let late = alert::backup(settings, &host.name, &database.name, &job).filter(|_| to_backup);
    database.alert(alert::BACKUP_LATE, late.as_ref());
    database.backup_job(Some(job));
    fault.map(|(_, says)| format!("{}: {says}", database.name))
}

/// Where a finished segment ends.
fn end_of(name: &str) -> Option<Lsn> {
    let start = start_of(name).filter(|_| is_segment(name))?;
    Some(Lsn(start.0 + SEGMENT_BYTES))
}

/// Segments that wait for the archiver.
struct Waiting {
    count: u64,
    oldest: Option<Lsn>,
}

fn waiting_files(status: &PathBuf) -> Waiting {
    let entries = std::fs::read_dir(status).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().to_string_lossy().strip_suffix(".ready").map(str::to_owned));
    let mut names: Vec<String> = names.filter(|n| is_segment(n)).collect();
    names.sort();
    Waiting { count: names.len() as u64, oldest: names.first().and_then(|n| start_of(n)) }
}

/// Stop shipping partial segments.
pub async fn stop(work: &mut Work) {
    work.receive.end().await;
}
