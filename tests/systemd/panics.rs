//! A panic, which is a mistake of ours: on whichever thread it is, the process ends and is started again.

use std::collections::HashMap;
use std::fs;

use crate::ends::check;
use crate::machine::{ENV_FILE, Machine, UNIT};
use crate::rollback::Load;
use crate::start::client;
use crate::support::broker::Broker;
use crate::support::events::event;
use crate::support::wait_for;
use crate::topic::messages;

const TOPIC: &str = "orders";

/// A directory of the daemon's, which is there as long as the machine is.
const DIRECTORY: &str = "/run/openalgo-bridge";

/// A panic's message may quote what is in a line.
const CANARY: u64 = 777_777_777;

/// The unit's settings with which it may, and is back soon.
pub fn allowed() -> String {
    format!("RestartSec=50ms\nEnvironment=PANIC_ON_PURPOSE={DIRECTORY}")
}

/// Has the daemon panic at a place that it comes to. What brings it there may fail with it.
pub fn panic_at(machine: &Machine, place: &str, to_bring_it_there: &[&str]) {
    let message = format!("cannot take {}", event(CANARY));
    let path = machine.path(DIRECTORY).join(place);
    // Complete when it is there.
    fs::write(path.with_extension("new"), message).unwrap();
    machine.succeed(&["chmod", "644", &format!("{DIRECTORY}/{place}.new")]);
    fs::rename(path.with_extension("new"), &path).unwrap();
    if !to_bring_it_there.is_empty() {
        machine.run(to_bring_it_there);
    }
    wait_for(&format!("the panic at {place}"), || (!path.exists()).then_some(()));
}

/// What the journal has of panics: which thread, and how bad that is.
pub fn told(machine: &Machine) -> Vec<String> {
    let fields = ["journalctl", "--no-pager", "-o", "cat", "-p", "crit", "-u", UNIT];
    let journal = machine.succeed(&fields);
    let thread = |line: &str| {
        let (thread, place) = line.split_once("a bug: thread ")?.1.split_once(" panicked at ")?;
        assert!(place.starts_with("src/platform/panics.rs:"), "{line}");
        Some(thread.to_owned())
    };
    journal.lines().filter_map(thread).collect()
}

#[test]
fn pr_10_a_panic_on_any_thread_ends_the_process_it_is_back_and_nothing_is_lost() {
    let machine = Machine::with_bridge();
    let broker = Broker::new(&machine.network(), true);
    let servers = broker.bootstrap.clone();
    let kafka = [
        ("ORDER_EVENT_MODE", "KAFKA"),
        ("KAFKA_BOOTSTRAP_SERVERS", servers.as_str()),
        ("KAFKA_ORDER_EVENTS_TOPIC", TOPIC),
    ];
    machine.configure(ENV_FILE, &kafka);
    machine.drop_in(UNIT, &allowed());
    machine.append(0..100);
    machine.start(UNIT);
    let load = Load::from(&machine, 100);
    let reload: &[&str] = &["systemctl", "reload", UNIT];
    let status: &[&str] = &["openalgo-bridge", "status"];
    let threads: [(&str, &str, &[&str]); 7] = [
        ("owner", "main", &[]),
        ("state-writer", "state-writer", &[]),
        ("kafka-poll", "kafka-poll", &[]),
        ("systemd", "systemd", &[]),
        ("signals", "signals", reload),
        ("log", "log", reload),
        // Not one of its connections, but who takes them.
        ("http", "http", status),
    ];
    for (restarts, (place, _, to_bring_it_there)) in (1..).zip(threads) {
        panic_at(&machine, place, to_bring_it_there);
        machine.wait_for_restarts(UNIT, restarts);
        machine.status();
    }
    assert_eq!(told(&machine), threads.map(|(_, thread, _)| thread));

    // A connection's is that connection's, and no more.
    let pid = machine.main_pid(UNIT);
    panic_at(&machine, "http-connection", status);
    machine.status();
    assert_eq!(machine.main_pid(UNIT), pid);
    let end = load.stop();
    machine.wait_until_delivered(end);

    let journal = machine.journal(UNIT);
    let ends = journal.matches("code=exited, status=101/n/a").count();
    assert_eq!(ends, threads.len(), "{journal}");
    assert_eq!(journal.matches("the connection is lost").count(), 1, "{journal}");
    assert!(!journal.contains(&CANARY.to_string()), "{journal}");
    let mut events: HashMap<u64, Vec<String>> = HashMap::new();
    for (number, id) in messages(&machine, &broker, TOPIC) {
        events.entry(number).or_default().push(id);
    }
    let repeated = events.values().map(|ids| ids.len() - 1).sum::<usize>();
    eprintln!("measured: {} panics: {end} lines, {repeated} repeated", threads.len());
    check(&events, end);
}

#[test]
fn pr_10_a_server_that_takes_no_clients_any_more_is_not_left_alive() {
    let machine = Machine::with_bridge();
    machine.configure(ENV_FILE, &[]);
    machine.drop_in(UNIT, &allowed());
    machine.start(UNIT);
    wait_for("the port", || machine.status()["listen"]["socketio"].is_string().then_some(()));
    fs::write(machine.path(DIRECTORY).join("socketio"), event(CANARY)).unwrap();
    machine.succeed(&["chmod", "644", &format!("{DIRECTORY}/socketio")]);
    // The client is what brings it there, and comes back by itself.
    let client = client(&machine);
    machine.wait_for_restarts(UNIT, 1);
    wait_for("the client", || (machine.status()["sink"]["clients"] == 1).then_some(()));
    machine.append(0..10);
    assert_eq!(client.wait_for_events(10).len(), 10);
    assert_eq!(told(&machine), ["socketio"]);
}
