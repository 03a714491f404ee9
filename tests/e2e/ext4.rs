//! On a real ext4, in an image of the test's own: power cuts, inodes used again, disks that go and come.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::files::{Setup, length, lines, setup};
use crate::support::account::Base;
use crate::support::calls::{Failing, stopped};
use crate::support::consumer::Topic;
use crate::support::daemon::{Bridge, Daemon};
use crate::support::disk::Disk;

use crate::support::wait_for;

pub fn image(setup: &Setup, name: &str) -> PathBuf {
    setup.bridge.directory().join(name)
}

/// A disk for the input's directory.
pub fn input_disk(setup: &Setup, options: &[&str]) -> Disk {
    let directory = setup.bridge.input().parent().unwrap().to_owned();
    Disk::format(&image(setup, "image"), &directory, options).mounted("rw")
}

/// ext4 gives a new file the inode that was freed last. Whether it also knows when a file was born
/// depends on the size of its inodes.
#[test]
fn in_14_an_inode_that_is_used_again_is_another_file_with_and_without_birth_times() {
    for options in [["-I", "256"], ["-I", "128"]] {
        let setup = setup();
        let _disk = input_disk(&setup, &options);
        let input = setup.bridge.input();
        let inode = |path: &std::path::Path| fs::metadata(path).unwrap().ino();
        let daemon = setup.deliver(0..2);
        let base = Base::of(&daemon);
        assert_eq!(daemon.stop(), 0);
        let before = inode(&input);
        // Two lines, of which the first is the same, and as many bytes.
        fs::remove_file(&input).unwrap();
        setup.bridge.append().events([0, 2]);
        assert_eq!(inode(&input), before, "ext4 took another inode");
        let daemon = setup.bridge.start();
        setup.expect(&[0, 1, 0, 2]);
        assert_eq!(daemon.stop(), 0);

        // Rotated twice while it is down, the older file deleted: its inode is the live one's now.
        setup.bridge.append().events([3]);
        let aside = |end: &str| image(&setup, &format!("events/order_events.jsonl{end}"));
        fs::rename(&input, aside(".1")).unwrap();
        setup.bridge.append().events([0, 4, 5]);
        fs::rename(aside(".1"), aside(".2")).unwrap();
        fs::rename(&input, aside(".1")).unwrap();
        fs::remove_file(aside(".2")).unwrap();
        setup.bridge.append().events([0, 6]);
        assert_eq!(inode(&input), before, "ext4 took another inode");
        let daemon = setup.bridge.start();
        // Event 3 is gone, and nobody had seen it.
        let all = [0, 1, 0, 2, 0, 4, 5, 0, 6];
        setup.expect(&all);
        setup.expect_accounted(daemon, &base, length(all), 0);
    }
}

