//! `bench failover`: how long people notice a failover and a failback. In a lab, because a site is killed for it.

use super::spread::Spread;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::Http;
use client::load::light::Light;
use client::load::{Crowd, Pace, Plan, run as run_load};
use lab::protocol::{Answer, Request, ask};
use rules::limit::POST_BYTES_MAX;
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The site that is killed: the home of a lab.
const SITE: &str = "site-1";
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(300);
/// Load before each act.
const BEFORE: Duration = Duration::from_secs(2);
/// Load after each act, so that late gaps are seen.
const AFTER: Duration = Duration::from_secs(1);
/// Posts under way while the database is filled.
const FILL_IN_FLIGHT: usize = 128;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// So many failovers and failbacks
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Posts a second meanwhile
    #[arg(long, default_value_t = 200.0, value_name = "NUMBER")]
    rate: f64,
    /// People who post, ten in a room
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    people: u32,
    /// Fill the content database with so many megabytes of posts first
    #[arg(long, default_value_t = 0, value_name = "MB")]
    content_mb: u64,
}

/// What a round came to, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands last in every name")]
struct Round {
    /// From the start of the command to the first acknowledgement in the new epoch.
    failover_to_first_ack_ms: f64,
    /// From the start of the command to its end.
    failover_command_ms: f64,
    /// Longest time without any acknowledgement, from the kill on.
    failover_gap_ms: f64,
    /// Longest wait of a single post, from the kill on.
    failover_wait_ms: f64,
    /// From the start of the command to its end.
    failback_command_ms: f64,
    /// Longest time without any acknowledgement during the failback.
    failback_gap_ms: f64,
    /// Longest wait of a single post during the failback.
    failback_wait_ms: f64,
}

/// A figure's name, and where it stands in a round.
type Figure = (&'static str, fn(&Round) -> f64);

#[derive(Debug, Serialize)]
struct Report {
    build: &'static str,
    cores: usize,
    posts_per_second: f64,
    people: u32,
    content_mb: u64,
    medians: BTreeMap<&'static str, Spread>,
    rounds: Vec<Round>,
}

/// Measure.
///
/// # Errors
/// When this is no lab, or the pool does not come through.
pub async fn run(context: &Context, args: &Args) -> Outcome {
    let (_, http) = administrator(context).await?;
    tell_lab(context, &Request::Status).await?;
    until_normal(context).await?;
    let build = super::build_profile();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    output::say(&format!(
        "method: {build} build; {cores} cores, which both sites share; {} people post {} times a second together; each \
         round: SIGKILL to {SITE}, failover, start {SITE}, failback, until the mirror is synchronised again",
        args.people, args.rate
    ));
    fill(&http, args.content_mb).await?;
    let mut rounds = Vec::new();
    for n in 1..=args.rounds {
        let round = measure(context, &http, args).await?;
        output::say(&format!(
            "round {n}: failover {:.0} ms to the first acknowledgement, {:.0} ms without one; failback {:.0} ms without one",
            round.failover_to_first_ack_ms, round.failover_gap_ms, round.failback_gap_ms
        ));
        rounds.push(round);
    }
    report(context, args, rounds)
}

async fn measure(context: &Context, http: &Arc<Http>, args: &Args) -> Result<Round, Failure> {
    let crowd = Crowd::make(http, args.people.div_ceil(10) as usize, 10).await?;
    let mut light = Light::start(http, crowd, args.rate).await;
    let epoch = within(light.epoch(), "the first acknowledgement").await?;
    tokio::time::sleep(BEFORE).await;

    light.mark();
    tell_lab(context, &Request::Kill { target: SITE.to_owned() }).await?;
    let began = Instant::now();
    let command = standfast(context, &["failover", "--yes"]);
    let (command, first) = tokio::join!(command, within(light.first_in(epoch.next()), "the new epoch"));
    let (failover_command, first) = (command?, first?);
    let first = first.ok_or_else(|| Failure::Failed("the load ended".to_owned()))?;
    tokio::time::sleep(AFTER).await;
    let failover = light.since();

    let start = Request::Start { target: SITE.to_owned(), env: BTreeMap::new(), without_peer: false };
    tell_lab(context, &start).await?;
    light.mark();
    let failback_command = standfast(context, &["failback", "--yes"]).await?;
    tokio::time::sleep(AFTER).await;
    let failback = light.since();
    until_normal(context).await?;
    Ok(Round {
        failover_to_first_ack_ms: ms(first - began),
        failover_command_ms: ms(failover_command),
        failover_gap_ms: ms(failover.longest_gap),
        failover_wait_ms: ms(failover.longest_wait),
        failback_command_ms: ms(failback_command),
        failback_gap_ms: ms(failback.longest_gap),
        failback_wait_ms: ms(failback.longest_wait),
    })
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Wait for something, within reason.
pub(super) async fn within<T>(what: impl Future<Output = T>, name: &str) -> Result<T, Failure> {
    let waited = tokio::time::timeout(PATIENCE, what).await;
    waited.map_err(|_| Failure::Failed(format!("waited {} s in vain for {name}", PATIENCE.as_secs())))
}

/// Ask something of the lab.
pub(super) async fn tell_lab(context: &Context, request: &Request) -> Outcome {
    match ask(&context.dir, request).await.map_err(Failure::Failed)? {
        Answer::Refused { message } => Err(Failure::Refused(message)),
        Answer::Done { .. } | Answer::Status { .. } => Ok(()),
    }
}

/// Run a command of this program to its end; how long it took.
pub(super) async fn standfast(context: &Context, arguments: &[&str]) -> Result<Duration, Failure> {
    let began = Instant::now();
    let output = command(context, arguments)?.output().await;
    let failed = |why: String| Failure::Failed(format!("standfast {}: {why}", arguments.join(" ")));
    let output = output.map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(began.elapsed());
    }
    Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

pub(super) fn command(context: &Context, arguments: &[&str]) -> Result<tokio::process::Command, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::Failed(format!("find this program: {e}")))?;
    let mut command = tokio::process::Command::new(program);
    command.arg("--dir").arg(&context.dir).args(arguments).stdin(Stdio::null());
    Ok(command)
}

