//! What is fixed for one exploration, what can happen next, and what comes of it.

use crate::agent::{self, Swapped};
use crate::conductor;
use crate::state::{
    Ask, Book, Bounds, EPOCHS_MAX, Entry, HOSTS, Host, HostNumber, Log, Message, Postgres, Record, S1A, S1B, S2A, S2B,
    State, What, site,
};
use crate::words;
use cluster::failback::FAILBACK;
use cluster::failover::FAILOVER;
use cluster::goal::{Goal, goal};
use cluster::order::Order;
use cluster::runbook::{Deed, Runbook, Step, View};
use cluster::topology::Topology;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A protection that a test may switch off, and expects to be missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// Failing over begins with the fence.
    FenceFirst,
    /// The fence closes the share to the old site.
    ShareCloses,
    /// An agent takes no older stamp.
    Stamps,
    /// A step is judged on what came of its own orders since it began, not on how things happened to stand before.
    OwnOrders,
    /// A returning instance asks before it opens for writing.
    ReturningAsks,
    /// "Not synchronised" is recorded before commits stop waiting.
    RecordBeforeExposure,
    /// "Synchronised" is recorded only when commits really wait and the mirror has confirmed what was there before.
    MirrorConfirms,
    /// Failing back salvages before it rewinds.
    SalvageFirst,
    /// The primary is brought online only with every byte of the old writer.
    EveryByte,
    /// An order that was under way when its agent died is reported as failed, so that it is given again.
    InterruptedOrdersFail,
    /// An agent notes a promotion before it promotes, and starts what was promoted.
    PromotionIsRememberedFirst,
    /// A request to record "synchronised" that was not answered is overruled before commits stop waiting.
    UnansweredIsOverruled,
}

/// What is fixed for one exploration.
pub struct World {
    pub authorities: [HostNumber; 2],
    pub topology: Topology,
    /// The administrator insists: a failover is started although site 1 answers.
    pub force: bool,
    /// What commutes with everything else is done at once: hosts of a site hear each other, the mirrors' agents follow their
    /// records, an order of one stage is carried out when it is taken. Fewer states; walks do without it.
    pub coarse: bool,
    pub off: Vec<Protection>,
    failover: Vec<Step>,
    failback: Vec<Step>,
    /// The product's answers to what is asked all the time.
    goals: RefCell<BTreeMap<(Record, HostNumber), Goal>>,
}

