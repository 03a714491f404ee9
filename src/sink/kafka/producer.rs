//! The sink's seam to librdkafka: what it asks of a producer, and what producers report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::envelope::Rejection;
use crate::sink::Message;

/// A producer as the sink needs it.
pub trait Producer: Send {
    /// Hands over a record; its report comes back under `tag`.
    fn send(&self, tag: u64, message: &Message) -> Result<(), SendError>;
    /// Sends at once what waits for a fuller batch.
    fn nudge(&self);
    /// Gives back everything that is not acknowledged.
    fn purge(&self);
    /// Asks the cluster about the topic; the answer comes as [`Report::Probed`].
    fn probe(&self);
}

/// What a producer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Everything, in order; dead after the first loss.
    Flow,
    /// One record at a time.
    Alone,
}

/// Makes producers.
pub trait Connect: Send {
    /// A producer whose reports carry `epoch`, with batches of at most `batch_bytes` if given.
    fn connect(
        &self,
        purpose: Purpose,
        epoch: u32,
        batch_bytes: Option<usize>,
        reports: &Reports,
    ) -> Result<Box<dyn Producer>, String>;
}

/// Why a record could not be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// No room; later.
    QueueFull,
    /// The same as a failed report.
    Failed(Failure),
}

/// Why a record was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The batch that it was in can't be accepted; whether it was this record, only trying it
    /// alone can tell.
    Unacceptable(Rejection),
    /// Anything that may heal.
    Transient(String),
}

/// What producers tell, on their own threads. A tag names a record, an epoch the producer.
#[derive(Debug)]
pub enum Report {
    /// Acknowledged.
    Delivered {
        /// The record.
        tag: u64,
    },
    /// Not delivered, or not known to be.
    Failed {
        /// The producer that had it.
        epoch: u32,
        /// The record.
        tag: u64,
        /// Why.
        failure: Failure,
    },
    /// The producer is dead.
    Fatal {
        /// Which one.
        epoch: u32,
        /// Why.
        reason: String,
    },
    /// Something is wrong with a connection.
    Trouble {
        /// Whose.
        epoch: u32,
        /// What.
        reason: String,
    },
    /// The answer to a probe.
    Probed(Result<(), String>),
}

/// Where reports are put down. Cheap to clone.
#[derive(Clone)]
pub struct Reports {
    shared: Arc<Shared>,
}

struct Shared {
    reports: Mutex<Vec<Report>>,
    /// The owner was rung and has not taken the reports yet.
    rung: AtomicBool,
    ring: Box<dyn Fn() + Send + Sync>,
}

impl Reports {
    /// An empty place; `ring` is called when there is something.
    pub fn new(ring: Box<dyn Fn() + Send + Sync>) -> Self {
        let (reports, rung) = (Mutex::default(), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { reports, rung, ring }) }
    }

    /// Puts a report down. What is there is bounded by the records in flight.
    pub fn post(&self, report: Report) {
        self.lock().push(report);
        if !self.shared.rung.swap(true, Ordering::AcqRel) {
            (self.shared.ring)();
        }
    }

    pub(super) fn take(&self, into: &mut Vec<Report>) {
        self.shared.rung.store(false, Ordering::Release);
        std::mem::swap(&mut *self.lock(), into);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Report>> {
        // A list is whole whenever its lock is free.
        self.shared.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
