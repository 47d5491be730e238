//! `bench log-shipping`: what people notice while log shipping is turned off and on under load.

use super::failover::{command, standfast, within};
use super::spread::Spread;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::load::Crowd;
use client::load::light::{Light, Since};
use serde::Serialize;
use std::time::Duration;

/// How long the load runs before anything is counted, and between two changes.
const BETWEEN: Duration = Duration::from_secs(4);
/// How long the load runs on after a change, which its effects still count for.
const AFTER: Duration = Duration::from_secs(2);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Posts a second meanwhile
    #[arg(long, default_value_t = 1000.0, value_name = "NUMBER")]
    rate: f64,
    /// So many rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// People who post, ten in a room
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    people: u32,
}

/// What a change came to: the slowest post, and how long the command took, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Change {
    slowest_post_ms: f64,
    command_ms: f64,
}

/// A round: nothing changed, for comparison; then off, on again as it is, off, and on with a full initialisation.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    unchanged: Change,
    disabled: Change,
    enabled_as_it_is: Change,
    disabled_again: Change,
    enabled_in_full: Change,
}

/// A change's name, and where it stands in a round.
type Figure = (&'static str, fn(&Round) -> Change);

#[derive(Debug, Serialize)]
struct Report {
    build: &'static str,
    posts_per_second: f64,
    people: u32,
    rounds: Vec<Round>,
}

/// Measure.
///
/// # Errors
/// When log shipping is not on, or the pool does not come through.
pub async fn run(context: &Context, args: &Args) -> Outcome {
    let (_, http) = administrator(context).await?;
    output::say(&format!(
        "method: {} build; {} people post {} times a second together; each round: {} s unchanged, log shipping off, on with \
         the copies that are there, off, on with a full initialisation; each counts until {} s after its command ended",
        super::build_profile(),
        args.people,
        args.rate,
        BETWEEN.as_secs(),
        AFTER.as_secs()
    ));
    let crowd = Crowd::make(&http, args.people.div_ceil(10) as usize, 10).await?;
    let mut light = Light::start(&http, crowd, args.rate).await;
    within(light.epoch(), "the first acknowledgement").await?;
    tokio::time::sleep(BETWEEN).await;
    let mut rounds = Vec::new();
    for n in 1..=args.rounds {
        let round = Round {
            unchanged: measure(context, &light, None).await?,
            disabled: measure(context, &light, Some(&["disable"])).await?,
            enabled_as_it_is: measure(context, &light, Some(&["enable", "--already-initialised"])).await?,
            disabled_again: measure(context, &light, Some(&["disable"])).await?,
            enabled_in_full: measure(context, &light, Some(&["enable"])).await?,
        };
        output::say(&format!(
            "round {n}: slowest post unchanged {:.0} ms, off {:.0} ms, on {:.0} ms, off {:.0} ms, on in full {:.0} ms \
             (its command took {:.1} s)",
            round.unchanged.slowest_post_ms,
            round.disabled.slowest_post_ms,
            round.enabled_as_it_is.slowest_post_ms,
            round.disabled_again.slowest_post_ms,
            round.enabled_in_full.slowest_post_ms,
            round.enabled_in_full.command_ms / 1000.0
        ));
        rounds.push(round);
    }
    report(context, &Report { build: super::build_profile(), posts_per_second: args.rate, people: args.people, rounds })
}

async fn measure(context: &Context, light: &Light, change: Option<&[&str]>) -> Result<Change, Failure> {
    tokio::time::sleep(BETWEEN).await;
    light.mark();
    let took = if let Some(change) = change {
        let mut arguments = vec!["log-shipping"];
        arguments.extend_from_slice(change);
        arguments.push("--yes");
        standfast(context, &arguments).await?
    } else {
        tokio::time::sleep(BETWEEN).await;
        Duration::ZERO
    };
    tokio::time::sleep(AFTER).await;
    let since: Since = light.since();
    if since.acknowledged == 0 {
        let log = command(context, &["pool", "status"])?.output().await;
        let log = log.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        return Err(Failure::Failed(format!("no post was acknowledged meanwhile; the pool:\n{log}")));
    }
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    Ok(Change { slowest_post_ms: ms(since.longest_wait), command_ms: ms(took) })
}

fn report(context: &Context, report: &Report) -> Outcome {
    if context.json {
        return output::json(report);
    }
    output::line("                                          median  (lowest … highest)")?;
    let all: [Figure; 5] = [
        ("unchanged", |r| r.unchanged),
        ("turned off", |r| r.disabled),
        ("turned on with the copies that are there", |r| r.enabled_as_it_is),
        ("turned off again", |r| r.disabled_again),
        ("turned on with a full initialisation", |r| r.enabled_in_full),
    ];
    for (says, pick) in all {
        let figure = |of: fn(Change) -> f64| Spread::of(report.rounds.iter().map(|r| of(pick(r))));
        output::line(&format!(
            "{says}: slowest post, ms\n                                {}",
            figure(|c| c.slowest_post_ms)
        ))?;
        output::line(&format!(
            "{says}: the command, ms\n                                {}",
            figure(|c| c.command_ms)
        ))?;
    }
    Ok(())
}
