//! What is in the bucket, from a list of its objects. Pure.
//!
//! ```text
//! open-from                        the first epoch that may ship
//! <epoch>/wal/<file>               finished segments and histories
//! <epoch>/stream/<file>.partial    what is still being written, without the zeros that follow
//! closed/<epoch>                   a seal: what of an epoch was there when it was closed
//! needs.<host>                     from where on a host still needs the log
//! ```
//!
//! A folder closes an epoch by renaming it. A bucket cannot rename: there a seal says what belongs to the closed epoch, and
//! what arrives in its place later belongs to nothing.

use super::store::Object;
use crate::postgres::share::{is_history, is_segment};
use rules::id::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The object that says which epochs may ship.
pub const OPEN_FROM: &str = "open-from";
/// Begin of the names of seals.
pub const CLOSED: &str = "closed/";
/// Begin of the names in which hosts say what they need.
pub const NEEDS: &str = "needs.";

/// A seal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The epoch that closed it.
    pub by: i64,
    /// Its objects, by their names below the epoch.
    pub files: BTreeSet<String>,
}

/// What is in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The first epoch that may ship.
    pub open_from: Option<Epoch>,
    /// Objects of each epoch, by their names below it.
    pub epochs: BTreeMap<Epoch, BTreeMap<String, Object>>,
    /// The seals.
    pub seals: BTreeMap<Epoch, Seal>,
    /// What hosts have said of their needs.
    pub needs: Vec<Object>,
}

/// A file of the share, and the object that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The epoch it was shipped in.
    pub epoch: Epoch,
    /// Its name below the epoch.
    pub below: String,
    /// The object.
    pub object: Object,
    /// It is still being written.
    pub partial: bool,
}

impl Index {
    /// From a list; seals and `open-from` are read beside it.
    pub fn new(objects: Vec<Object>, open_from: Option<Epoch>, seals: BTreeMap<Epoch, Seal>) -> Self {
        let mut index = Self { open_from, seals, ..Self::default() };
        for object in objects {
            if object.name.starts_with(NEEDS) {
                index.needs.push(object);
                continue;
            }
            let Some((epoch, below)) = object.name.split_once('/') else { continue };
            let Ok(epoch) = epoch.parse().map(Epoch) else { continue };
            let below = below.to_owned();
            index.epochs.entry(epoch).or_default().insert(below, object);
        }
        index
    }

    /// The epochs whose seals are there.
    pub fn sealed(objects: &[Object]) -> BTreeSet<Epoch> {
        let of = |o: &Object| o.name.strip_prefix(CLOSED).and_then(|e| e.parse().ok()).map(Epoch);
        objects.iter().filter_map(of).collect()
    }

    /// Whether an epoch is closed: it may not ship any more, and it is said what belongs to it.
    pub fn is_closed(&self, epoch: Epoch) -> bool {
        self.seals.contains_key(&epoch) && self.open_from.is_some_and(|first| epoch < first)
    }

    /// What belongs to an epoch.
    fn of(&self, epoch: Epoch) -> Vec<(&String, &Object)> {
        let seal = self.seals.get(&epoch).filter(|_| self.is_closed(epoch));
        let objects = self.epochs.get(&epoch).into_iter().flatten();
        objects.filter(|(below, _)| seal.is_none_or(|seal| seal.files.contains(*below))).collect()
    }

    /// Everything that was shipped, by the names that PostgreSQL asks for. Later epochs win, and finished segments win over
    /// partial ones. With `closed`, of the epochs that were closed last.
    pub fn shipped(&self, closed: bool) -> BTreeMap<String, File> {
        let last = self.seals.iter().filter(|(e, _)| self.is_closed(**e)).map(|(_, seal)| seal.by).max();
        let wanted = |epoch: &&Epoch| {
            let is_closed = self.is_closed(**epoch);
            is_closed == closed && (!closed || self.seals.get(*epoch).map(|seal| seal.by) == last)
        };
        let mut files = BTreeMap::new();
        for epoch in self.epochs.keys().filter(wanted) {
            let objects = self.of(*epoch);
            for partial in [true, false] {
                for (below, object) in &objects {
                    let name = match (below.strip_prefix("stream/"), below.strip_prefix("wal/")) {
                        (Some(name), _) if partial => name.strip_suffix(".partial").filter(|name| is_segment(name)),
                        (_, Some(name)) if !partial => Some(name).filter(|name| is_segment(name) || is_history(name)),
                        _ => None,
                    };
                    let Some(name) = name else { continue };
                    let file = File { epoch: *epoch, below: (*below).clone(), object: (*object).clone(), partial };
                    files.insert(name.to_owned(), file);
                }
            }
        }
        files
    }

