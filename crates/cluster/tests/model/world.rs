//! What is fixed for one exploration, what can happen next, and what comes of it.

use crate::agent::{self, Swapped};
use crate::conductor::{self, Site};
use crate::protection::{Protection, weaken};
use crate::state::{
    Ask, BOOKS, Book, Bounds, EPOCHS_MAX, Entry, HOSTS, Host, HostNumber, Log, Message, Postgres, Record, Run, S1A,
    S1B, S2A, S2B, State, What, site,
};
use crate::words;
use cluster::failback::FAILBACK;
use cluster::failover::FAILOVER;
use cluster::goal::{Goal, goal};
use cluster::planned_failover::PLANNED_FAILOVER;
use cluster::runbook::{Runbook, Step};
use cluster::switching::{FORCE_MIRROR, SWITCH_MIRROR};
use cluster::topology::Topology;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What is fixed for one exploration.
pub struct World {
    pub authorities: [HostNumber; 2],
    pub topology: Topology,
    /// The administrator insists: a failover is started although site 1 answers.
    pub force: bool,
    /// What commutes with everything else is done at once: hosts of a site hear each other, the mirrors' agents follow their
    /// records, an order of one stage is carried out when it is taken. Fewer states; walks do without it.
    pub coarse: bool,
    /// The site whose pair changes places: its two hosts hear each other, and act, in their own time; the others at once.
    pub switching: Option<Site>,
    /// Links that are cut become whole again.
    pub heals: bool,
    pub off: Vec<Protection>,
    steps: [Vec<Step>; 5],
    /// The product's answers to what is asked all the time.
    goals: RefCell<BTreeMap<(Record, HostNumber), Goal>>,
}

impl World {
    pub fn new(authorities: [HostNumber; 2], force: bool, off: &[Protection]) -> Self {
        let off = off.to_vec();
        let mut steps = BOOKS.map(|book| Self::runbook(book).steps.iter().map(copy).collect::<Vec<Step>>());
        weaken(&mut steps, &off);
        Self {
            authorities,
            topology: words::topology(authorities),
            force,
            coarse: true,
            switching: None,
            heals: true,
            off,
            steps,
            goals: RefCell::default(),
        }
    }

    pub fn on(&self, protection: Protection) -> bool {
        !self.off.contains(&protection)
    }

    /// What the record asks of a host: the product's function, asked once for each record.
    pub fn goal(&self, record: Record, host: HostNumber) -> Goal {
        let ask = || goal(&words::record(&record), &words::database(), &words::name(host));
        self.goals.borrow_mut().entry((record, host)).or_insert_with(ask).clone()
    }

    /// The authority of a site. A failover and a failback are carried out at site 2's: it survives, and it is home while the
    /// pool is failed over; a switch and a planned failover at the home site's.
    pub fn authority(&self, of: Site) -> HostNumber {
        self.authorities[usize::from(of)]
    }

    pub fn runbook(book: Book) -> &'static Runbook {
        match book {
            Book::Failover => FAILOVER,
            Book::Failback => FAILBACK,
            Book::Switch => SWITCH_MIRROR,
            Book::Force => FORCE_MIRROR,
            Book::Planned => PLANNED_FAILOVER,
        }
    }

    pub fn steps(&self, book: Book) -> &[Step] {
        &self.steps[book as usize]
    }
}

