//! The simulator: the daemon's own logic over a disk, a clock and a sink in memory, driven from a
//! seed through everything that can happen to them.

// The whole crate is a test; clippy's exception for tests knows only functions marked as one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod counters;
mod disk;
mod edges;
mod lines;
mod model;
mod oracle;
mod rng;
mod runner;
mod script;
mod world;

use crate::runner::{Report, campaign};

#[test]
fn seeds() {
    if let Some(script) = runner::asked_for() {
        runner::replay_loudly(&script);
        return;
    }
    let report: Report = campaign(0, runner::seeds_to_run());
    report.print();
    report.assert_clean();
}
