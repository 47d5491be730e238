//! The witness: what it makes of a mirror that asks, and the run that carries a take-over out (`conductor::witness`,
//! `conductor::carry_out`).

use crate::state::{HOSTS, Number, Postgres, Record, Run, State};
use crate::words;
use crate::world::{LONG_MS, Mistake, World, carry_out};
use cluster::name::HostName;
use cluster::record::PoolRecord;
use cluster::report::HostReport;
use cluster::runbook::{self, Deed, Facts, Next, Silence, View};
use cluster::switching::FORCE_MIRROR;
use cluster::topology::Topology;
use cluster::witness::{Reach, TakeOver, TakeOverRequest, agrees};
use std::collections::BTreeMap;

impl World {
    /// The mirror's lookout, and what the witness makes of it.
    pub fn ask(&self, state: &mut State, host: Number) {
        let h = &state.hosts[host];
        let on_guard = h.record.is_some_and(|r| {
            let synchronised = r.mirror == Some((host, true)) || self.makes(Mistake::AgreeUnsynchronised);
            synchronised && r.mirror.is_some_and(|(m, _)| m == host) && r.principal.is_some() && r.run == 0
        });
        let lost = h.postgres == Postgres::Standby && !state.streams(host);
        let Some(mut record) = state.witness.record.filter(|_| on_guard && lost && state.meets_witness(host)) else {
            return;
        };
        let certain = state.witness.heard == [true; 2] || self.makes(Mistake::ForgetfulWitness);
        if state.witness.run.is_some() || !certain {
            return;
        }
        let Some(principal) = record.principal else { return };
        let seen = match (state.meets_witness(principal), state.hosts[principal].postgres) {
            (false, _) => Reach::Silent,
            (true, Postgres::Writer | Postgres::Standby) if self.makes(Mistake::AgreeWhileItAnswers) => Reach::Silent,
            (true, Postgres::Writer | Postgres::Standby) => Reach::Answers,
            (true, Postgres::Absent | Postgres::Stopped) => Reach::Refused,
        };
        if self.makes(Mistake::AgreeUnsynchronised) {
            record.mirror = record.mirror.map(|(m, _)| (m, true));
        }
        let request = TakeOverRequest { database: words::database(), mirror: words::name(host), silent_ms: LONG_MS };
        let Ok(take_over) = agrees(&self.topology, &words::witness(), &words::record(&record), &request, seen) else {
            return;
        };
        let refused = take_over.seen == Reach::Refused;
        let run = Run { id: state.witness.runs + 1, before: record, refused, done: 0, claimed: false, acted: false };
        let look = self.look(state, &run, false);
        let unmet = (FORCE_MIRROR.preflight)(&look.view());
        if unmet.is_empty() || self.makes(Mistake::AgreeUnsynchronised) || self.makes(Mistake::AgreeWhileItAnswers) {
            state.witness.runs += 1;
            state.witness.run = Some(run);
        }
    }

    fn look(&self, state: &State, run: &Run, late: bool) -> Look<'_> {
        let reports = words::reports(state);
        let silent = HOSTS.into_iter().map(words::name).filter(|h| !reports.contains_key(h));
        let newest = reports.values().filter_map(|r| r.record.clone());
        let own = state.witness.record.as_ref().map(words::record);
        let record = newest.chain(own).reduce(|best, r| if r.supersedes(&best) { r } else { best });
        let seen = if run.refused { Reach::Refused } else { Reach::Silent };
        let facts = Facts {
            before: words::record(&run.before),
            to_site: "site-1".into(),
            from_site: "site-1".into(),
            force: false,
            exposure: BTreeMap::new(),
            new_principal: None,
            limits: None,
            automatic: Some(TakeOver {
                database: words::database(),
                witness: words::witness(),
                seen,
                silent_ms: LONG_MS,
            }),
        };
        Look {
            topology: &self.topology,
            record: record.unwrap_or_else(|| words::record(&run.before)),
            silent: silent.map(|h| (h, Silence::TimedOut)).collect(),
            reports,
            facts,
            age_ms: if late { LONG_MS } else { 0 },
        }
    }

    /// One look of the run, and what it does: `conductor::carry_out`.
    pub fn turn(&self, state: &mut State, late: bool) {
        let Some(mut run) = state.witness.run.filter(|_| state.witness.up) else { return };
        let look = self.look(state, &run, late);
        let view = look.view();
        let mine = run.id.to_string();
        if !run.claimed {
            match &look.record.run {
                Some(holder) if holder.id == mine => run.claimed = true,
                Some(_) => return state.witness.run = None,
                None if look.record.epoch > look.facts.before.epoch || run.done > 0 => {
                    return state.witness.run = None;
                }
                None => {
                    let moved = look.record.version != look.facts.before.version;
                    if moved && !(FORCE_MIRROR.preflight)(&view).is_empty() {
                        return state.witness.run = None;
                    }
                    let (record, _) = (FORCE_MIRROR.claim)(&view, words::run_ref(run.id));
                    let mut record = words::from_record(&record);
                    if self.makes(Mistake::SameEpoch) {
                        record.epoch = run.before.epoch;
                    }
                    self.swap(state, record);
                }
            }
            state.witness.run = Some(run);
            return;
        }
        let Some(step) = FORCE_MIRROR.steps.get(usize::from(run.done)) else {
            let ended = words::from_record(&look.record);
            if self.swap(state, Record { run: 0, version: ended.version + 1, ..ended }) {
                state.witness.run = None;
            }
            return;
        };
        match runbook::advance(step, &view, run.acted) {
            Next::StepDone(_) => {
                run.done += 1;
                run.acted = false;
            }
            Next::Act(deeds) => {
                run.acted = true;
                for deed in deeds {
                    match deed {
                        Deed::SetRecord { record, .. } => {
                            self.swap(state, words::from_record(&record));
                        }
                        Deed::Give { host, order } => carry_out(state, words::number(&host), run.id, &order),
                    }
                }
            }
            Next::Blocked(_) | Next::Wait(_) => {}
        }
        state.witness.run = Some(run);
    }
}

/// One look of the run.
struct Look<'a> {
    topology: &'a Topology,
    record: PoolRecord,
    reports: BTreeMap<HostName, HostReport>,
    silent: BTreeMap<HostName, Silence>,
    facts: Facts,
    age_ms: u64,
}

impl Look<'_> {
    fn view(&self) -> View<'_> {
        View {
            topology: self.topology,
            record: &self.record,
            reports: &self.reports,
            silent: &self.silent,
            facts: &self.facts,
            step_age_ms: self.age_ms,
        }
    }
}
