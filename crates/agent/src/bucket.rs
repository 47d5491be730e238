//! The log share in a bucket of an S3-compatible store.
//!
//! PostgreSQL reads and writes files. So a bucket is used through a folder of the instance, and a task beside it that carries
//! files to and fro: `out` holds what goes there, `in` what the copy job wants of it, `fetch` what PostgreSQL asks for by
//! itself. Looks at the share, which hold the pair and everything else up, never wait for the network: they read what the
//! task has seen. Only orders of a run, which have to know, ask the store themselves.

mod close;
mod fetch;
mod index;
mod ship;
pub mod store;

pub use index::Index;
pub use ship::FAULT;

use crate::postgres::programs::Programs;
use crate::postgres::share::Trimmed;
use cluster::name::{DatabaseName, HostName};
use cluster::shipping_settings::LogShipping;
use cluster::wal::Lsn;
use rules::id::Epoch;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};
use store::Store;

/// Time between two looks at what there is to do here.
const LOOK: Duration = Duration::from_millis(25);
/// Time between two tries after a fault.
const AGAIN: Duration = Duration::from_secs(1);
/// Time between two notes of what is still needed.
const SAY_NEEDS: Duration = Duration::from_secs(10);
/// Time between two trims.
const TRIM: Duration = Duration::from_secs(30);
/// So many objects are on their way at once.
const AT_ONCE: usize = 4;

/// What a principal ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipping {
    /// In this epoch.
    pub epoch: Epoch,
    /// Its `pg_wal`.
    pub pg_wal: PathBuf,
    /// What may be deleted when nobody needs it.
    pub older_than: Duration,
}

/// What a copy job wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copying {
    /// From this place on.
    pub from: String,
    /// What is still being written too.
    pub partial: bool,
    /// Time between two looks at the bucket.
    pub every: Duration,
}

/// What this host wants of the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    shipping: Option<Shipping>,
    copying: Option<Copying>,
    /// From this place on the host still needs the log.
    needs: Option<String>,
}

/// What the task has seen.
#[derive(Default)]
struct Seen {
    index: Option<Arc<Index>>,
    listed_at: Option<Instant>,
    /// Why the last look, or what was to be brought then, failed.
    unread: Option<String>,
    /// Why the task's last round failed.
    fault: Option<String>,
    trimmed: Trimmed,
    /// Up to where the bucket has the log that is written now.
    shipped: Option<Lsn>,
}

/// A share in a bucket, as one host uses it for one database.
pub struct Bucket {
    host: HostName,
    store: Store,
    folder: PathBuf,
    programs: Programs,
    /// What it was opened with: when that changes, another one is opened.
    opened_with: OpenedWith,
    wanted: Mutex<Wanted>,
    seen: Mutex<Seen>,
    /// Held by whoever asks the store for the list, or writes into `in`.
    listing: tokio::sync::Mutex<()>,
    sent: Mutex<ship::Sent>,
}

/// What a bucket is opened with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedWith {
    share: String,
    s3: Option<cluster::shipping_settings::S3>,
    key_changed: Option<SystemTime>,
}

impl OpenedWith {
    /// What would be opened now.
    pub fn now(settings: &LogShipping, host_folder: &std::path::Path) -> Self {
        let key = std::fs::metadata(host_folder.join(store::CREDENTIALS_FILE)).and_then(|m| m.modified());
        Self { share: settings.share.clone(), s3: settings.s3.clone(), key_changed: key.ok() }
    }
}

