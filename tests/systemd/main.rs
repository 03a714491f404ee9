//! The units in a real systemd: each test boots a machine of its own, with the daemon installed as a package does.
//!
//! Needs root. `packaging/dev/systemd-root.sh` says what such a machine is.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::must_use_candidate,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

#[path = "../e2e/support/mod.rs"]
#[allow(dead_code, reason = "the other tests use what these do not")]
mod support;

mod configuration;
mod early;
mod ends;
mod machine;
mod many;
mod openalgo;
mod panics;
mod pipe;
mod reload;
mod rollback;
mod secrets;
mod start;
mod topic;
mod units;
mod upgrade;
mod watchdog;
mod withheld;
