//! System calls on the input that fail, for a while: told once, and never taken for an end of anything.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::files::{Setup, setup};
use crate::rotation::rename;
use crate::support::account::watches;
use crate::support::calls::{Failing, failing_from_the_start};
use crate::support::consumer::Topic;
use crate::support::daemon::Daemon;
use crate::support::disk::done;
use crate::support::events::Appender;
use crate::support::{poll, wait_for};

fn times(daemon: &Daemon, text: &str) -> usize {
    daemon.log().iter().filter(|line| line.contains(text)).count()
}

/// Nothing is told as lost, and everything that came is what was to come.
fn expect_whole(setup: &Setup, daemon: Daemon, count: u64) {
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.wait_for_events(count as usize);
    setup.bridge.wait_until_settled();
    consumer.read_all();
    let mut numbers = consumer.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "lost or repeated");
    assert_eq!(daemon.stop(), 0);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
    assert!(setup.bridge.rejects().is_empty());
}

#[test]
fn in_37_reads_that_fail_are_told_once_tried_again_slowly_and_lose_and_repeat_nothing() {
    for error in ["EIO", "ESTALE"] {
        let setup = setup();
        let daemon = setup.deliver(0..10);
        let before = setup.bridge.checkpoint()["offset"].clone();
        let failing =
            Failing::of(&daemon, &[setup.bridge.input()], &format!("preadv:error={error}"));
        let mut input = setup.bridge.append();
        input.events(10..20);
        failing.wait_for(1);
        wait_for("the state to be io_error", || {
            let status = setup.bridge.status();
            (status["state"] == "waiting_for_input" && status["reason"] == "io_error").then_some(())
        });
        input.events(20..30);
        failing.wait_for(4);
        assert_eq!(times(&daemon, "it can't be read"), 1, "{:#?}", daemon.log());
        assert_eq!(setup.bridge.checkpoint()["offset"], before);
        // One a look: a loop of them would be thousands.
        let (began, tried) = (std::time::Instant::now(), failing.count());
        poll(Duration::from_secs(1), || None::<()>);
        let more = (failing.count() - tried) as u64;
        assert!(
            more <= 20 * (began.elapsed().as_secs() + 1),
            "{more} reads in {:?}",
            began.elapsed()
        );
        drop(failing);
        setup.expect(&(0..30).collect::<Vec<_>>());
        expect_whole(&setup, daemon, 30);
    }
}

#[test]
fn in_37_every_second_read_fails_and_all_lines_come_in_order() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    let failing = Failing::of(&daemon, &[setup.bridge.input()], "preadv:error=EIO:when=1+2");
    let mut input = setup.bridge.append();
    for number in 1..40 {
        input.events(number * 50 - 40..number * 50 + 10);
    }
    setup.expect(&(0..1_960).collect::<Vec<_>>());
    failing.wait_for(2);
    drop(failing);
    expect_whole(&setup, daemon, 1_960);
}

/// What fails, and whether that concerns the input, its directory or both.
const FAULTS: [(&str, bool, bool); 6] = [
    ("openat:error=EMFILE", true, true),
    ("openat:error=EACCES", true, false),
    ("openat:error=EIO", false, true),
    ("getdents64:error=EIO", false, true),
    ("statx:error=EACCES", true, true),
    ("statx:error=EIO", true, false),
];

fn concerned(setup: &Setup, input: bool, directory: bool) -> Vec<PathBuf> {
    let path = setup.bridge.input();
    let parent = path.parent().unwrap().to_owned();
    [(input, path), (directory, parent)].into_iter().filter(|it| it.0).map(|it| it.1).collect()
}

#[test]
fn in_39_an_input_that_can_not_be_looked_at_is_not_taken_for_deleted() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    for (inject, input, directory) in FAULTS.into_iter().filter(|it| it.0.starts_with("statx")) {
        let failing = Failing::of(&daemon, &concerned(&setup, input, directory), inject);
        failing.wait_for(4);
        wait_until_told(&setup);
        drop(failing);
        wait_for("the input to be followed again", || {
            (setup.bridge.status()["state"] == "following").then_some(())
        });
    }
    assert_eq!(times(&daemon, "moved away or deleted"), 0, "{:#?}", daemon.log());
    setup.bridge.append().events(10..20);
    setup.expect(&(0..20).collect::<Vec<_>>());
    expect_whole(&setup, daemon, 20);
}

/// That the input can't be opened or looked at is no secret, and not that it is missing.
fn wait_until_told(setup: &Setup) {
    wait_for("the reason", || {
        let reason = setup.bridge.status()["reason"].clone();
        (reason == "io_error" || reason == "permission_denied").then_some(())
    });
}

#[test]
fn in_39_what_can_not_be_opened_or_listed_while_it_is_rotated_is_not_taken_for_deleted() {
    let setup = setup();
    let daemon = setup.deliver(0..10);
    let mut next = 10;
    for (round, (inject, input, directory)) in FAULTS.into_iter().enumerate() {
        let failing = Failing::of(&daemon, &concerned(&setup, input, directory), inject);
        let mut late = setup.bridge.append();
        late.events(next..next + 5);
        rename(&setup, &format!("-20260129-{round:06}"));
        late.events(next + 5..next + 10);
        setup.bridge.append().events(next + 10..next + 15);
        next += 15;
        failing.wait_for(1);
        // And once more, so that there may be one that nobody has opened.
        rename(&setup, &format!("-20260129-{round:06}-1"));
        setup.bridge.append().events(next..next + 5);
        next += 5;
        let count = failing.count();
        failing.wait_for(count + 1);
        if input {
            wait_until_told(&setup);
        }
        assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]), "{inject}");
        drop(failing);
        let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
        consumer.wait_for_events(next as usize);
    }
    expect_whole(&setup, daemon, next);
}

