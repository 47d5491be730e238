//! Connections to one writer.
//!
//! Appending has a connection of its own, on which one batch at a time is under way; batches whose commit waits for no mirror have
//! another, opened with the first of them. Reads share a few connections and are pipelined. Administrative
//! writes take turns on one. Each connection counts PostgreSQL's warnings that a wait for the mirror was cancelled, so a
//! commit that may be on the principal alone is never taken for a durable one.

use crate::connections::{Connections, Others};
use crate::error::StoreError;
use crate::holds::Holds;
use crate::tls::Tls;
use futures_util::future::{self, Either};
use rules::id::Epoch;
use std::collections::HashMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, Socket, Statement, Transaction};

/// Longest wait for a new connection.
const CONNECT_WAIT: Duration = Duration::from_millis(1500);
/// Longest wait for a read. Writes have none: a commit waits for the mirror for as long as the record says.
const READ_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the answer to a question behind a write, once that is through.
const ANSWER_WAIT: Duration = Duration::from_millis(100);
/// After so long without an acknowledgement by the other end's kernel a connection counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How commits wait for the mirror.
pub(crate) const WAITS_FOR_MIRROR: &str = "-c synchronous_commit=on";
/// Commits that do not wait for the mirror wait for nobody else who does, either: a transaction that waits for it has its locks still. In
/// milliseconds.
const WAITS_FOR_NOBODY: &str = "-c synchronous_commit=local -c lock_timeout=200";
/// States the epoch: what follows in the transaction is refused with it.
pub(crate) const ENTER: &str = "SELECT standfast.enter($1)";
/// A write that states the epoch and changes nothing that anybody reads; whether the epoch has begun.
pub(crate) const STATE_EPOCH: &str = "INSERT INTO standfast.server_sessions (server, epoch, at)
    SELECT $2, $1, clock_timestamp() FROM (SELECT standfast.enter($1)) AS entered
    ON CONFLICT (server) DO UPDATE SET epoch = excluded.epoch, at = excluded.at
    RETURNING EXISTS (SELECT FROM standfast.epochs WHERE epoch = $1)";

/// Where a writer is and how to sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    config: tokio_postgres::Config,
    at: String,
    /// Somebody else operates it.
    is_theirs: bool,
    /// How connections are encrypted, if they are.
    tls: Option<Tls>,
    application_name: String,
}

impl Target {
    /// A writer at one place.
    pub fn new(at: (&str, u16), user: &str, password: &str, database: &str, application_name: &str) -> Self {
        let (host, port) = at;
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port).user(user).password(password).dbname(database);
        config.ssl_mode(SslMode::Disable);
        let application_name = application_name.to_owned();
        Self { config, at: format!("{host}:{port}"), is_theirs: false, tls: None, application_name }
    }

    /// A writer that somebody else operates, at one of several places: whichever takes writes. `application_name` is shown
    /// in `pg_stat_activity`. A relative `sslrootcert` lies in `folder`.
    ///
    /// # Errors
    /// When the connection string cannot be read, names no host, or asks for what is not there, in a sentence.
    pub fn existing(dsn: &str, password: Option<&str>, folder: &Path, application_name: &str) -> Result<Self, String> {
        let (dsn, tls) = Tls::take(dsn, folder)?;
        let mut config: tokio_postgres::Config = dsn.parse().map_err(|e| format!("read the connection string: {e}"))?;
        let hosts = config.get_hosts().iter().filter_map(|h| match h {
            Host::Tcp(name) => Some(name.clone()),
            Host::Unix(_) => None,
        });
        let ports = config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let at: Vec<String> = hosts.enumerate().map(|(n, host)| format!("{host}:{}", port(n))).collect();
        if at.is_empty() || at.len() != config.get_hosts().len() {
            return Err("the connection string has to name each host by its name or address".to_owned());
        }
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.ssl_mode(tls.as_ref().map_or(SslMode::Disable, Tls::mode));
        if let Some(password) = password {
            config.password(password);
        }
        let application_name = application_name.to_owned();
        Ok(Self { config, at: at.join(","), is_theirs: true, tls, application_name })
    }

    /// `host:port`, for messages; several with commas between them.
    pub fn at(&self) -> String {
        self.at.clone()
    }

    /// Whether connections may end at different servers.
    pub fn is_several(&self) -> bool {
        self.config.get_hosts().len() > 1
    }
}

