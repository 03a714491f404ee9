//! A named pipe as input: nothing that was written into it is lost, whatever happens to the daemon.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::files::{Setup, lines, setup};
use crate::support::account::ticks;
use crate::support::broker::Broker;
use crate::support::calls::failing_from_the_start;
use crate::support::consumer::Topic;
use crate::support::daemon::{Bridge, Daemon};
use crate::support::disk::{SmallDisk, done};
use crate::support::events::padded_event;
use crate::support::{or_in_soak, wait_for};

/// A pipe at the input's path, and who holds it open while no daemon does, as the keeper unit would.
pub struct Pipe {
    pub path: PathBuf,
    _keeper: File,
}

impl Pipe {
    fn at(path: &Path) -> Self {
        done(Command::new("mkfifo").args(["-m", "0660"]).arg(path));
        let keeper = OpenOptions::new().read(true).write(true).open(path).unwrap();
        Self { path: path.to_owned(), _keeper: keeper }
    }

    pub fn of(setup: &Setup) -> Self {
        Self::at(&setup.bridge.input())
    }

    fn writer(&self) -> File {
        OpenOptions::new().write(true).open(&self.path).unwrap()
    }

    fn write(&self, text: &str) {
        self.writer().write_all(text.as_bytes()).unwrap();
    }
}

fn journal(bridge: &Bridge) -> PathBuf {
    bridge.state().join("journal")
}

/// How much the journal holds, by its files.
fn journaled(bridge: &Bridge) -> u64 {
    let files = fs::read_dir(journal(bridge)).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|facts| facts.len()).sum()
}

fn wait_until_following(daemon: &Daemon) {
    daemon.wait_for_log("reading the named pipe");
}

/// Waits until the bridge says so of everything that was written before.
fn wait_until_caught_up(bridge: &Bridge) {
    let caught_up = bridge.run(&["status", "--caught-up", "--wait", "60"]);
    assert_eq!(caught_up.status.code(), Some(0), "{caught_up:?}");
}

/// These events came, each once, and nothing else did.
#[track_caller]
fn expect(setup: &Setup, expected: &[u64]) {
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.wait_for_events(expected.len());
    wait_until_caught_up(&setup.bridge);
    consumer.read_all();
    assert_eq!(consumer.numbers(), expected);
}

#[test]
fn fi_01_fi_02_fi_03_writers_come_and_go_and_a_line_torn_between_two_costs_one_reject() {
    let setup = setup();
    let pipe = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    assert_eq!(setup.bridge.status()["input"]["kind"], "fifo");
    assert_eq!(setup.bridge.status()["input"]["path"], pipe.path.to_str().unwrap());
    for number in 0..1000 {
        pipe.write(&lines([number]));
    }
    wait_until_caught_up(&setup.bridge);
    expect(&setup, &(0..1000).collect::<Vec<_>>());
    pipe.write("{\"torn\":1");
    pipe.write(&lines([1000, 1001]));
    wait_until_caught_up(&setup.bridge);
    let rejects = setup.bridge.rejects();
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    expect(&setup, &(0..1000).chain([1001]).collect::<Vec<_>>());
    // With nobody writing, nothing turns.
    let before = ticks(&daemon);
    std::thread::sleep(Duration::from_secs(2));
    let spent = ticks(&daemon) - before;
    assert!(spent <= 20, "{spent} hundredths of a second in two seconds");
    assert_eq!(daemon.stop(), 0);
    let daemon = setup.bridge.start();
    pipe.write(&lines([1002]));
    expect(&setup, &(0..1000).chain([1001, 1002]).collect::<Vec<_>>());
    let ledger = setup.bridge.status()["ledger"]["bytes"].clone();
    assert_eq!(ledger["lost"], 0, "{ledger}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_03_half_a_line_is_gone_on_with_after_a_restart_and_ended_after_the_machine_went_down() {
    let setup = setup();
    let pipe = Pipe::of(&setup);
    let mut daemon = Some(setup.bridge.start());
    let live = journal(&setup.bridge).join("pipe.jsonl");
    let line = lines([1]);
    let (begin, rest) = line.split_at(line.len() / 2);
    let mut go_down_after = |text: &str, machine: bool| {
        let held = fs::metadata(&live).map_or(0, |facts| facts.len());
        pipe.write(text);
        wait_for("the half line in the journal", || {
            (fs::metadata(&live).ok()?.len() == held + text.len() as u64).then_some(())
        });
        assert_eq!(daemon.take().unwrap().stop(), 0);
        if machine {
            // As if the disk had been written to before this machine was started.
            let file = OpenOptions::new().append(true).open(&live).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_hours(24)).unwrap();
        }
        daemon = Some(setup.bridge.start());
    };
    go_down_after(begin, false);
    pipe.write(rest);
    expect(&setup, &[1]);
    // What was in the pipe is gone with the machine.
    go_down_after(begin, true);
    pipe.write(&lines([2]));
    expect(&setup, &[1, 2]);
    assert_eq!(setup.bridge.rejects().len(), 1);
    // An ended line stays ended once.
    go_down_after(&lines([3]), true);
    pipe.write(&lines([4]));
    expect(&setup, &[1, 2, 3, 4]);
    assert_eq!(setup.bridge.rejects().len(), 1);
}

