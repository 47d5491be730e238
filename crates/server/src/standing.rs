//! How this server stands towards clients: it has a writer, waits for one, or clients belong elsewhere.

use crate::app::View;
use cluster::name::{DatabaseName, HostName, ServerName};
use cluster::record::PoolState;
use rules::id::Epoch;
use std::sync::Arc;
use store::Store;
use wire::chat::{PoolStands, ServerAddress};

/// Name of the content database.
pub const CONTENT_DATABASE: &str = "mgc";

/// How the server stands.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It waits for a writer, or for any server to become active: clients stay and wait with it.
    Waiting {
        /// For people.
        reason: Arc<str>,
        /// Since when, whatever the reason was first: microseconds since the Unix epoch.
        since_us: i64,
    },
    /// It writes and reads with this store.
    Ready {
        /// Connections to the writer.
        store: Arc<Store>,
    },
    /// It has left the list of active servers, or is to end: it takes no new client, and writes what its clients post until they have
    /// moved.
    Leaving {
        /// Connections to the writer.
        store: Arc<Store>,
    },
    /// Other servers are active and this one is not.
    Away,
}

impl Standing {
    /// Waiting from now on.
    pub fn waiting(reason: impl Into<Arc<str>>) -> Self {
        Standing::Waiting { reason: reason.into(), since_us: jiff::Timestamp::now().as_microsecond() }
    }

    /// How it stands next, after it stood so: who waits on for another reason has waited all the time.
    pub fn after(self, before: &Standing) -> Self {
        match (self, before) {
            (Standing::Waiting { reason, .. }, Standing::Waiting { since_us, .. }) => {
                Standing::Waiting { reason, since_us: *since_us }
            }
            (next, _) => next,
        }
    }

    /// The epoch that is written as, if any.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Standing::Ready { store } | Standing::Leaving { store } => Some(store.epoch()),
            Standing::Waiting { .. } | Standing::Away => None,
        }
    }

    /// The connections to the writer, if there are any, for the clients that are here.
    pub fn store(&self) -> Option<&Arc<Store>> {
        match self {
            Standing::Ready { store } | Standing::Leaving { store } => Some(store),
            Standing::Waiting { .. } | Standing::Away => None,
        }
    }
}

/// What the record asks of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Send clients to the active servers.
    Away,
    /// Keep clients and wait.
    Wait {
        /// For people.
        reason: &'static str,
    },
    /// Write as `epoch`.
    Write {
        /// Where the writer is: `host:port`, as this site reaches it, or the connection string of a database that somebody
        /// else operates.
        at: String,
        /// The epoch to state.
        epoch: Epoch,
    },
}

/// What the record asks of `server`. Pure: the newest record and topology in, the goal out.
pub fn goal(view: &View, server: &ServerName) -> Goal {
    let Some(record) = &view.record else {
        return Goal::Wait { reason: "the pool is not initialised yet" };
    };
    if !view.is_active(server) {
        return if record.active_servers.is_empty() {
            Goal::Wait { reason: "no server is active at the moment: a change of writer is under way" }
        } else {
            Goal::Away
        };
    }
    let name = DatabaseName::from(CONTENT_DATABASE);
    if let Some(existing) = view.topology.existing(&name) {
        return Goal::Write { at: existing.dsn.clone(), epoch: record.epoch };
    }
    let Some(host) = record.databases.get(&name).and_then(|d| d.principal.as_ref()) else {
        return Goal::Wait {
            reason: "the content database has no writer at the moment: a change of writer is under way",
        };
    };
    match content_at(view, server, host) {
        Some(at) => Goal::Write { at, epoch: record.epoch },
        None => Goal::Wait { reason: "the topology does not say where the writer is; publish one that does" },
    }
}

/// The mirror of the content database, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorAt {
    /// `host:port`, as this server's site reaches it.
    pub at: String,
    /// Whether it has everything, and may take over.
    pub synchronised: bool,
}

/// Where the mirror of the content database is.
pub fn mirror(view: &View, server: &ServerName) -> Option<MirrorAt> {
    let record = view.record.as_ref().filter(|_| view.is_active(server))?;
    let mirror = record.databases.get(&DatabaseName::from(CONTENT_DATABASE))?.mirror.as_ref()?;
    Some(MirrorAt { at: content_at(view, server, &mirror.host)?, synchronised: mirror.synchronised })
}

/// Where a host's instance of the content database is, as a server's host reaches it.
fn content_at(view: &View, server: &ServerName, host: &HostName) -> Option<String> {
    let topology = &view.topology;
    let own = topology.server(server).and_then(|s| topology.host(&s.host))?;
    let instance = topology.database(&CONTENT_DATABASE.into())?.instance_on(host)?;
    Some(instance.postgres.seen_by(&own.name, &own.site).to_owned())
}

/// Where the pool stands, for people.
pub fn pool_stands(view: &View) -> PoolStands {
    let record = view.record.as_ref();
    PoolStands {
        site: record.map(|r| r.home.to_string()).unwrap_or_default(),
        failed_over: record.is_some_and(|r| r.state == PoolState::FailedOver),
    }
}

/// All servers as clients reach them, active ones first.
pub fn addresses(view: &View) -> Vec<ServerAddress> {
    let active = |name: &ServerName| view.is_active(name);
    let mut servers: Vec<ServerAddress> = view
        .topology
        .servers
        .iter()
        .map(|s| ServerAddress {
            name: s.name.to_string(),
            url: format!("http://{}", s.clients.at),
            active: active(&s.name),
        })
        .collect();
    servers.sort_by_key(|s| !s.active);
    servers
}

/// The other active servers, as this server's host reaches their links.
pub fn peers(view: &View, server: &ServerName) -> Vec<(ServerName, String)> {
    let Some(record) = &view.record else { return Vec::new() };
    let Some(own) = view.topology.server(server).and_then(|s| view.topology.host(&s.host)) else { return Vec::new() };
    let link_of =
        |name: &ServerName| view.topology.server(name).map(|s| s.link.seen_by(&own.name, &own.site).to_owned());
    record
        .active_servers
        .iter()
        .filter(|name| *name != server)
        .filter_map(|name| Some((name.clone(), link_of(name)?)))
        .collect()
}
