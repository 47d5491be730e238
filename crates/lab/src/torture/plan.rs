//! Episodes from a seed.

use super::draw::Draw;
use super::{Act, Blow, Episode, Kind, Part, Process, Typed};
use crate::protocol::LinkState;
use cluster::runbook::Runbook;

/// The parts of the home site.
const AT_HOME: [Part; 3] = [Part::Principal, Part::Mirror, Part::Witness];
/// The hosts with a database.
const DATABASES: [Part; 4] = [Part::Principal, Part::Mirror, Part::Backup, Part::BackupMirror];
/// Every host.
const HOSTS: [Part; 6] =
    [Part::Principal, Part::Mirror, Part::Backup, Part::BackupMirror, Part::Witness, Part::OtherWitness];
/// Time that an agent needs until it carries runs again, when it was started anew to end at a point.
const ARMING: u64 = 1_200;
/// What a process can be of a host with a database.
const PROCESSES: [Process; 4] = [Process::All, Process::Agent, Process::Database, Process::Server];

/// An episode of a seed, of one of the kinds. The same arguments give the same episode.
pub fn episode(seed: u64, number: u64, kinds: &[Kind]) -> Episode {
    let mut draw = Draw::new(seed, number);
    let kind = if kinds.is_empty() { Kind::Site } else { draw.one(kinds) };
    let mut plan = Plan { draw, acts: Vec::new() };
    let last = match kind {
        Kind::Site => plan.site(),
        Kind::Disaster => plan.disaster(),
        Kind::Line => plan.line(),
        Kind::Split => plan.split(),
        Kind::Switch => plan.switch(),
        Kind::Planned => plan.planned(),
        Kind::Disk => plan.disk(),
        Kind::Damage => plan.damage(),
        Kind::Clock => plan.clock(),
        Kind::Page => plan.page(),
    };
    let mut acts = plan.acts;
    acts.sort_by_key(|act| act.at_ms);
    let heal_at_ms = acts.last().map_or(last, |act| act.at_ms.max(last));
    Episode { number, kind, acts, heal_at_ms }
}

struct Plan {
    draw: Draw,
    acts: Vec<Act>,
}

impl Plan {
    fn at(&mut self, at_ms: u64, blow: Blow) {
        self.acts.push(Act { at_ms, blow });
    }

    fn process(&mut self, part: Part) -> Process {
        if matches!(part, Part::Witness | Part::OtherWitness) { Process::All } else { self.draw.one(&PROCESSES) }
    }

    /// Lose a host, or something on it, and perhaps get it back.
    fn lose_one(&mut self, of: &[Part], at: u64) {
        let part = self.draw.one(of);
        let back = at + self.draw.between(300, 6_000);
        let returns = self.draw.percent(60);
        match self.draw.between(0, 9) {
            0..=4 => {
                let process = self.process(part);
                self.at(at, Blow::Kill(part, process));
                if returns {
                    self.at(back, Blow::Start(part));
                }
            }
            5..=7 => {
                let process = self.process(part);
                self.at(at, Blow::Freeze(part, process));
                if returns {
                    self.at(back, Blow::Thaw(part, process));
                }
            }
            _ => {
                let link = self.draw.one(&[LinkState::Down, LinkState::Frozen, LinkState::Delayed(80)]);
                self.at(at, Blow::Links(part, link));
                if returns {
                    self.at(back, Blow::Links(part, LinkState::Up));
                }
            }
        }
    }

    fn lose(&mut self, of: &[Part], most: u64, from: u64, to: u64) {
        for _ in 0..self.draw.between(1, most) {
            let at = self.draw.between(from, to);
            self.lose_one(of, at);
        }
    }

    fn site(&mut self) -> u64 {
        self.lose(&AT_HOME, 4, 200, 6_000);
        self.draw.between(6_000, 12_000)
    }

    /// Have the next run, which this host carries, stopped at a point of a runbook, more often than not. Tells whether it is.
    fn stop_somewhere(&mut self, at: u64, carrier: Part, runbook: &Runbook) -> bool {
        let stops = self.draw.percent(60);
        if stops {
            let steps: Vec<&str> = runbook.steps.iter().map(|step| step.id).collect();
            let step = self.draw.one(&steps);
            let when = self.draw.one(&["before", "during", "after"]);
            self.at(at, Blow::StopAt(carrier, format!("{}.{step}.{when}", runbook.name)));
        }
        stops
    }

