//! Pages of rooms' logs as they may be shown: in a room whose posts wait to be durable enough, up to its mark.

use crate::app::App;
use rules::id::{RoomId, Seq};
use store::{Bound, LogPage, Store, StoreError};

/// A page of a room's log, with nothing in it that may not be shown yet; its head says where that ends.
pub async fn page(app: &App, store: &Store, room: RoomId, bound: Bound, limit: u32) -> Result<LogPage, StoreError> {
    let page = store.page(room, bound, limit).await?;
    if !page.head.durability.waits() {
        return Ok(page);
    }
    // The entries may be newer than the head, and were read before the mark.
    let last = page.entries.last().map_or(page.head.last_seq, |entry| entry.seq.max(page.head.last_seq));
    let Some(shown) = shown(app, store, room, last).await? else { return Ok(page) };
    let is_hidden = page.entries.last().is_some_and(|last| last.seq > shown);
    let mut page = match bound {
        Bound::Before(_) | Bound::Latest if is_hidden => store.page(room, Bound::Before(shown.next()), limit).await?,
        Bound::Before(_) | Bound::Latest | Bound::After(_) => page,
    };
    page.entries.retain(|entry| entry.seq <= shown);
    page.head.last_seq = shown;
    Ok(page)
}

/// Where a room whose posts wait ends for those who read it; `None` when all of it may be shown. `last`: its newest entry.
pub async fn shown(app: &App, store: &Store, room: RoomId, last: Seq) -> Result<Option<Seq>, StoreError> {
    let Some(mark) = store.shown_marks(&[room]).await?.remove(&room) else { return Ok(None) };
    if !mark.durability.waits() || mark.shown >= last {
        return Ok(None);
    }
    app.held.look_at(store.epoch(), room, last, mark.durability);
    Ok(Some(mark.shown))
}
