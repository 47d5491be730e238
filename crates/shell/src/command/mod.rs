//! The commands, one file each, named as they are typed.

pub mod active_servers;
pub mod audit;
pub mod backup;
pub mod bench;
mod canary;
pub mod category;
pub mod chat;
pub mod database;
pub mod drill;
pub mod history;
pub mod lab;
pub mod log_shipping;
pub mod metrics;
pub mod mirror;
pub mod notify;
pub mod pool;
pub mod post;
pub mod preflight;
pub mod replay;
pub mod room;
pub mod run;
pub mod runbook;
pub mod service;
pub mod shell;
pub mod start_alone;
pub mod step;
pub mod tail;
pub mod tails;
pub mod topology;
pub mod torture;
pub mod user;
pub mod verify;

use crate::failure::Outcome;
use crate::folder::Context;

/// What an administrator or a user types.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Fail over to the other site: say what was found and what would be lost, ask, carry out the runbook
    Failover(run::Failover),
    /// Fail back to the primary site, online up to the last hand-over
    Failback(run::Args),
    /// Carry out one step of a runbook
    Step(step::Args),
    /// List the runs of runbooks, show one, or take one up again
    Runbook(runbook::Args),
    /// Say whether a failover or a failback would begin right now, and what would make it worse; for cron
    Preflight(preflight::Args),
    /// Show how the pool stands
    Pool(pool::Args),
    /// Let principal and mirror of a site change places, as planned or forced
    Database(database::Args),
    /// Install or remove the mirror of the principal, or show its state
    Mirror(mirror::Args),
    /// Turn log shipping to the backup off and on, or show its state and its history
    LogShipping(log_shipping::Args),
    /// Make, list, prove and restore backups of the pool
    Backup(backup::Args),
    /// Rehearse a failover on a throwaway copy of the backup, and see what earlier rehearsals found
    Drill(drill::Args),
    /// Let Prometheus read metrics of agents and chat servers
    Metrics(metrics::Args),
    /// Try whether notices arrive, by webhook and mail, and see what became of them
    Notify(notify::Args),
    /// Show or set the servers that accept clients
    ActiveServers(active_servers::Args),
    /// Start and stop chat servers on their hosts, or list them
    Service(service::Args),
    /// Check, publish or show the topology
    Topology(topology::Args),
    /// The reference's commands and database statements, at a prompt, from -c, or from a script
    Shell(shell::Args),
    /// Chat in a room
    Chat(chat::Args),
    /// Post one message
    Post(post::Args),
    /// Read a room's history
    History(history::Args),
    /// Follow a room; or list, show and export what lost sites had acknowledged and history went on without
    Tail(tail::Args),
    /// Create users
    User(user::Args),
    /// Create and change categories
    Category(category::Args),
    /// Create, list and change rooms
    Room(room::Args),
    /// Play conversations as real clients, and write what they were told and saw into a ledger
    Replay(replay::Args),
    /// Compare a ledger with every room's log and with what each client saw
    Audit(audit::Args),
    /// Check rooms' logs against their chains: nothing changed, swapped, taken out or put in
    Verify(verify::Args),
    /// Measure
    Bench(bench::Args),
    /// Strike a lab of its own at random while people chat, for as long as wanted, and let the auditor decide
    Torture(torture::Args),
    /// A whole pool on this machine, to rehearse with
    Lab(lab::Args),
}

impl Command {
    /// Run the command.
    ///
    /// # Errors
    /// When it does not succeed, with the sentence and the exit code.
    pub async fn run(self, context: &Context) -> Outcome {
        match self {
            Command::Failover(args) => run::failover(context, args).await,
            Command::Failback(args) => run::run(context, "failback", args).await,
            Command::Step(args) => step::run(context, args).await,
            Command::Runbook(args) => runbook::run(context, args).await,
            Command::Preflight(args) => preflight::run(context, args).await,
            Command::Pool(args) => pool::run(context, args).await,
            Command::Database(args) => database::run(context, args).await,
            Command::Mirror(args) => mirror::run(context, args).await,
            Command::LogShipping(args) => log_shipping::run(context, args).await,
            Command::Backup(args) => backup::run(context, args).await,
            Command::Drill(args) => drill::run(context, args).await,
            Command::Metrics(args) => metrics::run(context, args),
            Command::Notify(args) => notify::run(context, args).await,
            Command::ActiveServers(args) => active_servers::run(context, args).await,
            Command::Service(args) => service::run(context, args).await,
            Command::Topology(args) => topology::run(context, args).await,
            Command::Shell(args) => shell::run(context, args).await,
            Command::Chat(args) => chat::run(context, args).await,
            Command::Post(args) => post::run(context, args).await,
            Command::History(args) => history::run(context, args).await,
            Command::Tail(args) => tail::run(context, args).await,
            Command::User(args) => user::run(context, args).await,
            Command::Category(args) => category::run(context, args).await,
            Command::Room(args) => room::run(context, args).await,
            Command::Replay(args) => replay::run(context, args).await,
            Command::Audit(args) => audit::run(context, args).await,
            Command::Verify(args) => verify::run(context, args).await,
            Command::Bench(args) => bench::run(context, args).await,
            Command::Torture(args) => torture::run(context, args).await,
            Command::Lab(args) => lab::run(context, args).await,
        }
    }
}
