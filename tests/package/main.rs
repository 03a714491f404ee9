//! What the packages bring besides the program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod generated;
mod glibc;
