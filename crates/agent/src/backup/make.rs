//! Making a backup: PostgreSQL's own copy of the running instance, checked against its manifest, with topology, record and secret.

use super::bytes_in;
use crate::database::Database;
use crate::drill::Steps;
use crate::error::Error;
use crate::files;
use crate::host::Host;
use crate::postgres::instance::remove;
use cluster::backup::{Backup, superfluous, wal_range};
use cluster::drill::DrillReport;
use cluster::secret::SECRET_FILE;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Make it, keep it, and throw away what it replaces; tells what came of it.
///
/// # Errors
/// What failed; nothing of it stays then.
pub async fn make(host: &Host, database: &Database, report: &DrillReport, keep: Option<u32>) -> Result<String, Error> {
    let shelf = &host.backups;
    let folder = shelf.folder_of_half(&report.id);
    let made = fill(host, database, report, &folder).await;
    let backup = match made {
        Ok(backup) => backup,
        Err(error) => {
            remove(&folder)?;
            return Err(error);
        }
    };
    let says = format!("{} MB, consistent at {}", backup.bytes >> 20, backup.ends);
    shelf.put(backup)?;
    let gone = keep.map_or_else(Vec::new, |keep| superfluous(&shelf.all(), &database.name, keep));
    for id in &gone {
        shelf.throw_away(id)?;
    }
    Ok(if gone.is_empty() { says } else { format!("{says}; thrown away: {}", gone.join(", ")) })
}

async fn fill(host: &Host, database: &Database, report: &DrillReport, folder: &Path) -> Result<Backup, Error> {
    let steps = Steps { host };
    let instance = &database.instance;
    let programs = &host.programs;
    instance.prepare_folders()?;
    programs.folder(folder.parent().unwrap_or(folder))?;
    programs.folder(folder)?;
    let epoch = keep_the_pool(host, &folder.join("pool"))?;
    let data = folder.join("data");
    let source = instance.connection_to_self();
    let copy = programs.run("pg_basebackup", database.name.as_str(), |command| {
        command.arg("-D").arg(&data).arg("-d").arg(&source);
        command.args(["--wal-method=stream", "--checkpoint=fast", "--no-password", "--manifest-checksums=SHA256"]);
    });
    steps.step("Copy the database online, with the log that it needs.", copy).await?;
    let check = programs.run("pg_verifybackup", database.name.as_str(), |command| {
        command.arg(&data);
    });
    steps.step("Check every file against the checksums of the copy.", check).await?;
    let path = data.join("backup_manifest");
    let manifest = std::fs::read_to_string(&path).map_err(Error::file(format!("read {}", path.display())))?;
    let (begins, ends) = wal_range(&manifest)
        .ok_or_else(|| Error::Unfit(format!("{} does not say which log the copy needs", path.display())))?;
    Ok(Backup {
        id: report.id.clone(),
        pool: host.store.topology().pool.clone(),
        database: database.name.clone(),
        host: host.name.clone(),
        by: report.by.clone(),
        epoch,
        began_at_ms: report.began_at_ms,
        done_at_ms: jiff::Timestamp::now().as_millisecond(),
        begins,
        ends,
        bytes: bytes_in(data).await,
        proof: None,
    })
}

/// Topology, record and secret, readable by the agent's account alone.
fn keep_the_pool(host: &Host, folder: &Path) -> Result<rules::id::Epoch, Error> {
    let record = host.store.record().ok_or_else(|| Error::Unfit("the pool is not initialised".into()))?;
    let what = || format!("write {}", folder.display());
    std::fs::create_dir_all(folder).map_err(Error::file(what()))?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(Error::file(what()))?;
    let topology = host.store.topology_text()?;
    files::replace(&folder.join("topology.toml"), topology.as_bytes(), 0o600).map_err(Error::file(what()))?;
    files::replace_json(&folder.join("record.json"), &record).map_err(Error::file(what()))?;
    let secret = host.folder.join(SECRET_FILE);
    let text = std::fs::read(&secret).map_err(Error::file(format!("read {}", secret.display())))?;
    files::replace(&folder.join(SECRET_FILE), &text, 0o600).map_err(Error::file(what()))?;
    Ok(record.epoch)
}
