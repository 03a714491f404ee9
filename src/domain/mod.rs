//! What is decided, without doing anything: values in, values out.
//!
//! Nothing here opens a file, asks the time, logs, spawns, sends or draws a random number
//! (`tests/tidy.rs` holds that), so every rule of the bridge can be tested as a function.

pub mod acks;
pub mod delivery;
pub mod envelope;
pub mod framing;
pub mod identity;
pub mod latency;
pub mod ledger;
pub mod position;
pub mod rotation;
