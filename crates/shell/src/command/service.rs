//! `service` (Get-, Start- and Stop-CsWindowsService): the chat servers as services of their hosts, kept by the agents there.

use crate::agents::{Agents, Look, Trouble};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::name::{HostName, ServerName};
use cluster::record::PoolRecord;
use cluster::service::{END_MAX_MS, ServiceReport, Status, Wanted};
use cluster::topology::{Server, Topology};
use rules::nearest::nearest;
use serde::Serialize;
use std::time::{Duration, Instant};
use wire::agent::WantService;

/// Longest wait for a server to run.
const START_MAX: Duration = Duration::from_secs(20);
/// Longest wait for a server to end: its agent ends it when it does not by itself.
const STOP_MAX: Duration = Duration::from_millis(END_MAX_MS + 5_000);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Show every chat server: what is wanted of it, and how it stands
    List,
    /// Start servers, and keep them running; starting one that runs is no error
    Start {
        #[command(flatten)]
        which: Which,
    },
    /// Stop servers, and keep them stopped: each sends its clients to the other active servers first
    Stop {
        #[command(flatten)]
        which: Which,
        /// End them at once: their clients find out by themselves
        #[arg(long)]
        now: bool,
        /// Go on without being asked when no active server would run any more
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// The servers, by name; those of --host, or all, when none is named
    servers: Vec<String>,
    /// Every server of this host
    #[arg(long, conflicts_with = "servers")]
    host: Option<String>,
    /// Do not wait until it is so
    #[arg(long)]
    no_wait: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    what_if: bool,
}

/// A server as it is listed.
#[derive(Serialize)]
struct Listed<'a> {
    server: &'a ServerName,
    host: &'a HostName,
    /// `None` when the host's agent does not answer.
    service: Option<&'a ServiceReport>,
}

/// Run the command.
///
/// # Errors
/// When there is no such server, its host's agent does not answer, or it does not come to what is wanted.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let agents = Agents::new(&context.folder()?)?;
    match args.what.unwrap_or(What::List) {
        What::List => list(&agents, context.json).await,
        What::Start { which } => {
            let wanted = WantService { wanted: Wanted::Started, at_once: false };
            let servers = chosen(&agents.topology, &which)?;
            change(&agents, &servers, &which, wanted).await
        }
        What::Stop { which, now, yes } => {
            if which.servers.is_empty() && which.host.is_none() {
                let message = "this would stop every server of the pool; name servers, or a host with --host";
                return Err(Failure::Usage(message.into()));
            }
            let wanted = WantService { wanted: Wanted::Stopped, at_once: now };
            let servers = chosen(&agents.topology, &which)?;
            if !which.what_if {
                leave_one(&agents, &servers, yes).await?;
            }
            change(&agents, &servers, &which, wanted).await
        }
    }
}

async fn list(agents: &Agents, json: bool) -> Outcome {
    let look = agents.look().await;
    let all: Vec<Listed<'_>> = agents
        .topology
        .servers
        .iter()
        .map(|s| Listed { server: &s.name, host: &s.host, service: service_of(&look, s) })
        .collect();
    if json {
        return output::json(&all);
    }
    let mut rows = vec![["SERVER", "HOST", "STATUS", "WANTED", "PID", "LAST END"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|listed| {
        let said = |word: fn(&ServiceReport) -> String| listed.service.map_or("–".to_owned(), word);
        vec![
            listed.server.to_string(),
            listed.host.to_string(),
            listed.service.map_or("Unknown".into(), |s| s.status.word().to_owned()),
            said(|s| if s.wanted == Wanted::Started { "started".into() } else { "stopped".into() }),
            said(|s| s.pid.map_or("–".into(), |pid| pid.to_string())),
            said(|s| s.ended.clone().unwrap_or_default()),
        ]
    }));
    output::table(&rows)
}

/// What the agent of a server's host says of it.
pub fn service_of<'a>(look: &'a Look, server: &Server) -> Option<&'a ServiceReport> {
    look.view.reports.iter().find(|r| r.host == server.host)?.services.get(&server.name)
}

