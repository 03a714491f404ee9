//! What the daemon tells about itself.

pub mod client;
mod health;
pub mod http;
pub mod log;
mod metrics;
mod openmetrics;
pub mod snapshot;
