//! The judgement. Pure: lines and logs in, the verdict out.
//!
//! Lines are taken one at a time and forgotten; what is kept is one record for each acknowledged post, and one for each
//! client in each room.

use super::clients::Clients;
use super::log::{Hash, LogEntry, RoomLog};
use crate::receipts::{self, BESIDE};
use rules::id::{Epoch, RoomId, Seq};
use rules::receipt::{Checker, Durable};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;
use wire::ledger::LedgerLine;
use wire::receipt::Receipt;

/// Findings that are kept word for word; the others are counted.
const FINDINGS_MAX: usize = 200;

/// What kind of defect a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Told or shown to somebody, and not in the log.
    Lost,
    /// There twice.
    Duplicated,
    /// Numbers with a gap, or in another order.
    OutOfOrder,
    /// A receipt that no trusted key has signed, or that the room's log contradicts.
    Unproved,
}

/// A defect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind.
    pub kind: Kind,
    /// For people: which post, who, what.
    pub what: String,
}

/// A post that was acknowledged by a site that was lost before its log had left it, and that nobody has posted again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RewoundPost {
    /// The room's name.
    pub room: String,
    /// Its number then.
    pub seq: Seq,
    /// The epoch in which it was acknowledged.
    pub epoch: Epoch,
    /// Its author.
    pub author: String,
    /// When it was acknowledged: milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The hash of its text.
    pub hash: String,
    /// The client message id.
    pub client_id: Uuid,
}

/// What the audit came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Distinct posts that were acknowledged.
    pub acknowledged: u64,
    /// Posts told or shown to somebody, and not in the log.
    pub lost: u64,
    /// Posts that are there twice, and deliveries that came twice.
    pub duplicated: u64,
    /// Gaps and disorders, in the log or in what clients saw.
    pub out_of_order: u64,
    /// Posts that a failover took with it, as it announced.
    pub rewound: u64,
    /// Posts that a failover took with it, and that their authors posted again.
    pub re_offered: u64,
    /// Posts that a failover took with it, and that were entered again from the lost site's disk.
    pub late: u64,
    /// Receipts that were checked.
    pub receipts: u64,
    /// Those of them that are about what a failover took.
    pub receipts_rewound: u64,
    /// Receipts that no trusted key has signed, or that the room's log contradicts.
    pub unproved: u64,
    /// Deliveries that were compared.
    pub seen: u64,
    /// Connections that were lost or moved.
    pub disconnected: u64,
    /// What was taken and is still missing.
    pub rewound_posts: Vec<RewoundPost>,
    /// The defects, the first ones word for word.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Whether everything that was promised was kept.
    pub fn is_clean(&self) -> bool {
        self.broken() == 0
    }

    /// Defects, of all kinds.
    pub fn broken(&self) -> u64 {
        self.lost + self.duplicated + self.out_of_order + self.unproved
    }

    /// The last line of an audit.
    pub fn line(&self) -> String {
        format!(
            "acknowledged {}, lost {}, duplicated {}, out of order {}, rewound {}",
            self.acknowledged, self.lost, self.duplicated, self.out_of_order, self.rewound
        )
    }

    pub(super) fn add(&mut self, kind: Kind, what: String) {
        match kind {
            Kind::Lost => self.lost += 1,
            Kind::Duplicated => self.duplicated += 1,
            Kind::OutOfOrder => self.out_of_order += 1,
            Kind::Unproved => self.unproved += 1,
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { kind, what });
        }
    }
}

/// Judge a ledger.
pub fn judge(
    lines: impl IntoIterator<Item = LedgerLine>,
    logs: &BTreeMap<RoomId, RoomLog>,
    checker: Checker,
) -> Verdict {
    let mut judge = Judge::new(logs, checker);
    for line in lines {
        judge.take(line);
    }
    judge.close()
}

/// The last acknowledgement of a post.
#[derive(Clone, Debug)]
struct Told {
    room: RoomId,
    seq: Seq,
    epoch: Epoch,
    user: Arc<str>,
    hash: Hash,
    at_ms: i64,
    re_offered: bool,
}

/// A judgement under way.
#[derive(Debug)]
pub struct Judge<'a> {
    logs: &'a BTreeMap<RoomId, RoomLog>,
    checker: Checker,
    told: HashMap<Uuid, Told>,
    users: HashSet<Arc<str>>,
    clients: Clients,
    missed: BTreeMap<(RoomId, Seq, Epoch, Option<Uuid>), Arc<str>>,
    verdict: Verdict,
}

