use super::*;
use cluster::Epoch;
use cluster::record::{DatabaseRecord, MirrorRecord};
use statement::{Known, What, parse};

fn topology() -> Topology {
    Topology::from_toml(include_str!("../../tests/stretched.toml")).expect("the example passes")
}

fn record(state: PoolState) -> PoolRecord {
    let (principal, mirror) = if state == PoolState::Normal { ("s1a", "s1b") } else { ("s2a", "s2b") };
    let mgc = DatabaseRecord {
        principal: Some(principal.into()),
        mirror: Some(MirrorRecord { host: mirror.into(), synchronised: true }),
        ..DatabaseRecord::default()
    };
    PoolRecord {
        version: 1,
        epoch: Epoch(1),
        state,
        home: "site-1".into(),
        active_servers: vec!["server-1".into(), "server-2".into()],
        databases: [("mgc".into(), mgc)].into(),
        lost_sites: std::collections::BTreeMap::new(),
        run: None,
    }
}

/// The counterpart of a text, with a run open up to a step (not included), or none.
fn counterpart(text: &str, state: PoolState, open: Option<(&str, &str)>) -> Result<Counterpart, Failure> {
    let (topology, mut record) = (topology(), record(state));
    let open = open.map(|(runbook, next)| {
        let steps = named(runbook).expect("it is a runbook").steps.iter().map(|s| s.id);
        record.active_servers.clear();
        Open { runbook: runbook.into(), done: steps.take_while(|id| *id != next).map(str::to_owned).collect() }
    });
    let situation = Situation { topology: &topology, record: &record, open };
    let plain = ["step".to_owned()];
    let parsed = parse(text, Known { plain: &plain }).unwrap_or_else(|p| panic!("{}", p.render(text)));
    let found = match &parsed[0].what {
        What::Pipeline(p) => of_cmdlet(&p.first.action, p.first.force, &situation),
        What::Database(d) => of_database(d, &situation),
        What::Plain(words) => Ok(Some(Counterpart::Plain(words.clone()))),
        What::Exit => Ok(None),
    };
    found.map(|c| c.expect("it has a counterpart"))
}

fn steps(found: Result<Counterpart, Failure>) -> Vec<&'static str> {
    match found {
        Ok(Counterpart::Steps { steps, .. }) => steps,
        other => panic!("no steps: {other:?}"),
    }
}

fn words_of(found: Result<Counterpart, Failure>) -> String {
    match found {
        Ok(Counterpart::Plain(words)) => words.join(" "),
        other => panic!("no plain command: {other:?}"),
    }
}

fn refused(found: Result<Counterpart, Failure>, says: &str) {
    let failure = found.expect_err("it is refused");
    assert!(failure.to_string().contains(says), "{failure}");
}

/// The statements of the table do what the table says, each when it is its turn.
#[test]
fn every_statement_of_the_table_is_its_step() {
    for row in statement::terms::STEP_STATEMENTS {
        let (site, principal, server) = if row.runbook == "failover" {
            (PoolState::FailedOver, "s2a", "server-5")
        } else {
            (PoolState::Normal, "s1a", "server-1")
        };
        let typed = row.statement.replace("POOL", "chat.example.org").replace("PRINCIPAL", principal);
        let typed = typed.replace("SERVER", server).replace("SHARE", "x");
        match counterpart(&typed, site, Some((row.runbook, row.step))) {
            Ok(Counterpart::Steps { runbook, steps, .. }) => {
                assert_eq!((runbook, steps.as_slice()), (row.runbook, &[row.step][..]), "{typed}");
            }
            Ok(Counterpart::Plain(words)) => assert_eq!(words, ["step", row.runbook, row.step]),
            other => panic!("{typed}: {other:?}"),
        }
    }
}

#[test]
fn the_first_statement_of_a_failover_fences_too() {
    let found = counterpart("exec sp_delete_log_shipping_secondary_database mgc", PoolState::Normal, None);
    let Ok(Counterpart::Steps { says, .. }) = &found else { panic!("{found:?}") };
    assert!(says[0].contains("safety"), "{says:?}");
    assert_eq!(steps(found), ["fence-old-primary", "stop-log-shipping"]);
    refused(
        counterpart("exec sp_delete_log_shipping_secondary_database mgc", PoolState::FailedOver, None),
        "s2a is the principal",
    );
    refused(
        counterpart("exec sp_delete_log_shipping_secondary_database mcg", PoolState::Normal, None),
        "did you mean 'mgc'",
    );
}

