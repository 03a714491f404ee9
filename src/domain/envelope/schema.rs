//! The same rules for other people's tools: the JSON Schema that `openalgo-bridge schema` prints.
//!
//! It says everything that a schema can say about a line, the calendar included. It cannot say what
//! is lost when a line becomes a value: that a field stood there twice, how deep the text nests,
//! which escapes it used. And it knows no filtered lines: those are invalid to it.

use super::EventTypes;
use super::event_types::PROBE;

/// Months with the days they have, February up to 28; then the leap day, in years that have it:
/// those that 4 divides and 100 does not, and those that 400 divides.
const CALENDAR: &str = "^([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])\
    |(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))\
    |([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)\
    T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]";

/// The form of a timestamp, word for word as the contract has it.
const FORM: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// Of the lines that `openalgo-bridge probe` appends, only those are no filtered ones that go all the way.
const PROBE_RULE: &str = r#",
    {
      "description": "A line of openalgo-bridge's own, appended by `openalgo-bridge probe --through`.",
      "if": {
        "required": ["event_type"],
        "properties": { "event_type": { "const": "bridge_probe" } }
      },
      "then": {
        "properties": {
          "data": {
            "required": ["through"],
            "properties": { "through": { "type": ["boolean", "null"] } }
          }
        }
      }
    }"#;

/// Written out and not built from values, so that it reads in the order in which a person wants it.
const TEMPLATE: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "$id": "urn:openalgo-bridge:envelope:1",
  "title": "OpenAlgo event envelope",
  "description": "One line of the event file: one event of OpenAlgo, as one JSON object in UTF-8 that holds no line end. Further fields are allowed and pass through. A line must also not have a field of the envelope twice, not nest deeper than 128 levels, and have no lone surrogate escape in a field name or in one of the four strings; a schema cannot say so.",
  "type": "object",
  "required": ["event_type", "timestamp", "user_id", "source", "data"],
  "properties": {
    "event_type": {
      "description": "What happened. The name of the Socket.IO event, and the CloudEvents type.",
      "type": "string",
      "minLength": 1,
      "enum": @EVENT_TYPES@
    },
    "timestamp": {
      "description": "When it happened: RFC 3339 with a capital T and Z, at most nine digits of a second and no leap second; a date that exists.",
      "type": "string",
      "allOf": [
        { "pattern": "@FORM@" },
        { "pattern": "@CALENDAR@" }
      ]
    },
    "user_id": {
      "description": "Whose event it is. The key of the Kafka record: events of one user stay in order.",
      "type": "string",
      "minLength": 1
    },
    "source": {
      "description": "Who wrote the line. The CloudEvents source.",
      "type": "string",
      "minLength": 1
    },
    "data": {
      "description": "The payload as OpenAlgo emits it; it arrives as it was written.",
      "type": "object"
    }
  },
  "allOf": [
    {
      "description": "OpenAlgo's page compares the action of an order with text.",
      "if": {
        "required": ["event_type"],
        "properties": { "event_type": { "const": "order_event" } }
      },
      "then": {
        "properties": {
          "data": { "properties": { "action": { "type": "string" } } }
        }
      }
    },
    {
      "description": "OpenAlgo's page reads fields of the request and of the response.",
      "if": {
        "required": ["event_type"],
        "properties": { "event_type": { "const": "analyzer_update" } }
      },
      "then": {
        "properties": {
          "data": {
            "properties": {
              "request": { "type": "object" },
              "response": { "type": "object" }
            }
          }
        }
      }
    }@PROBE@
  ],
  "examples": [
    {
      "event_type": "order_event",
      "timestamp": "2026-01-29T10:30:45.123456Z",
      "user_id": "user123",
      "source": "openalgo",
      "data": { "symbol": "SBIN", "action": "BUY", "orderid": "260129000410021", "mode": "live" }
    }
  ]
}
"#;

/// The JSON Schema (draft 2020-12) of the envelope for this allow-list, as text that ends with a
/// line end.
pub fn json_schema(types: &EventTypes) -> String {
    let mut names = types.allowed().to_vec();
    let is_listed = names.iter().any(|name| name == PROBE);
    if !is_listed {
        names.push(PROBE.to_owned());
    }
    let allowed = serde_json::Value::from(names).to_string();
    TEMPLATE
        .replace("@PROBE@", if is_listed { "" } else { PROBE_RULE })
        .replace("@FORM@", FORM)
        .replace("@CALENDAR@", CALENDAR)
        .replace("@EVENT_TYPES@", &allowed)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_schema_is_json_and_names_the_allow_list() {
        let types = EventTypes::new(vec!["a\"b".into(), "@FORM@".into()], vec!["c".into()]);
        let schema: Value = serde_json::from_str(&json_schema(&types)).unwrap();
        assert_eq!(
            schema["properties"]["event_type"]["enum"],
            serde_json::json!(["a\"b", "@FORM@", "bridge_probe"])
        );
        let patterns = &schema["properties"]["timestamp"]["allOf"];
        assert_eq!(
            patterns[0]["pattern"],
            r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
        );
        assert_eq!(patterns[1]["pattern"], CALENDAR);
    }
}
