//! Reports of runs: from a journal to a value, from the value to a page or to JSON, and into a file.

mod build;
mod html;
#[cfg(test)]
mod tests;

pub use build::{build, whole};
pub use html::page;

use crate::agents::Agents;
use crate::failure::{Failure, Outcome};
use crate::output;
use cluster::name::HostName;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where a report goes, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFile {
    path: PathBuf,
    json: bool,
}

impl ReportFile {
    /// Checked before anything is begun, so that nobody learns at the end of a failover that there will be no report.
    ///
    /// # Errors
    /// When the name ends neither in `.html` nor in `.json`, or its folder is not there.
    pub fn new(path: &Path) -> Result<Self, Failure> {
        let ending = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let json = match ending.as_deref() {
            Some("html" | "htm") => false,
            Some("json") => true,
            _ => {
                return Err(Failure::Usage(format!(
                    "{} does not say what the report is to be: end its name in .html or .json",
                    path.display()
                )));
            }
        };
        let folder = folder_of(path);
        if !folder.is_dir() {
            return Err(Failure::Usage(format!(
                "there is no folder {} for the report {}; create it, or name another",
                folder.display(),
                path.display()
            )));
        }
        Ok(Self { path: path.to_owned(), json })
    }

    /// Write the report of a run as it stands now; the file is there as a whole or not at all.
    ///
    /// # Errors
    /// When the journal cannot be read or the file cannot be written, with the command that makes the report again.
    pub async fn write(&self, agents: &Agents, host: &HostName, id: &str) -> Outcome {
        let again = format!("standfast runbook show {id} --report {}", self.path.display());
        let progress = agents.progress(host, id, 0, 0).await;
        let progress = progress.map_err(|t| {
            let failed = t.failure(&format!("read the journal of {id} for its report"), host);
            Failure::Failed(format!("{failed}; then: {again}"))
        })?;
        let report = whole(&agents.topology.pool, &progress)
            .ok_or_else(|| Failure::Failed(format!("the journal of {id} has no beginning: no report can be made")))?;
        let text = if self.json {
            serde_json::to_string_pretty(&report).map_err(|e| Failure::Failed(format!("write JSON: {e}")))? + "\n"
        } else {
            page(&report)
        };
        replace(&self.path, &text).map_err(|e| {
            Failure::Failed(format!("write the report {}: {e}; when that is mended: {again}", self.path.display()))
        })?;
        output::say(&format!("report: {}", self.path.display()));
        Ok(())
    }

    /// Write the report of a run that has ended, however it ended; its own outcome comes first.
    ///
    /// # Errors
    /// The run's, or that the report could not be written although the run went well.
    pub async fn after(file: Option<&Self>, agents: &Agents, host: &HostName, id: &str, outcome: Outcome) -> Outcome {
        let Some(file) = file else { return outcome };
        let written = file.write(agents, host, id).await;
        match (outcome, written) {
            (Ok(()), Err(failure)) => Err(Failure::Failed(format!("the run itself went well, but: {failure}"))),
            (Err(failure), Err(also)) => {
                output::say(&format!("standfast: {also}"));
                Err(failure)
            }
            (outcome, Ok(())) => outcome,
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Put a file in its place as a whole.
///
/// # Errors
/// When it cannot be written or put there.
pub fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = folder_of(path).join(format!(".{name}.{}.new", std::process::id()));
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    std::fs::rename(&aside, path)
}
