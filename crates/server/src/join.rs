//! Joining a room: decide (in the reception's rounds), catch up from the database, go live. The entries that a session gets follow its cursor
//! without gap, in order, once, whatever is committed meanwhile: catching up ends under the room's lock, at exactly the
//! number after which the room itself delivers.

use crate::app::App;
use crate::frame::{encode, encode_entry, entry_of};
use crate::room::{Admission, Member, Need, Offer, Room};
use crate::session::Who;
use crate::visible;
use rules::access::{Deed, Refusal, decide};
use rules::id::{Epoch, RoomId, Seq};
use std::sync::Arc;
use std::time::Duration;
use store::{Bound, Facts, LogPage, RoomFacts, Store, StoreError};
use wire::chat::{Cursor, RefusalCode, ServerFrame};

/// Entries in one read while catching up.
const PAGE: u32 = 200;

/// A client's request.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The request's id.
    pub id: u64,
    /// Which room.
    pub room: RoomId,
    /// Where the client stands.
    pub after: Option<Cursor>,
    /// Without a cursor: so many of the latest entries.
    pub history: u32,
}

/// Why a join ends without being live.
enum Stop {
    /// The session is over.
    Over,
    /// The session has been told.
    Told,
    /// The writer was lost or is another; the session waits for the next one.
    Writer,
    /// Something that should not fail failed; `None`: it is in the log already.
    Failed(Option<StoreError>),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        if error.is_passing() { Stop::Writer } else { Stop::Failed(Some(error)) }
    }
}

/// How far a join has come, over as many writers as it takes.
struct Progress {
    /// The session has everything up to here, and was answered in this epoch.
    has: Option<(Seq, Epoch)>,
    /// The access version of the last decision.
    decided: i64,
    /// Whether the log had nothing more, when it was last looked at and the room was held already.
    at_end: bool,
}

/// Carry out a join. Ends when the session is live in the room, or has been told why not.
pub async fn join(app: Arc<App>, who: Who, request: Request) {
    let mut progress = Progress { has: None, decided: 0, at_end: false };
    // From here on the room keeps what is committed, so nothing falls between what is read and going live.
    let room = app.rooms.get_or_make(request.room);
    let mut standing = app.standing.subscribe();
    loop {
        let now = standing.borrow_and_update().clone();
        let Some(store) = now.store().cloned() else {
            if standing.changed().await.is_err() {
                return;
            }
            continue;
        };
        match attempt(&app, &store, &who, &request, &room, &mut progress).await {
            Ok(()) | Err(Stop::Told | Stop::Over) => return,
            Err(Stop::Writer) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(Stop::Failed(error)) => {
                if let Some(error) = error {
                    tracing::error!(%error, room = %request.room, "a join failed");
                }
                // The answer may be on its way already; a session that resumes is right in either case.
                who.outbox.resume();
                return;
            }
        }
    }
}

async fn attempt(
    app: &App,
    store: &Store,
    who: &Who,
    request: &Request,
    room: &Room,
    progress: &mut Progress,
) -> Result<(), Stop> {
    match progress.has {
        None => answer(app, store, who, request, progress).await?,
        // Part was delivered under an epoch that is over: the client resumes from its cursor and hears of a rewind.
        Some((_, epoch)) if epoch != store.epoch() => {
            who.outbox.resume();
            return Err(Stop::Over);
        }
        Some(_) => {}
    }
    catch_up(app, store, who, (request.room, room), progress).await
}

/// Decide and answer `joined`.
async fn answer(app: &App, store: &Store, who: &Who, request: &Request, progress: &mut Progress) -> Result<(), Stop> {
    let since = request.after.map(|cursor| cursor.epoch);
    let decided = app.reception.decide(who.author.id, request.room, since).await.map_err(|_| Stop::Failed(None))?;
    let facts = match decide_on(&decided.facts, who, request.room) {
        Ok(facts) => facts,
        Err((code, message)) => {
            who.outbox.push(encode(&ServerFrame::Refused { id: request.id, code, message }));
            return Err(Stop::Told);
        }
    };
    app.poster.learn(request.room, facts.durability);
    let head = if facts.durability.waits() {
        visible::shown(app, store, request.room, facts.last_seq).await?.unwrap_or(facts.last_seq)
    } else {
        facts.last_seq
    };
    let (has, rewound_from) = match request.after {
        Some(cursor) => {
            let starts = decided.starts.get(&request.room).map(Vec::as_slice).unwrap_or_default();
            let later = starts.partition_point(|(epoch, _)| *epoch <= cursor.epoch);
            place_of(cursor, head, &starts[later..])
        }
        None => (Seq(head.0.saturating_sub(i64::from(request.history)).max(0)), None),
    };
    let joined = ServerFrame::Joined {
        id: request.id,
        room: request.room,
        name: facts.name.clone(),
        head: Cursor { epoch: facts.last_epoch, seq: head },
        rewound_from,
    };
    if !who.outbox.push_patiently(encode(&joined)).await {
        return Err(Stop::Over);
    }
    progress.has = Some((has, decided.epoch));
    progress.decided = facts.access_version;
    progress.at_end = has >= head;
    Ok(())
}

/// Where delivery begins for a cursor, and from which number history was rewound, if it was. Pure.
fn place_of(cursor: Cursor, head: Seq, starts: &[(Epoch, Seq)]) -> (Seq, Option<Seq>) {
    let seq = Seq(cursor.seq.0.max(0));
    // An epoch that began after a smaller number took the place of what the cursor stands on. A cursor beyond the head
    // that no epoch explains stands on nothing either: the honest answer is the same.
    let kept = starts.iter().map(|(_, last)| *last).chain([head]).min().unwrap_or(head);
    if seq > kept { (kept, Some(kept.next())) } else { (seq, None) }
}

