//! The contract's rules once more, on top of `serde_json`, for reading and not for speed.

use std::fmt;
use std::sync::LazyLock;

use openalgo_bridge::domain::envelope::{DEPTH_LEVELS_MAX, EventTypes, Reason, Verdict, validate};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A verdict without what comes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Valid,
    Filtered,
    Rejected(Reason),
}

pub(crate) fn outcome(line: &[u8], types: &EventTypes) -> Outcome {
    match validate(line, types) {
        Verdict::Valid(_) => Outcome::Valid,
        Verdict::Filtered => Outcome::Filtered,
        Verdict::Rejected(rejection) => Outcome::Rejected(rejection.reason),
    }
}

/// The verdict on a line and, for a valid one, that the envelope says what `serde_json` reads.
#[track_caller]
pub(crate) fn check_against_reference(line: &[u8], types: &EventTypes) -> Outcome {
    let outcome = outcome(line, types);
    let shown = String::from_utf8_lossy(line);
    let expected = reference(line, types).unwrap_or_else(Outcome::Rejected);
    assert_eq!(outcome, expected, "differs from the reference: {shown}");
    if let Verdict::Valid(envelope) = validate(line, types) {
        let text = std::str::from_utf8(line).unwrap();
        let members = members(text).unwrap();
        let raw = |name: &str| members.iter().find(|member| member.is(name)).unwrap().value.get();
        let string = |name: &str| serde_json::from_str::<String>(raw(name)).unwrap();
        assert_eq!(envelope.event_type, string("event_type"));
        assert_eq!(envelope.timestamp, string("timestamp"));
        assert_eq!(envelope.user_id, string("user_id"));
        assert_eq!(envelope.source, string("source"));
        assert_eq!(envelope.data, raw("data"));
        assert_eq!(&text[envelope.data_range()], raw("data"));
    }
    outcome
}

/// What the contract says about a line: valid, filtered, or why not.
fn reference(line: &[u8], types: &EventTypes) -> Result<Outcome, Reason> {
    let text = std::str::from_utf8(line).map_err(|_| Reason::InvalidUtf8)?;
    if text.contains('\0') {
        return Err(Reason::NulBytes);
    }
    if let Some(prefix) = up_to_level_129(text) {
        // The prefix is fine exactly if it is JSON once everything that is open in it is closed.
        grammar(&prefix)?;
        return Err(Reason::TooDeep);
    }
    grammar(text)?;
    let members = members(text).ok_or(Reason::NotAnObject)?;
    let names = ["event_type", "timestamp", "user_id", "source", "data"];
    let values = |name: &str| -> Vec<&RawValue> {
        members.iter().filter(|member| member.is(name)).map(|member| member.value).collect()
    };
    if names.iter().any(|name| values(name).len() > 1) {
        return Err(Reason::DuplicateField);
    }
    let string = |name: &str| -> Option<String> {
        values(name).first().and_then(|value| serde_json::from_str(value.get()).ok())
    };
    let event_type = string("event_type");
    let allowed = event_type.as_ref().is_some_and(|name| types.allowed().contains(name));
    let ignored = event_type.as_ref().is_some_and(|name| types.ignored().contains(name));
    let probe = event_type.as_deref() == Some("bridge_probe") && !allowed;
    if probe && !goes_through(values("data").first().map_or("", |data| data.get())) {
        return Ok(Outcome::Filtered);
    }
    if ignored && !allowed && !probe {
        return Ok(Outcome::Filtered);
    }
    if names.iter().any(|name| values(name).is_empty()) {
        return Err(Reason::MissingField);
    }
    let strings: Vec<String> = names[..4].iter().filter_map(|name| string(name)).collect();
    let [event_type, timestamp, user_id, source] = &strings[..] else {
        return Err(Reason::WrongType);
    };
    check_data(event_type, values("data")[0].get())?;
    if event_type.is_empty() || user_id.is_empty() || source.is_empty() {
        return Err(Reason::EmptyField);
    }
    if !allowed && !probe {
        return Err(Reason::UnknownEventType);
    }
    if !is_timestamp(timestamp) {
        return Err(Reason::BadTimestamp);
    }
    Ok(Outcome::Valid)
}

/// Whether a probe is to go all the way; of a repeated member the last counts.
fn goes_through(data: &str) -> bool {
    let members = members(data).unwrap_or_default();
    let through = members.iter().rfind(|member| member.is("through"));
    through.is_some_and(|member| ["true", "false", "null"].contains(&member.value.get()))
}

/// The text to where its 129th level opens, with all its levels closed behind it; `None` if there
/// is no such level.
fn up_to_level_129(text: &str) -> Option<String> {
    let mut closers = Vec::new();
    let (mut in_string, mut escaped) = (false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            '[' => closers.push(']'),
            '{' => closers.push('}'),
            ']' | '}' => drop(closers.pop()),
            _ => {}
        }
        if closers.len() > DEPTH_LEVELS_MAX as usize {
            return Some(text[..=at].chars().chain(closers.into_iter().rev()).collect());
        }
    }
    None
}

/// RFC 8259, and that what has to be decoded can be.
fn grammar(text: &str) -> Result<(), Reason> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Reason::NotJson)?;
    for member in members(text).into_iter().flatten() {
        let name =
            serde_json::from_str::<String>(member.name.get()).map_err(|_| Reason::NotJson)?;
        let decoded = ["event_type", "timestamp", "user_id", "source"].contains(&name.as_str());
        if decoded && member.value.get().starts_with('"') {
            serde_json::from_str::<String>(member.value.get()).map_err(|_| Reason::NotJson)?;
        }
    }
    Ok(())
}

fn check_data(event_type: &str, data: &str) -> Result<(), Reason> {
    let members = members(data).ok_or(Reason::WrongType)?;
    let checks: &[(&str, char)] = match event_type {
        "order_event" => &[("action", '"')],
        "analyzer_update" => &[("request", '{'), ("response", '{')],
        _ => &[],
    };
    for &(name, first) in checks {
        let last = members.iter().rfind(|member| member.is(name));
        if last.is_some_and(|member| !member.value.get().starts_with(first)) {
            return Err(Reason::WrongType);
        }
    }
    Ok(())
}

/// The contract's regular expression, word for word, and that the calendar and the clock have this
/// time.
fn is_timestamp(text: &str) -> bool {
    static FORM: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let form = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";
        jsonschema::validator_for(&serde_json::json!({ "pattern": form })).unwrap()
    });
    if !FORM.is_valid(&text.into()) {
        return false;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u32>().unwrap();
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let leap = year % 400 == 0 || (year % 4 == 0 && year % 100 != 0);
    let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    (1..=12).contains(&month)
        && (1..=days[month as usize - 1]).contains(&day)
        && number(11, 13) < 24
        && number(14, 16) < 60
        && number(17, 19) < 60
}

/// A name and its value, both as they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a RawValue,
    pub(crate) value: &'a RawValue,
}

impl Member<'_> {
    pub(crate) fn is(&self, name: &str) -> bool {
        serde_json::from_str::<String>(self.name.get()).is_ok_and(|decoded| decoded == name)
    }
}

/// The members of an object in the order in which they are written; `None` for anything else.
pub(crate) fn members(text: &str) -> Option<Vec<Member<'_>>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<Member<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry()? {
                members.push(Member { name, value });
            }
            Ok(members)
        }
    }

    serde_json::Deserializer::from_str(text).deserialize_map(Members).ok()
}
