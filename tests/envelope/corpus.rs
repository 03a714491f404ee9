//! Lines with the verdict that the contract gives them.

use std::collections::BTreeSet;

use openalgo_bridge::domain::envelope::{EventTypes, Reason};

use crate::reference::{Outcome, check_against_reference};
use crate::tables::{NO_TEXTS, NO_TIMESTAMPS, NO_VALUES, TIMESTAMPS, UTF8_FAULTS, VALUES};

/// One valid line for each event of the default allow-list, as `OpenAlgo` writes them.
pub(crate) const SAMPLES: &str = include_str!("../samples/openalgo-samples.jsonl");

/// Events that are left out on purpose, and one order with characters beyond ASCII, which is valid.
pub(crate) const SAMPLES_EXTRA: &str = include_str!("../samples/openalgo-samples-extra.jsonl");

/// A line by hand and what is to become of it.
pub(crate) type Case = (Vec<u8>, Outcome);

/// A valid line with one field replaced by what is given: nothing, another value, or that field and
/// more.
fn with(name: &str, field: &str) -> Vec<u8> {
    let fields = [
        ("event_type", r#""event_type":"order_event""#),
        ("timestamp", r#""timestamp":"2026-01-29T10:30:45.123456Z""#),
        ("user_id", r#""user_id":"user123""#),
        ("source", r#""source":"openalgo""#),
        ("data", r#""data":{"action":"BUY"}"#),
    ];
    let written: Vec<_> = fields
        .into_iter()
        .map(|(own, written)| if own == name { field } else { written })
        .filter(|written| !written.is_empty())
        .collect();
    format!("{{{}}}", written.join(",")).into_bytes()
}

fn value(name: &str, value: &str) -> Vec<u8> {
    with(name, &format!("{name:?}:{value}"))
}

fn data(event_type: &str, members: &str) -> Vec<u8> {
    let line = String::from_utf8(value("data", &format!("{{{members}}}"))).unwrap();
    line.replace("order_event", event_type).into_bytes()
}

/// What comes from `inner`, in that many levels around it.
fn nested(levels: usize, open: &str, inner: &str, close: &str) -> String {
    open.repeat(levels) + inner + &close.repeat(levels)
}

/// All lines by hand.
pub(crate) fn by_hand() -> Vec<Case> {
    [
        bytes(),
        grammar(),
        depth(),
        surrogates(),
        fields(),
        field_values(),
        inside_data(),
        timestamps(),
    ]
    .concat()
}

fn cases<const N: usize>(outcome: Outcome, lines: [Vec<u8>; N]) -> Vec<Case> {
    lines.map(|line| (line, outcome)).to_vec()
}

fn rejected<const N: usize>(reason: Reason, lines: [Vec<u8>; N]) -> Vec<Case> {
    cases(Outcome::Rejected(reason), lines)
}

fn bytes() -> Vec<Case> {
    let inside = |bytes: &[u8]| [br#"{"user_id":""#, bytes, br#""}"#].concat();
    let utf16: Vec<u8> = "{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    [
        rejected(Reason::InvalidUtf8, UTF8_FAULTS.map(inside)),
        rejected(Reason::InvalidUtf8, UTF8_FAULTS.map(|bytes| [b"[\0", bytes].concat())),
        rejected(Reason::InvalidUtf8, [[b"\xff\xfe", &utf16[..]].concat()]),
        rejected(
            Reason::NulBytes,
            [
                utf16,
                b"\0".to_vec(),
                inside(b"\0"),
                [&value("source", r#""openalgo""#)[..], b"\0\0"].concat(),
                b"not json \0".to_vec(),
                nested(200, "[", "\0", "]").into_bytes(),
            ],
        ),
        cases(
            Outcome::Valid,
            [
                value("user_id", "\"\u{feff}\u{7f}\u{85}\u{2028}\u{ffff}\u{10ffff}\""),
                value("user_id", r#""\u0000""#),
                [b" \t\r\n", &value("user_id", "  \"a\"\t")[..], b" \t\r"].concat(),
            ],
        ),
    ]
    .concat()
}

fn grammar() -> Vec<Case> {
    [
        rejected(
            Reason::NotJson,
            NO_VALUES.map(|more| with("data", &format!(r#""data":{{"x":{more}}}"#))),
        ),
        rejected(
            Reason::NotJson,
            NO_VALUES.map(|more| with("data", &format!(r#""data":{{}},"x":{more}"#))),
        ),
        cases(
            Outcome::Valid,
            VALUES.map(|more| with("data", &format!(r#""data":{{"x":{more}}}"#))),
        ),
        cases(
            Outcome::Valid,
            VALUES.map(|more| with("data", &format!(r#""data":{{}},"x":{more}"#))),
        ),
        rejected(Reason::NotJson, NO_TEXTS.map(<[u8]>::to_vec)),
        rejected(
            Reason::NotAnObject,
            VALUES.map(|text| text.as_bytes().to_vec()).map(|text| {
                if text.starts_with(b"{") { [b"[", &text[..], b"]"].concat() } else { text }
            }),
        ),
        rejected(
            Reason::NotAnObject,
            [
                br#"["order_event","2026-01-29T10:30:45Z","user123","openalgo",{}]"#.to_vec(),
                [b"[", &value("source", r#""openalgo""#)[..], b"]"].concat(),
                br#""\ud800""#.to_vec(),
                br#"[{"event_type":"gtt_event"}]"#.to_vec(),
            ],
        ),
    ]
    .concat()
}

/// The envelope is level 1 and its data level 2.
fn depth() -> Vec<Case> {
    let data = |levels: usize| value("data", &nested(levels, r#"{"a":"#, "1", "}"));
    let arrays =
        |levels: usize| value("data", &format!(r#"{{"a":{}}}"#, nested(levels - 1, "[", "", "]")));
    let mixed = |levels: usize| {
        let (pairs, odd) = ((levels - 1) / 2, (levels - 1) % 2);
        value(
            "data",
            &format!(
                r#"{{"a":{}}}"#,
                nested(pairs, r#"[{"a":"#, &nested(odd, "[", "1", "]"), "}]"),
            ),
        )
    };
    let further = |levels: usize| {
        with("data", &format!(r#""data":{{}},"more":{}"#, nested(levels, "[", "\"]\"", "]")))
    };
    let no_object = |levels: usize| nested(levels, "[", "", "]").into_bytes();
    let field = |levels: usize| value("user_id", &nested(levels, "[", "{}", "]"));
    [
        cases(Outcome::Valid, [126, 127].map(data)),
        cases(Outcome::Valid, [126, 127].map(arrays)),
        cases(Outcome::Valid, [126, 127].map(mixed)),
        cases(Outcome::Valid, [126, 127].map(further)),
        rejected(Reason::NotAnObject, [127, 128].map(no_object)),
        rejected(Reason::WrongType, [125, 126].map(field)),
        rejected(Reason::TooDeep, [128, 129, 20_000].map(data)),
        rejected(Reason::TooDeep, [128, 129, 20_000].map(arrays)),
        rejected(Reason::TooDeep, [128, 129].map(mixed)),
        rejected(Reason::TooDeep, [128, 129].map(further)),
        rejected(Reason::TooDeep, [129, 130, 100_000].map(no_object)),
        rejected(Reason::TooDeep, [127, 128].map(field)),
        rejected(
            Reason::TooDeep,
            [
                "[".repeat(129).into_bytes(),
                nested(129, "[", "NaN", "]").into_bytes(),
                r#"{"event_type":"gtt_event","a":"#.repeat(129).into_bytes(),
                (r#"{"user_id":1,"user_id":2,"data":"#.to_owned() + &"[".repeat(128)).into_bytes(),
            ],
        ),
        rejected(
            Reason::NotJson,
            [
                "[".repeat(128).into_bytes(),
                format!("[NaN,{}]", "[".repeat(128)).into_bytes(),
                format!("[1{}", "[".repeat(128)).into_bytes(),
                format!(r#"{{"\ud800":{}"#, "[".repeat(128)).into_bytes(),
                format!(r#"{{"user_id":"\ud800","a":{}"#, "[".repeat(128)).into_bytes(),
            ],
        ),
    ]
    .concat()
}

fn surrogates() -> Vec<Case> {
    let lone = [
        r"\ud800",
        r"\udbff",
        r"\udc00",
        r"\udfff",
        r"\ude00\ud83d",
        r"\ud83d\ud83d\ude00",
        r"\uD83Dx\uDE00",
        r"\ud83d\n",
    ];
    let strings = ["event_type", "timestamp", "user_id", "source"];
    [
        strings
            .into_iter()
            .flat_map(|name| lone.map(|lone| value(name, &format!("\"{lone}\""))))
            .map(|line| (line, Outcome::Rejected(Reason::NotJson)))
            .collect(),
        rejected(
            Reason::NotJson,
            lone.map(|lone| with("data", &format!(r#""data":{{}},"{lone}":1"#))),
        ),
        rejected(
            Reason::NotJson,
            [
                with("user_id", r#""user_id":"a","us\u0065r_id":"\ud800""#),
                with("user_id", r#""user_id":"\ud800","user_id":1"#),
            ],
        ),
        cases(Outcome::Valid, lone.map(|lone| data("order_event", &format!(r#""x":"{lone}""#)))),
        cases(Outcome::Valid, lone.map(|lone| data("order_event", &format!(r#""{lone}":1"#)))),
        cases(
            Outcome::Valid,
            lone.map(|lone| with("data", &format!(r#""data":{{}},"x":["{lone}"]"#))),
        ),
        cases(
            Outcome::Valid,
            [r"\ud83d\ude00", r"\uD800\uDC00", r"\udbff\udfff", r"\ud7ff\ue000"]
                .map(|pair| value("user_id", &format!("\"{pair}\""))),
        ),
        cases(Outcome::Valid, [with("data", r#""data":{},"\ud83d\ude00":1"#)]),
        rejected(Reason::WrongType, [value("user_id", r#"["\ud800"]"#)]),
    ]
    .concat()
}

fn fields() -> Vec<Case> {
    let all = ["event_type", "timestamp", "user_id", "source", "data"];
    let spelt = ["user\\u005fid", "\\u0075ser_id", "user_i\\u0064", "us\\u0065r\\u005Fid"];
    [
        rejected(Reason::MissingField, all.map(|name| with(name, ""))),
        rejected(Reason::MissingField, [b"{}".to_vec(), b" { } ".to_vec(), b"{\"\":{}}".to_vec()]),
        rejected(
            Reason::MissingField,
            ["User_Id", "user_id ", "user-id", "", "user_i\\u0164"]
                .map(|name| with("user_id", &format!(r#""{name}":"a""#))),
        ),
        cases(Outcome::Valid, spelt.map(|name| with("user_id", &format!(r#""{name}":"a""#)))),
        rejected(
            Reason::DuplicateField,
            all.map(|name| with("data", &format!(r#""data":{{}},"{name}":null"#))),
        ),
        rejected(
            Reason::DuplicateField,
            spelt.map(|name| with("user_id", &format!(r#""user_id":"a","{name}":"a""#))),
        ),
        rejected(
            Reason::DuplicateField,
            [
                br#"{"user_id":1,"user_id":1}"#.to_vec(),
                br#"{"event_type":"gtt_event","event_type":"gtt_event"}"#.to_vec(),
            ],
        ),
    ]
    .concat()
}

fn field_values() -> Vec<Case> {
    let strings = ["event_type", "timestamp", "user_id", "source"];
    let wrong = ["null", "1", "true", "[]", "{}"];
    [
        strings
            .into_iter()
            .flat_map(|name| wrong.map(|wrong| value(name, wrong)))
            .chain(["null", "1", "true", "[]", "\"\"", "\"{}\""].map(|wrong| value("data", wrong)))
            .map(|line| (line, Outcome::Rejected(Reason::WrongType)))
            .collect(),
        rejected(
            Reason::EmptyField,
            ["event_type", "user_id", "source"].map(|name| value(name, "\"\"")),
        ),
        cases(
            Outcome::Valid,
            ["\" \"", "\"\u{0930}\"", "\"\\u0000\""].map(|user| value("user_id", user)),
        ),
        cases(
            Outcome::Valid,
            [
                with("data", r#""data":{},"more":null,"more":1,"":2"#),
                with("data", r#""data":{"event_type":1,"event_type":2}"#),
                with("event_type", r#""event_type":"order\u005fevent""#),
            ],
        ),
        rejected(
            Reason::UnknownEventType,
            ["x", "Order_event", "order_event ", " ", "order_event\\u0000", "historify"]
                .map(|name| value("event_type", &format!("\"{name}\""))),
        ),
        cases(
            Outcome::Filtered,
            [
                br#"{"event_type":"gtt_event"}"#.to_vec(),
                br#"{"event_type":"gtt\u005fevent","data":null,"user_id":""}"#.to_vec(),
                value("event_type", r#""whatsapp_qr""#),
                value("event_type", r#""historify_schedule_deleted""#),
            ],
        ),
        rejected(
            Reason::MissingField,
            [
                br#"{"event_type":["gtt_event"]}"#.to_vec(),
                br#"{"data":{"event_type":"gtt_event"}}"#.to_vec(),
            ],
        ),
        rejected(Reason::NotJson, [br#"{"event_type":"gtt_event""#.to_vec()]),
    ]
    .concat()
}

fn inside_data() -> Vec<Case> {
    [
        rejected(
            Reason::WrongType,
            ["null", "1", "[]", "{}", "true"]
                .map(|value| data("order_event", &format!(r#""action":{value}"#))),
        ),
        rejected(
            Reason::WrongType,
            ["null", "1", "[]", "\"{}\""]
                .map(|value| data("analyzer_update", &format!(r#""request":{value}"#))),
        ),
        rejected(
            Reason::WrongType,
            [
                data("analyzer_update", r#""request":{},"response":null"#),
                data("analyzer_update", r#""response":[],"request":{}"#),
                data("order_event", r#""action":"BUY","action":1"#),
                data("order_event", r#""act\u0069on":1"#),
                data("order\\u005fevent", r#""action":1"#),
                [
                    br#"{"data":{"action":1},"source":"","user_id":"","#,
                    &br#""timestamp":"","#[..],
                    br#""event_type":"order_event"}"#,
                ]
                .concat(),
            ],
        ),
        cases(
            Outcome::Filtered,
            [
                data("bridge_probe", ""),
                data("bridge_probe", r#""through":1"#),
                data("bridge_probe", r#""x":{"through":true}"#),
                br#"{"event_type":"bridge_probe"}"#.to_vec(),
            ],
        ),
        cases(
            Outcome::Valid,
            [
                data("bridge_probe", r#""through":true"#),
                data("order_event", ""),
                data("order_event", r#""action":"""#),
                data("order_event", r#""action":"\ud800""#),
                data("order_event", r#""action":1,"action":"BUY""#),
                data("order_event", r#""action":1,"act\u0069on":"BUY""#),
                data("order_event", r#""request":1,"response":2,"x":{"action":1},"Action":1"#),
                data("analyzer_update", r#""action":1"#),
                data("analyzer_update", r#""request":1,"request":{"request":1},"response":{}"#),
                data("order_notification", r#""action":1,"request":1,"response":1"#),
                data("password_change", r#""status":null"#),
                data("master_contract_download", r#""progress":64"#),
                with("data", r#""data":{},"action":1"#),
            ],
        ),
    ]
    .concat()
}

fn timestamps() -> Vec<Case> {
    let line = |text: &str| value("timestamp", &format!("\"{text}\""));
    [
        cases(Outcome::Valid, TIMESTAMPS.map(line)),
        rejected(Reason::BadTimestamp, NO_TIMESTAMPS.map(line)),
    ]
    .concat()
}

#[test]
fn every_line_by_hand_gets_the_verdict_of_the_contract() {
    let types = EventTypes::default();
    let cases = by_hand();
    for (line, expected) in &cases {
        let outcome = check_against_reference(line, &types);
        let start = String::from_utf8_lossy(&line[..line.len().min(300)]);
        assert_eq!(outcome, *expected, "{start}");
    }
    let found: BTreeSet<_> = cases.iter().map(|(_, outcome)| *outcome).collect();
    let by_others = [Reason::TooLong, Reason::TruncatedAtEof, Reason::TooLarge, Reason::Refused];
    for reason in Reason::ALL {
        let ours = !by_others.contains(&reason);
        assert_eq!(found.contains(&Outcome::Rejected(reason)), ours, "{reason}");
    }
    assert!(found.contains(&Outcome::Valid) && found.contains(&Outcome::Filtered));
}

#[test]
fn what_openalgo_writes_is_valid_or_left_out_on_purpose() {
    let types = EventTypes::default();
    for line in SAMPLES.lines() {
        assert_eq!(check_against_reference(line.as_bytes(), &types), Outcome::Valid, "{line}");
    }
    let mut valid = 0;
    for line in SAMPLES_EXTRA.lines() {
        match check_against_reference(line.as_bytes(), &types) {
            Outcome::Valid => valid += 1,
            Outcome::Filtered => {}
            Outcome::Rejected(reason) => panic!("{reason}: {line}"),
        }
    }
    assert_eq!((SAMPLES.lines().count(), SAMPLES_EXTRA.lines().count(), valid), (30, 29, 1));
}