/// One connection and its prepared statements.
pub(crate) struct Connection {
    pub client: Client,
    at: Arc<str>,
    prepared: StdMutex<HashMap<&'static str, Statement>>,
    /// Warnings of cancelled waits for the mirror, so far.
    cancelled_waits: Arc<AtomicU64>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(crate) async fn open(target: &Target, waits: &str, holds: Holds) -> Result<Self, StoreError> {
        let doing = "connect";
        let at = target.at();
        let mut config = target.config.clone();
        config
            .application_name(&target.application_name)
            .connect_timeout(CONNECT_WAIT)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives_idle(SILENCE_MAX)
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(3)
            .options(format!("-c jit=off {waits} -c default_transaction_isolation=read\\ committed"));
        let Some(tls) = &target.tls else {
            let (client, connection) =
                in_time(&at, Box::pin(config.connect(NoTls))).await?.map_err(|e| StoreError::of(doing, &at, e))?;
            return Ok(Self::driven(client, connection, at, holds));
        };
        let connector = tls.connector().map_err(|why| StoreError::Tls { at: at.clone(), why })?;
        let failed = |e| tls.fault(&at, &e).unwrap_or_else(|| StoreError::of(doing, &at, e));
        let (client, connection) = in_time(&at, Box::pin(config.connect(connector))).await?.map_err(failed)?;
        Ok(Self::driven(client, connection, at, holds))
    }

    /// A connection whose driver is a task of its own.
    fn driven<S>(
        client: Client,
        mut connection: tokio_postgres::Connection<Socket, S>,
        at: String,
        holds: Holds,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let cancelled_waits = Arc::new(AtomicU64::new(0));
        let count = cancelled_waits.clone();
        let place = at.clone();
        let driver = tokio::spawn(async move {
            let mut sent_away = false;
            loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        if is_cancelled_wait(&notice) {
                            // Counted before the driver hands on the end of the commit, so its caller sees it.
                            count.fetch_add(1, Ordering::SeqCst);
                            tracing::warn!(at = place, "{}", notice.message());
                        }
                        sent_away |= is_quit(&notice);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::info!(at = place, %error, "a connection to PostgreSQL broke");
                        sent_away |= error.as_db_error().is_some_and(is_sent_away);
                        break;
                    }
                    None => break,
                }
            }
            holds.end(sent_away);
        });
        Self { client, at: at.into(), prepared: StdMutex::default(), cancelled_waits, driver }
    }

    /// `host:port`, for messages.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The prepared statement for `sql`, prepared at first use.
    async fn statement(&self, doing: &'static str, sql: &'static str) -> Result<Statement, StoreError> {
        let known = self.prepared.lock().expect("no panic while held").get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await.map_err(|e| StoreError::of(doing, &self.at, e))?;
        self.prepared.lock().expect("no panic while held").insert(sql, statement.clone());
        Ok(statement)
    }

    /// Have a statement ready.
    pub async fn prepare(&self, sql: &'static str) -> Result<(), StoreError> {
        self.statement("prepare a statement", sql).await.map(drop)
    }

    /// Run a statement that reads.
    pub async fn read(
        &self,
        doing: &'static str,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let run = async {
            let statement = self.statement(doing, sql).await?;
            self.client.query(&statement, parameters).await.map_err(|e| StoreError::of(doing, &self.at, e))
        };
        tokio::time::timeout(READ_WAIT, run).await.map_err(|_| StoreError::TimedOut {
            doing,
            at: self.at.to_string(),
            limit_ms: READ_WAIT.as_millis() as u64,
        })?
    }

    /// Run a statement that is a writing transaction by itself. `Err(Unknown)` when its wait for the mirror was cancelled.
    pub async fn write(
        &self,
        doing: &'static str,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.write_and_ask(doing, sql, parameters, None).await.map(|(rows, _)| rows)
    }

    /// The same, and a question right behind it: sent with it, answered as of the transaction's end. A question that is not answered,
    /// or not in time, changes nothing about the write.
    pub async fn write_and_ask(
        &self,
        doing: &'static str,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
        question: Option<(&'static str, &[&(dyn ToSql + Sync)])>,
    ) -> Result<(Vec<Row>, Option<Vec<Row>>), StoreError> {
        let before = self.cancelled_waits.load(Ordering::SeqCst);
        let statement = self.statement(doing, sql).await?;
        let write = self.client.query(&statement, parameters);
        let (rows, answer) = match question {
            None => (write.await, None),
            Some((question, parameters)) => {
                let question = self.statement(doing, question).await?;
                let answer = self.client.query(&question, parameters);
                // Each is sent when it is first polled, so in this order.
                match future::select(pin!(write), pin!(answer)).await {
                    Either::Left((Ok(rows), answer)) => {
                        (Ok(rows), tokio::time::timeout(ANSWER_WAIT, answer).await.ok())
                    }
                    Either::Left((Err(error), _)) => (Err(error), None),
                    Either::Right((answer, write)) => (write.await, Some(answer)),
                }
            }
        };
        let rows = rows.map_err(|e| StoreError::of(doing, &self.at, e))?;
        if self.cancelled_waits.load(Ordering::SeqCst) != before {
            return Err(StoreError::Unknown { doing });
        }
        let answer = answer.transpose().unwrap_or_else(|error| {
            tracing::debug!(%error, doing, "a question behind a write was not answered");
            None
        });
        Ok((rows, answer))
    }
}

