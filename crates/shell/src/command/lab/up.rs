//! `lab up`: make the folder, start the processes, initialise the pool, and say what to type next.

use super::program;
use crate::agents::Agents;
use crate::command::run::who;
use crate::failure::{Failure, Outcome};
use crate::folder::{Context, Folder};
use crate::{output, watch};
use client::{ClientError, Directory, Http};
use cluster::secret::Purpose;
use lab::protocol::ask;
use lab::{Request, Shape};
use std::path::Path;
use std::time::{Duration, Instant};
use wire::chat::RefusalCode;
use wire::http::{NewCategory, NewRoom, NewUser};
use wire::run::{RunAnswer, StartRun};

/// Longest wait for agents and servers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Users that a new lab has, so that newcomers can chat at once.
const USERS: [&str; 3] = ["ines", "mara", "tomas"];
/// Their password.
const PASSWORD: &str = "harbour-watch";

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The small edition: one site, one database, one server
    #[arg(long)]
    single: bool,
    /// Return when the pool is up, and leave it running
    #[arg(long)]
    detach: bool,
    /// The first of the hundred ports that the lab uses
    #[arg(long, default_value_t = lab::DEFAULT_BASE_PORT)]
    base_port: u16,
}

/// Run the command.
///
/// # Errors
/// When a port is taken, or a part does not come up; what was started is stopped again.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let dir = &context.dir;
    if ask(dir, &Request::Status).await.is_ok() {
        let hint = "standfast lab down takes it down, and --dir with --base-port brings up another one beside it";
        return Err(Failure::Refused(format!("a lab is up in {} already; {hint}", dir.display())));
    }
    let fresh = !lab::layout::exists(dir);
    let shape = if args.single { Shape::Single } else { Shape::Stretched };
    output::say(&format!(
        "bringing up a {} in {}",
        if args.single { "small pool" } else { "pool over two sites" },
        dir.display()
    ));
    lab::start(dir, shape, args.base_port, &program()?).await?;
    if let Err(failure) = bring_up(context, fresh).await {
        output::say("it did not come up; stopping what was started");
        // The reason that counts is the first one.
        let _ = ask(dir, &Request::Down).await;
        return Err(failure);
    }
    if !context.json {
        guide(context, &Folder::open(dir)?, args.detach)?;
    }
    if args.detach {
        return Ok(());
    }
    until_told(dir).await;
    output::say("taking the lab down");
    match ask(dir, &Request::Down).await {
        Ok(_) => {
            output::say(&format!("stopped; its data is in {}, and the same command brings it up again", dir.display()));
        }
        Err(_) => output::say("it was taken down already"),
    }
    Ok(())
}

async fn bring_up(context: &Context, fresh: bool) -> Outcome {
    let folder = context.folder()?;
    let agents = Agents::new(&folder)?;
    let record = agents_answer(&agents, &context.dir).await?;
    if !record {
        initialise(&agents, context.json).await?;
    }
    servers_serve(&agents, &folder).await?;
    if fresh { welcome(&folder).await } else { Ok(()) }
}

