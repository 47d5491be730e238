//! Ports for what a test starts.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port that nobody listens at, and that nobody else takes before it is listened at: it lies below those that the kernel gives to
/// connections (from 32,768 on), above those of labs (12,000 to 30,000), and each test and each call begins to look elsewhere.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(37);
    loop {
        let at = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 2_700;
        let port = 30_000 + u16::try_from(at).expect("it is below 2,700");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
