//! The two doors to the world that a simulator replaces: files and time.
//!
//! Everything that decides over data reaches the disk through [`fs::Fs`] and the clock through
//! [`clock::Clock`], so that the same code can run over an in-memory disk with virtual time.

pub mod access;
pub mod clock;
pub mod fs;
pub mod mutants;
pub mod names;
pub mod panics;
pub mod pipe;
pub mod process;
pub mod vital;
