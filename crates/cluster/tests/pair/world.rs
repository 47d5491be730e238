//! What can happen next, and what comes of it. What decides is the product's: `mirror::advance`, `witness::agrees`,
//! `fence::may_open`, and the steps of the forced switch with `runbook::advance`.

use crate::state::{
    A, Entry, HOSTS, Host, Number, Ordered, Postgres, Record, Request, State, epoch_of, partner, posts,
};
use crate::words;
use cluster::fence::{Answers, Askable, MayOpen, may_open};
use cluster::mirror::{PairAction, PairView, advance, advance_unanswered};
use cluster::order::Order;
use cluster::topology::Topology;

/// Long enough for every time-out: in the model it may fire at any moment.
pub const LONG_MS: u64 = 60_000;

/// A mistake that a test puts in, and expects to be caught.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// Commits stop waiting before "not synchronised" is recorded.
    ExposeBeforeRecording,
    /// "Synchronised" is recorded before commits really wait and the mirror has confirmed.
    RecordBeforeConfirming,
    /// The witness agrees although the record says "not synchronised".
    AgreeUnsynchronised,
    /// The witness agrees although the principal answers it.
    AgreeWhileItAnswers,
    /// The authority takes a change of any version.
    SwapWithoutCompare,
    /// A request without an answer is not overruled before commits stop waiting.
    LateRequestStands,
    /// A returning principal opens without having asked, and does not wait for its mirror.
    OpenAlone,
    /// A principal that sees neither of the others goes on.
    ServeAlone,
    /// A witness that lost its disk believes the first that tells it something.
    ForgetfulWitness,
    /// The take-over does not begin an epoch.
    SameEpoch,
    /// A stopped writer of an older epoch is taken for a standby without being rewound.
    NoRewind,
}

pub struct World {
    pub topology: Topology,
    pub mistake: Option<Mistake>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Somebody posts.
    Post(Number),
    /// A standby receives one entry.
    Stream(Number),
    /// One round of a host's agent; a change of the record that it asks for may arrive later, if ever.
    Round {
        host: Number,
        late: bool,
    },
    /// A host hears the witness.
    HearWitness(Number),
    /// A host hears its partner.
    HearPartner(Number),
    /// The witness hears a host.
    WitnessHears(Number),
    /// A mirror that has lost its principal asks the witness.
    Ask(Number),
    /// The run looks and goes on; the step has been under way for long.
    Turn {
        late: bool,
    },
    /// A late request arrives.
    Deliver(usize),
    /// A machine comes back.
    Return(Number),
    WitnessReturns,
    Heal(usize),
    // Faults.
    Crash(Number),
    CrashWitness,
    Kill(Number),
    Cut(usize),
    LoseDisk(Number),
    WitnessLosesDisk,
}

impl Action {
    pub fn is_fault(self) -> bool {
        use Action::{Crash, CrashWitness, Cut, Kill, LoseDisk, Post, WitnessLosesDisk};
        let late = matches!(self, Action::Round { late: true, .. });
        late || matches!(self, Crash(_) | CrashWitness | Kill(_) | Cut(_) | LoseDisk(_) | WitnessLosesDisk | Post(_))
    }
}

/// Everything that may be tried; what does nothing leads to the same state.
pub fn actions(state: &State) -> Vec<Action> {
    let left = &state.left;
    let mut all = Vec::with_capacity(32);
    if state.witness.run.is_some() {
        all.extend([Action::Turn { late: false }, Action::Turn { late: true }]);
    }
    for host in HOSTS {
        all.extend([Action::Stream(host), Action::HearWitness(host), Action::HearPartner(host)]);
        all.extend([Action::Round { host, late: false }, Action::WitnessHears(host), Action::Ask(host)]);
        if !state.hosts[host].up {
            all.push(Action::Return(host));
        }
        let faults = [
            (left.posts, Action::Post(host)),
            (left.delays, Action::Round { host, late: true }),
            (left.crashes, Action::Crash(host)),
            (left.kills, Action::Kill(host)),
            (left.disks, Action::LoseDisk(host)),
        ];
        all.extend(faults.into_iter().filter(|(left, _)| *left > 0).map(|(_, fault)| fault));
    }
    for (link, whole) in state.links.iter().enumerate() {
        match whole {
            false => all.push(Action::Heal(link)),
            true if left.cuts > 0 => all.push(Action::Cut(link)),
            true => {}
        }
    }
    all.extend((0..state.late.len()).map(Action::Deliver));
    if !state.witness.up {
        all.push(Action::WitnessReturns);
    } else if left.crashes > 0 {
        all.push(Action::CrashWitness);
    }
    if left.disks > 0 {
        all.push(Action::WitnessLosesDisk);
    }
    all
}

