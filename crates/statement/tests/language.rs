//! The language as administrators type it: every example of the reference, every mistake with its place, and no input
//! that it stumbles over.

use statement::action::{Action, ListChange, MirrorOf, Services};
use statement::database::Partner;
use statement::parse::{Call, Pipeline};
use statement::{Cell, DatabaseStatement, Known, Row, Statement, What, parse};

fn known() -> Vec<String> {
    ["pool", "failover", "failback", "step", "mirror", "history"].map(str::to_owned).to_vec()
}

fn all(text: &str) -> Vec<Statement> {
    parse(text, Known { plain: &known() }).unwrap_or_else(|p| panic!("{}", p.render(text)))
}

fn pipeline(text: &str) -> Pipeline {
    match all(text).remove(0).what {
        What::Pipeline(pipeline) => pipeline,
        other => panic!("{text} is {other:?}"),
    }
}

fn call(text: &str) -> Call {
    pipeline(text).first
}

fn database(text: &str) -> DatabaseStatement {
    match all(text).remove(0).what {
        What::Database(statement) => statement,
        other => panic!("{text} is {other:?}"),
    }
}

/// The problem of a text, as `line:column`, and its sentence.
fn wrong(text: &str) -> (String, String) {
    match parse(text, Known { plain: &known() }) {
        Ok(read) => panic!("{text} was read as {read:?}"),
        Err(problem) => {
            let (line, column) = problem.place(text);
            (format!("{line}:{column}"), problem.message)
        }
    }
}

fn check_wrong(text: &str, place: &str, says: &str) {
    let (at, message) = wrong(text);
    assert_eq!(at, place, "{text}: {message}");
    assert!(message.contains(says), "{text}: {message}");
}

