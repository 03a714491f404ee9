//! Bytes come in: files that are followed, and the hints that there is something to read.

mod compare;
mod extent;
pub mod fifo;
pub mod file;
mod gzip;
mod nuls;
pub mod siblings;
pub mod watch;
