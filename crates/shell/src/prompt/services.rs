//! Processes of the pool's hosts: as agents tell of them, and starting and stopping them in a lab.

use super::counterpart::host_named;
use super::plain;
use crate::agents::Look;
use crate::failure::{Failure, Outcome};
use crate::folder::Context;
use crate::output;
use cluster::name::HostName;
use cluster::report::{HostReport, InstanceState};
use cluster::topology::Topology;
use statement::action::Services;
use statement::{Cell, Row};

/// A server whose last word is older than this, in milliseconds, counts as not running.
pub(super) const HEARD_MS: u64 = 3_000;
/// The reference's name for the chat service of a host.
const CHAT_SERVICE: &str = "RTCCHAT";

/// Get-CsWindowsService.
pub(super) fn rows(look: &Look, which: &Services, without_activity: bool) -> Result<Vec<Row>, Failure> {
    let topology = &look.view.topology;
    let only = which.host.as_deref().map(|h| host_named(topology, h)).transpose()?;
    let mut rows = Vec::new();
    for host in topology.hosts.iter().filter(|h| only.as_ref().is_none_or(|o| h.name == *o)) {
        let report = look.view.reports.iter().find(|r| r.host == host.name);
        rows.extend(of_host(topology, &host.name, report));
    }
    if let Some(name) = &which.name {
        rows.retain(|row| is_named(row, name));
        if rows.is_empty() {
            return Err(Failure::Usage(format!(
                "there is no service '{name}'; there are agent, postgres, {CHAT_SERVICE} and the servers' names"
            )));
        }
    }
    if without_activity {
        rows.iter_mut().for_each(|row| row.0.retain(|(name, _)| *name != "ActivityLevel"));
    }
    Ok(rows)
}

fn is_named(row: &Row, name: &str) -> bool {
    let is = |property: &str, value: &str| row.get(property).is_some_and(|c| c.to_string().eq_ignore_ascii_case(value));
    is("Name", name) || (name.eq_ignore_ascii_case(CHAT_SERVICE) && is("RoleName", "PersistentChatServer"))
}

fn of_host(topology: &Topology, host: &HostName, report: Option<&HostReport>) -> Vec<Row> {
    let row = |status: &'static str, name: &str, shown: String, role: &'static str, activity: Cell| {
        Row(vec![
            ("Status", status.into()),
            ("Name", name.into()),
            ("DisplayName", shown.into()),
            ("RoleName", role.into()),
            ("ActivityLevel", activity),
            ("ComputerName", host.to_string().into()),
        ])
    };
    let agent = if report.is_some() { "Running" } else { "Unknown" };
    let mut rows = vec![row(agent, "agent", format!("agent of {host}"), "ManagementServer", Cell::Null)];
    for database in topology.databases.iter().filter(|d| d.instance_on(host).is_some()) {
        let instance = report.map(|r| r.instances.get(&database.name));
        let (status, activity) = match instance {
            None => ("Unknown", Cell::Null),
            Some(None) => ("Stopped", Cell::Null),
            Some(Some(i)) => {
                let status = match i.state {
                    InstanceState::Online | InstanceState::Standby => "Running",
                    InstanceState::Busy => "StartPending",
                    InstanceState::Absent
                    | InstanceState::Stopped
                    | InstanceState::LeftBehind
                    | InstanceState::AskingPeer => "Stopped",
                };
                (status, format!("Sessions={}", i.sessions).into())
            }
        };
        rows.push(row(
            status,
            "postgres",
            format!("PostgreSQL, {}", database.name),
            "PersistentChatDatabase",
            activity,
        ));
    }
    for server in topology.servers.iter().filter(|s| s.host == *host) {
        let said = report.map(|r| r.servers.get(&server.name).filter(|s| s.age_ms < HEARD_MS));
        let (status, activity) = match said {
            None => ("Unknown", Cell::Null),
            Some(None) => ("Stopped", Cell::Null),
            Some(Some(s)) => ("Running", format!("Sessions={}, WaitingPosts={}", s.sessions, s.waiting_posts).into()),
        };
        let shown = format!("chat server {}", server.name);
        rows.push(row(status, server.name.as_str(), shown, "PersistentChatServer", activity));
    }
    rows
}

/// What is to be done with processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Start,
    Stop,
}

/// What the lab calls a process; a database is started by its agent.
fn target(row: &Row, change: Change) -> Option<String> {
    let text = |name: &str| row.get(name).map(Cell::to_string).unwrap_or_default();
    match (text("Name").as_str(), change) {
        ("postgres", Change::Start) => None,
        (name @ ("agent" | "postgres"), _) => Some(format!("{}/{name}", text("ComputerName"))),
        (server, _) => Some(server.to_owned()),
    }
}

/// Start or stop processes.
pub(super) async fn change(context: &Context, rows: &[Row], change: Change, what_if: bool) -> Outcome {
    let verb = if change == Change::Start { "start" } else { "stop" };
    let wanted: Vec<&Row> = match change {
        Change::Start => rows.iter().filter(|r| r.get("Status").is_none_or(|s| s.to_string() != "Running")).collect(),
        Change::Stop => rows.iter().collect(),
    };
    if wanted.is_empty() {
        output::say("everything runs already");
        return Ok(());
    }
    let in_lab = lab::layout::exists(&context.dir);
    for row in wanted {
        let Some(target) = target(row, change) else {
            output::say("a database is started by its agent");
            continue;
        };
        if what_if {
            output::line(&format!("What if: {verb} {target}"))?;
            continue;
        }
        if !in_lab {
            let host = row.get("ComputerName").map(Cell::to_string).unwrap_or_default();
            return Err(Failure::Refused(format!(
                "processes of a host belong to its service manager; nothing was done. On {host}, {verb} {target} there: \
                 standfast agent --host {host}, or standfast serve --server NAME"
            )));
        }
        let lab_verb = if change == Change::Start { "start" } else { "kill" };
        plain(context, &["lab".to_owned(), lab_verb.to_owned(), target]).await?;
    }
    Ok(())
}
