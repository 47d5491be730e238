//! `shell`: the reference's commands and database statements, at a prompt, from `-c`, or from a script.

use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::prompt;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  standfast shell\n  standfast shell -c 'Get-CsPersistentChatState'\n  \
    standfast shell failover.ps1\n\nIn the shell, help lists the statements, and Get-Help NAME explains one. Plain \
    commands are understood too, such as: step failover copy-remaining-log.")]
pub struct Args {
    /// Statements to carry out, in place of the prompt
    #[arg(short = 'c', long = "command", value_name = "STATEMENTS", conflicts_with = "file")]
    command: Option<String>,
    /// A script; - for standard input
    file: Option<PathBuf>,
}

/// Run the command.
///
/// # Errors
/// When a statement is not understood (nothing is carried out then), or the first one that fails.
pub async fn run(context: &Context, args: Args) -> Outcome {
    let read_input = || {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map(|_| text).map_err(|e| Failure::Failed(format!("read standard input: {e}")))
    };
    let script = match (args.command, args.file) {
        (Some(statements), _) => Some(statements),
        (None, Some(file)) if file.as_os_str() == "-" => Some(read_input()?),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(&file);
            Some(text.map_err(|e| Failure::Usage(format!("read the script {}: {e}", file.display())))?)
        }
        (None, None) if !std::io::stdin().is_terminal() => Some(read_input()?),
        (None, None) => None,
    };
    match script {
        Some(text) => prompt::script(context, &text).await,
        None => prompt::interactive(context).await,
    }
}
