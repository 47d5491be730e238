//! `bench storm`: a server is killed, and everybody who was connected to it comes to the one that is left, in the same second.
//! What the people notice who are there already and post, and how soon all are back. In a lab, because a server is killed.

use super::failover::{ms, tell_lab, until_normal, within};
use super::processor;
use super::spread::Spread;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::Http;
use client::load::storm::{Figures, Parts, Storm};
use client::load::yardstick::seconds_to_connect;
use client::load::{Crowd, Processor, Seat};
use lab::protocol::Request;
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use wire::chat::ServerAddress;

/// Files that are open besides connections.
const FILES_BESIDES: u64 = 200;
/// Between two looks whether a server is there again.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// So many clients lose their server, each with a connection of its own
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=80_000))]
    clients: u32,
    /// So many people in each room
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    members: u32,
    /// So many of them are at the surviving server and post, one in a room at most
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    posters: u32,
    /// Posts a second, of all of them together
    #[arg(long, default_value_t = 100.0, value_name = "NUMBER")]
    rate: f64,
    /// Posting before and after each storm
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// So many storms
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Bytes of each post
    #[arg(long, default_value_t = 150, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(16..=16_384))]
    bytes: u32,
}

/// A storm.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    #[serde(flatten)]
    figures: Figures,
    /// From the kill until all were back.
    processor: Processor,
}

/// Bare connections that were made at once, and how long that took.
#[derive(Clone, Copy, Debug, Serialize)]
struct Bare {
    count: u64,
    seconds: f64,
}

