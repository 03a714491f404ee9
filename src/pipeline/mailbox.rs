//! How the other threads reach the owner: two flags, a short list, and a bell.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Event;

/// Where events for the owner are put down. Cheap to clone.
#[derive(Clone, Default)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    bell: Condvar,
}

/// Hints are folded into flags: any number of them asks for one look. What is listed is bounded
/// by the work that was handed out, and by one for stopping.
#[derive(Default)]
struct Inbox {
    input_changed: bool,
    sink_reported: bool,
    listed: Vec<Event>,
}

impl Mailbox {
    /// Puts an event down and rings.
    pub fn post(&self, event: Event) {
        let mut inbox = self.lock();
        match event {
            Event::InputChanged => inbox.input_changed = true,
            Event::SinkReported => inbox.sink_reported = true,
            event => inbox.listed.push(event),
        }
        drop(inbox);
        self.shared.bell.notify_one();
    }

    /// Takes everything there is.
    pub fn take(&self, events: &mut Vec<Event>) {
        let mut inbox = self.lock();
        events.append(&mut inbox.listed);
        if std::mem::take(&mut inbox.input_changed) {
            events.push(Event::InputChanged);
        }
        if std::mem::take(&mut inbox.sink_reported) {
            events.push(Event::SinkReported);
        }
    }

    /// Waits until something is there, or until the moment given.
    pub fn wait(&self, until: Instant) {
        let inbox = self.lock();
        let timeout = until.saturating_duration_since(Instant::now());
        let empty = |inbox: &mut Inbox| {
            !inbox.input_changed && !inbox.sink_reported && inbox.listed.is_empty()
        };
        if timeout > Duration::ZERO {
            drop(self.shared.bell.wait_timeout_while(inbox, timeout, empty));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // A thread that panicked ends the process; the flags are valid whenever the lock is free.
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_folded_and_events_kept() {
        let mailbox = Mailbox::default();
        for _ in 0..1000 {
            mailbox.post(Event::InputChanged);
            mailbox.post(Event::SinkReported);
        }
        mailbox.post(Event::Stop);
        mailbox.wait(Instant::now() + Duration::from_mins(1));
        let mut events = Vec::new();
        mailbox.take(&mut events);
        assert!(
            matches!(events[..], [Event::Stop, Event::InputChanged, Event::SinkReported]),
            "{events:?}"
        );
    }

    #[test]
    fn a_wait_ends_when_another_thread_posts() {
        let mailbox = Mailbox::default();
        let other = mailbox.clone();
        let thread = std::thread::spawn(move || other.post(Event::InputChanged));
        mailbox.wait(Instant::now() + Duration::from_mins(1));
        thread.join().unwrap();
    }
}
