//! The relay sink: batches of events to the app's own server, one at a time, each acknowledged.
//!
//! An event is delivered when the app has acknowledged the batch that it was in: with the id of
//! that very attempt, and `ok`. Whatever else happens, the events go again, in file order, over a
//! fresh connection; so nothing that belongs to an earlier attempt can count for a later one.
//!
//! `link` is the connection, `batch` the text and the judgement of answers, `watch` what is told;
//! this file decides, and can be tested without a network.

mod batch;
mod forward;
mod handshake;
mod inspect;
mod link;
mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::debug;

pub use self::inspect::inspect;
pub use self::link::Target;

use self::batch::{Added, Batch, Judgement, Room, judge};
use self::link::{Link, Report, Reports, Said, SocketIo};
use self::watch::Watch;
use crate::domain::acks::RecordId;
use crate::domain::delivery::{Backoff, Outcome};
use crate::domain::envelope::{Reason, Rejection};
use crate::platform::clock::Clock;
use crate::sink::{Health, Message, Secrets, Sink};

/// The waiting times between two connections.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const LONGEST_AGAIN: Duration = Duration::from_secs(30);

/// How far apart two connections begin at least, however well the one before began.
const APART: Duration = Duration::from_secs(1);

/// How long to wait at least before asking again an app that did not let us in.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// How often in a row an event may go unacknowledged, alone in its batch each time, before it is named.
const SUSPECT: u32 = 3;

/// A connection that lasted so long was a good one, even if there was nothing to send.
const STEADY: Duration = Duration::from_secs(30);

/// What the relay needs to be told.
#[derive(Clone)]
pub struct Settings {
    /// Where the app is.
    pub target: Target,
    /// The namespace there.
    pub namespace: String,
    /// What is shown to the app.
    pub auth_token: Option<String>,
    /// How long the app may take to acknowledge a batch.
    pub ack_timeout: Duration,
    /// How many events a batch has at most.
    pub batch_max_events: usize,
    /// How old an event may be when catching up.
    pub max_event_age: Option<Duration>,
}

/// See the module.
pub struct RelaySink {
    room: Room,
    namespace: String,
    max_event_age: Option<Duration>,
    clock: Arc<dyn Clock>,
    link: Box<dyn Link>,
    reports: Reports,
    /// Events that are not out, in file order.
    queue: VecDeque<Slot>,
    /// The batch that is.
    out: Option<Out>,
    settled: Vec<(RecordId, Outcome)>,
    phase: Phase,
    /// Names connections, so that late reports of former ones are known.
    connection: u64,
    /// When the present one, or the last, began.
    began: Option<Instant>,
    backoff: Backoff,
    /// How many events a batch may have for now.
    allowed: usize,
    /// The event that went unacknowledged alone, and how often in a row.
    suspect: Option<(RecordId, u32)>,
    /// Tells batches of this process from those of others.
    stamp: u64,
    batches: u64,
    retries: u64,
    /// Not everything was read that came while the app was away.
    catching_up: bool,
    /// Everything that there is was read.
    read_up: bool,
    watch: Watch,
}

struct Slot {
    id: RecordId,
    message: Message,
    /// Delivering it is catching up.
    late: bool,
}

/// A batch on its way.
struct Out {
    batch_id: String,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection before then.
    Resting {
        until: Instant,
    },
    Connecting,
    Joined {
        since: Instant,
    },
}

impl RelaySink {
    /// A sink that connects at its first chance. `ring` is called when something happened.
    pub fn new(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        ring: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let reports = Reports::new(ring);
        let link = SocketIo::new(settings, reports.clone());
        Self::with(settings, clock, Box::new(link), reports)
    }