/// A rotated file that was seen and could not be opened is missed when it is gone. That the directory can't
/// be listed says nothing of that.
#[test]
fn in_39_a_rotated_file_that_waits_to_be_readable_is_not_lost_when_the_directory_can_not_be_listed()
{
    let mut setup = setup();
    if rustix::process::geteuid().is_root() {
        // Root may read everything: give up what makes it so.
        setup.bridge.wrapper =
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all"].map(str::to_owned).to_vec();
    }
    let daemon = setup.deliver(0..10);
    rename(&setup, ".2");
    let set_mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    let hidden = setup.bridge.directory().join("hidden");
    Appender::open(&hidden).events(10..20);
    set_mode(&hidden, 0).unwrap();
    fs::rename(&hidden, setup.bridge.input()).unwrap();
    wait_until_told(&setup);
    let rotated = rename(&setup, ".1");
    setup.bridge.append().events(20..30);
    daemon.wait_for_log("a rotated file can't be read; trying on");
    let directory = rotated.parent().unwrap().to_owned();
    let failing = Failing::of(&daemon, &[directory], "getdents64:error=EIO");
    failing.wait_for(2);
    drop(failing);
    set_mode(&rotated, 0o600).unwrap();
    expect_whole(&setup, daemon, 30);
}

#[test]
fn in_39_what_can_not_be_opened_or_listed_at_the_start_is_resumed_once_it_can() {
    for (inject, input, directory) in FAULTS {
        let mut setup = setup();
        assert_eq!(setup.deliver(0..10).stop(), 0);
        setup.bridge.append().events(10..20);
        rename(&setup, ".1");
        setup.bridge.append().events(20..30);
        let paths = concerned(&setup, input, directory);
        setup.bridge.wrapper = failing_from_the_start(&paths, &format!("{inject}:when=1..6"));
        let daemon = setup.bridge.start();
        let told = [
            "cannot look for rotated files",
            "it can't be read",
            "cannot watch the input's directory",
        ];
        wait_for("the fault to be told", || {
            told.iter().any(|text| times(&daemon, text) > 0).then_some(())
        });
        expect_whole(&setup, daemon, 30);
    }
}

/// Lines and rotations are noticed by looking once a second, and that is told once.
fn expect_polling(setup: &Setup, daemon: &Daemon, why: &str) -> u64 {
    let told = daemon.wait_for_log("cannot watch the input's directory: looking once a second");
    assert!(told.contains(why) && told.contains("WARN"), "{told}");
    setup.bridge.append().events(10..20);
    setup.expect(&(0..20).collect::<Vec<_>>());
    let mut late = setup.bridge.append();
    rename(setup, ".1");
    late.events(20..25);
    setup.bridge.append().events(25..30);
    setup.expect(&(0..30).collect::<Vec<_>>());
    // Each look tries again.
    let before = resources(daemon);
    let again =
        poll(Duration::from_millis(2_500), || (times(daemon, "cannot watch") > 1).then_some(()));
    assert!(again.is_none(), "{:#?}", daemon.log());
    wait_for("what each try took to be given back", || (resources(daemon) <= before).then_some(()));
    30
}

/// Open files and threads.
fn resources(daemon: &Daemon) -> (usize, usize) {
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).expect("a daemon").count()
    };
    (count("fd"), count("task"))
}

#[test]
fn in_34_in_36_without_inotify_the_input_is_looked_at_once_a_second_with_one_warning() {
    for (inject, why) in [
        ("inotify_add_watch:error=ENOSPC", "limit"),
        ("inotify_init1:error=EMFILE", "Too many open files"),
    ] {
        let mut setup = setup();
        setup.bridge.append().events(0..10);
        setup.bridge.wrapper = failing_from_the_start(&[], inject);
        let daemon = setup.bridge.start();
        setup.expect(&(0..10).collect::<Vec<_>>());
        let count = expect_polling(&setup, &daemon, why);
        expect_whole(&setup, daemon, count);
    }
}

#[test]
fn in_36_with_the_users_watches_used_up_it_polls_and_watches_again_once_there_are_some() {
    let mut setup = setup();
    setup.bridge.append().events(0..10);
    // A user namespace has limits of its own.
    let limit = "/proc/sys/user/max_inotify_watches";
    let script = format!("echo 0 > {limit} && exec \"$@\"");
    setup.bridge.wrapper =
        ["unshare", "-Ur", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let daemon = setup.bridge.start();
    setup.expect(&(0..10).collect::<Vec<_>>());
    let count = expect_polling(&setup, &daemon, "limit");
    assert_eq!(watches(&daemon), 0);
    let raise = format!("echo 9 > {limit}");
    let pid = daemon.pid().to_string();
    done(Command::new("nsenter").args([
        "-U",
        "--preserve-credentials",
        "-t",
        &pid,
        "sh",
        "-c",
        &raise,
    ]));
    wait_for("the directory to be watched", || (watches(&daemon) == 1).then_some(()));
    expect_whole(&setup, daemon, count);
}
