//! Going on where the last run stopped.

use std::io;
use std::path::Path;
use std::time::Instant;

use tracing::{error, info, warn};

use super::input::{InputState, InputWatch};
use super::lane::Lane;
use super::position::PositionKeeper;
use super::report::Reporter;
use super::{Edges, Pipeline, Settings};
use crate::checkpoint::{Checkpoint, GenerationState, Lost, LostReason};
use crate::domain::acks::AckTracker;
use crate::domain::identity::{Fingerprint, Identity, Resume};
use crate::domain::ledger::Ledger;
use crate::platform::fs::Fs;
use crate::source::file::{FollowedFile, Known};
use crate::telemetry::snapshot::{Counted, Reasons};

/// Where the first start begins to read a file that already has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At its first byte.
    Beginning,
    /// Just after its last LF.
    End,
}

/// What a start knows of the past.
#[derive(Debug)]
pub enum Start {
    /// Nothing: this is the first start with this state directory.
    First,
    /// The last position.
    From(Box<Checkpoint>),
    /// There was a position, but no copy of it is readable.
    Unreadable,
}

impl Pipeline {
    /// A pipeline that goes on from `start`. Nothing is read before [`Pipeline::turn`].
    pub fn new(settings: Settings, edges: Edges, start: &Start) -> Self {
        let (now, now_ms) = (edges.clock.now(), edges.clock.unix_ms());
        let mut checkpoint = match start {
            Start::From(checkpoint) => Some((**checkpoint).clone()),
            Start::First | Start::Unreadable => None,
        };
        let switched = checkpoint
            .as_mut()
            .is_some_and(|checkpoint| checkpoint.enter_mode(settings.mode, now_ms));
        let first = checkpoint.is_none();
        let mut pipeline = Self {
            lanes: Vec::new(),
            remembered: None,
            next_lane: 0,
            tracker: AckTracker::new(settings.in_flight),
            ledger: Ledger::default(),
            closed: checkpoint
                .as_ref()
                .map_or_else(Ledger::default, |checkpoint| checkpoint.closed),
            lost: checkpoint.as_ref().map(|checkpoint| checkpoint.lost.clone()).unwrap_or_default(),
            input: InputWatch::new(now, now_ms),
            position: PositionKeeper::new(checkpoint.as_ref(), switched || first, first, now_ms),
            outcomes: Vec::new(),
            turn_ms: now_ms,
            turn_us: 0,
            began: now,
            counted: Counted::default(),
            reasons: Reasons::default(),
            lines_behind_watermark: 0,
            stopping: false,
            rejects_failing: None,
            counted_buffer: None,
            rejects_untold: 0,
            rejects_told: None,
            reporter: Reporter::new(edges.latest.clone(), settings.state_dir.clone(), now_ms),
            settings,
            edges,
        };
        match checkpoint {
            Some(checkpoint) => pipeline.go_on(&checkpoint),
            None => pipeline.begin(matches!(start, Start::First)),
        }
        pipeline.ledger = pipeline.settled_so_far();
        pipeline
    }

    /// The first start, or one that lost its position.
    fn begin(&mut self, first: bool) {
        let from_end = first && self.settings.start_at == StartAt::End;
        let Some(mut file) = self.open_at_start() else { return };
        let max_line = self.settings.max_line_bytes;
        if from_end && let Err(error) = file.move_to_line_end(u64::MAX, max_line) {
            error!(%error, "cannot find the end of the input: reading it from its start");
        }
        let (offset, size) = (file.position(), file.size());
        info!(offset, size, "no earlier position: the input is read from here");
        self.add_lane(file, Ledger::default());
        self.set_input(InputState::Following);
    }

    /// Compares what the checkpoint knows with what is there.
    fn go_on(&mut self, checkpoint: &Checkpoint) {
        let Some((live, older)) = checkpoint.generations.split_last() else {
            if let Some(file) = self.open_at_start() {
                self.add_lane(file, Ledger::default());
            }
            return;
        };
        for generation in older {
            self.give_up(generation);
        }
        if let Some(file) = self.open_at_start() {
            self.adopt(file, live);
        } else if find_moved(self.edges.fs.as_ref(), &live.path, &live.identity).is_some() {
            self.give_up(live);
        } else {
            // Perhaps its file system is not mounted yet, or it may not be read for now: what is
            // known of it is kept until something is there to compare it with.
            self.remembered = Some(live.clone());
        }
    }

