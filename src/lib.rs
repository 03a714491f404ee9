//! openalgo-bridge follows a file that `OpenAlgo` appends events to, and delivers every line of it
//! to Kafka, at least once.
//!
//! ```text
//! file ──► source ──► pipeline ──► sink ──► broker
//!                     │  ▲
//!                     ▼  └── delivery reports
//!                 checkpoint, rejects
//! ```
//!
//! One thread owns the line's way from bytes to checkpoint ([`pipeline`]). What it decides, it
//! decides in [`domain`], which does no I/O; what it does, it does through [`source`], [`sink`] and
//! [`checkpoint`], which decide nothing and do not know each other. In reading order:

pub mod domain;

pub mod platform;

pub mod config;

pub mod source;

pub mod sink;

pub mod checkpoint;

pub mod pipeline;

pub mod telemetry;

pub mod service;

pub mod cli;
