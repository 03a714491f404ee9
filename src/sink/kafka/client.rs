//! librdkafka: a producer and the thread that takes its reports.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig,
};
use tracing::debug;

use super::settings::{Settings, SettingsError, Timestamp};
use super::{Connect, Failure, Message, Producer, Purpose, Report, Reports, SendError};
use crate::domain::envelope::{Reason, Rejection};
use crate::platform::clock::Clock;
use crate::platform::panics::on_purpose;

/// How long the poll thread waits at once. librdkafka wakes it for reports; the rest is for
/// noticing that the producer was dropped, and each turn costs a little.
const POLL: Duration = Duration::from_secs(1);
/// How long a question to the cluster may take.
const PROBE: Duration = Duration::from_secs(2);

/// Makes producers with librdkafka.
pub struct Librdkafka {
    settings: Settings,
    clock: Arc<dyn Clock>,
}

struct Client {
    producer: Arc<BaseProducer<Context>>,
    /// The question to ask the cluster. 0: none.
    question: Arc<AtomicU64>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    /// The clock when it was last asked: most events are older, so it need not be asked again.
    known_now_ms: Cell<i64>,
}

struct Context {
    epoch: u32,
    reports: Reports,
}

impl Librdkafka {
    /// Producers with these settings.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock }
    }

    /// Whether librdkafka accepts the settings, certificates and all. Connects to nobody.
    ///
    /// # Errors
    /// librdkafka's words, without the value.
    pub fn check(settings: &Settings) -> Result<(), SettingsError> {
        for purpose in [Purpose::Flow, Purpose::Alone] {
            let reports = Reports::new(Box::new(|| ()));
            let mut config = settings.client_config(purpose);
            // A producer can't be destroyed while it waits for a nameserver.
            config.remove("bootstrap.servers");
            create(&config, 0, &reports).map_err(SettingsError)?;
        }
        Ok(())
    }
}

fn create(
    config: &ClientConfig,
    epoch: u32,
    reports: &Reports,
) -> Result<BaseProducer<Context>, String> {
    let context = Context { epoch, reports: reports.clone() };
    BaseProducer::from_config_and_context(config, context).map_err(|error| describe(&error))
}

/// The error without the value that caused it, which may be a secret.
fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, key, _) => format!("{key}: {why}"),
        other => other.to_string(),
    }
}

impl Connect for Librdkafka {
    fn connect(
        &self,
        purpose: Purpose,
        epoch: u32,
        batch_bytes: Option<usize>,
        reports: &Reports,
    ) -> Result<Box<dyn Producer>, String> {
        let mut config = self.settings.client_config(purpose);
        if let Some(bytes) = batch_bytes {
            config.set("batch.size", bytes.to_string());
        }
        let producer = Arc::new(create(&config, epoch, reports)?);
        let question = Arc::new(AtomicU64::new(0));
        let poll = PollThread {
            producer: Arc::clone(&producer),
            question: Arc::clone(&question),
            topic: self.settings.topic.clone(),
            reports: reports.clone(),
        };
        std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || poll.run())
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        let (settings, clock) = (self.settings.clone(), Arc::clone(&self.clock));
        let known_now_ms = Cell::new(0);
        Ok(Box::new(Client { producer, question, settings, clock, known_now_ms }))
    }

    fn renew(&mut self, secrets: &[(String, String)]) -> Result<(), String> {
        let mut settings = self.settings.clone();
        for (key, value) in &mut settings.properties {
            if let Some((_, new)) = secrets.iter().find(|(name, _)| name == key) {
                value.clone_from(new);
            }
        }
        // Also whether the certificates can be read, and the key fits its password.
        Self::check(&settings).map_err(|error| error.to_string())?;
        self.settings = settings;
        Ok(())
    }
}

struct PollThread {
    producer: Arc<BaseProducer<Context>>,
    question: Arc<AtomicU64>,
    topic: String,
    reports: Reports,
}

impl PollThread {
    /// Runs until the client is dropped, and then destroys the producer. That takes as long as librdkafka
    /// waits for a nameserver, which the owner must not.
    fn run(self) {
        while Arc::strong_count(&self.producer) > 1 {
            self.producer.poll(POLL);
            on_purpose("kafka-poll");
            let question = self.question.swap(0, Ordering::AcqRel);
            if question > 0 {
                self.reports.post(Report::Probed { question, answer: self.probe() });
            }
        }
    }

    fn probe(&self) -> Result<Option<String>, String> {
        let metadata = self
            .producer
            .client()
            .fetch_metadata(Some(&self.topic), PROBE)
            .map_err(|e| e.to_string())?;
        let Some(topic) = metadata.topics().first() else { return Ok(None) };
        if let Some(error) = topic.error() {
            let code = RDKafkaErrorCode::from(error);
            return Err(match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                    format!(
                        "topic {} does not exist; create it, or let the broker do so",
                        self.topic
                    )
                }
                code => format!("topic {}: {code}", self.topic),
            });
        }
        let partitions = topic.partitions();
        let leaderless = partitions.iter().filter(|partition| partition.leader() < 0).count();
        if leaderless > 0 {
            let all = partitions.len();
            return Err(format!(
                "topic {}: {leaderless} of {all} partitions have no leader",
                self.topic
            ));
        }
        // Perhaps fewer than `min.insync.replicas`, which metadata do not have.
        let in_sync = |partition: &&MetadataPartition| partition.isr().len();
        let weakest = partitions.iter().min_by_key(in_sync);
        let weakest = weakest.filter(|partition| in_sync(partition) < partition.replicas().len());
        Ok(weakest.map(|partition| {
            let (id, isr, all) = (partition.id(), in_sync(&partition), partition.replicas().len());
            format!("partition {id} has {isr} of {all} replicas in sync")
        }))
    }
}

