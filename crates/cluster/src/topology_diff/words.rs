//! The sentences for each difference.

use super::{Change, Difference, Users};
use crate::name::{HostName, SiteName};
use crate::topology::{Endpoint, LatencyClass, Role, Topology};

/// The site of a host, for people.
fn site_of<'a>(topology: &'a Topology, host: &HostName) -> &'a str {
    topology.site_of(host).map_or("no site", SiteName::as_str)
}

#[allow(clippy::too_many_lines, reason = "one arm for each difference, and nothing else")]
pub(super) fn explained(difference: Difference, published: &Topology, wanted: &Topology) -> Change {
    let told =
        |says: String, publishing: &'static str, needs: Vec<String>, users: Users| (says, publishing, needs, users);
    let (says, publishing, needs, users) = match &difference {
        Difference::PoolRenamed { from, to } => told(
            format!("the pool is named {to}, not {from}"),
            "Every host takes the new name over. Addresses stay as they are.",
            vec![],
            Users::NotAtAll,
        ),
        Difference::LatencyClass { from: _, to: LatencyClass::Low } => told(
            "the line between the sites counts as fast".into(),
            "Servers of both sites may be active from then on; the list of active servers stays as it is.",
            vec!["a line that is really fast: a post from the other site waits for it both ways (ha-dr §3)".into()],
            Users::NotAtAll,
        ),
        Difference::LatencyClass { from: _, to: LatencyClass::High } => told(
            "the line between the sites counts as slow".into(),
            "Only servers at the principal's site may be active from then on (ha-dr §9, R4).",
            vec!["no server of the other site in the list of active servers".into()],
            Users::NotAtAll,
        ),
        Difference::SiteAdded { site } => told(
            format!("the site {site} is added"),
            "Its authority keeps a copy of the management store from then on, and may carry out a failover once a backup \
             stands there.",
            vec![format!("the agents of {site} started with this file as their topology.toml")],
            Users::NotAtAll,
        ),
        Difference::SiteRemoved { site } => told(
            format!("the site {site} is taken away"),
            "There is nowhere to fail over to any more.",
            vec![format!("state Normal, nothing of the pool in use at {site}, and its agents stopped afterwards")],
            Users::NotAtAll,
        ),
        Difference::HomeSite { from, to } => told(
            format!("{to} is the primary site, not {from}"),
            "Refused: the primary site changes only by a failover.",
            vec!["a failover to it, and staying there until the roles in the topology can be exchanged".into()],
            Users::Wait,
        ),
        Difference::Authority { site, from, to } => told(
            format!("{to} keeps the management store of {site}, not {from}"),
            "From the moment of publishing on, the record is changed and runbooks are carried out there.",
            vec![format!("the agent of {to} running, and no run under way")],
            Users::NotAtAll,
        ),
        Difference::Witness { site, to: Some(host) } => told(
            format!("{host} is the witness of {site}: its mirror pairs fail over by themselves"),
            "From then on a synchronised mirror takes over when it and the witness have lost the principal, and a principal \
             that sees neither of the two stops serving (ha-dr §13.3).",
            vec![format!("{host} reachable from principal and mirror; it has no database itself")],
            Users::NotAtAll,
        ),
        Difference::Witness { site, to: None } => told(
            format!("{site} has no witness any more"),
            "Its mirror pairs are failed over by hand from then on: standfast database failover.",
            vec![],
            Users::NotAtAll,
        ),
        Difference::PartnerTimeout { database, from, to } => told(
            format!("a partner of {database} counts as lost after {} of silence, not {}", to.0, from.0),
            "The agents take it up at once.",
            vec![],
            Users::NotAtAll,
        ),
        Difference::ExistingDatabase { database, to: Some(dsn), from } => told(
            format!(
                "{database} is {} {dsn}, operated by somebody else",
                if from.is_some() { "now" } else { "taken from" }
            ),
            "The servers connect to whichever of its hosts takes writes.",
            vec!["the same database there: its rooms and their history".into()],
            Users::Wait,
        ),
        Difference::ExistingDatabase { database, to: None, .. } => told(
            format!("{database} of somebody else is taken away"),
            "Refused while the pool is in use: its rooms and their history are there.",
            vec![],
            Users::Wait,
        ),
        Difference::HostAdded { host, site } => told(
            format!("the host {host} is added at {site}"),
            "The other agents exchange the record with it.",
            vec![format!("its agent started, with pool.secret and this file as topology.toml in its folder")],
            Users::NotAtAll,
        ),
        Difference::HostRemoved { host, site } => told(
            format!("the host {host} at {site} is taken away"),
            "The other agents stop talking to it. Its files stay on it.",
            vec![format!("no instance in use on {host}, and no active server; stop its agent afterwards")],
            Users::NotAtAll,
        ),
        Difference::HostMoved { host, from, to } => told(
            format!("the host {host} stands at {to}, not {from}"),
            "Refused: a host does not change its site while it is part of a pool.",
            vec![format!("take {host} out of the topology, publish, and add it at {to}")],
            Users::NotAtAll,
        ),
        Difference::AgentAddress { host, from, to } => told(
            format!("the agent of {host} is reached {}", address(from, to)),
            "The others look for it there at once; it listens there when it is started again.",
            vec![format!("start the agent of {host} again right afterwards")],
            Users::NotAtAll,
        ),
        Difference::DatabaseAdded { database } => told(
            format!("the database {database} is added"),
            "Its hosts look after it; it is created when the pool is initialised.",
            vec![],
            Users::NotAtAll,
        ),
        Difference::DatabaseRemoved { database } => told(
            format!("the database {database} is taken away"),
            "Refused while the pool's record names it.",
            vec![],
            Users::Wait,
        ),
        Difference::InstanceAdded { database, role, host } => {
            let (publishing, need) = match role {
                Role::Primary => ("Refused: a running pool has its principal.", String::new()),
                Role::Mirror => (
                    "The principal is copied to it, online; then commits wait for it (Install-CsMirrorDatabase).",
                    format!("room on {host} for the whole database, and the same version of PostgreSQL"),
                ),
                Role::Backup => (
                    "The principal is copied to it, online; then log is shipped to it through the share and by stream.",
                    format!(
                        "the share readable and writable on {host}, room for the whole database, the same PostgreSQL"
                    ),
                ),
                Role::BackupMirror => (
                    "The backup is copied to it; then it follows the backup.",
                    format!("a backup that runs, room on {host} for the whole database, and the same PostgreSQL"),
                ),
            };
            let needs = if need.is_empty() { vec![] } else { vec![need] };
            let site = site_of(wanted, host);
            told(format!("{database} gets a {role} on {host} ({site})"), publishing, needs, Users::NotAtAll)
        }
        Difference::InstanceRemoved { database, role, host } => {
            let (publishing, need) = match role {
                Role::Primary => ("Refused while it is the principal.", "another principal first".to_owned()),
                Role::Mirror => (
                    "Mirroring is removed first: the principal serves alone. The copy is kept, stopped.",
                    format!("{host} not the principal: standfast pool status shows it"),
                ),
                Role::Backup => (
                    "Log shipping is disabled first: nothing leaves the primary site any more.",
                    "nothing, but a lost site is then a lost pool".to_owned(),
                ),
                Role::BackupMirror => {
                    ("It is taken out of the record first. The copy is kept, stopped.", "state Normal".to_owned())
                }
            };
            let site = site_of(published, host);
            told(
                format!("the {role} of {database} on {host} ({site}) is taken away"),
                publishing,
                vec![need],
                Users::NotAtAll,
            )
        }
        Difference::InstanceRole { database, host, from, to } => told(
            format!("{host} is the {to} of {database} in state Normal, not its {from}"),
            "Nothing moves at once: who is principal is in the record; a failback leads to the new roles.",
            vec![],
            Users::NotAtAll,
        ),
        Difference::InstanceAddress { database, host, from, to } => told(
            format!("{database} on {host} is reached {}", address(from, to)),
            "Refused while the instance has a part in the pool and listens at the old address.",
            vec!["take the instance out of the topology, publish, and add it with the new address".into()],
            Users::NotAtAll,
        ),
        Difference::ShippingSettings { database, changed } => told(
            format!("log shipping of {database}: {}", changed.join(", ")),
            "The jobs take it up at once.",
            vec![],
            Users::NotAtAll,
        ),
        Difference::Share { database, from: Some(from), to: Some(to) } => told(
            format!("log of {database} is shipped through {to}, not {from}"),
            "The principal begins to ship into the new folder; what the old one holds and the backup has not copied comes by stream.",
            vec![format!(
                "{to} readable and writable on every host of {database}; keep {from} until the backup has caught up"
            )],
            Users::NotAtAll,
        ),
        Difference::Share { database, from: None, to: Some(to) } => told(
            format!("log of {database} is shipped through {to}"),
            "The share is used as soon as there is a backup.",
            vec![format!("{to} readable and writable on every host of {database}")],
            Users::NotAtAll,
        ),
        Difference::Share { database, from: Some(from), to: None } => told(
            format!("log of {database} is not shipped through {from} any more"),
            "Log shipping is disabled first. The files stay where they are.",
            vec![],
            Users::NotAtAll,
        ),
        Difference::Share { database, from: None, to: None } => {
            told(format!("{database} has no share"), "Nothing.", vec![], Users::NotAtAll)
        }
        Difference::ServerAdded { server, host } => told(
            format!("{server} is added on {host} ({})", site_of(wanted, host)),
            "Everybody learns of it. It takes no clients until it is in the list of active servers.",
            vec![
                format!("start it on {host}: standfast serve --dir HOSTDIR --server {server}"),
                format!("afterwards, if it is to serve now: standfast active-servers add {server}"),
            ],
            Users::NotAtAll,
        ),
        Difference::ServerRemoved { server, host } => told(
            format!("{server} on {host} ({}) is taken away", site_of(published, host)),
            "If it is active, it is taken out of the list of active servers first, and drains.",
            vec![format!("stop it afterwards, on {host}")],
            Users::SomeReconnect,
        ),
        Difference::ServerMoved { server, from, to } => told(
            format!("{server} runs on {to}, not {from}"),
            "If it is active, it is taken out of the list of active servers first, and drains.",
            vec![format!("stop it on {from}, start it on {to}, then make it active again")],
            Users::SomeReconnect,
        ),
        Difference::ServerAddress { server, what, from, to } => told(
            format!("the {what} address of {server}: reached {}", address(from, to)),
            "Everybody is told the new address at once; the server listens there when it is started again.",
            vec![format!("start {server} again right afterwards")],
            Users::SomeReconnect,
        ),
        Difference::ServerActive { server, active } => told(
            format!("{server} is {} in state Normal", if *active { "active" } else { "not active" }),
            "The present list of active servers stays as it is; a failback sets it from the topology.",
            vec![format!(
                "to change it now: standfast active-servers {} {server}",
                if *active { "add" } else { "remove" }
            )],
            Users::NotAtAll,
        ),
        Difference::Canary { from, to } => told(
            format!("servers write a canary every: {to}, not {from}"),
            "Servers and agents follow it at once.",
            vec![],
            Users::NotAtAll,
        ),
        Difference::Receiver { receiver, from: None, to: Some(to) } => told(
            format!("{receiver} is told at {to}"),
            "It is told what happens from then on.",
            vec![
                "its secrets, if any, in the folders of both authorities' hosts; standfast notify test tries it".into(),
            ],
            Users::NotAtAll,
        ),
        Difference::Receiver { receiver, from, to: Some(to) } => told(
            if from.as_ref() == Some(to) {
                format!("{receiver}, told at {to}, is told otherwise")
            } else {
                format!("{receiver} is told at {to}, not at {}", from.as_deref().unwrap_or("no place"))
            },
            "What it has not taken yet goes to the new place.",
            vec!["standfast notify test tries it".into()],
            Users::NotAtAll,
        ),
        Difference::Receiver { receiver, from: _, to: None } => {
            told(format!("{receiver} is told nothing any more"), "It is left alone at once.", vec![], Users::NotAtAll)
        }
    };
    Change { difference, says, publishing: publishing.to_owned(), needs, users }
}

/// How an address differs; the part seen from elsewhere is named only when that alone differs.
fn address(from: &Endpoint, to: &Endpoint) -> String {
    if from.at == to.at {
        let seen = |e: &Endpoint| {
            let all: Vec<String> = e.seen_from.iter().map(|(site, at)| format!("{at} from {site}")).collect();
            if all.is_empty() { e.at.clone() } else { all.join(", ") }
        };
        return format!("from elsewhere at {}, not {}", seen(to), seen(from));
    }
    format!("at {}, not {}", to.at, from.at)
}
