//! The daemon and its host: signals, and later readiness.

pub mod signals;
