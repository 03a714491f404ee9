//! What the daemon tells about itself.

pub mod client;
pub mod health;
pub mod http;
pub mod log;
mod metrics;
mod openmetrics;
pub mod snapshot;
