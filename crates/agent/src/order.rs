//! Carrying out orders. Every one of them may be given again: what is done already is found done.
//!
//! An order's stamp is on disk before anything is done, and no older stamp is taken after it. While an order is carried
//! out it holds the instance, so the reconciler never works against it.

use crate::bucket::Copying;
use crate::database::{Database, Work};
use crate::error::Error;
use crate::feed;
use crate::hand_over::{hand_over, reopen};
use crate::host::Host;
use crate::postgres::conf::ArchiveTo;
use crate::postgres::copy::{Copied, CopyJob, Offer};
use crate::postgres::rebuild;
use crate::postgres::share::{Share, place};
use crate::postgres::sql::Probe;
use crate::promotion::{promote, settle};
use crate::reconcile::standby_conf;
use crate::state_file::State;
use crate::tail;
use cluster::name::HostName;
use cluster::order::{Order, Outcome, StampedOrder};
use cluster::report::OrderReport;
use cluster::wal::Lsn;
use nix::sys::signal::Signal;
use rules::id::Epoch;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Before the outcome of an order is tried to be kept again.
const KEEP_AGAIN: Duration = Duration::from_millis(250);

/// Take an order, and answer when it is over or after `wait`, as it stands then.
pub async fn take(host: Arc<Host>, given: StampedOrder, wait: Duration) -> Result<OrderReport, Error> {
    let name = given.order.database().clone();
    let database = host.database(&name).ok_or_else(|| {
        Error::Unfit(format!("there is no instance of {name} on {}; look at standfast topology show", host.name))
    })?;
    let state = database.state();
    if given.stamp < state.latest {
        return Ok(OrderReport::of(given, Outcome::TooOld { latest: state.latest }));
    }
    let known = state.order.filter(|o| o.stamp == given.stamp && o.order == given.order);
    let over = known.as_ref().is_some_and(|o| matches!(o.outcome, Outcome::Done { .. }));
    let under_way = *database.executing.borrow() == Some(given.stamp);
    if let (Some(known), true) = (known, over) {
        return Ok(known);
    }
    if !under_way {
        let report = OrderReport::of(given.clone(), Outcome::Running { doing: "taken".into() });
        database.remember(|s| {
            s.latest = given.stamp;
            s.order = Some(report);
        })?;
        database.executing.send_replace(Some(given.stamp));
        tokio::spawn(execute(host.clone(), database.clone(), given.clone()));
    }
    let mut executing = database.executing.subscribe();
    let _ = tokio::time::timeout(wait, executing.wait_for(|now| *now != Some(given.stamp))).await;
    database.state().order.ok_or_else(|| Error::Unfit("the order was forgotten; give it again".into()))
}

async fn execute(host: Arc<Host>, database: Arc<Database>, given: StampedOrder) {
    let began = Instant::now();
    let mut work = database.work.lock().await;
    let result = carry_out(&host, &database, &mut work, &given.order).await;
    let hands_over = result.is_ok() && matches!(given.order, Order::HandOver { .. });
    let (outcome, remember) = match result {
        Ok(Carried { detail, remember }) => (Outcome::Done { detail }, remember),
        Err(error) => (Outcome::Failed { message: error.to_string() }, None),
    };
    tracing::info!(stamp = %given.stamp, order = ?given.order, ?outcome, ms = began.elapsed().as_millis() as u64, "order");
    database.forget_count();
    // An order is over when its outcome is on disk. Until then it is under way, and says what it waits for.
    let mut said = false;
    while let Err(error) = database.remember(|s| {
        if let Some(remember) = &remember {
            remember(s);
        }
        let left_to = s.left_to.clone().filter(|_| hands_over);
        if let Some(order) = s.order.as_mut().filter(|o| o.stamp == given.stamp) {
            (order.outcome, order.left_to) = (outcome.clone(), left_to);
        }
    }) {
        if !std::mem::replace(&mut said, true) {
            tracing::error!(database = %database.name, %error, "the outcome of an order cannot be kept; trying again");
        }
        database.doing(Some(&format!("keeping what came of it: {error}")));
        tokio::time::sleep(KEEP_AGAIN).await;
    }
    database.doing(None);
    drop(work);
    host.changed();
    database.executing.send_if_modified(|now| {
        let mine = *now == Some(given.stamp);
        if mine {
            *now = None;
        }
        mine
    });
    database.wake.notify_one();
}