/// Wait until the pool is in state Normal, nothing is under way, and the mirror is synchronised.
pub(super) async fn until_normal(context: &Context) -> Outcome {
    within(
        async {
            while !is_normal(context).await? {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        },
        "state Normal with a synchronised mirror",
    )
    .await?
}

async fn is_normal(context: &Context) -> Result<bool, Failure> {
    let output = command(context, &["pool", "status", "--json"])?.output().await;
    let output = output.map_err(|e| Failure::Failed(format!("standfast pool status: {e}")))?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let record = &status["record"];
    let databases = record["databases"].as_object();
    let synchronised = databases.is_some_and(|all| all.values().all(|d| d["mirror"]["synchronised"] == true));
    Ok(record["state"] == "Normal" && record["run"].is_null() && synchronised)
}

/// Post until the content database has grown by about so many megabytes.
async fn fill(http: &Http, content_mb: u64) -> Outcome {
    if content_mb == 0 {
        return Ok(());
    }
    output::say(&format!("filling the content database with {content_mb} MB"));
    let posts = content_mb * 1024 * 1024 / POST_BYTES_MAX as u64;
    let crowd = Crowd::make(http, 16, 1).await?;
    let pace = Pace::Until(FILL_IN_FLIGHT, posts);
    let plan = Plan { pace, text_bytes: POST_BYTES_MAX, rounds: 0, length: Duration::ZERO };
    run_load(crowd, plan, client::load::Processor::default).await?;
    Ok(())
}

fn report(context: &Context, args: &Args, rounds: Vec<Round>) -> Outcome {
    let figures: [Figure; 7] = [
        ("failover_to_first_ack_ms", |r| r.failover_to_first_ack_ms),
        ("failover_command_ms", |r| r.failover_command_ms),
        ("failover_gap_ms", |r| r.failover_gap_ms),
        ("failover_wait_ms", |r| r.failover_wait_ms),
        ("failback_command_ms", |r| r.failback_command_ms),
        ("failback_gap_ms", |r| r.failback_gap_ms),
        ("failback_wait_ms", |r| r.failback_wait_ms),
    ];
    let medians: BTreeMap<_, _> =
        figures.iter().map(|(name, pick)| (*name, Spread::of(rounds.iter().map(pick)))).collect();
    if context.json {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        return output::json(&Report {
            build: super::build_profile(),
            cores,
            posts_per_second: args.rate,
            people: args.people,
            content_mb: args.content_mb,
            medians,
            rounds,
        });
    }
    output::line("                                          median  (lowest … highest)")?;
    for (name, says) in [
        ("failover_to_first_ack_ms", "failover: command to first acknowledgement"),
        ("failover_command_ms", "failover: command to its end"),
        ("failover_gap_ms", "failover: longest time without an acknowledgement, from the kill on"),
        ("failover_wait_ms", "failover: longest wait of a post"),
        ("failback_command_ms", "failback: command to its end"),
        ("failback_gap_ms", "failback: longest time without an acknowledgement"),
        ("failback_wait_ms", "failback: longest wait of a post"),
    ] {
        output::line(&format!("{says}, ms\n                                {}", medians[name]))?;
    }
    Ok(())
}
