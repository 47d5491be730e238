//! `standfast torture`: a lab is struck at random while people chat, for as long as wanted, and the auditor decides.

mod judge;
mod settle;
mod strike;

use self::judge::Judge;
use self::strike::World;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use lab::disks::Disks;
use lab::layout::{self, HostLayout, Layout};
use lab::torture::{Act, Episode, Kind, episode};
use lab::{Request, Shape};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The conversation that is played when nobody names another.
const SAMPLE: &str = include_str!("../../../../samples/harbour-watch.txt");
/// Time between two looks at whether a process that was to be stopped has been.
const TICK: Duration = Duration::from_millis(50);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast torture --seed 7 --minutes 60\n\
    It brings up a lab of its own in --dir (a fresh folder below /var/tmp when left out), with a witness at each site, plays a \
    conversation, and strikes in episodes: what an episode does follows from the seed and its number alone. After each one it \
    waits until the pool is well and audits. It ends at the first finding, and leaves the lab to be looked at.\n\
    Exit code 0: nothing was found. 3: something was.")]
pub struct Args {
    /// Determines everything that is done
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many episodes
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "minutes")]
    episodes: u64,
    /// As many episodes as begin within so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// The number of the first episode
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// Only episodes of these kinds
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    kinds: Vec<Kind>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    what_if: bool,
    /// Go on after a finding, unless the pool did not get well
    #[arg(long)]
    keep_going: bool,
    /// Logs that are played, as replay takes them; a sample when left out
    #[arg(long, value_name = "FILE")]
    load: Vec<PathBuf>,
    /// So many times as fast as they were
    #[arg(long, default_value_t = 1_200.0, value_name = "N")]
    speed: f64,
    /// Longest time until a pool has to be well again after everything runs again, in seconds
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    patience: u64,
    /// The first of the ports that the lab uses
    #[arg(long, default_value_t = 9_600, value_parser = clap::value_parser!(u16).range(1024..=60_000))]
    base_port: u16,
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("the kinds are {names}"))
}

/// What came of an episode.
#[derive(Debug, Serialize)]
struct Told<'a> {
    seed: u64,
    episode: &'a Episode,
    /// What was found where a blow fell, in their order.
    fell: Vec<String>,
    /// From when everything was let run again until the pool was well, in milliseconds.
    well_after_ms: Option<u64>,
    acknowledged: u64,
    late: u64,
    rewound: u64,
    findings: Vec<String>,
}

/// The sum of all episodes.
#[derive(Debug, Default, Serialize)]
struct Sum {
    episodes: u64,
    blows: u64,
    acknowledged: u64,
    late: u64,
    findings: u64,
}

/// Torture a lab.
///
/// # Errors
/// When the lab does not come up; `Refused` when something was found.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let mut kinds = if args.kinds.is_empty() { Kind::ALL.to_vec() } else { args.kinds.clone() };
    if args.what_if {
        return show(context, &args, &kinds);
    }
    let dir = folder(context)?;
    let mut world = up(&dir, &args, &mut kinds).await?;
    output::say(&format!(
        "seed {}, in {}; kinds: {}",
        args.seed,
        dir.display(),
        kinds.iter().map(|k| k.name()).collect::<Vec<_>>().join(", ")
    ));
    let began = Instant::now();
    let mut sum = Sum::default();
    for number in args.from.. {
        let over = match args.minutes {
            Some(minutes) => began.elapsed() >= Duration::from_secs(minutes * 60),
            None => number >= args.from + args.episodes,
        };
        if over {
            break;
        }
        let episode = episode(args.seed, number, &kinds);
        let told = tokio::select! {
            told = one(&mut world, &args, &episode) => told?,
            _ = tokio::signal::ctrl_c() => break,
        };
        sum.episodes += 1;
        sum.blows += told.fell.len() as u64;
        sum.acknowledged += told.acknowledged;
        sum.late += told.late;
        sum.findings += told.findings.len() as u64;
        say(context, &told, args.from)?;
        // What happens to a pool that is not well says nothing about the next episode.
        let may_go_on = args.keep_going && told.well_after_ms.is_some();
        if !told.findings.is_empty() && !may_go_on {
            break;
        }
    }
    if context.json {
        output::json_line(&sum)?;
    } else {
        output::line(&format!(
            "seed {}: {} episodes, {} blows in {} s; acknowledged {}, of these {} came home late; findings {}",
            args.seed,
            sum.episodes,
            sum.blows,
            began.elapsed().as_secs(),
            sum.acknowledged,
            sum.late,
            sum.findings
        ))?;
    }
    if sum.findings > 0 {
        world.leave();
        return Err(Failure::Refused(format!("something was found; the lab is as it was in {}", dir.display())));
    }
    world.take_down().await
}

/// Print the schedule.
fn show(context: &Context, args: &Args, kinds: &[Kind]) -> Outcome {
    for number in args.from..args.from + args.episodes {
        let episode = episode(args.seed, number, kinds);
        if context.json {
            output::json_line(&episode)?;
            continue;
        }
        output::line(&format!("episode {number}, {}:", episode.kind.name()))?;
        for Act { at_ms, blow } in &episode.acts {
            output::line(&format!("  {:>6.2} s  {blow}", *at_ms as f64 / 1_000.0))?;
        }
        output::line(&format!("  {:>6.2} s  everything runs again", episode.heal_at_ms as f64 / 1_000.0))?;
    }
    Ok(())
}

