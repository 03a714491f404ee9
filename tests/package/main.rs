//! What the packages bring besides the program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod docker;
mod generated;
mod glibc;
