//! What may happen often and is told seldom.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How far apart.
const INTERVAL: Duration = Duration::from_mins(1);

/// Whether something was told lately.
#[derive(Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is time to tell it; it counts as told then.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.is_none_or(|told| now >= told + INTERVAL);
        if due {
            *told = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_once_and_then_once_a_minute() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let due =
            [0, 1, 59, 60, 61, 119, 120].map(|s| seldom.is_due(start + Duration::from_secs(s)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}
