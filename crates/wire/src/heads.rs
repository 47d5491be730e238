//! Countersigned heads: what the agent of the backup has seen of the rooms' logs, signed with a key of its host's own.
//! `docs/receipts.md` has to the byte what is signed.

use cluster::name::HostName;
use cluster::wal::Lsn;
use rules::chain::Hash;
use rules::head::{SeenHead, Sighting};
use rules::id::{Epoch, RoomId, Seq};
use rules::signature::{PublicKey, Signature, SigningKey, has_signed};
use serde::{Deserialize, Serialize};

/// A line of what an agent has countersigned: the heads that had changed since the line before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countersigned {
    /// The pool's name.
    pub pool: String,
    /// Whose standby it was.
    pub host: HostName,
    /// The newest epoch that had begun in its database.
    pub epoch: Epoch,
    /// The log was applied up to here.
    pub lsn: Lsn,
    /// When that was, by the host's clock: microseconds since the Unix epoch.
    pub at_us: i64,
    /// Room, number of its newest entry, and the running hash at it.
    pub heads: Vec<(RoomId, Seq, Hash)>,
    /// The host's key.
    pub key: PublicKey,
    /// Its signature, 64 bytes in base64.
    #[serde(with = "crate::receipt::base64_bytes")]
    pub signature: Signature,
}

impl Countersigned {
    /// Sign what was seen.
    pub fn new(sighting: &Sighting, heads: &[SeenHead], key: &SigningKey) -> Self {
        Self {
            pool: sighting.pool.clone(),
            host: sighting.host.as_str().into(),
            epoch: sighting.epoch,
            lsn: Lsn(sighting.lsn),
            at_us: sighting.at_us,
            heads: heads.iter().map(|head| (head.room, head.seq, head.chain)).collect(),
            key: key.public(),
            signature: key.sign(&sighting.message(heads)),
        }
    }

    /// The heads in it.
    pub fn seen(&self) -> Vec<SeenHead> {
        self.heads.iter().map(|(room, seq, chain)| SeenHead { room: *room, seq: *seq, chain: *chain }).collect()
    }

    /// Whether the key in it has signed it.
    pub fn is_signed(&self) -> bool {
        let Self { ref pool, ref host, epoch, lsn, at_us, .. } = *self;
        let sighting = Sighting { pool: pool.clone(), host: host.to_string(), epoch, lsn: lsn.0, at_us };
        has_signed(&self.key, &sighting.message(&self.seen()), &self.signature)
    }
}