impl World {
    pub fn new(mistake: Option<Mistake>) -> World {
        World { topology: words::topology(), mistake }
    }

    pub fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// The state after an action; `None` when nothing comes of it.
    pub fn apply(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Post(host) => post(&mut state, host),
            Action::Stream(host) => stream(&mut state, host),
            Action::Round { host, late } => self.round(&mut state, host, late),
            Action::HearWitness(host) => {
                if state.meets_witness(host)
                    && let Some(record) = state.witness.record
                {
                    hear(&mut state, host, record);
                }
            }
            Action::HearPartner(host) => {
                if state.partners_meet()
                    && let Some(record) = state.hosts[partner(host)].record
                {
                    hear(&mut state, host, record);
                }
            }
            Action::WitnessHears(host) => witness_hears(&mut state, host),
            Action::Ask(host) => self.ask(&mut state, host),
            Action::Turn { late } => self.turn(&mut state, late),
            Action::Deliver(at) => {
                let request = state.late[at];
                if state.witness.up {
                    state.late.remove(at);
                    self.swap(&mut state, request.record);
                }
            }
            Action::Return(host) => state.hosts[host].up = true,
            Action::WitnessReturns => state.witness.up = true,
            Action::Heal(link) => state.links[link] = true,
            Action::Crash(host) => {
                if state.hosts[host].up && take(&mut state.left.crashes) {
                    crash(&mut state, host);
                }
            }
            Action::CrashWitness => {
                if state.witness.up && take(&mut state.left.crashes) {
                    crash_witness(&mut state);
                }
            }
            Action::Kill(host) => {
                let runs = matches!(state.hosts[host].postgres, Postgres::Standby | Postgres::Writer);
                if runs && take(&mut state.left.kills) {
                    state.stop(host);
                }
            }
            Action::Cut(link) => {
                if state.links[link] && take(&mut state.left.cuts) {
                    state.links[link] = false;
                }
            }
            Action::LoseDisk(host) => {
                if state.hosts[host].postgres != Postgres::Absent && take(&mut state.left.disks) {
                    lose_disk(&mut state, host);
                }
            }
            Action::WitnessLosesDisk => {
                if take(&mut state.left.disks) {
                    crash_witness(&mut state);
                    state.witness.record = None;
                    state.witness.run = None;
                    state.witness.heard = [false; 2];
                }
            }
        }
        state.acknowledge();
        (state != *before).then_some(state)
    }

    /// Compare-and-swap at the authority.
    pub fn swap(&self, state: &mut State, record: Record) -> bool {
        let certain = state.witness.heard == [true; 2] || self.makes(Mistake::ForgetfulWitness);
        let Some(own) = state.witness.record.filter(|_| certain) else { return false };
        let fits = own.version + 1 == record.version && record.epoch >= own.epoch;
        if fits || self.makes(Mistake::SwapWithoutCompare) {
            let version = if fits { record.version } else { own.version + 1 };
            let epoch = record.epoch.max(own.epoch);
            state.witness.record = Some(Record { epoch, version, ..record });
            return true;
        }
        false
    }

    fn round(&self, state: &mut State, host: Number, late: bool) {
        let h = &state.hosts[host];
        let Some(record) = h.record.filter(|r| h.up && h.fenced_by <= r.epoch) else { return };
        if record.principal == Some(host) {
            self.principal(state, host, record, late);
        } else if record.mirror.is_some_and(|(m, _)| m == host) {
            self.standby(state, host, record);
        } else if state.hosts[host].postgres == Postgres::Writer && state.hosts[host].history < record.epoch {
            state.stop(host);
        }
    }

    fn principal(&self, state: &mut State, host: Number, record: Record, late: bool) {
        let h = &mut state.hosts[host];
        match h.postgres {
            Postgres::Absent | Postgres::Standby => {}
            Postgres::Stopped if h.standby_signal => h.postgres = Postgres::Standby,
            Postgres::Stopped => {
                let alone = self.makes(Mistake::OpenAlone);
                if alone || asks_to_open(&record, host, h) == MayOpen::Open {
                    h.postgres = Postgres::Writer;
                    h.waits = record.mirror.is_some() && !alone;
                    h.waits_really = h.waits;
                    h.unanswered = true;
                }
            }
            Postgres::Writer => self.pair(state, host, record, late),
        }
    }

    fn standby(&self, state: &mut State, host: Number, record: Record) {
        let other = partner(host);
        let follows = state.streams(host);
        let reaches_writer = state.partners_meet() && state.hosts[other].postgres == Postgres::Writer;
        let others = state.hosts[other].log.clone();
        let h = &mut state.hosts[host];
        let older = h.history < record.epoch;
        match h.postgres {
            Postgres::Absent => {}
            Postgres::Writer if older => state.stop(host),
            Postgres::Writer => {}
            Postgres::Stopped if h.standby_signal => h.postgres = Postgres::Standby,
            Postgres::Stopped if self.makes(Mistake::NoRewind) => {
                h.standby_signal = true;
                h.log = others;
            }
            Postgres::Stopped | Postgres::Standby => {
                // It went another way: salvage, and be rewound to where the two part.
                let diverged = !others.starts_with(&h.log);
                let must = h.postgres == Postgres::Stopped || diverged;
                if must && older && record.principal == Some(other) && reaches_writer {
                    let common = h.log.iter().zip(&others).take_while(|(a, b)| a == b).count();
                    h.log.truncate(common);
                    h.standby_signal = true;
                    h.postgres = Postgres::Stopped;
                } else if follows && epoch_of(&h.log) >= record.epoch {
                    h.history = h.history.max(record.epoch);
                }
            }
        }
    }

    fn pair(&self, state: &mut State, host: Number, record: Record, late: bool) {
        let view = look_at_pair(state, host, &record);
        let overruled = state.hosts[host].unanswered && !self.makes(Mistake::LateRequestStands);
        let mut action = if overruled { advance_unanswered(&view) } else { advance(&view) };
        if action == PairAction::RecordNotSynchronised && self.makes(Mistake::ExposeBeforeRecording) {
            action = PairAction::WaitForNobody;
        }
        match action {
            PairAction::Nothing => {}
            PairAction::StopServing => {
                if !self.makes(Mistake::ServeAlone) {
                    state.stop(host);
                }
            }
            PairAction::WaitFor(_) => {
                let h = &mut state.hosts[host];
                (h.waits, h.waits_really) = (true, false);
            }
            PairAction::WaitForNobody => state.hosts[host].waits = false,
            PairAction::RecordNotSynchronised => self.set_synchronised(state, host, record, false, late),
            PairAction::RecordSynchronised => {
                if !self.makes(Mistake::RecordBeforeConfirming) {
                    state.hosts[host].waits_really = true;
                    state.acknowledge();
                    if state.hosts[partner(host)].log.len() < state.hosts[host].log.len() {
                        return;
                    }
                }
                state.hosts[host].unanswered = true;
                self.set_synchronised(state, host, record, true, late);
            }
        }
    }

    fn set_synchronised(&self, state: &mut State, host: Number, from: Record, to: bool, late: bool) {
        let Some((mirror, _)) = from.mirror else { return };
        let record = Record { version: from.version + 1, mirror: Some((mirror, to)), ..from };
        if late {
            if take(&mut state.left.delays) {
                state.late.push(Request { from: host, record });
            }
            return;
        }
        if !state.meets_witness(host) {
            return;
        }
        if self.swap(state, record) {
            state.hosts[host].unanswered = false;
        }
        if let Some(newest) = state.witness.record {
            hear(state, host, newest);
        }
    }
}

