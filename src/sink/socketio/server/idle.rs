//! Connections that wait to ask for something.
//!
//! Anyone can open connections and be silent. When there are too many, the one that has been silent
//! for the longest makes room for the next, so that clients still get in.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::stream::Switch;

/// See the module.
#[derive(Default)]
pub(super) struct Idle(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Of the last that came.
    number: u64,
    /// By when they came.
    connections: BTreeMap<u64, Switch>,
}

impl Idle {
    /// A connection begins to wait; gives the number to leave with.
    pub(super) fn enter(&self, switch: &Switch) -> u64 {
        let mut waiting = self.lock();
        waiting.number += 1;
        let number = waiting.number;
        waiting.connections.insert(number, switch.clone());
        number
    }

    /// It asks for something, or is gone.
    pub(super) fn leave(&self, number: u64) {
        self.lock().connections.remove(&number);
    }

    /// Ends the one that has waited longest, if there is one.
    pub(super) fn evict(&self) -> bool {
        let oldest = self.lock().connections.pop_first();
        oldest.map(|(_, switch)| switch.turn_off()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_waits_longest_makes_room() {
        let idle = Idle::default();
        let [first, second, third] = [(); 3].map(|()| Switch::default());
        let number = idle.enter(&first);
        idle.enter(&second);
        idle.enter(&third);
        idle.leave(number);
        idle.enter(&first);
        assert!(idle.evict() && idle.evict());
        assert_eq!([&first, &second, &third].map(Switch::is_off), [false, true, true]);
        assert!(idle.evict() && !idle.evict());
    }
}
