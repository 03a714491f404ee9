//! System calls of a running daemon that fail, for as long as a test wants.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::NamedTempFile;

use super::daemon::Daemon;
use super::wait_for;

/// What fails. It heals when this is dropped.
pub struct Failing {
    strace: Child,
    calls: NamedTempFile,
}

impl Failing {
    /// Makes calls of the daemon's fail that concern `paths`, by name or by an open file: such as
    /// `openat,statx:error=EIO`.
    pub fn of(daemon: &Daemon, paths: &[PathBuf], inject: &str) -> Self {
        let (pid, calls) = (daemon.pid().to_string(), NamedTempFile::new().expect("a file"));
        let names = inject.split(':').next().expect("the calls");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", &format!("trace={names}")]);
        command.args(["-e", &format!("inject={inject}"), "-o"]).arg(calls.path());
        for path in paths {
            command.arg("-P").arg(path);
        }
        let strace = command
            .args(["-p", &pid])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("strace");
        let failing = Self { strace, calls };
        // The last of its threads: those are attached one after the other.
        wait_for("strace to hold every thread", || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            let held = tasks.flatten().all(|task| {
                let status = std::fs::read_to_string(task.path().join("status"));
                status.is_ok_and(|text| {
                    text.contains(&format!("TracerPid:\t{}\n", failing.strace.id()))
                })
            });
            held.then_some(())
        });
        failing
    }

    /// How many calls failed so far.
    pub fn count(&self) -> usize {
        let calls = std::fs::read_to_string(self.calls.path()).expect("what strace wrote");
        calls.lines().filter(|call| call.contains("(INJECTED)")).count()
    }

    /// Waits until so many calls failed.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        wait_for("calls to fail", || (self.count() >= count).then_some(()));
    }
}

/// What the daemon is to be started under so that its calls fail from the first one on. It keeps its
/// process id.
pub fn failing_from_the_start(paths: &[PathBuf], inject: &str) -> Vec<String> {
    let mut words: Vec<String> =
        ["strace", "-D", "-f", "-qq", "-o", "/dev/null"].map(str::to_owned).to_vec();
    for path in paths {
        words.extend(["-P".to_owned(), path.display().to_string()]);
    }
    words.extend(["-e".to_owned(), format!("inject={inject}")]);
    words
}

impl Drop for Failing {
    fn drop(&mut self) {
        // The kernel lets go of the daemon, which goes on.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Waits until all of a process stands still for the `count`th time, by a signal that came with a call.
#[track_caller]
pub fn stopped(calls: &Failing, count: usize) {
    wait_for("the daemon to stop", || {
        let text = std::fs::read_to_string(calls.calls.path()).expect("what strace wrote");
        // Each of its threads says so, after its number.
        let mut stops = std::collections::HashMap::new();
        for line in text.lines().filter(|line| line.contains("--- stopped by SIGSTOP ---")) {
            *stops.entry(line.split(' ').next()).or_insert(0) += 1;
        }
        (stops.values().max() >= Some(&count)).then_some(())
    });
}
