//! What the daemon takes while it follows a busy input, and that it gives it back.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::errno::{resources, watches};
use crate::files::{Setup, lines, setup};
use crate::rotation::rename;
use crate::support::consumer::Topic;
use crate::support::daemon::Daemon;
use crate::support::events::event;
use crate::support::{PATIENCE, poll, wait_for};

/// How many rotated files may be held open, in case their writers come back.
const HELD_MAX: usize = 64;

/// How long they may be: five minutes after the last line, and some for the next look.
const HELD_FOR: Duration = Duration::from_secs(330);

/// Rotates once, with lines of every class. Gives how many bytes were written.
fn rotate(setup: &Setup, round: u64) -> u64 {
    let other = event(0).replace("order_event", "order_update");
    let text = format!("{}broken {round}\n\n \n{other}\n", lines(round * 20..round * 20 + 20));
    setup.bridge.append().write(text.as_bytes());
    rename(setup, &format!("-20260129-{round:06}"));
    if let Some(old) = round.checked_sub(5) {
        // As `rotate 5` would; it may be open still.
        let old =
            setup.bridge.input().with_file_name(format!("order_events.jsonl-20260129-{old:06}"));
        let _ = fs::remove_file(old);
    }
    text.len() as u64
}

/// Every byte is in one class; those that were read are those that were written.
fn wait_until_the_ledger_adds_up(setup: &Setup, written: u64, lines: u64) -> Value {
    let ledger = wait_for(&format!("{written} bytes in the ledger"), || {
        let ledger = setup.bridge.status()["ledger"].clone();
        (ledger["bytes"]["read"] == written && ledger["bytes"]["pending"] == 0).then_some(ledger)
    });
    for unit in ["bytes", "lines"] {
        let classes = ["delivered", "rejected", "filtered", "blank", "pending"];
        let sum: u64 = classes.iter().map(|class| ledger[unit][class].as_u64().unwrap()).sum();
        assert_eq!(ledger[unit]["read"], sum, "{unit}: {ledger}");
        assert_eq!(ledger[unit]["lost"], 0, "{ledger}");
    }
    assert_eq!(ledger["lines"]["delivered"], lines, "{ledger}");
    ledger
}

/// How many files of the input's directory are open.
fn held(daemon: &Daemon) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("a daemon").flatten();
    let names = open.filter_map(|it| fs::read_link(it.path()).ok());
    names.filter(|name| name.to_string_lossy().contains("/events/order_events")).count()
}

/// What is not taken for a file of the input: descriptors and threads. Another daemon may have been given
/// others from the start, by the tests that run beside this one.
fn others(daemon: &Daemon) -> (usize, usize) {
    let (files, threads) = resources(daemon);
    (files - held(daemon), threads)
}

/// A note, a connection, a thread of librdkafka's may come later; a leak would be one a rotation.
const LATE: usize = 5;

fn back_to(daemon: &Daemon, base: (usize, usize), most: usize, patience: Duration) {
    let given_back = poll(patience, || {
        let (files, threads) = others(daemon);
        let given_back = files <= base.0 + LATE && threads <= base.1 + LATE;
        (held(daemon) <= most && given_back).then_some(())
    });
    let now = (held(daemon), others(daemon));
    assert!(given_back.is_some(), "{now:?} are held, not {most} and {base:?}");
}

#[test]
fn after_200_rotations_memory_descriptors_threads_and_watches_are_what_they_were_and_every_byte_counts()
 {
    const ROTATIONS: u64 = 200;
    let setup = setup();
    let daemon = setup.bridge.start();
    daemon.wait_for_log("waiting for the input");
    // What is taken once: buffers, connections, the threads behind them.
    let mut written = rotate(&setup, 0) + rotate(&setup, 1);
    setup.bridge.append();
    wait_until_the_ledger_adds_up(&setup, written, 40);
    let (base, memory) = (others(&daemon), daemon.memory_kb("VmRSS"));
    assert_eq!(watches(&daemon), 1);

    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    for round in 2..ROTATIONS {
        written += rotate(&setup, round);
        if round % 5 == 0 {
            // What is deleted before anyone saw it is lost, whoever reads.
            consumer.wait_for_events(round as usize * 20 + 20);
        }
    }
    setup.bridge.append().events(ROTATIONS * 20..ROTATIONS * 20 + 20);
    written += fs::metadata(setup.bridge.input()).unwrap().len();
    let before = wait_until_the_ledger_adds_up(&setup, written, ROTATIONS * 20 + 20);
    assert_eq!(watches(&daemon), 1, "one directory");
    // And the live one.
    back_to(&daemon, base, HELD_MAX + 1, PATIENCE);
    let grown = daemon.memory_kb("VmRSS").saturating_sub(memory);
    println!("{grown} kB more than {memory}; {:?} after {base:?}", others(&daemon));
    assert!(grown < 8 << 10, "{grown} kB more than before");
    if std::env::var_os("BRIDGE_SOAK").is_some() {
        back_to(&daemon, base, 1, HELD_FOR);
    }
    assert_eq!(daemon.stop(), 0);

    let daemon = setup.bridge.start();
    let after = wait_until_the_ledger_adds_up(&setup, written, ROTATIONS * 20 + 20);
    assert_eq!(after["bytes"], before["bytes"], "a restart changes nothing");
    setup.bridge.append().events([ROTATIONS * 20 + 20]);
    written += event(ROTATIONS * 20 + 20).len() as u64 + 1;
    wait_until_the_ledger_adds_up(&setup, written, ROTATIONS * 20 + 21);
    // Of the files that were deleted nothing is held any more.
    wait_for("five files and the live one", || (held(&daemon) == 6).then_some(()));
    consumer.wait_for_events(ROTATIONS as usize * 20 + 21);
    assert_eq!(consumer.numbers().len() as u64, ROTATIONS * 20 + 21, "repeated");
    assert_eq!(daemon.stop(), 0);
}
