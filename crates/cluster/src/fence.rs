//! May an instance that holds a writer's data open for writing after a start? Rule 6 of the runbooks: a returning
//! instance asks before it opens for writing, and stays as it is when nobody answers.

use crate::name::{DatabaseName, HostName, SiteName};
use crate::record::{DatabaseRecord, Part, PoolRecord};
use rules::id::Epoch;
use std::collections::BTreeMap;

/// What the other hosts said, this start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The record of each host that answered, with the host's site.
    pub records: BTreeMap<HostName, (SiteName, PoolRecord)>,
    /// An administrator has told this host to start without those who would have to answer (`--without-peer`): the other
    /// site, and where the site has a witness, witness and mirror.
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
        epoch: Epoch,
    },
    /// Nobody of the other site has answered yet.
    Ask {
        /// The site that must be asked.
        site: SiteName,
    },
    /// Of mirror and witness neither has answered yet, and the mirror may have taken over (ha-dr §13.3).
    NoQuorum {
        /// The witness.
        witness: HostName,
        /// The mirror.
        mirror: HostName,
    },
}

/// Who is to be asked before a writer opens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Askable<'a> {
    /// The pool's other site; `None` in a pool of one.
    pub other_site: Option<&'a SiteName>,
    /// The witness of the own site, if it has one.
    pub witness: Option<&'a HostName>,
}

/// May the instance of `database` on `host` open for writing? `own` is the newest record on this host's disk.
pub fn may_open(
    database: &DatabaseName,
    host: &HostName,
    own: &PoolRecord,
    ask: Askable<'_>,
    answers: &Answers,
) -> MayOpen {
    let newest =
        answers.records.values().map(|(_, r)| r).fold(own, |best, r| if r.supersedes(best) { r } else { best });
    let parts = newest.databases.get(database);
    if parts.and_then(|d| d.part_of(host)) != Some(Part::Principal) {
        return MayOpen::LeftBehind { epoch: newest.epoch };
    }
    if let Some((witness, mirror)) = unheard(parts, ask, answers).filter(|_| !answers.without_peer) {
        return MayOpen::NoQuorum { witness: witness.clone(), mirror: mirror.clone() };
    }
    other_to_ask(newest, ask, answers).map_or(MayOpen::Open, |site| MayOpen::Ask { site: site.clone() })
}

/// The other site, when it has to be asked before anything is opened for writing here, and has not answered since this host
/// began to ask. `own` is the newest record known here. That goes for what a run orders too: it may be from before a power cut.
pub fn other_to_ask<'a>(own: &PoolRecord, ask: Askable<'a>, answers: &Answers) -> Option<&'a SiteName> {
    // A site that has declared the other one lost needs no answer from it: the other can only have an older epoch,
    // because only this site's authority can raise it now.
    ask.other_site
        .filter(|other| !(answers.without_peer || own.lost_sites.contains_key(*other) || has_answered(other, answers)))
}

/// The newest epoch after this one of which anything known here tells: a writer of this one is overruled already. What somebody has just
/// answered counts before it is on this host's disk.
pub fn over_by(own: Option<&PoolRecord>, answers: &Answers, epoch: Epoch) -> Option<Epoch> {
    let said = answers.records.values().map(|(_, record)| record);
    own.into_iter().chain(said).map(|record| record.epoch).filter(|known| *known > epoch).max()
}

/// Witness and mirror of a pair, when neither has answered.
fn unheard<'a>(
    parts: Option<&'a DatabaseRecord>,
    ask: Askable<'a>,
    answers: &Answers,
) -> Option<(&'a HostName, &'a HostName)> {
    let pair = ask.witness.zip(parts?.mirror.as_ref().map(|m| &m.host))?;
    [pair.0, pair.1].iter().all(|h| !answers.records.contains_key(*h)).then_some(pair)
}

fn has_answered(site: &SiteName, answers: &Answers) -> bool {
    answers.records.values().any(|(of, _)| of == site)
}

