//! What an instance says of itself: one connection over its own socket, every statement with a time limit.

pub mod hand_over;
mod sessions;

use crate::error::Error;
use crate::postgres::process::Process;
use cluster::name::{DatabaseName, HostName, ServerName};
use cluster::report::Receiver;
use cluster::secret::{ROLE_ADMIN, ROLE_CHAT};
use cluster::wal::{Lsn, Timeline};
use rules::id::Epoch;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage, SimpleQueryRow, Statement};

/// Longest time for a look at the instance.
const LOOK: Duration = Duration::from_millis(700);
/// The same within an order: an instance that has just started on a busy machine is slower, and an order that fails is given
/// again seconds later only.
const ORDER_LOOK: Duration = Duration::from_secs(5);

/// Longest silence of an instance on another host.
const FAR: Duration = Duration::from_secs(5);

/// Longest time for a start, until connections are taken.
const START_MAX: Duration = Duration::from_secs(300);

/// Longest time for a promotion.
const PROMOTION_MAX: Duration = Duration::from_secs(60);

/// Connections to an instance, made when they are needed and dropped when they fail.
pub struct Sql {
    socket: PathBuf,
    port: u16,
    password: String,
    database: DatabaseName,
    /// For looks, which nobody may hold up.
    looking: Mutex<Option<Looker>>,
    /// For what may take long.
    acting: Mutex<Option<Client>>,
    /// For the mirror's lookout, which looks many times a second and waits behind nobody.
    listening: Mutex<Option<(Client, Statement)>>,
}

/// A connection for looks, with its statements prepared: planning them would cost more than running them.
struct Looker {
    client: Client,
    probe: Statement,
    receivers: Statement,
    archiver: Statement,
    /// Prepared when the chat schema is first seen.
    chat: Option<Statement>,
    /// The same for canaries, which came later.
    canaries: Option<Statement>,
}

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// A standby, not a writer.
    pub in_recovery: bool,
    /// Flushed, or received.
    pub written: Lsn,
    /// Applied.
    pub applied: Lsn,
    /// Received over the stream, by a standby.
    pub received: Option<Lsn>,
    /// Present timeline.
    pub timeline: Timeline,
    /// Who commits wait for.
    pub synchronous: Vec<HostName>,
    /// Whether a stream comes in.
    pub streaming: bool,
    /// Whether there is a process that receives or tries to.
    pub receiving: bool,
    /// Applying is paused, by a standby.
    pub paused: bool,
    /// Start of the log that a restart would need.
    pub redo: Lsn,
    /// Sessions of chat servers.
    pub sessions: u32,
    /// Who receives.
    pub receivers: Vec<Receiver>,
    /// When each of them sent its last reply, by its own clock: another text is another reply.
    pub replies: Vec<(HostName, Option<String>)>,
}

/// How the log of a writer goes into the share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiverProbe {
    /// Newest segment that was archived.
    pub last_file: Option<String>,
    /// When, in milliseconds since the Unix epoch.
    pub last_at_ms: Option<i64>,
    /// The latest try failed.
    pub failing: bool,
    /// What the program that ships the unfinished segment has written, while it runs.
    pub received: Option<Lsn>,
    /// Segments archived since the statistics began.
    pub files: u64,
}

/// What the chat schema says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChatProbe {
    /// Entries in all rooms.
    pub entries: Option<u64>,
    /// The newest epoch that has begun in the database.
    pub epoch: Option<Epoch>,
    /// Categories that ask for the principal's disk alone.
    pub disk_categories: u64,
}

impl Sql {
    /// A connection that is made when it is needed.
    pub fn new(socket: PathBuf, port: u16, password: String, database: DatabaseName) -> Self {
        Self {
            socket,
            port,
            password,
            database,
            looking: Mutex::new(None),
            acting: Mutex::new(None),
            listening: Mutex::new(None),
        }
    }

    fn failed(&self, what: &str, cause: &dyn std::fmt::Display) -> Error {
        Error::Sql { what: what.to_owned(), database: self.database.to_string(), cause: cause.to_string() }
    }

    async fn connect(&self, database: &str) -> Result<Client, Error> {
        self.try_connect(database).await.map_err(|e| self.failed("connect", &described(&e)))
    }