fn take(left: &mut u8) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

/// A server writes where some record names a principal of the database's own epoch.
fn post(state: &mut State, host: Number) {
    let h = &state.hosts[host];
    let records = [state.witness.record, state.hosts[A].record, state.hosts[partner(A)].record];
    let named = records.iter().flatten().any(|r| r.principal == Some(host) && r.epoch == epoch_of(&h.log));
    if h.postgres == Postgres::Writer && named && take(&mut state.left.posts) {
        let post = state.made;
        state.made += 1;
        state.hosts[host].log.push(Entry::Post(post));
    }
}

fn stream(state: &mut State, host: Number) {
    if state.streams(host) {
        let next = state.hosts[partner(host)].log.get(state.hosts[host].log.len()).copied();
        state.hosts[host].log.extend(next);
    }
}

/// A host keeps a newer record, and has had an answer.
fn hear(state: &mut State, host: Number, record: Record) {
    let h = &mut state.hosts[host];
    h.heard = true;
    if h.record.is_none_or(|own| record.supersedes(&own)) {
        h.record = Some(record);
    }
}

/// Gossip; and after its disk was lost the witness also asks how far the database there is.
fn witness_hears(state: &mut State, host: Number) {
    let h = &state.hosts[host];
    let Some(said) = h.record.filter(|_| state.meets_witness(host)) else { return };
    let runs = matches!(h.postgres, Postgres::Standby | Postgres::Writer);
    let epoch = epoch_of(&h.log);
    let witness = &mut state.witness;
    if witness.record.is_none_or(|own| said.supersedes(&own)) {
        witness.record = Some(said);
    }
    witness.heard[host] |= runs && witness.record.is_some_and(|r| epoch <= r.epoch);
}

