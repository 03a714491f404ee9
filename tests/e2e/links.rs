//! An input that has two names, or whose name is a symbolic link.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files::{Setup, setup};
use crate::support::consumer::{Topic, assert_first_deliveries_in_order};
use crate::support::events::Appender;
use crate::support::{poll, wait_for};

/// Rotated as logrotate would by hand: a second name, then the first one goes.
fn link_and_unlink(setup: &Setup, end: &str) {
    let mut rotated = setup.bridge.input().into_os_string();
    rotated.push(end);
    fs::hard_link(setup.bridge.input(), rotated).unwrap();
    fs::remove_file(setup.bridge.input()).unwrap();
}

#[test]
fn in_17_a_hard_link_is_the_same_file_and_rotation_by_link_and_unlink_repeats_nothing() {
    let setup = setup();
    setup.bridge.append().events(0..10);
    // A second name from the start on, that of a rotated file.
    let twin = setup.bridge.directory().join("events/order_events.jsonl.9");
    fs::hard_link(setup.bridge.input(), &twin).unwrap();
    let daemon = setup.bridge.start();
    setup.expect(&(0..10).collect::<Vec<_>>());
    // What is appended under one name is appended under both.
    Appender::open(&twin).events(10..20);
    setup.expect(&(0..20).collect::<Vec<_>>());

    // While it runs: with its writer still at it, and without.
    let mut late = setup.bridge.append();
    link_and_unlink(&setup, ".2");
    late.events(20..25);
    setup.bridge.append().events(25..30);
    setup.expect(&(0..30).collect::<Vec<_>>());
    link_and_unlink(&setup, ".1");
    setup.bridge.append().events(30..40);
    setup.expect(&(0..40).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);

    // While it is down, with lines that it has not read.
    setup.bridge.append().events(40..50);
    link_and_unlink(&setup, ".0");
    setup.bridge.append().events(50..60);
    let daemon = setup.bridge.start();
    setup.expect(&(0..60).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

/// The directory that the targets of the input's link are in; the input's own has nothing but the link.
fn targets(setup: &Setup) -> PathBuf {
    let directory = setup.bridge.directory().join("targets");
    fs::create_dir(&directory).unwrap();
    directory
}

/// Makes the input a link to `target`, at once and without a moment in which there is none.
fn retarget(setup: &Setup, target: &Path) {
    let next = setup.bridge.directory().join("events/next");
    symlink(target, &next).unwrap();
    fs::rename(next, setup.bridge.input()).unwrap();
}

/// The target that the daemon reads now, by its size.
fn wait_until_opened(setup: &Setup, target: &Path) {
    let size = fs::metadata(target).unwrap().len();
    wait_for("the target to be followed", || {
        let input = setup.bridge.status()["input"].clone();
        (input["size"] == size).then_some(())
    });
}

/// 30 targets of 100 lines, as another collector's own test of this has it.
#[test]
fn in_18_a_link_that_is_retargeted_30_times_loses_nothing_and_late_lines_of_each_target_arrive() {
    const TARGETS: u64 = 30;
    let setup = setup();
    let directory = targets(&setup);
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    let mut late: Option<Appender> = None;
    for round in 0..TARGETS {
        let target = directory.join(format!("{round}.jsonl"));
        let mut writer = Appender::open(&target);
        // No two have the same size, so that one can see which of them is followed.
        writer.events(round * 100..round * 100 + 95 - round);
        retarget(&setup, &target);
        wait_until_opened(&setup, &target);
        writer.events(round * 100 + 95 - round..round * 100 + 95);
        if let Some(mut before) = late.replace(writer) {
            before.events(round * 100 - 5..round * 100);
        }
    }
    late.unwrap().events(TARGETS * 100 - 5..TARGETS * 100);
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.wait_for_events(TARGETS as usize * 100);
    setup.bridge.wait_until_settled();
    consumer.read_all();
    let numbers = consumer.numbers();
    let distinct: HashSet<u64> = numbers.iter().copied().collect();
    assert_eq!(numbers.len(), distinct.len(), "repeated");
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
    assert_eq!(daemon.stop(), 0);

    // Retargeted once more while it is down, the link's new target is read from its start.
    let target = directory.join("last.jsonl");
    Appender::open(&target).events(3_000..3_100);
    retarget(&setup, &target);
    let daemon = setup.bridge.start();
    consumer.wait_for_events(3_100);
    setup.bridge.wait_until_settled();
    consumer.read_all();
    assert_eq!(consumer.numbers()[numbers.len()..], (3_000..3_100).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_18_a_dangling_link_and_a_loop_are_waited_out() {
    let setup = setup();
    let directory = targets(&setup);
    let target = directory.join("real.jsonl");
    symlink(&target, setup.bridge.input()).unwrap();
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input: it does not exist yet");
    Appender::open(&target).events(0..10);
    setup.expect(&(0..10).collect::<Vec<_>>());

    // It dangles while it is followed, and its target comes back.
    let aside = directory.join("aside");
    fs::rename(&target, &aside).unwrap();
    wait_for("the state to be missing", || {
        (setup.bridge.status()["reason"] == "missing").then_some(())
    });
    fs::rename(&aside, &target).unwrap();
    Appender::open(&target).events(10..20);
    setup.expect(&(0..20).collect::<Vec<_>>());

    // A loop is an error, told once, and not the end of the daemon.
    let input = setup.bridge.input();
    retarget(&setup, &input);
    daemon.wait_for_log("waiting for the input: it can't be read");
    assert_eq!(setup.bridge.status()["reason"], "io_error");
    let told = || daemon.log().iter().filter(|line| line.contains("it can't be read")).count();
    let again = poll(Duration::from_millis(2_500), || (told() > 1).then_some(()));
    assert!(again.is_none(), "{:#?}", daemon.log());
    retarget(&setup, &target);
    Appender::open(&target).events(20..30);
    setup.expect(&(0..30).collect::<Vec<_>>());
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.read_all();
    assert_first_deliveries_in_order(&consumer.records);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}
