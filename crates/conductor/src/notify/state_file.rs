//! What receivers have been told, on disk: a file each in the host folder's `notify`, replaced as a whole.

use cluster::notify::alarm::Book;
use cluster::notify::delivery::Delivery;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The file of the alarms. No receiver has this name: names have no `/`, and files of receivers begin with `to-`.
pub const BOOK: &str = "alarms";

fn name(of: &str) -> String {
    if of == BOOK { format!("{BOOK}.json") } else { format!("to-{of}.json") }
}

/// Everything that was left. A file that cannot be read is an error: without it everything would be told again.
pub fn read_all(folder: &Path) -> Result<(BTreeMap<String, Delivery>, Book), String> {
    fs::create_dir_all(folder).map_err(|e| format!("create {}: {e}", folder.display()))?;
    let mut deliveries = BTreeMap::new();
    let mut book = Book::default();
    let entries = fs::read_dir(folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    for path in entries.flatten().map(|e| e.path()) {
        let Some(file) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json")) else {
            continue;
        };
        let failed = |e: String| {
            format!("read {}: {e}; move it away to go on, and receivers may be told things again", path.display())
        };
        let text = fs::read(&path).map_err(|e| failed(e.to_string()))?;
        if file == BOOK {
            book = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
        } else if let Some(receiver) = file.strip_prefix("to-") {
            let delivery = serde_json::from_slice(&text).map_err(|e| failed(e.to_string()))?;
            deliveries.insert(receiver.to_owned(), delivery);
        }
    }
    Ok((deliveries, book))
}

/// Replace a file. A failure is said in the log: telling goes on, and at worst something is told twice.
pub fn write(folder: &Path, of: &str, value: &impl Serialize) {
    if let Err(error) = replace(folder, &name(of), value) {
        tracing::error!(folder = %folder.display(), of, %error, "what was told cannot be written down; it may be told again");
    }
}

fn replace(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    let aside = folder.join(format!(".{name}.new"));
    let mut file = File::create(&aside)?;
    file.write_all(&serde_json::to_vec_pretty(value).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(&aside, folder.join(name))?;
    File::open(folder)?.sync_all()
}
