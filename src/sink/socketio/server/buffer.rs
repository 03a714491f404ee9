//! What one client has not taken yet, counted by the packets themselves.
//!
//! Each event on its way to a client is a [`Parcel`], which says so when it leaves: Engine.IO drops
//! a packet when it writes it out, and not before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engineioxide::Str;

use crate::platform::clock::Clock;

/// How many events a client's buffer holds.
pub(super) const EVENTS_MAX: usize = 4096;

/// How many bytes. One larger event is held alone.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// Wakes the owner of the pipeline when something changed that it waits for.
pub(super) struct Bell {
    ring: Box<dyn Fn() + Send + Sync>,
    /// Rings when a buffer is half empty.
    pub(super) for_room: AtomicBool,
    /// Rings when a buffer is empty.
    pub(super) for_empty: AtomicBool,
}

/// What a client has not taken yet.
pub(super) struct Buffer {
    events: AtomicUsize,
    bytes: AtomicUsize,
    /// When the first event came in or one last left, in milliseconds since `epoch`.
    moved_ms: AtomicU64,
    epoch: Instant,
    clock: Arc<dyn Clock>,
    bell: Arc<Bell>,
}

/// An event on its way to one client. All of them share its text.
pub(super) struct Parcel {
    text: Bytes,
    buffer: Arc<Buffer>,
}

impl Bell {
    pub(super) fn new(ring: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { ring, for_room: AtomicBool::new(false), for_empty: AtomicBool::new(false) }
    }

    pub(super) fn ring(&self) {
        (self.ring)();
    }
}

impl Parcel {
    /// The packet for it, which it lives as long as.
    pub(super) fn packet(self) -> Str {
        as_text(self)
    }
}

/// The one place where bytes become text unseen.
#[expect(unsafe_code, reason = "no safe constructor takes bytes that somebody else owns")]
fn as_text(parcel: Parcel) -> Str {
    // SAFETY: the bytes are those of `packet::event`: pieces of a line that was validated to be
    // UTF-8, cut at ASCII characters, and a JSON string.
    unsafe { Str::from_bytes_unchecked(Bytes::from_owner(parcel)) }
}

impl AsRef<[u8]> for Parcel {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.buffer.left(self.text.len());
    }
}

impl Buffer {
    pub(super) fn new(clock: Arc<dyn Clock>, bell: Arc<Bell>) -> Self {
        let epoch = clock.now();
        Self {
            events: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            epoch,
            clock,
            bell,
        }
    }

    /// How many events are in it.
    pub(super) fn events(&self) -> usize {
        self.events.load(Ordering::SeqCst)
    }

    /// Whether an event of this many bytes fits in.
    pub(super) fn has_room(&self, length: usize) -> bool {
        let (events, bytes) = (self.events(), self.bytes.load(Ordering::SeqCst));
        events == 0 || (events < EVENTS_MAX && bytes.saturating_add(length) <= BYTES_MAX)
    }

    /// Counts an event in.
    pub(super) fn take(self: &Arc<Self>, text: Bytes) -> Parcel {
        self.bytes.fetch_add(text.len(), Ordering::SeqCst);
        if self.events.fetch_add(1, Ordering::SeqCst) == 0 {
            self.touch();
        }
        Parcel { text, buffer: Arc::clone(self) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.load(Ordering::SeqCst) == 0
    }

    /// When the first event came in or one last left.
    pub(super) fn moved(&self) -> Instant {
        self.epoch + Duration::from_millis(self.moved_ms.load(Ordering::SeqCst))
    }

    fn touch(&self) {
        let since = self.clock.now().saturating_duration_since(self.epoch);
        self.moved_ms.store(since.as_millis() as u64, Ordering::SeqCst);
    }

    /// An event of this many bytes went to the network.
    fn left(&self, length: usize) {
        self.touch();
        let bytes = self.bytes.fetch_sub(length, Ordering::SeqCst) - length;
        let events = self.events.fetch_sub(1, Ordering::SeqCst) - 1;
        // Half of it, so that a catch-up does not switch threads for each event.
        let half_empty = events <= EVENTS_MAX / 2 && bytes <= BYTES_MAX / 2;
        if (half_empty && self.bell.for_room.swap(false, Ordering::SeqCst))
            || (events == 0 && self.bell.for_empty.swap(false, Ordering::SeqCst))
        {
            self.bell.ring();
        }
    }
}
