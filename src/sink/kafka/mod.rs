//! The Kafka sink: first deliveries in file order, whatever fails.
//!
//! Records flow through one idempotent producer. When a batch fails for good, librdkafka would
//! send what is queued behind it; `enable.gapless.guarantee` makes that producer stop dead
//! instead. The sink then builds a new one and sends everything that is not acknowledged again,
//! from memory and in file order, the records of the failed batch one at a time through a second
//! producer. A record that is refused when it is alone can never be accepted: it is the only one
//! that leaves as refused. Everything else is tried for ever.
//!
//! `client` sends through librdkafka, `inspect` looks around with it; this file holds the order and
//! can be tested without it.

mod batch;
mod client;
mod inspect;
mod producer;
mod renew;
mod settings;
mod time;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

pub use self::client::Librdkafka;
pub use self::inspect::inspect;
pub use self::producer::{Connect, Failure, Producer, Purpose, Report, Reports, SendError};
pub use self::settings::{Settings, SettingsError, Timestamp};

use self::batch::BatchSize;
use self::time::leave_out_refused;
use self::watch::Watch;
use super::{Health, Message, Secrets, Sink, State};
use crate::domain::acks::RecordId;
use crate::domain::delivery::{Backoff, Outcome};
use crate::domain::envelope::Reason;
use crate::platform::clock::Clock;

/// How long a broken producer may take to give its records back before a new one is built.
const GIVE_BACK: Duration = Duration::from_secs(2);
/// How long to wait for room in librdkafka's queue, which is never full by our limits.
const QUEUE_FULL_RETRY: Duration = Duration::from_millis(10);

/// See the module.
pub struct KafkaSink {
    connect: Box<dyn Connect>,
    clock: Arc<dyn Clock>,
    reports: Reports,
    taken: Vec<Report>,
    flow: Option<Box<dyn Producer>>,
    alone: Option<Box<dyn Producer>>,
    /// Counts producers, so that late reports of former ones are known.
    epoch: u32,
    /// Records not settled, in file order.
    queue: VecDeque<Slot>,
    /// Tag of the first of them.
    first: u64,
    /// Tag of the first that was not handed to a producer.
    next: u64,
    /// How many are with a producer.
    sent: usize,
    phase: Phase,
    /// The smallest size that was refused as too large: such records go alone at once.
    refused_size: Option<usize>,
    batch: BatchSize,
    /// Events of this time and before are sent without it: the broker takes none that old.
    refused_ms: i64,
    /// Set while the records of a batch that was too large go alone.
    isolation: Option<Isolation>,
    unhurried: bool,
    backoff: Backoff,
    retries: u64,
    watch: Watch,
    queue_full: bool,
}

struct Slot {
    id: RecordId,
    message: Message,
    state: SlotState,
    /// It was in a batch that can't be accepted.
    suspect: bool,
    /// The event's time, where the broker refused it: it goes with the time of sending.
    refused_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Waiting,
    Sent { epoch: u32 },
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Records go out as they come.
    Flowing,
    /// This one is out alone; nothing overtakes it.
    Alone { tag: u64 },
    /// A producer died; a new one is built when its records are back.
    Broken { since: Instant, not_before: Instant },
}

/// What going alone has shown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isolation {
    /// No record was refused: the batch was too large, not one of its records.
    AllPassed,
    /// A record was refused by itself.
    FoundPoison,
}

