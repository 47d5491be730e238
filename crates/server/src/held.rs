//! Posts that are written and not yet as durable as their category asks for.
//!
//! They wait here, beside the chat path, which goes on with everybody else's. One question to the writer at a time serves all that
//! wait: how far each standby has flushed the log. `cluster::durable` decides. In a room whose posts wait, a mark in the database
//! says how far it may be shown; it is durable before anything under it is shown or acknowledged, here or at another server. In a
//! room nothing goes before what was there first.
//!
//! What was written in an epoch that is over may be lost: it goes back to the chat path, before anything newer, which finds it or
//! writes it again.

use crate::after_commit::{Shown, hint};
use crate::answer::{Answer, Outcome, Written, answer_released};
use crate::app::{App, View};
use crate::chat_path::not_active;
use crate::frame;
use crate::lanes::Lane;
use crate::poster::Post;
use crate::standing::{CONTENT_DATABASE, Standing};
use cluster::durable::{Missing, Told, Verdict, decide};
use cluster::name::DatabaseName;
use cluster::record::DatabaseRecord;
use cluster::report;
use rules::durability::{Durability, Rule};
use rules::id::{Epoch, RoomId, Seq};
use rules::receipt::Durable;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::{ShownMarks, Standbys, Store, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;
use wire::chat::{Content, Entry, RefusalCode, ServerFrame};

/// What may wait here: a post twice, for being shown and for being acknowledged. Further posts to such rooms are refused before they are
/// written.
const ITEMS_MAX: usize = 20_000;
/// Bytes of texts.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// An author is told after this time that a post waits.
const TELL_AFTER: Duration = Duration::from_millis(300);
/// A call over HTTP is answered after this time that its post waits.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Between two questions to the writer: while the newest has waited for less than a time.
const PACES: [(Duration, Duration); 2] =
    [(Duration::from_millis(200), Duration::from_millis(3)), (Duration::from_secs(5), Duration::from_millis(20))];
/// And when all have waited for longer.
const PACE_SLOWEST: Duration = Duration::from_millis(100);
/// And for each that waits, so that many do not keep a core busy.
const PACE_EACH: Duration = Duration::from_micros(10);

/// What waits.
enum Kind {
    /// An entry that this server has written, to be shown under this access version.
    Entry(i64, Box<Entry>),
    /// The acknowledgement of a post.
    Answer(Box<(Post, Written)>),
    /// A room whose log goes on beyond its mark: whoever wrote that may be gone.
    Mark,
}

impl Kind {
    fn bytes(&self) -> usize {
        match self {
            Kind::Entry(_, entry) => match &entry.content {
                Content::Post { text } | Content::Replacement { text, .. } | Content::RoomChange { text } => text.len(),
                Content::Removal { .. } => 0,
            },
            Kind::Answer(answer) => answer.0.text.len(),
            Kind::Mark => 0,
        }
    }
}

struct Item {
    number: u64,
    room: RoomId,
    seq: Seq,
    /// The epoch of the writer that has it.
    writer: Epoch,
    rule: Rule,
    since: Instant,
    /// A place in the writer's log that is past it; `None` until the writer has been asked.
    place: Option<i64>,
    /// What its author was told that it waits for.
    told: Option<Missing>,
    kind: Kind,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    last: u64,
    bytes: usize,
    /// For people: what the oldest waits for.
    reason: String,
}

/// What waits at this server.
#[derive(Default)]
pub struct Held {
    state: Mutex<State>,
    changed: Notify,
    orphaned: Notify,
}

impl State {
    fn push(&mut self, (room, seq): (RoomId, Seq), writer: Epoch, rule: Rule, kind: Kind) {
        self.bytes += kind.bytes();
        self.last += 1;
        let (number, since) = (self.last, Instant::now());
        self.items.push_back(Item { number, room, seq, writer, rule, since, place: None, told: None, kind });
    }

    /// Take out what fits, in its order.
    fn take(&mut self, fits: impl Fn(&Item) -> bool) -> Vec<Item> {
        let (out, stay): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.items).into_iter().partition(fits);
        self.items = stay;
        self.bytes -= out.iter().map(|item| item.kind.bytes()).sum::<usize>();
        out.into()
    }
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds what waits")
    }

    /// Whether further posts may come to wait.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.items.len() < ITEMS_MAX && state.bytes < BYTES_MAX
    }

    /// Entries that a writer of this epoch has committed, each with the access version under which it is shown, and its rule.
    pub fn show_later(&self, writer: Epoch, entries: Vec<(Rule, i64, Entry)>) {
        if entries.is_empty() {
            return;
        }
        let mut state = self.state();
        for (rule, version, entry) in entries {
            state.push((entry.room, entry.seq), writer, rule, Kind::Entry(version, Box::new(entry)));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Posts that are acknowledged later; `written` by a writer of this epoch.
    pub fn answer_later(&self, posts: Vec<(Post, Written, Rule, Epoch)>) {
        if posts.is_empty() {
            return;
        }
        let mut state = self.state();
        for (post, written, rule, writer) in posts {
            state.push((written.room, written.seq), writer, rule, Kind::Answer(Box::new((post, written))));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// A room's log was seen to go on beyond its mark: the mark follows when what is there is durable enough.
    pub fn look_at(&self, writer: Epoch, room: RoomId, seq: Seq, rule: Rule) {
        let mut state = self.state();
        let will = |item: &Item| item.seq >= seq || matches!(item.kind, Kind::Mark);
        let waits = state.items.iter().any(|item| item.room == room && item.writer == writer && will(item));
        if !waits {
            state.push((room, seq), writer, rule, Kind::Mark);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Posts that were written in another epoch than this one, in their order, to be written again before anything newer: those that
    /// this lane is to write.
    pub fn take_orphans(&self, app: &App, present: Epoch, lane: Lane) -> Vec<Post> {
        let mut state = self.state();
        if state.items.iter().all(|item| item.writer == present) {
            return Vec::new();
        }
        let mut lanes = app.poster.lanes();
        let out = state.take(|item| item.writer != present && lanes.writes_first(item.room, lane));
        drop(state);
        let mut posts: Vec<Post> = out.into_iter().filter_map(answer_of).map(|(post, _)| post).collect();
        app.poster.taken_again(&mut lanes, lane, &mut posts);
        posts
    }

    /// Returns when there may be such posts.
    pub async fn orphaned(&self) {
        self.orphaned.notified().await;
    }

    /// What waits, for reports.
    pub fn report(&self) -> report::Held {
        let state = self.state();
        let answers = state.items.iter().filter(|item| matches!(item.kind, Kind::Answer(_)));
        let oldest = answers.clone().map(|item| item.since.elapsed()).max();
        let count = |durability| answers.clone().filter(|item| item.rule.durability == durability).count() as u64;
        report::Held {
            mirror: count(Durability::Mirror),
            both_sites: count(Durability::BothSites),
            oldest_ms: oldest.map_or(0, |age| age.as_millis() as u64),
            reason: if oldest.is_some() { state.reason.clone() } else { String::new() },
        }
    }
}

fn answer_of(item: Item) -> Option<(Post, Written)> {
    match item.kind {
        Kind::Answer(answer) => Some(*answer),
        Kind::Entry(..) | Kind::Mark => None,
    }
}

/// Let go what has become durable enough, for as long as the process lives.
pub async fn run(app: Arc<App>) {
    loop {
        let (newest, count) = {
            let state = app.held.state();
            (state.items.back().map(|item| item.since.elapsed()), state.items.len() as u32)
        };
        let Some(newest) = newest else {
            app.held.changed.notified().await;
            continue;
        };
        let pace = PACES.iter().find(|(age, _)| newest < *age).map_or(PACE_SLOWEST, |(_, pace)| *pace);
        look(&app).await;
        tokio::time::sleep(PACE_EACH * count).await;
        // Something new is looked at soon, however long the others wait.
        let _ = tokio::time::timeout(pace, app.held.changed.notified()).await;
    }
}

async fn look(app: &App) {
    drop_unheard(app);
    let standing = app.standing.borrow().clone();
    if matches!(standing, Standing::Away) {
        return send_away(app);
    }
    answer_calls(app);
    let Some(store) = standing.store() else { return };
    let (rooms, has_orphans) = {
        let state = app.held.state();
        let (here, other): (Vec<_>, Vec<_>) = state.items.iter().partition(|item| item.writer == store.epoch());
        (here.iter().map(|item| item.room).collect::<BTreeSet<RoomId>>(), !other.is_empty())
    };
    if has_orphans {
        app.held.orphaned.notify_one();
    }
    if rooms.is_empty() {
        return;
    }
    if let Err(error) = let_go(app, store, rooms).await {
        tracing::debug!(%error, "it cannot be found out now what has become durable enough");
    }
}

/// Ask, decide, mark, show, acknowledge.
async fn let_go(app: &App, store: &Store, rooms: BTreeSet<RoomId>) -> Result<(), StoreError> {
    let rooms: Vec<RoomId> = rooms.into_iter().collect();
    // In this order: what the marks say of rules and rooms is never older than what the standbys have.
    let standbys = store.standbys().await?;
    let marks = store.shown_marks(&rooms).await?;
    let view = app.view();
    let record = record_of(&view, store.epoch());
    let Judged { verdicts, raise } = judge(app, store.epoch(), record, &standbys, &marks);
    tell_waiting(app, &view, record, &verdicts);
    if !raise.is_empty() {
        store.mark_shown(&raise).await?;
    }
    let go = |item: &Item| verdicts.get(&item.number).is_some_and(|v| !matches!(v, Verdict::Wait(_)));
    let items = app.held.state().take(go);
    release(app, store, items, &verdicts, &marks);
    Ok(())
}

/// The record of the writer's epoch: that of another one says nothing of its standbys.
fn record_of(view: &View, epoch: Epoch) -> Option<&DatabaseRecord> {
    let record = view.record.as_ref().filter(|record| record.epoch == epoch)?;
    record.databases.get(&DatabaseName::from(CONTENT_DATABASE))
}

struct Judged {
    /// By the items' numbers.
    verdicts: BTreeMap<u64, Verdict>,
    /// How far rooms whose posts wait may be shown beyond their marks.
    raise: BTreeMap<RoomId, Seq>,
}

fn judge(app: &App, epoch: Epoch, record: Option<&DatabaseRecord>, standbys: &Standbys, marks: &ShownMarks) -> Judged {
    let mut judged = Judged { verdicts: BTreeMap::new(), raise: BTreeMap::new() };
    let mut waits: BTreeMap<RoomId, Verdict> = BTreeMap::new();
    let mut state = app.held.state();
    for item in state.items.iter_mut().filter(|item| item.writer == epoch) {
        let place = *item.place.get_or_insert(standbys.own);
        // The category may say otherwise by now.
        let mark = marks.get(&item.room);
        item.rule = mark.map_or(item.rule, |mark| mark.durability);
        let (rule, shown) = (item.rule, mark.map_or(Seq::START, |mark| mark.shown));
        let told: Vec<(&str, bool)> = standbys
            .flushed
            .iter()
            .map(|(name, flushed)| (name.as_str(), flushed.is_some_and(|flushed| flushed >= place)))
            .collect();
        let told = Told { standbys: &told, waited: true, age_ms: item.since.elapsed().as_millis() as u64 };
        let verdict = match (waits.get(&item.room), decide(rule, record, &told)) {
            (_, Verdict::Wait(_)) if rule.waits() && shown >= item.seq => Verdict::Acknowledge(rule.durability.level()),
            (Some(before), _) => *before,
            (None, verdict) => verdict,
        };
        match verdict {
            Verdict::Wait(_) => {
                waits.entry(item.room).or_insert(verdict);
            }
            Verdict::Acknowledge(_) | Verdict::AsLess(_) if rule.waits() && item.seq > shown => {
                let raise = judged.raise.entry(item.room).or_insert(item.seq);
                *raise = item.seq.max(*raise);
            }
            Verdict::Acknowledge(_) | Verdict::AsLess(_) => {}
        }
        judged.verdicts.insert(item.number, verdict);
    }
    judged
}

/// Tell authors what their posts wait for, once for each reason.
fn tell_waiting(app: &App, view: &View, record: Option<&DatabaseRecord>, verdicts: &BTreeMap<u64, Verdict>) {
    let mut state = app.held.state();
    let mut oldest = None;
    for item in &mut state.items {
        let Some(Verdict::Wait(missing)) = verdicts.get(&item.number) else { continue };
        let Kind::Answer(answer) = &item.kind else { continue };
        oldest.get_or_insert(*missing);
        if item.since.elapsed() < TELL_AFTER || item.told == Some(*missing) {
            continue;
        }
        item.told = Some(*missing);
        if let Answer::Session { id, outbox } = &answer.0.answer {
            outbox.push(frame::encode(&ServerFrame::PostWaits {
                id: *id,
                room: answer.0.room,
                client_id: answer.0.client_id,
                durability: missing.durability(),
                reason: reason(view, record, *missing),
            }));
        }
    }
    state.reason = oldest.map(|missing| reason(view, record, missing)).unwrap_or_default();
}

/// What a post waits for, for people.
fn reason(view: &View, record: Option<&DatabaseRecord>, missing: Missing) -> String {
    let site = || record.and_then(|r| view.topology.site_of(r.backup.as_ref()?));
    match missing {
        Missing::Mirror => "waiting for the mirror: it is not synchronised".to_owned(),
        Missing::MirrorTells => "waiting for the mirror".to_owned(),
        Missing::Site => "waiting for a second site: there is no backup at another one now".to_owned(),
        Missing::SiteTells => format!("waiting for {}", site().map_or("the other site", |site| site.as_str())),
    }
}

/// Show entries, then acknowledge.
fn release(app: &App, store: &Store, items: Vec<Item>, verdicts: &BTreeMap<u64, Verdict>, marks: &ShownMarks) {
    let mut shown = Shown::default();
    let mut answers = Vec::new();
    for item in items {
        let (durable, less) = match verdicts.get(&item.number) {
            Some(Verdict::Acknowledge(durable)) => (*durable, false),
            Some(Verdict::AsLess(durable)) => (*durable, true),
            Some(Verdict::Wait(_)) | None => (Durable::Disk, true),
        };
        match item.kind {
            Kind::Entry(version, entry) => {
                shown.show(app, (item.room, item.seq, store.epoch()), version, || *entry);
            }
            Kind::Mark => hint(app, item.room, item.seq),
            Kind::Answer(answer) => {
                let (post, written) = *answer;
                if written.repeated {
                    hint(app, item.room, item.seq);
                }
                let rule = marks.get(&item.room).map_or(item.rule, |mark| mark.durability);
                let less_than = (less && rule.asks_standbys()).then_some(rule.durability);
                answers.push((post, Outcome::Written(Written { durable, less_than, ..written })));
            }
        }
    }
    shown.tell(app);
    answer_released(app, answers);
}

/// Whoever does not listen any more offers the post again, and it is found then.
fn drop_unheard(app: &App) {
    app.held.state().take(|item| match &item.kind {
        Kind::Answer(answer) => match &answer.0.answer {
            Answer::Session { outbox, .. } => outbox.is_over(),
            Answer::Call(call) => call.is_closed(),
            Answer::Server { .. } => true,
        },
        Kind::Entry(..) | Kind::Mark => false,
    });
}

/// Calls do not wait for ever.
fn answer_calls(app: &App) {
    let is_over = |item: &Item| match &item.kind {
        Kind::Answer(answer) => matches!(answer.0.answer, Answer::Call(_)) && item.since.elapsed() >= CALL_MAX,
        Kind::Entry(..) | Kind::Mark => false,
    };
    let (out, reason) = {
        let mut state = app.held.state();
        (state.take(is_over), state.reason.clone())
    };
    let refused = |(post, written): (Post, Written)| {
        let message = format!(
            "the post is written as number {} and not acknowledged: {reason}; post it again with the same client_id to hear \
             of it",
            written.seq
        );
        (post, Outcome::Refused { code: RefusalCode::Unavailable, message })
    };
    let answers: Vec<_> = out.into_iter().filter_map(answer_of).map(refused).collect();
    if !answers.is_empty() {
        answer_released(app, answers);
    }
}

/// Clients belong elsewhere, and offer there what was not acknowledged.
fn send_away(app: &App) {
    let out = app.held.state().take(|_| true);
    let mut posts: Vec<Post> = out.into_iter().filter_map(answer_of).map(|(post, _)| post).collect();
    if !posts.is_empty() {
        app.poster.taken_again(&mut app.poster.lanes(), Lane::Mirror, &mut posts);
        not_active(app, posts);
    }
}
