//! Failpoints: places between any two things that a run does to the world, where a test stops it.
//!
//! `STANDFAST_FAILPOINTS` is a comma-separated list of `<runbook>.<step>.<before|during|after>=<abort|pause>`. `before`:
//! the step is taken up, nothing is ordered. `during`: its deeds are in the journal and the first one is given. `after`:
//! its being done is in the journal. `abort` ends the process on the spot; `pause` writes `failpoint.<name>` into the host
//! folder and stays there for ever, so that the whole host can be killed at that place. Unset, nothing of this exists.

use std::path::Path;

/// Environment variable that names the failpoints.
pub const VARIABLE: &str = "STANDFAST_FAILPOINTS";

/// Come past a failpoint.
pub async fn pass(dir: &Path, runbook: &str, step: &str, when: &str) {
    let Ok(armed) = std::env::var(VARIABLE) else { return };
    let name = format!("{runbook}.{step}.{when}");
    let action = armed.split(',').filter_map(|f| f.split_once('=')).find(|(n, _)| *n == name).map(|(_, action)| action);
    match action {
        Some("abort") => std::process::abort(),
        Some("pause") => {
            let mark = dir.join(format!("failpoint.{name}"));
            if let Err(error) = std::fs::write(&mark, "") {
                tracing::error!(%error, mark = %mark.display(), "a failpoint cannot leave its mark");
            }
            std::future::pending::<()>().await;
        }
        Some(other) => tracing::error!(failpoint = %name, action = %other, "no such action; use abort or pause"),
        None => {}
    }
}
