//! The agent of a host, as `crates/agent` behaves: it takes orders, carries them out, and holds its instance to the part
//! that the record gives it. What it decides is decided by the product's functions: `goal`, `may_open`, `mirror::advance`.

use crate::protection::Protection;
use crate::state::{
    Ask, Book, Entry, HOSTS, Host, HostNumber, How, Log, Message, Postgres, Record, SITES, Stamped, State, What, site,
};
use crate::words;
use crate::world::World;
use cluster::fence::{Answers, Askable, MayOpen, may_open, other_to_ask};
use cluster::goal::Goal;
use cluster::mirror::{PairAction, PairView, advance, advance_unanswered};
use cluster::name::HostName;
use cluster::record::PoolRecord;
use cluster::report::InstanceState;

/// What came of a change of the record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Swapped {
    Taken,
    Refused,
}

/// Compare-and-swap at an authority: `ManagementStore::swap`.
pub fn swap(world: &World, state: &mut State, at: HostNumber, record: Record) -> Swapped {
    if world.authorities[usize::from(site(at))] != at {
        return Swapped::Refused;
    }
    let own = state.host(at).record;
    let changes_at_home = own.home == site(at) && record.epoch >= own.epoch;
    let takes_over = record.home == site(at) && record.epoch > own.epoch;
    if own.version + 1 != record.version || !(changes_at_home || takes_over) {
        return Swapped::Refused;
    }
    keep(state, at, record);
    Swapped::Taken
}

/// A record is on a host's disk.
pub fn keep(state: &mut State, host: HostNumber, record: Record) {
    state.host_mut(host).record = record;
    if let Some(principal) = record.principal {
        state.named[usize::from(record.epoch)] |= 1 << principal;
    }
}

/// Take an order: `order::take`.
pub fn take(world: &World, state: &mut State, host: HostNumber, given: Stamped) {
    let h = state.host_mut(host);
    if world.on(Protection::Stamps) && given.stamp < h.latest {
        return;
    }
    let known = h.order.filter(|(o, _)| o.stamp == given.stamp && o.ask == given.ask);
    if known.is_some_and(|(_, how)| how == How::Done) || h.executing.iter().any(|(o, _)| o.stamp == given.stamp) {
        return;
    }
    h.latest = given.stamp;
    h.order = Some((given, How::Running));
    h.executing.push((given, 0));
}

/// The agent dies and is started again; its databases go on.
pub fn restart(world: &World, state: &mut State, host: HostNumber) {
    let h = state.host_mut(host);
    h.executing.clear();
    h.heard_other_site = false;
    h.unanswered = h.record.principal == Some(host);
    if let Some((_, how)) = &mut h.order
        && *how == How::Running
        && world.on(Protection::InterruptedOrdersFail)
    {
        *how = How::Failed;
    }
}

/// What one stage of an order comes to.
enum Stage {
    Next,
    Over(How),
}

/// Carry out one stage of the order that is under way.
pub fn execute(world: &World, state: &mut State, host: HostNumber) {
    let Some((given, stage)) = state.host(host).executing.first().copied() else { return };
    match carry_out(world, state, host, given, stage) {
        Stage::Next => state.host_mut(host).executing[0].1 += 1,
        Stage::Over(how) => {
            let h = state.host_mut(host);
            h.executing.remove(0);
            if let Some((_, outcome)) = h.order.as_mut().filter(|(o, _)| o.stamp == given.stamp) {
                *outcome = how;
            }
        }
    }
}

