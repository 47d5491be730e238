//! What the reference's Get cmdlets show, as rows in its property names.

use super::counterpart::host_named;
use crate::agents::{Agents, Look};
use crate::command::pool::{pair_state, witness};
use crate::failure::Failure;
use cluster::mirror::PairState;
use cluster::name::DatabaseName;
use cluster::record::{Part, PoolRecord};
use cluster::report::{HostReport, InstanceState};
use cluster::runbook::Silence;
use cluster::topology::{LatencyClass, Topology};
use statement::{Cell, Row};
use wire::agent::SessionReport;

fn number(n: u64) -> Cell {
    Cell::Number(i64::try_from(n).unwrap_or(i64::MAX))
}

/// The identity of the pool's chat service, and of its collection of active servers.
pub(super) fn identity(topology: &Topology) -> String {
    format!("PersistentChatServer:{}", topology.pool)
}

/// Get-CsPersistentChatState.
pub(super) fn state(look: &Look, local_store: bool) -> Result<Vec<Row>, Failure> {
    let topology = &look.view.topology;
    let row = |record: &PoolRecord| {
        let run = record.run.as_ref().map(|r| r.runbook.clone());
        vec![
            ("Identity", identity(topology).into()),
            ("PoolState", record.state.to_string().into()),
            ("Epoch", record.epoch.to_string().into()),
            ("Home", record.home.to_string().into()),
            ("RunUnderWay", run.into()),
        ]
    };
    if !local_store {
        let record = look.view.record.as_ref().ok_or_else(|| look.nobody())?;
        return Ok(vec![Row(row(record))]);
    }
    let copies = look.view.reports.iter().filter_map(|r| r.record.as_ref().map(|record| (r, record)));
    let rows = copies.map(|(report, record)| {
        let mut properties = row(record);
        properties.push(("ReplicaFqdn", report.host.to_string().into()));
        Row(properties)
    });
    Ok(rows.collect())
}

/// Get-CsPersistentChatActiveServer.
pub(super) fn active_servers(look: &Look) -> Result<Vec<Row>, Failure> {
    let topology = &look.view.topology;
    let record = look.view.record.as_ref().ok_or_else(|| look.nobody())?;
    let rows = topology.servers.iter().map(|server| {
        Row(vec![
            ("Identity", identity(topology).into()),
            ("ServerFqdn", server.name.to_string().into()),
            ("Active", record.is_active(&server.name).into()),
            ("Site", topology.site_of(&server.host).map(ToString::to_string).into()),
            ("ClientsAt", format!("http://{}", server.clients.at).into()),
        ])
    });
    Ok(rows.collect())
}

/// Get-CsDatabaseMirrorState. Primary and mirror are the topology's, at the site that serves.
pub(super) fn mirror_state(look: &Look, database: Option<&str>, local_store: bool) -> Result<Vec<Row>, Failure> {
    let record = look.view.record.as_ref().ok_or_else(|| look.nobody())?;
    let wanted = |name: &DatabaseName| database.is_none_or(|d| name.as_str().eq_ignore_ascii_case(d));
    let of = |record: &PoolRecord| -> Vec<Row> {
        let all = record.databases.iter().filter(|(name, _)| wanted(name));
        all.map(|(name, _)| Row(pair(look, record, name))).collect()
    };
    if !local_store {
        return Ok(of(record));
    }
    let copies = look.view.reports.iter().filter_map(|r| r.record.as_ref().map(|record| (r, record)));
    let rows = copies.flat_map(|(report, record)| {
        of(record).into_iter().map(|mut row| {
            row.0.push(("ReplicaFqdn", report.host.to_string().into()));
            row
        })
    });
    Ok(rows.collect())
}

fn pair(look: &Look, record: &PoolRecord, name: &DatabaseName) -> Vec<(&'static str, Cell)> {
    let view = &look.view;
    let (Some(d), Some(topology)) = (record.databases.get(name), view.topology.database(name)) else {
        return vec![("DatabaseName", name.to_string().into())];
    };
    // The pair at the site that serves; in no other are there a principal and a mirror.
    let at_home = |host: &cluster::name::HostName| view.topology.site_of(host) == Some(&record.home);
    let mut here = topology.instances().map(|i| &i.host).filter(|h| at_home(h));
    let (primary, mirror) = (here.next(), here.next());
    let state = |host: Option<&cluster::name::HostName>| -> Cell {
        match host.and_then(|h| d.part_of(h)) {
            Some(Part::Principal) => "Principal".into(),
            Some(Part::Mirror) => "Mirror".into(),
            Some(Part::Backup | Part::BackupMirror) | None => "DatabaseInaccessibleOrMirroringNotEnabled".into(),
        }
    };
    let word: Cell = match pair_state(view, name, d) {
        PairState::None => Cell::Null,
        state => state.to_string().into(),
    };
    let witness = witness(view, record);
    vec![
        ("DatabaseName", name.to_string().into()),
        ("PrimaryServer", primary.map(ToString::to_string).into()),
        ("MirrorServer", mirror.map(ToString::to_string).into()),
        ("StateOnPrimary", state(primary)),
        ("StateOnMirror", state(mirror)),
        ("MirroringStatusOnPrimary", word.clone()),
        ("MirroringStatusOnMirror", word.clone()),
        ("MirrorState", word),
        ("WitnessServer", witness.map(|(host, _)| host.to_string()).into()),
        ("WitnessState", witness.map(|(_, state)| state.to_owned()).into()),
    ]
}