async fn in_time<T>(at: &str, connecting: impl Future<Output = T>) -> Result<T, StoreError> {
    let late =
        |_| StoreError::TimedOut { doing: "connect", at: at.to_owned(), limit_ms: CONNECT_WAIT.as_millis() as u64 };
    tokio::time::timeout(CONNECT_WAIT, connecting).await.map_err(late)
}

/// Commits of a database that somebody else operates survive its host only if it waits for a standby.
async fn warn_if_alone(connection: &Connection) -> Result<(), StoreError> {
    let names = connection.read("ask for its standbys", "SHOW synchronous_standby_names", &[]).await?;
    if names.first().is_none_or(|row| row.get::<_, String>(0).is_empty()) {
        tracing::warn!(
            at = connection.at(),
            "synchronous_standby_names is empty there: an acknowledged post is on one machine alone; have its operators \
             name a standby"
        );
    }
    Ok(())
}

/// Whether all of these end at one server, in one life of it: the writer may move while they are opened.
async fn same_server(connections: impl Iterator<Item = &Connection>) -> Result<bool, StoreError> {
    let mut seen: Option<String> = None;
    for connection in connections {
        let asked = "SELECT concat_ws(' ', inet_server_addr(), inet_server_port(), pg_postmaster_start_time())";
        let rows = connection.read("ask which server this is", asked, &[]).await?;
        let this: String = rows.first().map(|row| row.get(0)).unwrap_or_default();
        if seen.get_or_insert_with(|| this.clone()) != &this {
            return Ok(false);
        }
    }
    Ok(true)
}

/// PostgreSQL ends a session like that when it is being stopped, and when its postmaster has died (57P01 as well), which is no
/// reason to stay away: it may be started again at once.
fn is_sent_away(error: &tokio_postgres::error::DbError) -> bool {
    error.code().code() == "57P01" && !error.message().contains("postmaster")
}

/// PostgreSQL says so before it breaks off, when it is told to quit at once: as a warning, because nothing follows it.
fn is_quit(notice: &tokio_postgres::error::DbError) -> bool {
    is_sent_away(notice) && notice.message().contains("immediate shutdown")
}

/// PostgreSQL warns when a commit stopped waiting for its standby: the query was cancelled (57014), or the session was
/// told to end (57P01).
fn is_cancelled_wait(notice: &tokio_postgres::error::DbError) -> bool {
    ["57014", "57P01"].contains(&notice.code().code()) || notice.message().contains("synchronous replication")
}

/// What a transaction waits for when it commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Waits {
    /// For the mirror, as long as the pair is synchronised.
    #[default]
    ForMirror,
    /// For the writer's own disk alone.
    ForNobody,
}

/// What ends the connections; nothing once they are closed.
type Drivers = Option<Vec<tokio::task::AbortHandle>>;