    fn with(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        link: Box<dyn Link>,
        reports: Reports,
    ) -> Self {
        Self {
            room: Room::new(settings.batch_max_events, &settings.namespace, None),
            namespace: settings.namespace.clone(),
            max_event_age: settings.max_event_age,
            link,
            reports,
            queue: VecDeque::new(),
            out: None,
            settled: Vec::new(),
            phase: Phase::Resting { until: clock.now() },
            connection: 0,
            began: None,
            backoff: Backoff::new(FIRST_AGAIN, LONGEST_AGAIN),
            allowed: settings.batch_max_events,
            suspect: None,
            stamp: RandomState::new().hash_one(clock.unix_ms()),
            batches: 0,
            retries: 0,
            catching_up: false,
            read_up: false,
            watch: Watch::new(Arc::clone(&clock)),
            clock,
        }
    }

    fn on_report(&mut self, report: Report) {
        // A connection that was given up may still have something to say.
        if report.connection != self.connection || matches!(self.phase, Phase::Resting { .. }) {
            return;
        }
        match report.said {
            Said::Joined { max_payload } => {
                debug!(max_payload, "the app let the bridge in");
                self.room = Room::new(self.room.events, &self.namespace, max_payload);
                self.phase = Phase::Joined { since: self.clock.now() };
                // Else reading says so later; it says nothing where there is nothing to read.
                self.catching_up &= !self.read_up;
            }
            Said::Refused(why) => self.lose(&format!("the app does not let it in: {why}"), true),
            Said::Answered(answer) => self.on_answer(&answer),
            Said::Lost(why) => self.lose(&why, false),
        }
    }

    fn on_answer(&mut self, answer: &Value) {
        let Some(out) = &self.out else { return };
        match judge(answer, &out.batch_id) {
            Judgement::Acknowledged { refused } => self.on_acknowledged(&refused),
            Judgement::NotOne(why) => {
                self.lose(&format!("the app's acknowledgement {why}"), false);
            }
        }
    }

    fn on_acknowledged(&mut self, refused: &BTreeSet<String>) {
        for slot in self.out.take().map(|out| out.slots).unwrap_or_default() {
            let is_refused =
                !refused.is_empty() && refused.contains(&slot.message.event_id().to_string());
            let outcome = if is_refused {
                Outcome::Refused(Rejection::new(Reason::Refused, "the app refused it"))
            } else {
                Outcome::Delivered
            };
            self.settled.push((slot.id, outcome));
        }
        self.allowed = (self.allowed + self.allowed / 8 + 1).min(self.room.events);
        self.suspect = None;
        self.backoff.reset();
        self.watch.recovered();
    }

    /// Gives the connection up; what was out goes again, before everything else.
    fn lose(&mut self, why: &str, refused: bool) {
        debug!(why, "the connection to the app is over");
        self.link.close();
        let now = self.clock.now();
        if let Phase::Joined { since } = self.phase
            && now >= since + STEADY
        {
            self.backoff.reset();
        }
        let delay =
            self.backoff.next_delay().max(if refused { REFUSED_AGAIN } else { FIRST_AGAIN });
        let until = self.began.map_or(now, |began| began + APART).max(now + delay);
        self.phase = Phase::Resting { until };
        let mut blocked = None;
        if let Some(out) = self.out.take() {
            self.retries += out.slots.len() as u64;
            // What ends the connection may be one event of them: it comes to be alone.
            self.allowed = (out.slots.len() / 2).max(1);
            blocked = self.suspect(&out);
            for slot in out.slots.into_iter().rev() {
                self.queue.push_front(slot);
            }
        }
        self.catching_up = true;
        for slot in &mut self.queue {
            slot.late = true;
        }
        match blocked {
            Some(blocked) => self.watch.failed(&format!("{why}; {blocked}"), true),
            None => self.watch.failed(why, refused),
        }
    }

    /// Names the event that nothing gets past, if it is one. It is never given up: an app that is
    /// killed again and again looks the same from here.
    fn suspect(&mut self, out: &Out) -> Option<String> {
        let [slot] = out.slots.as_slice() else {
            self.suspect = None;
            return None;
        };
        let before = self.suspect.filter(|(id, _)| *id == slot.id).map_or(0, |(_, times)| times);
        let times = before.saturating_add(1);
        self.suspect = Some((slot.id, times));
        (times >= SUSPECT).then(|| {
            let (id, bytes) = (slot.message.event_id(), slot.message.payload().len());
            format!(
                "the event {id} ({bytes} bytes) was sent alone {SUSPECT} times or more and never \
                 acknowledged: all others wait behind it"
            )
        })
    }

