//! Several bridges on one machine.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::{ENV_FILE, Machine, UNIT, text};
use crate::rollback::{Load, TOPIC};
use crate::start::{client, commands};
use crate::support::broker::Broker;
use crate::support::socketio::Event;
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

/// A bridge to each side, both of the same file.
struct Both {
    machine: Machine,
    broker: Broker,
}

impl Both {
    const KAFKA: &str = "openalgo-bridge@kafka.service";
    const SOCKETIO: &str = "openalgo-bridge@socketio.service";

    fn start() -> Self {
        let machine = Machine::with_bridge();
        let broker = Broker::new(&machine.network(), true);
        machine.configure(
            "/etc/openalgo-bridge/kafka.env",
            &[
                ("ORDER_EVENT_MODE", "KAFKA"),
                ("KAFKA_BOOTSTRAP_SERVERS", &broker.bootstrap),
                ("KAFKA_ORDER_EVENTS_TOPIC", TOPIC),
                ("BRIDGE_HTTP_LISTEN", "127.0.0.1:9821"),
            ],
        );
        let both = Self { machine, broker };
        both.configure_socketio("127.0.0.1:5055", "127.0.0.1:9822");
        both.machine.append(0..1);
        both.machine.start(Self::KAFKA);
        both.machine.start(Self::SOCKETIO);
        both
    }

    fn configure_socketio(&self, socketio: &str, http: &str) {
        let settings = [("SOCKETIO_LISTEN", socketio), ("BRIDGE_HTTP_LISTEN", http)];
        self.machine.configure("/etc/openalgo-bridge/socketio.env", &settings);
    }

    fn status(&self, name: &str) -> serde_json::Value {
        self.machine.status_of(&["--instance", name])
    }

    fn delivered(&self, name: &str) -> u64 {
        self.status(name)["ledger"]["lines"]["delivered"].as_u64().unwrap()
    }

    /// Waits until an instance has delivered many lines more than it had.
    #[track_caller]
    fn goes_on(&self, name: &str) {
        let before = self.delivered(name);
        wait_for("more lines", || (self.delivered(name) > before + 100).then_some(()));
    }

    /// `check --connect` of the instance for Socket.IO: how it ends, and what it says.
    fn check(&self) -> (Option<i32>, String) {
        let words = ["openalgo-bridge", "--instance", "socketio", "check", "--connect"];
        let output = self.machine.run(&words);
        (output.status.code(), text(&output.stdout))
    }
}

#[test]
fn in_45_one_file_goes_to_both_sides_at_once_through_an_instance_each() {
    let both = Both::start();
    let page = client(&both.machine);
    let load = Load::from(&both.machine, 1);
    both.goes_on("kafka");
    both.goes_on("socketio");
    // Each has a position of its own, and for each the file is the same one.
    let (kafka, socketio) = (both.status("kafka"), both.status("socketio"));
    assert_eq!((&kafka["mode"], &socketio["mode"]), (&"KAFKA".into(), &"SOCKETIO".into()));
    assert_ne!(kafka["state_dir"], socketio["state_dir"]);
    assert_eq!(kafka["input"]["generation"], socketio["input"]["generation"]);

    // Neither waits for the other, whether that is stopped or its side is down.
    both.machine.succeed(&["systemctl", "stop", Both::KAFKA]);
    both.goes_on("socketio");
    both.machine.start(Both::KAFKA);
    both.machine.succeed(&["systemctl", "stop", Both::SOCKETIO]);
    both.goes_on("kafka");
    both.machine.start(Both::SOCKETIO);
    both.broker.stop();
    wait_for("the outage", || (both.status("kafka")["sink"]["state"] == "down").then_some(()));
    both.goes_on("socketio");
    assert_eq!(both.status("socketio")["sink"]["state"], "up");
    both.broker.start_again();

    let end = load.stop();
    for name in ["kafka", "socketio"] {
        let words =
            ["openalgo-bridge", "--instance", name, "status", "--caught-up", "--wait", "60"];
        both.machine.succeed(&words);
        assert_eq!(both.delivered(name), end);
    }
    let shown: Vec<u64> = page.wait_for_events(end as usize).iter().map(Event::number).collect();
    assert_eq!(shown, (0..end).collect::<Vec<_>>(), "the page");
    let mut ids: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for (number, id) in messages(&both.machine, &both.broker, TOPIC) {
        ids.entry(number).or_default().insert(id);
    }
    assert!(ids.keys().copied().eq(0..end), "the topic");
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    eprintln!("measured: {end} lines on both sides");
}

#[test]
fn check_tells_the_ports_of_the_bridge_that_runs_from_those_of_another() {
    let both = Both::start();
    wait_for("both ports", || {
        both.status("socketio")["listen"]["socketio"].is_string().then_some(())
    });
    let (code, said) = both.check();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("the running bridge listens there").count(), 2, "{said}");
    // A port of the other bridge's: for metrics, and for clients.
    both.configure_socketio("127.0.0.1:5055", "127.0.0.1:9821");
    let (code, said) = both.check();
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("metrics: 127.0.0.1:9821 (BRIDGE_HTTP_LISTEN): Address already in use"));
    both.configure_socketio("127.0.0.1:9821", "127.0.0.1:9822");
    let (code, said) = both.check();
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("Socket.IO: 127.0.0.1:9821 (SOCKETIO_LISTEN): Address already in use"));
    // Its own two, as one.
    both.configure_socketio("127.0.0.1:9822", "127.0.0.1:9822");
    let (code, said) = both.check();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("has the port of BRIDGE_HTTP_LISTEN"), "{said}");
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
