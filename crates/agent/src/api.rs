//! The agent's API: `wire::agent` says what each request means.

use crate::error::Error;
use crate::host::Host;
use crate::order;
use crate::tail;
use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use cluster::backup::{AskBackup, Backup};
use cluster::drill::{DrillReport, Drills, StartDrill, Work};
use cluster::job_history::JobRun;
use cluster::name::{DatabaseName, HostName, ServerName};
use cluster::order::StampedOrder;
use cluster::record::PoolRecord;
use cluster::report::{HostReport, OrderReport, ServerReport, TailReport};
use cluster::secret::{PoolSecret, Purpose};
use cluster::witness::Reach;
use rules::id::Epoch;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::agent::{
    AgentError, Probe, Probed, PublishTopology, RecordAnswer, SessionReport, SetRecord, TopologyAnswer, WantService,
    Watched,
};

/// Longest time that a request may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Longest time for looking whether another host's instance answers.
const REACH_MAX: Duration = Duration::from_secs(5);

/// The routes, behind the check of the caller's key.
pub fn router(host: Arc<Host>, beside: crate::Beside) -> Router {
    let metrics = crate::metrics::router(&host, beside.metrics);
    let secret = host.secret.clone();
    Router::new()
        .route("/v1/report", get(report))
        .route("/v1/watch", get(watch))
        .route("/v1/record", post(set_record))
        .route("/v1/gossip", post(gossip))
        .route("/v1/topology", get(topology).post(publish))
        .route("/v1/orders", post(take_order))
        .route("/v1/servers/{name}", post(server_report))
        .route("/v1/services/{name}", post(want_service))
        .route("/v1/probe", post(probe))
        .route("/v1/reach/{database}/{host}", get(reach))
        .route("/v1/jobs/{database}", get(jobs))
        .route("/v1/tails", get(tails))
        .route("/v1/tails/{database}/{id}", get(tail_lines))
        .route("/v1/heads/{database}", get(heads))
        .route("/v1/drills", get(drills).post(begin_drill).put(keep_drill))
        .route("/v1/backups", get(backups).post(begin_backup))
        .route("/v1/scrubs/{database}", post(scrub))
        .route("/v1/without-peer", post(without_peer))
        .route("/v1/sessions/{database}", get(sessions))
        .route("/v1/sessions/{database}/{spid}", delete(end_session))
        .with_state(host)
        .merge(beside.routes)
        .layer(from_fn_with_state(secret, check_key))
        .merge(metrics)
}

async fn check_key(State(secret): State<PoolSecret>, request: Request, next: Next) -> Response {
    if secret.is_brought_by(authorization(request.headers()), Purpose::AgentApi) {
        return next.run(request).await;
    }
    let message =
        "this agent takes requests of its own pool only: the key derived from pool.secret does not match".into();
    (StatusCode::UNAUTHORIZED, Json(AgentError { message })).into_response()
}

/// The text of a request's `Authorization` header; empty without one.
pub(crate) fn authorization(headers: &axum::http::HeaderMap) -> &str {
    headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = match self {
            Error::Unfit(_) => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(AgentError { message: self.to_string() })).into_response()
    }
}

/// Everything that this host sees.
pub async fn host_report(host: &Host) -> HostReport {
    let mut instances = BTreeMap::new();
    let mut orders: BTreeMap<_, OrderReport> = BTreeMap::new();
    let mut waiting_for = Vec::new();
    let mut tails = Vec::new();
    for database in host.all_databases() {
        instances.insert(database.name.clone(), database.report(host).await);
        if let Some(order) = database.state().order {
            orders.insert(database.name.clone(), order);
        }
        waiting_for.extend(database.waiting_for());
        tails.extend(database.tails());
    }
    waiting_for.extend(host.hearsay());
    waiting_for.extend(host.services.waiting_for());
    let servers = host.servers.lock().expect("nothing panics while it holds the servers");
    let aged = |(report, at): &(ServerReport, Instant)| ServerReport {
        age_ms: at.elapsed().as_millis() as u64,
        ..report.clone()
    };
    HostReport {
        host: host.name.clone(),
        site: host.store.site().clone(),
        measured_at_ms: jiff::Timestamp::now().as_millisecond(),
        change: host.changes(),
        record: host.store.record(),
        topology_version: host.store.topology().version,
        instances,
        orders,
        services: host.services.report(&servers),
        servers: servers.iter().map(|(name, seen)| (name.clone(), aged(seen))).collect(),
        waiting_for,
        asks: crate::asking::other_to_answer(host),
        tails,
        last_drill: host.drills.last(),
        backups: host.backups.report(),
    }
}

