//! Judges one line: an event to deliver, one to leave out on purpose, or a reject with its reason.
//!
//! The rules are the contract's ("The envelope" and "One reason a line"), on top of RFC
//! 8259 for the JSON and RFC 3339 for the time. [`json_schema`] publishes the same rules, and
//! `tests/envelope/` holds the two to each other. A line is walked over once; nothing is built from
//! it but the four strings that key, headers and Socket.IO events are made of, and these are
//! borrowed from the line unless they have escapes.

mod event_types;
mod fields;
mod json;
mod reason;
mod schema;
mod timestamp;

use std::borrow::Cow;
use std::ops::Range;

pub use self::event_types::{DEFAULT_EVENT_TYPES, DEFAULT_IGNORED_EVENT_TYPES, EventTypes, PROBE};
pub use self::json::DEPTH_LEVELS_MAX;
pub use self::reason::{Reason, Rejection, UnknownReason};
pub use self::schema::json_schema;

use self::event_types::Class;
use self::fields::{DataMember, Field, Fields};
use self::json::{Fault, Kind, What};

/// A valid line, borrowing from it what did not have to be decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope<'a> {
    /// On the allow-list, so never empty.
    pub event_type: Cow<'a, str>,
    /// As the application wrote it; see `event_time_ms` for what it says.
    pub timestamp: Cow<'a, str>,
    /// Never empty.
    pub user_id: Cow<'a, str>,
    /// Never empty.
    pub source: Cow<'a, str>,
    /// `timestamp` in milliseconds from the epoch, rounded towards the past; negative before 1970.
    pub event_time_ms: i64,
    /// The object under `data` as it stands in the line, with its own white space, but none around
    /// it.
    pub data: &'a str,
    /// Where in the line `data` begins.
    pub data_start: usize,
}

impl Envelope<'_> {
    /// Where in the line `data` stands, for callers that keep the line and not the borrow.
    pub fn data_range(&self) -> Range<usize> {
        self.data_start..self.data_start + self.data.len()
    }
}

/// What becomes of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict<'a> {
    /// To be delivered.
    Valid(Envelope<'a>),
    /// Of a type that is left out on purpose. Nothing but that was looked at.
    Filtered,
    /// Not to be delivered, for this reason.
    Rejected(Rejection),
}

/// Judges a line that the framer has cut out: without its line end, and without a BOM or NULs at
/// its start.
///
/// Never gives `TooLong`, `TruncatedAtEof`, `TooLarge` or `Refused`: those are for others to say.
pub fn validate<'a>(line: &'a [u8], types: &EventTypes) -> Verdict<'a> {
    let Ok(line) = simdutf8::basic::from_utf8(line) else {
        return Verdict::Rejected(invalid_utf8(line));
    };
    let fields = match fields::read(line) {
        Ok(Some(fields)) => fields,
        Ok(None) => {
            let detail = "the line is JSON, but not an object";
            return Verdict::Rejected(Rejection::new(Reason::NotAnObject, detail));
        }
        Err(fault) => return Verdict::Rejected(unreadable(line, fault)),
    };
    judge(line, &fields, types).unwrap_or_else(Verdict::Rejected)
}

#[cold]
fn invalid_utf8(line: &[u8]) -> Rejection {
    let at = std::str::from_utf8(line).map_or_else(|fault| fault.valid_up_to(), str::len);
    Rejection::new(Reason::InvalidUtf8, format!("at byte {at} the line is not UTF-8"))
}

/// NUL bytes are looked for only here: JSON has no place for one, so every line that holds one ends
/// up here.
#[cold]
fn unreadable(line: &str, fault: Fault) -> Rejection {
    if let Some(at) = memchr::memchr(0, line.as_bytes()) {
        return Rejection::new(Reason::NulBytes, format!("at byte {at} there is a NUL byte"));
    }
    let reason = if fault.what == What::TooDeep { Reason::TooDeep } else { Reason::NotJson };
    Rejection::new(reason, format!("at byte {} {}", fault.at, fault.what.as_str()))
}

