//! Making an instance a standby of somebody else's history: base backup, rewind, and what is kept before.

use crate::error::Error;
use crate::postgres::conf::{Archive, Conf};
use crate::postgres::history::{self, History, Kept, segment};
use crate::postgres::instance::{Instance, remove};
use crate::postgres::share::{SEGMENT_BYTES, place};
use cluster::secret::{ROLE_ADMIN, ROLE_REPLICATION};
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Between two looks whether another program still works on the data.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Replace the data by an online base backup from `at`, as a standby.
pub async fn base_backup(instance: &Instance, at: &str) -> Result<String, Error> {
    instance.prepare_folders()?;
    let data = instance.data();
    let fresh = instance.folder.join("data.new");
    let alone = alone(instance).await?;
    remove(&fresh)?;
    let from = instance.connection_to(at, ROLE_REPLICATION, "replication", "pg_basebackup");
    let run = instance.programs.run("pg_basebackup", instance.database.as_str(), |command| {
        command.stdin(alone).arg("-D").arg(&fresh).arg("-d").arg(&from);
        command.args(["--wal-method=stream", "--checkpoint=fast", "--no-password"]);
    });
    run.await?;
    remove(&data)?;
    fs::rename(&fresh, &data).map_err(Error::file(format!("put {} in place", data.display())))?;
    clear(&instance.copied())?;
    clear(&instance.copied().join(crate::postgres::copy::PARTIAL))?;
    instance.configure(&instance.plain_conf())?;
    instance.become_standby()?;
    Ok(format!("copied from {at}"))
}

/// Rewind the data to the history of the writer at `at`, as a standby. The writer must have finished a checkpoint on its
/// present timeline: before that, its control file does not show it, and pg_rewind sees nothing to do.
/// `archive` is where this instance's own finished segments went: the rewind needs them back to the last common
/// checkpoint, and some may be gone from the data. `begins` is called before the data is touched: where a rewind was cut off
/// the data may be half of each history, and PostgreSQL's manual has it copied anew.
///
/// # Errors
/// When a program of PostgreSQL fails; and when the data is on the writer's own timeline: its recovery, which comes before a
/// rewind, would write log of its own there, and no program could tell the two apart afterwards.
pub async fn rewind(
    instance: &Instance,
    at: &str,
    archive: Option<Archive>,
    begins: impl FnOnce() -> Result<(), Error>,
) -> Result<String, Error> {
    checkpoint_at(instance, at).await?;
    let (history, text) = history_of(instance, at).await?;
    if course_in(instance, &history).await? == Course::Same {
        return Err(Error::Unfit(format!("{} is on the timeline of {at} itself", instance.database)));
    }
    let alone = alone(instance).await?;
    instance.release_locks().await?;
    begins()?;
    instance.prepare_folders()?;
    // A standby that was killed has to be recovered before a rewind, which only a writer's data can be.
    let _ = fs::remove_file(instance.data().join("standby.signal"));
    let with_archive = archive.is_some();
    // The rewind reads this instance's own log, past the fork too.
    instance.configure(&Conf { archive, left_in: Vec::new(), ..instance.plain_conf() })?;
    let source = instance.connection_to(at, ROLE_ADMIN, "postgres", "standfast agent");
    let data = instance.data();
    let run = instance.programs.run("pg_rewind", instance.database.as_str(), |command| {
        command.stdin(alone).arg("-D").arg(&data).arg(format!("--source-server={source}"));
        command.env("PGPASSFILE", instance.passfile());
        if with_archive {
            command.arg("--restore-target-wal");
        }
    });
    run.await?;
    leave_out_log_of_others(instance, &history, &text)?;
    clear(&instance.copied())?;
    clear(&instance.copied().join(crate::postgres::copy::PARTIAL))?;
    instance.configure(&instance.plain_conf())?;
    instance.become_standby()?;
    Ok(format!("rewound to the history of {at}"))
}