fn copy(step: &Step) -> Step {
    Step { ..*step }
}

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A server writes a post at this host's database.
    Post(HostNumber),
    /// A standby receives the next entry of its stream.
    Stream(HostNumber),
    /// A writer ships the next entry to the share.
    Ship(HostNumber),
    /// The backup takes the next entry from the share.
    FromShare(HostNumber),
    /// A writer's checkpointer takes the setting of whom commits wait for.
    SettingArrives(HostNumber),
    /// A host hears another one's record.
    Hear {
        host: HostNumber,
        from: HostNumber,
    },
    /// A round of a host's reconciler.
    Round(HostNumber),
    /// A round whose change of the record is still under way when the agent gives up on it.
    RoundUnanswered(HostNumber),
    /// An agent carries on with its order.
    Execute(HostNumber),
    /// An administrator starts a runbook at this site's authority.
    Start(Site, Book),
    /// An administrator wants the run undone that is carried out there.
    Abort(Site),
    /// The conductor there looks, and acts on it.
    Turn(Site),
    /// The same when the step has been waiting for long.
    LateTurn(Site),
    Deliver(u8),
    /// A message finds nobody.
    Lose(u8),
    /// Its sender gives up on a message that is still under way.
    Delay(u8),
    /// An agent dies, with its conductor; whatever it has sent is still under way if `sent`.
    CrashAgent {
        host: HostNumber,
        sent: bool,
    },
    /// A host loses power and comes back.
    Reboot(HostNumber),
    /// The operating system stops PostgreSQL cleanly.
    StopCleanly(HostNumber),
    LoseSite1,
    /// A host loses power, for as long as it likes.
    LoseHost(HostNumber),
    /// Whoever has lost power is back.
    Return,
    Cut,
    Heal,
}

/// A pool in state Normal, synchronised, and everybody has heard of it.
pub fn normal(left: Bounds) -> State {
    let record = Record {
        epoch: 1,
        version: 5,
        failed_over: false,
        home: 0,
        active: Some(0),
        principal: Some(S1A),
        mirror: Some((S1B, true)),
        backup: Some(S2A),
        backup_mirror: Some(S2B),
        lost: [0; 2],
        run: 0,
    };
    let host = |number: HostNumber| Host {
        up: true,
        heard_other_site: true,
        record,
        postgres: if number == S1A { Postgres::Writer } else { Postgres::Standby },
        clean: false,
        standby_signal: number != S1A,
        log: Log::default(),
        copied: Log::default(),
        upstream: [None, Some(S1A), Some(S1A), Some(S2A)][usize::from(number)],
        waits_for: (number == S1A).then_some(S1B),
        waits_really: true,
        unanswered: false,
        history: 1,
        handed_over: 0,
        left_to: None,
        fenced_by: 0,
        shipping_stopped_in: 0,
        share_epoch: 0,
        latest: (0, 0),
        order: None,
        executing: vec![],
        salvage: 0,
    };
    let mut named = [0; EPOCHS_MAX];
    named[1] = 1 << S1A;
    State {
        hosts: HOSTS.map(host),
        share: [Log::default(); EPOCHS_MAX],
        share_open_from: 0,
        network: vec![],
        linked: true,
        runs: [None; 2],
        next_stamp: 1,
        left,
        posts: 0,
        acknowledged: [(0, 0); crate::state::POSTS_MAX],
        acknowledged_after: [0; crate::state::POSTS_MAX],
        named,
        loses: 0,
        forced: 0,
    }
}

impl Action {
    /// Whether it is a fault, which may happen and need not.
    pub fn is_fault(self) -> bool {
        match self {
            Action::Delay(_)
            | Action::CrashAgent { .. }
            | Action::Reboot(_)
            | Action::StopCleanly(_)
            | Action::LoseSite1
            | Action::LoseHost(_)
            | Action::Cut
            | Action::RoundUnanswered(_) => true,
            Action::Return
            | Action::Heal
            | Action::Start(..)
            | Action::Abort(_)
            | Action::Post(_)
            | Action::Stream(_)
            | Action::Ship(_)
            | Action::FromShare(_)
            | Action::SettingArrives(_)
            | Action::Hear { .. }
            | Action::Round(_)
            | Action::Execute(_)
            | Action::Turn(_)
            | Action::LateTurn(_)
            | Action::Deliver(_)
            | Action::Lose(_) => false,
        }
    }
}

