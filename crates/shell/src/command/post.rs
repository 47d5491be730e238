//! `standfast post`: one message, durable when the command returns.

use super::tail::{less_than, object};
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::User;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;
use wire::http::Posted;

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
    /// Put the receipt into this file, which must not be there yet; standfast verify receipt checks it
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
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
    // Before anything is posted: a receipt that cannot be kept is no evidence.
    let mut file = args.receipt.as_deref().map(create).transpose()?;
    let posted = async {
        let http = args.user.sign_in(context).await?;
        let room = http.room(&args.room).await?;
        Ok::<Posted, Failure>(http.post(room.id, args.client_id.unwrap_or_else(Uuid::now_v7), &text).await?)
    }
    .await;
    if let (Err(_), Some((_, path))) = (&posted, &file) {
        let _ = std::fs::remove_file(path);
    }
    let posted = posted?;
    if let Some((file, path)) = &mut file {
        keep(&posted, file, path)?;
    }
    if context.json {
        return object(&posted);
    }
    output::line(&posted.seq.to_string())?;
    output::say(&format!("durable on: {}", posted.durable));
    if let Some(asked) = posted.less_than {
        output::say(&less_than(posted.durable, asked));
    }
    Ok(())
}

fn create(path: &Path) -> Result<(File, &Path), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let failed = |e| Failure::Usage(format!("{}: {e}; give a name that is not taken", path.display()));
    opened.map(|file| (file, path)).map_err(failed)
}

/// The post is durable whatever becomes of its receipt.
fn keep(posted: &Posted, file: &mut File, path: &Path) -> Outcome {
    let failed = |why: &dyn std::fmt::Display| {
        let (seq, id) = (posted.seq, posted.client_id);
        Failure::Failed(format!(
            "the message is durable as number {seq}, and its receipt is not in {}: {why}; post it again with --client-id {id} \
             and another file to get one",
            path.display()
        ))
    };
    let receipt = posted.receipt.as_ref().ok_or_else(|| failed(&"the server gave none"))?;
    let mut line = serde_json::to_vec(receipt).map_err(|e| failed(&e))?;
    line.push(b'\n');
    file.write_all(&line).and_then(|()| file.sync_all()).map_err(|e| failed(&e))
}

fn from_standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| Failure::Failed(format!("read the message from standard input: {e}")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
