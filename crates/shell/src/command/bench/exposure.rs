//! `bench exposure`: how far the backup is behind while people post, by stream, and by the share alone.
//!
//! Both agents are asked every few milliseconds for positions in the log. A position that the principal had at some moment
//! reaches the backup's disk at a later one; the time in between is what a loss of the site at that moment would cost.

use super::failover::{tell_lab, within};
use super::spread::Spread;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::load::Crowd;
use client::load::light::Light;
use cluster::name::{DatabaseName, HostName};
use cluster::wal::Lsn;
use lab::Request;
use lab::protocol::{LinkState, Links};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(4);
/// How long the load runs before anything is counted.
const BEFORE: Duration = Duration::from_secs(2);
/// How long the last positions may take to arrive.
const AFTER: Duration = Duration::from_secs(3);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Posts a second meanwhile
    #[arg(long, default_value_t = 500.0, value_name = "NUMBER")]
    rate: f64,
    /// Length of a round
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// So many rounds of each kind
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// By stream only: do not cut the links between the sites, which only a lab can
    #[arg(long)]
    stream_only: bool,
}

/// How far behind the backup was in one round, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands last in every name")]
struct Round {
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    build: &'static str,
    posts_per_second: f64,
    by_stream: Vec<Round>,
    by_share: Vec<Round>,
}

/// Measure.
///
/// # Errors
/// When there is no backup, or the pool does not come through.
pub async fn run(context: &Context, args: &Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    let watch = Watch::of(agents).await?;
    let (_, http) = administrator(context).await?;
    let crowd = Crowd::make(&http, 4, 10).await?;
    output::say(&format!(
        "method: {} build; 40 people post {} times a second together; every {} ms {} and {} are asked for positions in the \
         log; a position counts from when the principal had it to when it was on the backup's disk",
        super::build_profile(),
        args.rate,
        LOOK.as_millis(),
        watch.principal,
        watch.backup
    ));
    let light = Light::start(&http, crowd, args.rate).await;
    tokio::time::sleep(BEFORE).await;
    let by_stream = watch.rounds(args, "stream").await?;
    let mut by_share = Vec::new();
    if !args.stream_only {
        tell_lab(context, &Request::Link { state: LinkState::Down, which: Links::BetweenSites }).await?;
        let measured = async {
            within(watch.until_streaming(false), "the stream to end").await?;
            watch.rounds(args, "share alone").await
        }
        .await;
        tell_lab(context, &Request::Link { state: LinkState::Up, which: Links::BetweenSites }).await?;
        by_share = measured?;
        within(watch.until_streaming(true), "the stream to come back").await?;
    }
    drop(light);
    report(context, &Report { build: super::build_profile(), posts_per_second: args.rate, by_stream, by_share })
}

struct Watch {
    agents: Agents,
    database: DatabaseName,
    principal: HostName,
    backup: HostName,
}

impl Watch {
    async fn of(agents: Agents) -> Result<Self, Failure> {
        let record = agents.record().await?;
        let found =
            record.databases.iter().find_map(|(name, d)| Some((name.clone(), d.principal.clone()?, d.backup.clone()?)));
        let (database, principal, backup) = found
            .ok_or_else(|| Failure::Refused("no database has a backup at the moment; standfast pool status".into()))?;
        Ok(Self { agents, database, principal, backup })
    }

    async fn written(&self, host: &HostName) -> Option<(Instant, Lsn)> {
        let report = self.agents.report(host).await.ok()?;
        let written = report.instances.get(&self.database)?.written?;
        Some((Instant::now(), written))
    }

    async fn until_streaming(&self, wanted: bool) {
        loop {
            let report = self.agents.report(&self.backup).await.ok();
            let shipping = report.and_then(|r| r.instances.get(&self.database)?.shipping.clone());
            if shipping.is_some_and(|s| s.streaming == wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn rounds(&self, args: &Args, how: &str) -> Result<Vec<Round>, Failure> {
        let mut rounds = Vec::new();
        for n in 1..=args.rounds {
            let length = Duration::from_secs(args.seconds);
            let (had, arrived) =
                tokio::join!(self.looks(&self.principal, length), self.looks(&self.backup, length + AFTER));
            let round = behind(&had, &arrived)
                .ok_or_else(|| Failure::Failed(format!("{}: no position arrived at {}", self.database, self.backup)))?;
            output::say(&format!(
                "{how}, round {n}: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
                round.p50_ms, round.p99_ms, round.longest_ms
            ));
            rounds.push(round);
        }
        Ok(rounds)
    }

    async fn looks(&self, host: &HostName, length: Duration) -> Vec<(Instant, Lsn)> {
        let began = Instant::now();
        let mut seen = Vec::new();
        while began.elapsed() < length {
            seen.extend(self.written(host).await);
            tokio::time::sleep(LOOK).await;
        }
        seen
    }
}

/// For each position that the principal had, how long it took to the backup. Pure.
fn behind(had: &[(Instant, Lsn)], arrived: &[(Instant, Lsn)]) -> Option<Round> {
    let mut times: Vec<f64> = Vec::with_capacity(had.len());
    let mut last = None;
    for (at, lsn) in had {
        if last.replace(*lsn) == Some(*lsn) {
            continue;
        }
        let (there, _) = arrived.iter().find(|(_, has)| has >= lsn)?;
        times.push(there.saturating_duration_since(*at).as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let at =
        |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied();
    Some(Round { p50_ms: at(0.5)?, p99_ms: at(0.99)?, longest_ms: at(1.0)? })
}

fn report(context: &Context, report: &Report) -> Outcome {
    if context.json {
        return output::json(report);
    }
    output::line("                                          median  (lowest … highest)")?;
    for (how, rounds) in [("by stream", &report.by_stream), ("by the share alone", &report.by_share)] {
        if rounds.is_empty() {
            continue;
        }
        let figure = |pick: fn(&Round) -> f64| Spread::of(rounds.iter().map(pick));
        output::line(&format!("{how}, p50, ms\n                                {}", figure(|r| r.p50_ms)))?;
        output::line(&format!("{how}, p99, ms\n                                {}", figure(|r| r.p99_ms)))?;
        output::line(&format!("{how}, longest, ms\n                                {}", figure(|r| r.longest_ms)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_from_when_it_was_had_to_when_it_was_there() {
        let zero = Instant::now();
        let at = |ms: u64, lsn: u64| (zero + Duration::from_millis(ms), Lsn(lsn));
        let round = behind(&[at(0, 10), at(10, 10), at(20, 20)], &[at(5, 9), at(8, 10), at(70, 25)]).unwrap();
        assert!((round.p50_ms - 50.0).abs() < 0.01 && (round.longest_ms - 50.0).abs() < 0.01, "{round:?}");
        assert!(behind(&[at(0, 10)], &[at(5, 9)]).is_none(), "it never arrived");
    }
}
