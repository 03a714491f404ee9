//! Killed at any moment, the daemon loses nothing and repeats little.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::consumer::{Topic, assert_first_deliveries_in_order};
use crate::support::daemon::Bridge;
use crate::support::events::Appender;
use crate::support::poll;

const KILLS: u32 = 100;
const LINES_PER_SECOND: u64 = 2_000;

/// Appends at a steady rate until told to stop, and counts.
fn append_steadily(mut input: Appender, stop: &AtomicBool, written: &AtomicU64) {
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * LINES_PER_SECOND as f64) as u64;
        let done = written.load(Ordering::Relaxed);
        for number in done..due {
            input.events([number]);
            written.store(number + 1, Ordering::Release);
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Small, seeded, good enough to spread the kills.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The offset at which each event begins in the input.
fn offsets(bridge: &Bridge) -> Vec<u64> {
    let content = std::fs::read(bridge.input()).unwrap();
    let mut offset = 0;
    content
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| {
            let start = offset;
            offset += line.len() as u64;
            start
        })
        .collect()
}

#[test]
fn pr_01_100_sigkills_under_load_lose_nothing_and_repeat_little() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (input, thread_stop, thread_written) = (bridge.append(), stop.clone(), written.clone());
    let appender =
        std::thread::spawn(move || append_steadily(input, &thread_stop, &thread_written));
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let mut random = 0x9e37_79b9_7f4a_7c15;

    // Per kill: what the position was, and how many records the topic held by then.
    let mut kills: Vec<(u64, usize)> = Vec::new();
    for _ in 0..KILLS {
        let daemon = bridge.start();
        let before = consumer.records.len();
        let delivering =
            poll(Duration::from_secs(30), || consumer.poll(Duration::from_millis(5)).map(|_| ()));
        assert!(
            delivering.is_some(),
            "nothing delivered after {before} records: {:#?}",
            daemon.log()
        );
        let until = Instant::now() + Duration::from_micros(next_random(&mut random) % 1_000_000);
        while Instant::now() < until {
            consumer.poll(Duration::from_millis(1));
        }
        daemon.kill();
        let position = bridge.checkpoint()["offset"].as_u64().unwrap();
        consumer.read_all();
        kills.push((position, consumer.records.len()));
    }
    stop.store(true, Ordering::Relaxed);
    appender.join().unwrap();
    let written = written.load(Ordering::Acquire);
    let daemon = bridge.start();
    consumer.wait_for_events(written as usize);
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
    consumer.read_all();

    let offsets = offsets(&bridge);
    let numbers = consumer.numbers();
    let distinct: HashSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len() as u64, written, "lost");
    assert_first_deliveries_in_order(&consumer.records);
    check_each_kill(&kills, &numbers, &offsets);
    let duplicates = numbers.len() - distinct.len();
    println!("{written} lines, {KILLS} kills, {duplicates} duplicates");
    assert!(duplicates > 0, "the kills did nothing");
    // Some 20 a kill on a quiet machine; on a starved one a kill finds a backlog on its way, which is
    // never more than may be in flight.
    assert!(duplicates as u32 <= IN_FLIGHT * KILLS, "{duplicates} duplicates in {KILLS} kills");
}

/// The default of `BRIDGE_MAX_IN_FLIGHT`.
const IN_FLIGHT: u32 = 16_384;

/// The position is never ahead of what the topic holds, and what is repeated after a kill lies at
/// or after it.
fn check_each_kill(kills: &[(u64, usize)], numbers: &[u64], offsets: &[u64]) {
    let ends = kills.iter().map(|(_, records)| *records).skip(1).chain([numbers.len()]);
    let mut held: HashSet<u64> = HashSet::new();
    let mut from = 0;
    for ((position, records), next) in kills.iter().zip(ends) {
        held.extend(&numbers[from..*records]);
        from = *records;
        for number in offsets.iter().enumerate().filter(|(_, offset)| *offset < position) {
            assert!(
                held.contains(&(number.0 as u64)),
                "position {position} is ahead of event {}",
                number.0
            );
        }
        for number in numbers[*records..next].iter().filter(|number| held.contains(number)) {
            let offset = offsets[*number as usize];
            assert!(
                offset >= *position,
                "event {number} at {offset} is repeated, position {position}"
            );
        }
    }
}

#[test]
fn ck_15_a_state_directory_removed_at_run_time_is_made_anew() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    let mut input = bridge.append();
    let daemon = bridge.start();
    input.events(0..100);
    bridge.wait_until_settled();
    std::fs::remove_dir_all(bridge.state()).unwrap();
    input.events(100..200);
    bridge.wait_until_settled();
    let second = bridge.run(&["run"]);
    assert_eq!(second.status.code(), Some(75), "the new directory is locked as well");
    daemon.kill();
    let daemon = bridge.start();
    input.events(200..300);
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    let numbers = consumer.wait_for_events(300);
    assert!(numbers.len() < 310, "{} records", numbers.len());
    assert_eq!(daemon.stop(), 0);
}

/// Starts the daemon so that the kernel kills it at the given system call on a file of its state,
/// and appends until that happened.
fn run_until_killed(bridge: &mut Bridge, input: &mut Appender, next: &mut u64, inject: &str) {
    let state = bridge.state();
    let mut wrapper: Vec<String> =
        ["strace", "-f", "-qq", "-o", "/dev/null"].map(str::to_owned).to_vec();
    for name in
        ["", "checkpoint.tmp", "checkpoint.json", "checkpoint.prev.tmp", "checkpoint.prev.json"]
    {
        wrapper.extend([
            "-P".to_owned(),
            state.join(name).display().to_string().trim_end_matches('/').to_owned(),
        ]);
    }
    wrapper.extend(["-e".to_owned(), format!("inject={inject}")]);
    bridge.wrapper = wrapper;
    let mut daemon = bridge.start();
    let killed = poll(Duration::from_secs(90), || {
        input.events([*next]);
        *next += 1;
        (!daemon.is_running()).then_some(())
    });
    assert!(killed.is_some(), "{inject} never happened");
    bridge.wrapper.clear();
}

#[test]
fn ck_01_ck_04_killed_at_each_step_of_a_commit_the_position_is_readable_and_nothing_is_lost() {
    let broker = Broker::shared();
    let topic = broker.topic(1);
    let mut bridge = Bridge::to_kafka(&broker.bootstrap, &topic);
    bridge.set("BRIDGE_CHECKPOINT_INTERVAL_MS", "50");
    let mut input = bridge.append();
    let mut next = 0;
    for call in ["openat", "pwrite64", "fsync", "linkat", "rename", "unlink"] {
        for when in [1, 2, 5] {
            let inject = format!("{call}:signal=KILL:when={when}");
            run_until_killed(&mut bridge, &mut input, &mut next, &inject);
            let position = bridge.checkpoint()["offset"].as_u64().unwrap();
            let boundary = position == 0 || offsets(&bridge).contains(&position);
            let size = std::fs::metadata(bridge.input()).unwrap().len();
            assert!(boundary || position == size, "{inject}: {position} is within a line");
        }
    }
    let daemon = bridge.start();
    let mut consumer = Topic::open(&broker.bootstrap, &topic);
    consumer.wait_for_events(next as usize);
    assert_first_deliveries_in_order(&consumer.records);
    bridge.wait_until_settled();
    assert_eq!(daemon.stop(), 0);
}
