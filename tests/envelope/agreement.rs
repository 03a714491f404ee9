//! The published schema and the validator give the same answer for every line that a schema can
//! judge.

use std::collections::BTreeMap;

use jsonschema::Validator;
use openalgo_bridge::domain::envelope::{
    DEFAULT_EVENT_TYPES, EventTypes, Reason, Verdict, json_schema, validate,
};
use serde_json::Value;

use crate::corpus::{SAMPLES, SAMPLES_EXTRA, by_hand};
use crate::reference::{Outcome, outcome};
use crate::robustness::mutations;

/// Why a line is not put to the schema. This is the one place that says which lines these are.
///
/// Everything else has to agree. Lines that no JSON parser reads (`invalid_utf8`, `nul_bytes`,
/// `not_json` with the lone surrogates of names and strings, `too_deep`) count as invalid for the
/// schema, and so do filtered ones: their types are not on the allow-list. The calendar is in the
/// schema.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Skip {
    /// Parsed, an object has each name once: what stood there twice is gone.
    DuplicateField,
    /// `serde_json::Value` can't hold what RFC 8259 and the contract allow: 1e400, a lone surrogate
    /// inside `data` or a further field, or level 128 (its own limit is 127).
    NoValue,
}

pub(crate) fn schema(types: &EventTypes) -> Validator {
    let schema: Value = serde_json::from_str(&json_schema(types)).unwrap();
    jsonschema::draft202012::new(&schema).unwrap()
}

/// Puts a line to both; says why if that can't be done.
#[track_caller]
pub(crate) fn check_agreement(line: &[u8], types: &EventTypes, schema: &Validator) -> Option<Skip> {
    let outcome = outcome(line, types);
    let value = serde_json::from_slice::<Value>(line);
    match (outcome, &value) {
        (Outcome::Valid, Err(error)) => {
            let known = ["number out of range", "hex escape", "recursion limit exceeded"];
            let error = error.to_string();
            assert!(known.iter().any(|cause| error.contains(cause)), "{error}");
            return Some(Skip::NoValue);
        }
        (Outcome::Rejected(Reason::DuplicateField), Ok(_)) => return Some(Skip::DuplicateField),
        _ => {}
    }
    let valid = value.is_ok_and(|value| schema.is_valid(&value));
    let shown = String::from_utf8_lossy(line);
    assert_eq!(valid, outcome == Outcome::Valid, "schema: {valid}, {outcome:?}: {shown}");
    None
}

#[test]
fn the_schema_agrees_with_the_validator_on_the_corpus() {
    let types = EventTypes::default();
    let schema = schema(&types);
    let mut skipped = BTreeMap::new();
    let mut count = 0;
    let samples = SAMPLES.lines().chain(SAMPLES_EXTRA.lines()).map(|line| line.as_bytes().to_vec());
    for line in by_hand().into_iter().map(|(line, _)| line).chain(samples) {
        count += 1;
        if let Some(skip) = check_agreement(&line, &types, &schema) {
            *skipped.entry(skip).or_insert(0) += 1;
        }
    }
    // A line more or less here is a decision: is there really nothing that the schema could say
    // about it?
    let expected = BTreeMap::from([(Skip::DuplicateField, 11), (Skip::NoValue, 31)]);
    assert_eq!((count, skipped), (552, expected));
}

#[test]
fn the_schema_agrees_with_the_validator_on_mutations_of_what_openalgo_writes() {
    let types = EventTypes::default();
    let schema = schema(&types);
    let mut skipped = BTreeMap::new();
    for line in mutations() {
        if let Some(skip) = check_agreement(&line, &types, &schema) {
            *skipped.entry(skip).or_insert(0) += 1;
        }
    }
    // 59 samples with 5 fields each; and what is left of the one surrogate pair when a byte of it
    // changes.
    let expected = BTreeMap::from([(Skip::DuplicateField, 295), (Skip::NoValue, 13)]);
    assert_eq!(skipped, expected);
}

#[test]
fn the_schema_knows_the_calendar() {
    let types = EventTypes::default();
    let schema = schema(&types);
    let ends_of_february = (0..10_000).flat_map(|year| [28, 29, 30].map(|day| (year, 2, day)));
    let two_years =
        (2023..=2024).flat_map(|year| (0..100).map(move |at| (year, at))).flat_map(|(year, at)| {
            [
                (year, at, 1),
                (year, 1, at),
                (year, 2, at),
                (year, 4, at),
                (year, at, 30),
                (year, at, 31),
            ]
        });
    for (year, month, day) in ends_of_february.chain(two_years) {
        let time = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
        let line = format!(
            r#"{{"event_type":"order_event","timestamp":"{time}","user_id":"a","source":"b","data":{{}}}}"#
        );
        assert_eq!(check_agreement(line.as_bytes(), &types, &schema), None);
    }
}

#[test]
fn the_schema_follows_the_allow_list() {
    let line = br#"{"event_type":"mine","timestamp":"2026-01-29T10:30:45Z","user_id":"a","source":"b","data":{"action":1}}"#;
    let value: Value = serde_json::from_slice(line).unwrap();
    for (allowed, expected) in [(vec!["mine".to_owned()], true), (vec![], false)] {
        let types = EventTypes::new(allowed, vec![]);
        assert_eq!(schema(&types).is_valid(&value), expected);
        assert_eq!(matches!(validate(line, &types), Verdict::Valid(_)), expected);
    }
}

#[test]
fn the_schema_is_a_schema_and_its_examples_are_valid() {
    let types = EventTypes::default();
    let text = json_schema(&types);
    assert!(text.ends_with("}\n"));
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let types_and_probe = [DEFAULT_EVENT_TYPES, &["bridge_probe"]].concat();
    assert_eq!(schema["properties"]["event_type"]["enum"], serde_json::json!(types_and_probe));
    for example in schema["examples"].as_array().unwrap() {
        assert_eq!(outcome(example.to_string().as_bytes(), &types), Outcome::Valid);
    }
}
