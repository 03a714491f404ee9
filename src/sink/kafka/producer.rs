//! The sink's seam to librdkafka: what it asks of a producer, and what producers report.

use crate::domain::envelope::Rejection;
use crate::sink::{Message, reports};

/// A producer as the sink needs it.
pub trait Producer: Send {
    /// Hands over a record; its report comes back under `tag`.
    fn send(&self, tag: u64, message: &Message) -> Result<(), SendError>;
    /// Sends at once what waits for a fuller batch.
    fn nudge(&self);
    /// Gives back everything that is not acknowledged.
    fn purge(&self);
    /// Asks the cluster about the topic; the answer comes as [`Report::Probed`] with this number,
    /// which is not 0.
    fn probe(&self, question: u64);
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

    /// Producers that are made from now on have these properties in place of their namesakes.
    fn renew(&mut self, secrets: &[(String, String)]) -> Result<(), String>;
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
    /// The broker does not accept the time that a record of the batch carries.
    BadTime(String),
    /// Anything that may heal.
    Transient(String),
    /// It went down with its producer, and is the cause of nothing.
    GivenBack,
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
    Probed {
        /// Which one. It may come late, from a producer that is gone.
        question: u64,
        /// What is wrong, if anything is; else what would explain it if nothing is acknowledged.
        answer: Result<Option<String>, String>,
    },
}

/// Where producers put their reports down.
pub type Reports = reports::Reports<Report>;