    async fn try_connect(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host_path(&self.socket).port(self.port).user(ROLE_ADMIN).password(&self.password);
        config.dbname(database).application_name("standfast agent").connect_timeout(LOOK);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Look, within the time for looks. A connection that fails or is late is dropped.
    async fn look<T>(
        &self,
        what: &str,
        with: impl AsyncFnOnce(&mut Looker) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        let mut held = self.looking.lock().await;
        let work = async {
            let mut looker = match held.take().filter(|l| !l.client.is_closed()) {
                Some(looker) => looker,
                None => self.looker().await?,
            };
            let looked = with(&mut looker).await;
            if !looker.client.is_closed() {
                *held = Some(looker);
            }
            looked.map_err(|error| self.failed(what, &described(&error)))
        };
        match tokio::time::timeout(LOOK, work).await {
            Ok(looked) => looked,
            Err(_) => Err(self.failed(what, &format!("no answer within {} ms", LOOK.as_millis()))),
        }
    }

    async fn looker(&self) -> Result<Looker, Error> {
        let client = self.connect(self.database.as_str()).await?;
        let failed = |e| self.failed("prepare to look", &described(&e));
        let prepared = tokio::try_join!(client.prepare(&PROBE), client.prepare(RECEIVERS), client.prepare(ARCHIVER));
        let (probe, receivers, archiver) = prepared.map_err(failed)?;
        Ok(Looker { client, probe, receivers, archiver, chat: None, canaries: None })
    }

    /// Have the connection open that orders act on: to sign in takes longer than most of what they do. Where it fails the order tries
    /// again.
    pub async fn ready_to_act(&self) {
        let Ok(mut held) = self.acting.try_lock() else { return };
        if held.as_ref().is_none_or(Client::is_closed) {
            let connected = tokio::time::timeout(LOOK, self.connect(self.database.as_str())).await;
            *held = connected.ok().and_then(Result::ok);
        }
    }

    /// Act: run statements that may take up to `limit`, and return their rows. A connection that fails or is late is
    /// dropped.
    async fn act(&self, what: &str, statements: &str, limit: Duration) -> Result<Vec<SimpleQueryRow>, Error> {
        let mut held = self.acting.lock().await;
        let work = async {
            let client = match held.take().filter(|c| !c.is_closed()) {
                Some(client) => client,
                None => self.connect(self.database.as_str()).await?,
            };
            let ran = client.simple_query(statements).await;
            // One that failed may be amid a transaction, which refuses everything else.
            if ran.is_ok() && !client.is_closed() {
                *held = Some(client);
            }
            ran.map(rows).map_err(|error| self.failed(what, &described(&error)))
        };
        match tokio::time::timeout(limit, work).await {
            Ok(ran) => ran,
            Err(_) => Err(self.failed(what, &format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    /// Run statements on a connection of their own to another database, for what cannot share one.
    pub async fn run_apart(&self, what: &str, database: &str, statements: &[&str]) -> Result<(), Error> {
        let client = self.connect(database).await?;
        for statement in statements {
            client.simple_query(statement).await.map_err(|e| self.failed(what, &described(&e)))?;
        }
        Ok(())
    }

    /// A connection of the caller's own to the database, for work that takes as long as it takes.
    pub async fn client(&self) -> Result<Client, Error> {
        self.connect(self.database.as_str()).await
    }

    /// The same to the instance at `address:port` elsewhere.
    pub async fn client_at(&self, at: &str) -> Result<Client, Error> {
        let (host, port) = at.rsplit_once(':').unwrap_or((at, "5432"));
        let mut config = Config::new();
        config.host(host.trim_matches(['[', ']'])).port(port.parse().unwrap_or(5432));
        config.user(ROLE_ADMIN).password(&self.password).dbname(self.database.as_str());
        config.application_name("standfast agent").connect_timeout(FAR).tcp_user_timeout(FAR);
        config.keepalives_idle(FAR).keepalives_interval(Duration::from_secs(1)).keepalives_retries(3);
        let what = format!("connect to {at}");
        let connected = tokio::time::timeout(FAR, config.connect(NoTls)).await;
        let late = |_| self.failed(&what, &format!("no answer within {} s", FAR.as_secs()));
        let (client, connection) = connected.map_err(late)?.map_err(|e| self.failed(&what, &described(&e)))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// The same to an instance that is starting; one that answers anything else than that it is starting is not waited for.
    pub async fn client_of_starting(&self, process: Process) -> Result<Client, Error> {
        let what = "connect to what is starting";
        let began = Instant::now();
        loop {
            let error = match self.try_connect(self.database.as_str()).await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            let answers = error.code().is_some_and(|code| *code != SqlState::CANNOT_CONNECT_NOW);
            if answers || !process.is_alive() || began.elapsed() > START_MAX {
                return Err(self.failed(what, &described(&error)));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Wait until a standby without a source has replayed all the log that it has; returns where that ends.
    pub async fn replayed_all(&self, client: &Client) -> Result<Lsn, Error> {
        let what = "replay the log";
        let mut before = None;
        loop {
            let row = client.query_one(REPLAYED, &[]).await.map_err(|e| self.failed(what, &described(&e)))?;
            let at = row.get::<_, Option<String>>(0).and_then(|t| t.parse::<Lsn>().ok()).unwrap_or_default();
            let waits: bool = row.get(1);
            if waits && before == Some(at) {
                return Ok(at);
            }
            before = waits.then_some(at);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Drop the connections: what they are connected to is about to change.
    pub async fn forget(&self) {
        self.looking.lock().await.take();
        self.acting.lock().await.take();
        self.listening.lock().await.take();
    }

    /// Milliseconds since this standby last heard the one that it streams from; `None` when no stream is up.
    pub async fn last_heard_ms(&self) -> Result<Option<u64>, Error> {
        let mut held = self.listening.lock().await;
        let work = async {
            let open = held.take().filter(|(client, _)| !client.is_closed());
            let (client, statement) = if let Some(open) = open {
                open
            } else {
                let client = self.connect(self.database.as_str()).await?;
                let prepared = client.prepare(HEARD).await;
                (client, prepared.map_err(|e| self.failed("prepare to listen", &described(&e)))?)
            };
            let row = client.query_opt(&statement, &[]).await.map_err(|e| self.failed("listen", &described(&e)))?;
            *held = Some((client, statement));
            Ok(row.and_then(|row| row.get::<_, Option<i64>>(0)).map(|ms| ms.max(0).unsigned_abs()))
        };
        match tokio::time::timeout(LOOK, work).await {
            Ok(heard) => heard,
            Err(_) => Err(self.failed("listen", &format!("no answer within {} ms", LOOK.as_millis()))),
        }
    }

    /// Look at the instance.
    pub async fn probe(&self) -> Result<Probe, Error> {
        let (first, receivers) = self
            .look("look at the instance", async |l| {
                tokio::try_join!(l.client.query_one(&l.probe, &[]), l.client.query(&l.receivers, &[]))
            })
            .await?;
        let text = |i: usize| first.get::<_, Option<String>>(i);
        let lsn = |i: usize| text(i).and_then(|t| t.parse::<Lsn>().ok());
        let in_recovery: bool = first.get(0);
        let (flushed, received, applied) = (lsn(1), lsn(2), lsn(3));
        let written = if in_recovery { received.max(applied) } else { flushed };
        Ok(Probe {
            in_recovery,
            written: written.unwrap_or_default(),
            applied: if in_recovery { applied.unwrap_or_default() } else { written.unwrap_or_default() },
            received,
            timeline: Timeline(first.get::<_, Option<i32>>(4).unwrap_or_default().unsigned_abs()),
            synchronous: text(5).as_deref().map(synchronous).unwrap_or_default(),
            streaming: first.get(6),
            sessions: u32::try_from(first.get::<_, i64>(7)).unwrap_or(u32::MAX),
            receiving: first.get(8),
            redo: lsn(9).unwrap_or_default(),
            paused: first.get(10),
            receivers: receivers.iter().filter_map(receiver).collect(),
            replies: receivers.iter().filter_map(|r| Some((r.get::<_, Option<&str>>(0)?.into(), r.get(5)))).collect(),
        })
    }

    /// Look at how the log goes into the share.
    pub async fn probe_archiver(&self) -> Result<ArchiverProbe, Error> {
        let row = self.look("look at the archiver", async |l| l.client.query_one(&l.archiver, &[]).await).await?;
        let text = |i: usize| row.get::<_, Option<String>>(i);
        Ok(ArchiverProbe {
            last_file: text(0),
            last_at_ms: row.get::<_, Option<i64>>(1),
            failing: row.get::<_, Option<bool>>(2).unwrap_or(false),
            received: text(3).and_then(|t| t.parse().ok()),
            files: row.get::<_, Option<i64>>(4).unwrap_or_default().unsigned_abs(),
        })
    }

    /// Look at the chat schema; nothing before a chat server has made it.
    pub async fn probe_chat(&self) -> Result<ChatProbe, Error> {
        let row = self
            .look("look at the chat schema", async |l| {
                if l.chat.is_none() {
                    let there = "SELECT to_regclass('standfast.room_heads') IS NOT NULL";
                    if !l.client.query_one(there, &[]).await?.get::<_, bool>(0) {
                        return Ok(None);
                    }
                    l.chat = Some(l.client.prepare(CHAT).await?);
                }
                let Some(chat) = &l.chat else { return Ok(None) };
                l.client.query_one(chat, &[]).await.map(Some)
            })
            .await?;
        let number = |i| row.as_ref().and_then(|r| r.get::<_, Option<i64>>(i));
        let [entries, disk_categories] = [0, 2].map(|i| number(i).map(i64::unsigned_abs));
        Ok(ChatProbe { entries, epoch: number(1).map(Epoch), disk_categories: disk_categories.unwrap_or_default() })
    }

    /// The canaries that are visible here: server, epoch, number, and how long ago each was written, in milliseconds, by the
    /// clock of whoever wrote it and this host's; nothing before a chat server has made their table.
    pub async fn probe_canaries(&self) -> Result<Vec<(ServerName, (i64, i64), u64)>, Error> {
        let rows = self
            .look("look at the canaries", async |l| {
                if l.canaries.is_none() {
                    let there = "SELECT to_regclass('standfast.canaries') IS NOT NULL";
                    if !l.client.query_one(there, &[]).await?.get::<_, bool>(0) {
                        return Ok(Vec::new());
                    }
                    l.canaries = Some(l.client.prepare(CANARIES).await?);
                }
                let Some(canaries) = &l.canaries else { return Ok(Vec::new()) };
                l.client.query(canaries, &[]).await
            })
            .await?;
        let canary = |r: &Row| {
            let lag_ms = r.get::<_, i64>(3).max(0).unsigned_abs();
            (ServerName::from(r.get::<_, &str>(0)), (r.get(1), r.get(2)), lag_ms)
        };
        Ok(rows.iter().map(canary).collect())
    }

    /// Call a function of the chat schema, if the schema is there.
    pub async fn call_chat(&self, function: &str, epoch: Epoch) -> Result<(), Error> {
        let there = format!("SELECT to_regprocedure('standfast.{function}(bigint)') IS NOT NULL");
        let rows = self.act("look for the chat schema", &there, ORDER_LOOK).await?;
        if rows.first().and_then(|r| r.get(0)) == Some("t") {
            let call = format!("SELECT standfast.{function}({epoch})");
            self.act(&format!("call {function}"), &call, Duration::from_secs(30)).await?;
        }
        Ok(())
    }

    /// Write out everything that is dirty.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        // On a connection of its own: it may take long, and nobody should wait behind it.
        self.run_apart("checkpoint", self.database.as_str(), &["CHECKPOINT"]).await
    }

    /// Pause applying, or let it go on.
    pub async fn pause_applying(&self, paused: bool) -> Result<(), Error> {
        let (what, statement) = if paused {
            ("pause applying", "SELECT pg_wal_replay_pause()")
        } else {
            ("let applying go on", "SELECT pg_wal_replay_resume()")
        };
        self.act(what, statement, LOOK).await.map(|_| ())
    }

    /// Promote; returns when the instance is a writer.
    pub async fn promote(&self) -> Result<(), Error> {
        // PostgreSQL's own wait looks only ten times a second.
        self.act("promote", "SELECT pg_promote(false)", LOOK).await?;
        let began = Instant::now();
        loop {
            let rows = self.act("wait for the promotion", "SELECT pg_is_in_recovery()", LOOK).await?;
            if rows.first().and_then(|r| r.get(0)) == Some("f") {
                return Ok(());
            }
            if began.elapsed() > PROMOTION_MAX {
                return Err(self.failed("promote", &format!("still a standby after {} s", PROMOTION_MAX.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// End every session in the database but the agent's own; returns how many there were.
    pub async fn disconnect_sessions(&self) -> Result<usize, Error> {
        let statement = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND usename IS DISTINCT FROM '{ROLE_ADMIN}'"
        );
        self.act("end sessions", &statement, LOOK).await.map(|rows| rows.len())
    }
}

/// One row about the instance. Positions as text: the client library has no type for them.
static PROBE: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    format!(
        "SELECT pg_is_in_recovery(),
                CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END,
                pg_last_wal_receive_lsn()::text, pg_last_wal_replay_lsn()::text,
                coalesce(w.received_tli,
                         CASE WHEN NOT pg_is_in_recovery()
                              THEN ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
                         (SELECT timeline_id FROM pg_control_checkpoint())),
                current_setting('synchronous_standby_names'),
                coalesce(w.status = 'streaming', false),
                (SELECT count(*) FROM pg_stat_activity WHERE usename = '{ROLE_CHAT}'),
                w.pid IS NOT NULL,
                (SELECT redo_lsn::text FROM pg_control_checkpoint()),
                CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END
         FROM (SELECT) one LEFT JOIN pg_stat_wal_receiver w ON true"
    )
});

/// How the archiver and the program that ships the unfinished segment stand.
const ARCHIVER: &str = "SELECT last_archived_wal, (extract(epoch FROM last_archived_time) * 1000)::bigint,
     last_failed_time > coalesce(last_archived_time, '-infinity'),
     (SELECT write_lsn::text FROM pg_stat_replication WHERE application_name = 'pg_receivewal' LIMIT 1),
     archived_count
     FROM pg_stat_archiver";

/// How far a standby has replayed, and whether it has found nothing more anywhere and waits before it looks again.
const REPLAYED: &str =
    "SELECT pg_last_wal_replay_lsn()::text, coalesce((SELECT wait_event = 'RecoveryRetrieveRetryInterval'
     FROM pg_stat_activity WHERE backend_type = 'startup'), false)";

/// How long ago a stream last brought anything, by this host's own clock.
const HEARD: &str = "SELECT (extract(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)::bigint
     FROM pg_stat_wal_receiver WHERE status = 'streaming'";

/// A row for each standby that receives from here.
const RECEIVERS: &str =
    "SELECT application_name, state, flush_lsn::text, replay_lsn::text, sync_state IN ('sync', 'quorum'), reply_time::text
     FROM pg_stat_replication WHERE application_name NOT IN ('pg_receivewal', 'pg_basebackup', 'pg_rewind', 'standfast_drill')";

/// Entries, the newest epoch that has begun, and categories that ask for the disk alone: as JSON, for older schemas lack the column.
const CHAT: &str = "SELECT (SELECT coalesce(sum(last_seq), 0)::bigint FROM standfast.room_heads), \
                    coalesce((SELECT max(epoch) FROM standfast.epochs), (SELECT epoch FROM standfast.pool_epoch)), \
                    (SELECT count(*) FROM standfast.categories c WHERE to_jsonb(c) ->> 'durability' = '4')";

/// The canaries, and how old each is by its writer's clock and this host's.
const CANARIES: &str = "SELECT server, epoch, n, (extract(epoch FROM clock_timestamp() - at) * 1000)::bigint
     FROM standfast.canaries";

fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<SimpleQueryRow> {
    messages
        .into_iter()
        .filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None })
        .collect()
}

fn receiver(row: &Row) -> Option<Receiver> {
    let text = |i: usize| row.get::<_, Option<String>>(i);
    let lsn = |i: usize| text(i).and_then(|t| t.parse().ok());
    Some(Receiver {
        host: text(0)?.as_str().into(),
        state: text(1).unwrap_or_else(|| "unknown".to_owned()),
        flushed: lsn(2),
        applied: lsn(3),
        synchronous: row.get::<_, Option<bool>>(4).unwrap_or(false),
    })
}

/// The hosts in `FIRST 1 ("a")`.
fn synchronous(text: &str) -> Vec<HostName> {
    text.split('"').skip(1).step_by(2).map(HostName::from).collect()
}

/// An error with the server's own words, which the client library keeps in its source.
pub fn described(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}
