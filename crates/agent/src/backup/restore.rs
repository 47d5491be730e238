//! Restoring a backup: laid out in a folder of its own, recovered by PostgreSQL as far as is wanted, and tried out or kept.

use crate::drill::client::Client;
use crate::drill::sandbox::{make_room, names};
use crate::drill::{Steps, folder_of};
use crate::error::Error;
use crate::host::Host;
use crate::one_host::{Names, OneHost, content, is_whole, new_secret};
use crate::postgres::conf::{Archive, Conf, RecoverTo};
use crate::postgres::process::Process;
use crate::state_file::StateFile;
use cluster::backup::{Backup, Proof, RestoreTo};
use cluster::drill::DrillReport;
use cluster::secret::{PoolSecret, SECRET_FILE};
use nix::sys::signal::Signal;
use rules::id::{Epoch, RoomId};
use std::path::Path;
use std::time::{Duration, Instant};
use store::whole::Whole;

/// Longest wait for PostgreSQL to recover a backup.
const RECOVERY_MAX: Duration = Duration::from_secs(24 * 3600);
/// What PostgreSQL writes into its log when the archive ends before the time that is wanted.
const TOO_SHORT: &str = "recovery ended before configured recovery target was reached";

/// Restore a backup into a throwaway pool, chat on it, read everything, and note what came of it.
///
/// # Errors
/// What failed: the backup cannot be restored.
pub async fn prove(host: &Host, backup: &Backup, report: &DrillReport) -> Result<Option<String>, Error> {
    let began = Instant::now();
    let tried = Box::pin(try_out(host, backup, &report.id, began)).await;
    if tried.is_err() && host.store.record().is_some_and(|r| r.run.is_some()) {
        // It made way for a run: that says nothing of the backup.
        return tried.map(|_| None);
    }
    let (took_ms, whole) = tried.as_ref().map_or((0, Whole::default()), Clone::clone);
    let proof = Proof {
        at_ms: jiff::Timestamp::now().as_millisecond(),
        took_ms,
        rooms: whole.rooms,
        entries: whole.entries,
        failed: tried.as_ref().err().map(ToString::to_string),
    };
    let says = proof.says();
    host.backups.prove(&backup.id, proof)?;
    tried.map(|_| Some(format!("{}: {says}", backup.id)))
}

async fn try_out(host: &Host, backup: &Backup, id: &str, began: Instant) -> Result<(u64, Whole), Error> {
    if backup.database != content() {
        return Err(Error::Unfit(format!("chat servers serve from {}, not from {}", content(), backup.database)));
    }
    let steps = Steps { host };
    let roles = secret_of(host, backup)?.1;
    let pool = OneHost::prepare(host, &folder_of(host), names(), &new_secret(), &roles, next_epoch(host, backup))?;
    steps.step("Check the backup against its checksums, and lay it out.", lay_out(host, backup, &pool)).await?;
    steps.step("Recover it to where it is consistent.", recover(&pool, RecoverTo::End, None)).await?;
    let _server = pool.start_server()?;
    let begin = async {
        pool.instance.sql.call_chat("begin_epoch", pool.epoch).await?;
        pool.let_in().await
    };
    steps.step("Begin a new epoch in it.", begin).await?;
    let client = Client::new(&pool.clients_at, id)?;
    let room = steps.step("Sign in, and make a room.", Box::pin(make_room(&pool, &client, id))).await?;
    steps.step("Post, and wait for the acknowledgement.", client.post(room)).await?;
    let took_ms = began.elapsed().as_millis() as u64;
    steps.step("Read the post again.", client.read_again(room)).await?;
    let reading = pool.read_all(room);
    let whole = steps.step("Read every entry of every room, and check it against the room's chain.", reading).await?;
    is_whole(&whole)?;
    Ok((took_ms, whole))
}

/// Restore a backup as a pool of one host, in a folder that is not there yet.
///
/// # Errors
/// What failed; the folder is not there then.
pub async fn restore(host: &Host, backup: &Backup, into: &Path, to: &RestoreTo) -> Result<Option<String>, Error> {
    let steps = Steps { host };
    let folder = folder_of(host);
    let topology = host.store.topology();
    let server = topology.servers.iter().find(|s| s.host == host.name).or(topology.servers.first());
    let names = Names {
        pool: backup.pool.clone(),
        site: host.store.site().to_string(),
        host: host.name.clone(),
        server: server.map_or_else(|| "server-1".to_owned(), |s| s.name.to_string()),
    };
    let (secret, roles) = secret_of(host, backup)?;
    let pool = OneHost::prepare(host, &folder, names, &secret, &roles, next_epoch(host, backup))?;
    steps.step("Check the backup against its checksums, and lay it out.", lay_out(host, backup, &pool)).await?;
    let (recover_to, archive) = match to {
        RestoreTo::Backup => (RecoverTo::End, None),
        RestoreTo::Latest => (RecoverTo::End, Some(archive(host, backup)?)),
        RestoreTo::Time(at_ms) => {
            let at = jiff::Timestamp::from_millisecond(*at_ms)
                .map_err(|e| Error::Unfit(format!("{at_ms} is no time: {e}")))?;
            if *at_ms < backup.done_at_ms {
                return Err(Error::Unfit(format!(
                    "{} was whole at {}, and cannot be restored to {at}, which is earlier; take an older backup",
                    backup.id,
                    jiff::Timestamp::from_millisecond(backup.done_at_ms).unwrap_or_default()
                )));
            }
            // PostgreSQL knows no names of zones when it reads this.
            let at = at.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string();
            (RecoverTo::Time(at), Some(archive(host, backup)?))
        }
    };
    let recovering = recover(&pool, recover_to, archive);
    let process = steps.step("Recover it as far as is wanted.", recovering).await?;
    let last = pool.last_applied_ms().await?.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let begin = pool.instance.sql.call_chat("begin_epoch", pool.epoch);
    steps.step("Begin a new epoch in it.", begin).await?;
    let reading = pool.read_all(RoomId(0));
    let whole = steps.step("Read every entry of every room, and check it against the room's chain.", reading).await?;
    is_whole(&whole)?;
    steps.step("Stop it.", pool.instance.stop(process, Signal::SIGINT)).await?;
    keep_state(&folder, pool.epoch)?;
    steps.step("Put it in its place.", put(&folder, into)).await?;
    let up_to = last.map_or_else(String::new, |at| format!("; the last of it was committed at {at}"));
    Ok(Some(format!(
        "{} entries in {} rooms, all fit{up_to}. It lies in {dir}, a pool of one host whose addresses are of this machine alone: \
         change them in {dir}/topology.toml, if others are to reach it, and start standfast --dir {dir} agent --host {}",
        whole.entries,
        whole.rooms,
        host.name,
        dir = into.display()
    )))
}

