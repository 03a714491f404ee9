//! Holds `domain::envelope` to three others at once: a table of lines with the verdict that the
//! contract gives them, a second validator that is slow and obvious (`reference`), and the schema
//! that `openalgo-bridge schema` prints.

// The whole crate is a test; clippy's exception for tests knows only functions marked as one.
#![allow(clippy::unwrap_used)]

mod agreement;
mod corpus;
mod reference;
mod robustness;
mod tables;