fn crash(state: &mut State, host: Number) {
    state.stop(host);
    let h = &mut state.hosts[host];
    (h.up, h.heard, h.unanswered) = (false, false, true);
}

fn crash_witness(state: &mut State) {
    state.witness.up = false;
    if let Some(run) = &mut state.witness.run {
        (run.claimed, run.acted) = (false, false);
    }
}

fn lose_disk(state: &mut State, host: Number) {
    let other = posts(&state.hosts[partner(host)].log);
    let exposed = state.witness.record.is_some_and(|r| r.principal == Some(host) && !r.synchronised());
    state.excused |= exposed && posts(&state.hosts[host].log) & !other != 0;
    crash(state, host);
    let h = &mut state.hosts[host];
    (h.postgres, h.standby_signal, h.record) = (Postgres::Absent, false, None);
    (h.history, h.fenced_by, h.order) = (0, 0, None);
    (h.waits, h.waits_really) = (false, false);
    h.log.clear();
}

fn asks_to_open(record: &Record, host: Number, h: &Host) -> MayOpen {
    // Whatever is heard is adopted, so what others said is never newer than what is on this disk.
    let own = words::record(record);
    let said = (words::witness(), ("site-1".into(), own.clone()));
    let answers = Answers { records: h.heard.then_some(said).into_iter().collect(), without_peer: false };
    let witness = words::witness();
    let ask = Askable { other_site: None, witness: Some(&witness) };
    may_open(&words::database(), &words::name(host), &own, ask, &answers)
}

fn look_at_pair(state: &State, host: Number, record: &Record) -> PairView {
    let h = &state.hosts[host];
    let mirror = record.mirror.map(|(m, _)| m);
    let connected = mirror.filter(|m| state.streams(*m));
    PairView {
        mirror: mirror.map(words::name),
        recorded_synchronised: record.synchronised(),
        waits_for: mirror.filter(|_| h.waits).map(words::name),
        written: words::position(h.log.len()),
        connection: connected.map(|m| (true, words::position(state.hosts[m].log.len()))),
        silent_ms: Some(LONG_MS),
        watched_ms: LONG_MS,
        evidently_dead: false,
        timeout_ms: 2_500,
        witness_silent_ms: Some(if state.meets_witness(host) { 0 } else { LONG_MS }),
    }
}

/// An agent that can be reached carries out an order.
pub fn carry_out(state: &mut State, host: Number, run: u8, order: &Order) {
    if !state.meets_witness(host) {
        return;
    }
    match order {
        Order::Fence { epoch, .. } => {
            let epoch = epoch.0 as u8;
            if state.hosts[host].history >= epoch {
                return;
            }
            let h = &mut state.hosts[host];
            h.fenced_by = h.fenced_by.max(epoch);
            h.order = Some((run, Ordered::Fence(epoch)));
            state.stop(host);
        }
        Order::Promote { epoch, .. } => {
            let epoch = epoch.0 as u8;
            let h = &mut state.hosts[host];
            if h.postgres == Postgres::Standby {
                h.postgres = Postgres::Writer;
                h.standby_signal = false;
                h.log.push(Entry::Begin(epoch));
                h.history = h.history.max(epoch);
                (h.waits, h.waits_really, h.unanswered) = (false, false, true);
            }
            // One that was promoted before it stopped is started again.
            if h.postgres == Postgres::Stopped && !h.standby_signal && h.history == epoch {
                h.postgres = Postgres::Writer;
                (h.waits, h.waits_really, h.unanswered) = (false, false, true);
            }
            if h.postgres == Postgres::Writer {
                h.order = Some((run, Ordered::Promote(epoch)));
            }
        }
        other => panic!("the forced switch gives no {other:?} here"),
    }
}
