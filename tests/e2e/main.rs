//! The real daemon against a real Kafka, as a user has them.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::must_use_candidate,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod support;

mod broken;
mod broker_network;
mod brokers;
mod check;
mod cluster;
mod crash;
mod demo;
mod errno;
mod ext4;
mod fifo;
mod files;
mod host;
mod http;
mod links;
mod logrotate;
mod outage;
mod owners;
mod poison;
mod process;
mod relay;
mod relay_network;
mod reload;
mod requeue;
mod resources;
mod restart;
mod rotation;
mod samples;
mod seldom;
mod socketio;
mod state;
mod status;
mod stop;
mod strangers;
mod tools;
mod writers;