/// What an order has come to.
pub(crate) struct Carried {
    /// For people.
    pub detail: String,
    /// What is remembered with the outcome, in one: each time that something is kept costs a flush, and users may be waiting.
    pub remember: Option<Box<Change>>,
}

/// A change of what the agent remembers.
pub(crate) type Change = dyn Fn(&mut State) + Send + Sync;

async fn carry_out(host: &Host, database: &Database, work: &mut Work, order: &Order) -> Result<Carried, Error> {
    settle(database).await?;
    let detail = match order {
        Order::Initialise { epoch, .. } => initialise(database, *epoch).await,
        Order::Seed { from, .. } => seed(host, database, work, from, false).await,
        Order::SeedAnew { from, .. } => seed(host, database, work, from, true).await,
        Order::Fence { epoch, .. } => fence(database, work, *epoch).await,
        Order::CloseShare { epoch, .. } => close_share(host, database, *epoch).await,
        Order::ApplyAtOnce { .. } => apply_at_once(host, database).await,
        Order::HoldBackAgain { .. } => {
            database.remember(|s| s.applies_at_once_in = None)?;
            Ok("the restore job holds back what its settings say".into())
        }
        Order::StopLogShipping { .. } => stop_log_shipping(host, database, work).await,
        Order::StartLogShipping { .. } => start_log_shipping(host, database, work).await,
        Order::CopyRemainingLog { .. } => copy_remaining_log(host, database, work).await,
        Order::ApplyRemainingLog { .. } => apply_remaining_log(database, work).await,
        Order::DisconnectSessions { .. } => {
            let ended = database.instance.sql.disconnect_sessions().await?;
            Ok(format!("{ended} sessions ended"))
        }
        Order::Promote { epoch, .. } => promote(host, database, *epoch).await,
        Order::Checkpoint { .. } => {
            database.doing(Some("writing out what is dirty"));
            database.instance.sql.checkpoint().await?;
            database.instance.write_out().await?;
            Ok("checkpoint done".into())
        }
        Order::SalvageTail { from, .. } => salvage(host, database, from).await,
        Order::Rewind { from, .. } => rewind(host, database, work, from).await,
        Order::HandOver { epoch, .. } => return hand_over(host, database, work, *epoch).await,
        Order::Reopen { epoch, after, .. } => reopen(host, database, work, *epoch, *after).await,
    };
    Ok(Carried { detail: detail?, remember: None })
}

async fn initialise(database: &Database, epoch: Epoch) -> Result<String, Error> {
    let instance = &database.instance;
    if !instance.has_data() {
        database.doing(Some("creating the database"));
        instance.initdb().await?;
    }
    let process = match database.running() {
        Some(process) => process,
        None => database.start(&instance.plain_conf()).await?,
    };
    instance.until_postgres_answers(process).await?;
    instance.create_roles().await?;
    database.remember(|s| s.history_epoch = s.history_epoch.max(Some(epoch)))?;
    Ok(format!("{} is online", database.name))
}

/// `address:port` of an instance elsewhere, or why there is none.
fn source(host: &Host, database: &Database, from: &HostName) -> Result<String, Error> {
    host.postgres_of(&database.name, from)
        .ok_or_else(|| Error::Unfit(format!("the topology has no instance of {} on {from}", database.name)))
}

fn present_epoch(host: &Host) -> Epoch {
    host.store.record().map_or(Epoch::FIRST, |r| r.epoch)
}

