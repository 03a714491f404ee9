//! Stopping, and who may run.

use std::time::Instant;

use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;
use crate::support::wait_for;

/// Content and modification time of everything in the state directory.
fn state(bridge: &Bridge) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let mut files: Vec<_> = std::fs::read_dir(bridge.state())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "lock" && entry.file_name() != "status.sock")
        .map(|entry| {
            let changed = entry.metadata().unwrap().modified().unwrap();
            let content = std::fs::read(entry.path()).unwrap();
            (entry.file_name().to_string_lossy().into_owned(), content, changed)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_clean_stop_and_start_with_no_new_input_sends_nothing_and_writes_nothing() {
    let broker = Broker::shared();
    let topic = broker.topic(3);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.append().events(0..5_000);
    let daemon = bridge.start();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.wait_for_events(5_000);
    let began = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    let size = std::fs::metadata(bridge.input()).unwrap().len();
    assert_eq!(bridge.checkpoint()["offset"], size);
    let before = state(&bridge);

    let daemon = bridge.start();
    daemon.wait_for_log("resumed");
    // A later line proves that the daemon had every chance to send something again.
    bridge.append().events([5_000]);
    consumer.wait_for_events(5_001);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(consumer.numbers().len(), 5_001, "something was sent again");
    assert_ne!(state(&bridge), before, "the comparison below can fail");

    let before = state(&bridge);
    let daemon = bridge.start();
    daemon.wait_for_log("following the input");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(state(&bridge), before);
    assert_eq!(consumer.size(), 5_001);
}

#[test]
fn pr_03_ka_25_ka_26_stopping_with_the_broker_down_ends_in_time_and_loses_nothing() {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "500");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..10);
    bridge.wait_until_settled();
    broker.stop();
    input.events(10..20);
    daemon.wait_for_log("Kafka does not take events");
    let offset = bridge.checkpoint()["offset"].clone();
    let began = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert_eq!(bridge.checkpoint()["offset"], offset, "what was purged counted as delivered");
    broker.start_again();
    let daemon = bridge.start();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let numbers = consumer.wait_for_events(20);
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ck_17_sigterm_under_load_repeats_nothing() {
    let broker = Broker::shared();
    let topic = broker.topic(3);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let mut input = bridge.append();
    let mut next = 0;
    for _ in 0..10 {
        let daemon = bridge.start();
        daemon.wait_for_log("following the input");
        // The signal arrives while these are read, in flight and acknowledged.
        input.events(next..next + 5_000);
        next += 5_000;
        assert_eq!(daemon.stop(), 0);
    }
    let daemon = bridge.start();
    let numbers = consumer.wait_for_events(next as usize);
    assert_eq!(numbers.len() as u64, next, "something was sent again");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn pr_04_a_second_sigterm_ends_at_once_with_70() {
    let mut bridge = Bridge::to_kafka("127.0.0.1:1", "nobody");
    bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "60000");
    bridge.append().events(0..10);
    let mut daemon = bridge.start();
    // With nothing in flight, the first signal would end it.
    wait_for("lines in flight", || {
        (bridge.status()["ledger"]["lines"]["pending"] == 10).then_some(())
    });
    daemon.signal("TERM");
    daemon.wait_for_log("stopping");
    assert!(daemon.is_running());
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), 70);
}

#[test]
fn pr_05_sighup_is_survived() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let mut input = bridge.append();
    let daemon = bridge.start();
    daemon.wait_for_log("following the input");
    daemon.signal("HUP");
    daemon.wait_for_log("SIGHUP");
    input.events(0..3);
    Topic::open(&broker.bootstrap, &topic).wait_for_events(3);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ck_11_a_second_daemon_on_the_same_state_directory_exits_75_naming_the_holder() {
    let bridge = Bridge::to_kafka("127.0.0.1:1", "nobody");
    bridge.append().events(0..1);
    let daemon = bridge.start();
    daemon.wait_for_log("following the input");
    let second = bridge.run(&["run"]);
    assert_eq!(second.status.code(), Some(75));
    let errors = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(errors.contains(&format!("pid {}", daemon.pid())), "{errors}");
    let reset = bridge.run(&["checkpoint", "reset"]);
    assert_eq!(reset.status.code(), Some(75));
    daemon.kill();
    let daemon = bridge.start();
    wait_for("a start after the kill", || {
        daemon.log().iter().any(|line| line.contains("following the input")).then_some(())
    });
}

#[test]
fn ck_10_a_checkpoint_of_a_newer_version_is_78_and_stays() {
    let bridge = Bridge::to_kafka("127.0.0.1:1", "nobody");
    std::fs::create_dir_all(bridge.state()).unwrap();
    let newer = "{\"version\":999,\"position\":7}\n";
    std::fs::write(bridge.state().join("checkpoint.json"), newer).unwrap();
    let run = bridge.run(&["run"]);
    assert_eq!(run.status.code(), Some(78), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(std::fs::read_to_string(bridge.state().join("checkpoint.json")).unwrap(), newer);
}
