//! The app that the relay hands events to: a real Flask-SocketIO that misbehaves as told.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::daemon::{Bridge, Daemon};
use super::wait_for;

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What an app wrote of this kind into its log.
fn noted(log: &Path, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["kind"] == kind).collect()
}

/// The numbers of the events that an app got, or was about to acknowledge, in order.
pub fn numbers(log: &Path, kind: &str) -> Vec<u64> {
    let numbers = |line: &Value| {
        let numbers = line["numbers"].as_array().cloned().unwrap_or_default();
        numbers.iter().filter_map(Value::as_u64).collect::<Vec<_>>()
    };
    noted(log, kind).iter().flat_map(numbers).collect()
}

/// A bridge that relays to an app, and the app.
pub struct Relay {
    pub bridge: Bridge,
    /// Of the app.
    pub port: u16,
    log: PathBuf,
}

/// A running app. Killed when dropped.
pub struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl App {
    /// Starts one under a command such as `nsenter`. What it gets goes to `log`.
    pub fn start(wrapper: &[String], log: &Path, arguments: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join(".tools/python/bin/python");
        let words = [wrapper, &[python.to_string_lossy().into_owned()]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(root.join("tests/clients/hostile_app.py"));
        command.arg("--log").arg(log).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("the app"))
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status();
        assert!(status.expect("kill").success(), "kill -s {name}");
    }
}

impl Relay {
    pub fn new() -> Self {
        let mut bridge = Bridge::socketio();
        let port = free_port();
        bridge.set("SOCKETIO_VIA", "relay");
        bridge.set("SOCKETIO_URL", &format!("http://127.0.0.1:{port}"));
        bridge.set("SOCKETIO_ACK_TIMEOUT_MS", "1500");
        let log = bridge.directory().join("app.jsonl");
        Self { bridge, port, log }
    }

    pub fn app(&self, more: &[&str]) -> App {
        self.app_under(&[], more)
    }

    /// The app, run under a command such as `nsenter`.
    pub fn app_under(&self, wrapper: &[String], more: &[&str]) -> App {
        let port = self.port.to_string();
        let own: &[&str] = if more.contains(&"--unix") || more.contains(&"--port") {
            &[]
        } else {
            &["--port", &port]
        };
        App::start(wrapper, &self.log, &[own, more].concat())
    }

    /// Waits until the app can be reached, so that what follows does not begin with waiting longer and
    /// longer for it.
    pub fn wait_for_app(&self) {
        wait_for("the app", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Waits until the sink says this of itself. The log may have told of an app that was not up.
    #[track_caller]
    pub fn wait_for_reason(&self, text: &str) {
        wait_for(text, || {
            let status = self.bridge.status();
            status["sink"]["reason"].as_str().is_some_and(|why| why.contains(text)).then_some(())
        });
    }

    /// What the app wrote of this kind.
    pub fn noted(&self, kind: &str) -> Vec<Value> {
        noted(&self.log, kind)
    }

    /// The numbers of the events that the app got, or was about to acknowledge, in order.
    pub fn numbers(&self, kind: &str) -> Vec<u64> {
        numbers(&self.log, kind)
    }

    /// Waits until the position is at the end; every event was acknowledged then, the first time
    /// in order.
    #[track_caller]
    pub fn finish(&self, daemon: Daemon, count: u64) {
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
    pub fn assert_reconnects_are_rare(&self, began: Instant) {
        let (connects, seconds) = (self.noted("connect").len() as u64, began.elapsed().as_secs());
        println!("{connects} connections in {seconds} s");
        assert!(connects <= seconds + 2, "{connects} connections in {seconds} s");
    }
}
