//! Connections to one place, opened before it is known that a writer is there.
//!
//! They may be opened to a standby: those of a standby that is promoted outlive it, and take writes from then on. So a server
//! that keeps some to the mirror has its writer as soon as there is one.

use crate::connection::{Connection, ENTER, STATE_EPOCH, Target, WAITS_FOR_MIRROR};
use crate::error::StoreError;
use crate::holds::Holds;
use crate::{access, history, migrate};
use rules::id::Epoch;

/// Connections for reading.
const READERS: usize = 3;

/// What a [`Store`](crate::Store) is opened with.
pub struct Connections {
    pub(crate) target: Target,
    pub(crate) writer: Connection,
    /// The others, once they have been opened.
    others: Option<Others>,
    /// Whether the schema has been seen to be of this program's version: it never goes back.
    schema_is_present: bool,
    pub(crate) holds: Holds,
}

/// The connections besides the one for administrative writes.
pub(crate) struct Others {
    pub(crate) appender: Connection,
    pub(crate) readers: Vec<Connection>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connections({})", self.target.at())
    }
}

impl Connections {
    /// One, to ask with; the others are opened when they are needed.
    ///
    /// # Errors
    /// When PostgreSQL does not answer there, or takes no connections.
    pub async fn open(target: &Target) -> Result<Self, StoreError> {
        let holds = Holds::new();
        let writer = Connection::open(target, WAITS_FOR_MIRROR, holds.clone()).await?;
        Ok(Self { target: target.clone(), writer, others: None, schema_is_present: false, holds })
    }

    /// All, with what the first write needs, as far as a standby allows it.
    ///
    /// # Errors
    /// As [`Connections::open`], and when the database refuses `epoch`.
    pub async fn open_all(target: &Target, epoch: Epoch) -> Result<Self, StoreError> {
        let mut all = Self::open(target).await?;
        all.take_writes().await?;
        all.schema_is_present = migrate::is_present(&all.writer).await?;
        all.open_others().await?;
        if all.schema_is_present {
            all.writer.prepare(STATE_EPOCH).await?;
            all.writer.read("ask for the database's epoch", ENTER, &[&epoch.0]).await?;
            if let Some(others) = &all.others {
                crate::append::rehearse(&others.appender, epoch).await?;
                for reader in &others.readers {
                    rehearse_reading(reader).await?;
                }
            }
        }
        Ok(all)
    }

    async fn open_others(&mut self) -> Result<(), StoreError> {
        if self.others.is_none() {
            let open = || Connection::open(&self.target, WAITS_FOR_MIRROR, self.holds.clone());
            let (appender, one, two, three) = tokio::try_join!(open(), open(), open(), open())?;
            let readers = vec![one, two, three];
            debug_assert_eq!(readers.len(), READERS);
            self.others = Some(Others { appender, readers });
        }
        Ok(())
    }

    /// Where they lead.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether all that a [`Store`](crate::Store) needs are open, with the schema seen to be of this program's version.
    pub fn are_complete(&self) -> bool {
        self.others.is_some() && self.schema_is_present
    }

    /// Whether a writer is there by now.
    ///
    /// # Errors
    /// When the connection has broken.
    pub async fn take_writes(&self) -> Result<bool, StoreError> {
        let rows = self.writer.read("ask whether this is the writer", "SELECT pg_is_in_recovery()", &[]).await?;
        Ok(rows.first().is_some_and(|row| !row.get::<_, bool>(0)))
    }

    /// Returns when one of them has broken: all are done with.
    pub fn broken(&self) -> impl Future<Output = ()> + Send + use<> {
        self.holds.over()
    }

    /// Whether one of them has broken.
    pub fn is_broken(&self) -> bool {
        self.holds.is_over()
    }

    /// Bring the schema up to date, and open what has not been opened.
    pub(crate) async fn complete(
        mut self,
        epoch: Epoch,
        first: &migrate::FirstAdministrator,
    ) -> Result<(Self, Others), StoreError> {
        if !self.schema_is_present {
            migrate::migrate(&mut self.writer, epoch, first).await?;
        }
        self.open_others().await?;
        let others = self.others.take().expect("they were opened above");
        Ok((self, others))
    }
}

/// What every take-over reads first: a process of PostgreSQL that has read it once knows the tables.
async fn rehearse_reading(reader: &Connection) -> Result<(), StoreError> {
    let doing = "read as after a take-over";
    let none: Vec<i64> = Vec::new();
    reader.read(doing, history::HEADS, &[&none]).await?;
    reader.read(doing, history::REWOUND, &[&none, &0_i64]).await?;
    reader.read(doing, history::after(), &[&0_i64, &0_i64, &1_i64]).await?;
    reader.read(doing, access::by_id(), &[&none]).await?;
    reader.read(doing, access::AFFILIATIONS, &[&none]).await?;
    reader.read(doing, access::ROLES, &[&none, &none]).await?;
    reader.read(doing, access::SCOPES, &[&none, &none]).await?;
    Ok(())
}
