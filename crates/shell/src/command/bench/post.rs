//! `bench post`: durable posts a second, end to end, and what each delivery costs.

use super::postgres::{Principal, Rows};
use super::processor;
use super::spread::Spread;
use crate::failure::{Failure, Outcome};
use crate::folder::{Context, Folder};
use crate::output;
use crate::signed_in::administrator;
use client::load::rounds::TEXT_BYTES_MIN;
use client::load::yardstick::socket_writes_per_second;
use client::load::{Crowd, Figures, Pace, Plan, run as run_load};
use rules::limit::POST_BYTES_MAX;
use serde::Serialize;
use std::time::Duration;

/// Sockets of the raw yardstick.
const SOCKETS: usize = 1000;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// So many rooms
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// So many people in each, each with a connection of their own
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    members: u32,
    /// Length of a round
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// So many rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Posts a second; as many as the pool takes when left out
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// Without --rate: so many posts under way at a time
    #[arg(long, default_value_t = 512, value_name = "NUMBER")]
    in_flight: usize,
    /// Bytes of each post
    #[arg(long, default_value_t = 150, value_name = "BYTES")]
    bytes: usize,
}

/// How it was measured.
#[derive(Debug, Serialize)]
struct Method {
    build: &'static str,
    cores: usize,
    rooms: u32,
    members: u32,
    rounds: u32,
    seconds: u64,
    text_bytes: usize,
    in_flight: usize,
    active_servers: usize,
    server_processes: usize,
    postgres_processes: usize,
    principal: String,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    method: Method,
    postgres_rows: Rows,
    socket_writes_per_second: f64,
    pace: Phase,
    half: Option<Phase>,
}

/// The rounds at one pace.
#[derive(Debug, Serialize)]
struct Phase {
    posts_per_second: Spread,
    deliveries_per_second: Spread,
    ack_p50_ms: Spread,
    ack_p99_ms: Spread,
    delivery_p50_ms: Spread,
    delivery_p99_ms: Spread,
    processor_per_delivery_us: Spread,
    servers_per_delivery_us: Spread,
    load_per_delivery_us: Spread,
    rounds: Vec<Figures>,
}

impl Phase {
    fn of(rounds: Vec<Figures>) -> Self {
        let spread = |pick: fn(&Figures) -> f64| Spread::of(rounds.iter().map(pick));
        Self {
            posts_per_second: spread(|f| f.posts_per_second),
            deliveries_per_second: spread(|f| f.deliveries_per_second),
            ack_p50_ms: spread(|f| f.ack_p50_us as f64).times(0.001),
            ack_p99_ms: spread(|f| f.ack_p99_us as f64).times(0.001),
            delivery_p50_ms: spread(|f| f.delivery_p50_us as f64).times(0.001),
            delivery_p99_ms: spread(|f| f.delivery_p99_us as f64).times(0.001),
            processor_per_delivery_us: spread(|f| f.processor_per_delivery_us),
            servers_per_delivery_us: spread(|f| f.servers_per_delivery_us),
            load_per_delivery_us: spread(|f| f.load_per_delivery_us),
            rounds,
        }
    }
}

/// Measure, and print the figures with the yardsticks beside them.
///
/// # Errors
/// When the pool does not stand up to it.
pub async fn run(context: &Context, args: &Args) -> Outcome {
    if !(TEXT_BYTES_MIN..=POST_BYTES_MAX).contains(&args.bytes) {
        let message = format!("--bytes {}: give {TEXT_BYTES_MIN} to {POST_BYTES_MAX}", args.bytes);
        return Err(Failure::Usage(message));
    }
    let (folder, http) = administrator(context).await?;
    let crowd = Crowd::make(&http, args.rooms as usize, args.members as usize).await?;
    let principal = Principal::find(&folder).await?;
    let method = method(args, &folder, &crowd, &principal);
    say_method(&method);
    output::say("yardsticks: PostgreSQL alone, raw sockets");
    let postgres_rows = principal.measure(args.bytes, args.seconds.min(10)).await?;
    let sockets = socket_writes_per_second(SOCKETS, Duration::from_secs(args.seconds.min(5))).await?;
    let pace = args.rate.map_or(Pace::InFlight(args.in_flight), Pace::PerSecond);
    output::say("rounds");
    let pace = Phase::of(rounds(args, &folder, crowd.clone(), pace).await?);
    let half = if args.rate.is_none() {
        output::say("rounds at half of that rate");
        let rate = pace.posts_per_second.median / 2.0;
        Some(Phase::of(rounds(args, &folder, crowd, Pace::PerSecond(rate)).await?))
    } else {
        None
    };
    let report = Report { method, postgres_rows, socket_writes_per_second: sockets, pace, half };
    if context.json { output::json(&report) } else { print(&report) }
}

