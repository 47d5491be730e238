//! The conductor at a site's authority, as `crates/conductor` behaves: look, decide by `cluster::runbook::advance` over the
//! real tables of steps, journal, act. What is in `Run` beside `claimed` and `acted` is its journal. Each authority carries
//! one run at a time; those of both may be under way at once, begun by two administrators.

use crate::protection::Protection;
use crate::state::{Book, HOSTS, Message, Run, State, What};
use crate::words;
use crate::world::World;
use cluster::abort::{abort_of, past_return};
use cluster::limits::{self, GAP_BEGINS, Limits, Progress};
use cluster::name::HostName;
use cluster::record::{PoolRecord, RunRef};
use cluster::report::HostReport;
use cluster::runbook::{Deed, Facts, Next, Silence, View, advance};
use cluster::topology::Topology;
use std::collections::BTreeMap;

/// The site whose authority carries a run: 0 or 1.
pub type Site = u8;

/// One look at everybody that answers.
struct Look {
    topology: Topology,
    record: PoolRecord,
    reports: BTreeMap<HostName, HostReport>,
    silent: BTreeMap<HostName, Silence>,
    facts: Facts,
    age_ms: u64,
}

impl Look {
    fn view(&self) -> View<'_> {
        View {
            topology: &self.topology,
            record: &self.record,
            reports: &self.reports,
            silent: &self.silent,
            facts: &self.facts,
            step_age_ms: self.age_ms,
        }
    }
}

fn look(world: &World, state: &State, at: Site, before: Option<&Run>, age_ms: u64) -> Look {
    let here = world.authority(at);
    let mut reports = BTreeMap::new();
    let mut silent = BTreeMap::new();
    let mut newest = state.host(here).record;
    for host in HOSTS {
        if !state.reaches(here, host) {
            silent.insert(words::name(host), Silence::Refused);
            continue;
        }
        reports.insert(words::name(host), words::report(world, state, host));
        if state.host(host).record.supersedes(&newest) {
            newest = state.host(host).record;
        }
    }
    let first = before.map_or(newest, |run| run.before);
    let facts = Facts {
        before: words::record(&first),
        from_site: crate::state::SITES[usize::from(first.home)].into(),
        to_site: crate::state::SITES[usize::from(1 - first.home)].into(),
        force: world.force,
        exposure: BTreeMap::new(),
        new_principal: None,
        automatic: None,
        limits: None,
    };
    Look { topology: world.topology.clone(), record: words::record(&newest), reports, silent, facts, age_ms }
}

/// An administrator starts a run. Nothing happens when the runbook's own checks speak against it, or another run holds the
/// pool and may not be replaced.
pub fn start(world: &World, state: &mut State, at: Site, book: Book) {
    let look = look(world, state, at, None, 0);
    let view = look.view();
    let runbook = World::runbook(book);
    let before = words::from_record(&look.record);
    let unmet = (runbook.preflight)(&view);
    // One that has not claimed the pool yet, or is carried out here too, is the run that this one would be.
    let own = state.runs[usize::from(at)].filter(|run| !run.over);
    if own.is_some_and(|run| run.id != before.run || run.book == book) {
        return;
    }
    if before.run != 0 && !may_replace(world, state, at, book, &look) {
        return;
    }
    if before.run == 0 && (runbook.already)(&view).is_some() {
        return;
    }
    if unmet.iter().any(|u| !(u.can_be_forced && world.force)) {
        return;
    }
    let last = state.runs.iter().flatten().map(|r| r.id).max().unwrap_or(0);
    state.runs[usize::from(at)] = Some(Run {
        id: book.number_after(last),
        book,
        before,
        done: 0,
        ordered: 0,
        undoing: false,
        over: false,
        claimed: false,
        acted: false,
    });
    let left = &mut state.left;
    let counted = match book {
        Book::Failover => &mut left.failovers,
        Book::Failback => &mut left.failbacks,
        Book::Switch => &mut left.switches,
        Book::Force => &mut left.forces,
        Book::Planned => &mut left.planned,
    };
    *counted -= 1;
}

