//! An app that writes all the time, while a test does something to the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::daemon::Bridge;

/// How many events are appended at once, a hundred times a second at most.
const BLOCK: u64 = 10;

/// Appends until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins with event number `from`.
    pub fn start(bridge: &Bridge, from: u64) -> Self {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(from)));
        let mut input = bridge.append();
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&next));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let first = count.load(Ordering::Relaxed);
                input.events(first..first + BLOCK);
                count.store(first + BLOCK, Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        Self { stop, next, thread: Some(thread) }
    }

    /// The number after the last so far.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Ends it, and gives the number after the last.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.next()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}
