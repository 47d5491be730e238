//! Keys derived from the pool's one secret.
//!
//! Every host of a pool holds the same secret in a file that only its owner may read. What proves a caller's right on a
//! link (agent API, server link, PostgreSQL role) is derived from it, so that nothing else has to be kept or sent.

use hmac::{Hmac, Mac};
use rules::chain::{Bytes, Hash};
use rules::signature::SigningKey;
use sha2::Sha256;

/// The pool's secret. Never shown: `Debug` prints dots.
#[derive(Clone)]
pub struct PoolSecret(Vec<u8>);

impl std::fmt::Debug for PoolSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolSecret(…)")
    }
}

/// What a derived key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Bearer token of the agents' API.
    AgentApi,
    /// Key of the links between chat servers.
    ServerLink,
    /// Password of the PostgreSQL superuser `standfast_admin`, used by agents.
    PostgresAdmin,
    /// Password of the PostgreSQL role `standfast_replication`.
    PostgresReplication,
    /// Password of the PostgreSQL role `standfast_chat`, used by chat servers.
    PostgresChat,
    /// Password of the pool's first administrator, the user `admin`.
    FirstAdministrator,
    /// Bearer token with which Prometheus reads metrics, and nothing else can be done.
    Metrics,
    /// Key of the tickets with which clients come back to their place in the row.
    Ticket,
    /// Seed of the key with which the pool signs receipts and exports.
    Signatures,
}

/// Name of the PostgreSQL superuser that agents use.
pub const ROLE_ADMIN: &str = "standfast_admin";
/// Name of the PostgreSQL role for replication.
pub const ROLE_REPLICATION: &str = "standfast_replication";
/// Name of the PostgreSQL role of chat servers; owner of the content database.
pub const ROLE_CHAT: &str = "standfast_chat";
/// File name of the secret in a host's folder and in an administrator's.
pub const SECRET_FILE: &str = "pool.secret";

/// Why a secret is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pool secret has {0} characters; it needs at least 32. Create one with: openssl rand -hex 32")]
pub struct TooShort(pub usize);

impl PoolSecret {
    /// Take the text of the secret's file; blanks at its ends do not count.
    pub fn from_text(text: &str) -> Result<Self, TooShort> {
        let text = text.trim();
        if text.len() < 32 {
            return Err(TooShort(text.len()));
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    /// Whether the text of an `Authorization` header brings the key for a purpose, as `Bearer …`. It takes as long for a near
    /// miss as for a wild guess.
    pub fn is_brought_by(&self, header: &str, purpose: Purpose) -> bool {
        let key = format!("Bearer {}", self.derive(purpose));
        header.len() == key.len() && header.bytes().zip(key.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// The key for a purpose, as 64 hexadecimal digits.
    pub fn derive(&self, purpose: Purpose) -> String {
        self.derive_bytes(purpose).to_string()
    }

    /// The key with which the pool signs receipts and exports. Every server of both sites has the same one, and nobody else can
    /// sign; whoever has the public half can check.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(&self.derive_bytes(Purpose::Signatures))
    }

    fn derive_bytes(&self, purpose: Purpose) -> Hash {
        let label = match purpose {
            Purpose::AgentApi => "standfast agent api",
            Purpose::ServerLink => "standfast server link",
            Purpose::PostgresAdmin => "standfast postgres admin",
            Purpose::PostgresReplication => "standfast postgres replication",
            Purpose::PostgresChat => "standfast postgres chat",
            Purpose::FirstAdministrator => "standfast first administrator",
            Purpose::Metrics => "standfast metrics",
            Purpose::Ticket => "standfast ticket",
            Purpose::Signatures => "standfast signatures",
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(label.as_bytes());
        Bytes(mac.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_what_it_is_for_and_nothing_else() {
        let secret = PoolSecret::from_text(&"0123456789abcdef".repeat(2)).expect("it is long enough");
        let bearer = |purpose| format!("Bearer {}", secret.derive(purpose));
        assert!(secret.is_brought_by(&bearer(Purpose::Metrics), Purpose::Metrics));
        assert!(!secret.is_brought_by(&bearer(Purpose::Metrics), Purpose::AgentApi));
        assert!(!secret.is_brought_by(&secret.derive(Purpose::Metrics), Purpose::Metrics));
        assert!(!secret.is_brought_by("", Purpose::Metrics));
    }
}