/// Writers of lines `writer * 1_000_000 + n`, until they are told to stop. Gives how many each wrote.
struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Writers {
    fn start(pipe: &Pipe, count: u64) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let write = |writer: u64| {
            let (mut file, stop, written) =
                (pipe.writer(), Arc::clone(&stop), Arc::clone(&written));
            std::thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let line = lines([writer * 1_000_000 + number]);
                    file.write_all(line.as_bytes()).expect("no writer ever gets an error");
                    number += 1;
                    written.fetch_add(1, Ordering::Relaxed);
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                number
            })
        };
        let threads = (0..count).map(write).collect();
        Self { stop, written, threads }
    }

    /// Waits until all of them wait: for half a second none wrote anything.
    fn wait_until_none_can_write(&self) {
        let mut last = (self.written.load(Ordering::Relaxed), Instant::now());
        wait_for("the writers to wait", || {
            let now = self.written.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
            (last.1.elapsed() > Duration::from_millis(500)).then_some(())
        });
    }

    fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

/// Nothing of what the writers wrote is missing, and first deliveries of each are in order.
fn expect_all(setup: &Setup, written: &[u64]) -> usize {
    expect_all_in(&setup.broker.bootstrap, &setup.topic, written)
}

fn expect_all_in(bootstrap: &str, topic: &str, written: &[u64]) -> usize {
    let mut consumer = Topic::open(bootstrap, topic);
    let total = written.iter().sum::<u64>() as usize;
    consumer.wait_for_events(total);
    consumer.read_all();
    let numbers = consumer.numbers();
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for number in &numbers {
        let (writer, number) = (number / 1_000_000, number % 1_000_000);
        let expected = next.entry(writer).or_default();
        assert!(number <= *expected, "{number} of {writer} before {expected}");
        *expected += u64::from(number == *expected);
    }
    let arrived: Vec<u64> = next.into_values().collect();
    assert_eq!(arrived, written);
    numbers.len() - total
}

