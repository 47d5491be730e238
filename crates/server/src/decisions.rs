//! Who may post where, and what the acknowledgement waits for, as far as that is known: for the chat path.

use crate::poster::Post;
use rules::access::{Deed, Refusal, decide};
use rules::durability::Rule;
use rules::id::{Epoch, PrincipalId, RoomId};
use std::collections::{BTreeSet, HashMap};
use store::{Store, StoreError};
use wire::chat::RefusalCode;

/// Users and rooms whose decisions are kept.
const DECISIONS_MAX: usize = 100_000;

/// Decisions on posting, kept with the access version on which they rest. A wrong one does no harm: the transaction
/// refuses a version that is not the room's own.
#[derive(Default)]
pub struct Decisions {
    epoch: Option<Epoch>,
    rooms: HashMap<RoomId, RoomDecisions>,
    kept: usize,
}

struct RoomDecisions {
    access_version: i64,
    /// What acknowledgements wait for, by the same version: whoever changes that raises it.
    rule: Rule,
    users: HashMap<PrincipalId, Verdict>,
}

#[derive(Clone, Copy)]
enum Verdict {
    May,
    MayNot(Refusal),
    MayNotKnow,
}

impl Decisions {
    /// Versions of one epoch say nothing about another: a lost tail may have held some.
    pub fn begin(&mut self, epoch: Epoch) {
        if self.epoch != Some(epoch) {
            *self = Self { epoch: Some(epoch), ..Self::default() };
        }
    }

    /// Decide on every pair of author and room that is not known yet.
    pub async fn learn(&mut self, store: &Store, posts: &[Post]) -> Result<(), StoreError> {
        let missing: BTreeSet<(RoomId, PrincipalId)> = posts
            .iter()
            .filter(|p| self.rooms.get(&p.room).is_none_or(|room| !room.users.contains_key(&p.author.id)))
            .map(|p| (p.room, p.author.id))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.kept + missing.len() > DECISIONS_MAX {
            self.rooms.clear();
            self.kept = 0;
            return Box::pin(self.learn(store, posts)).await;
        }
        let rooms: BTreeSet<RoomId> = missing.iter().map(|(room, _)| *room).collect();
        let users: BTreeSet<PrincipalId> = missing.iter().map(|(_, user)| *user).collect();
        let facts = store.facts(&users.into_iter().collect::<Vec<_>>(), &rooms.into_iter().collect::<Vec<_>>()).await?;
        for (room, user) in missing {
            self.kept += 1;
            let (version, rule, verdict) = match (facts.rooms.get(&room), facts.askers.get(&user)) {
                (Some(room), Some(asker)) => {
                    let verdict = match decide(asker, &room.access, Deed::Post) {
                        Ok(()) => Verdict::May,
                        Err(_) if decide(asker, &room.access, Deed::Find).is_err() => Verdict::MayNotKnow,
                        Err(refusal) => Verdict::MayNot(refusal),
                    };
                    (room.access_version, room.durability, verdict)
                }
                _ => (0, Rule::default(), Verdict::MayNotKnow),
            };
            let known = self.rooms.entry(room).or_insert_with(|| RoomDecisions {
                access_version: version,
                rule,
                users: HashMap::new(),
            });
            if known.access_version != version {
                *known = RoomDecisions { access_version: version, rule, users: HashMap::new() };
            }
            known.users.insert(user, verdict);
        }
        Ok(())
    }

    /// The access version on which the post may be written and what its acknowledgement waits for, or why it is refused.
    pub fn of(&mut self, post: &Post) -> Result<(i64, Rule), (RefusalCode, String)> {
        let room = post.room;
        let known = self.rooms.get_mut(&room);
        let verdict = known.as_ref().and_then(|known| known.users.get(&post.author.id).copied());
        let verdict = match (known, verdict) {
            (Some(known), Some(Verdict::May)) => return Ok((known.access_version, known.rule)),
            // A refusal is not kept: the next attempt asks again.
            (Some(known), Some(verdict)) => {
                known.users.remove(&post.author.id);
                verdict
            }
            // Pushed out by another pair's newer version in the same round: stale, so it is asked again.
            _ => return Ok((-1, Rule::default())),
        };
        match verdict {
            Verdict::MayNot(refusal) => Err((RefusalCode::Forbidden, format!("post to room {room}: {refusal}"))),
            Verdict::May | Verdict::MayNotKnow => {
                Err((RefusalCode::NotFound, format!("there is no room {room} that you may post to")))
            }
        }
    }

    /// The room's access has changed.
    pub fn forget(&mut self, room: RoomId) {
        if let Some(known) = self.rooms.remove(&room) {
            self.kept = self.kept.saturating_sub(known.users.len());
        }
    }
}