fn carry_out(world: &World, state: &mut State, host: HostNumber, given: Stamped, stage: u8) -> Stage {
    let epoch = state.host(host).record.epoch;
    let runs = state.host(host).postgres;
    match given.ask {
        Ask::Fence(by) => {
            if !state.host(host).is_behind(by) {
                return Stage::Over(How::Failed);
            }
            let h = state.host_mut(host);
            h.fenced_by = h.fenced_by.max(by);
            state.stop(host, false);
            Stage::Over(How::Done)
        }
        Ask::CloseShare(to) => {
            if world.on(Protection::ShareCloses) {
                state.share_open_from = state.share_open_from.max(to);
            }
            let h = state.host_mut(host);
            h.share_epoch = h.share_epoch.max(to);
            Stage::Over(How::Done)
        }
        Ask::ApplyAtOnce | Ask::HoldBackAgain => Stage::Over(How::Done),
        Ask::StopLogShipping => {
            let h = state.host_mut(host);
            h.shipping_stopped_in = epoch;
            h.upstream = None;
            Stage::Over(How::Done)
        }
        Ask::CopyRemainingLog => match runs {
            Postgres::Stopped => Stage::Over(How::Failed),
            Postgres::Writer => Stage::Over(How::Done),
            Postgres::Standby if state.streams(host) => Stage::Over(How::Failed),
            Postgres::Standby => {
                let longest = state.share.into_iter().filter(|log| state.host(host).log.is_prefix_of(*log));
                let copied = longest.max_by_key(|log| log.len());
                state.host_mut(host).copied = copied.unwrap_or_default();
                Stage::Over(How::Done)
            }
        },
        Ask::ApplyRemainingLog => match runs {
            Postgres::Stopped => Stage::Over(How::Failed),
            Postgres::Writer => Stage::Over(How::Done),
            Postgres::Standby if state.streams(host) => Stage::Over(How::Failed),
            Postgres::Standby => {
                let h = state.host_mut(host);
                if h.log.is_prefix_of(h.copied) {
                    h.log = h.copied;
                }
                h.copied = Log::default();
                Stage::Over(How::Done)
            }
        },
        Ask::DisconnectSessions | Ask::Checkpoint => {
            Stage::Over(if runs == Postgres::Stopped { How::Failed } else { How::Done })
        }
        Ask::Promote(to) => promote(world, state, host, given, to, stage),
        Ask::SalvageTail(from) => {
            if state.host(from).postgres == Postgres::Stopped || !state.reaches(host, from) {
                return Stage::Over(How::Failed);
            }
            state.stop(host, false);
            salvage(state, host, from);
            Stage::Over(How::Done)
        }
        Ask::Rewind(from) => rewind(state, host, from, stage),
        Ask::HandOver(to) => hand_over(world, state, host, to, stage),
        Ask::StartLogShipping => {
            state.host_mut(host).shipping_stopped_in = 0;
            Stage::Over(How::Done)
        }
        Ask::Reopen(to, after) => reopen(world, state, host, (to, after), stage),
    }
}

fn reopen(world: &World, state: &mut State, host: HostNumber, (to, after): (u8, u8), stage: u8) -> Stage {
    let has_to_ask = other_is_to_be_asked(world, host, state.host(host));
    // The other site has begun an epoch in between that the run had not heard of, or does so while this one is opened: this one
    // overrules it.
    let overrules = begun_beside(state, host, after + 1..to);
    let h = state.host_mut(host);
    if stage == 0 {
        let asks = has_to_ask && h.postgres == Postgres::Stopped;
        if asks || h.standby_signal || h.postgres == Postgres::Standby || h.history < after {
            return Stage::Over(How::Failed);
        }
        h.history = h.history.max(to);
        h.handed_over = 0;
        h.fenced_by = 0;
        h.waits_for = None;
    } else {
        h.postgres = Postgres::Writer;
        if h.log.epoch() < to {
            h.log.push(Entry::Epoch(to));
        }
    }
    if overrules {
        state.loses |= 1 << to;
        state.forced |= 1 << to;
    }
    if stage == 0 { Stage::Next } else { Stage::Over(How::Done) }
}

/// Whether the other site has begun one of these epochs, of which nobody here has heard.
fn begun_beside(state: &State, host: HostNumber, epochs: std::ops::Range<u8>) -> bool {
    let begun = |h: HostNumber| {
        let (record, log) = (state.host(h).record.epoch, state.host(h).log);
        [record, log.stands_for(), log.writer()]
    };
    HOSTS.into_iter().any(|h| site(h) != site(host) && begun(h).iter().any(|epoch| epochs.contains(epoch)))
}

