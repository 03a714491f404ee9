//! Whether Kafka takes events: what is told of an outage, and when the cluster is asked.
//!
//! librdkafka complains of single connections. That is worth telling only if nothing is
//! acknowledged for a while after it, and then once, with the cluster's own answer where it gives
//! one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::platform::clock::Clock;

/// How long nothing may be acknowledged before the cluster is asked what is wrong.
pub(super) const STALLED: Duration = Duration::from_secs(5);
/// How long a complaint may pass without anything being acknowledged.
const RUMOUR: Duration = Duration::from_secs(2);
/// What is known where nobody says anything.
const SILENT: &str = "the cluster answers, but acknowledges nothing";
/// How librdkafka's complaint ends that says least.
const ALL_DOWN: &str = "brokers are down";
/// How often a change of trouble is told.
const TELL_INTERVAL: Duration = Duration::from_mins(1);

/// What is known of the other side.
pub(super) struct Watch {
    clock: Arc<dyn Clock>,
    trouble: Option<Trouble>,
    /// What librdkafka complained about since something was last acknowledged.
    rumour: Option<(Instant, String)>,
    last_progress: Instant,
    last_probe: Instant,
    /// Counts what the cluster was asked.
    questions: u64,
    /// What was asked up to here, something has happened since that outweighs the answer.
    outdated: u64,
}

struct Trouble {
    reason: String,
    source: Source,
    since: Instant,
    since_ms: i64,
    /// When the log was told.
    told: Instant,
}

/// What a reason is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Nobody answers.
    Connection,
    /// The cluster does not have what is needed.
    Topic,
    /// The cluster answers, and that is all.
    Silence,
}

impl Watch {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        Self {
            clock,
            trouble: None,
            rumour: None,
            last_progress: now,
            last_probe: now,
            questions: 0,
            outdated: 0,
        }
    }

    /// There was nothing to wait for until now, or something was settled.
    pub(super) fn progress(&mut self) {
        self.last_progress = self.clock.now();
    }

    /// Something was acknowledged.
    pub(super) fn acknowledged(&mut self) {
        self.progress();
        self.recovered();
        self.outdated = self.questions;
    }

    /// Other secrets from now on: what the former ones led to says nothing of them.
    pub(super) fn renewed(&mut self) {
        self.rumour = None;
        self.outdated = self.questions;
    }

    /// librdkafka complained. Its first word counts, unless that is the one without a cause.
    pub(super) fn rumour(&mut self, reason: String) {
        let now = self.clock.now();
        let (_, known) = self.rumour.get_or_insert_with(|| (now, reason.clone()));
        if known.ends_with(ALL_DOWN) {
            *known = reason;
        }
    }

    /// When to ask the cluster. `waiting`: there are records without an answer.
    pub(super) fn probe_at(&self, waiting: bool) -> Option<Instant> {
        let stalled = waiting.then(|| self.last_progress + STALLED);
        let rumour = self.rumour.as_ref().map(|(since, _)| *since + RUMOUR);
        let trouble = self.trouble.as_ref().map(|_| self.last_probe + STALLED);
        let due = [stalled, rumour, trouble].into_iter().flatten().min()?;
        Some(due.max(self.last_probe + RUMOUR))
    }

    /// The number of the question, if the cluster is to be asked now.
    pub(super) fn take_probe(&mut self, waiting: bool) -> Option<u64> {
        let now = self.clock.now();
        self.probe_at(waiting).filter(|at| now >= *at)?;
        self.last_probe = now;
        self.questions += 1;
        Some(self.questions)
    }

    /// The cluster's answer. It takes seconds where nobody answers, so it may tell of a past.
    pub(super) fn probed(
        &mut self,
        question: u64,
        answer: Result<Option<String>, String>,
        waiting: bool,
    ) {
        if question <= self.outdated {
            return;
        }
        match answer {
            // What the cluster says of the topic is the better reason, of a connection what
            // librdkafka said about it first.
            Err(reason) if reason.starts_with("topic ") => self.tell(reason, Source::Topic),
            Err(reason) => {
                let said = self.take_rumour();
                self.tell_or_keep(Source::Connection, said, reason);
            }
            Ok(_) if !waiting => self.recovered(),
            Ok(doubt) if self.clock.now() >= self.last_progress + STALLED => {
                let said = doubt.or_else(|| self.take_rumour());
                let said = said.map(|why| format!("{SILENT}: {why}"));
                self.tell_or_keep(Source::Silence, said, SILENT.to_owned());
            }
            Ok(_) => {}
        }
    }

    /// Why events are not taken, and since when (milliseconds since 1970).
    pub(super) fn trouble(&self) -> Option<(&str, i64)> {
        self.trouble.as_ref().map(|trouble| (trouble.reason.as_str(), trouble.since_ms))
    }

    /// What may be wrong.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.rumour.as_ref().map(|(_, reason)| reason.as_str())
    }

    fn take_rumour(&mut self) -> Option<String> {
        self.rumour.take().map(|(_, reason)| reason)
    }

    /// Tells what was said since, or else what was told before for as long as it is the same trouble.
    fn tell_or_keep(&mut self, source: Source, said: Option<String>, plain: String) {
        let told = self.trouble.as_ref().filter(|trouble| trouble.source == source);
        let known = said.or_else(|| told.map(|trouble| trouble.reason.clone()));
        self.tell(known.unwrap_or(plain), source);
    }

    /// Tells what is wrong when it begins, and at most once a minute when it is something else.
    fn tell(&mut self, reason: String, source: Source) {
        let now = self.clock.now();
        let (since, since_ms, told) = match &self.trouble {
            Some(trouble) => (trouble.since, trouble.since_ms, Some(trouble)),
            None => (now, self.clock.unix_ms(), None),
        };
        let told = match told {
            Some(trouble) if trouble.reason == reason => trouble.told,
            Some(trouble) if now < trouble.told + TELL_INTERVAL => trouble.told,
            _ => {
                error!(reason, "Kafka does not take events: they wait in the file; trying on");
                now
            }
        };
        self.trouble = Some(Trouble { reason, source, since, since_ms, told });
    }

    fn recovered(&mut self) {
        self.rumour = None;
        if let Some(trouble) = self.trouble.take() {
            let seconds = (self.clock.now() - trouble.since).as_secs();
            info!(seconds, "Kafka takes events again");
        }
    }
}