/// Everything that might happen; some of it changes nothing.
pub fn actions(world: &World, state: &State) -> Vec<Action> {
    let mut all = Vec::new();
    for host in HOSTS {
        let h = state.host(host);
        if !h.up {
            continue;
        }
        all.extend([Action::Post(host), Action::Stream(host), Action::Ship(host), Action::FromShare(host)]);
        all.extend([Action::SettingArrives(host), Action::Round(host), Action::Execute(host)]);
        let others =
            HOSTS.into_iter().filter(|from| *from != host && (!world.coarse || hears_in_time(world, host, *from)));
        all.extend(others.map(|from| Action::Hear { host, from }));
        if state.left.delays > 0 {
            all.push(Action::RoundUnanswered(host));
        }
        if state.left.agent_crashes > 0 {
            all.push(Action::CrashAgent { host, sent: false });
            all.extend((state.left.delays > 0).then_some(Action::CrashAgent { host, sent: true }));
        }
        if state.left.reboots > 0 {
            all.push(Action::Reboot(host));
        }
        if state.left.host_losses > 0 && world.switching == Some(site(host)) {
            all.push(Action::LoseHost(host));
        }
        if state.left.clean_stops > 0 {
            all.push(Action::StopCleanly(host));
        }
    }
    for (at, message) in (0..).zip(&state.network) {
        all.push(Action::Deliver(at));
        if message.awaited && !state.reaches(message.from, message.to) {
            all.push(Action::Lose(at));
        } else if message.awaited && state.left.delays > 0 {
            all.push(Action::Delay(at));
        }
    }
    for at in [0, 1] {
        if conductor::may_look(world, state, at) {
            all.push(Action::Turn(at));
            // How long a switch waits decides whether the writer is taken back.
            let waits = |run: &Run| run.acted && run.book == Book::Switch;
            all.extend(state.runs[usize::from(at)].as_ref().is_some_and(waits).then_some(Action::LateTurn(at)));
        }
        let under_way = state.runs[usize::from(at)].is_some_and(|r| !r.over);
        if state.host(world.authority(at)).up {
            all.extend((state.left.aborts > 0 && under_way).then_some(Action::Abort(at)));
            all.extend(may_start(world, state, at, under_way).map(|book| Action::Start(at, book)));
        }
    }
    all.extend((state.left.site_losses > 0 && state.host(S1A).up).then_some(Action::LoseSite1));
    all.extend(state.hosts.iter().any(|h| !h.up).then_some(Action::Return));
    all.extend((state.left.cuts > 0 && state.linked).then_some(Action::Cut));
    all.extend((!state.linked && world.heals).then_some(Action::Heal));
    all
}

/// The runbooks that an administrator may start at a site's authority. A failover may take the place of a run that is under
/// way; where a site believes to be home, it changes places in its pair.
fn may_start(world: &World, state: &State, at: Site, under_way: bool) -> impl Iterator<Item = Book> {
    let left = state.left;
    let home = state.host(world.authority(at)).record.home == at;
    let books = [
        (Book::Failover, left.failovers > 0 && at == 1),
        (Book::Failback, left.failbacks > 0 && at == 1 && !under_way),
        (Book::Switch, left.switches > 0 && home && !under_way),
        (Book::Force, left.forces > 0 && home && !under_way),
        (Book::Planned, left.planned > 0 && home && !under_way),
    ];
    books.into_iter().filter(|(_, may)| *may).map(|(book, _)| book)
}

/// Where what commutes is done at once: whom a host hears in its own time.
fn hears_in_time(world: &World, host: HostNumber, from: HostNumber) -> bool {
    match world.switching {
        None => host + from == S1A + S2A,
        Some(pair) => site(host) == pair && site(from) == pair,
    }
}

/// What comes of it; `None` when nothing does. A turn in which the conductor only waits is one in which it has waited for
/// long.
pub fn act(world: &World, state: &State, action: Action) -> Option<(Action, State)> {
    let soon = apply(world, state, action).map(|next| (action, next));
    soon.or_else(|| {
        let Action::Turn(at) = action else { return None };
        apply(world, state, Action::LateTurn(at)).map(|next| (Action::LateTurn(at), next))
    })
}

