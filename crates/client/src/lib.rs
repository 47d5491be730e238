//! What a chat client must do: find an active server, sign in, resume, send exactly once. For the terminal, replays,
//! bots and benchmarks. It knows nothing of the database.

pub mod audit;
pub mod connection;
pub mod countersigned;
pub mod directory;
pub mod error;
pub mod event;
pub mod http;
pub mod load;
pub mod memory;
pub mod receipts;
pub mod replay;
pub mod session;
pub mod verify;

pub use directory::Directory;
pub use error::ClientError;
pub use event::Event;
pub use http::Http;
pub use session::{Identity, Proof, Session};
