//! Both procedures as the reference prints them, typed line by line in the shell; and the shell as a newcomer and a script
//! meet it.

mod support;
use support::{Lab, Ran, assert_clean};

const POOL: &str = "lab.standfast.example";

/// Type statements in the shell, as a person does one after the other.
fn typed(lab: &Lab, statements: &str) -> Ran {
    lab.cli(&["shell", "-c", statements])
}

fn ok(lab: &Lab, statements: &str) -> Ran {
    let ran = typed(lab, statements);
    assert_eq!(ran.code, Some(0), "{statements}\n{}", ran.all());
    ran
}

/// The rows of a statement, with `--json`.
fn rows(lab: &Lab, statement: &str) -> Vec<serde_json::Value> {
    let ran = lab.cli(&["shell", "--json", "-c", statement]);
    assert_eq!(ran.code, Some(0), "{statement}\n{}", ran.all());
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{statement}: {e}\n{}", ran.stdout))
}

#[test]
fn both_procedures_typed_line_by_line_as_the_reference_prints_them() {
    let lab = Lab::up();
    let replay = lab.replay(&[]);
    let state = || rows(&lab, "Get-CsPersistentChatState")[0]["PoolState"].clone();
    assert_eq!(state(), "Normal");
    // While the primary site lives, the first step of a failover refuses, and says what was seen.
    let refused = typed(&lab, "exec sp_delete_log_shipping_secondary_database mgc");
    assert_eq!(refused.code, Some(3), "{}", refused.all());
    assert!(refused.all().contains("s1a"), "{}", refused.all());
    lab.ok(&["lab", "kill", "site-1"]);

    // Failover, ha-dr §8.
    let first = ok(&lab, "use master\nexec sp_delete_log_shipping_secondary_database mgc");
    assert!(first.all().contains("added for safety"), "{}", first.all());
    let early = typed(&lab, &format!("Set-CsPersistentChatState -Identity \"service:{POOL}\" -PoolState FailedOver"));
    assert_eq!(early.code, Some(3), "{}", early.all());
    ok(&lab, "step failover copy-remaining-log");
    ok(&lab, "restore log mgc from disk = 'mgc_20261124220000.trn' with norecovery");
    assert!(!rows(&lab, "exec sp_who2").is_empty());
    ok(&lab, "restore database mgc with recovery");
    ok(&lab, &format!("Set-CsPersistentChatState -Identity \"service:{POOL}\" -PoolState FailedOver"));
    assert_eq!(state(), "FailedOver");
    let install =
        "Install-CsMirrorDatabase -ConfiguredDatabases -FileShare \\\\SHARE\\logs -SqlServerFqdn s2a -Verbose";
    let report = lab.dir.join("mirror.html");
    ok(&lab, &format!("{install} -Report '{}'", report.display()));
    // It is the run's own report, with all that was done so far.
    assert!(std::fs::read_to_string(&report).unwrap().contains("bring-backup-online"));
    let set = format!("Set-CsPersistentChatActiveServer -Identity \"PersistentChatServer:{POOL}\" -ActiveServers");
    let far = typed(&lab, &format!("{set} @{{Add=\"server-1\"}}"));
    assert_eq!(far.code, Some(3), "{}", far.all());
    assert!(far.all().contains("R4"), "{}", far.all());
    // The step activates the servers of the site; the list that was typed follows.
    ok(&lab, &format!("{set} @{{Add=\"server-5\"}}"));
    assert_eq!(lab.record()["active_servers"], serde_json::json!(["server-5"]));
    replay.until_epoch(&lab, 2);
    lab.until("the new principal is mirrored", |lab| {
        let pair = &rows(lab, &format!("Get-CsDatabaseMirrorState -PoolFqdn {POOL}"))[0];
        pair["MirrorState"] == "SYNCHRONIZED" && pair["PrimaryServer"] == "s2a" && pair["StateOnMirror"] == "Mirror"
    });

    // Failback, ha-dr §10: in the reference's order, servers before the state.
    lab.ok(&["lab", "start", "site-1"]);
    lab.until("the old principal answers", |lab| lab.instance("s1a")["state"] == "left-behind");
    let first = ok(&lab, "Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" -ActiveServers $Null");
    assert!(first.all().contains("while the users go on"), "{}", first.all());
    ok(&lab, "alter database mgc set partner off");
    ok(&lab, "backup database mgc to disk = '\\\\SHARE\\logs\\mgc.bak'");
    ok(&lab, "restore database mgc from disk = '\\\\SHARE\\logs\\mgc.bak' with replace, recovery");
    ok(&lab, "exec sp_add_log_shipping_secondary_database mgc");
    let servers = "-ActiveServers @{Add=\"server-1\",\"server-2\"}";
    let activated =
        ok(&lab, &format!("Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" {servers}"));
    assert!(activated.all().contains("H-2"), "{}", activated.all());
    ok(&lab, &format!("Set-CsPersistentChatState -Identity \"service: {POOL}\" -PoolState Normal"));
    ok(&lab, "Install-CsMirrorDatabase -ConfiguredDatabases -FileShare \\\\SHARE\\logs -SqlServerFqdn s1a");
    replay.until_epoch(&lab, 3);
    lab.until_normal();
    assert_eq!(state(), "Normal");
    let pair = &rows(&lab, &format!("Get-CsDatabaseMirrorState -PoolFqdn {POOL} -DatabaseType PersistentChat"))[0];
    assert_eq!((&pair["PrimaryServer"], &pair["MirrorState"]), (&"s1a".into(), &"SYNCHRONIZED".into()));
    replay.until_acknowledged(&lab, 10);
    assert_clean(&lab.audit(&replay.end()));
}

#[test]
fn the_shell_shows_ends_and_refuses() {
    let lab = Lab::up();
    // Sessions: a server's can be ended, the agent's own cannot, and nothing of what is written is shown.
    let sessions = rows(&lab, "exec sp_who2");
    let of = |login: &str| {
        let found = sessions.iter().find(|s| s["Login"] == login && s["DBName"] == "mgc");
        found.unwrap_or_else(|| panic!("no session of {login}: {sessions:#?}"))["SPID"].clone()
    };
    let ran = ok(&lab, &format!("kill {}", of("standfast_chat")));
    assert!(ran.all().contains("is ended"), "{}", ran.all());
    let ran = typed(&lab, &format!("kill {}", of("standfast_admin")));
    assert_eq!(ran.code, Some(3), "{}", ran.all());
    assert!(ran.all().contains("not ended"), "{}", ran.all());

    // Nothing of a script is carried out when a line of it is not understood.
    let ran = typed(&lab, "Set-CsPersistentChatActiveServer -ActiveServers $Null\nGet-CsPersistantChatState");
    assert_eq!(ran.code, Some(2), "{}", ran.all());
    assert!(
        ran.stderr.contains("2:1:") && ran.stderr.contains("did you mean 'Get-CsPersistentChatState'"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("\n  ^^^^"), "{}", ran.stderr);
    assert_eq!(lab.record()["active_servers"], serde_json::json!(["server-1", "server-2"]));

    // -WhatIf says what would be done; a report is written; plain commands are understood.
    let report = lab.dir.join("report.html");
    let set = "Set-CsPersistentChatActiveServer -ActiveServers @{Remove=\"server-2\"}";
    let said = ok(&lab, &format!("{set} -WhatIf -Report '{}'", report.display()));
    assert!(said.stdout.contains("What if") && said.stdout.contains("server-1"), "{}", said.all());
    assert!(std::fs::read_to_string(&report).unwrap().contains("What if"));
    ok(&lab, &format!("{set} -Confirm:$False; pool status"));
    let active = rows(&lab, "Get-CsPersistentChatActiveServer | Where-Object {$_.Active -eq $True}");
    assert_eq!(active.len(), 1, "{active:?}");
    assert_eq!(active[0]["ServerFqdn"], "server-1");

    // Objects are handed on from one cmdlet to the next.
    lab.ok(&["lab", "kill", "server-6"]);
    let running = "Get-CsWindowsService | Where-Object {$_.Status -ne \"Running\"}";
    lab.until("the server is missed", |lab| rows(lab, running).iter().any(|s| s["Name"] == "server-6"));
    ok(&lab, &format!("{running} | Start-CsWindowsService"));
    lab.until("it runs again", |lab| rows(lab, running).is_empty());
    let named = ok(&lab, &format!("Get-CsService -PoolFqdn {POOL} | Select-Object Identity"));
    assert!(named.stdout.contains(&format!("PersistentChatServer:{POOL}")), "{}", named.stdout);
    assert!(rows(&lab, "Get-CsManagementStoreReplicationStatus | ? UpToDate -eq $False").is_empty());

    // Principal and mirror change places, and back by the database statement.
    let switch = format!("Invoke-CsDatabaseFailover -PoolFqdn {POOL} -DatabaseType PersistentChat -NewPrincipal");
    ok(&lab, &format!("{switch} mirror -WhatIf"));
    assert_eq!(lab.record()["databases"]["mgc"]["principal"], "s1a");
    ok(&lab, &format!("{switch} mirror -Verbose"));
    assert_eq!(lab.record()["databases"]["mgc"]["principal"], "s1b");
    lab.until("the pair is synchronised", |lab| lab.record()["databases"]["mgc"]["mirror"]["synchronised"] == true);
    ok(&lab, "alter database mgc set partner failover");
    assert_eq!(lab.record()["databases"]["mgc"]["principal"], "s1a");

    // Names of other pools are not this one.
    let other = typed(&lab, "Set-CsPersistentChatState -Identity \"service:other.example.org\" -PoolState FailedOver");
    assert_eq!(other.code, Some(2), "{}", other.all());
    let confirmed = typed(&lab, "Uninstall-CsMirrorDatabase -DatabaseType PersistentChat -SqlServerFqdn s1a -Confirm");
    assert_eq!(confirmed.code, Some(3), "nobody is here to answer: {}", confirmed.all());
}
