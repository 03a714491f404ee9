//! Records go out: to Kafka, to Socket.IO clients, or aside into the rejects.

pub mod finding;
pub mod kafka;
pub mod rejects;
mod reports;
pub mod requeue;
pub mod socketio;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::domain::acks::RecordId;
use crate::domain::delivery::Outcome;
use crate::domain::envelope::Envelope;
use crate::domain::framing::LineBytes;
use crate::domain::position::{EventId, Generation, Sha256};

/// A valid line on its way out, kept until it is settled: what is resent comes from here, never
/// from the file, which may be gone by then.
#[derive(Debug)]
pub struct Message {
    line: LineBytes,
    event_type: Field,
    timestamp: Field,
    user_id: Field,
    source: Field,
    data: (u32, u32),
    /// The event's own time, milliseconds since 1970.
    pub event_time_ms: i64,
    /// The life of the file that it is from.
    pub generation: Generation,
    /// Where it begins there.
    pub offset: u64,
    /// It was in the file before the daemon looked: delivering it is catching up.
    pub backlog: bool,
}

/// A decoded string: a piece of the line, unless it had escapes.
#[derive(Debug)]
enum Field {
    InLine(u32, u32),
    Decoded(Box<str>),
}

impl Message {
    /// The message for `line`, of which `envelope` is the judgement.
    pub fn new(
        line: &LineBytes,
        envelope: &Envelope<'_>,
        generation: Generation,
        offset: u64,
        backlog: bool,
    ) -> Self {
        let data = envelope.data_range();
        let field = |text: &std::borrow::Cow<'_, str>| Field::of(text, line.as_slice());
        Self {
            event_type: field(&envelope.event_type),
            timestamp: field(&envelope.timestamp),
            user_id: field(&envelope.user_id),
            source: field(&envelope.source),
            data: (data.start as u32, data.end as u32),
            event_time_ms: envelope.event_time_ms,
            line: line.clone(),
            generation,
            offset,
            backlog,
        }
    }

    /// The bytes of the line.
    pub fn payload(&self) -> &[u8] {
        self.line.as_slice()
    }

    /// The decoded `event_type`.
    pub fn event_type(&self) -> &[u8] {
        self.event_type.bytes(&self.line)
    }

    /// The decoded `timestamp`.
    pub fn timestamp(&self) -> &[u8] {
        self.timestamp.bytes(&self.line)
    }

    /// The decoded `user_id`.
    pub fn user_id(&self) -> &[u8] {
        self.user_id.bytes(&self.line)
    }

    /// The decoded `source`.
    pub fn source(&self) -> &[u8] {
        self.source.bytes(&self.line)
    }

    /// The object under `data`, as it stands in the line.
    pub fn data(&self) -> &[u8] {
        &self.payload()[self.data.0 as usize..self.data.1 as usize]
    }

    /// Whether its time lies further back than `age`.
    pub fn is_older_than(&self, age: Duration, now_ms: i64) -> bool {
        let age_ms = now_ms.saturating_sub(self.event_time_ms);
        u128::try_from(age_ms).is_ok_and(|is| is > age.as_millis())
    }

    /// The line's name for ever.
    pub fn event_id(&self) -> EventId {
        let hash = Sha256::of(self.payload()).first_u32();
        EventId { generation: self.generation, offset: self.offset, hash }
    }
}

impl Field {
    fn of(text: &str, line: &[u8]) -> Self {
        // A borrowed string lies within the line; its place there is the distance of the pointers.
        let distance = (text.as_ptr() as usize).wrapping_sub(line.as_ptr() as usize);
        if line.get(distance..distance.saturating_add(text.len())) == Some(text.as_bytes()) {
            Self::InLine(distance as u32, (distance + text.len()) as u32)
        } else {
            Self::Decoded(text.into())
        }
    }

    fn bytes<'a>(&'a self, line: &'a LineBytes) -> &'a [u8] {
        match self {
            Self::InLine(start, end) => &line.as_slice()[*start as usize..*end as usize],
            Self::Decoded(text) => text.as_bytes(),
        }
    }
}

/// How the other side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Records are acknowledged, or there was no need yet to find out.
    Up,
    /// Something is in the way that may pass by itself.
    Degraded,
    /// The other side can't be reached.
    Down,
}

impl State {
    /// The contract's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// What may change while the daemon runs: passwords, tokens and keys. Certificates have no value here:
/// whoever uses them reads their files again.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Properties of librdkafka that are secrets, by its names.
    pub kafka: Vec<(String, String)>,
    /// What Socket.IO clients have to show, or what is shown to the app.
    pub auth_token: Option<String>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

/// How the sink is, for people and monitors.
#[derive(Clone, Debug)]
pub struct Health {
    /// In one word.
    pub state: State,
    /// Why, where it is not up.
    pub reason: Option<String>,
    /// Since when, where it is not up: milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Records handed over and not settled.
    pub in_flight: usize,
    /// Records sent again.
    pub retries: u64,
    /// Where clients can connect, if that is how it works.
    pub listening: Option<SocketAddr>,
    /// How many clients there are, if that is how it works.
    pub clients: Option<usize>,
    /// Records that counted as delivered while there was no client.
    pub delivered_to_nobody: u64,
    /// Clients that were disconnected because they did not take what they were sent.
    pub clients_given_up: u64,
}

/// Where records go. Retrying is the sink's business, in order, for ever for whatever may heal.
pub trait Sink: Send {
    /// Takes a record. Never blocks and never refuses: the pipeline's limits bound what is taken.
    fn publish(&mut self, id: RecordId, message: Message);

    /// Says that nothing more is coming for now, so there is nothing to wait for.
    fn caught_up(&mut self);

    /// Does what is due, and gives the outcomes there are since the last call.
    fn settle(&mut self, outcomes: &mut Vec<(RecordId, Outcome)>);

    /// When [`Sink::settle`] wants to be called at the latest, even if nothing happens.
    fn deadline(&self) -> Option<Instant>;

    /// The daemon stops, and nothing more is coming. Gives whether to wait for what is in flight; it
    /// is left to the next start if it can't go out before.
    fn stop(&mut self) -> bool {
        self.caught_up();
        true
    }

    /// The daemon stops and there is nothing more to wait for: whether what is buffered beyond that is
    /// written out. Asked again after each report.
    fn drain(&mut self) -> bool {
        true
    }

    /// Secrets, and certificates, were read again: uses them from now on. One that was not there before
    /// is none of these, nor is one that is gone.
    fn renew(&mut self, secrets: &Secrets);

    /// How it is.
    fn health(&self) -> Health;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::envelope::{EventTypes, Verdict, validate};

    #[test]
    fn strings_are_decoded_and_the_payload_is_untouched() {
        let text = br#"{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"a\u0062","source":"s","data":{}}"#;
        let line = LineBytes::standalone(text);
        let types = EventTypes::default();
        let Verdict::Valid(envelope) = validate(line.as_slice(), &types) else { panic!("invalid") };
        let message = Message::new(&line, &envelope, Generation(1), 5, false);
        assert_eq!(message.data(), b"{}");
        assert!(matches!(message.source, Field::InLine(..)));
        assert_eq!(message.user_id(), b"ab");
        assert_eq!(message.event_type(), b"order_event");
        assert_eq!(message.timestamp(), b"2026-01-29T10:30:45Z");
        assert_eq!(message.payload(), text);
        let hash = &Sha256::of(text).to_string()[..8];
        assert_eq!(message.event_id().to_string(), format!("0000000000000001:5:{hash}"));
    }
}
