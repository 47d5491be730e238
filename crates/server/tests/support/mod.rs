//! A small world for tests: one PostgreSQL, an agent that only says what the record is, chat servers in this process,
//! and people who chat.

#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../../../store/tests/support/mod.rs"]
pub mod postgres;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use cluster::record::PoolRecord;
use cluster::report::ServerReport;
use cluster::secret::{PoolSecret, Purpose};
use cluster::topology::Topology;
use futures_util::{SinkExt, StreamExt};
use postgres::{Postgres, free_port, until};
use rules::id::{Epoch, RoomId, Seq};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;
use wire::agent::Watched;
use wire::chat::{ClientFrame, Content, Cursor, Entry, ServerFrame};

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

type Reports = Arc<Mutex<HashMap<String, ServerReport>>>;

#[derive(Clone)]
struct FakeAgent {
    topology: Topology,
    record: watch::Sender<PoolRecord>,
    reports: Reports,
}

/// The world.
pub struct World {
    pub postgres: Postgres,
    pub record: watch::Sender<PoolRecord>,
    pub reports: Reports,
    pub addresses: Vec<String>,
    pub http: reqwest::Client,
    pub admin: String,
}

async fn watch_record(State(agent): State<FakeAgent>, Query(query): Query<HashMap<String, u64>>) -> Json<Watched> {
    let number = |key| query.get(key).copied().unwrap_or(0);
    let known = (number("epoch") as i64, number("version"));
    let mut record = agent.record.subscribe();
    let newer = record.wait_for(|r| (r.epoch.0, r.version) > known);
    let _ = tokio::time::timeout(Duration::from_millis(number("wait_ms")), newer).await;
    let record = agent.record.borrow().clone();
    Json(Watched { record: Some(record), topology: agent.topology.clone() })
}

async fn report(
    State(agent): State<FakeAgent>,
    Path(name): Path<String>,
    Json(report): Json<ServerReport>,
) -> Json<Watched> {
    agent.reports.lock().unwrap().insert(name, report);
    let record = agent.record.borrow().clone();
    Json(Watched { record: Some(record), topology: agent.topology.clone() })
}

impl World {
    /// A world with so many servers, all of them active.
    pub async fn new(servers: usize) -> Self {
        Self::with_open_files(servers, 20_000).await
    }

