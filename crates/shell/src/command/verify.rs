//! `standfast verify`: rooms' logs against their chains, in the pool or from an export.

use super::tail::harmless;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use crate::signed_in::administrator;
use client::verify::{Checked, FORMAT, read_chain, verify_export, verify_room};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use wire::chain::ExportLine;

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit code 0: all fits. 3: an entry does not, and the first one is named. docs/receipts.md has the rules."
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

/// What is to be checked.
#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Check the log of a room
    #[command(after_help = "Example: standfast verify room Operations")]
    Room {
        /// The room's name
        name: String,
    },
    /// Check the logs of all rooms
    #[command(after_help = "Example: standfast verify pool")]
    Pool,
    /// Write a room's log with its chain into a file, a line of JSON for each entry
    #[command(after_help = "Example: standfast verify export Operations --to operations.jsonl")]
    Export {
        /// The room's name
        name: String,
        /// Into this file, which must not be there yet
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Check a file that verify export has written; no pool is needed
    #[command(after_help = "Example: standfast verify file operations.jsonl")]
    File {
        /// The file
        file: PathBuf,
    },
}

/// Check, and name the first entry of each room that does not fit.
///
/// # Errors
/// When a log or a file cannot be read; `Refused` when something does not fit.
pub async fn run(context: &Context, args: Args) -> Outcome {
    match args.what {
        What::Room { name } => {
            let (_, http) = administrator(context).await?;
            let room = http.room(&name).await?;
            let checked = verify_room(&http, room.id, &room.name).await?;
            judge(context, &[checked])
        }
        What::Pool => {
            let (_, http) = administrator(context).await?;
            let mut all = Vec::new();
            for room in http.rooms().await? {
                all.push(verify_room(&http, room.id, &room.name).await?);
            }
            judge(context, &all)
        }
        What::Export { name, to } => export(context, &name, &to).await,
        What::File { file } => {
            let wrong = |e: &dyn std::fmt::Display| Failure::Usage(format!("{}: {e}", file.display()));
            let opened = File::open(&file).map_err(|e| wrong(&e))?;
            let checked = verify_export(BufReader::new(opened)).map_err(|e| wrong(&e))?;
            judge(context, &[checked])
        }
    }
}

fn judge(context: &Context, all: &[Checked]) -> Outcome {
    let entries: i64 = all.iter().map(|checked| checked.last_seq.0).sum();
    let wrong = all.iter().filter(|checked| checked.fault.is_some()).count();
    if context.json {
        output::json(&all)?;
    } else {
        for checked in all {
            if let Some(fault) = &checked.fault {
                let (name, differs) = (harmless(&checked.name), &fault.differs);
                output::line(&format!("room '{name}', number {}: {differs}", fault.seq))?;
            } else if let ([checked], Some(chain)) = (all, checked.chain) {
                output::line(&format!(
                    "room '{}', number {}: running hash {chain}",
                    harmless(&checked.name),
                    checked.last_seq
                ))?;
            }
        }
        output::line(&format!("verified {} rooms, {entries} entries, {wrong} rooms do not fit", all.len()))?;
    }
    if wrong == 0 {
        return Ok(());
    }
    let message = "what is logged is not what was written. Compare with a standby, the backup or an earlier export, and find \
                   out who has changed the database";
    Err(Failure::Refused(message.to_owned()))
}

/// The file is there when all of it is on disk.
async fn export(context: &Context, name: &str, to: &Path) -> Outcome {
    let (_, http) = administrator(context).await?;
    let room = http.room(name).await?;
    let failed = |e: &dyn std::fmt::Display| Failure::Failed(format!("write {}: {e}", to.display()));
    let taken = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Usage(format!("{} is there already; give another name", to.display()))
        }
        _ => failed(&e),
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(taken)?;
    let mut file = BufWriter::new(file);
    let written = async {
        let mut write = |line: &ExportLine| {
            serde_json::to_writer(&mut file, line).map_err(|e| failed(&e))?;
            file.write_all(b"\n").map_err(|e| failed(&e))
        };
        write(&ExportLine::Room { room: room.id, name: room.name.clone(), format: FORMAT })?;
        let (last_seq, chain) = read_chain(&http, room.id, |entry| write(&ExportLine::Entry(entry))).await?;
        write(&ExportLine::End { last_seq, chain })?;
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(|e| failed(&e))?;
        Ok(last_seq)
    }
    .await;
    match written {
        Ok(last_seq) => {
            output::line(&format!("{last_seq} entries of room '{}' are in {}", harmless(&room.name), to.display()))
        }
        Err(failure) => {
            // What has been written is no export, and would stand in the way of the next attempt.
            let _ = std::fs::remove_file(to);
            Err(failure)
        }
    }
}
