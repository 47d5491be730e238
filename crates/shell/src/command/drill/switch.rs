//! `drill switch`: the pool itself, handed over to the other site as planned, and home again.
//!
//! Both ways are runs, which their authorities carry: this command begins them within limits, watches them, and measures with a
//! canary. Its own death leaves runs that go on; typed again it says what it finds.

use super::canary::Canary;
use crate::agents::{Agents, Look};
use crate::command::run::{refused, who};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::signed_in::administrator;
use crate::{output, watch, words};
use cluster::drill::switch::{SwitchFigures, come_through, refusal};
use cluster::drill::{DrillReport, DrillStep, StartDrill, Work};
use cluster::limits::Limits;
use cluster::name::{HostName, SiteName};
use cluster::planned_failover::PLANNED_FAILOVER;
use cluster::record::PoolRecord;
use cluster::shipping_settings::Span;
use cluster::topology_file::CONTENT_DATABASE;
use std::time::{Duration, Instant};
use wire::run::{RunAnswer, RunEventKind, StartRun};

/// How much longer than wanted it stays until every server's canary has come through.
const CANARY_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks meanwhile.
const AGAIN: Duration = Duration::from_millis(200);
/// What comes home again.
const FAILBACK: &str = "failback";
/// What is told of a drill whose command has ended before it.
const ENDED: &str = "its command was ended before it was over; standfast runbook list shows what became of the runs";

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Come home again, after a stay at the other site
    #[arg(long)]
    there_and_back: bool,
    /// How long to stay at the other site, at least: until the canary of every server there has come through
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = span)]
    stay: Span,
    /// Longest time in which nobody can post, each way; before that it gives itself up, and the writer is opened again
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = span)]
    longest_gap: Span,
    /// Longest time in all, from the beginning until the users are served where they are to be
    #[arg(long, default_value = "15min", value_name = "TIME", value_parser = span)]
    longest: Span,
    /// Most log that the site that receives may lack, or have to apply, when a way begins
    #[arg(long, default_value_t = 64, value_name = "MB")]
    most_behind: u64,
    /// Least room on the volume of every instance
    #[arg(long, default_value_t = 512, value_name = "MB")]
    least_room: u64,
    /// Go on without being asked
    #[arg(long, short)]
    yes: bool,
    /// Show what was found, the limits and the steps, and do nothing
    #[arg(long)]
    what_if: bool,
}

fn span(text: &str) -> Result<Span, String> {
    Span::try_from(text.to_owned())
}

/// How one way went.
enum Way {
    /// The users are served where they were to be.
    Went,
    /// It did not begin, or gave itself up, and the pool is as it was.
    Stayed(String),
}

struct Drill<'a> {
    agents: &'a Agents,
    /// Who keeps what is told of it.
    kept_at: HostName,
    report: DrillReport,
    figures: SwitchFigures,
    began: Instant,
}

/// Run the command.
///
/// # Errors
/// When it is refused, gives itself up, or finds something wrong.
pub async fn run(context: &Context, agents: &Agents, args: &Args) -> Outcome {
    let look = agents.look().await;
    let record = look.view.record.clone().ok_or_else(|| look.nobody())?;
    close_left(agents).await;
    if let Some(why) = refusal(&record) {
        return Err(Failure::Refused(why));
    }
    let Some(other) = agents.topology.other_site(&record.home).map(|s| s.name.clone()) else {
        return Err(Failure::Refused("this pool has one site; there is nowhere to switch to".into()));
    };
    let host = agents.authority(&record.home)?;
    let plan =
        agents.start_run(&host, &wanted(PLANNED_FAILOVER.name, args.limits(args.longest.ms), true), false).await?;
    show(context, &plan, args, &other)?;
    if args.what_if {
        return Ok(());
    }
    if !args.yes && !output::confirm("Hand the pool over?") {
        return Err(Failure::Refused("nothing was done".into()));
    }
    let (_, http) = administrator(context).await?;
    let mut drill = Drill::begin(agents, agents.authority(&other)?).await?;
    let canary = Canary::start(&http).await?;
    let outcome = drill.carry_out(args, &canary, &host, &record.home, &other).await;
    let counts = canary.end().await?;
    drill.figures.acknowledged = counts.acknowledged;
    drill.figures.lost = counts.lost;
    drill.figures.doubled = counts.doubled;
    let fault = drill.figures.fault(args.longest_gap.ms).map(Failure::Failed);
    drill.end(context, outcome.err().or(fault)).await
}

