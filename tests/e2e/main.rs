//! The real daemon against a real Kafka, as a user has them.

mod support;

mod crash;
mod broken;
mod files;
mod outage;
mod poison;
mod samples;
mod state;
mod stop;