/// A failover may take the place of a run whose carrier is lost, or of a switch that stands still without a writer.
fn may_replace(world: &World, state: &State, at: Site, book: Book, look: &Look) -> bool {
    let record = words::from_record(&look.record);
    let home = world.authority(record.home);
    let own = state.runs[usize::from(at)].filter(|run| run.id == record.run);
    let carrier_is_lost = own.is_some() || look.silent.contains_key(&words::name(home));
    let standing = Book::of(record.run);
    let other = world.authority(1 - record.home);
    if standing == Book::Planned && record.failed_over && own.is_none() && look.silent.contains_key(&words::name(other))
    {
        return true;
    }
    let no_writer = (standing.switches() || standing == Book::Planned) && record.principal.is_none();
    book == Book::Failover && Book::of(record.run) != book && !record.failed_over && (carrier_is_lost || no_writer)
}

/// Whether a run's process is about to look again: it lives, and nothing that it gave is unanswered.
pub fn may_look(world: &World, state: &State, at: Site) -> bool {
    let here = world.authority(at);
    state.host(here).up
        && state.runs[usize::from(at)].is_some_and(|r| !r.over)
        && !state.network.iter().any(|m| m.awaited && m.from == here)
}

/// The process of a run ends, and is started again at once.
pub fn restart(state: &mut State, at: Site) {
    if let Some(run) = &mut state.runs[usize::from(at)] {
        run.claimed = false;
        run.acted = false;
    }
}

/// Look, decide, and put what is to be done on its way. `age_ms` is how long the step has been under way.
pub fn turn(world: &World, state: &mut State, at: Site, age_ms: u64) {
    let Some(mut run) = state.runs[usize::from(at)] else { return };
    let look = look(world, state, at, Some(&run), age_ms);
    if run.undoing {
        return undo(world, state, at, run, &look);
    }
    if !run.claimed {
        claim(world, state, at, run, &look);
        return;
    }
    let steps = world.steps(run.book);
    let Some(step) = steps.get(usize::from(run.done)) else {
        finish(world, state, at, run, &look);
        return;
    };
    if !holds(&run, &look.record) {
        // Somebody else has the pool: the claim says so.
        run.claimed = false;
        state.runs[usize::from(at)] = Some(run);
        return;
    }
    if gives_up(world, &run, &look) {
        (run.undoing, run.done, run.acted) = (true, 0, false);
        state.runs[usize::from(at)] = Some(run);
        return;
    }
    match advance(step, &look.view(), run.acted) {
        Next::StepDone(_) => {
            run.done += 1;
            run.acted = false;
        }
        Next::Act(deeds) => {
            run.acted = true;
            run.ordered |= 1 << run.done;
            give(world, state, at, run.id, &look.record, deeds);
        }
        Next::Blocked(_) | Next::Wait(_) => {}
    }
    state.runs[usize::from(at)] = Some(run);
}

/// Whether users have noticed a planned failover for so long that it is undone by itself: `Run::breaks_limit`, `Run::gives_up`.
fn gives_up(world: &World, run: &Run, look: &Look) -> bool {
    let runbook = World::runbook(run.book);
    let noticed = run.book == Book::Planned && look.age_ms > 0 && has_ordered(world, run, GAP_BEGINS);
    let progress = Progress { gap_ms: Some(look.age_ms), ..Progress::default() };
    noticed
        && past_return(runbook, |id| has_ordered(world, run, id)).is_none()
        && limits::broken(&Limits::default(), &progress, &look.view()).is_some()
        && abort_of(runbook).is_some_and(|abort| (abort.preflight)(&look.view()).is_empty())
}

/// An administrator wants the run undone. Nothing happens when it is past return, or something speaks against it. What the
/// run's process waits for it does not wait for any more.
pub fn abort(world: &World, state: &mut State, at: Site) {
    let Some(mut run) = state.runs[usize::from(at)] else { return };
    let look = look(world, state, at, Some(&run), 0);
    let (runbook, steps) = (World::runbook(run.book), world.steps(run.book));
    let Some(abort) = abort_of(runbook) else { return };
    let ended = usize::from(run.done) == steps.len();
    let past = past_return(runbook, |id| has_ordered(world, &run, id)).is_some();
    if run.over
        || run.undoing
        || !holds(&run, &look.record)
        || ended
        || past
        || !(abort.preflight)(&look.view()).is_empty()
    {
        return;
    }
    state.left.aborts -= 1;
    run.undoing = true;
    run.done = 0;
    run.acted = false;
    state.runs[usize::from(at)] = Some(run);
    let here = world.authority(at);
    state.network.iter_mut().filter(|m| m.from == here).for_each(|m| m.awaited = false);
}

fn holds(run: &Run, record: &PoolRecord) -> bool {
    record.run.as_ref().is_some_and(|holder| holder.id == run.id.to_string())
}

