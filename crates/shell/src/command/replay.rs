//! To be written.

use crate::failure::Outcome;
use crate::folder::Context;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Run the command.
///
/// # Errors
/// When it fails.
pub async fn run(_context: &Context, _args: Args) -> Outcome {
    Ok(())
}
