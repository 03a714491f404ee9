//! The relay against a real Flask-SocketIO that misbehaves as told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::{Bridge, Daemon};
use crate::support::{PATIENCE, events, free_port, wait_at_most, wait_for};

/// A bridge that relays to an app, and the app.
struct Relay {
    bridge: Bridge,
    port: u16,
    log: PathBuf,
}

/// A running app. Killed when dropped.
struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl App {
    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(status.expect("kill").success(), "kill -s {name}");
    }
}

impl Relay {
    fn new() -> Self {
        let mut bridge = Bridge::socketio();
        let port = free_port();
        bridge.set("SOCKETIO_VIA", "relay");
        bridge.set("SOCKETIO_URL", &format!("http://127.0.0.1:{port}"));
        bridge.set("SOCKETIO_ACK_TIMEOUT_MS", "1500");
        let log = bridge.directory().join("app.jsonl");
        Self { bridge, port, log }
    }

    fn app(&self, more: &[&str]) -> App {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join(".tools/python/bin/python"));
        command.arg(root.join("tests/clients/hostile_app.py")).arg("--log").arg(&self.log);
        if !more.contains(&"--unix") {
            command.args(["--port", &self.port.to_string()]);
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        App(command.spawn().expect("the app"))
    }

    /// Waits until the sink says this of itself. The log may have told of an app that was not up.
    #[track_caller]
    fn wait_for_reason(&self, text: &str) {
        wait_for(text, || {
            let status = self.bridge.status();
            status["sink"]["reason"].as_str().is_some_and(|why| why.contains(text)).then_some(())
        });
    }

    /// What the app wrote of this kind.
    fn noted(&self, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["kind"] == kind).collect()
    }

    /// The numbers of the events that the app got, or was about to acknowledge, in order.
    fn numbers(&self, kind: &str) -> Vec<u64> {
        let numbers = |line: &Value| {
            let numbers = line["numbers"].as_array().cloned().unwrap_or_default();
            numbers.iter().filter_map(Value::as_u64).collect::<Vec<_>>()
        };
        self.noted(kind).iter().flat_map(numbers).collect()
    }

    /// Waits until the position is at the end; every event was acknowledged then, the first time
    /// in order.
    #[track_caller]
    fn finish(&self, daemon: Daemon, count: u64) {
        self.bridge.wait_until_settled();
        let acknowledged: BTreeSet<u64> = self.numbers("acknowledged").into_iter().collect();
        assert!(acknowledged.into_iter().eq(0..count), "not all were acknowledged");
        let mut seen = BTreeSet::new();
        let received = self.numbers("batch");
        let firsts: Vec<u64> =
            received.iter().copied().filter(|number| seen.insert(*number)).collect();
        assert!(firsts.into_iter().eq(0..count), "first deliveries are out of order");
        println!("{} events, {} repeats", count, received.len() as u64 - count);
        assert_eq!(daemon.stop(), 0);
    }

    /// How often the app was joined, at most once a second in the long run.
    #[track_caller]
    fn assert_reconnects_are_rare(&self, began: Instant) {
        let (connects, seconds) = (self.noted("connect").len() as u64, began.elapsed().as_secs());
        println!("{connects} connections in {seconds} s");
        assert!(connects <= seconds + 2, "{connects} connections in {seconds} s");
    }
}

#[test]
fn si_01_an_app_that_starts_late_gets_everything_and_the_outage_is_told_once() {
    let relay = Relay::new();
    relay.bridge.append().events(0..1_000);
    let daemon = relay.bridge.start();
    daemon.wait_for_log("the app does not take events");
    let sink = relay.bridge.status()["sink"].clone();
    assert_eq!(sink["state"], "down", "{sink}");
    assert!(sink["reason"].as_str().is_some_and(|why| why.contains("refused")), "{sink}");
    assert_eq!(relay.bridge.checkpoint()["offset"], 0);
    let _app = relay.app(&[]);
    daemon.wait_for_log("the app takes events again");
    let log = daemon.log();
    assert!(log.len() <= 8, "{log:#?}");
    relay.finish(daemon, 1_000);
}

