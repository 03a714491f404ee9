//! The daemon as a user runs it: a `.env`, a process, its log, its end.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, poll, wait_for};

/// A scratch directory with a `.env`, an input and a state directory.
pub struct Bridge {
    scratch: TempDir,
    settings: Vec<(String, String)>,
    /// Commands to run the daemon under, such as `unshare -m`.
    pub wrapper: Vec<String>,
}

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Bridge {
    /// A bridge in its default mode, on a free port.
    pub fn socketio() -> Self {
        let scratch = tempfile::Builder::new().prefix("bridge-").tempdir().expect("scratch");
        let mut bridge = Self { scratch, settings: Vec::new(), wrapper: Vec::new() };
        let (input, state) = (bridge.input(), bridge.state());
        bridge.set("BRIDGE_INPUT", &input.to_string_lossy());
        bridge.set("BRIDGE_STATE_DIR", &state.to_string_lossy());
        bridge.set("SOCKETIO_LISTEN", "127.0.0.1:0");
        bridge.set("BRIDGE_HTTP_LISTEN", "off");
        bridge
    }

    /// A bridge to a topic.
    pub fn to_kafka(bootstrap: &str, topic: &str) -> Self {
        let mut bridge = Self::socketio();
        bridge.set("ORDER_EVENT_MODE", "KAFKA");
        bridge.set("KAFKA_BOOTSTRAP_SERVERS", bootstrap);
        bridge.set("KAFKA_ORDER_EVENTS_TOPIC", topic);
        bridge
    }

    /// Changes a setting; the next start sees it.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        let mut text = String::new();
        for (key, value) in &self.settings {
            let _ = writeln!(text, "{key} = '{value}'");
        }
        std::fs::write(self.env_file(), text).expect("the .env");
        self
    }

    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    pub fn env_file(&self) -> PathBuf {
        self.scratch.path().join("bridge.env")
    }

    pub fn input(&self) -> PathBuf {
        let set = self.settings.iter().find(|(key, _)| key == "BRIDGE_INPUT");
        let default = || self.scratch.path().join("events").join("order_events.jsonl");
        set.map_or_else(default, |(_, path)| path.into())
    }

    pub fn state(&self) -> PathBuf {
        self.scratch.path().join("state")
    }

    /// An appender on the input.
    pub fn append(&self) -> super::events::Appender {
        std::fs::create_dir_all(self.input().parent().expect("a parent")).expect("the directory");
        super::events::Appender::open(&self.input())
    }

    pub fn command(&self, limit: &[&str], arguments: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_openalgo-bridge");
        let mut words: Vec<String> = limit.iter().copied().map(str::to_owned).collect();
        words.extend_from_slice(&self.wrapper);
        words.push(binary.to_owned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("--env-file")
            .arg(self.env_file())
            .args(arguments)
            .current_dir(self.directory())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, which has to come: 124 if it does not.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(&["timeout", "120"], arguments).output().expect("the binary")
    }

    /// Starts the daemon.
    pub fn start(&self) -> Daemon {
        let mut child = self
            .command(&[], &["run"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("the log").push(line);
            }
        });
        Daemon { child, log }
    }

    /// `status --json`, once the daemon answers.
    pub fn status(&self) -> Value {
        wait_for("the status", || {
            let output = self.run(&["status", "--json"]);
            output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
        })
    }

    /// Waits until the sink is down and says why with these words; gives the whole reason.
    #[track_caller]
    pub fn wait_until_down(&self, words: &str) -> String {
        let mut sink = Value::Null;
        let reason = poll(PATIENCE, || {
            sink = self.status()["sink"].clone();
            let reason = sink["reason"].as_str().filter(|_| sink["state"] == "down")?;
            reason.contains(words).then(|| reason.to_owned())
        });
        reason.unwrap_or_else(|| panic!("not down with {words:?}: {sink}"))
    }

    /// Where Socket.IO clients can connect.
    pub fn address(&self) -> String {
        wait_for("the port", || self.status()["listen"]["socketio"].as_str().map(str::to_owned))
    }

    /// `checkpoint show --json`.
    pub fn checkpoint(&self) -> Value {
        let output = self.run(&["checkpoint", "show", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Waits until everything in the input is settled and the position says so.
    pub fn wait_until_settled(&self) {
        let size = std::fs::metadata(self.input()).expect("the input").len();
        wait_for(&format!("the position to reach {size}"), || {
            (self.checkpoint()["offset"].as_u64() == Some(size)).then_some(())
        });
    }

    /// Waits until all that is in the input now is settled, whatever is appended meanwhile.
    #[track_caller]
    pub fn wait_until_past_all_of_now(&self) {
        let size = std::fs::metadata(self.input()).expect("the input").len();
        wait_for(&format!("the position to pass {size}"), || {
            (self.checkpoint()["offset"].as_u64() >= Some(size)).then_some(())
        });
    }

    /// The lines of the rejects file.
    pub fn rejects(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state().join("rejects.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("the log").clone()
    }

    /// Waits for a log line with this text.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        let found = poll(PATIENCE, || self.log().into_iter().find(|line| line.contains(text)));
        found.unwrap_or_else(|| panic!("no log line with {text:?}"))
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(status.success(), "kill -s {name}");
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.wait()
    }

    /// SIGTERM, and the log up to the clean end.
    pub fn log_after_stop(mut self) -> String {
        self.signal("TERM");
        assert_eq!(self.wait(), 0);
        let complete = || Some(self.log().join("\n")).filter(|log| log.contains("stopped"));
        poll(PATIENCE, complete).unwrap_or_else(|| self.log().join("\n"))
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("an end");
    }

    /// Waits for its end, and gives the exit code (-1 for a signal).
    pub fn wait(&mut self) -> i32 {
        wait_for("the daemon to end", || self.child.try_wait().expect("a child"))
            .code()
            .unwrap_or(-1)
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// A line of `/proc/PID/status` in kB, such as `VmRSS` or `VmHWM`.
    pub fn memory_kb(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("a running daemon");
        let line = status.lines().find(|line| line.starts_with(name)).expect("the line");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the daemon:\n{}", self.log().join("\n"));
        }
    }
}
