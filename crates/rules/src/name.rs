//! What may be called what. A name is checked once, at the door, and carried as a checked type from there on.

use crate::limit::{NAME_CHARS_MAX, PRINCIPAL_NAME_CHARS_MAX};
use serde::{Deserialize, Serialize};

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but blanks.
    #[error("the name is empty; give it at least one visible character")]
    Empty,
    /// Longer than the limit.
    #[error("the name has {chars} characters; at most {max} are allowed")]
    TooLong {
        /// Characters given.
        chars: usize,
        /// Characters allowed.
        max: usize,
    },
    /// A control character or line break.
    #[error("the name holds the control character U+{0:04X}; use printable characters only")]
    Control(u32),
    /// Blanks at an end, which people cannot see.
    #[error("the name begins or ends with a blank; take the blank away")]
    OuterBlank,
}

fn check(text: &str, max: usize) -> Result<(), NameError> {
    if text.trim().is_empty() {
        return Err(NameError::Empty);
    }
    if text.trim() != text {
        return Err(NameError::OuterBlank);
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(NameError::Control(c as u32));
    }
    let chars = text.chars().count();
    if chars > max {
        return Err(NameError::TooLong { chars, max });
    }
    Ok(())
}

/// The checked name of a room or a category: unique in the pool, at most 256 characters (chat-model §6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

/// The checked name of a user or a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrincipalName(String);

macro_rules! checked_name {
    ($name:ident, $max:expr) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text, $max)?;
                Ok(Self(text))
            }
        }
        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

checked_name!(NodeName, NAME_CHARS_MAX);
checked_name!(PrincipalName, PRINCIPAL_NAME_CHARS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&NameError>) {
        assert_eq!(NodeName::try_from(text).err().as_ref(), expect, "{text:?}");
    }

    #[test]
    fn names_are_visible_and_bounded() {
        check("Operations", None);
        check("Überwachung 3", None);
        check("", Some(&NameError::Empty));
        check("  ", Some(&NameError::Empty));
        check(" a", Some(&NameError::OuterBlank));
        check("a\nb", Some(&NameError::Control(10)));
        check(&"ä".repeat(256), None);
        check(&"ä".repeat(257), Some(&NameError::TooLong { chars: 257, max: 256 }));
    }
}
