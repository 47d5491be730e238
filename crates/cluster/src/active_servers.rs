//! Which servers may be active together (ha-dr §1, §3, §9, §14), and what is said about a list that may.

use crate::name::{ServerName, SiteName};
use crate::record::PoolRecord;
pub use crate::remark::Remark;
use crate::topology::{LatencyClass, Topology};
use crate::topology_file::{ACTIVE_SERVERS_MAX, nearest};
use serde::Serialize;
use std::collections::BTreeSet;

/// A list that may be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The servers, each once, in the order that was asked for.
    pub servers: Vec<ServerName>,
    /// Active now, and not in the list: they drain.
    pub leaving: Vec<ServerName>,
    /// In the list, and not active now.
    pub joining: Vec<ServerName>,
    /// What the administrator should know before.
    pub warnings: Vec<Remark>,
}

/// Judge a list of active servers that an administrator asks for. `heard`: the servers that have reported lately; `None`
/// when nobody was asked.
///
/// # Errors
/// Every reason why it may not be set.
pub fn judge(
    topology: &Topology,
    record: &PoolRecord,
    wanted: &[String],
    heard: Option<&BTreeSet<ServerName>>,
) -> Result<Judged, Vec<Remark>> {
    let mut objections = Vec::new();
    if let Some(run) = &record.run {
        objections.push(Remark {
            rule: "ha-dr §8, §10",
            why: format!(
                "{} is under way, begun by {} at {}, and sets the active servers itself",
                run.runbook, run.started_by, run.started_at
            ),
            hint: "watch it with standfast runbook watch".into(),
        });
    }
    let mut servers: Vec<ServerName> = Vec::new();
    for name in wanted {
        let name = ServerName::from(name.as_str());
        if !servers.contains(&name) {
            servers.push(name);
        }
    }
    objections.extend(broken(topology, record, &servers));
    if !objections.is_empty() {
        return Err(objections);
    }
    let without = |all: &[ServerName], those: &[ServerName]| -> Vec<ServerName> {
        all.iter().filter(|s| !those.contains(s)).cloned().collect()
    };
    let leaving = without(&record.active_servers, &servers);
    let joining = without(&servers, &record.active_servers);
    let warnings = warnings(topology, record, &servers, &leaving, heard);
    Ok(Judged { servers, leaving, joining, warnings })
}

/// The rules that a list breaks, whoever sets it. The authority of the record takes no list that breaks one.
pub fn broken(topology: &Topology, record: &PoolRecord, servers: &[ServerName]) -> Vec<Remark> {
    let mut objections = Vec::new();
    let known: Vec<&str> = topology.servers.iter().map(|s| s.name.as_str()).collect();
    for name in servers.iter().filter(|s| topology.server(s).is_none()) {
        let hint = match nearest(name.as_str(), &known) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("there are: {}", known.join(", ")),
        };
        objections.push(Remark { rule: "the topology", why: format!("there is no server '{name}'"), hint });
    }
    if servers.len() > ACTIVE_SERVERS_MAX {
        objections.push(Remark {
            rule: "ha-dr §1",
            why: format!("{} servers; at most {ACTIVE_SERVERS_MAX} may be active at a time", servers.len()),
            hint: "leave the others idle; they take over when one of these is lost".into(),
        });
    }
    let far = far(topology, record, servers);
    if !far.is_empty() && topology.latency == LatencyClass::High {
        let site = principals_site(topology, record).map_or("", SiteName::as_str);
        let (is, are) = if far.len() == 1 { ("is", "it") } else { ("are", "they") };
        objections.push(Remark {
            rule: "ha-dr §9, R4",
            why: format!(
                "{} {is} not at {site}, where the principal is, and the topology says that the line between the sites has \
                 a high latency",
                names(&far)
            ),
            hint: format!("only servers near the principal may be active; write latency = \"low\" if {are} reach it fast"),
        });
    }
    objections
}

/// The site of the present writer.
fn principals_site<'a>(topology: &'a Topology, record: &PoolRecord) -> Option<&'a SiteName> {
    record.databases.values().find_map(|d| d.principal.as_ref()).and_then(|host| topology.site_of(host))
}

/// Servers at another site than the writer; none while there is no writer.
fn far<'a>(topology: &Topology, record: &PoolRecord, servers: &'a [ServerName]) -> Vec<&'a ServerName> {
    let Some(site) = principals_site(topology, record) else { return Vec::new() };
    servers.iter().filter(|s| topology.site_of_server(s).is_some_and(|at| at != site)).collect()
}

fn names(servers: &[&ServerName]) -> String {
    servers.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ")
}

