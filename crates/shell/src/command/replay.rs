//! `standfast replay`: logged conversations, played by real clients.

use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::replay::log::{self, Log};
use client::replay::{Options, Plan, Progress, Speed, Summary};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the status is shown on a terminal, and elsewhere.
const SHOW_EVERY: Duration = Duration::from_millis(500);
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast replay samples/harbour-watch.txt --speed 60 --loop --ledger ledger.jsonl\n\
    Ctrl-C ends it in order: what was posted is waited for. A second one does not wait.")]
pub struct Args {
    /// Logs with lines like '[21:40] <mara> evening all', each played into a room of its own
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// So many times as fast as it was, or 'max'
    #[arg(long, default_value = "1", value_name = "N|max")]
    speed: Speed,
    /// Write what clients were told and what they saw into this file, for standfast audit
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Begin again at the end, until it is stopped
    #[arg(long = "loop")]
    repeat: bool,
    /// Stop after so many seconds
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
}

/// Play, and say what came of it.
///
/// # Errors
/// When a log or the ledger cannot be used, or no server answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let logs = args.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let plan = Plan::new(&logs);
    if plan.posts() == 0 {
        return Err(Failure::Usage("nobody says anything in these logs; a line is like '[21:40] <mara> hello'".into()));
    }
    let (folder, http) = administrator(context).await?;
    let options = Options {
        pool: folder.topology.pool.clone(),
        sources: args.files.iter().map(|path| file_name(path)).collect(),
        speed: args.speed,
        ledger: args.ledger,
        repeat: args.repeat,
        duration: args.duration.map(Duration::from_secs),
    };
    output::say(&format!("{} people, {} posts a round", plan.people.len(), plan.posts()));
    let stop = stop_signals()?;
    let progress = watch::Sender::new(Progress::default());
    let shown = tokio::spawn(show(progress.subscribe()));
    let summary = client::replay::play(http, &plan, &options, stop, progress).await;
    shown.abort();
    if std::io::stderr().is_terminal() {
        output::say("");
    }
    report(context, &summary?)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Log, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::Usage(format!("read {}: {e}", path.display())))?;
    let log = log::read(&bytes);
    if log.skipped > 0 {
        output::say(&format!("{}: {} lines were skipped", path.display(), log.skipped));
    }
    Ok(log)
}

/// Counts how often the person wants it to stop.
fn stop_signals() -> Result<watch::Receiver<u32>, Failure> {
    let failed = |e: std::io::Error| Failure::Failed(format!("listen for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (asked, stop) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            asked.send_modify(|count| *count += 1);
            output::say("\nstopping: waiting for what was posted; once more to stop without waiting");
        }
    });
    Ok(stop)
}

async fn show(mut progress: watch::Receiver<Progress>) {
    let terminal = std::io::stderr().is_terminal();
    let mut complaint = None;
    loop {
        tokio::time::sleep(if terminal { SHOW_EVERY } else { SAY_EVERY }).await;
        let now = progress.borrow_and_update().clone();
        if now.complaint != complaint {
            complaint.clone_from(&now.complaint);
            complaint.iter().for_each(|said| output::say(&format!("\r\u{1b}[K{said}")));
        }
        let line = status(&now);
        if terminal {
            let mut err = std::io::stderr().lock();
            // Who has closed standard error does not want to see it.
            let _ = write!(err, "\r\u{1b}[K{line}");
            let _ = err.flush();
        } else {
            output::say(&line);
        }
    }
}

fn status(now: &Progress) -> String {
    let epoch = now.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
    format!(
        "posted {}, acknowledged {}, waiting {} (oldest {} ms), longest wait {} ms, reconnects {}, epoch {epoch}",
        now.posts,
        now.acknowledged,
        now.waiting,
        now.oldest.as_millis(),
        now.longest.as_millis(),
        now.reconnects,
    )
}

fn report(context: &Context, summary: &Summary) -> Outcome {
    if context.json {
        return output::json(summary);
    }
    output::line(&format!("acknowledged {}, given up {}", summary.acknowledged, summary.given_up))?;
    if summary.offered_again > 0 {
        output::line(&format!("posted again after a failover: {}", summary.offered_again))?;
    }
    let at = jiff::Timestamp::from_millisecond(summary.longest_gap_at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let gap = summary.longest_gap_ms;
    output::line(&format!("longest time between two acknowledgements: {gap} ms, from {at:.3}"))?;
    output::line(&format!("delivered {}, reconnects {}", summary.delivered, summary.reconnects))
}
