//! The durable position: what has been settled, and what the next start must know.

pub mod format;
pub mod store;
pub mod writer;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::identity::{Fingerprint, Identity};
use crate::domain::ledger::Ledger;
use crate::domain::position::Generation;

/// How many mode switches are remembered.
pub const MODE_SWITCHES_KEPT: usize = 16;

/// Everything that a start needs to go on where the last run stopped. One commit covers all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Counts up with every commit and note; the highest valid one counts.
    pub sequence: u64,
    /// When it was made: milliseconds since 1970, for people.
    pub committed_at_ms: i64,
    /// `SOCKETIO` or `KAFKA`.
    pub mode: String,
    /// The lives of the input that are not finished, oldest first; the last is the live file.
    pub generations: Vec<GenerationState>,
    /// Where the bytes of finished generations went.
    pub closed: Ledger,
    /// Bytes that can no longer be read.
    pub lost: Vec<Lost>,
    /// The last mode switches, oldest first.
    pub mode_switches: Vec<ModeSwitch>,
    /// When the ledger began: milliseconds since 1970.
    #[serde(default)]
    pub ledger_since_ms: Option<i64>,
    /// Rejected lines that were sent again and delivered since then.
    #[serde(default)]
    pub requeued_lines: u64,
}

/// One unfinished life of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationState {
    /// Its name; none while its first line is not complete (the offset is 0 then).
    pub generation: Option<Generation>,
    /// Where it was opened.
    pub path: PathBuf,
    /// Who the file is.
    pub identity: Identity,
    /// The life of the same inode before this one.
    pub after: Option<Generation>,
    /// Its first line.
    pub head: Option<Fingerprint>,
    /// The bytes before `offset`.
    pub mark: Fingerprint,
    /// Everything before is settled.
    pub offset: u64,
    /// The largest size seen.
    pub size: u64,
    /// When it was last written, as far as seen: nanoseconds since 1970, by the file system's clock.
    #[serde(default)]
    pub modified_ns: i64,
    /// Where the bytes before `offset` went.
    pub ledger: Ledger,
}

/// Bytes that were never read and can no longer be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The life they were in.
    pub generation: Option<Generation>,
    /// Offset of the first one.
    pub from: u64,
    /// Offset behind the last one that is known of.
    pub to: u64,
    /// Why.
    pub reason: LostReason,
}

/// Why bytes can no longer be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostReason {
    /// The file was moved away or deleted while the daemon was down.
    MovedAway,
    /// The file was cut before they were read.
    TruncatedUnread,
    /// Other content stands in their place.
    Rewritten,
    /// They are packed in a way that can't be unpacked.
    Unreadable,
}

impl LostReason {
    /// The contract's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MovedAway => "moved_away",
            Self::TruncatedUnread => "truncated_unread",
            Self::Rewritten => "rewritten",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The admin switched between Socket.IO and Kafka.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeSwitch {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The mode before.
    pub from: String,
    /// The mode after.
    pub to: String,
}

impl Checkpoint {
    /// Records that the bridge now runs in `mode`. True if that is a switch.
    pub fn enter_mode(&mut self, mode: &str, at_ms: i64) -> bool {
        let before = std::mem::replace(&mut self.mode, mode.to_owned());
        if before.is_empty() || before == mode {
            return false;
        }
        self.mode_switches.push(ModeSwitch { at_ms, from: before, to: mode.to_owned() });
        let surplus = self.mode_switches.len().saturating_sub(MODE_SWITCHES_KEPT);
        self.mode_switches.drain(..surplus);
        true
    }

    /// The live file's state.
    pub fn live(&self) -> Option<&GenerationState> {
        self.generations.last()
    }
}

/// Commits positions, and gives the one to start from.
///
/// Today positions go to files; with a transactional sink they would be committed by its
/// transaction. Results come back as [`writer::StateEvent`]s.
pub trait Committer: Send {
    /// Makes the checkpoint durable.
    fn commit(&mut self, checkpoint: Checkpoint);
    /// Writes the checkpoint where a killed process leaves it behind, without making it durable.
    fn note(&mut self, checkpoint: Checkpoint);
    /// Makes rejected lines durable, in the order given.
    fn reject(&mut self, line: writer::RejectedLine);
    /// Notes durably what became of lines that were sent again.
    fn requeued(&mut self, done: writer::Requeued);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint with everything in it.
    pub(super) fn example(sequence: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint { sequence, committed_at_ms: 1, ..Checkpoint::default() };
        checkpoint.enter_mode("SOCKETIO", 0);
        checkpoint.enter_mode("KAFKA", 5);
        checkpoint.lost.push(Lost {
            generation: Some(Generation(3)),
            from: 1,
            to: 2,
            reason: LostReason::MovedAway,
        });
        checkpoint.generations.push(GenerationState {
            generation: Some(Generation(4)),
            path: PathBuf::from("/events/order_events.jsonl"),
            identity: Identity { dev: 1, ino: 2, born_ns: Some(3) },
            after: None,
            head: Fingerprint::of_head(b"first\n"),
            mark: Fingerprint::of_mark(b"before"),
            offset: 6,
            size: 9,
            modified_ns: 7,
            ledger: Ledger::default(),
        });
        checkpoint
    }

    #[test]
    fn only_the_last_mode_switches_are_kept() {
        let mut checkpoint = Checkpoint::default();
        assert!(!checkpoint.enter_mode("KAFKA", 0), "the first mode is no switch");
        assert!(!checkpoint.enter_mode("KAFKA", 1));
        for at_ms in 0..40 {
            assert!(
                checkpoint.enter_mode(if at_ms % 2 == 0 { "SOCKETIO" } else { "KAFKA" }, at_ms)
            );
        }
        assert_eq!(checkpoint.mode_switches.len(), MODE_SWITCHES_KEPT);
        assert_eq!(checkpoint.mode_switches.last().map(|switch| switch.at_ms), Some(39));
    }
}