/// Judges an object, in the order that the contract gives.
#[inline]
fn judge<'a>(line: &'a str, fields: &Fields, types: &EventTypes) -> Result<Verdict<'a>, Rejection> {
    if let Some((field, at)) = fields.repeated {
        let detail = format!("field `{}` occurs again at byte {at}", field.name());
        return Err(Rejection::new(Reason::DuplicateField, detail));
    }
    let event_type = string(line, fields, Field::EventType);
    let class = event_type.as_deref().map(|name| types.class(name));
    let goes_through = fields.member(DataMember::Through) == Some(Kind::Literal);
    let is_probe = class == Some(Class::Probe);
    if class == Some(Class::Ignored) || (is_probe && !goes_through) {
        return Ok(Verdict::Filtered);
    }
    if let Some(field) = Field::ALL.into_iter().find(|&field| fields.get(field).kind.is_none()) {
        return Err(Rejection::new(
            Reason::MissingField,
            format!("field `{}` is missing", field.name()),
        ));
    }
    let string = |field| string(line, fields, field).ok_or_else(|| not_a_string(field));
    let event_type = event_type.ok_or_else(|| not_a_string(Field::EventType))?;
    let timestamp = string(Field::Timestamp)?;
    let user_id = string(Field::UserId)?;
    let source = string(Field::Source)?;
    let data = data(fields, &event_type)?;
    for (field, value) in
        [(Field::EventType, &event_type), (Field::UserId, &user_id), (Field::Source, &source)]
    {
        if value.is_empty() {
            let detail = format!("field `{}` is empty", field.name());
            return Err(Rejection::new(Reason::EmptyField, detail));
        }
    }
    if class != Some(Class::Allowed) && !is_probe {
        let detail = "`event_type` is on neither the allow-list nor the ignore list";
        return Err(Rejection::new(Reason::UnknownEventType, detail));
    }
    let event_time_ms = timestamp::epoch_ms(&timestamp).map_err(|fault| {
        Rejection::new(Reason::BadTimestamp, format!("`timestamp` {}", fault.as_str()))
    })?;
    Ok(Verdict::Valid(Envelope {
        event_type,
        timestamp,
        user_id,
        source,
        event_time_ms,
        data_start: data.start,
        data: &line[data],
    }))
}

/// The decoded string under a field, if there is one.
#[inline]
fn string<'a>(line: &'a str, fields: &Fields, field: Field) -> Option<Cow<'a, str>> {
    let found = fields.get(field);
    let is_string = found.kind == Some(Kind::String);
    is_string.then(|| fields::decode(&line[found.start..found.end], found.escaped))
}

/// Where `data` stands, once it is an object in which nothing crashes `OpenAlgo`'s page.
fn data(fields: &Fields, event_type: &str) -> Result<Range<usize>, Rejection> {
    let data = fields.get(Field::Data);
    if data.kind != Some(Kind::Object) {
        return Err(wrong_type(Field::Data.name(), "an object"));
    }
    let checks: &[(DataMember, Kind, &str)] = match event_type {
        "order_event" => &[(DataMember::Action, Kind::String, "a string")],
        "analyzer_update" => &[
            (DataMember::Request, Kind::Object, "an object"),
            (DataMember::Response, Kind::Object, "an object"),
        ],
        _ => &[],
    };
    for &(member, kind, wanted) in checks {
        if fields.member(member).is_some_and(|found| found != kind) {
            return Err(wrong_type(&format!("data.{}", member.name()), wanted));
        }
    }
    Ok(data.start..data.end)
}

fn not_a_string(field: Field) -> Rejection {
    wrong_type(field.name(), "a string")
}

