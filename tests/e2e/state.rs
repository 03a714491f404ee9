//! A state directory in trouble: delivery goes on, alarms tell, recovery is by itself.
//!
//! Full and read-only disks are file systems in a mount namespace of the daemon's own.

use std::process::Command;

use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::{Bridge, Daemon};
use crate::support::wait_for;

/// A bridge whose state directory is a small file system of its own. `prepare` runs in there
/// before the daemon.
fn bridge_on_small_disk(bootstrap: &str, topic: &str, prepare: &str) -> Bridge {
    let mut bridge = Bridge::to_kafka(bootstrap, topic);
    let state = bridge.state();
    std::fs::create_dir_all(&state).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=256k,nr_inodes=64,mode=0700 tmpfs {state} && cd {state} && {prepare} cd / && exec \"$@\"",
        state = state.display()
    );
    let namespace = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    bridge.wrapper = ["unshare", namespace, "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    bridge
}

/// Runs a command in the state directory as the daemon sees it.
fn in_state(bridge: &Bridge, daemon: &Daemon, script: &str) -> String {
    let output = Command::new("nsenter")
        .args(["-t", &daemon.pid().to_string(), "-m", "--preserve-credentials", "sh", "-c"])
        .arg(format!("cd {} && {script}", bridge.state().display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The committed offset, as the fsynced checkpoint in the namespace has it.
fn committed(bridge: &Bridge, daemon: &Daemon) -> u64 {
    let text = in_state(bridge, daemon, "cat checkpoint.json 2>/dev/null || true");
    // There is none right after the first start.
    let Ok(checkpoint) = serde_json::from_str::<serde_json::Value>(&text) else { return 0 };
    let generations = checkpoint["body"]["generations"].as_array().unwrap().clone();
    generations.last().map_or(0, |live| live["offset"].as_u64().unwrap())
}

fn wait_until_committed(bridge: &Bridge, daemon: &Daemon) {
    let size = std::fs::metadata(bridge.input()).unwrap().len();
    wait_for("the commit", || (committed(bridge, daemon) == size).then_some(()));
}

#[test]
fn ck_05_a_full_state_directory_holds_only_bad_lines_up_and_recovers_by_itself() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = bridge_on_small_disk(&broker.bootstrap, &topic, "");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..10);
    wait_until_committed(&bridge, &daemon);
    in_state(&bridge, &daemon, "cat /dev/zero > fill 2>/dev/null; true");

    input.events(10..200);
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.wait_for_events(200);
    daemon.wait_for_log("cannot write the checkpoint");
    input.write(b"broken\n");
    input.events(200..210);
    consumer.wait_for_events(210);
    daemon.wait_for_log("cannot write a rejected line");
    assert!(committed(&bridge, &daemon) < std::fs::metadata(bridge.input()).unwrap().len());

    in_state(&bridge, &daemon, "rm fill");
    wait_until_committed(&bridge, &daemon);
    daemon.wait_for_log("the checkpoint can be written again");
    let rejects = in_state(&bridge, &daemon, "cat rejects.jsonl");
    assert_eq!(rejects.lines().count(), 1, "{rejects}");
    let reject: serde_json::Value = serde_json::from_str(&rejects).unwrap();
    assert_eq!(reject["line"], "broken");
    consumer.read_all();
    assert_eq!(consumer.numbers().len(), 210);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn reading_stops_when_bad_lines_fill_the_limit_and_goes_on_when_they_can_be_written() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let mut bridge = bridge_on_small_disk(&broker.bootstrap, &topic, "");
    bridge.set("BRIDGE_MAX_IN_FLIGHT", "20");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..10);
    wait_until_committed(&bridge, &daemon);
    in_state(&bridge, &daemon, "cat /dev/zero > fill 2>/dev/null; true");
    input.write(&b"broken\n".repeat(20));
    input.events(10..20);
    daemon.wait_for_log("cannot write a rejected line");
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let overtaken = crate::support::poll(std::time::Duration::from_secs(2), || {
        (consumer.size() > 10).then_some(())
    });
    assert!(overtaken.is_none(), "lines beyond the limit were read");
    in_state(&bridge, &daemon, "rm fill");
    consumer.wait_for_events(20);
    wait_until_committed(&bridge, &daemon);
    assert_eq!(in_state(&bridge, &daemon, "cat rejects.jsonl").lines().count(), 20);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ck_06_a_state_directory_that_becomes_read_only_is_an_alarm_and_recovers() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = bridge_on_small_disk(&broker.bootstrap, &topic, "");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..10);
    wait_until_committed(&bridge, &daemon);
    let state = bridge.state();
    // A busy mount (open notes) can't be remounted read-only; a read-only bind over it can.
    let cover = format!("mount --bind . {0} && mount -o remount,ro,bind {0}", state.display());
    in_state(&bridge, &daemon, &cover);
    input.events(10..200);
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.wait_for_events(200);
    daemon.wait_for_log("cannot write the checkpoint");
    in_state(&bridge, &daemon, &format!("cd / && umount {}", state.display()));
    wait_until_committed(&bridge, &daemon);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn ck_06_a_state_directory_that_is_read_only_at_the_start_is_78() {
    let state_prepare = "mount -o remount,ro . &&";
    let bridge = bridge_on_small_disk("127.0.0.1:1", "nobody", state_prepare);
    let output = bridge.run(&["run"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{errors}");
    assert!(errors.contains(&bridge.state().display().to_string()), "{errors}");
}

#[test]
fn ck_05_a_state_directory_that_is_full_at_the_start_is_an_alarm() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let fill = "{ cat /dev/zero > fill 2>/dev/null; true; } &&";
    let bridge = bridge_on_small_disk(&broker.bootstrap, &topic, fill);
    bridge.append().events(0..10);
    let daemon = bridge.start();
    Topic::open(&broker.bootstrap, &topic).wait_for_events(10);
    daemon.wait_for_log("cannot write the checkpoint");
    in_state(&bridge, &daemon, "rm fill");
    wait_for("a checkpoint", || {
        in_state(&bridge, &daemon, "ls").contains("checkpoint.json").then_some(())
    });
    wait_until_committed(&bridge, &daemon);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_state_directory_that_is_a_file_is_78() {
    let bridge = Bridge::to_kafka("127.0.0.1:1", "nobody");
    std::fs::write(bridge.state(), "").unwrap();
    let output = bridge.run(&["run"]);
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
}
