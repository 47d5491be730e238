//! May an instance that holds a writer's data open for writing after a start? Rule 6 of the runbooks: a returning
//! instance asks before it opens for writing, and stays as it is when nobody answers.

use crate::name::{DatabaseName, HostName, SiteName};
use crate::record::{Part, PoolRecord};
use std::collections::BTreeMap;

/// What the other hosts said, this start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The record of each host that answered, with the host's site.
    pub records: BTreeMap<HostName, (SiteName, PoolRecord)>,
    /// An administrator has told this site to start without its peer (`--without-peer`).
    pub without_peer: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MayOpen {
    /// Open for writing: this host is the principal of the newest record known.
    Open,
    /// Follow or stay stopped: a newer record gives the part of writer to somebody else.
    LeftBehind {
        /// The record that says so.
        epoch: rules::id::Epoch,
    },
    /// Nobody of the other site has answered yet.
    Ask {
        /// The site that must be asked.
        site: SiteName,
    },
}

/// May the instance of `database` on `host`, of `site`, open for writing? `own` is the newest record on this host's disk,
/// `other_site` the pool's other site, `None` in a pool of one.
pub fn may_open(
    database: &DatabaseName,
    host: &HostName,
    own: &PoolRecord,
    other_site: Option<&SiteName>,
    answers: &Answers,
) -> MayOpen {
    let newest =
        answers.records.values().map(|(_, r)| r).fold(own, |best, r| if r.supersedes(best) { r } else { best });
    let principal = newest.databases.get(database).and_then(|d| d.part_of(host)) == Some(Part::Principal);
    if !principal {
        return MayOpen::LeftBehind { epoch: newest.epoch };
    }
    let Some(other) = other_site else { return MayOpen::Open };
    // A site that has declared the other one lost needs no answer from it: the other can only have an older epoch,
    // because only this site's authority can raise it now.
    let declared_lost = newest.lost_sites.contains_key(other);
    let answered = answers.records.values().any(|(site, _)| site == other);
    if answered || declared_lost || answers.without_peer { MayOpen::Open } else { MayOpen::Ask { site: other.clone() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{DatabaseRecord, PoolState};
    use rules::id::Epoch;

    fn record(epoch: i64, principal: &str) -> PoolRecord {
        let mgc = DatabaseRecord { principal: Some(principal.into()), ..DatabaseRecord::default() };
        PoolRecord {
            version: 1,
            epoch: Epoch(epoch),
            state: PoolState::Normal,
            home: "site-1".into(),
            active_servers: vec![],
            databases: [("mgc".into(), mgc)].into(),
            lost_sites: BTreeMap::new(),
            run: None,
        }
    }

    fn check(own: &PoolRecord, other: Option<&str>, answers: &Answers, expect: &MayOpen) {
        let other = other.map(SiteName::from);
        assert_eq!(&may_open(&"mgc".into(), &"a".into(), own, other.as_ref(), answers), expect);
    }

    fn said(record: PoolRecord) -> Answers {
        Answers { records: [("c".into(), ("site-2".into(), record))].into(), without_peer: false }
    }

    #[test]
    fn a_lone_site_opens_by_itself() {
        check(&record(1, "a"), None, &Answers::default(), &MayOpen::Open);
    }

    #[test]
    fn silence_of_the_other_site_is_no_permission() {
        check(&record(1, "a"), Some("site-2"), &Answers::default(), &MayOpen::Ask { site: "site-2".into() });
        let told = Answers { without_peer: true, ..Answers::default() };
        check(&record(1, "a"), Some("site-2"), &told, &MayOpen::Open);
    }

    #[test]
    fn a_newer_epoch_leaves_the_old_writer_behind_even_when_told_to_start_alone() {
        let left = MayOpen::LeftBehind { epoch: Epoch(2) };
        check(&record(1, "a"), Some("site-2"), &said(record(2, "c")), &left);
        let told = Answers { without_peer: true, ..said(record(2, "c")) };
        check(&record(1, "a"), Some("site-2"), &told, &left);
    }

    #[test]
    fn the_same_record_at_the_other_site_is_permission() {
        check(&record(1, "a"), Some("site-2"), &said(record(1, "a")), &MayOpen::Open);
    }

    #[test]
    fn a_site_that_declared_the_other_lost_may_restart_alone() {
        let mut own = record(2, "a");
        own.lost_sites.insert("site-2".into(), Epoch(2));
        check(&own, Some("site-2"), &Answers::default(), &MayOpen::Open);
    }
}