    /// A finished file, of one epoch or of any: open ones first, as in a folder.
    pub fn finished(&self, name: &str, epoch: Option<Epoch>) -> Option<File> {
        let below = format!("wal/{name}");
        let mut epochs: Vec<Epoch> =
            self.epochs.keys().copied().filter(|e| epoch.is_none_or(|wanted| wanted == *e)).collect();
        epochs.sort_by_key(|e| (self.is_closed(*e), *e));
        epochs.into_iter().find_map(|epoch| {
            let (below, object) = self.of(epoch).into_iter().find(|(b, _)| **b == below)?;
            Some(File { epoch, below: below.clone(), object: object.clone(), partial: false })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> Object {
        Object { name: name.into(), bytes: 1, changed_ms: 0, tag: None }
    }

    fn index(names: &[&str], open_from: Option<i64>, seals: &[(i64, i64, &[&str])]) -> Index {
        let seal = |(epoch, by, files): &(i64, i64, &[&str])| {
            (Epoch(*epoch), Seal { by: *by, files: files.iter().map(|f| (*f).to_owned()).collect() })
        };
        Index::new(names.iter().map(|n| object(n)).collect(), open_from.map(Epoch), seals.iter().map(seal).collect())
    }

    fn names(files: &BTreeMap<String, File>) -> Vec<(i64, String, bool)> {
        files.values().map(|f| (f.epoch.0, f.below.clone(), f.partial)).collect()
    }

    const A: &str = "000000010000000000000001";
    const B: &str = "000000010000000000000002";

    #[test]
    fn finished_wins_over_partial_and_later_over_earlier() {
        let (a, b) = (format!("1/wal/{A}"), format!("1/stream/{A}.partial"));
        let (c, d) = (format!("1/stream/{B}.partial"), format!("2/wal/{A}"));
        let of = index(&[&a, &b, &c, &d, "1/wal/nonsense", "needs.s2a", "open-from"], None, &[]);
        let expect = [(2, format!("wal/{A}"), false), (1, format!("stream/{B}.partial"), true)];
        assert_eq!(names(&of.shipped(false)), expect);
        assert!(of.shipped(true).is_empty());
        assert_eq!(of.needs.len(), 1);
        assert_eq!(of.finished(A, None).map(|f| f.epoch), Some(Epoch(1)), "the first, as a shell's pattern finds it");
        assert_eq!(of.finished(A, Some(Epoch(2))).map(|f| f.epoch), Some(Epoch(2)));
        assert_eq!(of.finished(B, None), None);
    }

    #[test]
    fn what_arrives_in_a_closed_epoch_after_its_seal_belongs_to_nothing() {
        let (a, b, c) = (format!("1/wal/{A}"), format!("1/wal/{B}"), format!("2/wal/{B}"));
        let sealed = format!("wal/{A}");
        let of = index(&[&a, &b, &c], Some(2), &[(1, 2, &[&sealed])]);
        assert_eq!(names(&of.shipped(true)), [(1, format!("wal/{A}"), false)]);
        assert_eq!(names(&of.shipped(false)), [(2, format!("wal/{B}"), false)]);
        assert_eq!(of.finished(B, Some(Epoch(1))), None);
        let unsealed = index(&[&a], Some(2), &[]);
        assert_eq!(names(&unsealed.shipped(false)), [(1, format!("wal/{A}"), false)], "it is read where it is");
    }

    #[test]
    fn epochs_that_were_closed_together_are_one_chain() {
        let (a, b, c) = (format!("1/wal/{A}"), format!("2/wal/{A}"), format!("3/wal/{B}"));
        let (wal_a, wal_b) = (format!("wal/{A}"), format!("wal/{B}"));
        let of = index(&[&a, &b, &c], Some(4), &[(1, 2, &[&wal_a]), (2, 4, &[&wal_a]), (3, 4, &[&wal_b])]);
        let expect = [(2, format!("wal/{A}"), false), (3, format!("wal/{B}"), false)];
        assert_eq!(names(&of.shipped(true)), expect);
    }
}
