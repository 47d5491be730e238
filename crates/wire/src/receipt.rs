//! Receipts, as servers hand them out and ledgers keep them. `docs/receipts.md` says what is hashed and signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rules::chain::{Bytes, Hash, Nonce};
use rules::id::{Epoch, PrincipalId, RoomId, Seq};
use rules::receipt::{Durable, Proof, Statement, joined, separated};
use rules::signature::{KeyId, PublicKey, Signature, key_id};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a server states of an acknowledged post beside what the acknowledgement says already, and the proof of all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Signed {
    /// The author's number, which is hashed.
    #[schema(value_type = i64)]
    pub author: PrincipalId,
    /// The digest of the text that was first written, 64 hexadecimal digits.
    #[schema(value_type = String)]
    pub digest: Hash,
    /// What that text is salted with, 32 hexadecimal digits: with it the author can prove the text. None when the text has been
    /// removed or replaced since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub nonce: Option<Nonce>,
    /// The room's running hash at the entry, 64 hexadecimal digits.
    #[schema(value_type = String)]
    pub chain: Hash,
    /// The name of the key that signed, 16 hexadecimal digits; `GET /v1/keys` has the key.
    #[schema(value_type = String)]
    pub key: KeyId,
    /// The receipt's place among those that were signed together, from 0.
    pub index: u32,
    /// How many were signed together.
    pub size: u32,
    /// The hashes beside its way to the root of the tree, from below, one after the other, in base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "base64_hashes")]
    #[schema(value_type = String)]
    pub path: Vec<Hash>,
    /// The signature of the root, 64 bytes in base64.
    #[serde(with = "base64_bytes")]
    #[schema(value_type = String)]
    pub signature: Signature,
}

/// A receipt by itself: whoever has the pool's key can check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The pool's name.
    pub pool: String,
    /// The room that holds the post.
    #[schema(value_type = i64)]
    pub room: RoomId,
    /// Its number in the room.
    #[schema(value_type = i64)]
    pub seq: Seq,
    /// The epoch in which it was written.
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// When it was written: microseconds since the Unix epoch.
    pub at_us: i64,
    /// The client message id.
    pub client_id: Uuid,
    /// Where it was durable when it was acknowledged: `disk`, `mirror` or `site`.
    #[schema(value_type = String)]
    pub durable: Durable,
    /// The rest, and the proof.
    #[serde(flatten)]
    pub signed: Signed,
}

impl Receipt {
    /// What it states.
    pub fn statement(&self) -> Statement {
        Statement {
            pool: self.pool.clone(),
            room: self.room,
            seq: self.seq,
            epoch: self.epoch,
            at_us: self.at_us,
            author: self.signed.author,
            client_id: self.client_id.into_bytes(),
            content: self.signed.digest,
            durable: self.durable,
            chain: self.signed.chain,
        }
    }

    /// How that is proved.
    pub fn proof(&self) -> Proof {
        let Signed { key, index, size, ref path, signature, .. } = self.signed;
        Proof { key, index, size, path: path.clone(), signature }
    }
}

/// `GET /v1/keys` (no token needed): what checks the pool's signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// The pool's name.
    pub pool: String,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// A key that checks signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its name, 16 hexadecimal digits.
    #[schema(value_type = String)]
    pub id: KeyId,
    /// `Ed25519`.
    pub algorithm: String,
    /// The key, 64 hexadecimal digits.
    #[schema(value_type = String)]
    pub public: PublicKey,
}

impl From<PublicKey> for Key {
    fn from(public: PublicKey) -> Self {
        Self { id: key_id(&public), algorithm: "Ed25519".to_owned(), public }
    }
}

/// Bytes in base64.
pub mod base64_bytes {
    use super::{Bytes, Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Write them.
    pub fn serialize<S: Serializer, const N: usize>(bytes: &Bytes<N>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes.0))
    }

    /// Read them.
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<Bytes<N>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text).map_err(|e| D::Error::custom(format!("base64 is needed: {e}")))?;
        Bytes::of(&bytes).ok_or_else(|| D::Error::custom(format!("{N} bytes in base64 are needed")))
    }
}

/// Hashes, one after the other, in base64.
pub mod base64_hashes {
    use super::{Engine, Hash, STANDARD, joined, separated};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Write them.
    pub fn serialize<S: Serializer>(hashes: &[Hash], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(joined(hashes)))
    }

    /// Read them.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hash>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(&text).map_err(|e| D::Error::custom(format!("base64 is needed: {e}")))?;
        separated(&bytes).ok_or_else(|| D::Error::custom("whole hashes are needed, not too many"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_it_was_written_and_nothing_else_is() {
        let signed = Signed {
            author: PrincipalId(11),
            digest: Bytes([1; 32]),
            nonce: Some(Bytes([2; 16])),
            chain: Bytes([3; 32]),
            key: Bytes([4; 8]),
            index: 1,
            size: 3,
            path: vec![Bytes([5; 32]), Bytes([6; 32])],
            signature: Bytes([7; 64]),
        };
        let receipt = Receipt {
            pool: "north".to_owned(),
            room: RoomId(5),
            seq: Seq(2),
            epoch: Epoch(1),
            at_us: 1,
            client_id: Uuid::from_bytes([9; 16]),
            durable: Durable::Site,
            signed,
        };
        let text = serde_json::to_string(&receipt).unwrap();
        assert_eq!(serde_json::from_str::<Receipt>(&text).unwrap(), receipt);
        assert!(text.contains(r#""durable":"site""#), "{text}");
        let refused = |from: &str, to: &str| {
            let wrong = text.replace(from, to);
            assert_ne!(wrong, text, "{from}");
            assert!(serde_json::from_str::<Receipt>(&wrong).is_err(), "{wrong}");
        };
        refused("\"site\"", "\"moon\"");
        refused("\"signature\":\"Bw", "\"signature\":\"%w");
        refused("\"signature\":\"BwcH", "\"signature\":\"");
        refused("\"path\":\"BQUF", "\"path\":\"");
    }
}