impl Args {
    fn limits(&self, whole_ms: u64) -> Limits {
        Limits {
            gap_ms: self.longest_gap.ms,
            whole_ms,
            behind_bytes: self.most_behind << 20,
            room_bytes: self.least_room << 20,
        }
    }
}

fn wanted(runbook: &str, limits: Limits, what_if: bool) -> StartRun {
    StartRun {
        runbook: runbook.to_owned(),
        what_if,
        force: false,
        only_step: None,
        new_principal: None,
        limits: Some(limits),
        started_by: who(),
    }
}

/// What another drill has left, whose command was ended, is over.
async fn close_left(agents: &Agents) {
    for host in agents.topology.hosts.iter().map(|h| &h.name) {
        let Ok(drills) = agents.drills(host).await else { continue };
        for left in drills.past.into_iter().filter(|d| d.work == Work::Switch && !d.over) {
            output::say(&format!("{} by {}: {ENDED}", left.id, left.by));
            let closed = DrillReport { over: true, doing: None, failed: Some(ENDED.into()), ..left };
            if let Err(error) = agents.keep_drill(host, &closed).await {
                output::say(&error.to_string());
            }
        }
    }
}

/// What was found, and what would be done.
fn show(context: &Context, answer: &RunAnswer, args: &Args, other: &SiteName) -> Outcome {
    let plan = match answer {
        RunAnswer::Plan(plan) => plan,
        RunAnswer::Refused { unmet, .. } => return Err(refused(unmet)),
        RunAnswer::AlreadyThere { message } => return Err(Failure::Refused(message.clone())),
        RunAnswer::Started { id, .. } => {
            return Err(Failure::Failed(format!("{id} was started, and only a plan was asked for")));
        }
    };
    if context.json && args.what_if {
        return output::json(plan);
    }
    let home = if args.there_and_back {
        format!("then: {} at {other}, at least; then standfast failback, within the same limits", args.stay)
    } else {
        format!("then: the pool stays at {other}, until standfast failback")
    };
    let lines = words::plan(plan, args.what_if).into_iter().chain([home]);
    for line in lines {
        if context.json { output::say(&line) } else { output::line(&line)? }
    }
    Ok(())
}

impl<'a> Drill<'a> {
    async fn begin(agents: &'a Agents, kept_at: HostName) -> Result<Self, Failure> {
        let now = jiff::Timestamp::now();
        let id = format!("{}-{}", Work::Switch.word(), now.strftime("%Y%m%dT%H%M%SZ"));
        let asked = StartDrill { database: CONTENT_DATABASE.into(), by: who() };
        let report = DrillReport::begun(id, Work::Switch, &asked, kept_at.clone(), now.as_millisecond());
        let drill = Self { agents, kept_at, report, figures: SwitchFigures::default(), began: Instant::now() };
        agents.keep_drill(&drill.kept_at, &drill.report).await?;
        output::say(&format!("{} begun; kept at {}", drill.report.id, drill.kept_at));
        Ok(drill)
    }

    async fn carry_out(
        &mut self,
        args: &Args,
        canary: &Canary,
        host: &HostName,
        home: &SiteName,
        other: &SiteName,
    ) -> Outcome {
        let limits = args.limits(args.longest.ms);
        let way = self.go(PLANNED_FAILOVER.name, host, limits, canary, &format!("to {other}")).await?;
        if let Way::Stayed(why) = way {
            return Err(Failure::Refused(format!("given up, and {home} serves as before: {why}")));
        }
        self.figures.there_gap_ms = Some(canary.gap_ms());
        let come_home = "to come home: standfast failback";
        let missing = self.stay(args.stay.duration()).await;
        if !args.there_and_back {
            output::say(&format!("the pool is at {other}; {come_home}"));
            return missing.map_or(Ok(()), |missing| Err(Failure::Failed(missing)));
        }
        let record = self.agents.record().await?;
        let at = self.agents.authority(&record.home)?;
        let left = args.longest.ms.saturating_sub(self.began.elapsed().as_millis() as u64);
        canary.mark();
        if let Way::Stayed(why) = self.go(FAILBACK, &at, args.limits(left), canary, &format!("home to {home}")).await? {
            return Err(Failure::Waiting(format!("the pool stays at {other}, which serves: {why}; {come_home}")));
        }
        self.figures.back_gap_ms = Some(canary.gap_ms());
        missing.map_or(Ok(()), |missing| Err(Failure::Failed(missing)))
    }