    /// Does what is due: connects, or sends the next batch.
    fn pump(&mut self) {
        match self.phase {
            Phase::Resting { until } if self.clock.now() >= until => {
                self.connection += 1;
                self.began = Some(self.clock.now());
                self.phase = Phase::Connecting;
                self.link.connect(self.connection);
            }
            Phase::Resting { .. } | Phase::Connecting => {}
            Phase::Joined { .. } => {
                if self.out.is_none() {
                    self.send_next();
                }
                if self.out.is_none() {
                    self.watch.recovered();
                }
            }
        }
    }

    fn send_next(&mut self) {
        self.batches += 1;
        let batch_id = format!("{:016x}-{}", self.stamp, self.batches);
        let room = Room { events: self.allowed, ..self.room };
        let (mut batch, mut slots) = (Batch::new(&batch_id, room), Vec::new());
        while let Some(slot) = self.queue.pop_front() {
            if self.is_too_old(&slot) {
                self.settled.push((slot.id, Outcome::LeftOut));
                continue;
            }
            match batch.add(&slot.message) {
                Added::Yes => slots.push(slot),
                Added::Never(why) => self.settled.push((slot.id, Outcome::Refused(why))),
                Added::Full => {
                    self.queue.push_front(slot);
                    break;
                }
            }
        }
        if !slots.is_empty() {
            self.link.send(batch.finish());
            self.out = Some(Out { batch_id, slots });
        }
    }

    fn is_too_old(&self, slot: &Slot) -> bool {
        let max_age = self.max_event_age.filter(|_| slot.late);
        max_age.is_some_and(|age| slot.message.is_older_than(age, self.clock.unix_ms()))
    }

    fn is_joined(&self) -> bool {
        matches!(self.phase, Phase::Joined { .. })
    }

    /// Whether a batch could go out now.
    fn may_send(&self) -> bool {
        self.is_joined() && self.out.is_none() && !self.queue.is_empty()
    }
}

impl Sink for RelaySink {
    fn publish(&mut self, id: RecordId, message: Message) {
        self.read_up = false;
        let late = message.backlog || self.catching_up || !self.is_joined();
        self.queue.push_back(Slot { id, message, late });
        // Else what else is read in this turn comes into the same batch.
        if self.queue.len() >= self.allowed && self.may_send() {
            self.pump();
        }
    }

    fn caught_up(&mut self) {
        self.read_up = true;
        self.catching_up &= !self.is_joined();
        self.pump();
    }

    fn settle(&mut self, outcomes: &mut Vec<(RecordId, Outcome)>) {
        let mut reports = Vec::new();
        self.reports.take(&mut reports);
        for report in reports {
            self.on_report(report);
        }
        self.pump();
        self.watch.tell_if_due();
        outcomes.append(&mut self.settled);
    }

    fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Resting { until } => Some(until),
            // Also what was settled while something was published waits for its turn.
            _ if self.may_send() || !self.settled.is_empty() => Some(self.clock.now()),
            Phase::Connecting | Phase::Joined { .. } => None,
        };
        [phase, self.watch.tell_at()].into_iter().flatten().min()
    }

    /// The present connection goes on: whom the app let in, it let in. One that it refused is made
    /// anew at once.
    fn renew(&mut self, secrets: &Secrets) {
        let Some(token) = &secrets.auth_token else { return };
        self.link.renew(token);
        if let Phase::Resting { until } = self.phase {
            let apart = self.began.map_or(until, |began| began + APART);
            self.phase = Phase::Resting { until: until.min(apart) };
            self.backoff.reset();
        }
    }

    fn health(&self) -> Health {
        let (state, reason, since_ms) = self.watch.state();
        Health {
            state,
            reason,
            since_ms,
            in_flight: self.queue.len() + self.out.as_ref().map_or(0, |out| out.slots.len()),
            retries: self.retries,
            listening: None,
            clients: None,
            delivered_to_nobody: 0,
            clients_given_up: 0,
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
