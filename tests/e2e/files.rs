//! Whatever happens to the one file: created late, cut, rewritten, replaced, moved, deleted.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use serde_json::Value;

use crate::support::account::{Base, expect_accounted};
use crate::support::broker::Broker;
use crate::support::consumer::Topic;
use crate::support::daemon::{Bridge, Daemon};
use crate::support::disk::{as_root, done};
use crate::support::events::{Appender, event};
use crate::support::wait_for;

pub struct Setup {
    pub broker: &'static Broker,
    pub bridge: Bridge,
    pub topic: String,
}

pub fn setup() -> Setup {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    std::fs::create_dir_all(bridge.input().parent().unwrap()).unwrap();
    Setup { broker, bridge, topic }
}

impl Setup {
    /// Waits for these events, and asserts that the topic holds nothing else.
    #[track_caller]
    pub fn expect(&self, expected: &[u64]) {
        let mut consumer = Topic::open(&self.broker.bootstrap, &self.topic);
        let distinct: std::collections::BTreeSet<_> = expected.iter().collect();
        consumer.wait_for_events(distinct.len());
        self.bridge.wait_until_settled();
        consumer.read_all();
        let numbers = consumer.numbers();
        let differ = numbers.iter().zip(expected).position(|(got, wanted)| got != wanted);
        let from = differ.unwrap_or_else(|| numbers.len().min(expected.len())).saturating_sub(3);
        let part = |all: &[u64]| all[from..].iter().copied().take(20).collect::<Vec<_>>();
        assert_eq!(part(&numbers), part(expected), "from number {from} on");
        assert_eq!(numbers.len(), expected.len());
    }

    /// The end of a test: these bytes were read and these are lost, and nothing is held any more.
    #[track_caller]
    pub fn expect_accounted(&self, daemon: Daemon, base: &Base, read: u64, lost: u64) {
        let mut topic = Topic::open(&self.broker.bootstrap, &self.topic);
        expect_accounted(&self.bridge, daemon, base, &mut topic, (read, lost));
    }

    pub fn deliver(&self, numbers: std::ops::Range<u64>) -> Daemon {
        self.bridge.append().events(numbers);
        let daemon = self.bridge.start();
        self.bridge.wait_until_settled();
        daemon
    }
}

/// The bytes of these events in a file.
pub fn length(numbers: impl IntoIterator<Item = u64>) -> u64 {
    lines(numbers).len() as u64
}

pub fn lines(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(|number| event(number) + "\n").collect()
}

