//! Every metric there is: the one list from which the pages, the documentation and the checks are made.

mod rehearsal;

pub use self::rehearsal::*;
use super::{By, Kind, Metric};

const fn metric(by: By, kind: Kind, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, by, labels, help }
}

/// Always 1; the label says which version runs.
pub const BUILD_INFO: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_build_info",
    &["version"],
    "Always 1; the label says which version runs.",
);
/// Version of the published topology that the host works from.
pub const TOPOLOGY_VERSION: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_topology_version",
    &[],
    "Version of the published topology that the host works from.",
);
/// Epoch of the pool's record, as the host knows it.
pub const EPOCH: Metric =
    metric(By::Agent, Kind::Gauge, "standfast_epoch", &[], "Epoch of the pool's record, as the host knows it.");
/// Version of the pool's record, as the host knows it.
pub const RECORD_VERSION: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_record_version",
    &[],
    "Version of the pool's record, as the host knows it.",
);
/// 1 when the pool's state is FailedOver.
pub const FAILED_OVER: Metric =
    metric(By::Agent, Kind::Gauge, "standfast_pool_failed_over", &[], "1 when the pool's state is FailedOver.");
/// Chat servers that are to accept clients, by the record.
pub const ACTIVE_SERVERS: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_active_servers",
    &[],
    "Chat servers that are to accept clients, by the record.",
);
/// 1 while a run holds the pool.
pub const RUN_UNDER_WAY: Metric =
    metric(By::Agent, Kind::Gauge, "standfast_run_under_way", &[], "1 while a run holds the pool.");
/// What holds the agent back from what the record asks of it, counted; pool status says what.
pub const HOST_WAITING: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_host_waiting",
    &[],
    "What holds the agent back from what the record asks of it, counted; pool status says what.",
);
/// Tails that lie on the host.
pub const TAILS: Metric = metric(By::Agent, Kind::Gauge, "standfast_tails", &[], "Tails that lie on the host.");
/// 1 for the role that the record gives the host's instance: principal, mirror, backup, backup-mirror.
pub const ROLE: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_database_role",
    &["database", "role"],
    "1 for the role that the record gives the host's instance: principal, mirror, backup, backup-mirror.",
);
/// 1 for the state in which the instance is: absent, stopped, busy, standby, online, left-behind, asking-peer.
pub const STATE: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_database_state",
    &["database", "state"],
    "1 for the state in which the instance is: absent, stopped, busy, standby, online, left-behind, asking-peer.",
);
/// 1 when the record says that the pair is synchronised, 0 when it runs exposed; absent without a mirror.
pub const SYNCHRONISED: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_database_synchronised",
    &["database"],
    "1 when the record says that the pair is synchronised, 0 when it runs exposed; absent without a mirror.",
);
/// The newest epoch that has begun in the instance's data.
pub const DATABASE_EPOCH: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_database_epoch",
    &["database"],
    "The newest epoch that has begun in the instance's data.",
);
/// Entries of all rooms in the instance's data.
pub const ENTRIES: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_database_entries",
    &["database"],
    "Entries of all rooms in the instance's data.",
);
/// Position up to which log is on the instance's disk, as a count of bytes.
pub const WRITTEN: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_log_written_bytes",
    &["database"],
    "Position up to which log is on the instance's disk, as a count of bytes.",
);
/// Position up to which log is applied in the instance, as a count of bytes.
pub const APPLIED: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_log_applied_bytes",
    &["database"],
    "Position up to which log is applied in the instance, as a count of bytes.",
);
/// Log that a standby of this instance has not on its disk yet.
pub const LAG: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_copy_lag_bytes",
    &["database", "copy"],
    "Log that a standby of this instance has not on its disk yet.",
);
/// Log that a standby of this instance has not applied yet.
pub const APPLY_LAG: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_copy_apply_lag_bytes",
    &["database", "copy"],
    "Log that a standby of this instance has not applied yet.",
);
/// 1 when commits of this instance wait for the standby.
pub const COPY_SYNCHRONOUS: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_copy_synchronous",
    &["database", "copy"],
    "1 when commits of this instance wait for the standby.",
);
/// Log on the instance's disk.
pub const WAL_ON_DISK: Metric =
    metric(By::Agent, Kind::Gauge, "standfast_wal_bytes", &["database"], "Log on the instance's disk.");
/// Free on the volume of the instance's data.
pub const FREE: Metric =
    metric(By::Agent, Kind::Gauge, "standfast_free_bytes", &["database"], "Free on the volume of the instance's data.");
