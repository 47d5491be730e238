//! Every step of the reference's procedures with its statement, and every term with its counterpart.

/// A step of a runbook and the statement that carries it out.
#[derive(Clone, Copy, Debug)]
pub struct StepStatement {
    /// The runbook.
    pub runbook: &'static str,
    /// The step.
    pub step: &'static str,
    /// How the reference does it: what is typed or clicked there.
    pub reference: &'static str,
    /// What is typed here; POOL, PRINCIPAL and SERVER stand for names of the pool.
    pub statement: &'static str,
}

const fn of(
    runbook: &'static str,
    step: &'static str,
    reference: &'static str,
    statement: &'static str,
) -> StepStatement {
    StepStatement { runbook, step, reference, statement }
}

/// Every step that has a number in the reference, in its order.
pub const STEP_STATEMENTS: &[StepStatement] = &[
    of(
        "failover",
        "stop-log-shipping",
        "exec sp_delete_log_shipping_secondary_database mgc",
        "exec sp_delete_log_shipping_secondary_database mgc",
    ),
    of(
        "failover",
        "copy-remaining-log",
        "copying files from the backup share by hand",
        "step failover copy-remaining-log",
    ),
    of(
        "failover",
        "apply-remaining-log",
        "restore log mgc from disk = 'FILE' with norecovery, file by file",
        "restore log mgc from disk = 'FILE' with norecovery",
    ),
    of(
        "failover",
        "disconnect-sessions",
        "exec sp_who2; kill SPID, session by session",
        "step failover disconnect-sessions",
    ),
    of("failover", "bring-backup-online", "restore database mgc with recovery", "restore database mgc with recovery"),
    of(
        "failover",
        "set-pool-failed-over",
        "Set-CsPersistentChatState -Identity \"service:POOL\" -PoolState FailedOver",
        "Set-CsPersistentChatState -Identity \"service:POOL\" -PoolState FailedOver",
    ),
    of(
        "failover",
        "mirror-new-primary",
        "Install-CsMirrorDatabase",
        "Install-CsMirrorDatabase -ConfiguredDatabases -FileShare SHARE -SqlServerFqdn PRINCIPAL",
    ),
    of(
        "failover",
        "set-active-servers",
        "Set-CsPersistentChatActiveServer",
        "Set-CsPersistentChatActiveServer -Identity \"PersistentChatServer:POOL\" -ActiveServers @{Add=\"SERVER\"}",
    ),
    of(
        "failback",
        "clear-active-servers",
        "Set-CsPersistentChatActiveServer … -ActiveServers $Null",
        "Set-CsPersistentChatActiveServer -Identity \"PersistentChatServer:POOL\" -ActiveServers $Null",
    ),
    of("failback", "remove-mirroring", "mgc, Tasks, Mirror, Remove Mirroring", "alter database mgc set partner off"),
    of("failback", "final-backup", "mgc, Tasks, Back Up, Full", "backup database mgc to disk = 'FILE'"),
    of(
        "failback",
        "restore-on-primary",
        "mgc, Tasks, Restore, From Device, Overwrite, Ready to use",
        "restore database mgc from disk = 'FILE' with replace, recovery",
    ),
    of(
        "failback",
        "recreate-log-shipping",
        "mgc, Properties, Transaction Log Shipping",
        "exec sp_add_log_shipping_secondary_database mgc",
    ),
    of(
        "failback",
        "set-active-servers",
        "Set-CsPersistentChatActiveServer",
        "Set-CsPersistentChatActiveServer -Identity \"PersistentChatServer:POOL\" -ActiveServers @{Add=\"SERVER\"}",
    ),
    of(
        "failback",
        "set-pool-normal",
        "Set-CsPersistentChatState -Identity \"service: POOL\" -PoolState Normal",
        "Set-CsPersistentChatState -Identity \"service: POOL\" -PoolState Normal",
    ),
    of(
        "failback",
        "recreate-mirror",
        "not spelled out (Install-CsMirrorDatabase)",
        "Install-CsMirrorDatabase -ConfiguredDatabases -FileShare SHARE -SqlServerFqdn PRINCIPAL",
    ),
];