/// Wait until every agent answers; tells whether the pool has been initialised.
async fn agents_answer(agents: &Agents, dir: &Path) -> Result<bool, Failure> {
    let began = Instant::now();
    loop {
        let view = agents.look().await;
        if view.silent.is_empty() {
            let done = view.record.is_some_and(|r| r.run.is_none_or(|run| run.runbook != "initialise"));
            return Ok(done);
        }
        if began.elapsed() > PATIENCE {
            let silent: Vec<String> = view.silent.iter().map(|(host, _)| host.to_string()).collect();
            return Err(Failure::Failed(format!(
                "the agents of {} do not answer; see agent.log below {} (a port that is taken is named there; --base-port \
                 chooses others)",
                silent.join(", "),
                dir.join("hosts").display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn initialise(agents: &Agents, json: bool) -> Outcome {
    let home = agents.topology.primary_site().ok_or_else(|| Failure::Failed("the topology has no site".into()))?;
    let host = home.authority.clone();
    let wanted =
        StartRun { runbook: "initialise".into(), what_if: false, force: false, only_step: None, started_by: who() };
    match agents.start_run(&host, &wanted).await? {
        RunAnswer::Started { id, .. } => watch::to_the_end(agents, &host, &id, json).await,
        RunAnswer::AlreadyThere { .. } | RunAnswer::Plan(_) => Ok(()),
        RunAnswer::Refused { unmet, .. } => {
            let why: Vec<String> = unmet.into_iter().map(|u| format!("{}; {}", u.why, u.hint)).collect();
            Err(Failure::Failed(why.join("\n")))
        }
    }
}

/// Wait until one of the active servers has done a real write.
async fn servers_serve(agents: &Agents, folder: &Folder) -> Outcome {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3)).build();
    let http = http.map_err(|e| Failure::Failed(format!("set up the HTTP client: {e}")))?;
    let began = Instant::now();
    loop {
        let view = agents.look().await;
        let active = view.record.map(|r| r.active_servers).unwrap_or_default();
        let mut well = !active.is_empty();
        for server in folder.topology.servers.iter().filter(|s| active.contains(&s.name)) {
            let asked = http.get(format!("http://{}/v1/health", server.clients.at)).send().await;
            well &= asked.is_ok_and(|r| r.status().is_success());
        }
        if well {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            let waiting: Vec<String> = view.reports.iter().flat_map(|r| r.waiting_for.clone()).collect();
            return Err(Failure::Failed(format!(
                "no server serves yet; the agents say: {}",
                if waiting.is_empty() { "nothing".into() } else { waiting.join("; ") }
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Users and a room for newcomers. What is there already stays as it is.
async fn welcome(folder: &Folder) -> Outcome {
    let failed = |e: ClientError| Failure::Failed(format!("create the lab's users and room: {e}"));
    let directory = Directory::new(folder.server_urls());
    let password = folder.secret.derive(Purpose::FirstAdministrator);
    let admin = Http::sign_in(directory, "admin", &password, PATIENCE).await.map_err(failed)?;
    for name in USERS {
        let user = NewUser { name: name.into(), password: Some(PASSWORD.into()), administrator: false };
        unless_there(admin.create_user(&user).await).map_err(failed)?;
    }
    let category = NewCategory {
        name: "Harbour".into(),
        description: "For everybody in this lab".into(),
        allowed_members: vec!["Everyone".into()],
        denied_members: Vec::new(),
        creators: Vec::new(),
    };
    unless_there(admin.create_category(&category).await.map(|_| ())).map_err(failed)?;
    let room = NewRoom {
        name: "Operations".into(),
        category: "Harbour".into(),
        description: "A room to begin with".into(),
        privacy: rules::access::Privacy::Open,
        kind: rules::access::RoomKind::Normal,
        members: Vec::new(),
    };
    unless_there(admin.create_room(&room).await.map(|_| ())).map_err(failed)
}

fn unless_there(result: Result<(), ClientError>) -> Result<(), ClientError> {
    match result {
        Err(ClientError::Refused { code: RefusalCode::Conflict, .. }) => Ok(()),
        other => other,
    }
}

fn guide(context: &Context, folder: &Folder, detached: bool) -> Outcome {
    let dir = if context.dir == Path::new(lab::DEFAULT_DIR) {
        String::new()
    } else {
        format!(" --dir {}", context.dir.display())
    };
    output::line(&format!("\nThe pool {} is up, in {}.\n", folder.topology.pool, context.dir.display()))?;
    for server in &folder.topology.servers {
        let what = if server.active { "accepts clients" } else { "standby, at the other site" };
        output::line(&format!(
            "  {}  http://{}  ({what}; /docs/frames and /openapi.json describe it)",
            server.name, server.clients.at
        ))?;
    }
    output::line("\nNext, in another terminal:\n")?;
    output::line(&format!(
        "  standfast{dir} chat --user ines --room Operations     # password: {PASSWORD}; also {}, {}",
        USERS[1], USERS[2]
    ))?;
    output::line(&format!("  standfast{dir} pool status"))?;
    if folder.topology.sites.len() > 1 {
        output::line(&format!(
            "  standfast{dir} replay samples/harbour-watch.txt --speed 60 --loop --ledger ledger.jsonl"
        ))?;
        output::line(&format!("  standfast{dir} lab kill site-1                        # lose a data centre"))?;
        output::line(&format!("  standfast{dir} failover                               # and go on at the other one"))?;
        output::line(&format!("  standfast{dir} lab start site-1"))?;
        output::line(&format!("  standfast{dir} failback"))?;
        output::line(&format!(
            "  standfast{dir} audit --ledger ledger.jsonl            # nothing lost, nothing doubled"
        ))?;
    } else {
        output::line(&format!("  standfast{dir} replay samples/harbour-watch.txt --speed 60 --ledger ledger.jsonl"))?;
        output::line(&format!("  standfast{dir} audit --ledger ledger.jsonl"))?;
    }
    output::line(&if detached {
        format!("\nIt stays up until: standfast{dir} lab down")
    } else {
        "\nCtrl-C takes it down; the data stays.".to_owned()
    })
}

/// Wait for Ctrl-C, SIGTERM, or the lab's end by another hand.
async fn until_told(dir: &Path) {
    let term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let gone = async {
        while ask(dir, &Request::Status).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let terminated = async {
        match term {
            Ok(mut term) => {
                term.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
        () = gone => {}
    }
}