async fn rounds(args: &Args, folder: &Folder, crowd: Crowd, pace: Pace) -> Result<Vec<Figures>, Failure> {
    let plan =
        Plan { pace, text_bytes: args.bytes, rounds: args.rounds as usize, length: Duration::from_secs(args.seconds) };
    let dir = folder.dir.canonicalize().unwrap_or_else(|_| folder.dir.clone());
    Ok(run_load(crowd, plan, move || processor::used(&dir)).await?)
}

fn method(args: &Args, folder: &Folder, crowd: &Crowd, principal: &Principal) -> Method {
    let dir = folder.dir.canonicalize().unwrap_or_else(|_| folder.dir.clone());
    let (server_processes, postgres_processes) = processor::found(&dir);
    Method {
        build: super::build_profile(),
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        rooms: args.rooms,
        members: args.members,
        rounds: args.rounds,
        seconds: args.seconds,
        text_bytes: args.bytes,
        in_flight: args.in_flight,
        active_servers: crowd.servers(),
        server_processes,
        postgres_processes,
        principal: principal.address(),
    }
}

fn say_method(method: &Method) {
    let Method { build, cores, rooms, members, rounds, seconds, text_bytes, .. } = method;
    output::say(&format!(
        "method: {build} build; {cores} cores, which load, servers and databases share; {rooms} rooms x {members} \
         people, a WebSocket each, over {} active servers; posts of {text_bytes} bytes; every post is delivered to all \
         {members}; {rounds} rounds of {seconds} s after a warm-up; at most {} posts under way",
        method.active_servers, method.in_flight
    ));
    let (servers, postgres) = (method.server_processes, method.postgres_processes);
    output::say(&format!(
        "processor time: of {servers} chat servers and {postgres} processes of PostgreSQL, from /proc"
    ));
    if servers == 0 || postgres == 0 {
        output::say("WARNING: the pool's processes are not on this machine; its processor time cannot be measured");
    }
}

fn print(report: &Report) -> Outcome {
    let Report { postgres_rows: rows, socket_writes_per_second: writes, pace, half, .. } = report;
    output::line("                                          median  (lowest … highest)")?;
    output::line(&format!("posts acknowledged a second     {}", pace.posts_per_second))?;
    output::line(&format!(
        "  yardstick: rows a second, PostgreSQL alone, 100 a commit   {:>9.0}",
        rows.per_second_by_100
    ))?;
    output::line(&format!(
        "  yardstick: rows a second, PostgreSQL alone, 1000 a commit  {:>9.0}",
        rows.per_second_by_1000
    ))?;
    output::line(&format!("deliveries a second             {}", pace.deliveries_per_second))?;
    output::line(&format!("  yardstick: raw socket writes a second, 150 bytes           {writes:>9.0}"))?;
    print_phase(pace)?;
    let (server, load) = (pace.processor_per_delivery_us.median, pace.load_per_delivery_us.median);
    let socket_us = 1e6 / writes.max(1.0);
    output::line(&format!(
        "  yardstick: a raw socket write took {socket_us:.2} us by the clock, writer and reader together"
    ))?;
    output::line(&format!("  the load itself costs {load:.2} us a delivery, beside the pool's {server:.2} us"))?;
    if let Some(half) = half {
        output::line(&format!("at half of that rate            {}", half.posts_per_second))?;
        print_phase(half)?;
    }
    Ok(())
}

fn print_phase(phase: &Phase) -> Outcome {
    for (name, spread) in [
        ("post to acknowledgement p50, ms ", &phase.ack_p50_ms),
        ("post to acknowledgement p99, ms ", &phase.ack_p99_ms),
        ("post to delivery p50, ms        ", &phase.delivery_p50_ms),
        ("post to delivery p99, ms        ", &phase.delivery_p99_ms),
        ("processor us a delivery, pool   ", &phase.processor_per_delivery_us),
        ("  of which chat servers         ", &phase.servers_per_delivery_us),
        ("processor us a delivery, load   ", &phase.load_per_delivery_us),
    ] {
        output::line(&format!("{name}{spread}"))?;
    }
    let refused: u64 = phase.rounds.iter().map(|r| r.refused).sum();
    if refused > 0 {
        output::line(&format!("posts refused as overloaded      {refused:>12}"))?;
    }
    Ok(())
}
