//! Files that survive a crash: written aside, synced, renamed, folder synced. In one place.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is being written aside; it takes its place when it is whole.
pub struct Aside {
    file: BufWriter<File>,
    new: PathBuf,
    path: PathBuf,
}

impl Aside {
    /// Begin to write what is to lie at `path`.
    pub fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let new = folder.join(format!(".{name}.new"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        Ok(Self { file: BufWriter::new(file), new, path: path.to_owned() })
    }

    /// Put it in its place; after this returns, a crash leaves the new content.
    pub fn put_in_place(self) -> io::Result<()> {
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&self.new, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

impl Aside {
    fn show(self) -> io::Result<()> {
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&self.new, &self.path)
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Replace the file as a whole; after this returns, a crash leaves the new content.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = Aside::open(path, mode)?;
    file.write_all(content)?;
    file.put_in_place()
}

/// Replace the file as a whole, for readers; a crash of the machine may leave anything. For what is written anew before it is used after
/// one.
pub fn replace_for_readers(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = Aside::open(path, mode)?;
    file.write_all(content)?;
    file.show()
}

/// Replace a JSON document.
pub fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    replace(path, &text, 0o600)
}

/// Read a JSON document; `None` when there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| io::Error::other(format!("{} is not what this program writes: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes of the files below a folder. What vanishes meanwhile counts for nothing.
pub fn bytes_in(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes += bytes_in(&entry.path()),
            Ok(meta) => bytes += meta.len(),
            Err(_) => {}
        }
    }
    bytes
}
