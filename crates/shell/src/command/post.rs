//! `standfast post`: one message, durable when the command returns.

use super::tail::object;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::User;
use std::io::Read;
use uuid::Uuid;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: standfast post --user ines --room Operations 'the north chamber is closed'")]
pub struct Args {
    #[command(flatten)]
    user: User,
    /// The room's name
    #[arg(long, value_name = "ROOM")]
    room: String,
    /// The message's own id; given again, the message is not posted twice
    #[arg(long, value_name = "UUID")]
    client_id: Option<Uuid>,
    /// The message; read from standard input when left out
    text: Option<String>,
}

/// Post, wait until it is durable, and print its number.
///
/// # Errors
/// When it is refused, or no server takes it.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let text = match args.text {
        Some(text) => text,
        None => from_standard_input()?,
    };
    let http = args.user.sign_in(context).await?;
    let room = http.room(&args.room).await?;
    let posted = http.post(room.id, args.client_id.unwrap_or_else(Uuid::now_v7), &text).await?;
    if context.json {
        return object(&posted);
    }
    output::line(&posted.seq.to_string())
}

fn from_standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| Failure::Failed(format!("read the message from standard input: {e}")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
