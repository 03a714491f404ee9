//! The app's real payloads come out byte for byte.

use std::collections::HashMap;
use std::process::Command;

use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::daemon::Bridge;
use crate::support::{sha256, wait_for};

const SAMPLES: [&str; 2] = [
    include_str!("../samples/openalgo-samples.jsonl"),
    include_str!("../samples/openalgo-samples-extra.jsonl"),
];

/// What kcat, built by Debian around its own librdkafka, reads.
struct Record {
    key: String,
    timestamp_ms: i64,
    headers: HashMap<String, String>,
    payload: String,
}

fn kcat(bootstrap: &str, topic: &str) -> Vec<Record> {
    let format = "%k\x1f%T\x1f%h\x1f%s\x1e";
    let output = Command::new("kcat")
        .args(["-C", "-e", "-q", "-o", "beginning", "-b", bootstrap, "-t", topic, "-f", format])
        .output()
        .expect("kcat");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.split_terminator('\x1e')
        .map(|record| {
            let fields: Vec<&str> = record.splitn(4, '\x1f').collect();
            let headers = fields[2].split(',').filter_map(|header| header.split_once('='));
            Record {
                key: fields[0].to_owned(),
                timestamp_ms: fields[1].parse().expect("a time"),
                headers: headers.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                payload: fields[3].to_owned(),
            }
        })
        .collect()
}

fn all_event_types(lines: &[&str]) -> String {
    let mut types: Vec<String> = lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| Some(line["event_type"].as_str()?.to_owned()))
        .collect();
    types.sort();
    types.dedup();
    types.join(",")
}

#[test]
fn all_samples_come_out_byte_identical_with_key_timestamp_and_headers() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let lines: Vec<&str> = SAMPLES.iter().flat_map(|file| file.lines()).collect();
    bridge.set("BRIDGE_EVENT_TYPES", &all_event_types(&lines));
    let (rejected, valid): (Vec<&str>, Vec<&str>) = lines
        .iter()
        .partition(|line| serde_json::from_str::<Value>(line).unwrap()["data"].is_string());
    assert_eq!(rejected.len(), 1, "the one with a bare string");
    bridge.append().write(SAMPLES.concat().as_bytes());

    let daemon = bridge.start();
    let records = wait_for("the samples", || {
        Some(kcat(&broker.bootstrap, &topic)).filter(|records| records.len() >= valid.len())
    });
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);

    let generation = bridge.checkpoint()["generation"].as_str().unwrap().to_owned();
    let file = SAMPLES.concat();
    assert_eq!(records.len(), valid.len());
    for (record, line) in records.iter().zip(&valid) {
        assert_eq!(record.payload, **line);
        let envelope: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| envelope[field].as_str().unwrap().to_owned();
        assert_eq!(record.key, text("user_id"));
        let offset = file.find(*line).unwrap();
        let hash = sha256(line.as_bytes());
        let expected = HashMap::from(
            [
                ("ce_specversion", "1.0".to_owned()),
                ("ce_id", format!("{generation}:{offset}:{}", &hash[..8])),
                ("ce_type", text("event_type")),
                ("ce_source", text("source")),
                ("ce_time", text("timestamp")),
                ("content-type", "application/json".to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        assert_eq!(record.headers, expected);
        // All samples are of 2026-01-29, whole milliseconds after 10:30 UTC.
        let milliseconds = &text("timestamp")[11..23];
        let part = |range: std::ops::Range<usize>| milliseconds[range].parse::<i64>().unwrap();
        let in_day = ((part(0..2) * 60 + part(3..5)) * 60 + part(6..8)) * 1000 + part(9..12);
        assert_eq!(record.timestamp_ms, 1_769_644_800_000 + in_day, "{}", text("timestamp"));
    }
    let rejects = bridge.rejects();
    assert_eq!(rejects.len(), 1);
    assert_eq!(
        (&rejects[0]["reason"], &rejects[0]["line"]),
        (&"wrong_type".into(), &rejected[0].into())
    );
}

#[test]
fn headers_and_event_time_can_be_switched_off() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("KAFKA_HEADERS", "off").set("KAFKA_TIMESTAMP", "now");
    bridge.append().events([1]);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
    let records = kcat(&broker.bootstrap, &topic);
    assert!(records[0].headers.is_empty());
    assert!(records[0].timestamp_ms > 1_790_000_000_000, "{}", records[0].timestamp_ms);
}
