//! The kit's own tests, in Python, as tests of this project: each module is one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a module of `tests/openalgo`. A test that is skipped has failed: what it needs is installed
/// by `make tools`.
#[track_caller]
fn run(module: &str) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("timeout")
        .args(["-k", "10", "600"])
        .arg(repository.join(".tools/python/bin/python"))
        .args(["-m", "unittest", "-v", module])
        .current_dir(repository.join("tests/openalgo"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    println!("{}\n{report}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{module} failed");
    let ran = report.lines().any(|line| line.starts_with("Ran ") && !line.starts_with("Ran 0 "));
    assert!(ran, "{module} ran no test");
    // Only root can mount the small file system of one of them.
    let root = rustix::process::geteuid().is_root();
    assert!(!root || !report.contains("skipped"), "{module} skipped a test");
}

#[test]
fn envelopes_have_the_text_that_flask_socketio_sends() {
    run("test_envelope");
}

#[test]
fn a_stock_app_appends_and_emits_as_before() {
    run("test_app");
}

#[test]
fn lines_are_whole_whatever_happens_to_the_file() {
    run("test_writer");
}

#[test]
fn the_app_is_as_fast_as_before_when_appending_fails() {
    run("test_faults");
}

#[test]
fn the_apps_side_of_the_relay_shows_each_event_once() {
    run("test_relay");
}

#[test]
fn the_session_check_says_who_is_logged_in() {
    run("test_session");
}

#[test]
fn setup_writes_and_undoes_what_it_says() {
    run("test_setup");
}
