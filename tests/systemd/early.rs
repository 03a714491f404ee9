//! Started before what it needs is there: a name, a broker, a disk.

use std::fs::OpenOptions;
use std::io::Write as _;

use crate::machine::{ENV_FILE, Machine, UNIT};
use crate::support::broker::Broker;
use crate::support::wait_for;

#[test]
fn pr_12_started_before_name_and_disk_are_there_it_waits_for_both() {
    let machine = Machine::with_bridge();
    let broker = Broker::new(&machine.network(), true);
    let (_, port) = broker.bootstrap.split_once(':').unwrap();
    machine.configure(
        ENV_FILE,
        &[
            ("ORDER_EVENT_MODE", "KAFKA"),
            ("KAFKA_BOOTSTRAP_SERVERS", &format!("kafka.test:{port}")),
        ],
    );
    machine.start(UNIT);
    wait_for("the missing name in the journal", || {
        machine.journal(UNIT).contains("Failed to resolve 'kafka.test:").then_some(())
    });
    let line = machine.status_line(UNIT);
    assert!(line.starts_with("KAFKA: waiting for input (missing), 0 bytes behind, "), "{line}");

    // A disk that is mounted later has to come through to a daemon in a sandbox.
    let options = "mode=2750,gid=openalgo-bridge";
    machine.succeed(&["mount", "-t", "tmpfs", "-o", options, "events", "/var/lib/openalgo-events"]);
    machine.append(0..1_000);
    wait_for("the events, and nobody to take them", || {
        let status = machine.status();
        let pending = status["ledger"]["lines"]["pending"] == 1_000;
        (pending && status["sink"]["state"] == "down").then_some(())
    });

    let hosts = OpenOptions::new().append(true).create(true).open(machine.path("/etc/hosts"));
    writeln!(hosts.unwrap(), "127.0.0.1 kafka.test").unwrap();
    machine.wait_until_delivered(1_000);
    assert_eq!(machine.number(UNIT, "NRestarts"), 0);
}
