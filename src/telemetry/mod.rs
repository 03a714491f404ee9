//! What the daemon tells about itself.

pub mod log;
pub mod server;
pub mod snapshot;