/// Time until that volume is full at the present rate; absent when it does not grow.
pub const FULL_IN: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_full_seconds",
    &["database"],
    "Time until that volume is full at the present rate; absent when it does not grow.",
);
/// Pages that were damaged when the instance's data was last read through.
pub const DAMAGED_PAGES: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_damaged_pages",
    &["database"],
    "Pages that were damaged when the instance's data was last read through; absent when it has not been since it was copied.",
);
/// When that was.
pub const SCRUBBED_AT: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_scrub_last_timestamp_seconds",
    &["database"],
    "When the instance's data was last read through.",
);
/// Open sessions of chat servers in the instance.
pub const DATABASE_SESSIONS: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_database_sessions",
    &["database"],
    "Open sessions of chat servers in the instance.",
);
/// Time since the share last held everything that the writer had written.
pub const BACKUP_AGE: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_backup_job_age_seconds",
    &["database"],
    "Time since the share last held everything that the writer had written.",
);
/// Finished segments that wait for the share.
pub const BACKUP_WAITING: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_backup_job_waiting_files",
    &["database"],
    "Finished segments that wait for the share.",
);
/// 1 while something is wrong with the share, seen from the writer.
pub const BACKUP_FAULT: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_backup_job_fault",
    &["database"],
    "1 while something is wrong with the share, seen from the writer.",
);
/// Time since the copy job last found the share in order.
pub const COPY_AGE: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_copy_job_age_seconds",
    &["database"],
    "Time since the copy job last found the share in order.",
);
/// Time since the standby last had applied all that could be had.
pub const RESTORE_AGE: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_restore_job_age_seconds",
    &["database"],
    "Time since the standby last had applied all that could be had.",
);
/// 1 while something is wrong with the share or the copies, seen from the standby.
pub const COPY_FAULT: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_copy_job_fault",
    &["database"],
    "1 while something is wrong with the share or the copies, seen from the standby.",
);
/// 1 while the log streams to the standby; 0 while only files bring it.
pub const STREAMING: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_shipping_streaming",
    &["database"],
    "1 while the log streams to the standby; 0 while only files bring it.",
);
/// Entries that the principal has and the backup lacks: what a failover now would lose, as last seen.
pub const EXPOSURE_ENTRIES: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_exposure_entries",
    &["database"],
    "Entries that the principal has and the backup lacks: what a failover now would lose, as last seen.",
);
/// Log that the principal has and the backup lacks, as last seen.
pub const EXPOSURE_BYTES: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_exposure_bytes",
    &["database"],
    "Log that the principal has and the backup lacks, as last seen.",
);
/// Age of the backup's content against the principal's, as last seen.
pub const EXPOSURE_SECONDS: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_exposure_seconds",
    &["database"],
    "Age of the backup's content against the principal's, as last seen.",
);
/// Time since the principal was last heard.
pub const EXPOSURE_HEARD_AGE_SECONDS: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_exposure_heard_age_seconds",
    &["database"],
    "Time since the principal was last heard.",
);
/// 1 when the host's agent answered this site's authority in its last round.
pub const AGENT_HEARD: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_agent_heard",
    &["agent"],
    "1 when the host's agent answered this site's authority in its last round.",
);
/// 1 while the alert stands: 14420 the backup job is late, 14421 the restore job is late.
pub const ALERT: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_log_shipping_alert",
    &["database", "number"],
    "1 while the alert stands: 14420 the backup job is late, 14421 the restore job is late.",
);
/// Things that need a person, counted; the receivers of notices are told the same.
pub const ALARMS: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_alarms",
    &[],
    "Things that need a person, counted; the receivers of notices are told the same.",
);
/// When the runbook was last begun at this authority.
pub const RUN_STARTED: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_run_last_started_timestamp_seconds",
    &["runbook"],
    "When the runbook was last begun at this authority.",
);
/// 1 when its last run that is over was carried out to its end.
pub const RUN_COMPLETE: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_run_last_complete",
    &["runbook"],
    "1 when its last run that is over was carried out to its end.",
);
/// How long its last run that is over took.
pub const RUN_DURATION: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_run_last_duration_seconds",
    &["runbook"],
    "How long its last run that is over took.",
);
/// When the last run that was carried out to its end was begun; absent when there was none.
pub const RUN_SUCCESS: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_run_last_success_timestamp_seconds",
    &["runbook"],
    "When the last run that was carried out to its end was begun; absent when there was none.",
);
/// 1 when the record lets the server accept clients.
pub const SERVER_ACTIVE: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_server_active",
    &[],
    "1 when the record lets the server accept clients.",
);
/// The epoch that the server writes in; absent while it has no writer.
pub const SERVER_WRITES_AS: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_server_epoch",
    &[],
    "The epoch that the server writes in; absent while it has no writer.",
);
/// Clients connected.
pub const SERVER_SESSIONS: Metric =
    metric(By::Server, Kind::Gauge, "standfast_server_sessions", &[], "Clients connected.");
