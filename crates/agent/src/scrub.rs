//! Reading the data of an instance through, page by page, for damage that nobody has met yet: a disk that returns something else
//! than it was given. PostgreSQL compares a page with its checksum when it reads it, and what is old is hardly ever read.
//!
//! It reads beside the running instance and changes nothing. A page that is being written may be seen half old and half new, so one
//! that looks damaged is looked at again until it is whole, or has stayed as it was. What becomes of a damaged copy is decided in
//! [`crate::rejoin`].

use crate::database::Database;
use crate::host::Host;
use crate::jobs::wall_ms;
use crate::postgres::page::{PAGE, first_block, is_whole};
use cluster::report::{DamagedPage, ScrubReport};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Each copy is read through so often.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// An instance that was never read through waits so long after its agent's start, which is a busy time.
const FIRST: Duration = Duration::from_secs(3600);
/// Between two looks at whether it is time.
const LOOK: Duration = Duration::from_secs(60);
/// Bytes a second, so that those who chat do not notice.
const RATE: u64 = 64 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 128 * PAGE;
/// A page that stays damaged, and the same, for so many looks is damaged.
const LOOKS: u32 = 5;
/// A page that changes all the time is given up as healthy after so many: it is being written.
const LOOKS_MAX: u32 = 50;
/// Between two looks at a page.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Damaged pages that are named; the others are counted.
const NAMED_MAX: usize = 20;

/// Read a database of this host through when it is time, or when somebody asks, for as long as the process lives.
pub async fn run(host: Arc<Host>, database: Arc<Database>) {
    let began = Instant::now();
    loop {
        let asked = tokio::time::timeout(LOOK, database.scrub_asked.notified()).await.is_ok();
        if !asked && !is_due(&database, began.elapsed()) {
            continue;
        }
        // One that is starting or being rebuilt may hold pages that its log is still to mend.
        let Some(process) = database.running().filter(|_| database.state().being_read.is_none()) else { continue };
        if database.probe().await.is_none() {
            continue;
        }
        let (data, began_at_ms) = (database.instance.data(), wall_ms());
        let seen = tokio::task::spawn_blocking(move || read_through(&data, RATE)).await;
        let seen = match seen {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                tracing::warn!(database = %database.name, %error, "its data cannot be read through");
                continue;
            }
            Err(error) => {
                tracing::error!(database = %database.name, %error, "reading its data through has failed");
                continue;
            }
        };
        // What was read while the data was replaced says nothing.
        if database.running() != Some(process) {
            continue;
        }
        let report = ScrubReport {
            began_at_ms,
            ended_at_ms: wall_ms(),
            pages: seen.pages,
            damaged_pages: seen.damaged.len() as u64,
            damaged: seen.damaged.into_iter().take(NAMED_MAX).collect(),
        };
        if report.damaged_pages > 0 {
            tracing::error!(database = %database.name, "{}", report.words());
        } else {
            tracing::info!(database = %database.name, pages = report.pages, "read through: every page is whole");
        }
        if let Err(error) = database.remember(|s| s.scrub = Some(report)) {
            tracing::warn!(database = %database.name, %error, "what was found in its pages cannot be noted");
        }
        host.changed();
        database.wake.notify_one();
    }
}

fn is_due(database: &Database, up: Duration) -> bool {
    match database.state().scrub {
        Some(last) => wall_ms().saturating_sub(last.ended_at_ms) >= EVERY.as_millis() as i64,
        None => up >= FIRST,
    }
}

/// What reading through has found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Pages that were read.
    pub pages: u64,
    /// Those that are damaged.
    pub damaged: Vec<DamagedPage>,
}

/// Read the data of an instance through, at so many bytes a second at most.
///
/// # Errors
/// When a folder or file cannot be read. One that goes away meanwhile is no error.
pub fn read_through(data: &Path, rate: u64) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut suspects = Vec::new();
    let began = Instant::now();
    for folder in folders(data)? {
        for entry in existing(std::fs::read_dir(&folder))?.into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(first) = first_block(&name) else { continue };
            let Some(file) = existing(File::open(&path))? else { continue };
            let mut chunk = vec![0; CHUNK];
            let mut at = 0;
            loop {
                let filled = fill(&file, &mut chunk, at)?;
                for (n, page) in chunk[..filled].chunks_exact(PAGE).enumerate() {
                    let offset = at + (n * PAGE) as u64;
                    let block = first.saturating_add((offset / PAGE as u64) as u32);
                    seen.pages += 1;
                    if !is_whole(page, block) {
                        suspects.push(Suspect { path: path.clone(), offset, block });
                    }
                }
                if filled < CHUNK {
                    break;
                }
                at += filled as u64;
                let ahead = Duration::from_secs_f64(seen.pages as f64 * PAGE as f64 / rate as f64);
                std::thread::sleep(ahead.saturating_sub(began.elapsed()));
            }
        }
    }
    for suspect in suspects {
        if suspect.is_damaged()? {
            let file = suspect.path.strip_prefix(data).unwrap_or(&suspect.path).display().to_string();
            seen.damaged.push(DamagedPage { file, block: suspect.block });
        }
    }
    Ok(seen)
}

/// A page that has looked damaged once.
struct Suspect {
    path: PathBuf,
    offset: u64,
    block: u32,
}

impl Suspect {
    fn is_damaged(&self) -> io::Result<bool> {
        let mut before = None;
        let mut same = 0;
        for _ in 0..LOOKS_MAX {
            let Some(file) = existing(File::open(&self.path))? else { return Ok(false) };
            let mut page = vec![0; PAGE];
            // A relation that was cut or removed does not hold the page any more.
            if fill(&file, &mut page, self.offset)? < PAGE || is_whole(&page, self.block) {
                return Ok(false);
            }
            same = if before.as_ref() == Some(&page) { same + 1 } else { 1 };
            if same >= LOOKS {
                return Ok(true);
            }
            before = Some(page);
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(false)
    }
}

/// Where the relations lie: those of all databases together, and each database's own.
fn folders(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = vec![data.join("global")];
    for entry in std::fs::read_dir(data.join("base"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

fn existing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fill a buffer from a place of a file; less at the file's end.
fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
