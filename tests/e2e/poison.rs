//! A record that the broker refuses for good leaves alone; its neighbours keep their order.

use std::collections::BTreeSet;

use crate::support::broker::Broker;
use crate::support::consumer::{Topic, assert_first_deliveries_in_order};
use crate::support::daemon::Bridge;
use crate::support::events::{event, padded_event};

/// Appends `lines` events, every 1,000th of which the topic does not take, and gives those.
fn append_with_poison(bridge: &Bridge, lines: u64) -> BTreeSet<u64> {
    let mut content = String::new();
    let mut poison = BTreeSet::new();
    for number in 0..lines {
        if number % 1_000 == 500 {
            poison.insert(number);
            content.push_str(&incompressible_event(number));
        } else {
            content.push_str(&event(number));
        }
        content.push('\n');
    }
    bridge.append().write(content.as_bytes());
    poison
}

/// 40,000 bytes that no codec makes smaller than 20,000.
fn incompressible_event(number: u64) -> String {
    let mut state = number + 1;
    let noise: String = (0..40_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (state >> 58) as u8)
        })
        .map(|character| if character == '\\' { '0' } else { character })
        .collect();
    padded_event(number, 0).replace("\"note\":\"", &format!("\"note\":\"{noise}"))
}

fn check(compression: &str) {
    const LINES: u64 = 20_000;
    let broker = Broker::shared();
    let topic = Broker::unused_topic();
    broker.create_topic(&topic, 1, &[("max.message.bytes", "20000")]);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("KAFKA_PRODUCER_COMPRESSION", compression);
    let poison = append_with_poison(&bridge, LINES);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);

    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.read_all();
    assert_first_deliveries_in_order(&consumer.records);
    let numbers = consumer.numbers();
    let delivered: BTreeSet<u64> = numbers.iter().copied().collect();
    let expected: BTreeSet<u64> = (0..LINES).filter(|number| !poison.contains(number)).collect();
    assert_eq!(delivered, expected);
    let rejects = bridge.rejects();
    assert!(rejects.iter().all(|reject| reject["reason"] == "too_large"), "{rejects:?}");
    let rejected: BTreeSet<u64> = rejects
        .iter()
        .map(|reject| crate::support::events::number(reject["line"].as_str().unwrap().as_bytes()))
        .collect();
    assert_eq!(rejected, poison);
    let duplicates = numbers.len() - delivered.len();
    println!("{compression}: {} refused, {duplicates} duplicates", poison.len());
    assert!(duplicates <= 16_384, "more than what was in flight at one rebuild");
}

#[test]
fn ka_08_ka_31_every_1000th_line_too_large_for_the_topic_and_the_others_in_order() {
    check("snappy");
}

#[test]
fn ka_08_ka_31_the_same_without_compression() {
    check("none");
}

#[test]
fn a_refused_line_does_not_hold_up_the_stop_and_is_not_sent_again() {
    let broker = Broker::shared();
    let topic = Broker::unused_topic();
    broker.create_topic(&topic, 1, &[("max.message.bytes", "20000")]);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let poison = append_with_poison(&bridge, 1_000);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
    let daemon = bridge.start();
    daemon.wait_for_log("following the input");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(bridge.rejects().len(), poison.len());
}

#[test]
fn batches_larger_than_the_topic_takes_become_smaller_and_everything_is_delivered() {
    const LINES: u64 = 5_000;
    let broker = Broker::shared();
    let topic = Broker::unused_topic();
    broker.create_topic(&topic, 1, &[("max.message.bytes", "8000")]);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("KAFKA_PRODUCER_COMPRESSION", "none");
    bridge.append().events(0..LINES);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    assert!(daemon.log().len() < 15, "{:#?}", daemon.log());
    assert_eq!(daemon.stop(), 0);
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.read_all();
    assert_first_deliveries_in_order(&consumer.records);
    let delivered: BTreeSet<u64> = consumer.numbers().into_iter().collect();
    assert_eq!(delivered, (0..LINES).collect());
    assert!(bridge.rejects().is_empty());
}
