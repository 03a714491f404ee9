//! Bytes come in: files that are followed, and the hints that there is something to read.

pub mod file;
pub mod watch;