#[test]
fn every_example_of_the_reference_is_read() {
    for example in [
        "Get-CsPersistentChatState",
        "Get-CsPersistentChatState | Where-Object {$_.PoolState -eq \"FailedOver\"}",
        "Set-CsPersistentChatState -Identity \"service:atl-cs-001.litwareinc.com\" -PoolState FailedOver",
        "Set-CsPersistentChatState -Identity \"service: lyncpc.dci.discovery.com\" -PoolState Normal",
        "Set-CsPersistentChatState -Identity \"PersistentChatServer:atl-gc-001.litwareinc.com\" -PoolState \"FailedOver\"",
        "Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" -ActiveServers @{Add=\"atl-gc-001.litwareinc.com\"}",
        "Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" -ActiveServers @{Remove=\"atl-gc-001.litwareinc.com\"}",
        "Set-CsPersistentChatActiveServer -Identity \"PChatServerCollection\" -ActiveServers $Null",
        r"Install-CsMirrorDatabase -ConfiguredDatabases -FileShare \\PRIMARYBE\csdatabackup -SqlServerFqdn primaryBE.contoso.com -DropExistingDatabasesOnMirror -Verbose",
        "Get-CsDatabaseMirrorState -PoolFqdn atl-cs-001.litwareinc.com -DatabaseType PersistentChat",
        "Invoke-CsDatabaseFailover -PoolFqdn atl-cs-001.litwareinc.com -DatabaseType PersistentChat -NewPrincipal mirror -Verbose",
        "Get-CsService -PersistentChatServer",
        "Get-CsService -PoolFqdn \"atl-cs-001.litwareinc.com\" | Select-Object Identity",
        "Get-CsWindowsService",
        "Get-CsWindowsService | Where-Object {$_.Status -eq \"Running\"}",
        "Start-CsWindowsService",
        "Get-CsWindowsService | Where-Object {$_.Status -ne \"Running\"} | Start-CsWindowsService",
        "Stop-CsWindowsService -Name \"RTCRGS\" -ComputerName atl-cs-001.litwareinc.com",
        "Enable-CsTopology",
        r"(Get-CsTopology -AsXml).ToString() > C:\Topologies\Topology.xml",
        "Publish-CsTopology -FileName \"C:\\Topologies\\Topology.xml\"",
        "Get-CsTopology | Select-Object -ExpandProperty SqlInstances",
        "Test-CsTopology -Report \"C:\\Logs\\Topology.xml\"",
        "Get-CsManagementStoreReplicationStatus | Where-Object {$_.UpToDate -eq $False}",
        "exec sp_delete_log_shipping_secondary_database mgc",
        "exec sp_who2",
        "restore database mgc with recovery",
    ] {
        assert_eq!(all(example).len(), 1, "{example}");
    }
    // Types of databases that no pool here holds are understood and refused.
    for example in [
        "Get-CsDatabaseMirrorState -PoolFqdn \"atl-cs-001.litwareinc.com\" -DatabaseType Monitoring",
        "Invoke-CsDatabaseFailover -PoolFqdn atl-cs-001.litwareinc.com -DatabaseType \"User\" -NewPrincipal \"Mirror\"",
        "Uninstall-CsMirrorDatabase -SqlServerFqdn p.contoso.com -SqlInstanceName rtc -Verbose -DatabaseType User -DropExistingDatabasesOnMirror",
    ] {
        assert!(wrong(example).1.contains("holds no database of type"), "{example}");
    }
    check_wrong("Get-CsDatabaseMirrorState -PoolFqdn <poolFQDN> -DatabaseType User", "1:37", "placeholder");
}

#[test]
fn every_example_of_the_table_is_read() {
    for cmdlet in statement::catalogue::CATALOGUE {
        for (example, _) in cmdlet.examples {
            assert_eq!(all(example).len(), 1, "{example}");
        }
    }
    for step in statement::terms::STEP_STATEMENTS {
        assert_eq!(all(step.statement).len(), 1, "{}", step.statement);
    }
}

#[test]
fn parameters_are_found_by_what_is_unambiguous_of_them_in_any_case() {
    let expect = Action::SetState { pool: Some("p.example".into()), failed_over: true };
    for text in [
        "set-cspersistentchatstate service:p.example -poolstate failedover",
        "SET-CSPERSISTENTCHATSTATE -Id \"PersistentChatServer:p.example\" -Pool:FailedOver",
        "Set-CsPersistentChatState –Identity “service: p.example” –PoolState FailedOver -Confirm:$False",
        "Set-CsPersistentChatState `\n  -Identity 'service:PersistentChatServer:p.example' `\n  -PoolState FailedOver # now",
    ] {
        assert_eq!(call(text).action, expect, "{text}");
    }
    assert_eq!(
        call("Set-CsPersistentChatState").action,
        Action::SetState { pool: None, failed_over: false },
        "Normal is the default"
    );
    let said = call("Set-CsPersistentChatState -What -Conf -Fo -Rep 'C:\\Logs\\a.html'");
    assert!(said.what_if && said.confirm && said.force);
    assert_eq!(said.report.as_deref(), Some("C:\\Logs\\a.html"));
}

#[test]
fn lists_are_changed_as_the_reference_writes_it() {
    let change = |text: &str| match call(&format!("Set-CsPersistentChatActiveServer {text}")).action {
        Action::SetActiveServers { change, .. } => change,
        other => panic!("{other:?}"),
    };
    let modify = |add: &[&str], remove: &[&str]| ListChange::Modify {
        add: add.iter().map(|s| (*s).to_owned()).collect(),
        remove: remove.iter().map(|s| (*s).to_owned()).collect(),
    };
    assert_eq!(change("-ActiveServers @{Add=\"a\", \"b\"}"), modify(&["a", "b"], &[]));
    assert_eq!(change("-ActiveServers @{ add = 'a'; REMOVE = 'b','c' }"), modify(&["a"], &["b", "c"]));
    assert_eq!(change("x -ActiveServers @{Replace=\"a\",\"b\"}"), ListChange::Replace(vec!["a".into(), "b".into()]));
    assert_eq!(change("-ActiveServers a,b"), ListChange::Replace(vec!["a".into(), "b".into()]));
    assert_eq!(change("-ActiveServers @('a','b')"), ListChange::Replace(vec!["a".into(), "b".into()]));
    assert_eq!(change("-ActiveServers $null"), ListChange::Replace(Vec::new()));
    assert_eq!(change("-Swap"), ListChange::Swap);
    check_wrong("Set-CsPersistentChatActiveServer -ActiveServers @{Ad='x'}", "1:49", "did you mean 'Add'");
    check_wrong("Set-CsPersistentChatActiveServer -ActiveServers @{Add='x';Replace='y'}", "1:49", "whole list");
    check_wrong("Set-CsPersistentChatActiveServer -ActiveServers $Null -Swap", "1:55", "exclude each other");
    check_wrong("Set-CsPersistentChatActiveServer -Identity x", "1:1", "-ActiveServers, or -Swap");
}

#[test]
fn mirrors_are_installed_by_either_set() {
    let configured = call("Install-CsMirrorDatabase -ConfiguredDatabases -FileShare \\\\a\\b -SqlServerFqdn s2a");
    let expect = MirrorOf { database: None, principal: "s2a".into(), excluded: Vec::new() };
    assert_eq!(configured.action, Action::InstallMirror(expect));
    assert!(configured.notes.iter().any(|n| n.contains("-FileShare")), "{:?}", configured.notes);
    let named = call(
        "Install-CsMirrorDatabase -DatabaseType persistentchat -ExcludeDatabaseList \"RTCCAB\",\"RTCPROV\" -FileShare x -SqlServerFqdn s2a -DatabasePathMap @{\"Archiving:DbPath\"=\"D:\\a\";\"Archiving:LogPath\"=\"E:\\b\"}",
    );
    let excluded = vec!["RTCCAB".to_owned(), "RTCPROV".to_owned()];
    assert_eq!(
        named.action,
        Action::InstallMirror(MirrorOf { database: Some("mgc"), principal: "s2a".into(), excluded })
    );
    check_wrong(
        "Install-CsMirrorDatabase -ConfiguredDatabases -DatabaseType User -FileShare x -SqlServerFqdn y",
        "1:61",
        "exclude each other",
    );
    check_wrong("Install-CsMirrorDatabase -ConfiguredDatabases -SqlServerFqdn y", "1:1", "needs -FileShare");
}

#[test]
fn database_statements_are_read_in_every_way_of_writing_them() {
    let mgc = || "mgc".to_owned();
    let delete = DatabaseStatement::DeleteLogShippingSecondary { database: mgc() };
    for text in [
        "exec sp_delete_log_shipping_secondary_database mgc",
        "EXEC master.dbo.sp_delete_log_shipping_secondary_database @secondary_database = N'mgc'",
        "sp_delete_log_shipping_secondary_database [mgc];",
        "execute sp_delete_log_shipping_secondary_database 'mgc' -- now",
    ] {
        assert_eq!(database(text), delete, "{text}");
    }
    assert_eq!(database("exec sp_who2"), DatabaseStatement::Who { only: None });
    assert_eq!(database("sp_who2 active"), DatabaseStatement::Who { only: Some("active".into()) });
    assert_eq!(database("KILL 53"), DatabaseStatement::Kill { spid: 53 });
    assert_eq!(database("restore database mgc with recovery"), DatabaseStatement::Recover { database: mgc() });
    assert_eq!(database("RESTORE DATABASE mgc\n  WITH RECOVERY\ngo"), DatabaseStatement::Recover { database: mgc() });
    assert_eq!(
        database("restore log mgc from disk = '\\\\share\\mgc_20260101000000.trn' with norecovery, stats = 10"),
        DatabaseStatement::RestoreLog { database: mgc(), file: "\\\\share\\mgc_20260101000000.trn".into() }
    );
    assert_eq!(
        database("restore database mgc from disk = 'f.bak' with replace, recovery"),
        DatabaseStatement::RestoreDatabase { database: mgc(), file: "f.bak".into() }
    );
    assert_eq!(
        database("backup database mgc to disk='f.bak' with init, name = 'mgc full'"),
        DatabaseStatement::BackupDatabase { database: mgc(), file: "f.bak".into() }
    );
    assert_eq!(
        database("ALTER DATABASE mgc SET PARTNER FORCE_SERVICE_ALLOW_DATA_LOSS"),
        DatabaseStatement::SetPartner { database: mgc(), partner: Partner::ForceService }
    );
    assert_eq!(database(":connect s2a"), DatabaseStatement::Connect { host: "s2a".into() });
    assert_eq!(all("use master\ngo\nkill 7 ; go").len(), 4);

    check_wrong("restore headeronly from disk = 'x'", "1:9", "database or log");
    check_wrong("restore log mgc from disk = 'x' with recovery", "1:38", "norecovery");
    check_wrong("restore log mgc from disk = 'x'", "1:32", "with norecovery");
    check_wrong("restore database mgc with norecovry", "1:27", "did you mean 'norecovery'");
    check_wrong("exec sp_who3", "1:6", "did you mean 'sp_who2'");
    check_wrong("kill all", "1:6", "no SPID");
    check_wrong("alter database mgc set partner of", "1:32", "did you mean 'off'");
    check_wrong("exec sp_delete_log_shipping_secondary_database", "1:47", "a value");
    check_wrong("exec sp_delete_log_shipping_secondary_database @primary = 'x'", "1:48", "@secondary_database");
}

#[test]
fn mistakes_have_their_place_and_the_nearest_name() {
    check_wrong("Set-CsPersistantChatState -PoolState Normal", "1:1", "did you mean 'Set-CsPersistentChatState'");
    check_wrong("go\n\n  Get-CsPersistentChatState -Idntity x", "3:29", "did you mean '-Identity'");
    check_wrong("Set-CsPersistentChatState -PoolState Failover", "1:38", "did you mean 'FailedOver'");
    check_wrong("Set-CsPersistentChatState -PoolState", "1:27", "needs a value");
    check_wrong("Get-CsPersistentChatState -Identity a -Filter b", "1:47", "exclude each other");
    check_wrong("Get-CsPersistentChatState a b", "1:29", "no further value");
    check_wrong("Publish-CsTopology -F", "1:20", "-FileName or -FinalizeUninstall or -Force");
    check_wrong("Publish-CsTopology -FinalizeUninstall", "1:20", "refused");
    check_wrong("Get-CsService -Identity $nul", "1:25", "did you mean '$Null'");
    check_wrong("Get-CsWindowsService | Where-Object {$_.Status -equal 'x'}", "1:48", "-equal".trim_start_matches('-'));
    check_wrong("Get-CsWindowsService | Sort-Object Name", "1:24", "Select-Object");
    check_wrong("Get-CsWindowsService | Get-CsTopology", "1:24", "takes no objects");
    check_wrong("Get-CsWindowsService |", "1:23", "the text ends here");
    check_wrong("New-CsPersistentChatRoom -Name x", "1:1", "standfast room add");
    check_wrong("pol status", "1:1", "did you mean 'pool'");
    check_wrong("Set-CsPersistentChatState -Identity \"x", "1:37", "not closed");
    let problem = parse("Set-CsPersistentChatState -Identity \"x", Known::default()).unwrap_err();
    assert!(problem.incomplete, "more lines may close it");
}

#[test]
fn plain_commands_are_handed_on_word_by_word() {
    let words = |text: &str| match all(text).remove(0).what {
        What::Plain(words) => words,
        other => panic!("{other:?}"),
    };
    assert_eq!(words("step failover copy-remaining-log"), ["step", "failover", "copy-remaining-log"]);
    assert_eq!(words("standfast failover --yes # now"), ["failover", "--yes"]);
    assert_eq!(
        words("history --user ines --room \"Harbour (old) {x}\""),
        ["history", "--user", "ines", "--room", "Harbour (old) {x}"]
    );
    assert_eq!(words("history a=b,c|d (e)"), ["history", "a=b,c|d", "(e)"]);
    assert_eq!(all("pool status; exit").len(), 2);
}

#[test]
fn rows_pass_through_a_pipeline() {
    let rows = |states: &[(&'static str, &str)]| -> Vec<Row> {
        let row =
            |(name, status): &(&'static str, &str)| Row(vec![("Name", (*name).into()), ("Status", (*status).into())]);
        states.iter().map(row).collect()
    };
    let through = |text: &str| {
        let all = rows(&[("agent", "Running"), ("server-1", "Stopped"), ("postgres", "Unknown")]);
        pipeline(text).stages.iter().fold(all, |rows, stage| stage.apply(rows))
    };
    let names = |text: &str| -> Vec<String> {
        through(text).iter().filter_map(|r| r.get("name")).map(Cell::to_string).collect()
    };
    assert_eq!(names("Get-CsWindowsService | Where-Object {$_.Status -eq \"running\"}"), ["agent"]);
    assert_eq!(names("Get-CsWindowsService | ? Status -ne Running"), ["server-1", "postgres"]);
    assert_eq!(
        names("Get-CsWindowsService | where {$_.name -like 'server*' -or $_.Status -notlike '*n*n*'}"),
        ["server-1"]
    );
    assert_eq!(through("Get-CsWindowsService | Select-Object Name -First 1")[0].names(), ["Name"]);
    assert_eq!(through("Get-CsWindowsService | select -ExpandProperty Status").len(), 3);
    let piped = pipeline("Get-CsWindowsService | where Status -ne Running | Start-CsWindowsService -WhatIf");
    let Some(statement::stage::Stage::Call(last)) = piped.stages.last() else { panic!("{piped:?}") };
    assert!(last.what_if);
    assert_eq!(last.action, Action::StartWindowsService(Services { piped: true, ..Services::default() }));
}

#[test]
fn help_comes_from_the_table() {
    for cmdlet in statement::catalogue::CATALOGUE {
        let text = statement::help::on(cmdlet.name, false, None).unwrap();
        for parameter in cmdlet.parameters {
            assert!(text.contains(&format!("-{}", parameter.name)), "{text}");
        }
    }
    assert!(matches!(call("Set-CsPersistentChatState -?").action, Action::Help { name: Some(_), .. }));
    assert!(statement::help::on("Set-CsPersistantChatState", false, None).unwrap_err().contains("did you mean"));
    assert!(statement::help::on("sp_who2", false, None).unwrap().contains("sessions"));
    assert!(statement::help::on("Get-CsService", false, Some("Pool*")).unwrap().starts_with("    -PoolFqdn"));
}

/// Small generator of numbers, for inputs that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }
}

#[test]
fn no_input_makes_it_stumble() {
    let pieces = [
        "Set-CsPersistentChatState",
        "Get-CsWindowsService",
        "Install-CsMirrorDatabase",
        "exec",
        "restore",
        "backup",
        "kill",
        "alter database",
        "mgc",
        "with",
        "recovery",
        "from disk =",
        "-Identity",
        "-PoolState",
        "-ActiveServers",
        "-x",
        "-?",
        "-",
        ":",
        "=",
        "@{",
        "}",
        "@(",
        ")",
        "(",
        "{",
        "$_.Status",
        "$Null",
        "$x",
        "-eq",
        "|",
        "Where-Object",
        "Select-Object",
        "-First",
        ",",
        ";",
        "\n",
        "`",
        "`\n",
        "\"",
        "'",
        "“",
        "’",
        "–",
        "#",
        "<#",
        "#>",
        "--",
        "/*",
        "*/",
        "[",
        "]",
        " ",
        "\t",
        "ß",
        "😀",
        "\u{0}",
        ".ToString()",
        ">",
        "<",
        "99999999999",
        "standfast",
        "pool",
        ":connect",
        "N'x'",
        "Add",
        "sp_who2",
        "Get-Help",
        "é",
        "\r\n",
    ];
    let mut numbers = Numbers(20_151_124);
    for _ in 0..12_000 {
        let count = numbers.below(14);
        let glue = [" ", "", "\n"][numbers.below(3)];
        let text: Vec<&str> = (0..count).map(|_| pieces[numbers.below(pieces.len())]).collect();
        let text = text.join(glue);
        if let Err(problem) = parse(&text, Known { plain: &known() }) {
            assert!(!problem.render(&text).is_empty());
        }
        statement::complete::complete(&text, &statement::complete::Surroundings::default());
    }
    // However deep things lie in each other.
    let deep = format!("Set-CsPersistentChatActiveServer -ActiveServers {}", "@{Add=".repeat(100_000));
    assert!(parse(&deep, Known::default()).is_err());
}