    fn disaster(&mut self) -> u64 {
        let lost = self.draw.between(500, 3_000);
        self.stop_somewhere(50, Part::OtherWitness, cluster::failover::FAILOVER);
        let frozen = self.draw.percent(30);
        self.at(
            lost,
            if frozen { Blow::Freeze(Part::Home, Process::All) } else { Blow::Kill(Part::Home, Process::All) },
        );
        let typed = lost + self.draw.between(300, 2_500);
        self.at(typed, Blow::Type(Typed::Failover));
        let returned = typed + self.draw.between(3_000, 9_000);
        if self.draw.percent(40) {
            // The new principal's site is not left alone either.
            let at = self.draw.between(typed, returned);
            self.lose_one(&[Part::Backup, Part::BackupMirror], at);
        }
        self.at(returned, Blow::Thaw(Part::Home, Process::All));
        self.at(returned, Blow::Start(Part::Home));
        let again = returned + self.draw.between(1_500, 5_000);
        self.stop_somewhere(again - 1_000, Part::OtherWitness, cluster::failback::FAILBACK);
        self.at(again, Blow::Type(Typed::Failback));
        if self.draw.percent(60) {
            self.lose(&HOSTS, 2, again, again + 5_000);
        }
        again + self.draw.between(4_000, 9_000)
    }

    fn line(&mut self) -> u64 {
        let mut at = self.draw.between(200, 1_500);
        for _ in 0..self.draw.between(1, 3) {
            let link =
                self.draw.one(&[LinkState::Down, LinkState::Frozen, LinkState::Delayed(40), LinkState::Delayed(300)]);
            self.at(at, Blow::Line(link));
            at += self.draw.between(500, 5_000);
            self.at(at, Blow::Line(LinkState::Up));
            at += self.draw.between(100, 2_000);
        }
        if self.draw.percent(70) {
            self.lose(&HOSTS, 2, 200, at);
        }
        at
    }

    fn split(&mut self) -> u64 {
        let cut = self.draw.between(300, 2_000);
        let link = self.draw.one(&[LinkState::Down, LinkState::Frozen]);
        self.at(cut, Blow::Line(link));
        let forced = cut + self.draw.between(200, 3_000);
        self.at(forced, Blow::Type(Typed::ForcedFailover));
        if self.draw.percent(40) {
            self.lose(&HOSTS, 1, cut, forced + 3_000);
        }
        let healed = forced + self.draw.between(1_000, 6_000);
        self.at(healed, Blow::Line(LinkState::Up));
        healed + self.draw.between(1_000, 4_000)
    }

    fn switch(&mut self) -> u64 {
        let mut at = self.draw.between(200, 1_500);
        for _ in 0..self.draw.between(1, 2) {
            let forced = self.draw.percent(35);
            let runbook = if forced { cluster::switching::FORCE_MIRROR } else { cluster::switching::SWITCH_MIRROR };
            if self.stop_somewhere(at, Part::Witness, runbook) {
                at += ARMING;
            }
            if forced {
                let process = self.draw.one(&[Process::All, Process::Database]);
                self.at(at, Blow::Kill(Part::Principal, process));
                let typed = at + self.draw.between(50, 800);
                self.at(typed, Blow::Type(Typed::ForcedSwitch));
            } else {
                self.at(at, Blow::Type(Typed::Switch));
            }
            if self.draw.percent(70) {
                self.lose(&AT_HOME, 1, at, at + 1_500);
            }
            at += self.draw.between(3_000, 7_000);
        }
        at
    }

    fn planned(&mut self) -> u64 {
        self.stop_somewhere(50, Part::Witness, cluster::planned_failover::PLANNED_FAILOVER);
        let typed = ARMING + self.draw.between(100, 1_500);
        self.at(typed, Blow::Type(Typed::Planned));
        if self.draw.percent(60) {
            self.lose(&HOSTS, 2, typed, typed + 4_000);
        }
        let again = typed + self.draw.between(6_000, 10_000);
        self.stop_somewhere(again - ARMING, Part::OtherWitness, cluster::failback::FAILBACK);
        self.at(again, Blow::Type(Typed::Failback));
        if self.draw.percent(40) {
            self.lose(&HOSTS, 2, again, again + 5_000);
        }
        again + self.draw.between(4_000, 9_000)
    }

    fn disk(&mut self) -> u64 {
        let part = self.draw.one(&DATABASES);
        let at = self.draw.between(200, 2_000);
        let until = at + self.draw.between(1_500, 9_000);
        if self.draw.percent(50) {
            let kilobytes = self.draw.one(&[0, 64, 1_024, 8_192]);
            self.at(at, Blow::Fill(part, kilobytes));
            self.at(until, Blow::MakeRoom(part));
        } else {
            let ms = self.draw.one(&[100, 400, 2_000, 8_000]);
            self.at(at, Blow::Stall(part, ms));
            self.at(until, Blow::Unstall(part));
        }
        if self.draw.percent(50) {
            self.lose(&HOSTS, 1, at, until + 1_000);
        }
        until + self.draw.between(500, 3_000)
    }

