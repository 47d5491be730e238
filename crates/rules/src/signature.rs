//! Signatures: Ed25519 (RFC 8032). A key is shown as 64 hexadecimal digits, and named by the beginning of a hash of it.

use crate::chain::{Bytes, Hash};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// What a key's name is hashed after.
const KEY: &[u8] = b"standfast key 1";

/// A key that checks signatures.
pub type PublicKey = Bytes<32>;
/// The name of a key.
pub type KeyId = Bytes<8>;
/// A signature.
pub type Signature = Bytes<64>;

/// A key that signs. Never shown: `Debug` prints the name of its public key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
    id: KeyId,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// The key of a seed: the same seed is the same key.
    pub fn from_seed(seed: &Hash) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed.0).expect("32 bytes are a seed");
        let public = Bytes::of(pair.public_key().as_ref()).expect("a public key has 32 bytes");
        Self { pair, public, id: key_id(&public) }
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Sign a message. The same message has the same signature.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Bytes::of(self.pair.sign(message).as_ref()).expect("a signature has 64 bytes")
    }
}

/// The name of a key: the first 8 bytes of a hash of it.
pub fn key_id(key: &PublicKey) -> KeyId {
    let mut hash = Sha256::new();
    hash.update(KEY);
    hash.update(key.0);
    Bytes(hash.finalize().first_chunk().copied().expect("a hash has more bytes than a name"))
}

/// Whether a key has signed a message.
pub fn has_signed(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, &signature.0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first test of RFC 8032 §7.1.
    #[test]
    fn the_standards_own_signature_comes_out() {
        let seed = Bytes::from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SigningKey::from_seed(&seed);
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(key.public().to_string(), public);
        let signature = key.sign(b"");
        assert_eq!(
            signature.to_string(),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
        assert!(has_signed(&key.public(), b"", &signature));
        assert!(!has_signed(&key.public(), b"x", &signature));
        let mut forged = signature;
        forged.0[3] ^= 1;
        assert!(!has_signed(&key.public(), b"", &forged));
    }
}