/// Wait until no program works on the data any more, not even one that an agent left behind when it was killed. The program
/// that gets the answer for its standard input holds the lock to its end.
async fn alone(instance: &Instance) -> Result<Stdio, Error> {
    let path = instance.folder.join("rebuilding.lock");
    let what = || Error::file(format!("lock {}", path.display()));
    let lock = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(what())?;
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock.into()),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(error)) => return Err(what()(error)),
        }
        if !std::mem::replace(&mut told, true) {
            let database = &instance.database;
            tracing::warn!(%database, "a program that a killed agent left behind works on the data; waiting for its end");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn checkpoint_at(instance: &Instance, at: &str) -> Result<(), Error> {
    let source = instance.connection_to(at, ROLE_ADMIN, "postgres", "standfast agent");
    let run = instance.programs.run("psql", instance.database.as_str(), |command| {
        command.arg("-X").arg("-q").arg("-d").arg(&source).args(["-c", "CHECKPOINT"]);
    });
    run.await.map(|_| ())
}

/// Empty a folder of files.
pub fn clear(folder: &Path) -> Result<(), Error> {
    let what = || format!("empty {}", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::file(what()))?,
    };
    for entry in entries.flatten() {
        if entry.path().is_file() {
            fs::remove_file(entry.path()).map_err(Error::file(what()))?;
        }
    }
    Ok(())
}

/// What was kept of a tail's log.
#[derive(Clone, Debug)]
pub struct Salvaged {
    /// The folder that it lies in.
    pub folder: PathBuf,
    /// Where the log forked, as far as that is known.
    pub fork: Option<Lsn>,
    /// For people.
    pub detail: String,
}

/// Keep the log from the fork on: every segment that may hold what the present writer never had, with the control file and
/// the timelines' histories. They lie in `salvage/<epoch>` and can be replayed onto a copy of the history they left.
pub async fn salvage(instance: &Instance, at: &str, epoch: Epoch) -> Result<Salvaged, Error> {
    let fork = match course(instance, at).await? {
        Course::Left(fork) => Some(fork),
        Course::Same | Course::Strange => None,
    };
    let to = instance.salvage().join(format!("left-behind-by-{epoch}"));
    let salvaged = |detail| Salvaged { folder: to.clone(), fork, detail };
    if to.join("complete").exists() {
        return Ok(salvaged(format!("the tail was salvaged before, in {}", to.display())));
    }
    instance.programs.folder(&to)?;
    let wal = instance.data().join("pg_wal");
    let what = || format!("keep the tail in {}", to.display());
    let mut kept = 0_usize;
    for entry in fs::read_dir(&wal).map_err(Error::file(what()))? {
        let entry = entry.map_err(Error::file(what()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_of_tail(&name, fork) {
            fs::copy(entry.path(), to.join(&name)).map_err(Error::file(what()))?;
            kept += 1;
        }
    }
    fs::copy(instance.data().join("global/pg_control"), to.join("pg_control")).map_err(Error::file(what()))?;
    let note = fork.map_or("unknown".to_owned(), |fork| fork.to_string());
    crate::files::replace(&to.join("complete"), format!("fork at {note}\n").as_bytes(), 0o600)
        .map_err(Error::file(what()))?;
    Ok(salvaged(format!("kept {kept} files of log from the fork at {note} on, in {}", to.display())))
}

/// Whether a file in `pg_wal` belongs to the tail: histories, and segments from the fork's on. All, if the fork is unknown.
fn is_of_tail(name: &str, fork: Option<Lsn>) -> bool {
    if name.ends_with(".history") {
        return true;
    }
    match (segment(name), fork) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some((_, begins)), Some(fork)) => begins.0 + SEGMENT_BYTES > fork.0,
    }
}

/// What `pg_wal` holds past a place where the history of the writer at `at` left its timeline. PostgreSQL would apply
/// it at the next start, where it finds the segment of the newer timeline nowhere yet.
///
/// # Errors
/// When the writer does not answer, or the log cannot be read.
pub async fn log_of_others(instance: &Instance, at: &str) -> Result<Option<String>, Error> {
    let wal = instance.data().join("pg_wal");
    for (timeline, fork) in history_of(instance, at).await?.0.left {
        if !wal.join(format!("{timeline:08X}{}", place(fork))).exists() {
            continue;
        }
        if let Some(record) = record_at(instance, timeline, fork).await? {
            return Ok(Some(format!("on timeline {timeline} at {fork}, where that left it: {record}")));
        }
    }
    Ok(None)
}

