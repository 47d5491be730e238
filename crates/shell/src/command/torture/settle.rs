//! Waiting until a pool that may run again is well, doing what an administrator would do for it.

use super::strike::World;
use crate::agents::Look;
use cluster::record::{DatabaseRecord, PoolState};
use lab::torture::Kind;
use std::time::{Duration, Instant};
use tokio::process::Child;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Wait until everything is as it should be: Normal, nothing under way, mirror synchronised, backup and its mirror fed;
/// after an episode with damaged pages, every page whole.
///
/// # Errors
/// When it takes longer than it may: what is still missing.
pub(super) async fn until_well(world: &mut World, patience: Duration, kind: Kind) -> Result<(), String> {
    let began = Instant::now();
    let mut typed: Option<Child> = None;
    loop {
        world.start_all().await?;
        let look = world.agents().map_err(|e| e.to_string())?.look().await;
        let missing = match missing(&look) {
            Missing::Nothing if kind == Kind::Page => match world.to_the_end(&["database", "scrub"]).await {
                Ok(()) => return Ok(()),
                Err(why) => Missing::Time(why.to_string()),
            },
            Missing::Nothing => return Ok(()),
            other => other,
        };
        if began.elapsed() > patience {
            return Err(format!(
                "the pool was not well {} s after everything ran again: {missing}",
                patience.as_secs()
            ));
        }
        let busy = typed.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|over| over.is_none()));
        if !busy && let Some(words) = missing.remedy() {
            typed = Some(world.in_background(words).map_err(|e| e.to_string())?);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What keeps a pool from being well.
enum Missing {
    Nothing,
    /// It comes by itself.
    Time(String),
    /// A run stands still or goes on.
    Run(String),
    /// The pool is at the other site.
    Home,
    /// The principal has no mirror.
    Mirror,
}

impl Missing {
    /// What an administrator types.
    fn remedy(&self) -> Option<&'static [&'static str]> {
        match self {
            Missing::Nothing | Missing::Time(_) => None,
            Missing::Run(_) => Some(&["runbook", "resume"]),
            Missing::Home => Some(&["failback", "--yes"]),
            Missing::Mirror => Some(&["mirror", "install", "--yes"]),
        }
    }
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Missing::Nothing => f.write_str("nothing is missing"),
            Missing::Time(what) => f.write_str(what),
            Missing::Run(id) => write!(f, "the run {id} is not over"),
            Missing::Home => f.write_str("it is still FailedOver"),
            Missing::Mirror => f.write_str("the principal has no mirror"),
        }
    }
}

fn missing(look: &Look) -> Missing {
    if let Some((host, _)) = look.view.silent.first() {
        return Missing::Time(format!("{host} does not answer"));
    }
    let Some(record) = &look.view.record else { return Missing::Time("nobody has a record".into()) };
    if let Some(report) = look.view.reports.iter().find(|r| r.record.as_ref() != Some(record)) {
        return Missing::Time(format!("{} has not heard of the newest record", report.host));
    }
    if let Some(run) = &record.run {
        return Missing::Run(run.id.clone());
    }
    if record.state == PoolState::FailedOver {
        return Missing::Home;
    }
    for (database, parts) in &record.databases {
        match &parts.mirror {
            None => return Missing::Mirror,
            Some(mirror) if !mirror.synchronised => {
                return Missing::Time(format!("{} is not synchronised with {database}", mirror.host));
            }
            Some(_) => {}
        }
        if let Some(what) = unfed(look, database, parts) {
            return Missing::Time(what);
        }
    }
    Missing::Nothing
}

/// The copy at the other site that does not stream.
fn unfed(look: &Look, database: &cluster::name::DatabaseName, parts: &DatabaseRecord) -> Option<String> {
    for host in [&parts.backup, &parts.backup_mirror] {
        let Some(host) = host else { return Some(format!("{database} has no backup, or that has no mirror")) };
        let report = look.view.reports.iter().find(|r| r.host == *host);
        let shipping = report.and_then(|r| r.instances.get(database)).and_then(|i| i.shipping.as_ref());
        if !shipping.is_some_and(|s| s.streaming) {
            return Some(format!("{host} does not stream {database}"));
        }
    }
    None
}
