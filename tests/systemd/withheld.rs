//! The rollback drill while acknowledgements are withheld: lines are on the other side, and the daemon can't know.

use std::collections::BTreeSet;
use std::process::Command;

use crate::machine::{ENV_FILE, Machine, UNIT};
use crate::rollback::{Drill, Load, TOPIC, Tail, in_one_of_both, unsettled};
use crate::support::broker::Broker;
use crate::support::relay::{App, numbers};
use crate::support::wait_for;

/// Where the app is, in the machine's network.
const APP_PORT: &str = "5000";

/// Holds the broker, or lets it go on. What came meanwhile waits in its connections; it takes that then, whoever is
/// still there.
fn signal(broker: &Broker, name: &str) {
    let pid = std::fs::read_to_string(broker.directory.join("pid")).expect("a running broker");
    let status = Command::new("kill").args(["-s", name, pid.trim()]).status();
    assert!(status.expect("kill").success(), "kill -s {name}");
}

/// Waits until the sink is known to be down: a stop waits for it no longer than for a dead one.
#[track_caller]
fn down(machine: &Machine) {
    wait_for("the outage", || (machine.status()["sink"]["state"] == "down").then_some(()));
}

#[test]
fn pr_03_rolled_back_with_acknowledgements_withheld_in_both_are_no_more_than_the_stop_said() {
    let drill = Drill::start(&[]);
    let tail = Tail::of(&drill.machine, &drill.broker);
    wait_for("the first message", || tail.last());
    drill.wait_for_long_pauses();
    // The lines are sent, and wait in the connection.
    signal(&drill.broker, "STOP");
    let load = Load::from(&drill.machine, 1);
    down(&drill.machine);
    drill.to_socketio("acknowledgements withheld");
    // Who sent them is gone. They get into the topic all the same.
    assert_eq!(tail.last(), Some(0));
    signal(&drill.broker, "CONT");
    wait_for("the lines that were sent", || (tail.last() > Some(0)).then_some(()));
    drill.to_kafka(&tail);
    let end = load.stop();
    let both = drill.expect_in_one_of_both(end, &BTreeSet::new());
    assert!(both > 0, "nothing was withheld");
}

/// A broker, and an app that the daemon is to relay to, which both can withhold their acknowledgements.
struct RelayDrill {
    machine: Machine,
    broker: Broker,
    /// What the app got.
    log: tempfile::NamedTempFile,
}

impl RelayDrill {
    fn start() -> Self {
        let machine = Machine::with_bridge();
        let broker = Broker::new(&machine.network(), true);
        let drill = Self { machine, broker, log: tempfile::NamedTempFile::new().unwrap() };
        drill.configure("KAFKA");
        drill.machine.append(0..1);
        drill.machine.start(UNIT);
        drill.machine.wait_until_delivered(1);
        drill
    }

    fn configure(&self, mode: &str) {
        let url = format!("http://127.0.0.1:{APP_PORT}");
        self.machine.configure(
            ENV_FILE,
            &[
                ("ORDER_EVENT_MODE", mode),
                ("KAFKA_BOOTSTRAP_SERVERS", &self.broker.bootstrap),
                ("KAFKA_ORDER_EVENTS_TOPIC", TOPIC),
                ("SOCKETIO_VIA", "relay"),
                ("SOCKETIO_URL", &url),
                ("SOCKETIO_ACK_TIMEOUT_MS", "1500"),
            ],
        );
    }

    fn switch_to(&self, mode: &str) {
        self.configure(mode);
        self.machine.succeed(&["systemctl", "restart", UNIT]);
    }

    fn app(&self, acknowledges: &str) -> App {
        let arguments = ["--port", APP_PORT, "--ack", acknowledges];
        App::start(&self.machine.network(), self.log.path(), &arguments)
    }

    fn shown(&self) -> BTreeSet<u64> {
        numbers(self.log.path(), "batch").into_iter().collect()
    }

    fn acknowledged(&self) -> usize {
        numbers(self.log.path(), "acknowledged").len()
    }
}

#[test]
fn pr_03_from_broker_to_app_and_back_each_withholding_what_it_has_no_line_is_missing() {
    let drill = RelayDrill::start();
    let tail = Tail::of(&drill.machine, &drill.broker);
    wait_for("the first message", || tail.last());
    let app = drill.app("good");
    signal(&drill.broker, "STOP");
    let load = Load::from(&drill.machine, 1);
    down(&drill.machine);
    drill.switch_to("SOCKETIO");
    wait_for("events at the app", || (drill.acknowledged() > 100).then_some(()));
    signal(&drill.broker, "CONT");
    wait_for("the lines that were sent", || (tail.last() > Some(0)).then_some(()));
    let first = unsettled(&drill.machine);
    assert!(first > 0);

    // Now it is the app that shows events and does not say so.
    drop(app);
    let app = drill.app("never");
    // Perhaps none that it did not get before it was killed.
    let got = || numbers(drill.log.path(), "batch").len();
    let before = got();
    wait_for("events that the app has", || (got() > before).then_some(()));
    let last = tail.last();
    drill.switch_to("KAFKA");
    wait_for("the next message", || (tail.last() > last).then_some(()));
    drop(app);
    let end = load.stop();
    assert!(unsettled(&drill.machine) > first);
    let shown = drill.shown();
    let both = in_one_of_both(&drill.machine, &drill.broker, &shown, end, &BTreeSet::new());
    // Of each kind: what the broker had, and what the app had.
    let by_app = numbers(drill.log.path(), "acknowledged").into_iter().collect();
    assert!(shown.difference(&by_app).count() > 0, "the app withheld nothing");
    assert!(both > shown.difference(&by_app).count(), "the broker withheld nothing");
}
