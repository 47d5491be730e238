//! `mirror install|remove|state` (Install-CsMirrorDatabase, Uninstall-CsMirrorDatabase, Get-CsDatabaseMirrorState).

use super::pool::{pair_state, witness};
use super::run;
use crate::agents::Agents;
use crate::failure::Outcome;
use crate::folder::Context;
use crate::output;
use cluster::mirror::PairState;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Give the principal the mirror that the topology names at its site
    Install(MirrorChange),
    /// Take the mirror out of the pool; the principal serves alone
    Remove(MirrorChange),
    /// Show the state of each mirror pair
    State,
}

#[derive(Clone, Debug, clap::Args)]
struct MirrorChange {
    /// The backup's warm mirror, not the principal's
    #[arg(long)]
    backup: bool,
    #[command(flatten)]
    change: run::Change,
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
    run::run(context, runbook, change.change.into()).await
}

async fn state(context: &Context) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let look = agents.look().await;
    let view = &look.view;
    let record = view.record.as_ref().ok_or_else(|| look.nobody())?;
    let mut pairs = Vec::new();
    for (name, database) in &record.databases {
        let principal = database.principal.as_ref();
        let heard = principal.is_none_or(|h| view.reports.iter().any(|r| r.host == *h));
        let word = match pair_state(view, name, database) {
            PairState::Disconnected if !heard => "DISCONNECTED: the principal's agent does not answer".to_owned(),
            state => state.to_string(),
        };
        let witness = witness(view, record);
        pairs.push(serde_json::json!({
            "witness": witness.map(|w| w.0), "witness_state": witness.map(|w| w.1),
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
    let mut rows =
        vec![["DATABASE", "PRINCIPAL", "MIRROR", "STATE", "WITNESS", "WITNESS STATE"].map(str::to_owned).to_vec()];
    for pair in &pairs {
        let cell = |key: &str| pair[key].as_str().unwrap_or("–").to_owned();
        rows.push(["database", "principal", "mirror", "state", "witness", "witness_state"].map(cell).to_vec());
    }
    output::table(&rows)
}
