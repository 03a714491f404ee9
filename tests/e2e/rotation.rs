//! Rotated in every way that admins know, while the daemon runs and while it does not.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::files::{Setup, length, lines, setup};
use crate::support::account::Base;
use crate::support::consumer::{Topic, assert_first_deliveries_in_order};
use crate::support::events::{Appender, padded_event};
use crate::support::wait_for;

/// The file that the input was rotated to, by the end of its name.
fn rotated(setup: &Setup, end: &str) -> PathBuf {
    let mut name = setup.bridge.input().into_os_string();
    name.push(end);
    name.into()
}

/// `create`: the file goes away under another name, the app opens a new one.
pub fn rename(setup: &Setup, end: &str) -> PathBuf {
    let to = rotated(setup, end);
    fs::rename(setup.bridge.input(), &to).unwrap();
    to
}

fn gzip(path: &Path) {
    assert!(Command::new("gzip").arg(path).status().unwrap().success());
}

#[test]
fn in_07_three_rotations_with_compression_while_down_lose_nothing_and_repeat_nothing() {
    let setup = setup();
    // As many at once as later: what is taken for them is taken once.
    let daemon = setup.deliver(0..5_000);
    let base = Base::of(&daemon);
    assert_eq!(daemon.stop(), 0);
    setup.bridge.append().events(5_000..5_010);
    rename(&setup, ".3");
    setup.bridge.append().events(5_010..10_000);
    rename(&setup, ".2");
    setup.bridge.append().events(10_000..10_010);
    rename(&setup, ".1");
    setup.bridge.append().events(10_010..10_020);
    gzip(&rotated(&setup, ".3"));
    gzip(&rotated(&setup, ".2"));
    let daemon = setup.bridge.start();
    setup.expect(&(0..10_020).collect::<Vec<_>>());
    setup.expect_accounted(daemon, &base, length(0..10_020), 0);
    // And nothing of it again.
    setup.bridge.append().events(10_020..10_030);
    let daemon = setup.bridge.start();
    setup.expect(&(0..10_030).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_08_the_life_that_was_half_read_is_resumed_inside_its_gz() {
    let setup = setup();
    assert_eq!(setup.deliver(0..3_000).stop(), 0);
    setup.bridge.append().events(3_000..6_000);
    rename(&setup, "-20260129");
    gzip(&rotated(&setup, "-20260129"));
    // Nothing at the path yet.
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    setup.bridge.append().events(6_000..6_010);
    setup.expect(&(0..6_010).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

/// How much there is in a packed file is known once it was unpacked: less, so far, is no loss.
#[test]
fn in_08_what_was_seen_before_it_was_packed_is_delivered_and_not_told_as_lost() {
    let mut setup = setup();
    let daemon = setup.deliver(0..10);
    setup.bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "100");
    let from = fs::metadata(setup.bridge.input()).unwrap().len();
    let large = padded_event(10, 300_000) + "\n";
    let (now, later) = large.split_at(large.len() - 20);
    setup.bridge.append().write(now.as_bytes());
    let to = from + now.len() as u64;
    wait_for("the size to be seen", || (setup.bridge.checkpoint()["size"] == to).then_some(()));
    assert_eq!(daemon.stop(), 0);
    setup.bridge.append().write(later.as_bytes());
    rename(&setup, ".1");
    gzip(&rotated(&setup, ".1"));
    setup.bridge.append().events(11..20);
    let daemon = setup.bridge.start();
    setup.expect(&(0..20).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

#[test]
fn in_07_bytes_of_a_file_deleted_while_down_are_told_as_lost_with_their_range() {
    let mut setup = setup();
    let daemon = setup.deliver(0..10);
    let from = fs::metadata(setup.bridge.input()).unwrap().len();
    // Seen, and not delivered.
    setup.bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "100");
    setup.bridge.append().write(br#"{"event_type":"order_event","times"#);
    let to = from + 34;
    wait_for("the size to be seen", || (setup.bridge.checkpoint()["size"] == to).then_some(()));
    assert_eq!(daemon.stop(), 0);
    fs::remove_file(setup.bridge.input()).unwrap();
    setup.bridge.append().events(20..30);
    let daemon = setup.bridge.start();
    let lost = daemon.wait_for_log("are lost");
    for part in ["ERROR", "moved_away", &format!("from={from}"), &format!("to={to}")] {
        assert!(lost.contains(part), "{part} in {lost}");
    }
    setup.expect(&(0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    let lost = setup.bridge.checkpoint()["lost"].clone();
    assert_eq!(lost.as_array().map(Vec::len), Some(1));
    assert_eq!(lost[0]["reason"], "moved_away");
    assert_eq!((&lost[0]["from"], &lost[0]["to"]), (&from.into(), &to.into()));
}

/// `copytruncate`, three times while the daemon is down.
#[test]
fn in_09_copies_made_while_down_are_read_from_where_the_original_stood() {
    let setup = setup();
    assert_eq!(setup.deliver(0..10).stop(), 0);
    let mut input = setup.bridge.append();
    for (number, end) in [(10, ".3"), (20, ".2"), (30, ".1")] {
        input.events(number..number + 10);
        fs::copy(setup.bridge.input(), rotated(&setup, end)).unwrap();
        OpenOptions::new().write(true).open(setup.bridge.input()).unwrap().set_len(0).unwrap();
    }
    input.events(40..50);
    let daemon = setup.bridge.start();
    setup.expect(&(0..50).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

/// logrotate's own files, for one input.
pub fn logrotate(setup: &Setup, directives: &str) {
    let directory = setup.bridge.directory();
    let (configuration, state) = (directory.join("logrotate.conf"), directory.join("logrotate"));
    let text = format!("{} {{\n{directives}\n}}\n", setup.bridge.input().display());
    fs::write(&configuration, text).unwrap();
    let done = Command::new("/usr/sbin/logrotate")
        .args(["--force", "--state"])
        .args([&state, &configuration])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn in_09_fifty_live_copytruncates_by_logrotate_lose_nothing() {
    let setup = setup();
    let daemon = setup.deliver(0..1);
    let base = Base::of(&daemon);
    let mut input = setup.bridge.append();
    input.events(1..5);
    for round in 0..50 {
        input.events(round * 20 + 5..round * 20 + 15);
        // Between its copy and its truncation nobody may write; that is logrotate's own gap.
        logrotate(&setup, "rotate 60\ncopytruncate\nmissingok");
        input.events(round * 20 + 15..round * 20 + 25);
    }
    // Rotated some hundred times a second, a life may be found after the one that followed it.
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.wait_for_events(1_005);
    setup.bridge.wait_until_settled();
    consumer.read_all();
    let mut numbers = consumer.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1_005).collect::<Vec<_>>(), "lost or repeated");
    setup.expect_accounted(daemon, &base, length(0..1_005), 0);
}

#[test]
fn in_46_logrotates_other_ways_lose_nothing() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    // dateformat counts seconds: two rotations in one would be skipped.
    let mut ways = [
        "rotate 60\ncreate\ndateext\ndateformat -%Y%m%d-%s",
        "rotate 60\ncreate",
        "rotate 60\ncreate\ncompress",
        "rotate 60\ncreate\ncompress\ndelaycompress",
        "rotate 60\nrenamecopy\ncreate",
        "rotate 60\nnocreate",
    ]
    .to_vec();
    let mut next = 10;
    for _ in 0..2 {
        for way in &ways {
            setup.bridge.append().events(next..next + 100);
            next += 100;
            logrotate(&setup, way);
            setup.bridge.append().events(next..next + 10);
            next += 10;
        }
        ways.remove(0);
    }
    setup.expect(&(0..next).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

#[test]
fn in_05_in_06_200_rotations_in_a_row_with_late_writers_lose_nothing() {
    let setup = setup();
    let daemon = setup.deliver(5_000..5_010);
    let base = Base::of(&daemon);
    let (began, mut late) = (Instant::now(), None::<Appender>);
    for round in 0..200_u64 {
        let mut input = setup.bridge.append();
        input.events(round * 10..round * 10 + 6);
        rename(&setup, &format!("-20260129-{round:06}"));
        // Its writer has not noticed yet; the one before that does only now.
        input.events(round * 10 + 6..round * 10 + 8);
        if let Some(mut before) = late.replace(input) {
            before.events(round * 10 - 2..round * 10);
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10), "slower than it is to show");
    late.unwrap().events(1_998..2_000);
    setup.bridge.append().events(2_000..2_010);
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.wait_for_events(2_020);
    setup.bridge.wait_until_settled();
    consumer.read_all();
    let numbers = consumer.numbers();
    let distinct: HashSet<u64> = numbers.iter().copied().collect();
    assert_eq!((distinct.len(), numbers.len()), (2_020, 2_020), "lost or repeated");
    let written = length((5_000..5_010).chain(0..2_010));
    setup.expect_accounted(daemon, &base, written, 0);
}

/// What `OpenAlgo` does to its own logs: the last lines, written over the file in place.
fn cut_to_last(path: &Path, keep: usize) {
    let content = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = content.lines().collect();
    let last = &lines[lines.len().saturating_sub(keep)..];
    let mut file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    for line in last {
        file.write_all(line.as_bytes()).unwrap();
        file.write_all(b"\n").unwrap();
    }
}

#[test]
fn in_13_cut_in_place_to_the_last_lines_a_hundred_times_repeats_nothing() {
    let setup = setup();
    let daemon = setup.deliver(0..20);
    let base = Base::of(&daemon);
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    for round in 0..100 {
        if round > 0 {
            setup.bridge.append().events(round * 20..round * 20 + 20);
        }
        // What is cut before it was read is lost, whoever reads. The position would not tell: each life
        // is as long as the one before.
        consumer.wait_for_events(round as usize * 20 + 20);
        cut_to_last(&setup.bridge.input(), 30);
    }
    consumer.wait_for_events(2_000);
    setup.bridge.wait_until_settled();
    consumer.read_all();
    let numbers = consumer.numbers();
    println!("{} repeated of 2000 in 100 cuts", numbers.len() - 2_000);
    assert_first_deliveries_in_order(&consumer.records);
    // A cut that comes while the one before is being judged may repeat what it kept.
    assert!(numbers.len() < 2_000 + 100 * 30, "everything that was kept is repeated");
    // What was repeated was read again, in another life.
    setup.expect_accounted(daemon, &base, length(numbers.iter().copied()), 0);
    // While it is down too.
    setup.bridge.append().events(2_000..2_020);
    cut_to_last(&setup.bridge.input(), 40);
    setup.bridge.append().events(2_020..2_040);
    let before = numbers.len();
    let daemon = setup.bridge.start();
    consumer.wait_for_events(2_040);
    setup.bridge.wait_until_settled();
    consumer.read_all();
    assert_eq!(consumer.numbers()[before..], (2_000..2_040).collect::<Vec<_>>());
    setup.expect_accounted(daemon, &base, length(consumer.numbers()), 0);
}

/// An editor writes a new file with the same content, and moves it to the path.
#[test]
fn in_32_a_file_that_an_editor_saved_goes_on_where_it_was() {
    let setup = setup();
    let save = |more: std::ops::Range<u64>| {
        let copy = setup.bridge.directory().join("events/.saved");
        let content = fs::read_to_string(setup.bridge.input()).unwrap();
        fs::write(&copy, content + &lines(more)).unwrap();
        fs::rename(&copy, setup.bridge.input()).unwrap();
    };
    let daemon = setup.deliver(0..10);
    save(10..12);
    setup.expect(&(0..12).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    save(12..14);
    let daemon = setup.bridge.start();
    setup.expect(&(0..14).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

/// With a backup left or not, what the app writes to the file that it still has open arrives.
#[test]
fn in_32_who_has_the_file_open_that_an_editor_replaced_goes_on_writing_to_it() {
    for backup in [false, true] {
        let setup = setup();
        let daemon = setup.deliver(0..10);
        let mut app = setup.bridge.append();
        let content = fs::read(setup.bridge.input()).unwrap();
        if backup {
            fs::rename(setup.bridge.input(), rotated(&setup, "~")).unwrap();
        }
        let copy = setup.bridge.directory().join("events/.saved");
        fs::write(&copy, content).unwrap();
        fs::rename(&copy, setup.bridge.input()).unwrap();
        daemon.wait_for_log("the new file is a copy of one before");
        app.events(10..20);
        setup.expect(&(0..20).collect::<Vec<_>>());
        // Who opens it anew writes to the new one.
        setup.bridge.append().events(20..30);
        setup.expect(&(0..30).collect::<Vec<_>>());
        app.events(30..40);
        setup.expect(&(0..40).collect::<Vec<_>>());
        assert_eq!(daemon.stop(), 0);
        let daemon = setup.bridge.start();
        setup.bridge.append().events(40..50);
        setup.expect(&(0..50).collect::<Vec<_>>());
        assert_eq!(daemon.stop(), 0);
        assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
    }
}

#[test]
fn ck_08_without_a_readable_position_rotated_files_are_read_too_oldest_first() {
    let setup = setup();
    assert_eq!(setup.deliver(0..10).stop(), 0);
    rename(&setup, ".2");
    gzip(&rotated(&setup, ".2"));
    setup.bridge.append().events(10..20);
    rename(&setup, ".1");
    setup.bridge.append().events(20..30);
    for copy in
        ["checkpoint.json", "checkpoint.prev.json", "checkpoint.note.0", "checkpoint.note.1"]
    {
        let _ = fs::write(setup.bridge.state().join(copy), "garbage");
    }
    let daemon = setup.bridge.start();
    daemon.wait_for_log("the position is lost");
    setup.expect(&(0..10).chain(0..30).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}
