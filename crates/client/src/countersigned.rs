//! Comparing the rooms' logs with the heads that the other site has countersigned: who changes a log from some entry on, and the
//! rest with it so that its chain fits, cannot change those.

use rules::chain::Hash;
use rules::id::{Epoch, RoomId, Seq};
use std::collections::{BTreeMap, BTreeSet};
use wire::heads::Countersigned;
use wire::http::EpochStart;

/// A head that a host has countersigned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    chain: Hash,
    host: String,
    epoch: Epoch,
    at_us: i64,
}

/// The heads that hosts have countersigned, room by room.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    rooms: BTreeMap<RoomId, BTreeMap<Seq, Vec<Seen>>>,
    /// The keys that have signed them, with their hosts.
    pub keys: BTreeSet<(String, rules::signature::PublicKey)>,
    /// Heads in all.
    pub count: u64,
}

/// The heads of one room, while its log goes by.
#[derive(Clone, Debug, Default)]
pub struct OfRoom {
    due: BTreeMap<Seq, Vec<Seen>>,
    differing: Vec<(Seq, Seen)>,
}

impl Heads {
    /// Take a line of a host. The same head may come twice.
    ///
    /// # Errors
    /// When it is none, is another pool's or host's, or not what was signed, in a sentence.
    pub fn take(&mut self, pool: &str, host: &str, line: &str) -> Result<(), String> {
        let signed: Countersigned = serde_json::from_str(line).map_err(|e| format!("a line cannot be read: {e}"))?;
        if (signed.pool.as_str(), signed.host.as_str()) != (pool, host) {
            return Err(format!("a line is of host {} of the pool {}", signed.host, signed.pool));
        }
        if !signed.is_signed() {
            return Err(format!("the line of epoch {}, position {} is not what was signed", signed.epoch, signed.lsn));
        }
        self.keys.insert((host.to_owned(), signed.key));
        for head in signed.seen() {
            let (epoch, at_us) = (signed.epoch, signed.at_us);
            let seen = Seen { chain: head.chain, host: host.to_owned(), epoch, at_us };
            self.rooms.entry(head.room).or_default().entry(head.seq).or_default().push(seen);
            self.count += 1;
        }
        Ok(())
    }

    /// The rooms that they are about.
    pub fn rooms(&self) -> impl Iterator<Item = RoomId> {
        self.rooms.keys().copied()
    }

    /// The newest epoch in which something of a room was countersigned, and the first number.
    pub fn newest(&self, room: RoomId) -> Option<(Epoch, Seq)> {
        let seen = self.rooms.get(&room)?;
        let epoch = seen.values().flatten().map(|seen| seen.epoch).max()?;
        Some((epoch, *seen.first_key_value()?.0))
    }

    /// Those of a room.
    pub fn of(&self, room: RoomId) -> OfRoom {
        OfRoom { due: self.rooms.get(&room).cloned().unwrap_or_default(), differing: Vec::new() }
    }
}

impl OfRoom {
    /// An entry of the log goes by.
    pub fn entry(&mut self, seq: Seq, chain: Hash) {
        let seen = self.due.remove(&seq).unwrap_or_default();
        self.differing.extend(seen.into_iter().filter(|seen| seen.chain != chain).map(|seen| (seq, seen)));
    }

    /// Whether the log that has gone by lacks something that was countersigned.
    pub fn differs(&self) -> bool {
        !self.differing.is_empty() || !self.due.is_empty()
    }

    /// The first head that the log does not have and no failover explains: its number, and what is to be said of it.
    pub fn first_unexplained(self, epochs: &[EpochStart]) -> Option<(Seq, String)> {
        let missing = self.due.into_iter().flat_map(|(seq, seen)| seen.into_iter().map(move |seen| (seq, seen)));
        let voided = |seq: Seq, epoch: Epoch| epochs.iter().any(|start| start.epoch > epoch && start.last_seq < seq);
        let unexplained = self.differing.into_iter().chain(missing).filter(|(seq, seen)| !voided(*seq, seen.epoch));
        let (seq, seen) = unexplained.min_by_key(|(seq, seen)| (*seq, seen.at_us))?;
        let at = jiff::Timestamp::from_microsecond(seen.at_us).unwrap_or_default();
        let Seen { host, chain, .. } = seen;
        Some((seq, format!("{host} has countersigned another running hash there, {chain}, at {at:.0}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::chain::Bytes;
    use rules::head::{SeenHead, Sighting};
    use rules::signature::SigningKey;

    const ROOM: RoomId = RoomId(5);

    fn line(epoch: i64, seqs: &[i64]) -> String {
        let sighting = Sighting { pool: "north".into(), host: "s2a".into(), epoch: Epoch(epoch), lsn: 1, at_us: 1 };
        let head = |seq: &i64| SeenHead { room: ROOM, seq: Seq(*seq), chain: Bytes([*seq as u8; 32]) };
        let heads: Vec<SeenHead> = seqs.iter().map(head).collect();
        serde_json::to_string(&Countersigned::new(&sighting, &heads, &SigningKey::from_seed(&Bytes([3; 32])))).unwrap()
    }

    /// The log has the entries 1, 2, 3 … with these bytes in their running hashes.
    fn check(lines: &[String], log: &[u8], epochs: &[(i64, i64)], expect: Option<i64>) {
        let mut heads = Heads::default();
        lines.iter().for_each(|line| heads.take("north", "s2a", line).unwrap());
        let mut room = heads.of(ROOM);
        log.iter().zip(1..).for_each(|(byte, seq)| room.entry(Seq(seq), Bytes([*byte; 32])));
        let starts: Vec<EpochStart> =
            epochs.iter().map(|(epoch, last)| EpochStart { epoch: Epoch(*epoch), last_seq: Seq(*last) }).collect();
        assert_eq!(room.differs(), expect.is_some() || !epochs.is_empty(), "{lines:?} {log:?}");
        assert_eq!(room.first_unexplained(&starts).map(|(seq, _)| seq.0), expect, "{lines:?} {log:?}");
    }

    #[test]
    fn the_first_head_that_the_log_does_not_have_is_named() {
        let seen = [line(1, &[1]), line(1, &[3])];
        check(&seen, &[1, 2, 3, 4], &[], None);
        check(&seen, &[1, 9, 9], &[], Some(3));
        check(&seen, &[9, 9, 9], &[], Some(1));
        check(&seen, &[1, 2], &[], Some(3));
        check(&[], &[1, 2], &[], None);
    }

    #[test]
    fn a_failover_explains_what_it_took_and_nothing_before_it() {
        let seen = [line(1, &[3]), line(2, &[4])];
        check(&seen, &[1, 2, 9, 4], &[(2, 2)], None);
        check(&[line(1, &[3])], &[1, 2], &[(2, 2)], None);
        check(&[line(1, &[2])], &[1, 9], &[(2, 2)], Some(2));
        check(&[line(2, &[3])], &[1, 2, 9], &[(2, 2)], Some(3));
    }

    #[test]
    fn a_line_that_was_changed_is_refused() {
        let mut heads = Heads::default();
        let good = line(1, &[3]);
        let mut refused = |line: &str, why: &str| {
            let said = heads.take("north", "s2a", line).unwrap_err();
            assert!(said.contains(why), "{said}");
        };
        refused(&good.replace("\"epoch\":1", "\"epoch\":2"), "not what was signed");
        refused(&good.replace("[5,3,", "[5,4,"), "not what was signed");
        refused(&good.replace("north", "south"), "of the pool south");
        refused("{}", "cannot be read");
        assert_eq!(heads.count, 0);
    }
}
