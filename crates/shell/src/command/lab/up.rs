//! `lab up`: make the folder, start the processes, initialise the pool, and say what to type next.

use super::{end_left_over, program};
use crate::agents::Agents;
use crate::command::run::who;
use crate::failure::{Failure, Outcome};
use crate::folder::{Context, Folder};
use crate::{output, watch};
use client::{ClientError, Directory, Http};
use cluster::secret::Purpose;
use lab::layout::Layout;
use lab::protocol::ask;
use lab::{Request, Shape};
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;
use wire::chat::RefusalCode;
use wire::http::{NewCategory, NewRoom, NewUser};
use wire::run::{RunAnswer, StartRun};

/// Longest wait for agents and servers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Users that a new lab has, so that newcomers can chat at once.
const USERS: [&str; 3] = ["ines", "mara", "tomas"];
/// Their password.
const PASSWORD: &str = "harbour-watch";
/// What a newcomer finds in the room.
const WELCOME: &str = "Welcome. What is acknowledged here outlives a site: try it with standfast lab kill site-1.";
/// The welcome's own id: however often it is posted, it is one message.
const WELCOME_ID: Uuid = Uuid::from_u128(0x0193_a000_0000_7000_8000_0057_e1c0_3e00);
/// Left in the lab's folder when it has its users and its room.
const WELCOMED: &str = "welcomed";

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The small edition: one site, one database, one server
    #[arg(long)]
    single: bool,
    /// A stretched variant of the reference: a has four servers at each site and a fast line, two of each active; b has a slow
    /// line, and the four near the database active
    #[arg(long, conflicts_with = "single")]
    variant: Option<Variant>,
    /// A witness at each site: a synchronised mirror takes over by itself when its principal is lost
    #[arg(long, conflicts_with_all = ["single", "variant"])]
    witness: bool,
    /// Ship the log through a bucket of a store that is there, s3://bucket/prefix, in place of a folder of the lab
    #[arg(long, value_name = "S3", requires = "s3_credentials", conflicts_with = "single")]
    share: Option<String>,
    /// Where that store is, as http://host:port; Amazon's when left out
    #[arg(long, value_name = "URL", requires = "share")]
    s3_endpoint: Option<String>,
    /// File with the key of the bucket, as docs/topology.md describes it
    #[arg(long, value_name = "FILE", requires = "share")]
    s3_credentials: Option<std::path::PathBuf>,
    /// Return when the pool is up, and leave it running
    #[arg(long)]
    detach: bool,
    /// The first of the ports that the lab uses; 7400 when left out
    #[arg(long, value_parser = clap::value_parser!(u16).range(1024..=60_000))]
    base_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Variant {
    A,
    B,
}

impl Args {
    /// The bucket that is asked for, with its key.
    fn bucket(&self) -> Result<Option<lab::Bucket>, Failure> {
        let (Some(share), Some(file)) = (&self.share, &self.s3_credentials) else { return Ok(None) };
        let credentials = std::fs::read_to_string(file)
            .map_err(|e| Failure::Usage(format!("read {}: {e}; it holds the key of the bucket", file.display())))?;
        Ok(Some(lab::Bucket { share: share.clone(), endpoint: self.s3_endpoint.clone(), credentials }))
    }

    /// The shape that is asked for; `None` when any is fine.
    fn shape(&self) -> Option<Shape> {
        match (self.single, self.variant) {
            _ if self.witness => Some(Shape::Witnessed),
            (true, _) => Some(Shape::Single),
            (false, Some(Variant::A)) => Some(Shape::VariantA),
            (false, Some(Variant::B)) => Some(Shape::VariantB),
            (false, None) => None,
        }
    }
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
    let (shape, base_port) = chosen(dir, &args)?;
    let bucket = args.bucket()?;
    end_left_over(dir).await?;
    free(shape, base_port).await?;
    let what = if shape == Shape::Single { "small pool" } else { "pool over two sites" };
    output::say(&format!("bringing up a {what} in {}", dir.display()));
    let up = async {
        lab::start(dir, shape, base_port, bucket.as_ref(), &program()?).await?;
        bring_up(context).await
    };
    let outcome = tokio::select! {
        outcome = up => outcome,
        () = interrupted() => Err(Failure::Failed("lab up was interrupted".into())),
    };
    if let Err(failure) = outcome {
        output::say("it did not come up; stopping what was started");
        // The reason that counts is the first one.
        let _ = ask(dir, &Request::Down).await;
        let _ = end_left_over(dir).await;
        return Err(failure);
    }
    let folder = Folder::open(dir)?;
    if context.json {
        output::json_line(&serde_json::json!({ "lab": dir, "servers": folder.server_urls() }))?;
    } else {
        guide(context, &folder, args.detach)?;
    }
    if args.detach { Ok(()) } else { foreground(dir).await }
}

