//! A host that comes back asks before it opens anything for writing: what `cluster::fence` decides, with what this host knows.

use crate::database::Database;
use crate::error::Error;
use crate::host::Host;
use cluster::fence::{Askable, MayOpen, may_open, other_to_ask, over_by};
use cluster::name::SiteName;
use cluster::record::PoolRecord;
use cluster::topology::Topology;
use rules::id::Epoch;
use std::time::{Duration, Instant};

impl Database {
    /// Whether the data may become a writer under the newest record.
    pub fn may_open(&self, host: &Host, record: &PoolRecord) -> MayOpen {
        let topology = host.store.topology();
        may_open(&self.name, &host.name, record, askable(host, &topology), &host.answers())
    }
}

/// How long a run that is to open a writer waits for an answer of the other site before it says that there is none.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Between two looks whether there is one.
const LOOK: Duration = Duration::from_millis(10);

/// Leave for a run to open `database` for writing on this host in an epoch: the other site has answered, or has not to be asked, and
/// nobody knows of a later one. A run may be from before its site was lost, and the other site may have gone on meanwhile.
///
/// # Errors
/// When the other site has to answer, and does not for a while; when a later epoch has begun.
pub async fn leave_to_open(host: &Host, database: &Database, epoch: Epoch) -> Result<(), Error> {
    let began = Instant::now();
    while let Some(site) = other_to_answer(host) {
        if began.elapsed() >= ANSWER_WAIT {
            return Err(Error::Unfit(format!(
                "{}: {site} has not answered yet who the writer is; it is opened for writing when it has, or when this site is \
                 started alone: standfast pool start-alone --site {}",
                database.name,
                host.store.site()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
    is_not_over(host, epoch)
}

/// Nobody knows of an epoch after this one.
///
/// # Errors
/// When somebody does: the run that would begin it is overruled.
pub fn is_not_over(host: &Host, epoch: Epoch) -> Result<(), Error> {
    match over_by(host.store.record().as_ref(), &host.answers(), epoch) {
        None => Ok(()),
        Some(newest) => Err(Error::Unfit(format!(
            "epoch {epoch} is over: this host has heard of epoch {newest}; look at standfast pool status"
        ))),
    }
}

/// The other site, where it has to answer before anything is opened for writing on this host, and has not.
pub fn other_to_answer(host: &Host) -> Option<SiteName> {
    let topology = host.store.topology();
    let record = host.store.record()?;
    other_to_ask(&record, askable(host, &topology), &host.answers()).cloned()
}

fn askable<'a>(host: &'a Host, topology: &'a Topology) -> Askable<'a> {
    let site = host.store.site();
    let other_site = topology.other_site(site).map(|s| &s.name);
    Askable { other_site, witness: topology.site(site).and_then(|s| s.witness()) }
}