/// Get-CsService.
pub(super) fn services(topology: &Topology) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |identity: String, role: &'static str, site: Option<String>, needs: Vec<String>| {
        rows.push(Row(vec![
            ("Identity", identity.into()),
            ("Role", role.into()),
            ("SiteID", site.map(|s| format!("Site:{s}")).into()),
            ("PoolFqdn", topology.pool.clone().into()),
            ("DependentServiceList", Cell::List(needs)),
        ]));
    };
    let home = topology.primary_site().map(|s| s.name.to_string());
    let database = |role: &str, host: &dyn std::fmt::Display| format!("{role}:{host}");
    let stores: Vec<String> =
        topology.databases.iter().map(|d| database(role_of(d.name.as_str()), &d.primary.host)).collect();
    add(identity(topology), "PersistentChatServer", home, stores);
    for d in &topology.databases {
        let role = role_of(d.name.as_str());
        for instance in d.instances() {
            let site = topology.site_of(&instance.host).map(ToString::to_string);
            add(database(role, &instance.host), role, site, Vec::new());
        }
        if let Some(shipping) = &d.log_shipping {
            add(format!("FileStore:{}", shipping.share), "FileStore", None, Vec::new());
        }
    }
    for site in &topology.sites {
        let identity = format!("CentralManagement:{}", site.authority);
        add(identity, "CentralManagement", Some(site.name.to_string()), Vec::new());
    }
    rows
}

fn role_of(database: &str) -> &'static str {
    if database == "mgccomp" { "PersistentChatComplianceDatabase" } else { "PersistentChatDatabase" }
}

/// Get-CsTopology.
pub(super) fn topology(topology: &Topology) -> Row {
    let list = |all: &mut dyn Iterator<Item = String>| Cell::List(all.collect());
    let instances = topology
        .databases
        .iter()
        .flat_map(|d| d.instances().map(move |i| format!("{}\\{} at {}", i.host, d.name, i.postgres.at)));
    let shares = topology.databases.iter().filter_map(|d| d.log_shipping.as_ref()).map(|s| s.share.clone());
    let latency = if topology.latency == LatencyClass::Low { "low" } else { "high" };
    Row(vec![
        ("Pool", topology.pool.clone().into()),
        ("Version", number(topology.version)),
        ("Latency", latency.into()),
        ("Sites", list(&mut topology.sites.iter().map(|s| s.name.to_string()))),
        ("Hosts", list(&mut topology.hosts.iter().map(|h| h.name.to_string()))),
        ("Servers", list(&mut topology.servers.iter().map(|s| s.name.to_string()))),
        ("SqlInstances", list(&mut instances.into_iter())),
        ("FileShares", list(&mut shares.into_iter())),
    ])
}

/// Get-CsManagementStoreReplicationStatus.
pub(super) fn replication(look: &Look, replica: Option<&str>) -> Result<Vec<Row>, Failure> {
    let view = &look.view;
    let only = replica.map(|r| host_named(&view.topology, r)).transpose()?;
    let newest = view.record.as_ref().map(|r| (r.epoch, r.version));
    let topology = view.reports.iter().map(|r| r.topology_version).max();
    let hosts = view.topology.hosts.iter().filter(|h| only.as_ref().is_none_or(|o| h.name == *o));
    let rows = hosts.map(|host| {
        let report = view.reports.iter().find(|r| r.host == host.name);
        let record = report.and_then(|r| r.record.as_ref());
        let current = record.map(|r| (r.epoch, r.version)) == newest && report.map(|r| r.topology_version) == topology;
        let at = report.and_then(|r| jiff::Timestamp::from_millisecond(r.measured_at_ms).ok());
        Row(vec![
            ("ReplicaFqdn", host.name.to_string().into()),
            ("UpToDate", (report.is_some() && current).into()),
            ("LastStatusReport", at.map(|t| t.to_string()).into()),
            ("LastUpdateCreation", record.and_then(|r| r.run.as_ref()).map(|r| r.started_at.clone()).into()),
            ("RecordVersion", record.map(|r| format!("{}.{}", r.epoch, r.version)).into()),
            ("TopologyVersion", report.map_or(Cell::Null, |r| number(r.topology_version))),
        ])
    });
    Ok(rows.collect())
}

/// Get-CsManagementStoreReplicationStatus -CentralManagementStoreStatus.
pub(super) fn stores(look: &Look) -> Vec<Row> {
    let view = &look.view;
    let home = view.record.as_ref().map(|r| &r.home);
    let rows = view.topology.sites.iter().map(|site| {
        Row(vec![
            ("SiteID", site.name.to_string().into()),
            ("ActiveMasterFqdn", site.authority.to_string().into()),
            ("IsHome", (Some(&site.name) == home).into()),
            ("Answers", view.reports.iter().any(|r| r.host == site.authority).into()),
        ])
    });
    rows.collect()
}

