//! `standfast bench`: figures of this pool on this machine, with yardsticks beside them.

mod exposure;
mod failover;
mod log_shipping;
mod post;
mod postgres;
mod processor;
mod spread;
mod storm;
mod switch;
mod take_over;

use crate::failure::Outcome;
use crate::folder::Context;
use crate::output;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast bench post --rooms 100 --members 10 --seconds 10 --rounds 5\n\
    Build with --release: figures of a debug build say nothing.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Durable posts a second, and what each delivery costs
    Post(post::Args),
    /// How long people notice a failover and a failback; in a lab only
    Failover(failover::Args),
    /// How long people notice a planned and a forced switch within a mirror pair; in a lab only
    Switch(switch::Args),
    /// How long people notice that a principal with a witness is lost; in a lab with witnesses only
    TakeOver(take_over::Args),
    /// How far the backup is behind while people post, by stream and by the share alone
    Exposure(exposure::Args),
    /// Everybody of a server that is killed comes to the one that is left: what its people notice; in a lab only
    Storm(storm::Args),
    /// What people notice while log shipping is turned off and on
    LogShipping(log_shipping::Args),
}

/// Measure.
///
/// # Errors
/// When the pool does not stand up to it.
pub async fn run(context: &Context, args: Args) -> Outcome {
    if cfg!(debug_assertions) {
        output::say("WARNING: this is a debug build. Its figures say nothing; build with: cargo build --release");
    }
    match args.what {
        What::Post(args) => post::run(context, &args).await,
        What::Failover(args) => failover::run(context, &args).await,
        What::Switch(args) => switch::run(context, &args).await,
        What::TakeOver(args) => take_over::run(context, &args).await,
        What::Exposure(args) => exposure::run(context, &args).await,
        What::Storm(args) => storm::run(context, &args).await,
        What::LogShipping(args) => log_shipping::run(context, &args).await,
    }
}

/// How the program was built.
fn build_profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}
