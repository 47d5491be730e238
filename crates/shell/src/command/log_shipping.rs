//! `log-shipping enable|disable|state|history`.

use super::run::{authority_for, start, who};
use crate::agents::Agents;
use crate::failure::Outcome;
use crate::folder::Context;
use wire::run::StartRun;

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
}

#[derive(Clone, Debug, clap::Args)]
struct Change {
    /// Go on without being asked
    #[arg(long, short)]
    yes: bool,
    /// Show the steps, and do nothing
    #[arg(long)]
    what_if: bool,
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
    };
    let agents = Agents::new(&context.folder()?)?;
    let record = agents.record().await?;
    let at = authority_for(&agents, &record, runbook).await?;
    let wanted = StartRun {
        runbook: runbook.to_owned(),
        what_if: change.what_if,
        force: false,
        only_step: None,
        started_by: who(),
    };
    start(&agents, &at, wanted, change.yes, context.json).await
}