impl KafkaSink {
    /// A sink that makes its producers with `connect`, the first one at once.
    ///
    /// # Errors
    /// Why librdkafka does not accept the settings.
    pub fn new(
        connect: Box<dyn Connect>,
        clock: Arc<dyn Clock>,
        batch_bytes: Option<usize>,
        reports: Reports,
    ) -> Result<Self, String> {
        let flow = connect.connect(Purpose::Flow, 0, None, &reports)?;
        let watch = Watch::new(Arc::clone(&clock));
        Ok(Self {
            connect,
            clock,
            reports,
            taken: Vec::new(),
            flow: Some(flow),
            alone: None,
            epoch: 0,
            queue: VecDeque::new(),
            first: 0,
            next: 0,
            sent: 0,
            phase: Phase::Flowing,
            refused_size: None,
            batch: BatchSize { configured: batch_bytes, learned: None },
            refused_ms: i64::MIN,
            isolation: None,
            unhurried: false,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(30)),
            retries: 0,
            watch,
            queue_full: false,
        })
    }

    /// Hands over what may go out now, in order.
    fn pump(&mut self) {
        self.queue_full = false;
        while self.phase == Phase::Flowing {
            let Some(slot) = self.slot(self.next) else { return };
            if slot.state == SlotState::Done {
                self.next += 1;
            } else if self.must_go_alone(slot) {
                if self.next > self.first {
                    // Everything before it has to be acknowledged first, and soon.
                    self.hurry();
                    return;
                }
                self.send_alone();
            } else if let Err(error) = self.send_next() {
                match error {
                    SendError::QueueFull => self.queue_full = true,
                    SendError::Failed(failure) => self.on_send_failed(failure),
                }
                return;
            }
        }
    }

    fn slot(&self, tag: u64) -> Option<&Slot> {
        self.queue.get(usize::try_from(tag.checked_sub(self.first)?).ok()?)
    }

    fn slot_mut(&mut self, tag: u64) -> Option<&mut Slot> {
        self.queue.get_mut(usize::try_from(tag.checked_sub(self.first)?).ok()?)
    }

    fn must_go_alone(&self, slot: &Slot) -> bool {
        slot.suspect || self.refused_size.is_some_and(|size| slot.message.payload().len() >= size)
    }

    fn send_next(&mut self) -> Result<(), SendError> {
        let (tag, epoch) = (self.next, self.epoch);
        let index = (tag - self.first) as usize;
        let flow = if let Some(flow) = &self.flow {
            flow
        } else {
            if self.isolation.take() == Some(Isolation::AllPassed) {
                let bytes = self.batch.halve();
                warn!(
                    bytes,
                    "the topic takes the records of a batch but not the batch: smaller batches \
                     from now on"
                );
            }
            let batch = self.batch.learned;
            let flow = self.connect.connect(Purpose::Flow, epoch, batch, &self.reports);
            let flow = flow.map_err(|error| SendError::Failed(Failure::Transient(error)))?;
            self.flow.insert(flow)
        };
        let slot = &mut self.queue[index];
        leave_out_refused(&mut slot.message, self.refused_ms);
        flow.send(tag, &slot.message)?;
        slot.state = SlotState::Sent { epoch };
        self.sent += 1;
        self.next += 1;
        self.unhurried = true;
        Ok(())
    }

    /// Sends the first record through a producer of its own, and nothing else until it is back.
    fn send_alone(&mut self) {
        let (tag, epoch) = (self.first, self.epoch);
        let alone = match self.alone.take() {
            Some(alone) => Ok(alone),
            None => self.connect.connect(Purpose::Alone, epoch, None, &self.reports),
        };
        leave_out_refused(&mut self.queue[0].message, self.refused_ms);
        let sent = alone.map_err(Failure::Transient).and_then(|alone| {
            let sent = alone.send(tag, &self.queue[0].message);
            self.alone = Some(alone);
            sent.map_err(|error| match error {
                SendError::QueueFull => Failure::Transient("its queue is full".to_owned()),
                SendError::Failed(failure) => failure,
            })
        });
        // From here on a failure is the lone record's, whichever way it comes.
        self.phase = Phase::Alone { tag };
        self.queue[0].state = SlotState::Sent { epoch };
        self.sent += 1;
        if let Err(failure) = sent {
            self.reports.post(Report::Failed { epoch, tag, failure });
        }
    }

    fn on_send_failed(&mut self, failure: Failure) {
        match failure {
            Failure::Unacceptable(_) | Failure::BadTime(_) => {
                let tag = self.next;
                if let Some(slot) = self.slot_mut(tag) {
                    slot.suspect = true;
                }
                self.pump();
            }
            Failure::Transient(reason) => self.give_way(reason),
            Failure::GivenBack => self.break_down("its producer is gone"),
        }
    }

    fn on_report(&mut self, report: Report, outcomes: &mut Vec<(RecordId, Outcome)>) {
        match report {
            Report::Delivered { tag } => self.on_delivered(tag, outcomes),
            Report::Failed { epoch, tag, failure } => self.on_failed(epoch, tag, failure, outcomes),
            Report::Fatal { epoch, reason } if epoch == self.epoch => self.break_down(&reason),
            Report::Trouble { epoch, reason } if epoch == self.epoch => self.watch.rumour(reason),
            Report::Fatal { .. } | Report::Trouble { .. } => {}
            Report::Probed { question, answer } => {
                self.watch.probed(question, answer, !self.queue.is_empty());
            }
        }
    }

    fn on_delivered(&mut self, tag: u64, outcomes: &mut Vec<(RecordId, Outcome)>) {
        self.watch.acknowledged();
        self.backoff.reset();
        if self.phase == (Phase::Alone { tag }) {
            self.phase = Phase::Flowing;
            self.on_time_accepted(tag);
            let size = self.slot(tag).map_or(0, |slot| slot.message.payload().len());
            if self.refused_size.is_some_and(|refused| size >= refused) {
                // It compresses better than the one that was refused: the size alone says nothing.
                self.refused_size = None;
            }
        }
        self.done(tag, Outcome::Delivered, outcomes);
    }

    fn on_failed(
        &mut self,
        epoch: u32,
        tag: u64,
        failure: Failure,
        outcomes: &mut Vec<(RecordId, Outcome)>,
    ) {
        let alone = self.phase == Phase::Alone { tag };
        let Some(slot) = self.slot_mut(tag) else { return };
        if slot.state != (SlotState::Sent { epoch }) {
            return;
        }
        match failure {
            Failure::Unacceptable(rejection) if alone => {
                let size = slot.message.payload().len();
                self.isolation = Some(Isolation::FoundPoison);
                if rejection.reason == Reason::TooLarge {
                    self.refused_size =
                        Some(self.refused_size.map_or(size, |least| least.min(size)));
                }
                self.watch.progress();
                self.phase = Phase::Flowing;
                self.done(tag, Outcome::Refused(rejection), outcomes);
            }
            Failure::BadTime(why) if alone => self.on_time_refused(tag, &why),
            Failure::Unacceptable(_) | Failure::BadTime(_) => {
                slot.suspect = true;
                slot.state = SlotState::Waiting;
                self.sent -= 1;
                if matches!(&failure, Failure::Unacceptable(it) if it.reason == Reason::TooLarge) {
                    self.isolation.get_or_insert(Isolation::AllPassed);
                }
                debug!(?failure, "a batch was refused: its records go one at a time");
                self.break_down("a batch was refused");
                self.rebuild_soon();
            }
            Failure::Transient(_) | Failure::GivenBack => {
                slot.state = SlotState::Waiting;
                self.sent -= 1;
                if alone {
                    self.alone = None;
                    self.phase = Phase::Flowing;
                }
                match failure {
                    Failure::Transient(reason) => self.give_way(reason),
                    _ => self.break_down("records came back"),
                }
            }
        }
    }

    /// Settles a record, and forgets those at the front that are.
    fn done(&mut self, tag: u64, outcome: Outcome, outcomes: &mut Vec<(RecordId, Outcome)>) {
        let Some(slot) = self.slot_mut(tag) else { return };
        let before = std::mem::replace(&mut slot.state, SlotState::Done);
        if before == SlotState::Done {
            return;
        }
        outcomes.push((slot.id, outcome));
        if matches!(before, SlotState::Sent { .. }) {
            self.sent -= 1;
        }
        while self.queue.pop_front_if(|slot| slot.state == SlotState::Done).is_some() {
            self.first += 1;
        }
        self.next = self.next.max(self.first);
    }

    /// The producer can't go on, for a reason that is worth telling if it lasts.
    fn give_way(&mut self, reason: String) {
        self.break_down(&reason);
        self.watch.rumour(reason);
    }

    /// Stops using the producer and asks for its records back.
    fn break_down(&mut self, reason: &str) {
        if matches!(self.phase, Phase::Broken { .. }) {
            return;
        }
        debug!(reason, "the Kafka producer stopped: building a new one");
        for producer in [&self.flow, &self.alone].into_iter().flatten() {
            producer.purge();
        }
        let now = self.clock.now();
        self.phase = Phase::Broken { since: now, not_before: now + self.backoff.next_delay() };
    }

    /// The breakdown has a cause that waiting does not change.
    fn rebuild_soon(&mut self) {
        if let Phase::Broken { since, .. } = self.phase {
            self.phase = Phase::Broken { since, not_before: since };
        }
    }

    /// Starts over with a new producer: everything not acknowledged goes again, in file order.
    fn rebuild_if_due(&mut self) {
        let Phase::Broken { since, not_before } = self.phase else { return };
        if self.clock.now() < self.rebuild_at(since, not_before) {
            return;
        }
        self.flow = None;
        self.alone = None;
        self.epoch += 1;
        self.retries +=
            self.queue.iter().filter(|slot| slot.state != SlotState::Done).count() as u64;
        for slot in self.queue.iter_mut().filter(|slot| slot.state != SlotState::Done) {
            slot.state = SlotState::Waiting;
        }
        self.sent = 0;
        self.next = self.first;
        self.phase = Phase::Flowing;
        self.pump();
    }

    fn rebuild_at(&self, since: Instant, not_before: Instant) -> Instant {
        if self.sent > 0 { not_before.max(since + GIVE_BACK) } else { not_before }
    }

    fn hurry(&mut self) {
        if std::mem::take(&mut self.unhurried)
            && let Some(flow) = &self.flow
        {
            flow.nudge();
        }
    }

    /// Asks the cluster what is wrong while nothing moves; the answer is told, not the silence.
    fn probe_if_stalled(&mut self) {
        if let Some(question) = self.watch.take_probe(!self.queue.is_empty())
            && let Some(producer) = self.flow.as_ref().or(self.alone.as_ref())
        {
            producer.probe(question);
        }
    }
}

