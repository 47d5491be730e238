//! `log-shipping history`: the runs of the jobs, newest last.

use crate::agents::Agents;
use crate::failure::Outcome;
use crate::folder::Context;
use crate::output;
use cluster::job_history::{AgentType, JobRun};
use cluster::name::{DatabaseName, HostName};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only this job: backup, copy or restore
    #[arg(long, value_parser = job)]
    job: Option<AgentType>,
    /// So many runs at most, the newest
    #[arg(long, default_value_t = 40, value_name = "NUMBER")]
    last: usize,
}

fn job(text: &str) -> Result<AgentType, String> {
    let all = [AgentType::Backup, AgentType::Copy, AgentType::Restore];
    let found = all.into_iter().find(|job| job.word() == text);
    found.ok_or_else(|| format!("there is no job '{text}'; there are backup, copy and restore"))
}

/// Run the command.
///
/// # Errors
/// When no agent answers.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let mut runs: Vec<(DatabaseName, HostName, JobRun)> = Vec::new();
    for database in agents.topology.databases.iter().filter(|d| d.log_shipping.is_some()) {
        for host in database.instances().map(|i| &i.host) {
            match agents.jobs(host, &database.name).await {
                Ok(said) => runs.extend(said.into_iter().map(|run| (database.name.clone(), host.clone(), run))),
                Err(trouble) => output::say(&format!(
                    "{}; its runs are not in this list",
                    trouble.failure(&format!("ask {host} for the history of its jobs"), host)
                )),
            }
        }
    }
    runs.retain(|(_, _, run)| args.job.is_none_or(|job| job == run.agent_type));
    runs.sort_by_key(|(_, _, run)| run.start_ms);
    let runs = runs.split_off(runs.len().saturating_sub(args.last));
    if context.json {
        let rows: Vec<_> = runs
            .iter()
            .map(|(database, host, run)| {
                serde_json::json!({
                    "database_name": database, "host": host, "agent_type": run.agent_type as u8,
                    "job": run.agent_type, "session_status": run.session_status as u8, "status": run.session_status,
                    "start_time": super::state::time(Some(run.start_ms)), "log_time": super::state::time(run.end_ms),
                    "files": run.files, "bytes": run.bytes, "last_file": run.file, "lsn": run.lsn,
                    "message": run.message,
                })
            })
            .collect();
        return output::json(&rows);
    }
    let heading =
        ["JOB", "DATABASE", "HOST", "START", "END", "STATUS", "FILES", "BYTES", "LAST FILE", "LSN", "MESSAGE"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
    for (database, host, run) in runs {
        rows.push(vec![
            run.agent_type.word().to_owned(),
            database.to_string(),
            host.to_string(),
            or_dash(super::state::time(Some(run.start_ms))),
            or_dash(super::state::time(run.end_ms)),
            run.session_status.word().to_owned(),
            run.files.to_string(),
            run.bytes.to_string(),
            or_dash(run.file),
            or_dash(run.lsn.map(|l| l.to_string())),
            run.message,
        ]);
    }
    output::table(&rows)
}