#[test]
fn fi_06_fi_07_fi_08_50_sigkills_under_five_writers_lose_nothing_and_show_no_writer_an_error() {
    let mut setup = setup();
    // Segments of 4 KiB, so that they are ended, delivered and dropped all the time.
    setup.bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "65536");
    setup.bridge.set("BRIDGE_CHECKPOINT_INTERVAL_MS", "50");
    let pipe = Pipe::of(&setup);
    let writers = Writers::start(&pipe, 5);
    for kill in 0..50 {
        let daemon = setup.bridge.start();
        daemon.wait_for_log("reading the named pipe");
        std::thread::sleep(Duration::from_millis(kill * 7 % 150));
        daemon.kill();
    }
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    let written = writers.stop();
    wait_until_caught_up(&setup.bridge);
    let repeated = expect_all(&setup, &written);
    println!("{written:?} lines, {repeated} repeated");
    let ledger = setup.bridge.status()["ledger"]["bytes"].clone();
    assert_eq!(ledger["lost"], 0, "{ledger}");
    assert_eq!(ledger["rejected"], 0, "{ledger}");
    wait_for("delivered segments to be dropped", || {
        (fs::read_dir(journal(&setup.bridge)).unwrap().count() <= 2).then_some(())
    });
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_08_killed_at_every_system_call_between_pipe_and_journal_nothing_is_lost() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "65536");
    let pipe = Pipe::of(&setup);
    let paths =
        [pipe.path.clone(), journal(&setup.bridge), journal(&setup.bridge).join("pipe.jsonl")];
    let mut written = 0;
    for call in ["splice", "fdatasync", "fsync", "rename", "openat", "tee", "pread64", "statx"] {
        for when in 3..=7 {
            // Enough for two segments.
            let mut writer = pipe.writer();
            for number in written..written + 60 {
                writer.write_all(lines([number]).as_bytes()).unwrap();
            }
            written += 60;
            let inject = format!("{call}:signal=SIGKILL:when={when}");
            setup.bridge.wrapper = failing_from_the_start(&paths, &inject);
            let mut daemon = setup.bridge.start();
            wait_for(&format!("the end by {inject}"), || (!daemon.is_running()).then_some(()));
            daemon.kill();
        }
    }
    setup.bridge.wrapper = Vec::new();
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    wait_until_caught_up(&setup.bridge);
    expect_all(&setup, &[written]);
    let ledger = setup.bridge.status()["ledger"]["bytes"].clone();
    assert_eq!((&ledger["lost"], &ledger["rejected"]), (&0.into(), &0.into()), "{ledger}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_08_fi_15_calls_between_pipe_and_journal_that_fail_for_a_while_lose_and_repeat_nothing() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "65536");
    let pipe = Pipe::of(&setup);
    let paths =
        [pipe.path.clone(), journal(&setup.bridge), journal(&setup.bridge).join("pipe.jsonl")];
    let mut written = 0;
    for inject in [
        "splice:error=EINTR:when=1..4",
        "splice:error=EAGAIN:when=1..2",
        "splice:error=EIO:when=2",
        "splice:error=ENOSPC:when=2..3",
        "fdatasync:error=EIO:when=1",
        "fdatasync:error=EINTR:when=2",
        "fsync:error=ENOSPC:when=2",
        "rename:error=EDQUOT:when=1",
        "openat:error=EMFILE:when=4",
        "tee:error=EINTR:when=1",
        "tee:error=EIO:when=1",
        "pread64:error=EIO:when=2",
    ] {
        setup.bridge.wrapper = failing_from_the_start(&paths, inject);
        let daemon = setup.bridge.start();
        // Enough for two segments, and a line that is not ended before the next one is there.
        let text = lines(written..written + 60);
        let (first, last) = text.split_at(text.len() - 100);
        written += 60;
        pipe.write(first);
        wait_until_following(&daemon);
        pipe.write(last);
        if !inject.contains("EINTR") && !inject.contains("EAGAIN") {
            daemon.wait_for_log("the pipe is read again");
        }
        wait_until_caught_up(&setup.bridge);
        assert_eq!(daemon.stop(), 0, "{inject}");
    }
    setup.bridge.wrapper = Vec::new();
    let daemon = setup.bridge.start();
    expect(&setup, &(0..written).collect::<Vec<_>>());
    assert_eq!(setup.bridge.rejects().len(), 0);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_08_segments_that_are_ended_while_a_start_looks_at_the_journal_are_all_delivered() {
    // One of its looks takes long enough for several segments to be ended.
    for when in 3..=7 {
        let mut setup = setup();
        setup.bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "65536");
        let pipe = Pipe::of(&setup);
        let slow = format!("getdents64:delay_enter=200000:delay_exit=200000:when={when}");
        setup.bridge.wrapper = failing_from_the_start(&[journal(&setup.bridge)], &slow);
        // The first start, and one that goes on.
        for start in 0..2 {
            pipe.write(&lines(start * 60..start * 60 + 60));
            let daemon = setup.bridge.start();
            wait_until_following(&daemon);
            wait_until_caught_up(&setup.bridge);
            assert_eq!(daemon.stop(), 0);
        }
        let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
        assert_eq!(consumer.wait_for_events(120), (0..120).collect::<Vec<_>>(), "{slow}");
    }
}