/// Whether leave to start alone has served its purpose: all who would have had to answer have answered since. From then on
/// this host asks again after a stop, because the other site may have gone on without it once more.
pub fn alone_is_over(host: &HostName, own: &PoolRecord, ask: Askable<'_>, answers: &Answers) -> bool {
    let mut own_pairs = own.databases.values().filter(|d| d.part_of(host) == Some(Part::Principal));
    let quorum = own_pairs.all(|parts| unheard(Some(parts), ask, answers).is_none());
    let other = ask.other_site.is_none_or(|other| has_answered(other, answers));
    answers.without_peer && quorum && other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{DatabaseRecord, PoolState};

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
        let ask = Askable { other_site: other.as_ref(), witness: None };
        assert_eq!(&may_open(&"mgc".into(), &"a".into(), own, ask, answers), expect);
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
    fn leave_to_start_alone_ends_when_the_other_site_has_answered() {
        let other = SiteName::from("site-2");
        let ask = Askable { other_site: Some(&other), witness: None };
        let told = Answers { without_peer: true, ..Answers::default() };
        let over = |answers: &Answers| alone_is_over(&"a".into(), &record(1, "a"), ask, answers);
        assert!(!over(&told));
        assert!(over(&Answers { without_peer: true, ..said(record(1, "a")) }));
        assert!(!over(&said(record(1, "a"))), "there is none to end");
        let same_site = Answers { records: [("b".into(), ("site-1".into(), record(1, "a")))].into(), ..told };
        assert!(!over(&same_site));
    }

    #[test]
    fn a_newer_epoch_leaves_the_old_writer_behind_even_when_told_to_start_alone() {
        let left = MayOpen::LeftBehind { epoch: Epoch(2) };
        check(&record(1, "a"), Some("site-2"), &said(record(2, "c")), &left);
        let told = Answers { without_peer: true, ..said(record(2, "c")) };
        check(&record(1, "a"), Some("site-2"), &told, &left);
    }

    #[test]
    fn the_answer_that_was_waited_for_may_say_that_the_epoch_is_over() {
        let own = record(1, "a");
        let over = |epoch, answers: &Answers| over_by(Some(&own), answers, Epoch(epoch));
        assert_eq!(over(3, &said(record(4, "c"))), Some(Epoch(4)), "an answer is leave, and may forbid");
        assert_eq!(over(3, &said(record(2, "c"))), None);
        assert_eq!(over(3, &Answers::default()), None);
        assert_eq!(over(0, &Answers::default()), Some(Epoch(1)));
        assert_eq!(over_by(None, &Answers::default(), Epoch(1)), None);
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

    #[test]
    fn with_a_witness_a_principal_opens_only_with_one_of_the_other_two() {
        let mut own = record(1, "a");
        let mgc = own.databases.get_mut(&DatabaseName::from("mgc")).expect("it is there");
        mgc.mirror = Some(crate::record::MirrorRecord { host: "b".into(), synchronised: true });
        let witness = HostName::from("w");
        let ask = Askable { other_site: None, witness: Some(&witness) };
        let opens = |own: &PoolRecord, who: &[&str], said: &PoolRecord| {
            let records = who.iter().map(|h| ((*h).into(), ("site-1".into(), said.clone()))).collect();
            may_open(&"mgc".into(), &"a".into(), own, ask, &Answers { records, without_peer: false })
        };
        let alone = MayOpen::NoQuorum { witness: "w".into(), mirror: "b".into() };
        assert_eq!(opens(&own, &[], &own), alone);
        assert_eq!(opens(&own, &["c"], &own), alone, "somebody else is neither");
        assert_eq!(opens(&own, &["b"], &own), MayOpen::Open);
        assert_eq!(opens(&own, &["w"], &own), MayOpen::Open);
        let told = Answers { without_peer: true, ..Answers::default() };
        assert_eq!(may_open(&"mgc".into(), &"a".into(), &own, ask, &told), MayOpen::Open);
        assert_eq!(opens(&own, &["w"], &record(2, "b")), MayOpen::LeftBehind { epoch: Epoch(2) });
        assert_eq!(opens(&record(1, "a"), &[], &own), MayOpen::Open, "without a mirror nobody can have taken over");
    }
}
