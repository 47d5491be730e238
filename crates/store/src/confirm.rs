//! Confirming what was read: visible is not yet durable.
//!
//! A commit whose wait for the mirror was cancelled, by whomever and from whichever server, is visible at once and may be
//! on the principal alone. So an entry that was read is shown only after a write that began later is durable: the log is
//! shipped in order, so the entry's commit is then on the mirror too. One such write serves everybody who waits, and what
//! is known to be durable already needs none.

use crate::connection::Store;
use crate::error::StoreError;
use rules::id::{RoomId, Seq};
use std::collections::HashMap;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// Rooms whose durable number is remembered.
const ROOMS_MAX: usize = 100_000;

/// What is known to be durable.
#[derive(Default)]
pub(crate) struct Confirmations {
    /// Confirming writes that have begun.
    begun: AtomicU64,
    /// The latest of them that is durable. Held while one is under way.
    durable: Mutex<u64>,
    /// For each room, a number up to which its log is durable.
    rooms: StdMutex<HashMap<RoomId, Seq>>,
}

impl Confirmations {
    fn covers(&self, room: RoomId, seq: Seq) -> bool {
        self.rooms.lock().expect("no panic while held").get(&room).is_some_and(|durable| *durable >= seq)
    }

    fn remember(&self, room: RoomId, seq: Seq) {
        let mut rooms = self.rooms.lock().expect("no panic while held");
        if rooms.len() >= ROOMS_MAX {
            rooms.clear();
        }
        let durable = rooms.entry(room).or_insert(seq);
        *durable = seq.max(*durable);
    }
}

impl Store {
    /// Returns when everything that was visible before the call is durable, on the mirror too while the pair is
    /// synchronised.
    pub async fn confirm(&self) -> Result<(), StoreError> {
        let confirmations = self.confirmations();
        let seen = confirmations.begun.load(Ordering::SeqCst);
        let mut durable = confirmations.durable.lock().await;
        if *durable > seen {
            // Somebody else's write began after this call and is durable.
            return Ok(());
        }
        let write = confirmations.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.prove_writable().await?;
        *durable = write;
        Ok(())
    }

    /// Returns when the room's log is durable up to `shown`. Both numbers were read before the call; the larger one is
    /// remembered, so that the pages of a long log need one write together.
    pub(crate) async fn confirm_up_to(&self, room: RoomId, shown: Seq, head: Seq) -> Result<(), StoreError> {
        if !self.confirmations().covers(room, shown) {
            self.confirm().await?;
            self.confirmations().remember(room, shown.max(head));
        }
        Ok(())
    }
}