#[test]
fn fi_10_a_writer_that_waits_for_a_reader_finds_one_that_stays() {
    let mut setup = setup();
    let path = setup.bridge.input();
    // Nobody else holds it open.
    done(Command::new("mkfifo").arg(&path));
    // Time enough for a writer to come and go between two calls of who looks whether it is free.
    let slow = "flock:delay_exit=500000";
    setup.bridge.wrapper = failing_from_the_start(std::slice::from_ref(&path), slow);
    let writer = std::thread::spawn(move || {
        let mut file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all(lines([0]).as_bytes()).unwrap();
    });
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    writer.join().unwrap();
    expect(&setup, &[0]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_05_fi_15_a_full_journal_makes_writers_wait_and_loses_nothing() {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "65536");
    bridge.set("BRIDGE_MAX_IN_FLIGHT", "10");
    fs::create_dir_all(bridge.input().parent().unwrap()).unwrap();
    let pipe = Pipe::at(&bridge.input());
    let daemon = bridge.start();
    wait_until_following(&daemon);
    pipe.write(&lines([0]));
    wait_until_caught_up(&bridge);
    broker.stop();
    // Twice what journal and pipe can hold.
    let count = 3_000;
    let mut writer = pipe.writer();
    let write = move || {
        (1..count).for_each(|number| {
            writer.write_all(format!("{}\n", padded_event(number, 800)).as_bytes()).unwrap();
        });
    };
    let writer = std::thread::spawn(write);
    daemon.wait_for_log("BRIDGE_FIFO_JOURNAL_MAX_BYTES");
    wait_for("the alarm", || (bridge.status()["state"] == "blocked").then_some(()));
    assert_eq!(bridge.status()["reason"], "journal");
    assert!(bridge.status()["input"]["alarm"].as_str().unwrap().contains("journal holds"));
    assert!(journaled(&bridge) < 65_536 + 1200, "{}", journaled(&bridge));
    assert!(!writer.is_finished(), "the writer waits");
    broker.start_again();
    writer.join().unwrap();
    wait_until_caught_up(&bridge);
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let numbers = consumer.wait_for_events(count as usize);
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

/// How long the sink is away: until everything is full, and with `make soak` a minute.
fn outage() -> Duration {
    or_in_soak(Duration::ZERO, Duration::from_mins(1))
}

#[test]
fn fi_05_fi_06_the_sink_is_down_until_all_is_full_and_the_daemon_killed_and_no_writer_sees_an_error()
 {
    let broker = Broker::start();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "4194304");
    bridge.set("BRIDGE_CHECKPOINT_INTERVAL_MS", "100");
    fs::create_dir_all(bridge.input().parent().unwrap()).unwrap();
    let pipe = Pipe::at(&bridge.input());
    let start = || {
        let daemon = bridge.start();
        wait_until_following(&daemon);
        daemon
    };
    let mut daemon = start();
    broker.stop();
    let (writers, began) = (Writers::start(&pipe, 5), Instant::now());
    // While journal and pipe fill up, and when they are full.
    let full = |daemon: &Daemon| {
        daemon.log().iter().any(|line| line.contains("BRIDGE_FIFO_JOURNAL_MAX_BYTES"))
    };
    let mut kills = 0;
    while !full(&daemon) {
        let before = journaled(&bridge);
        wait_for("more in the journal", || {
            (full(&daemon) || journaled(&bridge) > before + 500_000).then_some(())
        });
        if !full(&daemon) {
            daemon.kill();
            daemon = start();
            kills += 1;
        }
        assert!(began.elapsed() < Duration::from_mins(2), "{} bytes", journaled(&bridge));
    }
    assert!(kills >= 3, "{kills} kills while it filled");
    for _ in 0..3 {
        writers.wait_until_none_can_write();
        daemon.kill();
        daemon = start();
        daemon.wait_for_log("BRIDGE_FIFO_JOURNAL_MAX_BYTES");
    }
    while began.elapsed() < outage() {
        writers.wait_until_none_can_write();
        daemon.kill();
        daemon = start();
    }
    let held = journaled(&bridge);
    assert!((4 << 20..(4 << 20) + 1000).contains(&held), "{held}");
    assert!(daemon.memory_kb("VmHWM") <= 64 << 10, "{} kB", daemon.memory_kb("VmHWM"));
    broker.start_again();
    // They go on.
    let before = writers.written.load(Ordering::Relaxed);
    wait_for("writers to get on", || {
        (writers.written.load(Ordering::Relaxed) > before + 1000).then_some(())
    });
    let written = writers.stop();
    wait_until_caught_up(&bridge);
    let repeated = expect_all_in(&broker.bootstrap, &topic, &written);
    println!("{written:?} lines in {:?}, {repeated} repeated", began.elapsed());
    let ledger = bridge.status()["ledger"]["bytes"].clone();
    assert_eq!((&ledger["lost"], &ledger["rejected"]), (&0.into(), &0.into()), "{ledger}");
    wait_for("delivered segments to be dropped", || {
        (fs::read_dir(journal(&bridge)).unwrap().count() <= 2).then_some(())
    });
    assert_eq!(daemon.stop(), 0);
}

/// How often a process read from anything, by its own account.
fn reads(daemon: &Daemon) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", daemon.pid())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("syscr: ")?.parse().ok()).unwrap()
}