/// Copy the data from another host, as a standby; what is a standby on the present history already stays, unless `anew`.
pub async fn seed(
    host: &Host,
    database: &Database,
    work: &mut Work,
    from: &HostName,
    anew: bool,
) -> Result<String, Error> {
    let at = source(host, database, from)?;
    let instance = &database.instance;
    let epoch = present_epoch(host);
    let state = database.state();
    let follows = state.history_epoch.is_some_and(|e| e >= epoch) || database.running().is_some();
    if !anew && instance.has_data() && instance.is_standby() && follows {
        return Ok("it is a standby already".into());
    }
    database.doing(Some(&format!("copying {} from {from}", database.name)));
    database.stop(Signal::SIGQUIT).await?;
    let done = rebuild::base_backup(instance, &at).await?;
    work.copy = CopyJob::default();
    followed(database, epoch)?;
    // What was damaged has gone with the old data.
    database.remember(|s| s.scrub = None)?;
    Ok(done)
}

/// The data is a standby's now, on the history of this epoch.
fn followed(database: &Database, epoch: Epoch) -> Result<(), Error> {
    database.remember(|s| {
        s.history_epoch = Some(epoch);
        (s.handed_over, s.left_to) = (None, None);
        s.fenced_by = None;
        s.shipping_stopped_in = None;
        (s.rewinding, s.promoting) = (false, false);
    })
}

async fn fence(database: &Database, work: &mut Work, epoch: Epoch) -> Result<String, Error> {
    crate::shipper::stop(work).await;
    if !database.state().is_behind(epoch) {
        return Err(Error::Unfit(format!("{} is part of epoch {epoch} already; it is not fenced", database.name)));
    }
    // Remembered before it is stopped: an agent that is killed in between does not start it again.
    database.remember(|s| s.fenced_by = s.fenced_by.max(Some(epoch)))?;
    database.stop(Signal::SIGQUIT).await?;
    Ok(format!("{} is stopped and stays so", database.name))
}

