//! What the tests stand on: a broker, a daemon, a consumer, a host, events, and waiting for conditions.

pub mod account;
pub mod broker;
pub mod calls;
pub mod consumer;
pub mod daemon;
pub mod disk;
pub mod events;
pub mod host;
pub mod http;
pub mod load;
pub mod network;
pub mod relay;
pub mod socketio;

use std::fmt::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Long enough for a busy machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `ready` gives something, at most [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, what, ready)
}

/// Waits until `ready` gives something, at most `patience`.
#[track_caller]
pub fn wait_at_most<T>(patience: Duration, what: &str, ready: impl FnMut() -> Option<T>) -> T {
    poll(patience, ready).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Asks until there is an answer, or the patience ends.
pub fn poll<T>(patience: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = ready() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        // Between two looks at a condition, with a deadline.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// What `make soak` does for longer than `make test`: `usual` or `long`.
pub fn or_in_soak<T>(usual: T, long: T) -> T {
    if std::env::var_os("BRIDGE_SOAK").is_some() { long } else { usual }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}

/// SHA-256 in hex digits.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let mut digits = String::new();
    for byte in sha2::Sha256::digest(bytes) {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}
