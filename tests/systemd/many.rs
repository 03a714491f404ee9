//! Several bridges on one machine.

use crate::machine::{ENV_FILE, Machine, UNIT};
use crate::start::{client, commands};
use crate::support::broker::Broker;
use crate::support::wait_for;
use crate::topic::messages;

const INSTANCES: [(&str, &str, &str); 2] =
    [("one", "127.0.0.1:5056", "127.0.0.1:9821"), ("two", "127.0.0.1:5057", "127.0.0.1:9822")];

#[test]
fn instances_run_side_by_side_with_state_and_socket_of_their_own() {
    let machine = Machine::with_bridge();
    let input = |name: &str| format!("/var/lib/openalgo-events/{name}.jsonl");
    let unit = |name: &str| format!("openalgo-bridge@{name}.service");
    let delivered = |name: &str, lines: u64| {
        let status = machine.status_of(&["--instance", name]);
        assert_eq!(status["state_dir"], format!("/var/lib/openalgo-bridge/{name}"));
        (status["ledger"]["lines"]["delivered"] == lines).then_some(())
    };
    for (index, (name, socketio, http)) in INSTANCES.iter().enumerate() {
        machine.configure(
            &format!("/etc/openalgo-bridge/{name}.env"),
            &[
                ("BRIDGE_INPUT", &input(name)),
                ("SOCKETIO_LISTEN", socketio),
                ("BRIDGE_HTTP_LISTEN", http),
                ("SOCKETIO_START_GRACE_MS", "0"),
            ],
        );
        machine.append_to(&input(name), 0..100 * (index as u64 + 1));
        machine.start(&unit(name));
    }
    // And the one without a name, whose directories lie around theirs.
    machine.configure(ENV_FILE, &[("SOCKETIO_START_GRACE_MS", "0")]);
    machine.append(0..50);
    machine.start(UNIT);
    wait_for("events of one", || delivered("one", 100));
    wait_for("events of two", || delivered("two", 200));
    machine.wait_until_delivered(50);
    let state = machine.succeed(&["stat", "-c", "%a %U", "/var/lib/openalgo-bridge/one"]);
    assert_eq!(state.trim(), "700 openalgo-bridge");

    // One that stops takes nothing from another, whichever lies in the other's directory.
    machine.succeed(&["systemctl", "stop", UNIT]);
    machine.append_to(&input("one"), 100..200);
    wait_for("more of one", || delivered("one", 200));
    machine.succeed(&["systemctl", "stop", &unit("one")]);
    machine.append_to(&input("two"), 200..300);
    wait_for("more of two", || delivered("two", 300));
    machine.start(UNIT);
    machine.start(&unit("one"));
    machine.append(50..60);
    machine.wait_until_delivered(60);
    wait_for("all of one, again", || delivered("one", 200));
}

/// As the README has it, but for the broker's address.
#[test]
fn both_modes_at_once_each_get_every_event_of_one_file() {
    let machine = Machine::with_bridge();
    let broker = Broker::new(&machine.network(), true);
    machine.configure(ENV_FILE, &[]);
    machine.start(UNIT);
    let client = client(&machine);
    wait_for("the client", || (machine.status()["sink"]["clients"] == 1).then_some(()));
    let both = commands("### Both modes at once");
    assert!(both.contains("127.0.0.1:9092"), "{both}");
    let both = both.replace("127.0.0.1:9092", &broker.bootstrap);
    machine.succeed(&["sh", "-c", &format!("set -e\n{both}")]);
    machine.append(0..1_000);
    client.wait_for_events(1_000);
    wait_for("the other mode", || {
        let status = machine.status_of(&["--instance", "kafka"]);
        (status["ledger"]["lines"]["delivered"] == 1_000).then_some(())
    });
    let numbers: Vec<u64> = messages(&machine, &broker, "from_openalgo_order_events")
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
}