#[test]
fn si_05_killed_every_two_seconds_nothing_is_missing_and_the_position_is_never_ahead() {
    const COUNT: u64 = 6_000;
    let relay = Relay::new();
    let mut app = relay.app(&[]);
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    let mut ends = BTreeMap::from([(0, 0)]);
    let mut input = relay.bridge.append();
    let (mut offset, mut before) = (0, 0);
    for block in 0..10 {
        for number in block * COUNT / 10..(block + 1) * COUNT / 10 {
            offset += events::event(number).len() as u64 + 1;
            ends.insert(offset, number + 1);
        }
        input.events(block * COUNT / 10..(block + 1) * COUNT / 10);
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            // First the position, then what the app has acknowledged by then.
            let position = relay.bridge.checkpoint()["offset"].as_u64().unwrap_or(0);
            let below = ends.get(&position).copied().expect("the end of a line");
            let acknowledged: BTreeSet<u64> = relay.numbers("acknowledged").into_iter().collect();
            assert!((0..below).all(|number| acknowledged.contains(&number)), "ahead: {below}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        if block % 2 == 1 {
            // Not before this life of the app has taken something.
            wait_for("an acknowledgement", || {
                let taken = relay.numbers("acknowledged").len();
                (taken > before).then(|| before = taken)
            });
            drop(app);
            app = relay.app(&[]);
        }
    }
    relay.assert_reconnects_are_rare(began);
    relay.finish(daemon, COUNT);
}

/// Events go to an app that treats its first batches in this way.
#[track_caller]
fn misbehaves(arguments: &[&str]) {
    let relay = Relay::new();
    let _app = relay.app(&[&["--times", "2"], arguments].concat());
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    relay.bridge.append().events(0..300);
    wait_for("batches", || (relay.noted("batch").len() >= 3).then_some(()));
    relay.assert_reconnects_are_rare(began);
    assert!(relay.noted("connect").len() >= 3, "each attempt has a connection of its own");
    relay.finish(daemon, 300);
}

#[test]
fn si_03_an_acknowledgement_that_never_comes() {
    misbehaves(&["--ack", "never"]);
}

#[test]
fn si_03_a_handler_that_raises() {
    misbehaves(&["--ack", "raise"]);
}

#[test]
fn si_04_an_acknowledgement_that_comes_late() {
    misbehaves(&["--ack", "late", "--late-ms", "2500"]);
}

#[test]
fn si_04_an_acknowledgement_of_an_earlier_attempt() {
    misbehaves(&["--ack", "foreign"]);
}

#[test]
fn si_14_an_acknowledgement_that_says_false() {
    misbehaves(&["--ack", "false"]);
}

#[test]
fn si_14_an_acknowledgement_that_is_empty() {
    misbehaves(&["--ack", "empty"]);
}

#[test]
fn si_02_si_15_acknowledgements_that_come_twice_and_noise_of_the_apps() {
    let relay = Relay::new();
    let _app = relay.app(&["--ack", "twice", "--noise"]);
    let mut daemon = relay.bridge.start();
    for block in 0..10 {
        relay.bridge.append().events(block * 20..(block + 1) * 20);
        std::thread::park_timeout(Duration::from_millis(100));
    }
    relay.bridge.wait_until_settled();
    assert!(daemon.is_running());
    relay.finish(daemon, 200);
}

