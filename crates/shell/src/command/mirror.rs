//! `mirror install|remove|state` (Install-CsMirrorDatabase, Uninstall-CsMirrorDatabase, Get-CsDatabaseMirrorState).

use super::pool::pair_word;
use super::run::{authority_for, start_reported, who};
use crate::agents::Agents;
use crate::failure::Outcome;
use crate::folder::Context;
use crate::output;
use crate::report::ReportFile;
use wire::run::StartRun;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Give the principal the mirror that the topology names at its site
    Install(Change),
    /// Take the mirror out of the pool; the principal serves alone
    Remove(Change),
    /// Show the state of each mirror pair
    State,
}

#[derive(Clone, Debug, clap::Args)]
struct Change {
    /// Go on without being asked
    #[arg(long, short)]
    yes: bool,
    /// Show the steps, and do nothing
    #[arg(long)]
    what_if: bool,
    /// The backup's warm mirror, not the principal's
    #[arg(long)]
    backup: bool,
    /// Write a report when it ends, however it ends: a page (.html) or data (.json)
    #[arg(long, value_name = "FILE")]
    report: Option<std::path::PathBuf>,
}

/// Run the command.
///
/// # Errors
/// When it is refused or fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let (runbook, change) = match args.what {
        What::State => return state(context).await,
        What::Install(change) => (if change.backup { "add-backup-mirror" } else { "install-mirror" }, change),
        What::Remove(change) => (if change.backup { "remove-backup-mirror" } else { "remove-mirror" }, change),
    };
    let report = change.report.as_deref().map(ReportFile::new).transpose()?;
    let agents = Agents::new(&context.folder()?)?;
    let record = agents.record().await?;
    let at = authority_for(&agents, &record, runbook).await?;
    let wanted = StartRun {
        runbook: runbook.to_owned(),
        what_if: change.what_if,
        force: false,
        only_step: None,
        new_principal: None,
        started_by: who(),
    };
    start_reported(&agents, &at, wanted, change.yes, context.json, report.as_ref()).await
}

async fn state(context: &Context) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let look = agents.look().await;
    let view = &look.view;
    let record = view.record.as_ref().ok_or_else(|| look.nobody())?;
    let mut pairs = Vec::new();
    for (name, database) in &record.databases {
        let principal = database.principal.as_ref();
        let seen =
            principal.and_then(|h| view.reports.iter().find(|r| r.host == *h)).and_then(|r| r.instances.get(name));
        let word = match (&database.mirror, seen) {
            (None, _) => "NONE",
            (Some(mirror), Some(seen)) => pair_word(mirror.synchronised, seen, &mirror.host),
            (Some(_), None) => "UNKNOWN: the principal's agent does not answer",
        };
        pairs.push(serde_json::json!({
            "database": name, "principal": principal, "mirror": database.mirror.as_ref().map(|m| &m.host),
            "recorded_synchronised": database.mirror.as_ref().map(|m| m.synchronised), "state": word,
        }));
    }
    if context.json {
        return output::json(&pairs);
    }
    for existing in &view.topology.existing_databases {
        output::line(&format!("{} is operated by somebody else: its mirror is theirs", existing.name))?;
    }
    if pairs.is_empty() {
        return Ok(());
    }
    let mut rows = vec![["DATABASE", "PRINCIPAL", "MIRROR", "STATE"].map(str::to_owned).to_vec()];
    for pair in &pairs {
        let cell = |key: &str| pair[key].as_str().unwrap_or("–").to_owned();
        rows.push(["database", "principal", "mirror", "state"].map(cell).to_vec());
    }
    output::table(&rows)
}
