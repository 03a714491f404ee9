//! The service over real sockets, with a snapshot and an owner of the tests' own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use super::*;
use crate::telemetry::client::request;
use crate::telemetry::snapshot::Snapshot;

const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    directory: tempfile::TempDir,
    latest: Latest,
    _served: Served,
}

impl Bench {
    fn new(listen: Option<Address>, ask: AskCaughtUp) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("status.sock");
        std::fs::write(&socket, "left behind").unwrap();
        let latest = Latest::default();
        let (from_owner, explain) = (latest.clone(), Arc::new(|| "; look there".to_owned()));
        let rejects_bytes = Arc::new(|| 4711);
        let settings = Settings { socket, listen, latest, ask, explain, rejects_bytes };
        let bench = Self { directory, latest: from_owner, _served: serve(settings).unwrap() };
        bench.publish(Snapshot { pid: 7, state: "following", ..Snapshot::default() });
        bench.wait_for("/healthz", |code, _| code == 200);
        bench
    }

    fn publish(&self, snapshot: Snapshot) {
        self.latest.publish(snapshot);
        self.latest.turned(Instant::now() + Duration::from_hours(1));
    }

    fn ask(&self, target: &str) -> (u16, String) {
        request(&self.directory.path().join("status.sock"), target, PATIENCE).unwrap()
    }

    #[track_caller]
    fn wait_for(&self, target: &str, ready: impl Fn(u16, &str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        let socket = self.directory.path().join("status.sock");
        loop {
            if let Ok((code, text)) = request(&socket, target, PATIENCE)
                && ready(code, &text)
            {
                return text;
            }
            assert!(Instant::now() < until, "waited in vain for {target}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Where it listens over TCP.
    fn address(&self) -> SocketAddr {
        let listens = |text: &str| {
            let status: serde_json::Value = serde_json::from_str(text).unwrap();
            status["listen"]["http"].as_str().and_then(|address| address.parse().ok())
        };
        let text = self.wait_for("/status.json", |_, text| listens(text).is_some());
        listens(&text).unwrap()
    }
}

fn nobody() -> AskCaughtUp {
    Arc::new(|_| ())
}

fn free_port() -> Address {
    Address::Tcp("127.0.0.1:0".parse().unwrap())
}

/// What a client gets that sends these bytes, up to the end of the connection.
fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be closed before all is said.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn answers_the_latest_snapshot_and_whether_the_bridge_caught_up() {
    let bench = Bench::new(None, Arc::new(|answer: CaughtUp| answer.tell()));
    let (code, body) = bench.ask("/status.json");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &body["pid"]), (200, &7.into()));
    assert_eq!(bench.ask("/caught-up?wait=1").0, 200);
    assert_eq!(bench.ask("/nothing").0, 404);
    let behind = Bench::new(None, nobody());
    assert_eq!(behind.ask("/caught-up?wait=0").0, 503);
}

#[test]
fn readiness_follows_what_the_owner_says_and_looks_at_the_input() {
    let bench = Bench::new(None, nobody());
    assert_eq!(bench.ask("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(bench.ask("/readyz"), (200, "ready\n".to_owned()));
    let mut snapshot = Snapshot { state: "waiting_for_input", ..Snapshot::default() };
    snapshot.input.path = "/x".into();
    snapshot.input.kind = "missing";
    snapshot.waiting_since = Instant::now().checked_sub(Duration::from_secs(70));
    bench.publish(snapshot.clone());
    let expected = "input: /x: missing for 70 s; look there\n";
    assert_eq!(bench.ask("/readyz"), (503, expected.to_owned()));
    snapshot.waiting_since = None;
    bench.publish(snapshot);
    assert_eq!(bench.ask("/readyz").0, 200);
}

#[test]
fn who_waits_too_many_is_told_so_and_others_are_still_answered() {
    let bench = Bench::new(None, nobody());
    let socket = bench.directory.path().join("status.sock");
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(b"GET /caught-up?wait=60 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    bench.wait_for("/caught-up?wait=0", |code, _| code == 429);
    assert_eq!(bench.ask("/status.json").0, 200);
    drop(waiting);
    // Who went away gave the place back.
    bench.wait_for("/caught-up?wait=0", |code, _| code == 503);
}

#[test]
fn only_get_and_head_from_this_machine_and_nothing_for_other_pages() {
    let bench = Bench::new(Some(free_port()), nobody());
    let address = bench.address();
    let post =
        say(address, b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"), "{post}");
    let get = |host: &str, path: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n"
        );
        say(address, head.as_bytes())
    };
    let metrics = get("127.0.0.1", "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 ") && metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(!metrics.contains("access-control") && metrics.contains("bridge-pid: 7"), "{metrics}");
    assert!(get("rebound.example", "/status.json").starts_with("HTTP/1.1 403 "));
    assert!(get("localhost", "/caught-up?wait=0").starts_with("HTTP/1.1 404 "), "not over TCP");
    let head =
        say(address, b"HEAD /healthz HTTP/1.1\r\nHost: x.localhost\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn sec_07_malformed_requests_end_with_their_connection() {
    let bench = Bench::new(Some(free_port()), nobody());
    let address = bench.address();
    let giant = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    for bytes in
        [giant.as_bytes(), b"\0\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\nx\r\n\r\n"]
    {
        let answer = say(address, bytes);
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    assert_eq!(bench.ask("/healthz").0, 200);
}

#[test]
fn sec_07_silent_and_slow_clients_keep_nobody_out() {
    let bench = Bench::new(Some(free_port()), nobody());
    let (address, socket) = (bench.address(), bench.directory.path().join("status.sock"));
    let silent: Vec<_> = (0..300).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let slow: Vec<_> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHo");
            stream
        })
        .collect();
    let asked = Instant::now();
    assert_eq!(bench.ask("/status.json").0, 200);
    let answer =
        say(address, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    // All but the newest made room.
    let is_open = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let read = (&mut &*stream).read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    };
    assert!(slow.iter().filter(|stream| is_open(stream)).count() <= CLIENTS_MAX);
    drop(silent);
}

#[test]
fn a_busy_port_is_told_and_tried_again() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    let bench = Bench::new(Some(Address::Tcp(address)), nobody());
    let text = bench.wait_for("/status.json", |_, text| text.contains("\"http_alarm\":\""));
    assert!(text.contains(&format!("\"http_alarm\":\"{address}: ")), "{text}");
    drop(busy);
    assert_eq!(bench.address(), address);
    assert!(bench.ask("/status.json").1.contains("\"http_alarm\":null"));
}

#[test]
fn a_unix_socket_is_a_place_to_listen_and_is_gone_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let bench = Bench::new(Some(Address::Unix(path.clone())), nobody());
    bench.wait_for("/status.json", |_, text| text.contains("\"http\":\"unix:/"));
    assert_eq!(request(&path, "/healthz", PATIENCE).unwrap().0, 200);
    drop(bench);
    assert!(!path.exists());
}