/// Take away the first segment of a timeline that does not reach the timeline's beginning. A standby that was stopped while it
/// received it may hold one, empty or short, and PostgreSQL then ends at every start: it takes that file before its
/// predecessor's, and finds in it that the place belongs to the timeline before. Up to the fork both hold the same; where the
/// predecessor's is not there this one takes its name.
///
/// # Errors
/// When a file cannot be renamed or removed.
pub async fn take_away_unbegun(instance: &Instance) -> Result<(), Error> {
    let wal = instance.data().join("pg_wal");
    let Some(history) = history::newest(&wal) else { return Ok(()) };
    let next = history.left.iter().skip(1).map(|(timeline, _)| *timeline).chain(history.present);
    for ((timeline, fork), next) in history.left.iter().zip(next) {
        let [before, after] = [*timeline, next].map(|t| wal.join(format!("{t:08X}{}", place(*fork))));
        if fork.0.is_multiple_of(SEGMENT_BYTES) || !after.exists() {
            continue;
        }
        match record_at(instance, next, *fork).await {
            Ok(None) => {}
            Ok(Some(_)) => continue,
            Err(error) => {
                tracing::warn!(file = %after.display(), %error, "whether it reaches the beginning of its timeline is not known; it stays");
                continue;
            }
        }
        tracing::warn!(file = %after.display(), "it does not reach the beginning of its timeline; taking it away");
        let taken = if before.exists() { fs::remove_file(&after) } else { fs::rename(&after, &before) };
        taken.map_err(Error::file(format!("take away {}", after.display())))?;
    }
    Ok(())
}

/// The record that a timeline's log in `pg_wal` has at a place, as pg_waldump shows it.
///
/// # Errors
/// When that cannot be known: whoever takes it for "no record" may remove log that is good.
async fn record_at(instance: &Instance, timeline: u32, at: Lsn) -> Result<Option<String>, Error> {
    let wal = instance.data().join("pg_wal");
    let names = [at, Lsn(at.0 + SEGMENT_BYTES)].map(|at| format!("{timeline:08X}{}", place(at)));
    if is_blank(&wal.join(&names[0]))? {
        return Ok(None);
    }
    // The segments by their names: else pg_waldump learns their size from any file there, and ends at one that is blank.
    let mut segments = vec![&names[0]];
    if !is_blank(&wal.join(&names[1]))? {
        segments.push(&names[1]);
    }
    let read = instance.programs.run("pg_waldump", instance.database.as_str(), |command| {
        command.arg("-p").arg(&wal).args(["-s", &at.to_string(), "-n", "1"]).args(segments);
    });
    match read.await {
        Ok(said) => Ok(Some(said.trim().to_owned()).filter(|said| !said.is_empty())),
        Err(Error::Program { said, .. }) if said.contains("could not find a valid record") => Ok(None),
        // Of one that was being received when its receiver was stopped nothing may be there at that place.
        Err(_) if fs::metadata(wal.join(&names[0])).is_ok_and(|file| file.len() < SEGMENT_BYTES) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a segment is not there, or nothing was written into it yet: PostgreSQL makes them before it needs them, full of zeros.
fn is_blank(segment: &Path) -> Result<bool, Error> {
    use std::io::Read;
    let mut head = [0; 2];
    match fs::File::open(segment).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) => Ok(head == [0, 0]),
        Err(error) if [std::io::ErrorKind::NotFound, std::io::ErrorKind::UnexpectedEof].contains(&error.kind()) => {
            Ok(true)
        }
        Err(error) => Err(Error::file(format!("read {}", segment.display()))(error)),
    }
}

/// Where the log begins that the instance at `at` keeps, whatever the timeline; `None` when it keeps none.
///
/// # Errors
/// When it does not answer.
pub async fn oldest_kept(instance: &Instance, at: &str) -> Result<Option<Lsn>, Error> {
    let source = instance.connection_to(at, ROLE_ADMIN, "postgres", "standfast agent");
    let query = "SELECT name FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' ORDER BY substr(name, 9) LIMIT 1";
    let run = instance.programs.run("psql", instance.database.as_str(), |command| {
        command.arg("-X").arg("-A").arg("-t").arg("-q").arg("-d").arg(&source).args(["-c", query]);
    });
    Ok(segment(run.await?.trim()).map(|(_, begins)| begins))
}