fn has_ordered(world: &World, run: &Run, id: &str) -> bool {
    let at = world.steps(run.book).iter().position(|s| s.id == id);
    at.is_some_and(|at| run.ordered & 1 << at != 0)
}

fn undo(world: &World, state: &mut State, at: Site, mut run: Run, look: &Look) {
    let Some(abort) = abort_of(World::runbook(run.book)) else { return };
    let mut steps: Vec<_> = abort.steps_after(|id| has_ordered(world, &run, id)).collect();
    steps.retain(|step| step.id != "part-pair" || world.on(Protection::PartsThePair));
    let Some(step) = steps.get(usize::from(run.done)) else {
        return finish(world, state, at, run, look);
    };
    if !holds(&run, &look.record) {
        run.over = true;
        state.runs[usize::from(at)] = Some(run);
        return;
    }
    match advance(step, &look.view(), run.acted) {
        Next::StepDone(_) => {
            run.done += 1;
            run.acted = false;
        }
        Next::Act(deeds) => {
            run.acted = true;
            give(world, state, at, run.id, &look.record, deeds);
        }
        Next::Blocked(_) | Next::Wait(_) => {}
    }
    state.runs[usize::from(at)] = Some(run);
}

fn claim(world: &World, state: &mut State, at: Site, mut run: Run, look: &Look) {
    let replaced = look.facts.before.run.as_ref().map(|before| &before.id);
    match &look.record.run {
        Some(_) if holds(&run, &look.record) => run.claimed = true,
        Some(holder) if replaced == Some(&holder.id) => send_claim(world, state, at, &mut run, look),
        Some(_) => run.over = true,
        None if look.record.epoch > look.facts.before.epoch || run.done > 0 => run.over = true,
        None => send_claim(world, state, at, &mut run, look),
    }
    state.runs[usize::from(at)] = Some(run);
}

/// `Run::claim`: what speaks against the run is asked again where the record has changed since it was looked at.
fn send_claim(world: &World, state: &mut State, from: Site, run: &mut Run, look: &Look) {
    let view = look.view();
    let runbook = World::runbook(run.book);
    let changed = look.record.version != look.facts.before.version && world.on(Protection::AskedAgainOnClaim);
    if changed && (runbook.preflight)(&view).iter().any(|u| !(u.can_be_forced && world.force)) {
        run.over = true;
        return;
    }
    let by: RunRef = words::run_ref(run.id);
    let (mut record, at) = (runbook.claim)(&view, by);
    if record.epoch > look.record.epoch && !world.on(Protection::EpochsOfSites) {
        record.epoch = look.record.epoch.next();
    }
    set_record(world, state, from, &record, at.as_str(), false);
}

fn finish(world: &World, state: &mut State, at: Site, mut run: Run, look: &Look) {
    let mut record = look.record.clone();
    if record.run.as_ref().is_some_and(|r| r.id == run.id.to_string()) {
        record.run = None;
        record.version += 1;
        let home = record.home.clone();
        set_record(world, state, at, &record, home.as_str(), true);
    } else {
        run.over = true;
    }
    state.runs[usize::from(at)] = Some(run);
}

fn set_record(world: &World, state: &mut State, from: Site, record: &PoolRecord, at: &str, ends_run: bool) {
    let authority = world.authorities[usize::from(at == crate::state::SITES[1])];
    let what = What::SetRecord { record: words::from_record(record), ends_run };
    state.network.push(Message { from: world.authority(from), to: authority, awaited: true, what });
}

/// `Run::act`: the stamps are in the journal before anything goes out.
fn give(world: &World, state: &mut State, from: Site, run: u8, record: &PoolRecord, deeds: Vec<Deed>) {
    let epochs = deeds.iter().map(|d| match d {
        Deed::SetRecord { record, .. } => record.epoch.0,
        Deed::Give { .. } => record.epoch.0,
    });
    let epoch = epochs.max().unwrap_or(record.epoch.0) as u8;
    for deed in deeds {
        match deed {
            Deed::SetRecord { record, at } => set_record(world, state, from, &record, at.as_str(), false),
            Deed::Give { host, order } => {
                let stamp = (epoch, state.next_stamp);
                state.next_stamp += 1;
                let given = crate::state::Stamped { stamp, run, ask: words::from_order(&order) };
                let to = words::number(&host);
                state.network.push(Message { from: world.authority(from), to, awaited: true, what: What::Give(given) });
            }
        }
    }
}
