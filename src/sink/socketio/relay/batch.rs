//! A batch: which events go into it, its text, and what counts as the app's acknowledgement.
//!
//! The text is put together from the text of the lines, not from values: numbers and the order of
//! keys reach the app as they were written.

use std::collections::BTreeSet;

use serde::Deserialize as _;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::domain::envelope::{Reason, Rejection};
use crate::sink::Message;

/// What an app takes in one packet where it does not say otherwise: Engine.IO's default.
const PACKET_MAX: usize = 1_000_000;

/// The least that an app is believed to take: below it, nearly everything would be put aside, and
/// some servers say 0 for no limit.
const PACKET_MIN: usize = 10_000;

/// What a packet may have of it, in hundredths.
const SHARE: usize = 90;

/// What stands around the batch's text in a packet, namespace apart: types, acknowledgement's
/// number, the event's name, brackets.
const AROUND: usize = 64;

/// The longest integer, with its sign, that python-engineio takes. One that is longer makes it drop
/// the whole packet, and so all that are in the batch, each time.
const INTEGER_MAX: usize = 100;

/// The longest text from outside that is repeated to people.
const QUOTED_MAX: usize = 200;

/// How much a batch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) events: usize,
    /// Of the batch's text.
    pub(super) bytes: usize,
}

/// A batch that is being filled.
pub(super) struct Batch {
    room: Room,
    text: String,
    /// Of the text before the first event.
    opening: usize,
    events: usize,
}

/// Whether an event went into a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    Yes,
    /// The batch is closed: it goes into the next one.
    Full,
    /// It can never be sent.
    Never(Rejection),
}

/// What an answer of the app's means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It has the batch; these of the ids it does not want.
    Acknowledged {
        /// Event ids, not all of them need be of the batch.
        refused: BTreeSet<String>,
    },
    /// It says nothing about the batch that could be relied on, for this reason.
    NotOne(&'static str),
}

impl Room {
    /// For an app that takes packets of `max_payload` bytes, if it says so.
    pub(super) fn new(events: usize, namespace: &str, max_payload: Option<u64>) -> Self {
        let said = max_payload.and_then(|bytes| usize::try_from(bytes).ok());
        let packet = said.filter(|bytes| *bytes >= PACKET_MIN).unwrap_or(PACKET_MAX) / 100 * SHARE;
        Self { events, bytes: packet.saturating_sub(AROUND + namespace.len()) }
    }
}

impl Batch {
    /// An empty one; `id` has only characters that JSON takes as they are.
    pub(super) fn new(id: &str, room: Room) -> Self {
        let text = format!("{{\"batch_id\":\"{id}\",\"events\":[");
        Self { room, opening: text.len(), text, events: 0 }
    }

    /// Puts an event in, if it fits.
    pub(super) fn add(&mut self, message: &Message) -> Added {
        const CLOSING: usize = "]}".len();
        if self.events >= self.room.events {
            return Added::Full;
        }
        let event = match event(message) {
            Ok(event) => event,
            Err(NotCarried(why)) => {
                return Added::Never(Rejection::new(Reason::Refused, why));
            }
        };
        let alone = self.opening + event.len() + CLOSING;
        if alone > self.room.bytes {
            return self.too_large(alone);
        }
        let comma = usize::from(self.events > 0);
        if self.text.len() + comma + event.len() + CLOSING > self.room.bytes {
            return Added::Full;
        }
        if comma > 0 {
            self.text.push(',');
        }
        self.text.push_str(&event);
        self.events += 1;
        Added::Yes
    }

    fn too_large(&self, length: usize) -> Added {
        let most = self.room.bytes;
        let detail = format!("alone it is a batch of {length} bytes, the app takes {most}");
        Added::Never(Rejection::new(Reason::TooLarge, detail))
    }

    /// Its text.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str("]}");
        self.text
    }
}

/// The text of an event. The error: why it can't be one.
fn event(message: &Message) -> Result<String, NotCarried> {
    let data = std::str::from_utf8(message.data()).map_err(|_| NO_JSON)?;
    // The client puts quotes around what it takes for no JSON, and the app would get a string.
    let mut reader = serde_json::Deserializer::from_str(data);
    IgnoredAny::deserialize(&mut reader).and_then(|_| reader.end()).map_err(|_| NO_JSON)?;
    if has_a_huge_integer(data.as_bytes()) {
        return Err(NotCarried(
            "it has an integer of more than 100 characters, which the app does not take",
        ));
    }
    let mut text = String::with_capacity(data.len() + 256);
    text.push_str("{\"event_id\":\"");
    text.push_str(&message.event_id().to_string());
    text.push('"');
    for (name, value) in [
        ("event_type", message.event_type()),
        ("timestamp", message.timestamp()),
        ("user_id", message.user_id()),
        ("source", message.source()),
    ] {
        let value = std::str::from_utf8(value).map_err(|_| NO_JSON)?;
        text.push_str(",\"");
        text.push_str(name);
        text.push_str("\":");
        text.push_str(&serde_json::to_string(value).map_err(|_| NO_JSON)?);
    }
    text.push_str(",\"data\":");
    text.push_str(data);
    text.push('}');
    Ok(text)
}

