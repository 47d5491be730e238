//! The program that writes the log into the share while it is being written: `pg_receivewal`, a child of the agent.
//!
//! It dies with the agent's runtime; one that a killed agent has left behind is ended before a new one is started,
//! because two of them must not write into one folder.

use crate::error::Error;
use crate::postgres::instance::Instance;
use crate::postgres::process::running;
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::process::Child;

/// Shortest time between two starts.
const RESTART_AFTER: Duration = Duration::from_millis(300);

/// The shipping program of one instance.
#[derive(Default)]
pub struct Receive {
    child: Option<(PathBuf, Child)>,
    started: Option<Instant>,
    /// Why it ended last, for people.
    pub fault: Option<String>,
}

impl Receive {
    /// Let it run into this folder; started again when it has ended.
    pub async fn ensure(&mut self, instance: &Instance, folder: &Path) -> Result<(), Error> {
        if self.child.as_ref().is_some_and(|(to, _)| to != folder) {
            self.end().await;
        }
        if let Some((_, child)) = &mut self.child {
            match child.try_wait() {
                Ok(None) => {
                    if self.started.is_some_and(|at| at.elapsed() > Duration::from_secs(1)) {
                        self.fault = None;
                    }
                    return Ok(());
                }
                _ => self.note_end(folder).await,
            }
        }
        if self.started.is_some_and(|at| at.elapsed() < RESTART_AFTER) {
            return Ok(());
        }
        self.started = Some(Instant::now());
        end_those_left(folder);
        let mut command = instance.programs.command("pg_receivewal");
        command.arg("-D").arg(folder).arg("-d").arg(instance.connection_to_self());
        command.args(["--no-loop", "--no-password", "--status-interval=1"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| Error::Program {
            program: "pg_receivewal".into(),
            database: instance.database.to_string(),
            said: error.to_string(),
        })?;
        self.child = Some((folder.to_owned(), child));
        Ok(())
    }

    /// End it.
    pub async fn end(&mut self) {
        if let Some((folder, mut child)) = self.child.take() {
            // It may have ended by itself; then there is nothing to end.
            let _ = child.kill().await;
            end_those_left(&folder);
        }
        self.fault = None;
    }

    async fn note_end(&mut self, folder: &Path) {
        let Some((_, mut child)) = self.child.take() else { return };
        let mut said = String::new();
        if let Some(mut errors) = child.stderr.take() {
            let reading = errors.read_to_string(&mut said);
            let _ = tokio::time::timeout(Duration::from_millis(100), reading).await;
        }
        // Where it left off is no longer in the log: it begins anew, and the archive has what is in between.
        if said.contains("has already been removed") {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let said: Vec<&str> = said.lines().filter(|l| l.contains("error")).collect();
        let said = said.first().map_or("it ended", |line| line.trim());
        self.fault = Some(format!("shipping the log into {} was interrupted: {said}", folder.display()));
    }
}

fn end_those_left(folder: &Path) {
    for process in running("pg_receivewal", folder) {
        process.signal(Signal::SIGKILL);
    }
}
