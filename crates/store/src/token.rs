//! Tokens: 256 random bits, shown once, kept as their SHA-256.

use sha2::{Digest, Sha256};

/// A new token, as the client gets it: 64 hexadecimal digits. Never shown: `Debug` prints dots.
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A new random token.
    pub fn new() -> Self {
        let bits: [u8; 32] = rand::random();
        let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("half a byte is a hexadecimal digit");
        Self(bits.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect())
    }

    /// The text for the client.
    pub fn into_text(self) -> String {
        self.0
    }

    /// What the database keeps.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl Default for Token {
    fn default() -> Self {
        Self::new()
    }
}

/// SHA-256 of a token's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash(pub(crate) Vec<u8>);

impl TokenHash {
    /// The hash of a token that a client presents.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).to_vec())
    }
}
