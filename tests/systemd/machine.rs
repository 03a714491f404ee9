//! A machine with systemd, and the daemon on it.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::events::{Appender, event};
use crate::support::{poll, wait_for};

/// The unit without a name.
pub const UNIT: &str = "openalgo-bridge.service";

/// Its configuration.
pub const ENV_FILE: &str = "/etc/openalgo-bridge/.env";

/// Its input.
pub const INPUT: &str = "/var/lib/openalgo-events/order_events.jsonl";

/// A broker that is not there.
pub const NO_BROKER: [(&str, &str); 2] =
    [("ORDER_EVENT_MODE", "KAFKA"), ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")];

/// What a package brings, and where it goes.
const INSTALLED: [(&str, &str); 7] = [
    ("openalgo-bridge.service", "/usr/lib/systemd/system/openalgo-bridge.service"),
    ("openalgo-bridge@.service", "/usr/lib/systemd/system/openalgo-bridge@.service"),
    ("openalgo-bridge-pipe.service", "/usr/lib/systemd/system/openalgo-bridge-pipe.service"),
    ("openalgo-bridge-pipe@.service", "/usr/lib/systemd/system/openalgo-bridge-pipe@.service"),
    ("openalgo-bridge.sysusers", "/usr/lib/sysusers.d/openalgo-bridge.conf"),
    ("openalgo-bridge.tmpfiles", "/usr/lib/tmpfiles.d/openalgo-bridge.conf"),
    ("openalgo-bridge.logrotate", "/etc/logrotate.d/openalgo-bridge"),
];

/// A running machine. It is off, and nothing of it left, when this is dropped or the process ends.
pub struct Machine {
    boot: Child,
    directory: TempDir,
    pid: u32,
}

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

impl Machine {
    /// Boots one that has only what Debian brings.
    pub fn boot() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "only root can boot a machine: run it as root"
        );
        let directory = tempfile::Builder::new().prefix("bridge-machine-").tempdir().unwrap();
        let mut boot = Command::new(repository("packaging/dev/systemd-root.sh"))
            .arg("boot")
            .arg(directory.path())
            // It ends with this pipe.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("systemd-root.sh");
        let pid_file = directory.path().join("pid");
        let pid = wait_for("a process 1", || {
            assert!(boot.try_wait().unwrap().is_none(), "the machine did not boot; see above");
            fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
        });
        let machine = Self { boot, directory, pid };
        wait_for("the machine to be up", || {
            let state = machine.run(&["systemctl", "is-system-running", "--wait"]);
            (text(&state.stdout).trim() == "running").then_some(())
        });
        machine
    }

    /// Boots one and installs the daemon. It is not started, and has no configuration.
    pub fn with_bridge() -> Self {
        let machine = Self::boot();
        let binary = machine.path("/usr/bin/openalgo-bridge");
        fs::copy(env!("CARGO_BIN_EXE_openalgo-bridge"), binary).expect("room for the binary");
        for (from, to) in INSTALLED {
            fs::copy(repository("systemd").join(from), machine.path(to)).expect("a place for it");
        }
        machine.succeed(&["systemd-sysusers"]);
        machine.succeed(&["systemd-tmpfiles", "--create", "openalgo-bridge.conf"]);
        machine.succeed(&["install", "-d", "-m", "755", "/etc/openalgo-bridge"]);
        machine.succeed(&["systemctl", "daemon-reload"]);
        machine
    }

    /// Where a file of its is, seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// What begins a command that is to run here, but in its network.
    pub fn network(&self) -> Vec<String> {
        ["nsenter", "-t", &self.pid.to_string(), "-n"].map(str::to_owned).to_vec()
    }

    /// Runs a command in it.
    pub fn run(&self, words: &[&str]) -> Output {
        Command::new("timeout")
            .arg("120")
            .arg(repository("packaging/dev/systemd-root.sh"))
            .arg("run")
            .arg(self.directory.path())
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("a command")
    }

    /// Runs a command that has to succeed, and gives what it printed.
    #[track_caller]
    pub fn succeed(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words:?}: {}\n{out}{errors}", output.status);
        out
    }

    /// Writes a configuration as the packages have it: root's, for the daemon to read.
    pub fn configure(&self, file: &str, settings: &[(&str, &str)]) {
        let mut lines = String::new();
        for (key, value) in settings {
            writeln!(lines, "{key} = '{value}'").unwrap();
        }
        self.write_for_the_bridge(file, &lines);
    }

    /// Writes a file that is root's and that the daemon's group may read.
    pub fn write_for_the_bridge(&self, file: &str, content: &str) {
        let path = self.path(file);
        fs::write(&path, content).unwrap();
        let groups = fs::read_to_string(self.path("/etc/group")).unwrap();
        let group =
            groups.lines().find_map(|line| line.strip_prefix("openalgo-bridge:x:")).unwrap();
        let group = group.trim_end_matches(':').parse().unwrap();
        chown(&path, Some(0), Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }

    /// Changes a unit by a drop-in.
    pub fn drop_in(&self, unit: &str, lines: &str) {
        let directory = self.path(&format!("/etc/systemd/system/{unit}.d"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("test.conf"), format!("[Service]\n{lines}\n")).unwrap();
        self.succeed(&["systemctl", "daemon-reload"]);
    }

    pub fn systemctl(&self, command: &str, unit: &str) -> Output {
        self.run(&["systemctl", command, unit])
    }

    /// `systemctl start`, which returns when the daemon is ready.
    #[track_caller]
    pub fn start(&self, unit: &str) {
        let output = self.systemctl("start", unit);
        assert!(output.status.success(), "{unit} does not start\n{}", self.journal(unit));
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.succeed(&["systemctl", "show", "--value", "-p", name, unit]).trim().to_owned()
    }

    /// The same, a number.
    #[track_caller]
    pub fn number(&self, unit: &str, name: &str) -> u64 {
        let value = self.property(unit, name);
        value.parse().unwrap_or_else(|_| panic!("{name} of {unit} is no number: {value:?}"))
    }

    /// Waits until a property has a value.
    #[track_caller]
    pub fn wait_for_property(&self, unit: &str, name: &str, value: &str) {
        let there = || (self.property(unit, name) == value).then_some(());
        let Some(()) = poll(crate::support::PATIENCE, there) else {
            panic!("{name} of {unit} is {}\n{}", self.property(unit, name), self.journal(unit));
        };
    }

    /// Waits until systemd has started the daemon so many times again, and it is ready.
    #[track_caller]
    pub fn wait_for_restarts(&self, unit: &str, count: u64) {
        wait_for("a restart", || {
            let restarts = self.number(unit, "NRestarts");
            (restarts >= count && self.property(unit, "ActiveState") == "active").then_some(())
        });
    }

    /// The main process of a unit, by its number here.
    pub fn main_pid(&self, unit: &str) -> u32 {
        let group = self.property(unit, "ControlGroup");
        let path = self.path(&format!("/sys/fs/cgroup{group}/cgroup.procs"));
        let processes = fs::read_to_string(path).expect("a running unit");
        let [pid] = processes.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("one process, not {processes:?}");
        };
        pid.parse().unwrap()
    }

    /// What systemd and the daemon said, a line each.
    pub fn journal(&self, unit: &str) -> String {
        text(&self.run(&["journalctl", "--no-pager", "-o", "cat", "-u", unit]).stdout)
    }

    /// `status --json`, once the daemon answers; `arguments` say whose.
    #[track_caller]
    pub fn status_of(&self, arguments: &[&str]) -> Value {
        let mut words = vec!["openalgo-bridge"];
        words.extend(arguments);
        words.extend(["status", "--json"]);
        wait_for("the status", || {
            let output = self.run(&words);
            output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
        })
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.status_of(&[])
    }

    /// The line that `systemctl status` shows.
    pub fn status_line(&self, unit: &str) -> String {
        let shown = text(&self.systemctl("status", unit).stdout);
        let line = shown.lines().find_map(|line| line.trim_start().strip_prefix("Status: "));
        line.unwrap_or_default().trim_matches('"').to_owned()
    }

    /// Waits until that line is this one.
    #[track_caller]
    pub fn wait_for_status_line(&self, line: &str) {
        let there = || (self.status_line(UNIT) == line).then_some(());
        let Some(()) = poll(crate::support::PATIENCE, there) else {
            panic!("the status is {:?}, not {line:?}", self.status_line(UNIT));
        };
    }

    /// Appends events as the app does: to a file that the daemon's group may read.
    pub fn append(&self, numbers: impl IntoIterator<Item = u64>) {
        self.append_to(INPUT, numbers);
    }

    pub fn append_to(&self, input: &str, numbers: impl IntoIterator<Item = u64>) {
        let mut lines = String::new();
        for number in numbers {
            writeln!(lines, "{}", event(number)).unwrap();
        }
        self.append_lines(input, &lines);
    }

    pub fn append_lines(&self, input: &str, lines: &str) {
        let path = self.path(input);
        let mut appender = Appender::open(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        appender.write(lines.as_bytes());
    }

    /// Waits until everything that was appended is settled, and checks that the ledger has every byte
    /// of the input once, and these lines as delivered.
    #[track_caller]
    pub fn wait_until_delivered(&self, lines: u64) {
        let size = fs::metadata(self.path(INPUT)).unwrap().len();
        let status = wait_for("everything to be delivered", || {
            let status = self.status();
            (status["ledger"]["bytes"]["delivered"] == size).then_some(status)
        });
        let ledger = &status["ledger"];
        assert_eq!(ledger["lines"]["delivered"], lines, "{ledger}");
        assert_eq!(ledger["bytes"]["read"], size, "{ledger}");
        assert_eq!(ledger["lost"].as_array().map(Vec::len), Some(0), "{ledger}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- journal:\n{}", self.journal("openalgo-bridge*"));
        }
        let pid = self.pid;
        drop(self.boot.stdin.take());
        let ended = poll(Duration::from_secs(20), || self.boot.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.boot.kill();
            let _ = self.boot.wait();
        }
        let gone = poll(Duration::from_secs(20), || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
        assert!(gone.is_some() || std::thread::panicking(), "the machine is still there");
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs something, and says how long it took.
pub fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    (what(), began.elapsed())
}

/// Says a figure, for those who look with `--nocapture`.
pub fn measured(what: &str, took: Duration) {
    let _ = writeln!(std::io::stderr(), "measured: {what}: {} ms", took.as_millis());
}
