//! Looking at sessions and ending one, for a person.

use super::{LOOK, Sql};
use crate::error::Error;
use std::time::Duration;
use tokio_postgres::SimpleQueryRow;
use wire::agent::SessionReport;

/// Longest time for ending a session.
const ENDING: Duration = Duration::from_secs(2);

impl Sql {
    /// Every session of the instance, processes of the system included.
    pub async fn sessions(&self) -> Result<Vec<SessionReport>, Error> {
        let rows = self.act("list the sessions", &SESSIONS, LOOK).await?;
        let session = |row: &SimpleQueryRow| {
            let text = |i: usize| row.get(i).unwrap_or_default().to_owned();
            Some(SessionReport {
                spid: row.get(0)?.parse().ok()?,
                state: text(1),
                login: text(2),
                from: text(3),
                blocked_by: row.get(4).and_then(|pid| pid.parse().ok()),
                database: text(5),
                command: text(6),
                since: text(7),
                program: text(8),
                system: row.get(9) == Some("t"),
            })
        };
        Ok(rows.iter().filter_map(session).collect())
    }

    /// End one client's session, and wait a moment for it to be gone.
    pub async fn end_session(&self, spid: i32) -> Result<(), Error> {
        // Looked at and ended in one statement: the number may soon be another session's.
        let statement = format!(
            "SELECT {SYSTEM}, CASE WHEN {SYSTEM} THEN false ELSE pg_terminate_backend(pid, 500) END \
             FROM pg_stat_activity WHERE pid = {spid}"
        );
        let rows = self.act(&format!("end session {spid}"), &statement, ENDING).await?;
        let refused = |why: &str| Err(Error::Unfit(format!("session {spid} of {}: {why}", self.database)));
        match rows.first().map(|row| (row.get(0), row.get(1))) {
            None => refused("there is none; exec sp_who2 shows which there are"),
            Some((Some("t"), _)) => {
                refused("it is the agent's own or one of the system, and is not ended; nothing was done")
            }
            Some((_, Some("t"))) => Ok(()),
            Some(_) => refused("it was told to end and has not yet; exec sp_who2 shows whether it is gone"),
        }
    }
}

/// Whether a session is not a client's.
const SYSTEM: &str = "(backend_type IS DISTINCT FROM 'client backend' OR usename = 'standfast_admin')";

/// A row for each session. Of its statement only the first word is taken: the rest may be what somebody wrote.
static SESSIONS: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    format!(
        "SELECT pid, coalesce(state, ''), coalesce(usename, ''), coalesce(host(client_addr), ''),
                (pg_blocking_pids(pid))[1], coalesce(datname, ''),
                CASE WHEN backend_type = 'client backend' THEN upper(coalesce(substring(query FROM '^\\s*(\\w+)'), ''))
                     ELSE upper(backend_type) END,
                to_char(coalesce(query_start, backend_start) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                application_name, {SYSTEM}
         FROM pg_stat_activity ORDER BY pid"
    )
});