#[test]
fn si_07_a_token_that_the_app_does_not_know_and_then_does() {
    let mut relay = Relay::new();
    relay.bridge.set("SOCKETIO_AUTH_TOKEN", "CANARY-token");
    relay.bridge.append().events(0..10);
    let app = relay.app(&["--token", "another"]);
    let daemon = relay.bridge.start();
    relay.wait_for_reason("no such token");
    assert_eq!(relay.bridge.status()["sink"]["state"], "down");
    let output = relay.bridge.run(&["check", "--connect"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("does not let the bridge in: no such token"), "{text}");
    assert_eq!(output.status.code(), Some(69));
    assert!(relay.noted("batch").is_empty());
    drop(app);
    let _app = relay.app(&["--token", "CANARY-token"]);
    daemon.wait_for_log("takes events again");
    let text = relay.bridge.run(&["check", "--connect"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("lets the bridge in with its token"), "{text}");
    assert!(!daemon.log().join("\n").contains("CANARY"));
    relay.finish(daemon, 10);
}

#[test]
fn si_08_a_namespace_that_the_app_does_not_have_and_then_does() {
    let relay = Relay::new();
    relay.bridge.append().events(0..10);
    let app = relay.app(&["--namespace", "/other"]);
    let daemon = relay.bridge.start();
    relay.wait_for_reason("the app does not let it in: Unable to connect");
    drop(app);
    let _app = relay.app(&[]);
    daemon.wait_for_log("takes events again");
    relay.finish(daemon, 10);
}

#[test]
fn si_09_an_app_that_disconnects_every_third_batch() {
    let mut relay = Relay::new();
    relay.bridge.set("SOCKETIO_BATCH_MAX_EVENTS", "50");
    let _app = relay.app(&["--disconnect-every", "3"]);
    let (daemon, began) = (relay.bridge.start(), Instant::now());
    relay.bridge.append().events(0..300);
    relay.bridge.wait_until_settled();
    relay.assert_reconnects_are_rare(began);
    relay.finish(daemon, 300);
}

#[test]
fn si_10_si_11_an_app_that_stands_still_is_waited_for_in_flat_memory() {
    let relay = Relay::new();
    let app = relay.app(&[]);
    let daemon = relay.bridge.start();
    relay.bridge.append().events(0..10);
    relay.bridge.wait_until_settled();
    app.signal("STOP");
    // More than the in-flight limits hold.
    relay.bridge.append().events(10..40_000);
    let full = wait_for("the limit to be full", || {
        (relay.bridge.status()["state"] == "blocked").then(|| daemon.memory_kb("VmRSS"))
    });
    let until = Instant::now() + Duration::from_secs(25);
    let mut most = full;
    while Instant::now() < until {
        most = most.max(daemon.memory_kb("VmRSS"));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    println!("memory: {full} kB when full, {most} kB at most afterwards");
    assert!(most <= full + (5 << 10), "grew from {full} to {most} kB");
    app.signal("CONT");
    let began = Instant::now();
    let all = std::fs::metadata(relay.bridge.input()).unwrap().len();
    wait_at_most(2 * PATIENCE, "everything", || {
        (relay.bridge.checkpoint()["offset"].as_u64() == Some(all)).then_some(())
    });
    println!("the rest in {:?}", began.elapsed());
    relay.finish(daemon, 40_000);
}

#[test]
fn si_12_batches_stay_below_the_packet_limit_and_one_too_large_alone_is_put_aside() {
    let relay = Relay::new();
    let _app = relay.app(&[]);
    let daemon = relay.bridge.start();
    let lines: String = (0..40)
        .map(|number| {
            events::padded_event(number, if number == 20 { 950_000 } else { 90_000 }) + "\n"
        })
        .collect();
    relay.bridge.append().write(lines.as_bytes());
    relay.bridge.wait_until_settled();
    let numbers = relay.numbers("acknowledged");
    assert!(numbers.into_iter().eq((0..40).filter(|number| *number != 20)));
    let sizes: Vec<u64> = relay.noted("batch").iter().filter_map(|b| b["size"].as_u64()).collect();
    assert!(sizes.iter().all(|size| *size < 900_000), "{sizes:?}");
    let rejects = relay.bridge.rejects();
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0]["reason"], "too_large");
    assert_eq!(relay.noted("connect").len(), 1, "no connection was lost over it");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn si_12_an_app_with_a_smaller_limit_gets_smaller_batches() {
    let relay = Relay::new();
    let _app = relay.app(&["--max-packet", "300000"]);
    let daemon = relay.bridge.start();
    let lines: String = (0..40).map(|number| events::padded_event(number, 50_000) + "\n").collect();
    relay.bridge.append().write(lines.as_bytes());
    relay.bridge.wait_until_settled();
    relay.finish(daemon, 40);
}

#[test]
fn what_the_app_refuses_is_put_aside() {
    let relay = Relay::new();
    let _app = relay.app(&["--refuse-every", "10"]);
    let daemon = relay.bridge.start();
    relay.bridge.append().events(0..100);
    relay.bridge.wait_until_settled();
    let rejects = relay.bridge.rejects();
    assert_eq!(rejects.len(), 10);
    assert!(rejects.iter().all(|line| line["reason"] == "refused"));
    relay.finish(daemon, 100);
}

#[test]
fn a_stock_install_that_listens_on_a_socket_file_is_reached() {
    let mut relay = Relay::new();
    let path = relay.bridge.directory().join("app.sock");
    let path = path.to_str().unwrap();
    relay.bridge.set("SOCKETIO_URL", &format!("unix:{path}"));
    relay.bridge.append().events(0..500);
    let daemon = relay.bridge.start();
    let sink = wait_for("the reason", || {
        let sink = relay.bridge.status()["sink"].clone();
        sink["reason"].as_str().is_some_and(|why| why.contains("app.sock")).then_some(sink)
    });
    assert_ne!(sink["state"], "up");
    let app = relay.app(&["--unix", path]);
    relay.bridge.wait_until_settled();
    drop(app);
    std::fs::remove_file(path).unwrap();
    let _app = relay.app(&["--unix", path]);
    relay.bridge.append().events(500..1_000);
    relay.finish(daemon, 1_000);
}