fn promote(world: &World, state: &mut State, host: HostNumber, given: Stamped, to: u8, stage: u8) -> Stage {
    let book = Book::of(given.run);
    if state.host(host).postgres != Postgres::Writer && other_is_to_be_asked(world, host, state.host(host)) {
        return Stage::Over(How::Failed);
    }
    let promised = state.newest_record().mirror == Some((host, true));
    let before = state.run(given.run).map_or(0, |run| run.before.epoch);
    // One of the two is overruled when they meet. By now the other may have heard of this one, and stopped.
    let beside = book.switches() && begun_beside(state, host, before + 1..to);
    // Or the later one had begun before this one: it overrules what is about to be written here.
    let over_it = HOSTS.into_iter().filter(|h| site(*h) != site(host)).map(|h| state.host(h).log.stands_for()).max();
    let over_it = over_it.filter(|epoch| book == Book::Failover && *epoch > to);
    let remembered = world.on(Protection::PromotionIsRememberedFirst);
    let h = state.host_mut(host);
    if stage == 0 && h.record.epoch > to {
        return Stage::Over(How::Failed);
    }
    if h.postgres == Postgres::Stopped {
        // A data folder that an order has promoted is a writer's; its agent starts it to finish what it began.
        if !(remembered && !h.standby_signal && h.history >= to) {
            return Stage::Over(How::Failed);
        }
        h.postgres = Postgres::Writer;
        h.waits_for = None;
    }
    if stage == 0 {
        if remembered {
            h.history = h.history.max(to);
        }
        if h.postgres == Postgres::Standby {
            h.postgres = Postgres::Writer;
            h.standby_signal = false;
            h.upstream = None;
            h.waits_for = None;
            h.log.push(Entry::Fork(to));
            if let Some(epoch) = over_it {
                state.loses |= 1 << epoch;
                state.forced |= 1 << epoch;
            }
            if book == Book::Failover || book == Book::Force && !promised && world.force || beside {
                state.loses |= 1 << to;
            }
            if book == Book::Force || beside {
                state.forced |= 1 << to;
            }
        }
        return Stage::Next;
    }
    if h.log.epoch() > to {
        return Stage::Over(How::Failed);
    }
    if h.log.epoch() < to {
        h.log.push(Entry::Epoch(to));
    }
    h.history = h.history.max(to);
    h.handed_over = 0;
    Stage::Over(How::Done)
}

fn salvage(state: &mut State, host: HostNumber, from: HostNumber) {
    let kept = state.host(host).log.posts() & !state.host(host).log.common(state.host(from).log).posts();
    state.host_mut(host).salvage |= kept;
}

fn rewind(state: &mut State, host: HostNumber, from: HostNumber, stage: u8) -> Stage {
    let h = state.host(host);
    let epoch = h.record.epoch;
    if stage == 0 {
        if h.standby_signal && h.history >= epoch {
            return Stage::Over(How::Done);
        }
        state.stop(host, false);
        return Stage::Next;
    }
    if state.host(from).postgres == Postgres::Stopped || !state.reaches(host, from) {
        return Stage::Over(How::Failed);
    }
    let source = state.host(from).log;
    let h = state.host_mut(host);
    // It is on the source's timeline from here on: what other folders hold of an older one does not fit any more.
    h.log = source.first(h.log.common(source).len().max(source.beginning()));
    h.copied = Log::default();
    h.standby_signal = true;
    h.clean = false;
    h.history = epoch;
    h.handed_over = 0;
    h.fenced_by = 0;
    h.shipping_stopped_in = 0;
    Stage::Over(How::Done)
}