/// The statement of a step, if it has one.
pub fn statement_of(runbook: &str, step: &str) -> Option<&'static StepStatement> {
    STEP_STATEMENTS.iter().find(|s| s.runbook == runbook && s.step == step)
}

/// Terms of the reference, what they are here, and a remark.
pub const TERMS: &[(&str, &str, &str)] = &[
    (
        "Persistent Chat Server pool, stretched over two data centers",
        "pool over two sites",
        "one topology file, `standfast topology`",
    ),
    ("PersistentChatService, Persistent Chat (Channel) service, RTCCHAT", "chat server", "`standfast serve`"),
    ("Compliance service, RTCCOMPL", "the outbox in the post's own transaction", "an adapter is not there yet"),
    (
        "PersistentChatStore, content database mgc",
        "database `mgc` in PostgreSQL",
        "its agent creates, starts and stops it",
    ),
    ("PersistentChatComplianceStore, mgccomp", "database `mgccomp`", "not there yet"),
    ("SQL Server Agent on a back end", "agent", "`standfast agent`, one a host"),
    ("principal, mirror", "principal, mirror", "synchronous streaming replication"),
    (
        "witness, Use SQL mirroring witness to enable automatic failover",
        "`witness` of a site in the topology",
        "its agent keeps the site's record, and lets a synchronised mirror take over; without one the site names an `authority`",
    ),
    ("partner time-out", "`partner_timeout` of a database", "2.5 s by default, where the reference has 10 s"),
    (
        "SYNCHRONIZED, SYNCHRONIZING, SUSPENDED, PENDING_FAILOVER, DISCONNECTED",
        "the same words",
        "Get-CsDatabaseMirrorState, `standfast mirror state`",
    ),
    ("RESTORING", "standby", "`standfast pool status` says RESTORING"),
    (
        "log shipping, backup job, copy job, restore job",
        "log shipping, by stream and by files in the share",
        "`standfast pool status` shows how far each is",
    ),
    (
        "Enable this as a primary database; Add secondary",
        "`standfast log-shipping enable`",
        "Initialize: Yes; with `--already-initialised`: No",
    ),
    ("Transaction Log Shipping Status, log_shipping_monitor tables", "`standfast log-shipping state`, `history`", ""),
    ("alerts 14420, 14421", "the same numbers", "`standfast log-shipping state`; the thresholds are in the topology"),
    ("backup share", "the share of the topology", "`log_shipping = { share = … }`"),
    ("copy destination", "folder `pg/mgc/copied` of the backup's host", ""),
    ("log backup file (.trn)", "segment of the write-ahead log", "1 MB, archived when full and streamed meanwhile"),
    ("LSN", "position in the log", ""),
    ("secondary, backup database", "backup", "at the other site, fed by log shipping"),
    ("mirror of the secondary", "backup mirror", "kept warm, so that step 6 of a failover copies nothing"),
    (
        "Central Management store, local replica",
        "management store, copy on every host",
        "record and topology; newest epoch and version win",
    ),
    ("Topology Builder, Publish", "`standfast topology check`, `publish`, `show`", "a file in TOML"),
    ("active, idle server; machine state", "active, standby server", "`standfast active-servers`"),
    ("PoolState Normal, FailedOver", "the same words", "in the pool's record"),
    ("Management Shell", "`standfast shell`", "and every plain command"),
    (
        "SQL Server Management Studio, query window",
        "database statements in `standfast shell`",
        "with `exec`, `restore`, `backup`, `kill`, `alter database`",
    ),
    ("SPID", "process id of a session in PostgreSQL", "exec sp_who2 shows it"),
    ("RPO: transactions after the last log backup", "exposure", "`standfast pool status` says how many posts"),
    ("Front End pool, next hop, SIP", "none", "clients connect to the chat servers directly"),
    ("file store", "none yet", "files cannot be attached to posts yet"),
];