impl Sink for KafkaSink {
    fn publish(&mut self, id: RecordId, message: Message) {
        if self.queue.is_empty() {
            self.watch.progress();
        }
        self.queue.push_back(Slot {
            id,
            message,
            state: SlotState::Waiting,
            suspect: false,
            refused_ms: None,
        });
        self.pump();
    }

    fn caught_up(&mut self) {
        self.hurry();
    }

    fn settle(&mut self, outcomes: &mut Vec<(RecordId, Outcome)>) {
        let mut taken = std::mem::take(&mut self.taken);
        self.reports.take(&mut taken);
        for report in taken.drain(..) {
            self.on_report(report, outcomes);
        }
        self.taken = taken;
        self.rebuild_if_due();
        self.pump();
        self.probe_if_stalled();
    }

    fn deadline(&self) -> Option<Instant> {
        if let Phase::Broken { since, not_before } = self.phase {
            return Some(self.rebuild_at(since, not_before));
        }
        if self.queue_full {
            return Some(self.clock.now() + QUEUE_FULL_RETRY);
        }
        self.watch.probe_at(!self.queue.is_empty())
    }

    fn renew(&mut self, secrets: &Secrets) {
        self.renew_producers(secrets);
    }

    fn health(&self) -> Health {
        let trouble = self.watch.trouble();
        let complaint = self.watch.complaint();
        let state = match (trouble, complaint, self.phase) {
            (Some(_), ..) => State::Down,
            (None, Some(_), _) | (None, None, Phase::Broken { .. }) => State::Degraded,
            (None, None, _) => State::Up,
        };
        Health {
            state,
            reason: trouble.map(|(reason, _)| reason).or(complaint).map(str::to_owned),
            since_ms: trouble.map(|(_, since_ms)| since_ms),
            in_flight: self.queue.len(),
            retries: self.retries,
            listening: None,
            clients: None,
            delivered_to_nobody: 0,
            clients_given_up: 0,
        }
    }
}

#[cfg(test)]
mod tests;