#[test]
fn fi_12_a_million_lines_of_20_bytes_each_written_alone_are_moved_and_read_many_at_once() {
    const SHORT: u64 = 1_000_000;
    let mut setup = setup();
    setup.bridge.set("BRIDGE_IGNORE_EVENT_TYPES", "xx");
    // Segments of 1 MiB.
    setup.bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "16777216");
    let pipe = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    let before = reads(&daemon);
    let mut writer = pipe.writer();
    for number in 0..SHORT {
        writer.write_all(b"{\"event_type\":\"xx\"}\n").unwrap();
        if number % 10_000 == 0 {
            writer.write_all(lines([number / 10_000]).as_bytes()).unwrap();
        }
    }
    wait_until_caught_up(&setup.bridge);
    let spent = reads(&daemon) - before;
    expect(&setup, &(0..SHORT / 10_000).collect::<Vec<_>>());
    let ledger = setup.bridge.status()["ledger"].clone();
    assert_eq!(ledger["lines"]["filtered"], SHORT, "{ledger}");
    assert_eq!(ledger["bytes"]["filtered"], SHORT * 20, "{ledger}");
    assert_eq!((&ledger["bytes"]["lost"], &ledger["bytes"]["rejected"]), (&0.into(), &0.into()));
    println!("{spent} reads for {SHORT} lines");
    // How many depends on how often the writer is interrupted: on a busy machine 20,000.
    assert!(spent < SHORT / 10, "{spent} reads for {SHORT} lines");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_09_a_pipe_that_is_replaced_is_drained_and_the_new_one_read() {
    let setup = setup();
    let path = setup.bridge.input();
    let old = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    old.write(&lines(0..10));
    let mut late = old.writer();
    fs::remove_file(&path).unwrap();
    let new = Pipe::at(&path);
    daemon.wait_for_log("not at its path");
    new.write(&lines(10..20));
    wait_until_caught_up(&setup.bridge);
    late.write_all(lines(20..30).as_bytes()).unwrap();
    wait_until_caught_up(&setup.bridge);
    expect(&setup, &(0..30).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_09_fi_14_a_pipe_becomes_a_file_and_a_pipe_again_while_the_daemon_runs() {
    let setup = setup();
    let path = setup.bridge.input();
    let pipe = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    pipe.write(&lines(0..10));
    // A line that nobody will end.
    pipe.write("{\"torn\":1");
    wait_for("it to be journaled", || {
        (journaled(&setup.bridge) as usize == lines(0..10).len() + 9).then_some(())
    });
    fs::remove_file(&path).unwrap();
    drop(pipe);
    setup.bridge.append().events(10..20);
    expect(&setup, &(0..20).collect::<Vec<_>>());
    assert_eq!(setup.bridge.rejects().len(), 1, "the torn line");
    wait_for("the file to be followed", || {
        (setup.bridge.status()["input"]["kind"] == "file").then_some(())
    });
    setup.bridge.append().events(20..30);
    fs::rename(&path, path.with_extension("old")).unwrap();
    let pipe = Pipe::of(&setup);
    pipe.write(&lines(30..40));
    expect(&setup, &(0..40).collect::<Vec<_>>());
    let ledger = setup.bridge.status()["ledger"]["bytes"].clone();
    assert_eq!(ledger["lost"], 0, "{ledger}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_09_fi_14_a_file_where_a_pipe_was_that_has_writers_is_read_and_what_they_write_too() {
    let setup = setup();
    let path = setup.bridge.input();
    // Who keeps it open does so to the end.
    let old = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    old.write(&lines(0..10));
    let mut late = old.writer();
    wait_until_caught_up(&setup.bridge);
    fs::rename(&path, path.with_extension("pipe")).unwrap();
    setup.bridge.append().events(10..20);
    expect(&setup, &(0..20).collect::<Vec<_>>());
    late.write_all(lines(20..30).as_bytes()).unwrap();
    expect(&setup, &(0..30).collect::<Vec<_>>());
    setup.bridge.append().events(30..40);
    expect(&setup, &(0..40).collect::<Vec<_>>());
    // Under no name that a rotation gives.
    fs::rename(&path, path.with_extension("old")).unwrap();
    let new = Pipe::of(&setup);
    new.write(&lines(40..50));
    expect(&setup, &(0..50).collect::<Vec<_>>());
    let ledger = setup.bridge.status()["ledger"]["bytes"].clone();
    assert_eq!(ledger["lost"], 0, "{ledger}");
    assert_eq!(daemon.stop(), 0);
}

/// What becomes of a file that stood where a pipe was, and of the daemon, before anything of it is delivered.
enum Fate {
    Killed,
    RenamedAndKilled,
    DeletedAndKilled,
    DeletedAndStopped,
}

#[test]
fn fi_14_a_file_that_stood_where_a_pipe_was_while_the_sink_was_down_is_delivered_or_told_as_lost() {
    let killed = [Fate::Killed, Fate::RenamedAndKilled, Fate::DeletedAndKilled];
    for fate in killed.into_iter().chain([Fate::DeletedAndStopped]) {
        let mut setup = setup();
        setup.bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "100");
        let (path, bootstrap) = (setup.bridge.input(), setup.broker.bootstrap.clone());
        setup.bridge.set("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9");
        let pipe = Pipe::of(&setup);
        let daemon = setup.bridge.start();
        wait_until_following(&daemon);
        pipe.write(&lines(0..10));
        wait_for("it to be journaled", || (journaled(&setup.bridge) > 0).then_some(()));
        fs::rename(&path, path.with_extension("pipe")).unwrap();
        setup.bridge.append().events(10..20);
        let size = fs::metadata(&path).unwrap().len();
        wait_for("the checkpoint to know of the file", || {
            let known = setup.bridge.checkpoint()["generations"].clone();
            let mut known = known.as_array().unwrap().iter();
            known.any(|it| it["path"] == path.to_str().unwrap() && it["size"] == size).then_some(())
        });
        let (expected, lost) = match fate {
            Fate::Killed => {
                daemon.kill();
                (20, 0)
            }
            Fate::RenamedAndKilled => {
                fs::rename(&path, path.with_extension("old")).unwrap();
                daemon.kill();
                (20, 0)
            }
            Fate::DeletedAndKilled => {
                fs::remove_file(&path).unwrap();
                daemon.kill();
                (10, size)
            }
            Fate::DeletedAndStopped => {
                fs::remove_file(&path).unwrap();
                assert_eq!(daemon.stop(), 0);
                (20, 0)
            }
        };
        setup.bridge.set("KAFKA_BOOTSTRAP_SERVERS", &bootstrap);
        let daemon = setup.bridge.start();
        let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
        consumer.wait_for_events(expected);
        wait_until_caught_up(&setup.bridge);
        consumer.read_all();
        let mut numbers = consumer.numbers();
        // What a stop kept comes before the journal.
        numbers.sort_unstable();
        assert_eq!(numbers, (0..expected as u64).collect::<Vec<_>>());
        assert_eq!(setup.bridge.status()["ledger"]["bytes"]["lost"], lost);
        assert_eq!(daemon.stop(), 0);
    }
}

#[test]
fn fi_14_a_file_that_became_a_pipe_while_down_is_delivered_first_and_the_other_way_round() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_SHUTDOWN_TIMEOUT_MS", "100");
    let path = setup.bridge.input();
    let daemon = setup.deliver(0..10);
    assert_eq!(daemon.stop(), 0);
    setup.bridge.append().events(10..20);
    fs::rename(&path, path.with_extension("jsonl.1")).unwrap();
    let pipe = Pipe::of(&setup);
    pipe.write(&lines(20..30));
    let daemon = setup.bridge.start();
    expect(&setup, &(0..30).collect::<Vec<_>>());
    daemon.kill();
    // What is in the journal and not delivered comes before the file.
    let mut journal =
        OpenOptions::new().append(true).open(journal(&setup.bridge).join("pipe.jsonl"));
    journal.as_mut().unwrap().write_all(lines(30..40).as_bytes()).unwrap();
    fs::remove_file(&path).unwrap();
    setup.bridge.append().events(40..50);
    let daemon = setup.bridge.start();
    expect(&setup, &(0..50).collect::<Vec<_>>());
    assert_eq!(setup.bridge.status()["ledger"]["bytes"]["lost"], 0);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_13_fi_16_lines_without_an_end_and_random_bytes_cost_neither_memory_nor_the_lines_after_them()
{
    let mut setup = setup();
    setup.bridge.set("BRIDGE_MAX_LINE_BYTES", "65536");
    setup.bridge.set("BRIDGE_MAX_IN_FLIGHT_BYTES", "1048576");
    setup.bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "4194304");
    let pipe = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    let base = daemon.memory_kb("VmRSS");
    let block = "x".repeat(1 << 20);
    (0..40).for_each(|_| pipe.write(&block));
    pipe.write("\n");
    pipe.write(&lines(0..10));
    wait_until_caught_up(&setup.bridge);
    expect(&setup, &(0..10).collect::<Vec<_>>());
    let random = "head -c 20000000 /dev/urandom > \"$0\"";
    done(Command::new("sh").args(["-c", random]).arg(&pipe.path));
    pipe.write("\n");
    pipe.write(&lines(10..20));
    wait_until_caught_up(&setup.bridge);
    expect(&setup, &(0..20).collect::<Vec<_>>());
    assert!(journaled(&setup.bridge) < 5 << 20);
    let grown = daemon.memory_kb("VmHWM").saturating_sub(base);
    assert!(grown < 60 << 10, "{grown} kB");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_15_a_journal_on_a_full_disk_makes_writers_wait_until_there_is_room() {
    let setup = setup();
    let directory = journal(&setup.bridge);
    let disk = SmallDisk::mounted(&directory, "128k");
    let filler = directory.join("filler");
    let pipe = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    pipe.write(&lines(0..10));
    wait_until_caught_up(&setup.bridge);
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    let mut writer = pipe.writer();
    let write = move || (10..500).for_each(|n| writer.write_all(lines([n]).as_bytes()).unwrap());
    let writer = std::thread::spawn(write);
    daemon.wait_for_log("the journal can't be written");
    wait_for("the alarm", || (setup.bridge.status()["state"] == "blocked").then_some(()));
    fs::remove_file(&filler).unwrap();
    writer.join().unwrap();
    wait_until_caught_up(&setup.bridge);
    expect(&setup, &(0..500).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    disk.unmount();
}

#[test]
fn fi_15_a_disk_that_the_journal_itself_fills_is_empty_again_once_the_sink_is_back() {
    let mut setup = setup();
    let (state, kafka) = (setup.bridge.state(), setup.broker.bootstrap.clone());
    let disk = SmallDisk::mounted(&state, "512k");
    let pipe = Pipe::of(&setup);
    setup.bridge.set("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9");
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    let mut writer = pipe.writer();
    // Several times what disk and pipe hold.
    let write = move || (0..20_000).for_each(|n| writer.write_all(lines([n]).as_bytes()).unwrap());
    let writer = std::thread::spawn(write);
    daemon.wait_for_log("the journal can't be written");
    assert_eq!(daemon.stop(), 0);
    setup.bridge.set("KAFKA_BOOTSTRAP_SERVERS", &kafka);
    let daemon = setup.bridge.start();
    wait_for("the writer to get on", || writer.is_finished().then_some(()));
    writer.join().unwrap();
    wait_until_caught_up(&setup.bridge);
    expect(&setup, &(0..20_000).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    disk.unmount();
}

#[test]
fn fi_05_fi_15_a_journal_full_of_delivered_segments_that_a_killed_run_left_makes_room() {
    let mut setup = setup();
    setup.bridge.set("BRIDGE_FIFO_JOURNAL_MAX_BYTES", "65536");
    let pipe = Pipe::of(&setup);
    // It can remove none, the oldest being the first: as if it were killed between a commit and that.
    let oldest = journal(&setup.bridge).join("pipe.jsonl-1000000000000000");
    setup.bridge.wrapper = failing_from_the_start(&[oldest], "unlink,unlinkat:error=EIO");
    let mut daemon = setup.bridge.start();
    wait_until_following(&daemon);
    pipe.write(&lines(0..400));
    daemon.wait_for_log("BRIDGE_FIFO_JOURNAL_MAX_BYTES allows");
    wait_for("all of it to be delivered and committed", || {
        let known = setup.bridge.checkpoint();
        let is_settled = known["offset"] == known["size"]
            && known["generations"].as_array().is_some_and(|it| it.len() == 1);
        let delivered = setup.bridge.status()["ledger"]["bytes"]["delivered"].as_u64();
        (is_settled && delivered == Some(journaled(&setup.bridge))).then_some(())
    });
    daemon.kill();
    setup.bridge.wrapper.clear();
    daemon = setup.bridge.start();
    expect(&setup, &(0..400).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_second_bridge_on_the_same_pipe_is_refused() {
    let setup = setup();
    let _pipe = Pipe::of(&setup);
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    let mut other = Bridge::socketio();
    other.set("BRIDGE_INPUT", setup.bridge.input().to_str().unwrap());
    let refused = other.run(&["run"]);
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("two bridges"), "{refused:?}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_11_check_connect_says_whether_a_pipe_can_be_read_and_held_open_and_by_whom() {
    let setup = setup();
    let path = setup.bridge.input();
    done(Command::new("mkfifo").args(["-m", "0662"]).arg(&path));
    let said = || {
        let output = setup.bridge.run(&["check", "--connect"]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let alone = said();
    assert!(alone.contains("can read it and hold it open"), "{alone}");
    assert!(alone.contains("nobody holds it open"), "{alone}");
    assert!(alone.contains("every user can write into it"), "{alone}");
    assert!(alone.contains("sudo chmod o-w"), "{alone}");
    let daemon = setup.bridge.start();
    wait_until_following(&daemon);
    daemon.wait_for_log("every user can write into the pipe");
    assert!(!said().contains("nobody holds it open"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn fi_08_ended_segments_of_a_journal_that_no_position_knows_are_delivered_too() {
    let setup = setup();
    let _pipe = Pipe::of(&setup);
    let directory = journal(&setup.bridge);
    fs::create_dir_all(&directory).unwrap();
    // The first run was killed before its first commit.
    fs::write(directory.join("pipe.jsonl-1000000000000000"), lines(0..10)).unwrap();
    fs::write(directory.join("pipe.jsonl-1000000000000001"), lines(10..20)).unwrap();
    fs::write(directory.join("pipe.jsonl"), lines(20..30)).unwrap();
    let daemon = setup.bridge.start();
    expect(&setup, &(0..30).collect::<Vec<_>>());
    wait_for("delivered segments to be dropped", || {
        (fs::read_dir(&directory).unwrap().count() == 1).then_some(())
    });
    assert_eq!(daemon.stop(), 0);
}
