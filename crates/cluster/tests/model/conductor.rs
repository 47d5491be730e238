//! The conductor at site 2's authority, as `crates/conductor` behaves: look, decide by `cluster::runbook::advance` over the
//! real tables of steps, journal, act. What is in `Run` beside `claimed` and `acted` is its journal.

use crate::state::{Book, HOSTS, Message, Run, State, What};
use crate::words;
use crate::world::World;
use cluster::abort::{abort_of, past_return};
use cluster::name::HostName;
use cluster::record::{PoolRecord, RunRef};
use cluster::report::HostReport;
use cluster::runbook::{Deed, Facts, Next, Silence, View, advance};
use cluster::topology::Topology;
use std::collections::BTreeMap;

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

fn look(world: &World, state: &State, before: Option<&Run>, age_ms: u64) -> Look {
    let here = world.conductor();
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
    };
    Look { topology: world.topology.clone(), record: words::record(&newest), reports, silent, facts, age_ms }
}

/// An administrator starts a run. Nothing happens when the runbook's own checks speak against it.
pub fn start(world: &World, state: &mut State, book: Book) {
    let look = look(world, state, None, 0);
    let view = look.view();
    let runbook = World::runbook(book);
    let unmet = (runbook.preflight)(&view);
    if look.record.run.is_some() || (runbook.already)(&view).is_some() {
        return;
    }
    if unmet.iter().any(|u| !(u.can_be_forced && world.force)) {
        return;
    }
    let before = words::from_record(&look.record);
    let id = state.run.map_or(1, |r| r.id + 1);
    state.run =
        Some(Run { id, book, before, done: 0, ordered: 0, undoing: false, over: false, claimed: false, acted: false });
    match book {
        Book::Failover => state.left.failovers -= 1,
        Book::Failback => state.left.failbacks -= 1,
    }
}

/// Whether the run's process is about to look again: it lives, and nothing that it gave is unanswered.
pub fn may_look(world: &World, state: &State) -> bool {
    state.host(world.conductor()).up
        && state.run.is_some_and(|r| !r.over)
        && !state.network.iter().any(|m| m.awaited && m.from == world.conductor())
}

/// The process of the run ends, and is started again at once.
pub fn restart(state: &mut State) {
    if let Some(run) = &mut state.run {
        run.claimed = false;
        run.acted = false;
    }
}

/// Look, decide, and put what is to be done on its way. `age_ms` is how long the step has been under way.
pub fn turn(world: &World, state: &mut State, age_ms: u64) {
    let Some(mut run) = state.run else { return };
    let look = look(world, state, Some(&run), age_ms);
    if run.undoing {
        return undo(world, state, run, &look);
    }
    if !run.claimed {
        claim(world, state, run, &look);
        return;
    }
    let steps = world.steps(run.book);
    let Some(step) = steps.get(usize::from(run.done)) else {
        finish(world, state, run, &look);
        return;
    };
    match advance(step, &look.view(), run.acted) {
        Next::StepDone(_) => {
            run.done += 1;
            run.acted = false;
        }
        Next::Act(deeds) => {
            run.acted = true;
            run.ordered |= 1 << run.done;
            give(world, state, run.id, &look.record, deeds);
        }
        Next::Blocked(_) | Next::Wait(_) => {}
    }
    state.run = Some(run);
}

/// An administrator wants the run undone. Nothing happens when it is past return, or something speaks against it. What the
/// run's process waits for it does not wait for any more.
pub fn abort(world: &World, state: &mut State) {
    let Some(mut run) = state.run else { return };
    let look = look(world, state, Some(&run), 0);
    let (runbook, steps) = (World::runbook(run.book), world.steps(run.book));
    let Some(abort) = abort_of(runbook) else { return };
    let holds = look.record.run.as_ref().is_some_and(|holder| holder.id == run.id.to_string());
    let ended = usize::from(run.done) == steps.len();
    let past = past_return(runbook, |id| has_ordered(world, &run, id)).is_some();
    if run.over || run.undoing || !holds || ended || past || !(abort.preflight)(&look.view()).is_empty() {
        return;
    }
    state.left.aborts -= 1;
    run.undoing = true;
    run.done = 0;
    run.acted = false;
    state.run = Some(run);
    let here = world.conductor();
    state.network.iter_mut().filter(|m| m.from == here).for_each(|m| m.awaited = false);
}

fn has_ordered(world: &World, run: &Run, id: &str) -> bool {
    let at = world.steps(run.book).iter().position(|s| s.id == id);
    at.is_some_and(|at| run.ordered & 1 << at != 0)
}

fn undo(world: &World, state: &mut State, mut run: Run, look: &Look) {
    let Some(abort) = abort_of(World::runbook(run.book)) else { return };
    let steps: Vec<_> = abort.steps_after(|id| has_ordered(world, &run, id)).collect();
    let Some(step) = steps.get(usize::from(run.done)) else {
        return finish(world, state, run, look);
    };
    match advance(step, &look.view(), run.acted) {
        Next::StepDone(_) => {
            run.done += 1;
            run.acted = false;
        }
        Next::Act(deeds) => {
            run.acted = true;
            give(world, state, run.id, &look.record, deeds);
        }
        Next::Blocked(_) | Next::Wait(_) => {}
    }
    state.run = Some(run);
}

fn claim(world: &World, state: &mut State, mut run: Run, look: &Look) {
    let mine = run.id.to_string();
    match &look.record.run {
        Some(holder) if holder.id == mine => run.claimed = true,
        Some(_) => run.over = true,
        None if look.record.epoch > look.facts.before.epoch || run.done > 0 => run.over = true,
        None => {
            let by: RunRef = words::run_ref(run.id);
            let (record, at) = (World::runbook(run.book).claim)(&look.view(), by);
            set_record(world, state, &record, at.as_str(), false);
        }
    }
    state.run = Some(run);
}

fn finish(world: &World, state: &mut State, mut run: Run, look: &Look) {
    let mut record = look.record.clone();
    if record.run.as_ref().is_some_and(|r| r.id == run.id.to_string()) {
        record.run = None;
        record.version += 1;
        let home = record.home.clone();
        set_record(world, state, &record, home.as_str(), true);
    } else {
        run.over = true;
    }
    state.run = Some(run);
}

fn set_record(world: &World, state: &mut State, record: &PoolRecord, at: &str, ends_run: bool) {
    let authority = world.authorities[usize::from(at == crate::state::SITES[1])];
    let what = What::SetRecord { record: words::from_record(record), ends_run };
    state.network.push(Message { from: world.conductor(), to: authority, awaited: true, what });
}

/// `Run::act`: the stamps are in the journal before anything goes out.
fn give(world: &World, state: &mut State, run: u8, record: &PoolRecord, deeds: Vec<Deed>) {
    let epochs = deeds.iter().map(|d| match d {
        Deed::SetRecord { record, .. } => record.epoch.0,
        Deed::Give { .. } => record.epoch.0,
    });
    let epoch = epochs.max().unwrap_or(record.epoch.0) as u8;
    for deed in deeds {
        match deed {
            Deed::SetRecord { record, at } => set_record(world, state, &record, at.as_str(), false),
            Deed::Give { host, order } => {
                let stamp = (epoch, state.next_stamp);
                state.next_stamp += 1;
                let given = crate::state::Stamped { stamp, run, ask: words::from_order(&order) };
                let to = words::number(&host);
                state.network.push(Message { from: world.conductor(), to, awaited: true, what: What::Give(given) });
            }
        }
    }
}