/// Clients that are connected and wait for their turn to be let in.
pub const SERVER_QUEUE: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_server_waiting_clients",
    &[],
    "Clients that are connected and wait for their turn to be let in.",
);
/// Clients by what became of them at the door: let-in, queued (told to wait for the turn), come-back (told when), elsewhere (sent to a server with more room).
pub const SERVER_ARRIVALS: Metric = metric(
    By::Server,
    Kind::Counter,
    "standfast_server_arrivals_total",
    &["outcome"],
    "Clients by what became of them at the door: let-in, queued (told to wait for the turn), come-back (told when), elsewhere (sent to a server with more room).",
);
/// Posts that wait to be durable.
pub const SERVER_WAITING: Metric =
    metric(By::Server, Kind::Gauge, "standfast_server_waiting_posts", &[], "Posts that wait to be durable.");
/// Posts that are written and wait to be as durable as their categories ask for.
pub const SERVER_HELD: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_server_held_posts",
    &["durability"],
    "Posts that are written and wait to be as durable as their categories ask for: mirror or both_sites.",
);
/// For how long the oldest of them has waited; 0 when none does.
pub const SERVER_HELD_AGE: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_server_held_seconds",
    &[],
    "For how long the oldest of them has waited; 0 when none does.",
);
/// Other active servers with a link in both directions.
pub const SERVER_LINKS: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_server_links_up",
    &[],
    "Other active servers with a link in both directions.",
);
/// Posts of the server's own clients: written, repeated (answered with the first result), or refused.
pub const SERVER_POSTS: Metric = metric(
    By::Server,
    Kind::Counter,
    "standfast_server_posts_total",
    &["outcome"],
    "Posts of the server's own clients: written, repeated (answered with the first result), or refused.",
);
/// From a post's arrival to its acknowledgement, at the server where it was posted.
pub const SERVER_ACKNOWLEDGEMENT_SECONDS: Metric = metric(
    By::Server,
    Kind::Histogram,
    "standfast_server_acknowledgement_seconds",
    &[],
    "From a post's arrival to its acknowledgement, at the server where it was posted.",
);
/// Posts in one transaction of the server.
pub const SERVER_BATCH_POSTS: Metric =
    metric(By::Server, Kind::Histogram, "standfast_server_batch_posts", &[], "Posts in one transaction of the server.");
/// Duration of the transactions that write posts, the mirror included.
pub const SERVER_COMMIT_SECONDS: Metric = metric(
    By::Server,
    Kind::Histogram,
    "standfast_server_commit_seconds",
    &[],
    "Duration of the transactions that write posts, the mirror included.",
);
/// Time since the server's own canary was last durable, or was to be written; absent while it is to write none.
pub const CANARY_AGE: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_canary_age_seconds",
    &[],
    "Time since the server's own canary was last durable, or was to be written; absent while it is to write none.",
);
/// How long its last canary took, its turn in the chat path included.
pub const CANARY_WRITE: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_canary_write_seconds",
    &[],
    "How long its last canary took, its turn in the chat path included.",
);
/// Time since another active server's canary was last heard over the link, or was to be.
pub const CANARY_HEARD_AGE: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_canary_heard_age_seconds",
    &["from"],
    "Time since another active server's canary was last heard over the link, or was to be.",
);
/// From the beginning of its last canary until that server had heard of it and said so.
pub const CANARY_ECHO: Metric = metric(
    By::Server,
    Kind::Gauge,
    "standfast_canary_echo_seconds",
    &["to"],
    "From the beginning of its last canary until that server had heard of it and said so.",
);
/// Standby: time since a newer canary of the server was last applied, or was to be.
pub const CANARY_APPLIED_AGE: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_canary_applied_age_seconds",
    &["database", "from"],
    "Standby: time since a newer canary of the server was last applied, or was to be.",
);
/// Standby: from the writing of its last canary to the look that saw it applied, by the clocks of both hosts.
pub const CANARY_APPLIED_LAG: Metric = metric(
    By::Agent,
    Kind::Gauge,
    "standfast_canary_applied_lag_seconds",
    &["database", "from"],
    "Standby: from the writing of its last canary to the look that saw it applied, by the clocks of both hosts.",
);
/// Canaries that somebody has not seen for three intervals and 5 s, counted.
pub const CANARIES_OVERDUE: Metric = metric(
    By::Authority,
    Kind::Gauge,
    "standfast_canaries_overdue",
    &[],
    "Canaries that somebody has not seen for three intervals and 5 s, counted.",
);
/// 1 when the pool could be looked at.
pub const PREFLIGHT_JUDGED: Metric = metric(
    By::Preflight,
    Kind::Gauge,
    "standfast_preflight_judged",
    &["runbook"],
    "1 when the pool could be looked at.",
);
/// 1 when the run would not be refused.
pub const PREFLIGHT_READY: Metric = metric(
    By::Preflight,
    Kind::Gauge,
    "standfast_preflight_ready",
    &["runbook"],
    "1 when the run would not be refused.",
);
/// When it was looked at; alert when it is old: then cron is what is broken.
pub const PREFLIGHT_AT: Metric = metric(
    By::Preflight,
    Kind::Gauge,
    "standfast_preflight_timestamp_seconds",
    &["runbook"],
    "When it was looked at; alert when it is old: then cron is what is broken.",
);
/// Reasons to refuse the run.
pub const PREFLIGHT_REFUSALS: Metric =
    metric(By::Preflight, Kind::Gauge, "standfast_preflight_refusals", &["runbook"], "Reasons to refuse the run.");
