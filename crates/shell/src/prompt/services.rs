//! Services of the pool's hosts: as agents tell of them, and starting and stopping chat servers.

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
use statement::parse::Call;
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
        let status = report.and_then(|r| r.services.get(&server.name)).map_or("Unknown", |s| s.status.word());
        let said = report.and_then(|r| r.servers.get(&server.name)).filter(|_| status == "Running");
        let activity =
            said.map_or(Cell::Null, |s| format!("Sessions={}, WaitingPosts={}", s.sessions, s.waiting_posts).into());
        let shown = format!("chat server {}", server.name);
        rows.push(row(status, server.name.as_str(), shown, "PersistentChatServer", activity));
    }
    rows
}

/// What is to be done with services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Start,
    Stop,
}

/// Start or stop the chat servers among these, by the plain command for it.
pub(super) async fn change(context: &Context, rows: &[Row], change: Change, call: &Call, no_wait: bool) -> Outcome {
    let text = |row: &Row, name: &str| row.get(name).map(Cell::to_string).unwrap_or_default();
    let servers: Vec<String> =
        rows.iter().filter(|r| text(r, "RoleName") == "PersistentChatServer").map(|r| text(r, "Name")).collect();
    if servers.len() < rows.len() {
        let others = "agents and databases stay as they are: an agent holds its databases to what the pool's record says, and \
                      runs as long as its host's service manager lets it";
        if servers.is_empty() {
            let hint = match change {
                Change::Start => "standfast agent --dir DIR --host HOST on that host starts its agent",
                Change::Stop => {
                    "to take a database out of service, let its mirror take over (Invoke-CsDatabaseFailover)"
                }
            };
            return if rows.is_empty() { Ok(()) } else { Err(Failure::Refused(format!("{others}; {hint}"))) };
        }
        output::say(others);
    }
    if servers.is_empty() {
        output::say("there is no service to be changed");
        return Ok(());
    }
    let verb = if change == Change::Start { "start" } else { "stop" };
    let mut words = vec!["service".to_owned(), verb.to_owned()];
    words.extend(servers);
    let flags = [
        ("--no-wait", no_wait),
        ("--what-if", call.what_if),
        // -Force answers what would be asked.
        ("--yes", call.force && change == Change::Stop),
    ];
    words.extend(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned()));
    plain(context, &words).await
}