fn warnings(
    topology: &Topology,
    record: &PoolRecord,
    servers: &[ServerName],
    leaving: &[ServerName],
    heard: Option<&BTreeSet<ServerName>>,
) -> Vec<Remark> {
    let mut warnings = Vec::new();
    let mut warn = |rule, why: String, hint: &str| warnings.push(Remark { rule, why, hint: hint.to_owned() });
    if servers.is_empty() {
        let why = "no server will use the databases, and no client is served; those who are connected wait".to_owned();
        warn("ha-dr §14, H-3 and R5", why, "standfast active-servers set brings them back");
    } else if !leaving.is_empty() {
        let why = format!("{} will take no new client; those who are connected move within seconds", list(leaving));
        warn("ha-dr §14, H-4", why, "");
    }
    if !servers.is_empty() && principals_site(topology, record).is_none() {
        let why = "no database has a principal now: the servers wait until one has, and use none that is restoring"
            .to_owned();
        warn("ha-dr §14, H-2", why, "standfast pool status shows what is under way");
    }
    let lost: Vec<&ServerName> = servers
        .iter()
        .filter(|s| topology.site_of_server(s).is_some_and(|site| record.lost_sites.contains_key(site)))
        .collect();
    if !lost.is_empty() {
        let why = format!("{} would run at a site that a failover has declared lost", names(&lost));
        warn("ha-dr §8, step 7", why, "take servers of the other site, or fail back first");
    }
    let silent: Vec<&ServerName> = match heard {
        Some(heard) => servers.iter().filter(|s| !heard.contains(*s)).collect(),
        None => Vec::new(),
    };
    if !silent.is_empty() {
        let all = if silent.len() == servers.len() { ": nobody would be served" } else { "" };
        let why = format!("{} has not been heard from lately{all}", names(&silent));
        warn("ha-dr §8, step 7", why, "start it on its host: standfast serve");
    }
    warnings
}

fn list(servers: &[ServerName]) -> String {
    names(&servers.iter().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;
    use crate::record::{DatabaseRecord, PoolState, RunRef};

    fn pool(latency: LatencyClass) -> (Topology, PoolRecord) {
        let text = include_str!("../../shell/tests/stretched.toml");
        let topology = Topology { latency, ..Topology::from_toml(text).expect("the example passes") };
        let mgc = DatabaseRecord { principal: Some("s1a".into()), ..DatabaseRecord::default() };
        let record = PoolRecord {
            version: 1,
            epoch: Epoch(1),
            state: PoolState::Normal,
            home: "site-1".into(),
            active_servers: vec!["server-1".into(), "server-2".into()],
            databases: [("mgc".into(), mgc)].into(),
            lost_sites: std::collections::BTreeMap::new(),
            run: None,
        };
        (topology, record)
    }

    /// The rules that are objected to or, if none is, warned of.
    fn check(
        latency: LatencyClass,
        names: &[&str],
        change: impl FnOnce(&mut PoolRecord),
        expect: Result<&[&str], &[&str]>,
    ) {
        let (topology, mut record) = pool(latency);
        change(&mut record);
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let rules = |remarks: Vec<Remark>| remarks.into_iter().map(|r| r.rule).collect::<Vec<_>>();
        let got = judge(&topology, &record, &names, None).map(|j| rules(j.warnings)).map_err(rules);
        assert_eq!(got, expect.map(<[&str]>::to_vec).map_err(<[&str]>::to_vec), "{latency:?} {names:?}");
    }

    #[test]
    fn servers_exist_are_at_most_four_and_stand_near_the_principal() {
        use LatencyClass::{High, Low};
        check(High, &["server-1", "server-2", "server-1"], |_| (), Ok(&[]));
        check(High, &["server-1", "server-5"], |_| (), Err(&["ha-dr §9, R4"]));
        check(Low, &["server-1", "server-2", "server-5"], |_| (), Ok(&[]));
        check(High, &["server-9"], |_| (), Err(&["the topology"]));
        check(
            High,
            &["server-1", "server-2", "server-3", "server-5", "server-6"],
            |_| (),
            Err(&["ha-dr §1", "ha-dr §9, R4"]),
        );
    }

    #[test]
    fn the_nearest_name_is_offered() {
        let (topology, record) = pool(LatencyClass::High);
        let objections = judge(&topology, &record, &["sever-1".into()], None).expect_err("there is none");
        assert_eq!(objections[0].to_string(), "there is no server 'sever-1'; did you mean 'server-1'? (the topology)");
    }

    #[test]
    fn where_the_reference_is_unsafe_it_is_said() {
        use LatencyClass::{High, Low};
        check(High, &[], |_| (), Ok(&["ha-dr §14, H-3 and R5"]));
        check(High, &["server-1"], |_| (), Ok(&["ha-dr §14, H-4"]));
        let no_writer = |r: &mut PoolRecord| r.databases.values_mut().for_each(|d| d.principal = None);
        check(High, &["server-1", "server-2"], no_writer, Ok(&["ha-dr §14, H-2"]));
        let lost = |r: &mut PoolRecord| {
            r.lost_sites.insert("site-2".into(), Epoch(2));
        };
        check(Low, &["server-1", "server-2", "server-5"], lost, Ok(&["ha-dr §8, step 7"]));
    }

    #[test]
    fn a_server_that_nobody_hears_is_named() {
        let (topology, record) = pool(LatencyClass::High);
        let heard = BTreeSet::from(["server-1".into()]);
        let judged =
            judge(&topology, &record, &["server-1".into(), "server-2".into()], Some(&heard)).expect("it may be");
        assert!(judged.warnings[0].why.starts_with("server-2 has not been heard from"), "{:?}", judged.warnings);
    }

    #[test]
    fn nobody_sets_the_list_while_a_run_does() {
        let run = RunRef { id: "x".into(), runbook: "failback".into(), started_by: "m".into(), started_at: "t".into() };
        check(LatencyClass::High, &["server-1"], |r| r.run = Some(run), Err(&["ha-dr §8, §10"]));
    }
}