    fn damage(&mut self) -> u64 {
        // The stream is away, so that the files are what the other site has.
        let cut = self.draw.between(200, 1_500);
        if self.draw.percent(50) {
            self.at(cut, Blow::Links(Part::Backup, LinkState::Down));
        }
        let damaged = cut + self.draw.between(500, 4_000);
        self.at(damaged, Blow::DamageShare);
        let lost = damaged + self.draw.between(100, 2_000);
        self.at(lost, Blow::Links(Part::Backup, LinkState::Up));
        self.at(lost, Blow::Kill(Part::Home, Process::All));
        self.at(lost + 500, Blow::Type(Typed::Failover));
        lost + self.draw.between(4_000, 8_000)
    }

    fn page(&mut self) -> u64 {
        let part = self.draw.one(&[Part::Mirror, Part::BackupMirror]);
        let at = self.draw.between(200, 2_000);
        for _ in 0..self.draw.between(1, 3) {
            let place = self.draw.between(0, 999);
            self.at(at, Blow::DamagePage(part, place));
        }
        let scrubbed = at + self.draw.between(100, 2_000);
        if self.draw.percent(60) {
            self.at(scrubbed, Blow::Type(Typed::Scrub));
        } else {
            // Or it meets the page itself, when it starts.
            self.at(scrubbed, Blow::Kill(part, Process::Database));
        }
        if self.draw.percent(50) {
            self.lose(&[Part::Mirror, Part::Backup, Part::BackupMirror], 2, at, scrubbed + 4_000);
        }
        scrubbed + self.draw.between(3_000, 8_000)
    }

    fn clock(&mut self) -> u64 {
        let part = self.draw.one(&HOSTS);
        let at = self.draw.between(500, 2_500);
        let seconds = self.draw.one(&[-86_400_i64, -3_600, -30, -2, 2, 30, 3_600, 86_400]);
        self.at(at, Blow::Clock(part, seconds));
        if self.draw.percent(40) {
            let back = at + self.draw.between(500, 4_000);
            self.at(back, Blow::Clock(part, 0));
        }
        self.lose(&AT_HOME, 2, at, at + 4_000);
        at + self.draw.between(5_000, 9_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_says_everything() {
        for number in 1..200 {
            assert_eq!(episode(7, number, &Kind::ALL), episode(7, number, &Kind::ALL));
        }
        assert_ne!(episode(7, 1, &Kind::ALL), episode(8, 1, &Kind::ALL));
    }

    #[test]
    fn the_episodes_of_a_seed_differ_and_are_of_every_kind() {
        let episodes: Vec<Episode> = (1..400).map(|n| episode(1, n, &Kind::ALL)).collect();
        let kinds: BTreeSet<Kind> = episodes.iter().map(|e| e.kind).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), Kind::ALL);
        let different: BTreeSet<String> = episodes.iter().map(|e| format!("{:?}", e.acts)).collect();
        assert!(different.len() > 390, "{}", different.len());
    }

    #[test]
    fn acts_are_in_order_and_over_before_everything_is_let_run_again() {
        for number in 1..1_000 {
            let episode = episode(3, number, &Kind::ALL);
            assert!(!episode.acts.is_empty(), "{episode:?}");
            assert!(episode.acts.windows(2).all(|w| w[0].at_ms <= w[1].at_ms), "{episode:?}");
            assert!(episode.acts.iter().all(|a| a.at_ms <= episode.heal_at_ms), "{episode:?}");
            assert!(episode.heal_at_ms < 40_000, "{episode:?}");
        }
    }

    #[test]
    fn every_point_of_every_runbook_that_changes_the_writer_comes_up() {
        let mut points = BTreeSet::new();
        for number in 1..8_000 {
            for act in episode(5, number, &[Kind::Disaster, Kind::Switch, Kind::Planned]).acts {
                if let Blow::StopAt(_, point) = act.blow {
                    points.insert(point);
                }
            }
        }
        let runbooks = [
            cluster::failover::FAILOVER,
            cluster::failback::FAILBACK,
            cluster::planned_failover::PLANNED_FAILOVER,
            cluster::switching::SWITCH_MIRROR,
            cluster::switching::FORCE_MIRROR,
        ];
        let steps: usize = runbooks.iter().map(|runbook| runbook.steps.len()).sum();
        assert_eq!(points.len(), 3 * steps);
    }

    #[test]
    fn only_the_kinds_that_are_wanted_come_up() {
        assert!((1..100).all(|n| episode(1, n, &[Kind::Disk]).kind == Kind::Disk));
    }
}