    /// Goes on with a file that is there, where what is known of the input says so.
    pub(super) fn adopt(&mut self, mut file: FollowedFile, live: &GenerationState) {
        let known = Known {
            identity: &live.identity,
            head: live.head.as_ref(),
            mark: &live.mark,
            offset: live.offset,
            generation: live.generation,
            after: live.after,
        };
        let max_line = self.settings.max_line_bytes;
        let resume = match file.resume(&known, max_line) {
            Ok(resume) => resume,
            Err(error) => {
                // It may heal; the next look tries again.
                error!(%error, "cannot compare the input with the checkpoint; trying on");
                self.remembered = Some(live.clone());
                return;
            }
        };
        match resume {
            Resume::Continue => {
                info!(
                    offset = live.offset,
                    size = file.size(),
                    "resumed: the input goes on from here"
                );
                self.resume_lane(file, live);
            }
            Resume::Truncated => self.begin_new_life(file, live, LostReason::TruncatedUnread),
            Resume::Rewritten => self.begin_new_life(file, live, LostReason::Rewritten),
            Resume::Replaced => {
                self.give_up(live);
                info!("another file is at the input path: it is read from its start");
                self.add_lane(file, Ledger::default());
            }
        }
    }

    fn resume_lane(&mut self, file: FollowedFile, known: &GenerationState) {
        let nothing_new = self.position.is_committed();
        self.add_lane(file, known.ledger);
        if nothing_new {
            // Nothing is new: a start that finds what it left writes nothing.
            self.position.unchanged(known.size);
        }
    }

    /// The same inode has other content now.
    fn begin_new_life(&mut self, file: FollowedFile, known: &GenerationState, reason: LostReason) {
        warn!(
            offset = known.offset,
            reason = reason.as_str(),
            "the input is not what the checkpoint describes: its content is read from the start"
        );
        self.closed += known.ledger;
        let (from, to) = (known.offset, known.size.max(known.offset));
        self.lose(Lost { generation: known.generation, from, to, reason });
        self.add_lane(file, Ledger::default());
    }

    /// The file of a generation is not at the input path any more.
    fn give_up(&mut self, known: &GenerationState) {
        self.closed += known.ledger;
        let to = match find_moved(self.edges.fs.as_ref(), &known.path, &known.identity) {
            Some(size) => size.max(known.size),
            None => known.size,
        };
        let (from, to) = (known.offset, to.max(known.offset));
        let reason = LostReason::MovedAway;
        if from == to {
            info!(
                offset = from,
                "a file was moved away while the bridge was down; as far as is known it was \
                 delivered whole"
            );
        }
        self.lose(Lost { generation: known.generation, from, to, reason });
        self.position.moved();
    }

    /// The ledger of everything behind the watermark.
    pub(super) fn settled_so_far(&self) -> Ledger {
        let remembered = self.remembered.iter().map(|known| known.ledger);
        let ledgers = self.lanes.iter().map(|lane| lane.ledger).chain(remembered);
        ledgers.fold(self.closed, |mut sum, ledger| {
            sum += ledger;
            sum
        })
    }

    /// Opens the input, if there is one. What is in the way is told by the first look.
    fn open_at_start(&mut self) -> Option<FollowedFile> {
        let (fs, path) = (self.edges.fs.as_ref(), &self.settings.input);
        FollowedFile::open(fs, path, self.settings.max_line_bytes, None).ok().flatten()
    }
}

/// What a checkpoint says of the file at `path` when it is to be read from `offset` on, moved back
/// to a line end. `known` is what the checkpoint said before. None: there is no regular file.
///
/// # Errors
/// The system's, if the file can't be read.
pub fn state_at(
    fs: &dyn Fs,
    path: &Path,
    max_line_bytes: usize,
    offset: u64,
    known: Option<&GenerationState>,
) -> io::Result<Option<GenerationState>> {
    let former = known.map(|known| (known.identity, known.generation));
    let Some(mut file) = FollowedFile::open(fs, path, max_line_bytes, former)? else {
        return Ok(None);
    };
    if let Some(known) = known {
        let whole = Known {
            identity: &known.identity,
            head: known.head.as_ref(),
            mark: &Fingerprint::of_mark(b""),
            offset: 0,
            generation: known.generation,
            after: known.after,
        };
        // The same life keeps its name, so its events keep their ids.
        file.resume(&whole, max_line_bytes)?;
    }
    file.move_to_line_end(offset, max_line_bytes)?;
    Ok(Some(Lane::new(0, file, Ledger::default(), Instant::now()).checkpoint()))
}

/// The size of a file that was moved to another name in its directory.
fn find_moved(fs: &dyn Fs, path: &Path, identity: &Identity) -> Option<u64> {
    let siblings: io::Result<_> = fs.list(path.parent()?);
    siblings.ok()?.into_iter().filter(|sibling| sibling != path).find_map(|sibling| {
        let facts = fs.stat(&sibling).ok()?;
        let there = Identity { dev: facts.dev, ino: facts.ino, born_ns: facts.born_ns };
        there.is_same_file(identity).then_some(facts.size)
    })
}
