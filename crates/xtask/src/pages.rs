//! Pages of the documentation that are generated from code, so that they cannot say something else than it does.

use cluster::runbook::{Runbook, Undo};
use std::fmt::Write;

/// Every generated page: its path in the repository and its text.
pub fn all() -> Vec<(String, String)> {
    cluster::runbook::ALL.iter().map(|r| (format!("docs/runbooks/{}-steps.md", r.name), runbook(r))).collect()
}

/// The page of one runbook.
pub fn runbook(runbook: &Runbook) -> String {
    let mut page = format!(
        "# {}: the steps\n\nGenerated from the code by `cargo run -p xtask`; a test compares it.\n\n{}\n\n\
         | step | reference | what is done | undo | waits at most before it says so |\n| --- | --- | --- | --- | --- |\n",
        runbook.name, runbook.says
    );
    for step in runbook.steps {
        let reference = if step.reference.is_empty() { "added for safety" } else { step.reference };
        let undo = match step.undo {
            Undo::Nothing => "leaves nothing behind",
            Undo::RestoreRecord => "the old record",
            Undo::PointOfNoReturn => "**from here on, forward only**",
        };
        let patience = step.patience_ms as f64 / 1000.0;
        writeln!(page, "| `{}` | {reference} | {} | {undo} | {patience} s |", step.id, step.says)
            .expect("writing to a string cannot fail");
    }
    page
}
