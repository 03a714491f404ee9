//! Whose file it is: the daemon as a user of its own, who may read what the app lets it read.
//!
//! Root passes by all permissions, so the daemon runs as somebody else here.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::files::{Setup, length, setup};
use crate::rotation::{logrotate, rename};
use crate::support::account::Base;
use crate::support::consumer::Topic;
use crate::support::disk::{as_root, done};
use crate::support::wait_for;

/// The app, the daemon, and the group that they share: accounts that every Debian has.
const APP: &str = "daemon";
const BRIDGE: &str = "nobody";
const SHARED: &str = "adm";

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn chown(path: &Path, owner: &str) {
    done(as_root("chown").arg(owner).arg(path));
}

/// The directory as the packages make it: the app's, its group the daemon's. The daemon runs as a user
/// who owns nothing of it.
fn app_and_bridge() -> Setup {
    assert!(rustix::process::geteuid().is_root(), "only root can be two users: run it as root");
    let mut setup = setup();
    set_mode(setup.bridge.directory(), 0o755);
    let (events, state) = (setup.bridge.directory().join("events"), setup.bridge.state());
    std::fs::create_dir(&state).unwrap();
    set_mode(&state, 0o700);
    chown(&state, BRIDGE);
    set_mode(&events, 0o2750);
    chown(&events, &format!("{APP}:{SHARED}"));
    set_mode(&events, 0o2750);
    let (user, groups) = (format!("--reuid={BRIDGE}"), format!("--groups={SHARED}"));
    setup.bridge.wrapper =
        ["setpriv", &user, "--regid=nogroup", &groups].map(str::to_owned).to_vec();
    setup
}

/// What the app appends, which owns the file from then on.
fn append(setup: &Setup, numbers: std::ops::Range<u64>) {
    setup.bridge.append().events(numbers);
    own(&setup.bridge.input(), 0o640);
}

fn own(path: &Path, mode: u32) {
    chown(path, &format!("{APP}:{SHARED}"));
    set_mode(path, mode);
}

fn wait_until_forbidden(setup: &Setup) {
    wait_for("the state to be permission_denied", || {
        let status = setup.bridge.status();
        let denied = status["reason"] == "permission_denied";
        (status["state"] == "waiting_for_input" && denied).then_some(())
    });
}

#[test]
fn in_04_a_rotation_that_takes_the_permission_away_holds_lines_up_and_loses_none() {
    let setup = app_and_bridge();
    append(&setup, 0..10);
    let daemon = setup.bridge.start();
    setup.expect(&(0..10).collect::<Vec<_>>());
    let base = Base::of(&daemon);

    // The new file is root's alone. What was written to the old one arrives all the same.
    let mut old = setup.bridge.append();
    logrotate(&setup, "rotate 9\ncreate 0000 root root");
    old.events(10..15);
    setup.bridge.append().events(15..20);
    wait_until_forbidden(&setup);
    daemon.wait_for_log("permission_denied");
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    assert_eq!(consumer.wait_for_events(15), (0..15).collect::<Vec<_>>());
    own(&setup.bridge.input(), 0o640);
    setup.expect(&(0..20).collect::<Vec<_>>());

    // The way to it is closed while it is open.
    let events = setup.bridge.directory().join("events");
    set_mode(&events, 0);
    wait_until_forbidden(&setup);
    setup.bridge.append().events(20..30);
    set_mode(&events, 0o2750);
    setup.expect(&(0..30).collect::<Vec<_>>());
    setup.expect_accounted(daemon, &base, length(0..30), 0);
}

#[test]
fn in_04_in_07_a_rotated_file_that_may_not_be_read_at_the_start_is_no_loss_and_read_once_it_may() {
    let setup = app_and_bridge();
    append(&setup, 0..10);
    let daemon = setup.bridge.start();
    setup.expect(&(0..10).collect::<Vec<_>>());
    let base = Base::of(&daemon);
    assert_eq!(daemon.stop(), 0);
    append(&setup, 10..20);
    let rotated = rename(&setup, ".1");
    set_mode(&rotated, 0);
    append(&setup, 20..30);
    let daemon = setup.bridge.start();
    // Nobody knows for how long, so the new file goes ahead of it.
    let mut consumer = Topic::open(&setup.broker.bootstrap, &setup.topic);
    consumer.wait_for_events(20);
    assert_eq!(setup.bridge.checkpoint()["lost"], serde_json::json!([]));
    set_mode(&rotated, 0o640);
    setup.expect(&(0..10).chain(20..30).chain(10..20).collect::<Vec<_>>());
    setup.expect_accounted(daemon, &base, length(0..30), 0);
}

#[test]
fn in_05_in_07_in_09_files_of_another_owner_are_followed_through_every_rotation() {
    let setup = app_and_bridge();
    append(&setup, 0..10);
    let daemon = setup.bridge.start();
    setup.expect(&(0..10).collect::<Vec<_>>());
    let base = Base::of(&daemon);
    let mut next = 10;
    for way in [
        format!("rotate 9\ncreate 0640 {APP} {SHARED}"),
        format!("rotate 9\ncompress\ndelaycompress\ncreate 0640 {APP} {SHARED}"),
        "rotate 9\ncopytruncate".to_owned(),
    ] {
        append(&setup, next..next + 10);
        let mut late = setup.bridge.append();
        logrotate(&setup, &way);
        late.events(next + 10..next + 15);
        append(&setup, next + 15..next + 20);
        next += 20;
        setup.expect(&(0..next).collect::<Vec<_>>());
    }
    assert_eq!(daemon.stop(), 0);
    // While it is down: cut in place, and renamed.
    append(&setup, next..next + 10);
    logrotate(&setup, "rotate 9\ncopytruncate");
    append(&setup, next + 10..next + 20);
    logrotate(&setup, &format!("rotate 9\ncreate 0640 {APP} {SHARED}"));
    append(&setup, next + 20..next + 30);
    let daemon = setup.bridge.start();
    setup.expect(&(0..next + 30).collect::<Vec<_>>());
    setup.expect_accounted(daemon, &base, length(0..next + 30), 0);
    let owner = done(Command::new("stat").args(["-c", "%U:%G"]).arg(setup.bridge.input()));
    assert_eq!(owner, format!("{APP}:{SHARED}"), "it was another's file all the time");
}
