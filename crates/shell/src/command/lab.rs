//! `lab`: a whole pool on this machine, to rehearse with. The processes are the product's own; the lab starts them, kills
//! them, and holds the links between the sites.

mod up;

use crate::agents::{Agents, Trouble};
use crate::failure::{Failure, Outcome};
use crate::folder::{Context, Folder, SYSTEM_DIR};
use crate::output;
use lab::protocol::{LinkState, Links, ask};
use lab::{Answer, Request, processes};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long agents that were started may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);
/// Time between two looks whether they do.
const LOOK: Duration = Duration::from_millis(20);

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Bring a pool up: stretched over two sites, or with --single the small edition
    Up(up::Args),
    /// Show what runs
    Status,
    /// SIGKILL to everything at a site or on a host, or to one process
    Kill {
        /// A site (site-1), a host (s1a), a server (server-1), or a process (s1a/agent, s1a/postgres)
        target: String,
    },
    /// Start what does not run
    Start {
        /// The same names; a database is started by its agent
        target: String,
        /// A variable for the started processes, as NAME=VALUE
        #[arg(long)]
        env: Vec<String>,
        /// Let the agents start without having heard the other site
        #[arg(long)]
        without_peer: bool,
    },
    /// SIGSTOP to everything at a site or on a host, or to one process: it stands still and refuses nothing
    Freeze {
        /// The same names
        target: String,
    },
    /// Let go on what was frozen
    Thaw {
        /// The same names
        target: String,
    },
    /// Change every link between the sites, or every link to and from one host
    Link {
        /// The links of this host, in a lab with witnesses
        #[arg(long, global = true)]
        host: Option<String>,
        /// Only those between the host and this one
        #[arg(long, global = true, requires = "host")]
        to: Option<String>,
        #[command(subcommand)]
        state: Link,
    },
    /// Stop everything cleanly; the data stays
    Down {
        /// Delete the lab's folder too
        #[arg(long)]
        delete: bool,
    },
    /// Hold the links and the processes (what lab up starts)
    #[command(hide = true)]
    Supervise,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Link {
    /// As they should be
    Up,
    /// Cut: connections are closed and refused
    Down,
    /// Nothing arrives, and nothing is refused
    Freeze,
    /// Everything arrives so many milliseconds late, each way
    Delay {
        /// Milliseconds
        ms: u64,
    },
}

/// Run the command.
///
/// # Errors
/// When no lab is up, or it refuses.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let dir = folder(context);
    match args.what {
        What::Up(args) => up::run(&Context { dir, json: context.json }, args).await,
        What::Supervise => Ok(lab::supervise::run(&dir, &program()?).await?),
        What::Status => status(&dir, context.json).await,
        What::Kill { target } => tell(&dir, context.json, Request::Kill { target }).await,
        What::Start { target, env, without_peer } => {
            let env = env.iter().map(|text| variable(text)).collect::<Result<_, _>>()?;
            tell(&dir, context.json, Request::Start { target: target.clone(), env, without_peer }).await?;
            agents_answer(&dir, &target).await
        }
        What::Freeze { target } => tell(&dir, context.json, Request::Freeze { target }).await,
        What::Thaw { target } => tell(&dir, context.json, Request::Thaw { target }).await,
        What::Link { host, to, state } => {
            let which = match (host, to) {
                (None, _) => Links::BetweenSites,
                (Some(host), None) => Links::OfHost(host),
                (Some(host), Some(to)) => Links::BetweenHosts(host, to),
            };
            let state = match state {
                Link::Up => LinkState::Up,
                Link::Down => LinkState::Down,
                Link::Freeze => LinkState::Frozen,
                Link::Delay { ms } => LinkState::Delayed(ms),
            };
            tell(&dir, context.json, Request::Link { state, which }).await
        }
        What::Down { delete } => down(&dir, context.json, delete).await,
    }
}