impl Bucket {
    /// Open a bucket, and let its task run for as long as anybody has it.
    ///
    /// # Errors
    /// When its key is missing or unreadable, for people.
    pub fn open(
        host: &HostName,
        host_folder: &std::path::Path,
        settings: &LogShipping,
        database: &DatabaseName,
        folder: PathBuf,
        programs: &Programs,
    ) -> Result<Arc<Self>, String> {
        let opened_with = OpenedWith::now(settings, host_folder);
        // What an earlier process has brought and nobody has taken.
        if let Err(error) = std::fs::remove_dir_all(folder.join("in"))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(format!("empty {}: {error}", folder.join("in").display()));
        }
        let bucket = Arc::new(Self {
            host: host.clone(),
            store: Store::open(settings, database, host_folder)?,
            folder,
            programs: programs.clone(),
            opened_with,
            wanted: Mutex::default(),
            seen: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
            sent: Mutex::default(),
        });
        tokio::spawn(run(Arc::downgrade(&bucket)));
        Ok(bucket)
    }

    /// Whether it was opened with this.
    pub fn is_opened_with(&self, now: &OpenedWith) -> bool {
        self.opened_with == *now
    }

    fn wanted(&self) -> Wanted {
        self.wanted.lock().expect("nothing panics while it holds what is wanted").clone()
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted.lock().expect("nothing panics while it holds what is wanted"));
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().expect("nothing panics while it holds what was seen"))
    }

    /// Ship, or do not.
    pub fn ship(&self, shipping: Option<Shipping>) {
        self.want(|w| w.shipping = shipping);
    }

    /// Bring what the copy job wants, or nothing.
    pub fn copy(&self, copying: Option<Copying>) {
        self.want(|w| w.copying = copying);
    }

    /// Say from where on this host still needs the log.
    pub fn say_needs(&self, from: String) {
        self.want(|w| w.needs = Some(from));
    }

    /// What was in the bucket at the last look.
    ///
    /// # Errors
    /// Why there was none.
    pub fn index(&self) -> Result<Arc<Index>, String> {
        self.seen(|s| match (&s.index, &s.unread) {
            (_, Some(unread)) => Err(unread.clone()),
            (Some(index), None) => Ok(index.clone()),
            (None, None) => Err("it has not been looked at yet".into()),
        })
    }

    /// What is wrong with the bucket, in the words of the last request that failed.
    pub fn fault(&self) -> Option<String> {
        self.seen(|s| s.fault.clone())
    }

    /// Up to where the bucket has what is being written.
    pub fn shipped_to(&self) -> Option<Lsn> {
        self.seen(|s| s.shipped)
    }

    /// What the last trim did.
    pub fn trimmed(&self) -> Trimmed {
        self.seen(|s| s.trimmed.clone())
    }

    /// Ask the store what there is now.
    ///
    /// # Errors
    /// What the store says, or that it says nothing.
    pub async fn look(&self) -> Result<Arc<Index>, String> {
        let _one_at_a_time = self.listing.lock().await;
        self.look_alone().await
    }

    async fn look_alone(&self) -> Result<Arc<Index>, String> {
        let looked = async {
            let objects = self.store.list().await?;
            let mut seals = self.seen(|s| s.index.as_ref().map(|i| i.seals.clone()).unwrap_or_default());
            let sealed = Index::sealed(&objects);
            seals.retain(|epoch, _| sealed.contains(epoch));
            for epoch in sealed {
                if !seals.contains_key(&epoch)
                    && let Some(seal) = self.seal(epoch).await?
                {
                    seals.insert(epoch, seal);
                }
            }
            let open_from = self.open_from().await?.0;
            Ok(Arc::new(Index::new(objects, open_from, seals)))
        };
        let looked: Result<_, String> = looked.await;
        self.seen(|s| {
            s.listed_at = Some(Instant::now());
            s.unread = looked.as_ref().err().cloned();
            if let Ok(index) = &looked {
                s.index = Some(index.clone());
            }
        });
        looked
    }
}

/// Carry files to and fro.
async fn run(bucket: Weak<Bucket>) {
    let mut needs_said: Option<(String, Instant)> = None;
    let mut trimmed: Option<Instant> = None;
    let mut last_fault = None;
    loop {
        let Some(bucket) = bucket.upgrade() else { return };
        let wanted = bucket.wanted();
        let done = bucket.round(&wanted, &mut needs_said, &mut trimmed).await;
        let fault = done.err();
        bucket.seen(|s| s.fault.clone_from(&fault));
        bucket.show_fault(&wanted, fault.as_deref());
        if fault != last_fault {
            let said = fault.as_deref().unwrap_or("nothing");
            tracing::warn!(share = %bucket.opened_with.share, fault = said, "what is wrong with the share has changed");
            last_fault.clone_from(&fault);
        }
        drop(bucket);
        tokio::time::sleep(if fault.is_some() { AGAIN } else { LOOK }).await;
    }
}

impl Bucket {
    async fn round(
        &self,
        wanted: &Wanted,
        needs_said: &mut Option<(String, Instant)>,
        trimmed: &mut Option<Instant>,
    ) -> Result<(), String> {
        let had_fault = self.fault().is_some();
        if self.seen(|s| s.index.is_none()) || had_fault {
            if had_fault && wanted.shipping.is_some() {
                // That it can be read does not say that it takes anything.
                let probe = format!("probe.{}", self.host);
                self.store.put(&probe, vec![0; 64 * 1024]).await?;
                self.store.delete(&probe).await?;
            }
            self.look().await?;
        }
        if let Some(shipping) = &wanted.shipping {
            self.ship_round(shipping).await?;
            if trimmed.is_none_or(|at| at.elapsed() > TRIM) {
                *trimmed = Some(Instant::now());
                self.trim(shipping).await?;
            }
        }
        if let Some(copying) = &wanted.copying
            && self.seen(|s| s.listed_at).is_none_or(|at| at.elapsed() >= copying.every)
        {
            self.bring_if_wanted(copying).await?;
        }
        if let Some(needs) = &wanted.needs
            && needs_said.as_ref().is_none_or(|(said, at)| said != needs || at.elapsed() > SAY_NEEDS)
        {
            let name = format!("{}{}", index::NEEDS, self.host);
            // A share that may only be read does not hear it, as with a folder.
            let _ = self.store.put(&name, needs.clone().into_bytes()).await;
            *needs_said = Some((needs.clone(), Instant::now()));
        }
        self.serve_requests().await
    }
}