/// What comes of it; `None` when nothing does.
pub fn apply(world: &World, state: &State, action: Action) -> Option<State> {
    let mut next = state.clone();
    happen(world, &mut next, action);
    next.acknowledge();
    if next == *state {
        return None;
    }
    if world.coarse {
        settle(world, &mut next);
    }
    next.canonical();
    (next != *state).then_some(next)
}

/// Do at once what commutes with everything else.
fn settle(world: &World, state: &mut State) {
    loop {
        let before = state.clone();
        let between_sites = |h: HostNumber, f: HostNumber| world.switching.is_some() && site(h) != site(f);
        for (host, from) in HOSTS.into_iter().flat_map(|host| HOSTS.map(|from| (host, from))) {
            if between_sites(host, from) || site(host) == site(from) && world.switching != Some(site(host)) {
                hear(state, host, from);
            }
        }
        let quiet: &[HostNumber] = match world.switching {
            None => &[S1B, S2B],
            Some(0) => &[S2A, S2B],
            Some(_) => &[S1A, S1B],
        };
        for host in quiet {
            if state.host(*host).up {
                agent::round(world, state, *host, false);
            }
        }
        if world.switching != Some(1) {
            happen(world, state, Action::Stream(S2B));
        }
        if state.host(S1B).record.failed_over {
            happen(world, state, Action::Stream(S1B));
        }
        for host in HOSTS {
            let stages = |ask| matches!(ask, Ask::Promote(_) | Ask::HandOver(_) | Ask::Rewind(_) | Ask::Reopen(..));
            if state.host(host).executing.first().is_some_and(|(order, _)| !stages(order.ask)) {
                agent::execute(world, state, host);
            }
        }
        let own = |m: &Message| m.awaited && m.from == m.to && world.authorities.contains(&m.from);
        if let Some(at) = state.network.iter().position(|m| own(m) && matches!(m.what, What::SetRecord { .. })) {
            deliver(world, state, at as u8);
        }
        state.acknowledge();
        if *state == before {
            return;
        }
    }
}

fn happen(world: &World, state: &mut State, action: Action) {
    match action {
        Action::Post(host) => post(state, host),
        Action::Stream(host) => {
            if state.streams(host)
                && let Some(upstream) = state.host(host).upstream
            {
                let log = state.host(upstream).log;
                let h = state.host_mut(host);
                h.log = log.first(if world.coarse { log.len() } else { h.log.len() + 1 });
            }
        }
        Action::Ship(host) => ship(world, state, host),
        Action::FromShare(host) => from_share(world, state, host),
        Action::SettingArrives(host) => {
            let h = state.host_mut(host);
            h.waits_really |= h.postgres == Postgres::Writer && h.waits_for.is_some();
        }
        Action::Hear { host, from } => hear(state, host, from),
        Action::Round(host) => agent::round(world, state, host, false),
        Action::RoundUnanswered(host) => agent::round(world, state, host, true),
        Action::Execute(host) => agent::execute(world, state, host),
        Action::Start(at, book) => conductor::start(world, state, at, book),
        Action::Abort(at) => conductor::abort(world, state, at),
        Action::Turn(at) => conductor::turn(world, state, at, 0),
        Action::LateTurn(at) => conductor::turn(world, state, at, 700_000),
        Action::Deliver(at) => deliver(world, state, at),
        Action::Lose(at) => {
            state.network.remove(usize::from(at));
        }
        Action::Delay(at) => {
            state.network[usize::from(at)].awaited = false;
            state.left.delays -= 1;
        }
        Action::CrashAgent { host, sent } => {
            state.left.agent_crashes -= 1;
            crash_agent(world, state, host, sent);
        }
        Action::Reboot(host) => {
            state.left.reboots -= 1;
            state.stop(host, false);
            crash_agent(world, state, host, false);
        }
        Action::StopCleanly(host) => {
            if state.host(host).postgres == Postgres::Writer {
                state.left.clean_stops -= 1;
                agent::stop_cleanly(state, host, None);
            }
        }
        Action::LoseSite1 => {
            state.left.site_losses -= 1;
            [S1A, S1B].into_iter().for_each(|host| lose(world, state, host));
        }
        Action::LoseHost(host) => {
            state.left.host_losses -= 1;
            lose(world, state, host);
        }
        Action::Return => state.hosts.iter_mut().for_each(|h| h.up = true),
        Action::Cut => {
            state.left.cuts -= 1;
            state.linked = false;
        }
        Action::Heal => state.linked = true,
    }
}

