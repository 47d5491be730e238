//! `topology diff` and `topology publish`: what differs, what it takes, and doing it in order.

use super::{live, read};
use crate::agents::Agents;
use crate::command::run::{authority_for, start, who};
use crate::failure::{Failure, Outcome};
use crate::folder::{Context, Folder};
use crate::output;
use cluster::name::{HostName, ServerName};
use cluster::record::PoolRecord;
use cluster::topology::Topology;
use cluster::topology_change::{Consequence, Plan, plan};
use cluster::topology_diff::{Change, diff as differences};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wire::agent::{PublishTopology, TopologyAnswer};
use wire::run::StartRun;

/// How long servers that leave may take to move their clients.
const DRAIN: Duration = Duration::from_secs(15);
/// How long hosts are waited for to take a topology over, and new ones to answer.
const TAKE_OVER: Duration = Duration::from_secs(15);
/// Time between two looks.
const AGAIN: Duration = Duration::from_millis(200);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The file; the folder's own when left out
    file: Option<PathBuf>,
    /// Go on without being asked
    #[arg(long, short)]
    yes: bool,
    /// Go on although the hosts do not show all that the topology needs, such as one that is not there yet
    #[arg(long)]
    force: bool,
}

/// The file against what is published.
struct Compared {
    agents: Agents,
    authority: HostName,
    record: Option<PoolRecord>,
    text: String,
    published: Topology,
    wanted: Topology,
    changes: Vec<Change>,
    plan: Plan,
}

async fn compare(context: &Context, file: Option<PathBuf>) -> Result<Compared, Failure> {
    let folder = context.folder()?;
    let file = file.unwrap_or_else(|| folder.dir.join("topology.toml"));
    let (text, wanted) = read(&file)?;
    let agents = Agents::new(&folder)?;
    let look = agents.look().await;
    let record = look.view.record.clone();
    if look.view.reports.is_empty() {
        return Err(look.nobody());
    }
    let home =
        record.as_ref().map(|r| r.home.clone()).or_else(|| folder.topology.primary_site().map(|s| s.name.clone()));
    let authority = agents.authority(&home.unwrap_or_else(|| "".into()))?;
    let published = agents.published(&authority).await?;
    let changes = differences(&published, &wanted);
    let plan = plan(&published, &wanted, record.as_ref());
    Ok(Compared { agents, authority, record, text, published, wanted, changes, plan })
}

/// `topology diff`.
///
/// # Errors
/// When the file does not pass, or nobody says what is published.
pub async fn diff(context: &Context, file: Option<PathBuf>) -> Outcome {
    let compared = compare(context, file).await?;
    if context.json {
        return output::json(&serde_json::json!({
            "published_version": compared.published.version, "changes": compared.changes, "plan": compared.plan,
        }));
    }
    lines(&compared).iter().try_for_each(|line| output::line(line))
}

/// The differences and the plan, for people.
fn lines(compared: &Compared) -> Vec<String> {
    let version = compared.published.version;
    if compared.changes.is_empty() {
        return vec![format!("nothing differs from the published topology, version {version}")];
    }
    let mut lines = vec![format!("against version {version}:")];
    for change in &compared.changes {
        lines.push(format!("  {}", change.says));
        lines.push(format!("    {}", change.publishing));
        lines.extend(change.needs.iter().map(|need| format!("    needs: {need}")));
        lines.push(format!("    {}", change.users.says()));
    }
    let plan = &compared.plan;
    if !plan.refusals.is_empty() {
        lines.push("it cannot be published as things stand:".into());
        for refusal in &plan.refusals {
            lines.push(format!("  {}", refusal.why));
            lines.push(format!("    {}", refusal.hint));
        }
        return lines;
    }
    lines.push("publishing will, in this order:".into());
    let publish = format!("give it version {} and copy it to every host", version + 1);
    let before = plan.before.iter().map(Consequence::says);
    let all = before.chain(std::iter::once(publish)).chain(plan.after.iter().map(Consequence::says));
    lines.extend(all.enumerate().map(|(number, says)| format!("  {}. {says}", number + 1)));
    lines
}