#[test]
fn log_is_never_left_out() {
    let recover = "restore database mgc with recovery";
    let after_stop = Some(("failover", "copy-remaining-log"));
    let all = ["copy-remaining-log", "apply-remaining-log", "disconnect-sessions", "bring-backup-online"];
    assert_eq!(steps(counterpart(recover, PoolState::Normal, after_stop)), all);
    let found = counterpart(recover, PoolState::Normal, None);
    refused(found, "exec sp_delete_log_shipping_secondary_database mgc");
}

#[test]
fn a_state_is_set_when_it_is_its_turn() {
    let over = "Set-CsPersistentChatState -Identity \"service:chat.example.org\" -PoolState FailedOver";
    refused(counterpart(over, PoolState::Normal, None), "exec sp_delete_log_shipping_secondary_database mgc");
    assert!(matches!(counterpart(over, PoolState::FailedOver, None), Ok(Counterpart::Nothing(_))));
    let normal = "Set-CsPersistentChatState \"service: chat.example.org\"";
    refused(counterpart(normal, PoolState::FailedOver, None), "-ActiveServers $Null");
    let found = counterpart(normal, PoolState::FailedOver, Some(("failback", "recreate-log-shipping")));
    assert_eq!(steps(found), ["recreate-log-shipping", "set-pool-normal"]);
    refused(counterpart("Set-CsPersistentChatState service:other.org", PoolState::Normal, None), "not this pool");
}

#[test]
fn active_servers_are_set_by_the_step_whose_turn_it_is() {
    let set = |change: &str| format!("Set-CsPersistentChatActiveServer PChatServerCollection -ActiveServers {change}");
    let online = ["salvage-tail", "rewind-primary", "feed-primary", "catch-up", "clear-active-servers"];
    assert_eq!(steps(counterpart(&set("$Null"), PoolState::FailedOver, None)), online);
    assert_eq!(words_of(counterpart(&set("$Null"), PoolState::Normal, None)), "active-servers clear --yes");
    let add = counterpart(&set("@{Add='server-3'}"), PoolState::Normal, None);
    assert_eq!(words_of(add), "active-servers set server-1 server-2 server-3");
    let at_its_turn = Some(("failover", "set-active-servers"));
    let found = counterpart(&set("@{Add='server-5.example.org'}"), PoolState::FailedOver, at_its_turn);
    assert!(matches!(&found, Ok(Counterpart::Steps { servers: Some(s), .. }) if s.len() == 1), "{found:?}");
    refused(counterpart(&set("@{Add='server-1'}"), PoolState::FailedOver, at_its_turn), "R4");
    refused(counterpart(&set("@{Add='server-9'}"), PoolState::Normal, None), "did you mean");
    // The reference activates before it sets the state; here the state comes first, and that is said.
    let found = counterpart(&set("@{Add='server-1'}"), PoolState::Normal, Some(("failback", "set-pool-normal")));
    assert_eq!(steps(found), ["set-pool-normal", "set-active-servers"]);
}

#[test]
fn a_mirror_is_given_to_the_principal_alone() {
    let install =
        |host: &str| format!("Install-CsMirrorDatabase -ConfiguredDatabases -FileShare x -SqlServerFqdn {host}");
    assert_eq!(words_of(counterpart(&install("S1A.litwareinc.com"), PoolState::Normal, None)), "mirror install --yes");
    refused(counterpart(&install("s1b"), PoolState::Normal, None), "the principal is s1a");
    refused(counterpart(&install("s9"), PoolState::Normal, None), "no host");
    let without = format!("{} -ExcludeDatabaseList mgc", install("s1a"));
    refused(counterpart(&without, PoolState::Normal, None), "cannot be left out");
    let compliance = "Install-CsMirrorDatabase -DatabaseType PersistentChatCompliance -FileShare x -SqlServerFqdn s1a";
    refused(counterpart(compliance, PoolState::Normal, None), "no database 'mgccomp'");
}

#[test]
fn partners_change_places() {
    let typed = |text: &str| words_of(counterpart(text, PoolState::Normal, None));
    assert_eq!(typed("alter database mgc set partner failover"), "database failover --new-principal mirror --yes");
    assert_eq!(
        typed(
            "Invoke-CsDatabaseFailover -PoolFqdn chat.example.org -DatabaseType PersistentChat -NewPrincipal primary -Force"
        ),
        "database failover --new-principal primary --yes --force"
    );
    assert_eq!(typed("alter database mgc set partner off"), "mirror remove --yes");
    assert_eq!(typed("exec sp_add_log_shipping_secondary_database mgc"), "log-shipping enable --yes");
    refused(counterpart("backup database mgc to disk = 'x'", PoolState::Normal, None), "step 3 of a failback");
}