impl World {
    pub fn new(authorities: [HostNumber; 2], force: bool, off: &[Protection]) -> Self {
        let off = off.to_vec();
        let mut failover: Vec<Step> = FAILOVER.steps.iter().map(copy).collect();
        let mut failback: Vec<Step> = FAILBACK.steps.iter().map(copy).collect();
        if off.contains(&Protection::FenceFirst) {
            failover.remove(0);
        }
        if off.contains(&Protection::SalvageFirst) {
            failback.retain(|s| s.id != "salvage-tail");
        }
        if off.contains(&Protection::EveryByte) {
            let step = failback.iter_mut().find(|s| s.id == "restore-on-primary").expect("the step is there");
            step.does = |view| {
                let order = Order::Promote { database: words::database(), epoch: view.record.epoch };
                vec![Deed::Give { host: words::name(S1A), order }]
            };
        }
        if off.contains(&Protection::OwnOrders) {
            let step = failback.iter_mut().find(|s| s.id == "final-backup").expect("the step is there");
            step.does = final_backup_by_sight;
        }
        Self {
            authorities,
            topology: words::topology(authorities),
            force,
            coarse: true,
            off,
            failover,
            failback,
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

    /// Runs are carried out at the authority of site 2: it survives, and it is home while the pool is failed over.
    pub fn conductor(&self) -> HostNumber {
        self.authorities[1]
    }

    pub fn runbook(book: Book) -> &'static Runbook {
        match book {
            Book::Failover => FAILOVER,
            Book::Failback => FAILBACK,
        }
    }

    pub fn steps(&self, book: Book) -> &[Step] {
        match book {
            Book::Failover => &self.failover,
            Book::Failback => &self.failback,
        }
    }
}

/// The step without its protection: a writer that is seen stopped counts as handed over, whoever stopped it, and when.
fn final_backup_by_sight(view: &View<'_>) -> Vec<Deed> {
    let (host, database) = (words::name(S2A), words::database());
    let epoch = view.facts.before.epoch.next();
    if view.record.epoch >= epoch {
        return Vec::new();
    }
    let stopped = view.instance(&host, &database).is_some_and(|i| i.shut_down_at.is_some());
    if !stopped {
        return vec![Deed::Give { host, order: Order::HandOver { database, epoch } }];
    }
    vec![view.change(|record| {
        record.epoch = epoch;
        record.databases.values_mut().for_each(|d| d.principal = None);
    })]
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
    Start(Book),
    /// An administrator wants the run undone.
    Abort,
    /// The conductor looks, and acts on it.
    Turn,
    /// The same when the step has been waiting for long.
    LateTurn,
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
    Site1Returns,
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
        run: None,
        next_stamp: 1,
        left,
        posts: 0,
        acknowledged: [(0, 0); crate::state::POSTS_MAX],
        named,
        failed_over_to: 0,
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
            | Action::Cut
            | Action::RoundUnanswered(_) => true,
            Action::Site1Returns
            | Action::Heal
            | Action::Start(_)
            | Action::Abort
            | Action::Post(_)
            | Action::Stream(_)
            | Action::Ship(_)
            | Action::FromShare(_)
            | Action::SettingArrives(_)
            | Action::Hear { .. }
            | Action::Round(_)
            | Action::Execute(_)
            | Action::Turn
            | Action::LateTurn
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
        let others = HOSTS.into_iter().filter(|from| *from != host && (!world.coarse || host + from == S1A + S2A));
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
    if conductor::may_look(world, state) {
        all.push(Action::Turn);
    }
    if state.left.aborts > 0 && state.run.is_some_and(|r| !r.over) && state.host(world.conductor()).up {
        all.push(Action::Abort);
    }
    if state.run.is_none_or(|r| r.over) && state.host(world.conductor()).up {
        let books = [(Book::Failover, state.left.failovers), (Book::Failback, state.left.failbacks)];
        all.extend(books.into_iter().filter(|(_, left)| *left > 0).map(|(book, _)| Action::Start(book)));
    }
    all.extend((state.left.site_losses > 0 && state.host(S1A).up).then_some(Action::LoseSite1));
    all.extend((!state.host(S1A).up).then_some(Action::Site1Returns));
    all.extend((state.left.cuts > 0 && state.linked).then_some(Action::Cut));
    all.extend((!state.linked).then_some(Action::Heal));
    all
}

/// What comes of it; `None` when nothing does. A turn in which the conductor only waits is one in which it has waited for
/// long.
pub fn act(world: &World, state: &State, action: Action) -> Option<(Action, State)> {
    let late = || (action == Action::Turn).then(|| apply(world, state, Action::LateTurn)).flatten();
    let soon = apply(world, state, action).map(|next| (action, next));
    soon.or_else(|| late().map(|next| (Action::LateTurn, next)))
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
        for (host, from) in [(S1A, S1B), (S1B, S1A), (S2A, S2B), (S2B, S2A)] {
            hear(state, host, from);
        }
        for host in [S1B, S2B] {
            if state.host(host).up {
                agent::round(world, state, host, false);
            }
        }
        happen(world, state, Action::Stream(S2B));
        if state.host(S1B).record.failed_over {
            happen(world, state, Action::Stream(S1B));
        }
        for host in HOSTS {
            let stages = |ask| matches!(ask, Ask::Promote(_) | Ask::HandOver(_) | Ask::Rewind(_) | Ask::Reopen(_));
            if state.host(host).executing.first().is_some_and(|(order, _)| !stages(order.ask)) {
                agent::execute(world, state, host);
            }
        }
        let here = world.conductor();
        let own = |m: &Message| m.awaited && m.from == here && m.to == here;
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
        Action::Start(book) => conductor::start(world, state, book),
        Action::Abort => conductor::abort(world, state),
        Action::Turn => conductor::turn(world, state, 0),
        Action::LateTurn => conductor::turn(world, state, 700_000),
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
                agent::stop_cleanly(state, host);
            }
        }
        Action::LoseSite1 => {
            state.left.site_losses -= 1;
            for host in [S1A, S1B] {
                state.stop(host, false);
                crash_agent(world, state, host, false);
                state.host_mut(host).up = false;
            }
        }
        Action::Site1Returns => [S1A, S1B].into_iter().for_each(|host| state.host_mut(host).up = true),
        Action::Cut => {
            state.left.cuts -= 1;
            state.linked = false;
        }
        Action::Heal => state.linked = true,
    }
}

fn crash_agent(world: &World, state: &mut State, host: HostNumber, sent: bool) {
    agent::restart(world, state, host);
    if host == world.conductor() {
        conductor::restart(state);
        if sent && state.left.delays > 0 && state.network.iter().any(|m| m.awaited) {
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
                && let Some(run) = &mut state.run
            {
                run.over = true;
            }
        }
    }
}