fn hand_over(world: &World, state: &mut State, host: HostNumber, to: u8, stage: u8) -> Stage {
    let h = state.host_mut(host);
    let synchronised = h.record.mirror.filter(|(_, synchronised)| *synchronised).map(|(mirror, _)| mirror);
    if h.handed_over == to && h.postgres == Postgres::Stopped {
        return Stage::Over(How::Done);
    }
    match (stage, h.postgres) {
        (_, Postgres::Standby) => return Stage::Over(How::Failed),
        (0, Postgres::Writer) => {
            // A stop must not hang on a mirror that nothing is promised of.
            if synchronised.is_none() {
                h.waits_for = None;
            }
            if h.log.epoch() < to {
                h.log.push(Entry::Epoch(to));
            }
            return Stage::Next;
        }
        (_, Postgres::Writer) => match synchronised
            .filter(|mirror| !world.on(Protection::MirrorFlushes) || streams_from(state, *mirror, host))
        {
            // The mirror flushes the rest, and nobody waits for a clean stop.
            Some(mirror) => {
                let log = state.host(host).log;
                if streams_from(state, mirror, host) {
                    state.host_mut(mirror).log = log;
                }
                state.stop(host, false);
                let h = state.host_mut(host);
                (h.handed_over, h.left_to) = (to, Some(mirror));
                return Stage::Over(How::Done);
            }
            None => stop_cleanly(state, host, synchronised),
        },
        (_, Postgres::Stopped) => {}
    }
    let h = state.host_mut(host);
    if !h.clean {
        return Stage::Over(How::Failed);
    }
    (h.handed_over, h.left_to) = (to, None);
    h.history = to;
    Stage::Over(How::Done)
}

fn streams_from(state: &State, standby: HostNumber, host: HostNumber) -> bool {
    state.host(standby).upstream == Some(host) && state.streams(standby)
}

/// A clean stop: PostgreSQL sends everything to the standbys that stream, then ends. Where everything is to be on one of
/// them, the others' streams are ended before.
pub fn stop_cleanly(state: &mut State, host: HostNumber, only: Option<HostNumber>) {
    let log = state.host(host).log;
    for standby in crate::state::HOSTS.into_iter().filter(|standby| only.is_none_or(|only| only == *standby)) {
        if streams_from(state, standby, host) {
            state.host_mut(standby).log = log;
        }
    }
    state.stop(host, true);
}

fn asks_to_open(world: &World, host: HostNumber, h: &Host) -> MayOpen {
    if !world.on(Protection::ReturningAsks) {
        return MayOpen::Open;
    }
    let record = words::record(&h.record);
    let other = SITES[usize::from(1 - site(host))].into();
    let ask = Askable { other_site: Some(&other), witness: None };
    may_open(&words::database(), &words::name(host), &record, ask, &answers(host, h, &record))
}

/// Whatever is heard is adopted, so what others said is never newer than what is on this disk.
fn answers(host: HostNumber, h: &Host, record: &PoolRecord) -> Answers {
    let said = (HostName::from("somebody there"), (SITES[usize::from(1 - site(host))].into(), record.clone()));
    Answers { records: h.heard_other_site.then_some(said).into_iter().collect(), without_peer: false }
}

fn other_is_to_be_asked(world: &World, host: HostNumber, h: &Host) -> bool {
    let record = words::record(&h.record);
    let other = SITES[usize::from(1 - site(host))].into();
    let ask = Askable { other_site: Some(&other), witness: None };
    world.on(Protection::ReturningAsks) && other_to_ask(&record, ask, &answers(host, h, &record)).is_some()
}