/// One more than any epoch that is known of.
fn next_epoch(host: &Host, backup: &Backup) -> Epoch {
    let present = host.store.record().map_or(backup.epoch, |r| r.epoch);
    Epoch(present.max(backup.epoch).0 + 1)
}

/// The secret that lies with a backup: its text, and what it derives.
fn secret_of(host: &Host, backup: &Backup) -> Result<(String, PoolSecret), Error> {
    let path = host.backups.folder_of(&backup.id).join("pool").join(SECRET_FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::file(format!("read {}", path.display())))?;
    let secret = PoolSecret::from_text(text.trim()).map_err(|e| Error::Unfit(format!("{}: {e}", path.display())))?;
    Ok((text, secret))
}

/// Where the log after the backup is.
fn archive(host: &Host, backup: &Backup) -> Result<Archive, Error> {
    let database = host.database(&backup.database);
    let share = database.as_ref().and_then(|d| d.share(host)).ok_or_else(|| {
        let name = &backup.database;
        Error::Unfit(format!("{name} ships no log here, so there is none after the backup: restore it without --to"))
    })?;
    share.archive()
}

/// The backup's files, checked and copied, as the data of the pool.
async fn lay_out(host: &Host, backup: &Backup, pool: &OneHost) -> Result<(), Error> {
    let from = host.backups.folder_of(&backup.id).join("data");
    let programs = &host.programs;
    let check = programs.run("pg_verifybackup", backup.database.as_str(), |command| {
        command.arg(&from);
    });
    check.await?;
    pool.instance.prepare_folders()?;
    let data = pool.instance.data();
    let copy = programs.run("/bin/cp", backup.database.as_str(), |command| {
        command.args(["-a", "--reflink=auto", "--"]).arg(&from).arg(&data);
    });
    copy.await.map(|_| ())
}

/// Let PostgreSQL recover the data and open it.
async fn recover(pool: &OneHost, to: RecoverTo, archive: Option<Archive>) -> Result<Process, Error> {
    let instance = &pool.instance;
    instance.become_restored()?;
    let conf = Conf { files_from: Some(instance.copied()), archive, recover_to: Some(to), ..instance.plain_conf() };
    instance.configure(&conf)?;
    let process = instance.start().await?;
    let began = Instant::now();
    loop {
        if instance.sql.probe().await.is_ok_and(|probe| !probe.in_recovery) {
            instance.configure(&instance.plain_conf())?;
            return Ok(process);
        }
        let log = instance.folder.join("log");
        if !process.is_alive() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(if said.contains(TOO_SHORT) {
                Error::Unfit(
                    "the finished segments in the share end before the time that is wanted: name an earlier one, or restore as far \
                     as they go, with --to latest"
                        .into(),
                )
            } else {
                let last: Vec<&str> = said.lines().rev().take(3).collect();
                let said = last.into_iter().rev().collect::<Vec<_>>().join(" / ");
                Error::Program { program: "postgres".into(), database: instance.database.to_string(), said }
            });
        }
        if began.elapsed() > RECOVERY_MAX {
            return Err(Error::Late {
                what: "the recovery of the backup".into(),
                seconds: RECOVERY_MAX.as_secs(),
                hint: format!("see {}", log.display()),
            });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What an agent has to know of the data: it is on the history of this epoch.
fn keep_state(folder: &Path, epoch: Epoch) -> Result<(), Error> {
    let agent = folder.join("agent");
    std::fs::create_dir_all(&agent).map_err(Error::file(format!("create {}", agent.display())))?;
    StateFile::open(folder, &content())?.change(|state| state.history_epoch = Some(epoch))
}

/// Move the folder, or copy it where it goes to another volume.
async fn put(folder: &Path, into: &Path) -> Result<(), Error> {
    let what = || format!("put the restored pool into {}", into.display());
    if let Some(parent) = into.parent() {
        std::fs::create_dir_all(parent).map_err(Error::file(what()))?;
    }
    match std::fs::rename(folder, into) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {}
        moved => return moved.map_err(Error::file(what())),
    }
    let copied = tokio::process::Command::new("/bin/cp").arg("-a").arg("--").arg(folder).arg(into).output().await;
    let copied = copied.map_err(Error::file(what()))?;
    if copied.status.success() {
        return Ok(());
    }
    crate::postgres::instance::remove(into)?;
    Err(Error::Unfit(format!("{}: {}", what(), String::from_utf8_lossy(&copied.stderr).trim())))
}
