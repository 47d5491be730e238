//! How durable a transaction is, as far as that is known when it has returned: pure.
//!
//! What counts is whose disk is known to hold its log, by what each standby has told the principal; never what was asked for. A
//! commit whose wait for the mirror ended because the agent gave the mirror up returns like any other.

use crate::name::HostName;
use crate::record::DatabaseRecord;
pub use rules::receipt::Durable;

/// Whose disks hold a transaction.
///
/// `waited`: it was to wait for a synchronous standby. `has_flushed`: whether a standby has told that its disk holds the log up to
/// the transaction's end.
pub fn known(record: &DatabaseRecord, waited: bool, has_flushed: impl Fn(&HostName) -> bool) -> Durable {
    if record.backup.as_ref().is_some_and(&has_flushed) {
        return Durable::Site;
    }
    match synchronised_mirror(record, waited) {
        Some(mirror) if has_flushed(mirror) => Durable::Mirror,
        Some(_) | None => Durable::Disk,
    }
}

/// The mirror that is sure to have flushed the transaction, unless it was given up at this very moment.
pub fn synchronised_mirror(record: &DatabaseRecord, waited: bool) -> Option<&HostName> {
    record.mirror.as_ref().filter(|mirror| waited && mirror.synchronised).map(|mirror| &mirror.host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::MirrorRecord;

    fn check(synchronised: Option<bool>, waited: bool, flushed: &[&str], expect: Durable) {
        let mirror = synchronised.map(|synchronised| MirrorRecord { host: "m".into(), synchronised });
        let record = DatabaseRecord {
            principal: Some("p".into()),
            mirror,
            backup: Some("b".into()),
            ..DatabaseRecord::default()
        };
        let durable = known(&record, waited, |host| flushed.contains(&host.as_str()));
        assert_eq!(durable, expect, "{synchronised:?} {waited} {flushed:?}");
    }

    #[test]
    fn only_what_a_standby_has_told_counts() {
        check(Some(true), true, &["m"], Durable::Mirror);
        check(Some(true), true, &[], Durable::Disk);
        check(Some(true), true, &["m", "b"], Durable::Site);
        check(Some(false), false, &["b"], Durable::Site);
        check(None, true, &["other"], Durable::Disk);
    }

    #[test]
    fn a_mirror_counts_only_while_the_record_says_that_it_is_synchronised() {
        check(Some(false), true, &["m"], Durable::Disk);
        check(Some(true), false, &["m"], Durable::Disk);
    }
}
