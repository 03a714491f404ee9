//! A broker that is down, late, or without the topic: the file is the buffer.

use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::broker::Broker;
use crate::support::consumer::{Topic, assert_first_deliveries_in_order};
use crate::support::daemon::{Bridge, Daemon};
use crate::support::{or_in_soak, wait_for};

/// Appends for a while, as fast as a busy app, and gives the number after the last.
fn append_for(bridge: &Bridge, duration: Duration, from: u64) -> u64 {
    let mut input = bridge.append();
    let mut next = from;
    let until = Instant::now() + duration;
    while Instant::now() < until {
        input.events(next..next + 100);
        next += 100;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    next
}

/// Waits until reading has stopped because the limit is full: memory is at its level then.
fn settled_memory_kb(daemon: &Daemon) -> u64 {
    let mut last = 0;
    wait_for("memory to settle", || {
        let now = daemon.memory_kb("VmRSS");
        let steady = now.abs_diff(last) < 64;
        last = now;
        std::thread::park_timeout(Duration::from_millis(500));
        steady.then_some(now)
    })
}

/// How much longer than the outage of `make test` it takes to see a slow leak.
fn outage() -> Duration {
    or_in_soak(Duration::from_mins(1), Duration::from_mins(10))
}

#[test]
fn ka_02_ka_27_a_broker_stopped_under_load_loses_nothing_in_flat_memory_and_few_log_lines() {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let daemon = bridge.start();
    let mut next = append_for(&bridge, Duration::from_secs(1), 0);
    bridge.wait_until_settled();
    broker.stop();
    // Far more than the in-flight limits hold.
    bridge.append().events(next..next + 40_000);
    next += 40_000;
    let full = settled_memory_kb(&daemon);
    next = append_for(&bridge, outage(), next);
    let after = daemon.memory_kb("VmRSS");
    println!("memory: {full} kB when full, {after} kB after {:?}", outage());
    assert!(after <= full + (5 << 10), "grew from {full} to {after} kB");
    assert!(daemon.memory_kb("VmHWM") <= 64 << 10, "{} kB", daemon.memory_kb("VmHWM"));
    broker.start_again();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let numbers = consumer.wait_for_events(next as usize);
    assert_eq!(numbers.len() as u64, next, "duplicates");
    assert_first_deliveries_in_order(&consumer.records);
    daemon.wait_for_log("Kafka takes events again");
    bridge.wait_until_settled();
    let log = daemon.log();
    assert!(log.len() <= 10, "{} lines: {log:#?}", log.len());
    assert_eq!(bridge.rejects().len(), 0);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_01_a_broker_that_starts_late_gets_everything() {
    let broker = Broker::start();
    let topic = Broker::unused_topic();
    broker.stop();
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.append().events(0..1_000);
    let daemon = bridge.start();
    daemon.wait_for_log("Kafka does not take events");
    broker.start_again();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    assert_eq!(consumer.wait_for_events(1_000), (0..1_000).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert!(bridge.rejects().is_empty());
}

#[test]
fn ka_09_a_missing_topic_is_waited_for_and_told() {
    let broker = Broker::without_auto_create();
    let topic = Broker::unused_topic();
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.append().events(0..500);
    let daemon = bridge.start();
    daemon.wait_for_log("does not exist");
    broker.create_topic(&topic, 1, &[]);
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    assert_eq!(consumer.wait_for_events(500), (0..500).collect::<Vec<_>>());
    assert!(bridge.rejects().is_empty());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_03_nothing_is_committed_that_the_broker_did_not_acknowledge() {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let daemon = bridge.start();
    bridge.append().events(0..10);
    bridge.wait_until_settled();
    let offset = bridge.checkpoint()["offset"].clone();
    broker.stop();
    bridge.append().events(10..1_000);
    daemon.wait_for_log("Kafka does not take events");
    assert_eq!(bridge.checkpoint()["offset"], offset);
    daemon.kill();
    assert_eq!(bridge.checkpoint()["offset"], offset);
    broker.start_again();
    let daemon = bridge.start();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    assert_eq!(consumer.wait_for_events(1_000), (0..1_000).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn append_to_consumer_is_well_below_200_ms_at_the_95th_percentile() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let mut input = bridge.append();
    let daemon = bridge.start();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    input.events([0]);
    consumer.wait_for_events(1);
    let mut latencies: Vec<Duration> = (1..=200)
        .map(|number| {
            let written = Instant::now();
            input.events([number]);
            consumer.poll(Duration::from_secs(10)).expect("the event");
            written.elapsed()
        })
        .collect();
    latencies.sort();
    let (median, p95) = (latencies[100], latencies[190]);
    println!("append to consumer: median {median:?}, 95th percentile {p95:?}");
    assert!(p95 < Duration::from_millis(200), "{p95:?}");
    assert_eq!(daemon.stop(), 0);
}

/// rdkafka's broker in this process: the one that can be told to answer with errors.
fn broker_that_can_lie() -> (MockCluster<'static, DefaultProducerContext>, String) {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let bootstrap = cluster.bootstrap_servers();
    (cluster, bootstrap)
}

#[test]
fn ka_14_a_dead_producer_is_rebuilt_and_everything_unacknowledged_sent_again_in_order() {
    let (cluster, bootstrap) = broker_that_can_lie();
    cluster.create_topic("events", 1, 1).unwrap();
    let bridge = Bridge::to_kafka(&bootstrap, "events");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..100);
    bridge.wait_until_settled();
    // Fatal for an idempotent producer: it never sends again.
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    for round in 1..=3 {
        cluster.request_errors(RDKafkaApiKey::Produce, &[fatal]);
        input.events(round * 100..(round + 1) * 100);
        bridge.wait_until_settled();
    }
    let mut consumer = Topic::open(&bootstrap, "events");
    consumer.wait_for_events(400);
    assert_first_deliveries_in_order(&consumer.records);
    assert!(bridge.rejects().is_empty(), "a dead producer is no reason to reject");
    let status = bridge.run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(
        status["sink"]["retries"].as_u64() > Some(0),
        "the errors did nothing: {}",
        status["sink"]
    );
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_12_errors_that_may_heal_are_never_a_reason_to_reject() {
    let (cluster, bootstrap) = broker_that_can_lie();
    cluster.create_topic("events", 1, 1).unwrap();
    let bridge = Bridge::to_kafka(&bootstrap, "events");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..10);
    bridge.wait_until_settled();
    let errors = [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN,
    ];
    for (round, error) in (1..).zip(errors) {
        cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
        input.events(round * 10..(round + 1) * 10);
        bridge.wait_until_settled();
    }
    let mut consumer = Topic::open(&bootstrap, "events");
    consumer.wait_for_events(10 * (errors.len() + 1));
    assert_first_deliveries_in_order(&consumer.records);
    assert!(bridge.rejects().is_empty(), "{:?}", bridge.rejects());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ka_30_what_no_broker_takes_is_told_and_tried_on_and_nothing_is_rejected() {
    let (cluster, bootstrap) = broker_that_can_lie();
    cluster.create_topic("events", 1, 1).unwrap();
    let bridge = Bridge::to_kafka(&bootstrap, "events");
    let mut input = bridge.append();
    input.events(0..10);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    // What the broker does not take, and a login that may not ask for an idempotent producer.
    let (produce, init) = (RDKafkaApiKey::Produce, RDKafkaApiKey::InitProducerId);
    let compression = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE;
    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    let errors = [
        (produce, compression, "Unsupported compression type"),
        (init, forbidden, "Cluster authorization failed"),
    ];
    for (round, (key, error, words)) in (1..).zip(errors) {
        cluster.request_errors(key, &[error; 1_000]);
        // Whatever the second one is refused, it needs a new producer.
        cluster.request_errors(produce, &[compression]);
        input.events(round * 10..(round + 1) * 10);
        println!("{}", bridge.wait_until_down(words));
        cluster.clear_request_errors(key);
        bridge.wait_until_settled();
    }
    let mut consumer = Topic::open(&bootstrap, "events");
    consumer.wait_for_events(10 * (errors.len() + 1));
    assert_first_deliveries_in_order(&consumer.records);
    assert!(bridge.rejects().is_empty(), "{:?}", bridge.rejects());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ck_18_a_negative_acknowledgement_moves_nothing() {
    let (cluster, bootstrap) = broker_that_can_lie();
    cluster.create_topic("events", 1, 1).unwrap();
    let bridge = Bridge::to_kafka(&bootstrap, "events");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..10);
    bridge.wait_until_settled();
    let offset = bridge.checkpoint()["offset"].clone();
    let forbidden = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[forbidden; 1_000]);
    input.events(10..20);
    daemon.wait_for_log("Kafka does not take events");
    assert_eq!(bridge.checkpoint()["offset"], offset);
    daemon.kill();
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    let daemon = bridge.start();
    bridge.wait_until_settled();
    let mut consumer = Topic::open(&bootstrap, "events");
    assert_eq!(consumer.wait_for_events(20), (0..20).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_record_refused_as_invalid_leaves_alone_and_its_neighbours_stay() {
    let (cluster, bootstrap) = broker_that_can_lie();
    cluster.create_topic("events", 1, 1).unwrap();
    let mut bridge = Bridge::to_kafka(&bootstrap, "events");
    bridge.set("KAFKA_PRODUCER_BATCH_SIZE", "1000000");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..10);
    bridge.wait_until_settled();
    // The batch, and then the first record of it alone.
    let invalid = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD;
    cluster.request_errors(RDKafkaApiKey::Produce, &[invalid, invalid]);
    input.events(10..20);
    bridge.wait_until_settled();
    let mut consumer = Topic::open(&bootstrap, "events");
    let numbers = consumer.wait_for_events(19);
    assert_eq!(numbers, (0..10).chain(11..20).collect::<Vec<_>>());
    let rejects = bridge.rejects();
    assert_eq!((rejects.len(), &rejects[0]["reason"]), (1, &"refused".into()));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn memory_stays_flat_when_few_of_many_lines_are_to_be_delivered() {
    let mut bridge = Bridge::to_kafka("127.0.0.1:1", "nobody");
    bridge.set("BRIDGE_MAX_IN_FLIGHT", "1000000");
    let padding = "x".repeat(2_000);
    let filtered = crate::support::events::event(0)
        .replace("order_event", "order_update")
        .replace("\"note\":\"", &format!("\"note\":\"{padding}"));
    let mut input = bridge.append();
    let block = format!("{filtered}\n").repeat(140);
    let daemon = bridge.start();
    for number in 0..600 {
        input.write(block.as_bytes());
        input.events([number]);
    }
    let memory = settled_memory_kb(&daemon);
    println!(
        "{memory} kB with {} MB of input",
        std::fs::metadata(bridge.input()).unwrap().len() >> 20
    );
    assert!(daemon.memory_kb("VmHWM") <= 64 << 10, "{} kB", daemon.memory_kb("VmHWM"));
}