/// How the instance stands: `Database::standing`.
pub fn standing(world: &World, h: &Host, host: HostNumber) -> InstanceState {
    match h.postgres {
        Postgres::Standby => return InstanceState::Standby,
        Postgres::Writer => return InstanceState::Online,
        Postgres::Stopped if !h.executing.is_empty() => return InstanceState::Busy,
        Postgres::Stopped => {}
    }
    match world.goal(h.record, host) {
        Goal::Principal { .. } if h.handed_over > h.record.epoch || h.standby_signal => InstanceState::Stopped,
        Goal::Principal { .. } => match asks_to_open(world, host, h) {
            MayOpen::Open => InstanceState::Stopped,
            MayOpen::Ask { .. } | MayOpen::NoQuorum { .. } => InstanceState::AskingPeer,
            MayOpen::LeftBehind { .. } => InstanceState::LeftBehind,
        },
        Goal::Standby { .. } if h.standby_signal => InstanceState::Stopped,
        Goal::Standby { .. } | Goal::Idle if h.is_overruled_by(h.record.epoch) => InstanceState::LeftBehind,
        Goal::Standby { .. } if h.handed_over != 0 => InstanceState::Stopped,
        Goal::Standby { .. } => InstanceState::LeftBehind,
        Goal::Idle if h.history.max(h.handed_over) >= h.record.epoch => InstanceState::Stopped,
        Goal::Idle => InstanceState::LeftBehind,
    }
}

/// One round of the reconciler. `answer_is_lost`: a change of the record that it asks for arrives later, if ever.
pub fn round(world: &World, state: &mut State, host: HostNumber, answer_is_lost: bool) {
    let h = state.host(host);
    if !h.executing.is_empty() || h.fenced_by > h.record.epoch {
        return;
    }
    match world.goal(h.record, host) {
        Goal::Idle => {
            if h.history.max(h.handed_over) < h.record.epoch || h.is_overruled_by(h.record.epoch) {
                state.stop(host, false);
            }
        }
        Goal::Standby { upstream, .. } => standby(world, state, host, upstream.as_ref().map(words::number)),
        Goal::Principal { wait_for, candidate, .. } => {
            let mirror = wait_for.clone().or(candidate).as_ref().map(words::number);
            principal(world, state, host, wait_for.as_ref().map(words::number), mirror, answer_is_lost);
        }
    }
}

fn standby(world: &World, state: &mut State, host: HostNumber, upstream: Option<HostNumber>) {
    let h = state.host_mut(host);
    let epoch = h.record.epoch;
    let fed = !(h.record.backup == Some(host) && h.shipping_stopped_in == epoch);
    match h.postgres {
        Postgres::Stopped => {
            if !h.standby_signal {
                if h.handed_over == 0 || h.is_overruled_by(epoch) {
                    return rejoin(world, state, host);
                }
                h.standby_signal = true;
            }
            h.postgres = Postgres::Standby;
            h.upstream = upstream.filter(|_| fed);
        }
        Postgres::Writer => {
            if h.is_behind(epoch) {
                state.stop(host, false);
            }
        }
        Postgres::Standby => {
            if fed {
                h.upstream = upstream;
                if state.streams(host) {
                    let h = state.host_mut(host);
                    if h.log.epoch() >= epoch {
                        h.history = h.history.max(epoch);
                        h.handed_over = 0;
                    }
                } else if let Some(upstream) = upstream
                    && state.host(upstream).postgres != Postgres::Stopped
                    && state.reaches(host, upstream)
                    && state.host(host).log.epoch() < epoch
                {
                    // It stands still although its source answers.
                    rejoin(world, state, host);
                }
            }
        }
    }
}

/// Join the present principal's history: `rejoin`. Salvage and rewind are one step here.
fn rejoin(world: &World, state: &mut State, host: HostNumber) {
    let h = state.host(host);
    let Some(principal) = h.record.principal.filter(|p| *p != host) else { return };
    let there = state.host(principal).postgres != Postgres::Stopped && state.reaches(host, principal);
    if !h.is_behind(h.record.epoch) || !there || !world.on(Protection::Rejoins) {
        return;
    }
    state.stop(host, false);
    salvage(state, host, principal);
    rewind(state, host, principal, 1);
}

