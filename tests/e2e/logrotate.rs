//! What logrotate does with files beyond renaming them: to another directory, to another disk, to shreds.

use std::fs;

use crate::files::{Setup, setup};
use crate::rotation::logrotate;
use crate::support::disk::Disk;
use crate::support::events::padded_event;
use crate::support::wait_for;

/// Rotates with the app writing on to the old file, and waits until the new one is followed: a file that
/// leaves the directory before anyone opened it can't be found again.
fn rotate_away(setup: &Setup, directives: &str, next: &mut u64) {
    let mut late = setup.bridge.append();
    late.events(*next..*next + 10);
    let before = setup.bridge.status()["input"]["generation"].clone();
    logrotate(setup, directives);
    late.events(*next + 10..*next + 12);
    setup.bridge.append().events(*next + 12..*next + 20);
    *next += 20;
    wait_for("the new file to be followed", || {
        let generation = setup.bridge.status()["input"]["generation"].clone();
        (generation != before && !generation.is_null()).then_some(())
    });
}

#[test]
fn in_46_files_that_are_shredded_while_they_are_open_are_delivered_once_and_no_shred_of_them() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    let mut next = 10;
    // The second rotation shreds what the first one left, which is still open. Shredding takes a while.
    for _ in 0..4 {
        let large: String =
            (next..next + 20).map(|number| padded_event(number, 400_000) + "\n").collect();
        setup.bridge.append().write(large.as_bytes());
        next += 20;
        rotate_away(&setup, "rotate 1\ncreate\nshred\nshredcycles 3", &mut next);
        setup.expect(&(0..next).collect::<Vec<_>>());
    }
    assert_eq!(daemon.stop(), 0);
}

/// The directory is one below that of the input.
#[test]
fn in_46_files_that_are_rotated_to_an_olddir_while_down_are_found_there() {
    let setup = setup();
    let old = setup.bridge.directory().join("events/old");
    fs::create_dir(&old).unwrap();
    let daemon = setup.deliver(0..10);
    assert_eq!(daemon.stop(), 0);
    let directives = format!("rotate 9\ncreate\ncompress\ndelaycompress\nolddir {}", old.display());
    for next in [10, 20, 30] {
        setup.bridge.append().events(next..next + 10);
        logrotate(&setup, &directives);
    }
    setup.bridge.append().events(40..50);
    let daemon = setup.bridge.start();
    setup.expect(&(0..50).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
    // And nothing of it again.
    let daemon = setup.bridge.start();
    setup.bridge.append().events(50..60);
    setup.expect(&(0..60).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn in_46_files_that_are_rotated_to_another_directory_or_disk_are_read_to_their_end() {
    let setup = setup();
    let other = setup.bridge.directory().join("other");
    let (below, beside) = (setup.bridge.directory().join("events/old"), other.join("old"));
    let _disk = Disk::format(&setup.bridge.directory().join("image"), &other, &[]).mounted("rw");
    let daemon = setup.deliver(0..10);
    let mut next = 10;
    for directory in [&below, &beside] {
        fs::create_dir(directory).unwrap();
        let (plain, packed) = (
            format!("rotate 9\ncreate\nolddir {}", directory.display()),
            format!("rotate 9\ncreate\ncompress\nolddir {}", directory.display()),
        );
        // To another disk it can't be renamed: it is copied there, and deleted here.
        let copy = format!("{plain}\nrenamecopy");
        let ways = if *directory == below { [&plain, &packed] } else { [&copy, &copy] };
        for way in ways {
            rotate_away(&setup, way, &mut next);
            setup.expect(&(0..next).collect::<Vec<_>>());
        }
        assert!(fs::read_dir(directory).unwrap().count() > 0, "nothing was rotated to it");
    }
    assert!(setup.bridge.rejects().is_empty());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}

/// The files between were never seen, and are packed when they could be.
#[test]
fn in_06_in_08_three_rotations_that_pack_between_two_looks_lose_nothing() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    daemon.signal("STOP");
    for round in 1..4 {
        setup.bridge.append().events(round * 10..round * 10 + 10);
        logrotate(&setup, "rotate 9\ncreate\ncompress");
    }
    setup.bridge.append().events(40..50);
    daemon.signal("CONT");
    setup.expect(&(0..50).collect::<Vec<_>>());
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
}