    /// One way: begin the run within its limits, and watch it to its end.
    async fn go(
        &mut self,
        runbook: &str,
        host: &HostName,
        limits: Limits,
        canary: &Canary,
        says: &str,
    ) -> Result<Way, Failure> {
        let began = Instant::now();
        self.doing(&format!("{runbook} {says}")).await;
        canary.mark();
        let id = match self.agents.start_run(host, &wanted(runbook, limits, false), false).await? {
            RunAnswer::Started { id, .. } => id,
            RunAnswer::Refused { unmet, .. } => return Ok(Way::Stayed(refused(&unmet).to_string())),
            RunAnswer::AlreadyThere { message } => return Ok(Way::Stayed(message)),
            RunAnswer::Plan(_) => return Err(Failure::Failed("a plan was answered, and a run was asked for".into())),
        };
        if let Err(failure) = watch::aside(self.agents, host, &id).await {
            let progress = self.agents.progress(host, &id, 0, 0).await;
            let given_up = progress.ok().and_then(|progress| {
                progress.events.into_iter().find_map(|event| match event.what {
                    RunEventKind::AbortBegun { why, started_by } => {
                        Some(why.unwrap_or_else(|| format!("{started_by} has undone it")))
                    }
                    _ => None,
                })
            });
            return given_up.map_or(Err(failure), |why| Ok(Way::Stayed(format!("{runbook} was undone: {why}"))));
        }
        self.step(&format!("{runbook} {says} ({id})"), began).await;
        Ok(Way::Went)
    }

    /// Stay, until the canary of every active server has come through. What is missing, if it does not.
    async fn stay(&mut self, at_least: Duration) -> Option<String> {
        let began = Instant::now();
        self.doing("waiting for the canary of every server").await;
        loop {
            let look = self.agents.look().await;
            let missing = self.canaries(&look, began.elapsed());
            let stayed = began.elapsed() >= at_least;
            if missing.is_empty() && stayed {
                self.step("stayed, with a canary through every active server", began).await;
                return None;
            }
            if began.elapsed() > at_least + CANARY_PATIENCE {
                return Some(format!("{}; see standfast pool status", missing.join("; ")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn canaries(&mut self, look: &Look, since: Duration) -> Vec<String> {
        let record: Option<&PoolRecord> = look.view.record.as_ref();
        let Some(record) = record else { return vec!["no agent answers".into()] };
        let reports = look.view.reports.iter().map(|r| (r.host.clone(), r.clone())).collect();
        let (through, missing) = come_through(&self.agents.topology, record, &reports, since.as_millis() as u64);
        self.figures.servers = through;
        missing
    }

    async fn doing(&mut self, what: &str) {
        output::say(what);
        self.report.doing = Some(what.to_owned());
        self.keep().await;
    }

    async fn step(&mut self, says: &str, began: Instant) {
        let took_ms = began.elapsed().as_millis() as u64;
        self.report.steps.push(DrillStep { says: says.to_owned(), took_ms });
        self.report.doing = None;
        self.keep().await;
    }

    /// Let it be kept as it stands. That it is not is said, and no reason to leave the pool where it is.
    async fn keep(&mut self) {
        self.report.took_ms = self.began.elapsed().as_millis() as u64;
        if let Err(error) = self.agents.keep_drill(&self.kept_at, &self.report).await {
            output::say(&error.to_string());
        }
    }

    async fn end(mut self, context: &Context, failure: Option<Failure>) -> Outcome {
        self.report.over = true;
        self.report.doing = None;
        self.report.failed = failure.as_ref().map(ToString::to_string);
        self.report.rto_ms = self.figures.there_gap_ms;
        self.report.rpo_entries = Some(self.figures.lost);
        self.report.rpo_ms = (self.figures.lost == 0).then_some(0);
        self.report.switch = Some(self.figures.clone());
        self.keep().await;
        if context.json {
            output::json(&self.report)?;
        } else {
            output::line(&format!("{}: {}", self.report.id, self.figures.says()))?;
        }
        failure.map_or(Ok(()), Err)
    }
}