/// Connections to one writer at one epoch.
pub struct Store {
    epoch: Epoch,
    at: Arc<str>,
    target: Target,
    appender: Mutex<Connection>,
    /// Appends without a wait for the mirror, once somebody did.
    local_appender: Mutex<Option<Connection>>,
    writer: Mutex<Connection>,
    readers: Vec<Connection>,
    next_reader: AtomicUsize,
    confirmations: crate::confirm::Confirmations,
    drivers: StdMutex<Drivers>,
    holds: Holds,
    /// Whether the next batch may hold what has been written already, as far as the last ones tell: after a change of writer
    /// clients post again.
    pub(crate) expects_repetitions: AtomicBool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({} at epoch {})", self.at, self.epoch)
    }
}

impl Store {
    /// Connect to the writer at `target`, bring its schema up to date, and do one real write that states `epoch`.
    ///
    /// Fails with `NotAWriter` on a standby and with `EpochRefused` when the database is at another epoch, or has not begun it.
    pub async fn open(
        target: &Target,
        epoch: Epoch,
        first: &crate::migrate::FirstAdministrator,
    ) -> Result<Self, StoreError> {
        let connections = Connections::open(target).await?;
        if !connections.take_writes().await? {
            return Err(StoreError::NotAWriter { at: target.at() });
        }
        Self::over(connections, epoch, first).await
    }

