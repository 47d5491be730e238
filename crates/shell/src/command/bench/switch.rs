//! `bench switch`: how long people notice principal and mirror changing places, as planned and by force. In a lab, because
//! the principal's host is killed for it.

use super::failover::{ms, standfast, tell_lab, until_normal, within};
use super::spread::Spread;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::Http;
use client::load::Crowd;
use client::load::light::Light;
use lab::protocol::Request;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Load before each act.
const BEFORE: Duration = Duration::from_secs(2);
/// Load after each act, so that late gaps are seen.
const AFTER: Duration = Duration::from_secs(1);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// So many planned and so many forced switches
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Posts a second meanwhile
    #[arg(long, default_value_t = 200.0, value_name = "NUMBER")]
    rate: f64,
    /// People who post, ten in a room
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    people: u32,
}

/// What a round came to, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands last in every name")]
struct Round {
    /// Planned: from the start of the command to its end, mirror synchronised and log shipping following.
    planned_command_ms: f64,
    /// Planned: longest time without any acknowledgement.
    planned_gap_ms: f64,
    /// Planned: longest wait of a single post.
    planned_wait_ms: f64,
    /// Forced: from the start of the command to the first acknowledgement in the new epoch.
    forced_to_first_ack_ms: f64,
    /// Forced: from the start of the command to its end.
    forced_command_ms: f64,
    /// Forced: longest time without any acknowledgement, from the kill on.
    forced_gap_ms: f64,
}

/// A figure's name, what it says, and where it stands in a round.
type Figure = (&'static str, &'static str, fn(&Round) -> f64);

const FIGURES: [Figure; 6] = [
    ("planned_gap_ms", "planned: longest time without an acknowledgement", |r| r.planned_gap_ms),
    ("planned_wait_ms", "planned: longest wait of a post", |r| r.planned_wait_ms),
    ("planned_command_ms", "planned: command to its end", |r| r.planned_command_ms),
    ("forced_to_first_ack_ms", "forced: command to first acknowledgement", |r| r.forced_to_first_ack_ms),
    ("forced_gap_ms", "forced: longest time without an acknowledgement, from the kill on", |r| r.forced_gap_ms),
    ("forced_command_ms", "forced: command to its end", |r| r.forced_command_ms),
];

#[derive(Debug, Serialize)]
struct Report {
    build: &'static str,
    cores: usize,
    posts_per_second: f64,
    people: u32,
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
    standfast(context, &["database", "failover", "--new-principal", "primary", "--yes"]).await?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    output::say(&format!(
        "method: {} build; {cores} cores, which both sites share; {} people post {} times a second together; each round: \
         a planned switch to the mirror, SIGKILL to everything on its host, a forced switch to the primary, the host \
         started, until the pair is synchronised again",
        super::build_profile(),
        args.people,
        args.rate
    ));
    let mut rounds = Vec::new();
    for n in 1..=args.rounds {
        let round = measure(context, &http, args).await?;
        output::say(&format!(
            "round {n}: planned {:.0} ms without an acknowledgement; forced {:.0} ms from the command to the first",
            round.planned_gap_ms, round.forced_to_first_ack_ms
        ));
        rounds.push(round);
    }
    let medians: BTreeMap<_, _> =
        FIGURES.iter().map(|(name, _, pick)| (*name, Spread::of(rounds.iter().map(pick)))).collect();
    if context.json {
        let (build, posts_per_second, people) = (super::build_profile(), args.rate, args.people);
        return output::json(&Report { build, cores, posts_per_second, people, medians, rounds });
    }
    output::line("                                          median  (lowest … highest)")?;
    FIGURES.iter().try_for_each(|(name, says, _)| {
        output::line(&format!("{says}, ms\n                                {}", medians[name]))
    })
}

async fn measure(context: &Context, http: &Arc<Http>, args: &Args) -> Result<Round, Failure> {
    let crowd = Crowd::make(http, args.people.div_ceil(10) as usize, 10).await?;
    let mut light = Light::start(http, crowd, args.rate).await;
    within(light.epoch(), "the first acknowledgement").await?;
    tokio::time::sleep(BEFORE).await;

    light.mark();
    let planned_command = standfast(context, &["database", "failover", "--new-principal", "mirror", "--yes"]).await?;
    tokio::time::sleep(AFTER).await;
    let planned = light.since();
    until_normal(context).await?;

    // The mirror's host is not the authority in a lab, so the switch back can be forced.
    let record = Agents::new(&context.folder()?)?.record().await?;
    let principal = record.databases.values().find_map(|d| d.principal.clone());
    let host = principal.ok_or_else(|| Failure::Failed("the pool has no principal".to_owned()))?.to_string();
    light.mark();
    tell_lab(context, &Request::Kill { target: host.clone() }).await?;
    let began = Instant::now();
    let force = ["database", "failover", "--new-principal", "primary", "--force", "--yes"];
    let next = record.epoch.next();
    let (command, first) = tokio::join!(standfast(context, &force), within(light.first_in(next), "the new epoch"));
    let (forced_command, first) = (command?, first?);
    let first = first.ok_or_else(|| Failure::Failed("the load ended".to_owned()))?;
    tokio::time::sleep(AFTER).await;
    let forced = light.since();
    tell_lab(context, &Request::Start { target: host, env: BTreeMap::new(), without_peer: false }).await?;
    until_normal(context).await?;
    Ok(Round {
        planned_command_ms: ms(planned_command),
        planned_gap_ms: ms(planned.longest_gap),
        planned_wait_ms: ms(planned.longest_wait),
        forced_to_first_ack_ms: ms(first - began),
        forced_command_ms: ms(forced_command),
        forced_gap_ms: ms(forced.longest_gap),
    })
}
