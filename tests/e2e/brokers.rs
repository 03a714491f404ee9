//! A broker that stands still, forgets, is reconfigured or slow: what is not acknowledged waits and comes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use crate::support::account::{expect_all_delivered, expect_nothing_wrong};
use crate::support::broker::Broker;
use crate::support::consumer::{Topic, assert_first_deliveries_in_order};
use crate::support::daemon::Bridge;
use crate::support::disk::SmallDisk;
use crate::support::events::{self, event, padded_event};
use crate::support::load::Load;
use crate::support::wait_for;

#[test]
fn ka_15_ka_19_a_broker_that_stands_still_beyond_all_timeouts_gets_everything_in_order() {
    let broker = Broker::start();
    let topic = broker.topic(2);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("KAFKA_CONF_SOCKET_TIMEOUT_MS", "1000");
    bridge.set("KAFKA_PRODUCER_REQUEST_TIMEOUT_MS", "1000");
    let load = Load::start(&bridge, 0);
    let daemon = bridge.start();
    bridge.wait_until_past_all_of_now();
    broker.signal("STOP");
    println!("held: {}", bridge.wait_until_down("imed out"));
    broker.signal("CONT");
    bridge.wait_until_past_all_of_now();
    let count = load.stop();
    expect_all_delivered(&bridge, &broker.bootstrap, &topic, count);
    daemon.wait_for_log("Kafka takes events again");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_10_a_topic_that_is_deleted_and_made_anew_with_fewer_partitions_gets_what_comes_next() {
    let broker = Broker::without_auto_create();
    let topic = broker.topic(3);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let load = Load::start(&bridge, 0);
    let daemon = bridge.start();
    bridge.wait_until_past_all_of_now();
    broker.delete_topic(&topic);
    bridge.wait_until_down("does not exist");
    // What was acknowledged went down with the topic, and nothing of what comes now.
    let down = load.next();
    wait_for("more to come", || (load.next() > down + 500).then_some(()));
    let gone = bridge.status()["ledger"]["lines"]["delivered"].as_u64().unwrap();
    broker.create_topic(&topic, 1, &[]);
    bridge.wait_until_past_all_of_now();
    let count = load.stop();
    bridge.wait_until_settled();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let numbers = consumer.wait_for_events((count - gone) as usize);
    let different: BTreeSet<u64> = numbers.iter().copied().collect();
    let repeated = numbers.len() - different.len();
    println!("{gone} gone, {} since, {repeated} came again", different.len());
    assert_eq!(different.len() as u64, count - gone);
    assert!(
        different.range(down..).copied().eq(down..count),
        "of {down} to {count}: {different:?}"
    );
    assert_first_deliveries_in_order(&consumer.records);
    expect_nothing_wrong(&bridge, count);
    daemon.wait_for_log("Kafka takes events again");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_17_more_partitions_under_load_lose_nothing_and_keep_the_order_within_each() {
    let broker = Broker::shared();
    let topic = broker.topic(3);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("KAFKA_CONF_TOPIC_METADATA_REFRESH_INTERVAL_MS", "500");
    let load = Load::start(&bridge, 0);
    let daemon = bridge.start();
    bridge.wait_until_past_all_of_now();
    broker.add_partitions(&topic, 6);
    wait_for("an event in a new partition", || {
        let mut consumer = Topic::open(&broker.bootstrap, &topic);
        consumer.read_all().iter().any(|record| record.partition >= 3).then_some(())
    });
    let count = load.stop();
    bridge.wait_until_settled();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let numbers = consumer.wait_for_events(count as usize);
    let different: BTreeSet<u64> = numbers.iter().copied().collect();
    assert!(different.iter().copied().eq(0..count));
    let (all, retries) = (numbers.len() as u64, bridge.status()["sink"]["retries"].as_u64());
    assert!(Some(all - count) <= retries, "{all} of {count}, and {retries:?} went again");
    // A key may be in two partitions, and is in order in each, unless a partition was not ready when it
    // was first used: then what was out goes again, and to where it belongs by then.
    let mut last = HashMap::new();
    for record in consumer.records.iter().filter(|_| retries == Some(0)) {
        let number = events::number(&record.payload);
        let before = last.insert((record.partition, &record.key), number);
        assert!(before < Some(number), "{number} was delivered after {before:?}");
    }
    expect_nothing_wrong(&bridge, count);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_16_a_producer_that_the_broker_forgets_whenever_it_is_idle_loses_and_repeats_nothing() {
    let settings = ["producer.id.expiration.ms=1", "producer.id.expiration.check.interval.ms=10"];
    let broker = Broker::with_settings(&settings);
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let mut input = bridge.append();
    let daemon = bridge.start();
    for round in 0..20 {
        input.events(round * 10..(round + 1) * 10);
        bridge.wait_until_settled();
    }
    expect_all_delivered(&bridge, &broker.bootstrap, &topic, 200);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_22_a_quota_makes_it_slow_and_is_no_outage() {
    const COUNT: u64 = 600;
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let quota = ["--alter", "--add-config", "producer_byte_rate=20000"];
    let client = ["--entity-type", "clients", "--entity-name", &topic];
    broker.configs(&[&quota[..], &client].concat());
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("KAFKA_CONF_CLIENT_ID", &topic);
    bridge.set("KAFKA_PRODUCER_COMPRESSION", "none");
    // Several batches: the first one is taken whatever its size.
    bridge.set("KAFKA_PRODUCER_BATCH_SIZE", "16384");
    bridge.append().events(0..COUNT);
    let began = Instant::now();
    let daemon = bridge.start();
    expect_all_delivered(&bridge, &broker.bootstrap, &topic, COUNT);
    println!("{:?} for {} bytes", began.elapsed(), fs::metadata(bridge.input()).unwrap().len());
    assert!(began.elapsed() > Duration::from_secs(4), "nothing was slowed down");
    assert!(!daemon.log_after_stop().contains("does not take events"));
}

/// A line like the others, of that user and time.
fn odd(number: u64, user: &str, time: &str) -> String {
    let line = event(number).replace(&events::user(number), user);
    line.replace(&format!("2026-01-29T10:30:{:02}.123456Z", number % 60), time)
}

#[test]
fn ka_28_empty_and_huge_keys_and_odd_times_are_delivered_or_put_aside_and_hold_nobody_up() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    // The huge key would be small otherwise.
    bridge.set("KAFKA_PRODUCER_COMPRESSION", "none");
    let (usual, huge) = ("2026-01-29T10:30:00Z", "k".repeat(800_000));
    let lines = [
        odd(0, "", usual),
        odd(1, &huge[..400_000], usual),
        odd(2, &huge, usual),
        odd(3, "user", "0001-01-01T00:00:00Z"),
        odd(4, "user", "1969-12-31T23:59:59.999Z"),
        odd(5, "user", "1970-01-01T00:00:00Z"),
        odd(6, "user", "2016-12-31T23:59:60Z"),
        odd(7, "user", "2199-01-01T00:00:00+14:00"),
        odd(8, "user", "9999-12-31T23:59:59.999999999Z"),
        odd(9, "user", "yesterday"),
    ];
    bridge.append().write((lines.join("\n") + "\n").as_bytes());
    bridge.append().events(10..1_000);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let delivered: BTreeSet<u64> =
        consumer.read_all().iter().map(|record| events::number(&record.payload)).collect();
    let missing: Vec<u64> = (0..1_000).filter(|it| !delivered.contains(it)).collect();
    assert_eq!(missing, [0, 2, 6, 9]);
    let reasons: HashSet<String> =
        bridge.rejects().iter().map(|it| it["reason"].as_str().unwrap().to_owned()).collect();
    let expected = ["empty_field", "too_large", "bad_timestamp"];
    assert_eq!(reasons, expected.into_iter().map(str::to_owned).collect());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_28_events_older_than_the_topic_takes_carry_the_time_of_sending_and_none_is_rejected() {
    const COUNT: u64 = 3_000;
    let broker = Broker::shared();
    let topic = Broker::unused_topic();
    broker.create_topic(&topic, 1, &[("message.timestamp.before.max.ms", "3600000")]);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    // The events are of January 2026.
    bridge.append().events(0..COUNT);
    let daemon = bridge.start();
    expect_all_delivered(&bridge, &broker.bootstrap, &topic, COUNT);
    let told = daemon.log_after_stop().matches("the topic takes no events that old").count();
    assert_eq!(told, 1);
}

#[test]
fn ka_20_a_broker_whose_disk_is_full_takes_the_rest_once_there_is_room() {
    const COUNT: u64 = 4_000;
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let disk = SmallDisk::mounted(&data, "8m");
    let broker = Broker::with_settings(&[&format!("log.dirs={}", data.display())]);
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("KAFKA_PRODUCER_COMPRESSION", "none");
    let daemon = bridge.start();
    let lines: String = (0..COUNT).map(|number| padded_event(number, 4_000) + "\n").collect();
    bridge.append().write(lines.as_bytes());
    println!("full: {}", bridge.wait_until_down(""));
    wait_for("the broker to give up", || (!broker.is_running()).then_some(()));
    disk.grow("200m");
    broker.start_again();
    expect_all_delivered(&bridge, &broker.bootstrap, &topic, COUNT);
    assert_eq!(daemon.stop(), 0);
}
