//! A machine with `OpenAlgo` on it, with the stand-in in its place: `tests/openalgo/host.py`.

use std::io::{BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::daemon::Bridge;
use super::http::{request_with, status};
use super::socketio::{Standard, repository};
use super::{free_port, poll};

/// The site's name. Reserved for tests: it leads nowhere but where we say.
const NAME: &str = "openalgo.test";

/// What the app's side of the relay and the daemon have in common.
pub const TOKEN: &str = "s3cret-of-the-relay";

/// The app and nginx; both end with it.
pub struct Host {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The site without TLS, for clients that look at bytes: `host:port`.
    pub plain: String,
    /// The site as users have it: `https://name:port`.
    pub origin: String,
    /// The app's socket file; it has no port.
    pub app_socket: String,
    /// The events file.
    pub events: PathBuf,
    /// Where nginx looks for the daemon.
    pub listen: String,
    /// The file with [`TOKEN`], for both sides.
    pub token: PathBuf,
    log: PathBuf,
}

impl Host {
    /// Sets one up.
    pub fn start() -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        let mut child = Command::new(repository(".tools/python/bin/python"))
            .arg(repository("tests/openalgo/host.py"))
            .args(["--daemon", &listen, "--name", NAME, "--token", TOKEN])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a host");
        let commands = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let facts = read(&mut answers);
        let text = |name: &str| facts[name].as_str().expect("a text").to_owned();
        Self {
            child,
            commands,
            answers,
            plain: text("plain"),
            origin: format!("https://{NAME}:{}", facts["tls_port"]),
            app_socket: text("app_socket"),
            events: text("events").into(),
            listen,
            token: text("token").into(),
            log: text("app_log").into(),
        }
    }

    /// Has it do something; see `host.py`.
    #[track_caller]
    pub fn tell(&mut self, command: &Value) {
        let commands = self.commands.as_mut().expect("a running host");
        writeln!(commands, "{command}").expect("it listens");
        assert_eq!(read(&mut self.answers), json!({"done": true}), "{command}");
    }

    /// The relay feeds the page from now on: one setting, and a restart of the app.
    pub fn emit_by_bridge(&mut self) {
        self.tell(&json!({"setting": "OPENALGO_BRIDGE_EMIT=bridge", "restart": true}));
    }

    /// The daemon's settings as docs/openalgo.md has them, for all its modes at once.
    pub fn bridge(&self) -> Bridge {
        let mut bridge = Bridge::socketio();
        bridge.set("BRIDGE_INPUT", &self.events.to_string_lossy());
        bridge.set("SOCKETIO_LISTEN", &self.listen);
        let check = format!("unix:{}:/openalgo-bridge/session", self.app_socket);
        bridge.set("SOCKETIO_AUTH_URL", &check);
        bridge.set("SOCKETIO_URL", &format!("unix:{}", self.app_socket));
        bridge.set("SOCKETIO_AUTH_TOKEN_FILE", &self.token.to_string_lossy());
        bridge
    }

    /// The stand-in's page in Chromium, over TLS.
    pub fn browser(&self) -> Standard {
        Standard::toasts(&self.origin)
    }

    /// A standard client of the app's own server, or of the bridge's (`path`), with or without a session.
    pub fn client(&self, path: &str, transports: &str, cookie: Option<&str>) -> Standard {
        let header = cookie.map(|cookie| format!("Cookie: {cookie}"));
        let mut more = vec!["--path", path];
        more.extend(header.iter().flat_map(|header| ["--header", header]));
        Standard::node(&self.plain, transports, &more)
    }

    #[track_caller]
    fn post(&self, target: &str, body: &str) -> String {
        let headers = "Content-Type: application/json\r\n";
        let answer = request_with(&self.plain, "POST", target, headers, body);
        assert!([200, 204].contains(&status(&answer)), "{target}: {answer}");
        answer
    }

    /// The cookie of somebody who has logged in.
    pub fn cookie(&self) -> String {
        let answer = self.post("/login/trader", "");
        let cookie = answer.split("Set-Cookie: ").nth(1).and_then(|rest| rest.split(';').next());
        cookie.expect("a cookie").to_owned()
    }

    /// Places an order over HTTP.
    #[track_caller]
    pub fn order(&self, id: &str) {
        let order = json!({"symbol": "SBIN", "action": "BUY", "orderid": id, "mode": "live"});
        self.post("/placeorder", &order.to_string());
    }

    /// Has the app emit: `data` is JSON, its text kept up to the app.
    #[track_caller]
    pub fn emit(&self, event: &str, data: &str) {
        self.post(&format!("/emit/{event}"), &format!("{{\"args\":[{data}]}}"));
    }

    /// The lines of the events file.
    pub fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.events).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn read(answers: &mut impl std::io::BufRead) -> Value {
    let mut line = String::new();
    answers.read_line(&mut line).expect("the host's answer");
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("the host ended; it says above why"))
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- log of the app:\n{log}");
        }
        // Its input ends, and it ends what it started.
        drop(self.commands.take());
        let ended = || self.child.try_wait().ok().flatten();
        if poll(Duration::from_secs(20), ended).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
