//! Backups on this host: made from its own standby, kept in `backups`, proven and restored.
//!
//! Each has a folder: `data` as PostgreSQL's own program copied it, with its log; `pool` with topology, record and secret, all as
//! they stood when the copy began; `backup.json`, which tells of it. It has another name until it is whole. [`make`] makes them, [`restore`] restores them.

mod make;
mod restore;

use crate::drill;
use crate::error::Error;
use crate::files;
use crate::host::Host;
use crate::postgres::instance::{remove, volume};
use crate::postgres::process::running;
use cluster::backup::{AskBackup, Backup, BackupsReport, Proof, report};
use cluster::drill::{ROOM_BESIDE_BYTES, StartDrill, Work};
use cluster::report::{InstanceReport, InstanceState};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The folder of the backups, in the host's.
const FOLDER: &str = "backups";
/// What tells of a backup, in its folder.
const DESCRIPTION: &str = "backup.json";

/// The backups of a host.
pub struct Shelf {
    folder: PathBuf,
    kept: Mutex<Vec<Backup>>,
}

impl Shelf {
    /// Take up what is there. What was being made or thrown away when an agent was killed goes; what else lies there is left
    /// alone, a backup whose description cannot be read as well.
    ///
    /// # Errors
    /// When what an agent has left cannot be removed.
    pub fn open(host_folder: &Path) -> Result<Self, Error> {
        let folder = host_folder.join(FOLDER);
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_half(&entry.file_name().to_string_lossy()) {
                let copying = running("pg_basebackup", &path.join("data"));
                copying.iter().for_each(|process| process.signal(Signal::SIGKILL));
                remove(&path)?;
                continue;
            }
            match files::read_json(&path.join(DESCRIPTION)) {
                Ok(described) => kept.extend(described),
                Err(error) => tracing::error!(path = %path.display(), %error, "a backup's description cannot be read"),
            }
        }
        kept.sort_by_key(|b: &Backup| b.began_at_ms);
        Ok(Self { folder, kept: Mutex::new(kept) })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<Backup>) -> T) -> T {
        change(&mut self.kept.lock().expect("nothing panics while it holds the backups"))
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Backup> {
        self.change(|kept| kept.clone())
    }

    /// What is told of them in the host's report.
    pub fn report(&self) -> Option<BackupsReport> {
        self.change(|kept| report(kept.iter()))
    }

    fn folder_of(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    fn find(&self, id: &str) -> Option<Backup> {
        self.change(|kept| kept.iter().find(|b| b.id == id).cloned())
    }

    /// Where a backup is made, until it is whole.
    fn folder_of_half(&self, id: &str) -> PathBuf {
        self.folder.join(half(id))
    }

    /// Put a backup that is whole into its place.
    fn put(&self, backup: Backup) -> Result<(), Error> {
        let (half, whole) = (self.folder_of_half(&backup.id), self.folder_of(&backup.id));
        describe(&half, &backup)?;
        std::fs::rename(&half, &whole).map_err(Error::file(format!("put {} in place", whole.display())))?;
        self.take_up(backup);
        Ok(())
    }

    fn take_up(&self, backup: Backup) {
        self.change(|kept| {
            kept.retain(|b| b.id != backup.id);
            kept.push(backup);
            kept.sort_by_key(|b| b.began_at_ms);
        });
    }

    /// Note what came of restoring one.
    fn prove(&self, id: &str, proof: Proof) -> Result<(), Error> {
        let Some(backup) = self.find(id) else { return Ok(()) };
        let backup = Backup { proof: Some(proof), ..backup };
        describe(&self.folder_of(id), &backup)?;
        self.take_up(backup);
        Ok(())
    }

    /// Throw one away: it loses its name first, so that half of one is none.
    fn throw_away(&self, id: &str) -> Result<(), Error> {
        let (half, whole) = (self.folder_of_half(id), self.folder_of(id));
        std::fs::rename(&whole, &half).map_err(Error::file(format!("throw {} away", whole.display())))?;
        self.change(|kept| kept.retain(|b| b.id != id));
        remove(&half)
    }
}

/// What the names of folders begin with that hold half of a backup.
const HALF: &str = ".half-";

/// The name of a folder that holds half of a backup.
fn half(id: &str) -> String {
    format!("{HALF}{id}")
}

fn is_half(name: &str) -> bool {
    name.starts_with(HALF)
}

fn describe(folder: &Path, backup: &Backup) -> Result<(), Error> {
    let path = folder.join(DESCRIPTION);
    files::replace_json(&path, backup).map_err(Error::file(format!("write {}", path.display())))
}

/// Begin what is asked for; it goes on by itself, and is watched as drills are.
///
/// # Errors
/// When it may not begin, with the reason and what to do.
pub async fn begin(host: &Arc<Host>, asked: AskBackup) -> Result<cluster::drill::DrillReport, Error> {
    let unfit = |what: &str, why: String| Error::Unfit(format!("{what} on {} cannot begin: {why}", host.name));
    match asked {
        AskBackup::Create { database: name, keep, by } => {
            let what = format!("a backup of {name}");
            let database =
                host.database(&name).ok_or_else(|| unfit(&what, "there is no instance of it here".into()))?;
            let bytes = bytes_in(database.instance.data()).await;
            if let Some(why) = refusal(&database.report(host).await, bytes, free_bytes(&host.folder)) {
                return Err(unfit(&what, why));
            }
            let asked = StartDrill { database: name, by };
            drill::go(host, Work::Backup, &asked, async move |host, report| {
                make::make(&host, &database, &report, keep).await.map(Some)
            })
        }
        AskBackup::Prove { id, by } => {
            let what = format!("a proof of {id}");
            let (backup, asked) = known(host, &id, by).ok_or_else(|| unfit(&what, unknown(host)))?;
            if let Some(why) = no_room(backup.bytes, free_bytes(&host.folder)) {
                return Err(unfit(&what, why));
            }
            drill::go(host, Work::Proof, &asked, async move |host, report| {
                restore::prove(&host, &backup, &report).await
            })
        }
        AskBackup::Restore { id, into, to, by } => {
            let what = format!("a restore of {id}");
            let (backup, asked) = known(host, &id, by).ok_or_else(|| unfit(&what, unknown(host)))?;
            let into = PathBuf::from(into);
            if !into.is_absolute() {
                return Err(unfit(&what, format!("{} is no absolute path", into.display())));
            }
            if into.exists() {
                return Err(unfit(&what, format!("{} is there already; name a folder that is not", into.display())));
            }
            let parent = into.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
            if let Some(why) = no_room(backup.bytes, free_bytes(parent)) {
                return Err(unfit(&what, why));
            }
            drill::go(host, Work::Restore, &asked, async move |host, _| {
                restore::restore(&host, &backup, &into, &to).await
            })
        }
    }
}

fn known(host: &Host, id: &str, by: String) -> Option<(Backup, StartDrill)> {
    let backup = host.backups.find(id)?;
    let asked = StartDrill { database: backup.database.clone(), by };
    Some((backup, asked))
}

fn unknown(host: &Host) -> String {
    format!("{} has no such backup; standfast backup list shows which there are", host.name)
}

async fn bytes_in(folder: PathBuf) -> u64 {
    tokio::task::spawn_blocking(move || files::bytes_in(&folder)).await.unwrap_or(u64::MAX)
}

fn free_bytes(folder: &Path) -> u64 {
    volume(folder).map_or(0, |v| v.1)
}

/// Why no backup can be made of an instance, and what to do; `None` when one can. Pure.
fn refusal(instance: &InstanceReport, data_bytes: u64, free_bytes: u64) -> Option<String> {
    if !matches!(instance.state, InstanceState::Standby | InstanceState::Online) {
        return Some("its instance does not run; see standfast pool status".into());
    }
    no_room(data_bytes, free_bytes)
}

fn no_room(bytes: u64, free_bytes: u64) -> Option<String> {
    let needed = bytes.saturating_add(ROOM_BESIDE_BYTES);
    (free_bytes < needed).then(|| {
        format!(
            "it needs {} MB on the volume, and {} MB are free; make room, or put the folder on a larger volume",
            needed.div_ceil(1 << 20),
            free_bytes >> 20
        )
    })
}