async fn report(State(host): State<Arc<Host>>) -> Json<HostReport> {
    Json(host_report(&host).await)
}

#[derive(Deserialize)]
struct WatchQuery {
    #[serde(default)]
    epoch: i64,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn watch(State(host): State<Arc<Host>>, Query(query): Query<WatchQuery>) -> Json<Watched> {
    let mut record = host.store.watch_heard();
    let mut topology = host.store.watch_topology();
    topology.mark_unchanged();
    let newer =
        |r: &Option<PoolRecord>| r.as_ref().is_some_and(|r| (r.epoch, r.version) > (Epoch(query.epoch), query.version));
    let wait = Duration::from_millis(query.wait_ms).min(WAIT_MAX);
    tokio::select! {
        _ = record.wait_for(newer) => {}
        _ = topology.changed() => {}
        () = tokio::time::sleep(wait) => {}
    }
    let record = record.borrow().clone();
    Json(Watched { record, topology: host.store.topology() })
}

async fn set_record(State(host): State<Arc<Host>>, Json(body): Json<SetRecord>) -> Result<Json<RecordAnswer>, Error> {
    let answer = host.store.swap(body.expected_version, body.record)?;
    host.changed();
    Ok(Json(answer))
}

async fn gossip(
    State(host): State<Arc<Host>>,
    Json(told): Json<Option<PoolRecord>>,
) -> Result<Json<Option<PoolRecord>>, Error> {
    if let Some(record) = told {
        host.store.adopt(record)?;
    }
    Ok(Json(host.store.record()))
}

#[derive(Deserialize)]
struct NewerThan {
    newer_than: Option<u64>,
}

async fn topology(
    State(host): State<Arc<Host>>,
    Query(query): Query<NewerThan>,
) -> Result<Json<Option<String>>, Error> {
    if query.newer_than.is_some_and(|version| host.store.topology().version <= version) {
        return Ok(Json(None));
    }
    host.store.topology_text().map(|text| Json(Some(text)))
}

async fn publish(
    State(host): State<Arc<Host>>,
    Json(body): Json<PublishTopology>,
) -> Result<Json<TopologyAnswer>, Error> {
    host.store.publish(body.expected_version, &body.text).map(Json)
}

#[derive(Deserialize)]
struct Wait {
    #[serde(default)]
    wait_ms: u64,
}

async fn take_order(
    State(host): State<Arc<Host>>,
    Query(query): Query<Wait>,
    Json(given): Json<StampedOrder>,
) -> Result<Json<OrderReport>, Error> {
    order::take(host, given, Duration::from_millis(query.wait_ms).min(WAIT_MAX)).await.map(Json)
}

async fn server_report(
    State(host): State<Arc<Host>>,
    Path(name): Path<String>,
    Json(said): Json<ServerReport>,
) -> Json<Watched> {
    let mut servers = host.servers.lock().expect("nothing panics while it holds the servers");
    servers.insert(ServerName(name), (said, Instant::now()));
    drop(servers);
    Json(Watched { record: host.store.record(), topology: host.store.topology() })
}

async fn want_service(
    State(host): State<Arc<Host>>,
    Path(name): Path<String>,
    Json(asked): Json<WantService>,
) -> Result<StatusCode, Error> {
    host.services.want(&ServerName(name), asked.wanted, asked.at_once)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn scrub(State(host): State<Arc<Host>>, Path(name): Path<String>) -> Result<StatusCode, Error> {
    let name = DatabaseName(name);
    let Some(database) = host.database(&name) else {
        return Err(Error::Unfit(format!("{} has no instance of {name}", host.name)));
    };
    if database.running().is_none() {
        return Err(Error::Unfit(format!("{name} on {} does not run; data at rest is not read through", host.name)));
    }
    database.scrub_asked.notify_one();
    Ok(StatusCode::ACCEPTED)
}

async fn probe(State(host): State<Arc<Host>>, Json(asked): Json<Probe>) -> Result<Json<Probed>, Error> {
    crate::probe::show(&host, &asked).await.map(Json)
}

#[derive(Deserialize)]
struct Limit {
    limit_ms: u64,
}

async fn reach(
    State(host): State<Arc<Host>>,
    Path((database, other)): Path<(String, String)>,
    Query(limit): Query<Limit>,
) -> Result<Json<Reach>, Error> {
    let (database, other) = (DatabaseName(database), HostName(other));
    let none = || Error::Unfit(format!("the topology has no instance of {database} on {other}"));
    let at = host.postgres_of(&database, &other).ok_or_else(none)?;
    let limit = Duration::from_millis(limit.limit_ms).min(REACH_MAX);
    Ok(Json(crate::feed::reach(&at, limit).await))
}

async fn jobs(State(host): State<Arc<Host>>, Path(name): Path<String>) -> Result<Json<Vec<JobRun>>, Error> {
    let database = host.database(&name.as_str().into()).ok_or_else(|| {
        Error::Unfit(format!("there is no instance of {name} on {}; look at standfast topology show", host.name))
    })?;
    Ok(Json(database.jobs.all()))
}

async fn tails(State(host): State<Arc<Host>>) -> Json<Vec<TailReport>> {
    Json(host.all_databases().iter().flat_map(|database| database.tails()).collect())
}

/// The lines of a tail, a piece at a time: there may be more of them than fit into memory.
async fn tail_lines(
    State(host): State<Arc<Host>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<axum::body::Body, Error> {
    let database = database_here(&host, name)?;
    let path = tail::lines_of(&database.instance, &id).ok_or_else(|| {
        Error::Unfit(format!("{} has no tail {id}; standfast tail list shows which there are", host.name))
    })?;
    let what = format!("read {}", path.display());
    let file = tokio::fs::File::open(&path).await.map_err(Error::file(what))?;
    let pieces = futures_util::stream::try_unfold(file, async |mut file| {
        Ok::<_, std::io::Error>(tail::bring::chunk_of(&mut file).await?.map(|piece| (piece, file)))
    });
    Ok(axum::body::Body::from_stream(pieces))
}

/// What has been countersigned here, oldest first, a piece at a time.
async fn heads(State(host): State<Arc<Host>>, Path(name): Path<String>) -> Result<axum::body::Body, Error> {
    let database = database_here(&host, name)?;
    let mut files = Vec::new();
    for path in crate::heads::files_of(&host.folder, &database.name) {
        match tokio::fs::File::open(&path).await {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::file(format!("read {}", path.display()))(error)),
        }
    }
    files.reverse();
    let pieces = futures_util::stream::try_unfold(files, async |mut files| {
        while let Some(file) = files.last_mut() {
            if let Some(piece) = tail::bring::chunk_of(file).await? {
                return Ok::<_, std::io::Error>(Some((piece, files)));
            }
            files.pop();
        }
        Ok(None)
    });
    Ok(axum::body::Body::from_stream(pieces))
}

async fn drills(State(host): State<Arc<Host>>) -> Json<Drills> {
    Json(host.drills.all())
}

async fn begin_drill(
    State(host): State<Arc<Host>>,
    Json(wanted): Json<StartDrill>,
) -> Result<Json<DrillReport>, Error> {
    crate::drill::begin(&host, wanted).await.map(Json)
}

async fn keep_drill(State(host): State<Arc<Host>>, Json(told): Json<DrillReport>) -> Result<StatusCode, Error> {
    if told.work != Work::Switch {
        return Err(Error::Unfit(format!("{} is carried out by an agent, which keeps it itself", told.id)));
    }
    host.drills.keep(told);
    host.changed();
    Ok(StatusCode::NO_CONTENT)
}

async fn backups(State(host): State<Arc<Host>>) -> Json<Vec<Backup>> {
    Json(host.backups.all())
}

async fn begin_backup(State(host): State<Arc<Host>>, Json(asked): Json<AskBackup>) -> Result<Json<DrillReport>, Error> {
    crate::backup::begin(&host, asked).await.map(Json)
}

async fn without_peer(State(host): State<Arc<Host>>) -> Result<StatusCode, Error> {
    host.go_on_alone()?;
    Ok(StatusCode::NO_CONTENT)
}

fn database_here(host: &Host, name: String) -> Result<Arc<crate::database::Database>, Error> {
    let name = DatabaseName(name);
    host.database(&name).ok_or_else(|| Error::Unfit(format!("{} has no instance of {name}", host.name)))
}

async fn sessions(State(host): State<Arc<Host>>, Path(name): Path<String>) -> Result<Json<Vec<SessionReport>>, Error> {
    database_here(&host, name)?.instance.sql.sessions().await.map(Json)
}

async fn end_session(
    State(host): State<Arc<Host>>,
    Path((name, spid)): Path<(String, i32)>,
) -> Result<StatusCode, Error> {
    database_here(&host, name)?.instance.sql.end_session(spid).await?;
    tracing::warn!(spid, "a session was ended at an administrator's request");
    Ok(StatusCode::NO_CONTENT)
}
