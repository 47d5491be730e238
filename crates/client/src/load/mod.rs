//! Load for benchmarks. It runs on the cores that it measures, so it is lean: one thread, sockets of its own, and of each
//! frame it looks at a few bytes only. What checks every byte is `replay` with `audit`.

pub mod crowd;
pub mod histogram;
pub mod light;
pub mod rounds;
pub mod socket;
pub mod storm;
pub mod yardstick;

pub use crowd::{Crowd, Seat};
pub use rounds::{Figures, Pace, Plan, Processor, run};
