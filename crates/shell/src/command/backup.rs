//! `backup create|list|prove|restore`: backups of the pool at one position, proven by restoring them.

use super::drill::{end, watch};
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::backup::{AskBackup, Backup, RestoreTo};
use cluster::name::{DatabaseName, HostName};
use cluster::topology_file::CONTENT_DATABASE;
use jiff::Timestamp;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "docs/backup.md has what a backup holds, and what to do with one when everything else is lost.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Make a backup while the pool serves: database, topology, record and secret at one position. It lies in `backups` in the
    /// folder of the host whose copy is taken
    #[command(after_help = "Example, for cron: standfast backup create --keep 7")]
    Create {
        /// Of this host's copy, in place of the backup database's
        #[arg(long, value_name = "HOST")]
        on: Option<HostName>,
        /// Keep so many and throw older ones away afterwards; the one that was proven last stays in any case
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
    },
    /// The backups of all hosts, newest first, with what their proofs found
    List,
    /// Restore a backup into a throwaway instance, chat on it, check every entry, and clear it away
    #[command(after_help = "Example, for cron: standfast backup prove")]
    Prove {
        /// Which one; the newest, if left out
        id: Option<String>,
    },
    /// Restore a backup as a pool of one host, in a folder that is not there yet
    #[command(after_help = "Examples:\n  standfast backup restore --into /srv/look\n  standfast backup restore \
                           backup-20261127T040000Z --into /srv/look --to 2026-11-27T11:59:00Z")]
    Restore {
        /// Which one; if left out, the newest that fits
        id: Option<String>,
        /// The folder, an absolute path on the host where the backup lies
        #[arg(long, value_name = "FOLDER")]
        into: String,
        /// Go on from the backup through the log in the share: to a time (2026-11-27T11:59:00Z), or as far as it goes (latest)
        #[arg(long, value_name = "TIME|latest", value_parser = to)]
        to: Option<RestoreTo>,
    },
}

fn to(text: &str) -> Result<RestoreTo, String> {
    if text == "latest" {
        return Ok(RestoreTo::Latest);
    }
    let at: Timestamp = text.parse().map_err(|_| "write a time with its zone, as 2026-11-27T11:59:00Z, or latest")?;
    Ok(RestoreTo::Time(at.as_millisecond()))
}

/// Run the command.
///
/// # Errors
/// When it may not begin, or fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let by = super::run::who();
    let (host, asked) = match args.what {
        What::List => return list(context, &agents).await,
        What::Create { on, keep } => {
            let database = DatabaseName::from(CONTENT_DATABASE);
            let host = source(&agents, &database, on).await?;
            (host, AskBackup::Create { database, keep, by })
        }
        What::Prove { id } => {
            let Backup { id, host, .. } = chosen(&agents, id, &RestoreTo::Latest).await?;
            (host, AskBackup::Prove { id, by })
        }
        What::Restore { id, into, to } => {
            let to = to.unwrap_or(RestoreTo::Backup);
            let Backup { id, host, .. } = chosen(&agents, id, &to).await?;
            (host, AskBackup::Restore { id, into, to, by })
        }
    };
    let begun = agents.begin_backup(&host, &asked).await?;
    let report = watch(&agents, &host, &begun).await?;
    end(context, &report)
}

/// The host whose copy is taken: the backup database's, or the principal's where there is none.
async fn source(agents: &Agents, database: &DatabaseName, on: Option<HostName>) -> Result<HostName, Failure> {
    let look = agents.look().await;
    let record = look.view.record.as_ref().ok_or_else(|| look.nobody())?;
    let parts = record.databases.get(database);
    let backup = parts.and_then(|d| d.backup.clone().or_else(|| d.principal.clone()));
    let none = || Failure::Refused("the pool has no database that serves now; see standfast pool status".into());
    let host = on.or(backup).ok_or_else(none)?;
    if agents.topology.host(&host).is_none() {
        return Err(Failure::Usage(format!("the topology has no host '{host}'; standfast topology show names them")));
    }
    Ok(host)
}

/// Every backup, newest first, and the hosts that did not answer.
async fn all(agents: &Agents) -> (Vec<Backup>, Vec<String>) {
    let mut all = Vec::new();
    let mut silent = Vec::new();
    for host in agents.topology.hosts.iter().map(|h| &h.name) {
        match agents.backups(host).await {
            Ok(backups) => all.extend(backups),
            Err(_) => silent.push(host.to_string()),
        }
    }
    all.sort_by_key(|b| std::cmp::Reverse(b.began_at_ms));
    (all, silent)
}

/// The backup of that name, or the newest that can be restored so far back.
async fn chosen(agents: &Agents, id: Option<String>, to: &RestoreTo) -> Result<Backup, Failure> {
    let (backups, silent) = all(agents).await;
    let unheard = if silent.is_empty() { String::new() } else { format!("; no answer from {}", silent.join(", ")) };
    let fits = |b: &&Backup| match (&id, to) {
        (Some(id), _) => b.id == *id,
        (None, RestoreTo::Time(at_ms)) => b.done_at_ms <= *at_ms,
        (None, RestoreTo::Backup | RestoreTo::Latest) => true,
    };
    backups.iter().find(fits).cloned().ok_or_else(|| {
        Failure::Refused(match &id {
            Some(id) => format!("there is no backup '{id}'{unheard}; standfast backup list shows them"),
            None if backups.is_empty() => format!("there is no backup{unheard}; standfast backup create makes one"),
            None => format!("every backup is newer than that time{unheard}; standfast backup list shows them"),
        })
    })
}

async fn list(context: &Context, agents: &Agents) -> Outcome {
    let (backups, silent) = all(agents).await;
    if !silent.is_empty() {
        output::say(&format!("no answer from {}; theirs are not listed", silent.join(", ")));
    }
    if context.json {
        return output::json(&backups);
    }
    if backups.is_empty() {
        return output::line("no backup yet; standfast backup create makes one");
    }
    let mut rows = vec![["BACKUP", "HOST", "BY", "EPOCH", "CONSISTENT AT", "MB", "PROOF"].map(str::to_owned).to_vec()];
    for backup in &backups {
        rows.push(vec![
            backup.id.clone(),
            backup.host.to_string(),
            backup.by.clone(),
            backup.epoch.to_string(),
            backup.ends.to_string(),
            (backup.bytes >> 20).to_string(),
            proof(backup),
        ]);
    }
    output::table(&rows)
}

fn proof(backup: &Backup) -> String {
    backup.proof.as_ref().map_or_else(
        || "never restored".to_owned(),
        |proof| {
            let at = Timestamp::from_millisecond(proof.at_ms).unwrap_or_default();
            format!("{}: {}", at.strftime("%Y-%m-%d %H:%MZ"), proof.says())
        },
    )
}
