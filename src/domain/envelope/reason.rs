//! Why a line is refused: the closed list of reasons, under the names that `rejects.jsonl`, the
//! metrics and `validate --json` show (contract, section 3).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Why a line is not delivered. One reason a line: the first that applies, in the order in which
/// the variants stand here, as far as [`validate`](super::validate) gives them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Longer than `BRIDGE_MAX_LINE_BYTES`; given by the framer, which never holds such a line
    /// whole.
    TooLong,
    /// Some byte is not part of a UTF-8 sequence.
    InvalidUtf8,
    /// A raw NUL byte stands somewhere in the line (a run of them at its start is cut off before).
    NulBytes,
    /// Not one JSON text of RFC 8259, or a lone surrogate escape where a string has to be decoded.
    NotJson,
    /// Arrays and objects nest deeper than [`DEPTH_LEVELS_MAX`](super::DEPTH_LEVELS_MAX).
    TooDeep,
    /// Valid JSON, but not an object.
    NotAnObject,
    /// An envelope field stands there twice, so that readers could disagree about what it says.
    DuplicateField,
    /// An envelope field is not there.
    MissingField,
    /// An envelope field, or one that `OpenAlgo`'s page relies on inside `data`, has another type.
    WrongType,
    /// `event_type`, `user_id` or `source` is the empty string.
    EmptyField,
    /// An event type that is on neither list.
    UnknownEventType,
    /// The timestamp has another form, or names a date or time that does not exist.
    BadTimestamp,
    /// What followed the last LF of a finished file is not a valid line; given where files end.
    TruncatedAtEof,
    /// The line alone is too large for the broker or the app; given by the sink.
    TooLarge,
    /// The broker, or the app's side of the relay, refused this record alone; given by the sink.
    Refused,
}

impl Reason {
    /// Every reason, in the order of the contract.
    pub const ALL: [Self; 15] = [
        Self::TooLong,
        Self::InvalidUtf8,
        Self::NulBytes,
        Self::NotJson,
        Self::TooDeep,
        Self::NotAnObject,
        Self::DuplicateField,
        Self::MissingField,
        Self::WrongType,
        Self::EmptyField,
        Self::UnknownEventType,
        Self::BadTimestamp,
        Self::TruncatedAtEof,
        Self::TooLarge,
        Self::Refused,
    ];

    /// The contract's name of the reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::NulBytes => "nul_bytes",
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateField => "duplicate_field",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::EmptyField => "empty_field",
            Self::UnknownEventType => "unknown_event_type",
            Self::BadTimestamp => "bad_timestamp",
            Self::TruncatedAtEof => "truncated_at_eof",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is none of [`Reason::ALL`]. It does not repeat the name: that came from a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not a reason for a reject that this version knows")]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(name: &str) -> Result<Self, UnknownReason> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name).ok_or(UnknownReason)
    }
}

/// A line that is refused: why, and where in the line to look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The reason in the contract's terms.
    pub reason: Reason,
    /// The same for a person, in one sentence. Positions count bytes of the line from 0. It names
    /// fields of the envelope, but never shows a byte of the line: a line may hold secrets, logs
    /// are read by many.
    pub detail: String,
}

impl Rejection {
    /// A rejection with a sentence for a person; see [`Rejection::detail`] for what it must not
    /// say.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The same for a line that its file ended in the middle of: that is the reason then.
    #[must_use]
    pub fn at_end_of_file(self) -> Self {
        let detail = format!("the file ended before the line did: {}", self.detail);
        Self::new(Reason::TruncatedAtEof, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_again_by_the_name_it_prints() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.to_string().parse(), Ok(reason));
            assert_eq!(reason as usize, index, "{reason}: ALL and the variants differ in order");
        }
        assert_eq!("Not_json".parse::<Reason>(), Err(UnknownReason));
        assert_eq!(format!("{:>9}|", Reason::NotJson), " not_json|");
    }
}
