//! How durable a transaction is, as far as that is known when it has returned, and whether its posts may be acknowledged: pure.
//!
//! What counts is whose disk is known to hold its log, by what each standby has told the principal; never what was asked for. A
//! commit whose wait for the mirror ended because the agent gave the mirror up returns like any other.

use crate::name::HostName;
use crate::record::DatabaseRecord;
use rules::durability::{Durability, Rule, WhenUnavailable};
pub use rules::receipt::Durable;

/// What is missing is expected for so long before it counts as not to be had, in milliseconds; a standby that is not connected is
/// not expected at all.
pub const EXPECTED_MS: u64 = 1_000;

/// Whose disks hold a transaction.
///
/// `waited`: it was to wait for a synchronous standby, or all that was committed before has been confirmed since. `has_flushed`:
/// whether a standby has told that its disk holds the log up to the transaction's end.
///
/// A mirror that may take over, and has not told, makes it one disk, whoever else has told: the backup would follow the mirror, and be taken
/// back to what that one has.
pub fn known(record: &DatabaseRecord, waited: bool, has_flushed: impl Fn(&HostName) -> bool) -> Durable {
    let mirror = may_take_over(record);
    if mirror.is_some_and(|mirror| !has_flushed(mirror)) {
        return Durable::Disk;
    }
    if record.backup.as_ref().is_some_and(&has_flushed) {
        return Durable::Site;
    }
    if waited && mirror.is_some() { Durable::Mirror } else { Durable::Disk }
}

fn may_take_over(record: &DatabaseRecord) -> Option<&HostName> {
    record.mirror.as_ref().filter(|mirror| mirror.synchronised).map(|mirror| &mirror.host)
}

/// The mirror that is sure to have flushed the transaction, unless it was given up at this very moment.
pub fn synchronised_mirror(record: &DatabaseRecord, waited: bool) -> Option<&HostName> {
    may_take_over(record).filter(|_| waited)
}

/// What is to become of a post that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What its category asks for has been had.
    Acknowledge(Durable),
    /// It is acknowledged, with less than its category asks for.
    AsLess(Durable),
    /// It is neither acknowledged nor shown to anybody yet.
    Wait(Missing),
}

/// What a post waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// The principal has no mirror that is synchronised.
    Mirror,
    /// The mirror is there, and has not told yet.
    MirrorTells,
    /// The record has no backup at another site.
    Site,
    /// The backup is there, and has not told yet.
    SiteTells,
}

impl Missing {
    /// In the words of the setting.
    pub fn durability(self) -> Durability {
        match self {
            Missing::Mirror | Missing::MirrorTells => Durability::Mirror,
            Missing::Site | Missing::SiteTells => Durability::BothSites,
        }
    }
}

/// What the standbys have told, as far as it is about one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// The standbys that are connected, and whether each has flushed the log up to the transaction's end.
    pub standbys: &'a [(&'a str, bool)],
    /// The transaction was to wait for a synchronous standby, or is being looked at since.
    pub waited: bool,
    /// Since it was committed, in milliseconds.
    pub age_ms: u64,
}

