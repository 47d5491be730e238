//! Small disks of a lab's own, one for each host with a database: file systems in files, which can be filled up and made to
//! stand still without the machine's own disk noticing. Needs root.

use crate::host_folder;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Size of each disk, in megabytes: room for the data, the log that an instance keeps, and a copy of both.
const SIZE_MB: u64 = 1_536;
/// Time between two stand-stills, in milliseconds.
const BETWEEN: Duration = Duration::from_millis(50);
/// The file that takes the room away.
const BALLAST: &str = "ballast";

/// The disks of a lab. They are taken away when this goes.
pub struct Disks {
    mounted: BTreeMap<String, PathBuf>,
    images: PathBuf,
    stalled: BTreeMap<String, JoinHandle<()>>,
}

impl Disks {
    /// Make a disk for each of these hosts and put it where the host's PostgreSQL has its data. Nothing may run there yet.
    ///
    /// # Errors
    /// When the account may not mount, or a program is missing; a sentence.
    pub fn make<'a>(dir: &Path, hosts: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let images = dir.join("disks");
        fs::create_dir_all(&images).map_err(|e| format!("create {}: {e}", images.display()))?;
        let mut disks = Self { mounted: BTreeMap::new(), images, stalled: BTreeMap::new() };
        for host in hosts {
            let image = disks.images.join(format!("{host}.img"));
            let file = fs::File::create(&image).map_err(|e| format!("create {}: {e}", image.display()))?;
            file.set_len(SIZE_MB * 1024 * 1024).map_err(|e| format!("make {} larger: {e}", image.display()))?;
            system("mkfs.ext4", &["-q", "-m", "0", &image.to_string_lossy()])?;
            let at = host_folder(dir, host).join("pg");
            fs::create_dir_all(&at).map_err(|e| format!("create {}: {e}", at.display()))?;
            system("mount", &["-o", "loop", &image.to_string_lossy(), &at.to_string_lossy()])?;
            disks.mounted.insert(host.to_owned(), at);
        }
        Ok(disks)
    }

    fn at(&self, host: &str) -> Result<&PathBuf, String> {
        self.mounted.get(host).ok_or_else(|| format!("{host} has no disk of its own"))
    }

    /// Leave so many kilobytes free.
    ///
    /// # Errors
    /// When the host has no disk, or it takes no file.
    pub fn fill(&self, host: &str, leave_kb: u64) -> Result<(), String> {
        let at = self.at(host)?;
        let free = nix::sys::statvfs::statvfs(at).map_err(|e| format!("look at {}: {e}", at.display()))?;
        let free = free.blocks_available() * free.fragment_size();
        let take = free.saturating_sub(leave_kb * 1024).to_string();
        system("fallocate", &["-l", &take, &at.join(BALLAST).to_string_lossy()])
    }

    /// Make room again.
    pub fn make_room(&self, host: &str) {
        if let Ok(at) = self.at(host) {
            // Where nothing was filled there is nothing to remove.
            let _ = fs::remove_file(at.join(BALLAST));
        }
    }

    /// Let nothing be written for so long at a time, until told otherwise.
    ///
    /// # Errors
    /// When the host has no disk.
    pub fn stall(&mut self, host: &str, at_a_time: Duration) -> Result<(), String> {
        let at = self.at(host)?.to_string_lossy().into_owned();
        self.unstall(host);
        let pulses = tokio::spawn(async move {
            loop {
                freeze(&at, true).await;
                tokio::time::sleep(at_a_time).await;
                freeze(&at, false).await;
                tokio::time::sleep(BETWEEN).await;
            }
        });
        self.stalled.insert(host.to_owned(), pulses);
        Ok(())
    }

    /// Let a disk write as it should.
    pub fn unstall(&mut self, host: &str) {
        if let Some(pulses) = self.stalled.remove(host) {
            pulses.abort();
        }
        if let Ok(at) = self.at(host) {
            // It refuses where nothing is frozen, and that is what is wanted.
            let _ = Command::new("fsfreeze").arg("-u").arg(at).stderr(std::process::Stdio::null()).status();
        }
    }

    /// All disks as they should be.
    pub fn heal(&mut self) {
        for host in self.mounted.keys().cloned().collect::<Vec<_>>() {
            self.unstall(&host);
            self.make_room(&host);
        }
    }
}

async fn freeze(at: &str, frozen: bool) {
    let flag = if frozen { "-f" } else { "-u" };
    let done = tokio::process::Command::new("fsfreeze").args([flag, at]).stderr(std::process::Stdio::null()).status();
    // A disk that was taken away meanwhile stands still already.
    let _ = done.await;
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.heal();
        for at in self.mounted.values() {
            let _ = system("umount", &["-l", &at.to_string_lossy()]);
        }
        let _ = fs::remove_dir_all(&self.images);
    }
}

fn system(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr).trim()))
}