impl<'a> Judge<'a> {
    /// Begin with the logs, which are judged first. `checker`: whose receipts are taken for true.
    pub fn new(logs: &'a BTreeMap<RoomId, RoomLog>, checker: Checker) -> Self {
        let mut verdict = Verdict::default();
        let mut homes: HashMap<&Uuid, &RoomLog> = HashMap::new();
        for log in logs.values() {
            log.disorders.iter().for_each(|what| verdict.add(Kind::OutOfOrder, what.clone()));
            log.duplicates.iter().for_each(|what| verdict.add(Kind::Duplicated, what.clone()));
            log.misplaced().into_iter().for_each(|what| verdict.add(Kind::OutOfOrder, what));
            for id in log.client_ids() {
                if let Some(other) = homes.insert(id, log)
                    && other.find(*id).map(|e| &e.author) == log.find(*id).map(|e| &e.author)
                {
                    let what = format!("post {id} stands in room '{}' and in room '{}'", other.name, log.name);
                    verdict.add(Kind::Duplicated, what);
                }
            }
        }
        let (told, users, clients, missed) = Default::default();
        Self { logs, checker, told, users, clients, missed, verdict }
    }

    /// Take a line.
    pub fn take(&mut self, line: LedgerLine) {
        if let LedgerLine::Ack { receipt: Some(receipt), .. } = &line {
            self.receipt(receipt, receipts::is_about(&line, receipt));
        }
        match line {
            LedgerLine::Ack { room, seq, epoch, client_id, user, hash, at_ms, .. } => {
                let (user, hash) = (self.user(&user), Hash::from_hex(&hash));
                self.ack(client_id, Told { room, seq, epoch, user, hash, at_ms, re_offered: false });
            }
            LedgerLine::Seen { room, seq, epoch, client_id, user, hash, .. } => {
                self.verdict.seen += 1;
                self.clients.seen(&user, room, seq, &mut self.verdict);
                self.compare(room, seq, epoch, client_id, &user, Hash::from_hex(&hash));
            }
            LedgerLine::Joined { room, user, after, .. } => {
                self.clients.joined(&user, room, after, &mut self.verdict);
            }
            LedgerLine::Left { room, user, .. } => self.clients.left(&user, room),
            LedgerLine::Rewound { room, user, from, .. } => {
                self.clients.rewound(&user, room, from, &mut self.verdict);
            }
            LedgerLine::Disconnected { user, .. } => {
                self.verdict.disconnected += 1;
                self.clients.disconnected(&user);
            }
            LedgerLine::Head { .. } | LedgerLine::Room { .. } | LedgerLine::End { .. } => {}
        }
    }

    fn user(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.users.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.users.insert(new.clone());
        new
    }

    /// An acknowledgement: the first of its post, the same again, or another one that only a rewind explains.
    fn ack(&mut self, client_id: Uuid, mut now: Told) {
        if let Some(before) = self.told.get(&client_id) {
            now.re_offered = before.re_offered;
            if (before.room, before.seq, before.epoch) != (now.room, now.seq, now.epoch) {
                let voided = self.logs.get(&before.room).is_some_and(|log| log.voids(before.epoch, before.seq));
                if voided && now.epoch > before.epoch {
                    now.re_offered = true;
                } else {
                    let what = format!(
                        "post {client_id} of {} was acknowledged as {} of epoch {} and as {} of epoch {}",
                        now.user, before.seq, before.epoch, now.seq, now.epoch
                    );
                    self.verdict.add(Kind::Duplicated, what);
                }
            }
        }
        self.told.insert(client_id, now);
    }

    /// A receipt is signed, and states the room's running hash at its number; or what it is about was lost to a failover.
    fn receipt(&mut self, receipt: &Receipt, is_beside: bool) {
        self.verdict.receipts += 1;
        let log = self.logs.get(&receipt.room);
        let why = if let Err(why) = receipts::check(&mut self.checker, receipt) {
            why.to_string()
        } else if !is_beside {
            BESIDE.to_owned()
        } else if log.and_then(|log| log.chain_at(receipt.seq)) == Some(receipt.signed.chain) {
            return;
        } else if log.is_some_and(|log| log.voids(receipt.epoch, receipt.seq)) {
            self.verdict.receipts_rewound += 1;
            if receipt.durable != Durable::Site {
                return;
            }
            "a failover took what was durable at the other site".to_owned()
        } else {
            "the room's log has another running hash at this number, or none".to_owned()
        };
        self.verdict.add(Kind::Unproved, format!("{}: {why}", receipts::named(receipt)));
    }