/// Leave nothing in `pg_wal` that the writer's history does not have. `pg_rewind` looks at what was applied, and finds
/// nothing to do where log of another history was only received; and PostgreSQL applies what it finds there, past the fork,
/// where it finds the segment of a newer timeline nowhere yet. It was salvaged before. In the segment of the fork everything
/// after it becomes zero, which ends the log there. The history itself is put there, so that the next start knows it.
fn leave_out_log_of_others(instance: &Instance, history: &History, text: &str) -> Result<(), Error> {
    let wal = instance.data().join("pg_wal");
    let what = || format!("leave out what another history wrote in {}", wal.display());
    for entry in fs::read_dir(&wal).map_err(Error::file(what()))? {
        let entry = entry.map_err(Error::file(what()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(timeline) = name.strip_suffix(".history") {
            let timeline = u32::from_str_radix(timeline, 16).ok();
            if timeline.is_some_and(|t| Some(t) != history.present && history.left.iter().all(|(left, _)| *left != t)) {
                fs::remove_file(entry.path()).map_err(Error::file(what()))?;
            }
            continue;
        }
        let Some(segment) = segment(&name) else { continue };
        match history.keeps(segment) {
            Kept::Whole => {}
            Kept::UpTo(bytes) => {
                let file = fs::OpenOptions::new().write(true).open(entry.path()).map_err(Error::file(what()))?;
                let rest = usize::try_from(SEGMENT_BYTES - bytes).unwrap_or_default();
                file.write_all_at(&vec![0; rest], bytes).map_err(Error::file(what()))?;
                file.sync_all().map_err(Error::file(what()))?;
            }
            Kept::Nothing => {
                fs::remove_file(entry.path()).map_err(Error::file(what()))?;
                for mark in ["ready", "done"] {
                    // Most have none.
                    let _ = fs::remove_file(wal.join("archive_status").join(format!("{name}.{mark}")));
                }
            }
        }
    }
    // The first timeline has no history.
    let Some(present) = history.present.filter(|_| !history.left.is_empty()) else { return Ok(()) };
    let file = wal.join(history::file_name(present));
    crate::files::replace(&file, text.as_bytes(), 0o600).map_err(Error::file(what()))?;
    instance.programs.give(&file)
}

/// How the timeline that an instance is on lies to a writer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It is the same.
    Same,
    /// The writer has left it here.
    Left(Lsn),
    /// The writer was never on it.
    Strange,
}

/// How the timeline of this instance, by its control file, lies to that of the writer at `at`.
///
/// # Errors
/// When the writer does not answer, or the control file cannot be read.
pub async fn course(instance: &Instance, at: &str) -> Result<Course, Error> {
    course_in(instance, &history_of(instance, at).await?.0).await
}

/// The history of the writer at `at`, and its file's text.
async fn history_of(instance: &Instance, at: &str) -> Result<(History, String), Error> {
    let source = instance.connection_to(at, ROLE_ADMIN, "postgres", "standfast agent");
    let query = "SELECT timeline_id || E'\\n' || coalesce(pg_read_file('pg_wal/' || upper(lpad(to_hex(timeline_id), 8, '0')) \
                 || '.history', 0, 1000000, true), '') \
                 FROM (SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int AS timeline_id) t";
    let run = instance.programs.run("psql", instance.database.as_str(), |command| {
        command.arg("-X").arg("-A").arg("-t").arg("-q").arg("-d").arg(&source).args(["-c", query]);
    });
    let said = run.await?;
    let (present, left) = said.split_once('\n').unwrap_or((&said, ""));
    Ok((History::read(present.trim().parse().ok(), left), left.to_owned()))
}

async fn course_in(instance: &Instance, history: &History) -> Result<Course, Error> {
    let data = instance.data();
    let control = instance.programs.run("pg_controldata", instance.database.as_str(), |c| {
        c.arg("-D").arg(&data);
    });
    Ok(course_of(&control.await?, history))
}

/// The same, from what `pg_controldata` says and from the writer's history. Pure.
fn course_of(control: &str, writer: &History) -> Course {
    let said = |title: &str| control.lines().find_map(|l| l.strip_prefix(title)?.trim().parse::<u32>().ok());
    // A standby has followed to a later timeline than that of its last restartpoint.
    let own = said("Latest checkpoint's TimeLineID:").max(said("Min recovery ending loc's timeline:"));
    if own.is_some() && own == writer.present {
        return Course::Same;
    }
    let left = writer.left.iter().find(|(timeline, _)| Some(*timeline) == own);
    left.map_or(Course::Strange, |(_, fork)| Course::Left(*fork))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: &str = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000100\tno recovery target specified\n";

    fn check(checkpoint: u32, recovered: u32, expect: Course) {
        let control = format!(
            "pg_control version number:            1300\nLatest checkpoint's TimeLineID:       {checkpoint}\n\
             Min recovery ending loc's timeline:   {recovered}\n"
        );
        assert_eq!(course_of(&control, &History::read(Some(3), LEFT)), expect, "{checkpoint}, {recovered}");
    }

    #[test]
    fn a_timeline_lies_to_a_writers_as_its_history_says() {
        check(3, 0, Course::Same);
        check(2, 3, Course::Same);
        check(1, 0, Course::Left(Lsn(0x300_0000)));
        check(1, 2, Course::Left(Lsn(0x500_0100)));
        check(4, 0, Course::Strange);
        assert_eq!(course_of("", &History::default()), Course::Strange);
    }
}