fn lose(world: &World, state: &mut State, host: HostNumber) {
    state.stop(host, false);
    crash_agent(world, state, host, false);
    state.host_mut(host).up = false;
}

fn crash_agent(world: &World, state: &mut State, host: HostNumber, sent: bool) {
    agent::restart(world, state, host);
    if let Some(at) = world.authorities.iter().position(|a| *a == host) {
        conductor::restart(state, at as Site);
        if sent && state.left.delays > 0 && state.network.iter().any(|m| m.awaited && m.from == host) {
            state.left.delays -= 1;
            state.network.iter_mut().filter(|m| m.from == host).for_each(|m| m.awaited = false);
        } else {
            state.network.retain(|m| !(m.from == host && m.awaited));
        }
    }
}

/// A server, however old its record, may write wherever some record has named a principal of the database's epoch.
fn post(state: &mut State, host: HostNumber) {
    let h = state.host(host);
    let epoch = h.log.epoch();
    if state.left.posts == 0 || h.postgres != Postgres::Writer || state.named[usize::from(epoch)] & 1 << host == 0 {
        return;
    }
    state.left.posts -= 1;
    let post = state.posts;
    state.posts += 1;
    state.host_mut(host).log.push(Entry::Post(post));
}

/// Into the folder of the writer's own epoch, as long as the share takes it.
fn ship(world: &World, state: &mut State, host: HostNumber) {
    let h = state.host(host);
    // The folder is that of the record's epoch, which a writer that was opened again has begun without a promotion.
    let epoch = if h.log.epoch() == h.record.epoch { h.record.epoch } else { h.log.writer() };
    let shipped = state.share[usize::from(epoch)];
    if h.postgres == Postgres::Writer && epoch >= state.share_open_from && shipped.is_prefix_of(h.log) {
        state.share[usize::from(epoch)] = h.log.first(if world.coarse { h.log.len() } else { shipped.len() + 1 });
    }
}

fn from_share(world: &World, state: &mut State, host: HostNumber) {
    let h = state.host(host);
    let open = usize::from(state.share_open_from);
    let fed = h.record.backup == Some(host) && h.shipping_stopped_in != h.record.epoch;
    if h.postgres != Postgres::Standby || !fed || world.coarse && state.streams(host) {
        return;
    }
    let own = h.log;
    let ahead = state.share[open..].iter().find(|log| own.is_prefix_of(**log) && log.len() > own.len());
    if let Some(log) = ahead.copied() {
        state.host_mut(host).log = log.first(if world.coarse { log.len() } else { own.len() + 1 });
    }
}

fn hear(state: &mut State, host: HostNumber, from: HostNumber) {
    if !state.reaches(host, from) {
        return;
    }
    let heard = state.host(from).record;
    let h = state.host_mut(host);
    h.heard_other_site |= site(host) != site(from);
    if heard.supersedes(&h.record) {
        agent::keep(state, host, heard);
    }
}

fn deliver(world: &World, state: &mut State, at: u8) {
    let message = state.network[usize::from(at)];
    if !state.reaches(message.from, message.to) {
        return;
    }
    state.network.remove(usize::from(at));
    match message.what {
        What::Give(order) => agent::take(world, state, message.to, order),
        What::SetRecord { record, ends_run } => {
            let swapped = agent::swap(world, state, message.to, record);
            if ends_run
                && swapped == Swapped::Taken
                && message.awaited
                && let Some(run) = &mut state.runs[usize::from(site(message.from))]
            {
                run.over = true;
            }
        }
    }
}
