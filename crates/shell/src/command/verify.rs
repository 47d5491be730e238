//! `standfast verify`: rooms' logs against their chains, in the pool or from an export.

use super::tail::harmless;
use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::folder::{Context, Folder};
use crate::output;
use crate::signed_in::administrator;
use client::countersigned::Heads;
use client::receipts::check_file;
use client::verify::{Checked, FORMAT, Named, RoomHead, read_chain, verify_export, verify_room};
use cluster::name::DatabaseName;
use cluster::topology_file::CONTENT_DATABASE;
use rules::id::{Epoch, RoomId, Seq};
use rules::signature::PublicKey;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use wire::chain::ExportLine;
use wire::receipt::Key;

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
    /// Check receipts: a file with one in each line, or a ledger; no pool is needed with --key
    #[command(after_help = "Example: standfast verify receipt ledger.jsonl")]
    Receipt {
        /// The file
        file: PathBuf,
        /// The pool's key, as standfast verify key prints it; that of the pool's folder when left out. May be given several
        /// times: a pool whose secret was changed has had others
        #[arg(long, value_name = "KEY", value_parser = public_key)]
        key: Vec<PublicKey>,
    },
    /// Print the key with which receipts and exports are checked
    #[command(after_help = "Example: standfast verify key")]
    Key,
    /// Check a file that verify export has written; no pool is needed
    #[command(after_help = "Example: standfast verify file operations.jsonl")]
    File {
        /// The file
        file: PathBuf,
        /// A key that has to have signed the room's head, as standfast verify key prints it; may be given several times
        #[arg(long, value_name = "KEY", value_parser = public_key)]
        key: Vec<PublicKey>,
    },
}

/// Check, and name the first entry of each room that does not fit.
///
/// # Errors
/// When a log or a file cannot be read; `Refused` when something does not fit.
pub async fn run(context: &Context, args: Args) -> Outcome {
    match args.what {
        What::Room { name } => {
            let (folder, http) = administrator(context).await?;
            let heads = countersigned(&folder).await?;
            let room = http.room(&name).await?;
            let checked = verify_room(&http, room.id, &room.name, &heads.of(room.id)).await?;
            judge(context, &[checked], &heads)
        }
        What::Pool => {
            let (folder, http) = administrator(context).await?;
            let heads = countersigned(&folder).await?;
            let rooms = http.rooms().await?;
            let mut all = Vec::with_capacity(rooms.len());
            for room in &rooms {
                all.push(verify_room(&http, room.id, &room.name, &heads.of(room.id)).await?);
            }
            let epoch = http.servers().await?.epoch;
            let is_there = |id: RoomId| rooms.iter().any(|room| room.id == id);
            all.extend(heads.rooms().filter(|id| !is_there(*id)).filter_map(|id| gone(&heads, id, epoch)));
            judge(context, &all, &heads)
        }
        What::Receipt { file, key } => receipts(context, &file, key),
        What::Key => {
            let folder = context.folder()?;
            let key = Key::from(folder.secret.signing_key().public());
            if context.json { output::json(&key) } else { output::line(&key.public.to_string()) }
        }
        What::Export { name, to } => export(context, &name, &to).await,
        What::File { file, key } => {
            let wrong = |e: &dyn std::fmt::Display| Failure::Usage(format!("{}: {e}", file.display()));
            let opened = File::open(&file).map_err(|e| wrong(&e))?;
            let checked = verify_export(BufReader::new(opened), &key).map_err(|e| wrong(&e))?;
            if key.is_empty() {
                output::say("without --key nothing says who wrote this file; standfast verify key prints the pool's");
            }
            judge(context, &[checked], &Heads::default())
        }
    }
}

/// What the pool's hosts have countersigned. A host that does not answer is told, and passed over: the pool may have lost it.
async fn countersigned(folder: &Folder) -> Result<Heads, Failure> {
    let agents = Agents::new(folder)?;
    let (pool, name) = (&folder.topology.pool, DatabaseName::from(CONTENT_DATABASE));
    let mut heads = Heads::default();
    for host in folder.topology.hosts.iter().map(|host| &host.name) {
        if folder.topology.database(&name).and_then(|database| database.instance_on(host)).is_none() {
            continue;
        }
        let mut wrong = None;
        let line = |line: &str| {
            if let Err(why) = heads.take(pool, host.as_str(), line) {
                wrong.get_or_insert(why);
            }
            Ok(())
        };
        if let Err(failure) = agents.heads(host, &name, line).await {
            output::say(&format!("not compared with what {host} has countersigned: {failure}"));
        }
        if let Some(why) = wrong {
            return Err(Failure::Refused(format!(
                "the heads that {host} has countersigned were changed: {why}. Find out who has changed the files in its folder \
                 heads, put them aside, and its agent begins new ones"
            )));
        }
    }
    Ok(heads)
}

/// A room of which heads were countersigned, and that is not there: a failover may have taken it, or it was deleted.
fn gone(heads: &Heads, room: RoomId, epoch: Epoch) -> Option<Checked> {
    let (seen_in, seq) = heads.newest(room)?;
    if seen_in < epoch {
        output::say(&format!(
            "room {room} had entries in epoch {seen_in} and is not there: a failover may have taken it"
        ));
        return None;
    }
    let differs = "the room is gone, and the other site has countersigned its log".to_owned();
    let fault = Some(Named { seq, differs });
    Some(Checked { room, name: format!("number {room}"), last_seq: Seq::START, chain: None, fault })
}

fn judge(context: &Context, all: &[Checked], heads: &Heads) -> Outcome {
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
        for (host, key) in &heads.keys {
            output::line(&format!("compared with heads that {host} has countersigned with its key {key}"))?;
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

/// The keys that are trusted: those that were given, else that of the folder.
fn trusted(context: &Context, given: Vec<PublicKey>) -> Result<Vec<PublicKey>, Failure> {
    if given.is_empty() { Ok(vec![context.folder()?.secret.signing_key().public()]) } else { Ok(given) }
}

fn receipts(context: &Context, file: &Path, keys: Vec<PublicKey>) -> Outcome {
    let wrong = |e: &dyn std::fmt::Display| Failure::Usage(format!("{}: {e}", file.display()));
    let opened = File::open(file).map_err(|e| wrong(&e))?;
    let checked = check_file(BufReader::new(opened), trusted(context, keys)?).map_err(|e| wrong(&e))?;
    if context.json {
        output::json(&checked)?;
    } else {
        for finding in &checked.findings {
            output::line(&format!("line {}: {}", finding.line, finding.why))?;
        }
        output::line(&format!("verified {} receipts, {} do not fit", checked.receipts, checked.unproved))?;
    }
    if checked.unproved == 0 {
        return Ok(());
    }
    Err(Failure::Refused("not every receipt is what the pool has signed".to_owned()))
}

/// A key on the command line.
///
/// # Errors
/// When it is none, in a sentence.
pub fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_hex(text)
        .ok_or_else(|| "a key has 64 hexadecimal digits; standfast verify key prints it".to_owned())
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
        let head = read_chain(&http, room.id, |entry| write(&ExportLine::Entry(entry))).await?;
        let RoomHead { last_seq, chain, signed } = head;
        write(&ExportLine::End { last_seq, chain, signed })?;
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