#[test]
fn in_01_a_missing_file_is_waited_for_and_told_once() {
    let setup = setup();
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    let told = || daemon.log().iter().filter(|line| line.contains("waiting for the input")).count();
    let again = crate::support::poll(Duration::from_millis(2_500), || (told() > 1).then_some(()));
    assert!(again.is_none(), "{:#?}", daemon.log());
    setup.bridge.append().events(0..3);
    setup.expect(&[0, 1, 2]);
    assert_eq!(told(), 1, "{:#?}", daemon.log());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_02_a_file_that_appears_full_is_read_from_its_start_whatever_start_at_says() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_START_AT", "end");
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    let hidden = setup.bridge.directory().join("hidden");
    std::fs::write(&hidden, lines(0..1_000)).unwrap();
    std::fs::rename(&hidden, setup.bridge.input()).unwrap();
    setup.expect(&(0..1_000).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_03_a_directory_that_is_missing_created_and_replaced() {
    let setup = setup();
    let directory = setup.bridge.input().parent().unwrap().to_owned();
    std::fs::remove_dir(&directory).unwrap();
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    setup.bridge.append().events(0..3);
    setup.expect(&[0, 1, 2]);
    std::fs::rename(&directory, setup.bridge.directory().join("events.old")).unwrap();
    setup.bridge.append().events(3..6);
    setup.expect(&[0, 1, 2, 3, 4, 5]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn start_at_end_begins_behind_the_last_line_and_is_asked_once() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_START_AT", "end");
    let mut input = setup.bridge.append();
    input.events(0..5);
    input.write(&event(5).as_bytes()[..20]);
    let daemon = setup.bridge.start();
    daemon.wait_for_log("no earlier position");
    input.write(&event(5).as_bytes()[20..]);
    input.write(b"\n");
    setup.expect(&[5]);
    assert_eq!(daemon.stop(), 0);
    input.events(6..8);
    let daemon = setup.bridge.start();
    setup.expect(&[5, 6, 7]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_21_a_line_written_one_byte_at_a_time_arrives_whole() {
    let setup = setup();
    let mut input = setup.bridge.append();
    let daemon = setup.bridge.start();
    for byte in lines([0, 1]).bytes() {
        input.write(&[byte]);
    }
    setup.expect(&[0, 1]);
    assert!(setup.bridge.rejects().is_empty());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_23_half_a_line_before_a_kill_and_half_after_it() {
    let setup = setup();
    let mut input = setup.bridge.append();
    input.events([0]);
    input.write(&event(1).as_bytes()[..50]);
    let daemon = setup.bridge.start();
    let complete = lines([0]).len() as u64;
    crate::support::wait_for("the first line", || {
        (setup.bridge.checkpoint()["offset"] == complete).then_some(())
    });
    daemon.kill();
    input.write(&event(1).as_bytes()[50..]);
    input.write(b"\n");
    let daemon = setup.bridge.start();
    setup.expect(&[0, 1]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_05_renamed_while_running_the_old_file_is_read_to_its_end_and_late_lines_arrive() {
    let setup = setup();
    let mut old = setup.bridge.append();
    let daemon = setup.bridge.start();
    old.events(0..10);
    daemon.wait_for_log("following the input");
    std::fs::rename(setup.bridge.input(), setup.bridge.directory().join("events/old.1")).unwrap();
    old.events(10..20);
    setup.bridge.append().events(20..30);
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    assert_eq!(consumer.wait_for_events(30), (0..30).collect::<Vec<_>>());
    old.events(30..35);
    assert_eq!(consumer.wait_for_events(35).len(), 35, "late lines of the old file");
    setup.bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_09_truncated_while_running_the_new_content_is_read_from_its_start() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    std::fs::write(setup.bridge.input(), lines(10..13)).unwrap();
    setup.expect(&(0..13).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_10_truncated_and_regrown_while_paused_is_noticed() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    let base = Base::of(&daemon);
    daemon.signal("STOP");
    std::fs::write(setup.bridge.input(), lines(10..40)).unwrap();
    daemon.signal("CONT");
    setup.expect(&(0..40).collect::<Vec<_>>());
    // The size that it has grown to is that of the new content: nothing of the old one was missed.
    setup.expect_accounted(daemon, &base, length(0..40), 0);
}

#[test]
fn in_13_truncated_while_down_shorter_and_longer() {
    for (content, expected) in [(10..13, 0..13), (10..40, 0..40)] {
        let setup = setup();
        let daemon = setup.deliver(0..10);
        let base = Base::of(&daemon);
        assert_eq!(daemon.stop(), 0);
        std::fs::write(setup.bridge.input(), lines(content)).unwrap();
        let daemon = setup.bridge.start();
        setup.expect(&expected.clone().collect::<Vec<_>>());
        setup.expect_accounted(daemon, &base, length(expected), 0);
    }
}

#[test]
fn in_14_replaced_while_down_with_the_same_inode_is_read_from_its_start() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    let base = Base::of(&daemon);
    assert_eq!(daemon.stop(), 0);
    let before = std::fs::metadata(setup.bridge.input()).unwrap().ino();
    std::fs::remove_file(setup.bridge.input()).unwrap();
    // The first line is the same, so neither inode nor head tells the files apart.
    std::fs::write(setup.bridge.input(), lines([0].into_iter().chain(100..130))).unwrap();
    let after = std::fs::metadata(setup.bridge.input()).unwrap().ino();
    println!("inode {before}, then {after}");
    let daemon = setup.bridge.start();
    let all: Vec<u64> = (0..10).chain([0]).chain(100..130).collect();
    setup.expect(&all);
    setup.expect_accounted(daemon, &base, length(all), 0);
}

/// Waits until the daemon has looked at the input as it is now, and so has read what it had room for.
pub fn wait_until_seen(bridge: &Bridge) -> u64 {
    let size = std::fs::metadata(bridge.input()).unwrap().len();
    crate::support::wait_for("the size to be seen", || {
        (bridge.checkpoint()["size"] == size).then_some(size)
    })
}

#[test]
fn in_12_bytes_cut_before_they_were_read_are_told_as_lost() {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_MAX_IN_FLIGHT", "10");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..5);
    bridge.wait_until_settled();
    let base = Base::of(&daemon);
    broker.stop();
    // More than is read at once: 500 kB.
    input.events(5..2_000);
    let size = wait_until_seen(&bridge);
    std::fs::write(bridge.input(), lines(9_000..9_003)).unwrap();
    broker.start_again();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let lost = daemon.wait_for_log("are lost");
    assert!(lost.contains("truncated_unread") && lost.contains("ERROR"), "{lost}");
    bridge.wait_until_settled();
    consumer.read_all();
    let mut numbers = consumer.numbers();
    assert_eq!(numbers.split_off(numbers.len() - 3), [9_000, 9_001, 9_002]);
    let read = numbers.len() as u64;
    assert!(read > 500, "what was read is delivered, {read} lines");
    assert_eq!(numbers, (0..read).collect::<Vec<_>>());

    // The rest is accounted for to the byte: the line that was cut, and what was never read.
    let rejects = bridge.rejects();
    assert_eq!((rejects.len(), &rejects[0]["reason"]), (1, &"truncated_at_eof".into()));
    let whole = length(0..read);
    assert_eq!(rejects[0]["offset"], whole);
    let lost = &bridge.checkpoint()["lost"];
    let from = whole + rejects[0]["length"].as_u64().unwrap();
    assert_eq!((&lost[0]["from"], &lost[0]["to"]), (&from.into(), &size.into()));
    let bytes = (from + length(9_000..9_003), size - from);
    expect_accounted(&bridge, daemon, &base, &mut consumer, bytes);
}

/// What was read is in memory, the rest in the copy; nobody reads, so nobody notices before the stop.
#[test]
fn in_09_in_12_copied_and_cut_behind_a_full_window_and_stopped_the_rest_is_read_from_the_copy() {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_MAX_IN_FLIGHT", "10");
    bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "300");
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..5);
    bridge.wait_until_settled();
    let base = Base::of(&daemon);
    broker.stop();
    input.events(5..2_000);
    wait_until_seen(&bridge);
    std::fs::copy(bridge.input(), bridge.input().with_extension("jsonl.1")).unwrap();
    std::fs::write(bridge.input(), lines(9_000..9_003)).unwrap();
    assert_eq!(daemon.stop(), 0);
    broker.start_again();
    let daemon = bridge.start();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let numbers = consumer.wait_for_events(2_003);
    assert_eq!(numbers, (0..2_000).chain(9_000..9_003).collect::<Vec<_>>());
    let bytes = length(0..2_000) + length(9_000..9_003);
    expect_accounted(&bridge, daemon, &base, &mut consumer, (bytes, 0));
}

#[test]
fn in_20_in_43_truncated_or_deleted_while_the_broker_is_down_what_was_read_is_still_delivered() {
    let broker = Broker::start();
    for (delete, stop) in [(false, false), (true, false), (false, true), (true, true)] {
        let topic = broker.topic(1);
        let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
        bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "300");
        let mut input = bridge.append();
        let mut daemon = bridge.start();
        input.events(0..5);
        bridge.wait_until_settled();
        let base = Base::of(&daemon);
        broker.stop();
        input.events(5..1_000);
        wait_until_seen(&bridge);
        if delete {
            std::fs::remove_file(bridge.input()).unwrap();
            daemon.wait_for_log("moved away or deleted");
        } else {
            std::fs::write(bridge.input(), "").unwrap();
            daemon.wait_for_log("the input was cut");
        }
        let kept = || std::fs::read_dir(bridge.state().join("pending")).map_or(0, Iterator::count);
        if stop {
            // What is not settled is nowhere but in its memory, or in a file without a name.
            assert_eq!(daemon.stop(), 0);
            assert_eq!(kept(), 1);
            daemon = bridge.start();
            daemon.wait_for_log("what was kept of a file that is gone is read");
        }
        broker.start_again();
        let mut consumer = Topic::open(&broker.bootstrap, &topic);
        consumer.wait_for_events(1_000);
        bridge.append().events(1_000..1_010);
        let numbers = consumer.wait_for_events(1_010);
        assert_eq!(numbers, (0..1_010).collect::<Vec<_>>(), "deleted: {delete}, stopped: {stop}");
        wait_for("what was kept to be removed", || (kept() == 0).then_some(()));
        expect_accounted(&bridge, daemon, &base, &mut consumer, (length(0..1_010), 0));
    }
}

#[test]
fn in_20_what_was_not_read_of_a_deleted_file_outlives_a_stop_while_the_broker_is_up() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_MAX_IN_FLIGHT", "10");
    let daemon = setup.deliver(0..5);
    let base = Base::of(&daemon);
    setup.bridge.append().events(5..3_000);
    Topic::open(&setup.broker.bootstrap, &setup.topic).wait_for_events(6);
    std::fs::remove_file(setup.bridge.input()).unwrap();
    daemon.wait_for_log("moved away or deleted");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(std::fs::read_dir(setup.bridge.state().join("pending")).unwrap().count(), 1);
    let daemon = setup.bridge.start();
    daemon.wait_for_log("what was kept of a file that is gone is read");
    Topic::open(&setup.broker.bootstrap, &setup.topic).wait_for_events(3_000);
    setup.bridge.append().events(3_000..3_001);
    setup.expect(&(0..3_001).collect::<Vec<_>>());
    setup.expect_accounted(daemon, &base, length(0..3_001), 0);
}

#[test]
fn in_19_a_directory_a_pipe_or_a_device_in_the_place_of_the_file_is_waited_out() {
    // The device is that of `/dev/zero`, which has no end. A pipe is followed, and nobody writes to it.
    let (wrong, pipe) = ("wrong_type", "reading the named pipe");
    let things =
        [("mkdir", &[][..], wrong), ("mkfifo", &[], pipe), ("mknod", &["c", "1", "5"], wrong)];
    for (make, which, told) in things {
        let setup = setup();
        let input = setup.bridge.input();
        let daemon = setup.deliver(0..3);
        let base = Base::of(&daemon);
        std::fs::remove_file(&input).unwrap();
        done(as_root(make).arg(&input).args(which));
        daemon.wait_for_log(told);
        assert_eq!(daemon.stop(), 0);
        let daemon = setup.bridge.start();
        daemon.wait_for_log(told);
        done(as_root("rm").arg("-r").arg(&input));
        Appender::open(&input).events(3..6);
        setup.expect(&(0..6).collect::<Vec<_>>());
        setup.expect_accounted(daemon, &base, length(0..6), 0);
    }
}

#[test]
fn in_24_in_25_in_28_crlf_bom_nuls_and_blank_lines() {
    let setup = setup();
    let text = format!("\u{feff}{}\r\n\n \t\r\n\0\0\0{}\n{}\n", event(0), event(1), event(2));
    setup.bridge.append().write(text.as_bytes());
    let daemon = setup.bridge.start();
    setup.expect(&[0, 1, 2]);
    assert_eq!(daemon.stop(), 0);
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    let offsets: Vec<u64> = consumer
        .read_all()
        .iter()
        .map(|record| record.header("ce_id").unwrap().split(':').nth(1).unwrap().parse().unwrap())
        .collect();
    for (number, offset) in offsets.iter().enumerate() {
        assert!(text.as_bytes()[*offset as usize..].starts_with(event(number as u64).as_bytes()));
    }
    assert!(setup.bridge.rejects().is_empty());
}

#[test]
fn in_38_a_file_that_is_away_at_the_start_and_comes_back_is_resumed() {
    let setup = setup();
    assert_eq!(setup.deliver(0..10).stop(), 0);
    let away = setup.bridge.directory().join("away");
    std::fs::rename(setup.bridge.input(), &away).unwrap();
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    assert_eq!(daemon.stop(), 0);
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    Appender::open(&away).events(10..20);
    std::fs::rename(&away, setup.bridge.input()).unwrap();
    setup.expect(&(0..20).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert!(setup.bridge.checkpoint()["lost"].as_array().unwrap().is_empty());
}

#[test]
fn in_04_a_file_that_may_not_be_read_is_resumed_once_it_may() {
    let mut setup = setup();
    let daemon = setup.deliver(0..10);
    let base = Base::of(&daemon);
    assert_eq!(daemon.stop(), 0);
    std::fs::set_permissions(setup.bridge.input(), Permissions::from_mode(0o000)).unwrap();
    if rustix::process::geteuid().is_root() {
        // Root may read everything: give up what makes it so.
        setup.bridge.wrapper =
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all"].map(str::to_owned).to_vec();
    }
    let daemon = setup.bridge.start();
    daemon.wait_for_log("permission_denied");
    std::fs::set_permissions(setup.bridge.input(), Permissions::from_mode(0o644)).unwrap();
    setup.bridge.append().events(10..20);
    setup.expect(&(0..20).collect::<Vec<_>>());
    setup.expect_accounted(daemon, &base, length(0..20), 0);
}

#[test]
fn content_written_after_a_cut_is_read_even_if_the_file_has_moved_on_by_then() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    daemon.signal("STOP");
    std::fs::write(setup.bridge.input(), lines(100..105)).unwrap();
    let moved = setup.bridge.directory().join("events/old.1");
    std::fs::rename(setup.bridge.input(), &moved).unwrap();
    setup.bridge.append().events(200..205);
    daemon.signal("CONT");
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    let numbers = consumer.wait_for_events(20);
    assert_eq!(numbers, (0..10).chain(100..105).chain(200..205).collect::<Vec<_>>());
    // Cut again where it lies now.
    std::fs::write(&moved, lines(300..303)).unwrap();
    consumer.wait_for_events(23);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_file_that_is_moved_back_is_the_live_one_again_and_nothing_is_repeated() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    let aside = |name: &str| setup.bridge.directory().join("events").join(name);
    std::fs::rename(setup.bridge.input(), aside("old.1")).unwrap();
    setup.bridge.append().events(10..20);
    setup.bridge.wait_until_settled();
    std::fs::rename(setup.bridge.input(), aside("old.2")).unwrap();
    std::fs::rename(aside("old.1"), setup.bridge.input()).unwrap();
    setup.bridge.append().events(20..30);
    setup.bridge.wait_until_settled();
    let size = std::fs::metadata(setup.bridge.input()).unwrap().len();
    let status = setup.bridge.run(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["input"]["size"], &status["input"]["read"]), (&size.into(), &size.into()));
    assert_eq!(daemon.stop(), 0);
    let daemon = setup.bridge.start();
    setup.bridge.append().events(30..33);
    setup.expect(&(0..33).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

/// A stale writer after a truncation, or a crash of the machine, leaves holes of any size.
#[test]
fn in_25_in_41_holes_of_gigabytes_and_a_record_across_the_4_gib_border() {
    const GIB: u64 = 1 << 30;
    let setup = setup();
    let grow = |size: u64| {
        let file = std::fs::OpenOptions::new().write(true).open(setup.bridge.input()).unwrap();
        file.set_len(size).unwrap();
    };
    let daemon = setup.deliver(0..1);
    let base = Base::of(&daemon);
    assert_eq!(daemon.stop(), 0);
    grow(3 * GIB);
    setup.bridge.append().events([1]);
    grow(4 * GIB - 100);
    setup.bridge.append().events([2, 3]);
    let daemon = setup.bridge.start();
    setup.expect(&[0, 1, 2, 3]);
    let peak = daemon.memory_kb("VmHWM");
    assert!(peak <= 64 << 10, "{peak} kB");
    let ledger = setup.bridge.status()["ledger"]["bytes"].clone();
    let content = 4 * (event(0).len() as u64 + 1);
    assert_eq!(ledger["delivered"], content);
    let size = std::fs::metadata(setup.bridge.input()).unwrap().len();
    assert_eq!(ledger["blank"], size - content);
    setup.expect_accounted(daemon, &base, size, 0);
}
