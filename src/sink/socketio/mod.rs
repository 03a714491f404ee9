//! Socket.IO: the bridge as the server that clients connect to.

pub mod server;