/// What decides about the room, if the user may join it, or the refusal. Pure.
fn decide_on<'a>(facts: &'a Facts, who: &Who, room: RoomId) -> Result<&'a RoomFacts, (RefusalCode, String)> {
    let hidden = || (RefusalCode::NotFound, format!("there is no room {room} that you may join"));
    let (Some(facts), Some(asker)) = (facts.rooms.get(&room), facts.askers.get(&who.author.id)) else {
        return Err(hidden());
    };
    match decide(asker, &facts.access, Deed::Join) {
        Ok(()) => Ok(facts),
        Err(Refusal::AccountDisabled) => Err((RefusalCode::Forbidden, Refusal::AccountDisabled.to_string())),
        Err(_) if decide(asker, &facts.access, Deed::Find).is_err() => Err(hidden()),
        Err(refusal) => Err((RefusalCode::Forbidden, format!("join room {room}: {refusal}"))),
    }
}

/// Decide again on a later access version; a session that may not be here any more is told.
async fn decide_again(store: &Store, who: &Who, room: RoomId, progress: &mut Progress) -> Result<(), Stop> {
    let facts = store.facts(&[who.author.id], &[room]).await?;
    if let Ok(facts) = decide_on(&facts, who, room) {
        progress.decided = facts.access_version;
        return Ok(());
    }
    who.outbox.push(encode(&ServerFrame::Left { id: 0, room }));
    Err(Stop::Told)
}

async fn catch_up(
    app: &App,
    store: &Store,
    who: &Who,
    (id, room): (RoomId, &Room),
    progress: &mut Progress,
) -> Result<(), Stop> {
    let mut room_for = 0;
    let mut read = Vec::new();
    loop {
        let Some((has, epoch)) = progress.has else { return Err(Stop::Over) };
        if !who.outbox.has_room(room_for).await {
            return Err(Stop::Over);
        }
        let admission = {
            let (session, user, outbox) = (who.session, who.author.id, who.outbox.clone());
            let member = Member { session, user, outbox, decided: progress.decided };
            let mut live = room.lock();
            // Rooms are brought in line with a new writer before it is shown, so a live room is of the epoch shown.
            if app.standing.borrow().epoch() != Some(epoch) {
                return Err(Stop::Writer);
            }
            let admission = if live.delivered().is_none() && !progress.at_end {
                Admission::Behind
            } else {
                live.admit(member, has)
            };
            if admission == Admission::Live {
                live.remember(std::mem::take(&mut read));
            }
            admission
        };
        match admission {
            Admission::Live => {
                let need = room.lock().hint(has, progress.decided);
                app.mender.ask(id, need);
                return Ok(());
            }
            Admission::NoRoom(count) => room_for = count,
            Admission::Decide => decide_again(store, who, id, progress).await?,
            Admission::Behind => {
                room_for = 0;
                let page = {
                    // Never closed, so there is always a turn.
                    let lane = app.poster.lanes().known(id).unwrap_or_default();
                    let _turn = app.reception.pages(lane).acquire().await;
                    visible::page(app, store, id, Bound::After(has), PAGE).await?
                };
                if page.access_version > progress.decided {
                    decide_again(store, who, id, progress).await?;
                    continue;
                }
                progress.at_end = page.entries.len() < PAGE as usize;
                read = deliver(app, who, id, page, progress).await?;
            }
        }
    }
}

/// Deliver a page; returns what it held, for others who come with the same cursor.
async fn deliver(app: &App, who: &Who, id: RoomId, page: LogPage, progress: &mut Progress) -> Result<Vec<Offer>, Stop> {
    if page.entries.is_empty() {
        // The room may have shown less than the database holds: then it gets the same in a moment.
        let live = app.rooms.get_or_make(id);
        let need = live.lock().hint(page.head.last_seq, page.access_version);
        if need == Need::Mending {
            app.mender.ask(id, need);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        return Ok(Vec::new());
    }
    let mut read = Vec::with_capacity(page.entries.len());
    for row in page.entries {
        let (frame, entry) = encode_entry(entry_of(id, row));
        if !who.outbox.push_patiently(frame.clone()).await {
            return Err(Stop::Over);
        }
        if let Some((has, _)) = &mut progress.has {
            *has = entry.seq;
        }
        read.push(Offer { seq: entry.seq, access_version: page.access_version, frame });
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cursor: (i64, i64), head: i64, starts: &[(i64, i64)], has: i64, rewound_from: Option<i64>) {
        let cursor = Cursor { epoch: Epoch(cursor.0), seq: Seq(cursor.1) };
        let starts: Vec<_> = starts.iter().map(|(e, s)| (Epoch(*e), Seq(*s))).collect();
        let expect = (Seq(has), rewound_from.map(Seq));
        assert_eq!(place_of(cursor, Seq(head), &starts), expect, "{cursor:?} head {head} {starts:?}");
    }

    #[test]
    fn a_cursor_on_kept_history_goes_on_after_it() {
        check((1, 5), 9, &[], 5, None);
        check((1, 9), 9, &[], 9, None);
        check((1, 5), 9, &[(2, 5)], 5, None);
        check((1, 0), 9, &[(2, 5), (3, 7)], 0, None);
    }

    #[test]
    fn a_cursor_on_lost_history_is_told_from_where() {
        check((1, 8), 9, &[(2, 5)], 5, Some(6));
        check((1, 8), 20, &[(2, 9), (3, 6)], 6, Some(7));
        check((1, 3), 0, &[(2, 0)], 0, Some(1));
    }

    #[test]
    fn a_cursor_beyond_the_head_stands_on_nothing() {
        check((1, 12), 9, &[], 9, Some(10));
        check((1, -4), 9, &[], 0, None);
    }
}
