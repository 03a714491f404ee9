//! What the daemon takes while it follows a busy input, and that it gives it back.

use std::fs;
use std::time::Duration;

use crate::files::{Setup, lines, setup};
use crate::rotation::rename;
use crate::support::account::{Base, expect_ledger_adds_up, held};
use crate::support::consumer::Topic;
use crate::support::events::event;
use crate::support::{or_in_soak, wait_for};

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
    expect_ledger_adds_up(&setup.bridge, written, 0);
    let base = Base::of(&daemon);

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
    let before = expect_ledger_adds_up(&setup.bridge, written, 0);
    assert_eq!(before["lines"]["delivered"], ROTATIONS * 20 + 20);
    base.expect_back(&daemon);
    if or_in_soak(false, true) {
        base.expect_back_with(&daemon, 1, HELD_FOR);
    }
    assert_eq!(daemon.stop(), 0);

    let daemon = setup.bridge.start();
    let after = expect_ledger_adds_up(&setup.bridge, written, 0);
    assert_eq!(after, before, "a restart changes nothing");
    setup.bridge.append().events([ROTATIONS * 20 + 20]);
    written += event(ROTATIONS * 20 + 20).len() as u64 + 1;
    expect_ledger_adds_up(&setup.bridge, written, 0);
    // Of the files that were deleted nothing is held any more.
    wait_for("five files and the live one", || (held(&daemon).len() == 6).then_some(()));
    consumer.wait_for_events(ROTATIONS as usize * 20 + 21);
    assert_eq!(consumer.numbers().len() as u64, ROTATIONS * 20 + 21, "repeated");
    assert_eq!(daemon.stop(), 0);
}
