//! The lab: a whole pool on one machine, with real processes and links that can be cut.
//!
//! The same program as in production, with another topology: every address that one site has of the other leads through
//! a relay in the lab's supervisor. Nothing in agents, servers or runbooks knows of it.

pub mod disks;
pub mod layout;
pub mod processes;
pub mod protocol;
pub mod relay;
pub mod supervise;
pub mod torture;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use layout::{Bucket, Shape};
pub use protocol::{Answer, Request};

/// Where a lab lies when nobody says where.
pub const DEFAULT_DIR: &str = "/var/tmp/standfast-lab";
/// The first port when nobody says which.
pub const DEFAULT_BASE_PORT: u16 = 7400;

/// Make or reuse a lab's folder, and start its supervisor in the background.
///
/// # Errors
/// A sentence for people: what failed, on what, why.
pub async fn start(
    dir: &Path,
    shape: Shape,
    base_port: u16,
    bucket: Option<&Bucket>,
    program: &Path,
) -> Result<(), String> {
    if protocol::ask(dir, &Request::Status).await.is_ok() {
        return Err(format!("a lab is up in {} already; standfast lab down takes it down", dir.display()));
    }
    if layout::exists(dir) {
        tracing::info!(dir = %dir.display(), "starting what was there");
    } else {
        layout::create(dir, shape, base_port, bucket)?;
    }
    supervise::detach(dir, program)?;
    until_it_answers(dir).await
}

async fn until_it_answers(dir: &Path) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match protocol::ask(dir, &Request::Status).await {
            Ok(_) => return Ok(()),
            Err(error) if began.elapsed() > Duration::from_secs(15) => {
                return Err(format!(
                    "the lab's supervisor does not answer: {error}; see {}",
                    dir.join("lab.log").display()
                ));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The folder of a host.
pub fn host_folder(dir: &Path, host: &str) -> PathBuf {
    dir.join("hosts").join(host)
}
