//! From an edited `.env` to events, and when the daemon counts as started.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::machine::{ENV_FILE, INPUT, Machine, NO_BROKER, UNIT, measured, repository, text};
use crate::support::events::event;
use crate::support::socketio::{Event, Standard};
use crate::support::wait_for;

/// The blocks of commands of a section of the README.
fn blocks(heading: &str) -> Vec<String> {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let section = readme.split(&format!("\n{heading}\n")).nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap();
    section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap().into()).collect()
}

/// The first commands of a section of the README.
pub fn commands(heading: &str) -> String {
    blocks(heading).first().expect("its commands").clone()
}

/// What a clone of the repository has after `make build`, as far as the README's commands ask for it.
fn tree(machine: &Machine, directories: &[&str]) {
    let tree = machine.path("/root/openalgo-bridge");
    fs::create_dir_all(tree.join("target/release")).unwrap();
    let binary = env!("CARGO_BIN_EXE_openalgo-bridge");
    fs::copy(binary, tree.join("target/release/openalgo-bridge")).unwrap();
    fs::copy(repository(".sample.env"), tree.join(".sample.env")).unwrap();
    for directory in directories {
        fs::create_dir_all(tree.join(directory)).unwrap();
        for file in fs::read_dir(repository(directory)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), tree.join(directory).join(file.file_name())).unwrap();
        }
    }
}

/// A standard client on the machine, of its Socket.IO port.
pub fn client(machine: &Machine) -> Standard {
    let network = machine.network();
    let mut command = Command::new(&network[0]);
    command.args(&network[1..]).args(["node", "--preserve-symlinks", "--preserve-symlinks-main"]);
    command.arg(repository(".tools/clients/client.mjs"));
    Standard::start(command, &["--url", "http://127.0.0.1:5055", "--transports", "websocket"])
}

/// As the README has it, with the sample as it is.
#[test]
fn installed_edited_enabled_and_events_flow() {
    let machine = Machine::boot();
    tree(&machine, &["systemd"]);
    let script = format!("set -e; cd /root/openalgo-bridge\n{}", commands("## Under systemd"));
    machine.succeed(&["sh", "-c", &script]);
    assert_eq!(machine.succeed(&["systemctl", "is-enabled", UNIT]).trim(), "enabled");
    machine.wait_for_status_line("SOCKETIO: waiting for input (missing), 0 bytes behind, sink up");

    let client = client(&machine);
    wait_for("the client", || (machine.status()["sink"]["clients"] == 1).then_some(()));
    machine.append(0..1_000);
    let events = client.wait_for_events(1_000);
    let numbers: Vec<u64> = events.iter().map(Event::number).collect();
    assert_eq!(numbers, (0..1_000).collect::<Vec<_>>());
    machine.wait_until_delivered(1_000);
    assert_eq!(machine.status()["sink"]["delivered_to_nobody"], 0);
    machine.wait_for_status_line("SOCKETIO: following, 0 bytes behind, sink up");

    // Everyone may ask how it is; its state is for nobody else.
    let state = machine.succeed(&["stat", "-c", "%a %U", "/var/lib/openalgo-bridge"]);
    assert_eq!(state.trim(), "700 openalgo-bridge");
    let asked = ["setpriv", "--reuid=nobody", "--clear-groups", "openalgo-bridge", "status"];
    assert!(machine.succeed(&asked).contains("1000 lines"));

    // As at the next start of the machine; the client comes back by itself.
    machine.succeed(&["systemctl", "restart", UNIT]);
    machine.append(1_000..2_000);
    machine.wait_until_delivered(2_000);
    client.wait_for_events(2_000);
    assert_eq!(machine.number(UNIT, "NRestarts"), 0);

    // From the file to a pipe.
    let pipe = commands("### A named pipe").replace("APPUSER", "daemon");
    machine.succeed(&["sh", "-c", &format!("set -e; cd /root/openalgo-bridge\n{pipe}")]);
    let pipe = machine.path("/var/lib/openalgo-events/order_events.pipe");
    let mut writer = fs::OpenOptions::new().write(true).open(pipe).unwrap();
    writeln!(writer, "{}", event(2_000)).unwrap();
    let events = client.wait_for_events(2_001);
    assert_eq!(events[2_000].number(), 2_000);
}

