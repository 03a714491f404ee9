//! However the daemon ends, it comes back where it was, or is done.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::machine::{ENV_FILE, INPUT, Machine, NO_BROKER, UNIT, measured, timed};
use crate::support::broker::Broker;
use crate::support::events::padded_event;
use crate::support::wait_for;
use crate::topic::messages;

/// Nothing is missing, and an event that came twice is the same event.
#[track_caller]
pub fn check(events: &HashMap<u64, Vec<String>>, count: u64) {
    let missing: Vec<u64> = (0..count).filter(|number| !events.contains_key(number)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert_eq!(events.len() as u64, count);
    let mut generations: Vec<&str> = Vec::new();
    for ids in events.values() {
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        generations.push(ids[0].split(':').next().unwrap());
    }
    generations.dedup();
    assert_eq!(generations.len(), 1, "ids do not go on: {generations:?}");
}

/// The kernel kills what takes more memory than its group may, with what this gives back undone.
struct Group(PathBuf);

impl Group {
    /// A limit of a few MB for the daemon: less than it has. Where the kernel counts memory for
    /// groups of the older kind only, systemd's `MemoryMax=` is without effect.
    fn too_small(machine: &Machine) -> Option<Self> {
        let pid = machine.main_pid(UNIT).to_string();
        let controllers =
            fs::read_to_string(machine.path("/sys/fs/cgroup/cgroup.controllers")).unwrap();
        if controllers.split_whitespace().any(|name| name == "memory") {
            machine.succeed(&["systemctl", "set-property", "--runtime", UNIT, "MemoryMax=2M"]);
            return None;
        }
        let group = PathBuf::from(format!("/sys/fs/cgroup/memory/bridge-{pid}"));
        fs::create_dir(&group).expect("groups that count memory");
        // What it has is not counted where it goes: only what it takes from then on.
        fs::write(group.join("memory.limit_in_bytes"), "300K").unwrap();
        fs::write(group.join("cgroup.procs"), pid).unwrap();
        Some(Self(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who is in it still, after a test that failed, goes back.
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write("/sys/fs/cgroup/memory/cgroup.procs", pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn pr_01_pr_07_killed_and_out_of_memory_it_is_back_and_nothing_is_lost() {
    let machine = Machine::with_bridge();
    let broker = Broker::new(&machine.network(), true);
    let topic = "orders";
    machine.configure(
        ENV_FILE,
        &[
            ("ORDER_EVENT_MODE", "KAFKA"),
            ("KAFKA_BOOTSTRAP_SERVERS", &broker.bootstrap),
            ("KAFKA_ORDER_EVENTS_TOPIC", topic),
        ],
    );
    machine.drop_in(UNIT, "RestartSec=50ms");
    machine.append(0..1_000);
    machine.start(UNIT);
    let mut next = 1_000;
    for restarts in 1..=5 {
        machine.append(next..next + 5_000);
        next += 5_000;
        machine.succeed(&["systemctl", "kill", "--signal=SIGKILL", UNIT]);
        machine.wait_for_restarts(UNIT, restarts);
    }
    machine.wait_until_delivered(next);

    // One that has not read much yet, and now takes memory for what it reads.
    machine.succeed(&["systemctl", "restart", UNIT]);
    let group = Group::too_small(&machine);
    let lines = (next..next + 20_000).map(|number| padded_event(number, 1_000) + "\n");
    machine.append_lines(INPUT, &lines.collect::<String>());
    next += 20_000;
    // systemd counts anew from a start by hand.
    wait_for("the kill", || (machine.number(UNIT, "NRestarts") >= 1).then_some(()));
    if let Some(group) = &group {
        let control = fs::read_to_string(group.0.join("memory.oom_control")).unwrap();
        assert!(control.contains("oom_kill 1"), "{control}");
    } else {
        // The limit is the unit's: the next one could not even start.
        machine.succeed(&["systemctl", "set-property", "--runtime", UNIT, "MemoryMax=512M"]);
    }
    machine.wait_for_restarts(UNIT, 1);
    machine.wait_until_delivered(next);
    drop(group);
    let mut events: HashMap<u64, Vec<String>> = HashMap::new();
    for (number, id) in messages(&machine, &broker, topic) {
        events.entry(number).or_default().push(id);
    }
    check(&events, next);
    let journal = machine.journal(UNIT);
    let kills = journal.lines().filter(|line| line.contains("status=9/KILL")).count();
    assert!(kills >= 6, "{kills} kills\n{journal}");
    assert_eq!(machine.succeed(&["systemctl", "is-active", UNIT]).trim(), "active");
}

#[test]
fn pr_03_stopped_with_the_broker_down_it_ends_in_time_and_well() {
    let machine = Machine::with_bridge();
    machine.configure(ENV_FILE, &NO_BROKER);
    machine.append(0..1_000);
    machine.start(UNIT);
    wait_for("events that wait for the broker", || {
        (machine.status()["ledger"]["lines"]["pending"] == 1_000).then_some(())
    });
    let (stopped, took) = timed(|| machine.systemctl("stop", UNIT));
    measured("a stop with the broker down", took);
    assert!(stopped.status.success());
    assert_eq!(machine.property(UNIT, "TimeoutStopUSec"), "30s");
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(machine.property(UNIT, "Result"), "success");
    assert_eq!(machine.property(UNIT, "ActiveState"), "inactive");
    assert_eq!(machine.number(UNIT, "ExecMainStatus"), 0);
    // Who was stopped stays stopped.
    assert_eq!(machine.number(UNIT, "NRestarts"), 0);

    machine.configure(ENV_FILE, &[("SOCKETIO_START_GRACE_MS", "0")]);
    machine.start(UNIT);
    machine.wait_until_delivered(1_000);
    assert!(fs::metadata(machine.path(INPUT)).unwrap().len() > 0);
}

#[test]
fn in_20_files_that_were_deleted_before_they_were_delivered_outlive_a_daemon_that_is_killed() {
    let machine = Machine::with_bridge();
    machine.configure(ENV_FILE, &[&NO_BROKER[..], &[("BRIDGE_MAX_IN_FLIGHT", "10")]].concat());
    machine.append(0..100);
    machine.start(UNIT);
    let held = || machine.status()["input"]["held_files"].as_u64();
    wait_for("the file to be followed", || (held() == Some(1)).then_some(()));
    let input = machine.path(INPUT);
    // One that was rotated and deleted, and the one at the path.
    fs::rename(&input, input.with_extension("jsonl.1")).unwrap();
    machine.append(100..200);
    wait_for("both to be open", || (held() == Some(2)).then_some(()));
    fs::remove_file(input.with_extension("jsonl.1")).unwrap();
    fs::remove_file(&input).unwrap();
    let stored = || machine.number(UNIT, "NFileDescriptorStore");
    wait_for("both to be kept", || (stored() == 2).then_some(()));
    wait_for("a commit", || (machine.status()["checkpoint"]["age_seconds"] == 0.0).then_some(()));
    machine.succeed(&["systemctl", "kill", "--signal=KILL", UNIT]);
    machine.wait_for_restarts(UNIT, 1);
    wait_for("both to be open again", || (held() == Some(2)).then_some(()));
    machine.configure(ENV_FILE, &[("SOCKETIO_START_GRACE_MS", "0")]);
    machine.succeed(&["systemctl", "restart", UNIT]);
    wait_for("all to be delivered", || {
        (machine.status()["ledger"]["lines"]["delivered"] == 200).then_some(())
    });
    assert_eq!(machine.status()["ledger"]["bytes"]["lost"], 0);
    // Finished once nobody has written to them for five minutes: until then they are kept.
    assert_eq!(stored(), 2);
}
