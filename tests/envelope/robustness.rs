//! Lines that nobody wrote by hand: cut, mutated and random ones.

use openalgo_bridge::domain::envelope::{EventTypes, Reason};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::agreement::{check_agreement, schema};
use crate::corpus::{SAMPLES, SAMPLES_EXTRA, by_hand};
use crate::reference::{Outcome, check_against_reference, members, outcome};

/// Bytes that mean something to JSON or UTF-8, and some that do not.
const ALPHABET: &[u8] =
    b"\"\\{}[]:,0123456789-+.eEtrufalsn \t\r\nxT_/b\0\x01\x1f\x7f\x80\xbf\xc3\xed\xf0\xff";

/// Text between which a line breaks apart in interesting ways.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    " ",
    "\t",
    "\r",
    "\n",
    "null",
    "true",
    "false",
    "nul",
    "0",
    "-",
    "01",
    "1.5e-3",
    "1e400",
    ".",
    "e",
    "NaN",
    "\"\"",
    "\"a\"",
    r#""\ud800""#,
    r#""\ud83d\ude00""#,
    r#""\u005f""#,
    r"\u00",
    "\u{feff}",
    "\u{930}",
    "\0",
    "\u{1}",
    r#""event_type""#,
    r#""timestamp""#,
    r#""user_id""#,
    r#""user\u005fid""#,
    r#""source""#,
    r#""data""#,
    r#""action""#,
    r#""request""#,
    r#""order_event""#,
    r#""gtt_event""#,
    r#""2026-01-29T10:30:45Z""#,
];

/// Each sample with each field dropped, doubled, renamed and given other values, and with bytes
/// changed.
pub(crate) fn mutations() -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for sample in SAMPLES.lines().chain(SAMPLES_EXTRA.lines()) {
        field_mutations(sample, &mut lines);
        for at in 0..sample.len() {
            let (before, after) = sample.as_bytes().split_at(at);
            let byte = ALPHABET[(at * 7 + sample.len()) % ALPHABET.len()];
            lines.push([before, &after[1..]].concat());
            lines.push([before, &[byte], &after[1..]].concat());
            lines.push([before, &[byte], after].concat());
        }
    }
    lines
}

fn field_mutations(sample: &str, lines: &mut Vec<Vec<u8>>) {
    let members = members(sample).unwrap();
    let values = [
        "null",
        "0",
        "\"\"",
        "\"x\"",
        "[]",
        "{}",
        "{\"action\":[]}",
        "{\"request\":0}",
        "\"order_event\"",
    ];
    for changed in 0..members.len() {
        let (name, value) = (members[changed].name.get(), members[changed].value.get());
        let replacements =
            [String::new(), format!("{name}:{value},{name}:{value}"), format!("\"x\":{value}")];
        let others = values.map(|value| format!("{name}:{value}"));
        for replacement in replacements.into_iter().chain(others) {
            let fields: Vec<_> = members
                .iter()
                .enumerate()
                .map(|(index, member)| {
                    if index == changed {
                        replacement.clone()
                    } else {
                        format!("{}:{}", member.name.get(), member.value.get())
                    }
                })
                .filter(|field| !field.is_empty())
                .collect();
            lines.push(format!("{{{}}}", fields.join(",")).into_bytes());
        }
    }
}

#[test]
fn mutations_of_what_openalgo_writes_get_the_verdict_of_the_reference() {
    let types = EventTypes::default();
    let mutations = mutations();
    for line in &mutations {
        check_against_reference(line, &types);
    }
    assert!(mutations.len() > 50_000, "{}", mutations.len());
}

#[test]
fn a_line_that_is_cut_anywhere_is_never_valid() {
    let types = EventTypes::default();
    for line in SAMPLES.lines().chain(SAMPLES_EXTRA.lines()).map(str::as_bytes) {
        for end in 0..line.len() {
            let outcome = outcome(&line[..end], &types);
            assert_eq!(outcome, Outcome::Rejected(Reason::NotJson), "{end} of {}", line.len());
        }
        for start in 1..line.len() {
            let outcome = outcome(&line[start..], &types);
            assert!(matches!(outcome, Outcome::Rejected(_)), "from {start} of {}", line.len());
        }
    }
    for (line, expected) in by_hand() {
        if expected == Outcome::Valid {
            for end in 0..line.trim_ascii_end().len() {
                let outcome = outcome(&line[..end], &types);
                assert!(matches!(outcome, Outcome::Rejected(_)), "{end}: {outcome:?}");
            }
        }
    }
}

#[test]
fn a_deep_or_huge_line_needs_no_stack() {
    let types = EventTypes::default();
    let judge = move || {
        for piece in ["[", "{\"a\":", "[{\"a\":", "{\"data\":"] {
            let line = piece.repeat(1_000_000);
            assert_eq!(outcome(line.as_bytes(), &types), Outcome::Rejected(Reason::TooDeep));
        }
        let wide = format!("[{}0]", "[],{\"a\":0},".repeat(1_000_000));
        assert_eq!(outcome(wide.as_bytes(), &types), Outcome::Rejected(Reason::NotAnObject));
    };
    // Far less than any thread of the daemon has.
    let thread = std::thread::Builder::new().stack_size(64 * 1024);
    thread.spawn(judge).unwrap().join().unwrap();
}