#[test]
fn in_38_an_input_whose_disk_is_away_for_a_while_is_resumed_whatever_its_device_number() {
    let setup = setup();
    let mut disk = input_disk(&setup, &[]);
    // One line: so little that a copy would not be taken for it.
    assert_eq!(setup.deliver(0..1).stop(), 0);
    let device = || fs::metadata(setup.bridge.input()).unwrap().dev();
    let first = device();

    // Away while it is down, and at the start.
    disk.unmount();
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input: it does not exist yet");
    assert_eq!(daemon.stop(), 0);
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input: it does not exist yet");
    // Back on another device: the loop device that it was on is another's now.
    let mut others = Vec::new();
    for number in 0..8 {
        let elsewhere = image(&setup, &format!("elsewhere-{number}"));
        let other = Disk::format(&image(&setup, &format!("other-{number}")), &elsewhere, &[]);
        others.push(other.mounted("rw"));
        // Another test may have given back one that is taken first.
        if fs::metadata(&elsewhere).unwrap().dev() == first {
            break;
        }
    }
    disk.mount("rw");
    assert_ne!(device(), first, "the same device number shows nothing");
    setup.bridge.append().events(1..20);
    setup.expect(&(0..20).collect::<Vec<_>>());

    // Taken away while it is followed: who has it open goes on.
    let mut late = setup.bridge.append();
    disk.detach();
    daemon.wait_for_log("moved away or deleted");
    late.events(20..25);
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.wait_for_events(25);
    disk.mount("rw");
    setup.bridge.append().events(25..30);
    setup.expect(&(0..30).collect::<Vec<_>>());
    drop(late);
    assert_eq!(daemon.stop(), 0);

    // Away once more, for one start and stop after the other.
    disk.unmount();
    for _ in 0..3 {
        let daemon = setup.bridge.start();
        daemon.wait_for_log("waiting for the input: it does not exist yet");
        assert_eq!(daemon.stop(), 0);
    }
    disk.mount("rw");
    setup.bridge.append().events(30..40);
    let daemon = setup.bridge.start();
    setup.expect(&(0..40).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

/// The steps of two commits: remove, open, write, sync; remove, link, rename; rename; open, sync.
const STEPS: usize = 20;

/// The offset in the checkpoint itself, not in a note: notes are not for power cuts.
fn committed(bridge: &Bridge) -> Option<u64> {
    let text = fs::read_to_string(bridge.state().join("checkpoint.json")).ok()?;
    let checkpoint: serde_json::Value = serde_json::from_str(&text).ok()?;
    checkpoint["body"]["generations"].as_array()?.last()?["offset"].as_u64()
}

/// Waits until the daemon says that all of the input is committed: that outlives the power. Gives its size.
fn wait_until_committed(setup: &Setup) -> u64 {
    let size = fs::metadata(setup.bridge.input()).unwrap().len();
    wait_for("the commit", || {
        (setup.bridge.status()["checkpoint"]["offset"] == size).then_some(size)
    })
}

/// Lets the daemon run to the end of each call of a commit: `each` is told the number of the step, before
/// it and when the daemon stands still after it.
fn cut_at_each_step(
    daemon: &Daemon,
    state: &Path,
    steps: usize,
    mut each: impl FnMut(usize, bool),
) {
    let names =
        ["checkpoint.tmp", "checkpoint.json", "checkpoint.prev.tmp", "checkpoint.prev.json"];
    let files = names.iter().map(|name| state.join(name));
    let paths: Vec<PathBuf> = files.chain([state.to_owned()]).collect();
    let calls = "unlink,openat,pwrite64,fsync,linkat,rename:signal=STOP";
    let stops = Failing::of(daemon, &paths, calls);
    for step in 0..steps {
        each(step, false);
        stopped(&stops, step + 1);
        each(step, true);
        daemon.signal("CONT");
    }
    drop(stops);
    daemon.signal("CONT");
}

/// Nobody is there to take them, and the file grows: a commit has nothing to say but its size.
#[test]
fn ck_02_ck_03_a_power_cut_with_lines_in_flight_counts_none_of_them_as_delivered() {
    let mut bridge = Bridge::socketio();
    bridge.set("SOCKETIO_START_GRACE_MS", "600000");
    bridge.set("BRIDGE_CHECKPOINT_INTERVAL_MS", "100");
    let (image, state) = (bridge.directory().join("image"), bridge.state());
    let disk = Disk::format(&image, &state, &[]).mounted("rw");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..3);
    wait_for("lines in flight, and a first commit", || {
        let status = bridge.status();
        let pending = status["ledger"]["lines"]["pending"] == 3;
        (pending && !status["checkpoint"]["committed_at"].is_null()).then_some(())
    });
    let mut next = 3;
    let cut = |step: usize| bridge.directory().join(format!("cut-{step}"));
    cut_at_each_step(&daemon, &state, STEPS, |step, stands| {
        if stands {
            disk.cut_power(&cut(step));
        } else {
            input.events([next]);
            next += 1;
        }
    });
    daemon.kill();
    drop(disk);
    for step in 0..STEPS {
        let _disk = Disk::of(&cut(step), &state).mounted("rw");
        assert_eq!(bridge.checkpoint()["offset"], 0, "step {step}");
        assert!(committed(&bridge).is_some(), "step {step}: not even that was committed");
    }
}

#[test]
fn ck_02_ck_03_a_power_cut_after_any_step_of_a_commit_leaves_a_position_that_is_not_ahead() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_CHECKPOINT_INTERVAL_MS", "100");
    // ext4 mends a rename without fsync by itself, and writes every five seconds: neither, here.
    let options = "rw,noauto_da_alloc,commit=300";
    let state = setup.bridge.state();
    let disk = Disk::format(&image(&setup, "image"), &state, &[]).mounted(options);
    let daemon = setup.deliver(0..10);
    wait_until_committed(&setup);
    let mut input = setup.bridge.append();
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);

    let mut delivered = Vec::new();
    let mut next = 10;
    cut_at_each_step(&daemon, &state, STEPS, |step, stands| {
        if stands {
            disk.cut_power(&image(&setup, &format!("cut-{step}")));
            delivered.push(consumer.read_all().len() as u64);
        } else {
            input.events(next..next + 3);
            next += 3;
        }
    });
    input.events(next..next + 3);
    next += 3;
    setup.expect(&(0..next).collect::<Vec<_>>());
    let size = wait_until_committed(&setup);
    disk.cut_power(&image(&setup, &format!("cut-{STEPS}")));
    delivered.push(next);
    assert_eq!(daemon.stop(), 0);

    let topic = setup.broker.topic(1);
    let mut later = Bridge::to_kafka(&setup.broker.bootstrap, &topic);
    later.set("BRIDGE_INPUT", &setup.bridge.input().to_string_lossy());
    let mut consumer = Topic::open(&setup.broker.bootstrap, &topic);
    let length = |events: u64| lines(0..events).len() as u64;
    for (step, delivered) in delivered.into_iter().enumerate() {
        let mut cut =
            Disk::of(&image(&setup, &format!("cut-{step}")), &later.state()).mounted("rw");
        let position = later.checkpoint()["offset"].as_u64().unwrap();
        assert!(position <= length(delivered), "step {step}: ahead of what was delivered");
        assert!(committed(&later).is_some(), "step {step}: the checkpoint itself is not readable");
        let first = (0..=next).find(|events| length(*events) == position);
        let first = first.unwrap_or_else(|| panic!("step {step}: {position} is within a line"));
        assert!(first >= 10, "step {step}: an older position than was committed before");
        assert!(
            step < STEPS || committed(&later) == Some(size),
            "{:?} is not {size}",
            committed(&later)
        );
        // And it goes on from there.
        let before = consumer.records.len();
        let daemon = later.start();
        daemon.wait_for_log("following the input");
        later.wait_until_settled();
        assert_eq!(daemon.stop(), 0);
        consumer.read_all();
        assert_eq!(consumer.numbers()[before..], (first..next).collect::<Vec<_>>(), "step {step}");
        cut.unmount();
    }
}
