//! Identities: numbers where the hot path needs them, names where people type them.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A room. Given once, never reused, the same at both sites.
    RoomId(i64)
}
number! {
    /// A category.
    CategoryId(i64)
}
number! {
    /// A principal: a user or a group of users.
    PrincipalId(i64)
}
number! {
    /// The number of an entry in its room's log: 1, 2, 3 … without a gap.
    Seq(i64)
}
number! {
    /// The pool's epoch. It rises with every change of writer; the first is 1. A database refuses a writing
    /// transaction that states an older epoch than its own.
    Epoch(i64)
}

impl Epoch {
    /// The epoch of a pool that was just initialised.
    pub const FIRST: Epoch = Epoch(1);

    /// The epoch of the next writer.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl Seq {
    /// The place before a room's first entry.
    pub const START: Seq = Seq(0);

    /// The number that follows.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}
