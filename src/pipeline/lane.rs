//! One life of the input inside the pipeline: how far it was read, how far it is settled.

use std::time::{Duration, Instant};

use super::waiting::Waiting;
use crate::checkpoint::GenerationState;
use crate::domain::envelope::Reason;
use crate::domain::framing::{Frame, LineBytes, Place};
use crate::domain::identity::Fingerprint;
use crate::domain::ledger::{Amount, Class, Ledger};
use crate::domain::position::{Generation, Sha256};
use crate::source::file::{Cut, FollowedFile};

/// How long a file that was moved away must be quiet before it counts as finished: its writer may
/// still have it open.
pub(super) const QUIET: Duration = Duration::from_mins(5);

/// A generation that is being read, or that was read and is not settled.
pub(super) struct Lane {
    /// Never used again, so a record can name the lane that it is from.
    pub key: u64,
    /// The open file.
    pub file: FollowedFile,
    /// Whether there can still be something to read.
    pub state: LaneState,
    /// A line that found no room.
    pub held: Option<Frame>,
    /// It stands in the state directory: what was kept of a life whose file is gone.
    pub is_kept: bool,
    /// Its file is deleted, and kept for the next process.
    pub is_stored: bool,
    /// It may be a copy, still being made, of another one: it is not read before that is known.
    pub suspect: bool,
    /// It begins where what another lane has to read first ends: that lane, and where.
    pub follows: Option<(u64, u64)>,
    /// It comes after what was in the pipe when that was asked for.
    pub after_pipe: Option<u64>,
    /// Its content was cut, and what came in its place is not judged yet.
    pub cut: Option<PendingCut>,
    /// Why it can't be read at the moment.
    pub failing: Option<Waiting>,
    /// How often it failed since it last could be.
    pub failures: u32,
    /// When something was last read from it.
    pub last_data: Instant,
    /// Where it was put when it was opened.
    pub began: u64,
    /// Its size when it was opened: what lies before was there before the daemon looked.
    pub opened_size: u64,
    /// Everything before is settled.
    settled: u64,
    /// The bytes before `settled`.
    mark: Mark,
    /// Where the bytes before `settled` went.
    pub ledger: Ledger,
}

/// Whether a lane can still give something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneState {
    /// The file is the one at the input path.
    Live,
    /// The file was moved away, replaced or deleted; its writer may still have it open.
    Superseded,
    /// Its content is gone or ended: nothing more is read.
    Over,
}

/// A cut whose new content may still be being written.
pub(super) struct PendingCut {
    /// What was cut.
    pub cut: Cut,
    /// When it was noticed.
    pub began: Instant,
    /// The size then, or the last one that differed,
    pub size: u64,
    /// and when it was seen first.
    pub since: Instant,
}

/// The bytes before the settled offset: remembered, or still in the buffer they were read into.
enum Mark {
    Known(Fingerprint),
    At(Place),
}

/// A line, or a run of lines that need nothing, on its way to being settled.
#[derive(Debug)]
pub(super) struct Tracked {
    /// The lane it is from.
    pub lane: u64,
    /// The place behind it.
    pub place: Place,
    /// The offset behind it.
    pub end: u64,
    /// How much it is, skipped bytes included.
    pub amount: Amount,
    /// How many of the bytes were no content.
    pub skipped: u64,
    /// When it was first seen, milliseconds since 1970; for lines that were there before the
    /// daemon, the event's own time.
    pub seen_ms: i64,
    /// What became of it; none while that is open.
    pub class: Option<Class>,
    /// What a reject would need, for lines that the sink may still refuse.
    pub line: Option<SentLine>,
    /// Why it is refused, if it is.
    pub reason: Option<Reason>,
}

/// A line that was handed to the sink.
#[derive(Clone, Debug)]
pub(super) struct SentLine {
    /// Its bytes.
    pub bytes: LineBytes,
    /// The life of the file that it is from.
    pub generation: Generation,
    /// Where its content begins.
    pub offset: u64,
    /// The event's own time, milliseconds since 1970.
    pub event_ms: i64,
    /// When it was read, on the pipeline's own clock.
    pub seen_us: u64,
}

/// A line as the rejects want it.
pub(super) struct RejectedBytes {
    /// Where the content begins.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// Its hash.
    pub sha256: Sha256,
    /// The bytes, or the first of them.
    pub bytes: LineBytes,
}

impl RejectedBytes {
    /// A line that is kept whole.
    pub(super) fn whole(bytes: LineBytes, offset: u64) -> Self {
        let sha256 = Sha256::of(bytes.as_slice());
        Self { offset, length: bytes.len() as u64, sha256, bytes }
    }
}

impl Lane {
    /// A lane for a file that reading begins on, with the ledger of what lies before.
    pub(super) fn new(key: u64, file: FollowedFile, ledger: Ledger, now: Instant) -> Self {
        Self {
            key,
            began: file.position(),
            opened_size: file.size(),
            settled: file.position(),
            mark: Mark::Known(Fingerprint::of_mark(file.tail())),
            file,
            state: LaneState::Live,
            held: None,
            is_kept: false,
            is_stored: false,
            suspect: false,
            follows: None,
            after_pipe: None,
            cut: None,
            failing: None,
            failures: 0,
            last_data: now,
            ledger,
        }
    }

    /// Takes a record that the watermark has passed.
    pub(super) fn settle(&mut self, tracked: Tracked) {
        debug_assert!(tracked.end >= self.settled, "the watermark went back");
        self.settled = tracked.end;
        self.mark = Mark::At(tracked.place);
        if let Some(class) = tracked.class {
            self.ledger.settle(class, tracked.amount, tracked.skipped);
        }
    }

    /// Ends this life: nothing more is read, and its unfinished line is a line of its own now.
    pub(super) fn finish(&mut self) {
        self.state = LaneState::Over;
        self.held = self.file.finish();
    }

    /// It is not read before something else: that it is known whether it is read elsewhere, or that what
    /// comes before is settled.
    pub(super) fn waits(&self) -> bool {
        self.follows.is_some()
            || self.after_pipe.is_some()
            || (self.suspect && self.file.size() > 0)
    }

    /// Everything before is settled.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether everything that was read is settled.
    pub(super) fn is_settled(&self) -> bool {
        self.held.is_none() && self.settled == self.file.position()
    }

    /// Whether every whole line that was read is settled.
    pub(super) fn is_settled_to_line(&self) -> bool {
        self.held.is_none() && self.settled == self.file.line_start()
    }

    /// Nothing was read from it in this run.
    pub(super) fn is_unread(&self) -> bool {
        self.file.position() == self.began
    }

    /// It has nothing more to give as it is.
    pub(super) fn is_done_so_far(&self) -> bool {
        self.is_settled_to_line() && self.file.position() >= self.file.size()
    }

    /// What the next start must know.
    pub(super) fn checkpoint(&self) -> GenerationState {
        GenerationState {
            generation: self.file.generation(),
            path: self.file.path().to_owned(),
            identity: *self.file.identity(),
            after: self.file.after(),
            head: self.file.head().copied(),
            mark: match &self.mark {
                Mark::Known(mark) => *mark,
                Mark::At(place) => Fingerprint::of_mark(&place.context()),
            },
            offset: self.settled,
            size: self.file.size(),
            modified_ns: self.file.modified_ns(),
            ledger: self.ledger,
        }
    }
}