async fn close_share(host: &Host, database: &Database, epoch: Epoch) -> Result<String, Error> {
    let closed = match database.usable_share(host) {
        Some(Ok(share)) => share.close(epoch, &host.programs).await,
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    let detail = match closed {
        Ok(()) => format!("the share takes epoch {epoch} and later"),
        // A share that cannot be reached gives nothing to copy either; it is closed as soon as it can be.
        Err(error) => format!("{error}; nothing is read from it, and it is closed when it can be reached"),
    };
    database.remember(|s| s.share_epoch = s.share_epoch.max(Some(epoch)))?;
    let report = database.last_shipping().unwrap_or_else(feed::stopped_report);
    database.shipping(Some(report), false);
    Ok(detail)
}

/// Longest wait for PostgreSQL to let go of a stream.
const STREAM_END: Duration = Duration::from_secs(3);

async fn stop_log_shipping(host: &Host, database: &Database, work: &mut Work) -> Result<String, Error> {
    let epoch = present_epoch(host);
    database.remember(|s| s.shipping_stopped_in = Some(epoch))?;
    database.copies_nothing();
    if database.probe().await.is_some_and(|p| p.paused) {
        // What the schedule of the restore job, or a person, held back is applied from here on.
        feed::apply(database).await?;
    }
    let mut conf = standby_conf(host, database, None);
    conf.files_from = Some(database.instance.copied());
    database.reload(&conf)?;
    work.destination.set_offer(Offer::Nothing)?;
    let began = Instant::now();
    while database.probe().await.is_some_and(|p| p.in_recovery && p.receiving) && began.elapsed() < STREAM_END {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut report = database.last_shipping().unwrap_or_else(feed::stopped_report);
    report.enabled = false;
    report.streaming = false;
    database.shipping(Some(report), false);
    Ok("copy and restore jobs and the stream are stopped".into())
}

/// Nothing is held back any more in this epoch, whoever held it back: its settings, its schedule, or a person's pause.
async fn apply_at_once(host: &Host, database: &Database) -> Result<String, Error> {
    let epoch = present_epoch(host);
    database.remember(|s| s.applies_at_once_in = Some(epoch))?;
    let paused = database.probe().await.is_some_and(|p| p.paused);
    if paused {
        feed::apply(database).await?;
    }
    Ok(if paused { "applying goes on; it had been paused" } else { "nothing is held back" }.into())
}

async fn start_log_shipping(host: &Host, database: &Database, work: &mut Work) -> Result<String, Error> {
    work.destination.set_offer(Offer::Finished)?;
    let mut detail = "copy and restore jobs and the stream are on".to_owned();
    // What the share was closed over is in no open folder: a stream may not have all of it any more.
    if let (Some(share), Some(probe)) = (database.share(host), database.probe().await)
        && let Err(error) = copy_now(host, database, work, &share, &probe, true).await
    {
        detail = format!("{detail}; the share cannot be read ({error}), the stream goes on without it");
    }
    database.remember(|s| s.shipping_stopped_in = None)?;
    let mut report = database.last_shipping().unwrap_or_else(feed::stopped_report);
    report.enabled = true;
    database.shipping(Some(report), false);
    Ok(detail)
}

/// Everything of the share, closed or open, that the standby lacks, as the share is now.
async fn copy_now(
    host: &Host,
    database: &Database,
    work: &mut Work,
    share: &Share,
    probe: &Probe,
    closed: bool,
) -> std::io::Result<Copied> {
    let has = database.has(probe);
    let copying = Copying { from: place(has.applied), partial: true, every: Duration::ZERO };
    share.bring(&copying, closed).await?;
    work.copy.round(share, closed, &work.destination, &has, &host.programs)
}

async fn copy_remaining_log(host: &Host, database: &Database, work: &mut Work) -> Result<String, Error> {
    let Some(share) = database.share(host) else { return Ok("no share".into()) };
    let Some(probe) = database.probe().await else { return Err(not_running(database)) };
    if !probe.in_recovery {
        return Ok("online already: nothing can be applied any more".into());
    }
    if probe.receiving {
        return Err(Error::Unfit(format!("{} still receives a stream; stop log shipping first", database.name)));
    }
    work.destination.set_offer(Offer::Partial)?;
    // The old site's folder is closed by now; one that could not be closed is read where it is.
    let mut files = 0;
    let mut newest = None;
    for closed in [true, false] {
        match copy_now(host, database, work, &share, &probe, closed).await {
            Ok(copied) => {
                files += copied.files;
                newest = newest.max(copied.newest);
            }
            Err(error) => {
                return Ok(format!(
                    "the share cannot be read ({error}): going on with what was streamed and copied before"
                ));
            }
        }
    }
    let newest = newest.unwrap_or_else(|| "none".into());
    Ok(format!("{files} files copied, newest in the share: {newest}"))
}

pub(crate) fn not_running(database: &Database) -> Error {
    Error::Unfit(format!("{} does not run; it is started by its agent, then order again", database.name))
}

/// So many requests for the same segment, with nothing applied in between, show that everything in it was applied.
const REQUESTS_OF_THE_SAME: usize = 3;

async fn apply_remaining_log(database: &Database, work: &mut Work) -> Result<String, Error> {
    let Some(first) = database.probe().await else { return Err(not_running(database)) };
    if !first.in_recovery {
        return Ok("online already: nothing can be applied any more".into());
    }
    if first.receiving {
        return Err(Error::Unfit(format!("{} still receives a stream; stop log shipping first", database.name)));
    }
    work.destination.set_offer(Offer::Partial)?;
    let asked = database.instance.asked();
    let mut conf = database.instance.plain_conf();
    conf.files_from = Some(database.instance.copied());
    database.reload(&conf)?;
    let began = Instant::now();
    let mut at = first.applied;
    let mut before = requests(&asked).1;
    loop {
        let Some(probe) = database.probe().await else { return Err(stalled(database, at)) };
        let (same, all) = requests(&asked);
        if probe.applied != at {
            at = probe.applied;
            before = all;
        } else if same >= REQUESTS_OF_THE_SAME && all >= before + REQUESTS_OF_THE_SAME {
            // Between two requests PostgreSQL has read all that it has of that segment, wherever it came from. What was
            // received of a record whose end never came is not applied, and cannot be.
            return Ok(format!("applied up to {at}: {} bytes", at.bytes_after(first.applied)));
        }
        database.doing(Some(&format!("applying, at {at}")));
        if began.elapsed() > Duration::from_secs(600) {
            return Err(stalled(database, at));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn stalled(database: &Database, at: Lsn) -> Error {
    Error::Late {
        what: format!("applying the log of {} beyond {at}", database.name),
        seconds: 600,
        hint: format!("see {}", database.instance.folder.join("log").display()),
    }
}

/// How often the segment that was asked for last has been asked for without another in between, and how many requests
/// there were in all. Requests for timelines' histories do not count.
fn requests(asked: &std::path::Path) -> (usize, usize) {
    let text = std::fs::read_to_string(asked).unwrap_or_default();
    let segments: Vec<&str> = text.lines().filter(|l| l.len() == 24).collect();
    let Some(last) = segments.last() else { return (0, 0) };
    // A later timeline's name is tried before an earlier one's for the same place.
    let same = segments.iter().rev().take_while(|name| name.get(8..) == last.get(8..)).count();
    (same, segments.len())
}

/// Where a writer of this epoch archives to; nowhere while log shipping is off.
pub(crate) fn archive_of(host: &Host, database: &Database, epoch: Epoch) -> Option<ArchiveTo> {
    let record = host.store.record()?;
    let off = record.databases.get(&database.name).is_some_and(|d| d.shipping_off);
    database.share(host).filter(|_| !off).map(|share| {
        share.ship(database.shipping_in(host, epoch));
        share.archive_to(epoch, &host.programs)
    })
}

pub(crate) async fn salvage(host: &Host, database: &Database, from: &HostName) -> Result<String, Error> {
    if !database.instance.has_data() {
        return Ok("nothing here to salvage".into());
    }
    let at = source(host, database, from)?;
    database.doing(Some("salvaging the tail"));
    database.stop(Signal::SIGQUIT).await?;
    tail::read::end(database).await?;
    let epoch = present_epoch(host);
    let kept = rebuild::salvage(&database.instance, &at, epoch).await?;
    database.doing(Some("reading the tail"));
    let read = tail::read::read(database, &at, epoch, &kept).await?;
    host.changed();
    Ok(format!("{}; {read}", kept.detail))
}

pub(crate) async fn rewind(
    host: &Host,
    database: &Database,
    work: &mut Work,
    from: &HostName,
) -> Result<String, Error> {
    let at = source(host, database, from)?;
    let epoch = present_epoch(host);
    let instance = &database.instance;
    if instance.has_data() && instance.is_standby() && database.state().history_epoch.is_some_and(|e| e >= epoch) {
        return Ok("it is on that history already".into());
    }
    database.stop(Signal::SIGQUIT).await?;
    let mut done = None;
    if database.state().rewinding {
        tracing::warn!(database = %database.name, "a rewind was cut off: its data is part of no history; copying anew");
    } else if instance.has_data() {
        database.doing(Some(&format!("rewinding {} to {from}", database.name)));
        let own = database.state().history_epoch;
        let archive = own.and_then(|epoch| database.share(host)?.archive_of(epoch));
        let begins = || database.remember(|s| s.rewinding = true);
        match rebuild::rewind(instance, &at, archive, begins).await {
            Ok(detail) => done = Some(detail),
            Err(error) => tracing::warn!(database = %database.name, %error, "a rewind is not possible; copying anew"),
        }
    }
    let detail = if let Some(detail) = done {
        detail
    } else {
        database.doing(Some(&format!("copying {} from {from}", database.name)));
        rebuild::base_backup(instance, &at).await?
    };
    work.copy = CopyJob::default();
    followed(database, epoch)?;
    database.shipping(Some(feed::stopped_report()), false);
    Ok(detail)
}
