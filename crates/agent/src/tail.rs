//! Tails: what data that an epoch left behind held alone.
//!
//! The agent that holds the data reads its tail before it is rewound, and keeps it beside its log
//! (`salvage/left-behind-by-<epoch>`): `tail.jsonl`, the lines, and then `tail.json`, which says what they are. Nothing of a tail is ever
//! deleted by an agent; the log of data that was read whole and held nothing alone is let go. It offers what it has; the agent of the
//! present principal fetches what the principal's database does not have yet.

pub mod bring;
pub mod read;

use crate::files;
use crate::postgres::instance::Instance;
use crate::postgres::share::is_segment;
use cluster::report::TailReport;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The lines of a tail, in its folder: changes first, then entries (`wire::tail`).
const LINES: &str = "tail.jsonl";
/// What a tail is, in its folder. It is written last: where it is, the lines are whole.
const HEADER: &str = "tail.json";

/// Every tail that lies beside an instance, oldest first; where nothing was found that the principal lacked, there is none.
/// One of which the header cannot be read is passed over, and said.
pub fn kept(instance: &Instance) -> Vec<TailReport> {
    let mut found: Vec<TailReport> = folders(instance).iter().filter_map(|folder| header(folder)).collect();
    found.sort_by(|a, b| (a.extracted_at_ms, &a.id).cmp(&(b.extracted_at_ms, &b.id)));
    // Read anew for another run, with the data untouched in between, it is the same tail.
    let mut ids = BTreeSet::new();
    found.retain(|tail| ids.insert(tail.id.clone()) && (tail.unreadable.is_some() || tail.posts + tail.changes > 0));
    found
}

/// Where the lines of a tail lie.
pub fn lines_of(instance: &Instance, id: &str) -> Option<PathBuf> {
    let folder = folders(instance).into_iter().find(|folder| header(folder).is_some_and(|tail| tail.id == id))?;
    Some(folder.join(LINES))
}

/// Let go of the log beside an instance that holds nothing: it was read whole, and the present principal lacked nothing in it. After
/// many changes of writer it would fill the volume of the data, and keep a damaged copy from being made anew.
pub fn let_go_of_log(instance: &Instance) {
    for folder in folders(instance) {
        let holds_nothing = |tail: &TailReport| tail.unreadable.is_none() && tail.posts + tail.changes == 0;
        if !header(&folder).as_ref().is_some_and(holds_nothing) {
            continue;
        }
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let is_log = entry.file_name().to_str().is_some_and(is_segment);
            if is_log && let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(%error, "log that holds nothing is still there: {}", entry.path().display());
            }
        }
    }
}

fn folders(instance: &Instance) -> Vec<PathBuf> {
    let all = std::fs::read_dir(instance.salvage()).into_iter().flatten().flatten();
    all.map(|entry| entry.path()).filter(|path| path.join(HEADER).exists()).collect()
}

fn header(folder: &Path) -> Option<TailReport> {
    let read = files::read_json(&folder.join(HEADER));
    read.unwrap_or_else(|error| {
        tracing::error!(%error, "the header of a tail cannot be read; its log and its lines lie in {}", folder.display());
        None
    })
}
