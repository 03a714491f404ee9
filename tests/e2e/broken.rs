//! Bad lines are kept aside with their reason; nothing else is touched by them.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;
use crate::support::events::event;
use crate::support::sha256;

const LINES: u64 = 100_000;
const MAX_LINE: usize = 4_000;

/// A way to break a line, and the reason that names it.
type Break = (&'static str, fn(u64) -> Vec<u8>);

const BREAKS: [Break; 14] = [
    ("too_long", |n| event(n).replace("SBIN", &"x".repeat(MAX_LINE)).into_bytes()),
    ("invalid_utf8", |n| replaced(n, b"SBIN", b"SB\xc3\x28")),
    ("nul_bytes", |n| replaced(n, b"SBIN", b"SB\0N")),
    ("not_json", |n| event(n).as_bytes()[..90].to_vec()),
    ("not_json", |n| event(n).replace("\"SBIN\"", "NaN").into_bytes()),
    ("too_deep", |n| event(n).replace("\"SBIN\"", &nested(200)).into_bytes()),
    ("not_an_object", |n| format!("[{n}]").into_bytes()),
    ("duplicate_field", |n| event(n).replacen('{', "{\"user_id\":\"x\",", 1).into_bytes()),
    ("missing_field", |n| event(n).replace("\"source\":\"openalgo\",", "").into_bytes()),
    ("wrong_type", |n| event(n).replace("\"BUY\"", "7").into_bytes()),
    ("wrong_type", |n| event(n).replace("\"openalgo\"", "null").into_bytes()),
    ("empty_field", |n| event(n).replace("\"openalgo\"", "\"\"").into_bytes()),
    ("unknown_event_type", |n| event(n).replace("order_event", "other_event").into_bytes()),
    ("bad_timestamp", |n| event(n).replace("2026-01-29", "2026-02-30").into_bytes()),
];

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

fn replaced(number: u64, from: &[u8], to: &[u8]) -> Vec<u8> {
    let line = event(number).into_bytes();
    let at = line.windows(from.len()).position(|window| window == from).unwrap();
    [&line[..at], to, &line[at + from.len()..]].concat()
}

fn line_of(reject: &Value) -> Vec<u8> {
    match reject["line"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => base64::engine::general_purpose::STANDARD
            .decode(reject["line_base64"].as_str().unwrap())
            .unwrap(),
    }
}

#[test]
fn of_100_000_lines_with_30_percent_broken_the_topic_holds_the_valid_and_the_rejects_the_others() {
    let broker = Broker::shared();
    let topic = broker.topic(3);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_MAX_LINE_BYTES", &MAX_LINE.to_string());
    let mut valid = BTreeSet::new();
    let mut broken: BTreeMap<u64, (&str, Vec<u8>)> = BTreeMap::new();
    let mut content = Vec::new();
    let mut kinds = BREAKS.iter().cycle();
    for number in 0..LINES {
        let offset = content.len() as u64;
        if [0, 3, 7].contains(&(number % 10)) {
            let (reason, make) = kinds.next().unwrap();
            let line = make(number);
            content.extend_from_slice(&line);
            broken.insert(offset, (reason, line));
        } else {
            content.extend_from_slice(event(number).as_bytes());
            valid.insert(number);
        }
        content.push(b'\n');
    }
    bridge.append().write(&content);

    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);

    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.read_all();
    let delivered = consumer.numbers();
    assert_eq!(delivered.len(), valid.len());
    assert_eq!(delivered.into_iter().collect::<BTreeSet<_>>(), valid);
    let rejects = bridge.rejects();
    assert_eq!(rejects.len(), broken.len());
    for reject in &rejects {
        let offset = reject["offset"].as_u64().unwrap();
        let length = reject["length"].as_u64().unwrap() as usize;
        let (reason, line) = &broken[&offset];
        assert_eq!(reject["reason"], *reason, "{reject}");
        let selected = &content[offset as usize..offset as usize + length];
        assert_eq!(selected, line);
        assert_eq!(reject["sha256"], sha256(selected));
        let truncated = reject["line_truncated"] == true;
        assert_eq!(truncated, *reason == "too_long" && length > 4096);
        let kept = line_of(reject);
        assert_eq!(kept, if truncated { &line[..4096] } else { line }, "{reason}");
    }
    let reasons: BTreeSet<&str> = BREAKS.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(reasons.len(), 12, "every reason that a line by itself can have");
}

#[test]
fn in_27_a_64_mib_line_without_a_newline_keeps_memory_below_64_mib() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events([0]);
    let block = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        input.write(&block);
    }
    input.write(b"\n");
    input.events([1]);
    bridge.wait_until_settled();
    let peak = daemon.memory_kb("VmHWM");
    println!("peak memory {peak} kB");
    assert!(peak < 64 << 10, "{peak} kB");
    assert_eq!(daemon.stop(), 0);
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.read_all();
    assert_eq!(consumer.numbers(), [0, 1]);
    let rejects = bridge.rejects();
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0]["reason"], "too_long");
    assert_eq!(rejects[0]["length"], 64 << 20);
    assert_eq!(rejects[0]["line_truncated"], true);
    assert_eq!(rejects[0]["line"].as_str().unwrap().len(), 4096);
    assert_eq!(rejects[0]["sha256"], sha256(&vec![b'x'; 64 << 20]));
}

#[test]
fn sec_03_no_payload_and_no_secret_in_the_log() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_LOG_LEVEL", "trace").set("KAFKA_CONF_DEBUG", "all");
    bridge.set("KAFKA_SSL_KEY_PASSWORD", "CANARY-secret");
    let mut input = bridge.append();
    input.write(event(0).replace("SBIN", "CANARY-valid").as_bytes());
    input.write(b"\n{\"CANARY-field\": CANARY-broken\n");
    input.write(event(1).replace("order_event", "CANARY-type").as_bytes());
    input.write(b"\n\xff CANARY-bytes\n");
    let daemon = bridge.start();
    bridge.wait_until_settled();
    let log = daemon.log().join("\n");
    assert!(log.contains("librdkafka"), "the log is not at trace");
    assert!(!log.contains("CANARY"), "{log}");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(bridge.rejects().len(), 3);
}