/// Why an event can never be sent. It must not hold up the others.
struct NotCarried(&'static str);

/// Validation lets none of these through.
const NO_JSON: NotCarried = NotCarried("it is no JSON that the Socket.IO client can carry");

/// Whether a JSON text has an integer that the app's decoder refuses. Fractions and exponents make
/// a float of any length of it, which passes.
fn has_a_huge_integer(json: &[u8]) -> bool {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let rest = &json[at..];
        at += match byte {
            b'"' => end_of_string(rest),
            b'-' | b'0'..=b'9' => {
                let of_number =
                    |b: &u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let length = rest.iter().position(|b| !of_number(b)).unwrap_or(rest.len());
                let is_integer = !rest[..length].iter().any(|b| matches!(b, b'.' | b'e' | b'E'));
                if is_integer && length > INTEGER_MAX {
                    return true;
                }
                length
            }
            _ => 1,
        };
    }
    false
}

/// Of a JSON string that `text` begins with.
fn end_of_string(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        match text[at + found] {
            b'"' => return at + found + 1,
            _ => at += found + 2,
        }
    }
    text.len()
}

/// What the app answered: `arguments` is what stands in its acknowledgement.
pub(super) fn judge(arguments: &Value, batch_id: &str) -> Judgement {
    use Judgement::NotOne;
    let Value::Array(arguments) = arguments else { return NotOne("is malformed") };
    let [answer] = arguments.as_slice() else { return NotOne("is empty or has several arguments") };
    let Value::Object(answer) = answer else { return NotOne("is not an object") };
    if answer.get("batch_id").and_then(Value::as_str) != Some(batch_id) {
        return NotOne("is of another batch");
    }
    if answer.get("ok") != Some(&Value::Bool(true)) {
        return NotOne("does not say ok");
    }
    let refused = match answer.get("refused") {
        None | Some(Value::Null) => return Judgement::Acknowledged { refused: BTreeSet::new() },
        Some(Value::Array(refused)) => refused,
        Some(_) => return NotOne("has a `refused` that is no list"),
    };
    let ids: Option<BTreeSet<String>> =
        refused.iter().map(|id| id.as_str().map(str::to_owned)).collect();
    ids.map_or(NotOne("has a `refused` that is no list of ids"), |refused| {
        Judgement::Acknowledged { refused }
    })
}

