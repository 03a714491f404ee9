//! Whether there is an input to follow, and why not.

use std::io;

use crate::platform::fs::FileKind;

/// Whether there is an input to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InputState {
    /// A file is open and followed.
    Following,
    /// There is none, for this reason.
    Waiting(Waiting),
}

/// Why there is no input to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Nothing is at the path.
    Missing,
    /// Something that can't be followed is at the path.
    WrongType(FileKind),
    /// The file, or a directory on the way, can't be read.
    PermissionDenied,
    /// Another error.
    Io(String),
}

impl Waiting {
    /// The contract's name.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongType(_) => "wrong_type",
            Self::PermissionDenied => "permission_denied",
            Self::Io(_) => "io_error",
        }
    }

    pub(super) fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            Self::PermissionDenied
        } else {
            Self::Io(error.to_string())
        }
    }
}