/// A JSON text with all that the grammar allows.
fn json() -> impl Strategy<Value = String> {
    let leaf = select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1e400",
        "12.50",
        "-1E+2",
        "\"\"",
        "\"a\"",
        r#""\ud800""#,
        r#""\n\/""#,
        "\"\u{930}\u{94d}\"",
        "[]",
        "{}",
        "\"a long enough string for three groups of eight bytes\"",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(8, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            vec((name(), inner), 0..6).prop_map(|items| object(&items)),
        ]
    })
}

fn object(members: &[(String, String)]) -> String {
    let members: Vec<_> = members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    format!("{{{}}}", members.join(", "))
}

fn name() -> impl Strategy<Value = String> {
    select(vec![
        r#""event_type""#,
        r#""timestamp""#,
        r#""user_id""#,
        r#""source""#,
        r#""data""#,
        r#""action""#,
        r#""request""#,
        r#""response""#,
        r#""user\u005fid""#,
        r#""d\u0061ta""#,
        r#""acti\u006fn""#,
        r#""""#,
        r#""x""#,
        r#""\ud800""#,
    ])
    .prop_map(str::to_owned)
}

/// A line that is close to an envelope: most fields are there, most are right.
fn envelope() -> impl Strategy<Value = Vec<u8>> {
    let event_type = prop_oneof![
        8 => select(vec![r#""order_event""#, r#""analyzer_update""#, r#""password_change""#]),
        1 => select(vec![r#""gtt_event""#, r#""""#, r#""x""#, "null", r#""order\u005fevent""#]),
    ]
    .prop_map(str::to_owned);
    let timestamp = prop_oneof![
        (0..10_000, 0..14, 0..33, 0..25, 0..61)
            .prop_map(|(y, m, d, h, s)| { format!("\"{y:04}-{m:02}-{d:02}T{h:02}:59:{s:02}Z\"") }),
        select(vec![
            r#""2026-01-29T10:30:45.123456Z""#,
            r#""""#,
            "7",
            r#""2026-01-29T10:30:45+05:30""#
        ])
        .prop_map(str::to_owned),
    ];
    let string = || prop_oneof![6 => Just("\"someone\"".to_owned()), 1 => json()];
    let data = vec((name(), json()), 0..5).prop_map(|members| object(&members));
    let data = prop_oneof![6 => data, 1 => json()];
    let further = vec((name(), json()), 0..2);
    (event_type, timestamp, string(), string(), data, further)
        .prop_flat_map(|(event_type, timestamp, user_id, source, data, further)| {
            let names = ["event_type", "timestamp", "user_id", "source", "data"];
            let fields: Vec<_> = names
                .map(|name| format!("{name:?}"))
                .into_iter()
                .zip([event_type, timestamp, user_id, source, data])
                .chain(further)
                .collect();
            Just(fields).prop_shuffle()
        })
        .prop_map(|fields| object(&fields).into_bytes())
}

/// How a byte of a line is changed.
#[derive(Clone, Copy, Debug)]
enum Change {
    Delete,
    Insert(u8),
    Replace(u8),
}

fn changes() -> impl Strategy<Value = Vec<(Index, Change)>> {
    let byte = || select(ALPHABET);
    let change = prop_oneof![
        Just(Change::Delete),
        byte().prop_map(Change::Insert),
        byte().prop_map(Change::Replace),
    ];
    vec((any::<Index>(), change), 0..3)
}

fn change(mut line: Vec<u8>, changes: Vec<(Index, Change)>) -> Vec<u8> {
    for (index, change) in changes {
        if line.is_empty() {
            break;
        }
        let at = index.index(line.len());
        match change {
            Change::Delete => drop(line.remove(at)),
            Change::Insert(byte) => line.insert(at, byte),
            Change::Replace(byte) => line[at] = byte,
        }
    }
    line
}

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(2_000), failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn generated_envelopes_get_the_verdict_of_the_reference_and_of_the_schema(line in envelope()) {
        let types = EventTypes::default();
        check_against_reference(&line, &types);
        check_agreement(&line, &types, &schema(&types));
    }

    #[test]
    fn changed_envelopes_get_the_verdict_of_the_reference(line in envelope(), changes in changes()) {
        check_against_reference(&change(line, changes), &EventTypes::default());
    }

    #[test]
    fn changed_json_gets_the_verdict_of_the_reference(line in json(), changes in changes()) {
        check_against_reference(&change(line.into_bytes(), changes), &EventTypes::default());
    }

    #[test]
    fn heaps_of_pieces_get_the_verdict_of_the_reference(pieces in vec(select(PIECES), 0..40)) {
        check_against_reference(pieces.concat().as_bytes(), &EventTypes::default());
    }

    #[test]
    fn heaps_of_brackets_get_the_verdict_of_the_reference(
        opened in vec(select(vec!["[", "{\"a\":", "[[],", "{\"\":\"]\",\"b\":"]), 100..160),
        rest in vec(select(PIECES), 0..4),
    ) {
        let line = opened.concat() + &rest.concat();
        check_against_reference(line.as_bytes(), &EventTypes::default());
    }

    #[test]
    fn any_bytes_get_the_verdict_of_the_reference(line in vec(any::<u8>(), 0..60)) {
        check_against_reference(&line, &EventTypes::default());
    }
}