/// The servers that are meant.
fn chosen(topology: &Topology, which: &Which) -> Result<Vec<Server>, Failure> {
    if let Some(host) = &which.host {
        let name = HostName::from(host.as_str());
        let found: Vec<Server> = topology.servers.iter().filter(|s| s.host == name).cloned().collect();
        if found.is_empty() {
            let hosts: Vec<&str> = topology.servers.iter().map(|s| s.host.as_str()).collect();
            return Err(Failure::Usage(format!("no server is on '{host}'; servers are on: {}", hosts.join(", "))));
        }
        return Ok(found);
    }
    if which.servers.is_empty() {
        return Ok(topology.servers.clone());
    }
    let find = |name: &String| {
        topology.server(&name.as_str().into()).cloned().ok_or_else(|| {
            let known: Vec<&str> = topology.servers.iter().map(|s| s.name.as_str()).collect();
            let near = nearest(name, &known).map_or(String::new(), |near| format!("; did you mean '{near}'?"));
            Failure::Usage(format!("there is no server '{name}'{near} (there are: {})", known.join(", ")))
        })
    };
    which.servers.iter().map(find).collect()
}

/// Ask before the last active server that runs is stopped: then nobody is served, and nobody is moved.
async fn leave_one(agents: &Agents, servers: &[Server], yes: bool) -> Outcome {
    let look = agents.look().await;
    let Some(record) = &look.view.record else { return Ok(()) };
    let stays = |server: &Server| {
        let service = service_of(&look, server);
        is_active(record, server) && !servers.contains(server) && service.is_none_or(|s| s.status == Status::Running)
    };
    let any = servers.iter().any(|s| is_active(record, s));
    if !any || agents.topology.servers.iter().any(stays) {
        return Ok(());
    }
    output::say("no other active server runs: clients are not moved anywhere, and wait until one runs again");
    if yes || output::confirm("Stop it?") {
        return Ok(());
    }
    Err(Failure::Refused(
        "nothing was done; standfast active-servers add makes another one active, --yes goes on".into(),
    ))
}

fn is_active(record: &PoolRecord, server: &Server) -> bool {
    record.is_active(&server.name)
}

/// Want it of all of them, then wait for each. One whose host does not answer does not hold the others up.
async fn change(agents: &Agents, servers: &[Server], which: &Which, wanted: WantService) -> Outcome {
    let verb = if wanted.wanted == Wanted::Started { "start" } else { "stop" };
    let mut failed = Vec::new();
    let mut told = Vec::new();
    for server in servers {
        if which.what_if {
            output::line(&format!("What if: {verb} {} on {}", server.name, server.host))?;
            continue;
        }
        match agents.want_service(&server.host, &server.name, &wanted).await {
            Ok(()) => told.push(server),
            Err(trouble) => failed.push(trouble.failure(&format!("{verb} {}", server.name), &server.host)),
        }
    }
    for server in told {
        if which.no_wait {
            output::line(&format!("{}: told to {verb}", server.name))?;
        } else if let Err(failure) = come_to(agents, server, wanted.wanted).await {
            failed.push(failure);
        }
    }
    match failed.len() {
        0 => Ok(()),
        1 => Err(failed.remove(0)),
        _ => Err(Failure::Failed(failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))),
    }
}

/// Wait until a server is as it is wanted.
async fn come_to(agents: &Agents, server: &Server, wanted: Wanted) -> Outcome {
    let (goal, patience) = match wanted {
        Wanted::Started => (Status::Running, START_MAX),
        Wanted::Stopped => (Status::Stopped, STOP_MAX),
    };
    let began = Instant::now();
    loop {
        let report = agents.report(&server.host).await;
        let service = report.as_ref().ok().and_then(|r| r.services.get(&server.name).cloned());
        if service.as_ref().is_some_and(|s| s.status == goal) {
            return output::line(&format!("{}: {}", server.name, goal.word()));
        }
        if began.elapsed() > patience {
            let why = match (report, service) {
                (Err(Trouble::Silent(_)), _) => format!("the agent of {} does not answer", server.host),
                (Err(Trouble::Said(words)), _) => words,
                (Ok(_), Some(ServiceReport { ended: Some(why), .. })) => why,
                (Ok(_), Some(s)) => format!("it is {}; see {}.log in its host's folder", s.status.word(), server.name),
                (Ok(_), None) => format!("{} does not have the topology with it yet", server.host),
            };
            let seconds = patience.as_secs();
            return Err(Failure::Failed(format!("{} is not {} within {seconds} s: {why}", server.name, goal.word())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
