//! Who is connected: a bounded number, of whom the one that has been idle longest makes room for the
//! next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// See the module.
pub(super) struct Connections {
    max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// By number, so in the order that they came.
    places: BTreeMap<u64, Entry>,
}

struct Entry {
    /// Since when it has been waiting for its client: to ask, or to take the answer. None: its
    /// request is being worked on.
    idle_since: Option<Instant>,
    end: Arc<Notify>,
}

/// The place of a connection, given back when dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
    end: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, open: Mutex::default() })
    }

    /// A place for one more. None: all are being worked on.
    pub(super) fn admit(self: &Arc<Self>, now: Instant) -> Option<Place> {
        let mut open = self.lock();
        if open.places.len() >= self.max {
            let idle = open.places.iter().filter_map(|(n, it)| Some((it.idle_since?, *n)));
            let (_, oldest) = idle.min()?;
            if let Some(entry) = open.places.remove(&oldest) {
                entry.end.notify_one();
            }
        }
        let (number, end) = (open.next, Arc::new(Notify::new()));
        open.next += 1;
        let entry = Entry { idle_since: Some(now), end: Arc::clone(&end) };
        open.places.insert(number, entry);
        drop(open);
        Some(Place { connections: Arc::clone(self), number, end })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Its request is being worked on.
    pub(super) fn works(&self) {
        self.set(None);
    }

    /// It waits for its client.
    pub(super) fn waits(&self, now: Instant) {
        self.set(Some(now));
    }

    /// Ends when the connection has to: it made room for another, or waited for too long.
    pub(super) async fn over(&self, patience: Duration) {
        loop {
            let until = self.idle_since().unwrap_or_else(Instant::now) + patience;
            let early = tokio::time::timeout_at(until.into(), self.end.notified()).await.is_ok();
            let waited = self.idle_since().is_some_and(|since| Instant::now() >= since + patience);
            if early || waited {
                return;
            }
        }
    }

    fn idle_since(&self) -> Option<Instant> {
        self.connections.lock().places.get(&self.number)?.idle_since
    }

    fn set(&self, idle_since: Option<Instant>) {
        if let Some(entry) = self.connections.lock().places.get_mut(&self.number) {
            entry.idle_since = idle_since;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_07_the_connection_that_has_been_idle_longest_makes_room_for_the_next() {
        let connections = Connections::new(2);
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let places = || connections.lock().places.keys().copied().collect::<Vec<_>>();
        let first = connections.admit(now).unwrap();
        let second = connections.admit(later(1)).unwrap();
        // The first one asked since: the second has been idle longer.
        first.works();
        first.waits(later(2));
        let third = connections.admit(later(3)).unwrap();
        assert_eq!(places(), [first.number, third.number]);
        drop(second);
        first.works();
        third.works();
        assert!(connections.admit(later(4)).is_none(), "nobody is idle");
        drop(first);
        assert!(connections.admit(later(5)).is_some());
        drop(third);
        assert_eq!(places(), [0; 0]);
    }
}
