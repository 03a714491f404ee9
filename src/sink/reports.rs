//! What other threads tell a sink: put down there, taken by the owner of the pipeline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where reports are put down. Cheap to clone.
pub struct Reports<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    reports: Mutex<Vec<T>>,
    /// The owner was rung and has not taken the reports yet.
    rung: AtomicBool,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl<T> Clone for Reports<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Reports<T> {
    /// An empty place; `ring` is called when there is something.
    pub fn new(ring: Box<dyn Fn() + Send + Sync>) -> Self {
        let (reports, rung) = (Mutex::default(), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { reports, rung, ring }) }
    }

    /// Puts a report down. How many there can be is bounded by the work that was handed out.
    pub fn post(&self, report: T) {
        self.lock().push(report);
        if !self.shared.rung.swap(true, Ordering::AcqRel) {
            (self.shared.ring)();
        }
    }

    /// Takes what there is into an empty list.
    pub(super) fn take(&self, into: &mut Vec<T>) {
        self.shared.rung.store(false, Ordering::Release);
        std::mem::swap(&mut *self.lock(), into);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        // A list is whole whenever its lock is free.
        self.shared.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