/// May a post be acknowledged? `record`: who plays which part in the writer's epoch; `None` when that is not known, or somebody
/// else operates the database.
pub fn decide(rule: Rule, record: Option<&DatabaseRecord>, told: &Told<'_>) -> Verdict {
    let nobody = DatabaseRecord::default();
    let record = record.unwrap_or(&nobody);
    let has_flushed = |host: &HostName| told.standbys.iter().any(|(name, flushed)| *name == host.as_str() && *flushed);
    let durable = known(record, told.waited, has_flushed);
    let mirror = match rule.durability {
        Durability::Disk | Durability::Mirror => synchronised_mirror(record, told.waited),
        Durability::BothSites => may_take_over(record),
    };
    let missing = match rule.durability {
        // Whatever is committed is there.
        Durability::Disk => None,
        Durability::Mirror => match mirror {
            None => Some(Missing::Mirror),
            Some(host) => (!has_flushed(host)).then_some(Missing::MirrorTells),
        },
        Durability::BothSites if !record.backup.as_ref().is_some_and(has_flushed) => {
            Some(if record.backup.is_none() { Missing::Site } else { Missing::SiteTells })
        }
        Durability::BothSites => mirror.filter(|host| !has_flushed(host)).map(|_| Missing::MirrorTells),
    };
    let Some(missing) = missing else { return Verdict::Acknowledge(durable) };
    let is_connected = |host: &HostName| told.standbys.iter().any(|(name, _)| *name == host.as_str());
    let expected = match missing {
        Missing::Mirror | Missing::Site => false,
        Missing::MirrorTells => mirror.is_some_and(is_connected),
        Missing::SiteTells => record.backup.as_ref().is_some_and(is_connected),
    };
    match rule.when_unavailable {
        WhenUnavailable::Wait => Verdict::Wait(missing),
        // The commit itself has waited for the mirror, as long as the pair was synchronised.
        WhenUnavailable::AcknowledgeAsLess if rule.durability == Durability::Mirror => Verdict::AsLess(durable),
        WhenUnavailable::AcknowledgeAsLess if expected && told.age_ms < EXPECTED_MS => Verdict::Wait(missing),
        WhenUnavailable::AcknowledgeAsLess => Verdict::AsLess(durable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::MirrorRecord;

    fn record(synchronised: Option<bool>, backup: bool) -> DatabaseRecord {
        let mirror = synchronised.map(|synchronised| MirrorRecord { host: "m".into(), synchronised });
        let backup = backup.then(|| "b".into());
        DatabaseRecord { principal: Some("p".into()), mirror, backup, ..DatabaseRecord::default() }
    }

    fn check(synchronised: Option<bool>, waited: bool, flushed: &[&str], expect: Durable) {
        let durable = known(&record(synchronised, true), waited, |host| flushed.contains(&host.as_str()));
        assert_eq!(durable, expect, "{synchronised:?} {waited} {flushed:?}");
    }

    #[test]
    fn only_what_a_standby_has_told_counts() {
        check(Some(true), true, &["m"], Durable::Mirror);
        check(Some(true), true, &[], Durable::Disk);
        check(Some(true), true, &["m", "b"], Durable::Site);
        check(Some(true), false, &["m", "b"], Durable::Site);
        check(Some(false), false, &["b"], Durable::Site);
        check(None, true, &["other"], Durable::Disk);
    }

    #[test]
    fn a_mirror_counts_only_while_the_record_says_that_it_is_synchronised() {
        check(Some(false), true, &["m"], Durable::Disk);
        check(Some(true), false, &["m"], Durable::Disk);
    }

    #[test]
    fn what_a_take_over_inside_the_site_would_leave_behind_is_on_one_disk() {
        check(Some(true), true, &["b"], Durable::Disk);
        check(Some(true), false, &["b"], Durable::Disk);
        check(Some(false), true, &["b"], Durable::Site);
        check(None, false, &["b"], Durable::Site);
    }

    /// Every rule with every record and everything that standbys can have told.
    fn all(mut see: impl FnMut(Rule, Option<&DatabaseRecord>, &Told<'_>, Verdict)) {
        let records: Vec<Option<DatabaseRecord>> = [None, Some(false), Some(true)]
            .into_iter()
            .flat_map(|mirror| [false, true].map(|backup| Some(record(mirror, backup))))
            .chain([None])
            .collect();
        let states = [None, Some(false), Some(true)];
        for rule in Rule::ALL {
            for record in &records {
                for (m, b) in states.into_iter().flat_map(|m| states.map(|b| (m, b))) {
                    let standbys: Vec<(&str, bool)> =
                        [("m", m), ("b", b)].into_iter().filter_map(|(n, s)| Some((n, s?))).collect();
                    for (waited, age_ms) in [(false, 0), (true, 0), (false, EXPECTED_MS), (true, EXPECTED_MS)] {
                        let told = Told { standbys: &standbys, waited, age_ms };
                        see(rule, record.as_ref(), &told, decide(rule, record.as_ref(), &told));
                    }
                }
            }
        }
    }

    fn flushed(told: &Told<'_>, name: &str) -> bool {
        told.standbys.contains(&(name, true))
    }

    #[test]
    fn what_is_acknowledged_in_full_is_on_the_disks_that_were_asked_for() {
        all(|rule, record, told, verdict| {
            let Verdict::Acknowledge(level) = verdict else { return };
            let record = record.cloned().unwrap_or_default();
            let site = record.backup.is_some() && flushed(told, "b");
            let synchronised = record.mirror.is_some_and(|m| m.synchronised) && told.waited;
            match rule.durability {
                Durability::Disk => {}
                Durability::Mirror => assert!(synchronised && flushed(told, "m"), "{rule} {told:?}"),
                Durability::BothSites => assert!(site && (!synchronised || flushed(told, "m")), "{rule} {told:?}"),
            }
            assert!(level >= rule.durability.level(), "{rule} {told:?} {level}");
        });
    }

    #[test]
    fn a_rule_that_waits_never_acknowledges_as_less_and_one_that_asks_no_standby_never_waits() {
        all(|rule, _, told, verdict| match verdict {
            Verdict::AsLess(_) => assert!(!rule.waits(), "{rule} {told:?}"),
            Verdict::Wait(_) => assert!(rule.asks_standbys(), "{rule} {told:?}"),
            Verdict::Acknowledge(_) => {}
        });
    }

    #[test]
    fn what_may_be_less_waits_only_for_who_is_connected_and_only_for_a_while() {
        all(|rule, record, told, verdict| {
            if rule.waits() || !matches!(verdict, Verdict::Wait(_)) {
                return;
            }
            assert!(told.age_ms < EXPECTED_MS && record.is_some() && !told.standbys.is_empty(), "{rule} {told:?}");
        });
    }

    #[test]
    fn what_is_said_of_a_level_is_never_more_than_is_known() {
        all(|rule, record, told, verdict| {
            let (Verdict::Acknowledge(level) | Verdict::AsLess(level)) = verdict else { return };
            let record = record.cloned().unwrap_or_default();
            let known = known(&record, told.waited, |host| flushed(told, host.as_str()));
            assert_eq!(level, known, "{rule} {told:?}");
        });
    }

    #[test]
    fn what_asks_for_the_disk_alone_is_acknowledged_in_full_whatever_standbys_do() {
        all(|rule, _, told, verdict| {
            assert!(!rule.is_disk() || matches!(verdict, Verdict::Acknowledge(_)), "{rule} {told:?} {verdict:?}");
        });
    }

    #[test]
    fn it_is_said_what_is_waited_for() {
        let of = |rule: i16, record: &DatabaseRecord, standbys: &[(&str, bool)]| {
            let told = Told { standbys, waited: true, age_ms: 0 };
            decide(Rule::of_code(rule), Some(record), &told)
        };
        assert_eq!(of(1, &record(Some(false), true), &[("m", true)]), Verdict::Wait(Missing::Mirror));
        assert_eq!(of(1, &record(Some(true), true), &[("m", false)]), Verdict::Wait(Missing::MirrorTells));
        assert_eq!(of(1, &record(Some(true), true), &[("m", true)]), Verdict::Acknowledge(Durable::Mirror));
        assert_eq!(of(3, &record(Some(true), true), &[("m", true)]), Verdict::Wait(Missing::SiteTells));
        assert_eq!(of(3, &record(Some(true), false), &[("m", true)]), Verdict::Wait(Missing::Site));
        assert_eq!(of(3, &record(Some(true), true), &[("b", true)]), Verdict::Wait(Missing::MirrorTells));
        assert_eq!(of(3, &record(Some(false), true), &[("b", true)]), Verdict::Acknowledge(Durable::Site));
        assert_eq!(of(2, &record(Some(true), true), &[("m", true)]), Verdict::AsLess(Durable::Mirror));
        assert_eq!(of(2, &record(Some(true), true), &[("b", false)]), Verdict::Wait(Missing::SiteTells));
        assert_eq!(Missing::Site.durability(), Durability::BothSites);
    }
}