fn principal(
    world: &World,
    state: &mut State,
    host: HostNumber,
    wait_for: Option<HostNumber>,
    mirror: Option<HostNumber>,
    answer_is_lost: bool,
) {
    let h = state.host(host);
    match h.postgres {
        Postgres::Standby => {}
        Postgres::Stopped if h.handed_over > h.record.epoch => {}
        Postgres::Stopped if h.standby_signal => {
            let h = state.host_mut(host);
            h.postgres = Postgres::Standby;
            h.upstream = None;
        }
        Postgres::Stopped => {
            if asks_to_open(world, host, h) == MayOpen::Open {
                let h = state.host_mut(host);
                h.postgres = Postgres::Writer;
                h.waits_for = if world.on(Protection::UnansweredIsOverruled) { mirror } else { wait_for };
                h.waits_really = true;
            }
        }
        Postgres::Writer => pair(world, state, host, mirror, answer_is_lost),
    }
}

/// What the principal's agent sees of its pair. Silence is always long enough: the model has no clock.
fn look_at_pair(state: &State, host: HostNumber, mirror: Option<HostNumber>) -> PairView {
    let h = state.host(host);
    let connected = mirror.filter(|m| state.host(*m).upstream == Some(host) && state.streams(*m));
    PairView {
        mirror: mirror.map(words::name),
        recorded_synchronised: h.record.mirror.is_some_and(|(_, synchronised)| synchronised),
        waits_for: h.waits_for.map(words::name),
        written: words::position(h.log.len()),
        connection: connected.map(|m| (true, words::position(state.host(m).log.len()))),
        silent_ms: Some(60_000),
        watched_ms: 60_000,
        evidently_dead: false,
        timeout_ms: 2_500,
        witness_silent_ms: None,
    }
}

/// One look at the pair: `pair::round`.
fn pair(world: &World, state: &mut State, host: HostNumber, mirror: Option<HostNumber>, answer_is_lost: bool) {
    let view = look_at_pair(state, host, mirror);
    let overruled = state.host(host).unanswered && world.on(Protection::UnansweredIsOverruled);
    let mut action = if overruled { advance_unanswered(&view) } else { advance(&view) };
    if action == PairAction::RecordNotSynchronised && !world.on(Protection::RecordBeforeExposure) {
        action = PairAction::WaitForNobody;
    }
    match action {
        // The model's sites have no witness.
        PairAction::Nothing | PairAction::StopServing => {}
        PairAction::WaitFor(mirror) => {
            let h = state.host_mut(host);
            h.waits_for = Some(words::number(&mirror));
            h.waits_really = false;
        }
        PairAction::WaitForNobody => state.host_mut(host).waits_for = None,
        PairAction::RecordNotSynchronised => set_synchronised(world, state, host, false, answer_is_lost),
        PairAction::RecordSynchronised => {
            // The checkpoint makes the setting work; then the mirror must confirm what was written before.
            if world.on(Protection::MirrorConfirms) {
                state.host_mut(host).waits_really = true;
                state.acknowledge();
            }
            state.host_mut(host).unanswered = true;
            set_synchronised(world, state, host, true, answer_is_lost);
        }
    }
}

fn set_synchronised(world: &World, state: &mut State, host: HostNumber, to: bool, answer_is_lost: bool) {
    let from = state.host(host).record;
    let Some((mirror, _)) = from.mirror else { return };
    let record = Record { version: from.version + 1, mirror: Some((mirror, to)), ..from };
    let authority = world.authorities[usize::from(from.home)];
    if answer_is_lost {
        if authority != host && state.left.delays > 0 {
            state.left.delays -= 1;
            let what = What::SetRecord { record, ends_run: false };
            state.network.push(Message { from: host, to: authority, awaited: false, what });
        }
        return;
    }
    if !state.reaches(host, authority) {
        return;
    }
    state.host_mut(host).unanswered = false;
    match swap(world, state, authority, record) {
        Swapped::Taken => keep(state, host, record),
        Swapped::Refused => {
            let newest = state.host(authority).record;
            if newest.supersedes(&from) {
                keep(state, host, newest);
            }
        }
    }
}
