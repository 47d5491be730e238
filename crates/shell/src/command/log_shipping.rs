//! `log-shipping enable|disable|state|history`.

mod history;
mod state;

use super::run::{self, Change};
use crate::failure::Outcome;
use crate::folder::Context;
use crate::output;
use cluster::name::DatabaseName;
use cluster::record::{DatabaseRecord, PoolRecord};
use wire::agent::PoolView;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Ship the log to the backup: generate a full backup of the primary online, restore it, and keep it fed
    Enable {
        /// The backup is initialised already: let it follow from where it stopped; refused when it cannot
        #[arg(long)]
        already_initialised: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Remove the secondary: its jobs and the archive end, and the copies are kept, stopped
    Disable(Change),
    /// Last backed up, copied and restored file and position, ages, faults, alerts, exposure; exit status 5 when there is
    /// an alert or a fault
    State,
    /// The runs of the backup, copy and restore jobs
    History(history::Args),
}

/// Run the command.
///
/// # Errors
/// When it is refused or fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let (runbook, change) = match args.what {
        What::Enable { already_initialised: false, change } => ("enable-log-shipping", change),
        What::Enable { already_initialised: true, change } => ("enable-log-shipping-initialised", change),
        What::Disable(change) => ("disable-log-shipping", change),
        What::State => return state::run(context).await,
        What::History(args) => return history::run(context, args).await,
    };
    run::run(context, runbook, change.into()).await
}

pub use self::state::all_alerts;

/// Faults and alerts of a database's log shipping, for `pool status`.
///
/// # Errors
/// When standard output is closed.
pub fn problems(view: &PoolView, record: &PoolRecord, name: &DatabaseName, database: &DatabaseRecord) -> Outcome {
    let faults = state::faults(view, name, database).into_iter().map(|fault| format!("  FAULT: {fault}"));
    let alerts = all_alerts(view, record).remove(name).unwrap_or_default();
    let alerts = alerts.into_iter().map(|alert| format!("  ALERT {alert}"));
    faults.chain(alerts).try_for_each(|line| output::line(&line))
}
