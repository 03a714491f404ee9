//! The watchdog: who is stuck is killed and started again, and nobody else.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::{ENV_FILE, Machine, NO_BROKER, UNIT, measured};
use crate::support::wait_for;

/// The main loop's thread, held up in a system call as by a disk that does not answer; all other
/// threads, and so the one that feeds the watchdog, go on.
struct Stuck(Child);

impl Stuck {
    fn main_loop_of(machine: &Machine) -> Self {
        let pid = machine.main_pid(UNIT).to_string();
        let strace = Command::new("strace")
            .args([
                "-qq",
                "-e",
                "trace=statx",
                "-e",
                "inject=statx:delay_enter=600000000",
                "-p",
                &pid,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace");
        let stuck = Self(strace);
        wait_for("strace to hold the thread", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            status.contains(&format!("TracerPid:\t{}\n", stuck.0.id())).then_some(())
        });
        stuck
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pr_09_a_main_loop_that_is_stuck_is_killed_and_started_again_and_nothing_is_lost() {
    let machine = Machine::with_bridge();
    machine.configure(ENV_FILE, &[("SOCKETIO_START_GRACE_MS", "0")]);
    machine.drop_in(UNIT, "WatchdogSec=3\nRestartSec=50ms");
    machine.append(0..100);
    machine.start(UNIT);
    machine.wait_until_delivered(100);
    let first = machine.status();
    let began = Instant::now();
    let stuck = Stuck::main_loop_of(&machine);
    machine.append(100..200);
    wait_for("the watchdog", || {
        machine.journal(UNIT).contains("Watchdog timeout (limit 3s)!").then_some(())
    });
    measured("from stuck to noticed, WatchdogSec=3", began.elapsed());
    // Who is in a system call is killed when it ends.
    drop(stuck);
    machine.wait_for_restarts(UNIT, 1);
    machine.wait_until_delivered(200);
    let second = machine.status();
    assert_eq!(second["input"]["generation"], first["input"]["generation"], "ids go on");
    assert_ne!(second["pid"], first["pid"]);
    let journal = machine.journal(UNIT);
    assert!(journal.contains("status=6/ABRT"), "{journal}");

    // All of it, as by SIGSTOP: nobody is left to feed.
    machine.append(200..300);
    machine.succeed(&["systemctl", "kill", "--signal=SIGSTOP", UNIT]);
    machine.append(300..400);
    machine.wait_for_restarts(UNIT, 2);
    machine.wait_until_delivered(400);
    assert_eq!(machine.number(UNIT, "NRestarts"), 2);
}

#[test]
fn pr_09_a_broker_that_is_down_for_long_starves_no_watchdog() {
    const WATCHDOG: Duration = Duration::from_secs(3);
    let machine = Machine::with_bridge();
    machine.configure(ENV_FILE, &NO_BROKER);
    machine.drop_in(UNIT, "WatchdogSec=3");
    // More than may be in flight: reading stops, too.
    machine.append(0..20_000);
    machine.start(UNIT);
    let line = wait_for("the outage in the status", || {
        let line = machine.status_line(UNIT);
        line.starts_with("KAFKA: blocked (sink), ").then_some(line)
    });
    let (pid, began) = (machine.number(UNIT, "MainPID"), Instant::now());
    // What takes longer than the tolerance of `/healthz` and the watchdog together, twice.
    let long = 2 * (WATCHDOG + Duration::from_secs(5));
    while began.elapsed() < long {
        std::thread::park_timeout(Duration::from_millis(500));
        assert_eq!(machine.property(UNIT, "ActiveState"), "active", "{line}");
    }
    assert_eq!(machine.number(UNIT, "MainPID"), pid);
    assert_eq!(machine.number(UNIT, "NRestarts"), 0);
    assert!(!machine.journal(UNIT).contains("Watchdog"), "{}", machine.journal(UNIT));
    // systemd counts from the last time that it was fed.
    let fed = Duration::from_micros(machine.number(UNIT, "WatchdogTimestampMonotonic"));
    let started = Duration::from_micros(machine.number(UNIT, "ActiveEnterTimestampMonotonic"));
    assert!(fed + WATCHDOG > started + long, "{fed:?} {started:?}");
}
