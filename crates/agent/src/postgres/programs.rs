//! PostgreSQL's programs and the account that runs them.

use crate::error::Error;
use nix::unistd::{Gid, Uid, User};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Where the programs are and who runs them.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    /// Set when the agent runs as root: PostgreSQL refuses that, so its programs run under this account.
    account: Option<(String, Uid, Gid)>,
}

impl Programs {
    /// Find the newest PostgreSQL on this machine.
    pub fn find() -> Result<Self, Error> {
        let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join("bin/postgres").exists())
            .collect();
        folders.sort_by_key(|path| {
            path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0)
        });
        let from_path = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).find(|folder| folder.join("initdb").exists())
        };
        let folder = folders.pop().map(|f| f.join("bin")).or_else(from_path).ok_or(Error::NoProgram("postgres"))?;
        Ok(Self { folder, account: account() })
    }

    /// A program, to be run under the right account in the root folder.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        if let Some((_, uid, gid)) = &self.account {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        // Its own process group: a signal to the agent's terminal is not meant for the database.
        command.process_group(0).current_dir("/").stdin(Stdio::null());
        command.env_remove("PGDATA").env("LC_ALL", "C");
        command
    }

    /// Run a program to its end and return what it printed.
    pub async fn run(
        &self,
        program: &str,
        database: &str,
        arrange: impl FnOnce(&mut Command),
    ) -> Result<String, Error> {
        let mut command = self.command(program);
        arrange(&mut command);
        let failed = |said: String| Error::Program { program: program.to_owned(), database: database.to_owned(), said };
        let output = command.kill_on_drop(true).output().await.map_err(|e| failed(e.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = said.lines().rev().take(4).collect();
        Err(failed(tail.into_iter().rev().collect::<Vec<_>>().join(" / ")))
    }

    /// Give a folder or file to the account that runs PostgreSQL.
    pub fn give(&self, path: &Path) -> Result<(), Error> {
        let Some((_, uid, gid)) = &self.account else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
            .map_err(Error::file(format!("give {} to the account of PostgreSQL", path.display())))
    }

    /// Create a folder that belongs to the account, closed to others.
    pub fn folder(&self, path: &Path) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(path).map_err(Error::file(format!("create {}", path.display())))?;
        self.give(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .map_err(Error::file(format!("close {}", path.display())))
    }

    /// Whether the account can get to the folder at all.
    pub fn reaches(&self, path: &Path) -> Result<(), Error> {
        let Some((account, uid, _)) = &self.account else { return Ok(()) };
        for parent in path.ancestors().skip(1) {
            let Ok(meta) = std::fs::metadata(parent) else { continue };
            if meta.mode() & 0o001 == 0 && meta.uid() != uid.as_raw() {
                return Err(Error::Unreachable {
                    account: account.clone(),
                    path: path.display().to_string(),
                    parent: parent.display().to_string(),
                });
            }
        }
        Ok(())
    }
}

fn account() -> Option<(String, Uid, Gid)> {
    if !Uid::effective().is_root() {
        return None;
    }
    ["postgres", "nobody"].into_iter().find_map(|name| {
        let user = User::from_name(name).ok().flatten()?;
        Some((name.to_owned(), user.uid, user.gid))
    })
}