/// A figure's name, and where it stands in a round.
type Figure = (&'static str, fn(&Round) -> f64);

#[derive(Debug, Serialize)]
struct Report {
    build: &'static str,
    cores: usize,
    clients: u32,
    rooms: u32,
    posters: u32,
    posts_per_second: f64,
    bare_connections: Bare,
    medians: BTreeMap<&'static str, Spread>,
    rounds: Vec<Round>,
}

/// Measure.
///
/// # Errors
/// When this is no lab, the machine does not allow so many connections, or somebody does not come back.
pub async fn run(context: &Context, args: &Args) -> Outcome {
    let (folder, http) = administrator(context).await?;
    tell_lab(context, &Request::Status).await?;
    until_normal(context).await?;
    let files = check_limits(args)?;
    let rooms = args.clients.div_ceil(args.members - 1);
    if args.posters > rooms {
        let message = format!("--posters {}: one in each of {rooms} rooms at most; give fewer", args.posters);
        return Err(Failure::Usage(message));
    }
    let build = super::build_profile();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    output::say(&format!(
        "method: {build} build; {cores} cores, which the load, servers and databases share; {} clients in {rooms} rooms lose \
         their server by SIGKILL, and all connect to the one that is left at once; {} people who are there post {} times a \
         second together; {} rounds, before and after each {} s of posting",
        args.clients, args.posters, args.rate, args.rounds, args.seconds
    ));
    output::say("yardstick: bare connections");
    // Both ends are here.
    let count = u64::from(args.clients).min((files - FILES_BESIDES) / 2);
    let seconds = seconds_to_connect(count as usize).await.map_err(Failure::Failed)?;
    let bare = Bare { count, seconds };
    output::say("making rooms and people");
    let crowd = Crowd::make(&http, rooms as usize, args.members as usize).await?;
    let dir = folder.dir.canonicalize().unwrap_or_else(|_| folder.dir.clone());
    let mut rounds: Vec<Round> = Vec::new();
    for n in 1..=args.rounds {
        let [lost, left] = two_servers(&http, rounds.len()).await?;
        let storm = Storm::start(parts(args, &crowd, &lost, &left)).await?;
        let length = Duration::from_secs(args.seconds);
        storm.before(length).await?;
        storm.head_for(&left.url).await?;
        tell_lab(context, &Request::Kill { target: lost.name.clone() }).await?;
        let before = processor::used(&dir);
        storm.until_all_are_back().await?;
        let used = processor::used(&dir).since(before);
        let figures = storm.after(length).await?;
        drop(storm);
        let round = Round { figures, processor: used };
        output::say(&format!("round {n}: {}", sentence(&round, &lost, &left)));
        rounds.push(round);
        let (env, without_peer) = (BTreeMap::new(), false);
        tell_lab(context, &Request::Start { target: lost.name.clone(), env, without_peer }).await?;
        within(until_active(&http, &lost), "the killed server").await?;
    }
    report(context, args, rooms, bare, rounds)
}

/// Every connection is an open file here and at the server. Returns how many may be open.
fn check_limits(args: &Args) -> Result<u64, Failure> {
    let failed = |e| Failure::Failed(format!("read the limit of open files: {e}"));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let wanted = u64::from(args.clients) + u64::from(args.posters) + FILES_BESIDES;
    if most < wanted {
        return Err(Failure::Usage(format!(
            "--clients {}: {wanted} open files are needed, and {most} are allowed; before the lab is started and here say, as \
             root: ulimit -n {wanted}; or give fewer clients",
            args.clients
        )));
    }
    Ok(most)
}

/// The active servers, which have to be two, in turn: the one that is killed, and the one that is left.
async fn two_servers(http: &Http, round: usize) -> Result<[ServerAddress; 2], Failure> {
    let mut active: Vec<ServerAddress> = http.servers().await?.servers.into_iter().filter(|s| s.active).collect();
    active.sort_by(|a, b| a.name.cmp(&b.name));
    let count = active.len();
    let [one, two]: [ServerAddress; 2] = active.try_into().map_err(|_| {
        let message =
            format!("{count} servers are active; a storm needs two, of which one is left; use standfast lab up");
        Failure::Usage(message)
    })?;
    Ok(if round.is_multiple_of(2) { [one, two] } else { [two, one] })
}

/// The first of some rooms post, at the server that is left; everybody else is at the other.
fn parts(args: &Args, crowd: &Crowd, lost: &ServerAddress, left: &ServerAddress) -> Parts {
    let rooms = crowd.seats.len() / crowd.members;
    let stride = (rooms / args.posters as usize).max(1);
    let at = |seat: &Seat, server: &ServerAddress| Seat { url: server.url.clone(), ..seat.clone() };
    let posters: Vec<Seat> =
        (0..args.posters as usize).map(|n| at(&crowd.seats[n * stride * crowd.members], left)).collect();
    let others = crowd.seats.iter().enumerate().filter(|(n, _)| n % crowd.members != 0);
    let clients = others.take(args.clients as usize).map(|(_, seat)| at(seat, lost)).collect();
    Parts { clients, posters, per_second: args.rate, text_bytes: args.bytes as usize }
}

async fn until_active(http: &Http, server: &ServerAddress) {
    loop {
        let health = http.directory().http().get(format!("{}/v1/health", server.url)).send().await;
        if health.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn sentence(round: &Round, lost: &ServerAddress, left: &ServerAddress) -> String {
    let Figures { during, all_back_us, queued, come_back, failed, disorder, .. } = round.figures;
    format!(
        "{} killed, all at {} after {:.1} s; acknowledgements meanwhile p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms; {queued} \
         waited for their turn, {come_back} were told to come back, {failed} connections failed, {disorder} entries lost or \
         doubled",
        lost.name,
        left.name,
        all_back_us as f64 / 1e6,
        us(during.p50_us),
        us(during.p99_us),
        us(during.max_us)
    )
}

fn us(us: u64) -> f64 {
    ms(Duration::from_micros(us))
}

fn report(context: &Context, args: &Args, rooms: u32, bare: Bare, rounds: Vec<Round>) -> Outcome {
    let figures: [(Figure, &str); 18] = [
        (("before_ack_p50_ms", |r| us(r.figures.before.p50_us)), "acknowledgements before, p50, ms"),
        (("before_ack_p99_ms", |r| us(r.figures.before.p99_us)), "acknowledgements before, p99, ms"),
        (("before_ack_max_ms", |r| us(r.figures.before.max_us)), "acknowledgements before, longest, ms"),
        (("during_ack_p50_ms", |r| us(r.figures.during.p50_us)), "acknowledgements during, p50, ms"),
        (("during_ack_p99_ms", |r| us(r.figures.during.p99_us)), "acknowledgements during, p99, ms"),
        (("during_ack_max_ms", |r| us(r.figures.during.max_us)), "acknowledgements during, longest, ms"),
        (("after_ack_p50_ms", |r| us(r.figures.after.p50_us)), "acknowledgements after, p50, ms"),
        (("after_ack_p99_ms", |r| us(r.figures.after.p99_us)), "acknowledgements after, p99, ms"),
        (("after_ack_max_ms", |r| us(r.figures.after.max_us)), "acknowledgements after, longest, ms"),
        (("back_p50_ms", |r| us(r.figures.back_p50_us)), "a client is back, p50, ms"),
        (("back_p99_ms", |r| us(r.figures.back_p99_us)), "a client is back, p99, ms"),
        (("all_back_ms", |r| us(r.figures.all_back_us)), "all are back, ms"),
        (("connections", |r| r.figures.connections as f64), "connections made or tried in all"),
        (("failed", |r| r.figures.failed as f64), "  of which failed"),
        (("come_back", |r| r.figures.come_back as f64), "told to come back"),
        (("servers_cpu_ms", |r| us(r.processor.servers_us)), "processor until all are back: server, ms"),
        (("postgres_cpu_ms", |r| us(r.processor.postgres_us)), "processor until all are back: PostgreSQL, ms"),
        (("load_cpu_ms", |r| us(r.processor.load_us)), "processor until all are back: the load, ms"),
    ];
    let medians: BTreeMap<_, _> =
        figures.iter().map(|((name, pick), _)| (*name, Spread::of(rounds.iter().map(pick)))).collect();
    if context.json {
        return output::json(&Report {
            build: super::build_profile(),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            clients: args.clients,
            rooms,
            posters: args.posters,
            posts_per_second: args.rate,
            bare_connections: bare,
            medians,
            rounds,
        });
    }
    output::line("                                                  median  (lowest … highest)")?;
    for ((name, _), says) in figures {
        output::line(&format!("{says:<44}{}", medians[name]))?;
    }
    output::line(&format!(
        "  yardstick: {} bare connections at once, both ends in one process, no greeting but a word each way: {:.1} s",
        bare.count, bare.seconds
    ))?;
    let wrong: u64 = rounds.iter().map(|r| r.figures.disorder + r.figures.refused).sum();
    if wrong > 0 {
        return Err(Failure::Failed(format!("{wrong} entries were lost or doubled, or posts refused")));
    }
    Ok(())
}