/// In a terminal whose daemon runs on, as the README's goes on in another one.
#[test]
fn the_quick_start_by_hand() {
    let machine = Machine::boot();
    tree(&machine, &["tests/samples"]);
    let [_, start, look, ..] = &blocks("## Quick start")[..] else { panic!("blocks are missing") };
    let start =
        start.replace("make build && ", "").replace("bridge run ", "bridge run >/dev/null 2>&1 & ");
    let shell = "set -e; shopt -s expand_aliases; export HOME=/root; cd ~/openalgo-bridge";
    machine.succeed(&["bash", "-c", &format!("{shell}\n{start}")]);
    let alias = start.lines().find(|line| line.starts_with("alias ")).expect("an alias");
    wait_for("the daemon", || {
        let asked = format!("{shell}\n{alias}\nbridge status");
        machine.run(&["bash", "-c", &asked]).status.success().then_some(())
    });
    let said = machine.succeed(&["bash", "-c", &format!("{shell}\n{alias}\n{look}")]);
    assert!(said.contains("delivered"), "{said}");
}

#[test]
fn pr_13_ready_within_three_seconds_of_a_start_with_the_broker_down() {
    let machine = Machine::with_bridge();
    machine.configure(ENV_FILE, &NO_BROKER);
    machine.append(0..100);
    machine.start(UNIT);
    let moment = |name| Duration::from_micros(machine.number(UNIT, name));
    let began = moment("InactiveExitTimestampMonotonic");
    let took = moment("ActiveEnterTimestampMonotonic").saturating_sub(began);
    assert!(!began.is_zero() && !took.is_zero());
    measured("from the start to READY, broker down", took);
    assert!(took < Duration::from_secs(3), "{took:?}");
    // It was not ready because it believed the broker to be there.
    let size = fs::metadata(machine.path(INPUT)).unwrap().len();
    let line = wait_for("the outage in the status", || {
        let line = machine.status_line(UNIT);
        line.contains("sink down").then_some(line)
    });
    assert!(
        line.starts_with(&format!("KAFKA: following, {size} bytes behind, sink down: ")),
        "{line}"
    );
    assert!(line.contains("127.0.0.1:9"), "the reason: {line}");
}

/// systemd's own limit of starts would have ended this after five.
#[test]
fn pr_11_pr_13_who_finds_the_state_held_is_not_ready_and_tried_again_until_it_is_free() {
    let machine = Machine::with_bridge();
    machine.configure(ENV_FILE, &[("SOCKETIO_START_GRACE_MS", "0")]);
    machine.append(0..10);
    machine.drop_in(UNIT, "RestartSec=50ms");
    let holder = [
        "systemd-run",
        "--unit=holder",
        "-p",
        "User=openalgo-bridge",
        "-p",
        "StateDirectory=openalgo-bridge",
        "/usr/bin/openalgo-bridge",
        "--env-file",
        ENV_FILE,
        "run",
    ];
    machine.succeed(&holder);
    wait_for("the holder", || {
        machine.path("/var/lib/openalgo-bridge/status.sock").exists().then_some(())
    });
    machine.succeed(&["systemctl", "start", "--no-block", UNIT]);
    wait_for("many starts", || (machine.number(UNIT, "NRestarts") >= 10).then_some(()));
    assert!(!machine.journal(UNIT).contains("Started openalgo-bridge.service"), "it was ready");
    assert!(machine.journal(UNIT).contains("another process (pid"));
    machine.succeed(&["systemctl", "stop", "holder"]);
    machine.wait_for_property(UNIT, "ActiveState", "active");
    machine.wait_until_delivered(10);
    let shown = text(&machine.systemctl("status", UNIT).stdout);
    assert!(shown.contains("Active: active (running)"), "{shown}");
}