/// Stay until told otherwise, then take the lab down.
async fn foreground(dir: &Path) -> Outcome {
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

/// The shape and the first port: a lab that is there keeps both.
fn chosen(dir: &Path, args: &Args) -> Result<(Shape, u16), Failure> {
    if !lab::layout::exists(dir) {
        return Ok((args.shape().unwrap_or(Shape::Stretched), args.base_port.unwrap_or(lab::DEFAULT_BASE_PORT)));
    }
    let shape = Layout::read(dir)?.shape;
    let port = Folder::open(dir)?.topology.servers.iter().find_map(|s| s.clients.at.rsplit_once(':')?.1.parse().ok());
    let base_port = port.unwrap_or(lab::DEFAULT_BASE_PORT);
    let differs = match (
        args.shape().is_some_and(|wanted| wanted != shape),
        args.base_port.filter(|wanted| *wanted != base_port),
    ) {
        (true, _) => format!("has the shape {}", words_of(shape)),
        (false, Some(_)) => format!("begins at port {base_port}"),
        (false, None) => return Ok((shape, base_port)),
    };
    Err(Failure::Refused(format!(
        "the lab that lies in {} {differs}; delete it with standfast lab down --delete, or take another folder with --dir",
        dir.display()
    )))
}

/// A shape in words.
fn words_of(shape: Shape) -> &'static str {
    match shape {
        Shape::Stretched => "of a pool over two sites with four servers",
        Shape::VariantA => "of variant A: two sites, a fast line",
        Shape::VariantB => "of variant B: two sites, a slow line",
        Shape::Witnessed => "of a pool over two sites with a witness at each",
        Shape::Single => "of a small pool",
    }
}

/// Every port of the lab has to be free. What was ended a moment ago may hold its ports a moment longer.
async fn free(shape: Shape, base_port: u16) -> Outcome {
    let ports = lab::layout::ports(shape, base_port);
    let began = Instant::now();
    loop {
        let bound = |port| std::net::TcpListener::bind(("127.0.0.1", port));
        let Some((port, error)) = ports.clone().find_map(|port| Some((port, bound(port).err()?))) else {
            return Ok(());
        };
        if began.elapsed() > Duration::from_secs(1) {
            return Err(Failure::Failed(format!(
                "port {port} cannot be used: {error}; the lab needs {base_port} to {}: choose others with --base-port \
                 PORT, and another folder with --dir if the lab is there already",
                ports.end - 1
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn bring_up(context: &Context) -> Outcome {
    let folder = context.folder()?;
    let agents = Agents::new(&folder)?;
    let record = agents_answer(&agents, &context.dir).await?;
    if !record {
        initialise(&agents, context.json).await?;
    }
    servers_serve(&agents, &folder).await?;
    let mark = context.dir.join(WELCOMED);
    if mark.exists() {
        return Ok(());
    }
    welcome(&folder).await?;
    std::fs::write(&mark, "").map_err(|e| Failure::Failed(format!("write {}: {e}", mark.display())))
}

/// Wait until every agent answers; tells whether the pool has been initialised.
async fn agents_answer(agents: &Agents, dir: &Path) -> Result<bool, Failure> {
    let began = Instant::now();
    loop {
        let view = agents.look().await.view;
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
    let wanted = StartRun {
        runbook: "initialise".into(),
        what_if: false,
        force: false,
        only_step: None,
        new_principal: None,
        limits: None,
        started_by: who(),
    };
    match agents.start_run(&host, &wanted, false).await? {
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
        let view = agents.look().await.view;
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
        ..NewCategory::default()
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
    unless_there(admin.create_room(&room).await.map(|_| ())).map_err(failed)?;
    let room = admin.room("Operations").await.map_err(failed)?;
    admin.post(room.id, WELCOME_ID, WELCOME).await.map(|_| ()).map_err(failed)
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
    let gone = async {
        while ask(dir, &Request::Status).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = interrupted() => {}
        () = gone => {}
    }
}

/// Ctrl-C or SIGTERM.
async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut term) => {
                term.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
