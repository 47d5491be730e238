//! The yardstick: what PostgreSQL alone does on the pool's own principal, with the same rows, in a database of its own that
//! is gone afterwards.

use crate::failure::Failure;
use crate::folder::Folder;
use cluster::secret::{Purpose, ROLE_ADMIN};
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::Command;

/// The scratch database.
const DATABASE: &str = "standfast_bench";
/// A table with the columns and the two indexes of the log of rooms.
const TABLE: &str = "
CREATE TABLE entries (room bigint NOT NULL, seq bigint NOT NULL, epoch bigint NOT NULL, author bigint NOT NULL,
  at_us bigint NOT NULL, client_id uuid, target bigint, kind smallint NOT NULL, body text, PRIMARY KEY (room, seq));
CREATE UNIQUE INDEX entries_by_client_id ON entries (client_id, author) WHERE client_id IS NOT NULL;
CREATE SEQUENCE numbers CACHE 10000;";

/// Rows a second that PostgreSQL inserts, by rows in each commit, one connection.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Rows {
    /// With 100 rows in each commit.
    pub per_second_by_100: f64,
    /// With 1,000 rows in each commit.
    pub per_second_by_1000: f64,
}

/// The principal, as the yardstick reaches it.
pub struct Principal {
    programs: PathBuf,
    host: String,
    port: String,
    password: String,
}

impl Principal {
    /// Find PostgreSQL's programs, and the instance that takes writes.
    ///
    /// # Errors
    /// When either is not there.
    pub async fn find(folder: &Folder) -> Result<Self, Failure> {
        let programs = newest_programs()?;
        let password = folder.secret.derive(Purpose::PostgresAdmin);
        let databases = folder.topology.databases.iter();
        let instances = databases.flat_map(|d| {
            [Some(&d.primary), d.mirror.as_ref(), d.backup.as_ref(), d.backup_mirror.as_ref()].into_iter().flatten()
        });
        for instance in instances {
            let Some((host, port)) = instance.postgres.at.rsplit_once(':') else { continue };
            let principal = Self {
                programs: programs.clone(),
                host: host.to_owned(),
                port: port.to_owned(),
                password: password.clone(),
            };
            if principal.sql("postgres", "SELECT pg_is_in_recovery()").await.is_ok_and(|said| said.trim() == "f") {
                return Ok(principal);
            }
        }
        Err(Failure::Failed("no instance of PostgreSQL takes writes; look with: standfast pool status".to_owned()))
    }

    /// Where it is, for people.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Measure in a scratch database.
    ///
    /// # Errors
    /// When it cannot be made, or a program fails.
    pub async fn measure(&self, text_bytes: usize, seconds: u64) -> Result<Rows, Failure> {
        let drop = format!("DROP DATABASE IF EXISTS {DATABASE}");
        self.sql("postgres", &drop).await?;
        self.sql("postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
        let rows = self.measure_in_scratch(text_bytes, seconds).await;
        self.sql("postgres", &drop).await?;
        rows
    }

    async fn measure_in_scratch(&self, text_bytes: usize, seconds: u64) -> Result<Rows, Failure> {
        self.sql(DATABASE, TABLE).await?;
        Ok(Rows {
            per_second_by_100: self.bench(100, text_bytes, seconds).await?,
            per_second_by_1000: self.bench(1000, text_bytes, seconds).await?,
        })
    }

    async fn bench(&self, rows: u64, text_bytes: usize, seconds: u64) -> Result<f64, Failure> {
        let script = std::env::temp_dir().join(format!("standfast-bench-{}-{rows}.sql", std::process::id()));
        // Ids rise as those of version 7 do, so the index grows at its right end as it does in the pool.
        let text = format!(
            "INSERT INTO entries SELECT 1 + n % 100, n, 1, 1 + n % 1000, 0, \
             ('01930000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, NULL, 0, repeat('x', {text_bytes}) \
             FROM (SELECT nextval('numbers') AS n FROM generate_series(1, {rows})) AS numbered;\n"
        );
        let failed = |e: std::io::Error| Failure::Failed(format!("write {}: {e}", script.display()));
        std::fs::write(&script, text).map_err(failed)?;
        let seconds = seconds.to_string();
        let mut command = self.command("pgbench", DATABASE);
        command.args(["-n", "-c", "1", "-T", &seconds, "-f"]).arg(&script).arg(DATABASE);
        let said = output_of(command, "pgbench").await;
        let _ = std::fs::remove_file(&script);
        let said = said?;
        let tps = said.lines().find_map(|l| l.strip_prefix("tps = ")).and_then(|l| l.split(' ').next()?.parse().ok());
        let tps: f64 = tps.ok_or_else(|| Failure::Failed(format!("pgbench says no tps:\n{said}")))?;
        Ok(tps * rows as f64)
    }

    async fn sql(&self, database: &str, statement: &str) -> Result<String, Failure> {
        let mut command = self.command("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement]);
        output_of(command, "psql").await
    }

    fn command(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command
            .args(["-h", &self.host, "-p", &self.port, "-U", ROLE_ADMIN])
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "3")
            .env("PGDATABASE", database)
            .stdin(Stdio::null());
        command
    }
}

async fn output_of(mut command: Command, program: &str) -> Result<String, Failure> {
    let output = command.output().await.map_err(|e| Failure::Failed(format!("run {program}: {e}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::Failed(format!("{program} failed: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The folder with the newest server's programs, pgbench among them.
fn newest_programs() -> Result<PathBuf, Failure> {
    let version = |folder: &PathBuf| folder.parent()?.file_name()?.to_str()?.split('.').next()?.parse::<u32>().ok();
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = folders.map(|e| e.path().join("bin")).filter(|f| f.join("pgbench").exists());
    folders.max_by_key(version).ok_or_else(|| {
        let message = "there is no /usr/lib/postgresql/*/bin/pgbench; install it with: apt-get install postgresql";
        Failure::Failed(message.to_owned())
    })
}
