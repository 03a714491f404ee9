//! One file for two daemons or under two names, and a sink that is slow.

use std::fs;
use std::os::unix::fs::symlink;

use crate::files::{lines, setup};
use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::Bridge;

#[test]
fn in_45_one_file_under_two_names_is_followed_once_and_one_state_directory_has_one_daemon() {
    let mut setup = setup();
    setup.bridge.append().events(0..100);
    // The last of two settings counts, so there is no way to name it twice.
    let other = setup.bridge.directory().join("events/another-name.jsonl");
    symlink(setup.bridge.input(), &other).unwrap();
    let twice = format!("BRIDGE_INPUT = '{}'\n", other.display());
    let mut env = fs::read_to_string(setup.bridge.env_file()).unwrap();
    env.push_str(&twice);
    fs::write(setup.bridge.env_file(), env).unwrap();
    let checked = setup.bridge.run(&["check"]);
    let told = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(0), "{told}");
    assert!(told.contains("BRIDGE_INPUT: stands also in line 1"), "{told}");
    let daemon = setup.bridge.start();
    setup.expect(&(0..100).collect::<Vec<_>>());

    // A second instance on the same state directory does not start, under whichever name.
    let state = setup.bridge.state();
    let alias = setup.bridge.directory().join("alias");
    symlink(&state, &alias).unwrap();
    setup.bridge.set("BRIDGE_STATE_DIR", &alias.to_string_lossy());
    let second = setup.bridge.run(&["run"]);
    assert_eq!(second.status.code(), Some(75), "{}", String::from_utf8_lossy(&second.stderr));
    setup.bridge.set("BRIDGE_STATE_DIR", &state.to_string_lossy());
    assert_eq!(daemon.stop(), 0);

    // Called by either of its names it is the same file: nothing is repeated.
    for (name, next) in [(setup.bridge.input(), 100), (other, 110)] {
        setup.bridge.set("BRIDGE_INPUT", &name.to_string_lossy());
        setup.bridge.append().events(next..next + 10);
        let daemon = setup.bridge.start();
        setup.expect(&(0..next + 10).collect::<Vec<_>>());
        assert_eq!(daemon.stop(), 0);
    }

    // Nor may it be what the bridge writes itself, which would go round for ever.
    let own = alias.join("rejects.jsonl");
    setup.bridge.set("BRIDGE_INPUT", &own.to_string_lossy());
    let refused = setup.bridge.run(&["run"]);
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{errors}");
    assert!(errors.contains("read what it writes"), "{errors}");
}

/// 5,000 lines and 8 more, as another shipper's own test has it: that one loses them when a file is
/// closed with its lines queued, and opened again.
#[test]
fn in_42_a_slow_sink_and_a_file_that_goes_away_and_comes_back_lose_no_line() {
    const LINES: u64 = 5_000;
    let broker = Broker::start();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    // Few at a time, each waited for: a slow sink with a full queue.
    bridge.set("BRIDGE_MAX_IN_FLIGHT", "50");
    bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "200");
    bridge.append().write(lines(0..LINES).as_bytes());
    let daemon = bridge.start();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.wait_for_events(500);
    // It takes nothing at all now. The file goes, and the app has not noticed.
    broker.stop();
    let mut late = bridge.append();
    let aside = bridge.directory().join("events/order_events.jsonl.1");
    fs::rename(bridge.input(), &aside).unwrap();
    late.events(LINES..LINES + 4);
    daemon.wait_for_log("moved away");
    // Closed by a stop with its lines queued, and opened again.
    assert_eq!(daemon.stop(), 0);
    let daemon = bridge.start();
    late.events(LINES + 4..LINES + 8);
    broker.start_again();
    consumer.wait_for_events(LINES as usize + 8);
    // And by its own name again.
    fs::rename(&aside, bridge.input()).unwrap();
    bridge.append().events(LINES + 8..LINES + 16);
    consumer.wait_for_events(LINES as usize + 16);
    bridge.wait_until_settled();
    consumer.read_all();
    let numbers = consumer.numbers();
    assert_eq!(*numbers.last().unwrap(), LINES + 15);
    let repeated = numbers.len() as u64 - (LINES + 16);
    assert!(repeated <= 50, "{repeated} repeated: more than were in flight");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(bridge.checkpoint()["lost"], serde_json::json!([]));
}
