//! The rooms that sessions of this server are in.

use crate::room::Room;
use rules::id::{Epoch, RoomId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, RwLock};

/// Rooms by number.
#[derive(Default)]
pub struct Rooms {
    rooms: RwLock<HashMap<RoomId, Arc<Room>>>,
    /// The epoch that the rooms show; 0 before the first.
    shown: Arc<AtomicI64>,
}

impl Rooms {
    /// From now on the rooms take entries of this epoch's writer only.
    pub fn show_epoch(&self, epoch: Epoch) {
        self.shown.store(epoch.0, Ordering::Release);
    }

    /// The room, if any session is or was just in it.
    pub fn get(&self, room: RoomId) -> Option<Arc<Room>> {
        self.rooms.read().expect("no code panics while it holds the rooms").get(&room).cloned()
    }

    /// The room, made when it is not there.
    pub fn get_or_make(&self, room: RoomId) -> Arc<Room> {
        if let Some(room) = self.get(room) {
            return room;
        }
        let mut rooms = self.rooms.write().expect("no code panics while it holds the rooms");
        rooms.entry(room).or_insert_with(|| Arc::new(Room::new(self.shown.clone()))).clone()
    }

    /// All rooms.
    pub fn all(&self) -> Vec<(RoomId, Arc<Room>)> {
        let rooms = self.rooms.read().expect("no code panics while it holds the rooms");
        rooms.iter().map(|(id, room)| (*id, room.clone())).collect()
    }

    /// Forget rooms that nobody is in. Who is about to join holds the room, so it stays.
    pub fn forget_idle(&self) {
        let mut rooms = self.rooms.write().expect("no code panics while it holds the rooms");
        rooms.retain(|_, room| Arc::strong_count(room) > 1 || !room.lock().is_empty());
    }
}
