//! `preflight failover|failback`: would it begin right now, and what would make it worse? For cron and for monitoring.

use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::{output, report};
use cluster::preflight::{Check, Readiness, judge};
use cluster::runbook::{Exposure, Facts, Runbook, View, named};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use wire::metrics::{Page, catalogue as c, exposure};
use wire::run::RunSummary;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 ready, or nothing to do; 5 ready, with warnings; 3 it would be refused; 1 it could not be \
                        judged. --metrics writes Prometheus text for node_exporter's textfile collector: name a file that ends \
                        in .prom in its folder."
)]
pub struct Args {
    /// What is to be ready
    #[arg(value_parser = ["failover", "planned-failover", "failback"])]
    pub runbook: String,
    /// Write Prometheus metrics into this file, as a whole or not at all
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Judged<'a> {
    pool: &'a str,
    runbook: &'a str,
    ready: bool,
    #[serde(flatten)]
    readiness: &'a Readiness,
    exposure: &'a BTreeMap<cluster::name::DatabaseName, Exposure>,
    last_success_at: Option<String>,
}

/// What the metrics tell.
#[derive(Clone, Debug, Default)]
struct Told {
    pool: String,
    runbook: String,
    /// `None` when it could not be judged.
    readiness: Option<Readiness>,
    exposure: BTreeMap<cluster::name::DatabaseName, Exposure>,
    last_success_s: Option<i64>,
    now_s: i64,
}

/// Run the command.
///
/// # Errors
/// When it would be refused, when there are warnings, or when it could not be judged; the metrics are written all the same.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let runbook = named(&args.runbook).ok_or_else(|| Failure::Usage(format!("no runbook '{}'", args.runbook)))?;
    let mut told = Told {
        pool: agents.topology.pool.clone(),
        runbook: runbook.name.to_owned(),
        now_s: Timestamp::now().as_second(),
        ..Told::default()
    };
    let looked = look(&agents, runbook, &mut told).await;
    if let Some(file) = &args.metrics {
        report::replace(file, &metrics(&told))
            .map_err(|e| Failure::Failed(format!("write the metrics {}: {e}; name another file", file.display())))?;
    }
    looked?;
    let Some(readiness) = &told.readiness else { return Ok(()) };
    show(&told, readiness, context.json)?;
    if !readiness.refused.is_empty() {
        return Err(Failure::Refused(format!("a {} would be refused", runbook.name)));
    }
    if !readiness.warnings.is_empty() {
        let count = readiness.warnings.len();
        return Err(Failure::Alert(format!("a {} would begin, with {count} warnings", runbook.name)));
    }
    Ok(())
}

async fn look(agents: &Agents, runbook: &Runbook, told: &mut Told) -> Outcome {
    let (look, exposures, runs) = tokio::join!(agents.look(), agents.exposures(), agents.runs());
    let record = look.view.record.clone().ok_or_else(|| look.nobody())?;
    let to_site = agents.topology.other_site(&record.home).map_or_else(|| record.home.clone(), |s| s.name.clone());
    told.exposure = exposures.get(&to_site).cloned().unwrap_or_default();
    told.last_success_s = last_success(runs.all.iter().map(|(_, run)| run), runbook.name);
    let facts = Facts {
        before: record.clone(),
        from_site: record.home.clone(),
        to_site,
        force: false,
        exposure: told.exposure.clone(),
        new_principal: None,
        automatic: None,
        limits: None,
    };
    let reports = look.view.reports.iter().map(|r| (r.host.clone(), r.clone())).collect();
    let silent = look.view.silent.iter().cloned().collect();
    let view = View {
        topology: &agents.topology,
        record: &record,
        reports: &reports,
        silent: &silent,
        facts: &facts,
        step_age_ms: 0,
    };
    let ago = told.last_success_s.map(|at| u64::try_from(told.now_s - at).unwrap_or(0));
    told.readiness = Some(judge(runbook, &view, ago));
    Ok(())
}