/// A text from outside, short enough to be repeated to people.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sink::socketio::relay::tests::{message, message_of};

    const WIDE: Room = Room { events: 3, bytes: 10_000 };

    #[test]
    fn the_text_of_a_batch_is_that_of_the_lines() {
        let line = r#"{"event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"a\u0062\n","source":"s","data": {"z":1e400,"a":"\ud800","n":12345678901234567890.10,"z":[]} }"#;
        let message = message_of(line, 7);
        let mut batch = Batch::new("x-1", WIDE);
        assert_eq!(batch.add(&message), Added::Yes);
        let id = message.event_id();
        assert_eq!(
            batch.finish(),
            format!(
                r#"{{"batch_id":"x-1","events":[{{"event_id":"{id}","event_type":"order_event","timestamp":"2026-01-29T10:30:45Z","user_id":"ab\n","source":"s","data":{{"z":1e400,"a":"\ud800","n":12345678901234567890.10,"z":[]}}}}]}}"#
            )
        );
    }

    #[test]
    fn a_batch_closes_at_its_number_of_events() {
        let mut batch = Batch::new("x", WIDE);
        let added: Vec<_> = (0..4).map(|number| batch.add(&message(number, 0))).collect();
        assert_eq!(added, [Added::Yes, Added::Yes, Added::Yes, Added::Full]);
        let value: Value = serde_json::from_str(&batch.finish()).unwrap();
        assert_eq!(value["events"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn si_12_a_batch_closes_below_the_packet_limit_and_what_is_larger_alone_is_too_large() {
        let room = Room::new(100, "/openalgo-bridge", None);
        let mut batch = Batch::new("x", room);
        let mut added = 0;
        while batch.add(&message(added, 100_000)) == Added::Yes {
            added += 1;
        }
        assert_eq!(added, 8);
        let text = batch.finish();
        assert!(text.len() <= room.bytes && room.bytes < 900_000, "{}", text.len());
        // To the byte: the longest that fits, and one more.
        let mut batch = Batch::new("x", room);
        assert_eq!(batch.add(&message(0, 0)), Added::Yes);
        let longest = room.bytes - batch.finish().len();
        let mut batch = Batch::new("x", room);
        assert_eq!(batch.add(&message(0, longest)), Added::Yes);
        assert_eq!(batch.finish().len(), room.bytes);
        let mut batch = Batch::new("x", room);
        let Added::Never(rejection) = batch.add(&message(0, longest + 1)) else { panic!("fits") };
        assert_eq!(rejection.reason, Reason::TooLarge);
        assert!(!rejection.detail.contains("xx"), "{}", rejection.detail);
        // After one that did not fit, others do.
        assert_eq!(batch.add(&message(1, 0)), Added::Yes);
    }

    #[test]
    fn si_12_the_apps_own_limit_counts_where_it_can_be_one() {
        let bytes = |max_payload| Room::new(1, "/b", max_payload).bytes;
        let default = bytes(None);
        assert!((899_000..900_000).contains(&default), "{default}");
        assert_eq!(bytes(Some(1_000_000)), default);
        assert_eq!(bytes(Some(300_000)), default - 630_000);
        assert_eq!(bytes(Some(5_000_000)), default + 3_600_000);
        for odd in [0, 9_999, u64::MAX / 2] {
            let odd = bytes(Some(odd));
            assert!(odd >= default, "{odd}");
        }
    }

    #[test]
    fn si_15_an_integer_that_the_app_cannot_read_is_refused_and_no_other_number() {
        let digits = |count: usize| "7".repeat(count);
        for (data, refused) in [
            (digits(100), false),
            (digits(101), true),
            (format!("-{}", digits(99)), false),
            (format!("-{}", digits(100)), true),
            (format!("[1,{{\"a\":[{}]}}]", digits(101)), true),
            (format!("{}.0", digits(101)), false),
            (format!("{}e1", digits(101)), false),
            (format!("0.{}", digits(5_000)), false),
            (format!("1E{}", digits(101)), false),
            (format!("\"{}\"", digits(101)), false),
            (format!("\"\\\"{}\"", digits(101)), false),
            (format!("\"\\\\\",{}", digits(101)), true),
            (format!("{{\"{}\":1}}", digits(101)), false),
        ] {
            let data = format!("{{\"x\":[{data}]}}");
            let line = format!(
                r#"{{"event_type":"order_notification","timestamp":"2026-01-29T10:30:45Z","user_id":"u","source":"s","data":{data}}}"#
            );
            let added = Batch::new("x", WIDE).add(&message_of(&line, 0));
            match added {
                Added::Never(rejection) => {
                    assert!(refused, "{data}");
                    assert_eq!(rejection.reason, Reason::Refused);
                    assert!(rejection.detail.contains("integer"), "{}", rejection.detail);
                }
                added => assert_eq!((added, refused), (Added::Yes, false), "{data}"),
            }
        }
    }

    #[test]
    fn si_14_si_15_only_the_batchs_own_id_and_ok_are_an_acknowledgement() {
        let none = Judgement::Acknowledged { refused: BTreeSet::new() };
        for answer in [
            json!([{"batch_id": "b", "ok": true}]),
            json!([{"ok": true, "batch_id": "b", "more": 1, "refused": []}]),
            json!([{"batch_id": "b", "ok": true, "refused": null}]),
        ] {
            assert_eq!(judge(&answer, "b"), none, "{answer}");
        }
        for answer in [
            json!([]),
            json!([{}]),
            json!([null]),
            json!("b"),
            json!(null),
            json!([{"batch_id": "a", "ok": true}]),
            json!([{"batch_id": "b", "ok": false}]),
            json!([{"batch_id": "b", "ok": "true"}]),
            json!([{"batch_id": "b", "ok": 1}]),
            json!([{"batch_id": "b"}]),
            json!([{"ok": true}]),
            json!([{"batch_id": ["b"], "ok": true}]),
            json!({"batch_id": "b", "ok": true}),
            json!([[{"batch_id": "b", "ok": true}]]),
            json!([{"batch_id": "b", "ok": true}, 2]),
            json!([{"batch_id": "b", "ok": true, "refused": "x"}]),
            json!([{"batch_id": "b", "ok": true, "refused": [1]}]),
        ] {
            assert!(matches!(judge(&answer, "b"), Judgement::NotOne(_)), "{answer}");
        }
    }

    #[test]
    fn refused_ids_are_taken_out_of_the_answer() {
        let answer = json!([{"batch_id": "b", "ok": true, "refused": ["y", "x", "y"]}]);
        let Judgement::Acknowledged { refused } = judge(&answer, "b") else { panic!("no") };
        assert_eq!(refused.into_iter().collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn what_others_say_is_repeated_up_to_a_length() {
        assert_eq!(shortened("é"), "é");
        assert_eq!(shortened(&"é".repeat(300)).chars().count(), 201);
    }
}