/// The lab's folder: one that was named and holds no lab yet, or a fresh one.
fn folder(context: &Context) -> Result<PathBuf, Failure> {
    let named = context.dir != Path::new(crate::folder::SYSTEM_DIR) && context.dir != Path::new(lab::DEFAULT_DIR);
    let dir = if named {
        context.dir.clone()
    } else {
        Path::new("/var/tmp").join(format!("standfast-torture-{}", std::process::id()))
    };
    if layout::exists(&dir) {
        let hint = "a torture makes its own; name another folder, or delete it with standfast lab down --delete";
        return Err(Failure::Refused(format!("{} holds a lab already; {hint}", dir.display())));
    }
    Ok(dir)
}

/// Bring the lab up. Kinds that this machine has not the means for are left out, and said.
async fn up(dir: &Path, args: &Args, kinds: &mut Vec<Kind>) -> Result<World, Failure> {
    layout::create(dir, Shape::Witnessed, args.base_port, None)?;
    let dir = dir.canonicalize().map_err(|e| Failure::Failed(format!("find {}: {e}", dir.display())))?;
    let mut disks = None;
    if kinds.contains(&Kind::Disk) {
        let hosts = Layout::read(&dir)?.hosts;
        let with_database = hosts.iter().filter(|h: &&HostLayout| !h.witness).map(|h| h.host.as_str());
        match Disks::make(&dir, with_database) {
            Ok(made) => disks = Some(made),
            Err(why) => leave_out(kinds, Kind::Disk, &why),
        }
    }
    let clock = strike::clock_library();
    if clock.is_none() {
        leave_out(kinds, Kind::Clock, "libfaketime is not installed (apt-get install libfaketime)");
    }
    if kinds.is_empty() {
        return Err(Failure::Refused("nothing is left that could be done on this machine".into()));
    }
    let mut load = args.load.clone();
    if load.is_empty() {
        let sample = dir.join("sample.txt");
        std::fs::write(&sample, SAMPLE).map_err(|e| Failure::Failed(format!("write {}: {e}", sample.display())))?;
        load.push(sample);
    }
    let context = Context { dir: dir.clone(), json: false };
    let world = World::new(context, disks, clock, load, args.speed);
    world.to_the_end(&["lab", "up", "--detach"]).await?;
    world.opened()
}

fn leave_out(kinds: &mut Vec<Kind>, kind: Kind, why: &str) {
    if kinds.contains(&kind) {
        output::say(&format!("left out: {}: {why}", kind.name()));
        kinds.retain(|k| *k != kind);
    }
}

/// One episode: strike, let everything run again, wait until the pool is well, and judge.
async fn one<'a>(world: &mut World, args: &Args, episode: &'a Episode) -> Result<Told<'a>, Failure> {
    let judge = Judge::begin(world);
    let load = world.begin_load(episode.number).await?;
    world.begin_episode().await?;
    let began = Instant::now();
    let mut fell = Vec::new();
    for act in &episode.acts {
        wait(world, began, act.at_ms).await;
        let said = world.strike(&act.blow).await.unwrap_or_else(|why| format!("{}: {why}", act.blow));
        fell.push(format!("{:.2} s {said}", began.elapsed().as_secs_f64()));
    }
    wait(world, began, episode.heal_at_ms).await;
    world.heal().await?;
    let healed = Instant::now();
    let mut findings = Vec::new();
    let well = settle::until_well(world, Duration::from_secs(args.patience), episode.kind).await;
    let well_after_ms = match well {
        Ok(()) => Some(u64::try_from(healed.elapsed().as_millis()).unwrap_or(u64::MAX)),
        Err(why) => {
            findings.push(why);
            None
        }
    };
    let ledger = load.end().await;
    let mut told =
        Told { seed: args.seed, episode, fell, well_after_ms, acknowledged: 0, late: 0, rewound: 0, findings };
    match ledger {
        Ok(ledger) => {
            let verdict = judge.end(world, &ledger, episode.kind).await;
            told.findings.extend(verdict.findings);
            (told.acknowledged, told.late, told.rewound) = (verdict.acknowledged, verdict.late, verdict.rewound);
        }
        Err(why) => told.findings.push(why),
    }
    Ok(told)
}

/// Wait until a time of the episode; what was to be stopped and has been is started again meanwhile.
async fn wait(world: &mut World, began: Instant, until_ms: u64) {
    let until = Duration::from_millis(until_ms);
    loop {
        world.tend().await;
        let left = until.saturating_sub(began.elapsed());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(TICK)).await;
    }
}

fn say(context: &Context, told: &Told<'_>, from: u64) -> Outcome {
    if context.json {
        return output::json_line(told);
    }
    let well =
        told.well_after_ms.map_or("NOT WELL AGAIN".into(), |ms| format!("well after {:.1} s", ms as f64 / 1_000.0));
    output::line(&format!(
        "episode {}, {}: {}; {well}; acknowledged {}, late {}, rewound {}",
        told.episode.number,
        told.episode.kind.name(),
        told.fell.join(", "),
        told.acknowledged,
        told.late,
        told.rewound
    ))?;
    for finding in &told.findings {
        output::line(&format!("  FOUND: {finding}"))?;
    }
    if told.findings.is_empty() {
        return Ok(());
    }
    let (seed, number, kind) = (told.seed, told.episode.number, told.episode.kind.name());
    output::line(&format!(
        "  the same again: standfast torture --seed {seed} --from {number} --episodes 1 (among the same --kinds; it was {kind})"
    ))?;
    if number == from {
        return Ok(());
    }
    let episodes = number - from + 1;
    output::line(&format!(
        "  and with all that came before it: standfast torture --seed {seed} --from {from} --episodes {episodes}"
    ))
}

/// Ask the lab for something.
async fn ask(dir: &Path, request: &Request) -> Result<lab::Answer, String> {
    match lab::protocol::ask(dir, request).await? {
        lab::Answer::Refused { message } => Err(message),
        answer => Ok(answer),
    }
}
