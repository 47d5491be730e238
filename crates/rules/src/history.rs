//! Lines of history: which epochs two databases have both seen begin, and where one of them went another way.
//!
//! One writer writes in an epoch, so an entry is named by its room, its epoch and its number, and two databases that hold
//! the same epoch's beginning agree on everything before it. What a database that was left behind holds alone is therefore
//! told by the epochs of the two: every entry of an epoch that the present history lacks, and, of the last epoch that they
//! share, what lies beyond the numbers after which the present history went on.

use crate::id::Epoch;
use std::collections::BTreeSet;

/// Where a database that was left behind and the present history parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The last epoch that both have seen begin.
    pub common: Epoch,
    /// The epoch that left the old data behind: the first of the present history that it lacks.
    pub left_by: Epoch,
    /// The last epoch of the old data.
    pub old_epoch: Epoch,
    /// The first epoch of the old data that the present history lacks, where it went on in epochs of its own.
    pub own: Option<Epoch>,
}

/// Why nothing can be said about what the old data holds alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoParting {
    /// No epoch in common.
    #[error("the two databases have no epoch in common: ids of the one mean something else in the other")]
    Strangers,
    /// The present history has begun nothing that the old data lacks.
    #[error("the present principal has begun no epoch that this data lacks, so where the two parted is not known")]
    NotBegun,
}

/// Where a database with the epochs `old` left the history with the epochs `present`.
pub fn parting(present: &BTreeSet<Epoch>, old: &BTreeSet<Epoch>) -> Result<Parting, NoParting> {
    let common = *present.intersection(old).max().ok_or(NoParting::Strangers)?;
    let left_by = *present.iter().find(|epoch| **epoch > common).ok_or(NoParting::NotBegun)?;
    let own = old.iter().find(|epoch| **epoch > common).copied();
    Ok(Parting { common, left_by, old_epoch: old.last().copied().unwrap_or(common), own })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(present: &[i64], old: &[i64], expect: Result<(i64, i64, i64, Option<i64>), NoParting>) {
        let epochs = |all: &[i64]| all.iter().copied().map(Epoch).collect::<BTreeSet<_>>();
        let found = parting(&epochs(present), &epochs(old));
        assert_eq!(found.map(|p| (p.common.0, p.left_by.0, p.old_epoch.0, p.own.map(|e| e.0))), expect);
    }

    #[test]
    fn two_histories_part_after_the_last_epoch_that_they_share() {
        check(&[1, 2], &[1], Ok((1, 2, 1, None)));
        // Several changes of writer went by before the disks came back.
        check(&[1, 2, 4, 6], &[1], Ok((1, 2, 1, None)));
        check(&[1, 2, 3, 4], &[1, 2, 3], Ok((3, 4, 3, None)));
        // A split: the old site switched by itself while the other one failed over.
        check(&[1, 2, 4], &[1, 3], Ok((1, 2, 3, Some(3))));
        check(&[1, 3], &[1, 2], Ok((1, 3, 2, Some(2))));
    }

    #[test]
    fn without_a_parting_it_says_why() {
        check(&[2], &[1], Err(NoParting::Strangers));
        check(&[], &[1], Err(NoParting::Strangers));
        check(&[1], &[1], Err(NoParting::NotBegun));
        check(&[1], &[1, 3], Err(NoParting::NotBegun));
    }
}