    /// The same over connections of which one was asked, and said that it takes writes.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn over(
        connections: Connections,
        epoch: Epoch,
        first: &crate::migrate::FirstAdministrator,
    ) -> Result<Self, StoreError> {
        let (connections, others) = connections.complete(epoch, first).await?;
        let Connections { target, writer, holds, .. } = connections;
        let Others { appender, readers } = others;
        if target.is_theirs {
            warn_if_alone(&writer).await?;
        }
        if target.is_several() {
            let same = same_server(readers.iter().chain([&writer, &appender])).await?;
            if !same {
                return Err(StoreError::NotAWriter { at: target.at() });
            }
        }
        let drivers =
            readers.iter().chain([&writer, &appender]).map(|connection| connection.driver.abort_handle()).collect();
        let store = Self {
            epoch,
            at: target.at().into(),
            target,
            appender: Mutex::new(appender),
            local_appender: Mutex::new(None),
            writer: Mutex::new(writer),
            readers,
            next_reader: AtomicUsize::new(0),
            confirmations: crate::confirm::Confirmations::default(),
            drivers: StdMutex::new(Some(drivers)),
            holds,
            expects_repetitions: AtomicBool::new(true),
        };
        if store.state_epoch().await? {
            return Ok(store);
        }
        let message = format!("epoch {epoch} has not begun there yet");
        Err(StoreError::EpochRefused { at: store.at.to_string(), message })
    }

    /// Do one real, durable write. What was visible in the database before it returns is durable as well, on the mirror
    /// too while the pair is synchronised: the log is shipped in order. Tells whether the epoch has begun: a writer that was handed
    /// over refuses older epochs already, and may be opened again before its new one has begun; what was written then would stand
    /// before the place at which the epoch is noted to begin.
    async fn state_epoch(&self) -> Result<bool, StoreError> {
        let doing = "prove that the writer takes writes";
        loop {
            match self.write_one(doing, STATE_EPOCH, &[&self.epoch.0, &self.application()]).await {
                Err(StoreError::Unknown { .. }) => {}
                result => return Ok(result?.first().is_some_and(|row| row.get(0))),
            }
        }
    }

    /// What the server calls itself.
    pub(crate) fn application(&self) -> &str {
        &self.target.application_name
    }

    /// The connection for appending whose commits wait for whom they are to wait for. Of a database that somebody else operates
    /// there is one alone: nobody would bring home what a take-over there leaves behind.
    pub(crate) async fn appender(&self, waits: Waits) -> Result<MappedMutexGuard<'_, Connection>, StoreError> {
        if waits == Waits::ForMirror || self.target.is_theirs {
            return Ok(MutexGuard::map(self.appender.lock().await, |connection| connection));
        }
        let mut local = self.local_appender.lock().await;
        if local.is_none() {
            let opened = Connection::open(&self.target, WAITS_FOR_NOBODY, self.holds.clone()).await;
            let held_up = |error: StoreError| match error {
                error if self.is_broken() => error,
                error => {
                    StoreError::HeldUp { doing: "connect once more", at: self.at.to_string(), why: error.to_string() }
                }
            };
            *local = Some(opened.and_then(|connection| self.kept(connection)).map_err(held_up)?);
        }
        Ok(MutexGuard::map(local, |local| local.as_mut().expect("it was opened above")))
    }

    /// A connection that was opened later ends with the others.
    fn kept(&self, connection: Connection) -> Result<Connection, StoreError> {
        match &mut *self.drivers.lock().expect("no panic while held") {
            Some(drivers) => {
                drivers.push(connection.driver.abort_handle());
                Ok(connection)
            }
            None => Err(StoreError::NotAWriter { at: self.at.to_string() }),
        }
    }

    /// The epoch that this store states.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns when a connection has broken: the store is done with.
    pub async fn broken(&self) {
        self.holds.over().await;
    }

    /// The writer has refused the epoch: it is this store's no more.
    pub(crate) fn sent_away(&self) {
        self.holds.end(true);
    }

    /// Whether the connections have ended because the writer is being stopped, or writes in another epoch: to connect to it again
    /// at once is of no use.
    pub fn was_sent_away(&self) -> bool {
        self.holds.were_sent_away()
    }

    /// Break every connection at once: whatever is under way on this store ends with `Lost`.
    pub fn close(&self) {
        let drivers = self.drivers.lock().expect("no panic while held").take();
        drivers.iter().flatten().for_each(tokio::task::AbortHandle::abort);
        self.holds.end(false);
    }

    /// Whether a connection has broken.
    pub fn is_broken(&self) -> bool {
        self.holds.is_over()
    }

    /// Do one real, durable write. What was visible in the database before it returns is durable as well, on the mirror
    /// too while the pair is synchronised: the log is shipped in order.
    pub async fn prove_writable(&self) -> Result<(), StoreError> {
        self.state_epoch().await.map(drop)
    }

    pub(crate) fn confirmations(&self) -> &crate::confirm::Confirmations {
        &self.confirmations
    }

    /// A connection for reading, in turn.
    pub(crate) fn reader(&self) -> &Connection {
        &self.readers[self.next_reader.fetch_add(1, Ordering::Relaxed) % self.readers.len()]
    }

    /// Run a statement that is a writing transaction by itself and states the epoch. `Err(Unknown)` as for `write_tx`.
    pub(crate) async fn write_one(
        &self,
        doing: &'static str,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.writer.lock().await.write(doing, sql, parameters).await
    }

    /// Run `work` in a writing transaction that states the epoch. `Err(Unknown)` when the wait for the mirror was
    /// cancelled: the caller runs it again, or reports that it does not know.
    pub(crate) async fn write_tx<T, F>(&self, doing: &'static str, work: F) -> Result<T, StoreError>
    where
        F: AsyncFnOnce(&Transaction<'_>) -> Result<T, TxError>,
    {
        let mut connection = self.writer.lock().await;
        let before = connection.cancelled_waits.load(Ordering::SeqCst);
        let sort = |e| StoreError::of(doing, &self.at, e);
        let enter = connection.statement(doing, ENTER).await?;
        let tx = connection.client.transaction().await.map_err(sort)?;
        tx.execute(&enter, &[&self.epoch.0]).await.map_err(sort)?;
        let value = match work(&tx).await {
            Ok(value) => value,
            Err(TxError::Postgres(error)) => return Err(sort(error)),
            Err(TxError::Store(error)) => return Err(error),
        };
        tx.commit().await.map_err(sort)?;
        if connection.cancelled_waits.load(Ordering::SeqCst) == before {
            Ok(value)
        } else {
            Err(StoreError::Unknown { doing })
        }
    }
}

/// Why a transaction ended: PostgreSQL, or a rule that the code inside found broken.
pub(crate) enum TxError {
    Postgres(tokio_postgres::Error),
    Store(StoreError),
}

impl From<tokio_postgres::Error> for TxError {
    fn from(error: tokio_postgres::Error) -> Self {
        TxError::Postgres(error)
    }
}

impl From<StoreError> for TxError {
    fn from(error: StoreError) -> Self {
        TxError::Store(error)
    }
}