/// When a runbook was last carried out to its end, in seconds since the Unix epoch.
fn last_success<'a>(runs: impl Iterator<Item = &'a RunSummary>, runbook: &str) -> Option<i64> {
    let complete = runs.filter(|run| run.runbook == runbook && run.complete == Some(true));
    complete.filter_map(|run| run.started_at.parse::<Timestamp>().ok()).map(Timestamp::as_second).max()
}

fn show(told: &Told, readiness: &Readiness, json: bool) -> Outcome {
    if json {
        return output::json(&Judged {
            pool: &told.pool,
            runbook: &told.runbook,
            ready: readiness.refused.is_empty(),
            readiness,
            exposure: &told.exposure,
            last_success_at: told.last_success_s.and_then(|s| Timestamp::from_second(s).ok()).map(|at| at.to_string()),
        });
    }
    if let Some(already) = &readiness.already {
        return output::line(already);
    }
    for unmet in &readiness.refused {
        output::line(&format!("REFUSED  {}\n         {}", unmet.why, unmet.hint))?;
    }
    for warning in &readiness.warnings {
        output::line(&format!("WARNING  {}\n         {}", warning.says, warning.hint))?;
    }
    if readiness.refused.is_empty() && readiness.warnings.is_empty() {
        output::line(&format!("ready for a {}", told.runbook))?;
    }
    Ok(())
}

/// What the file tells. Every series is there each time, so that an alert can be put on it.
fn metrics(told: &Told) -> String {
    let runbook = [told.runbook.as_str()];
    let mut page = Page::new(&[("pool", &told.pool)]);
    let judged = told.readiness.as_ref();
    page.add_truth(&c::PREFLIGHT_JUDGED, &runbook, judged.is_some());
    page.add_truth(&c::PREFLIGHT_READY, &runbook, judged.is_some_and(|r| r.refused.is_empty()));
    page.add(&c::PREFLIGHT_AT, &runbook, told.now_s as f64);
    if let Some(readiness) = judged {
        page.add(&c::PREFLIGHT_REFUSALS, &runbook, readiness.refused.len() as f64);
        for check in Check::ALL {
            let count = readiness.warnings.iter().filter(|w| w.check == check).count();
            page.add(&c::PREFLIGHT_WARNINGS, &[&told.runbook, check.name()], count as f64);
        }
    }
    page.add_known(&c::RUN_SUCCESS, &runbook, told.last_success_s.map(|at| at as f64));
    exposure(&mut page, &told.exposure);
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::preflight::Warning;

    fn told(readiness: Option<Readiness>) -> Told {
        let exposure = Exposure { entries: Some(3), bytes: None, behind_ms: Some(1_500), heard_ms_ago: Some(1) };
        Told {
            pool: "chat.\"x\"\nexample".into(),
            runbook: "failover".into(),
            readiness,
            exposure: [("mgc".into(), exposure)].into(),
            last_success_s: Some(1_700_000_000),
            now_s: 1_700_000_060,
        }
    }

    #[test]
    fn every_check_has_its_series_and_labels_cannot_break_out() {
        let warning = Warning { check: Check::Disk, says: "full".into(), hint: "make room".into() };
        let text = metrics(&told(Some(Readiness { warnings: vec![warning], ..Readiness::default() })));
        let pool = "pool=\"chat.\\\"x\\\"\\nexample\"";
        let labels = format!("{pool},runbook=\"failover\"");
        assert!(text.contains(&format!("standfast_preflight_ready{{{labels}}} 1\n")), "{text}");
        assert!(text.contains(&format!("standfast_preflight_warnings{{{labels},check=\"disk\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("standfast_exposure_seconds{{{pool},database=\"mgc\"}} 1.5\n")));
        assert_eq!(text.matches("standfast_preflight_warnings{").count(), Check::ALL.len());
        assert!(!text.contains("standfast_exposure_bytes"), "what is not known is left out");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("standfast_")), "{text}");
    }

    #[test]
    fn a_pool_that_could_not_be_looked_at_is_not_ready() {
        let text = metrics(&told(None));
        let value = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(&format!("{name}{{"))).expect("the series is there");
            line.rsplit_once(' ').expect("it has a value").1.to_owned()
        };
        assert_eq!(value("standfast_preflight_judged"), "0");
        assert_eq!(value("standfast_preflight_ready"), "0");
    }
}
