//! Plans: what was found and what would be done, as a value. Printed, sent as JSON, or carried out.

use crate::Conductor;
use crate::agents::REPORT;
use crate::estimate::Estimates;
use crate::found;
use crate::observe::{Look, all_hosts, ask};
use cluster::Epoch;
use cluster::name::SiteName;
use cluster::record::{PoolRecord, PoolState, RunRef};
use cluster::runbook::{Done, Facts, Runbook, Step, Undo, View};
use cluster::switching::{self, FORCE_MIRROR, Partner};
use cluster::topology::Topology;
use std::collections::BTreeMap;
use wire::run::{Estimate, Plan, PlannedStep};

/// Everything that a plan is made from.
pub struct Situation {
    /// The topology.
    pub topology: Topology,
    /// The newest record; a first one, with version 0, before the pool is initialised.
    pub record: PoolRecord,
    /// What the hosts said.
    pub look: Look,
    /// What a run would work on.
    pub facts: Facts,
}

/// Look at everybody, and note what a run would work on.
pub async fn situation(
    conductor: &Conductor,
    force: bool,
    new_principal: Option<Partner>,
) -> Result<Situation, String> {
    let topology = conductor.agents.topology()?;
    let look = ask(&conductor.agents, &topology, all_hosts(&topology), REPORT).await;
    // Steps pass over hosts that were silent; one that has just returned must not count as such.
    conductor.observer.note(&look, &topology, &conductor.agents.site);
    let own = conductor.agents.own_record().await?;
    let newest = match (own, look.newest_record()) {
        (Some(own), Some(seen)) if seen.supersedes(&own) => Some(seen),
        (Some(own), _) => Some(own),
        (None, seen) => seen,
    };
    let record = newest.map_or_else(|| first_record(&topology), Ok)?;
    let facts = Facts { force, new_principal, ..facts(&topology, &record, conductor) };
    Ok(Situation { topology, record, look, facts })
}

fn first_record(topology: &Topology) -> Result<PoolRecord, String> {
    let home = topology.primary_site().ok_or("the topology has no site")?.name.clone();
    Ok(PoolRecord {
        version: 0,
        epoch: Epoch::FIRST,
        state: PoolState::Normal,
        home,
        active_servers: Vec::new(),
        databases: BTreeMap::new(),
        lost_sites: BTreeMap::new(),
        run: None,
    })
}

pub(crate) fn facts(topology: &Topology, record: &PoolRecord, conductor: &Conductor) -> Facts {
    let from_site: SiteName = record.home.clone();
    let to_site = topology.other_site(&from_site).map_or_else(|| from_site.clone(), |s| s.name.clone());
    let exposure = conductor.observer.exposure();
    Facts {
        before: record.clone(),
        to_site,
        from_site,
        force: false,
        exposure,
        new_principal: None,
        automatic: None,
        limits: None,
    }
}

impl Situation {
    /// The situation as steps see it.
    pub fn view<'a>(&'a self, facts: &'a Facts) -> View<'a> {
        View {
            topology: &self.topology,
            record: &self.record,
            reports: &self.look.reports,
            silent: &self.look.silent,
            facts,
            step_age_ms: 0,
        }
    }

    /// The plan of a runbook as things stand.
    pub fn plan(&self, runbook: &Runbook, estimates: &Estimates) -> Plan {
        let view = self.view(&self.facts);
        let mut found = found::sentences(&self.topology, &self.record, &self.look, &self.facts);
        if runbook.name == "failover" {
            found.extend(found::loss(&self.facts).into_iter().map(|l| format!("would be lost: {l}")));
        }
        if let Some(limits) = &self.facts.limits {
            found.push(cluster::limits::found(limits, estimates.gap_ms, &view));
        }
        if runbook.name == FORCE_MIRROR.name {
            found.extend(switching::loss(&view).into_iter().map(|l| format!("would be lost: {l}")));
        }
        if let Some(take_over) = &self.facts.automatic {
            found.push(cluster::witness::found(&self.record, take_over));
        }
        let steps = runbook.steps.iter().map(|step| planned(step, &view, estimates.steps.get(step.id).copied()));
        let steps = steps.collect();
        Plan { runbook: runbook.name.to_owned(), found, facts: self.facts.clone(), steps, estimate: estimates.total }
    }
}

impl Situation {
    /// The plan of one step of a runbook, as it would begin now: on the facts and in the claim of the run under way, else on
    /// those that it would have.
    pub fn plan_of_step(
        &self,
        runbook: &Runbook,
        step: &Step,
        under_way: Option<&Facts>,
        estimates: &Estimates,
    ) -> Plan {
        let mut now = Situation {
            topology: self.topology.clone(),
            record: self.record.clone(),
            look: self.look.clone(),
            facts: under_way.unwrap_or(&self.facts).clone(),
        };
        if under_way.is_none() {
            let by = RunRef {
                id: String::new(),
                runbook: runbook.name.to_owned(),
                started_by: String::new(),
                started_at: String::new(),
            };
            now.record = (runbook.claim)(&self.view(&self.facts), by).0;
        }
        let estimate = estimates.steps.get(step.id).copied();
        let steps = vec![planned(step, &now.view(&now.facts), estimate)];
        // Changes of the record are shown against what it is now.
        let facts = Facts { before: now.record.clone(), ..now.facts.clone() };
        let found = found::sentences(&self.topology, &self.record, &self.look, &now.facts);
        Plan { runbook: runbook.name.to_owned(), found, facts, steps, estimate }
    }
}

/// A step as part of a plan.
pub fn planned(step: &Step, view: &View<'_>, estimate: Option<Estimate>) -> PlannedStep {
    let (done, seen) = match (step.done)(view) {
        Done::Yes(evidence) => (true, evidence),
        Done::NotYet(missing) => (false, missing),
    };
    PlannedStep {
        id: step.id.to_owned(),
        reference: step.reference.to_owned(),
        says: step.says.to_owned(),
        deeds: (step.does)(view),
        done,
        seen,
        unmet: (step.needs)(view).err(),
        point_of_no_return: step.undo == Undo::PointOfNoReturn,
        estimate,
    }
}