/// Test-CsTopology: each service, and what is wrong with it.
pub(super) fn test(look: &Look) -> Vec<Row> {
    let view = &look.view;
    let row = |service: String, error: Option<String>| {
        let result = if error.is_none() { "Success" } else { "Failure" };
        Row(vec![("Service", service.into()), ("Result", result.into()), ("Error", error.into())])
    };
    let report = |host: &cluster::name::HostName| -> Result<&HostReport, String> {
        view.reports.iter().find(|r| r.host == *host).ok_or_else(|| silence(look, host))
    };
    let mut rows = Vec::new();
    for host in &view.topology.hosts {
        let said = report(&host.name).and_then(|r| r.waiting_for.first().map_or(Ok(()), |w| Err(w.clone())));
        rows.push(row(format!("Agent:{}", host.name), said.err()));
    }
    for database in &view.topology.databases {
        for instance in database.instances() {
            let said = report(&instance.host).and_then(|r| match r.instances.get(&database.name).map(|i| i.state) {
                Some(InstanceState::Online | InstanceState::Standby) => Ok(()),
                Some(state) => Err(format!("{} is {state:?}", database.name)),
                None => Err(format!("its agent has no instance of {}", database.name)),
            });
            rows.push(row(format!("{}:{}", role_of(database.name.as_str()), instance.host), said.err()));
        }
    }
    for server in &view.topology.servers {
        let heard = |r: &HostReport| r.servers.get(&server.name).is_some_and(|s| s.age_ms < super::services::HEARD_MS);
        let said = report(&server.host).and_then(|r| if heard(r) { Ok(()) } else { Err("it is not heard".into()) });
        rows.push(row(format!("PersistentChatServer:{}", server.name), said.err()));
    }
    rows
}

fn silence(look: &Look, host: &cluster::name::HostName) -> String {
    let seen = look.view.silent.iter().find(|(h, _)| h == host).map(|(_, s)| *s);
    match (look.said.get(host), seen) {
        (Some(words), _) => format!("its agent answers: {words}"),
        (None, Some(Silence::TimedOut)) => "its agent does not answer in time".into(),
        (None, _) => "its agent does not answer (connection refused)".into(),
    }
}

/// sp_who2, in its columns. What a session's client calls itself begins with its host for chat servers.
pub(super) fn sessions(all: &[SessionReport], only: Option<&str>) -> Vec<Row> {
    let fits = |s: &&SessionReport| match only {
        None => true,
        Some(word) if word.eq_ignore_ascii_case("active") => s.state == "active",
        Some(word) => word.parse() == Ok(s.spid) || s.login.eq_ignore_ascii_case(word),
    };
    let rows = all.iter().filter(fits).map(|s| {
        let status = if s.system {
            "BACKGROUND"
        } else if s.state == "active" {
            "RUNNABLE"
        } else {
            "sleeping"
        };
        let idle = s.state.starts_with("idle") && !s.system;
        let command = if idle { "AWAITING COMMAND".to_owned() } else { s.command.clone() };
        Row(vec![
            ("SPID", Cell::Number(i64::from(s.spid))),
            ("Status", status.into()),
            ("Login", s.login.clone().into()),
            ("HostName", if s.from.is_empty() { "." } else { s.from.as_str() }.into()),
            ("BlkBy", s.blocked_by.map_or_else(|| ".".to_owned(), |pid| pid.to_string()).into()),
            ("DBName", s.database.clone().into()),
            ("Command", command.into()),
            ("CPUTime", Cell::Null),
            ("DiskIO", Cell::Null),
            ("LastBatch", s.since.clone().into()),
            ("ProgramName", s.program.clone().into()),
        ])
    });
    rows.collect()
}

/// The instance whose sessions are meant: the one that was chosen, else the principal's, else the backup's.
pub(super) async fn instance(
    agents: &Agents,
    connected: Option<&str>,
    database: Option<&str>,
) -> Result<(cluster::name::HostName, DatabaseName), Failure> {
    let topology = &agents.topology;
    let named = |d: &&cluster::topology::Database| database.is_none_or(|n| d.name.as_str().eq_ignore_ascii_case(n));
    let Some(d) = topology.databases.iter().find(named).or_else(|| topology.databases.first()) else {
        return Err(Failure::Failed("the topology has no database".into()));
    };
    if let Some(host) = connected {
        return host_named(topology, host).map(|host| (host, d.name.clone()));
    }
    let record = agents.record().await?;
    let parts = record.databases.get(&d.name);
    let host = parts.and_then(|p| p.principal.clone().or_else(|| p.backup.clone()));
    host.map(|host| (host, d.name.clone())).ok_or_else(|| {
        Failure::Refused(format!(
            "{} has neither principal nor backup now; choose an instance with :connect HOST",
            d.name
        ))
    })
}