/// `topology publish`.
///
/// # Errors
/// When the file does not pass, something stands against it, or a step fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let compared = compare(context, args.file).await?;
    for line in lines(&compared) {
        output::say(&line);
    }
    if compared.changes.is_empty() {
        return if context.json {
            output::json(&serde_json::json!({ "version": compared.published.version }))
        } else {
            Ok(())
        };
    }
    if !compared.plan.refusals.is_empty() {
        return Err(Failure::Refused("not published, and nothing was changed".into()));
    }
    let lost = compared.record.as_ref().map(|r| r.lost_sites.keys().cloned().collect());
    let wanted = Agents::new(&Folder { topology: compared.wanted.clone(), ..context.folder()? })?;
    let remarks = live::look(&wanted, &lost.unwrap_or_default()).await;
    remarks.iter().for_each(|remark| output::say(&remark.to_string()));
    if !remarks.is_empty() && !args.force {
        return Err(Failure::Refused(
            "not published, and nothing was changed: its hosts do not show what it needs; --force goes on all the same"
                .into(),
        ));
    }
    if !args.yes && !output::confirm("Publish?") {
        return Err(Failure::Refused("nothing was done".into()));
    }
    for consequence in &compared.plan.before {
        before(context, &compared, consequence).await?;
    }
    let Compared { agents, authority, text, published, .. } = &compared;
    let body = PublishTopology { expected_version: published.version, text: text.clone() };
    let version = match agents.publish(authority, &body).await? {
        TopologyAnswer::Published { version } => version,
        TopologyAnswer::Refused { findings } => return Err(Failure::Refused(findings.join("\n"))),
    };
    let folder = context.folder()?;
    let taken = agents.published_text(authority).await?;
    replace(&folder.dir.join("topology.toml"), &taken)?;
    let agents = wanted;
    taken_over(&agents, version).await;
    for consequence in &compared.plan.after {
        let Consequence::Run { runbook, says } = consequence else { continue };
        carry_out(context, &agents, runbook).await.map_err(|failure| {
            let command = command_of(runbook);
            let reason = format!("published as version {version}; {says} is not done: {failure}; then type {command}");
            match failure {
                Failure::Waiting(_) => Failure::Waiting(reason),
                _ => Failure::Failed(reason),
            }
        })?;
    }
    if context.json { output::json_line(&serde_json::json!({ "version": version })) } else { Ok(()) }
}

/// What leaves is taken out of use.
async fn before(context: &Context, compared: &Compared, consequence: &Consequence) -> Outcome {
    match consequence {
        Consequence::Deactivate { leaving, staying } => {
            let record = compared.agents.record().await?;
            if compared.record.as_ref().map(|r| &r.active_servers) != Some(&record.active_servers) {
                return Err(Failure::Refused(
                    "the active servers changed at the same moment; nothing was done: look at standfast topology diff"
                        .into(),
                ));
            }
            compared.agents.change_record(&record, |r| r.active_servers.clone_from(staying)).await?;
            drained(&compared.agents, leaving).await;
            Ok(())
        }
        Consequence::Run { runbook, .. } => carry_out(context, &compared.agents, runbook).await,
    }
}

async fn carry_out(context: &Context, agents: &Agents, runbook: &str) -> Outcome {
    let record = agents.record().await?;
    let at = authority_for(agents, &record, runbook).await?;
    let wanted = StartRun {
        runbook: runbook.to_owned(),
        what_if: false,
        force: false,
        only_step: None,
        new_principal: None,
        limits: None,
        started_by: who(),
    };
    start(agents, &at, wanted, true, context.json).await
}

/// The command that carries out a runbook by itself.
fn command_of(runbook: &str) -> String {
    match runbook {
        "install-mirror" => "standfast mirror install".into(),
        "add-backup-mirror" => "standfast mirror install --backup".into(),
        "enable-log-shipping" => "standfast log-shipping enable".into(),
        other => format!("standfast step {other}"),
    }
}

/// Wait until servers that leave have no clients any more.
async fn drained(agents: &Agents, leaving: &[ServerName]) {
    let began = Instant::now();
    loop {
        let look = agents.look().await;
        let servers = look.view.reports.iter().flat_map(|r| &r.servers);
        let left: u64 = servers.filter(|(name, _)| leaving.contains(name)).map(|(_, s)| s.sessions).sum();
        if left == 0 {
            return output::say("every client has moved");
        }
        if began.elapsed() > DRAIN {
            return output::say(&format!("{left} clients have not moved after {} s; going on", DRAIN.as_secs()));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Wait until every host works from the topology, and say which do not.
async fn taken_over(agents: &Agents, version: u64) {
    let began = Instant::now();
    loop {
        let look = agents.look().await;
        let has = |host: &HostName| look.view.reports.iter().any(|r| r.host == *host && r.topology_version >= version);
        let missing: Vec<&str> =
            agents.topology.hosts.iter().filter(|h| !has(&h.name)).map(|h| h.name.as_str()).collect();
        if missing.is_empty() {
            return output::say(&format!("published as version {version}; every host has it"));
        }
        if began.elapsed() > TAKE_OVER {
            return output::say(&format!(
                "published as version {version}; not heard of it yet from {}: they take it over when their agents run",
                missing.join(", ")
            ));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Replace the file as a whole: written aside, synced, renamed.
fn replace(path: &Path, text: &str) -> Outcome {
    let aside = path.with_extension("toml.new");
    let write = || {
        let mut file = std::fs::File::create(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(|e| Failure::Failed(format!("it is published, but {} could not be replaced: {e}", path.display())))
}
