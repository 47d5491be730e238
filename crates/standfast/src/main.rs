//! The one binary: reads the command line and hands over to the role.

use clap::Parser;
use shell::{Command, Context, Failure, Outcome};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Persistent group chat that keeps its promises when a data centre is lost.
#[derive(Debug, Parser)]
#[command(name = "standfast", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// The pool's folder: topology.toml and pool.secret; a host's folder for agent and serve; a lab's folder
    #[arg(long, global = true, env = "STANDFAST_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    #[command(flatten)]
    Command(Command),
    /// Run a host's agent: its PostgreSQL instances, log shipping, the management store
    Agent {
        /// The host's name in the topology
        #[arg(long)]
        host: String,
        /// Start although the other site has not been heard: for an administrator who knows that it is gone
        #[arg(long)]
        without_peer: bool,
    },
    /// Run a chat server
    Serve {
        /// The server's name in the topology
        #[arg(long)]
        server: String,
        /// With so many threads; all processors of the machine if none is said
        #[arg(long, env = "STANDFAST_SERVER_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
        threads: Option<u16>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let open_files = raise_file_limit();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Role::Serve { threads: Some(threads), .. } = &cli.role {
        runtime.worker_threads(usize::from(*threads));
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(&Failure::Failed(format!("start the runtime: {error}"))),
    };
    let outcome = runtime.block_on(run(cli, open_files));
    // What is still under way in the background is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure),
    }
}

async fn run(cli: Cli, open_files: u64) -> Outcome {
    match cli.role {
        Role::Command(command) => {
            // A command talks to a person and says itself what failed; the lab's supervisor has a log file to write to.
            trace(if matches!(command, Command::Lab(_)) { "warn" } else { "off" });
            command.run(&Context::new(cli.dir, cli.json)).await
        }
        Role::Agent { host, without_peer } => {
            trace("info");
            let dir = host_folder(cli.dir)?;
            let host = cluster::name::HostName::from(host.as_str());
            let conductor = conductor::start(conductor::Config { dir: dir.clone(), host: host.clone() })?;
            let config = agent::Config { dir, host, without_peer };
            let beside = agent::Beside {
                routes: conductor::api::router(conductor.clone()),
                metrics: Arc::new(move |page| conductor::metrics::add(&conductor, page)),
            };
            agent::run(config, beside).await.map_err(|e| Failure::Failed(e.to_string()))
        }
        Role::Serve { server, .. } => {
            trace("info");
            let config = server::Config { dir: host_folder(cli.dir)?, server: server.as_str().into(), open_files };
            server::run(config).await.map_err(|e| Failure::Failed(e.to_string()))
        }
    }
}

fn host_folder(dir: Option<PathBuf>) -> Result<PathBuf, Failure> {
    dir.ok_or_else(|| Failure::Usage("name the host's folder with --dir or STANDFAST_DIR".into()))
}

/// The log goes to standard error; `STANDFAST_LOG` chooses what is in it.
fn trace(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("STANDFAST_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured).init();
}

/// Every connection is an open file: take as many as the system lets this process have. Returns how many those are.
fn raise_file_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    // A process that may not have more works with what it has.
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard)
}

fn end(failure: &Failure) -> ExitCode {
    if *failure == Failure::Closed {
        return ExitCode::from(failure.code());
    }
    shell::output::say(&format!("standfast: {failure}"));
    ExitCode::from(failure.code())
}
