//! The simulator: the daemon's own logic over a disk, a clock and a sink in memory, driven from a
//! seed through everything that can happen to them.
//!
//! `SIMULATE_SEED=7` or `SIMULATE_SCRIPT=file` replays one with everything that happens,
//! `SIMULATE_FROM=5000 SIMULATE_SEEDS=1000` runs others than usual, `SIMULATE_HOURS=1` goes on with ever new
//! ones (`make simulate`). A seed that fails is shrunk to a
//! script; it goes into `regressions/`, which every run replays.

// The whole crate is a test; clippy's exception for tests knows only functions marked as one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod application;
mod counters;
mod disk;
mod edges;
mod lines;
mod model;
// A release build makes no mistakes.
#[cfg(debug_assertions)]
mod mutants;
mod oracle;
mod owed;
mod reading;
mod rest;
mod rng;
mod rotation;
mod runner;
mod script;
mod sending;
mod world;

use std::path::Path;

use crate::runner::{asked_for, campaign, replay_loudly, run, seeds_to_run};
use crate::script::Script;

#[test]
fn a_million_operations_break_no_rule_and_every_fault_really_happens() {
    if let Some(script) = asked_for() {
        return replay_loudly(&script);
    }
    let (first, seeds, until) = seeds_to_run();
    let report = campaign(first, seeds, until);
    report.print();
    report.assert_clean();
}

#[test]
fn what_once_failed_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/regressions");
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let script = Script::parse(&std::fs::read_to_string(&path).unwrap());
        let ran = run(&script.unwrap_or_else(|error| panic!("{}: {error}", path.display())), false);
        assert_eq!(ran.violation, None, "{}", path.display());
        replayed += 1;
    }
    assert!(replayed > 0);
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in 0..20 {
        let script = Script::from_seed(seed);
        let (once, again) = (run(&script, false), run(&script, false));
        assert_eq!((once.trace, once.ops), (again.trace, again.ops), "seed {seed}");
        let text = script.to_text();
        assert_eq!(Script::parse(&text), Ok(script), "a script says all there is to it");
    }
}
