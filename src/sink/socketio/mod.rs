//! Socket.IO: the bridge as the server that clients connect to, or as a client of the app's own.

pub mod relay;
pub mod server;

/// The name of the threads that connections are served on.
pub const THREADS: &str = "socketio";