impl Client {
    fn is_past(&self, time_ms: i64) -> bool {
        if time_ms > self.known_now_ms.get() {
            self.known_now_ms.set(self.clock.unix_ms());
        }
        time_ms <= self.known_now_ms.get()
    }
}

impl Producer for Client {
    fn send(&self, tag: u64, message: &Message) -> Result<(), SendError> {
        let mut record = BaseRecord::with_opaque_to(&self.settings.topic, tag as usize)
            .key(message.user_id())
            .payload(message.payload());
        if self.settings.timestamp == Timestamp::Event {
            let time = message.event_time_ms;
            if time > 0 && self.is_past(time) {
                record = record.timestamp(time);
            }
        }
        if self.settings.headers {
            record = record.headers(cloud_event(message));
        }
        self.producer.send(record).map_err(|(error, _)| match failure(&error) {
            Some(failure) => SendError::Failed(failure),
            None => SendError::QueueFull,
        })
    }

    fn nudge(&self) {
        flush_briefly(&self.producer);
    }

    fn purge(&self) {
        // Else it waits for all threads of librdkafka's, and these may wait for a nameserver.
        self.producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
    }

    fn probe(&self, question: u64) {
        self.question.store(question, Ordering::Release);
    }
}

/// `CloudEvents` 1.0, Kafka binary mode.
fn cloud_event(message: &Message) -> OwnedHeaders {
    let id = message.event_id().to_string();
    OwnedHeaders::new_with_capacity(6)
        .insert(Header { key: "ce_specversion", value: Some("1.0") })
        .insert(Header { key: "ce_id", value: Some(&id) })
        .insert(Header { key: "ce_type", value: Some(message.event_type()) })
        .insert(Header { key: "ce_source", value: Some(message.source()) })
        .insert(Header { key: "ce_time", value: Some(message.timestamp()) })
        .insert(Header { key: "content-type", value: Some("application/json") })
}

/// Makes librdkafka send what lingers, without waiting for the answer.
///
/// The follower knows what a producer can't: that nothing more is coming for now. `BaseProducer`'s
/// own `flush` asks for it with a time-out of 0 and so lifts its flag before a broker thread has
/// seen it (tried; it has no effect). A millisecond is enough, and it ends as soon as everything
/// is acknowledged.
#[expect(unsafe_code, reason = "librdkafka's flush with a time-out has no safe wrapper")]
fn flush_briefly(producer: &BaseProducer<Context>) {
    let client = producer.client().native_ptr();
    // SAFETY: the pointer is valid as long as `producer` is; rd_kafka_flush may be called from any
    // thread, and in event mode, which rdkafka uses, it serves no callbacks.
    let _ = unsafe { rdkafka::bindings::rd_kafka_flush(client, 1) };
}

/// What a failed record means. None: the queue is full.
fn failure(error: &KafkaError) -> Option<Failure> {
    let KafkaError::MessageProduction(code) = error else {
        return Some(Failure::Transient(error.to_string()));
    };
    let refused = |reason| Some(Failure::Unacceptable(Rejection::new(reason, code.to_string())));
    match code {
        RDKafkaErrorCode::QueueFull => None,
        RDKafkaErrorCode::MessageSizeTooLarge => refused(Reason::TooLarge),
        RDKafkaErrorCode::InvalidRecord => refused(Reason::Refused),
        RDKafkaErrorCode::InvalidTimestamp => Some(Failure::BadTime(code.to_string())),
        RDKafkaErrorCode::PurgeQueue
        | RDKafkaErrorCode::PurgeInflight
        | RDKafkaErrorCode::Fatal => Some(Failure::GivenBack),
        code => Some(Failure::Transient(code.to_string())),
    }
}

impl Context {
    fn complain(&self, reason: &str) {
        // A guess at a time-out, and a bad one: no broker has been that old for ten years.
        let reason = reason.split(": probably due to broker version").next().unwrap_or(reason);
        self.reports.post(Report::Trouble { epoch: self.epoch, reason: reason.to_owned() });
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Its lines repeat for as long as an outage lasts; what they say also comes as errors,
        // which the sink tells once. All but the warnings of peers that do not say a word.
        debug!(facility, message, "librdkafka");
        if facility == "FAIL" && matches!(level, RDKafkaLogLevel::Warning) {
            self.complain(message.split_once("]: ").map_or(message, |(_thread, said)| said));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let is_fatal =
            matches!(code, Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::GaplessGuarantee));
        // Why there would be a gap, the report of the record says.
        if !is_fatal || !reason.contains("gap-less guarantee") {
            self.complain(reason);
        }
        if is_fatal {
            self.reports.post(Report::Fatal { epoch: self.epoch, reason: reason.to_owned() });
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let tag = tag as u64;
        let report = match result {
            Ok(message) => {
                debug_assert!(message.payload().is_some());
                Report::Delivered { tag }
            }
            Err((error, _)) => {
                let failure =
                    failure(error).unwrap_or_else(|| Failure::Transient(error.to_string()));
                Report::Failed { epoch: self.epoch, tag, failure }
            }
        };
        self.reports.post(report);
    }
}
