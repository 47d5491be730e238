//! Showing what only this host can show, for the check of a topology before it is published: the clock, PostgreSQL's version,
//! whether a share can be written, read and deleted here and is the same folder that others see, and the ways to other agents.

use crate::bucket::store::Store;
use crate::error::Error;
use crate::host::Host;
use cluster::name::HostName;
use cluster::shipping_settings::{LogShipping, ShareAt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::agent::{Probe, ProbeAct, Probed, ShareProbed};

/// Marks begin with this; what a check left behind that was killed is deleted by the next one.
const MARK: &str = ".standfast-probe-";
/// In a bucket they lie beside the databases.
const PROBES: &str = "probes";
/// Longest wait for another agent's port.
const REACH: Duration = Duration::from_secs(1);
/// Longest wait for a share: a dead mount would hold it for ever.
const SHARE: Duration = Duration::from_secs(5);
/// Longest token.
const TOKEN_MAX: usize = 64;

/// Show it.
///
/// # Errors
/// When the token is none. What is wrong with a share is in the answer.
pub async fn show(host: &Host, asked: &Probe) -> Result<Probed, Error> {
    let token = &asked.token;
    if token.is_empty() || token.len() > TOKEN_MAX || !token.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(Error::Unfit(format!("'{token}' names no check; take letters and digits")));
    }
    let mut shares = Vec::with_capacity(asked.shares.len());
    for at in &asked.shares {
        let share = async {
            if at.is_bucket() {
                look_into(host, at, token, asked.act).await
            } else {
                look_at(host, Path::new(&at.share), token, asked.act).await
            }
        };
        shares.push(tokio::time::timeout(SHARE, share).await.unwrap_or_else(|_| ShareProbed {
            fault: Some(format!("no answer within {} s", SHARE.as_secs())),
            inside_host_folder: false,
            sees: Vec::new(),
        }));
    }
    let unreached = unreached(asked).await;
    let postgres = host.programs.run("postgres", "", |command| {
        command.arg("--version");
    });
    Ok(Probed {
        postgres: postgres.await.unwrap_or_default().trim().to_owned(),
        shares,
        unreached,
        clock_ms: jiff::Timestamp::now().as_millisecond(),
    })
}

/// Hosts that are not reached, all tried at once.
async fn unreached(asked: &Probe) -> Vec<HostName> {
    let mut tries = tokio::task::JoinSet::new();
    for (name, at) in asked.reach.clone() {
        tries.spawn(async move {
            let tried = tokio::time::timeout(REACH, tokio::net::TcpStream::connect(&at)).await;
            (!matches!(tried, Ok(Ok(_)))).then_some(name)
        });
    }
    let mut unreached: Vec<HostName> = tries.join_all().await.into_iter().flatten().collect();
    unreached.sort();
    unreached
}

async fn look_at(host: &Host, share: &Path, token: &str, act: ProbeAct) -> ShareProbed {
    let mut seen = ShareProbed { fault: None, inside_host_folder: false, sees: Vec::new() };
    let own = |share: &Path| share.join(format!("{MARK}{token}-{}", host.name));
    let result = match share.canonicalize() {
        _ if !share.is_absolute() => Err("it is no absolute path".to_owned()),
        Err(error) => Err(error.to_string()),
        Ok(share) => {
            seen.inside_host_folder = share.starts_with(&host.folder);
            match act {
                ProbeAct::Mark => {
                    delete_left_over(host, &share);
                    mark(host, &own(&share), token).await
                }
                ProbeAct::See => marks(&share, token).map(|sees| seen.sees = sees),
                ProbeAct::Delete => delete(&own(&share)),
            }
        }
    };
    seen.fault = result.err();
    seen
}

/// The same in a bucket: an object in place of a folder with a file.
async fn look_into(host: &Host, at: &ShareAt, token: &str, act: ProbeAct) -> ShareProbed {
    let mut seen = ShareProbed { fault: None, inside_host_folder: false, sees: Vec::new() };
    let result = async {
        let settings = LogShipping { s3: at.s3.clone(), ..LogShipping::into_share(&at.share) };
        let store = Store::open(&settings, &PROBES.into(), &host.folder)?;
        let own = format!("{token}-{}", host.name);
        match act {
            ProbeAct::Mark => {
                store.put(&own, token.as_bytes().to_vec()).await?;
                let read = store.get(&own).await?.map(|(text, _)| text);
                if read.as_deref() == Some(token.as_bytes()) {
                    Ok(())
                } else {
                    Err(format!("what was written into {own} is not what is read"))
                }
            }
            ProbeAct::See => {
                let beginning = format!("{token}-");
                let objects = store.list().await?;
                let hosts = objects.iter().filter_map(|o| o.name.strip_prefix(&beginning)).map(HostName::from);
                seen.sees = hosts.collect();
                seen.sees.sort();
                Ok(())
            }
            ProbeAct::Delete => store.delete(&own).await,
        }
    };
    let result: Result<(), String> = result.await;
    seen.fault = result.err();
    seen
}

/// A folder made as the agent makes those of the share, and a file in it made as PostgreSQL makes what it ships.
async fn mark(host: &Host, folder: &Path, token: &str) -> Result<(), String> {
    const SCRIPT: &str = r#"printf %s "$2" > "$1" && cat "$1""#;
    let told = |e: Error| e.to_string();
    host.programs.folder(folder).map_err(told)?;
    let file = folder.join("mark");
    let shell = host.programs.run("/bin/sh", "the share", |command| {
        command.arg("-c").arg(SCRIPT).arg("sh").arg(&file).arg(token);
    });
    let read = shell.await.map_err(told)?;
    if read == token { Ok(()) } else { Err(format!("what was written into {} is read as '{read}'", file.display())) }
}

fn marks(share: &Path, token: &str) -> Result<Vec<HostName>, String> {
    let beginning = format!("{MARK}{token}-");
    let entries = std::fs::read_dir(share).map_err(|e| e.to_string())?;
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut hosts: Vec<HostName> = names.filter_map(|n| n.strip_prefix(&beginning).map(HostName::from)).collect();
    hosts.sort();
    Ok(hosts)
}

fn delete(folder: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("delete {}: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Marks of this host that an earlier check left behind.
fn delete_left_over(host: &Host, share: &Path) {
    let own = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let rest = name.strip_prefix(MARK).and_then(|r| r.split_once('-'));
        rest.is_some_and(|(_, of)| of == host.name.as_str())
    };
    let entries = std::fs::read_dir(share).into_iter().flatten().flatten().map(|e| e.path());
    for path in entries.filter(own) {
        if let Err(error) = delete(&path) {
            tracing::warn!(error, "a mark of an earlier check stays in the share");
        }
    }
}
