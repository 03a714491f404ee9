//! The daemon and its host: signals, and what systemd is told.

pub mod readiness;
pub mod signals;