    /// The same; each server believes that it may have so many files open.
    pub async fn with_open_files(servers: usize, open_files: u64) -> Self {
        // With STANDFAST_LOG=info a failing test shows what the servers said.
        let filter = tracing_subscriber::EnvFilter::from_env("STANDFAST_LOG");
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let postgres = Postgres::start().await;
        let agent_at = format!("127.0.0.1:{}", free_port());
        let names: Vec<String> = (1..=servers).map(|n| format!("server-{n}")).collect();
        let addresses: Vec<String> = names.iter().map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let topology = topology(&agent_at, postgres.port, &names, &addresses);
        let record = watch::Sender::new(first_record(&names));
        let reports = Reports::default();
        let agent = FakeAgent { topology, record: record.clone(), reports: reports.clone() };
        serve_agent(&agent_at, agent.clone()).await;
        for name in &names {
            let dir = postgres.folder().join(name);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("pool.secret"), SECRET).unwrap();
            std::fs::write(dir.join("topology.toml"), toml::to_string(&agent.topology).unwrap()).unwrap();
            let server = name.as_str().into();
            tokio::spawn(async move {
                server::run(server::Config { dir, server, open_files }).await.unwrap();
            });
        }
        let mut world =
            Self { postgres, record, reports, addresses, http: reqwest::Client::new(), admin: String::new() };
        for at in 0..servers {
            world.healthy(at).await;
        }
        let password = PoolSecret::from_text(SECRET).unwrap().derive(Purpose::FirstAdministrator);
        let (status, body) =
            world.call(0, "POST", "/v1/sign-in", "", Some(json!({"user": "admin", "password": password}))).await;
        assert_eq!(status, 200, "{body}");
        body["token"].as_str().unwrap().clone_into(&mut world.admin);
        world
    }

    /// The key that checks the pool's receipts.
    pub fn key() -> rules::signature::PublicKey {
        PoolSecret::from_text(SECRET).unwrap().signing_key().public()
    }

    /// Wait until a server writes.
    pub async fn healthy(&self, server: usize) {
        let url = format!("http://{}/v1/health", self.addresses[server]);
        until("the server is healthy", || async { self.http.get(&url).send().await.is_ok_and(|r| r.status() == 200) })
            .await;
    }

    /// Change the record; its version rises.
    pub fn change(&self, change: impl FnOnce(&mut PoolRecord)) {
        self.record.send_modify(|record| {
            record.version += 1;
            change(record);
        });
    }

    /// Call a server.
    pub async fn call(
        &self,
        server: usize,
        method: &str,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let url = format!("http://{}{path}", self.addresses[server]);
        let mut request = self.http.request(method.parse().unwrap(), url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// Call as the administrator; it has to succeed.
    pub async fn administer(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(0, method, path, &self.admin, Some(body)).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    /// Create users; their tokens in order.
    pub async fn users(&self, names: &[&str]) -> Vec<String> {
        let answer = self.administer("POST", "/v1/users/batch", json!({"names": names})).await;
        answer["sessions"].as_array().unwrap().iter().map(|s| s["token"].as_str().unwrap().to_owned()).collect()
    }

    /// Create the category `Staff`, open to everyone.
    pub async fn category(&self) {
        let body = json!({"name": "Staff", "allowed_members": ["Everyone"], "creators": ["Everyone"]});
        self.administer("POST", "/v1/categories", body).await;
    }

    /// Create a room in `Staff`.
    pub async fn room(&self, name: &str, privacy: &str, members: &[&str]) -> RoomId {
        self.room_in("Staff", name, privacy, members).await
    }

    /// Create a room in a category.
    pub async fn room_in(&self, category: &str, name: &str, privacy: &str, members: &[&str]) -> RoomId {
        let body = json!({"name": name, "category": category, "privacy": privacy, "members": members});
        RoomId(self.administer("POST", "/v1/rooms", body).await["id"].as_i64().unwrap())
    }

    /// Sign a person in on a WebSocket.
    pub async fn person(&self, server: usize, token: &str) -> Person {
        let mut person = self.dial(server, token).await;
        let welcome = person.next().await;
        assert!(matches!(welcome, ServerFrame::Welcome { .. }), "{welcome:?}");
        person
    }

    /// Connect and say hello, without waiting for the answer.
    pub async fn dial(&self, server: usize, token: &str) -> Person {
        self.dial_with(server, token, None).await
    }

    /// The same with a ticket.
    pub async fn dial_with(&self, server: usize, token: &str, ticket: Option<String>) -> Person {
        self.dial_saying(server, &ClientFrame::Hello { token: token.to_owned(), ticket, receipts: true }).await
    }

    /// Connect and say this first.
    pub async fn dial_saying(&self, server: usize, hello: &ClientFrame) -> Person {
        let url = format!("ws://{}/v1/chat", self.addresses[server]);
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut person = Person { socket, next_id: 1 };
        person.send(hello).await;
        person
    }
}

async fn serve_agent(at: &str, agent: FakeAgent) {
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    let router =
        Router::new().route("/v1/watch", get(watch_record)).route("/v1/servers/{name}", post(report)).with_state(agent);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
}

fn topology(agent_at: &str, port: u16, names: &[String], addresses: &[String]) -> Topology {
    let servers: Vec<Value> = names
        .iter()
        .zip(addresses)
        .map(|(name, at)| {
            let link = format!("127.0.0.1:{}", free_port());
            json!({"name": name, "host": "s1a", "clients": {"at": at}, "link": {"at": link}, "active": true})
        })
        .collect();
    serde_json::from_value(json!({
        "pool": "chat.example.net",
        "version": 1,
        "site": [{"name": "site-1", "authority": "s1a"}, {"name": "site-2", "authority": "s2a"}],
        "host": [
            {"name": "s1a", "site": "site-1", "agent": {"at": agent_at}},
            {"name": "s1b", "site": "site-1", "agent": {"at": "127.0.0.1:1"}},
            {"name": "s2a", "site": "site-2", "agent": {"at": "127.0.0.1:1"}},
        ],
        "database": [{
            "name": "mgc",
            "primary": {"host": "s1a", "postgres": {"at": format!("127.0.0.1:{port}")}},
            "mirror": {"host": "s1b", "postgres": {"at": "127.0.0.1:1"}},
            "backup": {"host": "s2a", "postgres": {"at": "127.0.0.1:1"}},
        }],
        "server": servers,
    }))
    .unwrap()
}

fn first_record(names: &[String]) -> PoolRecord {
    serde_json::from_value(json!({
        "version": 1, "epoch": 1, "state": "Normal", "home": "site-1", "active_servers": names,
        "databases": {"mgc": {"principal": "s1a", "mirror": null, "backup": null, "backup_mirror": null}},
    }))
    .unwrap()
}

/// Somebody on a WebSocket.
pub struct Person {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
}

impl Person {
    pub async fn send(&mut self, frame: &ClientFrame) {
        self.say(&serde_json::to_string(frame).unwrap()).await;
    }

    pub async fn say(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next frame; panics after 10 seconds and when the connection ends.
    pub async fn next(&mut self) -> ServerFrame {
        match self.next_or_close().await {
            Ok(frame) => frame,
            Err(code) => panic!("the connection was closed with {code}"),
        }
    }

    /// The next frame, or the code with which the connection was closed; 0 for none.
    pub async fn next_or_close(&mut self) -> Result<ServerFrame, u16> {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.socket.next());
            match message.await.expect("a frame within 10 s") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map_or(0, |f| f.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(0),
            }
        }
    }

    /// Skip frames until one fits.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&ServerFrame) -> Option<T>) -> T {
        loop {
            let frame = self.next().await;
            if let Some(found) = pick(&frame) {
                return found;
            }
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Join and return the answer.
    pub async fn join(&mut self, room: RoomId, after: Option<Cursor>) -> ServerFrame {
        let id = self.id();
        self.send(&ClientFrame::Join { id, room, after, history: None }).await;
        self.wait_for(|frame| match frame {
            ServerFrame::Joined { id: i, .. } | ServerFrame::Refused { id: i, .. } if *i == id => Some(frame.clone()),
            _ => None,
        })
        .await
    }

    /// Post without waiting.
    pub async fn post(&mut self, room: RoomId, client_id: Uuid, text: &str) -> u64 {
        let id = self.id();
        self.send(&ClientFrame::Post { id, room, client_id, text: text.to_owned() }).await;
        id
    }

    /// Post several with one write, without waiting.
    pub async fn post_together(&mut self, room: RoomId, client_ids: &[Uuid], text: &str) {
        for client_id in client_ids {
            let (id, client_id, text) = (self.id(), *client_id, text.to_owned());
            let frame = serde_json::to_string(&ClientFrame::Post { id, room, client_id, text }).unwrap();
            self.socket.feed(Message::text(frame)).await.unwrap();
        }
        self.socket.flush().await.unwrap();
    }

    /// Post and wait for the acknowledgement: number, epoch, repeated.
    pub async fn post_acked(&mut self, room: RoomId, client_id: Uuid, text: &str) -> (Seq, Epoch, bool) {
        let id = self.post(room, client_id, text).await;
        self.wait_for(|frame| match frame {
            ServerFrame::Ack { id: i, seq, epoch, repeated, .. } if *i == id => Some((*seq, *epoch, *repeated)),
            ServerFrame::Refused { id: i, message, .. } if *i == id => panic!("{message}"),
            _ => None,
        })
        .await
    }

    /// The next so many entries: number and text.
    pub async fn entries(&mut self, count: usize) -> Vec<(i64, String)> {
        let mut entries = Vec::new();
        while entries.len() < count {
            if let ServerFrame::Entry(entry) = self.next().await {
                entries.push((entry.seq.0, text_of(&entry)));
            }
        }
        entries
    }
}

pub fn text_of(entry: &Entry) -> String {
    match &entry.content {
        Content::Post { text } | Content::Replacement { text, .. } | Content::RoomChange { text } => text.clone(),
        Content::Removal { target } => format!("removed {target}"),
    }
}
