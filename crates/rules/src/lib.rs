//! Rooms, categories, roles: who may do what.
//!
//! Every decision about access and every limit of the chat model is a pure function here: no IO, no clock, no SQL, no
//! async. `store` fetches what a decision needs, `server` asks and obeys.

pub mod access;
pub mod admission;
pub mod chain;
pub mod change;
pub mod durability;
pub mod head;
pub mod history;
pub mod id;
pub mod late;
pub mod limit;
pub mod merkle;
pub mod name;
pub mod nearest;
pub mod receipt;
pub mod signature;
pub mod verify;