#[cold]
fn wrong_type(field: &str, wanted: &str) -> Rejection {
    Rejection::new(Reason::WrongType, format!("field `{field}` is not {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line with these fields in this order, values as JSON.
    fn line(fields: &[(&str, &str)]) -> String {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    /// A valid line but for what is overwritten; an empty value leaves the field out.
    fn order(overwritten: &[(&str, &str)]) -> String {
        let mut fields = vec![
            ("event_type", r#""order_event""#),
            ("timestamp", r#""2026-01-29T10:30:45.123456Z""#),
            ("user_id", r#""user123""#),
            ("source", r#""openalgo""#),
            ("data", "{}"),
        ];
        for &(name, value) in overwritten {
            match fields.iter_mut().find(|(field, _)| *field == name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
        }
        fields.retain(|(_, value)| !value.is_empty());
        line(&fields)
    }

    #[track_caller]
    fn check(line: impl AsRef<[u8]>, reason: Reason, detail: &str) {
        let line = line.as_ref();
        let expected = Verdict::Rejected(Rejection::new(reason, detail));
        let shown = String::from_utf8_lossy(line);
        assert_eq!(validate(line, &EventTypes::default()), expected, "{shown}");
    }

    #[track_caller]
    fn check_valid(line: &str) -> Envelope<'_> {
        match validate(line.as_bytes(), &EventTypes::default()) {
            Verdict::Valid(envelope) => envelope,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_valid_line_is_borrowed_from() {
        let line =
            order(&[("data", r#"{ "action" : "BUY", "price": 1e400 }"#), ("more", "[null]")]);
        let envelope = check_valid(&line);
        assert_eq!(envelope.event_type, "order_event");
        assert_eq!(envelope.timestamp, "2026-01-29T10:30:45.123456Z");
        assert_eq!(envelope.user_id, "user123");
        assert_eq!(envelope.source, "openalgo");
        assert_eq!(envelope.event_time_ms, 1_769_682_645_123);
        assert_eq!(envelope.data, r#"{ "action" : "BUY", "price": 1e400 }"#);
        assert_eq!(&line[envelope.data_range()], envelope.data);
        for field in
            [&envelope.event_type, &envelope.timestamp, &envelope.user_id, &envelope.source]
        {
            assert!(matches!(field, Cow::Borrowed(_)), "{field}");
        }
    }

    #[test]
    fn escapes_are_decoded_before_anything_is_judged() {
        let line = r#" {"data":{},"s\u006furce":"\ud83d\ude00","user_id":"a\u0062\n",
            "timestamp":"2026\u002d01-29T10:30:45Z","event_type":"order\u005fevent"} "#;
        let envelope = check_valid(line);
        assert_eq!(envelope.event_type, "order_event");
        assert_eq!(envelope.timestamp, "2026-01-29T10:30:45Z");
        assert_eq!(envelope.user_id, "ab\n");
        assert_eq!(envelope.source, "\u{1f600}");
    }

    #[test]
    fn each_reason_says_what_is_wrong_and_where() {
        check(b"{\"a\":\"\xc3\x28\"}", Reason::InvalidUtf8, "at byte 6 the line is not UTF-8");
        check("{\"a\":\"\0\"}", Reason::NulBytes, "at byte 6 there is a NUL byte");
        check("{", Reason::NotJson, "at byte 1 the line ends before its JSON does");
        check(
            "[".repeat(129),
            Reason::TooDeep,
            "at byte 128 arrays and objects nest deeper than 128 levels",
        );
        check("[]", Reason::NotAnObject, "the line is JSON, but not an object");
        check(
            order(&[(r"user_id", r#""a","user\u005fid":1"#)]),
            Reason::DuplicateField,
            "field `user_id` occurs again at byte 84",
        );
        check(order(&[("source", "")]), Reason::MissingField, "field `source` is missing");
        check(order(&[("user_id", "null")]), Reason::WrongType, "field `user_id` is not a string");
        check(order(&[("data", "[]")]), Reason::WrongType, "field `data` is not an object");
        check(
            order(&[("data", r#"{"action":null}"#)]),
            Reason::WrongType,
            "field `data.action` is not a string",
        );
        check(order(&[("source", r#""""#)]), Reason::EmptyField, "field `source` is empty");
        check(
            order(&[("event_type", r#""secret""#)]),
            Reason::UnknownEventType,
            "`event_type` is on neither the allow-list nor the ignore list",
        );
        check(order(&[("timestamp", r#""""#)]), Reason::BadTimestamp, "`timestamp` is empty");
        check(
            order(&[("timestamp", r#""2023-02-29T00:00:00Z""#)]),
            Reason::BadTimestamp,
            "`timestamp` names a date that does not exist",
        );
    }

    /// Each pair stands in one line; the first of them is the one that counts.
    #[test]
    fn the_first_reason_in_the_contracts_order_is_given() {
        use Reason::*;
        for (line, reason) in [
            ("{\0", NulBytes),
            (&("[".repeat(129) + "\0"), NulBytes),
            (&("[".repeat(129) + "x"), TooDeep),
            (&("x".to_owned() + &"[".repeat(129)), NotJson),
            (&("[1".to_owned() + &"[".repeat(129)), NotJson),
            ("[}", NotJson),
            (&order(&[("user_id", r#""\ud800","user_id":1"#)]), NotJson),
            (&order(&[("user_id", r#""a","user_id":"\udc00""#)]), NotJson),
            (&order(&[("event_type", r#""gtt_event","source":1"#)]), DuplicateField),
            (&order(&[("source", "1,\"source\":2"), ("user_id", "")]), DuplicateField),
            (&order(&[("user_id", ""), ("source", "1")]), MissingField),
            (&order(&[("user_id", r#""""#), ("source", "1")]), WrongType),
            (&order(&[("user_id", r#""""#), ("data", r#"{"action":1}"#)]), WrongType),
            (&order(&[("event_type", r#""x""#), ("source", r#""""#)]), EmptyField),
            (&order(&[("event_type", r#""""#), ("timestamp", r#""""#)]), EmptyField),
            (&order(&[("event_type", r#""x""#), ("timestamp", r#""""#)]), UnknownEventType),
        ] {
            let Verdict::Rejected(rejection) = validate(line.as_bytes(), &EventTypes::default())
            else {
                panic!("{line}: not rejected");
            };
            assert_eq!(rejection.reason, reason, "{line}");
        }
        assert!(matches!(
            validate(b"{\0\xff", &EventTypes::default()),
            Verdict::Rejected(Rejection { reason: InvalidUtf8, .. })
        ));
    }

    #[test]
    fn of_a_filtered_line_nothing_but_its_type_is_judged() {
        let types = EventTypes::new(vec!["both".into()], vec!["both".into(), "left_out".into()]);
        for (line, expected) in [
            (r#"{"event_type":"left_out"}"#, true),
            (r#"{"event_type":"left\u005fout","timestamp":7,"data":null}"#, true),
            (r#"{"event_type":"both"}"#, false),
            (r#"{"event_type":["left_out"]}"#, false),
            (r#"{"event_type":"left_out","user_id":1,"user_id":2}"#, false),
            (r#"{"event_type":"left_out"}}"#, false),
        ] {
            let verdict = validate(line.as_bytes(), &types);
            assert_eq!(verdict == Verdict::Filtered, expected, "{line}: {verdict:?}");
        }
    }

    #[test]
    fn of_a_repeated_member_of_data_the_last_counts() {
        check_valid(&order(&[("data", r#"{"action":1,"action":"BUY"}"#)]));
        check_valid(&order(&[("data", r#"{"request":1,"inner":{"action":1},"ACTION":1}"#)]));
        check_valid(&order(&[("more", r#"{"action":1}"#)]));
        for data in [r#"{"action":"BUY","action":1}"#, r#"{"act\u0069on":{}}"#] {
            check(
                order(&[("data", data)]),
                Reason::WrongType,
                "field `data.action` is not a string",
            );
        }
        let update = ("event_type", r#""analyzer_update""#);
        check_valid(&order(&[update, ("data", r#"{"request":{},"action":1}"#)]));
        check(
            order(&[update, ("data", r#"{"request":{},"response":[]}"#)]),
            Reason::WrongType,
            "field `data.response` is not an object",
        );
    }

    #[test]
    fn no_detail_shows_what_a_line_says() {
        let secret = "s3cr3t";
        for line in [
            secret.to_owned(),
            format!(r#"{{"{secret}":{secret}}}"#),
            format!(r#"{{"{secret}":1,"user_id":"{secret}","user_id":"{secret}"}}"#),
            order(&[("event_type", r#""s3cr3t""#)]),
            order(&[("timestamp", r#""s3cr3t""#)]),
            order(&[("data", r#""s3cr3t""#)]),
        ] {
            match validate(line.as_bytes(), &EventTypes::default()) {
                Verdict::Rejected(rejection) => {
                    assert!(!rejection.detail.contains(secret), "{}", rejection.detail);
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }
}