/// A lab never lies in the folder of this machine's real pool.
fn folder(context: &Context) -> PathBuf {
    if context.dir == Path::new(SYSTEM_DIR) { lab::DEFAULT_DIR.into() } else { context.dir.clone() }
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|e| Failure::Failed(format!("find this program on disk: {e}")))
}

fn variable(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Failure::Usage(format!("'{text}' is no variable; write it as NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Wait until the agents that a target means answer: whoever starts a site wants to go on with it, and a run that begins
/// before they answer takes their hosts for lost.
async fn agents_answer(dir: &Path, target: &str) -> Outcome {
    let agents = Agents::new(&Folder::open(dir)?)?;
    let meant = |name: &str, site: &str| target == name || target == site || target == format!("{name}/agent");
    let hosts = agents.topology.hosts.iter().filter(|h| meant(h.name.as_str(), h.site.as_str()));
    let began = Instant::now();
    for host in hosts {
        while let Err(Trouble::Silent(_)) = agents.report(&host.name).await {
            if began.elapsed() > ANSWERS {
                let log = dir.join("hosts").join(host.name.as_str()).join("agent.log");
                output::say(&format!("the agent of {} does not answer yet; see {}", host.name, log.display()));
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn tell(dir: &Path, json: bool, request: Request) -> Outcome {
    match ask(dir, &request).await? {
        answer if json => output::json(&answer),
        Answer::Done { message } => output::line(&message),
        Answer::Refused { message } => Err(Failure::Refused(message)),
        Answer::Status { .. } => Ok(()),
    }
}

async fn status(dir: &Path, json: bool) -> Outcome {
    let answer = ask(dir, &Request::Status).await?;
    if json {
        return output::json(&answer);
    }
    let Answer::Status { processes, link, links } = answer else {
        return Err(Failure::Failed(format!("the lab in {} answered in an unexpected form", dir.display())));
    };
    let mut rows = vec![["HOST", "PROCESS", "PID"].map(str::to_owned).to_vec()];
    for process in processes {
        rows.push(vec![process.host, process.name, process.pid.map_or("down".into(), |pid| pid.to_string())]);
    }
    output::table(&rows)?;
    output::line(&format!("links between the sites: {}", word(link)))?;
    for (which, link) in links {
        output::line(&format!("{which}: {}", word(link)))?;
    }
    Ok(())
}

fn word(link: LinkState) -> String {
    match link {
        LinkState::Up => "up".into(),
        LinkState::Down => "DOWN".into(),
        LinkState::Frozen => "FROZEN".into(),
        LinkState::Delayed(ms) => format!("{ms} ms late each way"),
    }
}

/// End what an earlier lab in this folder left running when its supervisor was lost.
async fn end_left_over(dir: &Path) -> Outcome {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    let left = processes::with_descendants(&processes::of_lab(&dir));
    if left.is_empty() {
        return Ok(());
    }
    output::say(&format!("ending {} processes that were left of an earlier lab", left.len()));
    Ok(processes::end_all(&left, Signal::SIGKILL, Duration::from_secs(10)).await?)
}

async fn down(dir: &Path, json: bool, delete: bool) -> Outcome {
    let answer = ask(dir, &Request::Down).await;
    match answer {
        Ok(answer) if json => output::json(&answer)?,
        Ok(Answer::Refused { message }) => return Err(Failure::Failed(message)),
        Ok(_) => output::line(&format!("the lab in {} is down", dir.display()))?,
        Err(message) if !delete => return Err(Failure::Failed(message)),
        Err(_) => {}
    }
    if !delete {
        return Ok(());
    }
    if !lab::layout::exists(dir) {
        return Err(Failure::Refused(format!("{} holds no lab; it is left as it is", dir.display())));
    }
    end_left_over(dir).await?;
    std::fs::remove_dir_all(dir).map_err(|e| Failure::Failed(format!("delete {}: {e}", dir.display())))
}
