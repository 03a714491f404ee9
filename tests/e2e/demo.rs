//! What a newcomer types first: `make demo` and `make demo KAFKA=1`, which end well only if no event is missing.

use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the demo as `make` does, for that many seconds, and gives the last thing that it says.
fn summary(script: &str, seconds: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=10", "150", "bash"])
        .arg(directory.join("packaging/dev").join(script))
        .arg(seconds)
        .envs([("BRIDGE_BIN", env!("CARGO_BIN_EXE_openalgo-bridge")), ("PORT", "0")])
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{errors}");
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    said.rsplit_once("Summary").expect("a summary").1.to_owned()
}

/// The number behind these words.
fn value(summary: &str, words: &str) -> u64 {
    let line = summary.lines().find(|line| line.trim_start().starts_with(words));
    let number = line.and_then(|line| line.split_whitespace().last());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{words}: {summary}"))
}

#[test]
fn the_demo_ends_well_with_every_event_once() {
    let summary = summary("demo.sh", "8");
    assert!(value(&summary, "events written") > 5, "{summary}");
    assert_eq!(value(&summary, "missing"), 0);
    assert!(summary.contains("Every event arrived, once."), "{summary}");
}

#[test]
fn the_demo_with_kafka_ends_well_with_the_broken_lines_put_aside() {
    let summary = summary("demo-kafka.sh", "8");
    let (broken, rejected) = (value(&summary, "of these broken"), value(&summary, "rejected"));
    assert_eq!((broken, value(&summary, "missing")), (rejected, 0), "{summary}");
    let written = value(&summary, "lines written");
    assert!(written > 5, "{summary}");
    assert_eq!(value(&summary, "distinct event ids"), written - broken);
}