/// Warnings of each check.
pub const PREFLIGHT_WARNINGS: Metric = metric(
    By::Preflight,
    Kind::Gauge,
    "standfast_preflight_warnings",
    &["runbook", "check"],
    "Warnings of each check.",
);

/// All of them, in the order of the pages.
pub const ALL: &[Metric] = &[
    BUILD_INFO,
    TOPOLOGY_VERSION,
    EPOCH,
    RECORD_VERSION,
    FAILED_OVER,
    ACTIVE_SERVERS,
    RUN_UNDER_WAY,
    HOST_WAITING,
    TAILS,
    ROLE,
    STATE,
    SYNCHRONISED,
    DATABASE_EPOCH,
    ENTRIES,
    WRITTEN,
    APPLIED,
    LAG,
    APPLY_LAG,
    COPY_SYNCHRONOUS,
    WAL_ON_DISK,
    FREE,
    FULL_IN,
    DAMAGED_PAGES,
    SCRUBBED_AT,
    DATABASE_SESSIONS,
    BACKUP_AGE,
    BACKUP_WAITING,
    BACKUP_FAULT,
    COPY_AGE,
    RESTORE_AGE,
    COPY_FAULT,
    STREAMING,
    EXPOSURE_ENTRIES,
    EXPOSURE_BYTES,
    EXPOSURE_SECONDS,
    EXPOSURE_HEARD_AGE_SECONDS,
    AGENT_HEARD,
    ALERT,
    ALARMS,
    RUN_STARTED,
    RUN_COMPLETE,
    RUN_DURATION,
    RUN_SUCCESS,
    SERVER_ACTIVE,
    SERVER_WRITES_AS,
    SERVER_SESSIONS,
    SERVER_QUEUE,
    SERVER_ARRIVALS,
    SERVER_WAITING,
    SERVER_HELD,
    SERVER_HELD_AGE,
    SERVER_LINKS,
    SERVER_POSTS,
    SERVER_ACKNOWLEDGEMENT_SECONDS,
    SERVER_BATCH_POSTS,
    SERVER_COMMIT_SECONDS,
    CANARY_AGE,
    CANARY_WRITE,
    CANARY_HEARD_AGE,
    CANARY_ECHO,
    CANARY_APPLIED_AGE,
    CANARY_APPLIED_LAG,
    CANARIES_OVERDUE,
    DRILL_AT,
    DRILL_SUCCEEDED,
    DRILL_RTO,
    DRILL_RPO_ENTRIES,
    DRILL_RPO,
    BACKUP_AT,
    BACKUP_BYTES,
    BACKUP_PROVEN_AT,
    BACKUP_PROVEN,
    BACKUP_PROOF_SECONDS,
    PREFLIGHT_JUDGED,
    PREFLIGHT_READY,
    PREFLIGHT_AT,
    PREFLIGHT_REFUSALS,
    PREFLIGHT_WARNINGS,
];
