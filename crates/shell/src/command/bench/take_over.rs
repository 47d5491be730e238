//! `bench take-over`: how long people notice the loss of a principal that has a witness, and how soon the old one is a
//! synchronised mirror again. In a lab with witnesses, because principals are killed and frozen for it.

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
use cluster::name::{DatabaseName, HostName};
use cluster::record::PoolRecord;
use lab::protocol::Request;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Load before each act.
const BEFORE: Duration = Duration::from_secs(2);
/// Load after each act, so that late gaps are seen.
const AFTER: Duration = Duration::from_millis(500);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at the record.
const LOOK: Duration = Duration::from_millis(10);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// So many losses of each kind
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Posts a second meanwhile
    #[arg(long, default_value_t = 200.0, value_name = "NUMBER")]
    rate: f64,
    /// People who post, ten in a room
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    people: u32,
    /// Only these kinds
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<Loss>,
}

/// What happens to the principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Loss {
    /// SIGKILL to database, agent and chat server of its host
    #[value(name = "killed")]
    Host,
    /// SIGSTOP to all of them
    Frozen,
    /// SIGKILL to the database alone
    Database,
    /// A planned switch
    Planned,
}

const LOSSES: [(Loss, &str, &str); 4] = [
    (Loss::Host, "host_killed_gap_ms", "database, agent and server killed"),
    (Loss::Frozen, "frozen_gap_ms", "all of them frozen"),
    (Loss::Database, "database_killed_gap_ms", "database alone killed"),
    (Loss::Planned, "planned_gap_ms", "planned switch"),
];
const RETURN: (&str, &str) = ("return_ms", "return of the killed host until synchronised");

#[derive(Debug, Serialize)]
struct Report {
    build: &'static str,
    cores: usize,
    posts_per_second: f64,
    people: u32,
    medians: BTreeMap<&'static str, Spread>,
    /// Every figure, in the order of measuring.
    rounds: BTreeMap<&'static str, Vec<f64>>,
}

/// Measure.
///
/// # Errors
/// When this is no lab with witnesses, or the pool does not come through.
pub async fn run(context: &Context, args: &Args) -> Outcome {
    let (_, http) = administrator(context).await?;
    tell_lab(context, &Request::Status).await?;
    if Agents::new(&context.folder()?)?.topology.sites.iter().any(|s| s.witness().is_none()) {
        let hint = "bring one up with standfast lab up --witness";
        return Err(Failure::Refused(format!("the sites of this lab have no witness; {hint}")));
    }
    until_normal(context).await?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    output::say(&format!(
        "method: {} build; {cores} cores, which both sites share; {} people post {} times a second together; the longest \
         time between two acknowledgements to any of them, for each loss of the principal, whoever it is then; everything \
         synchronised again before the next",
        super::build_profile(),
        args.people,
        args.rate
    ));
    let mut rounds: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let wanted = |loss: &Loss| args.kinds.is_empty() || args.kinds.contains(loss);
    for (loss, name, says) in LOSSES.into_iter().filter(|(loss, ..)| wanted(loss)) {
        for n in 1..=args.rounds {
            let (gap, returned) = measure(context, &http, args, loss).await?;
            output::say(&format!("{says}, {n}: {:.0} ms without an acknowledgement", ms(gap)));
            rounds.entry(name).or_default().push(ms(gap));
            if let Some(returned) = returned {
                rounds.entry(RETURN.0).or_default().push(ms(returned));
            }
        }
    }
    let medians: BTreeMap<_, _> = rounds.iter().map(|(name, all)| (*name, Spread::of(all.iter().copied()))).collect();
    if context.json {
        let (build, posts_per_second, people) = (super::build_profile(), args.rate, args.people);
        return output::json(&Report { build, cores, posts_per_second, people, medians, rounds });
    }
    output::line("longest time without an acknowledgement, ms       median  (lowest … highest)   all, sorted")?;
    for (name, says) in LOSSES.iter().map(|(_, name, says)| (*name, *says)).chain([RETURN]) {
        let Some(mut all) = rounds.get(name).cloned() else { continue };
        all.sort_by(f64::total_cmp);
        let all: Vec<String> = all.iter().map(|ms| format!("{ms:.0}")).collect();
        output::line(&format!("{says}\n                              {}   {}", medians[name], all.join(" ")))?;
    }
    Ok(())
}

/// Principal and mirror of the first database, and whether they are synchronised.
fn pair(record: &PoolRecord) -> Option<(&DatabaseName, &HostName, bool)> {
    let (name, parts) = record.databases.iter().next()?;
    Some((name, parts.principal.as_ref()?, parts.mirror.as_ref().is_some_and(|m| m.synchronised)))
}

async fn measure(
    context: &Context,
    http: &Arc<Http>,
    args: &Args,
    loss: Loss,
) -> Result<(Duration, Option<Duration>), Failure> {
    let agents = Agents::new(&context.folder()?)?;
    let crowd = Crowd::make(http, args.people.div_ceil(10) as usize, 10).await?;
    let mut light = Light::start(http, crowd, args.rate).await;
    within(light.epoch(), "the first acknowledgement").await?;
    tokio::time::sleep(BEFORE).await;
    let record = agents.record().await?;
    let Some((database, host, _)) = pair(&record) else { return Err(Failure::Failed("there is no principal".into())) };
    let target = host.to_string();
    light.mark();
    match loss {
        Loss::Host => tell_lab(context, &Request::Kill { target: target.clone() }).await?,
        Loss::Frozen => tell_lab(context, &Request::Freeze { target: target.clone() }).await?,
        Loss::Database => tell_lab(context, &Request::Kill { target: format!("{target}/postgres") }).await?,
        Loss::Planned => {
            let role = agents.topology.database(database).and_then(|d| d.role_of(host));
            let other = if role == Some(cluster::topology::Role::Primary) { "mirror" } else { "primary" };
            standfast(context, &["database", "failover", "--new-principal", other, "--yes"]).await?;
        }
    }
    if matches!(loss, Loss::Host | Loss::Frozen) {
        let next = record.epoch.next();
        within(light.first_in(next), "the new epoch").await?;
    }
    tokio::time::sleep(AFTER).await;
    let gap = light.since().longest_gap;
    let began = Instant::now();
    match loss {
        Loss::Host => {
            let (env, without_peer) = (BTreeMap::new(), false);
            tell_lab(context, &Request::Start { target, env, without_peer }).await?;
        }
        Loss::Frozen => tell_lab(context, &Request::Thaw { target }).await?,
        Loss::Database | Loss::Planned => {}
    }
    let synchronised = async {
        while !agents.record().await.is_ok_and(|r| pair(&r).is_some_and(|(_, _, synchronised)| synchronised)) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let late = || Failure::Failed("the pair is not synchronised again; see standfast pool status".into());
    tokio::time::timeout(PATIENCE, synchronised).await.map_err(|_| late())?;
    let returned = (loss == Loss::Host).then(|| began.elapsed());
    until_normal(context).await?;
    Ok((gap, returned))
}