    /// What a client saw is what the log has, or a rewind explains it.
    fn compare(&mut self, room: RoomId, seq: Seq, epoch: Epoch, client_id: Option<Uuid>, user: &str, hash: Hash) {
        let log = self.logs.get(&room);
        let fits = |e: &LogEntry, log: &RoomLog| {
            (e.client_id, e.epoch) == (client_id, epoch) && (e.hash == hash || log.is_changed(seq))
        };
        let explained = |log: &RoomLog| log.voids(epoch, seq) || log.at(seq).is_some_and(|entry| fits(entry, log));
        if !log.is_some_and(explained) {
            let user = self.user(user);
            self.missed.entry((room, seq, epoch, client_id)).or_insert(user);
        }
    }

    /// Judge every acknowledged post by its last acknowledgement.
    pub fn close(mut self) -> Verdict {
        let mut told: Vec<(Uuid, Told)> = std::mem::take(&mut self.told).into_iter().collect();
        told.sort_by_key(|(id, told)| (told.room, told.seq, *id));
        self.verdict.acknowledged = told.len() as u64;
        let mut counted = HashSet::new();
        for (client_id, told) in told {
            let before = self.verdict.lost;
            self.judge_told(client_id, told);
            if self.verdict.lost > before {
                counted.insert(client_id);
            }
        }
        for ((room, seq, epoch, client_id), user) in std::mem::take(&mut self.missed) {
            // A post whose author was told of it is counted once, as the author's.
            if client_id.is_none_or(|id| !counted.contains(&id)) {
                let what = self.missed_entry(room, seq, epoch, client_id, &user);
                self.verdict.add(Kind::Lost, what);
            }
        }
        self.verdict
    }

    fn missed_entry(&self, room: RoomId, seq: Seq, epoch: Epoch, client_id: Option<Uuid>, user: &str) -> String {
        let log = self.logs.get(&room);
        let name = log.map_or_else(|| room.to_string(), |log| format!("'{}'", log.name));
        let there = match log.and_then(|log| log.at(seq)) {
            None => "the log has none",
            Some(entry) if entry.client_id == client_id && entry.epoch == epoch => "the log has another text",
            Some(_) => "the log has another one there",
        };
        let id = client_id.map_or_else(|| "without a client message id".to_owned(), |id| id.to_string());
        format!("room {name}: {user} saw entry {seq} of epoch {epoch} ({id}), and {there}")
    }

    fn judge_told(&mut self, client_id: Uuid, told: Told) {
        let Some(log) = self.logs.get(&told.room) else {
            let what = format!("post {client_id} of {}: there is no room {}", told.user, told.room);
            return self.verdict.add(Kind::Lost, what);
        };
        let voided = log.voids(told.epoch, told.seq);
        let name = &log.name;
        let Told { room: _, seq, epoch, user, hash, at_ms, re_offered } = told;
        let post = format!("room '{name}': post {client_id} of {user}, acknowledged as {seq} of epoch {epoch},");
        match log.find(client_id) {
            None if voided => {
                self.verdict.rewound += 1;
                let (room, author, hash) = (name.clone(), user.to_string(), hash.to_string());
                let lost = RewoundPost { room, seq, epoch, author, at_ms, hash, client_id };
                self.verdict.rewound_posts.push(lost);
            }
            None => self.verdict.add(Kind::Lost, format!("{post} is not in the log")),
            Some(entry) if *entry.author != *user => {
                self.verdict.add(Kind::Lost, format!("{post} is {}'s in the log", entry.author));
            }
            Some(entry) if entry.hash != hash && !log.is_changed(entry.seq) => {
                self.verdict.add(Kind::Lost, format!("{post} has another text in the log"));
            }
            // The one place that it has now, whether or not anybody was there to be told: it was posted again, or entered
            // again from the lost site's disk.
            Some(entry) if (entry.seq, entry.epoch) == (seq, epoch) || (voided && entry.epoch > epoch) => {
                let moved = re_offered || (entry.seq, entry.epoch) != (seq, epoch);
                self.verdict.late += u64::from(moved && entry.is_late);
                self.verdict.re_offered += u64::from(moved && !entry.is_late);
            }
            Some(entry) => {
                let what = format!("{post} stands at {} of epoch {}", entry.seq, entry.epoch);
                self.verdict.add(Kind::OutOfOrder, what);
            }
        }
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
